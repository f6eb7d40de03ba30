/**
 * Every option of the public API: its type and its default. What is given is
 * checked in validate.ts.
 *
 * @module
 */

import type { Codec } from "../codec.ts";
import type { Dispatcher } from "./dispatcher.ts";
import type { ItemFailure } from "./errors.ts";
import type { ClientEvent, ServerEvent } from "./events.ts";
import type { StandardSchemaV1 } from "./schema.ts";
import type { Transform } from "./transforms.ts";

/** How silence is judged. */
export interface HeartbeatOptions {
  /**
   * After so much silence the peer is asked for a sign of life, in ms. Left out
   * it is a third of `timeoutMs` at most.
   *
   * @default {10_000}
   */
  intervalMs?: number;
  /**
   * After so much silence the peer is suspect, in ms. Left out it is three times
   * `intervalMs` at least.
   *
   * @default {30_000}
   */
  timeoutMs?: number;
  /**
   * After so much silence the connection is dropped, in ms.
   *
   * @default {4 * timeoutMs}
   */
  dropMs?: number;
}

/** Options of both ends. */
export interface CommonOptions {
  /**
   * Tells channels apart: both ends must have the same. It is no
   * authentication. Together with the names of codec, transforms and worker it
   * has to fit into 4096 bytes.
   *
   * @default {"distchan"}
   */
  signature?: string;
  /**
   * How values become bytes: both ends must have a codec of the same name.
   *
   * @default {cbor()}
   */
  // deno-lint-ignore no-explicit-any
  codec?: Codec<any>;
  /**
   * What is done to every frame, such as compression, in order.
   *
   * @default {[]}
   */
  transforms?: readonly Transform[];
  /**
   * What both ends must know: a mutual challenge and response. It
   * authenticates, and doesn't encrypt.
   *
   * @default {undefined}
   */
  secret?: string | Uint8Array;
  /**
   * The largest frame that this end receives, in bytes: 1,024 to 2^32 - 1.
   *
   * @default {4 * 1024 * 1024}
   */
  maxFrameBytes?: number;
  /**
   * How long a handshake may take, in ms.
   *
   * @default {5000}
   */
  handshakeTimeoutMs?: number;
  /**
   * How silence is judged.
   *
   * @default {those of `HeartbeatOptions`}
   */
  heartbeat?: HeartbeatOptions;
}

/**
 * Retries of items that a worker answered with an error: their handler threw,
 * or the worker couldn't read the item or send its result, or its own schema
 * refused one of the two.
 */
export interface RetryOptions {
  /** How often an item may be tried in all. */
  attempts: number;
  /**
   * The time before the first retry, in ms; it doubles with each, up to an
   * hour.
   *
   * @default {100}
   */
  backoffMs?: number;
}

/** Where a server's live page is. */
export interface DashboardOptions {
  /** The port, 0 to 65535; 0: any that is free, see `server.dashboardAddr`. */
  port: number;
  /**
   * The address. Any other than loopback needs the server's `secret`, which
   * then must be sent as a bearer token, or `insecure: true`.
   *
   * @default {"127.0.0.1"}
   */
  hostname?: string;
  /**
   * The certificate, as PEM. With `key`: HTTPS.
   *
   * @default {that of `listen()`; none where only this machine gets in}
   */
  cert?: string;
  /**
   * The private key, as PEM.
   *
   * @default {that of `listen()`, as `cert` is}
   */
  key?: string;
}

