/**
 * Stand-in for `@std/cbor` where JSR can't be reached: its tag and value types
 * and nothing else. It has no `encodeCbor()`, by which the tests that need the
 * real one know to skip themselves (`tests/_support/real_std.ts`).
 *
 * @module
 */

/** A value that `@std/cbor` reads and writes without any structure in it. */
export type CborPrimitiveType =
  | undefined
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Date;

/** Any value that `@std/cbor` reads and writes. */
export type CborType =
  | CborPrimitiveType
  | CborTag<CborType>
  | Map<CborType, CborType>
  | CborType[]
  | { [key: string]: CborType };

/**
 * A value with a CBOR tag number in front of it.
 *
 * @typeParam T The type of the tagged value. The real class takes the values
 * of its streams too; nothing here does.
 */
export class CborTag<T extends CborType> {
  /** The tag's number, as in the IANA registry of CBOR tags. */
  tagNumber: number | bigint;
  /** The tagged value. */
  tagContent: T;

  /**
   * Makes a tag.
   *
   * @param tagNumber The tag's number.
   * @param tagContent The tagged value.
   */
  constructor(tagNumber: number | bigint, tagContent: T) {
    this.tagNumber = tagNumber;
    this.tagContent = tagContent;
  }
}
