/**
 * The output buffer that frames and the codec write into, side by side.
 *
 * @module
 */

import { prepareBulkMemory } from "./bulk_memory.ts";
import { FrameTooLargeError } from "./errors.ts";

/** A byte string that is sent from where it is. */
export interface Segment {
  /** It goes before this position of the buffer. Never decreases. */
  at: number;
  /** The bytes; not copied. */
  readonly bytes: Uint8Array;
  /** How many there were: none are left in a buffer that was transferred. */
  readonly size: number;
}

/**
 * Byte strings of at least so many bytes are sent from where they are: copying
 * shorter ones costs less than a write of their own.
 */
export const SEGMENT_BYTES: number = 128 * 1024;

/** A value so many times as long as its limit isn't encoded to its end. */
const FAR = 4;

const encoder = new TextEncoder();

/** Text up to this many UTF-16 units is copied in a loop, longer text natively. */
const LOOP_LENGTH = 64;

/** A buffer that grows at all grows to this size at least. */
const MIN_BYTES = 1024;

/**
 * Makes a larger buffer of one of which `used` bytes are used, with those in it
 * and room for `needed` in all: of twice the size at least.
 */
export function enlarge(
  bytes: Uint8Array<ArrayBuffer>,
  used: number,
  needed: number,
): Uint8Array<ArrayBuffer> {
  const size = Math.max(needed, bytes.length * 2, MIN_BYTES);
  const larger = new Uint8Array(size);
  larger.set(bytes.subarray(0, used));
  return larger;
}

/**
 * A growing output buffer. Long byte strings can stay out of it, as
 * {@linkcode segments}, so that they are never copied.
 *
 * The data items that it writes are CBOR (RFC 8949) in their preferred
 * encoding: the shortest head that holds the value.
 */
export class ByteWriter {
  /** The buffer. Growth replaces it. */
  bytes: Uint8Array<ArrayBuffer>;
  /** How much of {@linkcode bytes} is used. */
  length = 0;
  /** What is sent from where it is, in the order of `at`. */
  segments: Segment[] = [];
  /** The sum of the segments' lengths. */
  segmentBytes = 0;
  /** Whether a value is being encoded into it right now. */
  busy = false;
  /** How long a value may become, in bytes; 0: as long as it is. */
  valueLimit = 0;
  /** Where the value that is being encoded begins, in bytes written. */
  #valueFrom = 0;
  readonly #enlarge: typeof enlarge;

  /**
   * @param capacity The size of the first buffer, in bytes.
   * @param larger Makes larger ones; what it is given isn't used any more.
   */
  constructor(capacity = 1024, larger: typeof enlarge = enlarge) {
    this.bytes = new Uint8Array(capacity);
    this.#enlarge = larger;
  }

  /** Makes room for `count` more bytes. */
  reserve(count: number): void {
    if (this.length + count > this.bytes.length) this.#grow(count);
  }

