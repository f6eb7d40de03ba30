/**
 * Stand-in for the parts of `@std/assert` that the tests use, for places where
 * JSR can't be reached. What is equal here is equal there, and the other way
 * round (`tests/std_tool_test.ts` runs both over one table); the text of a
 * failure is that of `node:assert`.
 *
 * @module
 */

import { AssertionError as NodeAssertionError } from "node:assert";
import { inspect } from "node:util";

// deno-lint-ignore no-explicit-any
type Class<T> = abstract new (...args: any[]) => T;

/** What every failed assertion throws. */
export class AssertionError extends Error {
  /**
   * Makes an error.
   *
   * @param message What was expected, and what came.
   * @param options The error's cause.
   */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "AssertionError";
  }
}

/** Throws. */
export function fail(msg?: string): never {
  throw new AssertionError(`Failed assertion${suffix(msg)}`);
}

/** Throws: for code that is never reached. */
export function unreachable(msg?: string): never {
  throw new AssertionError(`Unreachable${suffix(msg)}`);
}

/** Asserts that `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Asserts that `expr` is falsy. */
export function assertFalse(
  expr: unknown,
  msg = "",
): asserts expr is false | 0 | 0n | "" | null | undefined {
  if (expr) throw new AssertionError(msg);
}

/** Asserts that `actual` is neither null nor undefined. */
export function assertExists<T>(
  actual: T,
  msg?: string,
): asserts actual is NonNullable<T> {
  check(actual != null, `${actual} to be neither null nor undefined`, msg);
}

/** Asserts deep equality, where 0 equals -0 and NaN equals NaN. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!equal(actual, expected)) throw difference(actual, expected, msg);
}

/** Asserts that {@linkcode assertEquals} fails. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  check(
    !equal(actual, expected),
    `${inspect(actual)} not to be ${inspect(expected)}`,
    msg,
  );
}

/** Asserts identity as `Object.is()` has it. */
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  msg?: string,
): asserts actual is T {
  if (!Object.is(actual, expected)) throw difference(actual, expected, msg);
}

/** Asserts that `actual` is an instance of `expectedType`. */
export function assertInstanceOf<
  // deno-lint-ignore no-explicit-any
  T extends abstract new (...args: any[]) => any,
>(
  actual: unknown,
  expectedType: T,
  msg?: string,
): asserts actual is InstanceType<T> {
  check(
    actual instanceof expectedType,
    `${inspect(actual)} to be an instance of ${expectedType.name}`,
    msg,
  );
}

/** Asserts that two numbers differ by `tolerance` at most. */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance: number = isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7,
  msg?: string,
): void {
  check(
    Object.is(actual, expected) || Math.abs(expected - actual) <= tolerance,
    `${actual} to be within ${tolerance} of ${expected}`,
    msg,
  );
}

/** Asserts `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual > expected)) throw order(actual, ">", expected, msg);
}

/** Asserts `actual >= expected`. */
export function assertGreaterOrEqual<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  if (!(actual >= expected)) throw order(actual, ">=", expected, msg);
}

/** Asserts `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual < expected)) throw order(actual, "<", expected, msg);
}

/** Asserts `actual <= expected`. */
export function assertLessOrEqual<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  if (!(actual <= expected)) throw order(actual, "<=", expected, msg);
}

/** Asserts that `actual` contains `expected`. */
export function assertStringIncludes(
  actual: string,
  expected: string,
  msg?: string,
): void {
  check(
    actual.includes(expected),
    `${inspect(actual)} to include ${inspect(expected)}`,
    msg,
  );
}

/** Asserts that `actual` matches `expected`. */
export function assertMatch(
  actual: string,
  expected: RegExp,
  msg?: string,
): void {
  check(expected.test(actual), `${inspect(actual)} to match ${expected}`, msg);
}

/** Asserts that each element of `expected` equals one of `actual`. */
export function assertArrayIncludes<T>(
  actual: ArrayLike<T> & object,
  expected: ArrayLike<T> & object,
  msg?: string,
): void {
  const all = Array.from(actual);
  const missing = Array.from(expected)
    .filter((item) => !all.some((other) => equal(item, other)));
  check(
    missing.length === 0,
    `${inspect(actual)} to include ${inspect(missing)}`,
    msg,
  );
}

/** Asserts that all that is in `expected` is in `actual`, which may have more. */
export function assertObjectMatch(
  // deno-lint-ignore no-explicit-any
  actual: Record<PropertyKey, any>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  if (!contains(actual, expected)) throw difference(actual, expected, msg);
}

/** Asserts that `fn` throws. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/**
 * Asserts that `fn` throws an instance of `ErrorClass`, `msgIncludes` being a
 * part of its message.
 */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: Class<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows(
  fn: () => unknown,
  ...expected: [(Class<Error> | string)?, string?, string?]
): unknown {
  try {
    fn();
  } catch (error) {
    return expectedError(error, expected);
  }
  throw new AssertionError(
    `Expected function to throw${suffix(messageOf(expected))}`,
  );
}

