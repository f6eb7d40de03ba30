/**
 * Every option of the public API: its type, its default, and its validation,
 * which happens once, at construction.
 *
 * @module
 */

import type { Codec } from "../codec.ts";
import type { Dispatcher } from "./dispatcher.ts";
import type { ItemFailure } from "./errors.ts";
import type { ClientEvent, ServerEvent } from "./events.ts";
import { MAX_CONCURRENCY, MAX_FRAME_BYTES, MIN_FRAME_BYTES } from "./frame.ts";
import type { StandardSchemaV1 } from "./schema.ts";
import { AES_GCM, SEALED_AES_GCM, type Transform } from "./transforms.ts";

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
   * @default {{}}
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
  // deno-lint-ignore no-explicit-any
  itemSchema?: StandardSchemaV1<Item, any>;
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
   * Called for an item of `send()` or `writable` that failed; the channel goes
   * on. Without it the channel is aborted with the failure; if it throws, with
   * what it threw.
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
  // deno-lint-ignore no-explicit-any
  resultSchema?: StandardSchemaV1<Result, any>;
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
   * TLS, with the certificate authorities to trust.
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
   * @default {{}}
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

/**
 * Checks one option. Returns what was expected, of one of its elements perhaps,
 * or null if all is well.
 */
type Check = (value: unknown) => string | WrongElement | null;

/** An element that can't be used. */
interface WrongElement {
  readonly index: number;
  readonly value: unknown;
  readonly expected: string;
}

/** What {@linkcode checkOptions} throws: wrong type, or wrong value. */
const VALUE = "!";

const text: Check = (v) => typeof v === "string" ? null : "a string";
const wellFormed: Check = (v) =>
  typeof v !== "string"
    ? "a string"
    : v.isWellFormed()
    ? null
    : `${VALUE}text without lone surrogates`;
const host: Check = (v) =>
  typeof v === "string" && v !== "" ? null : "a host name or an address";
const boolean: Check = (v) => typeof v === "boolean" ? null : "a boolean";
const callback: Check = (v) => typeof v === "function" ? null : "a function";
const signal: Check = (v) => v instanceof AbortSignal ? null : "an AbortSignal";

function integer(min: number, max: number, infinity = false): Check {
  return (v) => {
    if (typeof v !== "number") return "a number";
    if (infinity && v === Infinity) return null;
    if (Number.isInteger(v) && v >= min && v <= max) return null;
    return `${VALUE}an integer from ${min} to ${max}${
      infinity ? ", or Infinity" : ""
    }`;
  };
}

function ms(v: unknown): string | null {
  if (typeof v !== "number") return "a number";
  return v > 0 ? null : `${VALUE}a time in ms above 0`;
}

function msOrZero(v: unknown): string | null {
  if (typeof v !== "number") return "a number";
  return v >= 0 ? null : `${VALUE}a time in ms from 0 on`;
}

function oneOf(...values: string[]): Check {
  const expected = values.map((v) => JSON.stringify(v)).join(" or ");
  return (v) =>
    values.includes(v as string)
      ? null
      : typeof v === "string"
      ? VALUE + expected
      : expected;
}

/** An array in which each element is something. */
function arrayOf(is: (value: unknown) => boolean, expected: string): Check {
  return (v) => {
    if (!Array.isArray(v)) return `an array, each ${expected}`;
    const index = v.findIndex((value) => !is(value));
    return index < 0 ? null : { index, value: v[index], expected };
  };
}

function record(
  checks: Record<string, Check>,
  name: string,
): (value: unknown) => string | null {
  return (v) => {
    if (typeof v !== "object" || v === null || Array.isArray(v)) {
      return "an object";
    }
    checkOptions(v, checks, name);
    return null;
  };
}

function isObjectWith(value: unknown, ...methods: string[]): boolean {
  return typeof value === "object" && value !== null &&
    methods.every((m) =>
      typeof (value as Record<string, unknown>)[m] === "function"
    );
}

/** Some libraries' schemas are functions. */
const schema: Check = (v) => {
  const isLike = typeof v === "object" && v !== null || typeof v === "function";
  const standard = isLike ? (v as StandardSchemaV1)["~standard"] : undefined;
  return isObjectWith(standard, "validate") && standard!.version === 1
    ? null
    : "a Standard Schema v1";
};

