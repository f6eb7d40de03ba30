/**
 * What is done to the body of every frame on its way, in order, and undone in
 * reverse order on the other side.
 *
 * @module
 */

import { ProtocolError } from "./errors.ts";
import { reasonOf } from "./thrown.ts";

/** The name of `aesGcm()`. */
export const AES_GCM = "aes-256-gcm";
/** The same, with a key that can't be seen (PROTOCOL.md 4). */
export const SEALED_AES_GCM = "aes-256-gcm-sealed";

/** What a transform is told when a connection opens. */
export interface TransformContext {
  /** Which end this is. */
  role: "server" | "client";
  /** The same on both ends of a connection, and on no other. */
  sessionId: Uint8Array;
  /** The largest body that may come out of `decode`, in bytes. */
  maxBytes: number;
}

/** A transform of one connection. Frames pass in order, one at a time. */
export interface OpenTransform {
  /**
   * Changes the body of a frame that is sent. It may become larger, a large one
   * by 64 bytes and a 256th of the peer's `maxFrameBytes` at most: so much is
   * kept free for each transform. One that still is too large isn't sent, and
   * ends the connection.
   */
  encode(bytes: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** Changes the body of a frame that came back into what it was. */
  decode(bytes: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

/**
 * Something done to the body of every frame, such as compression. Ready-made
 * ones are `gzip()`, `aesGcm()` and `fromTransformStream()`.
 *
 * @example A transform of one's own
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { listen, type Transform, work } from "@distchan/distchan";
 *
 * const flip = (bytes: Uint8Array) => bytes.map((byte) => byte ^ 0xff);
 * const flipped: Transform = {
 *   name: "flipped",
 *   open: () => ({ encode: flip, decode: flip }),
 * };
 *
 * await using server = listen<string, string>({
 *   port: 0,
 *   transforms: [flipped],
 * });
 * const { port } = server.addr;
 * work<string, string>(
 *   { port, transforms: [flipped] },
 *   (word) => word.toUpperCase(),
 * );
 *
 * assertEquals(await server.submit("hello"), "HELLO");
 * ```
 */
export interface Transform {
  /** Both ends must have the same names in the same order. */
  readonly name: string;
  /** Called once a connection. */
  open(context: TransformContext): OpenTransform;
}

/**
 * A transform could not do, or undo, a frame. The connection is over: GOODBYE
 * with the code "transforms" (PROTOCOL.md section 3).
 */
export class TransformError extends ProtocolError {}

/**
 * The largest body that may be handed to transforms so that what they make of
 * it is no larger than the peer's limit: each may add a little.
 *
 * @param limit The peer's limit, in bytes.
 * @param count How many transforms there are.
 */
export function plainLimit(limit: number, count: number): number {
  return limit - count * (64 + Math.floor(limit / 256));
}

/** What may come of a CONFIRM at each step of undoing it, in bytes. */
export const MAX_CONFIRM_BYTES: number = 64 * 1024;

/** The transforms of one connection as one. */
export class TransformChain implements OpenTransform {
  readonly #open: readonly (OpenTransform & { name: string })[];
  readonly #contexts: readonly TransformContext[];
  #maxBytes: number;

  /**
   * @throws {TransformError} If a transform can't be opened.
   */
  constructor(transforms: readonly Transform[], context: TransformContext) {
    this.#maxBytes = context.maxBytes;
    this.#contexts = transforms.map(() => ({ ...context }));
    this.#open = transforms.map((transform, i) => {
      const { name } = transform;
      try {
        const open = transform.open(this.#contexts[i]!);
        return {
          name,
          encode: (bytes) => open.encode(bytes),
          decode: (bytes) => open.decode(bytes),
        };
      } catch (error) {
        throw failure(name, "open", error);
      }
    });
  }

  /** All in order. */
  async encode(bytes: Uint8Array): Promise<Uint8Array> {
    for (const transform of this.#open) {
      try {
        bytes = check(await transform.encode(bytes));
      } catch (error) {
        throw failure(transform.name, "encode", error);
      }
    }
    return bytes;
  }

  /** All undone, in reverse order. */
  async decode(bytes: Uint8Array): Promise<Uint8Array> {
    for (let i = this.#open.length - 1; i >= 0; i--) {
      const transform = this.#open[i]!;
      try {
        bytes = check(await transform.decode(bytes));
        if (bytes.length > this.#maxBytes) throw tooLarge(this.#maxBytes);
      } catch (error) {
        throw failure(transform.name, "decode", error);
      }
    }
    return bytes;
  }

  /**
   * Undoes the CONFIRM of a peer who may be anybody: within bounds of its own,
   * or its few bytes could become `maxFrameBytes` at each of many connections.
   */
  async decodeConfirm(bytes: Uint8Array): Promise<Uint8Array> {
    const maxBytes = this.#maxBytes;
    this.#limit(Math.min(maxBytes, MAX_CONFIRM_BYTES));
    try {
      return await this.decode(bytes);
    } finally {
      this.#limit(maxBytes);
    }
  }

  #limit(maxBytes: number): void {
    this.#maxBytes = maxBytes;
    for (const context of this.#contexts) context.maxBytes = maxBytes;
  }
}

/** The error of a transform whose output passes its limit. */
export function tooLarge(limit: number): RangeError {
  return new RangeError(`more than ${limit} bytes come out of it`);
}

function check(bytes: Uint8Array): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes;
  throw new TypeError(`it returned ${typeof bytes}, expected a Uint8Array`);
}

function failure(name: string, step: string, error: unknown): TransformError {
  const reason = reasonOf(error);
  return new TransformError(
    step === "open"
      ? `Cannot open transform "${name}": ${reason}`
      : `Cannot ${step} frame: transform "${name}" failed: ${reason}`,
    { cause: error },
  );
}
