/**
 * Items at a worker, until a runner begins them.
 *
 * @module
 */

import { Queue } from "./queue.ts";
import type { TraceContext } from "./trace_context.ts";

/** An item at a worker. */
export interface WorkItem {
  /** The number of the delivery. */
  readonly delivery: number;
  /** The item's id. */
  readonly id: number;
  /** How often it was delivered. */
  readonly attempt: number;
  /** `ItemKind`. */
  readonly kind: number;
  /** The item itself. */
  readonly value: unknown;
  /** The span that its execution belongs to, where tracing is on. */
  readonly trace?: TraceContext;
}

/**
 * Items that wait for a runner. Their deliveries are in order, so that one is
 * found quickly, among any number of others; once cancelled, it is passed over.
 */
export class WaitingItems {
  readonly #items = new Queue<WorkItem>();
  #cancelled: Set<number> | null = null;

  /** How many wait. */
  get length(): number {
    const { length } = this.#items;
    return this.#cancelled === null ? length : length - this.#cancelled.size;
  }

  /** Adds an item. */
  push(item: WorkItem): void {
    this.#items.push(item);
  }

  /** Takes the first. There must be one. */
  shift(): WorkItem {
    let item = this.#items.shift()!;
    while (this.#cancelled?.delete(item.delivery)) {
      if (this.#cancelled.size === 0) this.#cancelled = null;
      item = this.#items.shift()!;
    }
    return item;
  }

  /** Takes out all of them. */
  takeAll(): WorkItem[] {
    const cancelled = this.#cancelled;
    const items = [...this.#items].filter(({ delivery }) =>
      !cancelled?.has(delivery)
    );
    this.#items.clear();
    this.#cancelled = null;
    return items;
  }

  /** Takes out the item of a delivery; null if it doesn't wait. */
  cancel(delivery: number): WorkItem | null {
    let low = 0, high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#items.at(middle).delivery < delivery) low = middle + 1;
      else high = middle;
    }
    const item = low < this.#items.length ? this.#items.at(low) : null;
    if (item?.delivery !== delivery || this.#cancelled?.has(delivery)) {
      return null;
    }
    const cancelled = this.#cancelled ??= new Set();
    cancelled.add(delivery);
    // Its value isn't kept, nor is its place for long.
    this.#items.replace(low, { ...item, value: undefined });
    if (cancelled.size > this.#items.length / 2) {
      for (const left of this.takeAll()) this.#items.push(left);
    }
    return item;
  }
}

/** Why a handler is aborted, or an item never begun. */
export function cancelled(): DOMException {
  return new DOMException("The item was cancelled", "AbortError");
}
