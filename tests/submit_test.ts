/** `submit()`: one item, its own result. Design sections 2 and 3. */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  ConnectionLostError,
  ItemFailure,
  ItemTimeoutError,
  RemoteError,
} from "../mod.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { countListeners } from "./_support/listeners.ts";
import { T } from "./_support/scripted_peer.ts";
import { scripted, takeItems } from "./_support/task_kit.ts";
import { Gate, moment, stateOf, until, within } from "./_support/within.ts";

both("submit() returns its item's own result", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.workers(3, () => (n) => n * 2, { concurrency: 2 });
  const results = range(200).map((n) => kit.server.submit(n));
  assertEquals(await Promise.all(results), range(200).map((n) => n * 2));
});

both(
  "submit() rejects with an ItemFailure around a RemoteError",
  async (net) => {
    await using kit = new Kit<{ n: number }, number>(net);
    await kit.worker(() => {
      throw new RangeError("too much", {
        cause: new Error("the cause", { cause: new TypeError("deeper") }),
      });
    });
    const item = { n: 7 };
    const failure = await assertRejects(
      () => kit.server.submit(item),
      ItemFailure,
    );
    assertStrictEquals(failure.item, item);
    assertEquals(failure.id, 0);
    assertEquals(failure.attempts, 1);
    assertStrictEquals(failure.cause, failure.error);
    const { error } = failure;
    assertInstanceOf(error, RemoteError);
    assertEquals(error.name, "RangeError");
    assertEquals(error.message, "too much");
    const cause = error.cause as Error;
    assertInstanceOf(cause, Error);
    assertEquals(cause.message, "the cause");
    assertEquals((cause.cause as Error).message, "deeper");
    assertEquals((cause.cause as Error).name, "TypeError");
  },
);

both(
  "submit() rejects alike if the handler rejects, or throws no error",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker((n) =>
      n === 0
        ? Promise.reject(new SyntaxError("async"))
        : Promise.reject("a string")
    );
    const first = await assertRejects(() => kit.server.submit(0), ItemFailure);
    assertEquals(first.error.name, "SyntaxError");
    assertEquals(first.error.message, "async");
    const second = await assertRejects(() => kit.server.submit(1), ItemFailure);
    assertInstanceOf(second.error, RemoteError);
    assert(second.error.message.includes("a string"));
  },
);

both("A failed item hurts neither the worker nor the others", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => {
    if (n % 2 === 1) throw new Error("odd");
    return n;
  });
  const results = await Promise.allSettled(
    range(10).map((n) => kit.server.submit(n)),
  );
  assertEquals(results.map((r) => r.status), [
    ...["fulfilled", "rejected", "fulfilled", "rejected", "fulfilled"],
    ...["rejected", "fulfilled", "rejected", "fulfilled", "rejected"],
  ]);
  assertEquals(kit.server.workers.length, 1);
});

both(
  "submit(): an aborted signal rejects with its reason and cancels",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    const aborted: unknown[] = [];
    const gate = new Gate();
    await kit.worker(async (s, { signal }) => {
      signal.addEventListener("abort", () => aborted.push(signal.reason));
      await gate.pass();
      return s;
    });
    const controller = new AbortController();
    const reason = new Error("changed my mind");
    const result = kit.server.submit("a", { signal: controller.signal });
    await until(() => gate.passing === 1, "the item is executed");
    controller.abort(reason);
    assertStrictEquals(await result.catch((e) => e), reason);
    await until(() => aborted.length === 1, "the handler is told");
    gate.open();
    assertEquals(await kit.server.submit("b"), "b", "the slot is free again");
  },
);

both(
  "submit(): a signal that is aborted already sends nothing",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    let calls = 0;
    await kit.worker((s) => (calls++, s));
    const reason = new Error("no");
    const result = kit.server.submit("a", {
      signal: AbortSignal.abort(reason),
    });
    assertStrictEquals(await result.catch((e) => e), reason);
    await moment();
    assertEquals(calls, 0);
  },
);

