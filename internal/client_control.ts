/**
 * What a client says beside values and answers: CREDIT, ACK, LEAVE, PING, PONG
 * and GOODBYE (PROTOCOL.md section 5).
 *
 * @module
 */

import type { Connection } from "./connection.ts";
import { FrameType, GOODBYE_CODES, type GoodbyeCode } from "./frame.ts";

/** Writes the control frames of a client. */
export class ClientControl {
  readonly #connection: Connection;
  /** The last delivery that is to be acknowledged, and whether it is due. */
  #acked = -1;
  #isAckDue = false;
  /** The token of the PONG that is due, or -1. */
  #pong = -1;

  /** @param connection Where to. */
  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Writes numbers and nothing else: CREDIT, LEAVE or PING. */
  uints(type: number, values: readonly number[]): void {
    const connection = this.#connection;
    if (connection.ended) return;
    connection.prepare();
    connection.frames.uints(type, values);
    connection.schedule();
  }

  /**
   * All deliveries up to here are settled.
   *
   * @param delivery The last of them.
   * @param isLater Whether more of this turn may share the acknowledgement.
   */
  ack(delivery: number, isLater: boolean): void {
    this.#acked = delivery;
    this.#isAckDue = true;
    if (isLater) this.#connection.scheduleLater();
    else this.#connection.schedule();
  }

  /** A ping with this token came. */
  pong(token: number): void {
    this.#pong = token;
    this.#connection.prepare();
    this.#connection.schedule();
  }

  /** The output leaves now: what is due goes with it. */
  onFlush(): void {
    const { frames } = this.#connection;
    if (this.#isAckDue) {
      this.#isAckDue = false;
      this.#connection.prepare();
      frames.uints(FrameType.ACK, [this.#acked]);
    }
    if (this.#pong >= 0) {
      this.#connection.prepare();
      frames.uints(FrameType.PONG, [this.#pong]);
      this.#pong = -1;
    }
  }

  /** All is done; the server answers with its own goodbye. */
  goodbye(): void {
    const connection = this.#connection;
    connection.prepare();
    this.onFlush();
    connection.frames.farewell(FrameType.GOODBYE, 0, "");
    connection.schedule();
  }

  /** Tells the server why this is no end in order, and ends the connection. */
  breakOff(code: GoodbyeCode, reason: string): void {
    const connection = this.#connection;
    if (connection.ended) return;
    connection.prepare();
    this.onFlush();
    connection.frames.farewell(
      FrameType.GOODBYE,
      GOODBYE_CODES.indexOf(code),
      reason,
    );
    connection.finish();
  }
}
