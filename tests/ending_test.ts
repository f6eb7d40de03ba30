/** How channels end: design section 3, "Ending". */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  Client,
  ConnectionLostError,
  DrainTimeoutError,
  HandshakeError,
  listen,
  Server,
} from "../mod.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { countListeners } from "./_support/listeners.ts";
import { MemoryListener } from "./_support/memory_pair.ts";
import { ScriptedPeer, T } from "./_support/scripted_peer.ts";
import { scripted } from "./_support/task_kit.ts";
import {
  forever,
  Gate,
  moment,
  stateOf,
  still,
  until,
  within,
} from "./_support/within.ts";

both(
  "end() resolves once nothing waits for its first dispatch",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    for (const n of range(3)) server.send(n);
    const ended = server.end();
    assertEquals(await stateOf(ended), "pending");
    const gate = new Gate();
    await kit.worker(async (n) => (await gate.pass(), n), {
      client: { prefetch: 3 },
    });
    await within(ended, 1000, "all are dispatched, though none is settled");
    assertEquals(server.stats().settled, 0);
    gate.open();
    assertEquals(await Array.fromAsync(server), range(3));
  },
);

both(
  "writable.close() resolves once nothing waits for its dispatch",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const writer = server.writable.getWriter();
    writer.write(1);
    const closed = writer.close();
    assertEquals(await stateOf(closed), "pending");
    await kit.worker(forever);
    await within(closed, 1000, "all are dispatched");
  },
);

both(
  "end() with nothing sent resolves at once, and the channel ends",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await within(kit.server.end(), 1000, "end()");
    await within(kit.server.closed, 1000, "closed");
    assertEquals(await Array.fromAsync(kit.server), []);
  },
);

both("end() may be called again, and end() after close() too", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.server.end();
  await kit.server.end();
  await kit.server.close();
  await kit.server.end();
});

both(
  "After the end send() and submit() reject with a TypeError",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await kit.worker((n) => n);
    await server.end();
    await assertRejects(async () => await server.send(1), TypeError);
    await assertRejects(() => server.submit(1), TypeError);
  },
);

both("The last item's settlement ends work() and readable", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const workers = await kit.workers(3, () => (n) => n);
  const reader = await kit.client();
  const reading = Array.fromAsync(reader.readable);
  for (const n of range(20)) await server.send(n);
  await server.end();
  await Array.fromAsync(server);
  await Promise.all(workers.map(({ done }) => done));
  await reading;
  await reader.closed;
  await server.closed;
  assertEquals(server.workers, []);
});

both(
  "END comes only when the last item is settled, elsewhere too",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const gate = new Gate();
    const busy = await kit.worker(async (n) => (await gate.pass(), n));
    kit.server.send(1);
    await until(() => gate.passing === 1, "the item is executed");
    await kit.server.end();
    const idle = await kit.worker((n) => n);
    assertEquals(await stateOf(idle.done), "pending");
    gate.open();
    await Promise.all([busy.done, idle.done]);
  },
);

both(
  "server.readable closes when all workers have said goodbye",
  async (net) => {
    await using kit = new Kit<number, string>(net);
    const { server } = kit;
    const client = await kit.client();
    const items = client[Symbol.asyncIterator]();
    client.send("first");
    server.end();
    assertEquals((await items.next()).done, true);
    const results = server[Symbol.asyncIterator]();
    assertEquals((await results.next()).value, "first");
    const next = results.next();
    assertEquals(await stateOf(next), "pending", "the client may still write");
    assertEquals(await stateOf(server.closed), "pending");
    client.send("after END");
    assertEquals((await next).value, "after END");
    client.end();
    assertEquals((await results.next()).done, true);
    await server.closed;
    await client.closed;
  },
);

both(
  "A client whose writing face was never taken says goodbye by itself",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    const reading = Array.fromAsync(client);
    for (const n of range(5)) await kit.server.send(n);
    kit.server.end();
    assertEquals(await reading, range(5));
    await within(client.closed, 1000, "goodbye");
    await within(kit.server.closed, 1000, "closed");
  },
);

both(
  "A client that uses no face at all doesn't hold up the end",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    kit.server.end();
    await within(client.closed, 1000, "goodbye");
    await within(kit.server.closed, 1000, "closed");
  },
);

both("A client that only writes ends with end()", async (net) => {
  await using kit = new Kit<number, string>(net);
  const client = await kit.client();
  client.send("a");
  await client.end();
  await within(client.closed, 1000, "goodbye");
  kit.server.end();
  assertEquals(await Array.fromAsync(kit.server), ["a"]);
});

both("client.closed: all that was written is at the server", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  for (const n of range(500)) await client.send(n);
  client.end();
  await client.closed;
  assertEquals(kit.server.stats().unread, 500);
});

both("Without a worker the channel ends when all is settled", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const { client } = await kit.worker((n) => n);
  const results = server[Symbol.asyncIterator]();
  server.send(1);
  assertEquals((await results.next()).value, 1);
  await client.abort();
  await until(() => server.workers.length === 0, "it is gone");
  server.end();
  assertEquals((await within(results.next(), 1000, "end")).done, true);
  await within(server.closed, 1000, "closed");
});

