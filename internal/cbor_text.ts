/**
 * UTF-8 in place to text, strict and fast.
 *
 * @module
 */

import { Buffer } from "node:buffer";

/** Text up to this size is looked at byte by byte first: it is mostly ASCII. */
const SHORT_BYTES = 64;

const lenient = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Bytes to text, each byte one character. Works on any Uint8Array. */
const latin1Slice = (Buffer.prototype as unknown as {
  latin1Slice(this: Uint8Array, start: number, end: number): string;
}).latin1Slice;

/** The text in a range of bytes, or `undefined` if it isn't valid UTF-8. */
export function decodeText(
  bytes: Uint8Array,
  start: number,
  end: number,
): string | undefined {
  if (end - start < SHORT_BYTES) {
    let at = start;
    while (at < end && bytes[at]! < 0x80) at++;
    if (at === end) return latin1Slice.call(bytes, start, end);
  }
  const range = bytes.subarray(start, end);
  const text = lenient.decode(range);
  // The strict decoder is several times slower. What isn't valid shows as
  // U+FFFD; only then is it asked whether that was sent or is a replacement.
  if (!text.includes("\ufffd")) return text;
  try {
    return strict.decode(range);
  } catch {
    return undefined;
  }
}
