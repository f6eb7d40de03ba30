/**
 * Who has room for which item: a strategy picks, and what was asked already is
 * remembered until something changes the answer. And who is kept free for a
 * blamed item, which others would hold up for ever.
 *
 * @module
 */

import type { Strategy, WorkerInfo } from "./dispatcher.ts";
import { ItemKind, Mode } from "./frame.ts";
import type { Blame } from "./in_flight.ts";
import { Reservation } from "./reservation.ts";
import { MAX_FEW, Vacancies } from "./vacancies.ts";

/** A worker as far as its room is concerned. */
export interface Placeable {
  /** Unique on the server. */
  readonly id: number;
  /** What others may know of it. */
  readonly info: WorkerInfo;
  /** What it holds. */
  readonly inFlight: {
    readonly count: number;
    oldest(count: number): unknown[];
  };
  /** `Mode`. */
  readonly mode: number;
  /** Whether it may be given items at all. */
  readonly isOpen: boolean;
  /** Whether it has come so lately that it will surely ask for items. */
  readonly isExpected: boolean;
  /** Whether it has room for one more item. */
  readonly hasRoom: boolean;
  /** Whether it holds a blamed item, and must get nothing else. */
  isAlone: boolean;
  /** Whether it gets nothing new, so that it is soon empty for a blamed item. */
  isReserved: boolean;
}

/** An item as far as its place is concerned. */
interface Placed {
  /** The caller's value. */
  readonly item: unknown;
  /** Where it came from. */
  readonly way: { readonly kind: number };
  /** The deaths that it is blamed for. */
  readonly blames: readonly Blame[] | null;
}

/** What an item asks of a worker: to be in `work()`, to have nothing else. */
const CALL = 1, BLAMED = 2;
/** So many likes of items there are: what one asks, the other does too. */
export const LIKES = 4;
/** The likes without BLAMED, as bits. */
const UNBLAMED = 1 << 0 | 1 << CALL;

/** What an item asks of a worker: less than {@linkcode LIKES}. */
export function likeOf({ way, blames }: Placed): number {
  return likeOfWay(way) | (blames === null ? 0 : BLAMED);
}

function likeOfWay({ kind }: { readonly kind: number }): number {
  return kind === ItemKind.CALL ? CALL : 0;
}

/** One go at all items that are to be dispatched again. */
interface Round<Worker> {
  /** Who was reserved before it. */
  readonly before: Worker | null;
  /** By item: who had room, and may want one of them; null: not known. */
  readonly free: Worker[] | null;
  /** The same, if they are few enough to be asked alone. */
  readonly few: Worker[] | null;
  /** The likes for which there is no room any more, as bits. */
  full: number;
  /** Whether the worker for blamed items that any may get is found. */
  isReserved: boolean;
}

/** Who has room for which item. */
export class Placement<Worker extends Placeable> {
  /** Whether each item has a worker of its own. */
  readonly byItem: boolean;
  readonly #strategy: Strategy<Worker>;
  readonly #workers: readonly Worker[];
  /**
   * What the item that is being dispatched asks of a worker: one that has no
   * room for it has none for its like. Not the item itself: to store a pointer to
   * something new costs more than all else that is stored for it.
   */
  #like = 0;
  readonly #fits = (worker: Worker): boolean => fits(worker, this.#like);
  /** Who may have room, unless a strategy chooses by the item. */
  readonly #vacancies = new Vacancies<Worker>(LIKES);
  /** Those that may take calls, since the last change; null: not known. */
  #callable: Worker[] | null = null;
  /** Had room when it was last asked: the first to be asked again. */
  #roomy: Worker | null = null;
  /**
   * Workers with room for which a strategy that chooses by the item, asked about
   * every item to be dispatched again, had none.
   */
  readonly #unasked = new Set<Worker>();
  /** The worker that is to be empty for a blamed item that any may get. */
  readonly #reservation = new Reservation<Worker>();
  /** Workers that are to be empty, each for blamed items that are its own. */
  readonly #chosen = new Set<Worker>();
  #round: Round<Worker> | null = null;

