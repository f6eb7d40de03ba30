/**
 * From the moment an item is taken until it is settled: queues, dispatch,
 * redelivery and blame. It talks to workers through an interface and does no
 * I/O, so its whole behaviour can be tested with workers that are objects.
 *
 * @module
 */

import { placesFor, shareOf } from "./credit.ts";
import { Deaths } from "./deaths.ts";
import type { Strategy } from "./dispatcher.ts";
import {
  type Blame,
  Entry,
  IN_FLIGHT,
  type InFlight,
  SETTLED,
  WAITING,
  type Way as WayOf,
} from "./in_flight.ts";
import { ItemKind } from "./frame.ts";
import { ItemFailure, PoisonItemError } from "./errors.ts";
import { likeOf, LIKES, type Placeable, Placement } from "./placement.ts";
import type { Queue } from "./queue.ts";
import { ReturnedItems } from "./returned_items.ts";
import type { ItemSchema } from "./schema.ts";
import { toError } from "./thrown.ts";

/** The server's end of one worker, as far as delivery is concerned. */
export interface Worker extends Placeable {
  /** What it holds. */
  readonly inFlight: InFlight<Worker>;
  /** The items that it executes at once. */
  readonly concurrency: number;
  /** The process, by its instance id. */
  readonly instance: string;
  /** Whether it still is one: not while it is told that it is gone. */
  readonly isWorker: boolean;
  /** Whether nothing was heard of it for too long. */
  readonly isSuspect: boolean;
  /** Whether it had room for another after the last item that it was sent. */
  readonly hasMore: boolean;
  /**
   * Sends it an item; false if the item's bytes don't fit just now.
   *
   * @throws {Error} The item's own failure.
   */
  deliver(entry: Entry<Worker>): boolean;
  /** Tells it that a delivery isn't needed any more. */
  cancel(delivery: number): void;
}

/** An item of delivery. */
export type Item = Entry<Worker>;

/** A way in, with its own queue of items that wait for their first dispatch. */
export interface Way extends WayOf<Worker> {
  /** The items that wait. */
  readonly queue: Queue<Item>;
  /** There may be room now. */
  pumped(): void;
}

/** How a redelivery came about. */
export type RedeliveryCause = "lost" | "left" | "suspect";

/** What delivery tells its owner. */
export interface DeliveryEvents {
  /** Items went back to the queue. */
  onRedelivered(
    worker: Worker,
    ids: readonly number[],
    cause: RedeliveryCause,
  ): void;
  /** An item failed. */
  onFailed(failure: ItemFailure): void;
  /** A late duplicate was dropped. */
  onDuplicate(worker: Worker, id: number): void;
  /** An item isn't to be requeued: it waits apart no more. */
  onLetGo(entry: Item): void;
  /** An item was settled and nothing is left: maybe this was the last. */
  onIdle(): void;
}

/** Told of every item on its way, where tracing is on. */
export interface ItemTracer {
  /** It was taken. */
  taken(entry: Item): void;
  /** It was sent. */
  dispatched(entry: Item, worker: Worker): void;
  /** It went back to the queue. */
  returned(entry: Item, worker: Worker, cause: RedeliveryCause): void;
  /** It has a result, or has failed. */
  settled(entry: Item, error: Error | null): void;
  /** It isn't wanted any more. */
  cancelled(entry: Item): void;
}

/** Options of {@linkcode Delivery}. */
export interface DeliveryOptions {
  /** Which worker gets an item. */
  strategy: Strategy<Worker>;
  /** At so many blames an item fails. */
  maxDeliveries: number;
  /** What items must pass before they are sent; null: nothing. */
  schema: ItemSchema<Entry<Worker>> | null;
  /** Told of every item; null: tracing is off. */
  tracer: ItemTracer | null;
  /** Whom to tell. */
  events: DeliveryEvents;
}

/** How long an item waits that may be poison, before its last try, in ms. */
const REST_MS = 500;

