/**
 * What both sides of the handshake do to their connection.
 *
 * @module
 */

import type { Connection } from "./connection.ts";
import type { FrameWriter } from "./frame.ts";
import { plainLimit } from "./transforms.ts";

/** Writes a frame; returns its body, for the transcript. */
export function writeFrame(
  connection: Connection,
  write: (frames: FrameWriter) => void,
): Uint8Array {
  const { frames, out } = connection;
  connection.prepare();
  const start = out.length + 4; // behind its length
  write(frames);
  const body = out.bytes.slice(start, out.length);
  connection.schedule();
  return body;
}

/** Writes a frame that has some bytes, and nothing else; returns its body. */
export function writeBytesFrame(
  connection: Connection,
  type: number,
  bytes: Uint8Array,
): Uint8Array {
  return writeFrame(connection, (frames) => {
    frames.begin(type);
    frames.out.writeBytes(bytes);
  });
}

/** The two ends belong together: frames may be as large as each receives. */
export function openLimits(
  connection: Connection,
  own: { maxFrameBytes: number; transforms: readonly unknown[] },
  peer: { maxFrameBytes: number },
): void {
  connection.receiveLimit = own.maxFrameBytes;
  connection.frames.limit = plainLimit(
    peer.maxFrameBytes,
    own.transforms.length,
  );
}
