/**
 * Workers on the server's own machine: threads that connect to it over loopback
 * as workers elsewhere do, so that nothing is different for the server.
 *
 * Each is a thread of `node:worker_threads`, for the reasons in isolate.ts. One
 * that crashes, or that the server drops since its handler doesn't let go of it,
 * is replaced, ever later; when that happens again and again and no item gets
 * settled by it, or it can't work at all, the pool gives up. One in an endless
 * loop is stopped by Deno only when this process ends: it is given up.
 *
 * @module
 */

import { Backoff } from "./backoff.ts";
import {
  type FromLocal,
  LOCAL_WORKER_MODULE,
  type LocalSetup,
  type ToLocal,
} from "./local_worker.ts";
import { checkNotInside, notLoaded } from "./handler_module.ts";
import { bootstrapOf, startSoon, startThread, type Thread } from "./thread.ts";
import { fromThrown } from "./thrown.ts";

const BOOTSTRAP = bootstrapOf(LOCAL_WORKER_MODULE, "a thread");

/** A thread gives up after so many crashes in a row, no item settled between. */
const MAX_CRASHES = 10;
const MIN_DELAY_MS = 20, MAX_DELAY_MS = 500;

/** What a pool is started with. */
export interface LocalPoolSetup extends Omit<LocalSetup, "port" | "begun"> {
  /** How many threads. */
  readonly count: number;
  /** How many items are settled, failed ones included. */
  progress(): number;
  /** A thread has crashed, and will be started again. */
  onCrash(name: string, error: Error): void;
  /** The pool can't go on. */
  onError(error: Error): void;
}

/** A number of threads that work for a server. */
export class LocalPool {
  readonly #slots: Slot[];
  readonly #setup: LocalPoolSetup;
  readonly #ended = Promise.withResolvers<void>();
  #left: number;