/** Queues, dispatch, redelivery and blame. */
export class Delivery {
  /** Items that were taken and aren't settled. */
  alive = 0;
  /** Those of them that no worker holds. */
  waiting = 0;
  /** Items settled with a result, or by reading on. */
  settled = 0;
  /** Items failed. */
  failed = 0;
  /** Items that went back to the queue after a dispatch. */
  redelivered = 0;
  /** Late duplicates that were dropped. */
  duplicates = 0;
  /** Items whose result is here, and isn't checked yet. */
  readonly checking: Set<Item> = new Set();
  /** How many items of one way may be at the workers, or unread. */
  places: number = placesFor(0);
  /** Counts dispatches and settlements, so that a standstill can be seen. */
  progress = 0;
  /** Whether the worker of the last dispatch had room for another then. */
  hasMore = false;
  readonly #options: DeliveryOptions;
  /** Which worker gets an item, and who has room. */
  readonly #placement: Placement<Worker>;
  readonly #schema: ItemSchema<Item> | null;
  readonly #tracer: ItemTracer | null;
  readonly #workers: Worker[] = [];
  readonly #ways: Way[] = [];
  /** Items to be dispatched again. */
  readonly #returned = new ReturnedItems<Item>(LIKES, likeOf);
  /** Those of them that are being asked for, or had no room just now. */
  readonly #passed: Item[] = [];
  /** Items that wait for their time to be tried again. */
  readonly #held = new Set<Item>();
  /** Of them, those of `#rest()`, and since when, in ms; -1: since just now. */
  readonly #resting = new Map<Item, number>();
  readonly #deaths = new Deaths();
  #nextId = 0;
  #turn = 0;
  /** The way whose item was the last that didn't have to wait: it is woken last. */
  #ahead: Way | null = null;
  /** Had items that wait when a way last asked: the first to be looked at. */
  #contender: Way | null = null;
  #busy = false;
  #again = false;
  #isPumpDue = false;

  /** @param options Which worker is picked, and whom to tell. */
  constructor(options: DeliveryOptions) {
    this.#options = options;
    this.#placement = new Placement(options.strategy, this.#workers);
    this.#schema = options.schema;
    this.#tracer = options.tracer;
  }

  /** The workers, in the order in which they came. */
  get workers(): readonly Worker[] {
    return this.#workers;
  }

  /** Items that workers hold beyond their share: others are to have places. */
  get excess(): number {
    const workers = this.#workers;
    if (workers.length < 2) return 0;
    const share = shareOf(workers.length);
    let excess = 0;
    for (const { inFlight } of workers) {
      excess += Math.max(0, inFlight.count - share);
    }
    return excess;
  }

  /** Items that wait for a worker, and not for their time to be tried again. */
  get due(): number {
    return this.waiting - this.#held.size;
  }

