/**
 * Which worker gets an item. A strategy picks one of all workers, and asks which
 * of them have room; why is not its business. Users' own see those alone.
 *
 * @module
 */

/** What a strategy, and everybody else, may know of a worker. */
export interface WorkerInfo {
  /** Unique on the server, from 0 on in the order of the handshakes. */
  readonly id: number;
  /** The worker's own name; "" if it gave none. */
  readonly name: string;
  /** Its address. */
  readonly addr: Deno.Addr;
  /** Items that it holds. */
  readonly inFlight: number;
  /** Items that it settled with a result, or by reading on. */
  readonly settled: number;
  /** Items that it settled with an error. */
  readonly failed: number;
  /** Items that it settles a second, measured over the last second or two. */
  readonly ratePerSecond: number;
  /** The last measured round trip, in milliseconds; undefined before it. */
  readonly rttMs: number | undefined;
  /**
   * `"idle"`: it has asked for no items yet, `"active"`: it takes items,
   * `"suspect"`: nothing was heard for `heartbeat.timeoutMs`, or so long it has
   * held on to a cancelled item, `"leaving"`: it takes no more.
   */
  readonly state: "idle" | "active" | "suspect" | "leaving";
}

/**
 * A strategy of dispatch.
 *
 * @example The worker with the shortest round trip
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { type Dispatcher, listen, work } from "@distchan/distchan";
 *
 * const nearest: Dispatcher = {
 *   pick(free) {
 *     let best = 0;
 *     for (let i = 1; i < free.length; i++) {
 *       if ((free[i]!.rttMs ?? 0) < (free[best]!.rttMs ?? 0)) best = i;
 *     }
 *     return best;
 *   },
 * };
 *
 * await using server = listen<number, number>({ port: 0, dispatch: nearest });
 * const { port } = server.addr;
 * work<number, number>({ port }, (n) => n + 1);
 * assertEquals(await server.submit(1), 2);
 * ```
 */
export interface Dispatcher {
  /**
   * Picks a worker for an item.
   *
   * @param free The workers that have room for it; never empty. It is valid
   * during the call only.
   * @param item The item.
   * @returns An index into `free`.
   */
  pick(free: readonly WorkerInfo[], item: unknown): number;
}

/** Chooses among all workers of a pool; null: nobody has room now. */
export interface Strategy<Worker> {
  /**
   * Whether an item has a worker of its own, and waits for that one; left out:
   * it goes to any that has room.
   */
  readonly byItem?: boolean;
  /**
   * Picks a worker for which `hasRoom` is true.
   *
   * @param few It is known that it can be true for these alone, in the order of
   * `workers`.
   */
  pick(
    workers: readonly Worker[],
    item: unknown,
    hasRoom: (worker: Worker) => boolean,
    few?: readonly Worker[] | null,
  ): Worker | null;
  /** Workers that had no room may have it now, or for the item to come. */
  refresh?(): void;
}

/** Each in turn; a worker without room is passed over. */
export class RoundRobin<Worker> implements Strategy<Worker> {
  #next = 0;
  /**
   * From each place on, so many are known to have no room: among many workers
   * of which few have room, most would be asked for every item.
   */
  #full: number[] = [];
  #isFresh = true;

