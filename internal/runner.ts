/**
 * What the sources of handlers, and what runs them, have in common.
 *
 * @module
 */

import type { WorkItem } from "./work_items.ts";

/** What handlers run in, where tracing is on. */
export interface HandlerScope {
  /** Calls a function that belongs to the execution of an item. */
  run<T>(item: WorkItem, call: () => T): T;
}

/** Where outcomes go. */
export interface WorkSink {
  /** What handlers run in; null: tracing is off. */
  readonly scope: HandlerScope | null;
  /**
   * Whether nothing should be begun: output waits for the peer, or is over, or
   * there is more to read first.
   */
  isBusy(): boolean;
  /** An item has a result. */
  result(item: WorkItem, value: unknown): void;
  /** An item is done and has no result of its own. */
  done(item: WorkItem): void;
  /** An item failed. */
  error(item: WorkItem, error: unknown): void;
  /** A handler yields a value; a promise until there is room for the next. */
  value(value: unknown): Promise<void> | undefined;
  /** Nothing waits and nothing runs. */
  onIdle(): void;
}

/** Runs items; the plain loop's and an isolate pool's common face. */
export interface Runner {
  /** Adds an item; {@linkcode run} begins it. */
  push(item: WorkItem): void;
  /** Begins what can be begun, in a turn of the event loop of its own. */
  run(): void;
  /** The same, in a turn that others of its calls may have used already. */
  goOn(): void;
  /** An item isn't needed any more. */
  cancel(delivery: number): void;
  /** Takes out what isn't begun. */
  takeWaiting(): WorkItem[];
  /** Everything that runs is told to stop, with a reason. */
  abort(reason: unknown): void;
  /** Whether nothing waits and nothing runs. */
  readonly isIdle: boolean;
  /** Frees what it holds. */
  close(): void;
}

/** Where outcomes go; those of isolates are payloads. */
export interface IsolateSink extends WorkSink {
  /** How long a value may become, in bytes; 0: as long as it is. */
  valueLimit(): number;
  /** Whether the item's result is wanted. */
  wantsResult(item: WorkItem): boolean;
  /** An item begins; returns it as the isolate gets it. */
  forIsolate(item: WorkItem): WorkItem;
  /** An isolate has crashed with no item in it. */
  onCrash(error: Error): void;
  /** The module can't be loaded any more: nothing will be executed. */
  onUnusable(error: Error): void;
}

/** A handler that can be run, on one connection after another. */
export interface HandlerSource {
  /** Whether its runners take and give payloads, not values. */
  readonly takesPayloads: boolean;
  /** Why nothing will be executed any more, or null. */
  readonly error: Error | null;
  /** Makes the runner for a connection; the last one's must be closed. */
  runner(sink: IsolateSink): Runner;
  /** Frees what it holds; resolves when nothing of it runs any more. */
  close(): Promise<void>;
}
