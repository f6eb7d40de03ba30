/**
 * JavaScript values to CBOR, straight into a shared output buffer. What each
 * type becomes is the table of PROTOCOL.md section 8.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { CborTag, type CborType } from "@std/cbor";
import type { ByteWriter } from "./byte_writer.ts";
import { CborSimple } from "./cbor_simple.ts";
import {
  AGGREGATE_ERROR,
  ARRAY_BUFFER,
  ERROR_CLASSES,
  Tag,
  TAG_OF_PROTOTYPE,
  type TypedArray,
} from "./cbor_tags.ts";
import {
  describe,
  EncodeFailure,
  entryStep,
  propertyStep,
} from "./encode_failure.ts";

/** Byte strings from this size on are sent from where they are. */
export const SEGMENT_BYTES = 16 * 1024;

/** Integers up to here are integers on the wire; larger ones are floats. */
const MAX_INTEGER = 2 ** 53;

const OBJECT_PROTOTYPE: unknown = Object.prototype;
const ARRAY_PROTOTYPE: unknown = Array.prototype;

/** The bits of one float; used between two statements, so it can be shared. */
const scratch = new DataView(new ArrayBuffer(8));
const scratchBytes = new Uint8Array(scratch.buffer);

/** Encodes values into a {@linkcode ByteWriter}. */
export class CborEncoder {
  readonly #maxDepth: number;
  // Of the call under way. A value's getter may encode another value with the
  // same encoder: encode() puts the outer call's threshold back.
  #threshold = Infinity;
  /** Whether somebody gave every object enumerable properties. */
  #inherits = false;

  /** @param maxDepth How deep arrays, maps and tags may nest. */
  constructor(maxDepth: number) {
    this.#maxDepth = maxDepth;
  }

  /**
   * Writes one value. On failure the writer holds a part of it: the caller
   * truncates.
   *
   * @param out Where to.
   * @param value The value.
   * @param threshold Byte strings from this size on become segments.
   * @throws {EncodeError} If it has a part that can't be encoded.
   */
  encode(out: ByteWriter, value: unknown, threshold: number): void {
    if (out.busy) {
      // A getter sends while its object is being sent on the same connection.
      throw EncodeFailure.toError(
        new EncodeFailure(
          "can't be encoded while another value is being encoded",
        ),
      );
    }
    const outerThreshold = this.#threshold;
    this.#threshold = threshold;
    this.#inherits = hasEnumerable(Object.prototype);
    out.busy = true;
    try {
      this.#value(out, value, 0);
    } catch (error) {
      throw EncodeFailure.toError(error);
    } finally {
      out.busy = false;
      this.#threshold = outerThreshold;
    }
  }