  /** Picks the next that has room. */
  pick(
    workers: readonly Worker[],
    _item: unknown,
    hasRoom: (worker: Worker) => boolean,
    few: readonly Worker[] | null = null,
  ): Worker | null {
    const { length } = workers;
    if (few !== null) {
      const places = few.filter(hasRoom).map((w) => workers.indexOf(w));
      const place = places.find((i) => i >= this.#next) ?? places[0];
      if (place === undefined) return null;
      this.#next = place + 1;
      return workers[place]!;
    }
    const full = this.#full;
    if (full.length !== length) {
      full.length = length;
      full.fill(0);
    }
    const first = this.#next < length ? this.#next : 0;
    for (let passed = 0, i = first; passed < length;) {
      const known = full[i]!;
      if (known === 0 && hasRoom(workers[i]!)) {
        if (passed > 0) this.#remember(first, passed);
        this.#next = i + 1;
        return workers[i]!;
      }
      const step = known === 0 ? 1 : known;
      passed += step;
      i += step;
      if (i >= length) i -= length;
    }
    if (length > 0) this.#remember(first, length);
    return null;
  }

  refresh(): void {
    if (this.#isFresh) return;
    this.#isFresh = true;
    this.#full.fill(0);
  }

  #remember(place: number, count: number): void {
    this.#full[place] = count;
    this.#isFresh = false;
  }
}

/** A worker of which it is known what it holds. */
interface Loaded {
  /** What it holds. */
  readonly inFlight: { readonly count: number };
}

/** The one that holds the fewest items; the first of several. */
export class LeastLoaded<Worker extends Loaded> implements Strategy<Worker> {
  /** Picks the least loaded that has room. */
  pick(
    workers: readonly Worker[],
    _item: unknown,
    hasRoom: (worker: Worker) => boolean,
    few: readonly Worker[] | null = null,
  ): Worker | null {
    let best: Worker | null = null, least = Infinity;
    for (const worker of few ?? workers) {
      const { count } = worker.inFlight;
      // In this order: of many workers few hold fewer than all before them.
      if (count >= least || !hasRoom(worker)) continue;
      if (count === 0) return worker;
      best = worker;
      least = count;
    }
    return best;
  }
}

/** A strategy that users write: it sees the workers with room as a list. */
export class Custom<Worker extends { readonly info: WorkerInfo }>
  implements Strategy<Worker> {
  readonly #dispatcher: Dispatcher;

  /** @param dispatcher The user's strategy. */
  constructor(dispatcher: Dispatcher) {
    this.#dispatcher = dispatcher;
  }

  /** Asks the dispatcher. */
  pick(
    workers: readonly Worker[],
    item: unknown,
    hasRoom: (worker: Worker) => boolean,
    few: readonly Worker[] | null = null,
  ): Worker | null {
    const free = (few ?? workers).filter(hasRoom);
    if (free.length === 0) return null;
    const index = this.#dispatcher.pick(free.map((w) => w.info), item);
    const worker = free[index];
    if (worker === undefined) {
      throw new RangeError(
        `Cannot dispatch: pick() returned ${index}, expected an index below ${free.length}`,
      );
    }
    return worker;
  }
}

/** A worker of which it may be known that it is about to ask for items. */
interface Expected {
  /** Unique, from 0 on. */
  readonly id: number;
  /** What may be known of it, which takes time to find out. */
  readonly info: WorkerInfo;
  /** Whether it has come so lately that it will surely ask for items. */
  readonly isExpected: boolean;
}

/**
 * All items of a key go to one worker, in order, while it lives. Rendezvous
 * hashing: when a worker goes, its keys and only its keys move. An item waits
 * for its worker, so order within a key is kept; also for one that has only
 * just come, or the first items would move a moment later.
 */
export class ByKey<Worker extends Expected> implements Strategy<Worker> {
  readonly byItem = true;
  readonly #key: (item: never) => string;

  /** @param key The key of an item. */
  constructor(key: (item: never) => string) {
    this.#key = key;
  }

  /** Picks the key's worker if it has room. */
  pick(
    workers: readonly Worker[],
    item: unknown,
    hasRoom: (worker: Worker) => boolean,
    few: readonly Worker[] | null = null,
  ): Worker | null {
    const key = hash(String(this.#key(item as never)));
    if (few !== null) {
      const best = highest(key, few.filter(hasRoom));
      if (best === null) return null;
      // Mostly another's is higher, and soon found.
      const least = scoreOf(key, best);
      return workers.some((w) =>
          w !== best && scoreOf(key, w) >= least && isInPlay(w)
        )
        ? null
        : best;
    }
    const best = highest(key, workers);
    return best !== null && hasRoom(best) ? best : null;
  }
}

/** The one of these that a key is given to. */
function highest<Worker extends Expected>(
  key: number,
  workers: readonly Worker[],
): Worker | null {
  let best: Worker | null = null;
  let bestScore = -1;
  for (const worker of workers) {
    const score = scoreOf(key, worker);
    if (score <= bestScore || !isInPlay(worker)) continue;
    best = worker;
    bestScore = score;
  }
  return best;
}

function scoreOf(key: number, { id }: Expected): number {
  return mix(key ^ Math.imul(id + 1, 0x9e3779b1));
}

/** Whether it takes items, or will as soon as it asks for them. */
function isInPlay({ info: { state }, isExpected }: Expected): boolean {
  return state === "active" || (state === "idle" && isExpected);
}

/** The strategy that an option asks for. */
export function strategyOf<Worker extends Expected & Loaded>(
  dispatch:
    | "round-robin"
    | "least-loaded"
    | { key: (item: never) => string }
    | Dispatcher = "round-robin",
): Strategy<Worker> {
  if (dispatch === "round-robin") return new RoundRobin();
  if (dispatch === "least-loaded") return new LeastLoaded();
  return "pick" in dispatch
    ? new Custom(dispatch)
    : new ByKey((item) => dispatch.key(item));
}

/** FNV-1a over UTF-16 units. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  }
  return h >>> 0;
}

/** The finalizer of MurmurHash3. */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
