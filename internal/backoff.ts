/**
 * When to try again: exponential, with full jitter.
 *
 * @module
 */

/** The delays between attempts. Randomness is passed in. */
export class Backoff {
  /** Attempts in a row that failed. */
  attempts = 0;
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;

  /**
   * @param minMs The bound of the first delay, in ms.
   * @param maxMs The bound of every delay, in ms.
   * @param random A number from 0 to 1.
   */
  constructor(minMs: number, maxMs: number, random: () => number) {
    this.#minMs = minMs;
    this.#maxMs = Math.max(minMs, maxMs);
    this.#random = random;
  }

  /** What the next delay is at most, in ms. */
  get bound(): number {
    return Math.min(this.#maxMs, this.#minMs * 2 ** this.attempts);
  }

  /** The time until the next attempt, in ms. */
  next(): number {
    const { bound } = this;
    this.attempts++;
    return bound * this.#random();
  }

  /** An attempt succeeded. */
  reset(): void {
    this.attempts = 0;
  }
}
