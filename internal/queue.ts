/**
 * A first-in first-out queue in a ring that grows.
 *
 * @module
 */

/** A queue. `push` and `shift` take constant time and allocate nothing. */
export class Queue<T> implements Iterable<T> {
  #slots: (T | undefined)[] = new Array(16).fill(undefined);
  #head = 0;
  #length = 0;

  /** How many values wait. */
  get length(): number {
    return this.#length;
  }

  /** Adds a value at the end. */
  push(value: T): void {
    if (this.#length === this.#slots.length) this.#grow();
    this.#slots[(this.#head + this.#length) & (this.#slots.length - 1)] = value;
    this.#length++;
  }

  /** The first value, which stays; undefined if there is none. */
  peek(): T | undefined {
    return this.#length === 0 ? undefined : this.#slots[this.#head];
  }

  /** Takes the first value; undefined if there is none. */
  shift(): T | undefined {
    if (this.#length === 0) return undefined;
    const head = this.#head;
    const value = this.#slots[head];
    this.#slots[head] = undefined;
    this.#head = (head + 1) & (this.#slots.length - 1);
    this.#length--;
    return value;
  }

  /** Takes every value out. */
  clear(): void {
    this.#slots = new Array(16).fill(undefined);
    this.#head = this.#length = 0;
  }

  /** The values, first to last; they stay. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (let i = 0; i < this.#length; i++) {
      yield this.#slots[(this.#head + i) & (this.#slots.length - 1)] as T;
    }
  }

  #grow(): void {
    const old = this.#slots;
    const slots: (T | undefined)[] = new Array(old.length * 2).fill(undefined);
    for (let i = 0; i < this.#length; i++) {
      slots[i] = old[(this.#head + i) & (old.length - 1)];
    }
    this.#slots = slots;
    this.#head = 0;
  }
}
