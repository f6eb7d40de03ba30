/**
 * One `map()`: a source of items on one side, an iterator of results on the
 * other, and a window between them that pushes back.
 *
 * @module
 */

import type { Delivery, Item, Way } from "./delivery.ts";
import type { ItemFailure } from "./errors.ts";
import { ItemKind } from "./frame.ts";
import { SETTLED } from "./in_flight.ts";
import { DEFAULTS, type MapOptions, type MapOutcome } from "./options.ts";
import { Queue } from "./queue.ts";

/** What a run needs of its server. */
export interface MapHost {
  /** Where items go. */
  readonly delivery: Delivery;
  /** Bytes of unread results above which nothing is dispatched. */
  readonly maxBufferedBytes: number;
  /** The run is over. */
  onMapEnd(run: MapRun): void;
}

type Source = Iterable<unknown> | AsyncIterable<unknown>;
type Result = IteratorResult<unknown, undefined>;

/** A result that waits for its turn. */
interface Slot {
  value: unknown;
  bytes: number;
  /** Failed, and its failure was told: it is passed over. */
  skip: boolean;
  /** Failed: the iterator throws when it gets here. */
  error?: unknown;
}

const DONE: Result = { value: undefined, done: true };

/** One `map()`. */
export class MapRun implements Way, AsyncIterableIterator<unknown, undefined> {
  readonly kind: number = ItemKind.CALL;
  readonly queue: Queue<Item> = new Queue();
  readonly #host: MapHost;
  readonly #source: Source;
  readonly #options: MapOptions;
  readonly #window: number;
  readonly #ordered: boolean;
  readonly #alive = new Set<Item>();
  /** Ordered: results by index, from the next to be yielded on. */
  readonly #slots: (Slot | null)[];
  /** Unordered: results as they came. */
  readonly #ready = new Queue<Slot>();
  readonly #waiters = new Queue<PromiseWithResolvers<Result>>();
  #iterator: Iterator<unknown> | AsyncIterator<unknown> | null = null;
  /** Items taken from the source. */
  #taken = 0;
  /** Results yielded or passed over: the window counts from here. */
  #yielded = 0;
  #bytes = 0;
  /** Nothing more is taken from the source. */
  #sourceDone = false;
  /** The source has ended by itself. */
  #exhausted = false;
  #feeding = false;
  #room: (() => void) | null = null;
  #state: "new" | "running" | "over" = "new";
  #error: { reason: unknown } | null = null;
  readonly #onEntry = (entry: Item) => this.#alive.add(entry);
  readonly #onAbort = () => this.stop(this.#options.signal!.reason);

