/**
 * JavaScript values to CBOR, straight into a shared output buffer. What each
 * type becomes is the table of PROTOCOL.md section 8.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { ByteWriter } from "./byte_writer.ts";
import {
  detached,
  encodeInstance,
  isDetached,
  type ValueWriter,
} from "./cbor_instances.ts";
import { Tag } from "./cbor_tags.ts";
import {
  describe,
  EncodeFailure,
  propertyStep,
  whileBusy,
} from "./encode_failure.ts";

/** Integers up to here are integers on the wire; larger ones are floats. */
const MAX_INTEGER = 2 ** 53;

const OBJECT_PROTOTYPE: unknown = Object.prototype;
const ARRAY_PROTOTYPE: unknown = Array.prototype;

/** A property that no object has. */
const NOBODYS = Symbol("nobody's");

/** The bits of one float; used between two statements, so it can be shared. */
const scratch = new DataView(new ArrayBuffer(8));
const scratchBytes = new Uint8Array(scratch.buffer);

/** Encodes values into a {@linkcode ByteWriter}. */
export class CborEncoder implements ValueWriter {
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
   * @throws {FrameTooLargeError} If it is far longer than `out.valueLimit`.
   */
  encode(out: ByteWriter, value: unknown, threshold: number): void {
    if (out.busy) {
      // A getter sends while its object is being sent on the same connection.
      throw whileBusy();
    }
    const outerThreshold = this.#threshold;
    this.#threshold = threshold;
    this.#inherits = hasEnumerable(Object.prototype);
    const { segmentBytes } = out;
    out.beginValue();
    try {
      if (isPlain(value)) this.properties(out, value, 0);
      else this.value(out, value, 0);
      if (out.segmentBytes !== segmentBytes) checkSegments(out, segmentBytes);
    } catch (error) {
      throw EncodeFailure.toError(error);
    } finally {
      out.busy = false;
      this.#threshold = outerThreshold;
    }
  }

  /** Writes any value. */
  value(out: ByteWriter, value: unknown, depth: number): void {
    switch (typeof value) {
      case "string":
        return this.text(out, value);
      case "number":
        return this.number(out, value);
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

  /** Writes text. */
  text(out: ByteWriter, text: string): void {
    if (!out.tryWriteText(text)) throw loneSurrogate();
  }

  /** Writes a number. */
  number(out: ByteWriter, value: number): void {
    const int = value | 0;
    if (int === value && (int !== 0 || !Object.is(value, -0))) {
      out.writeInt32(int);
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
    out.writeHead(6, negative ? Tag.NEGATIVE_BIGNUM : Tag.BIGNUM);
    const magnitude = negative ? -1n - value : value;
    if (magnitude === 0n) return this.#byte(out, 0x40);
    // Through hexadecimal text: linear in the size, as shifting isn't.
    const hex = magnitude.toString(16);
    out.writeBytes(
      Buffer.from(hex.length % 2 === 0 ? hex : "0" + hex, "hex"),
    );
  }

  /** Writes a byte string, or leaves it where it is if it is large. */
  bytes(out: ByteWriter, bytes: Uint8Array): void {
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

  /** Fails if an item at this depth is nested too deep. */
  enter(depth: number): void {
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
      this.properties(out, value as Record<string, unknown>, depth);
    } else if (prototype === ARRAY_PROTOTYPE && Array.isArray(value)) {
      this.#array(out, value, depth);
    } else if (prototype === null) {
      out.writeHead(6, Tag.NULL_OBJECT);
      this.properties(out, value as Record<string, unknown>, depth);
    } else {
      encodeInstance(this, out, value, prototype as object, depth);
    }
  }

  /** Writes an object's own properties as a map. */
  properties(
    out: ByteWriter,
    value: Record<string, unknown>,
    depth: number,
  ): void {
    this.enter(depth);
    // for-in is several times faster than Object.keys(), but doesn't say how
    // many there will be: the head is written afterwards.
    const head = out.beginHead();
    let count = 0;
    let key: string | undefined;
    try {
      for (key in value) {
        if (this.#inherits && !Object.hasOwn(value, key)) continue;
        if (!out.tryWriteText(key)) throw loneSurrogate();
        const item = value[key];
        if (typeof item === "string") {
          if (!out.tryWriteText(item)) throw loneSurrogate();
        } else if (typeof item === "number") this.number(out, item);
        else this.value(out, item, depth + 1);
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
    this.enter(depth);
    const length = value.length;
    out.writeHead(4, length);
    let i = this.#numbers(out, value, length);
    try {
      for (; i < length; i++) this.value(out, value[i], depth + 1);
    } catch (error) {
      throw EncodeFailure.at(error, value, `[${i}]`);
    }
  }

  /** Writes the numbers that an array begins with; returns how many. */
  #numbers(
    out: ByteWriter,
    value: readonly unknown[],
    length: number,
  ): number {
    let i = 0;
    try {
      for (; i < length; i++) {
        const item = value[i];
        if (typeof item !== "number") break;
        const int = item | 0;
        const bytes = out.bytes;
        const at = out.length;
        // Small integers are what long lists hold: no call for these.
        if (
          int === item && int > 0 && int < 0x10000 && at + 3 <= bytes.length
        ) {
          if (int < 24) {
            bytes[at] = int;
            out.length = at + 1;
          } else if (int < 0x100) {
            bytes[at] = 0x18;
            bytes[at + 1] = int;
            out.length = at + 2;
          } else {
            bytes[at] = 0x19;
            bytes[at + 1] = int >> 8;
            bytes[at + 2] = int;
            out.length = at + 3;
          }
        } else this.number(out, item);
      }
    } catch (error) {
      throw EncodeFailure.at(error, value, `[${i}]`);
    }
    return i;
  }
}

/**
 * Whether a value is a plain object; false if that isn't known yet. Of a few
 * shapes, as the values of a channel mostly are, this knows the prototype by the
 * shape, once it has asked for some property: here for one that no object has.
 * Otherwise V8 looks the prototype up at the cost of a call into its runtime.
 */
function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  try {
    return (value as { [NOBODYS]?: 0 })[NOBODYS] === undefined &&
      Object.getPrototypeOf(value) === OBJECT_PROTOTYPE;
  } catch {
    return false; // a proxy that throws for what it doesn't know
  }
}

function hasEnumerable(object: object): boolean {
  for (const _ in object) return true;
  return false;
}

/** A getter may have transferred away what comes before it in its value. */
function checkSegments(out: ByteWriter, before: number): void {
  const { segments } = out;
  let { segmentBytes } = out;
  for (let i = segments.length - 1; segmentBytes > before; i--) {
    const { bytes, size } = segments[i]!;
    if (bytes.length !== size) throw detached();
    segmentBytes -= size;
  }
}

function loneSurrogate(): EncodeFailure {
  return new EncodeFailure("has a lone surrogate");
}
