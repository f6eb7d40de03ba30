/**
 * What is written: results as bytes, and text that a terminal can be shown.
 *
 * @module
 */

import { FatalError } from "./cli_arguments.ts";
import type { Format } from "./cli_input.ts";
import { CONTROLS } from "./frame.ts";
import { reasonOf } from "./thrown.ts";

// deno-lint-ignore no-control-regex
const COLORS = /\x1b\[[\d;]*m/g;

/** Nobody reads standard output any more. */
export class PipeClosedError extends Error {}

/**
 * Writes text to standard output.
 *
 * @throws {PipeClosedError} If nobody reads it.
 * @throws {FatalError} If it can't be written.
 */
export function print(text: string): void {
  try {
    writeSync(Deno.stdout, text);
  } catch (error) {
    throw outputError(error);
  }
}

/** What to throw where standard output can't be written. */
export function outputError(error: unknown): Error {
  return error instanceof Deno.errors.BrokenPipe
    ? new PipeClosedError()
    : new FatalError(`can't write standard output: ${reasonOf(error)}`);
}

/** Writes text to standard error, if anybody is there to be told. */
export function printError(text: string): void {
  try {
    writeSync(Deno.stderr, text);
  } catch {
    // Nobody is.
  }
}

/** How long to wait for room where a write doesn't wait for it itself, in ms. */
export const ROOM_MS = 10;

/**
 * Whether there was no room for a write just now: another process with the same
 * pipe, such as ssh in the background, has made it non-blocking for all.
 */
export function isFull(error: unknown): boolean {
  return error instanceof Deno.errors.WouldBlock;
}

function writeSync(
  to: { writeSync(bytes: Uint8Array): number },
  text: string,
): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) {
    try {
      at += to.writeSync(bytes.subarray(at));
    } catch (error) {
      if (!isFull(error)) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ROOM_MS);
    }
  }
}

/** So many of something: "1 worker", "2 workers". */
export function many(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

/** The terminal's size; 80 × 24 where it has none, or says 0 × 0. */
export function terminalSize(): { columns: number; rows: number } {
  let size = { columns: 0, rows: 0 };
  try {
    size = Deno.consoleSize();
  } catch {
    // There is no terminal.
  }
  return { columns: size.columns || 80, rows: size.rows || 24 };
}

/**
 * A result as it is printed; null: nothing is. Text and bytes are printed as
 * they are, except in the format "jsonl"; everything else as JSON.
 */
export function formatResult(
  result: unknown,
  format: Format,
): string | Uint8Array | null {
  if (format === "jsonl") return toJson(result);
  if (result === undefined) return null;
  if (result instanceof ArrayBuffer) return new Uint8Array(result);
  if (typeof result === "string" || result instanceof Uint8Array) return result;
  return toJson(result);
}

/** JSON of anything that the codec can carry. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, replacer) ?? "null";
}

function replacer(_key: string, value: unknown): unknown {
  if (typeof value === "object" && value !== null) {
    if (value instanceof Map) {
      return [...value.keys()].every((key) => typeof key === "string")
        ? Object.fromEntries(value)
        : [...value];
    }
    if (value instanceof Set) return [...value];
    if (value instanceof Uint8Array) return value.toBase64();
    if (value instanceof ArrayBuffer) return new Uint8Array(value).toBase64();
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      return [...value as unknown as Iterable<unknown>];
    }
    if (value instanceof Error) {
      return { name: value.name, message: value.message };
    }
    if (value instanceof RegExp) return String(value);
    return value;
  }
  return typeof value === "bigint" ? String(value) : value;
}

/**
 * Text of others on a terminal: without escape sequences, which could do more
 * than be shown. Colors, as Deno puts them into its own messages, are left out.
 */
export function printable(text: string): string {
  return text.replaceAll(COLORS, "").replaceAll(CONTROLS, "\ufffd");
}

/** A color may be cut off where no more of a text is looked at. */
const MAX_COLOR = 32;

/** So much of a text, on one line. Little more of a long one is looked at. */
export function excerpt(text: string, length: number): string {
  for (let size = 4 * (length + MAX_COLOR);; size *= 4) {
    const line = printable(text.slice(0, size).replaceAll(/\s+/g, " ").trim());
    if (size < text.length && line.length <= length + MAX_COLOR) continue;
    return line.length <= length ? line : `${line.slice(0, length - 1)}…`;
  }
}
