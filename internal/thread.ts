/**
 * What both kinds of threads have in common: isolates, and those of a local
 * pool. Each is a `Worker` of `node:worker_threads`, for the reasons in
 * isolate.ts.
 *
 * @module
 */

import type { Worker } from "node:worker_threads";
import { type Thrown, toThrown } from "./thrown.ts";
import { afterTurn } from "./timer.ts";

const BUNDLED =
  "this library is bundled into one file with the program, where threads can't load it: use deno compile";

/**
 * A thread's first code: it hands its `workerData` to the `serve()` of a module,
 * or says through the `port` in it that it is unusable. A data: URL, so that
 * whatever goes wrong with the rest is told and not printed; and `self`, because
 * many libraries know a worker by it. The module stands in a variable, because
 * Deno type-checks what it can analyze: under `deno test` it would check all of
 * the library, in each thread.
 *
 * @param module The module's URL.
 * @param what What can't be started then, in words.
 */
export function bootstrapOf(module: string, what: string): URL {
  // In one file with the program: a thread would run that, and start threads.
  const isBundled = module === import.meta.url;
  return new URL(
    "data:text/javascript," + encodeURIComponent(
      'import { workerData } from "node:worker_threads";' +
        "globalThis.self ??= globalThis;" +
        `const module = ${JSON.stringify(module)};` +
        (isBundled
          ? `Promise.reject(TypeError("${BUNDLED}"))`
          : "import(module)") +
        ".then(" +
        "({ serve }) => serve(workerData)," +
        "({ name, message }) => workerData.port.postMessage(" +
        '{ type: "unusable", error: { name, ' +
        `message: ${JSON.stringify(`Cannot start ${what}: `)} + message } }));`,
    ),
  );
}

/** A thread, and this end of the line to it. */
export interface Thread {
  /** The thread. */
  readonly worker: Worker;
  /** Where it is told something. */
  readonly port: MessagePort;
}

/** What a thread is started with. */
export interface ThreadOptions<Setup extends { port: MessagePort }, Told> {
  /** What Deno calls it. */
  name: string;
  /** Its `workerData`, but for its end of the line. */
  setup: Omit<Setup, "port">;
  /** It has told something. */
  onTold(told: Told): void;
  /** It ends, since nobody caught an error. */
  onError(error: Error): void;
  /** It has ended. */
  onExit(code: number): void;
}

/**
 * Starts a thread.
 *
 * @param threads The module `node:worker_threads`, which takes long to load.
 * @param bootstrap What {@linkcode bootstrapOf} returns.
 * @param options What it is given, and whom to tell.
 * @throws {Error} If there is no thread to be had, for example.
 */
export function startThread<Setup extends { port: MessagePort }, Told>(
  threads: typeof import("node:worker_threads"),
  bootstrap: URL,
  options: ThreadOptions<Setup, Told>,
): Thread {
  const { name, setup, onTold, onError, onExit } = options;
  const { port1, port2 } = new MessageChannel();
  try {
    const worker = new threads.Worker(bootstrap, {
      name,
      // Without it the environment is read, and the permission asked for.
      env: threads.SHARE_ENV,
      workerData: { ...setup, port: port2 },
      // deno-lint-ignore no-explicit-any
      transferList: [port2 as any],
    });
    port1.onmessage = ({ data }: MessageEvent<Told>) => onTold(data);
    worker.on("error", onError);
    worker.on("exit", onExit);
    return { worker, port: port1 };
  } catch (error) {
    port1.close();
    port2.close();
    throw error;
  }
}

/** Threads that are to be started. */
const starts = new Set<() => void>();
let forgetTurn: () => void = () => {};

/**
 * Starts a thread, soon. This thread stands still until that one runs, 20 to 80
 * ms: its event loop has a turn between any two, or a server that starts a
 * hundred would hear nobody for seconds, and the first of them would give up.
 *
 * @param start Starts it.
 * @returns Forgets it.
 */
export function startSoon(start: () => void): () => void {
  starts.add(start);
  if (starts.size === 1) startNext();
  return () => {
    if (starts.delete(start) && starts.size === 0) forgetTurn();
  };
}

function startNext(): void {
  forgetTurn = afterTurn(() => {
    const [start] = starts;
    starts.delete(start!);
    if (starts.size > 0) startNext();
    start!();
  });
}

/** Inside of a thread: what nobody catches is told, and Deno doesn't print it. */
export function tellUncaught(tell: (error: Thrown) => void): void {
  const onUncaught = (event: ErrorEvent | PromiseRejectionEvent) => {
    event.preventDefault();
    tell(toThrown(event instanceof ErrorEvent ? event.error : event.reason));
  };
  globalThis.addEventListener("error", onUncaught);
  globalThis.addEventListener("unhandledrejection", onUncaught);
}

/** More than enough for Deno to stop a thread that ends itself. */
const STEPS_TO_EXIT = 1_000_000;

/**
 * Inside of a thread: `Deno.exit()` is the end. By itself it returns, and what
 * called it goes on for a while. In a thread that was ended from outside before,
 * Deno stops nothing any more: that one has to get back to its event loop, or
 * would burn its core, and keep its connection, until the process ends.
 */
export function exitAtOnce(): void {
  const { exit } = Deno;
  Object.assign(Deno, {
    exit(code?: number): never {
      exit(code);
      for (let step = 0; step < STEPS_TO_EXIT; step++);
      throw new Error("Deno.exit() was called in a thread that has ended");
    },
  });
}
