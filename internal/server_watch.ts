/**
 * What time makes of a server's connections and items: handshakes that take too
 * long, silent workers, handlers that take too long, and standstills.
 *
 * @module
 */

import { type Delivery, isTrusted } from "./delivery.ts";
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
  /** Whether items may still come by themselves. */
  expectsItems(): boolean;
  /** A worker is suspect, or items are stalled. */
  onEvent(event: ServerEvent<never>): void;
  /** A worker is suspect, and its items are with others: nobody waits for it. */
  onSuspect(): void;
}

/** Tells a standstill once, after {@linkcode STALL_MS} of it. */
class Standstill {
  #since = -1;
  #isTold = false;

  /** True if it is to be told now. */
  look(isStill: boolean, now: number): boolean {
    if (!isStill) {
      this.#since = -1;
      this.#isTold = false;
      return false;
    }
    if (this.#since < 0) this.#since = now;
    if (this.#isTold || now - this.#since < STALL_MS) return false;
    return this.#isTold = true;
  }
}

/** Looks after the deadlines of a server, while there are any. */
export class ServerWatch {
  readonly #options: ServerWatchOptions;
  readonly #watchdog: Watchdog;
  #isStopped = false;
  /** `Delivery.progress` at the last look. */
  #progress = -1;
  readonly #stall = new Standstill();
  readonly #callStall = new Standstill();

  /** @param options What is looked after, and whom to tell. */
  constructor(options: ServerWatchOptions) {
    this.#options = options;
    const { handshakeTimeoutMs, heartbeat, itemTimeoutMs, links } = options;
    this.#watchdog = new Watchdog(
      tickMs(handshakeTimeoutMs, heartbeat.intervalMs, itemTimeoutMs),
      {
        excuse: (lateMs) => {
          const now = performance.now();
          for (const link of links) {
            const { connection, inFlight, concurrency } = link;
            connection.excuse(lateMs);
            // One that was accepted after the pause has lost nothing.
            link.openedAt = Math.min(now, link.openedAt + lateMs);
            // Their results may be here, and not read yet.
            for (const entry of inFlight.oldest(concurrency)) {
              if (entry.startedAt > 0) entry.startedAt += lateMs;
            }
          }
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
        this.#checkExpected(link, now);
        this.#judge(link, now);
        if (link.isWorker && link.getsStuck(now)) this.#suspect(link);
      }
    }
    this.#checkItems(now);
    delivery.check(now);
    channel.checkReader(now);
    this.#checkStall(now);
    // Whoever waits for a reader is told so even when the workers have gone.
    if (
      links.size === 0 && delivery.alive === 0 && !channel.isUnread &&
      !this.#options.expectsItems()
    ) this.#watchdog.stop();
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

  /** A worker that asks for nothing for so long holds nothing up. */
  #checkExpected(link: WorkerLink, now: number): void {
    const { delivery, handshakeTimeoutMs } = this.#options;
    if (!link.isExpected || now - link.openedAt < handshakeTimeoutMs) return;
    link.isExpected = false;
    delivery.forgetAsked();
    delivery.pump();
  }

  #judge(link: WorkerLink, now: number): void {
    const { connection, heartbeat } = link;
    const { verdict, reason } = heartbeat.judgePeer(connection, now);
    if (verdict === "drop") {
      // Perhaps it hears that later: a handler that blocks it comes to its end.
      link.goodbye(
        "timeout",
        `${reason}; if its handler blocks its event loop, use isolate or a larger heartbeat.dropMs`,
      );
    } else if (verdict === "suspect") {
      const isNews = !link.isSuspect;
      heartbeat.suspect = true;
      if (isNews) this.#suspect(link);
      link.ping(now);
    } else if (verdict === "ping") link.ping(now);
  }

  /** What it holds, or would never begin, may be begun by others. */
  #suspect(link: WorkerLink): void {
    this.#options.onEvent({ type: "suspect", worker: { ...link.info } });
    this.#options.delivery.suspect(link);
    this.#options.onSuspect();
  }

  /** Items that are executed for too long fail. */
  #checkItems(now: number): void {
    const { delivery, itemTimeoutMs, links } = this.#options;
    if (itemTimeoutMs === undefined) return;
    for (const worker of links) {
      if (!worker.isWorker) continue;
      // Its result may be among what waits here. Of a busy worker, something
      // waits here again and again, but not always the same.
      const heardUntil = worker.heardUntil(now);
      for (const entry of worker.inFlight.oldest(worker.concurrency)) {
        // Another worker's time counts, who was given it since.
        if (worker.isSuspect && isTrusted(entry)) continue;
        if (entry.startedAt === 0) entry.startedAt = now;
        else if (heardUntil - entry.startedAt >= itemTimeoutMs) {
          delivery.fail(entry, new ItemTimeoutError(itemTimeoutMs));
        }
      }
    }
  }

  /** Items that wait though nothing has moved for a while: it is told why. */
  #checkStall(now: number): void {
    const { delivery, channel } = this.#options;
    const { progress, due, workers } = delivery;
    const { isUnread } = channel;
    // Whatever other items do, these wait for a worker who isn't there.
    const isUnworked = workers.length > 0 &&
      workers.every((w) => w.mode !== Mode.WORK) && delivery.hasDueCalls;
    if (this.#callStall.look(isUnworked, now)) this.#stalled("no-work-mode");
    const isStill = progress === this.#progress && (due > 0 || isUnread) &&
      (!isUnworked || isUnread || channel.queue.length > 0);
    this.#progress = progress;
    if (!this.#stall.look(isStill, now)) return;
    if (workers.length === 0 && due > 0) this.#stalled("no-workers");
    else this.#stalled(isUnread ? "results-unread" : "workers-full");
  }

  #stalled(reason: StallReason): void {
    const { due } = this.#options.delivery;
    this.#options.onEvent({ type: "stalled", reason, waiting: due });
  }
}