both(
  "The last worker's loss ends a channel whose items are settled",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const client = await kit.client();
    client.send(5);
    const items = client[Symbol.asyncIterator]();
    server.end();
    await items.next();
    await until(() => server.stats().unread === 1, "its value is here");
    kit.crash(client); // instead of end()
    assertEquals(await within(Array.fromAsync(server), 1000, "end"), [5]);
    await within(server.closed, 1000, "closed");
  },
);

both("Unsettled items wait for a worker, after end() too", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const { client } = await kit.worker(forever);
  server.send(1);
  server.end();
  await until(() => server.stats().inFlight === 1, "the item is in flight");
  kit.crash(client);
  await until(() => server.workers.length === 0, "it is gone");
  assertEquals(await stateOf(server.closed), "pending");
  await kit.worker((n) => n * 10);
  assertEquals(await Array.fromAsync(server), [10]);
});

both(
  "A stream that nobody reads from closes at END, and its client says goodbye",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    const reader = client.readable.getReader();
    kit.server.end();
    await within(reader.closed, 1000, "the stream's end");
    await within(kit.server.closed, 1000, "the server's end");
    await client.closed;
  },
);

both(
  "An iterator that nobody asks holds up no end, and is at its end itself",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    const items = client[Symbol.asyncIterator]();
    kit.server.end();
    await within(kit.server.closed, 1000, "the server's end");
    await client.closed;
    assertEquals(await items.next(), { value: undefined, done: true });
  },
);

both("A stream that is first used behind END is closed", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  kit.server.end();
  await client.closed;
  const reader = client.readable.getReader();
  await within(reader.closed, 1000, "the stream's end");
});

both(
  "close() of a client closes its stream, though nobody asks for more",
  async (net) => {
    await using kit = new Kit<number, number>(net, { results: "discard" });
    kit.server.send(1);
    const client = await kit.client();
    const reader = client.readable.getReader();
    assertEquals((await reader.read()).value, 1);
    await client.close();
    await within(reader.closed, 1000, "the stream's end");
  },
);

both("A worker that connects late gets END at once", async (net) => {
  await using kit = new Kit<number, number>(net);
  const early = await kit.client();
  early.send(1); // so it stays until end()
  const items = early[Symbol.asyncIterator]();
  kit.server.end();
  assertEquals((await items.next()).done, true);
  const reader = await kit.client();
  assertEquals(await within(Array.fromAsync(reader), 1000, "END"), []);
  await reader.closed;
  const worker = await kit.client();
  await within(worker.work((n) => n), 1000, "END");
  early.end();
  await kit.server.closed;
});

both("close() finishes in order, and again is the same", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const worker = await kit.worker(async (n) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    return n;
  });
  for (const n of range(10)) server.send(n);
  const closing = server.close();
  await Promise.all([closing, server.close()]);
  await server.close();
  await worker.done;
  await server.closed;
  assertEquals(await Array.fromAsync(server), range(10), "results stay");
});

both("close() stops writable though it is locked", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  await kit.worker((n) => n);
  const writer = server.writable.getWriter();
  await writer.write(1);
  await server.close();
  await assertRejects(() => writer.write(2), TypeError);
  assertEquals(await Array.fromAsync(server.readable), [1]);
});

both("close() stops a pipe into writable", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  await kit.worker((n) => n);
  let produced = 0, cancelled = false;
  const endless = new ReadableStream<number>({
    pull: (controller) => controller.enqueue(produced++),
    cancel: () => {
      cancelled = true;
    },
  });
  const piping = endless.pipeTo(server.writable);
  piping.catch(() => {});
  const results = server.readable.getReader();
  for (const n of range(20)) assertEquals((await results.read()).value, n);
  const closing = server.close();
  const rest: number[] = [];
  for (;;) {
    const { done, value } = await results.read();
    if (done) break;
    rest.push(value);
  }
  await closing;
  assertEquals(rest, range(20 + rest.length).slice(20), "nothing is missing");
  await assertRejects(() => piping, TypeError);
  await until(() => cancelled, "the source is cancelled");
});

both("close() while a write is blocked dispatches it", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const writer = server.writable.getWriter();
  const written = writer.write(1);
  assertEquals(await stateOf(written), "pending");
  const closing = server.close();
  await kit.worker((n) => n);
  await within(closing, 1000, "closed");
  await within(written, 1000, "written");
  assertEquals(await Array.fromAsync(server.readable), [1]);
});

both("close() takes what was written to writable before it", async (net) => {
  for (const isBlocked of [false, true]) {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    if (!isBlocked) await kit.worker((n) => n);
    const writer = server.writable.getWriter();
    const before = [...range(3).map((n) => writer.write(n)), writer.close()];
    const closing = server.close();
    if (isBlocked) {
      assertEquals(await stateOf(closing), "pending");
      await kit.worker((n) => n);
    }
    await within(Promise.all(before), 1000, "written and closed");
    await within(closing, 1000, "closed");
    assertEquals(await Array.fromAsync(server.readable), range(3));
  }
});

