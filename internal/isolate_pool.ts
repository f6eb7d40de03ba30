/**
 * Runs a handler's module in isolates, so that this event loop stays free
 * however long a handler burns the processor.
 *
 * A pool lives as long as `work()` does; each connection gets a runner of its
 * own, and the isolates stay warm in between.
 *
 * @module
 */

import type { Codec } from "../codec.ts";
import { CborCodec } from "./cbor_codec.ts";
import { checkNotInside } from "./handler_module.ts";
import { type Execution, Isolate, type IsolateEvents } from "./isolate.ts";
import type { IsolateSetup } from "./isolate_worker.ts";
import type { HandlerSource, IsolateSink, Runner } from "./runner.ts";
import { cancelled, WaitingItems, type WorkItem } from "./work_items.ts";

/** Options of {@linkcode IsolatePool}. */
export interface IsolatePoolOptions {
  /** How many isolates there are. */
  readonly concurrency: number;
  /** How long an aborted handler may go on, in ms. */
  readonly cancelGraceMs: number;
  /** The connection's codec. */
  readonly codec: Codec<unknown>;
}

/** A number of isolates. */
export class IsolatePool implements HandlerSource {
  readonly takesPayloads = true;
  readonly #setup: Omit<IsolateSetup, "port">;
  readonly #options: IsolatePoolOptions;
  readonly #isolates = new Set<Isolate>();
  /** Those that still execute an item of a connection that is over. */
  readonly #leftover = new Set<Isolate>();
  #runner: IsolateRunner | null = null;
  #error: Error | null = null;
  #isClosed = false;
  /** Answers that wait until an isolate is loaded. */
  readonly #owed = new Map<Isolate, () => void>();
  /** Told at every change of an isolate, while somebody waits. */
  #onChange: (() => void) | null = null;
  readonly #events: IsolateEvents = {
    onFree: (isolate) => {
      if (
        this.#leftover.delete(isolate) &&
        this.#isolates.size - this.#leftover.size > this.#options.concurrency
      ) {
        // Another has its place.
        isolate.terminate();
        this.#isolates.delete(isolate);
      }
      this.#onChange?.();
      this.#replaced(isolate);
      this.#runner?.run();
    },
    onGone: (isolate, error, execution) => {
      this.#isolates.delete(isolate);
      this.#onChange?.();
      if (this.#leftover.delete(isolate)) execution?.onError(error);
      else if (execution === null) this.#runner?.sink.onCrash(error);
      else this.#replace(execution, error);
      this.#runner?.run();
    },
    onUnusable: (isolate, error) => {
      this.#isolates.delete(isolate);
      this.#fail(error);
      this.#replaced(isolate);
    },
  };

