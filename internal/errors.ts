/**
 * Every error class of the library, in one place. A class exists only where a
 * caller catches it; everything else is a `TypeError` or a `RangeError`.
 *
 * @module
 */

/**
 * A value can't be encoded, for example a function, a class instance or a
 * cycle. Nothing of it was sent.
 *
 * @example Find the part of a value that can't be sent
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 * import { cbor, EncodeError } from "@distchan/distchan/codec";
 *
 * const jobs = [{ fn() {} }];
 * const error = assertThrows(() => cbor().encode({ jobs }), EncodeError);
 * assertEquals(error.path, "$.jobs[0].fn");
 * ```
 */
export class EncodeError extends Error {
  /** Where in the value the problem is, as in `$.jobs[3].fn`. */
  readonly path: string;

  /**
   * Makes the error.
   *
   * @param message What was expected and what came.
   * @param options Where, and the error behind it.
   */
  constructor(message: string, options: ErrorOptions & { path?: string } = {}) {
    super(message, options);
    this.name = "EncodeError";
    this.path = options.path ?? "$";
  }
}

/**
 * Bytes aren't a well-formed value.
 *
 * @example Decode bytes that end too early
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 * import { cbor, DecodeError } from "@distchan/distchan/codec";
 *
 * const bytes = new Uint8Array([0x19, 0x01]);
 * const error = assertThrows(() => cbor().decode(bytes), DecodeError);
 * assertEquals(error.offset, 2);
 * ```
 */
export class DecodeError extends Error {
  /** Where in the payload the problem is, in bytes from its start. */
  readonly offset: number;

  /**
   * Makes the error.
   *
   * @param message What was expected and what came.
   * @param options Where, and the error behind it.
   */
  constructor(
    message: string,
    options: ErrorOptions & { offset?: number } = {},
  ) {
    super(message, options);
    this.name = "DecodeError";
    this.offset = options.offset ?? 0;
  }
}

/**
 * A peer broke the rules of PROTOCOL.md. Its connection is dropped.
 *
 * @example Tell a faulty peer from a cut network
 * ```ts
 * import { assert } from "@std/assert";
 * import { ConnectionLostError, ProtocolError } from "@distchan/distchan";
 *
 * function isProtocolError(error: unknown): boolean {
 *   return error instanceof ConnectionLostError &&
 *     error.cause instanceof ProtocolError;
 * }
 *
 * const cause = new ProtocolError("Cannot take ITEM: END came before it");
 * const lost = new ConnectionLostError("protocol", cause.message, { cause });
 * assert(isProtocolError(lost));
 * ```
 */
export class ProtocolError extends Error {
  /**
   * Makes the error.
   *
   * @param message What was expected and what came.
   * @param options The error behind it.
   */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "ProtocolError";
  }
}

/** Why a handshake failed. */
export type HandshakeErrorCode =
  | "signature"
  | "version"
  | "codec"
  | "transforms"
  | "auth"
  | "full"
  | "timeout"
  | "protocol";

/**
 * The handshake failed: the two ends don't belong together, or the peer doesn't
 * speak this protocol.
 *
 * @example Connect to another channel
 * ```ts
 * import { assertEquals, assertRejects } from "@std/assert";
 * import { connect, HandshakeError, listen } from "@distchan/distchan";
 *
 * await using server = listen({ port: 0, signature: "thumbnails" });
 * const { port } = server.addr;
 *
 * const error = await assertRejects(() => connect({ port }), HandshakeError);
 * assertEquals(error.code, "signature");
 * ```
 */
export class HandshakeError extends Error {
  /** Which part failed. */
  readonly code: HandshakeErrorCode;

  /**
   * Makes the error.
   *
   * @param code Which part failed.
   * @param message Both sides' values, where they differ.
   * @param options The error behind it.
   */
  constructor(
    code: HandshakeErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "HandshakeError";
    this.code = code;
  }
}

/**
 * The connection ended without a goodbye, so what was under way on it may not
 * have arrived.
 *
 * @example The server stops
 * ```ts
 * import { assertEquals, assertRejects } from "@std/assert";
 * import { connect, ConnectionLostError, listen } from "@distchan/distchan";
 *
 * const server = listen({ port: 0 });
 * const { port } = server.addr;
 * const client = await connect({ port });
 * await server.abort();
 *
 * const error = await assertRejects(() => client.closed, ConnectionLostError);
 * assertEquals(error.code, "aborted");
 * ```
 */
