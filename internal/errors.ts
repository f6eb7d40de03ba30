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
 * import { assertEquals } from "@std/assert";
 * import { cbor, EncodeError } from "@distchan/distchan/codec";
 *
 * try {
 *   cbor().encode({ jobs: [{ fn() {} }] });
 * } catch (error) {
 *   assertEquals((error as EncodeError).path, "$.jobs[0].fn");
 * }
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
 * import { assertEquals } from "@std/assert";
 * import { cbor, DecodeError } from "@distchan/distchan/codec";
 *
 * try {
 *   cbor().decode(new Uint8Array([0x19, 0x01]));
 * } catch (error) {
 *   assertEquals(error instanceof DecodeError, true);
 * }
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

/** A peer broke the rules of PROTOCOL.md. Its connection is dropped. */
export class ProtocolError extends Error {
  /**
   * Makes the error.
   *
   * @param message What was expected and what came.
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
 */
export class HandshakeError extends Error {
  /** Which part failed. */
  readonly code: HandshakeErrorCode;

  /**
   * Makes the error.
   *
   * @param code Which part failed.
   * @param message Both sides' values, where they differ.
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
 */
export class ConnectionLostError extends Error {
  /**
   * The code of the peer's goodbye (PROTOCOL.md section 7), or `"eof"`,
   * `"reset"`, `"timeout"` or `"aborted"` where the peer said none.
   */
  readonly code: string;
  /** What is known of why. */
  readonly reason: string;

  /**
   * Makes the error.
   *
   * @param code How the connection ended.
   * @param reason What is known of why.
   */
  constructor(code: string, reason: string, options?: ErrorOptions) {
    super(`Connection lost (${code}): ${reason}`, options);
    this.name = "ConnectionLostError";
    this.code = code;
    this.reason = reason;
  }
}

/** A value is larger than the largest frame that the peer receives. */
export class FrameTooLargeError extends RangeError {
  /** The size of the frame, in bytes. */
  readonly bytes: number;
  /** The limit, in bytes. */
  readonly limit: number;

  /**
   * Makes the error.
   *
   * @param bytes The size of the frame, in bytes.
   * @param limit The limit, in bytes.
   */
  constructor(bytes: number, limit: number) {
    super(
      `Cannot send value: its frame is ${bytes} bytes, limit is ${limit} bytes`,
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
 */
export class ItemFailure<Item = unknown> extends Error {
  /** The item itself. */
  readonly item: Item;
  /** The item's id. */
  readonly id: number;
  /** Why it failed. */
  readonly error: Error;
  /** How often it was delivered to a worker. */
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
    super(`Item ${id} failed: ${error.message}`, { cause: error });
    this.name = "ItemFailure";
    this.item = item;
    this.id = id;
    this.error = error;
    this.attempts = attempts;
  }
}

/** What a handler threw, on another machine. */
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

/** An item was being executed at the death of one worker after another. */
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

/** An item took longer than its timeout. */
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
 */
export class DrainTimeoutError<Item = unknown> extends Error {
  /** The items that weren't settled, in the order of their ids. */
  readonly unfinished: readonly { id: number; item: Item }[];

  /**
   * Makes the error.
   *
   * @param drainMs The time that ran out, in milliseconds.
   * @param unfinished The items that weren't settled.
   */
  constructor(drainMs: number, unfinished: { id: number; item: Item }[]) {
    super(
      `Cannot finish in order: ${unfinished.length} items were not settled within ${drainMs} ms`,
    );
    this.name = "DrainTimeoutError";
    this.unfinished = unfinished;
  }
}

/**
 * A listener would be open to other machines with neither `secret` nor TLS. Set
 * one of them, or `insecure: true`.
 */
export class InsecureBindError extends Error {
  /** The address. */
  readonly hostname: string;

  /**
   * Makes the error.
   *
   * @param hostname The address.
   */
  constructor(hostname: string) {
    super(
      `Cannot listen on ${hostname}: it is open to other machines and neither \`secret\` nor TLS is set; ` +
        "set one of them, or `insecure: true` if the network itself is trusted",
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

/** A value didn't pass its schema. */
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
