/**
 * What servers and clients tell `onEvent`. The library itself never logs.
 *
 * @module
 */

import type { WorkerInfo } from "./dispatcher.ts";
import type { HandshakeErrorCode, ItemFailure } from "./errors.ts";

/**
 * Why items wait though nothing moves.
 *
 * | reason             | meaning                                                        |
 * | ------------------ | -------------------------------------------------------------- |
 * | `"no-workers"`     | no worker is connected                                         |
 * | `"no-work-mode"`   | items of `submit()` or `map()` wait, and nobody is in `work()` |
 * | `"results-unread"` | results aren't read, so nothing is dispatched                  |
 * | `"workers-full"`   | every worker has all that it takes, and settles nothing        |
 */
export type StallReason =
  | "no-workers"
  | "no-work-mode"
  | "results-unread"
  | "workers-full";

/**
 * What a server tells `onEvent`, by `type`.
 *
 * | type             | what has happened                                                                                                      |
 * | ---------------- | ---------------------------------------------------------------------------------------------------------------------- |
 * | `"connected"`    | a worker has done its handshake                                                                                        |
 * | `"disconnected"` | a worker is gone; `code` is that of a {@linkcode ConnectionLostError}, or `"normal"` after an orderly goodbye          |
 * | `"rejected"`     | a connection failed its handshake                                                                                      |
 * | `"suspect"`      | nothing was heard of a worker for `heartbeat.timeoutMs`, or it doesn't let go of a cancelled item: others get its items |
 * | `"recovered"`    | a suspect was heard again                                                                                              |
 * | `"redelivered"`  | items went back to the queue                                                                                           |
 * | `"duplicate"`    | a late result was dropped: another worker's was first, or the item had timed out or was cancelled                      |
 * | `"failed"`       | an item failed                                                                                                         |
 * | `"retry"`        | a handler failed, and the item will be tried again in `delayMs`                                                        |
 * | `"stalled"`      | items wait, and nothing has moved for a second                                                                         |
 * | `"crashed"`      | a thread of `spawn()` crashed, or was dropped as its handler blocks it; another will take its place                    |
 * | `"accept-error"` | a connection couldn't be accepted; the server goes on                                                                  |
 */
export type ServerEvent<Item = unknown> =
  | { type: "connected"; worker: WorkerInfo }
  | { type: "disconnected"; worker: WorkerInfo; code: string; reason: string }
  | {
    type: "rejected";
    addr: Deno.Addr;
    code: HandshakeErrorCode;
    reason: string;
  }
  | { type: "suspect"; worker: WorkerInfo }
  | { type: "recovered"; worker: WorkerInfo }
  | {
    type: "redelivered";
    worker: WorkerInfo;
    ids: readonly number[];
    cause: "lost" | "left" | "suspect";
  }
  | { type: "duplicate"; worker: WorkerInfo; id: number }
  | { type: "failed"; failure: ItemFailure<Item> }
  | { type: "retry"; id: number; error: Error; delayMs: number }
  | { type: "stalled"; reason: StallReason; waiting: number }
  | { type: "crashed"; name: string; error: Error }
  | { type: "accept-error"; error: Error };

/**
 * What a client, and the function `work()`, tells `onEvent`, by `type`.
 *
 * | type             | what has happened                                                                                                                                                             |
 * | ---------------- | ----------------------------------------------------------------------------------------------------------------------------------------------------------------------------- |
 * | `"connected"`    | the handshake is done                                                                                                                                                         |
 * | `"disconnected"` | the connection has ended; `code` is that of a {@linkcode ConnectionLostError}, `"normal"` after an orderly goodbye, or `"handshake"` if it ended before the handshake was done |
 * | `"reconnecting"` | `work()` tries again in `delayMs`; `attempt` counts from 1                                                                                                                    |
 * | `"failed"`       | a handler failed, or an item or value couldn't be encoded or decoded                                                                                                          |
 * | `"suspect"`      | nothing was heard of the server for `heartbeat.timeoutMs`                                                                                                                     |
 * | `"recovered"`    | the server was heard again                                                                                                                                                    |
 */
export type ClientEvent =
  | { type: "connected" }
  | { type: "disconnected"; code: string; reason: string }
  | { type: "reconnecting"; attempt: number; delayMs: number; error: Error }
  | { type: "failed"; id: number | undefined; error: Error }
  | { type: "suspect" }
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