const transforms = arrayOf(
  (v) => isObjectWith(v, "open") && wellFormed((v as Transform).name) === null,
  "a Transform: { name, open(context) }",
);

const HEARTBEAT: Record<string, Check> = {
  intervalMs: ms,
  timeoutMs: ms,
  dropMs: ms,
};

const COMMON: Record<string, Check> = {
  itemSchema: schema,
  resultSchema: schema,
  signature: wellFormed,
  codec: (v) =>
    isObjectWith(v, "encode", "decode") &&
      wellFormed((v as { name?: unknown }).name) === null
      ? null
      : "a Codec: { name, encode(value), decode(payload) }",
  transforms: (v) => {
    const wrong = transforms(v);
    if (wrong !== null) return wrong;
    // One key twice makes one key stream twice: plain text again.
    const isAes = ({ name }: Transform): boolean =>
      name === AES_GCM || name === SEALED_AES_GCM;
    return (v as Transform[]).filter(isAes).length > 1
      ? `${VALUE}${AES_GCM} at most once`
      : null;
  },
  secret: (v) =>
    typeof v !== "string" && !(v instanceof Uint8Array)
      ? "a string or a Uint8Array"
      : v.length === 0
      ? `${VALUE}a secret that isn't empty`
      // They would all be the same U+FFFD.
      : typeof v === "string"
      ? wellFormed(v)
      : null,
  maxFrameBytes: integer(MIN_FRAME_BYTES, MAX_FRAME_BYTES),
  handshakeTimeoutMs: ms,
  heartbeat: record(HEARTBEAT, "heartbeat"),
};

const ADDRESS: Record<string, Check> = {
  port: integer(0, 65535),
  hostname: host,
  cert: text,
  key: text,
};

const dashboard: Check = (v) => {
  const wrong = record(ADDRESS, "dashboard")(v);
  if (wrong !== null) return wrong;
  const { port, cert, key } = v as DashboardOptions;
  // Its port is no choice of ours.
  if (port === undefined) throw missing("dashboard", "a port");
  checkPair("dashboard", cert, key);
  return null;
};

const RETRY: Record<string, Check> = {
  attempts: integer(1, Number.MAX_SAFE_INTEGER, true),
  backoffMs: msOrZero,
};

const SERVER: Record<string, Check> = {
  ...COMMON,
  dispatch: (v) =>
    isObjectWith(v, "pick") || isObjectWith(v, "key")
      ? null
      : oneOf("round-robin", "least-loaded")(v) &&
        '"round-robin", "least-loaded", { key(item) } or { pick(free, item) }',
  results: oneOf("keep", "discard"),
  maxInFlightBytes: integer(MIN_FRAME_BYTES, Number.MAX_SAFE_INTEGER, true),
  maxBufferedBytes: integer(1, Number.MAX_SAFE_INTEGER, true),
  maxQueued: integer(0, Number.MAX_SAFE_INTEGER, true),
  maxConnections: integer(1, Number.MAX_SAFE_INTEGER, true),
  maxHandshakes: integer(1, Number.MAX_SAFE_INTEGER, true),
  maxDeliveries: integer(2, Number.MAX_SAFE_INTEGER, true),
  itemTimeoutMs: ms,
  retry: (v) => {
    const wrong = record(RETRY, "retry")(v);
    if (wrong !== null) return wrong;
    // Left out it would be no limit at all.
    if ((v as RetryOptions).attempts === undefined) {
      throw missing("retry", "a number of attempts");
    }
    return null;
  },
  onFailure: callback,
  onEvent: callback,
  insecure: boolean,
  dashboard,
};

const CLIENT: Record<string, Check> = {
  ...COMMON,
  prefetch: (v) =>
    v === "auto"
      ? null
      : typeof v === "number"
      ? integer(1, 1_000_000)(v)
      : 'a number, or "auto"',
  name: text,
  onEvent: callback,
};

const caCerts = arrayOf(
  // What isn't PEM would be passed over in silence.
  (v) => typeof v === "string" && v.includes("-----BEGIN CERTIFICATE-----"),
  "a certificate, as PEM",
);

const SPAWN: Record<string, Check> = {
  count: integer(1, 1024),
  concurrency: integer(1, MAX_CONCURRENCY),
  name: text,
};

