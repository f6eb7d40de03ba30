/**
 * Validation by any schema that speaks Standard Schema v1, such as those of
 * zod, valibot and arktype. Its types are structural: there is no dependency.
 *
 * @module
 */

import { ValidationError, type ValidationIssue } from "./errors.ts";
import { reasonOf } from "./thrown.ts";

/**
 * A schema, as <https://standardschema.dev> has it.
 *
 * @typeParam Input What it takes.
 * @typeParam Output What comes out of it.
 */
export interface StandardSchemaV1<Input = unknown, Output = Input> {
  /** What there is of the standard. */
  readonly "~standard": {
    /** The version of the standard. */
    readonly version: 1;
    /** The library. */
    readonly vendor: string;
    /** Checks a value. */
    readonly validate: (
      value: unknown,
    ) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    /** Not there at run time: tells the types. */
    readonly types?:
      | { readonly input: Input; readonly output: Output }
      | undefined;
  };
}

/** What a schema says of a value. */
export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: ReadonlyArray<ValidationIssue> };

/** A value that passed, or why it didn't. */
export type Checked =
  | { readonly value: unknown; readonly error: null }
  | { readonly error: Error };

/** Checks a value. The promise, if it is one, never rejects. */
export function runSchema(
  schema: StandardSchemaV1,
  value: unknown,
): Checked | Promise<Checked> {
  try {
    const result = schema["~standard"].validate(value);
    return isThenable(result)
      ? Promise.resolve(result).then(check).catch(broken)
      : check(result);
  } catch (error) {
    return broken(error);
  }
}

/**
 * Checks values in order: what becomes of one is told after what became of
 * those before it. A schema that needs no promise makes none here.
 */
export class SchemaQueue {
  /** Values that are being checked. */
  pending = 0;
  readonly #schema: StandardSchemaV1;
  /** Resolves when all that are being checked now are told. */
  #last: Promise<void> = Promise.resolve();

  /** @param schema The schema. */
  constructor(schema: StandardSchemaV1) {
    this.#schema = schema;
  }

  /**
   * Checks a value.
   *
   * @param value The value.
   * @param tell Told what became of it, at once if that is known.
   * @returns Resolves when it is told; null: it was told at once.
   */
  check(
    value: unknown,
    tell: (checked: Checked) => void,
  ): Promise<void> | null {
    const checked = runSchema(this.#schema, value);
    if (this.pending === 0 && !(checked instanceof Promise)) {
      tell(checked);
      return null;
    }
    this.pending++;
    return this.#last = this.#later(checked, this.#last, tell);
  }

  async #later(
    checked: Checked | Promise<Checked>,
    before: Promise<void>,
    tell: (checked: Checked) => void,
  ): Promise<void> {
    const outcome = await checked;
    await before;
    this.pending--;
    tell(outcome);
  }
}

/** An item as far as {@linkcode ItemSchema} is concerned. */
interface Checkable {
  /** The caller's value. */
  readonly item: unknown;
}

/**
 * A server's schema for items. Each is checked once, when it is taken; what
 * came out of the schema is what is sent, however often.
 */
export class ItemSchema<Entry extends Checkable> {
  readonly #schema: StandardSchemaV1;
  readonly #outputs = new WeakMap<Entry, { value: unknown }>();

  /** @param schema The schema. */
  constructor(schema: StandardSchemaV1) {
    this.#schema = schema;
  }

  /**
   * Begins to check an item.
   *
   * @param entry The item.
   * @param tell Told later what became of it, if that isn't known at once.
   * @returns Why it doesn't pass, if that is known at once.
   */
  begin(
    entry: Entry,
    tell: (error: Error | null) => void,
  ): Error | null {
    const checked = runSchema(this.#schema, entry.item);
    if (!(checked instanceof Promise)) return this.#note(entry, checked);
    checked.then((checked) => tell(this.#note(entry, checked)));
    return null;
  }

  /** Whether an item may be sent. */
  isReady(entry: Entry): boolean {
    return this.#outputs.has(entry);
  }

  /** What is sent for an item. */
  output(entry: Entry): unknown {
    return this.#outputs.get(entry)!.value;
  }

  #note(entry: Entry, checked: Checked): Error | null {
    if (checked.error !== null) return checked.error;
    this.#outputs.set(entry, checked);
    return null;
  }
}

function check(result: SchemaResult<unknown>): Checked {
  if (result.issues) return { error: new ValidationError(result.issues) };
  // A boolean, for one: it must not make an item undefined.
  if (!("value" in Object(result))) {
    throw new TypeError("it returned neither a value nor issues");
  }
  return { value: result.value, error: null };
}

function broken(cause: unknown): Checked {
  const reason = reasonOf(cause);
  return {
    error: new ValidationError([{ message: `the schema failed: ${reason}` }], {
      cause,
    }),
  };
}

function isThenable(
  value: unknown,
): value is PromiseLike<SchemaResult<unknown>> {
  return typeof (value as { then?: unknown })?.then === "function";
}
