/**
 * Poison: what is blamed for a worker's death, who is blamed for nothing, and
 * what becomes of blamed items (design section 3, "Poison").
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ByKey } from "../internal/dispatcher.ts";
import type { WorkerLink } from "../internal/worker_link.ts";
import { ItemFailure, PoisonItemError } from "../mod.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import type { ScriptedPeer } from "./_support/scripted_peer.ts";
import { payload, T } from "./_support/scripted_peer.ts";
import {
  answer,
  listenOnly,
  PATIENT,
  scripted,
  takeItems,
} from "./_support/task_kit.ts";
import { moment, until, within } from "./_support/within.ts";
import { startWorker } from "./_support/worker_process.ts";

const ids = (items: { id: number }[]) => items.map((item) => item.id);

/** A worker dies: its connection ends without a goodbye. */
async function die(
  kit: { server: { workers: readonly unknown[] } },
  peer: ScriptedPeer,
  left = 0,
): Promise<void> {
  peer.close();
  await until(
    () => kit.server.workers.length === left,
    "the death is noticed",
  );
}

both(
  "Only the oldest concurrency unsettled items are blamed, and then go alone",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const doomed = await scripted(kit, { concurrency: 2, window: 5 });
    const results = range(6).map((n) => kit.server.submit(n));
    assertEquals(ids(await takeItems(doomed, 5)), [0, 1, 2, 3, 4]);
    await answer(doomed, 1, 10);
    assertEquals(await results[1], 10);
    // 0 and 2 are being executed now, 3 and 4 are queued there, 5 may be.
    await die(kit, doomed);
    await using next = await scripted(kit, { window: 64 });
    assertEquals(ids(await takeItems(next, 1)), [0], "blamed: alone");
    await moment();
    assertEquals(kit.server.workers[0]!.inFlight, 1);
    await answer(next, 0, 0);
    assertEquals(ids(await takeItems(next, 1)), [2], "blamed: alone");
    await moment();
    assertEquals(kit.server.workers[0]!.inFlight, 1);
    await answer(next, 1, 20);
    assertEquals(ids(await takeItems(next, 3)), [3, 4, 5], "together");
    for (const i of range(3)) await answer(next, 2 + i, 30 + 10 * i);
    assertEquals(await Promise.all(results), [0, 10, 20, 30, 40, 50]);
  },
);

both(
  "At maxDeliveries deaths an item fails, and tells them all",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    const since = Date.now();
    const result = kit.server.submit("killer");
    const failed = assertRejects(() => result, ItemFailure);
    for (const name of ["one", "two", "three"]) {
      const peer = await scripted(kit, { name });
      const [item] = await takeItems(peer, 1);
      assertEquals(item!.id, 0);
      await die(kit, peer);
    }
    const failure = await failed as ItemFailure<string>;
    assertEquals([failure.item, failure.id, failure.attempts], [
      "killer",
      0,
      3,
    ]);
    const { error } = failure;
    assert(error instanceof PoisonItemError);
    assertEquals(error.attempts.map((a) => a.worker), ["one", "two", "three"]);
    for (const { at, reason } of error.attempts) {
      assert(at >= since - 1 && at <= Date.now() + 1);
      assert(reason.length > 0);
    }
    assert(error.message.includes("two"));
    const redelivered = kit.events.filter((e) => e.type === "redelivered");
    assertEquals(redelivered.length, 2, "poison isn't redelivered");
    assertEquals(kit.server.stats().failed, 1);
    // The channel goes on.
    await kit.worker((text) => text.toUpperCase());
    assertEquals(await kit.server.submit("fine"), "FINE");
  },
);

both("maxDeliveries is what it says", async (net) => {
  await using kit = new Kit<number, number>(net, { maxDeliveries: 2 });
  const failed = assertRejects(() => kit.server.submit(1), ItemFailure);
  for (let i = 0; i < 2; i++) {
    const peer = await scripted(kit);
    await takeItems(peer, 1);
    await die(kit, peer);
  }
  assertEquals(((await failed).error as PoisonItemError).attempts.length, 2);
});

