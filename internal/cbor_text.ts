/**
 * UTF-8 in place to text, strict and fast.
 *
 * @module
 */

import { Buffer } from "node:buffer";

/** Text up to this size is made of its character codes if it is ASCII. */
const TINY_BYTES = 8;
/** From this size on it pays to guess first whether text is ASCII. */
const LONG_BYTES = 256;
/** So much of a text is quoted in an error, in UTF-16 units. */
const MAX_QUOTE = 100;

/** The guess: what the last long text was. */
let isAscii = true;

const lenient = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Methods of Buffer that work on any Uint8Array. */
const { latin1Slice, utf8Slice } = Buffer.prototype as unknown as Record<
  "latin1Slice" | "utf8Slice",
  (this: Uint8Array, start: number, end: number) => string
>;

/** The text in a range of bytes, or `undefined` if it isn't valid UTF-8. */
export function decodeText(
  bytes: Uint8Array,
  start: number,
  end: number,
): string | undefined {
  const size = end - start;
  if (size <= TINY_BYTES) {
    const text = tinyAscii(bytes, start, size);
    if (text !== undefined) return text;
  }
  let text: string;
  if (size < LONG_BYTES) text = utf8Slice.call(bytes, start, end);
  else {
    if (isAscii) {
      text = latin1Slice.call(bytes, start, end);
      if (Buffer.byteLength(text) === size) return text;
    }
    text = lenient.decode(bytes.subarray(start, end));
    isAscii = text.length === size;
  }
  // Strict decoding is several times slower. What isn't valid shows as U+FFFD;
  // only then is it asked whether that was sent or stands for something else.
  if (!text.includes("\ufffd")) return text;
  try {
    return strict.decode(bytes.subarray(start, end));
  } catch {
    return undefined;
  }
}

/** The text of 0 to 8 bytes if they are ASCII, else `undefined`. */
function tinyAscii(
  bytes: Uint8Array,
  at: number,
  size: number,
): string | undefined {
  if (size === 0) return "";
  const a = bytes[at]!;
  const b = size > 1 ? bytes[at + 1]! : 0;
  const c = size > 2 ? bytes[at + 2]! : 0;
  const d = size > 3 ? bytes[at + 3]! : 0;
  const e = size > 4 ? bytes[at + 4]! : 0;
  const f = size > 5 ? bytes[at + 5]! : 0;
  const g = size > 6 ? bytes[at + 6]! : 0;
  const h = size > 7 ? bytes[at + 7]! : 0;
  if ((a | b | c | d | e | f | g | h) > 0x7f) return undefined;
  switch (size) {
    case 1:
      return String.fromCharCode(a);
    case 2:
      return String.fromCharCode(a, b);
    case 3:
      return String.fromCharCode(a, b, c);
    case 4:
      return String.fromCharCode(a, b, c, d);
    case 5:
      return String.fromCharCode(a, b, c, d, e);
    case 6:
      return String.fromCharCode(a, b, c, d, e, f);
    case 7:
      return String.fromCharCode(a, b, c, d, e, f, g);
    default:
      return String.fromCharCode(a, b, c, d, e, f, g, h);
  }
}

/** A text in words: what a peer made long would make an error long, too. */
export function quote(text: string): string {
  return text.length > MAX_QUOTE
    ? JSON.stringify(text.slice(0, MAX_QUOTE)) + "…"
    : JSON.stringify(text);
}
