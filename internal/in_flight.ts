/**
 * The ledger: every item from the moment it is taken until it is settled, and
 * which worker holds it.
 *
 * ```text
 *             dispatch                result, error, done, ack
 *   WAITING ───────────► IN_FLIGHT ─────────────────────────────► SETTLED
 *      ▲                     │                                      ▲
 *      └─────────────────────┘ worker lost, left, or suspect        │
 *      └────────────────────────────────────────────────────────────┘
 *                      failed or cancelled while it waited
 * ```
 *
 * @module
 */

import type { PoisonAttempt } from "./errors.ts";

/** The states of an item. */
export const WAITING = 0, IN_FLIGHT = 1, SETTLED = 2;

/** Where an item came from: told what becomes of it. */
export interface Way<Worker> {
  /** `ItemKind`: whether exactly one result is waited for. */
  readonly kind: number;
  /** Whether another item may be dispatched for the first time. */
  hasPlace(): boolean;
  /** An item was dispatched for the first time. */
  dispatched(entry: Entry<Worker>): void;
  /** An item settled with a result of so many bytes. */
  result(entry: Entry<Worker>, value: unknown, bytes: number): void;
  /** An item settled without a result. */
  done(entry: Entry<Worker>): void;
  /** An item failed. */
  failed(entry: Entry<Worker>, error: Error): void;
}

/** One item on its way. */
export class Entry<Worker> {
  /** Unique on the server; ids grow in the order in which items are taken. */
  readonly id: number;
  /** The caller's value, kept until it is settled. */
  readonly item: unknown;
  /** Where it came from. */
  readonly way: Way<Worker>;
  /** Its place in its way, for those that count. */
  readonly index: number;
  /** WAITING, IN_FLIGHT or SETTLED. */
  state: number = WAITING;
  /** How often it was dispatched and not handed back. */
  attempts = 0;
  /** Whether its way was told of its first dispatch: it has a place there. */
  isPlaced = false;
  /** Its payload's size in bytes, when it is in flight. */
  bytes = 0;
  /** The worker that holds it, and the number of the delivery there. */
  holder: Worker | null = null;
  /** The number of the delivery at {@linkcode holder}. */
  delivery = -1;
  /** More workers that hold a copy. */
  copies: { worker: Worker; delivery: number }[] | null = null;
  /** The deaths that it is blamed for. */
  blames: Blame[] | null = null;
  /** Handler errors so far, for retries. */
  errors = 0;
  /** Since when it has been executed, in ms; 0 if it isn't known. */
  startedAt = 0;

  constructor(id: number, item: unknown, way: Way<Worker>, index: number) {
    this.id = id;
    this.item = item;
    this.way = way;
    this.index = index;
  }

  /** Whether a worker holds it. */
  isAt(worker: Worker): boolean {
    return this.holder === worker ||
      (this.copies !== null && this.copies.some((c) => c.worker === worker));
  }

  /** The workers that hold it. */
  holders(): Worker[] {
    if (this.holder === null) return [];
    return [this.holder, ...(this.copies ?? []).map((c) => c.worker)];
  }

  /** Whether any worker holds it. */
  get isHeld(): boolean {
    return this.holder !== null;
  }

  /** A worker was given it. */
  hold(worker: Worker, delivery: number): void {
    if (this.holder === null) {
      this.holder = worker;
      this.delivery = delivery;
    } else (this.copies ??= []).push({ worker, delivery });
  }

  /** A worker doesn't hold it any more. */
  release(worker: Worker): void {
    const { copies } = this;
    if (this.holder === worker) {
      const next = copies?.pop();
      if (copies?.length === 0) this.copies = null;
      this.holder = next?.worker ?? null;
      this.delivery = next?.delivery ?? -1;
    } else if (copies !== null) {
      this.copies = copies.filter((c) => c.worker !== worker);
      if (this.copies.length === 0) this.copies = null;
    }
  }
}