both("One cut of many connections makes no item poison", async (net) => {
  await using kit = new Kit<number, number>(net);
  const instances = range(4).map((i) => new Uint8Array(16).fill(i));
  const peers = new Map<string, ScriptedPeer>();
  for (const instance of instances) {
    const name = String(instance[0]);
    peers.set(name, await scripted(kit, { instance, name }));
  }
  const result = kit.server.submit(7);
  result.catch(() => {});
  // Each end is heard by itself, and the item goes to the next at once.
  for (let left = 3; left >= 0; left--) {
    const holder = kit.server.workers.find(({ inFlight }) => inFlight > 0) ??
      kit.server.workers[0]!;
    const peer = peers.get(holder.name)!;
    if (holder.inFlight > 0) assertEquals(ids(await takeItems(peer, 1)), [0]);
    await die(kit, peer, left);
  }
  await using back = await scripted(kit, { instance: instances[3]! });
  const [item] = await takeItems(back, 1);
  assertEquals([item!.id, item!.attempt], [0, 3]);
  await answer(back, 0, 14);
  assertEquals(await result, 14);
});

both("abort() and leaving blame nobody", async (net) => {
  await using kit = new Kit<number, number>(net, { maxDeliveries: 2 });
  const result = kit.server.submit(1);
  result.catch(() => {});
  for (let i = 0; i < 4; i++) {
    const peer = await scripted(kit);
    await takeItems(peer, 1);
    if (i % 2 === 0) await peer.say(T.GOODBYE, 1, "aborted");
    else await peer.say(T.LEAVE); // and dies while it finishes the rest
    await die(kit, peer);
  }
  await using peer = await scripted(kit);
  const [item] = await takeItems(peer, 1);
  assertEquals(item!.attempt, 5);
  kit.server.submit(2).catch(() => {});
  await takeItems(peer, 1); // so the first isn't alone
  await answer(peer, 0, 11);
  assertEquals(await result, 11);
});

both(
  "What is handed back unbegun was no delivery, and no blame",
  async (net) => {
    await using kit = new Kit<number, number>(net, { maxDeliveries: 2 });
    const results = range(3).map((n) => kit.server.submit(n));
    for (let i = 0; i < 3; i++) {
      const peer = await scripted(kit, { window: 3 });
      const items = await takeItems(peer, 3);
      assertEquals(items.map((item) => item.attempt), [1, 1, 1]);
      await peer.say(T.LEAVE, ...items.map((item) => item.delivery));
      await die(kit, peer);
    }
    await kit.worker((n) => n);
    assertEquals(await Promise.all(results), range(3));
  },
);

both("Speculation blames nobody", async (net) => {
  await using kit = new Kit<number, number>(net, {
    maxDeliveries: 2,
    heartbeat: PATIENT,
  });
  await using silent = await scripted(kit, { name: "silent" });
  const results = range(2).map((n) => kit.server.submit(n));
  await takeItems(silent, 2);
  await kit.event("suspect");
  await using other = await scripted(kit, { name: "other" });
  // Both at once, so neither is blamed.
  assertEquals(ids(await takeItems(other, 2)), [0, 1]);
  await answer(other, 0, 0);
  await answer(other, 1, 1);
  assertEquals(await Promise.all(results), [0, 1]);
});

both(
  "The same process coming back takes the blame of its lost connection back",
  async (net) => {
    await using kit = new Kit<number, number>(net, { maxDeliveries: 2 });
    const instance = crypto.getRandomValues(new Uint8Array(16));
    const results = range(2).map((n) => kit.server.submit(n));
    results.forEach((result) => result.catch(() => {}));
    for (let i = 0; i < 5; i++) { // the network is bad, the item is not
      const peer = await scripted(kit, { instance });
      const items = await takeItems(peer, 2); // both at once: not alone
      assertEquals(ids(items), [0, 1]);
      await die(kit, peer);
    }
    // Another process's death counts.
    const peer = await scripted(kit);
    assertEquals(ids(await takeItems(peer, 1)), [0]);
    await die(kit, peer);
    const error = (await assertRejects(() => results[0]!, ItemFailure)).error;
    assertEquals((error as PoisonItemError).attempts.length, 2);
    await kit.worker((n) => n);
    assertEquals(await results[1], 1);
  },
);

