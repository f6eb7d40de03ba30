/**
 * Where a handler comes from: a function, a module, or a module in isolates.
 *
 * @module
 */

import { cbor, type Codec } from "../codec.ts";
import { importHandler } from "./handler_module.ts";
import { DEFAULTS, kindOf, type WorkOptions } from "./options.ts";
import { orAbort } from "./promises.ts";
import type { HandlerSource, IsolateSink, Runner } from "./runner.ts";
import { type Handler, WorkLoop } from "./work_loop.ts";

/** Runs a function in this event loop. */
export class FunctionSource implements HandlerSource {
  readonly takesPayloads = false;
  readonly error = null;
  readonly #handler: Handler<never, unknown>;
  readonly #concurrency: number;

  constructor(handler: Handler<never, unknown>, options: WorkOptions) {
    this.#handler = handler;
    this.#concurrency = options.concurrency ?? DEFAULTS.concurrency;
  }

  runner(sink: IsolateSink): Runner {
    return new WorkLoop(this.#handler, this.#concurrency, sink);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/**
 * Opens a handler: a function is there at once, a module is loaded.
 *
 * @param handler The function, or the module.
 * @param options How to work. An abort of `signal` gives up, with its reason.
 * @param codec The connection's codec.
 * @throws {TypeError} If it can't be used.
 */
export async function openHandler<Item, Result>(
  handler: Handler<Item, Result> | URL,
  options: WorkOptions,
  codec: Codec<unknown> = cbor(),
): Promise<HandlerSource> {
  if (typeof handler === "function") {
    return new FunctionSource(handler as Handler<never, unknown>, options);
  }
  const {
    concurrency = DEFAULTS.concurrency,
    cancelGraceMs = DEFAULTS.cancelGraceMs,
    signal,
  } = options;
  if (!options.isolate) {
    const loading = importHandler(handler.href);
    const module = await orAbort(loading, signal, () => {});
    return new FunctionSource(module.handler, options);
  }
  // Not before it is needed: threads take long to load.
  const { IsolatePool } = await import("./isolate_pool.ts");
  const pool = new IsolatePool(handler, { concurrency, cancelGraceMs, codec });
  await pool.open(signal);
  return pool;
}

/**
 * Checks a handler and how it is to be run.
 *
 * @throws {TypeError} If they don't go together.
 */
export function checkHandler(
  handler: unknown,
  workOptions: WorkOptions,
): void {
  const isFunction = typeof handler === "function";
  if (!isFunction && !(handler instanceof URL)) {
    throw new TypeError(
      `Cannot work: handler is ${
        kindOf(handler)
      }, expected a function or the URL of a module`,
    );
  }
  if (!workOptions.isolate) return;
  if (isFunction) {
    throw new TypeError(
      'Cannot work in isolates: handler is a function, expected the URL of a module: new URL("./handler.ts", import.meta.url)',
    );
  }
}
