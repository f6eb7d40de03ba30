/**
 * What a server is given to do in chaos, by every way in at once, and what must
 * come of it: exactly one outcome an item, and the right one.
 *
 * @module
 */

import {
  type ItemFailure,
  PoisonItemError,
  type Server,
  type ServerStats,
} from "../../mod.ts";
import type { Rng } from "../_support/rng.ts";
import { type ActItem, resultOf } from "./worker.ts";

/** How many items one `map()` has, at most. */
const MAP_ITEMS = 4000;
/** Items of the channel that are counted one by one. */
const CHANNEL_ITEMS = 4_000_000;

/** All loads of a round. */
export class Loads implements AsyncDisposable {
  /** What was done. */
  readonly counts = {
    items: 0,
    poison: 0,
    mistaken: 0,
    aborted: 0,
    "timed out": 0,
  };
  readonly #server: Server<ActItem, number>;
  readonly #rng: Rng;
  readonly #tasks: Promise<void>[] = [];
  #receiving: Promise<void> = Promise.resolve();
  /** Outcomes of the channel's items, by item. */
  readonly #seen = new Uint8Array(CHANNEL_ITEMS);
  #sent = 0;
  #isOver = false;
  #killers = 1;
  #error: Error | null = null;

  /**
   * @param server Who is given them.
   * @param rng Where chance comes from.
   */
  constructor(server: Server<ActItem, number>, rng: Rng) {
    this.#server = server;
    this.#rng = rng;
  }

  /** Begins. */
  start(): void {
    for (
      const load of [
        () => this.#map(true),
        () => this.#map(false),
        () => this.#submit(),
        () => this.#send(),
      ]
    ) this.#tasks.push(this.#guard(load));
    this.#receiving = this.#guard(() => this.#receive());
  }