both("close() in a schema takes what was written before it", async (net) => {
  let closing: Promise<void> | undefined;
  await using kit: Kit<number, number> = new Kit<number, number>(net, {
    itemSchema: {
      "~standard": {
        version: 1,
        vendor: "test",
        validate: (value) => {
          (closing ??= kit.server.close()).catch(() => {});
          return { value: value as number };
        },
      },
    },
  });
  const { server } = kit;
  const writer = server.writable.getWriter();
  const written = range(3).map((n) => writer.write(n));
  await until(() => closing !== undefined, "the schema has closed");
  assertEquals(await stateOf(written[1]!), "pending");
  await kit.worker((n) => n);
  await within(Promise.all(written), 1000, "all are taken");
  await within(closing!, 1000, "closed");
  assertEquals(await Array.fromAsync(server.readable), range(3));
});

both("close() lets a writer's close() resolve", async (net) => {
  for (const isFirst of [true, false]) {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const writer = server.writable.getWriter();
    const first = isFirst ? writer.close() : server.close();
    const second = isFirst ? server.close() : writer.close();
    await within(Promise.all([first, second]), 1000, "both");
    await server.closed;
  }
});

both("close() refuses what is written in the same turn", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  await kit.worker((n) => n);
  const writer = server.writable.getWriter();
  const before = writer.write(1);
  const closing = server.close();
  await assertRejects(() => writer.write(2), TypeError, "takes no more items");
  await Promise.all([before, closing]);
  assertEquals(await Array.fromAsync(server.readable), [1]);
});

both(
  "close() refuses other ways in at once, before writable is dry",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const writer = server.writable.getWriter();
    const written = writer.write(1);
    const closing = server.close();
    await assertRejects(
      () => server.submit(2),
      TypeError,
      "takes no more items",
    );
    await assertRejects(
      () => server.map([3]).next(),
      TypeError,
      "no more items",
    );
    await kit.worker((n) => n);
    await within(Promise.all([written, closing]), 1000, "closed");
  },
);

both("close() right behind writer.abort(r) rejects with r", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const writer = server.writable.getWriter();
  const reason = new Error("enough");
  const written = writer.write(1);
  const aborted = writer.abort(reason);
  const closing = server.close();
  for (const promise of [written, closing, server.closed]) {
    assertStrictEquals(await assertRejects(() => promise), reason);
  }
  await aborted;
});

both(
  "close() past drainMs aborts, and names what is unfinished",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    const { server } = kit;
    const { done } = await kit.worker(
      (s) => s === "quick" ? s : new Promise<never>(() => {}),
      { client: { prefetch: 2 } },
    );
    for (const s of ["quick", "slow", "queued", "last"]) server.send(s);
    const submitted = server.submit("submitted");
    submitted.catch(() => {});
    const results = server[Symbol.asyncIterator]();
    assertEquals((await results.next()).value, "quick");
    const started = performance.now();
    const error = await assertRejects(
      () => server.close({ drainMs: 50 }),
      DrainTimeoutError,
    );
    assert(performance.now() - started < 2000);
    assertEquals(error.unfinished, [
      { id: 1, item: "slow" },
      { id: 2, item: "queued" },
      { id: 3, item: "last" },
      { id: 4, item: "submitted" },
    ]);
    assertStrictEquals(await server.closed.catch((e) => e), error);
    assertStrictEquals(await results.next().catch((e) => e), error);
    assertStrictEquals(await submitted.catch((e) => e), error);
    await assertRejects(() => done, ConnectionLostError);
    assertStrictEquals(await server.close().catch((e) => e), error);
  },
);

both(
  "close() with results that nobody reads runs into drainMs",
  async (net) => {
    await using kit = new Kit<number, number>(net, { maxBufferedBytes: 1 });
    const { server } = kit;
    await kit.worker((n) => n);
    for (const n of range(100)) server.send(n);
    await until(() => server.stats().unread > 0, "results wait");
    const error = await assertRejects(
      () => server.close({ drainMs: 100 }),
      DrainTimeoutError,
    );
    assert(error.unfinished.length > 0 && error.unfinished.length < 100);
  },
);

both("close({ drainMs: 0 }) of an idle server is no timeout", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.server.close({ drainMs: 0 });
});

both(
  "close() of a server that only waits for others to close is no timeout",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await using peer = await scripted(kit);
    const closing = kit.server.close({ drainMs: 300 });
    await peer.until(T.END);
    await peer.say(T.GOODBYE, 0, "");
    await peer.until(T.GOODBYE);
    // It doesn't close: its connection outlasts drainMs.
    await closing;
  },
);

both("close() after abort(r) rejects with r", async (net) => {
  await using kit = new Kit<number, number>(net);
  const reason = new Error("stop");
  await kit.server.abort(reason);
  assertStrictEquals(await kit.server.close().catch((e) => e), reason);
});

both("close() whose time is up after abort(r) rejects with r", async (net) => {
  await using kit = new Kit<number, number>(net);
  // It doesn't close: its connection outlasts drainMs.
  await using _peer = await scripted(kit);
  const closing = kit.server.close({ drainMs: 50 }).catch((e) => e);
  const reason = new Error("stop");
  await kit.server.abort(reason);
  assertStrictEquals(await closing, reason);
});

