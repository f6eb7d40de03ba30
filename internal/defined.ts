/**
 * Options without those that aren't set.
 *
 * @module
 */

/** Only what is set: `exactOptionalPropertyTypes` takes it literally. */
export function defined<T extends object>(
  options: { [K in keyof T]: T[K] | undefined },
): T {
  const set = Object.entries(options).filter(([, value]) =>
    value !== undefined
  );
  return Object.fromEntries(set) as T;
}
