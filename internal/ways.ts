/**
 * The ways in of a server: the channel itself (`send()` and `writable`), and
 * `submit()`. Each has its own queue, and its own places for results.
 *
 * @module
 */

import type { Outlet } from "./channel.ts";
import { deferred, rejected } from "./promises.ts";
import type { Delivery, Item, Way } from "./delivery.ts";
import { type ItemFailure, ItemTimeoutError } from "./errors.ts";
import { ItemKind } from "./frame.ts";
import { SETTLED, WAITING } from "./in_flight.ts";
import type { SubmitOptions } from "./options.ts";
import { Queue } from "./queue.ts";
import { timerMs } from "./timer.ts";
import { Turns } from "./turns.ts";

/** A write waits so long for a reader who never came, in ms. */
const NO_READER_MS = 5000;
/** Items that fail at once before the clock is looked at. */
const MAX_FAILURES = 64;

/** What a way needs of its server. */
export interface WayHost {
  /** Where items go. */
  readonly delivery: Delivery;
  /** Items that may wait in a queue. */
  readonly maxQueued: number;
  /** An item of the channel failed. */
  onChannelFailure(failure: ItemFailure): void;
  /** The stream into the channel has failed: nothing more will come. */
  onBroken(): void;
}

/** The error of an item that comes after the end. */
export function afterEnd(what: string): TypeError {
  return new TypeError(`Cannot ${what}: the server takes no more items`);
}

function queueFull(what: string, queued: number): RangeError {
  return new RangeError(
    `Cannot ${what}: ${queued} ${
      queued === 1 ? "item is" : "items are"
    } queued, maxQueued is reached`,
  );
}

/** Cancelled and refused items don't stay in memory. */
function dropStale(queue: Queue<Item>): void {
  const entries = [...queue];
  queue.clear();
  for (const entry of entries) {
    if (entry.state === WAITING) queue.push(entry);
  }
}

/** Options of {@linkcode ChannelWay}. */
export interface ChannelWayOptions {
  /** Where results go; null: nowhere. */
  outlet: Outlet<unknown, unknown> | null;
  /** Bytes of unread results above which nothing is dispatched. */
  maxBufferedBytes: number;
  /** Whether no worker may send a value before others are read. */
  isMute(): boolean;
}

/** `send()` and `writable`: items whose results come out of the other side. */
export class ChannelWay implements Way {
  readonly kind: number = ItemKind.VALUE;
  readonly queue: Queue<Item> = new Queue();
  readonly #host: WayHost;
  readonly #options: ChannelWayOptions;
  /** Items whose result may still come, or isn't read. */
  #places = 0;
  /** Items that wait for their first dispatch: the others there are stale. */
  #queued = 0;
  #starved = false;
  /** Since when somebody waits for a reader who never came, in ms. */
  #unreadAt = Infinity;
  #room: PromiseWithResolvers<void> | null = null;
  #write: { entry: Item; left: PromiseWithResolvers<void> } | null = null;
  #end: PromiseWithResolvers<void> | null = null;
  readonly #turns = new Turns(MAX_FAILURES);
  /** What is waited for behind items that fail at once. */
  #turn: Promise<void> | undefined;
  /** What later items are refused with, and whether all is given up. */
  #closed: { error: unknown; hasFailed: boolean } | null = null;

  constructor(host: WayHost, options: ChannelWayOptions) {
    this.#host = host;
    this.#options = options;
  }

  /** Whether no more items are taken. */
  get isClosed(): boolean {
    return this.#closed !== null;
  }

