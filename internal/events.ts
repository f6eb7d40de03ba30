/**
 * What servers and clients tell `onEvent`. The library itself never logs.
 *
 * @module
 */

import type { WorkerInfo } from "./dispatcher.ts";
import type { HandshakeErrorCode, ItemFailure } from "./errors.ts";

/** Why items wait though nothing moves. */
export type StallReason =
  /** No worker is connected. */
  | "no-workers"
  /** Items of `submit()` or `map()` wait, and no worker is in `work()`. */
  | "no-work-mode"
  /** Results aren't read, so nothing is dispatched. */
  | "results-unread"
  /** Every worker has all that it takes, and settles nothing. */
  | "workers-full";

/** What a server tells `onEvent`. */
export type ServerEvent<Item = unknown> =
  /** A worker has done its handshake. */
  | { type: "connected"; worker: WorkerInfo }
  /**
   * A worker is gone; `code` is that of a {@linkcode ConnectionLostError}, and
   * `"normal"` after an orderly goodbye.
   */
  | { type: "disconnected"; worker: WorkerInfo; code: string; reason: string }
  /** A connection failed its handshake. */
  | {
    type: "rejected";
    addr: Deno.Addr;
    code: HandshakeErrorCode;
    reason: string;
  }
  /** Nothing was heard of a worker for `heartbeat.timeoutMs`. */
  | { type: "suspect"; worker: WorkerInfo }
  /** A suspect was heard again. */
  | { type: "recovered"; worker: WorkerInfo }
  /** Items went back to the queue. */
  | {
    type: "redelivered";
    worker: WorkerInfo;
    ids: readonly number[];
    cause: "lost" | "left" | "suspect";
  }
  /** A late duplicate of a result was dropped. */
  | { type: "duplicate"; worker: WorkerInfo; id: number }
  /** An item failed. */
  | { type: "failed"; failure: ItemFailure<Item> }
  /** A handler failed, and the item will be tried again in `delayMs`. */
  | { type: "retry"; id: number; error: Error; delayMs: number }
  /** Items wait and nothing has moved for a second. */
  | { type: "stalled"; reason: StallReason; waiting: number }
  /** A thread of `spawn()` crashed, and will be started again. */
  | { type: "crashed"; name: string; error: Error }
  /** A connection couldn't be accepted; the server goes on. */
  | { type: "accept-error"; error: Error };

/** What a client, and the function `work()`, tells `onEvent`. */
export type ClientEvent =
  /** The handshake is done. */
  | { type: "connected" }
  /**
   * The connection has ended; `code` is that of a
   * {@linkcode ConnectionLostError}, `"normal"` after an orderly goodbye, and
   * `"handshake"` if it ended before the handshake was done.
   */
  | { type: "disconnected"; code: string; reason: string }
  /** `work()` tries again in `delayMs`. */
  | { type: "reconnecting"; attempt: number; delayMs: number; error: Error }
  /** A handler failed, or an item or value couldn't be encoded or decoded. */
  | { type: "failed"; id: number | undefined; error: Error }
  /** Nothing was heard of the server for `heartbeat.timeoutMs`. */
  | { type: "suspect" }
  /** The server was heard again. */
  | { type: "recovered" };

/** Tells `onEvent`, if there is one. */
export function tellEvent<Event>(
  onEvent: ((event: Event) => void) | undefined,
  event: Event,
): void {
  try {
    onEvent?.(event);
  } catch (error) {
    // The caller's own: it must not break what happens here.
    reportError(error);
  }
}
