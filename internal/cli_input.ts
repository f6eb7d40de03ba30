/**
 * Items from a stream of bytes: cut at line ends or at `\0`, numbered from 1
 * on, those that are settled already passed over.
 *
 * @module
 */

import { FatalError, UsageError } from "./cli_arguments.ts";
import { concat } from "./concat.ts";
import { reasonOf } from "./thrown.ts";

/** How items are read and results written. */
export type Format = "lines" | "jsonl" | "null";

/** One item of the input. */
export interface InputItem {
  /** Its place in the input, from 1 on. */
  readonly seq: number;
  /** As it was read. */
  readonly text: string;
}

/** Options of {@linkcode ItemSource}. */
export interface ItemSourceOptions {
  readonly format: Format;
  /** Whether an item is settled already. It may throw. */
  isSettled(item: InputItem): boolean;
  /** An item can't be read: it fails before it is sent. */
  onUnreadable(item: InputItem, error: Error): Promise<void> | undefined;
}

const BOM = /^\ufeff/;
/** The longest item, in bytes: whatever never ends a line isn't a list. */
const MAX_ITEM_BYTES = 64 * 1024 * 1024;

/**
 * The items, as values. Each one that is handed out is in `taken`, by its place
 * among those, until it is deleted there.
 */
export class ItemSource implements AsyncIterableIterator<unknown, undefined> {
  /** What is under way, by the index that `map()` knows it by. */
  readonly taken: Map<number, InputItem> = new Map();
  /** Items read so far. */
  read = 0;
  /** Of them, those that were settled already. */
  skipped = 0;
  /** Whether the input has come to its end. */
  hasEnded = false;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #options: ItemSourceOptions;
  readonly #separator: number;
  #isStopped = false;
  #texts: (string | null)[] = [];
  #at = 0;
  #rest: Uint8Array[] = [];
  #restBytes = 0;
  #handedOut = 0;

  constructor(
    stream: ReadableStream<Uint8Array>,
    options: ItemSourceOptions,
  ) {
    this.#reader = stream.getReader();
    this.#options = options;
    this.#separator = options.format === "null" ? 0 : 0x0a;
  }

  /** No more items, not even those that are read. */
  stop(): void {
    this.#isStopped = true;
    // Ends the wait for a read that is under way, too.
    this.#reader.cancel().catch(() => {});
  }

  /** The next item. */
  async next(): Promise<IteratorResult<unknown, undefined>> {
    const { format, isSettled, onUnreadable } = this.#options;
    for (;;) {
      if (this.#isStopped) return { done: true, value: undefined };
      if (this.#at === this.#texts.length) {
        if (!await this.#fill()) return { done: true, value: undefined };
        continue;
      }
      const text = this.#texts[this.#at++]!;
      // A blank line holds no value.
      if (format === "jsonl" && text?.trim() === "") continue;
      const item: InputItem = { seq: ++this.read, text: text ?? "" };
      if (isSettled(item)) {
        this.skipped++;
        continue;
      }
      let value: unknown = text;
      try {
        if (text === null) throw new TypeError("The item isn't UTF-8");
        // No JSON begins with the byte order mark that some programs begin with.
        if (format === "jsonl") value = JSON.parse(text.replace(BOM, ""));
      } catch (error) {
        const full = onUnreadable(item, error as Error);
        if (full !== undefined) await full;
        continue;
      }
      this.taken.set(this.#handedOut++, item);
      return { done: false, value };
    }
  }

  /** Whoever iterates wants no more. */
  return(): Promise<IteratorResult<unknown, undefined>> {
    this.stop();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Reads until there is an item; false at the end. */
  async #fill(): Promise<boolean> {
    this.#texts = [];
    this.#at = 0;
    while (this.#texts.length === 0) {
      const step = await this.#reader.read().catch((error) => {
        throw new FatalError(`can't read the input: ${reasonOf(error)}`);
      });
      if (this.#isStopped) return false;
      if (step.done) {
        if (this.#restBytes === 0) {
          this.hasEnded = true;
          return false;
        }
        // A last line without an end counts as a line.
        this.#texts = [this.#decode(this.#takeRest())];
      } else this.#cut(step.value);
    }
    return true;
  }

  #cut(chunk: Uint8Array): void {
    const last = chunk.lastIndexOf(this.#separator);
    if (last < 0) {
      this.#keep(chunk);
      return;
    }
    this.#keep(chunk.subarray(0, last));
    const whole = this.#takeRest();
    if (last + 1 < chunk.length) this.#keep(chunk.subarray(last + 1));
    const separator = String.fromCharCode(this.#separator);
    const texts = this.#tryDecode(whole)?.split(separator) ??
      this.#cutBytes(whole);
    this.#texts = this.#separator === 0 ? texts : texts.map(withoutCr);
  }

  /** Some item in it isn't UTF-8: the others are. */
  #cutBytes(bytes: Uint8Array): (string | null)[] {
    const texts: (string | null)[] = [];
    for (let from = 0; from <= bytes.length;) {
      let to = bytes.indexOf(this.#separator, from);
      if (to < 0) to = bytes.length;
      texts.push(this.#tryDecode(bytes.subarray(from, to)));
      from = to + 1;
    }
    return texts;
  }

  #decode(bytes: Uint8Array): string | null {
    const text = this.#tryDecode(bytes);
    return this.#separator === 0 ? text : withoutCr(text);
  }

  #tryDecode(bytes: Uint8Array): string | null {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
        .decode(bytes);
    } catch {
      return null;
    }
  }

  #keep(bytes: Uint8Array): void {
    this.#rest.push(bytes);
    this.#restBytes += bytes.length;
    if (this.#restBytes > MAX_ITEM_BYTES) {
      throw new UsageError(
        `an item is longer than ${MAX_ITEM_BYTES} bytes: is the format right?`,
      );
    }
  }

  #takeRest(): Uint8Array {
    const bytes = concat(this.#rest);
    this.#rest = [];
    this.#restBytes = 0;
    return bytes;
  }
}

function withoutCr(text: string | null): string | null {
  return text !== null && text.endsWith("\r") ? text.slice(0, -1) : text;
}

/**
 * How many items a file has: for the progress bar, read beforehand. NaN: that
 * can't be known, since what is read from a pipe is gone.
 */
export async function countItems(
  path: string,
  format: Format,
  signal: AbortSignal,
): Promise<number> {
  if (!(await Deno.stat(path)).isFile) return NaN;
  const separator = format === "null" ? 0 : 0x0a;
  let count = 0, last = separator;
  const file = await Deno.open(path);
  for await (const chunk of file.readable) {
    if (signal.aborted) return NaN;
    for (
      let at = chunk.indexOf(separator);
      at >= 0;
      at = chunk.indexOf(separator, at + 1)
    ) count++;
    last = chunk[chunk.length - 1]!;
  }
  return last === separator ? count : count + 1;
}
