/**
 * The validation of options: once, at construction.
 *
 * @module
 */

import { MAX_CONCURRENCY, MAX_FRAME_BYTES, MIN_FRAME_BYTES } from "./frame.ts";
import {
  type CommonOptions,
  type ConnectOptions,
  type DashboardOptions,
  DEFAULTS,
  kindOf,
  type ListenOptions,
  resolveHeartbeat,
  type ServerOptions,
} from "./options.ts";
import type { StandardSchemaV1 } from "./schema.ts";
import { AES_GCM, SEALED_AES_GCM, type Transform } from "./transforms.ts";

/**
 * Checks one option. Returns what was expected, where that is all there is to
 * say, or null if all is well.
 */
type Check = (value: unknown) => string | Wrong | null;

/** Why an option can't be used. */
interface Wrong {
  readonly expected: string;
  /** It has the right type and a wrong value: a RangeError. */
  readonly isRange?: boolean;
  /** The element that it is about; left out: the option itself. */
  readonly element?: { readonly index: number; readonly value: unknown };
}

function outOfRange(expected: string): Wrong {
  return { expected, isRange: true };
}

const text: Check = (v) => typeof v === "string" ? null : "a string";
const wellFormed: Check = (v) =>
  typeof v !== "string"
    ? "a string"
    : v.isWellFormed()
    ? null
    : outOfRange("text without lone surrogates");
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
    return outOfRange(
      `an integer from ${min} to ${max}${infinity ? ", or Infinity" : ""}`,
    );
  };
}

const ms: Check = (v) => {
  if (typeof v !== "number") return "a number";
  return v > 0 ? null : outOfRange("a time in ms above 0");
};

const msOrZero: Check = (v) => {
  if (typeof v !== "number") return "a number";
  return v >= 0 ? null : outOfRange("a time in ms from 0 on");
};

function oneOf(...values: string[]): Check {
  const expected = values.map((v) => JSON.stringify(v)).join(" or ");
  return (v) =>
    values.includes(v as string)
      ? null
      : typeof v === "string"
      ? outOfRange(expected)
      : expected;
}

/** An array in which each element is something. */
function arrayOf(is: (value: unknown) => boolean, expected: string): Check {
  return (v) => {
    if (!Array.isArray(v)) return `an array, each ${expected}`;
    const index = v.findIndex((value) => !is(value));
    return index < 0 ? null : { expected, element: { index, value: v[index] } };
  };
}

/**
 * Options inside of options.
 *
 * @param checks What they are.
 * @param name Whose they are, for messages.
 * @param needed The one that can't be left out, and what it is.
 */
function record(
  checks: Record<string, Check>,
  name: string,
  needed?: readonly [key: string, what: string],
): Check {
  return (v) => {
    if (typeof v !== "object" || v === null || Array.isArray(v)) {
      return "an object";
    }
    checkOptions(v, checks, name);
    if (needed === undefined) return null;
    const [key, what] = needed;
    if ((v as Record<string, unknown>)[key] === undefined) {
      throw missing(name, what);
    }
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
      ? outOfRange(`${AES_GCM} at most once`)
      : null;
  },
  secret: (v) =>
    typeof v !== "string" && !(v instanceof Uint8Array)
      ? "a string or a Uint8Array"
      : v.length === 0
      ? outOfRange("a secret that isn't empty")
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
  // Its port is no choice of ours.
  const wrong = record(ADDRESS, "dashboard", ["port", "a port"])(v);
  if (wrong !== null) return wrong;
  const { cert, key } = v as DashboardOptions;
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
  // Left out they would be no limit at all.
  retry: record(RETRY, "retry", ["attempts", "a number of attempts"]),
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
  local: record(LOCAL, "local", ["module", "a module, as a URL"]),
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

/** What has options. */
type Owner =
  | "server"
  | "listen"
  | "spawn"
  | "client"
  | "connect"
  | "work"
  | "submit"
  | "map"
  | "ready"
  | "close"
  | "gzip";

const CHECKS: Record<Owner, Record<string, Check>> = {
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
export function validate(options: unknown, of: Owner): void {
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
  of: "server" | "listen" | "client" | "connect" | "work" | "map" | "gzip",
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
  if (typeof tls === "object") {
    const { caCerts } = own.tls = copyOf(tls, TLS);
    if (caCerts !== undefined) own.tls.caCerts = [...caCerts];
  }
  if (dashboard !== undefined) own.dashboard = copyOf(dashboard, ADDRESS);
  if (local !== undefined) own.local = copyOf(local, LOCAL);
  return copy;
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
    const { expected, isRange, element }: Wrong = typeof wrong === "string"
      ? { expected: wrong }
      : wrong;
    const shown = element === undefined ? value : element.value;
    const got = `${key}${
      element === undefined ? "" : `[${element.index}]`
    } is ${key === "secret" ? showSecret(shown) : show(shown)}`;
    const message = `Cannot use ${of} options: ${got}, expected ${expected}`;
    throw isRange ? new RangeError(message) : new TypeError(message);
  }
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
  if (typeof value === "string") {
    // PEM may be a private key in the wrong place.
    return value.includes("-----BEGIN ")
      ? showSecret(value)
      : JSON.stringify(value);
  }
  if (typeof value === "function") return "a function";
  if (typeof value === "object" && value !== null) {
    return Array.isArray(value) ? "an array" : "an object";
  }
  return typeof value === "bigint" ? `${value}n` : String(value);
}

/** Not quoted: such a message is logged. */
function showSecret(value: unknown): string {
  if (value === "") return '""';
  if (typeof value === "string") return `text of ${value.length} characters`;
  return typeof value === "number" || typeof value === "bigint"
    ? `a ${typeof value}`
    : show(value);
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