/** Options of a server. */
// deno-lint-ignore no-explicit-any
export interface ServerOptions<Item = any, Result = any> extends CommonOptions {
  /**
   * What items must pass before they are sent: any Standard Schema v1, such as
   * those of zod, valibot and arktype. What comes out of it is sent. One that
   * doesn't pass is an `ItemFailure` with a `ValidationError`.
   *
   * @default {undefined}
   */
  itemSchema?:
    // deno-lint-ignore no-explicit-any
    | StandardSchemaV1<Item, any>
    // It may take more than items, as one that coerces does.
    // deno-lint-ignore no-explicit-any
    | StandardSchemaV1<any, NoInfer<Item>>;
  /**
   * What results, and values that workers write, must pass when they come in.
   * What comes out of it is read. A result that doesn't pass is the failure of
   * its item; a value, of the item that its worker is at, which itself goes on
   * (of none, with the id -1, if it holds none).
   *
   * @default {undefined}
   */
  // deno-lint-ignore no-explicit-any
  resultSchema?: StandardSchemaV1<any, Result>;
  /**
   * Which worker gets an item: each in turn, the one with the fewest, always
   * the same for a key, or your own choice. By key, an item waits for its
   * worker, and what is queued behind it in the same way in waits too. A worker
   * that comes takes over its share of the keys; it counts once its handshake is
   * done, and no more if it has asked for no items within `handshakeTimeoutMs`,
   * until it does.
   *
   * @default {"round-robin"}
   */
  dispatch?:
    | "round-robin"
    | "least-loaded"
    | { key: (item: Item) => string }
    | Dispatcher;
  /**
   * `"discard"`: results of `send()` and `writable` aren't wanted.
   *
   * @default {"keep"}
   */
  results?: "keep" | "discard";
  /**
   * Payload bytes that may be in flight at one worker. At least
   * `maxFrameBytes`.
   *
   * @default {8 * 1024 * 1024}
   */
  maxInFlightBytes?: number;
  /**
   * Payload bytes of unread results above which nothing more is dispatched of
   * what `send()` and `writable` take. Each `map()` has as much for its own.
   *
   * @default {64 * 1024 * 1024}
   */
  maxBufferedBytes?: number;
  /**
   * Items that may wait for their first dispatch: those of `send()`, and as
   * many of `submit()`, which reject past it. `writable` and `map()` wait.
   *
   * @default {Infinity}
   */
  maxQueued?: number;
  /**
   * Connections at once.
   *
   * @default {1024}
   */
  maxConnections?: number;
  /**
   * Connections at once that haven't done their handshake; past it the oldest
   * is dropped.
   *
   * @default {512}
   */
  maxHandshakes?: number;
  /**
   * An item fails when so many workers have died executing it. At least 2.
   *
   * @default {3}
   */
  maxDeliveries?: number;
  /**
   * How long an item may be executed, in ms.
   *
   * @default {undefined}
   */
  itemTimeoutMs?: number;
  /**
   * Retries of items that a worker answered with an error. Off by default.
   *
   * @default {undefined}
   */
  retry?: RetryOptions;
  /**
   * Called for an item of `send()` or `writable` that failed, and for a value of
   * a worker that doesn't pass `resultSchema`; the channel goes on. Without it
   * the channel is aborted with the failure; if it throws, with what it threw.
   *
   * @default {undefined}
   */
  onFailure?: (failure: ItemFailure<Item>) => void;
  /**
   * Called with everything that happens. What it throws is reported, as an
   * uncaught error is, and changes nothing else.
   *
   * @default {undefined}
   */
  onEvent?: (event: ServerEvent<Item>) => void;
  /**
   * Allows an address that is open to other machines with neither `secret` nor
   * TLS.
   *
   * @default {false}
   */
  insecure?: boolean;
  /**
   * A live page of queue, workers and failures in a browser, with `/stats.json`,
   * `/metrics` for Prometheus and `/healthz` beside it. Off by default.
   *
   * @default {undefined}
   */
  dashboard?: DashboardOptions;
}

/** Options of `server.spawn()`. */
export interface SpawnOptions {
  /**
   * How many threads, 1 to 1,024.
   *
   * @default {navigator.hardwareConcurrency}
   */
  count?: number;
  /**
   * Items that each of them executes at once, 1 to 4,096.
   *
   * @default {1}
   */
  concurrency?: number;
  /**
   * What the workers are called, each with a number behind it.
   *
   * @default {"local"}
   */
  name?: string;
}

/** Workers that a server starts on its own machine. */
export interface LocalOptions extends SpawnOptions {
  /** The module whose default export is the handler. */
  module: URL;
}

/** Options of `listen()`. */
// deno-lint-ignore no-explicit-any
export interface ListenOptions<Item = any, Result = any>
  extends ServerOptions<Item, Result> {
  /** The port; 0: any that is free. */
  port: number;
  /**
   * The address.
   *
   * @default {"127.0.0.1"}
   */
  hostname?: string;
  /**
   * The certificate, as PEM. With `key`: TLS.
   *
   * @default {undefined}
   */
  cert?: string;
  /**
   * The private key, as PEM.
   *
   * @default {undefined}
   */
  key?: string;
  /**
   * Starts workers on this machine, as `server.spawn()` does.
   *
   * @default {undefined}
   */
  local?: LocalOptions;
}