for (const how of ["abort()", "close({ drainMs })"]) {
  Deno.test(`${how} doesn't wait for who is slow to read`, async () => {
    const listener = new MemoryListener();
    const gone = Promise.withResolvers<void>();
    const server = new Server<Uint8Array, number>(listener, {
      results: "discard",
      onEvent: ({ type }) => {
        if (type === "disconnected") gone.resolve();
      },
    });
    const conn = listener.connect(), read = conn.read.bind(conn);
    let isSlow = false;
    const begun = Promise.withResolvers<void>();
    conn.read = async (p) => {
      if (!isSlow) return await read(p);
      begun.resolve();
      await moment(100);
      return await read(p.subarray(0, 1024));
    };
    const slow = new Client<Uint8Array, number>(conn);
    await slow.opened;
    const items = slow[Symbol.asyncIterator](), next = items.next();
    await server.ready();
    isSlow = true;
    server.send(new Uint8Array(1024 * 1024));
    await begun.promise;
    if (how === "abort()") await within(server.abort(), 5000, "the end");
    else {
      slow.close();
      await gone.promise;
      const quick = new Client<Uint8Array, number>(listener.connect());
      quick.work(() => 0);
      await within(server.close({ drainMs: 300 }), 5000, "the end");
      await quick.closed;
    }
    isSlow = false;
    await Promise.allSettled([next, slow.closed]);
  });
}

both("await using drains", async (net) => {
  await using kit = new Kit<number, number>(net, { results: "discard" });
  const seen: number[] = [];
  await kit.worker(async (n) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    seen.push(n);
    return n;
  });
  let inner: Server<number, number>;
  {
    await using server = kit.server;
    inner = server;
    for (const n of range(10)) server.send(n);
  }
  assertEquals(seen, range(10));
  await inner.closed;
});

both(
  "abort(r) errors both sides with r, and tells the workers",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const aborted: unknown[] = [];
    const { done } = await kit.worker((_, { signal }) => {
      signal.addEventListener("abort", () => aborted.push(signal.reason));
      return forever();
    });
    const writer = server.writable.getWriter();
    const reader = server.readable.getReader();
    const reading = reader.read().catch((e) => e);
    await writer.write(1);
    await until(() => server.workers[0]?.inFlight === 1, "it is in flight");
    await moment(20);
    const reason = new Error("enough of this");
    await server.abort(reason);
    await server.abort(new Error("again"));
    assertStrictEquals(await reading, reason);
    assertStrictEquals(await writer.closed.catch((e) => e), reason);
    assertStrictEquals(await server.closed.catch((e) => e), reason);
    const lost = await assertRejects(() => done, ConnectionLostError);
    assertEquals(lost.code, "aborted");
    assert(lost.reason.includes("enough of this"), lost.reason);
    await until(() => aborted.length === 1, "the handler is told");
  },
);

both("abort() without a reason is an AbortError", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.server.abort();
  const error = await kit.server.closed.catch((e) => e);
  assertEquals(error.name, "AbortError");
});

both("abort(r) works whatever r is, on both ends", async (net) => {
  const reasons = [
    Object.create(null),
    Object.assign(new Error(), { message: {} }),
    { toString: () => assert(false) },
    Symbol("r"),
    null,
  ];
  for (const reason of reasons) {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const { client } = await kit.worker(forever);
    await within(client.abort(reason), 1000, "the client is aborted");
    await within(server.abort(reason), 1000, "the server is aborted");
    assertStrictEquals(await server.closed.catch((e) => e), reason);
  }
});

both("writable.abort(r) errors readable with r", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const { done } = await kit.worker(forever);
  const reason = new Error("no more");
  const reading = server.readable.getReader().read().catch((e) => e);
  await server.writable.abort(reason);
  assertStrictEquals(await reading, reason);
  await assertRejects(() => done, ConnectionLostError);
  assertStrictEquals(await server.closed.catch((e) => e), reason);
});

both(
  "writable.abort(r) doesn't wait for a write that is blocked",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const writer = server.writable.getWriter();
    const blocked = writer.write(1).catch((e) => e);
    const behind = writer.write(2).catch((e) => e);
    const reading = server.readable.getReader().read().catch((e) => e);
    await moment(5);
    const reason = new Error("no more");
    await within(writer.abort(reason), 1000, "abort()");
    assertStrictEquals(await blocked, reason);
    assertStrictEquals(await behind, reason);
    assertStrictEquals(await reading, reason);
  },
);

both(
  "client.writable.abort(r) doesn't wait for a write that is blocked",
  async (net) => {
    await using kit = new Kit<number, Uint8Array>(net);
    const client = await kit.client();
    const writer = client.writable.getWriter();
    let written = 0;
    const writing = (async () => {
      for (;; written++) await writer.write(new Uint8Array(100_000));
    })().catch((e) => e);
    await until(() => written > 0, "a write is done");
    await still(() => written, "a write is blocked");
    await within(writer.abort(new Error("no more")), 1000, "abort()");
    await writing;
    await assertRejects(() => client.closed, ConnectionLostError);
  },
);

both(
  "readable.cancel(r) errors writable with r and ends the workers",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const aborted: unknown[] = [];
    const worker = await kit.worker((n, { signal }) => {
      if (n === 0) return n;
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          aborted.push(signal.reason);
          reject(signal.reason);
        });
      });
    }, { client: { prefetch: 2 } });
    const writer = server.writable.getWriter();
    const reader = server.readable.getReader();
    for (const n of range(3)) await writer.write(n);
    assertEquals((await reader.read()).value, 0);
    const blocked = writer.write(3).catch((e) => e);
    await moment(20);
    const reason = new Error("seen enough");
    await reader.cancel(reason);
    assertStrictEquals(await writer.closed.catch((e) => e), reason);
    assertStrictEquals(await blocked, reason);
    await within(worker.done, 1000, "work() resolves");
    assert(aborted.length >= 1, "what ran is cancelled");
    await within(server.closed, 1000, "closed resolves");
  },
);

