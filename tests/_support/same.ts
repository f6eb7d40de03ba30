import { AssertionError } from "@std/assert";

/**
 * Asserts that two values are the same in every respect that a codec has to
 * keep: also `-0`, prototypes, the order of keys, own properties named
 * `__proto__`, flags, buffers.
 */
export function assertSame(actual: unknown, expected: unknown): void {
  const where = difference(actual, expected, "$");
  if (where !== undefined) {
    throw new AssertionError(
      `Values differ at ${where}: ${Deno.inspect(actual)} is not ${
        Deno.inspect(expected)
      }`,
    );
  }
}

/** Where two values differ, or undefined if they don't. */
function difference(
  a: unknown,
  b: unknown,
  path: string,
): string | undefined {
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) {
    return Object.is(a, b) ? undefined : path;
  }
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) {
    return `${path} (prototype)`;
  }
  if (a instanceof Map) {
    return difference(
      [...a].flat(1),
      [...b as typeof a].flat(1),
      `${path}.entries()`,
    );
  }
  if (a instanceof Set) {
    return difference([...a], [...b as typeof a], `${path}.values()`);
  }
  if (a instanceof Date) {
    return difference(a.getTime(), (b as Date).getTime(), `${path}.getTime()`);
  }
  if (a instanceof RegExp || a instanceof URL) {
    return String(a) === String(b) ? undefined : path;
  }
  if (a instanceof ArrayBuffer) {
    return difference(
      new Uint8Array(a),
      new Uint8Array(b as ArrayBuffer),
      path,
    );
  }
  if (ArrayBuffer.isView(a)) {
    return viewDifference(a, b as ArrayBufferView, path);
  }
  const isError = a instanceof Error;
  if (isError && a.message !== (b as Error).message) return `${path}.message`;
  const keys = (value: object) =>
    (isError ? Object.getOwnPropertyNames(value).sort() : Object.keys(value))
      .filter((key) => !isError || (key !== "stack" && key !== "message"));
  const ours = keys(a);
  const theirs = keys(b);
  if (ours.join("\0") !== theirs.join("\0")) return `${path} (keys)`;
  if (Array.isArray(a) && a.length !== (b as unknown[]).length) {
    return `${path}.length`;
  }
  for (const key of ours) {
    const where = difference(
      Object.getOwnPropertyDescriptor(a, key)!.value,
      Object.getOwnPropertyDescriptor(b, key)!.value,
      `${path}[${JSON.stringify(key)}]`,
    );
    if (where !== undefined) return where;
  }
  return undefined;
}

function viewDifference(
  a: ArrayBufferView,
  b: ArrayBufferView,
  path: string,
): string | undefined {
  if (a.byteLength !== b.byteLength) return `${path}.byteLength`;
  const ours = new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  const theirs = new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
  const index = ours.findIndex((byte, i) => byte !== theirs[i]);
  return index < 0 ? undefined : `${path} (byte ${index})`;
}
