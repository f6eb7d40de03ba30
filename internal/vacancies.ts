/**
 * What is known of who has room for what. Where thousands of workers are busy,
 * all of them would be asked for every result that one of them sends.
 *
 * @module
 */

/** So few workers are all asked, which costs less than to know whom to ask. */
const MANY_WORKERS = 64;
/** Where more may have got room, it isn't kept who they are: any may have. */
export const MAX_FEW = 16;

/** Who may have room for an item, by its like. */
export class Vacancies<Worker extends { readonly id: number }> {
  /** By like: only these may have room, in the order of their ids; null: any may. */
  readonly #few: (Worker[] | null)[];
  #isCrowded = false;

  /** @param likes How many likes of items there are. */
  constructor(likes: number) {
    this.#few = new Array(likes).fill(null);
  }

  /** Those that alone may have room for such an item; null: any may. */
  of(like: number): readonly Worker[] | null {
    return this.#few[like]!;
  }

  /** Any may have room: one has come, for example. */
  reset(workers: number): void {
    this.#isCrowded = workers > MANY_WORKERS;
    this.#few.fill(null);
  }

  /** All that may have had room for such an item were asked, and none has. */
  none(like: number): void {
    if (this.#isCrowded) this.#few[like] = [];
  }

  /** A worker may have got room. */
  add(worker: Worker): void {
    if (!this.#isCrowded) return;
    for (const [like, few] of this.#few.entries()) {
      if (few === null || few.includes(worker)) continue;
      if (few.length === MAX_FEW) {
        this.#few[like] = null;
        continue;
      }
      const before = few.findLastIndex(({ id }) => id < worker.id);
      few.splice(before + 1, 0, worker);
    }
  }

  /** A worker is gone, and so many are left. */
  remove(worker: Worker, workers: number): void {
    if (workers <= MANY_WORKERS) this.reset(workers);
    for (const few of this.#few) {
      const i = few?.indexOf(worker) ?? -1;
      if (i >= 0) few!.splice(i, 1);
    }
  }
}
