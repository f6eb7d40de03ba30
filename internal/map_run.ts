/**
 * One `map()`: a source of items on one side, an iterator of results on the
 * other, and a window between them that pushes back.
 *
 * @module
 */

import type { Delivery, Item, Way } from "./delivery.ts";
import type { ItemFailure } from "./errors.ts";
import { ItemKind } from "./frame.ts";
import {
  DEFAULTS,
  kindOf,
  type MapOptions,
  type MapOutcome,
} from "./options.ts";
import { settledWithin } from "./promises.ts";
import { Queue } from "./queue.ts";
import {
  ArrivalWindow,
  EMPTY,
  ReorderWindow,
  type ResultWindow,
} from "./reorder_window.ts";
import { Turns } from "./turns.ts";

/** What a run needs of its server. */
export interface MapHost {
  /** Where items go. */
  readonly delivery: Delivery;
  /** Bytes of unread results above which nothing is dispatched. */
  readonly maxBufferedBytes: number;
  /** The first result is asked for. */
  onMapStart(run: MapRun): void;
  /** The run is over. */
  onMapEnd(run: MapRun): void;
}

type Source = Iterable<unknown> | AsyncIterable<unknown>;
type Result = IteratorResult<unknown, undefined>;

/** Stands for an item whose failure was told to `onFailure`: passed over. */
const SKIP = Symbol("skip");
/** Stands for an item that failed: the iterator throws when it gets here. */
class Thrown {
  readonly error: unknown;
  constructor(error: unknown) {
    this.error = error;
  }
}

/** Items of the source, and results, before the clock is looked at. */
const MAX_STEPS = 8, MAX_READS = 64;
/** Items that may wait for their turn beside other ways' items. */
const MAX_WAITING = 64;
/** How long whoever leaves waits for a source that waits itself, in ms. */
const SOURCE_MS = 1000;

const DONE: Result = { value: undefined, done: true };

/** One `map()`. */
export class MapRun implements Way, AsyncIterableIterator<unknown, undefined> {
  readonly kind: number = ItemKind.CALL;
  readonly queue: Queue<Item> = new Queue();
  readonly #host: MapHost;
  readonly #source: Source;
  readonly #options: MapOptions;
  readonly #window: number;
  /** Results that weren't yielded. */
  readonly #results: ResultWindow;
  readonly #waiters = new Queue<PromiseWithResolvers<Result>>();
  #iterator: Iterator<unknown> | AsyncIterator<unknown> | null = null;
  /** Items taken from the source. */
  #taken = 0;
  /** Of them, those settled. */
  #settled = 0;
  /** Results yielded or passed over: the window counts from here. */
  #yielded = 0;
  /** Items wait until some of them are read. */
  #starved = false;
  /** Nothing more is taken from the source. */
  #sourceDone = false;
  /** The source has ended by itself, or was told to. */
  #exhausted = false;
  /** What kind of source was asked for an item and has not answered. */
  #pulling: "sync" | "async" | null = null;
  #room: (() => void) | null = null;
  /** The source's turns, and those of whoever reads. */
  readonly #turns = new Turns(MAX_STEPS);
  readonly #readTurns = new Turns(MAX_READS);
  #state: "new" | "running" | "over" = "new";
  #error: { reason: unknown } | null = null;
  readonly #onAbort = () => this.stop(this.#options.signal!.reason);

