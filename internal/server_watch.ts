/**
 * What time makes of a server's connections and items: handshakes that take too
 * long, silent workers, handlers that take too long, and standstills.
 *
 * @module
 */

import type { Delivery, Item } from "./delivery.ts";
import { HandshakeError, ItemTimeoutError } from "./errors.ts";
import type { ServerEvent, StallReason } from "./events.ts";
import { Mode } from "./frame.ts";
import { tickMs } from "./heartbeat.ts";
import type { HeartbeatOptions } from "./options.ts";
import { Watchdog } from "./watchdog.ts";
import type { ChannelWay } from "./ways.ts";
import type { WorkerLink } from "./worker_link.ts";

/** Nothing has moved for so long: items are stalled. */
const STALL_MS = 1000;

/** What is looked after, and whom to tell. */
export interface ServerWatchOptions {
  /** All connections that are open. */
  readonly links: ReadonlySet<WorkerLink>;
  /** All items that aren't settled. */
  readonly delivery: Delivery;
  /** The way in whose results somebody must read. */
  readonly channel: ChannelWay;
  /** How long a handshake may take, in ms. */
  readonly handshakeTimeoutMs: number;
  /** When silence means what. */
  readonly heartbeat: Required<HeartbeatOptions>;
  /** How long an item may be executed, in ms; undefined: for ever. */
  readonly itemTimeoutMs: number | undefined;
  /** A worker is suspect, or items are stalled. */
  onEvent(event: ServerEvent<never>): void;
  /** A worker is suspect, and its items are with others: nobody waits for it. */
  onSuspect(): void;
}

/** Looks after the deadlines of a server, while there are any. */
export class ServerWatch {
  readonly #options: ServerWatchOptions;
  readonly #watchdog: Watchdog;
  #isStopped = false;
  /** `Delivery.progress` when it last moved, and when that was. */
  #progress = -1;
  #progressAt = 0;
  #stallTold = false;

  /** @param options What is looked after, and whom to tell. */
  constructor(options: ServerWatchOptions) {
    this.#options = options;
    const { handshakeTimeoutMs, heartbeat, itemTimeoutMs, links } = options;
    this.#watchdog = new Watchdog(
      tickMs(handshakeTimeoutMs, heartbeat.intervalMs, itemTimeoutMs),
      {
        excuse: (lateMs) => {
          for (const { connection } of links) connection.excuse(lateMs);
        },
        check: (now) => this.#check(now),
      },
    );
  }

  /** There is something to look after: a connection or an item. */
  start(): void {
    if (!this.#isStopped) this.#watchdog.start();
  }

  /** Stops for good. */
  stop(): void {
    this.#isStopped = true;
    this.#watchdog.stop();
  }

  #check(now: number): void {
    const { links, delivery, channel } = this.#options;
    for (const link of [...links]) {
      if (link.isHandshaking) this.#checkHandshake(link, now);
      else if (link.isWorker) {
        link.sample(now);
        this.#judge(link, now);
      }
    }
    this.#checkItems(now);
    channel.checkReader(now);
    this.#checkStall(now);
    if (links.size === 0 && delivery.alive === 0) this.#watchdog.stop();
  }

  #checkHandshake(link: WorkerLink, now: number): void {
    const { handshakeTimeoutMs } = this.#options;
    if (now - link.openedAt < handshakeTimeoutMs) return;
    link.reject(
      new HandshakeError(
        "timeout",
        `Handshake failed: it was not done within ${handshakeTimeoutMs} ms`,
      ),
    );
  }

  #judge(link: WorkerLink, now: number): void {
    const { connection, heartbeat } = link;
    const { dropMs } = this.#options.heartbeat;
    const stalledMs = connection.stalledMs(now);
    const verdict = stalledMs >= dropMs
      ? "drop"
      : heartbeat.judge(connection.heardAt, now);
    if (stalledMs >= dropMs) {
      link.drop(
        `a frame was begun and not finished for ${Math.round(stalledMs)} ms`,
      );
    } else if (verdict === "drop") {
      link.drop(
        `nothing was heard for ${Math.round(now - connection.heardAt)} ms; ` +
          "if its handler blocks its event loop, use isolate or a larger heartbeat.dropMs",
      );
    } else if (verdict === "suspect") {
      heartbeat.suspect = true;
      this.#options.onEvent({ type: "suspect", worker: { ...link.info } });
      link.ping(now);
      this.#options.delivery.suspect(link);
      this.#options.onSuspect();
    } else if (verdict === "ping") link.ping(now);
  }

  /** Items that are executed for too long fail. */
  #checkItems(now: number): void {
    const { delivery, itemTimeoutMs } = this.#options;
    if (itemTimeoutMs === undefined) return;
    const { failed } = delivery;
    for (const worker of delivery.workers) {
      for (const entry of worker.inFlight.oldest(worker.concurrency)) {
        if (entry.startedAt === 0) entry.startedAt = now;
        else if (now - entry.startedAt >= itemTimeoutMs) {
          delivery.fail(entry as Item, new ItemTimeoutError(itemTimeoutMs));
        }
      }
    }
    // Their places are free, though whoever holds them says nothing.
    if (delivery.failed > failed) delivery.pump();
  }

  /** Items that wait though nothing has moved for a while: it is told why. */
  #checkStall(now: number): void {
    const { delivery, channel } = this.#options;
    const { progress, waiting, workers } = delivery;
    const { isUnread } = channel;
    if (progress !== this.#progress || (waiting === 0 && !isUnread)) {
      this.#progress = progress;
      this.#progressAt = now;
      this.#stallTold = false;
      return;
    }
    if (this.#stallTold || now - this.#progressAt < STALL_MS) return;
    this.#stallTold = true;
    let reason: StallReason = "workers-full";
    if (workers.length === 0) reason = "no-workers";
    else if (isUnread) reason = "results-unread";
    else if (
      channel.queue.length === 0 &&
      workers.every(({ mode }) => mode === Mode.STREAM)
    ) reason = "no-work-mode";
    this.#options.onEvent({ type: "stalled", reason, waiting });
  }
}
