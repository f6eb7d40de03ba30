/**
 * The wire's vocabulary: the type of every frame, the codes that some of them
 * carry, and how frames are written. PROTOCOL.md is the truth; sections are
 * cited by their numbers there.
 *
 * @module
 */

import type { ByteWriter } from "./byte_writer.ts";
import type { HandshakeErrorCode } from "./errors.ts";

/** The version of the protocol that this implementation speaks. */
export const PROTOCOL_VERSION = 1;

/** The text that every HELLO starts with. */
export const MAGIC = "distchan";

/** What a peer may send in all before the handshake is done (section 3). */
export const MAX_HANDSHAKE_BYTES = 4096;

/** What transforms must leave of a frame, in bytes. */
export const MIN_PLAIN_BYTES = 256;

/** The most bytes that an unsigned integer takes. */
export const MAX_UINT_BYTES = 9;

/** The smallest and the largest `maxFrameBytes` there may be (section 10). */
export const MIN_FRAME_BYTES = 1024, MAX_FRAME_BYTES = 0xffff_ffff;

/** The largest concurrency that a worker may announce (section 10). */
export const MAX_CONCURRENCY = 4096;

/** A frame that holds this much is closed, and the next value starts another. */
const FULL_FRAME_BYTES = 16 * 1024;

/** The types of frames (section 4). All are below 24: one byte each. */
export const FrameType = {
  HELLO: 1,
  WELCOME: 2,
  REJECT: 3,
  CHALLENGE: 4,
  PROOF: 5,
  CONFIRM: 6,
  ITEM: 8,
  RESULT: 9,
  ERROR: 10,
  VALUE: 11,
  DONE: 12,
  ACK: 13,
  CREDIT: 14,
  CANCEL: 15,
  LEAVE: 16,
  END: 17,
  PING: 20,
  PONG: 21,
  GOODBYE: 22,
} as const;

/** The name of a frame type, for messages. */
export function frameName(type: number): string {
  for (const [name, value] of Object.entries(FrameType)) {
    if (value === type) return name;
  }
  return `frame of type ${type}`;
}

/** The modes of a worker, in CREDIT (section 5). */
export const Mode = { STREAM: 0, WORK: 1 } as const;

/** The kinds of an item, in ITEM (section 5). */
export const ItemKind = {
  /** From `send()` or `writable`: any number of values may come of it. */
  VALUE: 0,
  /** From `submit()` or `map()`: exactly one result is waited for. */
  CALL: 1,
} as const;

/** The codes of REJECT (section 3). */
export const REJECT_CODES: readonly (HandshakeErrorCode | undefined)[] = [
  undefined,
  "signature",
  "version",
  "codec",
  "transforms",
  "auth",
  "full",
  "timeout",
  "protocol",
];

/** Why an end says GOODBYE. */
export type GoodbyeCode =
  | "normal"
  | "aborted"
  | "protocol"
  | "timeout"
  | "transforms";

/** The codes of GOODBYE (section 7), by number. */
export const GOODBYE_CODES: readonly GoodbyeCode[] = [
  "normal",
  "aborted",
  "protocol",
  "timeout",
  "transforms",
];

/** The longest reason of REJECT and GOODBYE, in UTF-16 units (section 10). */
export const MAX_REASON = 1000;

/** In place of the type and the start of a frame: none is open. */
const NONE = -1;

/**
 * Writes frames into a {@linkcode ByteWriter}. Values that follow one another
 * share a frame: it stays open until something else is written, it is full, or
 * the output is flushed.
 */
export class FrameWriter {
  /** The buffer. */
  readonly out: ByteWriter;
  /** The largest frame that the peer receives, in bytes. */
  limit: number = MAX_HANDSHAKE_BYTES;
  #type = NONE;
  #start = NONE;
  #segmentBytes = 0;
  #attempt = 0;
  #kind = 0;

  constructor(out: ByteWriter) {
    this.out = out;
  }

