/**
 * How values become payloads and payloads values: {@linkcode Codec}, and
 * {@linkcode cbor}, the one that is used unless another is given.
 *
 * @example Encode and decode a value
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { cbor } from "@distchan/distchan/codec";
 *
 * const codec = cbor<{ id: bigint; when: Date; tags: Set<string> }>();
 * const value = { id: 7n, when: new Date(0), tags: new Set(["a", "b"]) };
 *
 * assertEquals(codec.decode(codec.encode(value)), value);
 * ```
 *
 * @module
 */

import { CborCodec, type CborOptions } from "./internal/cbor_codec.ts";

export { CborTag, type CborType } from "@std/cbor";
export { CborSimple } from "./internal/cbor_simple.ts";
export { DecodeError, EncodeError } from "./internal/errors.ts";
export type { CborOptions };

/**
 * Turns values into payloads and back. Both ends of a channel must use codecs
 * of the same name.
 *
 * `encode` throws if the value can't be encoded; only that item fails. `decode`
 * throws if the payload isn't a value.
 *
 * @typeParam T The type of the values.
 *
 * @example A codec of one's own: JSON
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import type { Codec } from "@distchan/distchan/codec";
 *
 * const json: Codec<unknown> = {
 *   name: "json",
 *   encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
 *   decode: (payload) => JSON.parse(new TextDecoder().decode(payload)),
 * };
 *
 * assertEquals(json.decode(json.encode({ a: 1 })), { a: 1 });
 * ```
 */
export interface Codec<T> {
  /** The name that both ends must agree on. */
  readonly name: string;
  /**
   * Turns a value into a payload.
   *
   * @param value The value.
   * @returns The payload; its bytes must not change afterwards.
   */
  encode(value: T): Uint8Array;
  /**
   * Turns a payload into a value.
   *
   * @param payload The payload. It must not be kept: its bytes are used again.
   * @returns The value.
   */
  decode(payload: Uint8Array): T;
}

/**
 * The default codec: a strict profile of CBOR (RFC 8949), which any CBOR tool
 * can read.
 *
 * What goes in comes out: `null`, `undefined`, booleans, numbers (also `-0`,
 * `NaN` and the infinities), bigints, well-formed strings, `Uint8Array` and the
 * other typed arrays, `ArrayBuffer`, `Date`, `Map`, `Set`, `RegExp`, `URL`,
 * `Error` (class, name, message, cause and, of an `AggregateError`, errors; no
 * stack and no other properties), plain objects with any text keys, objects without a prototype, arrays
 * (holes become `undefined`), {@linkcode CborTag}, {@linkcode CborSimple}, and
 * all of these inside one another. Getters are called; symbol keys and
 * properties that aren't enumerable are left out, and so is what an array, a
 * `Map` or the like has beside its elements (the `index` of what `match()` found)
 * and the `lastIndex` of a `RegExp`. A Node `Buffer` comes back as a `Uint8Array`, and a view of a
 * resizable or shared buffer comes back with a buffer of its own that is
 * neither. What is in two places of a value comes back as two.
 *
 * A small payload may be a part of a larger buffer, which other payloads share,
 * as with Node's `Buffer`: copy it before you transfer its buffer.
 *
 * Anything else, such as a function, a symbol, an instance of a class or a
 * cycle, throws an {@linkcode EncodeError} with the path to it. Bytes that
 * aren't exactly one well-formed value throw a {@linkcode DecodeError} with the
 * offset.
 *
 * @typeParam T The type of the values; it isn't checked.
 *
 * @param options The limits.
 * @returns The codec.
 * @throws {TypeError} If an option is unknown or of the wrong type.
 * @throws {RangeError} If `maxDepth` is not an integer of at least 1.
 *
 * @example Values that JSON can't carry
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { cbor } from "@distchan/distchan/codec";
 *
 * const codec = cbor();
 * const value = new Map<unknown, unknown>([
 *   [1n, new Uint8Array([1, 2, 3])],
 *   ["when", new Date("2026-01-01T00:00:00.123Z")],
 *   [undefined, [NaN, -0, Infinity]],
 * ]);
 *
 * assertEquals(codec.decode(codec.encode(value)), value);
 * ```
 */
export function cbor<T = unknown>(options: CborOptions = {}): Codec<T> {
  return new CborCodec<T>(options);
}
