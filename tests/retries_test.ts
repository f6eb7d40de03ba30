import { assertEquals, assertLess, assertRejects } from "@std/assert";
import type { Delivery, Item, Worker } from "../internal/delivery.ts";
import { Entry } from "../internal/in_flight.ts";
import type { RetryOptions } from "../internal/options.ts";
import { Retries } from "../internal/retries.ts";
import { Client, Server } from "../mod.ts";
import { range } from "./_support/channel_kit.ts";
import { MemoryListener } from "./_support/memory_pair.ts";
import { runWithGc } from "./_support/process.ts";
import { Gate, until } from "./_support/within.ts";

/** A delivery that keeps what comes back, and the retries at it. */
function retriesOf(retry: RetryOptions = { attempts: 2, backoffMs: 1 }) {
  const requeued: number[][] = [];
  const delays: number[] = [];
  const retries = new Retries({
    retry,
    spans: null,
    onRetry: (_id, _error, delayMs) => delays.push(delayMs),
    delivery: {
      hold: () => true,
      requeue: (entries: Item[]) => requeued.push(entries.map((e) => e.id)),
    } as unknown as Delivery,
  });
  const newItem = (id: number): Item => new Entry(id, null, null as never, 0);
  const fail = (id: number, entry: Item = newItem(id)) => {
    retries.error(null as unknown as Worker, entry, new Error("again"));
  };
  return { retries, requeued, delays, newItem, fail };
}

Deno.test("Retries: the time before each doubles, up to an hour", () => {
  const { retries, delays, newItem, fail } = retriesOf({
    attempts: Infinity,
    backoffMs: 1000,
  });
  const item = newItem(0);
  for (let i = 0; i < 2000; i++) {
    fail(0, item);
    retries.forget(item);
  }
  retries.stop();
  assertEquals(delays.slice(0, 3), [1000, 2000, 4000]);
  assertEquals(delays.at(-1), 3_600_000);
  const day = 86_400_000;
  const slow = retriesOf({ attempts: 3, backoffMs: day });
  const other = slow.newItem(0);
  slow.fail(0, other);
  slow.retries.forget(other);
  slow.fail(0, other);
  slow.retries.stop();
  assertEquals(slow.delays, [day, day]);
});

Deno.test("Retries: what is due together goes back together", async () => {
  const { retries, requeued, fail } = retriesOf();
  for (const id of range(1000)) fail(id);
  await until(() => requeued.flat().length === 1000, "all are back");
  assertEquals(requeued.flat().toSorted((a, b) => a - b), range(1000));
  assertLess(requeued.length, 100);
  retries.stop();
});

/** Items come back; prints how many of them are still in memory then. */
const BACK = `
const { Retries } = await import(Deno.args[0]);
const refs = [];
await new Promise((resolve) => {
  let back = 0;
  const retries = globalThis.retries = new Retries({
    retry: { attempts: 2, backoffMs: 1 },
    spans: null,
    onRetry() {},
    delivery: {
      hold: () => true,
      requeue: (items) => (back += items.length) === 100 && resolve(),
    },
  });
  for (let id = 0; id < 100; id++) {
    const item = { id, errors: 0, state: "waiting" };
    refs.push(new WeakRef(item));
    retries.error(null, item, new Error("again"));
  }
});
await new Promise((resolve) => setTimeout(resolve, 0));
globalThis.gc();
console.log(refs.filter((ref) => ref.deref() !== undefined).length);
`;

Deno.test("Retries keeps no item that is back", async () => {
  assertLess(Number(await runWithGc(BACK, "internal/retries.ts")), 10);
});

Deno.test("Retries.stop() leaves no timer, not even of what is due", async () => {
  const { retries, requeued, fail } = retriesOf();
  fail(0);
  await until(() => requeued.length === 1, "it is back");
  using due = new Timers(0);
  fail(1);
  await due.started.pass();
  assertEquals(due.running.size, 1, "it is due, and not back yet");
  fail(2);
  retries.stop();
  assertEquals(due.running.size, 0);
  assertEquals(requeued, [[0]]);
});

Deno.test("Retries.forget() leaves no timer of an item that doesn't wait any more", async () => {
  const { retries, requeued, newItem, fail } = retriesOf();
  const item = newItem(1);
  fail(1, item);
  fail(2);
  retries.forget(item);
  retries.forget(newItem(3)); // never waited
  await until(() => requeued.length === 1, "the other is back");
  assertEquals(requeued, [[2]]);
  retries.stop();
});

/** Timers of so many ms that are running, of those set from now on. */
class Timers implements Disposable {
  readonly running = new Set<unknown>();
  /** Opens when the first of them is set. */
  readonly started = new Gate();
  readonly #set = globalThis.setTimeout;
  readonly #clear = globalThis.clearTimeout;

  constructor(ms: number) {
    globalThis.setTimeout = ((callback: () => void, delay: number) => {
      const timer = this.#set(callback, delay);
      if (delay === ms) {
        this.running.add(timer);
        this.started.open();
      }
      return timer;
    }) as typeof setTimeout;
    globalThis.clearTimeout = (timer) => {
      this.running.delete(timer);
      this.#clear(timer as number);
    };
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.#set;
    globalThis.clearTimeout = this.#clear;
  }
}

Deno.test("retry: a cancelled item leaves no timer, nor does a server aborted from the event", async () => {
  const backoffMs = 3_600_000;
  using timers = new Timers(backoffMs);
  const listener = new MemoryListener();
  const server = new Server<number, number>(listener, {
    retry: { attempts: 5, backoffMs },
    onEvent: (event) => {
      if (event.type !== "retry") return;
      retried.open();
      if (event.id === 1) void server.abort();
    },
  });
  const retried = new Gate();
  const client = new Client<number, number>(listener.connect());
  client.work(() => {
    throw new Error("no");
  }).catch(() => {});
  const controller = new AbortController();
  const first = server.submit(0, { signal: controller.signal });
  await retried.pass();
  assertEquals(timers.running.size, 1);
  controller.abort(new Error("enough"));
  await assertRejects(() => first, Error, "enough");
  assertEquals(timers.running.size, 0);
  await assertRejects(() => server.submit(1));
  assertEquals(timers.running.size, 0);
  await server.closed.catch(() => {});
});
