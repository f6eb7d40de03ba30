/**
 * First-in first-out queues in rings that grow.
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

  /** The `i`th value, which stays. There must be one. */
  at(i: number): T {
    return this.#slots[(this.#head + i) & (this.#slots.length - 1)]!;
  }

  /** Puts a value in place of the `i`th. There must be one. */
  replace(i: number, value: T): void {
    this.#slots[(this.#head + i) & (this.#slots.length - 1)] = value;
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
  *[Symbol.iterator](): Generator<T, void> {
    for (let i = 0; i < this.#length; i++) {
      yield this.#slots[(this.#head + i) & (this.#slots.length - 1)] as T;
    }
  }

  #grow(): void {
    this.#slots = enlarged(this.#slots, this.#head, undefined);
    this.#head = 0;
  }
}

/**
 * A queue of values, each with its size in bytes and where it came from: three
 * rings that move as one.
 */
export class SizedQueue<T, From> {
  #values: (T | undefined)[] = new Array(16).fill(undefined);
  #sizes: number[] = new Array(16).fill(0);
  #froms: (From | undefined)[] = new Array(16).fill(undefined);
  #head = 0;
  #length = 0;
  #bytes = 0;

  /** How many values wait. */
  get length(): number {
    return this.#length;
  }

  /** The sizes of all of them, in all. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The first value's size. There must be one. */
  get firstBytes(): number {
    return this.#sizes[this.#head]!;
  }

  /** Where the first value came from. There must be one. */
  get firstFrom(): From {
    return this.#froms[this.#head] as From;
  }

  /** All of them, first to last, without the values. */
  get origins(): { from: From; bytes: number }[] {
    const mask = this.#values.length - 1;
    return Array.from({ length: this.#length }, (_, i) => {
      const at = (this.#head + i) & mask;
      return { from: this.#froms[at] as From, bytes: this.#sizes[at]! };
    });
  }

  /** Adds a value at the end. */
  push(value: T, bytes: number, from: From): void {
    if (this.#length === this.#values.length) this.#grow();
    const at = (this.#head + this.#length) & (this.#values.length - 1);
    this.#values[at] = value;
    this.#sizes[at] = bytes;
    this.#froms[at] = from;
    this.#length++;
    this.#bytes += bytes;
  }

  /** Takes the first value. There must be one. */
  shift(): T {
    const head = this.#head;
    const value = this.#values[head] as T;
    this.#values[head] = undefined;
    this.#froms[head] = undefined;
    this.#bytes -= this.#sizes[head]!;
    this.#head = (head + 1) & (this.#values.length - 1);
    this.#length--;
    return value;
  }

  /** Takes every value out. */
  clear(): void {
    this.#values = new Array(16).fill(undefined);
    this.#sizes = new Array(16).fill(0);
    this.#froms = new Array(16).fill(undefined);
    this.#head = this.#length = this.#bytes = 0;
  }

  #grow(): void {
    this.#values = enlarged(this.#values, this.#head, undefined);
    this.#sizes = enlarged(this.#sizes, this.#head, 0);
    this.#froms = enlarged(this.#froms, this.#head, undefined);
    this.#head = 0;
  }
}

/** A ring of twice the size; what starts at `head` starts it. */
function enlarged<T>(slots: T[], head: number, empty: T): T[] {
  const { length } = slots;
  const larger = new Array<T>(length * 2).fill(empty);
  for (let i = 0; i < length; i++) {
    larger[i] = slots[(head + i) & (length - 1)]!;
  }
  return larger;
}