both("submit(): aborted while it waits, it is never sent", async (net) => {
  await using kit = new Kit<string, string>(net);
  const controller = new AbortController();
  const result = kit.server.submit("a", { signal: controller.signal });
  const other = kit.server.submit("b");
  controller.abort();
  assertEquals((await result.catch((e) => e)).name, "AbortError");
  const seen: string[] = [];
  await kit.worker((s) => (seen.push(s), s));
  assertEquals(await other, "b");
  assertEquals(seen, ["b"]);
  assertEquals(kit.server.stats().pending, 0);
});

both(
  "submit(): timeoutMs counts from the call, without a worker too",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    const failure = await assertRejects(
      () => kit.server.submit("a", { timeoutMs: 30 }),
      ItemFailure,
    );
    assertInstanceOf(failure.error, ItemTimeoutError);
    assertEquals((failure.error as ItemTimeoutError).timeoutMs, 30);
    assertEquals(failure.item, "a");
    assertEquals(failure.attempts, 0);
    const seen: string[] = [];
    await kit.worker((s) => (seen.push(s), s));
    await kit.server.submit("b");
    assertEquals(seen, ["b"], "an item that expired never leaves");
  },
);

both(
  "submit(): timeoutMs at a worker aborts the handler's signal",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    let wasAborted = false;
    await kit.worker((_, { signal }) =>
      new Promise((_, reject) =>
        signal.addEventListener("abort", () => {
          wasAborted = true;
          reject(signal.reason);
        })
      )
    );
    const failure = await assertRejects(
      () => kit.server.submit("a", { timeoutMs: 30 }),
      ItemFailure,
    );
    assertInstanceOf(failure.error, ItemTimeoutError);
    assertEquals(failure.attempts, 1);
    await until(() => wasAborted, "the handler is told");
    await until(
      () => kit.server.workers[0]!.inFlight === 0,
      "the slot is free",
    );
  },
);

both(
  "Items of submit() go only to workers in work(), and wait",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    const reader = await kit.client();
    reader.readable;
    await kit.active(1);
    const result = kit.server.submit("a");
    const event = await kit.event("stalled");
    assertEquals(event.reason, "no-work-mode");
    assertEquals(event.waiting, 1);
    assertEquals(await stateOf(result), "pending");
    await kit.worker((s) => s.toUpperCase());
    assertEquals(await result, "A");
  },
);

both("submit() and map(): DONE counts as undefined", async (net) => {
  await using kit = new Kit<number, undefined>(net);
  const peer = await scripted(kit);
  const result = kit.server.submit(1);
  const results = Array.fromAsync(kit.server.map([2]));
  const items = await takeItems(peer, 2);
  await peer.say(T.DONE, ...items.map(({ delivery }) => delivery));
  assertEquals(await within(result, 5000, "the result"), undefined);
  assertEquals(await results, [undefined]);
  peer.close();
});

both("submit() past maxQueued rejects with a RangeError", async (net) => {
  await using kit = new Kit<number, number>(net, { maxQueued: 2 });
  const { server } = kit;
  const waiting = [server.submit(1), server.submit(2)];
  await assertRejects(() => server.submit(3), RangeError);
  await kit.worker((n) => n);
  assertEquals(await Promise.all(waiting), [1, 2]);
  assertEquals(await server.submit(4), 4);
});

both("maxQueued counts what waits, not what was cancelled", async (net) => {
  await using kit = new Kit<number, number>(net, { maxQueued: 2 });
  const { server } = kit;
  const controller = new AbortController();
  const { signal } = controller;
  const cancelled = [
    server.submit(1, { signal }),
    server.submit(2, { signal }),
  ];
  controller.abort();
  await Promise.allSettled(cancelled);
  const waiting = [server.submit(3), server.submit(4)];
  await assertRejects(() => server.submit(5), RangeError);
  await kit.worker((n) => n);
  assertEquals(await Promise.all(waiting), [3, 4]);
});

