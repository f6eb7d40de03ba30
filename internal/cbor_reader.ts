/**
 * The lower half of the CBOR decoder: heads, strings and numbers, read in place
 * and bounds-checked.
 *
 * @module
 */

import { prepareBulkMemory } from "./bulk_memory.ts";
import type { RegExpLimits } from "./cbor_regexp.ts";
import { decodeText } from "./cbor_text.ts";
import { DecodeError } from "./errors.ts";
import type { Aside } from "./long_string.ts";

/** The byte that ends an item of indefinite length. */
const BREAK = 0xff;

/** Additional information of a head: the length is indefinite. */
export const INDEFINITE = 31;

/** The longest text that V8 has, in bytes if it is ASCII. */
const MAX_TEXT_BYTES = 0x1fff_ffe8;

/** Integers up to here are numbers; what is larger is a bigint. */
const MAX_INTEGER = 2 ** 53;

const MAJOR_TYPES = [
  "an unsigned integer",
  "a negative integer",
  "a byte string",
  "a text string",
  "an array",
  "a map",
  "a tag",
  "a simple value or float",
];

/** The bits of one float; used between two statements, so it can be shared. */
const scratch = new DataView(new ArrayBuffer(8));
const scratchBytes = new Uint8Array(scratch.buffer);

/** Reads data items one after another: a CBOR sequence (RFC 8742). */
export abstract class CborReader {
  /** What is read. */
  bytes: Uint8Array = new Uint8Array(0);
  /** The position of the next byte. */
  pos = 0;
  /** The position after the last byte. */
  end = 0;
  /** Where the byte string of {@linkcode readBytesRange} starts. */
  rangeStart = 0;
  /** Where it ends. */
  rangeEnd = 0;
  /** Its length, with what is aside, in bytes. */
  rangeSize = 0;
  /** A byte string that isn't where it should be; null: there is none. */
  aside: Aside | null = null;
  /** Whether tags become what they stand for. */
  hasTags = true;
  /** What regular expressions cost so far: see {@linkcode resetLimits}. */
  regExps: RegExpLimits | null = null;
  /** Where reading began: offsets in errors count from here. */
  protected start = 0;

  /** What is limited for several values together is counted from here. */
  resetLimits(): void {
    this.regExps = null;
  }

  /** Starts to read a range of bytes. */
  set(bytes: Uint8Array, start = 0, end: number = bytes.length): void {
    this.bytes = bytes;
    this.start = start;
    this.pos = start;
    this.end = end;
    this.aside = null;
  }

  /**
   * Reads an unsigned integer.
   *
   * @throws {DecodeError} If it is anything else, or more than 2^53.
   */
  readUint(): number {
    const at = this.pos;
    if (at < this.end && this.bytes[at]! < 24) {
      this.pos = at + 1;
      return this.bytes[at]!;
    }
    const value = this.integer(this.expect(0), false);
    if (typeof value !== "number") {
      return this.fail("integer is larger than 2^53", at);
    }
    return value;
  }

  /**
   * Reads a text string.
   *
   * @throws {DecodeError} If it is anything else, or not valid UTF-8.
   */
  readText(): string {
    return this.text(this.expect(3), this.pos - 1);
  }

  /**
   * Reads a byte string of definite length without copying it: it is from
   * {@linkcode rangeStart} to {@linkcode rangeEnd}.
   *
   * @throws {DecodeError} If it is anything else.
   */
  readBytesRange(): void {
    const at = this.pos;
    const info = this.expect(2);
    if (info === INDEFINITE) this.fail("length is indefinite", at);
    const length = this.argument(info);
    const { aside } = this;
    let here = length;
    if (aside !== null && aside.at >= this.pos) {
      const before = aside.at - this.pos;
      if (length > before) {
        here -= aside.bytes.length;
        if (here < before) this.truncated();
      }
    }
    if (here > this.end - this.pos) this.truncated();
    this.rangeStart = this.pos;
    this.pos += here;
    this.rangeEnd = this.pos;
    this.rangeSize = length;
  }

  /** The byte string that is aside in the range; null: it is all there. */
  get rangeAside(): Aside | null {
    return this.rangeSize > this.rangeEnd - this.rangeStart ? this.aside : null;
  }

