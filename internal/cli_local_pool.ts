/**
 * Workers on this machine: a command's in this thread, since others do the
 * work; a module's each in a thread of its own, or in isolates.
 *
 * @module
 */

import { type ConnectOptions, work } from "../mod.ts";
import { FatalError, reasonOf, UsageError } from "./cli_arguments.ts";
import type { CommandRunner } from "./cli_command.ts";

/** How long an isolate may go on with an item that timed out, in ms. */
const CANCEL_GRACE_MS = 1000;

/** What a local worker's thread is started with. */
export interface LocalWorkerSetup {
  readonly type: "start";
  readonly url: string;
  readonly connect: ConnectOptions;
}

/** What a thread is told. */
export type ToLocalWorker = LocalWorkerSetup | { readonly type: "leave" };

/** What a thread tells. */
export type FromLocalWorker =
  | { readonly type: "ended" }
  | {
    readonly type: "error";
    readonly message: string;
    readonly isUnusable: boolean;
  };

/** What local workers run. */
export type LocalHandler =
  | { readonly kind: "command"; readonly runner: CommandRunner }
  | {
    readonly kind: "module";
    readonly url: URL;
    /** Whether a handler can be ended, whatever it does. */
    readonly isolate: boolean;
  };

/** Options of {@linkcode LocalPool}. */
export interface LocalPoolOptions {
  readonly handler: LocalHandler;
  readonly count: number;
  readonly connect: Pick<ConnectOptions, "hostname" | "port" | "secret">;
  /** A worker can't work, and starting it again is of no use. */
  onError(error: Error): void;
}

/** So many workers. */
export class LocalPool {
  readonly #options: LocalPoolOptions;
  readonly #leave = new AbortController();
  readonly #threads = new Map<string, Worker>();
  #isOver = false;

  /** Starts them. */
  constructor(options: LocalPoolOptions) {
    this.#options = options;
    for (let i = 1; i <= options.count; i++) this.#start(`local-${i}`);
  }

  /** Whether a worker is one of these. */
  has(name: string): boolean {
    const [, number] = name.match(/^local-(\d+)$/) ?? [];
    return Number(number) <= this.#options.count;
  }

  /** Whether none of them will finish what it has begun. */
  get isStuck(): boolean {
    const { handler } = this.#options;
    return handler.kind === "command" && handler.runner.isStuck;
  }

  /** Nothing new is begun; what was is finished. */
  leave(): void {
    const { handler } = this.#options;
    if (handler.kind === "command") handler.runner.interrupt();
    this.#leave.abort();
    for (const thread of this.#threads.values()) {
      thread.postMessage({ type: "leave" } satisfies ToLocalWorker);
    }
  }

  /** A worker's connection is gone, and not in order: it starts again. */
  restart(name: string): void {
    const thread = this.#threads.get(name);
    // Those without a thread connect again by themselves.
    if (thread === undefined || this.#isOver) return;
    thread.terminate();
    this.#threads.delete(name);
    if (!this.#leave.signal.aborted) this.#start(name);
  }

  /** Ends all of them at once. */
  end(): void {
    this.#isOver = true;
    this.#leave.abort();
    const { handler } = this.#options;
    if (handler.kind === "command") handler.runner.kill();
    for (const thread of this.#threads.values()) thread.terminate();
    this.#threads.clear();
  }

  #start(name: string): void {
    const { handler, connect } = this.#options;
    const options: ConnectOptions = {
      ...connect,
      name,
      reconnect: { minDelayMs: 10, maxDelayMs: 100 },
    };
    if (handler.kind === "module" && !handler.isolate) {
      this.#startThread(name, {
        type: "start",
        url: handler.url.href,
        connect: options,
      });
      return;
    }
    const { signal } = this.#leave;
    const working = handler.kind === "command"
      ? work(options, handler.runner.handler, { signal })
      : work(options, handler.url, {
        signal,
        isolate: true,
        cancelGraceMs: CANCEL_GRACE_MS,
      });
    working.catch((error) => this.#onError(toUsable(error)));
  }

  #startThread(name: string, setup: LocalWorkerSetup): void {
    const thread = new Worker(
      new URL("./cli_local_worker.ts", import.meta.url),
      { type: "module", name },
    );
    this.#threads.set(name, thread);
    thread.onmessage = ({ data }: MessageEvent<FromLocalWorker>) => {
      if (this.#threads.get(name) !== thread) return;
      this.#threads.delete(name);
      thread.terminate();
      if (data.type === "error") {
        this.#onError(
          data.isUnusable
            ? new UsageError(data.message)
            : new FatalError(data.message),
        );
      }
    };
    // An error that nobody caught: the server sees the connection end, and
    // that is when the worker is started again.
    thread.onerror = (event) => event.preventDefault();
    thread.postMessage(setup);
  }

  #onError(error: Error): void {
    if (!this.#isOver) this.#options.onError(error);
  }
}

/** An error of `work()`: a handler that can't be loaded is wrong usage. */
export function toUsable(error: unknown): Error {
  return error instanceof TypeError &&
      error.message.startsWith("Cannot load the handler")
    ? new UsageError(reasonOf(error))
    : error as Error;
}