  /** @param setup What runs, where, and how often. */
  constructor(setup: LocalPoolSetup) {
    checkNotInside(setup.url);
    this.#setup = setup;
    this.#left = setup.count;
    this.#slots = Array.from(
      { length: setup.count },
      (_, index) =>
        new Slot(setup, {
          index,
          onEnd: () => {
            if (--this.#left === 0) this.#ended.resolve();
          },
          onError: (error) => this.#fail(error),
        }),
    );
    for (const slot of this.#slots) slot.start();
  }

  /** How many threads there are. */
  get count(): number {
    return this.#slots.length;
  }

  /** Resolves when no thread works any more. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** What was begun is finished, what wasn't is handed back, threads end. */
  leave(): Promise<void> {
    for (const slot of this.#slots) slot.leave();
    return this.ended;
  }

  /** The server has dropped one of its workers: perhaps one of these threads. */
  dropped(instance: string, error: Error): void {
    for (const slot of this.#slots) slot.dropped(instance, error);
  }

  /** Ends all threads now. */
  terminate(): void {
    for (const slot of this.#slots) slot.end();
  }

  #fail(error: Error): void {
    this.terminate();
    this.#setup.onError(error);
  }
}

/** What a slot tells. */
interface SlotEvents {
  /** Its number, from 0 on. */
  readonly index: number;
  /** It works no more. */
  onEnd(): void;
  /** It can't. */
  onError(error: Error): void;
}

/** A thread that works. */
interface LocalThread extends Thread {
  /** In it, how many items it has begun. */
  readonly begun: SharedArrayBuffer;
  /** How the server knows it; null: it isn't ready. */
  instance: string | null;
}

/**
 * How far a slot is. While it is open, a thread that crashes is followed by
 * another, a little later.
 *
 * ```text
 *          leave(), and its thread is ready
 *   open ──────────────────────────────────► leaving
 *    │ end(), leave(), it can't be used         │ done, or a crash
 *    └──────────────────► ended ◄───────────────┘
 * ```
 */
type Stage = "open" | "leaving" | "ended";

/** A place for one thread after another. */
class Slot {
  readonly #setup: LocalPoolSetup;
  readonly #events: SlotEvents;
  readonly #backoff = new Backoff(MIN_DELAY_MS, MAX_DELAY_MS, () => 1);
  #stage: Stage = "open";
  /** Null: none runs now. */
  #thread: LocalThread | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #forgetStart: () => void = () => {};
  /** As it was at the last crash. */
  #progress = -1;

  constructor(setup: LocalPoolSetup, events: SlotEvents) {
    this.#setup = setup;
    this.#events = events;
  }

  get #name(): string {
    return `${this.#setup.connect.name ?? "local"}-${this.#events.index + 1}`;
  }

  async start(): Promise<void> {
    // Not before it is needed: it takes long to load.
    const threads = await import("node:worker_threads");
    if (this.#stage === "ended") return;
    this.#forgetStart = startSoon(() => this.#start(threads));
  }

  #start(threads: typeof import("node:worker_threads")): void {
    const {
      count: _count,
      progress: _progress,
      onCrash: _onCrash,
      onError: _onError,
      ...setup
    } = this.#setup;
    const name = this.#name;
    const begun = new SharedArrayBuffer(4);
    try {
      const started = startThread<LocalSetup, FromLocal>(threads, BOOTSTRAP, {
        name: `distchan ${name}`,
        setup: { ...setup, connect: { ...setup.connect, name }, begun },
        onTold: (told) => {
          if (this.#thread === thread) this.#on(thread, told);
        },
        onError: (error) => this.#crashed(thread, error),
        onExit: (code) =>
          this.#crashed(
            thread,
            new Error(
              `the handler ended its thread: Deno.exit() or the like, exit code ${code}`,
            ),
          ),
      });
      const thread: LocalThread = { ...started, begun, instance: null };
      this.#thread = thread;
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  leave(): void {
    if (this.#stage === "ended") return;
    const thread = this.#thread;
    if (thread === null || thread.instance === null) return this.end();
    this.#stage = "leaving";
    thread.port.postMessage("leave" satisfies ToLocal);
  }

  dropped(instance: string, error: Error): void {
    const thread = this.#thread;
    if (thread?.instance === instance) this.#crashed(thread, error);
  }

  end(): void {
    if (this.#stage === "ended") return;
    this.#stage = "ended";
    this.#stop();
    this.#events.onEnd();
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#forgetStart();
    const thread = this.#thread;
    // Forgotten first: to close them tells of the thread's exit, and of what it
    // said last, and neither is another crash.
    this.#thread = null;
    thread?.port.close();
    thread?.worker.terminate();
  }

  #on(thread: LocalThread, told: FromLocal): void {
    switch (told.type) {
      case "ready":
        thread.instance = told.instance;
        return;
      case "done":
        return this.end();
      case "unusable":
        return this.#fail(fromThrown(told.error));
      case "crash":
        return this.#crashed(thread, fromThrown(told.error));
    }
  }

  #crashed(thread: LocalThread, error: Error): void {
    if (this.#thread !== thread) return;
    this.#stop();
    const { concurrency, url } = this.#setup;
    const begun = new Int32Array(thread.begun)[0]!;
    const progress = this.#setup.progress();
    // It has begun more than it runs at once, so it has finished some. Or items
    // were settled since the last crash: those that it crashes at become poison.
    const isOfUse = begun > concurrency ||
      begun > 0 && progress !== this.#progress;
    this.#progress = progress;
    if (isOfUse) this.#backoff.reset();
    if (this.#stage === "leaving") return this.end();
    if (thread.instance === null) {
      this.#fail(notLoaded(url, error.message, { cause: error }));
    } else if (this.#backoff.attempts >= MAX_CRASHES) {
      this.#fail(
        new Error(
          `The local pool gave up: a thread crashed ${MAX_CRASHES} times in a row and no item was settled: ${error.message}`,
          { cause: error },
        ),
      );
    } else {
      this.#timer = setTimeout(() => this.start(), this.#backoff.next());
      // Last: whoever is told may end all.
      this.#setup.onCrash(this.#name, error);
    }
  }

  #fail(error: Error): void {
    this.end();
    this.#events.onError(error);
  }
}
