/**
 * Items whose handler threw: which are tried again, and when.
 *
 * @module
 */

import type { Delivery, Item, Worker } from "./delivery.ts";
import { SETTLED } from "./in_flight.ts";
import type { ItemSpans } from "./item_spans.ts";
import { DEFAULTS, type RetryOptions } from "./options.ts";
import { timerMs } from "./timer.ts";

/** The longest that doubling makes of it, in ms: an hour. */
const MAX_DELAY_MS = 3_600_000;

/** Options of {@linkcode Retries}. */
export interface RetriesOptions {
  /** How often; undefined: never. */
  readonly retry: RetryOptions | undefined;
  /** Where items wait until they are sent again. */
  readonly delivery: Delivery;
  /** The spans of items; null: tracing is off. */
  readonly spans: ItemSpans | null;
  /** An item will be tried again in `delayMs`. */
  onRetry(id: number, error: Error, delayMs: number): void;
}

/** Items that wait for their time to be tried again. */
export class Retries {
  readonly #options: RetriesOptions;
  readonly #timers = new Map<Item, ReturnType<typeof setTimeout>>();
  /** Items whose time has come, and that aren't back in the queue yet. */
  readonly #due: Item[] = [];
  #requeue: ReturnType<typeof setTimeout> | undefined;

  /** @param options How often, and whom to tell. */
  constructor(options: RetriesOptions) {
    this.#options = options;
  }

  /** A handler threw: its item is tried again, or fails. */
  error(worker: Worker, entry: Item, error: Error): void {
    const { retry, delivery, spans, onRetry } = this.#options;
    if (
      retry === undefined || entry.state === SETTLED ||
      ++entry.errors >= retry.attempts
    ) {
      delivery.error(worker, entry, error);
      return;
    }
    if (!delivery.hold(worker, entry)) return;
    const { backoffMs = DEFAULTS.backoffMs } = retry;
    const delayMs = Math.min(
      backoffMs * 2 ** (entry.errors - 1),
      Math.max(backoffMs, MAX_DELAY_MS),
    );
    spans?.retried(entry, error, delayMs);
    const timer = setTimeout(() => {
      this.#timers.delete(entry);
      // Many at once, after an outage for example, are put in order once.
      if (this.#due.push(entry) > 1) return;
      this.#requeue = setTimeout(
        () => delivery.requeue(this.#due.splice(0)),
        0,
      );
    }, timerMs(delayMs));
    this.#timers.set(entry, timer);
    // Last: whoever is told may stop all.
    onRetry(entry.id, error, delayMs);
  }

  /** An item doesn't wait any more. */
  forget(entry: Item): void {
    clearTimeout(this.#timers.get(entry));
    this.#timers.delete(entry);
  }

  /** Nothing that waits is tried again. */
  stop(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    clearTimeout(this.#requeue);
    this.#timers.clear();
  }
}