  /** The bytes of the range, in a buffer of their own. */
  rangeBytes(): Uint8Array<ArrayBuffer> {
    const { bytes, rangeStart, rangeEnd, rangeAside } = this;
    if (rangeAside === null) return copy(bytes, rangeStart, rangeEnd);
    const long = rangeAside.bytes;
    if (long.length === this.rangeSize) return long;
    const all = new Uint8Array(this.rangeSize);
    const before = rangeAside.at - rangeStart;
    all.set(bytes.subarray(rangeStart, rangeAside.at));
    all.set(long, before);
    all.set(bytes.subarray(rangeAside.at, rangeEnd), before + long.length);
    return all;
  }

  /** Whether everything was read. */
  get done(): boolean {
    return this.pos >= this.end;
  }

  /**
   * Everything must have been read.
   *
   * @throws {DecodeError} If something follows.
   */
  finish(): void {
    if (this.pos < this.end) {
      this.fail(`${this.end - this.pos} bytes follow`, this.pos);
    }
  }

  /** A copy of everything, from where reading began. */
  copy(): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(this.start, this.end) as Uint8Array<ArrayBuffer>;
  }

  /**
   * Reads a byte string of definite length.
   *
   * @throws {DecodeError} If it is anything else.
   */
  readBytes(): Uint8Array<ArrayBuffer> {
    this.readBytesRange();
    return this.rangeBytes();
  }

  /** Reads any data item that is inside of `depth` others. */
  abstract value(depth: number): unknown;

  /** Fails if an item at this depth is nested too deep. */
  abstract enter(depth: number, at: number): void;

  /**
   * The number of items of an array (`size` 1) or map (`size` 2), which the
   * bytes that are left must be enough for.
   */
  abstract count(info: number, size: number): number;

  /** Reads the first byte of an item of one major type; returns its info. */
  expect(major: number): number {
    const at = this.pos;
    if (at >= this.end) this.truncated();
    const byte = this.bytes[at]!;
    if (byte >> 5 !== major) {
      this.fail(
        `expected ${MAJOR_TYPES[major]}, got ${
          byte === BREAK ? "a break" : MAJOR_TYPES[byte >> 5]
        }`,
        at,
      );
    }
    this.pos = at + 1;
    return byte & 31;
  }

  /** Whether an item of indefinite length ends here; if so, reads its break. */
  atBreak(): boolean {
    if (this.pos >= this.end) this.truncated();
    if (this.bytes[this.pos] !== BREAK) return false;
    this.pos++;
    return true;
  }

  /**
   * Reads a head's argument, after its first byte. From 2^53 on the result is
   * only good for comparing.
   */
  argument(info: number): number {
    info &= 31;
    if (info < 24) return info;
    const at = this.pos;
    const bytes = this.bytes;
    switch (info) {
      case 24:
        this.need(1);
        this.pos = at + 1;
        return bytes[at]!;
      case 25:
        this.need(2);
        this.pos = at + 2;
        return bytes[at]! << 8 | bytes[at + 1]!;
      case 26:
        this.need(4);
        this.pos = at + 4;
        return uint32(bytes, at);
      case 27:
        this.need(8);
        this.pos = at + 8;
        return uint32(bytes, at) * 0x100000000 + uint32(bytes, at + 4);
      default:
        return this.fail(
          info === INDEFINITE
            ? "length is indefinite where it can't be"
            : `additional information ${info} is reserved`,
          at - 1,
        );
    }
  }

  /** Reads an unsigned integer below 2^32; -1 if it is anything else. */
  smallUint(): number {
    const at = this.pos;
    const left = this.end - at;
    if (left < 1) return -1;
    const bytes = this.bytes;
    const byte = bytes[at]!;
    if (byte < 24) {
      this.pos = at + 1;
      return byte;
    }
    if (byte === 24 && left > 1) {
      this.pos = at + 2;
      return bytes[at + 1]!;
    }
    if (byte === 25 && left > 2) {
      this.pos = at + 3;
      return bytes[at + 1]! << 8 | bytes[at + 2]!;
    }
    if (byte === 26 && left > 4) {
      this.pos = at + 5;
      return uint32(bytes, at + 1);
    }
    return -1;
  }

  /** Reads an integer; `negative` for -1 - n. */
  integer(info: number, negative: boolean): number | bigint {
    const value = this.argument(info);
    // At 2^53 the sum of the halves may have been rounded.
    if (value < MAX_INTEGER) return negative ? -1 - value : value;
    const exact = this.exact64();
    const signed = negative ? -1n - exact : exact;
    return signed === BigInt(MAX_INTEGER) ? MAX_INTEGER : signed;
  }

  /** The eight bytes before the position, as an integer. */
  exact64(): bigint {
    return BigInt(uint32(this.bytes, this.pos - 8)) << 32n |
      BigInt(uint32(this.bytes, this.pos - 4));
  }

  /** Reads a float of 2, 4 or 8 bytes. */
  float(size: number): number {
    this.need(size);
    const at = this.pos;
    const bytes = this.bytes;
    for (let i = 0; i < size; i++) scratchBytes[i] = bytes[at + i]!;
    this.pos = at + size;
    if (size === 8) return scratch.getFloat64(0);
    return size === 4 ? scratch.getFloat32(0) : scratch.getFloat16(0);
  }

  /** The length of a string, all of which must be here. */
  length(info: number): number {
    const length = info < 24 ? info : this.argument(info);
    if (length > this.end - this.pos) this.truncated();
    return length;
  }

  /** Reads a text string whose first byte, at `at`, has been read. */
  text(info: number, at: number): string {
    if (info !== INDEFINITE) return this.#chunk(info, at);
    let text = "";
    while (!this.atBreak()) {
      const chunkAt = this.pos;
      text += this.#chunk(this.expect(3), chunkAt);
    }
    return text;
  }

  #chunk(info: number, at: number): string {
    const length = this.length(info);
    if (length > MAX_TEXT_BYTES) {
      this.fail(`text of ${length} bytes is too long`, at);
    }
    const start = this.pos;
    const text = decodeText(this.bytes, start, start + length);
    if (text === undefined) this.fail("text is not valid UTF-8", at);
    this.pos = start + length;
    return text;
  }

  /** Reads a byte string whose first byte has been read; copies it. */
  byteString(info: number): Uint8Array<ArrayBuffer> {
    if (info !== INDEFINITE) {
      if (this.aside !== null) {
        const long = this.#takeAside(info);
        if (long !== null) return long;
      }
      const length = this.length(info);
      const start = this.pos;
      this.pos = start + length;
      return copy(this.bytes, start, this.pos);
    }
    // Two passes, so that tiny chunks cost no more than their bytes.
    const start = this.pos;
    let total = 0;
    while (!this.atBreak()) {
      const length = this.length(this.expect(2));
      this.pos += length;
      total += length;
    }
    const all = new Uint8Array(total);
    this.pos = start;
    let to = 0;
    while (!this.atBreak()) {
      const length = this.length(this.expect(2));
      all.set(this.bytes.subarray(this.pos, this.pos + length), to);
      this.pos += length;
      to += length;
    }
    return all;
  }

  /** The byte string that is aside, if it is this one; else nothing is read. */
  #takeAside(info: number): Uint8Array<ArrayBuffer> | null {
    const { pos, aside } = this;
    const length = this.argument(info);
    if (this.pos === aside!.at && length === aside!.bytes.length) {
      return aside!.bytes;
    }
    this.pos = pos;
    return null;
  }

  /** Fails if fewer than `count` bytes are left. */
  need(count: number): void {
    if (this.end - this.pos < count) this.truncated();
  }

  /** Fails for want of bytes. */
  truncated(): never {
    return this.fail("it ends too early", this.end);
  }

  /** Fails for what is at a position. */
  fail(reason: string, at: number, cause?: unknown): never {
    const offset = at - this.start;
    throw new DecodeError(
      `Cannot decode value: ${reason} (offset ${offset})`,
      cause === undefined ? { offset } : { offset, cause },
    );
  }
}

function uint32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 |
    bytes[at + 3]!) >>> 0;
}

/** A copy with a buffer of its own, whatever kind of array `bytes` is. */
function copy(
  bytes: Uint8Array,
  start: number,
  end: number,
): Uint8Array<ArrayBuffer> {
  prepareBulkMemory(end - start);
  return new Uint8Array(bytes.subarray(start, end));
}
