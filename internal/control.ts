/**
 * The control frames of either end: those that are numbers and nothing else,
 * PONG and GOODBYE (PROTOCOL.md section 5).
 *
 * @module
 */

import type { Connection } from "./connection.ts";
import { FrameType, GOODBYE_CODES, type GoodbyeCode } from "./frame.ts";

/** Writes control frames. */
export class Control {
  /** Where to. */
  protected readonly connection: Connection;
  /** The token of the PONG that is due, or -1. */
  #pong = -1;
  /** What waits until a value is complete, in its order. */
  #deferred: (() => void)[] = [];

  /** @param connection Where to. */
  constructor(connection: Connection) {
    this.connection = connection;
  }

  /** Writes numbers and nothing else: CREDIT, LEAVE, CANCEL, END or PING. */
  uints(type: number, values: readonly number[]): void {
    const { connection } = this;
    if (!connection.isOpen) return;
    if (this.mustWait) return this.defer(() => this.uints(type, values));
    connection.prepare();
    connection.frames.uints(type, values);
    connection.schedule();
  }

  /**
   * A ping with this token came. Of several the last is answered: once a flush,
   * however many are asked for.
   */
  pong(token: number): void {
    this.#pong = token;
    this.connection.prepare();
    this.connection.schedule();
  }

  /** Says something: a PONG that nobody asked for, unless one is due anyway. */
  nudge(): void {
    if (this.#pong < 0) this.pong(0);
  }

  /** The output leaves now: what is due goes with it. */
  onFlush(): void {
    if (this.#pong < 0) return;
    this.connection.prepare();
    this.connection.frames.uints(FrameType.PONG, [this.#pong]);
    this.#pong = -1;
  }

  /** Says goodbye, if anything can be said, and ends the connection. */
  finish(code: GoodbyeCode, reason: string): void {
    const { connection } = this;
    if (this.mustWait) return this.defer(() => this.finish(code, reason));
    if (connection.isOpen) {
      connection.prepare();
      connection.frames.farewell(
        FrameType.GOODBYE,
        GOODBYE_CODES.indexOf(code),
        reason,
      );
    }
    connection.finish();
  }

  /**
   * Whether a getter asks for a frame while its value is in the middle of one,
   * or has done so: frames stay in order.
   */
  protected get mustWait(): boolean {
    return this.connection.out.busy || this.#deferred.length > 0;
  }

  /** Writes a moment later. */
  protected defer(write: () => void): void {
    if (this.#deferred.push(write) > 1) return;
    queueMicrotask(() => {
      const deferred = this.#deferred;
      this.#deferred = [];
      for (const write of deferred) write();
    });
  }
}
