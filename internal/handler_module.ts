/**
 * A handler in a module of its own.
 *
 * @module
 */

import { reasonOf } from "./thrown.ts";
import type { Handler } from "./work_loop.ts";

/** A handler's module. */
export interface HandlerModule {
  /** Its default export. */
  readonly handler: Handler<never, unknown>;
  /** Everything that it exports. */
  readonly exports: Readonly<Record<string, unknown>>;
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
  let exports: Record<string, unknown>;
  try {
    exports = await import(url);
  } catch (error) {
    throw new TypeError(
      `Cannot load the handler ${url}: ${reasonOf(error)}`,
      { cause: error },
    );
  }
  if (typeof exports.default !== "function") {
    throw new TypeError(
      `Cannot load the handler ${url}: its default export is ${typeof exports
        .default}, expected a function`,
    );
  }
  return { handler: exports.default as Handler<never, unknown>, exports };
}
