/**
 * What time makes of a client's connection: a handshake that takes too long, and
 * a silent server.
 *
 * @module
 */

import type { ClientControl } from "./client_control.ts";
import type { ClientLife } from "./client_life.ts";
import type { Connection } from "./connection.ts";
import { ConnectionLostError, HandshakeError } from "./errors.ts";
import type { ClientEvent } from "./events.ts";
import { FrameType } from "./frame.ts";
import { Heartbeat, tickMs } from "./heartbeat.ts";
import type { HeartbeatOptions } from "./options.ts";
import { Watchdog } from "./watchdog.ts";

/** What is looked after, and whom to tell. */
export interface ClientWatchOptions {
  /** The connection. */
  readonly connection: Connection;
  /** Where pings go. */
  readonly control: ClientControl;
  /** How far the client is. */
  readonly life: ClientLife;
  /** How long the handshake may take, in ms. */
  readonly handshakeTimeoutMs: number;
  /** When silence means what. */
  readonly heartbeat: Required<HeartbeatOptions>;
  /** The handshake took too long. */
  onTimeout(error: HandshakeError): void;
  /** The server is suspect, or was heard again. */
  onEvent(event: ClientEvent): void;
}

/** Looks after the deadlines of a client. */
export class ClientWatch {
  readonly #options: ClientWatchOptions;
  readonly #heartbeat: Heartbeat;
  readonly #watchdog: Watchdog;
  #startedAt = 0;

  /** @param options What is looked after, and whom to tell. */
  constructor(options: ClientWatchOptions) {
    this.#options = options;
    const { connection, handshakeTimeoutMs, heartbeat } = options;
    this.#heartbeat = new Heartbeat(heartbeat, Math.random());
    this.#watchdog = new Watchdog(
      tickMs(handshakeTimeoutMs, heartbeat.intervalMs),
      {
        excuse: (lateMs) => {
          connection.excuse(lateMs);
          this.#startedAt += lateMs;
        },
        check: (now) => this.#check(now),
      },
    );
  }

  /** The handshake begins. */
  start(): void {
    this.#startedAt = performance.now();
    this.#watchdog.start();
  }

  /** Stops for good. */
  stop(): void {
    this.#watchdog.stop();
  }

  #check(now: number): void {
    const { phase } = this.#options.life;
    if (phase === "closed" || phase === "lost") return;
    if (phase === "handshake") this.#checkHandshake(now);
    else this.#judge(now);
  }

  #checkHandshake(now: number): void {
    const { handshakeTimeoutMs } = this.#options;
    if (now - this.#startedAt < handshakeTimeoutMs) return;
    this.#options.onTimeout(
      new HandshakeError(
        "timeout",
        `Handshake failed: it was not done within ${handshakeTimeoutMs} ms`,
      ),
    );
  }

  #judge(now: number): void {
    const heartbeat = this.#heartbeat;
    const { connection, control, life, onEvent } = this.#options;
    const { timeoutMs } = this.#options.heartbeat;
    if (heartbeat.suspect && now - connection.heardAt < timeoutMs) {
      heartbeat.suspect = false;
      onEvent({ type: "recovered" });
    }
    // Behind its goodbye it waits for the server's alone: whatever keeps it from
    // reading that, a schema or a transform, mustn't do so for ever.
    const isDeaf = connection.isDeaf && life.isOpen;
    const { verdict, reason } = heartbeat.judgePeer(connection, now, isDeaf);
    if (verdict === "drop") {
      connection.end(new ConnectionLostError("timeout", reason));
    } else if (verdict !== "fine") {
      if (verdict === "suspect") {
        heartbeat.suspect = true;
        onEvent({ type: "suspect" });
      }
      const token = heartbeat.ping(now);
      // Whoever was told may have ended it; and a goodbye is the last question.
      if (life.isOpen) control.uints(FrameType.PING, [token]);
    }
  }
}