export class ConnectionLostError extends Error {
  /**
   * How it ended. Said in a goodbye (PROTOCOL.md section 7), by either end:
   * `"normal"` (too early), `"aborted"`, `"protocol"`, `"timeout"` or
   * `"transforms"`. Without one: `"eof"`, `"reset"`, `"timeout"`,
   * `"transforms"`, or `"closed"` if this end just closed it.
   */
  readonly code: string;
  /** What is known of why. */
  readonly reason: string;

  /**
   * Makes the error.
   *
   * @param code How the connection ended.
   * @param reason What is known of why.
   * @param options The error behind it.
   */
  constructor(code: string, reason: string, options?: ErrorOptions) {
    super(`Connection lost (${code}): ${reason}`, options);
    this.name = "ConnectionLostError";
    this.code = code;
    this.reason = reason;
  }
}

/**
 * A value is larger than the largest frame that the peer receives.
 *
 * @example An item that no worker takes
 * ```ts
 * import { assert, assertEquals, assertRejects } from "@std/assert";
 * import {
 *   FrameTooLargeError,
 *   ItemFailure,
 *   listen,
 *   work,
 * } from "@distchan/distchan";
 *
 * await using server = listen<Uint8Array, number>({ port: 0 });
 * const { port } = server.addr;
 * const options = { port, maxFrameBytes: 1024 };
 * work<Uint8Array, number>(options, (bytes) => bytes.length);
 *
 * const { error } = await assertRejects(
 *   () => server.submit(new Uint8Array(2000)),
 *   ItemFailure,
 * );
 * assert(error instanceof FrameTooLargeError);
 * assertEquals(error.limit, 1024);
 * ```
 */
export class FrameTooLargeError extends RangeError {
  /**
   * The size of the frame, in bytes. Above four times the limit it is the size
   * at which encoding was given up.
   */
  readonly bytes: number;
  /** The limit, in bytes. */
  readonly limit: number;

  /**
   * Makes the error.
   *
   * @param bytes The size of the frame, in bytes.
   * @param limit The limit, in bytes.
   * @param options `isPart`: there is more of the frame than that.
   */
  constructor(
    bytes: number,
    limit: number,
    { isPart = false }: { isPart?: boolean } = {},
  ) {
    super(
      `Cannot send value: its frame is ${
        isPart ? "more than " : ""
      }${bytes} bytes, limit is ${limit} bytes`,
    );
    this.name = "FrameTooLargeError";
    this.bytes = bytes;
    this.limit = limit;
  }
}

/**
 * One item failed: it couldn't be encoded, was too large, timed out, was poison,
 * or its handler threw. `error` (and `cause`) says why.
 *
 * @typeParam Item The type of the items.
 *
 * @example Go on after items that failed
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { type ItemFailure, listen, work } from "@distchan/distchan";
 *
 * await using server = listen<number, number>({ port: 0 });
 * const { port } = server.addr;
 * work<number, number>({ port }, (n) => {
 *   if (n < 0) throw new RangeError(`${n} has no root`);
 *   return Math.sqrt(n);
 * });
 *
 * const failures: ItemFailure<number>[] = [];
 * const roots = await Array.fromAsync(
 *   server.map([4, -1, 9], { onFailure: (failure) => failures.push(failure) }),
 * );
 * assertEquals(roots, [2, 3]);
 * assertEquals(failures.map(({ item }) => item), [-1]);
 * ```
 */
export class ItemFailure<Item = unknown> extends Error {
  /**
   * The item itself; undefined for a value that doesn't pass `resultSchema`,
   * of a worker that holds no item.
   */
  readonly item: Item;
  /** The item's id, from 0 on; -1 for such a value. */
  readonly id: number;
  /** Why it failed. */
  readonly error: Error;
  /**
   * How often it was delivered to a worker, those that handed it back unbegun
   * not counted.
   */
  readonly attempts: number;

