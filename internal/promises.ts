/**
 * Promises that may be ignored, and waiting that can be given up.
 *
 * @module
 */

import { timerMs } from "./timer.ts";

/** A promise with its ends; ignoring its rejection is allowed. */
export function deferred<T>(): PromiseWithResolvers<T> {
  const deferred = Promise.withResolvers<T>();
  deferred.promise.catch(() => {});
  return deferred;
}

/** A rejected promise; ignoring it is allowed. */
export function rejected(error: unknown): Promise<never> {
  const promise = Promise.reject(error);
  promise.catch(() => {});
  return promise;
}

/** Waits for a promise or a signal; what comes too late is disposed of. */
export async function orAbort<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
  dispose: (value: T) => void,
  onAbort: () => unknown = () => {},
): Promise<T> {
  if (signal === undefined) return await promise;
  const aborted = deferred<never>();
  const listener = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", listener);
  if (signal.aborted) listener(); // since the last look at it
  try {
    return await Promise.race([promise, aborted.promise]);
  } catch (error) {
    if (signal.aborted) {
      promise.then(dispose, () => {});
      await onAbort();
    }
    throw error;
  } finally {
    signal.removeEventListener("abort", listener);
  }
}

/**
 * Waits for a promise, and no longer than a time. It rejects as the promise does.
 *
 * @param ms The time, in ms; Infinity: any.
 */
export async function settledWithin(
  promise: Promise<unknown>,
  ms: number,
): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => {
    if (ms !== Infinity) timer = setTimeout(resolve, timerMs(ms));
  });
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