  constructor(source: Source, options: MapOptions, host: MapHost) {
    this.#source = source;
    this.#options = options;
    this.#host = host;
    this.#window = options.window ?? DEFAULTS.window;
    this.#ordered = options.ordered ?? true;
    let size = 1;
    while (size < this.#window) size *= 2;
    this.#slots = this.#ordered ? new Array(size).fill(null) : [];
    const { signal } = options;
    if (signal?.aborted) this.stop(signal.reason);
    else signal?.addEventListener("abort", this.#onAbort);
  }

  /** Whether nothing more comes of it. */
  get isOver(): boolean {
    return this.#state === "over";
  }

  hasPlace(): boolean {
    return this.#bytes <= this.#host.maxBufferedBytes;
  }

  /** The next result. */
  next(): Promise<Result> {
    if (this.#state === "new") {
      this.#state = "running";
      this.#feed();
    }
    const slot = this.#shift();
    if (slot !== null) {
      return Promise.resolve({ value: slot.value, done: false });
    }
    if (this.#error !== null) return this.#throw();
    if (this.#state === "over") return Promise.resolve(DONE);
    const waiter = Promise.withResolvers<Result>();
    this.#waiters.push(waiter);
    return waiter.promise;
  }

  /** The consumer stops early: what is under way is cancelled. */
  async return(): Promise<Result> {
    await this.#close();
    return DONE;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Ends with an error at once. */
  stop(reason: unknown): void {
    if (this.#state === "over") return;
    this.#error ??= { reason };
    this.#close().catch(() => {});
  }

  /** No more items are taken from the source; it ends with an error if it had any. */
  finish(error: unknown): void {
    if (this.#state === "over" || this.#sourceDone) return;
    if (this.#state === "new") this.stop(error);
    else {
      this.#endSource(error);
      this.#returnSource().catch(() => {});
      this.#advance();
    }
  }

  dispatched(_entry: Item): void {}

  result(entry: Item, value: unknown, bytes: number): void {
    this.#settle(entry, {
      value: this.#options.settled
        ? { index: entry.index, item: entry.item, result: value }
        : value,
      bytes,
      skip: false,
    });
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
      this.#settle(entry, { value: outcome, bytes: 0, skip: false });
    } else if (this.#options.onFailure !== undefined) {
      try {
        this.#options.onFailure(failure);
      } catch (error) {
        this.stop(error);
        return;
      }
      this.#settle(entry, { value: undefined, bytes: 0, skip: true });
    } else {
      this.#endSource(null);
      this.#settle(entry, {
        value: undefined,
        bytes: 0,
        skip: false,
        error: failure,
      });
    }
  }

  pumped(): void {
    if (this.#room !== null && this.#hasRoom()) {
      const wake = this.#room;
      this.#room = null;
      wake();
    }
  }

  #hasRoom(): boolean {
    return this.#taken - this.#yielded < this.#window &&
      this.#host.delivery.hasRoom(this);
  }

  /** Takes items from the source as long as there is room for them. */
  async #feed(): Promise<void> {
    const { delivery } = this.#host;
    const source = this.#source;
    this.#feeding = true;
    try {
      const isAsync = Symbol.asyncIterator in source;
      const iterator = this.#iterator = isAsync
        ? source[Symbol.asyncIterator]()
        : source[Symbol.iterator]();
      for (;;) {
        while (this.#running && !this.#hasRoom()) {
          await new Promise<void>((resolve) => this.#room = resolve);
        }
        if (!this.#running) break;
        const step = isAsync
          ? await (iterator as AsyncIterator<unknown>).next()
          : (iterator as Iterator<unknown>).next();
        if (step.done) this.#exhausted = true;
        if (!this.#running) break;
        if (step.done) {
          this.#endSource(null);
          break;
        }
        delivery.offer(step.value, this, this.#taken++, this.#onEntry);
      }
    } catch (error) {
      // The source failed: what it gave before is finished first.
      this.#exhausted = true;
      if (this.#running) this.#endSource(error);
    }
    this.#feeding = false;
    this.#advance();
  }

  get #running(): boolean {
    return this.#state === "running" && !this.#sourceDone;
  }

  #endSource(error: unknown): void {
    this.#sourceDone = true;
    if (error !== null) this.#error ??= { reason: error };
    const wake = this.#room;
    this.#room = null;
    wake?.();
  }

  #settle(entry: Item, slot: Slot): void {
    this.#alive.delete(entry);
    if (this.#state === "over") return;
    this.#bytes += slot.bytes;
    if (this.#ordered) {
      this.#slots[entry.index & (this.#slots.length - 1)] = slot;
    } else this.#ready.push(slot);
    if (this.#waiters.length > 0) this.#advance();
  }

  /** The next result to be yielded, if it is here. */
  #shift(): Slot | null {
    for (;;) {
      let slot: Slot | null;
      if (this.#ordered) {
        const i = this.#yielded & (this.#slots.length - 1);
        slot = this.#slots[i]!;
        this.#slots[i] = null;
      } else slot = this.#ready.shift() ?? null;
      if (slot === null) break;
      if (slot.error !== undefined) {
        this.stop(slot.error);
        return null;
      }
      this.#bytes -= slot.bytes;
      this.#yielded++;
      if (!slot.skip) {
        this.#wake();
        return slot;
      }
    }
    this.#wake();
    if (this.#sourceDone && this.#yielded === this.#taken) this.#end();
    return null;
  }

  /** Yields what can be yielded to whoever waits. */
  #advance(): void {
    while (this.#waiters.length > 0) {
      const slot = this.#shift();
      if (slot === null) break;
      this.#waiters.shift()!.resolve({ value: slot.value, done: false });
    }
    if (
      this.#sourceDone && this.#yielded === this.#taken && !this.#feeding
    ) this.#end();
  }

  /** Lets the feeder go on, not for every single place. */
  #wake(): void {
    if (this.#room === null) return;
    const used = this.#taken - this.#yielded;
    if (
      used <= this.#window - Math.min(64, this.#window) ||
      this.#alive.size === 0 || this.#waiters.length > 0
    ) this.pumped();
  }

  #throw(): Promise<Result> {
    const { reason } = this.#error!;
    this.#error = null;
    this.#state = "over";
    return Promise.reject(reason);
  }

  #end(): void {
    if (this.#state === "over") return;
    this.#state = "over";
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#host.onMapEnd(this);
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
    const alive = [...this.#alive];
    this.#alive.clear();
    this.#endSource(null);
    this.#slots.fill(null);
    this.#ready.clear();
    this.#bytes = 0;
    const { delivery } = this.#host;
    this.#end();
    for (const entry of alive) {
      if (entry.state !== SETTLED) delivery.discard(entry);
    }
    this.queue.clear();
    await this.#returnSource();
  }

  /** Tells the source that no more is wanted, once. */
  async #returnSource(): Promise<void> {
    if (this.#exhausted) return;
    this.#exhausted = true;
    await this.#iterator?.return?.();
  }
}