  /** Starts a frame and closes the one before it. */
  begin(type: number): void {
    if (this.#start !== NONE) this.close();
    const out = this.out;
    out.reserve(16);
    this.#start = out.length;
    this.#segmentBytes = out.segmentBytes;
    this.#type = type;
    out.length += 4;
    out.bytes[out.length++] = type;
  }

  /** Closes the open frame, if there is one, by writing its length. */
  close(): void {
    const start = this.#start;
    if (start === NONE) return;
    const { bytes } = this.out;
    const length = this.size;
    bytes[start] = length >>> 24;
    bytes[start + 1] = length >>> 16;
    bytes[start + 2] = length >>> 8;
    bytes[start + 3] = length;
    this.#start = NONE;
    this.#type = NONE;
  }

  /** The size of the open frame's body so far, in bytes. */
  get size(): number {
    return this.out.length - this.#start - 4 +
      this.out.segmentBytes - this.#segmentBytes;
  }

  /** Whether a frame of this type is open and has room for another value. */
  isOpen(type: number): boolean {
    return this.#type === type &&
      this.out.length - this.#start < FULL_FRAME_BYTES &&
      this.out.segmentBytes - this.#segmentBytes < FULL_FRAME_BYTES;
  }

  /** Opens an ITEM frame, or goes on with the open one if it fits. */
  openItem(attempt: number, kind: number, delivery: number): void {
    if (
      this.isOpen(FrameType.ITEM) && this.#attempt === attempt &&
      this.#kind === kind
    ) return;
    this.begin(FrameType.ITEM);
    this.out.writeUint(attempt);
    this.out.writeUint(kind);
    this.out.writeUint(delivery);
    this.#attempt = attempt;
    this.#kind = kind;
  }

  /** Opens a frame of a type that holds one value after another. */
  open(type: number): void {
    if (!this.isOpen(type)) this.begin(type);
  }

  /**
   * Starts a payload in place: its length is written when it is known. Returns
   * what {@linkcode endPayload} takes.
   */
  beginPayload(): number {
    const out = this.out;
    out.reserve(16);
    const at = out.length;
    out.length = at + 3;
    return at;
  }

  /**
   * Ends a payload.
   *
   * @param at Where it starts.
   * @param segmentBytes The buffer's segment bytes before it.
   * @returns Its length in bytes.
   */
  endPayload(at: number, segmentBytes: number): number {
    const out = this.out;
    const length = out.length - at - 3 + out.segmentBytes - segmentBytes;
    if (length < 0x10000) {
      const bytes = out.bytes;
      bytes[at] = 0x59;
      bytes[at + 1] = length >>> 8;
      bytes[at + 2] = length;
      return length;
    }
    // Longer: the head takes five bytes, not three.
    out.reserve(2);
    const bytes = out.bytes;
    bytes.copyWithin(at + 5, at + 3, out.length);
    out.length += 2;
    for (let i = out.segments.length - 1; i >= 0; i--) {
      const segment = out.segments[i]!;
      if (segment.at < at + 3) break;
      segment.at += 2;
    }
    bytes[at] = 0x5a;
    bytes[at + 1] = length >>> 24;
    bytes[at + 2] = length >>> 16;
    bytes[at + 3] = length >>> 8;
    bytes[at + 4] = length;
    return length;
  }

  /**
   * Takes back what was written since the buffer was in an earlier state. What
   * was complete then stays as it is.
   *
   * @param length What the buffer's `length` was.
   * @param segmentCount How many segments it had.
   */
  restore(length: number, segmentCount: number): void {
    this.out.truncate(length, segmentCount);
    if (this.#start >= length) this.#start = this.#type = NONE;
  }

  /** Writes a frame whose body is a list of unsigned integers. */
  uints(type: number, values: Iterable<number>): void {
    this.begin(type);
    for (const value of values) this.out.writeUint(value);
    this.close();
  }

  /** Writes REJECT or GOODBYE. */
  farewell(type: number, code: number, reason: string): void {
    this.begin(type);
    this.out.writeUint(code);
    // A UTF-16 unit is at most 3 bytes of UTF-8.
    const length = Math.min(MAX_REASON, Math.floor((this.limit - 16) / 3));
    this.out.writeText(clip(reason, length));
    this.close();
  }
}

/** Text that is at most `length` UTF-16 units and well-formed. */
export function clip(text: string, length: number): string {
  return (text.length > length ? text.slice(0, length - 1) + "…" : text)
    .toWellFormed();
}

/**
 * Characters that do more on a terminal than be shown; also what turns the
 * direction of all that follows it on its line.
 */
export const CONTROLS: RegExp =
  // deno-lint-ignore no-control-regex
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

/** What a peer says to people, who mostly see it in errors, on a terminal. */
export function saying(text: string, length: number): string {
  return clip(text, length).replaceAll(CONTROLS, "\ufffd");
}
