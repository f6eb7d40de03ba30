/**
 * How the encoder says where a value can't be encoded. The path is built while
 * the failure travels up, so values that can be encoded pay nothing for it.
 *
 * @module
 */

import { EncodeError, FrameTooLargeError } from "./errors.ts";
import { reasonOf } from "./thrown.ts";

/** What is thrown inside the encoder, until its outermost call. */
export class EncodeFailure {
  /** What is wrong, as a predicate: "is a function". */
  readonly reason: string;
  /** What was thrown, if it wasn't the encoder that found the problem. */
  readonly cause: unknown;
  /** Whether it is the depth limit that was hit. */
  readonly tooDeep: boolean;
  /** The steps from the value to the failure, innermost first. */
  readonly steps: string[] = [];
  /** The containers that these steps lead out of, innermost first. */
  readonly holders: unknown[] = [];

  constructor(
    reason: string,
    options: { cause?: unknown; tooDeep?: boolean } = {},
  ) {
    this.reason = reason;
    this.cause = options.cause;
    this.tooDeep = options.tooDeep ?? false;
  }

  /** Adds the step that led from `holder` to where the failure came from. */
  static at(error: unknown, holder: unknown, step: string): EncodeFailure {
    const failure = EncodeFailure.#of(error);
    failure.steps.push(step);
    failure.holders.push(holder);
    return failure;
  }

  /** The error for the caller. */
  static toError(error: unknown): EncodeError | FrameTooLargeError {
    const failure = EncodeFailure.#of(error);
    // It isn't where it got too long that matters, unless it leads back to
    // itself: then no limit is large enough.
    return failure.cause instanceof FrameTooLargeError &&
        new Set(failure.holders).size === failure.holders.length
      ? failure.cause
      : failure.#toError();
  }

  static #of(error: unknown): EncodeFailure {
    return error instanceof EncodeFailure
      ? error
      : new EncodeFailure(`can't be encoded: ${reasonOf(error)}`, {
        cause: error,
      });
  }

  #toError(): EncodeError {
    const steps = this.steps.toReversed();
    let { reason, cause } = this;
    if (this.tooDeep || cause instanceof FrameTooLargeError) {
      // Endless depth is a cycle: name where it closes rather than a long path.
      const first = new Map<unknown, number>();
      for (const [depth, holder] of this.holders.toReversed().entries()) {
        const earlier = first.get(holder);
        if (earlier !== undefined) {
          reason = `is a cycle: it leads back to $${
            steps.slice(0, earlier).join("")
          }`;
          steps.length = depth;
          cause = undefined;
          break;
        }
        first.set(holder, depth);
      }
    }
    const path = "$" + steps.join("");
    const message = `Cannot encode value: ${path} ${reason}`;
    return cause === undefined
      ? new EncodeError(message, { path })
      : new EncodeError(message, { path, cause });
  }
}

/** The error of a value that is sent while another is half-written. */
export function whileBusy(): Error {
  return EncodeFailure.toError(
    new EncodeFailure("can't be encoded while another value is being encoded"),
  );
}

/** The step to a property, as it is written in JavaScript. */
export function propertyStep(key: string): string {
  return /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(key)
    ? `.${key}`
    : `[${JSON.stringify(key)}]`;
}

/** The step to a value of a Map: by its key where that can be written down. */
export function entryStep(key: unknown, index: number): string {
  switch (typeof key) {
    case "string":
      return `.get(${JSON.stringify(key)})`;
    case "bigint":
      return `.get(${key}n)`;
    case "number":
    case "boolean":
    case "undefined":
      return `.get(${key})`;
    default:
      return key === null ? ".get(null)" : `.values()[${index}]`;
  }
}

/** What a value is, for a message: "is a function", "is an instance of Job". */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "function":
      return "is a function";
    case "symbol":
      return "is a symbol";
    default: {
      let name: unknown;
      try {
        name = (value as object).constructor?.name;
      } catch {
        // A getter or a Proxy; it has no name then.
      }
      return typeof name === "string" && name !== "" && name !== "Object"
        ? `is an instance of ${name}`
        : "is an object with a prototype of its own";
    }
  }
}
