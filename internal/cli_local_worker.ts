/**
 * The thread of a local worker: see cli_local_pool.ts.
 *
 * @module
 */

import { work } from "../mod.ts";
import { reasonOf, UsageError } from "./cli_arguments.ts";
import {
  type FromLocalWorker,
  type LocalWorkerSetup,
  type ToLocalWorker,
  toUsable,
} from "./cli_local_pool.ts";

/** What of a worker's global scope is used here. */
interface Scope {
  postMessage(told: FromLocalWorker): void;
  onmessage: (event: MessageEvent<ToLocalWorker>) => void;
}

const scope = globalThis as unknown as Scope;
const leave = new AbortController();

scope.onmessage = ({ data }) => {
  if (data.type === "leave") leave.abort();
  else start(data);
};

async function start({ url, connect }: LocalWorkerSetup): Promise<void> {
  try {
    await work(connect, new URL(url), { signal: leave.signal });
    scope.postMessage({ type: "ended" });
  } catch (error) {
    const usable = toUsable(error);
    scope.postMessage({
      type: "error",
      message: reasonOf(usable),
      isUnusable: usable instanceof UsageError,
    });
  }
}
