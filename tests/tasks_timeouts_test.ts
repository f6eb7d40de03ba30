/**
 * Retries, timeouts and cancellation across the wire, and generators (design
 * section 3, "Failures are per item", "Liveness").
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  Client,
  gzip,
  type Handler,
  ItemFailure,
  ItemTimeoutError,
  RemoteError,
} from "../mod.ts";
import { both, Kit, QUIET, range } from "./_support/channel_kit.ts";
import { payload, ScriptedPeer, T } from "./_support/scripted_peer.ts";
import { answer, scripted, takeItems } from "./_support/task_kit.ts";
import { Gate, moment, until, within } from "./_support/within.ts";

const untilAborted = (signal: AbortSignal) =>
  new Promise<never>((_, reject) =>
    signal.addEventListener("abort", () => reject(signal.reason))
  );

both(
  "retry: a handler that throws is tried again, with growing delays",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      retry: { attempts: 3, backoffMs: 20 },
    });
    const times: number[] = [];
    await kit.worker((n, { attempt, id }) => {
      times.push(performance.now());
      assertEquals([attempt, id], [times.length, 0]);
      if (attempt < 3) throw new Error(`attempt ${attempt}`);
      return n * 2;
    });
    assertEquals(await kit.server.submit(21), 42);
    assert(times[1]! - times[0]! >= 19, "backoffMs");
    assert(times[2]! - times[1]! >= 38, "twice as long");
    const retries = kit.events.filter((e) => e.type === "retry");
    assertEquals(
      retries.map((e) => [e.id, e.delayMs, e.error.message]),
      [[0, 20, "attempt 1"], [0, 40, "attempt 2"]],
    );
  },
);

both(
  "retry: past its attempts the item fails with the last error",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      retry: { attempts: 2, backoffMs: 1 },
    });
    await kit.worker((_, { attempt }) => {
      throw new RangeError(`attempt ${attempt}`);
    });
    const failure = await assertRejects(
      () => kit.server.submit(1),
      ItemFailure,
    );
    assertEquals(failure.attempts, 2);
    assert(failure.error instanceof RemoteError);
    assertEquals(failure.error.name, "RangeError");
    assertEquals(failure.error.message, "attempt 2");
  },
);

both(
  "Without retry a handler that throws fails its item at once",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker(() => {
      throw new Error("no");
    });
    const failure = await assertRejects(
      () => kit.server.submit(1),
      ItemFailure,
    );
    assertEquals(failure.attempts, 1);
  },
);

both(
  "retry: the channel's own items are tried again too, others go meanwhile",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      retry: { attempts: 2, backoffMs: 50 },
    });
    await kit.worker((n, { attempt }) => {
      if (n === 0 && attempt === 1) throw new Error("once");
      return n;
    });
    for (const n of range(3)) kit.server.send(n);
    kit.server.end();
    assertEquals(await Array.fromAsync(kit.server), [1, 2, 0]);
  },
);

both(
  "retry: nobody waits for an item that was cancelled meanwhile",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      retry: { attempts: 2, backoffMs: 60_000 },
    });
    const { done } = await kit.worker(() => {
      throw new Error("no");
    });
    const controller = new AbortController();
    const result = kit.server.submit(1, { signal: controller.signal });
    await kit.event("retry");
    assertEquals(kit.server.stats().pending, 1);
    controller.abort();
    await assertRejects(() => result, DOMException);
    assertEquals(kit.server.stats().pending, 0);
    await within(kit.server.close(), 5000, "the end is not held up");
    await done;
  },
);

both(
  "retry: the error with which a cancelled item is answered is no retry",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      retry: { attempts: 5, backoffMs: 1 },
    });
    await kit.worker((_, { signal }) => untilAborted(signal));
    const controller = new AbortController();
    const result = kit.server.submit(1, { signal: controller.signal });
    await until(() => kit.server.stats().inFlight === 1, "it is executed");
    controller.abort();
    await assertRejects(() => result, DOMException);
    await until(() => kit.server.workers[0]!.inFlight === 0, "it is answered");
    assertEquals(kit.events.filter((e) => e.type === "retry"), []);
  },
);

both(
  "submit(): an abort sends CANCEL, and the handler's signal aborts",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    let reason: unknown, isBegun = false;
    await kit.worker((_, { signal }) => {
      isBegun = true;
      return untilAborted(signal).catch((error) => {
        reason = error;
        return 0;
      });
    });
    const controller = new AbortController();
    const result = kit.server.submit(1, { signal: controller.signal });
    await until(() => isBegun, "it is executed");
    controller.abort(new Error("not wanted"));
    await assertRejects(() => result, Error, "not wanted");
    await until(() => reason !== undefined, "the signal aborts");
    assertEquals((reason as DOMException).name, "AbortError");
  },
);

both("map(): an abort cancels all that is under way", async (net) => {
  await using kit = new Kit<number, number>(net);
  let running = 0, aborted = 0;
  await kit.worker((_, { signal }) => {
    running++;
    return untilAborted(signal).finally(() => aborted++);
  }, { concurrency: 3 });
  const controller = new AbortController();
  const map = kit.server.map(range(10), { signal: controller.signal });
  const next = map.next();
  await until(() => running === 3, "three are executed");
  controller.abort(new Error("enough"));
  await assertRejects(() => next, Error, "enough");
  await until(() => aborted === 3, "all three are cancelled");
  await until(() => kit.server.workers[0]!.inFlight === 0, "and answered");
  assertEquals(running, 3, "none was begun that nobody wants");
});

both(
  "map(): an abort begins nothing, however long handlers take to stop",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    let running = 0;
    await kit.worker((_, { signal }) => {
      running++;
      signal.addEventListener("abort", () => {
        const until = performance.now() + 5;
        while (performance.now() < until);
      });
      return untilAborted(signal);
    }, { concurrency: 3, client: { prefetch: 40 } });
    const controller = new AbortController();
    const map = kit.server.map(range(40), { signal: controller.signal });
    const next = map.next();
    await until(() => kit.server.workers[0]!.inFlight === 40, "all are sent");
    await until(() => running === 3, "three are executed");
    controller.abort(new Error("enough"));
    await assertRejects(() => next, Error, "enough");
    await until(
      () => kit.server.workers[0]!.inFlight === 0,
      "all are answered",
    );
    assertEquals(running, 3, "none was begun that nobody wants");
  },
);

for (const by of ["map()", "submit()", "iteration"] as const) {
  both(
    `${by}: an end begins nothing where each CANCEL comes by itself`,
    async (net) => {
      // Undone frame by frame, each in a microtask of its own.
      const transforms = [gzip()];
      await using kit = new Kit<number, number>(net, { transforms });
      const { server } = kit;
      let running = 0;
      await kit.worker((_, { signal }) => {
        running++;
        return untilAborted(signal);
      }, { concurrency: 3, client: { prefetch: 40, transforms } });
      const controller = new AbortController(), { signal } = controller;
      const results: Promise<unknown>[] = [];
      if (by === "map()") {
        results.push(server.map(range(40), { signal }).next());
      } else if (by === "submit()") {
        results.push(...range(40).map((n) => server.submit(n, { signal })));
      } else for (const n of range(40)) void server.send(n);
      const iterator = server[Symbol.asyncIterator]();
      await until(() => server.workers[0]!.inFlight === 40, "all are sent");
      await until(() => running === 3, "three are executed");
      if (by === "iteration") await iterator.return!();
      else controller.abort(new Error("enough"));
      for (const { status } of await Promise.allSettled(results)) {
        assertEquals(status, "rejected");
      }
      await until(
        () => server.workers.every(({ inFlight }) => inFlight === 0),
        "all are answered",
      );
      assertEquals(running, 3, "none was begun that nobody wants");
    },
  );
}

both(
  "abort() of a server begins nothing that waits at a worker",
  async (net) => {
    const transforms = [gzip()];
    await using kit = new Kit<number, number>(net, { transforms });
    const { server } = kit;
    let running = 0;
    const { done } = await kit.worker((_, { signal }) => {
      running++;
      return untilAborted(signal);
    }, { concurrency: 3, client: { prefetch: 40, transforms } });
    const results = range(40).map((n) => server.submit(n));
    for (const result of results) result.catch(() => {});
    await until(() => server.workers[0]!.inFlight === 40, "all are sent");
    await until(() => running === 3, "three are executed");
    await server.abort(new Error("enough"));
    await assertRejects(() => within(done, 5000, "the worker is told"));
    assertEquals(running, 3, "none was begun that nobody wants");
  },
);

both(
  "itemTimeoutMs: the item fails, its worker is told, and goes on",
  async (net) => {
    await using kit = new Kit<number, number>(net, { itemTimeoutMs: 60 });
    const { server } = kit;
    let aborted = 0;
    await kit.worker((n, { signal }) => {
      if (n > 0) return n;
      return untilAborted(signal).finally(() => aborted++);
    });
    const slow = server.submit(0), quick = server.submit(1);
    const failure = await assertRejects(() => slow, ItemFailure);
    assert(failure.error instanceof ItemTimeoutError);
    assertEquals(failure.error.timeoutMs, 60);
    assertEquals(await quick, 1);
    assertEquals(aborted, 1);
    const { failed, settled } = server.stats();
    assertEquals({ failed, settled }, { failed: 1, settled: 1 });
  },
);

both(
  "itemTimeoutMs runs only for a worker's oldest concurrency items",
  async (net) => {
    await using kit = new Kit<number, number>(net, { itemTimeoutMs: 400 });
    const { server } = kit;
    await using peer = await scripted(kit, { concurrency: 2 });
    const results = range(4).map((n) => server.submit(n));
    results.forEach((result) => result.catch(() => {}));
    await takeItems(peer, 4);
    await moment(300);
    await answer(peer, 0, 0); // now 1 and 2 are executed, and 2 has just begun
    await until(() => server.stats().failed === 1, "the second is too late");
    assertEquals(server.stats().inFlight, 2);
    assertEquals((await peer.until(T.CANCEL)).fields, [1]);
    await answer(peer, 2, 20);
    assertEquals(await results[2], 20);
    await answer(peer, 3, 30);
    assertEquals(await results[3], 30);
    await assertRejects(() => results[1]!, ItemFailure);
  },
);

both(
  "A cancelled item keeps its slot until the worker answers",
  async (net) => {
    await using kit = new Kit<number, number>(net, { itemTimeoutMs: 60 });
    const { server } = kit;
    await using peer = await scripted(kit, { window: 1 });
    const failed = assertRejects(() => server.submit(0), ItemFailure);
    await takeItems(peer, 1);
    await failed;
    const second = server.submit(1);
    second.catch(() => {});
    await moment(150);
    assertEquals(server.workers[0]!.inFlight, 1);
    assertEquals(server.stats().pending, 1, "there is no room for it");
    await answer(peer, 0, 0); // too late, and dropped
    assertEquals((await takeItems(peer, 1))[0]!.id, 1);
    await answer(peer, 1, 10);
    assertEquals(await second, 10);
    assertEquals(server.stats().duplicates, 1);
  },
);

both(
  "timeoutMs counts from the call: an item that expires before never leaves",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const failure = await assertRejects(
      () => server.submit(1, { timeoutMs: 30 }),
      ItemFailure,
    );
    assert(failure.error instanceof ItemTimeoutError);
    assertEquals(failure.attempts, 0, "it never left");
    const seen: number[] = [];
    await kit.worker((n) => (seen.push(n), n));
    await server.submit(2);
    assertEquals(seen, [2]);
  },
);

both("timeoutMs: an item that is executed is cancelled", async (net) => {
  await using kit = new Kit<number, number>(net);
  let aborted = false;
  await kit.worker((_, { signal }) =>
    untilAborted(signal).finally(() => aborted = true)
  );
  const failure = await assertRejects(
    () => kit.server.submit(1, { timeoutMs: 50 }),
    ItemFailure,
  );
  assert(failure.error instanceof ItemTimeoutError);
  await until(() => aborted, "the handler's signal aborts");
});

both(
  "timeoutMs: it settles the item once, whatever comes later",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await using peer = await scripted(kit);
    const failed = assertRejects(
      () => kit.server.submit(1, { timeoutMs: 30 }),
      ItemFailure,
    );
    await takeItems(peer, 1);
    await failed;
    await answer(peer, 0, 5);
    assertEquals((await kit.event("duplicate")).id, 0);
  },
);

both(
  "WorkerInfo.settled counts no answer that came too late",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await using silent = await scripted(kit);
    const failed = assertRejects(
      () => server.submit(1, { timeoutMs: 30 }),
      ItemFailure,
    );
    await takeItems(silent, 1);
    await failed;
    await answer(silent, 0, 5);
    const next = server.submit(2);
    await takeItems(silent, 1);
    await answer(silent, 1, 6);
    assertEquals(await next, 6);
    const { settled, duplicates, workers } = server.stats();
    assertEquals({ settled, duplicates }, { settled: 1, duplicates: 1 });
    assertEquals(workers.map((worker) => worker.settled), [1]);
  },
);

both(
  "WorkerInfo.settled counts no item that timed out before its reader went on",
  async (net) => {
    let failures = 0;
    await using kit = new Kit<number, number>(net, {
      itemTimeoutMs: 50,
      onFailure: () => failures++,
    });
    const { server } = kit;
    const reader = (await kit.client()).readable.getReader();
    server.send(1);
    await reader.read();
    await until(() => failures === 1, "it timed out");
    const next = reader.read();
    server.send(2);
    await next;
    assertEquals(server.workers.map((worker) => worker.settled), [0]);
  },
);

both(
  "A waiting item at the worker is cancelled without being begun",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const gate = new Gate();
    const seen: number[] = [];
    await kit.worker(async (n) => {
      seen.push(n);
      await gate.pass();
      return n;
    }, { client: { prefetch: 4 } });
    const controller = new AbortController();
    const first = kit.server.submit(0);
    const second = kit.server.submit(1, { signal: controller.signal });
    await until(() => kit.server.stats().inFlight === 2, "both are there");
    controller.abort();
    await assertRejects(() => second, DOMException);
    await until(
      () => kit.server.workers[0]!.inFlight === 1,
      "answered at once",
    );
    gate.open();
    assertEquals(await first, 0);
    assertEquals(await kit.server.submit(2), 2);
    assertEquals(seen, [0, 2]);
  },
);

both("A generator yields several values for one item", async (net) => {
  await using kit = new Kit<number, string>(net);
  const { server } = kit;
  const { done } = await kit.worker(async function* (n, { id, attempt }) {
    for (let i = 0; i < n; i++) {
      await Promise.resolve();
      yield `${id}.${attempt}.${i}`;
    }
  });
  for (const n of [2, 0, 3]) server.send(n);
  server.end();
  assertEquals(await Array.fromAsync(server), [
    "0.1.0",
    "0.1.1",
    "2.1.0",
    "2.1.1",
    "2.1.2",
  ]);
  assertEquals(server.stats().settled, 3);
  await done;
});

both(
  "A generator's values wait for credit: unread results hold it",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    let yielded = 0;
    await kit.worker(async function* (n) {
      for (let i = 0; i < n; i++) {
        yielded++;
        yield i;
      }
    });
    server.send(10_000);
    server.end();
    await until(() => yielded >= 1000, "it has begun");
    let before = -1;
    while (before !== yielded) {
      before = yielded;
      await moment(100);
    }
    assert(yielded < 6000, `${yielded} values wait, and nobody reads`);
    const values = await Array.fromAsync(server);
    assertEquals(values, range(10_000));
  },
);

both(
  "A generator's values come at least once when its worker is lost",
  async (net) => {
    await using kit = new Kit<number, string>(net);
    const { server } = kit;
    await using doomed = await scripted(kit);
    server.send(1);
    server.end();
    await takeItems(doomed, 1);
    await doomed.say(T.VALUE, payload("first"));
    await until(() => server.stats().unread === 1, "a value is here");
    doomed.close();
    await kit.worker(async function* () {
      yield "first";
      yield "second";
    });
    assertEquals(await Array.fromAsync(server), ["first", "first", "second"]);
  },
);

both(
  "A generator that throws fails its item; what it yielded stays",
  async (net) => {
    const failures: string[] = [];
    await using kit = new Kit<number, number>(net, {
      onFailure: (failure) => failures.push(failure.error.message),
    });
    await kit.worker(async function* () {
      yield 1;
      await Promise.resolve();
      throw new Error("in the middle");
    });
    kit.server.send(0);
    kit.server.end();
    assertEquals(await Array.fromAsync(kit.server), [1]);
    assertEquals(failures, ["in the middle"]);
  },
);

both("A generator is a TypeError for submit() and for map()", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(async function* (n) {
    yield n;
  });
  const failure = await assertRejects(() => kit.server.submit(1), ItemFailure);
  assertEquals(failure.error.name, "TypeError");
  const [outcome] = await Array.fromAsync(
    kit.server.map([1], { settled: true }),
  );
  assertEquals(outcome!.failure!.error.name, "TypeError");
});

both("A generator that is cancelled is closed", async (net) => {
  await using kit = new Kit<number, number>(net, {
    itemTimeoutMs: 60,
    onFailure: () => {},
  });
  let closed = false;
  await kit.worker(async function* (_, { signal }) {
    try {
      yield 1;
      await untilAborted(signal);
    } finally {
      closed = true;
    }
  });
  kit.server.send(0);
  kit.server.end();
  assertEquals(await Array.fromAsync(kit.server), [1]);
  assert(closed);
});

both(
  "itemTimeoutMs: the places of items that hang go to others",
  async (net) => {
    // Nothing but the timeout is to wake anybody.
    let failures = 0;
    await using kit = new Kit<number, number>(net, {
      heartbeat: QUIET,
      itemTimeoutMs: 800,
      onFailure: () => failures++,
    });
    const { server } = kit;
    const hangs = () => new Promise<never>(() => {});
    await kit.worker(hangs, {
      concurrency: 4096,
      client: { heartbeat: QUIET, prefetch: 8192 },
    });
    for (const n of range(12_000)) server.send(n)?.catch(() => {});
    await until(() => server.stats().inFlight === 4096, "it has all places");
    await kit.worker((n) => n, { client: { heartbeat: QUIET } });
    // It has as many as the other holds beyond its share, and nobody reads.
    const places = 4096 - 1536;
    await until(() => server.stats().unread >= places, "they are taken");
    await until(() => server.stats().unread > places, "it has more of them");
    assert(failures > 0);
  },
);

/** A server's part in a script; a generator waits there for credit. */
async function waitingForCredit(
  handler: Handler<number, number> | URL,
  cancelGraceMs: number,
): Promise<{ peer: ScriptedPeer; working: Promise<void> }> {
  const [peer, conn] = ScriptedPeer.pair();
  const client = new Client<number, number>(conn);
  await peer.greet();
  const isolate = handler instanceof URL;
  const working = client.work(handler, { isolate, cancelGraceMs });
  working.catch(() => {});
  await peer.until(T.CREDIT);
  await peer.say(T.CREDIT, 1, 1000);
  await peer.say(T.ITEM, 1, 0, 0, 7, payload(1));
  await peer.until(T.VALUE);
  return { peer, working };
}

for (const isolate of [false, true]) {
  const where = isolate ? "in an isolate " : "";
  Deno.test(`A generator ${where}that waits for credit can be cancelled`, async () => {
    for (const how of ["CANCEL", "GOODBYE"] as const) {
      let hasEnded = false;
      const { peer, working } = await waitingForCredit(
        isolate
          ? new URL(
            "data:text/javascript,export default async function*() { yield 1; yield 2; }",
          )
          : async function* () {
            try {
              yield 1;
              yield 2;
            } finally {
              hasEnded = true;
            }
          },
        60_000, // far beyond the limit of this test
      );
      if (how === "CANCEL") {
        await peer.say(T.CANCEL, 0);
        const { fields: [delivery] } = await within(
          peer.until(T.ERROR),
          5000,
          "an answer",
        );
        assertEquals(delivery, 0);
      }
      await peer.say(T.END);
      await peer.say(T.GOODBYE, 0, "");
      await within(working, 5000, "work()");
      if (!isolate) await until(() => hasEnded, "its finally block");
      peer.close();
    }
  });
}
