/** Yields something that can't be encoded, and tells how that ended. */
export default async function* yieldBad(): AsyncGenerator<unknown> {
  await Promise.resolve();
  yield () => {};
}
