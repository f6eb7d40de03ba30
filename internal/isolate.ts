/**
 * One isolate, seen from outside: a worker thread that has loaded the handler's
 * module and executes one item at a time.
 *
 * ```text
 *   LOADING ──ready──► FREE ◄──────────┐
 *      │                │ execute()    │ the item is settled
 *      │                └──► BUSY ─────┘
 *      │                │      │ crash, exit, grace is over
 *      └────────────────┴──────┴──► GONE
 * ```
 *
 * It is a `Worker` of `node:worker_threads`: a Web Worker, with an event for
 * its exit. Deno 2.9.6 tells nothing of a Web Worker's exit, and stops neither
 * kind in the middle of an endless loop; but a Web Worker in one keeps the
 * whole process from ending, and this kind doesn't.
 *
 * @module
 */

import * as threads from "node:worker_threads";
import { notLoaded } from "./handler_module.ts";
import {
  type FromIsolate,
  ISOLATE_MODULE,
  type IsolateSetup,
  type ToIsolate,
} from "./isolate_worker.ts";
import { bootstrapOf, startSoon, startThread, type Thread } from "./thread.ts";
import { fromThrown, type Thrown, toError, toThrown } from "./thrown.ts";
import { timerMs } from "./timer.ts";
import type { WorkItem } from "./work_items.ts";

const BOOTSTRAP = bootstrapOf(ISOLATE_MODULE, "an isolate");

/** Who waits for an item. */
export interface Execution {
  /** The item, with its payload as its value. */
  readonly item: WorkItem;
  /** Whether its result is wanted. */
  readonly wantsResult: boolean;
  /** How long a value may become, in bytes; 0: as long as it is. */
  readonly valueLimit: number;
  /** It has a result, as a payload; null: it is done and has none. */
  onResult(payload: Uint8Array | null): void;
  /** It failed. */
  onError(error: Error): void;
  /** The handler yields a value; a promise until there is room for the next. */
  onValue(payload: Uint8Array): Promise<void> | undefined;
}

/** What an isolate tells its pool. */
export interface IsolateEvents {
  /** It is free. */
  onFree(isolate: Isolate): void;
  /** It is no more; the error is the failure of what was in it. */
  onGone(isolate: Isolate, error: Error, execution: Execution | null): void;
  /** The module can't be used. */
  onUnusable(isolate: Isolate, error: Error): void;
}

/** One isolate. */
export class Isolate {
  readonly #url: string;
  readonly #graceMs: number;
  readonly #events: IsolateEvents;
  readonly #forgetStart: () => void;
  /** Null: it isn't started yet. */
  #thread: Thread | null = null;
  #state: "loading" | "free" | "busy" | "gone" = "loading";
  #execution: Execution | null = null;
  #grace: ReturnType<typeof setTimeout> | undefined;
  /** Whether its event loop has run since it was told to abort. */
  #isResponsive = false;

  /**
   * Starts it, soon.
   *
   * @param setup What it is started with.
   * @param options How long an aborted handler may go on, and whom to tell.
   */
  constructor(
    setup: Omit<IsolateSetup, "port">,
    options: { graceMs: number; events: IsolateEvents },
  ) {
    this.#url = setup.url;
    this.#graceMs = options.graceMs;
    this.#events = options.events;
    this.#forgetStart = startSoon(() => this.#start(setup));
  }

  /** Whether it waits for an item. */
  get isFree(): boolean {
    return this.#state === "free";
  }

  /** Whether its module isn't loaded yet. */
  get isLoading(): boolean {
    return this.#state === "loading";
  }

  /** Whether it executes an item. */
  get isBusy(): boolean {
    return this.#state === "busy";
  }

  /** Executes an item. It must be free. */
  execute(execution: Execution): void {
    this.#state = "busy";
    this.#execution = execution;
    const { item, wantsResult, valueLimit } = execution;
    const { buffer } = item.value as Uint8Array<ArrayBuffer>;
    this.#send({ type: "item", item, wantsResult, valueLimit }, [buffer]);
  }

  /**
   * Tells the handler to stop, and ends the isolate if it doesn't in time.
   *
   * @param reason Why; null: the item was cancelled.
   */
  abort(reason: unknown): void {
    if (this.#state !== "busy" || this.#grace !== undefined) return;
    this.#isResponsive = false;
    this.#send({
      type: "abort",
      reason: reason === null ? null : toThrown(reason),
    });
    this.#grace = setTimeout(() => {
      const why = `it went on for ${this.#graceMs} ms after its item was ${
        reason === null ? "cancelled" : "given up"
      }`;
      this.#end(
        new Error(
          this.#isResponsive
            ? `The handler was terminated: ${why}`
            : `The handler was terminated: ${why}, and it blocks its thread, which Deno stops only when the handler lets go of it or this process ends`,
        ),
      );
    }, timerMs(this.#graceMs));
  }

  /** Ends it. An item in it gets no answer. */
  terminate(): void {
    if (this.#state === "gone") return;
    this.#state = "gone";
    this.#execution = null;
    clearTimeout(this.#grace);
    this.#forgetStart();
    this.#thread?.port.close();
    this.#thread?.worker.terminate();
  }

  #start(setup: Omit<IsolateSetup, "port">): void {
    try {
      this.#thread = startThread<IsolateSetup, FromIsolate>(
        threads,
        BOOTSTRAP,
        {
          name: "distchan isolate",
          setup,
          onTold: (told) => this.#on(told),
          onError: (error) => this.#end(error),
          onExit: (code) =>
            this.#end(
              new Error(
                `The handler ended its isolate: Deno.exit() or the like, exit code ${code}`,
              ),
            ),
        },
      );
    } catch (error) {
      this.terminate();
      this.#events.onUnusable(this, toError(error));
    }
  }

  #send(told: ToIsolate, transfer: Transferable[] = []): void {
    if (this.#state !== "gone") this.#thread!.port.postMessage(told, transfer);
  }

  #on(told: FromIsolate): void {
    if (this.#state === "gone") return;
    switch (told.type) {
      case "ready":
        return this.#free();
      case "unusable":
        this.terminate();
        return this.#events.onUnusable(this, fromThrown(told.error));
      case "aborting":
        this.#isResponsive = true;
        return;
      case "crash":
        return this.#end(fromThrown(told.error));
      case "value":
        return this.#value(told.payload);
      case "result":
        return this.#settle((execution) => execution.onResult(told.payload));
      case "error":
        return this.#settle((execution) =>
          execution.onError(fromThrown(told.error))
        );
    }
  }

  #settle(tell: (execution: Execution) => void): void {
    const execution = this.#execution!;
    this.#execution = null;
    clearTimeout(this.#grace);
    this.#grace = undefined;
    tell(execution);
    this.#free();
  }

  #free(): void {
    this.#state = "free";
    this.#events.onFree(this);
  }

  #value(payload: Uint8Array): void {
    const execution = this.#execution!;
    const tell = (error: Thrown | null) => {
      // An aborted one hasn't waited for it.
      if (this.#execution === execution) this.#send({ type: "room", error });
    };
    const room = execution.onValue(payload);
    if (room === undefined) tell(null);
    else room.then(() => tell(null), (error) => tell(toThrown(error)));
  }

  /** It has ended, or has to. */
  #end(error: Error): void {
    if (this.#state === "gone") return;
    const execution = this.#execution, { isLoading } = this;
    this.terminate();
    if (isLoading) {
      this.#events.onUnusable(
        this,
        notLoaded(this.#url, error.message, { cause: error }),
      );
      return;
    }
    this.#events.onGone(this, error, execution);
  }
}
