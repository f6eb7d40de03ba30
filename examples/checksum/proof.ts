import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import type { ItemFailure } from "../../mod.ts";
import type { Checksum, FileRef } from "./types.ts";
import { errorMessage } from "./walk.ts";

/** What can have become of a file; the demo holds if nothing is wrong. */
export type Verdict =
  | "right" // one checksum, and computed once more it is the same
  | "changed" // written, replaced or removed since the start: not comparable
  | "unreadable" // for the worker and for this process alike
  | "wrong";

/**
 * Holds what comes back against what was sent: every file exactly once, and
 * every checksum equal to the one that this process computes from the file. It
 * keeps a byte a file, so a hundred thousand files are no burden.
 */
export class Proof {
  /** How many files came to which verdict. */
  readonly counts: Record<Verdict, number> = {
    right: 0,
    changed: 0,
    unreadable: 0,
    wrong: 0,
  };
  /** How many files each worker has done. */
  readonly byWorker: Map<string, number> = new Map<string, number>();
  readonly #root: string;
  readonly #tell: (line: string) => void;
  /** The second it began in: Deno tells ctime in whole seconds. */
  readonly #start = Math.floor(Date.now() / 1000 - 0.02) * 1000;
  #answers = new Uint8Array(1024);
  #sent = 0;

  /** `tell` is given a line for each file that isn't right. */
  constructor(root: string, tell: (line: string) => void) {
    this.#root = root;
    this.#tell = tell;
  }

  /** Files handed to the server so far. */
  get sent(): number {
    return this.#sent;
  }

  /** Files that have come back, or failed. */
  get settled(): number {
    const { right, changed, unreadable, wrong } = this.counts;
    return right + changed + unreadable + wrong;
  }

  /** Notes each file as it goes to the server. */
  async *watch(files: AsyncIterable<FileRef>): AsyncGenerator<FileRef> {
    for await (const file of files) {
      this.#sent++;
      yield file;
    }
  }

  /** Checks one result. */
  async check(result: Checksum): Promise<void> {
    const { path, worker, sha256 } = result;
    this.byWorker.set(worker, (this.byWorker.get(worker) ?? 0) + 1);
    if (!this.#first(result)) return;
    try {
      const again = await recompute(this.#full(path));
      if (sha256 === again) this.counts.right++;
      else if (await this.#hasChanged(path)) this.#note("changed", path);
      else this.#note("wrong", path, `${sha256} is not ${again}`);
    } catch (error) {
      // It was there for the worker: it has been removed since.
      this.#note("changed", path, errorMessage(error));
    }
  }

  /** Checks that a file on which a worker failed can't be read here either. */
  async checkFailure({ item, error }: ItemFailure<FileRef>): Promise<void> {
    if (!this.#first(item)) return;
    const { path } = item;
    const why = errorMessage(error);
    try {
      await recompute(this.#full(path));
      const changed = await this.#hasChanged(path);
      this.#note(changed ? "changed" : "wrong", path, why);
    } catch {
      this.#note("unreadable", path, why);
    }
  }

  /** Notes the files that nothing came back for, once nothing more can come. */
  finish(): void {
    for (let id = 0; id < this.#sent; id++) {
      if (!this.#answers[id]) this.#note("wrong", `file ${id}`, "no checksum");
    }
  }

  /** Whether this file is settled by this and hasn't been before. */
  #first({ id, path }: FileRef): boolean {
    while (id >= this.#answers.length) {
      const longer = new Uint8Array(this.#answers.length * 2);
      longer.set(this.#answers);
      this.#answers = longer;
    }
    const first = id < this.#sent && this.#answers[id] === 0;
    this.#answers[id] = 1;
    if (!first) this.#note("wrong", path, "came twice, or was never sent");
    return first;
  }

  /** Whether a file was written, replaced or made since the start. */
  async #hasChanged(path: string): Promise<boolean> {
    const { ctime, mtime } = await Deno.stat(this.#full(path));
    return ((ctime ?? mtime)?.getTime() ?? 0) >= this.#start;
  }

  #full(path: string): string {
    return `${this.#root}/${path}`;
  }

  #note(verdict: Verdict, path: string, why = ""): void {
    this.counts[verdict]++;
    // A name may hold anything, line breaks and escape sequences included.
    this.#tell(`${verdict}: ${JSON.stringify(path)} ${why}`.trimEnd());
  }
}

/** SHA-256 of a file, by other means than the worker's where it is small. */
async function recompute(path: string): Promise<string> {
  const { size } = await Deno.stat(path);
  if (size <= 1024 * 1024) {
    const digest = await crypto.subtle.digest(
      "SHA-256",
      await Deno.readFile(path),
    );
    return new Uint8Array(digest).toHex();
  }
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
