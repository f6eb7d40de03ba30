/**
 * What is done to the body of every frame on its way, in order, and undone in
 * reverse order on the other side.
 *
 * @module
 */

import { ProtocolError } from "./errors.ts";

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
  /** Changes the body of a frame that is sent. */
  encode(bytes: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** Changes the body of a frame that came back into what it was. */
  decode(bytes: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

/** Something done to the body of every frame, such as compression. */
export interface Transform {
  /** Both ends must have the same names in the same order. */
  readonly name: string;
  /** Called once a connection. */
  open(context: TransformContext): OpenTransform;
}

/** The transforms of one connection as one. */
export class TransformChain implements OpenTransform {
  readonly #open: readonly OpenTransform[];
  readonly #maxBytes: number;

  constructor(transforms: readonly Transform[], context: TransformContext) {
    this.#open = transforms.map((transform) => transform.open(context));
    this.#maxBytes = context.maxBytes;
  }

  /** All in order. */
  async encode(bytes: Uint8Array): Promise<Uint8Array> {
    for (const transform of this.#open) bytes = await transform.encode(bytes);
    return bytes;
  }

  /** All undone, in reverse order. */
  async decode(bytes: Uint8Array): Promise<Uint8Array> {
    for (let i = this.#open.length - 1; i >= 0; i--) {
      bytes = await this.#open[i]!.decode(bytes);
      if (bytes.length > this.#maxBytes) {
        throw new ProtocolError(
          `Cannot decode frame: ${bytes.length} bytes came out of a transform, limit is ${this.#maxBytes}`,
        );
      }
    }
    return bytes;
  }
}
