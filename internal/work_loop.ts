/**
 * `work()` without the connection: items wait, handlers run, so many at once,
 * and outcomes go to a sink. Synchronous handlers are called in a plain loop
 * that stops from time to time, so that the connection lives.
 *
 * @module
 */

import { ItemKind } from "./frame.ts";
import type { HandlerScope, Runner, WorkSink } from "./runner.ts";
import { Turns } from "./turns.ts";
import { cancelled, WaitingItems, type WorkItem } from "./work_items.ts";

/** What a handler is told beside the item. */
export interface WorkContext {
  /**
   * The item's id: the same at every attempt, and unique on its server, from 0
   * on.
   */
  readonly id: number;
  /**
   * How often the item was delivered, this time included: 1 at first. A worker
   * that handed it back unbegun doesn't count.
   */
  readonly attempt: number;
  /** Aborts when the item isn't needed any more, or the connection is lost. */
  readonly signal: AbortSignal;
}

/**
 * Does the work: one item in, its result out. Long bytes in a result are sent
 * from where they are, after the next item may have begun: return new ones for
 * each.
 *
 * @typeParam Item What the server sends.
 * @typeParam Result What comes back. An async generator yields several.
 */
export type Handler<Item, Result> = (
  item: Item,
  context: WorkContext,
) => Result | Promise<Result> | AsyncIterable<Result>;

/** Handlers may take seconds, so no more of them without a look at the clock. */
const MAX_STEPS = 8;

const { then } = Promise.prototype;

class Context implements WorkContext {
  readonly id: number;
  readonly attempt: number;
  #controller: AbortController | null = null;
  #aborted: { reason: unknown } | null = null;
  /** Gives up waiting for room. */
  #giveUp: ((reason: unknown) => void) | null = null;

  constructor(id: number, attempt: number) {
    this.id = id;
    this.attempt = attempt;
  }

  /** Made at its first use: most handlers never look. */
  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#aborted !== null) this.#controller.abort(this.#aborted.reason);
    }
    return this.#controller.signal;
  }

  abort(reason: unknown): void {
    this.#aborted ??= { reason };
    this.#controller?.abort(reason);
    this.#giveUp?.(reason);
  }

  /** Waits for room, or until it is aborted: there may never be any. */
  async wait(room: Promise<void>): Promise<void> {
    if (this.#aborted !== null) throw this.#aborted.reason;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#giveUp = reject;
        room.then(resolve, reject);
      });
    } finally {
      this.#giveUp = null;
    }
  }
}

/**
 * What the loop that calls handlers does.
 *
 * ```text
 *             goOn()            so long that others need a turn
 *   resting ─────────► calling ─────────────────────────────────► due
 *      ▲                 │ ▲                                       │
 *      └─────────────────┘ └───────────── their turn is over ──────┘
 *       nothing more can be begun
 * ```
 */
type Loop = "resting" | "calling" | "due";

/** Runs handlers in this event loop. */
export class WorkLoop implements Runner {
  readonly #handler: Handler<never, unknown>;
  readonly #concurrency: number;
  readonly #sink: WorkSink;
  readonly #waiting = new WaitingItems();
  /** What runs and has not returned, by delivery. */
  readonly #running = new Map<number, Context>();
  /** Whose handler is being called, and may itself end the connection. */
  #called: Context | null = null;
  #loop: Loop = "resting";
  readonly #turns = new Turns(MAX_STEPS);
  /** The same of what handlers do once they have waited. */
  readonly #awaited = new Turns(MAX_STEPS);

  constructor(
    handler: Handler<never, unknown>,
    concurrency: number,
    sink: WorkSink,
  ) {
    this.#handler = handler;
    this.#concurrency = concurrency;
    this.#sink = sink;
  }

  get isIdle(): boolean {
    return this.#waiting.length === 0 && this.#running.size === 0 &&
      this.#loop !== "calling";
  }

  push(item: WorkItem): void {
    this.#waiting.push(item);
  }