/** Asserts that the promise of `fn` rejects. */
export function assertRejects(
  fn: () => PromiseLike<unknown>,
  msg?: string,
): Promise<unknown>;
/**
 * Asserts that the promise of `fn` rejects with an instance of `ErrorClass`,
 * `msgIncludes` being a part of its message.
 */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: Class<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  ...expected: [(Class<Error> | string)?, string?, string?]
): Promise<unknown> {
  let promise: PromiseLike<unknown> | undefined;
  try {
    promise = fn();
  } catch {
    // A throw is no rejection; told below, as a missing promise is.
  }
  if (typeof promise?.then !== "function") {
    throw new AssertionError(
      `Function throws when expected to reject${suffix(messageOf(expected))}`,
    );
  }
  try {
    await promise;
  } catch (error) {
    return expectedError(error, expected);
  }
  throw new AssertionError(
    `Expected function to reject${suffix(messageOf(expected))}`,
  );
}

function suffix(msg: string | undefined): string {
  return msg ? `: ${msg}` : ".";
}

function check(condition: boolean, expected: string, msg?: string): void {
  if (condition) return;
  throw new AssertionError(`Expected ${expected}${suffix(msg)}`);
}

function order(
  actual: unknown,
  operator: string,
  expected: unknown,
  msg: string | undefined,
): AssertionError {
  return new AssertionError(
    msg ?? `Expect ${inspect(actual)} ${operator} ${inspect(expected)}`,
  );
}

function difference(
  actual: unknown,
  expected: unknown,
  msg: string | undefined,
): AssertionError {
  const { message } = new NodeAssertionError({
    actual,
    expected,
    operator: "deepStrictEqual",
  });
  return new AssertionError(`Values are not equal${suffix(msg)}\n${message}`);
}

function messageOf(
  expected: [(Class<Error> | string)?, string?, string?],
): string | undefined {
  return typeof expected[0] === "string" ? expected[0] : expected[2];
}

function expectedError(
  error: unknown,
  expected: [(Class<Error> | string)?, string?, string?],
): unknown {
  const [ErrorClass, includes] = expected;
  if (typeof ErrorClass !== "function") return error;
  const msg = messageOf(expected);
  assertInstanceOf(error, ErrorClass, msg);
  if (includes) assertStringIncludes(error.message, includes, msg);
  return error;
}

function equal(
  a: unknown,
  b: unknown,
  seen: Map<object, object> = new Map(),
): boolean {
  if (a === b || Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return false;
  if (prototypeOf(a) !== prototypeOf(b)) return false;
  if (a instanceof Date) return Object.is(+a, +(b as Date));
  if (a instanceof RegExp || a instanceof URL || a instanceof URLSearchParams) {
    return String(a) === String(b);
  }
  if (a instanceof ArrayBuffer) {
    return equalBytes(new Uint8Array(a), new Uint8Array(b as ArrayBuffer));
  }
  if (ArrayBuffer.isView(a) && !(a instanceof DataView)) {
    return equalBytes(a as Uint8Array, b as Uint8Array);
  }
  // Already being compared, further up; what failed is not remembered.
  if (seen.get(a) === b) return true;
  seen.set(a, b);
  const result = equalParts(a, b, seen);
  if (!result) seen.delete(a);
  return result;
}

function equalParts(a: object, b: object, seen: Map<object, object>): boolean {
  if (Object.keys(a).length !== Object.keys(b).length) return false;
  if (a instanceof Map || a instanceof Set) {
    return equalEntries(
      [...a.entries()],
      [...(b as Map<unknown, unknown> | Set<unknown>).entries()],
      seen,
    );
  }
  return keysOf(a).union(keysOf(b)).values().every((key) =>
    key in a && key in b &&
    equal(Reflect.get(a, key), Reflect.get(b, key), seen)
  );
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length &&
    a.every((item, i) => item === b[i] || Object.is(item, b[i]));
}

function equalEntries(
  a: [unknown, unknown][],
  b: [unknown, unknown][],
  seen: Map<object, object>,
): boolean {
  return a.length === b.length && a.every(([key, value]) => {
    const at = b.findIndex(([otherKey, otherValue]) =>
      equal(key, otherKey, seen) && equal(value, otherValue, seen)
    );
    if (at >= 0) b.splice(at, 1);
    return at >= 0;
  });
}

/** The prototype; an object without one passes for a plain object. */
function prototypeOf(value: object): object {
  return Object.getPrototypeOf(value) ?? Object.prototype;
}

/** Own keys, and those of a class instance's prototypes: getters count too. */
function keysOf(value: object): Set<PropertyKey> {
  const keys = new Set<PropertyKey>();
  for (
    let at: object | null = value;
    at && at !== Object.prototype && at !== Array.prototype;
    at = Object.getPrototypeOf(at)
  ) {
    for (const key of Reflect.ownKeys(at)) keys.add(key);
  }
  return keys;
}

function contains(actual: unknown, expected: unknown): boolean {
  if (Array.isArray(actual) && Array.isArray(expected)) {
    return expected.every((item, i) =>
      i < actual.length && contains(actual[i], item)
    );
  }
  if (!isPlain(expected) || typeof actual !== "object" || !actual) {
    return equal(actual, expected);
  }
  return Reflect.ownKeys(expected).every((key) =>
    key in actual && contains(Reflect.get(actual, key), expected[key])
  );
}

function isPlain(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === "object" && value !== null &&
    prototypeOf(value) === Object.prototype;
}
