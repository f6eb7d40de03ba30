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

/**
 * Items in as many places as there are likes. Each has a few lists, in which the
 * lowest id is last, and each list is much shorter than the one before it: where
 * a thousand workers leave one after another, putting all items into one order
 * each time would take longer than the items do.
 */
export class ReturnedItems<Item extends Returnable> implements Iterable<Item> {
  readonly #likeOf: (item: Item) => number;
  readonly #likes: Item[][][];
  #count = 0;
  /** Of them, those that needn't be here, at most. */
  #stale = 0;

  /**
   * @param likes How many likes there are.
   * @param likeOf An item's like, from 0 on.
   */
  constructor(likes: number, likeOf: (item: Item) => number) {
    this.#likeOf = likeOf;
    this.#likes = Array.from({ length: likes }, () => [[]]);
  }

  /** Whether there are none. */
  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Adds items, in any order; the highest id first is cheapest. */
  add(items: Iterable<Item>): void {
    const added = new Map<Item[][], Item[]>();
    for (const item of items) {
      const lists = this.#likes[this.#likeOf(item)]!, [longest] = lists;
      const last = longest!.at(-1);
      this.#count++;
      if (last === undefined || last.id > item.id) {
        longest!.push(item); // it was taken from here, mostly
        continue;
      }
      const others = added.get(lists);
      if (others === undefined) added.set(lists, [item]);
      else others.push(item);
    }
    for (const [lists, others] of added) {
      lists.push(others.sort((a, b) => b.id - a.id));
      while (
        lists.length > 1 && lists.at(-2)!.length < 2 * lists.at(-1)!.length
      ) lists.push(merge(lists.pop()!, lists.pop()!));
    }
  }

  /**
   * Takes out the item with the lowest id; null: there is none.
   *
   * @param full The likes that aren't asked for, as bits.
   */
  take(full: number): Item | null {
    let first: Item[] | null = null, id = Infinity;
    for (const [like, lists] of this.#likes.entries()) {
      if ((full >> like & 1) !== 0) continue;
      for (const list of lists) {
        const last = list.at(-1);
        if (last === undefined || last.id >= id) continue;
        first = list;
        id = last.id;
      }
    }
    if (first === null) return null;
    this.#count--;
    return first.pop()!;
  }

  /**
   * Some needn't be here any more; whoever takes one of them passes it over. Once
   * they may be half of all, only those are kept for which it is true.
   *
   * @param count How many more there are of them.
   */
  tidy(count: number, keep: (item: Item) => boolean): void {
    this.#stale += count;
    if (this.#stale * 2 < this.#count) return;
    this.#stale = this.#count = 0;
    for (const lists of this.#likes) {
      for (const [i, list] of lists.entries()) {
        if (list.length > 0) lists[i] = list.filter(keep);
        this.#count += lists[i]!.length;
      }
    }
  }

  /** Items get other likes meanwhile: those that are here go where they belong. */
  change(items: Iterable<Item>, change: () => void): void {
    const here = new Set<Item>();
    // All of a list at once: they may be most of it, and each by itself would
    // move all that is behind it.
    const places = new Map<Item[], number[]>();
    for (const item of items) {
      if (here.has(item)) continue;
      for (const list of this.#likes[this.#likeOf(item)]!) {
        const i = placeIn(list, item.id);
        if (list[i] !== item) continue;
        here.add(item);
        const others = places.get(list);
        if (others === undefined) places.set(list, [i]);
        else others.push(i);
      }
    }
    for (const [list, own] of places) {
      takeOut(list, own);
      // Not by the items: one may be in two lists, if it was passed over once.
      this.#count -= own.length;
    }
    change();
    this.add(here);
  }

  /** All of them, in no order. */
  *[Symbol.iterator](): Generator<Item, void> {
    for (const lists of this.#likes) for (const list of lists) yield* list;
  }
}

/** Two lists as one. */
function merge<Item extends Returnable>(a: Item[], b: Item[]): Item[] {
  const both: Item[] = [];
  let i = 0, j = 0;
  while (i < a.length && j < b.length) {
    both.push(a[i]!.id > b[j]!.id ? a[i++]! : b[j++]!);
  }
  while (i < a.length) both.push(a[i++]!);
  while (j < b.length) both.push(b[j++]!);
  return both;
}

/** Takes out of a list what is at some places, one or more, in any order. */
function takeOut(list: Returnable[], places: number[]): void {
  places.sort((a, b) => a - b);
  let [to] = places as [number], next = 0;
  for (let from = to; from < list.length; from++) {
    if (from === places[next]) next++;
    else list[to++] = list[from]!;
  }
  list.length = to;
}

/** Where an id is, if it is there, in a list whose lowest id is last. */
function placeIn(list: readonly Returnable[], id: number): number {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (list[middle]!.id > id) low = middle + 1;
    else high = middle;
  }
  return low;
}
