/**
 * How many items one worker may hold, and whether it has room for another.
 *
 * ```text
 *         it holds `size`                a batch ends with `refillAt` or fewer,
 *                                        or a credit comes
 *   OPEN ─────────────────────► SATED ──────────────────────────────────► OPEN
 *   OPEN ─────────────────────► FULL ───────────────────────────────────► OPEN
 *         the next item's bytes          an item is settled
 *         don't fit
 * ```
 *
 * Who is OPEN has room, below `size`, and who holds nothing has: one item may
 * always be there, however large. `size` and `refillAt` change with a credit, and
 * at the end of a batch of frames, once for all that was settled in it.
 *
 * @module
 */

import { AdaptiveWindow, placesFor, shareOf, usefulShareOf } from "./credit.ts";

/** What a worker asks for. */
export interface ItemCredit {
  /** The items that it executes at once. */
  concurrency: number;
  /** The most items that it wants to hold. */
  limit: number;
  /** Whether it is to hold as few as keep it busy. */
  isAdaptive: boolean;
}

const OPEN = 0, SATED = 1, FULL = 2;

/** The window of one worker. */
export class ItemWindow {
  /** The items that it may hold; 0 before the first credit. */
  size = 0;
  /** What finds the size; null: the worker has said how many it wants. */
  adaptive: AdaptiveWindow | null = null;
  /** The round trip, as it was measured last, in ms. */
  rttMs: number | undefined;
  readonly #maxBytes: number;
  #state = OPEN;
  #limit = 0;
  #concurrency = 1;
  /** Once it held `size`, it has room again when it holds so few. */
  #refillAt = 0;
  /** The items that were settled in this batch. */
  #settled = 0;

  /** @param maxBytes Payload bytes that it may hold, if in more than one item. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether it held all that it may, and isn't yet to be refilled. */
  get isSated(): boolean {
    return this.#state === SATED;
  }

  /** Whether one that holds so many has room for another. */
  hasRoom(held: number): boolean {
    return held === 0 || (held < this.size && this.#state === OPEN);
  }

  /** Whether it may hold so many bytes with another item; if not, it is full. */
  fits(bytes: number): boolean {
    if (bytes <= this.#maxBytes) return true;
    this.#state = FULL;
    return false;
  }

  /** An item was sent: with it, the worker holds so many. */
  sent(held: number): void {
    if (held >= this.size) this.#state = SATED;
  }

  /** Some items were settled. */
  settled(count: number): void {
    this.#settled += count;
    if (this.#state === FULL) this.#state = OPEN;
  }

  /**
   * All frames that came at once have been seen.
   *
   * @param held The items that it holds.
   * @param now When it came, in ms.
   * @param workers How many workers there are.
   */
  endBatch(held: number, now: number, workers: number): void {
    if (this.#settled === 0) return;
    const { adaptive } = this;
    if (adaptive !== null) {
      const share = usefulShareOf(workers, adaptive.rttMs);
      adaptive.settled(this.#settled, held, now, share);
    }
    this.#settled = 0;
    this.#resize(workers);
    if (held <= this.#refillAt && this.#state === SATED) this.#state = OPEN;
  }

  /**
   * A credit came: from now on it counts, and no other.
   *
   * @param credit What it says.
   * @param workers How many workers there are.
   */
  grant(credit: ItemCredit, workers: number): void {
    const { concurrency, limit } = credit;
    this.adaptive = credit.isAdaptive
      ? new AdaptiveWindow(concurrency, limit)
      : null;
    // The first round trip was mostly measured before.
    if (this.rttMs !== undefined) this.adaptive?.measured(this.rttMs);
    this.#concurrency = concurrency;
    this.#limit = limit;
    this.#resize(workers);
    if (this.#state === SATED) this.#state = OPEN;
  }

  /** A round trip was measured. */
  measured(rttMs: number): void {
    this.rttMs = rttMs;
    this.adaptive?.measured(rttMs);
  }

  #resize(workers: number): void {
    if (this.adaptive !== null) {
      this.size = this.adaptive.size;
      this.#refillAt = this.adaptive.refillAt;
      return;
    }
    // Whatever it asks for: with all places at it, others would get nothing.
    const most = workers > 1
      ? Math.max(shareOf(workers), this.#concurrency + 1)
      : placesFor(1);
    this.size = Math.min(this.#limit, most);
    this.#refillAt = this.size - 1;
  }
}