  /** Whether items, or whoever sends them, wait for a reader of results. */
  get isUnread(): boolean {
    const { outlet, isMute } = this.#options;
    if (outlet === null || outlet.length === 0) return false;
    // Values take no places; but a worker that may send none before others are
    // read settles no items either.
    return (this.queue.length > 0 || this.#room !== null) &&
      (!this.#isFree || isMute());
  }

  get #isFree(): boolean {
    const { outlet, maxBufferedBytes } = this.#options;
    const { delivery } = this.#host;
    return outlet === null ||
      (outlet.bytes <= maxBufferedBytes &&
        (this.#places < delivery.places ||
          this.#places < delivery.places + delivery.excess));
  }

  /** To be asked right before a dispatch: after a yes, nothing waits for a read. */
  hasPlace(): boolean {
    if (this.#isFree) {
      this.#starved = false;
      return true;
    }
    this.#starved = true;
    return false;
  }

  /** Takes an item; a promise if there is no room for another. */
  send(item: unknown): Promise<void> | undefined {
    const refused = this.#refusal();
    if (refused !== null) return refused;
    const { delivery, maxQueued } = this.#host;
    // What a schema has refused may be behind an item that waits.
    if (this.queue.length > 2 * this.#queued) dropStale(this.queue);
    if (this.#queued >= maxQueued && !delivery.hasRoom(this)) {
      return rejected(queueFull("send", this.#queued));
    }
    this.#queued++;
    const entry = delivery.offer(item, this, 0);
    if (this.#closed !== null) return this.#closedBy(entry);
    if (
      entry.state !== WAITING &&
      ((delivery.hasMore && this.#isFree) || delivery.hasRoom(this))
    ) return entry.state === SETTLED ? this.#nextTurn() : undefined;
    return (this.#room ??= deferred<void>()).promise;
  }

  /** Takes an item; a promise until it is dispatched. */
  write(item: unknown): Promise<void> | undefined {
    const refused = this.#refusal();
    if (refused !== null) return refused;
    this.#queued++;
    const entry = this.#host.delivery.offer(item, this, 0);
    if (this.#closed !== null) return this.#closedBy(entry);
    if (entry.state !== WAITING) return undefined;
    const left = deferred<void>();
    this.#write = { entry, left };
    return left.promise;
  }

  /** No more items. Resolves once nothing waits for its first dispatch. */
  end(): Promise<void> {
    if (this.#closed?.hasFailed) return rejected(this.#closed.error);
    this.#closed ??= { error: afterEnd("send"), hasFailed: false };
    if (this.#end === null) {
      this.#end = deferred<void>();
      this.#checkEnd();
    }
    return this.#end.promise;
  }

  /** Items that come from now on are refused with an error. */
  fail(error: unknown): void {
    this.#closed = { error, hasFailed: true };
    this.#room?.reject(error);
    this.#write?.left.reject(error);
    this.#end?.reject(error);
    this.#room = this.#write = null;
  }

  dispatched(entry: Item): void {
    this.#places++;
    this.#queued--;
    this.#unreadAt = Infinity; // what waits from now on hasn't waited yet
    if (entry.state !== SETTLED) this.#written(entry);
  }

  result(_entry: Item, value: unknown, bytes: number): void {
    const { outlet } = this.#options;
    if (outlet === null || outlet.isClosed) this.#places--;
    else outlet.push(value, bytes, null);
  }

  done(_entry: Item): void {
    this.#places--;
  }

  failed(entry: Item, error: Error): void {
    this.#places--;
    this.#host.onChannelFailure(error as ItemFailure);
    this.#written(entry);
  }

  /** A result was read: its place is free. Dispatch waits until many are. */
  resultRead(): void {
    this.#places--;
    if (!this.#starved) return;
    const { places, excess } = this.#host.delivery;
    if (
      this.#options.outlet!.length === 0 ||
      this.#places <= (places + excess) * 3 / 4
    ) this.#feed();
  }

  /** A value was read: its bytes are free. */
  valueRead(): void {
    if (this.#starved) this.#feed();
  }

  pumped(): void {
    if (this.#room !== null && this.#hasTurn()) {
      // An async schema may have refused the item.
      this.#room.resolve(this.#nextTurn());
      this.#room = null;
    }
    if (this.#end !== null) this.#checkEnd();
  }

  /** Where others take all room that there is, an item waits for its turn. */
  #hasTurn(): boolean {
    const { delivery } = this.#host;
    return delivery.hasRoom(this) ||
      (this.queue.length === 0 && this.#isFree && delivery.isContended(this));
  }

  /**
   * Whoever waits for a reader who never came is told so.
   *
   * @param now The time, in ms.
   */
  checkReader(now: number): void {
    const { outlet } = this.#options;
    if (outlet === null || outlet.isTaken || !this.isUnread) {
      this.#unreadAt = Infinity;
      return;
    }
    this.#unreadAt = Math.min(this.#unreadAt, now);
    if (
      now - this.#unreadAt < NO_READER_MS ||
      (this.#room === null && this.#write === null && this.#end === null)
    ) return;
    const { length } = outlet;
    const wait = length === 1 ? "1 result waits" : `${length} results wait`;
    const error = new Error(
      `Cannot write: ${wait} and nobody reads them: ` +
        'take server.readable (or iterate over the server), or set results: "discard"',
    );
    const write = this.#write;
    this.#room?.reject(error);
    this.#end?.reject(error); // what waits is still sent, if a reader comes
    this.#room = this.#write = this.#end = null;
    if (write !== null) {
      this.#host.delivery.discard(write.entry);
      write.left.reject(error);
      // A stream whose write has failed can't be written or closed any more.
      this.#host.onBroken();
    }
  }

  #written(entry: Item): void {
    if (this.#write?.entry !== entry) return;
    this.#write.left.resolve(
      entry.state === SETTLED ? this.#nextTurn() : undefined,
    );
    this.#write = null;
  }

  /** Items that fail at once take no room: whoever sends them would never wait. */
  #nextTurn(): Promise<void> | undefined {
    if (this.#turn !== undefined || !this.#turns.isDue()) return this.#turn;
    return this.#turn = new Promise((resolve) =>
      this.#turns.next(() => {
        this.#turn = undefined;
        resolve();
      })
    );
  }

  #refusal(): Promise<void> | null {
    return this.#closed === null ? null : rejected(this.#closed.error);
  }

  /**
   * The item may have failed, and the channel with it; or a getter of the item
   * has ended the channel, or given it up.
   */
  #closedBy(entry: Item): Promise<void> | undefined {
    const { error, hasFailed } = this.#closed!;
    if (!hasFailed) return undefined;
    this.#host.delivery.discard(entry);
    return rejected(error);
  }

  #feed(): void {
    this.#starved = false;
    this.#host.delivery.pump();
  }

  #checkEnd(): void {
    for (const entry of this.queue) {
      if (entry.state === WAITING) return;
    }
    this.#end?.resolve();
    // There is no next item for which the last send() would wait.
    this.#room?.resolve();
    this.#room = null;
  }
}

interface Submitted {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  cleanUp: (() => void) | null;
}

interface Signalled {
  readonly entries: Set<Item>;
  readonly onAbort: () => void;
}

/** `submit()`: items whose result is their caller's. */
export class SubmitWay implements Way {
  readonly kind: number = ItemKind.CALL;
  readonly queue: Queue<Item> = new Queue();
  readonly #host: WayHost;
  readonly #waiting = new Map<Item, Submitted>();
  /** Items by their signals: a signal looks for its listeners one by one. */
  readonly #signals = new Map<AbortSignal, Signalled>();
  /** Items that wait for their first dispatch: the others there are stale. */
  #queued = 0;
  #closed: { error: unknown } | null = null;

  constructor(host: WayHost) {
    this.#host = host;
  }

  /** Whether no more items are taken: then no other way takes any either. */
  get isClosed(): boolean {
    return this.#closed !== null;
  }

  hasPlace(): boolean {
    return true;
  }

  /** Takes an item; its result is the promise's. */
  submit(item: unknown, options: SubmitOptions): Promise<unknown> {
    if (this.#closed !== null) return Promise.reject(this.#closed.error);
    const { signal, timeoutMs } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    const { delivery, maxQueued } = this.#host;
    // Not oftener: to look through a long queue takes time.
    if (this.queue.length > 2 * this.#queued) dropStale(this.queue);
    if (this.#queued >= maxQueued && !delivery.hasRoom(this)) {
      return Promise.reject(queueFull("submit", this.#queued));
    }
    return new Promise((resolve, reject) => {
      const submitted: Submitted = { resolve, reject, cleanUp: null };
      const entry = delivery.offer(item, this, 0, (entry) => {
        this.#waiting.set(entry, submitted);
        this.#queued++;
      });
      if (!this.#waiting.has(entry)) {
        // It is settled, or a getter of the item has aborted the server.
        delivery.discard(entry);
        return;
      }
      if (signal === undefined && timeoutMs === undefined) return;
      const timer = timeoutMs === undefined || timeoutMs === Infinity
        ? undefined
        : setTimeout(
          () => delivery.fail(entry, new ItemTimeoutError(timeoutMs)),
          timerMs(timeoutMs),
        );
      if (signal !== undefined) this.#listen(signal, entry);
      submitted.cleanUp = () => {
        clearTimeout(timer);
        if (signal !== undefined) this.#forget(signal, entry);
      };
      // A getter of the item did it.
      if (signal?.aborted) this.#cancel(entry, signal.reason);
    });
  }

  #listen(signal: AbortSignal, entry: Item): void {
    let signalled = this.#signals.get(signal);
    if (signalled === undefined) {
      const entries = new Set<Item>();
      const onAbort = () => {
        // The last first, as Delivery.discardAll() does.
        for (const entry of [...entries].reverse()) {
          this.#cancel(entry, signal.reason);
        }
      };
      signal.addEventListener("abort", onAbort);
      this.#signals.set(signal, signalled = { entries, onAbort });
    }
    signalled.entries.add(entry);
  }

  #forget(signal: AbortSignal, entry: Item): void {
    const { entries, onAbort } = this.#signals.get(signal)!;
    entries.delete(entry);
    if (entries.size > 0) return;
    this.#signals.delete(signal);
    signal.removeEventListener("abort", onAbort);
  }

  /** Items that come from now on are refused with an error. */
  close(error: unknown): void {
    this.#closed ??= { error };
  }

  /** All that wait are refused too. */
  fail(error: unknown): void {
    this.#closed = { error };
    for (const [entry] of [...this.#waiting]) {
      this.#take(entry)?.reject(error);
    }
  }

  dispatched(_entry: Item): void {
    this.#queued--;
  }

  result(entry: Item, value: unknown, _bytes: number): void {
    this.#take(entry)?.resolve(value);
  }

  done(entry: Item): void {
    this.#take(entry)?.resolve(undefined);
  }

  failed(entry: Item, error: Error): void {
    if (!entry.isPlaced) this.#queued--;
    this.#take(entry)?.reject(error);
  }

  pumped(): void {}

  #cancel(entry: Item, reason: unknown): void {
    if (!entry.isPlaced) this.#queued--;
    this.#take(entry)?.reject(reason);
    this.#host.delivery.discard(entry);
  }

  #take(entry: Item): Submitted | undefined {
    const submitted = this.#waiting.get(entry);
    this.#waiting.delete(entry);
    submitted?.cleanUp?.();
    return submitted;
  }
}