  /**
   * @param url The handler's module.
   * @param options How many isolates, and the codec.
   */
  constructor(url: URL, options: IsolatePoolOptions) {
    checkNotInside(url.href);
    const { codec } = options;
    this.#options = options;
    this.#setup = {
      url: url.href,
      codec: codec.name,
      cbor: codec instanceof CborCodec ? { maxDepth: codec.maxDepth } : null,
    };
  }

  /** Why nothing will be executed any more, or null. */
  get error(): Error | null {
    return this.#error;
  }

  /**
   * Starts the isolates.
   *
   * @param signal Gives up; it then throws the signal's reason.
   * @throws {TypeError} If the module can't be used.
   */
  async open(signal?: AbortSignal): Promise<void> {
    for (let i = 0; i < this.#options.concurrency; i++) this.#start();
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      if (
        this.#error !== null || signal?.aborted ||
        this.#isolates.values().every((isolate) => !isolate.isLoading)
      ) resolve();
    };
    this.#onChange = look;
    signal?.addEventListener("abort", look);
    look();
    await promise;
    this.#onChange = null;
    signal?.removeEventListener("abort", look);
    if (this.#error === null && !signal?.aborted) return;
    await this.close();
    throw this.#error ?? signal?.reason;
  }

  /** Makes the runner for a connection; the last one's must be closed. */
  runner(sink: IsolateSink): Runner {
    return this.#runner = new IsolateRunner(this, sink, (running) => {
      this.#runner = null;
      for (const isolate of running) {
        // One that has ended may still be owed an answer.
        if (isolate.isBusy) this.#leftover.add(isolate);
      }
    });
  }

  /** An isolate that is free, if there is one. */
  take(): Isolate | null {
    for (const isolate of this.#isolates) if (isolate.isFree) return isolate;
    return null;
  }

  /**
   * Starts isolates in place of those that are no more, if items wait. What is
   * left over from lost connections isn't counted, up to as many: where they
   * are lost one after another, isolates would add up.
   */
  restart(waiting: number): void {
    if (this.#error !== null || this.#isClosed) return;
    const { concurrency } = this.#options;
    const most = concurrency + Math.min(concurrency, this.#leftover.size);
    for (const isolate of this.#isolates) if (isolate.isLoading) waiting--;
    while (waiting-- > 0 && this.#isolates.size < most) this.#start();
  }

  /**
   * Ends all isolates. A handler that still runs is aborted, and has its grace.
   *
   * @returns Resolves when none is left.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      for (const isolate of [...this.#isolates]) {
        if (isolate.isBusy) continue;
        isolate.terminate();
        this.#isolates.delete(isolate);
      }
      if (this.#isolates.size === 0) resolve();
    };
    for (const isolate of this.#isolates) {
      isolate.abort(new DOMException("The worker has ended", "AbortError"));
    }
    this.#onChange = look;
    look();
    await promise;
  }

  #start(): Isolate {
    const isolate = new Isolate(this.#setup, {
      graceMs: this.#options.cancelGraceMs,
      events: this.#events,
    });
    this.#isolates.add(isolate);
    return isolate;
  }

  /**
   * Starts an isolate in place of one that ended with an item in it. The item
   * keeps its slot until that is loaded: the next item's time isn't spent on it.
   */
  #replace(execution: Execution, error: Error): void {
    if (this.#isClosed || this.#error !== null) execution.onError(error);
    else this.#owed.set(this.#start(), () => execution.onError(error));
  }

  #replaced(isolate: Isolate): void {
    const answer = this.#owed.get(isolate);
    if (answer === undefined) return;
    this.#owed.delete(isolate);
    answer();
  }

  #fail(error: Error): void {
    if (this.#error !== null || this.#isClosed) return;
    this.#error = error;
    this.#onChange?.();
    this.#runner?.sink.onUnusable(error);
  }
}

/** What one connection has in a pool. */
class IsolateRunner implements Runner {
  readonly sink: IsolateSink;
  readonly #pool: IsolatePool;
  readonly #onClose: (running: Iterable<Isolate>) => void;
  readonly #waiting = new WaitingItems();
  /** What runs, by delivery. */
  readonly #running = new Map<number, Isolate>();

  constructor(
    pool: IsolatePool,
    sink: IsolateSink,
    onClose: (running: Iterable<Isolate>) => void,
  ) {
    this.#pool = pool;
    this.sink = sink;
    this.#onClose = onClose;
  }

  get isIdle(): boolean {
    return this.#waiting.length === 0 && this.#running.size === 0;
  }

  push(item: WorkItem): void {
    this.#waiting.push(item);
  }

  run(): void {
    while (this.#waiting.length > 0 && !this.sink.isBusy()) {
      const isolate = this.#pool.take();
      if (isolate === null) {
        this.#pool.restart(this.#waiting.length);
        break;
      }
      this.#begin(this.#waiting.shift(), isolate);
    }
    if (this.isIdle) this.sink.onIdle();
  }

  goOn(): void {
    this.run();
  }

  cancel(delivery: number): void {
    const isolate = this.#running.get(delivery);
    if (isolate !== undefined) {
      isolate.abort(null);
      return;
    }
    const item = this.#waiting.cancel(delivery);
    if (item === null) return;
    this.sink.error(item, cancelled());
    if (this.isIdle) this.sink.onIdle();
  }

  takeWaiting(): WorkItem[] {
    return this.#waiting.takeAll();
  }

  abort(reason: unknown): void {
    for (const isolate of this.#running.values()) isolate.abort(reason);
  }

  close(): void {
    this.#onClose(this.#running.values());
  }

  #begin(item: WorkItem, isolate: Isolate): void {
    const { sink } = this;
    this.#running.set(item.delivery, isolate);
    isolate.execute({
      item: sink.forIsolate(item),
      wantsResult: sink.wantsResult(item),
      valueLimit: sink.valueLimit(),
      onResult: (payload) => {
        this.#running.delete(item.delivery);
        if (payload === null) sink.done(item);
        else sink.result(item, payload);
      },
      onError: (error) => {
        this.#running.delete(item.delivery);
        sink.error(item, error);
      },
      onValue: (payload) => sink.value(payload),
    });
  }
}