const moduleUrl: Check = (v) => v instanceof URL ? null : "a URL";

const LOCAL: Record<string, Check> = { ...SPAWN, module: moduleUrl };

const LISTEN: Record<string, Check> = {
  ...SERVER,
  ...ADDRESS,
  local: (v) => {
    const wrong = record(LOCAL, "local")(v);
    if (wrong !== null) return wrong;
    if ((v as LocalOptions).module === undefined) {
      throw missing("local", "a module, as a URL");
    }
    return null;
  },
};

const RECONNECT: Record<string, Check> = {
  minDelayMs: ms,
  maxDelayMs: ms,
  maxAttempts: integer(1, Number.MAX_SAFE_INTEGER, true),
  maxElapsedMs: ms,
};
const reconnect = record(RECONNECT, "reconnect");

const TLS: Record<string, Check> = { caCerts };

const CONNECT: Record<string, Check> = {
  ...CLIENT,
  port: integer(1, 65535),
  hostname: host,
  tls: (v) =>
    typeof v === "boolean"
      ? null
      : record(TLS, "tls")(v) && "a boolean or { caCerts }",
  signal,
  reconnect: (v) => v === false ? null : reconnect(v) && "false, or an object",
};

const WORK: Record<string, Check> = {
  concurrency: integer(1, MAX_CONCURRENCY),
  signal,
  isolate: boolean,
  cancelGraceMs: ms,
  sendStacks: boolean,
};

const SUBMIT: Record<string, Check> = { signal, timeoutMs: ms };

const MAP: Record<string, Check> = {
  ordered: boolean,
  signal,
  window: integer(1, 1_000_000),
  onFailure: callback,
  settled: boolean,
};

const GZIP: Record<string, Check> = {
  maxOutputBytes: integer(1, Number.MAX_SAFE_INTEGER, true),
};

const READY: Record<string, Check> = { signal };
const CLOSE: Record<string, Check> = { drainMs: msOrZero };

const CHECKS = {
  server: SERVER,
  listen: LISTEN,
  spawn: SPAWN,
  client: CLIENT,
  connect: CONNECT,
  work: WORK,
  submit: SUBMIT,
  map: MAP,
  ready: READY,
  close: CLOSE,
  gzip: GZIP,
};

/**
 * Checks options.
 *
 * @param options What the caller gave.
 * @param of Whose options they are.
 * @throws {TypeError} If one is unknown or of the wrong type.
 * @throws {RangeError} If one is out of range.
 */
export function validate(options: unknown, of: keyof typeof CHECKS): void {
  checkOptions(checkObject(options, of), CHECKS[of], of);
  const { maxFrameBytes = DEFAULTS.maxFrameBytes, heartbeat } =
    options as CommonOptions;
  if (of === "server" || of === "listen") {
    const { maxInFlightBytes = DEFAULTS.maxInFlightBytes } =
      options as ServerOptions;
    if (maxInFlightBytes < maxFrameBytes) {
      throw new RangeError(
        `Cannot use ${of} options: maxInFlightBytes is ${maxInFlightBytes}, expected at least maxFrameBytes, ${maxFrameBytes}`,
      );
    }
  }
  if (of === "listen") {
    const { cert, key } = options as ListenOptions;
    checkPair(of, cert, key);
  }
  if (of === "listen" || of === "connect") {
    if ((options as ListenOptions).port === undefined) {
      throw missing(of, "a port");
    }
  }
  if (heartbeat !== undefined) {
    const { timeoutMs, dropMs, intervalMs } = resolveHeartbeat(heartbeat);
    if (intervalMs > timeoutMs || timeoutMs > dropMs) {
      throw new RangeError(
        `Cannot use ${of} options: expected heartbeat.intervalMs <= timeoutMs <= dropMs, got ${intervalMs}, ${timeoutMs}, ${dropMs}`,
      );
    }
  }
}

/** A list, or a signal in the place of `{ signal }`, would set nothing. */
function checkObject(options: unknown, of: string): object {
  const kind = Array.isArray(options)
    ? "an array"
    : options instanceof AbortSignal
    ? "an AbortSignal"
    : kindOf(options);
  if (kind === "object") return options as object;
  throw new TypeError(
    `Cannot use ${of} options: expected an object, got ${kind}`,
  );
}

