/**
 * Frames through the transforms of a connection. Only connections that have
 * some go this way, the slow one: frame by frame, with copies.
 *
 * @module
 */

import { concat } from "./concat.ts";
import { HIGH_WATER_BYTES } from "./output_buffers.ts";
import { type TransformChain, TransformError } from "./transforms.ts";
import { TurnBudget } from "./turn_budget.ts";

/** Options of {@linkcode TransformedFrames}. */
export interface TransformedFramesOptions {
  /** The largest frame that the peer receives, transformed, in bytes. */
  limit: number;
  /** How much of the output, in bytes, was there before: it leaves as it is. */
  plainBytes: number;
  /** Whether there are others that turns must be left to. */
  isCrowded(): boolean;
  /** Writes to the socket. */
  write(bytes: Uint8Array): Promise<void>;
}

/** Both directions of one connection. */
export class TransformedFrames {
  readonly #chain: TransformChain;
  readonly #options: TransformedFramesOptions;
  #plainBytes: number;
  /** What may be made in a turn. */
  readonly #budget: TurnBudget;

  constructor(chain: TransformChain, options: TransformedFramesOptions) {
    this.#chain = chain;
    this.#options = options;
    this.#budget = new TurnBudget(options.isCrowded);
    this.#plainBytes = options.plainBytes;
  }

  /** The connection is over: nobody waits for a turn any more. */
  hurry(): void {
    this.#budget.hurry();
  }

  /**
   * Writes whole frames. Returns how many bytes they became.
   *
   * @throws {TransformError} If one can't be transformed; those before it have
   * been written.
   */
  async write(frames: Uint8Array): Promise<number> {
    const { buffer, byteOffset, byteLength } = frames;
    const view = new DataView(buffer, byteOffset, byteLength);
    const budget = this.#budget;
    let at = this.#plainBytes;
    this.#plainBytes = 0;
    let ready = at > 0 ? [frames.subarray(0, at)] : [];
    let size = at, sent = 0;
    while (at < frames.length) {
      const end = at + 4 + view.getUint32(at);
      let body;
      try {
        // Copies: a transform may keep what it is handed, and use the buffer of
        // what it returns again.
        const plain = frames.slice(at + 4, end);
        body = await budget.spendOn(() => this.#encode(plain));
      } catch (error) {
        // A transform may have numbered those before it.
        if (size > 0) await this.#options.write(concat(ready));
        throw error;
      }
      const frame = new Uint8Array(4 + body.length);
      new DataView(frame.buffer).setUint32(0, body.length);
      frame.set(body, 4);
      ready.push(frame);
      size += frame.length;
      at = end;
      const isFull = size >= HIGH_WATER_BYTES || budget.isSpent;
      if (!isFull && at < frames.length) continue;
      await this.#options.write(concat(ready));
      ready = [];
      sent += size;
      size = 0;
      if (budget.isSpent) await budget.nextTurn();
    }
    if (size > 0) await this.#options.write(concat(ready));
    return sent + size;
  }

  async #encode(plain: Uint8Array): Promise<Uint8Array> {
    const { limit } = this.#options;
    const { length } = plain; // none is left where its buffer is taken away
    const body = await this.#chain.encode(plain);
    if (body.length === 0) throw nothingLeft("send");
    if (body.length <= limit) return body;
    throw new TransformError(
      `Cannot send frame: transforms made ${body.length} bytes of ${length}, limit is ${limit}`,
    );
  }

  /**
   * Undoes the body of a frame.
   *
   * @throws {TransformError} If it can't be undone.
   */
  async decode(body: Uint8Array): Promise<Uint8Array> {
    const plain = await this.#chain.decode(body);
    if (plain.length === 0) throw nothingLeft("take");
    return plain;
  }
}

/** A frame has at least its type (PROTOCOL.md R1). */
function nothingLeft(step: string): TransformError {
  return new TransformError(
    `Cannot ${step} frame: no bytes come out of its transforms`,
  );
}