both(
  "maxQueued doesn't count what was cancelled behind an item that waits",
  async (net) => {
    await using kit = new Kit<number, number>(net, { maxQueued: 3 });
    const { server } = kit;
    const controller = new AbortController();
    const { signal } = controller;
    const waiting = [server.submit(1)];
    const cancelled = [
      server.submit(2, { signal }),
      server.submit(3, { signal }),
    ];
    controller.abort();
    await Promise.allSettled(cancelled);
    waiting.push(server.submit(4), server.submit(5));
    await assertRejects(() => server.submit(6), RangeError);
    await kit.worker((n) => n);
    assertEquals(await Promise.all(waiting), [1, 4, 5]);
  },
);

both(
  "maxQueued doesn't count the one of several that was cancelled",
  async (net) => {
    await using kit = new Kit<number, number>(net, { maxQueued: 3 });
    const { server } = kit;
    const controller = new AbortController(), { signal } = controller;
    const waiting = [server.submit(1), server.submit(2)];
    const cancelled = server.submit(3, { signal });
    controller.abort(new Error("never mind"));
    await assertRejects(() => cancelled, Error, "never mind");
    waiting.push(server.submit(4));
    await assertRejects(() => server.submit(5), RangeError);
    await kit.worker((n) => n);
    assertEquals(await Promise.all(waiting), [1, 2, 4]);
  },
);

both("maxQueued counts nothing twice that failed at a worker", async (net) => {
  await using kit = new Kit<string, string>(net, { maxQueued: 1 });
  const { server } = kit;
  const gate = new Gate();
  await kit.worker(async (what, { signal }) => {
    if (what === "fails") throw new Error("as it is to");
    if (what === "is cancelled") {
      await new Promise((_, reject) => signal.onabort = reject);
    }
    await gate.pass();
    return what;
  }, { client: { prefetch: 1 } });
  await assertRejects(() => server.submit("fails"), ItemFailure);
  const controller = new AbortController(), { signal } = controller;
  const cancelled = server.submit("is cancelled", { signal });
  assertEquals(server.stats().inFlight, 1);
  controller.abort();
  await assertRejects(() => cancelled, DOMException);
  const running = server.submit("runs");
  await until(() => server.stats().inFlight === 1, "it runs");
  const waiting = server.submit("waits");
  await assertRejects(() => server.submit("is too much"), RangeError);
  gate.open();
  assertEquals(await Promise.all([running, waiting]), ["runs", "waits"]);
});

both("maxQueued doesn't count what timed out while it waited", async (net) => {
  await using kit = new Kit<number, number>(net, { maxQueued: 2 });
  const { server } = kit;
  const late = [1, 2].map((n) => server.submit(n, { timeoutMs: 1 }));
  for (const result of late) await assertRejects(() => result, ItemFailure);
  const waiting = [server.submit(3), server.submit(4)];
  await assertRejects(() => server.submit(5), RangeError);
  await kit.worker((n) => n);
  assertEquals(await Promise.all(waiting), [3, 4]);
});

both(
  "submit() has its own queue: unread results don't hold it up",
  async (net) => {
    await using kit = new Kit<number, number>(net, { maxBufferedBytes: 1 });
    const { server } = kit;
    await kit.worker((n) => n);
    for (const n of range(100)) server.send(n); // nobody reads
    await until(() => server.stats().unread > 0, "results wait");
    await moment();
    assert(server.stats().pending > 0, "dispatch has stopped");
    assertEquals(await server.submit(7), 7);
  },
);

both("submit() after the end rejects with a TypeError", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.server.end();
  await assertRejects(() => kit.server.submit(1), TypeError);
});

both(
  "submit() after abort(r) rejects with r, and so does what waited",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const reason = new Error("stop");
    const result = kit.server.submit(1);
    await kit.server.abort(reason);
    assertStrictEquals(await result.catch((e) => e), reason);
    assertStrictEquals(await kit.server.submit(2).catch((e) => e), reason);
  },
);

both(
  "submit(): an item that can't be encoded or is too large fails alone",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net);
    await kit.worker(() => "done", { client: { maxFrameBytes: 2048 } });
    const encode = await assertRejects(
      () => kit.server.submit({ jobs: [{ fn: () => {} }] }),
      ItemFailure,
    );
    assertEquals(encode.error.name, "EncodeError");
    assert(encode.error.message.includes("$.jobs[0].fn"));
    const large = await assertRejects(
      () => kit.server.submit("x".repeat(3000)),
      ItemFailure,
    );
    assertEquals(large.error.name, "FrameTooLargeError");
    assertEquals(await kit.server.submit("x".repeat(1500)), "done");
  },
);

