/**
 * Workers on this machine: a module's each in a thread of its own, as
 * `server.spawn()` starts them; a command's in this thread, since others do the
 * work; isolates have theirs.
 *
 * @module
 */

import { type LocalWorkers, type Server, work } from "../mod.ts";
import type { Runnable } from "./cli_module.ts";

/** How long an isolate may go on with an item that timed out, in ms. */
const CANCEL_GRACE_MS = 1000;

/** Options of {@linkcode CliLocalPool}. */
export interface CliLocalPoolOptions {
  readonly runnable: Runnable;
  readonly count: number;
  /** Whether a module's handler can be ended, whatever it does. */
  readonly isolate: boolean;
}

/** So many workers. */
export class CliLocalPool {
  readonly #options: CliLocalPoolOptions;
  readonly #leave = new AbortController();
  readonly #threads: LocalWorkers | null;

  /** Starts them; if they can't work, the server is aborted, which says why. */
  constructor(
    server: Server<unknown, unknown>,
    options: CliLocalPoolOptions,
  ) {
    this.#options = options;
    const { runnable, count, isolate } = options;
    if (runnable.kind === "module" && !isolate) {
      this.#threads = server.spawn(runnable.url, { count });
      return;
    }
    this.#threads = null;
    for (let i = 1; i <= count; i++) {
      this.#work(server, `local-${i}`).catch((error) => {
        if (!this.#leave.signal.aborted) void server.abort(error);
      });
    }
  }

  /** Whether a worker is one of these. */
  has(name: string): boolean {
    const [, number] = name.match(/^local-(\d+)$/) ?? [];
    return Number(number) <= this.#options.count;
  }

  /** Whether none of them will finish what it has begun. */
  get isStuck(): boolean {
    const { runnable } = this.#options;
    return runnable.kind === "command" && runnable.runner.isStuck;
  }

  /** Nothing new is begun; what was is finished. */
  leave(): void {
    const { runnable } = this.#options;
    if (runnable.kind === "command") runnable.runner.interrupt();
    this.#leave.abort();
    void this.#threads?.close();
  }

  /** Ends what would outlive the server. */
  end(): void {
    const { runnable } = this.#options;
    if (runnable.kind === "command") runnable.runner.terminate();
    this.#leave.abort();
  }

  #work(server: Server<unknown, unknown>, name: string): Promise<void> {
    const { runnable } = this.#options;
    const connect = {
      ...server.loopback(),
      name,
      reconnect: { minDelayMs: 10, maxDelayMs: 100 },
    };
    const { signal } = this.#leave;
    return runnable.kind === "command"
      ? work(connect, runnable.runner.handler, { signal })
      : work(connect, runnable.url, {
        signal,
        isolate: true,
        cancelGraceMs: CANCEL_GRACE_MS,
      });
  }
}