  /**
   * Makes the error.
   *
   * @param item The item itself.
   * @param details Its id, why it failed, how often it was delivered.
   */
  constructor(
    item: Item,
    details: { id: number; error: Error; attempts: number },
  ) {
    const { id, error, attempts } = details;
    super(
      `${id < 0 ? "A value" : `Item ${id}`} failed: ${error.message}`,
      { cause: error },
    );
    this.name = "ItemFailure";
    this.item = item;
    this.id = id;
    this.error = error;
    this.attempts = attempts;
  }
}

/**
 * What a handler threw, on another machine: its name, its message, up to 10,000
 * characters of it, and its causes, up to 8, as errors of this class. A cause
 * that is no error is a text, as the message. Nothing else comes along: none of
 * an error's other properties, no `errors` of an `AggregateError`, and the stack
 * with `sendStacks` alone. What the server is to read is better returned.
 *
 * @example What a handler threw
 * ```ts
 * import { assert, assertEquals, assertRejects } from "@std/assert";
 * import { ItemFailure, listen, RemoteError, work } from "@distchan/distchan";
 *
 * await using server = listen<string, never>({ port: 0 });
 * const { port } = server.addr;
 * work<string, never>({ port }, (path) => {
 *   throw new TypeError(`${path} is no picture`);
 * });
 *
 * const { error } = await assertRejects(() => server.submit("a"), ItemFailure);
 * assert(error instanceof RemoteError);
 * assertEquals([error.name, error.message], ["TypeError", "a is no picture"]);
 * ```
 */
export class RemoteError extends Error {
  /**
   * Makes the error.
   *
   * @param name The name of the error that was thrown there.
   * @param message Its message.
   * @param options Its cause, and its stack if the worker sends stacks.
   */
  constructor(
    name: string,
    message: string,
    options: { cause?: unknown; stack?: string } = {},
  ) {
    super(
      message,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = name;
    if (options.stack !== undefined) this.stack = options.stack;
  }
}

/** One death of a worker that was executing an item. */
export interface PoisonAttempt {
  /** The worker: its name if it has one, else its address. */
  worker: string;
  /** When its connection ended, in milliseconds since the epoch. */
  at: number;
  /** How its connection ended. */
  reason: string;
}

/**
 * An item was being executed at the death of one worker after another.
 *
 * @example Say which workers an item took with it
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { PoisonItemError } from "@distchan/distchan";
 *
 * // To be called with an `ItemFailure`'s `error`.
 * function victims(error: Error): string[] {
 *   return error instanceof PoisonItemError
 *     ? error.attempts.map(({ worker }) => worker)
 *     : [];
 * }
 *
 * const at = Date.now();
 * const error = new PoisonItemError([{ worker: "w1", at, reason: "reset" }]);
 * assertEquals(victims(error), ["w1"]);
 * ```
 */
export class PoisonItemError extends Error {
  /** The deaths, oldest first. */
  readonly attempts: readonly PoisonAttempt[];

  /**
   * Makes the error.
   *
   * @param attempts The deaths, oldest first.
   */
  constructor(attempts: readonly PoisonAttempt[]) {
    super(
      `Item is poison: ${attempts.length} workers died executing it (${
        attempts.map((a) => `${a.worker}: ${a.reason}`).join("; ")
      })`,
    );
    this.name = "PoisonItemError";
    this.attempts = attempts;
  }
}

/**
 * An item took longer than its timeout.
 *
 * @example Nobody is there
 * ```ts
 * import { assert, assertRejects } from "@std/assert";
 * import { ItemFailure, ItemTimeoutError, listen } from "@distchan/distchan";
 *
 * await using server = listen<number, number>({ port: 0 });
 *
 * const { error } = await assertRejects(
 *   () => server.submit(1, { timeoutMs: 10 }),
 *   ItemFailure,
 * );
 * assert(error instanceof ItemTimeoutError);
 * ```
 */
export class ItemTimeoutError extends Error {
  /** The timeout, in milliseconds. */
  readonly timeoutMs: number;

