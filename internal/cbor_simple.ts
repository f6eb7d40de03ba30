/**
 * The CBOR simple values that JavaScript has no value for.
 *
 * @module
 */

/**
 * A CBOR simple value other than `false`, `true`, `null` and `undefined`. They
 * have no meaning of their own; they are kept so that nothing is lost.
 *
 * @example Decode and encode a simple value
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { cbor, CborSimple } from "@distchan/distchan/codec";
 *
 * const codec = cbor();
 * const bytes = new Uint8Array([0xf8, 0xff]);
 * assertEquals(codec.decode(bytes), new CborSimple(255));
 * assertEquals(codec.encode(new CborSimple(255)), bytes);
 * ```
 */
export class CborSimple {
  /** The simple value's number: 0 to 19, 24, or 32 to 255. */
  readonly value: number;

  /**
   * Makes a simple value.
   *
   * @param value The simple value's number: 0 to 19, or 32 to 255. RFC 8949
   * reserves 24 to 31, but 24 is in RFC 7049's test vectors and so is taken too.
   * @throws {RangeError} If it is any other number.
   */
  constructor(value: number) {
    if (!isSimple(value)) {
      throw new RangeError(
        `Cannot make a simple value of ${value}: expected 0 to 19 or 32 to 255`,
      );
    }
    this.value = value;
  }
}

/** Whether a number is that of a {@linkcode CborSimple}. */
export function isSimple(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 255 &&
    (value < 20 || value === 24 || value >= 32);
}
