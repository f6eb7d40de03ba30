/** What is told (`onEvent`), and what is counted (`stats()`). */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type ClientEvent,
  DrainTimeoutError,
  ItemFailure,
  type StallReason,
} from "../mod.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { scripted, takeItems } from "./_support/task_kit.ts";
import { moment, until, within } from "./_support/within.ts";

async function stalled(
  kit: Kit<number, number>,
  reason: StallReason,
): Promise<number> {
  const event = await kit.event("stalled");
  assertEquals(event.reason, reason);
  return event.waiting;
}

both("stalled: no-workers", async (net) => {
  await using kit = new Kit<number, number>(net);
  range(3).forEach((n) => kit.server.submit(n).catch(() => {}));
  assertEquals(await stalled(kit, "no-workers"), 3);
});

both("stalled: no-work-mode", async (net) => {
  await using kit = new Kit<number, number>(net);
  await using _ = await scripted(kit, { mode: "stream" });
  kit.server.submit(1).catch(() => {});
  assertEquals(await stalled(kit, "no-work-mode"), 1);
});

both("stalled: no-work-mode, though other items flow", async (net) => {
  await using kit = new Kit<number, number>(net, { results: "discard" });
  const client = await kit.client();
  let read = 0;
  const reading = (async () => {
    for await (const _ of client) await moment(read++ % 10 === 0 ? 5 : 0);
  })();
  kit.server.submit(1).catch(() => {});
  let isTold = false;
  const writing = (async () => {
    while (!isTold) await kit.server.send(2);
  })();
  assertEquals(await stalled(kit, "no-work-mode"), 1);
  isTold = true;
  await writing;
  assert(read > 10, `${read} items were read meanwhile`);
  const { done } = await kit.worker((n) => n);
  kit.server.end();
  await Promise.all([reading, done, kit.server.closed]);
});

both("An item that waits for its retry hasn't stalled", async (net) => {
  await using kit = new Kit<number, number>(net, {
    retry: { attempts: 2, backoffMs: 1800 },
  });
  await kit.worker((n, { attempt }) => {
    if (attempt === 1) throw new Error("not yet");
    return n;
  });
  const late = assertRejects(
    () => kit.server.submit(1, { timeoutMs: 1500 }),
    ItemFailure,
  );
  assertEquals(await kit.server.submit(2), 2);
  await late;
  assertEquals(kit.events.filter((e) => e.type === "stalled"), []);
  assertEquals(kit.server.stats().pending, 0);
});

both("stalled: workers-full", async (net) => {
  await using kit = new Kit<number, number>(net);
  await using peer = await scripted(kit, { window: 2 });
  range(5).forEach((n) => kit.server.submit(n).catch(() => {}));
  await takeItems(peer, 2);
  assertEquals(await stalled(kit, "workers-full"), 3);
});

both("stalled is told once for each standstill", async (net) => {
  await using kit = new Kit<number, number>(net);
  const count = () => kit.events.filter((e) => e.type === "stalled").length;
  const result = kit.server.submit(1);
  await kit.event("stalled");
  await moment(600); // longer than two looks
  assertEquals(count(), 1, "it goes on, and is told");
  const { client } = await kit.worker((n) => n);
  await result;
  await client.abort();
  await until(() => kit.server.workers.length === 0, "it is gone");
  kit.server.submit(2).catch(() => {});
  await until(() => count() === 2, "it stalls again");
});

both("failed is told for every way in", async (net) => {
  await using kit = new Kit<number, number>(net, { onFailure: () => {} });
  await kit.worker(() => {
    throw new Error("no");
  });
  await assertRejects(() => kit.server.submit(1), ItemFailure);
  for await (const _ of kit.server.map([2], { onFailure: () => {} }));
  kit.server.send(3);
  await until(() => kit.server.stats().failed === 3, "all have failed");
  const failed = kit.events.filter((e) => e.type === "failed");
  assertEquals(failed.map((e) => e.failure.item), [1, 2, 3]);
});

both("A client tells what it can't send, and goes on", async (net) => {
  await using kit = new Kit<number, unknown>(net, { onFailure: () => {} });
  const events: ClientEvent[] = [];
  const { client } = await kit.worker((n) => n === 0 ? () => {} : n, {
    client: { onEvent: (e) => events.push(e) },
  });
  await assertRejects(() => kit.server.submit(0), ItemFailure);
  assertEquals(await kit.server.submit(1), 1);
  const failed = events.find((e) => e.type === "failed");
  assert(failed?.type === "failed");
  assertEquals([failed.id, failed.error.name], [0, "EncodeError"]);
  await client.close();
  assertEquals(events.map((e) => e.type), [
    "connected",
    "failed",
    "disconnected",
  ]);
});

