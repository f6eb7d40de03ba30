/**
 * The worker that gets nothing new, so that it is soon empty for a blamed item:
 * others would keep every worker busy, and the item would wait for ever.
 *
 * ```text
 *                choose()               settled nothing for 5 s, then 10 s …
 *   nobody ─────────────────► reserved ─────────────────────────► given up
 *     ▲                           │        choose(): another          │
 *     └───────── release() ───────┘ ◄─────────────────────────────────┘
 * ```
 *
 * @module
 */

/** So long a reserved worker may settle nothing, at first, in ms. */
const PATIENCE_MS = 5000;

/** A worker as far as a reservation is concerned. */
interface Reservable {
  /** Whether it gets nothing new. */
  isReserved: boolean;
  /** What it holds. */
  readonly inFlight: {
    readonly count: number;
    oldest(count: number): unknown[];
  };
}

/** At most one worker of many. */
export class Reservation<Worker extends Reservable> {
  #worker: Worker | null = null;
  /** Were reserved before, and settled nothing for too long. */
  readonly #givenUp = new Set<Worker>();
  /** What the reserved one had as its oldest item at the first of such looks. */
  #seen: { worker: Worker; oldest: unknown; at: number } | null = null;
  #patienceMs = PATIENCE_MS;

  /** The one that gets nothing new. */
  get worker(): Worker | null {
    return this.#worker;
  }

  /** Reserves the one that holds the fewest items, of those that may be. */
  choose(workers: readonly Worker[], may: (worker: Worker) => boolean): void {
    const candidates = workers.filter(may);
    const others = candidates.filter((worker) => !this.#givenUp.has(worker));
    if (candidates.length > 0 && others.length === 0) {
      // Twice as long for each from now on: in the end each can do what it has.
      this.#givenUp.clear();
      this.#patienceMs *= 2;
    }
    let best: Worker | null = null;
    for (const worker of others.length > 0 ? others : candidates) {
      if (best === null || worker.inFlight.count < best.inFlight.count) {
        best = worker;
      }
    }
    this.#set(best);
  }

  /** Nobody is needed. */
  release(): void {
    this.#set(null);
    this.#givenUp.clear();
    this.#seen = null;
    this.#patienceMs = PATIENCE_MS;
  }

  /**
   * Gives a worker up that settles nothing: what it holds may take for ever.
   * To be called from time to time.
   *
   * @param now The time, in ms.
   * @returns Whether it was given up: another is to be chosen.
   */
  look(now: number): boolean {
    const worker = this.#worker;
    if (worker === null) return false;
    const [oldest] = worker.inFlight.oldest(1);
    const seen = this.#seen;
    if (seen?.worker !== worker || seen.oldest !== oldest) {
      this.#seen = { worker, oldest, at: now };
      return false;
    }
    if (now - seen.at < this.#patienceMs) return false;
    this.#givenUp.add(worker);
    this.#set(null);
    return true;
  }

  #set(worker: Worker | null): void {
    if (this.#worker !== null) this.#worker.isReserved = false;
    this.#worker = worker;
    if (worker !== null) worker.isReserved = true;
  }
}
