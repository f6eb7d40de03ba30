/**
 * Results of one `map()` that wait to be yielded: in the order of their items,
 * or as they came.
 *
 * @module
 */

import { SizedQueue } from "./queue.ts";

/** What is there where a result isn't here yet. */
export const EMPTY: unique symbol = Symbol("empty");

/** From one slot it grows to so many. */
const MIN_SLOTS = 16;

/** Results, each with its size in bytes. */
export interface ResultWindow {
  /** The sizes of those that wait, in all. */
  readonly bytes: number;
  /** The result of an item: the `index`th of all. */
  put(index: number, value: unknown, bytes: number): void;
  /** Takes the next one; EMPTY if it isn't here. */
  take(): unknown;
  /** Drops those that wait. */
  clear(): void;
}

/** In the order of the items: a ring by their index, from the next one on. */
export class ReorderWindow implements ResultWindow {
  bytes = 0;
  // Most maps are shorter than their window, and of many there is one at a time.
  #slots: unknown[] = [EMPTY];
  #sizes: number[] = [0];
  #next = 0;

  put(index: number, value: unknown, bytes: number): void {
    if (index - this.#next >= this.#slots.length) {
      this.#grow(index - this.#next + 1);
    }
    const i = index & (this.#slots.length - 1);
    this.#slots[i] = value;
    this.#sizes[i] = bytes;
    this.bytes += bytes;
  }

  take(): unknown {
    const i = this.#next & (this.#slots.length - 1);
    const value = this.#slots[i];
    if (value === EMPTY) return EMPTY;
    this.#slots[i] = EMPTY;
    this.bytes -= this.#sizes[i]!;
    this.#next++;
    return value;
  }

  clear(): void {
    this.#slots.fill(EMPTY);
    this.bytes = 0;
  }

  #grow(needed: number): void {
    const slots = this.#slots, sizes = this.#sizes, { length } = slots;
    let larger = Math.max(MIN_SLOTS, length * 2);
    while (larger < needed) larger *= 2;
    this.#slots = new Array(larger).fill(EMPTY);
    this.#sizes = new Array(larger).fill(0);
    for (let i = this.#next; i < this.#next + length; i++) {
      this.#slots[i & (larger - 1)] = slots[i & (length - 1)];
      this.#sizes[i & (larger - 1)] = sizes[i & (length - 1)]!;
    }
  }
}

/** As they came. */
export class ArrivalWindow implements ResultWindow {
  readonly #results = new SizedQueue<unknown, null>();

  get bytes(): number {
    return this.#results.bytes;
  }

  put(_index: number, value: unknown, bytes: number): void {
    this.#results.push(value, bytes, null);
  }

  take(): unknown {
    return this.#results.length === 0 ? EMPTY : this.#results.shift();
  }

  clear(): void {
    this.#results.clear();
  }
}
