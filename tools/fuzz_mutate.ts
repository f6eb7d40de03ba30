/**
 * Changes inputs of the fuzzer: as bytes, and as lists of frames.
 *
 * @module
 */

import type { Rng } from "../tests/_support/rng.ts";

/** The largest input, in bytes. */
const MAX_INPUT_BYTES = 8 * 1024;

type Bytes = Uint8Array<ArrayBuffer>;

/** Numbers at which something changes. */
const EDGES = [0, 1, 23, 24, 255, 256, 65535, 65536, 2 ** 31, 2 ** 32 - 1];
/** Bytes that begin something in CBOR. */
const HEADS = [
  0x00,
  0x18,
  0x1b,
  0x3b,
  0x40,
  0x59,
  0x5f,
  0x60,
  0x7f,
  0x80,
  0x9f,
  0xa0,
  0xbb,
  0xbf,
  0xc0,
  0xc2,
  0xd8,
  0xd9,
  0xf4,
  0xf6,
  0xf7,
  0xf9,
  0xfb,
  0xff,
];

/** A changed copy of an input; `others` are inputs to take parts of. */
export function mutate(
  input: Bytes,
  others: readonly Bytes[],
  rng: Rng,
): Bytes {
  let bytes: Bytes = input.slice();
  const count = rng.chance(0.5) ? 1 : rng.int(2, 6);
  for (let i = 0; i < count; i++) bytes = mutateOnce(bytes, others, rng);
  return bytes.slice(0, MAX_INPUT_BYTES);
}

/** A changed copy of an input whose bytes from `from` on are frames. */
export function mutateFrames(
  input: Bytes,
  others: readonly Bytes[],
  options: { rng: Rng; from: number },
): Bytes {
  const { rng, from } = options;
  if (rng.chance(0.15)) return mutate(input, others, rng);
  const head = input.slice(0, from);
  const frames = split(input.subarray(from));
  const count = rng.chance(0.6) ? 1 : rng.int(2, 5);
  for (let i = 0; i < count; i++) mutateList(frames, others, options);
  if (from > 0 && rng.chance(0.1)) head[0] = rng.int(0, 255);
  return concat([head, ...frames]).slice(0, MAX_INPUT_BYTES);
}

function mutateList(
  frames: Bytes[],
  others: readonly Bytes[],
  { rng, from }: { rng: Rng; from: number },
): void {
  const at = rng.int(0, Math.max(0, frames.length - 1));
  const frame = frames[at];
  switch (rng.int(0, 6)) {
    case 0:
      frames.splice(at, 1);
      break;
    case 1:
      if (frame !== undefined) frames.splice(at, 0, frame);
      break;
    case 2:
      rng.shuffle(frames);
      break;
    case 3: {
      // A frame of another input.
      const theirs = split(rng.pick(others).subarray(from));
      if (theirs.length > 0) frames.splice(at, 0, rng.pick(theirs));
      break;
    }
    case 4:
      // Another type, the rest as it is.
      if (frame !== undefined && frame.length > 4) {
        const copy = frame.slice();
        copy[4] = rng.int(0, 24);
        frames[at] = copy;
      }
      break;
    default:
      if (frame !== undefined) {
        const bodies = others.map((o) => o.subarray(from));
        const body = mutateOnce(frame.slice(4), bodies, rng);
        frames[at] = framed(body);
      }
  }
}

/** Cuts bytes into frames; what is left over counts as one. */
function split(bytes: Uint8Array): Bytes[] {
  const frames: Bytes[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (at < bytes.length) {
    const end = at + 4 <= bytes.length
      ? Math.min(bytes.length, at + 4 + view.getUint32(at))
      : bytes.length;
    frames.push(bytes.slice(at, end) as Bytes);
    at = end;
  }
  return frames;
}

function framed(body: Uint8Array): Bytes {
  const bytes = new Uint8Array(4 + body.length);
  new DataView(bytes.buffer).setUint32(0, body.length);
  bytes.set(body, 4);
  return bytes;
}

function mutateOnce(
  bytes: Bytes,
  others: readonly Uint8Array[],
  rng: Rng,
): Bytes {
  const at = rng.int(0, bytes.length);
  const size = rng.int(1, rng.chance(0.9) ? 8 : 64);
  switch (rng.int(0, 9)) {
    case 0:
      if (at < bytes.length) bytes[at]! ^= 1 << rng.int(0, 7);
      return bytes;
    case 1:
      if (at < bytes.length) bytes[at] = rng.int(0, 255);
      return bytes;
    case 2:
      if (at < bytes.length) bytes[at] = rng.pick(HEADS);
      return bytes;
    case 3:
      return concat([bytes.subarray(0, at), bytes.subarray(at + size)]);
    case 4:
      return concat([
        bytes.subarray(0, at),
        rng.bytes(size),
        bytes.subarray(at),
      ]);
    case 5: {
      const part = bytes.subarray(at, at + size);
      return concat([bytes.subarray(0, at), part, bytes.subarray(at)]);
    }
    case 6:
      return bytes.slice(0, at);
    case 7: {
      // A number of 4 bytes.
      const view = new DataView(bytes.buffer);
      if (at + 4 <= bytes.length) {
        view.setUint32(at, rng.pick(EDGES) + rng.int(-1, 1));
      }
      return bytes;
    }
    case 8: {
      // Many times the same: depth, counts, floods.
      const part = bytes.slice(at, at + size);
      const times = rng.int(2, rng.chance(0.9) ? 20 : 500);
      return concat([
        bytes.subarray(0, at),
        ...new Array<Uint8Array>(times).fill(part),
        bytes.subarray(at),
      ]).slice(0, MAX_INPUT_BYTES);
    }
    default: {
      const other = rng.pick(others);
      const from = rng.int(0, other.length);
      return concat([
        bytes.subarray(0, at),
        other.subarray(from, from + rng.int(1, 64)),
        bytes.subarray(at),
      ]);
    }
  }
}

function concat(parts: readonly Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
