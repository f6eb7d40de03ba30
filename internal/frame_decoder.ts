/**
 * Finds frames in a stream of bytes, however they are split. "Not enough bytes
 * yet" is a return value; no I/O happens here.
 *
 * @module
 */

import { prepareBulkMemory } from "./bulk_memory.ts";
import { ProtocolError } from "./errors.ts";
import { type Aside, findLongString, LONG_BYTES } from "./long_string.ts";

/** The buffer of a connection that is idle or slow, in bytes. */
const SMALL_BYTES = 2 * 1024;
/** The buffer of a connection that fills its small one, in bytes. */
const LARGE_BYTES = 128 * 1024;
/** The same, where there is one connection and no more. */
export const LONE_BYTES: number = 512 * 1024;
/** Buffers up to this size, in bytes, stay while frames need them. */
const KEPT_BYTES = 1280 * 1024;
/** A long string isn't looked for before so much of its frame has come. */
const BEGUN_BYTES = 16 * 1024;
/** So many times what has come of a frame is allocated for the rest of it. */
const TRUST = 16;
/** After so many reads that would have fitted, a buffer becomes small again. */
const SMALL_READS = 64;

/**
 * Collects bytes and hands out whole frames as ranges of its own buffer. A long
 * byte string is read into an allocation of its own (see {@linkcode aside}).
 *
 * Usage: read into {@linkcode space}, tell {@linkcode advance}, and call
 * {@linkcode next} until it returns false. A range is good until the next call
 * of `space`.
 */
export class FrameDecoder {
  /** The buffer that `start` and `end` are offsets of. */
  bytes: Uint8Array<ArrayBuffer> = new Uint8Array(SMALL_BYTES);
  /** Where the body of the current frame starts. */
  start = 0;
  /** Where it ends. */
  end = 0;
  /** The largest body that is accepted, in bytes. */
  limit: number;
  /** The byte string that is missing in the current frame's range; null: none. */
  aside: Aside | null = null;
  /** Which strings are read aside: none, payloads, or those in payloads. */
  long: "none" | "payloads" | "values" = "none";
  readonly #largeBytes: number;
  #low = 0;
  #high = 0;
  #small = 0;
  /** Whether the last frame had a long string. */
  #wasLong = false;
  /** The string of the frame that is coming; `at` counts from `#low`. */
  #long: { at: number; bytes: Uint8Array<ArrayBuffer>; filled: number } | null =
    null;

  /**
   * @param limit The largest body that is accepted, in bytes.
   * @param largeBytes The buffer while much comes, in bytes.
   */
  constructor(limit: number, largeBytes: number = LARGE_BYTES) {
    this.limit = limit;
    this.#largeBytes = largeBytes;
  }

  /** Whether some bytes of an unfinished frame are here. */
  get partial(): boolean {
    return this.#high > this.#low;
  }

  /** Room to read into. */
  space(): Uint8Array<ArrayBuffer> {
    this.aside = null;
    if (this.long !== "none") this.#findLong();
    const long = this.#long;
    if (long !== null && long.filled < long.bytes.length) {
      return long.bytes.subarray(long.filled);
    }
    const held = this.#high - this.#low;
    const size = this.bytes.length;
    if (held === 0) {
      this.#low = this.#high = 0;
      if (size > SMALL_BYTES && this.#small >= SMALL_READS) {
        this.#replace(SMALL_BYTES, 0);
      } else if (size > KEPT_BYTES) this.#replace(LARGE_BYTES, 0);
    } else if (size - this.#high < size / 4) {
      // The frame's length is checked, but space follows what has come: a
      // length alone costs its sender about as much as it costs us.
      if (held > size / 2) {
        const needed = 4 + this.#frameLength() + LARGE_BYTES;
        this.#replace(
          Math.max(LARGE_BYTES, size, Math.min(size * 3, needed)),
          held,
        );
      } else {
        this.bytes.copyWithin(0, this.#low, this.#high);
      }
      this.#low = 0;
      this.#high = held;
    }
    // Little of the next long string is to be copied from here.
    return this.#wasLong && this.#high < LARGE_BYTES
      ? this.bytes.subarray(this.#high, LARGE_BYTES)
      : this.bytes.subarray(this.#high);
  }

  /** Tells that `count` bytes were read into {@linkcode space}. */
  advance(count: number): void {
    const long = this.#long;
    if (long !== null && long.filled < long.bytes.length) {
      long.filled += count;
      return;
    }
    this.#high += count;
    if (this.#high === this.bytes.length) {
      this.#small = 0;
      if (this.bytes.length < this.#largeBytes) {
        this.#replace(this.#largeBytes, this.#high - this.#low);
        this.#high -= this.#low;
        this.#low = 0;
      }
    } else if (count < SMALL_BYTES) this.#small++;
    else this.#small = 0;
  }

  /**
   * Moves to the next whole frame; false if there is none yet.
   *
   * @throws {ProtocolError} If the frame is empty or larger than the limit.
   */
  next(): boolean {
    const low = this.#low;
    const held = this.#high - low;
    if (held < 4) return false;
    const length = this.#frameLength();
    if (length > this.limit || length === 0) {
      throw new ProtocolError(
        length === 0
          ? "Cannot decode frame: length is 0, expected at least 1"
          : `Cannot decode frame: length is ${length}, limit is ${this.limit}${this.#otherProtocol()}`,
      );
    }
    const long = this.#long;
    const missing = long === null ? 0 : long.bytes.length;
    if (held < 4 + length - missing) return false;
    this.aside = null;
    if (long !== null) {
      if (long.filled < missing) return false;
      this.aside = { at: low + long.at, bytes: long.bytes };
      this.#long = null;
    }
    this.#wasLong = missing > 0;
    this.start = low + 4;
    this.#low = this.end = low + 4 + length - missing;
    return true;
  }

  /** If a frame is coming that has a long string, its rest is read aside. */
  #findLong(): void {
    const held = this.#high - this.#low;
    if (this.#long !== null || held < BEGUN_BYTES) return;
    const length = this.#frameLength();
    // The frame's length is checked, but space follows what has come.
    if (length < held + LONG_BYTES / 2 || length > held * TRUST) return;
    const found = findLongString(this.bytes, {
      start: this.#low + 4,
      end: this.#high,
      length,
      inside: this.long === "values",
    });
    if (found === null) return;
    const { at, size } = found;
    prepareBulkMemory(size);
    const bytes = new Uint8Array(size);
    bytes.set(this.bytes.subarray(at, this.#high));
    this.#long = { at: at - this.#low, bytes, filled: this.#high - at };
    this.#high = at;
  }

  /** The length of the body that begins here; its head has come. */
  #frameLength(): number {
    const { bytes } = this, low = this.#low;
    return (bytes[low]! << 24 | bytes[low + 1]! << 16 |
      bytes[low + 2]! << 8 | bytes[low + 3]!) >>> 0;
  }

  /** What a peer of another protocol begins with, in words. */
  #otherProtocol(): string {
    const head = this.bytes.subarray(this.#low, this.#low + 4);
    if ((head[0] === 0x16 || head[0] === 0x15) && head[1] === 3) {
      return ": the peer seems to speak TLS";
    }
    const text = String.fromCharCode(...head);
    return /^(?:GET |HEAD|POST|PUT |PRI |HTTP)$/.test(text)
      ? ": the peer seems to speak HTTP"
      : "";
  }

  #replace(size: number, held: number): void {
    const bytes = new Uint8Array(Math.max(size, held));
    bytes.set(this.bytes.subarray(this.#low, this.#low + held));
    this.bytes = bytes;
    this.#small = 0;
  }
}
