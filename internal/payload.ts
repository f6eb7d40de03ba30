/**
 * The rim between frames and codecs: the default codec writes in place, any
 * other hands over bytes; whatever a codec throws becomes an EncodeError or a
 * DecodeError.
 *
 * @module
 */

import type { Codec } from "../codec.ts";
import { ByteWriter, SEGMENT_BYTES } from "./byte_writer.ts";
import { CborCodec } from "./cbor_codec.ts";
import type { CborReader } from "./cbor_reader.ts";
import { whileBusy } from "./encode_failure.ts";
import { DecodeError, EncodeError, FrameTooLargeError } from "./errors.ts";
import type { FrameWriter } from "./frame.ts";
import { reasonOf } from "./thrown.ts";

/** A codec as frames use it. */
export class PayloadCodec {
  /** The codec's name. */
  readonly name: string;
  readonly #cbor: CborCodec<unknown> | null;
  readonly #codec: Codec<unknown>;

  /** @param codec The codec. */
  constructor(codec: Codec<unknown>) {
    this.name = codec.name;
    this.#codec = codec;
    this.#cbor = codec instanceof CborCodec ? codec : null;
  }

  /**
   * Writes a value as a payload, in a frame that `open` opens or goes on with.
   * On failure nothing is left of it.
   *
   * @param of What `open` is told: what the frame says of the value.
   * @param isPayload Whether the value is a payload already.
   * @returns The payload's length in bytes.
   * @throws {EncodeError} If it can't be encoded.
   * @throws {FrameTooLargeError} If it is larger than the peer's limit.
   */
  write<Of>(
    frames: FrameWriter,
    value: unknown,
    open: (of: Of) => void,
    of?: Of,
    isPayload = false,
  ): number {
    // A getter sends: to open a frame could close that of its value.
    if (frames.out.busy) throw whileBusy();
    // Before anything is written: a codec of somebody's may send values itself.
    if (!isPayload && this.#cbor === null) {
      value = this.#encode(value);
      isPayload = true;
    }
    const { length, segments } = frames.out, { length: count } = segments;
    try {
      open(of as Of);
      let bytes = this.#write(frames, value, isPayload);
      if (frames.size > frames.limit) {
        // Too much after others in one frame: alone, perhaps.
        frames.restore(length, count);
        frames.close();
        open(of as Of);
        bytes = this.#write(frames, value, isPayload);
        if (frames.size > frames.limit) {
          throw new FrameTooLargeError(frames.size, frames.limit);
        }
      }
      return bytes;
    } catch (error) {
      frames.restore(length, count);
      throw error;
    }
  }

  /** The payloads of a frame come, to be read one by one. */
  beginFrame(): void {
    this.#cbor?.resetLimits();
  }

  /** Which byte strings may be read aside. */
  get long(): "payloads" | "values" {
    return this.#cbor === null ? "payloads" : "values";
  }

  /**
   * Reads a value from the payload that a reader has come to, in place.
   *
   * @throws {DecodeError} If it isn't one.
   */
  readFrom(reader: CborReader): unknown {
    if (this.#cbor === null) return this.read(reader.rangeBytes());
    const { bytes, rangeStart, rangeEnd, rangeAside } = reader;
    return this.#cbor.decodeFrom(bytes, rangeStart, rangeEnd, rangeAside);
  }

  /**
   * Reads a value from a payload.
   *
   * @throws {DecodeError} If it isn't one.
   */
  read(payload: Uint8Array): unknown {
    if (this.#cbor !== null) return this.#cbor.decode(payload);
    try {
      return this.#codec.decode(payload);
    } catch (error) {
      if (error instanceof DecodeError) throw error;
      throw new DecodeError(
        `Cannot decode payload: codec "${this.name}" failed: ${
          reasonOf(error)
        }`,
        { cause: error },
      );
    }
  }

  /**
   * Encodes a value into a buffer of its own.
   *
   * @param limit One that is far longer is given up, in bytes; 0: none is.
   * @throws {EncodeError} If it can't be encoded.
   * @throws {FrameTooLargeError} If it is far longer than `limit`.
   */
  encode(value: unknown, limit = 0): Uint8Array<ArrayBuffer> {
    if (this.#cbor === null) return new Uint8Array(this.#encode(value));
    const out = new ByteWriter(256);
    out.valueLimit = limit;
    this.#cbor.encodeInto(out, value);
    return out.toBytes();
  }

  #write(frames: FrameWriter, value: unknown, isPayload: boolean): number {
    const { segmentBytes } = frames.out;
    const at = frames.beginPayload();
    if (isPayload) writeBytes(frames, value as Uint8Array);
    else {
      frames.out.valueLimit = frames.limit;
      this.#cbor!.encodeInto(frames.out, value);
    }
    return frames.endPayload(at, segmentBytes);
  }

  #encode(value: unknown): Uint8Array {
    let bytes: Uint8Array;
    try {
      bytes = this.#codec.encode(value);
    } catch (error) {
      if (error instanceof EncodeError) throw error;
      throw new EncodeError(
        `Cannot encode value: codec "${this.name}" failed: ${reasonOf(error)}`,
        { cause: error },
      );
    }
    if (!(bytes instanceof Uint8Array)) {
      throw new EncodeError(
        `Cannot encode value: codec "${this.name}" returned ${typeof bytes}, expected a Uint8Array`,
      );
    }
    return bytes;
  }
}

function writeBytes(frames: FrameWriter, bytes: Uint8Array): void {
  const { out } = frames;
  if (bytes.length >= SEGMENT_BYTES) {
    out.addSegment(bytes);
  } else {
    out.reserve(bytes.length);
    out.bytes.set(bytes, out.length);
    out.length += bytes.length;
  }
}