  constructor(source: Source, options: MapOptions, host: MapHost) {
    this.#source = source;
    this.#options = options;
    this.#host = host;
    this.#window = options.window ?? DEFAULTS.window;
    this.#results = options.ordered ?? true
      ? new ReorderWindow()
      : new ArrivalWindow();
    const { signal } = options;
    if (signal?.aborted) this.stop(signal.reason);
    else signal?.addEventListener("abort", this.#onAbort);
  }

  /** Whether nobody has asked for a result yet. */
  get isNew(): boolean {
    return this.#state === "new";
  }

  /** Whether nothing more comes of it. */
  get isOver(): boolean {
    return this.#state === "over";
  }

  hasPlace(): boolean {
    this.#starved = this.#results.bytes > this.#host.maxBufferedBytes;
    return !this.#starved;
  }

  /** The next result. */
  next(): Promise<Result> {
    if (this.#state === "new") {
      this.#state = "running";
      this.#host.onMapStart(this);
      this.#feed();
    }
    let isDue = false;
    // Whoever waits already waits for a turn of the event loop, or for a result.
    if (this.#waiters.length === 0) {
      isDue = this.#readTurns.isDue();
      const value = isDue ? EMPTY : this.#shift();
      if (value !== EMPTY) {
        this.#wake();
        this.#endIfDone(); // whoever knows that it was the last asks no more
        return Promise.resolve({ value, done: false });
      }
    }
    if (this.#state === "over") {
      return this.#error === null ? Promise.resolve(DONE) : this.#throw();
    }
    const waiter = Promise.withResolvers<Result>();
    this.#waiters.push(waiter);
    if (isDue) this.#readTurns.next(() => this.#advance());
    this.#wake();
    return waiter.promise;
  }

  /** The consumer stops early: what is under way is cancelled. */
  async return(): Promise<Result> {
    const isPulling = this.#pulling === "async";
    this.#error = null; // nobody is there any more to be told
    const returned = this.#close();
    if (!isPulling) await returned;
    else {
      // A generator answers in order: first it must come to its next yield, and
      // whoever leaves a loop isn't held up by a source that never does.
      await settledWithin(returned, SOURCE_MS);
    }
    return DONE;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Ends with an error at once, whatever else it would have ended with. */
  stop(reason: unknown): void {
    if (this.#state === "over") return;
    this.#error = { reason };
    this.#close().catch(() => {});
  }

  /** No more items are taken from the source; it ends with an error if it had any. */
  finish(error: unknown): void {
    if (this.#state === "over" || this.#sourceDone) return;
    if (this.#state === "new") this.stop(error);
    else {
      this.#endSource({ reason: error });
      this.#returnSource().catch(() => {});
      this.#advance();
    }
  }

  dispatched(_entry: Item): void {}

  result(entry: Item, value: unknown, bytes: number): void {
    this.#settle(
      entry,
      this.#options.settled
        ? { index: entry.index, item: entry.item, result: value }
        : value,
      bytes,
    );
  }

  done(entry: Item): void {
    this.result(entry, undefined, 0);
  }

  failed(entry: Item, error: Error): void {
    const failure = error as ItemFailure;
    if (this.#options.settled) {
      const outcome: MapOutcome<unknown, unknown> = {
        index: entry.index,
        item: entry.item,
        failure,
      };
      this.#settle(entry, outcome, 0);
    } else if (this.#options.onFailure !== undefined) {
      try {
        this.#options.onFailure(failure);
      } catch (error) {
        this.stop(error);
        return;
      }
      this.#settle(entry, SKIP, 0);
    } else {
      this.#endSource(null);
      this.#settle(entry, new Thrown(failure), 0);
    }
  }

  pumped(): void {
    if (this.#room !== null && this.#hasRoom()) {
      const wake = this.#room;
      this.#room = null;
      wake();
    }
  }

  /**
   * One item may wait: so an empty source ends, and a stall is seen. Beside
   * others more of them do: ways have their turns item by item. And while the
   * schema looks at the first.
   */
  #hasRoom(): boolean {
    const { length } = this.queue;
    if (this.#taken - this.#yielded >= this.#window) return false;
    if (length === 0) return true;
    const { delivery } = this.#host;
    return length < MAX_WAITING &&
      (delivery.isContended(this) || delivery.awaitsSchema(this));
  }

  /** Takes items from the source as long as there is room for them. */
  async #feed(): Promise<void> {
    const { delivery } = this.#host;
    const source = this.#source;
    try {
      // Text is an iterable too, and no object.
      const isAsync = typeof source === "object" &&
        Symbol.asyncIterator in source;
      const iterator = this.#iterator = isAsync
        ? source[Symbol.asyncIterator]()
        : (source as Iterable<unknown>)[Symbol.iterator]();
      for (;;) {
        while (this.#running && !this.#hasRoom()) {
          await new Promise<void>((resolve) => this.#room = resolve);
        }
        // Items that fail at once need no room, and might never let go.
        if (this.#turns.isDue()) {
          await new Promise<void>((resolve) => this.#turns.next(resolve));
        }
        if (!this.#running) break;
        this.#pulling = isAsync ? "async" : "sync";
        const step = isAsync
          ? await (iterator as AsyncIterator<unknown>).next()
          : (iterator as Iterator<unknown>).next();
        this.#pulling = null;
        if (typeof step !== "object" || step === null) {
          throw new TypeError(
            `Cannot map: the source's next() returned ${
              kindOf(step)
            }, expected an object`,
          );
        }
        if (step.done) this.#exhausted = true;
        if (!this.#running) {
          // A generator that has ended it all itself can be closed only now.
          this.#returnSource().catch(() => {});
          break;
        }
        if (step.done) {
          this.#endSource(null);
          break;
        }
        const entry = delivery.offer(step.value, this, this.#taken++);
        if (this.isOver) delivery.discard(entry); // a getter of the item did it
      }
    } catch (error) {
      // The source failed: what it gave before is finished first.
      this.#exhausted = true;
      if (this.#running) this.#endSource({ reason: error });
    }
    this.#advance();
  }

  get #running(): boolean {
    return this.#state === "running" && !this.#sourceDone;
  }

  #endSource(error: { reason: unknown } | null): void {
    this.#sourceDone = true;
    this.#error ??= error;
    const wake = this.#room;
    this.#room = null;
    wake?.();
    this.#turns.hurry();
  }

  #settle(entry: Item, value: unknown, bytes: number): void {
    this.#settled++;
    if (this.#state === "over") return;
    this.#results.put(entry.index, value, bytes);
    if (this.#waiters.length > 0) this.#advance();
  }

  /** The next result to be yielded; EMPTY if it isn't here. */
  #shift(): unknown {
    for (;;) {
      const value = this.#results.take();
      if (value === EMPTY) break;
      if (value instanceof Thrown) {
        // It comes before whatever has ended the source.
        this.stop(value.error);
        return EMPTY;
      }
      this.#yielded++;
      if (value !== SKIP) return value;
    }
    this.#endIfDone();
    return EMPTY;
  }

  /** Yields what can be yielded to whoever waits. */
  #advance(): void {
    while (this.#waiters.length > 0) {
      const value = this.#shift();
      if (value === EMPTY) break;
      // Now, not at next(): while the reader waited, it kept nobody waiting.
      this.#readTurns.begin();
      this.#waiters.shift()!.resolve({ value, done: false });
      // Last: what may go now may fail at once, and then it is here again.
      this.#wake(true);
    }
    this.#wake();
    this.#endIfDone();
  }

  /** Lets the feeder go on, not for every single place. */
  #wake(isAsked: boolean = this.#waiters.length > 0): void {
    if (this.#starved && this.#results.bytes <= this.#host.maxBufferedBytes) {
      this.#starved = false;
      this.#host.delivery.pump();
    }
    if (this.#room === null) return;
    const used = this.#taken - this.#yielded;
    if (
      used <= this.#window - Math.min(64, this.#window) ||
      this.#settled === this.#taken || isAsked
    ) this.pumped();
  }

  #throw(): Promise<Result> {
    const { reason } = this.#error!;
    this.#error = null;
    return Promise.reject(reason);
  }

  /** There is nothing left to be yielded. */
  #endIfDone(): void {
    if (this.#sourceDone && this.#yielded === this.#taken) this.#end();
  }

  #end(): void {
    if (this.#state === "over") return;
    this.#state = "over";
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#host.onMapEnd(this);
    this.#readTurns.hurry();
    for (;;) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) break;
      if (this.#error === null) waiter.resolve(DONE);
      else {
        waiter.reject(this.#error.reason);
        this.#error = null;
      }
    }
  }

  async #close(): Promise<void> {
    if (this.#state === "over") return;
    this.#endSource(null);
    this.#results.clear();
    const { delivery } = this.#host;
    const alive = this.#settled === this.#taken
      ? []
      : delivery.unfinished(this);
    this.#end();
    delivery.discardAll(alive);
    this.queue.clear();
    await this.#returnSource();
  }

  /** Tells the source that no more is wanted, once. */
  async #returnSource(): Promise<void> {
    if (this.#exhausted || this.#pulling === "sync") return;
    this.#exhausted = true;
    await this.#iterator?.return?.();
  }
}
