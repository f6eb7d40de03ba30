/**
 * A worker as a process of its own, for tests and chaos: its items say what to
 * do, dying included. It ends when the server has no more work, and when its
 * standard input ends: so it never outlives who started it.
 *
 * Usage: `worker.ts '{"port":5678,"name":"one"}'`
 *
 * @module
 */

import { type ConnectOptions, work, type WorkOptions } from "../../mod.ts";

/** What is done beside giving the result. */
export type Act =
  /** Nothing happens for `ms`, or until a file is there; the loop stands still. */
  | "block"
  /** The result comes after `ms`. */
  | "wait"
  /** It never comes, unless the signal aborts. */
  | "hang"
  /** It never comes, whatever the signal says; it is told once it is begun. */
  | "ignore"
  /** The handler throws. */
  | "throw"
  /** The process exits. */
  | "exit"
  /** The process aborts, as a failed assertion in C does. */
  | "abort"
  /** The process has a segmentation fault. */
  | "segv";

/** An item: a number, or a number and what to do. */
export type ActItem = number | {
  n: number;
  act: Act;
  ms?: number;
  /** The file whose coming ends a "block" before its time. */
  until?: string;
  /** Only at attempts up to this one; at all by default. */
  upTo?: number;
};

/** What a worker is started with. */
export interface WorkerArguments {
  connect: ConnectOptions;
  work?: WorkOptions;
}

/** The result of an item. */
export function resultOf(item: ActItem): number {
  return (typeof item === "number" ? item : item.n) * 3 + 1;
}

async function act(
  item: Exclude<ActItem, number>,
  signal: AbortSignal,
): Promise<number> {
  switch (item.act) {
    case "wait":
      await sleep(item.ms!, signal);
      break;
    case "ignore":
      console.log("ignoring");
      await new Promise(() => {});
      break;
    case "hang":
      await sleep(2 ** 31 - 1, signal);
      break;
    case "throw":
      throw new RangeError(`Cannot do ${item.n}`, {
        cause: new TypeError("because"),
      });
    case "exit":
      Deno.exit(3);
      break;
    case "abort":
      Deno.kill(Deno.pid, "SIGABRT");
      block(10_000);
      break;
    case "segv": // V8 ignores a SIGSEGV that is only sent
      new Deno.UnsafePointerView(Deno.UnsafePointer.create(8n)!).getUint8();
  }
  return resultOf(item);
}

function block(ms: number, file?: string): void {
  const until = performance.now() + ms;
  while (performance.now() < until && !(file && isThere(file)));
}

function isThere(file: string): boolean {
  try {
    return Deno.statSync(file).isFile;
  } catch {
    return false;
  }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

if (import.meta.main) {
  const { connect, work: workOptions } = JSON.parse(
    Deno.args[0]!,
  ) as WorkerArguments;
  const leave = new AbortController();
  (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of Deno.stdin.readable) {
      if (decoder.decode(chunk).includes("leave")) leave.abort();
    }
    Deno.exit(0);
  })();
  const told = Deno.args.includes("--tell");
  await work<ActItem, number>(
    told
      ? { ...connect, onEvent: (e) => console.log(JSON.stringify(e)) }
      : connect,
    (item, { attempt, signal }) => {
      if (typeof item === "number") return resultOf(item);
      if (attempt > (item.upTo ?? Infinity)) return resultOf(item);
      if (item.act !== "block") return act(item, signal);
      block(item.ms!, item.until);
      return resultOf(item);
    },
    { ...workOptions, signal: leave.signal },
  );
  Deno.exit(0);
}
