/**
 * Items to be dispatched again, by what they ask of a worker: where there is no
 * room for one, there is none for its like, however many they are.
 *
 * @module
 */

/** An item as far as its place is concerned. */
interface Returnable {
  /** The lowest goes first. */
  readonly id: number;
}

/** Items in as many lists as there are likes; in each the lowest id is last. */
export class ReturnedItems<Item extends Returnable> implements Iterable<Item> {
  readonly #likeOf: (item: Item) => number;
  readonly #lists: Item[][];
  #count = 0;

  /**
   * @param likes How many likes there are.
   * @param likeOf An item's like, from 0 on.
   */
  constructor(likes: number, likeOf: (item: Item) => number) {
    this.#likeOf = likeOf;
    this.#lists = Array.from({ length: likes }, () => []);
  }

  /** Whether there are none. */
  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Adds items, in any order; the highest id first is cheapest. */
  add(items: Iterable<Item>): void {
    const unsorted = new Set<Item[]>();
    for (const item of items) {
      const list = this.#lists[this.#likeOf(item)]!;
      const last = list.at(-1);
      if (last !== undefined && last.id < item.id) unsorted.add(list);
      list.push(item);
      this.#count++;
    }
    for (const list of unsorted) list.sort((a, b) => b.id - a.id);
  }

  /**
   * Takes out the item with the lowest id; null: there is none.
   *
   * @param full The likes that aren't asked for, as bits.
   */
  take(full: number): Item | null {
    let first: Item[] | null = null;
    for (const [like, list] of this.#lists.entries()) {
      if ((full >> like & 1) !== 0 || list.length === 0) continue;
      if (first === null || list.at(-1)!.id < first.at(-1)!.id) first = list;
    }
    if (first === null) return null;
    this.#count--;
    return first.pop()!;
  }

  /** Keeps those for which it is true. */
  tidy(keep: (item: Item) => boolean): void {
    this.#count = 0;
    for (const [like, list] of this.#lists.entries()) {
      if (list.length > 0) this.#lists[like] = list.filter(keep);
      this.#count += this.#lists[like]!.length;
    }
  }

  /** Items get other likes meanwhile: those that are here go where they belong. */
  change(items: Iterable<Item>, change: () => void): void {
    const here: Item[] = [];
    for (const item of items) {
      const list = this.#lists[this.#likeOf(item)]!, i = placeIn(list, item.id);
      if (list[i] !== item) continue;
      list.splice(i, 1);
      here.push(item);
    }
    change();
    for (const item of here) {
      const list = this.#lists[this.#likeOf(item)]!;
      list.splice(placeIn(list, item.id), 0, item);
    }
  }

  /** All of them, in no order. */
  *[Symbol.iterator](): Generator<Item, void> {
    for (const list of this.#lists) yield* list;
  }
}

/** Where an id is, or belongs, in a list whose lowest id is last. */
function placeIn(list: readonly Returnable[], id: number): number {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (list[middle]!.id > id) low = middle + 1;
    else high = middle;
  }
  return low;
}
