/**
 * The default codec, with the faster way in that a connection uses.
 *
 * @module
 */

import { ByteWriter, SEGMENT_BYTES } from "./byte_writer.ts";
import { CborDecoder } from "./cbor_decoder.ts";
import { CborEncoder } from "./cbor_encoder.ts";
import type { Aside } from "./long_string.ts";

/** In `encode()`, byte strings of at least so many bytes are copied once only. */
const COPIED_ONCE_BYTES = 16 * 1024;

/** Buffers larger than this aren't kept for the next value. */
const MAX_KEPT_BYTES = 1024 * 1024;

/**
 * Payloads up to this size share buffers: an ArrayBuffer of its own costs small
 * ones more than all the rest.
 */
const MAX_POOLED_BYTES = 4 * 1024;
/** The size of a buffer that small payloads share. */
const POOL_BYTES = 32 * 1024;

let pool = new Uint8Array(0);
let poolUsed = 0;

/** A copy of a small payload. */
function pooled(out: ByteWriter): Uint8Array<ArrayBuffer> {
  const { length } = out;
  // Somebody may have detached the buffer: its length is 0 then.
  if (poolUsed + length > pool.length) {
    pool = new Uint8Array(POOL_BYTES);
    poolUsed = 0;
  }
  const payload = pool.subarray(poolUsed, poolUsed + length);
  payload.set(out.bytes.subarray(0, length));
  // Eight bytes apart, so that no two are in one word.
  poolUsed = (poolUsed + length + 7) & ~7;
  return payload;
}

/** Options of `cbor()`. */
export interface CborOptions {
  /**
   * How deep arrays, maps and tags may nest, in what is encoded and in what is
   * decoded.
   *
   * @default {64}
   */
  maxDepth?: number;
}

/** The default codec: a strict profile of RFC 8949. */
export class CborCodec<T = unknown> {
  /** The codec's name, which both ends must agree on. */
  readonly name: string = "cbor";
  /** How deep values may nest. */
  readonly maxDepth: number;
  readonly #encoder: CborEncoder;
  readonly #decoder: CborDecoder;
  /** The output of {@linkcode encode}; none while a call is under way. */
  #out: ByteWriter | undefined;

  /** @param options The options of `cbor()`. */
  constructor(options: CborOptions = {}) {
    const maxDepth = this.maxDepth = checkOptions(options);
    this.#encoder = new CborEncoder(maxDepth);
    this.#decoder = new CborDecoder({ maxDepth });
  }

  /**
   * Encodes a value into bytes of its own, which may be a part of a larger
   * buffer.
   *
   * @throws {EncodeError} If it has a part that can't be encoded.
   */
  encode(value: T): Uint8Array<ArrayBuffer> {
    // A getter of the value may call encode() again: that call makes its own.
    const out = this.#out ?? new ByteWriter();
    this.#out = undefined;
    try {
      this.#encoder.encode(out, value, COPIED_ONCE_BYTES);
      return out.segments.length === 0 && out.length <= MAX_POOLED_BYTES
        ? pooled(out)
        : out.toBytes();
    } finally {
      out.reset();
      if (out.bytes.length <= MAX_KEPT_BYTES) this.#out = out;
    }
  }

  /**
   * Decodes a payload, all of which must be one value.
   *
   * @throws {DecodeError} If it is anything else.
   * @throws {TypeError} If the payload is no Uint8Array.
   */
  decode(payload: Uint8Array): T {
    if (!(payload instanceof Uint8Array)) {
      throw new TypeError("Cannot decode value: expected a Uint8Array");
    }
    this.resetLimits();
    return this.#decoder.decode(payload, 0, payload.length) as T;
  }

  /**
   * Encodes a value into an output buffer. Long byte strings become segments.
   * On failure the buffer holds a part of the value: the caller truncates.
   *
   * @throws {EncodeError} If it has a part that can't be encoded.
   */
  encodeInto(out: ByteWriter, value: T): void {
    this.#encoder.encode(out, value, SEGMENT_BYTES);
  }

  /** What is limited for several payloads together is counted from here. */
  resetLimits(): void {
    this.#decoder.resetLimits();
  }

  /**
   * Decodes the payload in a range of bytes, from which byte strings are copied.
   * Offsets in errors count from `start`. One byte string may be aside.
   *
   * @throws {DecodeError} If it is anything else than one value.
   */
  decodeFrom(
    bytes: Uint8Array,
    start: number,
    end: number,
    aside: Aside | null = null,
  ): T {
    return this.#decoder.decode(bytes, start, end, aside) as T;
  }
}

function checkOptions(options: CborOptions): number {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(
      `Cannot make codec: options is ${String(options)}, expected an object`,
    );
  }
  for (const key of Object.keys(options)) {
    if (key !== "maxDepth") {
      throw new TypeError(`Cannot make codec: unknown option "${key}"`);
    }
  }
  const { maxDepth = 64 } = options;
  if (typeof maxDepth !== "number") {
    throw new TypeError(
      `Cannot make codec: maxDepth is a ${typeof maxDepth}, expected a number`,
    );
  }
  if (!Number.isSafeInteger(maxDepth) || maxDepth < 1) {
    throw new RangeError(
      `Cannot make codec: maxDepth is ${maxDepth}, expected an integer of at least 1`,
    );
  }
  return maxDepth;
}
