/**
 * What becomes of settled items: first the joblog, then the output. Whatever
 * comes while one batch is being written is the next batch, so that one sync
 * of the disk serves many.
 *
 * @module
 */

import type { Format, InputItem } from "./cli_input.ts";
import { formatEntry, type Joblog, type Settled } from "./cli_joblog.ts";
import {
  excerpt,
  formatResult,
  isFull,
  outputError,
  ROOM_MS,
} from "./cli_output.ts";
import type { Console } from "./cli_progress.ts";

/** Above so much that waits to be written, results aren't taken, in characters. */
const MAX_WAITING = 8 * 1024 * 1024;

/** Options of {@linkcode Reporter}. */
export interface ReporterOptions {
  readonly joblog: Joblog | null;
  readonly format: Format;
  readonly console: Console;
}

/** Records and prints. */
export class Reporter {
  /** Items that were reported, or will be. */
  done = 0;
  /** Of them, those that failed. */
  failed = 0;
  readonly #options: ReporterOptions;
  readonly #end: string;
  #entries = "";
  #output: (string | Uint8Array)[] = [];
  #failures: string[] = [];
  #waiting = 0;
  #flushing: Promise<void> | null = null;
  #error: { reason: unknown } | null = null;

  constructor(options: ReporterOptions) {
    this.#options = options;
    this.#end = options.format === "null" ? "\0" : "\n";
  }

  /**
   * Takes a settled item.
   *
   * @returns A promise if too much waits: wait for it before the next.
   * @throws What writing ran into.
   */
  add(item: InputItem, settled: Settled): Promise<void> | undefined {
    if (this.#error !== null) throw this.#error.reason;
    const { joblog, format } = this.#options;
    this.done++;
    if (joblog !== null) {
      const entry = formatEntry(item, settled);
      this.#entries += entry;
      this.#waiting += entry.length;
    }
    const { failure } = settled;
    if (failure !== undefined) {
      this.failed++;
      const name = excerpt(item.text, 60);
      const { message, cause } = failure;
      const text = cause === undefined ? message : `${message}: ${cause}`;
      // Only a line of ours begins as one.
      const line = `distchan: item ${item.seq} (${name}) failed: ${
        text.replaceAll("\n", "\n  ")
      }`;
      this.#failures.push(line);
      this.#waiting += line.length;
    } else {
      const output = formatResult(settled.result, format);
      if (output !== null) {
        this.#output.push(output, this.#end);
        this.#waiting += output.length;
      }
    }
    const flushing = this.#flushing ??= this.#flush();
    return this.#waiting > MAX_WAITING ? flushing : undefined;
  }

  /** Resolves when all is written. */
  async finish(): Promise<void> {
    while (this.#flushing !== null) await this.#flushing;
    if (this.#error !== null) throw this.#error.reason;
  }

  /** Never rejects: whoever comes next is told. */
  async #flush(): Promise<void> {
    // What comes in the same turn of the event loop goes together.
    await new Promise((resolve) => setTimeout(resolve, 0));
    const { joblog, console } = this.#options;
    try {
      while (
        this.#entries !== "" || this.#output.length > 0 ||
        this.#failures.length > 0
      ) {
        const entries = this.#entries, output = this.#output;
        const failures = this.#failures;
        this.#entries = "";
        this.#output = [];
        this.#failures = [];
        this.#waiting = 0;
        if (entries !== "") await joblog!.write(entries);
        if (output.length > 0) await this.#print(output);
        for (const failure of failures) console.print(failure);
      }
    } catch (error) {
      this.#error = { reason: error };
    } finally {
      this.#flushing = null;
    }
  }

  async #print(output: readonly (string | Uint8Array)[]): Promise<void> {
    // The bar's next turn may come before this is written.
    using _ = Deno.stdout.isTerminal() ? this.#options.console.pause() : null;
    let text = "";
    for (const part of output) {
      if (typeof part === "string") text += part;
      else {
        await writeAll(new TextEncoder().encode(text));
        await writeAll(part);
        text = "";
      }
    }
    await writeAll(new TextEncoder().encode(text));
  }
}

async function writeAll(bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    try {
      at += await Deno.stdout.write(bytes.subarray(at));
    } catch (error) {
      if (!isFull(error)) throw outputError(error);
      await new Promise((resolve) => setTimeout(resolve, ROOM_MS));
    }
  }
}