  /** Whether items of `submit()` or `map()` are among them. */
  get hasDueCalls(): boolean {
    const isDue = ({ state, way }: Item) =>
      state === WAITING && way.kind === ItemKind.CALL;
    // Of the channel's queue, which may be long, none is one.
    return this.#returned[Symbol.iterator]().some(isDue) ||
      this.#ways.some(({ kind, queue }) =>
        kind === ItemKind.CALL && queue[Symbol.iterator]().some(isDue)
      );
  }

  /** Adds a way in. */
  addWay(way: Way): void {
    this.#ways.push(way);
  }

  /** Removes a way in: nothing that waits there is dispatched any more. */
  removeWay(way: Way): void {
    const i = this.#ways.indexOf(way);
    if (i >= 0) this.#ways.splice(i, 1);
    if (this.#ahead === way) this.#ahead = null;
    if (this.#contender === way) this.#contender = null;
  }

  /** Adds a worker. The blame of its process's lost connection is taken back. */
  addWorker(worker: Worker): void {
    this.#workers.push(worker);
    this.#placement.joined();
    this.places = placesFor(this.#workers.length);
    const { instance } = worker;
    const blamed = this.#deaths.of(instance) as readonly Item[];
    this.#returned.change(blamed, () => this.#deaths.takeBack(instance));
    const rested = blamed.filter((entry) => this.#resting.delete(entry));
    if (rested.length === 0) return;
    this.#putBack(rested);
    this.#pumpSoon(); // once its owner has told of the worker
  }

  /**
   * Takes an item. Returns it; its state tells whether it was dispatched.
   *
   * @param item The item.
   * @param way Where it comes from.
   * @param index Its place in the way.
   * @param onEntry Told before the way hears of the item.
   */
  offer(
    item: unknown,
    way: Way,
    index: number,
    onEntry?: (entry: Item) => void,
  ): Item {
    const entry: Item = new Entry(this.#nextId++, item, way, index);
    onEntry?.(entry);
    this.#tracer?.taken(entry);
    this.alive++;
    this.waiting++;
    if (this.#schema !== null) {
      const isBusy = this.#busy;
      this.#busy = true; // what the schema itself sends goes behind this
      const error = this.#schema.begin(entry, (e) => this.#checked(entry, e));
      this.#busy = isBusy;
      if (error !== null) {
        this.#refuse(entry, error);
        if (this.#again) this.pump(null);
        return entry;
      }
    }
    if (!this.#busy && way.queue.length > 0) {
      // What it is behind couldn't go when there was last a look at it.
      this.#enqueue(entry, way);
      if (this.#again) this.pump(null);
    } else if (this.#busy || !this.#returned.isEmpty || !way.hasPlace()) {
      this.#enqueue(entry, way);
      this.pump(null);
    } else {
      this.#busy = true;
      const dispatched = this.#dispatch(entry);
      this.#busy = false;
      if (this.#ahead !== way && dispatched) this.#ahead = way;
      if (!dispatched) this.#wait(entry, way);
      if (this.#again) this.pump(null);
    }
    return entry;
  }

  /** A way's first item that waits: from now on others may wait for their turn. */
  #wait(entry: Item, way: Way): void {
    this.#enqueue(entry, way);
    for (const other of this.#ways) if (other !== way) other.pumped();
  }

  /**
   * In the order of ids: a strategy, a schema or a getter may have sent others
   * while it was asked about this one, and those are in the queue already.
   */
  #enqueue(entry: Item, { queue }: Way): void {
    queue.push(entry);
    for (let i = queue.length - 1; i > 0; i--) {
      const before = queue.at(i - 1);
      if (before.id < entry.id) break;
      queue.replace(i, before);
      queue.replace(i - 1, entry);
    }
  }

  /** Whether an item of this way would be dispatched at once. */
  hasRoom(way: Way): boolean {
    return way.queue.length === 0 && way.hasPlace() &&
      this.#placement.hasRoomFor(way);
  }

  /**
   * Whether items of other ways wait, so that this one's may wait for their
   * turn. Of the channel only one waits: beside it no other way has more.
   */
  isContended(way: Way): boolean {
    const contends = (other: Way): boolean =>
      other !== way && other.queue.length > 0 &&
      (other.kind === ItemKind.CALL || way.kind !== ItemKind.CALL);
    // All of a thousand map()s may ask, and most of them may have nothing there.
    if (this.#contender !== null && contends(this.#contender)) return true;
    this.#contender = this.#ways.find(contends) ?? null;
    return this.#contender !== null;
  }

  /** Whether the schema takes its time for the first item of a way that waits. */
  awaitsSchema(way: Way): boolean {
    const first = way.queue.peek();
    return first !== undefined && !this.#isReady(first);
  }

  /**
   * Dispatches what can be dispatched. Call when there may be room.
   *
   * @param roomy Who may have more room than before; null: nobody. Without it,
   * anybody may.
   */
  pump(roomy?: Worker | null): void {
    if (roomy !== null) this.#placement.changed(roomy);
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    do {
      this.#again = false;
      this.#placement.refresh();
      if (!this.#returned.isEmpty) this.#pumpReturned();
      else this.#placement.releaseAll();
      this.#pumpWays();
    } while (this.#again);
    this.#busy = false;
    // Whoever is woken first may take all the room that is left.
    const ways = this.#ways;
    const first = this.#ahead === null ? 0 : ways.indexOf(this.#ahead) + 1;
    for (let i = 0; i < ways.length; i++) {
      ways[(first + i) % ways.length]!.pumped();
    }
  }

  /** Who takes which item may be another now: at the next pump() all are asked for. */
  forgetAsked(): void {
    this.#placement.forgetAsked();
  }

  /**
   * Looks after reservations, and what is remembered of deaths. To be called
   * from time to time.
   *
   * @param now The time, in ms.
   */
  check(now: number): void {
    this.#deaths.tidy();
    this.#endRests(now);
    if (this.#placement.look(now)) this.pump();
  }

  /** What has rested for long enough may go, if it still waits. */
  #endRests(now: number): void {
    const rested: Item[] = [];
    for (const [entry, since] of this.#resting) {
      if (since < 0) this.#resting.set(entry, now);
      else if (now - since >= REST_MS) rested.push(entry);
    }
    if (rested.length === 0) return;
    for (const entry of rested) this.#resting.delete(entry);
    this.requeue(rested);
  }

  /** A worker settled an item with a result. */
  result(worker: Worker, entry: Item, value: unknown, bytes: number): void {
    if (!this.#settle(worker, entry)) return;
    this.settled++;
    this.#tracer?.settled(entry, null);
    entry.way.result(entry, value, bytes);
    this.#checkIdle();
  }

  /** A worker settled an item without a result. */
  done(worker: Worker, entry: Item): void {
    if (!this.#settle(worker, entry)) return;
    this.settled++;
    this.#tracer?.settled(entry, null);
    entry.way.done(entry);
    this.#checkIdle();
  }

  /** A worker settled an item with an error. */
  error(worker: Worker, entry: Item, error: Error): void {
    if (!this.#settle(worker, entry, true)) return;
    this.#failed(entry, error);
  }

  /** An item fails, or isn't wanted any more, wherever it is. */
  fail(entry: Item, error: Error): void {
    if (entry.state === SETTLED) return;
    this.#close(entry);
    this.#failed(entry, error);
    this.#pumpSoon();
  }

  /** An item isn't wanted any more; nobody is told but who holds it. */
  discard(entry: Item): void {
    if (entry.state === SETTLED) return;
    this.#close(entry);
    this.#tracer?.cancelled(entry);
    this.#checkIdle();
    this.#pumpSoon();
  }

  /**
   * The same of several, in the order of their ids, the last first: a worker that
   * stops what it executes begins the next item, which must not be one of those
   * that it is about to be told of.
   */
  discardAll(entries: readonly Item[]): void {
    for (const entry of entries.toReversed()) this.discard(entry);
  }

  /** A worker hands an item back that it has not begun. */
  handBack(worker: Worker, entries: readonly Item[]): void {
    const returned: Item[] = [];
    for (const entry of entries) {
      entry.release(worker);
      // Also where it waits, or is at another, since this one was suspect.
      entry.attempts--;
      if (entry.state !== IN_FLIGHT || isTrusted(entry)) continue;
      returned.push(entry);
    }
    worker.isAlone = false;
    this.#return(worker, returned, "left");
  }

  /**
   * A worker is gone: what it held goes back to the front of the queue.
   *
   * @param worker The worker.
   * @param death How it died, if it is to be blamed.
   */
  removeWorker(worker: Worker, death: Blame | null): void {
    const i = this.#workers.indexOf(worker);
    if (i < 0) return;
    this.#workers.splice(i, 1);
    this.places = placesFor(this.#workers.length);
    this.#placement.left(worker);
    const blamed = death === null
      ? []
      : worker.inFlight.oldest(worker.concurrency).filter((e) =>
        // Only the first blame may be mistaken.
        e.state !== SETTLED && (e.blames === null || worker.isAlone)
      );
    if (blamed.length > 0) {
      // A suspect's may wait already.
      this.#returned.change(blamed, () => this.#deaths.blame(blamed, death!));
    }
    const poison = blamed.filter((e) =>
      e.blames!.length >= this.#options.maxDeliveries
    );
    const returned: Item[] = [];
    for (const [, entry] of worker.inFlight.entries()) {
      entry.release(worker);
      if (entry.state !== IN_FLIGHT || isTrusted(entry)) continue;
      if (!poison.includes(entry)) returned.push(entry);
    }
    for (const entry of blamed) {
      // Also a suspect's, which waits already.
      if (this.#isLastTry(entry) && !isTrusted(entry)) this.#rest(entry);
    }
    this.#return(worker, returned, death === null ? "left" : "lost");
    for (const entry of poison) {
      const attempts = entry.blames!.map(({ worker, at, reason }) => ({
        worker,
        at,
        reason,
      }));
      this.fail(entry, new PoisonItemError(attempts));
    }
    this.pump(null);
  }

  /** A worker is suspect: others may take what it holds. */
  suspect(worker: Worker): void {
    const returned: Item[] = [];
    for (const [, entry] of worker.inFlight.entries()) {
      if (entry.state === IN_FLIGHT && !isTrusted(entry)) returned.push(entry);
    }
    this.#return(worker, returned, "suspect");
    this.pump(null);
  }

  /** A suspect is heard again: what nobody else took stays with it. */
  trust(worker: Worker): void {
    this.#placement.forgetAsked();
    let count = 0;
    for (const [, entry] of worker.inFlight.entries()) {
      if (entry.state === WAITING && entry.isAt(worker)) {
        entry.state = IN_FLIGHT;
        this.waiting--;
        count++;
        this.#letGo(entry);
      }
    }
    this.#returned.tidy(
      count,
      (entry) => entry.state === WAITING && !this.#held.has(entry),
    );
    this.pump(worker);
  }

  /**
   * A handler failed: the item waits, apart, until it is tried again. False if
   * there is no need to: it is on its way again already.
   */
  hold(worker: Worker, entry: Item): boolean {
    worker.isAlone = false;
    this.#placement.gotRoom(worker);
    entry.release(worker);
    if (entry.state !== IN_FLIGHT || isTrusted(entry)) return false;
    entry.state = WAITING;
    entry.startedAt = 0;
    this.waiting++;
    this.progress++;
    this.#held.add(entry);
    return true;
  }

  /** Items that waited apart go back to the queue. */
  requeue(entries: readonly Item[]): void {
    this.#putBack(entries);
    this.pump(null);
  }

  #putBack(entries: readonly Item[]): void {
    this.#placement.forgetAsked();
    this.#returned.add(
      entries.filter((e) => this.#held.delete(e) && e.state === WAITING),
    );
  }

  /**
   * Every item that isn't settled, in the order of their ids.
   *
   * @param of Only those of this way: others' queues aren't looked through.
   */
  unfinished(of?: Way): Item[] {
    if (this.alive === 0) return [];
    const all = new Set<Item>();
    const add = (entry: Item) => {
      if (entry.state === SETTLED) return;
      if (of === undefined || entry.way === of) all.add(entry);
    };
    this.checking.forEach(add);
    for (const worker of this.#workers) {
      for (const [, entry] of worker.inFlight.entries()) add(entry);
    }
    for (const entry of this.#returned) add(entry);
    this.#passed.forEach(add);
    this.#held.forEach(add);
    for (const way of of === undefined ? this.#ways : [of]) {
      for (const entry of way.queue) add(entry);
    }
    return [...all].sort((a, b) => a.id - b.id);
  }

  /** False if it was settled before: a duplicate. */
  #settle(worker: Worker, entry: Item, isError = false): boolean {
    this.progress++;
    // Whoever is alone holds one item; its blame may have been taken back.
    worker.isAlone = false;
    this.#placement.gotRoom(worker);
    entry.release(worker);
    if (entry.state === SETTLED) {
      // An error is how a cancelled item is answered.
      if (isError) return false;
      this.duplicates++;
      this.#options.events.onDuplicate(worker, entry.id);
      return false;
    }
    this.#close(entry);
    return true;
  }

  #close(entry: Item): void {
    if (entry.state === WAITING) {
      this.waiting--;
      this.#letGo(entry);
    }
    entry.state = SETTLED;
    this.alive--;
    if (entry.holder !== null) {
      entry.holder.cancel(entry.delivery);
      for (const { worker, delivery } of entry.copies ?? []) {
        worker.cancel(delivery);
      }
    }
  }

  #letGo(entry: Item): void {
    if (!this.#held.delete(entry)) return;
    this.#resting.delete(entry);
    this.#options.events.onLetGo(entry);
  }

  /** Whether it has ended more than one process, and the next is its verdict. */
  #isLastTry({ blames }: Item): boolean {
    return blames!.length > 1 &&
      blames!.length === this.#options.maxDeliveries - 1 &&
      blames!.at(-1)!.instance !== null;
  }

  /**
   * One cut of the network ends many connections, one after the other, and an
   * item may go from each to the next. By the time it goes on, all of them have
   * ended, or their processes are back and the blames are taken back.
   */
  #rest(entry: Item): void {
    if (this.#held.has(entry)) return; // it waits to be tried again anyway
    this.#held.add(entry);
    this.#resting.set(entry, -1);
  }

  /** What items held up that are gone may go now: once for all of this turn. */
  #pumpSoon(): void {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    queueMicrotask(() => {
      this.#isPumpDue = false;
      this.pump(null);
    });
  }

  #failed(entry: Item, error: Error): void {
    this.failed++;
    this.#tracer?.settled(entry, error);
    const { id, item, attempts } = entry;
    const failure = new ItemFailure(item, { id, error, attempts });
    this.#options.events.onFailed(failure);
    entry.way.failed(entry, failure);
    this.#checkIdle();
  }

  #checkIdle(): void {
    if (this.alive === 0) this.#options.events.onIdle();
  }

  #return(worker: Worker, entries: Item[], cause: RedeliveryCause): void {
    this.#placement.forgetAsked();
    if (entries.length === 0) return;
    for (const entry of entries) {
      entry.state = WAITING;
      this.#tracer?.returned(entry, worker, cause);
    }
    this.waiting += entries.length;
    this.#returned.add(entries.filter((entry) => !this.#held.has(entry)));
    this.redelivered += entries.length;
    this.#options.events.onRedelivered(worker, entries.map((e) => e.id), cause);
  }

  #pumpReturned(): void {
    const passed = this.#passed, placement = this.#placement;
    placement.beginRound();
    for (;;) {
      const entry = this.#returned.take(placement.full);
      if (entry === null) break;
      passed.push(entry);
      // Where a suspect was heard, it may have been tried there since.
      const isHere = entry.state === WAITING && !this.#held.has(entry);
      if (!isHere || this.#dispatch(entry)) passed.pop();
      else placement.passed(entry);
    }
    // In the order in which they cost nothing to be put back.
    const kept = passed.splice(0).reverse();
    this.#returned.add(kept.filter((entry) => entry.state === WAITING));
    if (placement.endRound()) this.#pumpReturned();
  }

  #pumpWays(): void {
    const ways = this.#ways;
    /** Whether no worker has room for items of `submit()` and `map()`. */
    let isFull = false;
    for (let idle = 0; idle < ways.length;) {
      if (this.#turn >= ways.length) this.#turn = 0;
      const way = ways[this.#turn++]!;
      if (isFull && way.kind === ItemKind.CALL) {
        idle++;
        continue;
      }
      let entry = way.queue.peek();
      while (entry !== undefined && entry.state !== WAITING) {
        way.queue.shift();
        entry = way.queue.peek();
      }
      if (entry === undefined || !way.hasPlace()) {
        idle++;
        continue;
      }
      if (!this.#dispatch(entry)) {
        idle++;
        // Who has room for a call has room for anything: where there was none,
        // of a thousand map()s the others needn't ask.
        isFull ||= !this.#placement.byItem && this.#isReady(entry);
        continue;
      }
      // Whoever was told of a failure may have sent more, and tidied the queue.
      if (way.queue.peek() === entry) way.queue.shift();
      idle = 0;
    }
  }

  /** An item fails before it could be sent, or sent again. */
  #refuse(entry: Item, error: Error): void {
    this.hasMore = false;
    this.#close(entry);
    this.progress++;
    this.#place(entry);
    this.#failed(entry, error);
  }

  /** The schema has made up its mind. */
  #checked(entry: Item, error: Error | null): void {
    if (entry.state !== WAITING) return;
    if (error !== null) this.#refuse(entry, error);
    this.pump(null);
  }

  /** True if the item needs no place in a queue any more. */
  #dispatch(entry: Item): boolean {
    if (!this.#isReady(entry)) return false;
    for (;;) {
      let worker: Worker | null;
      try {
        worker = this.#placement.pick(entry);
        if (worker === null) return false;
        // Whoever picked it may have cancelled the item.
        if (entry.state === SETTLED) return true;
        // False: its bytes don't fit there now, which hasRoom then tells.
        if (!worker.deliver(entry)) continue;
      } catch (error) {
        // Whatever threw may have cancelled the item before.
        if (entry.state === SETTLED) return true;
        this.#refuse(entry, toError(error));
        return true;
      }
      if (entry.state === SETTLED) {
        // A getter of the item has cancelled it. Its own number may be that of
        // another copy.
        worker.cancel(worker.inFlight.next - 1);
        return true;
      }
      this.waiting--;
      this.progress++;
      this.hasMore = worker.hasMore;
      entry.state = IN_FLIGHT;
      entry.startedAt = 0;
      if (entry.blames !== null) worker.isAlone = true;
      entry.attempts++;
      this.#tracer?.dispatched(entry, worker);
      this.#place(entry);
      return true;
    }
  }

  /** Whether it has passed the schema, if there is one. */
  #isReady(entry: Item): boolean {
    return this.#schema === null || this.#schema.isReady(entry);
  }

  /** The way hears of the first dispatch, and of no other. */
  #place(entry: Item): void {
    if (entry.isPlaced) return;
    entry.isPlaced = true;
    entry.way.dispatched(entry);
  }
}

/** Whether a worker holds it of which something was heard lately. */
export function isTrusted(entry: Item): boolean {
  return entry.holder !== null && entry.holders().some((w) => !w.isSuspect);
}