both("Leaving the server's loop ends the workers too", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const worker = await kit.worker((n) => n);
  const reader = await kit.client();
  const reading = Array.fromAsync(reader);
  for (const n of range(30)) server.send(n);
  for await (const _ of server) break;
  await within(worker.done, 1000, "work() resolves");
  await within(reading, 1000, "the reader ends");
  await within(server.closed, 1000, "closed resolves");
  await assertRejects(async () => await server.send(1));
});

both(
  "What a stream of the server's loop is cancelled with errors send()",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const reason = new Error("the disk is full");
    const sink = new WritableStream({ write: () => Promise.reject(reason) });
    const piped = ReadableStream.from(server).pipeTo(sink).catch((e) => e);
    const worker = await kit.worker((n) => n);
    await server.send(1);
    assertStrictEquals(await within(piped, 5000, "the pipe breaks"), reason);
    await within(worker.done, 5000, "work() resolves");
    const sending = Promise.resolve(server.send(2)).catch((e) => e);
    assertStrictEquals(await sending, reason);
  },
);

both(
  "Leaving the loop lets go of whoever waits to send more values",
  async (net) => {
    // Many small ones, and few that are large: what a worker may send unread.
    for (const [count, size] of [[10_000, 0], [40, 100_000]] as const) {
      await using kit = new Kit<number, Uint8Array>(net);
      const { server } = kit;
      let sent = 0;
      const worker = await kit.worker(async function* () {
        for (; sent < count; sent++) yield new Uint8Array(size);
      });
      const results = server[Symbol.asyncIterator]();
      server.send(1);
      await results.next();
      await until(() => server.stats().unread > 1, "values come");
      await still(() => sent, "the worker waits");
      assert(sent < count);
      await results.return!();
      await within(worker.done, 5000, "work() resolves");
      await within(server.closed, 5000, "closed resolves");
    }
  },
);

both(
  "end() that waits when the channel is given up rejects with why",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const reason = new Error("given up");
    kit.server.send(1); // there is no worker
    const ended = kit.server.end();
    await kit.server.abort(reason);
    const error = await within(ended, 5000, "it ends").catch((error) => error);
    assertStrictEquals(error, reason);
  },
);

both("end() after the channel was given up rejects with why", async (net) => {
  for (const give of ["abort", "leave"] as const) {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    server.send(1);
    const reason = new Error("given up");
    if (give === "abort") {
      server.end(); // it waits for a worker
      await server.abort(reason);
    } else await server.readable.cancel(reason);
    await assertRejects(() => server.end(), Error, "given up");
    server.end(); // ignored: that is allowed
    await moment(1);
  }
});

both("Client.work({ signal }) listens no longer than it runs", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { signal } = new AbortController();
  const listeners = countListeners(signal);
  const { done } = await kit.worker((n) => n, { signal });
  assertEquals(listeners, { added: 1, removed: 0 });
  await kit.server.close();
  await done;
  assertEquals(listeners, { added: 1, removed: 1 });
});

both(
  "A client hands back any number of items, in frames as small as may be",
  async (net) => {
    await using kit = new Kit<number, number>(net, { maxFrameBytes: 1024 });
    const { server } = kit;
    const client = await kit.client({ prefetch: 1000 });
    const items = client[Symbol.asyncIterator]();
    for (const n of range(1000)) server.send(n);
    assertEquals((await items.next()).value, 0);
    await until(() => server.stats().inFlight === 1000, "it holds them all");
    await client.close();
    const { code } = await kit.event("disconnected");
    assertEquals(code, "normal");
    assertEquals(server.stats().settled, 1);
    assertEquals(server.stats().pending, 999);
    await server.abort();
  },
);

both(
  "Cancelling readable lets a client that waits to send come to its end",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const client = await kit.client();
    const sending = (async () => {
      for (const n of range(10_000)) await client.send(n);
      await client.end();
    })();
    await until(() => server.stats().unread >= 4096, "its credit is used up");
    assertEquals(await stateOf(sending), "pending");
    await server.readable.cancel();
    await within(sending, 5000, "all is sent");
    await client.closed;
    await server.closed;
  },
);

both("Cancelling readable leaves submit() and map() alone", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const gate = new Gate();
  const worker = await kit.worker(async (n) => (await gate.pass(), n), {
    concurrency: 10,
  });
  const results = server.map(range(5), { window: 2 });
  const first = results.next();
  const submitted = server.submit(100);
  server.send(1);
  await until(() => gate.passing >= 3, "all are executed");
  await server.readable.cancel();
  gate.open();
  assertEquals(await submitted, 100);
  assertEquals((await first).value, 0);
  assertEquals(await Array.fromAsync(results), [1, 2, 3, 4]);
  await worker.done;
  await server.closed;
});

