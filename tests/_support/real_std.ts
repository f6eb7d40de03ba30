import * as std from "@std/cbor";

/** What the tests use of the real `@std/cbor`. */
export interface StdCbor {
  /** Encodes a value. */
  encodeCbor(value: unknown): Uint8Array;
  /** Decodes a value. */
  decodeCbor(bytes: Uint8Array): unknown;
}

/**
 * The real `@std/cbor`; undefined where `tools/std_offline/` stands in for it.
 * A test that needs it says so in its name, and skips itself:
 *
 * ```ts ignore
 * Deno.test({
 *   name: "cbor() is read by @std/cbor (needs the real one)",
 *   ignore: stdCbor === undefined,
 *   fn() {
 *     assert(stdCbor);
 *     assertEquals(stdCbor.decodeCbor(cbor().encode([1])), [1]);
 *   },
 * });
 * ```
 */
export const stdCbor: StdCbor | undefined = "encodeCbor" in std
  ? std as unknown as StdCbor
  : undefined;