  /**
   * @param strategy Which worker gets an item.
   * @param workers The workers, in the order in which they came: the list itself,
   * which changes.
   */
  constructor(strategy: Strategy<Worker>, workers: readonly Worker[]) {
    this.byItem = strategy.byItem ?? false;
    this.#strategy = strategy;
    this.#workers = workers;
  }

  // --- What changes the answers ---

  /** A worker has come. */
  joined(): void {
    this.#unasked.clear();
    this.#callable = null;
    this.#vacancies.reset(this.#workers.length);
    this.refresh();
  }

  /** A worker is gone. */
  left(worker: Worker): void {
    if (this.#roomy === worker) this.#roomy = null;
    this.#callable = null;
    this.#vacancies.remove(worker, this.#workers.length);
    this.refresh();
  }

  /** A worker may have got room. */
  gotRoom(worker: Worker): void {
    this.#vacancies.add(worker);
  }

  /** The same, and what it may take may have changed; undefined: any worker. */
  changed(worker?: Worker): void {
    this.#callable = null;
    if (worker !== undefined) this.#vacancies.add(worker);
    else this.#vacancies.reset(this.#workers.length);
  }

  /** Who takes which item may be another now: all are asked for again. */
  forgetAsked(): void {
    this.#unasked.clear();
  }

  /** Something is dispatched that the strategy may have thought of otherwise. */
  refresh(): void {
    this.#strategy.refresh?.();
  }

  /**
   * Looks after what is remembered. To be called from time to time.
   *
   * @param now The time, in ms.
   * @returns Whether there may be room where there was none.
   */
  look(now: number): boolean {
    if (this.#unasked.size > 0) {
      // An item may be another worker's by now, without anybody having told.
      this.#unasked.clear();
      return true;
    }
    // A strategy that chooses by the item has chosen for good.
    return !this.byItem && this.#reservation.look(now);
  }

  // --- Answers ---

  /** Whether some worker has room for an item of this way. */
  hasRoomFor(way: { readonly kind: number }): boolean {
    const like = likeOfWay(way);
    if (this.#roomy !== null && fits(this.#roomy, like)) return true;
    const workers = this.#vacancies.of(like) ?? this.#workers;
    this.#roomy = workers.find((worker) => fits(worker, like)) ?? null;
    if (this.#roomy === null) this.#nobodyHasRoom(like);
    return this.#roomy !== null;
  }

  /**
   * The worker for an item; null: there is no room for it.
   *
   * @throws What the strategy throws.
   */
  pick(entry: Placed): Worker | null {
    const like = likeOf(entry), round = this.#round;
    if (like !== this.#like) {
      this.refresh();
      this.#like = like;
    }
    const few = round !== null && entry.blames === null ? round.few : null;
    const worker = this.#strategy.pick(
      this.#candidates(entry),
      entry.item,
      this.#fits,
      few ?? this.#vacancies.of(like),
    );
    if (worker === null) this.#nobodyHasRoom(like);
    return worker;
  }

  #nobodyHasRoom(like: number): void {
    if (!this.byItem) this.#vacancies.none(like);
  }

  /**
   * The workers to pick one from. A strategy that chooses by the item chooses
   * whether there is room or not, so it sees none that can't take it at all.
   */
  #candidates({ way }: Placed): readonly Worker[] {
    if (!this.byItem || way.kind !== ItemKind.CALL) return this.#workers;
    return this.#callable ??= this.#workers.filter((w) =>
      w.isExpected || w.mode === Mode.WORK
    );
  }

  // --- Items to be dispatched again ---

  /** A round begins: all items that are to be dispatched again have a go. */
  beginRound(): void {
    this.#releaseChosen();
    // By item: most are those of workers that are full, and then these few need
    // asking alone.
    const free = this.byItem
      ? this.#workers.filter((w) => this.#mayAsk(w))
      : null;
    this.#round = {
      before: this.#reservation.worker,
      free,
      few: free !== null && free.length <= MAX_FEW ? free : null,
      full: 0,
      isReserved: false,
    };
  }

  /** The likes that have no go any more in this round, as bits. */
  get full(): number {
    return this.#round!.full;
  }

  /** An item of this round found no room: who is to have some for it? */
  passed(entry: Placed): void {
    const round = this.#round!;
    if (entry.blames !== null && !round.isReserved) {
      round.isReserved = this.#reserve(entry);
    }
    // Where any worker will do, no room for one item is none for the next of
    // its like. Where each has its own, only once nobody has any room at all.
    if (!this.byItem) round.full |= 1 << likeOf(entry);
    else if (!round.free!.some((w) => this.#mayAsk(w))) round.full |= UNBLAMED;
  }

  /**
   * The round is over.
   *
   * @returns Whether there is to be another: who isn't reserved any more may have
   * room for what was passed over.
   */
  endRound(): boolean {
    const { before, full, isReserved } = this.#round!;
    this.#round = null;
    if (this.byItem && full === 0) {
      for (const worker of this.#workers) {
        if (hasAnyRoom(worker) && !worker.isReserved) this.#unasked.add(worker);
      }
    }
    if (!isReserved) this.#reservation.release();
    this.refresh();
    if (before === null || this.#reservation.worker === before) return false;
    if (this.#workers.includes(before)) this.#vacancies.add(before);
    return true;
  }

  #mayAsk(worker: Worker): boolean {
    return hasAnyRoom(worker) && !this.#unasked.has(worker);
  }

  /**
   * Others would keep every worker busy, and a blamed item would wait for ever.
   *
   * @returns Whether no other can be reserved.
   */
  #reserve(entry: Placed): boolean {
    const may = (worker: Worker): boolean => mayReserve(worker, entry);
    if (this.byItem) {
      try {
        const worker = this.#strategy.pick(
          this.#candidates(entry),
          entry.item,
          may,
        );
        if (worker !== null) {
          worker.isReserved = true;
          this.#chosen.add(worker);
        }
      } catch {
        // Its dispatch will tell.
      }
      return false; // each has its own
    }
    const { worker } = this.#reservation;
    if (worker !== null && may(worker)) return true;
    this.#reservation.choose(this.#workers, may);
    return this.#reservation.worker !== null;
  }

  /** Nothing is to be dispatched again: nobody is kept free. */
  releaseAll(): void {
    const { worker } = this.#reservation;
    if (worker !== null) {
      this.#reservation.release();
      if (this.#workers.includes(worker)) this.#vacancies.add(worker);
    }
    if (this.#chosen.size > 0) this.#releaseChosen();
  }

  #releaseChosen(): void {
    for (const worker of this.#chosen) worker.isReserved = false;
    this.#chosen.clear();
  }
}

/** Whether a worker may have room for an item. */
function hasAnyRoom(worker: Placeable): boolean {
  return worker.isOpen && worker.hasRoom && !worker.isAlone;
}

/**
 * Whether a worker has room for an item of this like. One that holds it while it
 * waits is suspect, and so isn't open.
 */
function fits(worker: Placeable, like: number): boolean {
  if (!hasAnyRoom(worker)) return false;
  if ((like & CALL) !== 0 && worker.mode !== Mode.WORK) return false;
  return (like & BLAMED) === 0
    ? !worker.isReserved
    : worker.inFlight.count === 0;
}

/** Whether a worker may soon be empty, and then take a blamed item. */
function mayReserve(worker: Placeable, { way }: Placed): boolean {
  return worker.isOpen && !worker.isAlone &&
    (way.kind !== ItemKind.CALL || worker.mode === Mode.WORK);
}
