/**
 * The record of what is settled, a line of JSON an item. An entry is on disk
 * before its item is reported, so whatever a crash leaves behind is true.
 *
 * @module
 */

import { FatalError, UsageError } from "./cli_arguments.ts";
import type { InputItem } from "./cli_input.ts";
import { excerpt, many, toJson } from "./cli_output.ts";
import { reasonOf } from "./thrown.ts";

/** What became of an item. */
export type Settled =
  | { readonly result: unknown; readonly failure?: undefined }
  | {
    readonly failure: {
      readonly name: string;
      readonly message: string;
      /** What is behind it, if it says more. */
      readonly cause?: string;
      readonly attempts: number;
    };
  };

/** What an entry says of its item. */
interface Entry {
  readonly seq: number;
  readonly hash: number;
  readonly ok: boolean;
}

/** Items a page of {@linkcode Known}. */
const PAGE = 2 ** 16;
const OK = 1, FAILED = 2;

/** What is known of earlier runs, in five bytes an item. */
class Known {
  /** How many items there are. */
  size = 0;
  /** How many of them failed. */
  failed = 0;
  readonly #pages = new Map<
    number,
    { hashes: Uint32Array<ArrayBuffer>; states: Uint8Array<ArrayBuffer> }
  >();

  /** Adds an item, or what became of it when it was done again. */
  set({ seq, hash, ok }: Entry): void {
    const number = Math.floor(seq / PAGE), i = seq % PAGE;
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = {
        hashes: new Uint32Array(PAGE),
        states: new Uint8Array(PAGE),
      };
      this.#pages.set(number, page);
    }
    const before = page.states[i]!;
    if (before === 0) this.size++;
    if (before === FAILED) this.failed--;
    if (!ok) this.failed++;
    page.hashes[i] = hash;
    page.states[i] = ok ? OK : FAILED;
  }

  /** What became of an item; undefined: it wasn't settled. */
  get(seq: number): Entry | undefined {
    const page = this.#pages.get(Math.floor(seq / PAGE)), i = seq % PAGE;
    const state = page?.states[i];
    if (!state) return undefined;
    return { seq, hash: page!.hashes[i]!, ok: state === OK };
  }
}

/** Options of {@linkcode Joblog.open}. */
export interface JoblogOptions {
  /** What is in it already is kept. */
  readonly resume: boolean;
  /** What failed is done again. */
  readonly resumeFailed: boolean;
}

/** The byte that ends a line. */
const LINE_FEED = 0x0a;
/** How much of an item an entry quotes. */
const QUOTE = 200;
/**
 * An entry as it is written here: what resuming needs of it. After a power cut
 * there may be a hole of zeros in it, and JSON has no control characters.
 */
const ENTRY =
  /^\{"seq":(\d{1,15}),"at":"[^"]*","ok":(true|false),"hash":"([\da-f]{8})",[ -\uffff]*\}$/;

/** A hash, in an entry. */
const HASH = /^[\da-f]{8}$/;

/** An open joblog; no other process has the same one open. */
export class Joblog implements Disposable {
  /** Of the items of earlier runs, those that failed and stay so. */
  readonly failedBefore: number;
  readonly #path: string;
  readonly #file: Deno.FsFile;
  readonly #known: Known;
  readonly #resumeFailed: boolean;

  private constructor(
    path: string,
    file: Deno.FsFile,
    known: Known,
    resumeFailed: boolean,
  ) {
    this.#path = path;
    this.#file = file;
    this.#known = known;
    this.#resumeFailed = resumeFailed;
    this.failedBefore = resumeFailed ? 0 : known.failed;
  }

  /**
   * Opens one, or begins it.
   *
   * @throws {UsageError} If it can't be opened or locked, is in use, holds
   * entries and wasn't to be resumed, or isn't a joblog.
   */
  static async open(path: string, options: JoblogOptions): Promise<Joblog> {
    const { resume, resumeFailed } = options;
    let file: Deno.FsFile;
    try {
      // Not `append`: Windows doesn't cut a file that is open for that alone.
      file = await Deno.open(path, { read: true, write: true, create: true });
    } catch (error) {
      throw new UsageError(`can't open the joblog ${path}: ${reasonOf(error)}`);
    }
    try {
      // A pipe or a device can't be read to its end, or not be synced.
      if (!(await file.stat()).isFile) {
        throw new UsageError(`the joblog ${path} isn't a regular file`);
      }
      if (!await file.tryLock(true)) {
        throw new UsageError(`the joblog ${path} is in use by another process`);
      }
      const known = await readEntries(path, file);
      if (known.size > 0 && !resume) {
        throw new UsageError(
          `the joblog ${path} has ${
            many(known.size, "item")
          } already: --resume goes on with it`,
        );
      }
      return new Joblog(path, file, known, resumeFailed);
    } catch (error) {
      file.close();
      if (error instanceof UsageError) throw error;
      // Not every file system has locks.
      throw new UsageError(`can't use the joblog ${path}: ${reasonOf(error)}`);
    }
  }

