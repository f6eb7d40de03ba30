/**
 * ERROR (PROTOCOL.md section 5): what a handler threw, on its way to the server.
 *
 * @module
 */

import type { CborDecoder } from "./cbor_decoder.ts";
import { ProtocolError, RemoteError } from "./errors.ts";
import { clip, FrameType, type FrameWriter } from "./frame.ts";
import { kindOf } from "./options.ts";
import { type Thrown, toThrown } from "./thrown.ts";

/** Longest texts of an error that are sent, in UTF-16 units. */
const MAX_NAME = 200, MAX_MESSAGE = 10_000, MAX_STACK = 10_000;
/** How many causes of an error are sent. */
const MAX_CAUSES = 8;
/** The CBOR of null. */
const NULL = 0xf6;

/**
 * Writes ERROR for a delivery.
 *
 * @param frames Where to.
 * @param delivery The number of the delivery.
 * @param options What was thrown, and whether its stack goes along.
 */
export function writeError(
  frames: FrameWriter,
  delivery: number,
  options: { thrown: unknown; sendStack: boolean },
): void {
  // Before anything is written: its getters may do whatever they like.
  const { thrown, sendStack } = options;
  const error = toThrown(thrown, { depth: MAX_CAUSES, hasStack: sendStack });
  const { length, segments } = frames.out;
  write(frames, delivery, error, Infinity);
  if (frames.size > frames.limit) {
    // A small limit of the peer's leaves less room for words.
    frames.restore(length, segments.length);
    write(frames, delivery, error, frames.limit / 32);
  }
  frames.close();
}

function write(
  frames: FrameWriter,
  delivery: number,
  { name, message, stack, cause }: Thrown,
  share: number,
): void {
  frames.begin(FrameType.ERROR);
  frames.out.writeUint(delivery);
  frames.out.writeText(clip(name, Math.min(MAX_NAME, share)));
  frames.out.writeText(clip(message, Math.min(MAX_MESSAGE, share * 2)));
  writeCause(frames, cause, share);
  if (stack === undefined) writeNull(frames);
  else frames.out.writeText(clip(stack, Math.min(MAX_STACK, share * 2)));
}

/** Writes the cause of an error: null, or [name, message, cause]. */
function writeCause(
  frames: FrameWriter,
  cause: Thrown | undefined,
  share: number,
): void {
  if (cause === undefined) return writeNull(frames);
  const { name, message } = cause;
  frames.out.writeHead(4, 3);
  frames.out.writeText(clip(name, Math.min(MAX_NAME, share)));
  frames.out.writeText(clip(message, Math.min(MAX_MESSAGE, share)));
  writeCause(frames, share === Infinity ? cause.cause : undefined, share);
}

function writeNull({ out }: FrameWriter): void {
  out.reserve(1);
  out.bytes[out.length++] = NULL;
}

/** Reads ERROR, the reader standing behind the delivery. */
export function readError(reader: CborDecoder): RemoteError {
  const name = reader.readText();
  const message = reader.readText();
  const cause = toCause(reader.readValue());
  const stack = reader.readValue();
  reader.finish();
  if (stack !== null && typeof stack !== "string") {
    throw new ProtocolError(
      `Cannot read ERROR: expected null or a text as stack, got ${
        kindOf(stack)
      }`,
    );
  }
  return new RemoteError(name, message, {
    cause,
    ...(stack === null ? {} : { stack }),
  });
}

function toCause(value: unknown): RemoteError | undefined {
  if (value === null) return undefined;
  if (Array.isArray(value)) {
    const [name, message, cause] = value;
    if (
      value.length === 3 && typeof name === "string" &&
      typeof message === "string"
    ) {
      return new RemoteError(name, message, { cause: toCause(cause) });
    }
  }
  throw new ProtocolError(
    `Cannot read ERROR: expected null or [name, message, cause] as cause, got ${
      Array.isArray(value) ? "another list" : kindOf(value)
    }`,
  );
}
