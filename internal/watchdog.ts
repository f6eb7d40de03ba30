/**
 * One timer that looks after all deadlines of an end, however many connections
 * it has. After a pause of this process it lets what peers sent be read first.
 *
 * @module
 */

/** A tick that comes so much later than it should tells of a pause, in ms. */
const LATE_MS = 100;

/** What is looked after. */
export interface Watched {
  /** This process paused for so long: nobody else is to blame for that time. */
  excuse(lateMs: number): void;
  /** Time to look at the deadlines. */
  check(now: number): void;
}

/** Calls `check` from time to time. */
export class Watchdog {
  readonly #tickMs: number;
  readonly #watched: Watched;
  #interval: ReturnType<typeof setInterval> | undefined;
  #late: ReturnType<typeof setTimeout> | undefined;
  #tickedAt = 0;

  /**
   * @param tickMs The time between two looks, in ms.
   * @param watched What is looked after.
   */
  constructor(tickMs: number, watched: Watched) {
    this.#tickMs = tickMs;
    this.#watched = watched;
  }

  /** Starts, if it doesn't run already. */
  start(): void {
    if (this.#interval !== undefined) return;
    this.#tickedAt = performance.now();
    this.#interval = setInterval(() => this.#tick(), this.#tickMs);
  }

  /** Stops; nothing is called any more. */
  stop(): void {
    clearInterval(this.#interval);
    clearTimeout(this.#late);
    this.#interval = undefined;
  }

  #tick(): void {
    const now = performance.now();
    const lateMs = now - this.#tickedAt - this.#tickMs;
    this.#tickedAt = now;
    if (lateMs <= LATE_MS) return this.#watched.check(now);
    clearTimeout(this.#late);
    this.#late = setTimeout(() => {
      this.#watched.excuse(lateMs);
      this.#watched.check(performance.now());
    }, 0);
  }
}