/** Options of a client. */
// deno-lint-ignore no-explicit-any
export interface ClientOptions<Item = any, Result = any> extends CommonOptions {
  /**
   * What items must pass when they come in: any Standard Schema v1. What comes
   * out of it is read. One that doesn't pass is answered with its failure.
   *
   * @default {undefined}
   */
  // deno-lint-ignore no-explicit-any
  itemSchema?: StandardSchemaV1<any, Item>;
  /**
   * What results and values must pass before they are sent. What comes out of
   * it is sent. A result that doesn't pass is the failure of its item; a value
   * that doesn't, a rejected promise. For the compiler to check as well that
   * nothing is missing in what a handler returns, write the type arguments:
   * `work<Item, Result>(…)`.
   *
   * @default {undefined}
   */
  resultSchema?:
    // deno-lint-ignore no-explicit-any
    | StandardSchemaV1<Result, any>
    // It may take more than results, as one that coerces does.
    // deno-lint-ignore no-explicit-any
    | StandardSchemaV1<any, NoInfer<Result>>;
  /**
   * Items that may be at this client, 1 to 1,000,000. Under `work()` no more of
   * them are executed at once either, whatever its `concurrency`. `"auto"`:
   * adapted under `work()`, 64 for `readable` and iteration. A server with
   * several workers keeps no more than 768 to 1,536 at each, or what it executes
   * at once.
   *
   * @default {"auto"}
   */
  prefetch?: "auto" | number;
  /**
   * What the server shows as this worker's name.
   *
   * @default {undefined}
   */
  name?: string;
  /**
   * Called with everything that happens. What it throws is reported, as an
   * uncaught error is, and changes nothing else.
   *
   * @default {undefined}
   */
  onEvent?: (event: ClientEvent) => void;
}

/** How `work()` reconnects. */
export interface ReconnectOptions {
  /**
   * The bound of the first delay, in ms. A delay is any time from 0 to its
   * bound, so that many workers don't come back at once, and the bound doubles
   * with each, until a connection has lasted as long as the bound.
   *
   * @default {100}
   */
  minDelayMs?: number;
  /**
   * The largest bound, in ms.
   *
   * @default {10_000}
   */
  maxDelayMs?: number;
  /**
   * Attempts in a row without a handshake before it gives up, from 1 on.
   *
   * @default {Infinity}
   */
  maxAttempts?: number;
  /**
   * Time without a handshake before it gives up, in ms.
   *
   * @default {Infinity}
   */
  maxElapsedMs?: number;
}

/** Options of `connect()` and the function `work()`. */
// deno-lint-ignore no-explicit-any
export interface ConnectOptions<Item = any, Result = any>
  extends ClientOptions<Item, Result> {
  /** The server's port. */
  port: number;
  /**
   * The server's host name or address.
   *
   * @default {"127.0.0.1"}
   */
  hostname?: string;
  /**
   * TLS. The authorities that Deno trusts are accepted, which is Mozilla's list
   * unless `DENO_TLS_CA_STORE` says otherwise, and those in `caCerts`, as PEM,
   * beside them.
   *
   * @default {false}
   */
  tls?: boolean | { caCerts?: string[] };
  /**
   * Ends the attempt to connect, with its reason. The function `work()` leaves
   * by it too while it is connected, as by that of {@linkcode WorkOptions}.
   *
   * @default {undefined}
   */
  signal?: AbortSignal;
  /**
   * How the function `work()` reconnects; `connect()` never does.
   *
   * @default {those of `ReconnectOptions`}
   */
  reconnect?: ReconnectOptions | false;
}

