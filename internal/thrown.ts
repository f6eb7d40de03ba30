/**
 * What was thrown, made an `Error`, and carried between threads: structured
 * clones of errors lose their names, and not everything that is thrown can be
 * cloned.
 *
 * @module
 */

/** Longest texts that are carried, in UTF-16 units. */
const MAX_TEXT = 20_000;
/** How many causes are carried. */
const MAX_CAUSES = 8;

/** An error as plain data. */
export interface Thrown {
  /** Its name. */
  readonly name: string;
  /** Its message. */
  readonly message: string;
  /** Its stack, if it has one. */
  readonly stack: string | undefined;
  /** Its cause, if it has one. */
  readonly cause: Thrown | undefined;
}

/** Whatever was thrown, as an error whose name and message are text. */
export function toError(thrown: unknown): Error {
  let text: string;
  try {
    if (thrown instanceof Error) {
      const { name, message } = thrown;
      if (typeof name === "string" && typeof message === "string") {
        return thrown;
      }
    }
    // Stacks tell more than the other end needs to know.
    text = typeof thrown === "string"
      ? thrown
      : Deno.inspect(thrown).replaceAll(/\n\s+at .*/g, "");
  } catch {
    text = "something that can't be shown was thrown";
  }
  return new Error(text);
}

/** Why, in words: the message of whatever was thrown. It throws nothing itself. */
export function reasonOf(thrown: unknown): string {
  return toError(thrown).message;
}

/**
 * Why, and why that: the messages of the causes behind it, in one text.
 * Empty without causes. An error of `fetch()` says nothing by itself.
 */
export function causesOf(thrown: unknown): string {
  const { message, cause } = toThrown(thrown, { hasStack: false });
  const texts = [message];
  for (let at = cause; at !== undefined; at = at.cause) {
    const text = at.message === "" ? at.name : at.message;
    // An error that wraps another often repeats it.
    if (!texts.at(-1)!.includes(text)) texts.push(text);
  }
  return texts.slice(1).join(": ");
}

/** Options of {@linkcode toThrown}. */
export interface ToThrownOptions {
  /** How many causes are carried. @default {8} */
  depth?: number;
  /**
   * Whether stacks are, too: V8 makes one when it is asked for it, which takes
   * longer than many an item does.
   *
   * @default {true}
   */
  hasStack?: boolean;
}

/** Turns what was thrown into plain data. */
export function toThrown(
  thrown: unknown,
  { depth = MAX_CAUSES, hasStack = true }: ToThrownOptions = {},
): Thrown {
  const error = toError(thrown);
  let name: unknown, message: unknown, stack: unknown, cause: unknown;
  try {
    // Once each: a getter of its own may say something else the next time.
    ({ message, name } = error);
    if (hasStack) ({ stack } = error);
    ({ cause } = error);
  } catch {
    // It goes without.
  }
  return {
    name: typeof name === "string" ? clip(name) : "Error",
    message: typeof message === "string" ? clip(message) : "",
    stack: typeof stack === "string" ? clip(stack) : undefined,
    cause: cause === undefined || depth === 0
      ? undefined
      : toThrown(cause, { depth: depth - 1, hasStack }),
  };
}

/** Turns plain data back into an error; of its class, TypeError is kept. */
export function fromThrown(thrown: Thrown): Error {
  const { name, message, stack, cause } = thrown;
  const error = new (name === "TypeError" ? TypeError : Error)(
    message,
    cause === undefined ? undefined : { cause: fromThrown(cause) },
  );
  for (const [key, value] of Object.entries({ name, stack })) {
    Object.defineProperty(error, key, {
      value,
      writable: true,
      enumerable: false,
      configurable: true,
    });
  }
  return error;
}

function clip(text: string): string {
  return text.length > MAX_TEXT ? text.slice(0, MAX_TEXT) : text;
}