both(
  "workers has who is told as connected, not who is told as gone",
  async (net) => {
    const counts: [string, number][] = [];
    let isReady = false;
    await using kit: Kit<number, number> = new Kit<number, number>(net, {
      onEvent: ({ type }) => {
        if (type !== "connected" && type !== "disconnected") return;
        counts.push([type, kit.server.stats().workers.length]);
        if (type === "disconnected") {
          kit.server.ready(2).then(() => isReady = true, () => {});
        }
      },
    });
    await kit.client();
    const second = await kit.client();
    await second.abort();
    await until(() => counts.length === 3, "disconnected");
    await moment(20);
    assertEquals(isReady, false);
    await kit.client();
    await until(() => isReady, "ready");
    assertEquals(counts, [
      ["connected", 1],
      ["connected", 2],
      ["disconnected", 1],
      ["connected", 2],
    ]);
  },
);

both("stats() and workers count what happens", async (net) => {
  await using kit = new Kit<number, number>(net, { onFailure: () => {} });
  const { server } = kit;
  const empty = server.stats();
  assertEquals([empty.pending, empty.inFlight, empty.settled], [0, 0, 0]);
  server.send(1);
  assertEquals(server.stats().pending, 1);
  await kit.worker((n) => {
    if (n < 0) throw new Error("negative");
    return n;
  }, { client: { name: "one" } });
  for (const n of range(99)) server.send(n + 2);
  server.send(-1);
  await until(() => server.stats().failed === 1, "all are done");
  const stats = server.stats();
  assertEquals(
    [stats.pending, stats.inFlight, stats.settled, stats.unread],
    [0, 0, 100, 100],
  );
  assert(stats.bytesIn > 200 && stats.bytesOut > 200);
  const [worker] = stats.workers;
  assertEquals(
    [worker!.id, worker!.name, worker!.settled, worker!.failed],
    [0, "one", 100, 1],
  );
  const { ratePerSecond } = worker!;
  assert(ratePerSecond > 0, "its rate is measured");
  assert(ratePerSecond <= 101, `${ratePerSecond} a second, of 101 in all`);
  assert(worker!.rttMs! >= 0);
  await until(
    () => server.workers[0]!.ratePerSecond === 0,
    "nothing is settled any more",
  );
});

both(
  "close() past drainMs names what waits for a retry, and what waits behind it",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      retry: { attempts: 2, backoffMs: 60_000 },
    });
    await kit.worker((n) => {
      if (n === 0) throw new Error("once");
      return new Promise(() => {});
    }, { client: { prefetch: 1 } });
    range(3).forEach((n) => kit.server.submit(n).catch(() => {}));
    await kit.event("retry");
    await until(
      () => kit.server.stats().inFlight === 1,
      "the next is executed",
    );
    const error = await assertRejects(
      () => within(kit.server.close({ drainMs: 50 }), 5000, "drained"),
      DrainTimeoutError,
    );
    assertEquals(error.unfinished, range(3).map((n) => ({ id: n, item: n })));
  },
);

Deno.test("Every type of event is in a test", async () => {
  const root = new URL("../", import.meta.url);
  const source = await Deno.readTextFile(
    new URL("internal/events.ts", root),
  );
  const types = new Set(
    source.matchAll(/type: "([a-z-]+)"/g).map((m) => m[1]!),
  );
  assert(types.size > 10);
  let tests = "";
  for await (const { name } of Deno.readDir(new URL("tests/", root))) {
    if (!name.endsWith("_test.ts")) continue;
    tests += await Deno.readTextFile(new URL(`tests/${name}`, root));
  }
  for (const type of types) {
    assert(tests.includes(`"${type}"`), `"${type}" is in no test`);
  }
});

both("An item that is cancelled is no failure of its worker's", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  await kit.worker((_n, { signal }) =>
    new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
    }), { concurrency: 2 });
  const controller = new AbortController();
  const { signal } = controller;
  const results = range(2).map((n) => server.submit(n, { signal }));
  await until(() => server.workers[0]!.inFlight === 2, "both are executed");
  controller.abort();
  await Promise.allSettled(results);
  await until(() => server.workers[0]!.inFlight === 0, "both are answered");
  assertEquals([server.stats().failed, server.workers[0]!.failed], [0, 0]);
});