  #value(out: ByteWriter, value: unknown, depth: number): void {
    switch (typeof value) {
      case "string":
        return this.#text(out, value);
      case "number":
        return this.#number(out, value);
      case "boolean":
        return this.#byte(out, value ? 0xf5 : 0xf4);
      case "undefined":
        return this.#byte(out, 0xf7);
      case "bigint":
        return this.#bigint(out, value);
      case "object":
        if (value === null) return this.#byte(out, 0xf6);
        return this.#object(out, value, depth);
      default:
        throw new EncodeFailure(describe(value));
    }
  }

  #byte(out: ByteWriter, byte: number): void {
    out.reserve(1);
    out.bytes[out.length++] = byte;
  }

  #text(out: ByteWriter, text: string): void {
    if (!out.tryWriteText(text)) {
      throw new EncodeFailure("has a lone surrogate");
    }
  }

  #number(out: ByteWriter, value: number): void {
    if ((value | 0) === value && (value !== 0 || !Object.is(value, -0))) {
      out.writeInt32(value);
    } else if (
      Number.isInteger(value) && value <= MAX_INTEGER &&
      value >= -MAX_INTEGER && value !== 0
    ) {
      if (value >= 0) out.writeHead(0, value);
      else out.writeHead(1, -1 - value);
    } else {
      this.#float(out, value);
    }
  }

  /** Writes the shortest float that keeps the value. */
  #float(out: ByteWriter, value: number): void {
    let head = 0xfb;
    let size = 8;
    if (Number.isNaN(value)) {
      head = 0xf9;
      size = 2;
      scratch.setUint16(0, 0x7e00);
    } else if (Math.fround(value) !== value) {
      scratch.setFloat64(0, value);
    } else if (Math.f16round(value) !== value) {
      head = 0xfa;
      size = 4;
      scratch.setFloat32(0, value);
    } else {
      head = 0xf9;
      size = 2;
      scratch.setFloat16(0, value);
    }
    out.reserve(9);
    const bytes = out.bytes;
    let at = out.length;
    bytes[at++] = head;
    for (let i = 0; i < size; i++) bytes[at++] = scratchBytes[i]!;
    out.length = at;
  }

  #bigint(out: ByteWriter, value: bigint): void {
    const negative = value < 0n;
    this.#tag(out, negative ? Tag.NEGATIVE_BIGNUM : Tag.BIGNUM);
    const magnitude = negative ? -1n - value : value;
    if (magnitude === 0n) return this.#byte(out, 0x40);
    // Through hexadecimal text: linear in the size, as shifting isn't.
    const hex = magnitude.toString(16);
    out.writeBytes(
      Buffer.from(hex.length % 2 === 0 ? hex : "0" + hex, "hex"),
    );
  }

  #tag(out: ByteWriter, tag: number): void {
    out.writeHead(6, tag);
  }

  #bytes(out: ByteWriter, bytes: Uint8Array): void {
    const { length, buffer } = bytes;
    if (
      length < this.#threshold ||
      // These may change their size before they are sent.
      !(buffer instanceof ArrayBuffer) || buffer.resizable
    ) {
      if (length === 0 && isDetached(buffer)) throw detached();
      out.writeBytes(bytes);
      return;
    }
    out.writeHead(2, length);
    out.addSegment(bytes);
  }

  #enter(depth: number): void {
    if (depth >= this.#maxDepth) {
      throw new EncodeFailure(
        `is nested too deep: the limit is ${this.#maxDepth}`,
        { tooDeep: true },
      );
    }
  }

  #object(out: ByteWriter, value: object, depth: number): void {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === OBJECT_PROTOTYPE) {
      this.#properties(out, value as Record<string, unknown>, depth);
    } else if (prototype === ARRAY_PROTOTYPE && Array.isArray(value)) {
      this.#array(out, value, depth);
    } else if (prototype === null) {
      this.#tag(out, Tag.NULL_OBJECT);
      this.#properties(out, value as Record<string, unknown>, depth);
    } else {
      this.#instance(out, value, prototype as object, depth);
    }
  }

  #properties(
    out: ByteWriter,
    value: Record<string, unknown>,
    depth: number,
  ): void {
    this.#enter(depth);
    // for-in is several times faster than Object.keys(), but doesn't say how
    // many there will be: the head is written afterwards.
    const head = out.beginHead();
    let count = 0;
    let key: string | undefined;
    try {
      for (key in value) {
        if (this.#inherits && !Object.hasOwn(value, key)) continue;
        this.#text(out, key);
        this.#value(out, value[key], depth + 1);
        count++;
      }
    } catch (error) {
      // Without a key it is listing them that failed.
      if (key === undefined) throw error;
      throw EncodeFailure.at(error, value, propertyStep(key));
    }
    out.endHead(head, 5, count);
  }

  #array(out: ByteWriter, value: readonly unknown[], depth: number): void {
    this.#enter(depth);
    const length = value.length;
    out.writeHead(4, length);
    let i = 0;
    try {
      for (; i < length; i++) {
        const item = value[i];
        if (typeof item === "number") this.#number(out, item);
        else this.#value(out, item, depth + 1);
      }
    } catch (error) {
      throw EncodeFailure.at(error, value, `[${i}]`);
    }
  }

  #instance(
    out: ByteWriter,
    value: object,
    prototype: object,
    depth: number,
  ): void {
    if (prototype === Uint8Array.prototype || prototype === Buffer.prototype) {
      this.#bytes(out, value as Uint8Array);
    } else if (prototype === Date.prototype) {
      this.#date(out, value as Date);
    } else if (prototype === Map.prototype) {
      this.#map(out, value as Map<unknown, unknown>, depth);
    } else if (prototype === Set.prototype) {
      this.#set(out, value as Set<unknown>, depth);
    } else if (prototype === CborTag.prototype) {
      this.#cborTag(out, value as CborTag<CborType>, depth);
    } else if (prototype === URL.prototype) {
      this.#tag(out, Tag.URL);
      this.#text(out, (value as URL).href);
    } else if (prototype === RegExp.prototype) {
      this.#regExp(out, value as RegExp);
    } else if (prototype === ArrayBuffer.prototype) {
      this.#arrayBuffer(out, value as ArrayBuffer, depth);
    } else if (prototype === CborSimple.prototype) {
      this.#simple(out, (value as CborSimple).value);
    } else if (value instanceof Error) {
      this.#error(out, value, depth);
    } else {
      const tag = TAG_OF_PROTOTYPE.get(prototype);
      if (tag === undefined || !ArrayBuffer.isView(value)) {
        throw new EncodeFailure(describe(value));
      }
      const { buffer, byteOffset, byteLength } = value as TypedArray;
      if (byteLength === 0 && isDetached(buffer)) throw detached();
      this.#tag(out, tag);
      this.#bytes(out, new Uint8Array(buffer, byteOffset, byteLength));
    }
  }

  #date(out: ByteWriter, value: Date): void {
    const time = value.getTime();
    if (Number.isNaN(time)) throw new EncodeFailure("is an invalid Date");
    this.#tag(out, Tag.DATE);
    this.#number(out, time / 1000);
  }

  #map(out: ByteWriter, value: Map<unknown, unknown>, depth: number): void {
    this.#enter(depth);
    const size = value.size;
    this.#tag(out, Tag.MAP);
    out.writeHead(5, size);
    let i = 0;
    let step = "";
    try {
      for (const [key, entry] of value) {
        if (i === size) break;
        step = `.keys()[${i}]`;
        this.#value(out, key, depth + 1);
        try {
          this.#value(out, entry, depth + 1);
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

  #set(out: ByteWriter, value: Set<unknown>, depth: number): void {
    this.#enter(depth);
    const size = value.size;
    this.#tag(out, Tag.SET);
    out.writeHead(4, size);
    let i = 0;
    try {
      for (const entry of value) {
        if (i === size) break;
        this.#value(out, entry, depth + 1);
        i++;
      }
    } catch (error) {
      throw EncodeFailure.at(error, value, `.values()[${i}]`);
    }
    if (i !== size || value.size !== size) throw changed();
  }

  #cborTag(out: ByteWriter, value: CborTag<CborType>, depth: number): void {
    this.#enter(depth);
    const { tagNumber, tagContent } = value;
    if (typeof tagNumber === "number" && Number.isSafeInteger(tagNumber)) {
      if (tagNumber < 0) throw wrongTag(tagNumber);
      this.#tag(out, tagNumber);
    } else if (
      typeof tagNumber === "bigint" &&
      BigInt.asUintN(64, tagNumber) === tagNumber
    ) {
      if (tagNumber <= BigInt(MAX_INTEGER)) this.#tag(out, Number(tagNumber));
      else {
        out.reserve(9);
        out.bytes[out.length] = 0xdb;
        scratch.setBigUint64(0, tagNumber);
        out.bytes.set(scratchBytes, out.length + 1);
        out.length += 9;
      }
    } else throw wrongTag(tagNumber);
    try {
      this.#value(out, tagContent, depth + 1);
    } catch (error) {
      throw EncodeFailure.at(error, value, ".tagContent");
    }
  }

  #regExp(out: ByteWriter, value: RegExp): void {
    const { source, flags } = value;
    this.#tag(out, Tag.REGEXP);
    out.writeHead(4, flags === "" ? 1 : 2);
    this.#text(out, source);
    if (flags !== "") this.#text(out, flags);
  }

  #arrayBuffer(out: ByteWriter, value: ArrayBuffer, depth: number): void {
    this.#enter(depth);
    if (value.detached) throw new EncodeFailure("is detached");
    this.#tag(out, Tag.OBJECT);
    out.writeHead(4, 2);
    this.#text(out, ARRAY_BUFFER);
    this.#bytes(out, new Uint8Array(value));
  }

  #simple(out: ByteWriter, value: number): void {
    if (value < 24) return this.#byte(out, 0xe0 | value);
    this.#byte(out, 0xf8);
    this.#byte(out, value);
  }

  #error(out: ByteWriter, value: Error, depth: number): void {
    this.#enter(depth);
    const type = errorType(value);
    const name = String(value.name);
    // [type, message] or [type, message, { name?, cause?, errors? }]
    const details: Record<string, unknown> = {};
    if (name !== type) details.name = name;
    if (Object.hasOwn(value, "cause")) details.cause = value.cause;
    if (type === AGGREGATE_ERROR) {
      details.errors = (value as AggregateError).errors;
    }
    const more = Object.keys(details).length > 0;
    this.#tag(out, Tag.OBJECT);
    out.writeHead(4, more ? 3 : 2);
    this.#text(out, type);
    this.#text(out, String(value.message));
    if (!more) return;
    try {
      this.#properties(out, details, depth + 1);
    } catch (error) {
      if (error instanceof EncodeFailure && error.holders.length > 0) {
        error.holders[error.holders.length - 1] = value;
      }
      throw error;
    }
  }
}

/** The standard class that an error is nearest to. */
function errorType(value: Error): string {
  let prototype: unknown = Object.getPrototypeOf(value);
  while (prototype !== null && prototype !== Error.prototype) {
    if (prototype === AggregateError.prototype) return AGGREGATE_ERROR;
    for (const [name, type] of ERROR_CLASSES) {
      if (prototype === type.prototype) return name;
    }
    prototype = Object.getPrototypeOf(prototype);
  }
  return "Error";
}

function hasEnumerable(object: object): boolean {
  for (const _ in object) return true;
  return false;
}

function isDetached(buffer: ArrayBufferLike): boolean {
  return buffer instanceof ArrayBuffer && buffer.detached;
}

function detached(): EncodeFailure {
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
