/**
 * Workers as processes of their own: tests/chaos/worker.ts.
 *
 * @module
 */

import type { ConnectOptions, WorkOptions } from "../../mod.ts";
import type { WorkerArguments } from "../chaos/worker.ts";
import { type Process, ROOT, startDeno } from "./process.ts";

/** Options of {@linkcode startWorker}. */
export interface StartWorkerOptions {
  /** How it works. */
  work?: WorkOptions;
  /** Whether it prints its events, a line each, as JSON. @default {false} */
  tell?: boolean;
  /** When to end it, in ms from its start. @default {60_000} */
  deadlineMs?: number;
}

/** Starts a worker; it reconnects until its server ends, or it is disposed of. */
export function startWorker(
  connect: ConnectOptions,
  options: StartWorkerOptions = {},
): Process {
  const { work = {}, tell = false, deadlineMs = 60_000 } = options;
  return startDeno([
    "-A",
    "--no-check",
    `${ROOT}tests/chaos/worker.ts`,
    JSON.stringify({ connect, work } satisfies WorkerArguments),
    ...(tell ? ["--tell"] : []),
  ], { stdin: "open", deadlineMs });
}