/** A death that an item is blamed for. */
export interface Blame extends PoisonAttempt {
  /** The process that died, by its instance id; null: it has not died. */
  instance: string | null;
}

/**
 * What one worker holds, by the number of the delivery: a ring, since numbers
 * are consecutive. A few that outlive a whole ring of others wait in a map.
 */
export class InFlight<Worker> {
  /** How many items the worker holds. */
  count = 0;
  /** Their payloads' sizes in all. */
  bytes = 0;
  /** The number of the next delivery. */
  next = 0;
  #slots: (Entry<Worker> | null)[] = new Array(16).fill(null);
  #oldest = 0;
  #stragglers: Map<number, Entry<Worker>> | null = null;

  /** Adds an item; its number is {@linkcode next} as it was before. */
  add(entry: Entry<Worker>): void {
    if (this.next - this.#oldest === this.#slots.length) this.#makeRoom();
    this.#slots[this.next & (this.#slots.length - 1)] = entry;
    this.next++;
    this.count++;
    this.bytes += entry.bytes;
  }

  /** Takes an item out; null if the number isn't held. */
  take(delivery: number): Entry<Worker> | null {
    const slots = this.#slots;
    let entry: Entry<Worker> | null = null;
    if (delivery >= this.#oldest && delivery < this.next) {
      const slot = delivery & (slots.length - 1);
      entry = slots[slot]!;
      slots[slot] = null;
      if (delivery === this.#oldest) this.#advance();
    } else if (this.#stragglers !== null) {
      entry = this.#stragglers.get(delivery) ?? null;
      this.#stragglers.delete(delivery);
      if (this.#stragglers.size === 0) this.#stragglers = null;
    }
    if (entry === null) return null;
    this.count--;
    this.bytes -= entry.bytes;
    return entry;
  }

  /** Takes the oldest out if its number is at most `upTo`; else null. */
  takeUpTo(upTo: number): Entry<Worker> | null {
    if (this.#stragglers !== null) {
      for (const delivery of this.#stragglers.keys()) {
        return delivery <= upTo ? this.take(delivery) : null;
      }
    }
    this.#advance();
    if (this.#oldest > upTo || this.#oldest >= this.next) return null;
    return this.take(this.#oldest);
  }

  /** The items, oldest first, with the numbers of their deliveries. */
  *entries(): IterableIterator<[number, Entry<Worker>]> {
    if (this.#stragglers !== null) yield* this.#stragglers;
    for (let i = this.#oldest; i < this.next; i++) {
      const entry = this.#slots[i & (this.#slots.length - 1)];
      if (entry) yield [i, entry];
    }
  }

  /** The oldest `count` items, oldest first. */
  oldest(count: number): Entry<Worker>[] {
    const oldest: Entry<Worker>[] = [];
    if (count <= 0) return oldest;
    for (const [, entry] of this.entries()) {
      oldest.push(entry);
      if (oldest.length === count) break;
    }
    return oldest;
  }

  #advance(): void {
    const slots = this.#slots, mask = slots.length - 1;
    let oldest = this.#oldest;
    while (oldest < this.next && slots[oldest & mask] === null) oldest++;
    this.#oldest = oldest;
  }

  /** The ring is full: it grows if items fill it, else its oldest move out. */
  #makeRoom(): void {
    const old = this.#slots, mask = old.length - 1;
    const inRing = this.count - (this.#stragglers?.size ?? 0);
    if (inRing > old.length / 4) {
      const slots: (Entry<Worker> | null)[] = new Array(old.length * 2)
        .fill(null);
      for (let i = this.#oldest; i < this.next; i++) {
        slots[i & (slots.length - 1)] = old[i & mask]!;
      }
      this.#slots = slots;
      return;
    }
    const half = this.#oldest + old.length / 2;
    for (let i = this.#oldest; i < half; i++) {
      const entry = old[i & mask]!;
      if (entry === null) continue;
      (this.#stragglers ??= new Map()).set(i, entry);
      old[i & mask] = null;
    }
    this.#oldest = half;
    this.#advance();
  }
}
