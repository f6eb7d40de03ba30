/**
 * What follows a CBOR tag, to the JavaScript value that it stands for.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { CborTag, type CborType } from "@std/cbor";
import { type CborReader, INDEFINITE } from "./cbor_reader.ts";
import { isSlow, RegExpLimits } from "./cbor_regexp.ts";
import {
  AGGREGATE_ERROR,
  ARRAY_BUFFER,
  ERROR_CLASSES,
  type ErrorDetails,
  LITTLE_ENDIAN,
  Tag,
  TYPED_ARRAY_TAGS,
  type TypedArray,
  type TypedArrayTag,
} from "./cbor_tags.ts";
import { quote } from "./cbor_text.ts";
import { COLLIDING, isLong, KeyBuckets } from "./key_buckets.ts";

/** RFC 3339, as tag 0 has it. */
const DATE_TEXT =
  /^(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/i;

/** Bignums past this size are refused: no bigint is that large. */
const MAX_BIGNUM_BYTES = 1 << 27;

/** Reads the rest of a tag whose first byte has been read, and its content. */
export function decodeTagged(
  reader: CborReader,
  info: number,
  depth: number,
): unknown {
  const at = reader.pos - 1;
  const tag = reader.argument(info);
  if (!reader.hasTags) return bare(reader, tag, depth, at);
  switch (tag) {
    case Tag.DATE_TEXT:
      return dateText(reader, at);
    case Tag.DATE:
      return date(reader, at);
    case Tag.BIGNUM:
      return bignum(reader, at);
    case Tag.NEGATIVE_BIGNUM:
      return -1n - bignum(reader, at);
    case Tag.OBJECT:
      return object(reader, depth, at);
    case Tag.URL:
      return url(reader, at);
    case Tag.REGEXP_TEXT:
      return regExp(reader, reader.readText(), "", at);
    case Tag.REGEXP:
      return regExpArray(reader, at);
    case Tag.SET:
      return set(reader, depth, at);
    case Tag.MAP:
      return map(reader, depth, at);
    case Tag.NULL_OBJECT:
      return nullObject(reader, depth, at);
  }
  const typed = TYPED_ARRAY_TAGS.get(tag);
  if (typed !== undefined) return typedArray(reader, typed, at);
  return bare(reader, tag, depth, at);
}

/** A tag that stands for nothing here. */
function bare(
  reader: CborReader,
  tag: number,
  depth: number,
  at: number,
): CborTag<CborType> {
  const number = tag < 2 ** 53 ? tag : reader.exact64();
  reader.enter(depth, at);
  return new CborTag(number, reader.value(depth + 1) as CborType);
}

function dateText(reader: CborReader, at: number): Date {
  const text = reader.readText();
  const fields = DATE_TEXT.exec(text);
  // V8 misreads many digits behind a zero: of .0123456789 it makes 123 ms.
  const value = new Date(
    fields === null ? NaN : text.replace(/(\.\d{3})\d+/, "$1"),
  );
  // Date.parse() takes February 30 for March 2.
  if (Number.isNaN(value.getTime()) || !isDay(fields!.slice(1).map(Number))) {
    reader.fail("date is not valid", at);
  }
  return value;
}

/** Whether a month is that long. */
function isDay(fields: readonly number[]): boolean {
  const [year, month, day] = fields as [number, number, number];
  if (day <= 28) return true;
  const isLeapYear = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  if (month === 2) return isLeapYear && day === 29;
  return day <= 30 || ![4, 6, 9, 11].includes(month);
}

function date(reader: CborReader, at: number): Date {
  const seconds = scalar(reader, at);
  if (typeof seconds !== "number") {
    return reader.fail("date is not a number of seconds", at);
  }
  // Whole seconds and the rest apart: in one product the milliseconds of far
  // dates would be rounded twice.
  const whole = Math.floor(seconds);
  const value = new Date(whole * 1000 + Math.round((seconds - whole) * 1000));
  if (Number.isNaN(value.getTime())) {
    reader.fail("date is out of range", at);
  }
  return value;
}

/** Reads an item that has no others inside. */
function scalar(reader: CborReader, at: number): unknown {
  const major = reader.pos < reader.end ? reader.bytes[reader.pos]! >> 5 : 0;
  if (major >= 2 && major <= 6) {
    reader.fail("date is not a number of seconds", at);
  }
  return reader.value(0);
}

function bignum(reader: CborReader, at: number): bigint {
  const bytes = reader.byteString(reader.expect(2));
  if (bytes.length === 0) return 0n;
  if (bytes.length > MAX_BIGNUM_BYTES) {
    reader.fail(`bignum of ${bytes.length} bytes is too large`, at);
  }
  try {
    // Hexadecimal text is read in linear time.
    return BigInt(
      "0x" + Buffer.from(bytes.buffer, 0, bytes.length).toString("hex"),
    );
  } catch (error) {
    return reader.fail("bignum is too large", at, error);
  }
}

function url(reader: CborReader, at: number): URL {
  const text = reader.readText();
  try {
    return new URL(text);
  } catch (error) {
    return reader.fail("URL is not valid", at, error);
  }
}

function regExp(
  reader: CborReader,
  source: string,
  flags: string,
  at: number,
): RegExp {
  if (isSlow(source, flags)) {
    const reason = (reader.regExps ??= new RegExpLimits()).count(source, flags);
    if (reason !== null) reader.fail(reason, at);
  }
  try {
    return new RegExp(source, flags);
  } catch (error) {
    reader.regExps?.forget(source, flags);
    return reader.fail("regular expression is not valid", at, error);
  }
}

function regExpArray(reader: CborReader, at: number): RegExp {
  const next = countdown(reader, reader.expect(4), 1);
  if (!next()) return reader.fail("regular expression has no source", at);
  const source = reader.readText();
  if (!next()) return regExp(reader, source, "", at);
  const flags = reader.readText();
  if (next()) reader.fail("regular expression has more than flags", at);
  return regExp(reader, source, flags, at);
}

function typedArray(
  reader: CborReader,
  { type, littleEndian }: TypedArrayTag,
  at: number,
): TypedArray {
  const bytes = reader.byteString(reader.expect(2));
  const size = type.BYTES_PER_ELEMENT;
  if (bytes.length % size !== 0) {
    reader.fail(
      `${type.name} of ${bytes.length} bytes: expected a multiple of ${size}`,
      at,
    );
  }
  if (size > 1 && littleEndian !== LITTLE_ENDIAN) {
    for (let i = 0; i < bytes.length; i += size) {
      bytes.subarray(i, i + size).reverse();
    }
  }
  return new type(bytes.buffer);
}

function set(reader: CborReader, depth: number, at: number): Set<unknown> {
  const next = countdown(reader, reader.expect(4), 1);
  reader.enter(depth, at);
  const result = new Set<unknown>();
  const buckets = new KeyBuckets();
  while (next()) {
    const entryAt = reader.pos;
    const { size } = result;
    const member = reader.value(depth + 1);
    if (!buckets.accepts(member)) reader.fail(COLLIDING, entryAt);
    result.add(member);
    if (result.size === size) {
      reader.fail("a value of a set is there twice", entryAt);
    }
  }
  return result;
}

function map(
  reader: CborReader,
  depth: number,
  at: number,
): Map<unknown, unknown> {
  const next = countdown(reader, reader.expect(5), 2);
  reader.enter(depth, at);
  const result = new Map<unknown, unknown>();
  const buckets = new KeyBuckets();
  while (next()) {
    const keyAt = reader.pos;
    const key = reader.value(depth + 1);
    if (!buckets.accepts(key)) reader.fail(COLLIDING, keyAt);
    if (result.has(key)) reader.fail("a key is there twice", keyAt);
    result.set(key, reader.value(depth + 1));
  }
  return result;
}

function nullObject(reader: CborReader, depth: number, at: number): unknown {
  const next = countdown(reader, reader.expect(5), 2);
  reader.enter(depth, at);
  const result: Record<string, unknown> = Object.create(null);
  let buckets: KeyBuckets | null = null;
  while (next()) {
    const keyAt = reader.pos;
    const key = reader.readText();
    if (isLong(key) && !(buckets ??= new KeyBuckets()).accepts(key)) {
      reader.fail(COLLIDING, keyAt);
    }
    if (key in result) {
      reader.fail(`key ${quote(key)} is there twice`, keyAt);
    }
    result[key] = reader.value(depth + 1);
  }
  return result;
}

/** Tag 27: `[name, ...arguments]`. Names that aren't known stay a CborTag. */
function object(reader: CborReader, depth: number, at: number): unknown {
  reader.expect(4);
  reader.pos--;
  const content = reader.value(depth) as unknown[];
  const [name, first, details] = content;
  if (name === ARRAY_BUFFER) {
    if (content.length !== 2 || !(first instanceof Uint8Array)) {
      reader.fail("ArrayBuffer is not made of one byte string", at);
    }
    return first.buffer;
  }
  const type = typeof name === "string" ? ERROR_CLASSES.get(name) : undefined;
  if (type === undefined && name !== AGGREGATE_ERROR) {
    return new CborTag(Tag.OBJECT, content as CborType[]);
  }
  const given = details === undefined && content.length === 2 ? {} : details;
  if (
    typeof first !== "string" || content.length > 3 || !isPlainObject(given)
  ) {
    return reader.fail("error is not made of a message and details", at);
  }
  for (const key of Object.keys(given)) {
    if (key === "name" || key === "cause") continue;
    if (key === "errors" && type === undefined) continue;
    return reader.fail(
      `an ${name}'s details have ${quote(key)}, expected name, cause${
        type === undefined ? ", errors" : ""
      }`,
      at,
    );
  }
  return error(reader, type, first, given, at);
}

function error(
  reader: CborReader,
  type: ErrorConstructor | undefined,
  message: string,
  details: ErrorDetails,
  at: number,
): Error {
  const limit = Error.stackTraceLimit;
  // The stack of this decoder would say nothing of where the error is from.
  Error.stackTraceLimit = 0;
  try {
    const options = Object.hasOwn(details, "cause")
      ? { cause: details.cause }
      : undefined;
    let result: Error;
    if (type === undefined) {
      if (!Array.isArray(details.errors)) {
        return reader.fail("AggregateError has no errors", at);
      }
      result = new AggregateError(details.errors, message, options);
    } else result = new type(message, options);
    if (Object.hasOwn(details, "name")) {
      if (typeof details.name !== "string") {
        reader.fail("an error's name is not text", at);
      }
      Object.defineProperty(result, "name", {
        value: details.name,
        configurable: true,
        enumerable: false,
        writable: true,
      });
    }
    return result;
  } finally {
    Error.stackTraceLimit = limit;
  }
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null &&
    Object.getPrototypeOf(value) === Object.prototype;
}

/** Says whether another item of an array or a map's entry follows. */
function countdown(
  reader: CborReader,
  info: number,
  size: number,
): () => boolean {
  if (info === INDEFINITE) return () => !reader.atBreak();
  let count = reader.count(info, size);
  return () => count-- > 0;
}
