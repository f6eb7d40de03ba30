/**
 * Instances of the classes that the codec keeps, to CBOR.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { CborTag, type CborType } from "@std/cbor";
import type { ByteWriter } from "./byte_writer.ts";
import { CborSimple, isSimple } from "./cbor_simple.ts";
import {
  AGGREGATE_ERROR,
  ARRAY_BUFFER,
  ERROR_CLASSES,
  type ErrorDetails,
  Tag,
  TAG_OF_PROTOTYPE,
  type TypedArray,
} from "./cbor_tags.ts";
import { describe, EncodeFailure, entryStep } from "./encode_failure.ts";

/** What an instance is made of is written by the encoder. */
export interface ValueWriter {
  /** Fails if an item at this depth is nested too deep. */
  enter(depth: number): void;
  /** Writes any value. */
  value(out: ByteWriter, value: unknown, depth: number): void;
  /** Writes an object's own properties as a map. */
  properties(
    out: ByteWriter,
    value: Record<string, unknown>,
    depth: number,
  ): void;
  /** Writes text. */
  text(out: ByteWriter, text: string): void;
  /** Writes a number. */
  number(out: ByteWriter, value: number): void;
  /** Writes a byte string. */
  bytes(out: ByteWriter, bytes: Uint8Array): void;
}

/** Writes an instance of a class that the codec knows. */
export function encodeInstance(
  to: ValueWriter,
  out: ByteWriter,
  value: object,
  prototype: object,
  depth: number,
): void {
  if (prototype === Uint8Array.prototype || prototype === Buffer.prototype) {
    if (!ArrayBuffer.isView(value)) throw new EncodeFailure(describe(value));
    to.bytes(out, value as Uint8Array);
  } else if (prototype === Date.prototype) {
    encodeDate(to, out, value as Date);
  } else if (prototype === Map.prototype) {
    encodeMap(to, out, value as Map<unknown, unknown>, depth);
  } else if (prototype === Set.prototype) {
    encodeSet(to, out, value as Set<unknown>, depth);
  } else if (prototype === CborTag.prototype) {
    encodeCborTag(to, out, value as CborTag<CborType>, depth);
  } else if (prototype === URL.prototype) {
    out.writeHead(6, Tag.URL);
    to.text(out, (value as URL).href);
  } else if (prototype === RegExp.prototype) {
    encodeRegExp(to, out, value as RegExp);
  } else if (prototype === ArrayBuffer.prototype) {
    encodeArrayBuffer(to, out, value as ArrayBuffer, depth);
  } else if (prototype === CborSimple.prototype) {
    const { value: simple } = value as CborSimple;
    if (!isSimple(simple)) throw new EncodeFailure(describe(value));
    out.writeHead(7, simple);
  } else if (value instanceof Error) {
    encodeError(to, out, value, depth);
  } else {
    const tag = TAG_OF_PROTOTYPE.get(prototype);
    if (tag === undefined || !ArrayBuffer.isView(value)) {
      throw new EncodeFailure(describe(value));
    }
    const { buffer, byteOffset, byteLength } = value as TypedArray;
    if (byteLength === 0) {
      if (isDetached(buffer)) throw detached();
      if (isOutOfBounds(value as TypedArray)) {
        throw new EncodeFailure("is a view of a buffer that has shrunk");
      }
    }
    out.writeHead(6, tag);
    to.bytes(out, new Uint8Array(buffer, byteOffset, byteLength));
  }
}

function encodeDate(to: ValueWriter, out: ByteWriter, value: Date): void {
  const time = value.getTime();
  if (Number.isNaN(time)) throw new EncodeFailure("is an invalid Date");
  out.writeHead(6, Tag.DATE);
  to.number(out, time / 1000);
}

function encodeMap(
  to: ValueWriter,
  out: ByteWriter,
  value: Map<unknown, unknown>,
  depth: number,
): void {
  to.enter(depth);
  const size = value.size;
  out.writeHead(6, Tag.MAP);
  out.writeHead(5, size);
  let i = 0;
  let step = "";
  try {
    for (const [key, entry] of value) {
      if (i === size) break;
      step = `.keys()[${i}]`;
      to.value(out, key, depth + 1);
      try {
        to.value(out, entry, depth + 1);
      } catch (error) {
        step = entryStep(key, i);
        throw error;
      }
      i++;
    }
  } catch (error) {
    throw EncodeFailure.at(error, value, step);
  }
  if (i !== size || value.size !== size) throw changed();
}

function encodeSet(
  to: ValueWriter,
  out: ByteWriter,
  value: Set<unknown>,
  depth: number,
): void {
  to.enter(depth);
  const size = value.size;
  out.writeHead(6, Tag.SET);
  out.writeHead(4, size);
  let i = 0;
  try {
    for (const entry of value) {
      if (i === size) break;
      to.value(out, entry, depth + 1);
      i++;
    }
  } catch (error) {
    throw EncodeFailure.at(error, value, `.values()[${i}]`);
  }
  if (i !== size || value.size !== size) throw changed();
}