  run(): void {
    if (this.#loop !== "resting") return;
    this.#turns.begin();
    this.goOn();
  }

  goOn(): void {
    if (this.#loop !== "resting") return;
    this.#loop = "calling";
    this.#loop = this.#callAll();
    if (this.isIdle) this.#sink.onIdle();
  }

  cancel(delivery: number): void {
    const context = this.#running.get(delivery);
    const item = context === undefined ? this.#waiting.cancel(delivery) : null;
    if (context !== undefined) context.abort(cancelled());
    if (item === null) return;
    this.#sink.error(item, cancelled());
    if (this.isIdle) this.#sink.onIdle();
  }

  takeWaiting(): WorkItem[] {
    return this.#waiting.takeAll();
  }

  abort(reason: unknown): void {
    this.#called?.abort(reason);
    for (const context of this.#running.values()) context.abort(reason);
  }

  close(): void {
    this.#turns.hurry();
    this.#awaited.hurry();
  }

  /** Begins what can be begun; returns what the loop does then. */
  #callAll(): Loop {
    this.#turns.resume();
    while (
      this.#waiting.length > 0 && this.#running.size < this.#concurrency &&
      !this.#sink.isBusy()
    ) {
      this.#begin(this.#waiting.shift());
      // Though nothing may wait: what comes next is read before the turn is over,
      // and a result that has just been written leaves at its end.
      if (this.#turns.isDue()) return this.#leave(this.#turns);
    }
    return "resting";
  }

  /** Leaves the event loop a turn. */
  #leave(turns: Turns): Loop {
    turns.next(() => {
      this.#loop = "resting";
      this.run();
    });
    return "due";
  }

  #begin(item: WorkItem): void {
    const context = new Context(item.id, item.attempt);
    let outcome: unknown;
    let promise: Promise<unknown> | null = null;
    let isGenerator = false;
    this.#called = context;
    try {
      outcome = this.#call(item, context);
      if (
        typeof outcome === "object" && outcome !== null ||
        typeof outcome === "function"
      ) {
        promise = promiseOf(outcome);
        isGenerator = promise === null && Symbol.asyncIterator in outcome;
        if (promise !== null) this.#await(item, promise);
      }
    } catch (error) {
      this.#called = null;
      this.#sink.error(item, error);
      return;
    }
    this.#called = null;
    if (promise !== null) this.#running.set(item.delivery, context);
    else if (isGenerator) {
      this.#generate(item, context, outcome as AsyncIterable<unknown>);
    } else this.#sink.result(item, outcome);
  }

  /** What a promise resolves with is a result, whatever it is. */
  #await(item: WorkItem, promise: Promise<unknown>): void {
    this.#awaited.resume();
    // Not its own then(), which may be any function.
    then.call(
      promise,
      (value) => this.#settle(item, () => this.#sink.result(item, value)),
      (error) => this.#settle(item, () => this.#sink.error(item, error)),
    );
  }

  #call(item: WorkItem, context: Context): unknown {
    const { scope } = this.#sink;
    return scope === null
      ? this.#handler(item.value as never, context)
      : this.#callIn(scope, item, context);
  }

  /** Apart: where tracing is off, no closure's context is made. */
  #callIn(scope: HandlerScope, item: WorkItem, context: Context): unknown {
    return scope.run(item, () => this.#handler(item.value as never, context));
  }

  #settle(item: WorkItem, tell: () => void): void {
    this.#running.delete(item.delivery);
    tell();
    if (this.#loop === "resting" && this.#awaited.isDue()) {
      this.#loop = this.#leave(this.#awaited);
    }
    if (this.#waiting.length > 0) this.goOn();
    else if (this.isIdle) this.#sink.onIdle();
  }

  #generate(
    item: WorkItem,
    context: Context,
    outcome: AsyncIterable<unknown>,
  ): void {
    if (item.kind === ItemKind.CALL) {
      this.#sink.error(
        item,
        new TypeError(
          "Cannot answer with a generator: submit() and map() wait for one result",
        ),
      );
      return;
    }
    this.#running.set(item.delivery, context);
    this.#awaited.resume();
    this.#iterate(item, context, outcome).then(
      () => this.#settle(item, () => this.#sink.done(item)),
      (error) => this.#settle(item, () => this.#sink.error(item, error)),
    );
  }

  #iterate(
    item: WorkItem,
    context: Context,
    outcome: AsyncIterable<unknown>,
  ): Promise<void> {
    const { scope } = this.#sink;
    return scope === null
      ? this.#yieldAll(context, outcome)
      : scope.run(item, () => this.#yieldAll(context, outcome));
  }

  async #yieldAll(
    context: Context,
    outcome: AsyncIterable<unknown>,
  ): Promise<void> {
    const turns = new Turns(MAX_STEPS);
    turns.resume();
    for await (const value of outcome) {
      context.signal.throwIfAborted();
      const room = this.#sink.value(value);
      if (room !== undefined) await context.wait(room);
      else if (turns.isDue()) {
        await context.wait(new Promise((resolve) => turns.next(resolve)));
      }
    }
  }
}

/** An outcome as a promise, if it is one or has a `then()`, as `await` does. */
function promiseOf(outcome: object): Promise<unknown> | null {
  // In this order: most outcomes are neither.
  if (typeof (outcome as PromiseLike<unknown>).then !== "function") return null;
  return outcome instanceof Promise && outcome.constructor === Promise
    ? outcome
    : new Promise((resolve) => resolve(outcome));
}
