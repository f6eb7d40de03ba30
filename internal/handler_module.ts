/**
 * A handler in a module of its own.
 *
 * @module
 */

import { reasonOf } from "./thrown.ts";
import type { Handler } from "./work_loop.ts";

/** How much of a URL is quoted, in UTF-16 units. */
const MAX_URL = 300;

/** What a handler's module may export beside anything else. */
export interface HandlerExports {
  /** The handler. */
  readonly default?: unknown;
  /** The connection's codec, where another thread can't be given it. */
  readonly codec?: unknown;
  /** The connection's transforms, likewise. */
  readonly transforms?: unknown;
}

/** A handler's module. */
export interface HandlerModule {
  /** Its default export. */
  readonly handler: Handler<never, unknown>;
  /** Everything that it exports. */
  readonly exports: HandlerExports;
}

/** The module that this thread was started for; null: it is no thread of ours. */
let own: string | null = null;

/**
 * The same as {@linkcode importHandler}, in a thread that was started for it.
 */
export function importOwnHandler(url: string): Promise<HandlerModule> {
  own = url;
  return importHandler(url);
}

/**
 * To be called before threads are started: where a program is its own handler,
 * each thread would run it, and start threads in turn, without end.
 *
 * @throws {TypeError} If this is a thread of the same module.
 */
export function checkNotInside(url: string): void {
  if (url !== own) return;
  throw new TypeError(
    "Cannot start threads of a module in a thread of the same module: what it starts by itself belongs behind `if (import.meta.main)`",
  );
}

/**
 * Imports a handler's module.
 *
 * @throws {TypeError} If it can't be loaded, or its default export is no
 * function. The `cause` is what went wrong.
 */
export async function importHandler(
  url: string,
): Promise<HandlerModule> {
  let exports: HandlerExports;
  try {
    exports = await import(url);
  } catch (error) {
    throw notLoaded(url, reasonOf(error), { cause: error });
  }
  if (typeof exports.default !== "function") {
    throw notLoaded(
      url,
      `its default export is ${typeof exports.default}, expected a function`,
    );
  }
  return { handler: exports.default as Handler<never, unknown>, exports };
}

/** What is said of a handler's module that can't be used. */
export function notLoaded(
  url: string,
  reason: string,
  options?: ErrorOptions,
): TypeError {
  // The source may be the URL: what comes behind it is what matters.
  const where = url.length > MAX_URL ? `${url.slice(0, MAX_URL)}…` : url;
  const why = reason.replaceAll(url, where);
  return new TypeError(`Cannot load the handler ${where}: ${why}`, options);
}
