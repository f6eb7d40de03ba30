/**
 * The CBOR tags that the codec gives a meaning, as in PROTOCOL.md section 8.
 * Every other tag is a `CborTag`.
 *
 * @module
 */

/** Tag numbers, from the IANA registry. */
export const Tag = {
  /** RFC 8949: RFC 3339 text. Read, never written. */
  DATE_TEXT: 0,
  /** RFC 8949: seconds since the epoch. */
  DATE: 1,
  /** RFC 8949: an unsigned bignum. */
  BIGNUM: 2,
  /** RFC 8949: -1 - n, n an unsigned bignum. */
  NEGATIVE_BIGNUM: 3,
  /** The type's name and its constructor's arguments: ArrayBuffer and Error. */
  OBJECT: 27,
  /** RFC 8949: a URI. */
  URL: 32,
  /** RFC 7049: a regular expression without flags. Read, never written. */
  REGEXP_TEXT: 35,
  /** A set. */
  SET: 258,
  /** A map with any keys. */
  MAP: 259,
  /** A map with text keys only: an object without a prototype. */
  NULL_OBJECT: 275,
  /** An ECMAScript regular expression: source, then flags if any. */
  REGEXP: 21066,
} as const;

/** The name of {@linkcode Tag.OBJECT} for an ArrayBuffer. */
export const ARRAY_BUFFER = "ArrayBuffer";

/** The error classes that come back as themselves, by name. */
export const ERROR_CLASSES: ReadonlyMap<string, ErrorConstructor> = new Map([
  ["Error", Error],
  ["EvalError", EvalError],
  ["RangeError", RangeError],
  ["ReferenceError", ReferenceError],
  ["SyntaxError", SyntaxError],
  ["TypeError", TypeError],
  ["URIError", URIError],
]);

/** The name of {@linkcode Tag.OBJECT} for an AggregateError. */
export const AGGREGATE_ERROR = "AggregateError";

/** What follows an error's message, where there is any of it. */
export type ErrorDetails = {
  name?: unknown;
  cause?: unknown;
  errors?: unknown;
};

/** Whether this machine's typed arrays are little-endian. */
export const LITTLE_ENDIAN: boolean =
  new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Any typed array. */
export type TypedArray =
  | Uint8Array
  | Uint8ClampedArray
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | BigUint64Array
  | BigInt64Array
  | Float16Array
  | Float32Array
  | Float64Array;

/** A class of typed arrays. */
export interface TypedArrayClass {
  /** The class's name. */
  readonly name: string;
  /** The size of an element, in bytes. */
  readonly BYTES_PER_ELEMENT: number;
  /** Makes one over a whole buffer. */
  new (buffer: ArrayBuffer): TypedArray;
}

/** A typed array's tag (RFC 8746): the class, and the elements' byte order. */
export interface TypedArrayTag {
  /** The class. */
  readonly type: TypedArrayClass;
  /** Whether elements are little-endian. */
  readonly littleEndian: boolean;
}

/** The classes with their RFC 8746 tags, big- and little-endian. */
const classes: readonly [TypedArrayClass, big: number, little: number][] = [
  [Uint8Array, 64, 64],
  [Uint8ClampedArray, 68, 68],
  [Int8Array, 72, 72],
  [Uint16Array, 65, 69],
  [Uint32Array, 66, 70],
  [BigUint64Array, 67, 71],
  [Int16Array, 73, 77],
  [Int32Array, 74, 78],
  [BigInt64Array, 75, 79],
  [Float16Array, 80, 84],
  [Float32Array, 81, 85],
  [Float64Array, 82, 86],
];

/** What each RFC 8746 tag stands for. The two float128 tags have no class. */
export const TYPED_ARRAY_TAGS: ReadonlyMap<number, TypedArrayTag> = new Map(
  classes.flatMap(([type, big, little]): [number, TypedArrayTag][] => [
    [big, { type, littleEndian: false }],
    [little, { type, littleEndian: true }],
  ]),
);

/** The tag of each class of typed arrays on this machine, by its prototype. */
export const TAG_OF_PROTOTYPE: ReadonlyMap<object, number> = new Map(
  classes.map(([type, big, little]): [object, number] => [
    type.prototype as object,
    LITTLE_ENDIAN ? little : big,
  ]),
);