  #grow(count: number): void {
    if (this.busy) this.#check(count);
    this.bytes = this.#enlarge(this.bytes, this.length, this.length + count);
  }

  /**
   * Writes the head of a data item.
   *
   * @param major Its major type, 0 to 7.
   * @param value Its argument, an integer from 0 to 2^53.
   */
  writeHead(major: number, value: number): void {
    if (this.length + 9 > this.bytes.length) this.#grow(9);
    const bytes = this.bytes;
    const at = this.length;
    const high = major << 5;
    if (value < 24) {
      bytes[at] = high | value;
      this.length = at + 1;
    } else if (value < 0x100) {
      bytes[at] = high | 24;
      bytes[at + 1] = value;
      this.length = at + 2;
    } else if (value < 0x10000) {
      bytes[at] = high | 25;
      bytes[at + 1] = value >> 8;
      bytes[at + 2] = value;
      this.length = at + 3;
    } else if (value < 0x100000000) {
      bytes[at] = high | 26;
      bytes[at + 1] = value >>> 24;
      bytes[at + 2] = value >>> 16;
      bytes[at + 3] = value >>> 8;
      bytes[at + 4] = value;
      this.length = at + 5;
    } else {
      const top = Math.floor(value / 0x100000000);
      const low = value >>> 0;
      bytes[at] = high | 27;
      bytes[at + 1] = top >>> 24;
      bytes[at + 2] = top >>> 16;
      bytes[at + 3] = top >>> 8;
      bytes[at + 4] = top;
      bytes[at + 5] = low >>> 24;
      bytes[at + 6] = low >>> 16;
      bytes[at + 7] = low >>> 8;
      bytes[at + 8] = low;
      this.length = at + 9;
    }
  }

  /**
   * Leaves room for a head whose argument isn't known yet. Returns what
   * {@linkcode endHead} takes.
   */
  beginHead(): number {
    if (this.length + 1 > this.bytes.length) this.#grow(1);
    return this.length++;
  }

  /** Writes the head at `at`, moving what follows if it needs more room. */
  endHead(at: number, major: number, value: number): void {
    if (value < 24) {
      this.bytes[at] = major << 5 | value;
      return;
    }
    const more = headSize(value) - 1;
    this.reserve(more);
    this.bytes.copyWithin(at + 1 + more, at + 1, this.length);
    const length = this.length + more;
    this.length = at;
    this.writeHead(major, value);
    this.length = length;
    for (let i = this.segments.length - 1; i >= 0; i--) {
      const segment = this.segments[i]!;
      if (segment.at <= at) break;
      segment.at += more;
    }
  }

  /**
   * Writes an integer that fits into 32 bits, as most do: what `value | 0`
   * leaves alone.
   */
  writeInt32(value: number): void {
    if (this.length + 5 > this.bytes.length) this.#grow(5);
    const bytes = this.bytes;
    const at = this.length;
    let high = 0;
    if (value < 0) {
      high = 0x20;
      value = ~value;
    }
    if (value < 24) {
      bytes[at] = high | value;
      this.length = at + 1;
    } else if (value < 0x100) {
      bytes[at] = high | 24;
      bytes[at + 1] = value;
      this.length = at + 2;
    } else if (value < 0x10000) {
      bytes[at] = high | 25;
      bytes[at + 1] = value >> 8;
      bytes[at + 2] = value;
      this.length = at + 3;
    } else {
      bytes[at] = high | 26;
      bytes[at + 1] = value >> 24;
      bytes[at + 2] = value >> 16;
      bytes[at + 3] = value >> 8;
      bytes[at + 4] = value;
      this.length = at + 5;
    }
  }

  /** Writes an unsigned integer from 0 to 2^53. */
  writeUint(value: number): void {
    this.writeHead(0, value);
  }

  /**
   * Writes a text string.
   *
   * @throws {RangeError} If the text has a lone surrogate: UTF-8 has none.
   */
  writeText(text: string): void {
    if (!this.tryWriteText(text)) {
      throw new RangeError("Cannot write text: it has a lone surrogate");
    }
  }

  /**
   * Writes a text string and returns true, or returns false with nothing
   * written if the text has a lone surrogate.
   */
  tryWriteText(text: string): boolean {
    const length = text.length;
    let at = this.length;
    const bytes = this.bytes;
    if (length >= LOOP_LENGTH || at + length + 2 > bytes.length) {
      return this.#writeLongText(text);
    }
    if (length < 24) {
      bytes[at++] = 0x60 | length;
    } else {
      bytes[at] = 0x78;
      bytes[at + 1] = length;
      at += 2;
    }
    for (let i = 0; i < length; i++) {
      const unit = text.charCodeAt(i);
      if (unit > 0x7f) return this.#writeLongText(text);
      bytes[at++] = unit;
    }
    this.length = at;
    return true;
  }

  #writeLongText(text: string): boolean {
    const length = text.length;
    // A UTF-16 unit is at most 3 bytes of UTF-8.
    if (this.length + length * 3 + 9 > this.bytes.length) {
      this.#growForText(text);
    }
    // The head's size is guessed from the length in UTF-16 units, right for
    // ASCII; what is longer moves up.
    const bytes = this.bytes;
    const start = this.length;
    const guess = headSize(length);
    // "| 0" for the sake of speed: without it `length` becomes a field of
    // doubles, and everything that writes takes twice as long.
    const written = encoder.encodeInto(
      text,
      bytes.subarray(start + guess),
    ).written | 0;
    if (written !== length) {
      if (!text.isWellFormed()) return false;
      const size = headSize(written);
      if (size !== guess) {
        const from = start + guess;
        bytes.copyWithin(start + size, from, from + written);
      }
    }
    this.writeHead(3, written);
    this.length += written;
    return true;
  }

  /** Makes room for text, without three times its size if it is long. */
  #growForText(text: string): void {
    const length = text.length;
    this.reserve(length < 4096 ? length * 3 + 9 : utf8Length(text) + 18);
  }

  /** Writes a byte string, copying it. */
  writeBytes(bytes: Uint8Array): void {
    const length = bytes.length;
    this.reserve(length + 9);
    this.writeHead(2, length);
    this.bytes.set(bytes, this.length);
    this.length += length;
  }

  /** A value is encoded from here on. */
  beginValue(): void {
    this.busy = true;
    this.#valueFrom = this.length + this.segmentBytes;
  }

  /**
   * Ends a value that is far too long, before it takes all memory and time: one
   * whose parts are shared, and theirs too, is longer than anyone would guess.
   */
  #check(count: number): void {
    const limit = this.valueLimit;
    const size = this.length + this.segmentBytes + count - this.#valueFrom;
    if (limit === 0 || size <= limit * FAR) return;
    throw new FrameTooLargeError(size, limit, { isPart: true });
  }

  /** Adds bytes that are sent from where they are. Their head comes first. */
  addSegment(bytes: Uint8Array): void {
    if (this.busy) this.#check(bytes.length);
    this.segments.push({ at: this.length, bytes, size: bytes.length });
    this.segmentBytes += bytes.length;
  }

  /**
   * Goes back to an earlier state, after something half-written failed.
   *
   * @param length What {@linkcode length} was.
   * @param segmentCount How many segments there were.
   */
  truncate(length: number, segmentCount: number): void {
    this.length = length;
    while (this.segments.length > segmentCount) {
      this.segmentBytes -= this.segments.pop()!.size;
    }
  }

  /** Empties it. The buffer stays; the list of segments is a new one. */
  reset(): void {
    this.length = 0;
    if (this.segmentBytes !== 0 || this.segments.length !== 0) {
      this.segments = [];
      this.segmentBytes = 0;
    }
  }

  /** Goes on, empty, in another buffer; returns the one used until now. */
  swap(buffer: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const { bytes } = this;
    this.bytes = buffer;
    this.reset();
    return bytes;
  }

  /** A copy of everything that was written, segments included. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const { bytes, segments, length } = this;
    prepareBulkMemory(length + this.segmentBytes);
    if (segments.length === 0) return bytes.slice(0, length);
    const all = new Uint8Array(length + this.segmentBytes);
    let from = 0;
    let to = 0;
    for (const segment of segments) {
      all.set(bytes.subarray(from, segment.at), to);
      to += segment.at - from;
      from = segment.at;
      all.set(segment.bytes, to);
      to += segment.bytes.length;
    }
    all.set(bytes.subarray(from, length), to);
    return all;
  }
}

/** The size in bytes of the shortest head that holds `value`. */
function headSize(value: number): number {
  return value < 24
    ? 1
    : value < 0x100
    ? 2
    : value < 0x10000
    ? 3
    : value < 0x100000000
    ? 5
    : 9;
}

/** The size of text in UTF-8, in bytes. */
function utf8Length(text: string): number {
  let size = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit > 0x7ff) size += 2;
    else if (unit > 0x7f) size++;
  }
  return size;
}
