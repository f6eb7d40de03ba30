/**
 * What a client says beside values and answers: the control frames of either
 * end, ACK, and a goodbye that waits for the server's (PROTOCOL.md section 5).
 *
 * @module
 */

import { Control } from "./control.ts";
import { FrameType, type GoodbyeCode } from "./frame.ts";

/** Writes the control frames of a client. */
export class ClientControl extends Control {
  /** The last delivery that is to be acknowledged, and whether it is due. */
  #acked = -1;
  #isAckDue = false;

  /**
   * All deliveries up to here are settled.
   *
   * @param delivery The last of them.
   * @param isLater Whether more of this turn may share the acknowledgement.
   */
  ack(delivery: number, isLater: boolean): void {
    this.#acked = delivery;
    if (this.#isAckDue) return; // the flush that is coming takes it along
    this.#isAckDue = true;
    if (isLater) this.connection.scheduleLater();
    else this.connection.schedule();
  }

  override onFlush(): void {
    if (this.#isAckDue) {
      this.#isAckDue = false;
      this.connection.prepare();
      this.connection.frames.uints(FrameType.ACK, [this.#acked]);
    }
    super.onFlush();
  }

  /** All is done; the server answers with its own goodbye. */
  goodbye(): void {
    const { connection } = this;
    if (this.mustWait) return this.defer(() => this.goodbye());
    connection.prepare();
    this.onFlush();
    connection.frames.farewell(FrameType.GOODBYE, 0, "");
    connection.schedule();
  }

  /** Tells the server why this is no end in order, and ends the connection. */
  breakOff(code: GoodbyeCode, reason: string): void {
    if (this.mustWait) return this.defer(() => this.breakOff(code, reason));
    if (this.connection.isOpen) this.onFlush();
    this.finish(code, reason);
  }

  /** A frame can't be made: what is due may tell of what was in it. */
  cutOff(reason: string): void {
    this.#isAckDue = false;
    this.finish("transforms", reason);
  }
}