/** Options of `work()`. */
export interface WorkOptions {
  /**
   * Items that are executed at once, 1 to 4,096. After a reconnection, handlers
   * of the lost connection aren't among them, though they may run until they
   * heed their signal: others have their items already.
   *
   * @default {1}
   */
  concurrency?: number;
  /**
   * Leaves: hands back what isn't begun, finishes the rest, says goodbye.
   *
   * @default {undefined}
   */
  signal?: AbortSignal;
  /**
   * Runs the handler, a module's URL, in isolates: as many worker threads as
   * `concurrency` says, one item at a time in each. This event loop stays free,
   * however long a handler burns the processor.
   *
   * @default {false}
   */
  isolate?: boolean;
  /**
   * How long a cancelled or timed-out handler in an isolate may go on after its
   * `context.signal` aborts, in ms. Then its isolate is terminated and replaced.
   *
   * @default {5000}
   */
  cancelGraceMs?: number;
  /**
   * Sends the stacks of errors to the server.
   *
   * @default {false}
   */
  sendStacks?: boolean;
}

/** Options of `submit()`. */
export interface SubmitOptions {
  /**
   * Cancels the item; `submit()` then rejects with the signal's reason.
   *
   * @default {undefined}
   */
  signal?: AbortSignal;
  /**
   * How long it may take from the call on, in ms.
   *
   * @default {undefined}
   */
  timeoutMs?: number;
}

/** Options of `map()`. */
export interface MapOptions<Item = unknown> {
  /**
   * Whether results come in the order of their items.
   *
   * @default {true}
   */
  ordered?: boolean;
  /**
   * Stops; the iterator then throws the signal's reason.
   *
   * @default {undefined}
   */
  signal?: AbortSignal;
  /**
   * How many items may be under way, counted from the oldest whose result
   * wasn't taken: 1 to 1,000,000.
   *
   * @default {4096}
   */
  window?: number;
  /**
   * Called for an item that failed; it is skipped, and the rest goes on. If it
   * throws, the iterator does. Without effect beside `settled: true`.
   *
   * @default {undefined}
   */
  onFailure?: (failure: ItemFailure<Item>) => void;
  /**
   * Yields an outcome for every item, failed or not.
   *
   * @default {false}
   */
  settled?: boolean;
}

/** An outcome of `map()` with `settled: true`. */
export type MapOutcome<Item, Result> =
  | {
    /** The item's place in the source, from 0 on. */
    index: number;
    /** The item. */
    item: Item;
    /** Its result. */
    result: Result;
    /** Not there. */
    failure?: undefined;
  }
  | {
    /** The item's place in the source, from 0 on. */
    index: number;
    /** The item. */
    item: Item;
    /** Not there. */
    result?: undefined;
    /** Why it has none. */
    failure: ItemFailure<Item>;
  };

/** Defaults: tests hold them against what the options above say of themselves. */
export const DEFAULTS = {
  signature: "distchan",
  codec: "cbor",
  maxFrameBytes: 4 * 1024 * 1024 as number,
  handshakeTimeoutMs: 5000,
  maxInFlightBytes: 8 * 1024 * 1024 as number,
  maxBufferedBytes: 64 * 1024 * 1024 as number,
  maxConnections: 1024,
  maxHandshakes: 512,
  maxDeliveries: 3,
  backoffMs: 100,
  drainMs: 30_000,
  hostname: "127.0.0.1",
  minDelayMs: 100,
  maxDelayMs: 10_000,
  /** Of `prefetch: "auto"`, without `work()`. */
  streamPrefetch: 64,
  concurrency: 1,
  cancelGraceMs: 5000,
  /** Items under way in a map. */
  window: 4096,
};

/** Heartbeat options with their defaults. */
export function resolveHeartbeat(
  options: HeartbeatOptions = {},
): Required<HeartbeatOptions> {
  // One alone moves the others with it, so that each can be set by itself.
  const timeoutMs = options.timeoutMs ??
    (options.intervalMs === undefined
      ? 30_000
      : Math.max(30_000, 3 * options.intervalMs));
  const intervalMs = options.intervalMs ?? Math.min(10_000, timeoutMs / 3);
  return { intervalMs, timeoutMs, dropMs: options.dropMs ?? 4 * timeoutMs };
}

/** A secret as bytes; null if there is none. */
export function secretBytes(
  secret: string | Uint8Array | undefined,
): Uint8Array | null {
  if (secret === undefined) return null;
  return typeof secret === "string" ? new TextEncoder().encode(secret) : secret;
}

/** What something is, for messages. */
export function kindOf(value: unknown): string {
  return value === null ? "null" : typeof value;
}