function checkOptions(
  options: object,
  checks: Record<string, Check>,
  of: string,
): void {
  for (const [key, value] of Object.entries(copyOf(options, checks))) {
    const check = Object.hasOwn(checks, key) ? checks[key] : undefined;
    if (check === undefined) {
      throw new TypeError(
        `Cannot use ${of} options: "${key}" is unknown, expected ${
          Object.keys(checks).join(", ")
        }`,
      );
    }
    if (value === undefined) continue;
    const wrong = check(value);
    if (wrong === null) continue;
    if (typeof wrong === "object") {
      const { index, value, expected } = wrong;
      throw new TypeError(
        `Cannot use ${of} options: ${key}[${index}] is ${
          show(value)
        }, expected ${expected}`,
      );
    }
    const isRange = wrong.startsWith(VALUE);
    const message = `Cannot use ${of} options: ${key} is ${
      show(value)
    }, expected ${isRange ? wrong.slice(VALUE.length) : wrong}`;
    throw isRange ? new RangeError(message) : new TypeError(message);
  }
}

/** What something is, for messages. */
export function kindOf(value: unknown): string {
  return value === null ? "null" : typeof value;
}

function missing(of: string, expected: string): TypeError {
  return new TypeError(`Cannot use ${of} options: expected ${expected}`);
}

function checkPair(of: string, cert?: string, key?: string): void {
  if ((cert === undefined) !== (key === undefined)) {
    const given = cert === undefined ? "key" : "cert";
    throw missing(of, `both cert and key, or none, got ${given} alone`);
  }
  for (const [name, pem] of Object.entries({ cert, key })) {
    if (pem === undefined || pem.includes("-----BEGIN ")) continue;
    // Not quoted: it may be a secret.
    throw missing(of, `${name} as PEM, got text without "-----BEGIN", a path?`);
  }
}

function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (typeof value === "object" && value !== null) {
    return Array.isArray(value) ? "an array" : "an object";
  }
  return typeof value === "bigint" ? `${value}n` : String(value);
}

/** Defaults: tests hold them against what the options above say of themselves. */
export const DEFAULTS = {
  signature: "distchan",
  codec: "cbor",
  maxFrameBytes: 4 * 1024 * 1024,
  handshakeTimeoutMs: 5000,
  maxInFlightBytes: 8 * 1024 * 1024,
  maxBufferedBytes: 64 * 1024 * 1024,
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

/**
 * Checks options, and makes them our own: what becomes of theirs once they are
 * handed over is nothing to us. A secret that is wiped would be one that
 * everybody knows, so many zeros.
 *
 * @param options The options.
 * @param of Whose options they are, for the message.
 * @throws {TypeError} If one is unknown or of the wrong type.
 * @throws {RangeError} If one is out of range.
 */
export function ownOptions<T extends object>(
  options: T,
  of: "server" | "listen" | "client" | "connect" | "work" | "map",
): T {
  checkObject(options, of);
  const copy = copyOf(options, CHECKS[of]);
  validate(copy, of);
  const own = copy as Partial<ConnectOptions & ListenOptions>;
  const { secret, transforms, heartbeat, retry, reconnect, tls } = own;
  const { dashboard, local } = own;
  // A Buffer's slice() is no copy.
  if (secret instanceof Uint8Array) own.secret = new Uint8Array(secret);
  if (transforms !== undefined) own.transforms = [...transforms];
  if (heartbeat !== undefined) own.heartbeat = copyOf(heartbeat, HEARTBEAT);
  if (retry !== undefined) own.retry = copyOf(retry, RETRY);
  if (typeof reconnect === "object") {
    own.reconnect = copyOf(reconnect, RECONNECT);
  }
  if (typeof tls === "object") own.tls = copyOf(tls, TLS);
  if (dashboard !== undefined) own.dashboard = copyOf(dashboard, ADDRESS);
  if (local !== undefined) own.local = copyOf(local, LOCAL);
  return copy;
}

/** A copy with what a class gives them: `...` would pass it over in silence. */
function copyOf<T extends object>(
  options: T,
  checks: Record<string, Check>,
): T {
  const copy = { ...options };
  for (const key of Object.keys(checks) as (keyof T)[]) {
    if (!Object.hasOwn(copy, key) && key in options) copy[key] = options[key];
  }
  return copy;
}