both(
  "submit(): a result that can't be encoded or is too large fails alone",
  async (net) => {
    await using kit = new Kit<string, unknown>(net, { maxFrameBytes: 2048 });
    await kit.worker((what) =>
      what === "function"
        ? () => {}
        : what === "large"
        ? "x".repeat(3000)
        : what
    );
    const encode = await assertRejects(
      () => kit.server.submit("function"),
      ItemFailure,
    );
    assertInstanceOf(encode.error, RemoteError);
    assertEquals(encode.error.name, "EncodeError");
    const large = await assertRejects(
      () => kit.server.submit("large"),
      ItemFailure,
    );
    assertEquals(large.error.name, "FrameTooLargeError");
    assertEquals(await kit.server.submit("fine"), "fine");
    assertEquals(kit.server.workers.length, 1);
  },
);

both("submit(): undefined, null and false are results", async (net) => {
  await using kit = new Kit<number, unknown>(net);
  const values = [undefined, null, false, 0, ""];
  await kit.worker((n) => n < 5 ? values[n] : Promise.resolve(values[n - 5]));
  const results = await Promise.all(
    range(10).map((n) => kit.server.submit(n)),
  );
  assertEquals(results, [...values, ...values]);
});

both("submit(): a generator is that item's failure", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(async function* (n) {
    yield await Promise.resolve(n);
  });
  const failure = await assertRejects(() => kit.server.submit(1), ItemFailure);
  assertEquals(failure.error.name, "TypeError");
});

both("The handler's context has the item's id and attempt", async (net) => {
  await using kit = new Kit<number, [number, number, boolean]>(net);
  await kit.worker((_, { id, attempt, signal }) => [
    id,
    attempt,
    signal.aborted,
  ]);
  assertEquals(await kit.server.submit(5), [0, 1, false]);
  assertEquals(await kit.server.submit(5), [1, 1, false]);
});

both(
  "submit() from onEvent, while items are dispatched, loses none of them",
  async (net) => {
    const results: Promise<string>[] = [];
    await using kit = new Kit<unknown, string>(net, {
      onEvent: (event) => {
        if (event.type === "failed") results.push(server.submit("new"));
      },
    });
    const { server } = kit;
    const bad = server.submit(() => {});
    const controllers = range(3).map(() => new AbortController());
    const cancelled = controllers.map(({ signal }) =>
      server.submit("cancelled", { signal })
    );
    const good = server.submit("good");
    for (const controller of controllers) controller.abort();
    await Promise.allSettled(cancelled);
    await Promise.all([
      kit.worker((item) => String(item)),
      assertRejects(() => bad, ItemFailure),
    ]);
    assertEquals(await good, "good");
    assertEquals(await Promise.all(results), ["new"]);
  },
);

both("submit(): a getter of an item may cancel another one", async (net) => {
  await using kit = new Kit<unknown, unknown>(net);
  const gate = new Gate();
  await kit.worker(async (item) => {
    if (item === "slow") await gate.pass();
    return item;
  }, { concurrency: 4 });
  const controller = new AbortController();
  const slow = assertRejects(
    () => kit.server.submit("slow", { signal: controller.signal }),
    DOMException,
  );
  await until(() => gate.passing === 1, "it has begun");
  const item = {
    before: 1,
    get cancels() {
      controller.abort();
      return 2;
    },
    after: 3,
  };
  assertEquals(await kit.server.submit(item), {
    before: 1,
    cancels: 2,
    after: 3,
  });
  await slow;
  gate.open();
  assertEquals(await kit.server.submit("next"), "next");
});

