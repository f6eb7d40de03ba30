/**
 * The buffers of connections' outputs: taken when there is something to write,
 * given back when it is written, so that idle connections hold none.
 *
 * @module
 */

import { enlarge, SEGMENT_BYTES } from "./byte_writer.ts";

/** Output above this many bytes is written at once, and pushes back. */
export const HIGH_WATER_BYTES: number = 64 * 1024;
/** The size of an output buffer that little is written to at a time. */
const SMALL_BYTES = 8 * 1024;
/** The size of one that much is: past the high-water mark with a value more. */
const LARGE_BYTES = HIGH_WATER_BYTES + SEGMENT_BYTES;
/** How many bytes of each size are kept for connections that will need them. */
const SPARE_BYTES = 16 * 1024 * 1024;

const small: Uint8Array<ArrayBuffer>[] = [];
const large: Uint8Array<ArrayBuffer>[] = [];

/** Whether so many bytes ask for a large buffer the next time. */
export function needsLarge(bytes: number): boolean {
  return bytes > SMALL_BYTES / 2;
}

/** A buffer that nobody else uses. */
export function takeBuffer(isLarge: boolean): Uint8Array<ArrayBuffer> {
  return isLarge
    ? large.pop() ?? new Uint8Array(LARGE_BYTES)
    : small.pop() ?? new Uint8Array(SMALL_BYTES);
}

/** Gives a buffer back, also one that has grown, or has no bytes at all. */
export function giveBuffer(buffer: Uint8Array<ArrayBuffer>): void {
  const { length } = buffer;
  const spare = length === SMALL_BYTES
    ? small
    : length === LARGE_BYTES
    ? large
    : null;
  if (spare !== null && spare.length * length < SPARE_BYTES) spare.push(buffer);
}

/** What `ByteWriter` enlarges by: a small buffer makes place for a large one. */
export function enlargeBuffer(
  bytes: Uint8Array<ArrayBuffer>,
  used: number,
  needed: number,
): Uint8Array<ArrayBuffer> {
  if (needed > LARGE_BYTES || bytes.length >= LARGE_BYTES) {
    return enlarge(bytes, used, needed);
  }
  const larger = takeBuffer(true);
  larger.set(bytes.subarray(0, used));
  giveBuffer(bytes);
  return larger;
}
