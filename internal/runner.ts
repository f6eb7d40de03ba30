/**
 * What the sources of handlers, and what runs them, have in common.
 *
 * @module
 */

import type { WorkItem } from "./work_items.ts";
import type { Runner, WorkSink } from "./work_loop.ts";

/** Where outcomes go; those of isolates are payloads. */
export interface IsolateSink extends WorkSink {
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