both(
  "submit(): a getter of an item may cancel the item itself",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net);
    const submit = () => {
      const controller = new AbortController();
      const item = {
        get cancels() {
          controller.abort();
          return 1;
        },
      };
      return kit.server.submit(item, {
        signal: controller.signal,
        timeoutMs: 60_000,
      });
    };
    const early = submit();
    await Promise.all([
      kit.worker((item) => item),
      assertRejects(() => early, DOMException),
    ]);
    await assertRejects(submit, DOMException);
    assertEquals(await kit.server.submit("next"), "next");
    await until(
      () => kit.server.stats().inFlight === 0,
      "nothing is in flight",
    );
    assertEquals(kit.server.stats().pending, 0);
  },
);

both("Server.abort() in a getter of an item ends it in order", async (net) => {
  await using kit = new Kit<unknown, unknown>(net);
  const worker = await kit.client();
  const work = assertRejects(
    () => worker.work((item) => item),
    ConnectionLostError,
    "enough",
  );
  await kit.server.ready();
  const reason = new Error("enough");
  const item = {
    get aborts() {
      kit.server.abort(reason);
      return 1;
    },
  };
  await assertRejects(() => kit.server.submit(item), Error, "enough");
  await work;
  await assertRejects(() => kit.server.closed, Error, "enough");
});

both("A result's getter may close its client", async (net) => {
  await using kit = new Kit<unknown, unknown>(net);
  const worker = await kit.client();
  const work = worker.work(() => ({
    get closes() {
      worker.close();
      return 1;
    },
  }));
  assertEquals(await kit.server.submit("x"), { closes: 1 });
  await work;
});

both(
  "submit(): a getter that cancels its own item, and then throws, settles it once",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net);
    const controller = new AbortController();
    const item = {
      get throws() {
        controller.abort();
        throw new Error("thrown");
      },
    };
    const early = kit.server.submit(item, { signal: controller.signal });
    await Promise.all([
      kit.worker((item) => item),
      assertRejects(() => early, DOMException),
    ]);
    const { pending, inFlight, failed } = kit.server.stats();
    assertEquals({ pending, inFlight, failed }, {
      pending: 0,
      inFlight: 0,
      failed: 0,
    });
  },
);

both(
  "Server.abort() in a getter leaves no timer of its submit() behind",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net);
    await kit.worker((item) => item);
    const item = {
      get aborts() {
        kit.server.abort(new Error("enough"));
        return 1;
      },
    };
    await assertRejects(
      () => kit.server.submit(item, { timeoutMs: 60_000 }),
      Error,
      "enough",
    );
    assertEquals(kit.server.stats().inFlight, 0);
  },
);

both(
  "submit(): a codec that cancels another item, for one that doesn't fit",
  async (net) => {
    const controller = new AbortController();
    const codec = {
      name: "cancelling",
      encode(value: unknown) {
        const text = String(value);
        if (text === "cancels") controller.abort();
        return new Uint8Array(text === "cancels" ? 900 : 200);
      },
      decode: (payload: Uint8Array) => payload.length,
    };
    await using kit = new Kit<unknown, unknown>(net, {
      codec,
      maxFrameBytes: 1024,
      maxInFlightBytes: 1024,
    });
    let begun = false, cancelled = false;
    await kit.worker((item, { signal }) => {
      if (item === 900) return 1;
      begun = true;
      return new Promise((resolve) => {
        signal.addEventListener("abort", () => {
          cancelled = true;
          resolve(2);
        });
      });
    }, { concurrency: 4, client: { codec, maxFrameBytes: 1024 } });
    const slow = assertRejects(
      () => kit.server.submit("slow", { signal: controller.signal }),
      DOMException,
    );
    await until(() => begun, "its handler has begun");
    const second = kit.server.submit("cancels");
    await slow;
    await Promise.all([
      until(() => cancelled, "the worker hears of it", 1000),
      second,
    ]);
  },
);

both(
  "submit() listens once to a signal, however many items share it",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const controller = new AbortController();
    const { signal } = controller;
    const listeners = countListeners(signal);
    const first = range(100).map((n) => kit.server.submit(n, { signal }));
    assertEquals(listeners, { added: 1, removed: 0 });
    controller.abort(new Error("no more"));
    for (const result of await Promise.allSettled(first)) {
      assertEquals(result.status, "rejected");
    }
    assertEquals(listeners, { added: 1, removed: 1 });
    assertEquals(kit.server.stats().pending, 0);
  },
);