both(
  "A pipe's cancellation reaches the source through the server",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker((n) => n);
    let cancelled: unknown;
    const source = new ReadableStream<number>({
      pull: (controller) => controller.enqueue(1),
      cancel: (reason) => {
        cancelled = reason;
      },
    });
    const reader = source.pipeThrough(kit.server).getReader();
    await reader.read();
    const reason = new Error("enough");
    await reader.cancel(reason);
    await until(() => cancelled !== undefined, "the source is cancelled");
    assertStrictEquals(cancelled, reason);
  },
);

both("Leaving by signal: begun items finish, then goodbye", async (net) => {
  await using kit = new Kit<number, number>(net);
  const gate = new Gate();
  const controller = new AbortController();
  const { done } = await kit.worker(async (n) => (await gate.pass(), n), {
    signal: controller.signal,
    concurrency: 2,
  });
  const results = [kit.server.submit(1), kit.server.submit(2)];
  await until(() => gate.passing === 2, "both are executed");
  controller.abort();
  assertEquals(await stateOf(done), "pending");
  await until(
    () => kit.server.workers[0]?.state === "leaving",
    "the server knows",
  );
  gate.open();
  assertEquals(await Promise.all(results), [1, 2]);
  await within(done, 1000, "work() resolves");
  await until(() => kit.server.workers.length === 0, "it is gone");
  const event = await kit.event("disconnected");
  assertEquals(event.code, "normal");
});

both(
  "A signal that is aborted already: work() resolves at once",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    kit.server.send(1);
    let calls = 0;
    await within(
      client.work((n) => (calls++, n), { signal: AbortSignal.abort() }),
      1000,
      "work() resolves",
    );
    assertEquals(calls, 0);
    assertEquals(kit.server.stats().pending, 1);
  },
);

both(
  "A connection that just ends is ConnectionLostError, and never an end",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    const items = client[Symbol.asyncIterator]();
    kit.server.send(1);
    await items.next();
    const next = items.next().catch((e) => e);
    kit.crash(client);
    const error = await next;
    assertInstanceOf(error, ConnectionLostError);
    assertEquals(["eof", "reset"].includes(error.code), true, error.code);
    assertStrictEquals(await client.closed.catch((e) => e), error);
    await assertRejects(async () => await client.send(1), ConnectionLostError);
  },
);

both("The server's EOF is ConnectionLostError with code eof", async (net) => {
  await using kit = new Kit<number, number>(net);
  // Through a proxy that closes the one side of it.
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const [near, inner, outer] = await Promise.all([
    Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port }),
    kit.dial(),
    listener.accept(),
  ]);
  listener.close();
  const client = new Client<number, number>(near);
  const up = pump(outer, inner), down = pump(inner, outer);
  await client.opened;
  const reading = client[Symbol.asyncIterator]().next().catch((e) => e);
  outer.close();
  const error = await within(reading, 2000, "the client notices");
  assertInstanceOf(error, ConnectionLostError);
  assertEquals(error.code, "eof");
  await assertRejects(() => client.closed, ConnectionLostError);
  try {
    inner.close();
  } catch {
    // Closed already.
  }
  await Promise.all([up, down]);
  await client.abort();
});

async function pump(from: Deno.Conn, to: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(4096);
  try {
    for (;;) {
      const count = await from.read(buffer);
      if (count === null) break;
      for (let at = 0; at < count;) {
        at += await to.write(buffer.subarray(at, count));
      }
    }
  } catch {
    // Closed.
  }
}

for (const face of ["iteration", "readable", "work()"]) {
  both(
    `A client may leave ${face} as soon as it is connected`,
    async (net) => {
      await using kit = new Kit<number, number>(net);
      let leave = () => {};
      const client = new Client<number, number>(await kit.dial(), {
        onEvent: ({ type }) => {
          if (type === "connected") leave();
        },
      });
      if (face === "iteration") {
        const items = client[Symbol.asyncIterator]();
        items.next();
        leave = () => void items.return!();
      } else if (face === "readable") {
        const reader = client.readable.getReader();
        reader.read();
        leave = () => void reader.cancel();
      } else {
        const controller = new AbortController();
        client.work((n) => n, { signal: controller.signal });
        leave = () => controller.abort();
      }
      await within(client.closed, 5000, "goodbye");
    },
  );
}

both("client.abort(r): the server is told why", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  await client.abort(new Error("I quit"));
  const event = await kit.event("disconnected");
  assertEquals(event.code, "aborted");
  assert(event.reason.includes("I quit"));
  const error = await client.closed.catch((e) => e);
  assertInstanceOf(error, ConnectionLostError);
});

both("client.abort() errors both of its faces", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  const reading = client.readable.getReader().read().catch((e) => e);
  const writer = client.writable.getWriter();
  await client.abort();
  assertInstanceOf(await reading, Error);
  await assertRejects(() => writer.closed);
});

both("client.close() is idempotent, after work() too", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  await Promise.all([client.close(), client.close()]);
  await client.close();
  const worker = await kit.worker((n) => n);
  await worker.client.close();
  await worker.done;
  await worker.client.close();
});

both("client.send() after end() or close() says so", async (net) => {
  for (const how of ["end", "close"] as const) {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    client[how]();
    for (const wait of [Promise.resolve(), client.closed]) {
      await wait;
      await assertRejects(
        async () => await client.send(1),
        TypeError,
        "Cannot send: end() or close() was called",
      );
    }
  }
});

