/**
 * What `setTimeout` makes of long times: past 2^31 - 1 ms it fires at once.
 *
 * @module
 */

/** The longest time that a timer can run, in ms: almost 25 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A time for `setTimeout`: itself, or the longest that it can wait. */
export function timerMs(ms: number): number {
  return Math.min(ms, MAX_TIMER_MS);
}