function encodeCborTag(
  to: ValueWriter,
  out: ByteWriter,
  value: CborTag<CborType>,
  depth: number,
): void {
  const { tagNumber, tagContent } = value;
  // Tag 27 and its array are one level, as when they are read.
  const isOne = Number(tagNumber) === Tag.OBJECT && Array.isArray(tagContent);
  if (!isOne) to.enter(depth);
  if (typeof tagNumber === "number" && Number.isSafeInteger(tagNumber)) {
    if (tagNumber < 0) throw wrongTag(tagNumber);
    out.writeHead(6, tagNumber);
  } else if (
    typeof tagNumber === "bigint" &&
    BigInt.asUintN(64, tagNumber) === tagNumber
  ) {
    if (tagNumber <= BigInt(Number.MAX_SAFE_INTEGER)) {
      out.writeHead(6, Number(tagNumber));
    } else {
      out.reserve(9);
      const { bytes, length } = out;
      bytes[length] = 0xdb;
      for (let i = 8, rest = tagNumber; i > 0; i--, rest >>= 8n) {
        bytes[length + i] = Number(rest & 0xffn);
      }
      out.length = length + 9;
    }
  } else throw wrongTag(tagNumber);
  try {
    to.value(out, tagContent, isOne ? depth : depth + 1);
  } catch (error) {
    throw EncodeFailure.at(error, value, ".tagContent");
  }
}

function encodeRegExp(to: ValueWriter, out: ByteWriter, value: RegExp): void {
  const { source, flags } = value;
  out.writeHead(6, Tag.REGEXP);
  out.writeHead(4, flags === "" ? 1 : 2);
  to.text(out, source);
  if (flags !== "") to.text(out, flags);
}

function encodeArrayBuffer(
  to: ValueWriter,
  out: ByteWriter,
  value: ArrayBuffer,
  depth: number,
): void {
  to.enter(depth);
  if (value.detached) throw new EncodeFailure("is detached");
  out.writeHead(6, Tag.OBJECT);
  out.writeHead(4, 2);
  to.text(out, ARRAY_BUFFER);
  to.bytes(out, new Uint8Array(value));
}

function encodeError(
  to: ValueWriter,
  out: ByteWriter,
  value: Error,
  depth: number,
): void {
  to.enter(depth);
  const type = errorType(value);
  const name = String(value.name);
  // [type, message] or [type, message, { name?, cause?, errors? }]
  const details: ErrorDetails = {};
  if (name !== type) details.name = name;
  if (Object.hasOwn(value, "cause")) details.cause = value.cause;
  if (type === AGGREGATE_ERROR) {
    details.errors = (value as AggregateError).errors;
  }
  const more = Object.keys(details).length > 0;
  out.writeHead(6, Tag.OBJECT);
  out.writeHead(4, more ? 3 : 2);
  to.text(out, type);
  to.text(out, String(value.message));
  if (!more) return;
  try {
    to.properties(out, details, depth + 1);
  } catch (error) {
    if (error instanceof EncodeFailure && error.holders.length > 0) {
      error.holders[error.holders.length - 1] = value;
    }
    throw error;
  }
}

/** The standard class that an error is nearest to. */
function errorType(value: Error): string {
  let prototype: unknown = Object.getPrototypeOf(value);
  while (prototype !== null && prototype !== Error.prototype) {
    if (prototype === AggregateError.prototype) {
      // Anything else in there is no longer an AggregateError.
      if (Array.isArray((value as AggregateError).errors)) {
        return AGGREGATE_ERROR;
      }
    }
    for (const [name, type] of ERROR_CLASSES) {
      if (prototype === type.prototype) return name;
    }
    prototype = Object.getPrototypeOf(prototype);
  }
  return "Error";
}

/** Whether a buffer was transferred: it looks empty then. */
export function isDetached(buffer: ArrayBufferLike): boolean {
  return buffer instanceof ArrayBuffer && buffer.detached;
}

/** Whether a buffer is too short for its view: the view looks empty then. */
function isOutOfBounds(view: TypedArray): boolean {
  try {
    Uint8Array.prototype.keys.call(view as Uint8Array);
    return false;
  } catch {
    return true;
  }
}

/** The failure for such a buffer. */
export function detached(): EncodeFailure {
  return new EncodeFailure("has a detached buffer");
}

function changed(): EncodeFailure {
  return new EncodeFailure("changed while it was being encoded");
}

function wrongTag(tag: unknown): EncodeFailure {
  return new EncodeFailure(
    `has the tag number ${String(tag)}: expected an integer from 0 to 2^64 - 1`,
  );
}