both("client.end() rejects once the connection is lost", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  for (const n of range(10_000)) client.send(n); // there isn't credit for all
  const ending = client.end();
  await client.abort();
  const ended = within(ending, 2000, "it is told");
  await assertRejects(() => ended, ConnectionLostError);
  const other = await kit.client();
  await other.abort();
  await assertRejects(() => other.end(), ConnectionLostError);
});

Deno.test("client.end() twice: both resolve once all values have left", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<string, string>(conn);
  await server.greet();
  await client.opened;
  client.send("A");
  const ends = [client.end(), client.end()];
  assertEquals(await stateOf(ends[0]!), "pending");
  await server.say(T.CREDIT, 1, 1000);
  await within(Promise.all(ends), 5000, "it has left");
  await client.abort();
});

both("client.close() delivers what was sent before", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  for (const n of range(100)) client.send(n);
  await client.close();
  assertEquals(kit.server.stats().unread, 100);
});

both("client.close() delivers what was written before", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  const writer = client.writable.getWriter();
  const before = [...range(3).map((n) => writer.write(n)), writer.close()];
  const closing = client.close();
  await assertRejects(() => writer.write(3), TypeError);
  await within(Promise.all([...before, closing]), 1000, "all is there");
  assertEquals(kit.server.stats().unread, 3);
});

both("client: await using closes it", async (net) => {
  await using kit = new Kit<number, number>(net);
  {
    await using client = await kit.client();
    client.send(7);
  }
  await until(() => kit.server.workers.length === 0, "it is gone");
  assertEquals(kit.server.stats().unread, 1);
  assertEquals((await kit.event("disconnected")).code, "normal");
});

both(
  "The server's closing says goodbye to a handshake under way",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const conn = await kit.dial();
    await kit.server.close();
    const client = new Client(conn);
    await assertRejects(
      () => within(client.opened, 2000, "the handshake fails"),
      HandshakeError,
    );
    await client.abort();
  },
);

both("ready(): signal, abort and close end the wait", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const controller = new AbortController();
  const reason = new Error("waited enough");
  const one = server.ready(1, { signal: controller.signal });
  controller.abort(reason);
  assertStrictEquals(await one.catch((e) => e), reason);
  const two = server.ready(1).catch((e) => e);
  await server.close();
  assertInstanceOf(await two, TypeError);
  await assertRejects(() => server.ready(1), TypeError);
  await using other = new Kit<number, number>(net);
  const three = other.server.ready(2).catch((e) => e);
  await other.server.abort(reason);
  assertStrictEquals(await three, reason);
});

both(
  "Handed-back items keep their place: none is lost to the window",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    for (let round = 0; round < 3; round++) {
      const client = await kit.client({ prefetch: 4096 });
      if (round === 0) { for (const n of range(4000)) server.send(n); }
      const items = client[Symbol.asyncIterator]();
      await until(() => server.stats().inFlight === 4000, "all are in flight");
      await items.return!();
      await client.closed;
    }
    await kit.worker((n) => n);
    for (const n of range(4000)) server.send(4000 + n);
    server.end();
    let count = 0;
    for await (const _ of server) count++;
    assertEquals(count, 8000);
  },
);

Deno.test("Server.abort() from onEvent, at an error of accept(), leaves no timer", async () => {
  // Again and again: the first takes longer than the timer would.
  for (let round = 0; round < 20; round++) {
    const listener = new MemoryListener();
    const server: Server = new Server(listener, {
      onEvent: (event) => {
        if (event.type === "accept-error") server.abort(event.error);
      },
    });
    listener.failAccept(new Error("Too many open files"));
    await assertRejects(() => server.closed, Error, "Too many open files");
  }
});

both(
  "A map() that nobody iterates doesn't hold up the end",
  async (net) => {
    for (const end of ["end", "cancel"] as const) {
      await using kit = new Kit<number, number>(net);
      const { server } = kit;
      const worker = await kit.worker((n) => n + 1);
      const idle = server.map([1, 2]);
      if (end === "end") server.end();
      else {
        await server.readable.cancel();
        server.end();
      }
      await within(server.closed, 5000, "closed resolves");
      await worker.done;
      await assertRejects(() => idle.next(), TypeError, "takes no more items");
    }
  },
);

// Nothing else takes time here: a timer would be left when the test ends.
for (const end of ["close", "abort"] as const) {
  Deno.test(`A map() that nobody iterates leaves no timer behind ${end}()`, async () => {
    // Again and again: the first takes longer than the timer would.
    for (let round = 0; round < 20; round++) {
      const server = new Server<number, number>(new MemoryListener());
      const idle = server.map([1, 2]);
      server.end();
      await server[end]();
      await assertRejects(() => idle.next());
    }
  });
}

both(
  "A map() that is begun in the turn of end() holds it open",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await kit.worker((n) => n + 1);
    const results = server.map([1, 2]);
    server.end();
    assertEquals(await Array.fromAsync(results), [2, 3]);
    await within(server.closed, 5000, "closed resolves");
  },
);

both("A client may end its values first, and read then", async (net) => {
  for (const face of ["send", "writable"] as const) {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    for (const n of [1, 2, 3]) server.send(n);
    server.end();
    const client = await kit.client();
    if (face === "send") client.end();
    else client.writable.close();
    assertEquals(await Array.fromAsync(client), [1, 2, 3]);
    await within(client.closed, 5000, "the client is closed");
    await within(server.closed, 5000, "the server is closed");
  }
});