  /**
   * Makes the error.
   *
   * @param timeoutMs The timeout, in milliseconds.
   * @param message What timed out.
   */
  constructor(timeoutMs: number, message?: string) {
    super(message ?? `Item was not settled within ${timeoutMs} ms`);
    this.name = "ItemTimeoutError";
    this.timeoutMs = timeoutMs;
  }
}

/**
 * `close()` ran into its `drainMs` and aborted.
 *
 * @typeParam Item The type of the items.
 *
 * @example What wasn't done
 * ```ts
 * import { assertEquals, assertRejects } from "@std/assert";
 * import { DrainTimeoutError, listen } from "@distchan/distchan";
 *
 * const server = listen<string, string>({ port: 0 });
 * server.send("nobody takes it");
 *
 * const error = await assertRejects(
 *   () => server.close({ drainMs: 10 }),
 *   DrainTimeoutError,
 * );
 * assertEquals(error.unfinished, [{ id: 0, item: "nobody takes it" }]);
 * ```
 */
export class DrainTimeoutError<Item = unknown> extends Error {
  /** The items that weren't settled, in the order of their ids. */
  readonly unfinished: readonly { id: number; item: Item }[];

  /**
   * Makes the error.
   *
   * @param drainMs The time that ran out, in milliseconds.
   * @param unfinished The items that weren't settled.
   * @param options `why`: what is known of it, in words for the message.
   */
  constructor(
    drainMs: number,
    unfinished: { id: number; item: Item }[],
    { why = "" }: { why?: string } = {},
  ) {
    const { length } = unfinished;
    const what = length === 0
      ? "the end was not reached"
      : `${length} ${length === 1 ? "item was" : "items were"} not settled`;
    const because = why === "" ? "" : `: ${why}`;
    super(`Cannot finish in order: ${what} within ${drainMs} ms${because}`);
    this.name = "DrainTimeoutError";
    this.unfinished = unfinished;
  }
}

/**
 * A listener would be open to other machines with neither `secret` nor TLS, or a
 * dashboard without `secret`. Set what is missing, or `insecure: true`.
 *
 * @example All addresses, without a secret
 * ```ts
 * import { assertThrows } from "@std/assert";
 * import { InsecureBindError, listen } from "@distchan/distchan";
 *
 * assertThrows(
 *   () => listen({ hostname: "0.0.0.0", port: 0 }),
 *   InsecureBindError,
 * );
 * ```
 */
export class InsecureBindError extends Error {
  /** The address. */
  readonly hostname: string;

  /**
   * Makes the error.
   *
   * @param hostname The address.
   * @param options `isDashboard`: it is that of a dashboard.
   */
  constructor(
    hostname: string,
    { isDashboard = false }: { isDashboard?: boolean } = {},
  ) {
    const [what, missing, needed] = isDashboard
      ? [
        "open a dashboard",
        "`secret` is not set, which TLS doesn't replace",
        "set it",
      ]
      : ["listen", "neither `secret` nor TLS is set", "set one of them"];
    super(
      `Cannot ${what} on ${hostname}: it is open to other machines and ${missing}; ` +
        `${needed}, or \`insecure: true\` if the network itself is trusted`,
    );
    this.name = "InsecureBindError";
    this.hostname = hostname;
  }
}

/** One issue that a schema found (Standard Schema v1). */
export interface ValidationIssue {
  /** What is wrong. */
  readonly message: string;
  /** Where in the value. */
  readonly path?:
    | ReadonlyArray<PropertyKey | { readonly key: PropertyKey }>
    | undefined;
}

/**
 * A value didn't pass its schema.
 *
 * @example Where in the value it is
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { ValidationError } from "@distchan/distchan";
 *
 * const issue = { message: "expected a number", path: ["pages", 3, "width"] };
 * const error = new ValidationError([issue]);
 * assertEquals(error.path, "$.pages[3].width");
 * ```
 */
export class ValidationError extends Error {
  /** What the schema found. */
  readonly issues: readonly ValidationIssue[];
  /** Where in the value the first issue is, as in `$.jobs[3].fn`. */
  readonly path: string;

  /**
   * Makes the error.
   *
   * @param issues What the schema found.
   * @param options The error behind it.
   */
  constructor(issues: readonly ValidationIssue[], options?: ErrorOptions) {
    let path = "$";
    for (const part of issues[0]?.path ?? []) {
      const key = typeof part === "object" ? part.key : part;
      path += typeof key === "number" ? `[${key}]` : `.${String(key)}`;
    }
    super(
      `Value is not valid at ${path}: ${issues[0]?.message ?? "unknown issue"}`,
      options,
    );
    this.name = "ValidationError";
    this.issues = issues;
    this.path = path;
  }
}
