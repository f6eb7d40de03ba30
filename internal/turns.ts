/**
 * Turns of the event loop between the slices of a loop that goes on for long.
 *
 * Those of `setImmediate()` are quick, but while one follows the other Deno
 * 2.9.6 looks at sockets at every 61st only: where slices are long, peers are
 * neither heard nor answered. So from time to time it is a timer, for which the
 * event loop sleeps.
 *
 * @module
 */

import { setImmediate } from "node:timers";

/** Sockets are looked at after so long, and the slice that goes on then, in ms. */
const QUICK_MS = 50;

/** The turns of one loop. */
export class Turns {
  #sleptAt = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #call: (() => void) | null = null;

  /** Calls a function in another turn. One waits at a time. */
  next(call: () => void): void {
    if (performance.now() - this.#sleptAt < QUICK_MS) {
      setImmediate(call);
      return;
    }
    this.#call = call;
    // What this turn has still to do comes first, or the timer would be due at
    // once and nothing would sleep.
    setImmediate(() => {
      if (this.#call !== call) return;
      this.#timer = setTimeout(() => this.hurry(), 0);
    });
  }

  /** Who waits for a timer is called now. */
  hurry(): void {
    const call = this.#call;
    if (call === null) return;
    this.#call = null;
    clearTimeout(this.#timer);
    this.#sleptAt = performance.now();
    call();
  }
}
