/**
 * Finds the long byte string of a frame that is still coming, so that its rest
 * can be read into an allocation of its own: the frame then has a gap, where
 * the string isn't.
 *
 * @module
 */

import { FrameType } from "./frame.ts";

/** Byte strings of at least this size, in bytes, are worth it. */
export const LONG_BYTES: number = 128 * 1024;

/** A long string is looked for in so many bytes of its frame. */
const SEARCHED_BYTES = 4096;

const HOLDS_PAYLOADS: ReadonlySet<number> = new Set([
  FrameType.ITEM,
  FrameType.RESULT,
  FrameType.VALUE,
]);

/** A byte string that isn't where the others of its frame are. */
export interface Aside {
  /** Where it would begin: the position behind its head. */
  readonly at: number;
  /** All of it. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Walks the heads at the beginning of a frame's body (PROTOCOL.md sections 4
 * and 8) up to a long byte string that hasn't come whole.
 *
 * @param bytes What holds the frame.
 * @param start Where its body begins.
 * @param end How far it has come.
 * @param length The body's length.
 * @param inside Whether payloads are CBOR, and to be looked into.
 * @returns Where the string begins and its size, or null: there is none, or
 * what there is can't be read in one go.
 */
export function findLongString(
  bytes: Uint8Array,
  { start, end, length, inside }: {
    start: number;
    end: number;
    length: number;
    inside: boolean;
  },
): { at: number; size: number } | null {
  // In others a byte string is no payload, and isn't to be looked into.
  if (!HOLDS_PAYLOADS.has(bytes[start]!)) return null;
  const last = Math.min(end, start + SEARCHED_BYTES) - 9;
  let isPayload = false;
  /** Where what holds the string ends: the frame, or its payload. */
  let limit = start + length;
  for (let at = start; at < last;) {
    const major = bytes[at]! >> 5, info = bytes[at]! & 31;
    if (info > 27) return null; // of indefinite length, or malformed
    const size = info < 24 ? 0 : 1 << (info - 24);
    let argument = info < 24 ? info : 0;
    for (let i = 1; i <= size; i++) argument = argument * 256 + bytes[at + i]!;
    at += 1 + size;
    if (major !== 2 && major !== 3) continue;
    if (at + argument <= end) {
      at += argument;
      continue;
    }
    if (major === 3) return null;
    if (inside && !isPayload) {
      isPayload = true;
      limit = Math.min(limit, at + argument);
      continue;
    }
    return argument < LONG_BYTES || at + argument > limit
      ? null
      : { at, size: argument };
  }
  return null;
}
