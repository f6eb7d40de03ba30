/**
 * Turns of the event loop for whoever keeps it busy for long: handlers that are
 * called one after another, a source, a reader of what is here already. Each is
 * quick, perhaps, but together they would leave peers unheard and unanswered.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { afterTurn } from "./timer.ts";

/** A loop goes on for so long without a turn, in ms. */
const SLICE_MS = 8;
/** Steps that take less, from one look at the clock to the next, are quick. */
const QUICK_MS = 0.2;
/**
 * After so long it is a timer's turn, in ms, which costs 2 ms: those of
 * `setImmediate()` cost 1 µs, but while one follows the other Deno 2.9.6 looks
 * at sockets only at every 61st. For a timer its event loop sleeps, and looks
 * at them.
 */
const AWAKE_MS = 200;

/** A turn to come. */
interface Mark {
  isPast: boolean;
}

/** The turns of one loop. */
export class Turns {
  readonly #maxSteps: number;
  /** After so many steps the clock is looked at. */
  #glance = 1;
  /** Steps since then. */
  #steps = 0;
  #lookedAt = performance.now();
  /** The end of the slice, in ms. */
  #until = this.#lookedAt + SLICE_MS;
  #sleptAt = this.#lookedAt;
  /** Since when there was perhaps no turn; Infinity: that isn't known. */
  #resumedAt = Infinity;
  /** What tells whether the event loop has had a turn; null: nothing does. */
  #mark: Mark | null = null;
  #forget: (() => void) | null = null;
  #call: (() => void) | null = null;

  /**
   * @param maxSteps The clock is looked at after so many quick steps. When
   * steps turn slow, so many go on without a turn.
   */
  constructor(maxSteps: number) {
    this.#maxSteps = maxSteps;
  }

  /** A slice begins: the event loop has had a turn. */
  begin(): void {
    this.#mark = null;
    this.#steps = 0;
    this.#lookedAt = performance.now();
    this.#until = this.#lookedAt + SLICE_MS;
  }

  /**
   * Steps follow that may not wait. If they do, a turn more costs little beside
   * that; how long they kept the event loop behind it nobody tells. Where all are
   * quick it doesn't matter when they begin, and it isn't looked at.
   */
  resume(): void {
    this.#resumedAt = this.#glance === 1 ? performance.now() : Infinity;
  }

  /** Whether it is time for a turn, after some more steps. */
  isDue(steps = 1): boolean {
    if ((this.#steps += steps) < this.#glance) return false;
    const now = performance.now();
    this.#steps = 0;
    // As often as needed to notice a slow step, and no oftener.
    this.#glance = now - this.#lookedAt < QUICK_MS
      ? Math.min(this.#maxSteps, this.#glance * 2)
      : 1;
    this.#lookedAt = now;
    if (now <= this.#until) return false;
    if (this.#mark?.isPast === false) return true;
    if (now - this.#resumedAt > SLICE_MS) return true;
    // Perhaps the steps were far apart, and there were turns between them. If
    // this mark isn't past when the next slice ends, there were none.
    this.#beginMarked();
    return false;
  }

  #beginMarked(): void {
    this.begin();
    const mark: Mark = { isPast: false };
    this.#mark = mark;
    setImmediate(() => mark.isPast = true);
  }

  /** Calls a function in another turn. One waits at a time. */
  next(call: () => void): void {
    this.#call = call;
    // Before a timer, too: what this turn has still to do comes first, or the
    // timer would be due at once and nothing would sleep.
    setImmediate(() => {
      if (this.#call !== call) return;
      if (performance.now() - this.#sleptAt < AWAKE_MS) {
        // A promise or a transform may have brought something up behind this.
        setImmediate(() => {
          if (this.#call === call) this.hurry();
        });
        return;
      }
      this.#forget = afterTurn(() => {
        this.#sleptAt = performance.now();
        this.hurry();
      });
    });
  }

  /** Whoever waits for a turn is called now. */
  hurry(): void {
    const call = this.#call;
    if (call === null) return;
    this.#call = null;
    this.#forget?.();
    this.#beginMarked();
    call();
  }
}
