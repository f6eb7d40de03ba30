/**
 * Timers at their ends: `setTimeout` fires at once past 2^31 - 1 ms, and some
 * wait for no time at all.
 *
 * @module
 */

import { clearTimeout, setTimeout } from "node:timers";

/** The longest time that a timer can run, in ms: almost 25 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A time for `setTimeout`: itself, or the longest that it can wait. */
export function timerMs(ms: number): number {
  return Math.min(ms, MAX_TIMER_MS);
}

/**
 * Calls a function after a turn of the event loop in which that may sleep. It
 * isn't a matter of time, so it is none of the global timers: where a test fakes
 * those they stand still.
 *
 * @returns Forgets it.
 */
export function afterTurn(call: () => void): () => void {
  const timer = setTimeout(call, 0);
  return () => clearTimeout(timer);
}