both(
  "A blamed item gets its turn, however busy the others keep all workers",
  async (net) => {
    await using kit = new Kit<number, number>(net, { maxDeliveries: 9 });
    const { server } = kit;
    const doomed = await scripted(kit);
    const result = server.submit(-1);
    await takeItems(doomed, 1);
    await kit.worker((n) => n, { client: { prefetch: 16 } });
    await kit.worker((n) => n, { client: { prefetch: 16 } });
    let taken = 0, isOver = false;
    const stream = (async () => {
      // Without an end: a source that never lets a worker run dry.
      const items = (function* () {
        while (!isOver) yield taken++;
      })();
      for await (
        const _ of server.map(items, { ordered: false, window: 256 })
      ) {
        if (isOver) break;
      }
    })();
    await until(() => taken > 1000, "the stream flows");
    await die(kit, doomed, 2);
    assertEquals(await within(result, 5000, "the blamed item's turn"), -1);
    const then = taken;
    await until(() => taken > then + 1000, "the stream goes on");
    isOver = true;
    await stream;
  },
);

both(
  "A worker that is alone gets others once its item is settled or cancelled",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const doomed = await scripted(kit);
    const controller = new AbortController();
    const first = kit.server.submit(0, { signal: controller.signal });
    await takeItems(doomed, 1);
    await die(kit, doomed);
    await using peer = await scripted(kit);
    await takeItems(peer, 1);
    const second = kit.server.submit(1);
    controller.abort();
    await assertRejects(() => first, DOMException);
    await peer.until(T.CANCEL);
    await moment();
    assertEquals(kit.server.workers[0]!.inFlight, 1, "its slot is kept");
    await peer.say(T.ERROR, 0, "AbortError", "cancelled", null, null);
    assertEquals(ids(await takeItems(peer, 1)), [1]);
    await peer.say(T.RESULT, 1, payload(5));
    assertEquals(await second, 5);
  },
);

Deno.test("Real processes: an item that kills is poison, all others have results", async () => {
  await using kit = new Kit<unknown, number>("tcp");
  const { port } = kit.server.addr as Deno.NetAddr;
  const start = (name: string) => startWorker({ port, name });
  const workers = range(3).map((i) => start(`worker ${i}`));
  const replaced = new Set<unknown>();
  const more: (typeof workers)[number][] = [];
  try {
    const items: unknown[] = range(300);
    items[50] = { n: 50, act: "exit" };
    items[150] = { n: 150, act: "segv" };
    const outcomes: (number | string)[] = [];
    const refill = setInterval(() => {
      for (const e of kit.events) {
        if (e.type !== "disconnected" || replaced.has(e)) continue;
        replaced.add(e);
        more.push(start(`more ${more.length}`));
      }
    }, 20);
    for await (
      const { failure, result } of kit.server.map(items, { settled: true })
    ) {
      outcomes.push(failure ? failure.error.name : result);
    }
    clearInterval(refill);
    const expected: (number | string)[] = range(300).map((n) => n * 3 + 1);
    expected[50] = expected[150] = "PoisonItemError";
    assertEquals(outcomes, expected);
    await kit.server.close();
  } finally {
    for (const worker of [...workers, ...more]) {
      await worker[Symbol.asyncDispose]();
    }
  }
});

both(
  "By key, a blamed item doesn't wait for ever for a worker that holds on to a cancelled one",
  async (net) => {
    const byKey = new ByKey<WorkerLink>((key: string) => key);
    const goesTo = (key: string, ids: number[]) => {
      const workers = ids.map((id) => ({ id, info: { state: "active" } }));
      return byKey.pick(workers as WorkerLink[], key, () => true)!.id;
    };
    const key = range(100).map(String).find((key) =>
      goesTo(key, [0, 1]) === 1 && goesTo(key, [0, 2]) === 0
    )!;
    await using kit = new Kit<string, number>(net, {
      dispatch: { key: (key) => key },
      heartbeat: PATIENT,
    });
    const { server } = kit;
    await using stuck = await scripted(kit, { concurrency: 2 });
    const leave = new AbortController();
    const cancelled = server.submit("", { signal: leave.signal });
    await takeItems(stuck, 1);
    leave.abort();
    await assertRejects(() => cancelled);
    const listening = listenOnly(stuck); // its other slot is free
    const doomed = await scripted(kit);
    const result = server.submit(key);
    await takeItems(doomed, 1);
    await die(kit, doomed, 1);
    await using other = await scripted(kit);
    await takeItems(other, 1);
    await answer(other, 0, 7);
    assertEquals(await result, 7);
    await server.abort();
    await listening;
  },
);