  /** No more items; resolves when all have their outcomes. */
  async finish(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#tasks);
    for (;;) {
      if (this.#error !== null) throw this.#error;
      const { pending, inFlight, unread } = this.#server.stats();
      if (pending + inFlight + unread === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The server has ended; resolves when its reader has seen that. */
  async end(): Promise<void> {
    await this.#receiving;
    if (this.#error !== null) throw this.#error;
  }

  async #guard(load: () => Promise<void>): Promise<void> {
    try {
      await load();
    } catch (error) {
      this.#error ??= error as Error;
      this.#isOver = true;
    }
  }

  /** Whether all adds up. */
  check(stats: ServerStats): void {
    const { pending, inFlight, settled, failed } = stats;
    if (pending !== 0 || inFlight !== 0) {
      throw new Error(`${pending} items wait, ${inFlight} are in flight`);
    }
    const { items, aborted } = this.counts;
    const outcomes = settled + failed + aborted;
    if (outcomes !== items) {
      throw new Error(
        `${items} items have ${settled} results, ${failed} failures, ${aborted} aborts`,
      );
    }
    for (let n = 0; n < this.#sent; n++) {
      if (this.#seen[n] === 1) continue;
      throw new Error(`Item ${n} of the channel has ${this.#seen[n]} outcomes`);
    }
  }

  /** An item of the channel failed. */
  onFailure(failure: ItemFailure<ActItem>): void {
    const { item } = failure;
    try {
      this.#failed(failure);
    } catch (error) {
      this.#error ??= error as Error;
    }
    this.#seen[typeof item === "number" ? item : item.n]!++;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await Promise.all([...this.#tasks, this.#receiving]);
  }

  /** The next item: most are quick, some do what they shouldn't. */
  #item(n: number): ActItem {
    const rng = this.#rng;
    this.counts.items++;
    if (rng.chance(0.997)) return n;
    switch (rng.int(0, 79)) {
      case 0:
        return { n, act: rng.pick(["exit", "abort", "segv"]), upTo: 1 };
      case 1:
        return { n, act: "block", ms: rng.int(100, 900) };
      case 2:
        if (this.#killers-- > 0) return { n, act: "exit" };
        return n;
      default:
        return rng.pick([
          { n, act: "block", ms: rng.int(1, 10) },
          { n, act: "wait", ms: rng.int(1, 50) },
          { n, act: "throw", upTo: 1 },
        ]);
    }
  }

  /** Poison is expected of killers, and of who was there once too often. */
  #failed(failure: ItemFailure<ActItem>): void {
    const { item, error } = failure;
    // Dying once, then throwing where it should have: never with these items.
    if (!(error instanceof PoisonItemError)) throw failure;
    const isKiller = typeof item === "object" && item.act === "exit" &&
      item.upTo === undefined;
    this.counts[isKiller ? "poison" : "mistaken"]++;
    if (error.attempts.length < 5) throw failure;
  }

  /** Waits now and then: a slow writer, or a slow reader. */
  async #pause(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, this.#rng.int(1, 150)));
  }

  /** Whether it is time for a pause. */
  get #isTired(): boolean {
    return this.#rng.chance(0.0003);
  }

  async #map(ordered: boolean): Promise<void> {
    while (!this.#isOver) {
      const count = this.#rng.int(1, MAP_ITEMS);
      const seen = new Uint8Array(count);
      const slow = async function* (this: Loads) {
        for (let n = 0; n < count; n++) {
          if (this.#isTired) await this.#pause();
          yield this.#item(n);
        }
      };
      const quick = function* (this: Loads) {
        for (let n = 0; n < count; n++) yield this.#item(n);
      };
      let next = 0;
      for await (
        const { index, item, result, failure } of this.#server.map(
          ordered ? quick.call(this) : slow.call(this),
          { ordered, settled: true, window: this.#rng.int(1, 1024) },
        )
      ) {
        if (ordered && index !== next++) {
          throw new Error(`map() gave ${index} instead of ${next - 1}`);
        }
        seen[index]!++;
        if (failure !== undefined) this.#failed(failure);
        else if (result !== resultOf(item)) {
          throw new Error(`map() gave ${result} for ${Deno.inspect(item)}`);
        }
        if (this.#isTired) await this.#pause();
      }
      for (let n = 0; n < count; n++) {
        if (seen[n] === 1) continue;
        throw new Error(`Item ${n} of a map() has ${seen[n]} outcomes`);
      }
    }
  }

  async #submit(): Promise<void> {
    const rng = this.#rng, pending = new Set<Promise<void>>();
    for (let n = 0; !this.#isOver; n++) {
      const item = this.#item(n);
      const controller = new AbortController();
      const mayAbort = rng.chance(0.05), mayTimeOut = rng.chance(0.05);
      const timer = setTimeout(() => {
        if (mayAbort) controller.abort();
      }, rng.int(0, 30));
      const result = this.#server.submit(item, {
        ...(mayAbort ? { signal: controller.signal } : {}),
        ...(mayTimeOut ? { timeoutMs: rng.int(1, 100) } : {}),
      });
      const task = result.then(
        (value) => {
          if (value === resultOf(item)) return;
          throw new Error(`submit() gave ${value} for ${Deno.inspect(item)}`);
        },
        (error) => {
          if (mayAbort && error === controller.signal.reason) {
            this.counts.aborted++;
          } else if (
            mayTimeOut && error.error?.name === "ItemTimeoutError"
          ) this.counts["timed out"]++;
          else this.#failed(error);
        },
      ).catch((error) => {
        this.#error ??= error;
        this.#isOver = true;
      }).finally(() => {
        clearTimeout(timer);
        pending.delete(task);
      });
      pending.add(task);
      if (pending.size >= 128) await Promise.race(pending);
      if (this.#isTired) await this.#pause();
    }
    await Promise.all(pending);
  }

  async #send(): Promise<void> {
    while (!this.#isOver && this.#sent < CHANNEL_ITEMS) {
      const room = this.#server.send(this.#item(this.#sent++));
      if (room !== undefined) await room;
      else if (this.#isTired) await this.#pause();
    }
  }

  async #receive(): Promise<void> {
    for await (const value of this.#server) {
      const n = (value - 1) / 3;
      if (!Number.isInteger(n) || n < 0 || n >= this.#sent) {
        throw new Error(`The channel gave ${value}`);
      }
      this.#seen[n]!++;
      if (this.#isTired) await this.#pause();
    }
  }
}
