/**
 * How much a connection does before the event loop goes round: bytes that wait
 * are read at once otherwise, and next to a peer that sends without end nobody
 * else has a turn; and a socket that takes bytes at once waits for no event, so
 * what transforms make of values is written without one.
 *
 * @module
 */

import { clearImmediate, setImmediate } from "node:timers";
import { afterTurn } from "./timer.ts";

/** So many bytes may be read in a turn. */
const BYTES_A_TURN = 1024 * 1024;
/** Or something that takes so long, in ms. */
const TURN_MS = 1;
/**
 * After so many turns it waits for a timer, if there are others. An event loop
 * that always has something to do looks at other sockets rarely (with tokio,
 * each 61st time).
 */
const TURNS_A_PAUSE = 16;
/**
 * The turns of all connections since the last pause, and how many pause now: the
 * others join them, so where several send without end each pauses after every
 * turn. If each paused by itself, there would always be something to do.
 */
let turns = 0, paused = 0;

/** A frame costs as much as so many bytes. */
export const FRAME_BYTES = 256;

/** What one connection may read, or write. */
export class TurnBudget {
  readonly #isCrowded: () => boolean;
  /** What was done in this turn, in bytes. */
  #spent = 0;
  /** What it waits for. */
  #pause: { forget: () => void; wake: () => void } | null = null;

  /** @param isCrowded Whether there are others that turns must be left to. */
  constructor(isCrowded: () => boolean) {
    this.#isCrowded = isCrowded;
  }

  /** Something was read, in bytes. */
  spend(bytes: number): void {
    this.#spent += bytes;
  }

  /**
   * A frame took time, in ms: where its transforms wait for no event, others had
   * no turn meanwhile, however few its bytes are.
   */
  spendTime(ms: number): void {
    this.#spent += ms / TURN_MS * BYTES_A_TURN;
  }

  /**
   * The same for what a transform makes, unless that waits for an event, as
   * encryption on another thread does: others have their turns then, and part of
   * the time is theirs.
   *
   * @param make Makes it.
   */
  async spendOn<T>(make: () => Promise<T>): Promise<T> {
    const begun = performance.now();
    let hasTurned = false;
    const turn = setImmediate(() => hasTurned = true);
    try {
      return await make();
    } finally {
      clearImmediate(turn);
      if (!hasTurned) this.spendTime(performance.now() - begun);
    }
  }

  /** Whether others are to have a turn. */
  get isSpent(): boolean {
    return this.#spent >= BYTES_A_TURN;
  }

  /** Lets others have it. */
  async nextTurn(): Promise<void> {
    turns += Math.floor(this.#spent / BYTES_A_TURN);
    this.#spent = 0;
    const isPause = (turns >= TURNS_A_PAUSE || paused > 0) && this.#isCrowded();
    // Not where it is the only one: it might take every pause from the others.
    if (isPause) {
      turns = 0;
      paused++;
    }
    await new Promise<void>((wake) => {
      if (isPause) this.#pause = { forget: afterTurn(wake), wake };
      else setImmediate(wake);
    });
    if (isPause) paused--;
    this.#pause = null;
  }

  /** The connection is over: nobody waits for a timer any more. */
  hurry(): void {
    this.#pause?.forget();
    this.#pause?.wake();
  }
}