both("A client that only wrote is at its end when it reads", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const client = await kit.client();
  client.send(1);
  await client.end();
  await client.closed;
  assertEquals(await Array.fromAsync(client), []);
  server.end();
  assertEquals(await Array.fromAsync(server), [1]);
});

both("client.work() that can't begin leaves nothing half done", async (net) => {
  {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    const module = new URL("data:text/javascript,export default 1");
    const error = await assertRejects(() => client.work(module), TypeError);
    const lost = await assertRejects(() => client.closed, ConnectionLostError);
    assertEquals(lost.cause, error);
    kit.server.end();
    await within(kit.server.closed, 5000, "the server doesn't wait for it");
  }
  {
    await using kit = new Kit<number, number>(net);
    kit.server.send(1);
    kit.server.end();
    const client = await kit.client();
    client.send(7);
    await assertRejects(() => client.work((n) => n), TypeError, "send()");
    for await (const n of client) client.send(n); // this way is free
    await client.end();
    assertEquals(await Array.fromAsync(kit.server), [7, 1]);
  }
});

both("DrainTimeoutError says what it was that held up the end", async (net) => {
  const message = async (
    prepare: (kit: Kit<number, unknown>) => unknown,
  ): Promise<string> => {
    await using kit = new Kit<number, unknown>(net);
    await prepare(kit);
    const { message } = await assertRejects(
      () => kit.server.close({ drainMs: 50 }),
      DrainTimeoutError,
    );
    return message;
  };
  assertEquals(
    await message(async (kit) => {
      const client = await kit.client({ name: "forgetful" });
      client.send(1);
      client[Symbol.asyncIterator]();
      await kit.active(1);
    }),
    "Cannot finish in order: the end was not reached within 50 ms: no goodbye from forgetful",
  );
  assertMatch(
    await message(async (kit) => {
      for (const n of range(11)) {
        const client = await kit.client({ name: `forgetful-${n}` });
        client.send(1);
        client[Symbol.asyncIterator]();
      }
      await kit.active(11);
    }),
    /: no goodbye from forgetful-0, .*, forgetful-9, and others$/,
  );
  assertEquals(
    await message(async (kit) => {
      const client = await kit.client();
      client.send(new Uint8Array(1 << 20)); // no other may be sent
      client.send("the last one");
      client.end();
      await until(() => kit.server.stats().unread === 1, "a value is here");
    }),
    "Cannot finish in order: the end was not reached within 50 ms: nobody reads the results",
  );
  assertEquals(
    await message((kit) => void kit.server.send(1)),
    "Cannot finish in order: 1 item was not settled within 50 ms: there are no workers",
  );
});

both("client.abort() is heard, however much is under way", async (net) => {
  const gate = new Gate();
  await using kit = new Kit<Uint8Array, Uint8Array>(net, {
    maxInFlightBytes: 64 << 20,
  });
  const { client } = await kit.worker(
    async (bytes) => (await gate.pass(), bytes),
    { concurrency: 16 },
  );
  submitLong(kit, 3);
  await until(() => gate.passing === 3, "all are executed");
  gate.open();
  await moment(0);
  submitLong(kit, 3); // they come while the results leave
  client.abort();
  assertEquals((await kit.event("disconnected")).code, "aborted");
});

both(
  "A worker that closes its side behind its goodbye reads the server's",
  async (net) => {
    await using kit = new Kit<Uint8Array, Uint8Array>(net);
    await using peer = await scripted(kit);
    submitLong(kit, 8);
    await peer.say(T.GOODBYE, 0, "");
    await (peer.conn as Deno.TcpConn).closeWrite();
    await kit.event("disconnected");
    await moment(0); // the server has read that nothing more comes
    assertEquals((await peer.rest()).at(-1)?.type, T.GOODBYE);
  },
);

function submitLong(kit: Kit<Uint8Array, Uint8Array>, count: number): void {
  for (let i = 0; i < count; i++) {
    kit.server.submit(new Uint8Array(3 << 20)).catch(() => {});
  }
}

Deno.test("A server that has closed leaves its port to others", async () => {
  const first = listen<number, number>({ port: 0 });
  const { port } = first.addr;
  await first.close();
  const second = listen<number, number>({ port });
  second.end();
  await second.closed;
  await using _third = listen({ port });
});

// That no timer is left is seen by the sanitizers.
Deno.test("close() and abort() wait for no accept() that never ends", async () => {
  for (const end of ["close", "abort"] as const) {
    const listener = new MemoryListener();
    listener.accept = forever;
    const server = new Server(listener);
    await within(server[end](), 1000, "it is closed");
  }
});

Deno.test("What an end rejects is rejected when it is told, not before", async () => {
  // Nobody looks at these before: one that is early is an unhandled rejection.
  const first = new Server<number, number>(new MemoryListener());
  const ready = first.ready();
  await first.close();
  await assertRejects(() => ready, TypeError);
  const second = new Server<number, number>(new MemoryListener());
  const reason = new Error("stop");
  const waiting = [second.ready(), second.submit(1), second.map([1]).next()];
  await second.abort(reason);
  for (const promise of waiting) {
    assertStrictEquals(await promise.catch((e) => e), reason);
  }
});