  /**
   * Whether an item was settled by an earlier run.
   *
   * @throws {UsageError} If that run had another item in its place.
   */
  has(item: InputItem): boolean {
    const known = this.#known.get(item.seq);
    if (known === undefined) return false;
    if (known.hash !== hashOf(item.text)) {
      throw new UsageError(
        `item ${item.seq} isn't the one in the joblog ${this.#path}: expected the same input, with nothing but additions at its end`,
      );
    }
    return known.ok || !this.#resumeFailed;
  }

  /**
   * Writes entries, and waits until they are on disk.
   *
   * @throws {FatalError} If they can't be. Then none of them stays: nothing of
   * them is reported, and `--resume` would pass over those that fitted in.
   */
  async write(entries: string): Promise<void> {
    const file = this.#file;
    const start = await file.seek(0, Deno.SeekMode.Current);
    try {
      const bytes = new TextEncoder().encode(entries);
      for (let at = 0; at < bytes.length;) {
        at += await file.write(bytes.subarray(at));
      }
      await file.syncData();
    } catch (error) {
      // What can't be cut either is as after a crash.
      await file.truncate(start).catch(() => {});
      throw new FatalError(
        `can't write the joblog ${this.#path}: ${reasonOf(error)}`,
      );
    }
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** An entry, as a line. */
export function formatEntry(item: InputItem, settled: Settled): string {
  const { seq, text } = item;
  const head = {
    seq,
    at: new Date().toISOString(),
    ok: settled.failure === undefined,
    hash: hashOf(text).toString(16).padStart(8, "0"),
    item: text.length > QUOTE ? excerpt(text, QUOTE) : text,
  };
  return toJson(
    settled.failure === undefined
      ? { ...head, result: settled.result ?? null }
      : { ...head, error: settled.failure },
  ) + "\n";
}

/**
 * Reads what is there, up to where writing goes on. A last line without its end
 * was being written when the machine or the process stopped: it is cut off, and
 * its item done again.
 */
async function readEntries(path: string, file: Deno.FsFile): Promise<Known> {
  const known = new Known();
  const decoder = new TextDecoder();
  const chunk = new Uint8Array(256 * 1024);
  let rest = "", line = 0, at = 0, whole = 0, isBad = false;
  for (;;) {
    const count = await file.read(chunk);
    if (count === null) break;
    const bytes = chunk.subarray(0, count);
    rest += decoder.decode(bytes, { stream: true });
    // A long line isn't looked through again with each part of it.
    const lines = bytes.includes(LINE_FEED) ? rest.split("\n") : [rest];
    rest = lines.pop()!;
    let end = 0;
    for (const text of lines) {
      line++;
      // By its bytes: of what isn't UTF-8, text has another length.
      end = bytes.indexOf(LINE_FEED, end) + 1;
      if (isBad) {
        throw new UsageError(
          known.size === 0
            ? `${path} isn't a joblog`
            : `line ${line - 1} of ${path} isn't an entry of a joblog`,
        );
      }
      const entry = parseEntry(text);
      if (entry === null) {
        // After a power cut the end may be anything: only the last may be.
        isBad = true;
        continue;
      }
      known.set(entry);
      whole = at + end;
    }
    at += count;
  }
  const { size } = await file.stat();
  if (isBad && known.size === 0) {
    throw new UsageError(`${path} isn't a joblog`);
  }
  if (size > whole) {
    if (known.size === 0 && !rest.startsWith('{"seq":'.slice(0, rest.length))) {
      throw new UsageError(`${path} isn't a joblog`);
    }
    await file.truncate(whole);
    await file.seek(whole, Deno.SeekMode.Start);
  }
  return known;
}

function parseEntry(line: string): Entry | null {
  // V8 keeps a table of every short string in JSON: a million items and results
  // that are different numbers take it many seconds.
  const entry = ENTRY.exec(line);
  if (entry !== null) {
    const [, seq, ok, hash] = entry;
    return { seq: Number(seq), ok: ok === "true", hash: parseInt(hash!, 16) };
  }
  try {
    const { seq, hash, ok } = JSON.parse(line.replace(/^\ufeff/, ""));
    return Number.isSafeInteger(seq) && seq >= 0 && HASH.test(hash) &&
        typeof ok === "boolean"
      ? { seq, hash: parseInt(hash, 16), ok }
      : null;
  } catch {
    return null;
  }
}

/** Tells items apart that were exchanged by accident: FNV-1a. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  return hash >>> 0;
}
