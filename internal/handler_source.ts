/**
 * Where a handler comes from: a function, a module, or a module in isolates.
 *
 * @module
 */

import type { Codec } from "../codec.ts";
import { importHandler } from "./handler_module.ts";
import type { IsolateSink } from "./isolate_pool.ts";
import type { WorkOptions } from "./options.ts";
import { type Handler, type Runner, WorkLoop } from "./work_loop.ts";

/** A handler that can be run, on one connection after another. */
export interface HandlerSource {
  /** Whether its runners take and give payloads, not values. */
  readonly takesPayloads: boolean;
  /** Why nothing will be executed any more, or null. */
  readonly error: Error | null;
  /** Makes the runner for a connection; the last one's must be closed. */
  runner(sink: IsolateSink): Runner;
  /** Frees what it holds; resolves when nothing of it runs any more. */
  close(): Promise<void>;
}

/** Runs a function in this event loop. */
export class FunctionSource implements HandlerSource {
  readonly takesPayloads = false;
  readonly error = null;
  readonly #handler: Handler<never, unknown>;
  readonly #concurrency: number;

  constructor(handler: Handler<never, unknown>, options: WorkOptions) {
    this.#handler = handler;
    this.#concurrency = options.concurrency ?? 1;
  }

  runner(sink: IsolateSink): Runner {
    return new WorkLoop(this.#handler, this.#concurrency, sink);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/**
 * Loads a handler's module.
 *
 * @param url The module.
 * @param options How to work. An abort of `signal` gives up, with its reason.
 * @param codec The connection's codec.
 * @throws {TypeError} If it can't be used.
 */
export async function openModule(
  url: URL,
  options: WorkOptions,
  codec: Codec<unknown>,
): Promise<HandlerSource> {
  const { concurrency = 1, cancelGraceMs = 5000, signal } = options;
  if (!options.isolate) {
    const { handler } = await importHandler(url.href);
    return new FunctionSource(handler, options);
  }
  // Not before it is needed: threads take long to load.
  const { IsolatePool } = await import("./isolate_pool.ts");
  const pool = new IsolatePool(url, { concurrency, cancelGraceMs, codec });
  await pool.open(signal);
  return pool;
}
