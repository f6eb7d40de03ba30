/**
 * A transform made of any pair of `TransformStream`s of bytes.
 *
 * @module
 */

import { toBytes } from "@std/streams";
import { concat } from "./concat.ts";
import { tooLarge, type Transform } from "./transforms.ts";

/** What a frame is passed through: a `TransformStream` of bytes, or its like. */
export interface ByteTransformStream {
  /** Where bytes come out. */
  readonly readable: ReadableStream<Uint8Array>;
  /** Where bytes go in. */
  // deno-lint-ignore no-explicit-any
  readonly writable: WritableStream<any>;
}

/** Options of {@linkcode streamTransform}. */
export interface StreamTransformOptions {
  /** What a decoder may give, in bytes; the connection's own limit holds too. */
  maxOutputBytes?: number;
  /** How large a piece of input may be when so many bytes may still come out. */
  pieceBytes?: (rest: number) => number;
}

/**
 * A decoder is fed so many bytes at once: all that a stream makes of a piece may
 * come before it can be stopped, of DEFLATE a thousand times as much.
 */
const PIECE_BYTES = 16 * 1024;

/**
 * Makes a transform of two functions that make `TransformStream`s: one pair for
 * each frame, so that each frame can be undone by itself.
 *
 * What a decoder gives is bounded by the connection's `maxFrameBytes`: past it
 * the connection ends. A decoder is fed 16 KiB at a time: what it makes of those
 * at once is memory that nothing else bounds.
 *
 * @param name The transform's name: both ends must have the same.
 * @param encoderFactory Makes the stream that a frame passes when it is sent.
 * @param decoderFactory Makes the stream that undoes it.
 * @returns The transform.
 * @throws {TypeError} If an argument is of the wrong type.
 *
 * @example Raw deflate, which has no checksum
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { fromTransformStream, listen, work } from "@distchan/distchan";
 *
 * const deflate = fromTransformStream(
 *   "deflate-raw",
 *   () => new CompressionStream("deflate-raw"),
 *   () => new DecompressionStream("deflate-raw"),
 * );
 *
 * await using server = listen<string, number>({
 *   port: 0,
 *   transforms: [deflate],
 * });
 * const { port } = server.addr;
 * work<string, number>({ port, transforms: [deflate] }, (text) => text.length);
 *
 * assertEquals(await server.submit("a".repeat(100_000)), 100_000);
 * ```
 */
export function fromTransformStream(
  name: string,
  encoderFactory: () => ByteTransformStream,
  decoderFactory: () => ByteTransformStream,
): Transform {
  if (typeof name !== "string") {
    throw new TypeError(
      `Cannot make a transform: name is ${typeof name}, expected a string`,
    );
  }
  if (
    typeof encoderFactory !== "function" || typeof decoderFactory !== "function"
  ) {
    throw new TypeError(
      "Cannot make a transform: expected two functions that return a TransformStream",
    );
  }
  return streamTransform(name, { encoderFactory, decoderFactory }, {});
}

/** What {@linkcode fromTransformStream} does, with options. */
export function streamTransform(
  name: string,
  factories: {
    encoderFactory: () => ByteTransformStream;
    decoderFactory: () => ByteTransformStream;
  },
  options: StreamTransformOptions,
): Transform {
  const { maxOutputBytes = Infinity, pieceBytes = () => PIECE_BYTES } = options;
  return {
    name,
    open(context) {
      return {
        async encode(bytes) {
          const { readable, writable } = factories.encoderFactory();
          const fed = feed(writable, bytes, () => Infinity);
          try {
            return await toBytes(readable);
          } finally {
            await fed;
          }
        },
        decode(bytes) {
          // Now: what is undone in the handshake has a limit of its own.
          const limit = Math.min(context.maxBytes, maxOutputBytes);
          return undo(bytes, factories.decoderFactory(), { limit, pieceBytes });
        },
      };
    },
  };
}

async function undo(
  bytes: Uint8Array,
  { readable, writable }: ByteTransformStream,
  { limit, pieceBytes }: {
    limit: number;
    pieceBytes: (rest: number) => number;
  },
): Promise<Uint8Array> {
  let size = 0;
  const chunks: Uint8Array[] = [];
  const fed = feed(writable, bytes, () => pieceBytes(limit - size));
  try {
    // Leaving the loop cancels the stream, and with it what feeds it.
    for await (const chunk of readable) {
      if (!(chunk instanceof Uint8Array)) {
        throw new TypeError(
          `its stream gave ${typeof chunk}, expected a Uint8Array`,
        );
      }
      size += chunk.length;
      if (size > limit) throw tooLarge(limit);
      chunks.push(chunk);
    }
  } finally {
    await fed;
  }
  return concat(chunks);
}

/** Writes bytes piece by piece; an error shows at the readable side. */
async function feed(
  writable: WritableStream<Uint8Array>,
  bytes: Uint8Array,
  pieceBytes: () => number,
): Promise<void> {
  const writer = writable.getWriter();
  writer.closed.catch(() => {});
  try {
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + pieceBytes());
      await writer.write(bytes.subarray(at, end));
      at = end;
    }
    await writer.close();
  } catch {
    // The reader sees the same error.
  }
}
