/** Memory is bounded: design section 3, "Back pressure". */
import { assert, assertEquals, assertLess, assertRejects } from "@std/assert";
import { Client, ConnectionLostError, DrainTimeoutError } from "../mod.ts";
import { both, Kit, type Net, QUIET, range } from "./_support/channel_kit.ts";
import { payload, ScriptedPeer, T } from "./_support/scripted_peer.ts";
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
  "writable has high-water mark 1: one item waits, then ready is pending",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const writer = kit.server.writable.getWriter();
    assertEquals(writer.desiredSize, 1);
    assertEquals(await stateOf(writer.ready), "resolved");
    const written = writer.write(1);
    assertEquals(await stateOf(written), "pending", "nobody has taken it");
    assertEquals(await stateOf(writer.ready), "pending");
    assertEquals(writer.desiredSize, 0);
    await kit.worker(forever);
    await within(written, 1000, "it is dispatched");
    await within(writer.ready, 1000, "there is room for another");
  },
);

both(
  "write() resolves when its item is dispatched, not when it is done",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const gate = new Gate();
    await kit.worker(async (n) => (await gate.pass(), n), {
      client: { prefetch: 2 },
    });
    const writer = kit.server.writable.getWriter();
    await within(writer.write(1), 1000, "dispatched");
    await within(writer.write(2), 1000, "dispatched");
    const third = writer.write(3);
    assertEquals(await stateOf(third), "pending", "the worker is full");
    assertEquals(await stateOf(writer.ready), "pending");
    assertEquals(kit.server.stats().settled, 0);
    gate.open();
    await within(third, 1000, "dispatched");
  },
);

both(
  "A pipe into writable takes no more than what workers take",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    let produced = 0;
    const source = new ReadableStream<number>({
      pull: (controller) => controller.enqueue(produced++),
    }, { highWaterMark: 0 });
    await kit.worker(forever, { client: { prefetch: 5 } });
    const piping = source.pipeTo(kit.server.writable).catch(() => {});
    await until(() => produced >= 6, "the pipe is full");
    await moment();
    assert(produced <= 7, `${produced} were produced, 5 are in flight`);
    await kit.server.abort();
    await piping;
  },
);

both(
  "Results that nobody reads stop dispatch, workers and the producer",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    let done = 0;
    await kit.workers(2, () => (n) => (done++, n));
    let sent = 0;
    const producing = (async () => {
      for (; sent < 20_000; sent++) await server.send(sent);
      await server.end();
    })();
    const event = await kit.event("stalled");
    assertEquals(event.reason, "results-unread");
    assert(done < 5000, `${done} are done, none is read`);
    assert(sent < 5000, `${sent} were taken, none is read`);
    assertEquals(server.stats().unread, done);
    const got: number[] = [];
    for await (const n of server) got.push(n);
    await producing;
    assertEquals(got.toSorted((a, b) => a - b), range(20_000));
  },
);

both(
  "A reader that pauses among unread results is given more after them",
  async (net) => {
    // Nothing but the reader's reads is to wake anybody.
    await using kit = new Kit<number, number>(net, { heartbeat: QUIET });
    const { server } = kit;
    await kit.worker((n) => n, { client: { heartbeat: QUIET } });
    const producing = (async () => {
      for (const n of range(5000)) await server.send(n);
      await server.end();
    })();
    await until(() => server.stats().unread === 4096, "all places are taken");
    const results = server[Symbol.asyncIterator]();
    const got = [(await results.next()).value];
    await moment(600); // the server has looked at what is unread
    const reading = (async () => {
      for await (const n of results) got.push(n);
    })();
    await within(reading, 5000, "the rest is read");
    await producing;
    assertEquals(got, range(5000));
  },
);

both(
  "maxBufferedBytes stops dispatch while more results are unread",
  async (net) => {
    for (const face of ["iteration", "readable"] as const) {
      await using kit = new Kit<number, Uint8Array>(net, {
        maxBufferedBytes: 300_000,
      });
      const { server } = kit;
      let done = 0;
      await kit.worker(() => (done++, new Uint8Array(100_000)));
      const read = face === "iteration"
        ? (() => {
          const results = server[Symbol.asyncIterator]();
          return () => results.next();
        })()
        : (() => {
          const reader = server.readable.getReader();
          return () => reader.read();
        })();
      for (const n of range(50)) server.send(n);
      server.end();
      await until(() => server.stats().unread >= 4, "results wait");
      await moment();
      // What was in flight comes all the same; without a limit it were all 50.
      assert(done <= 25, `${done} results of 100 kB are here, limit is 300 kB`);
      let count = 0;
      for (;;) {
        const { done, value } = await read();
        if (done) break;
        assertEquals(value?.length, 100_000);
        count++;
      }
      assertEquals(count, 50);
    }
  },
);

both(
  "Results never wait for credit: what is in flight settles unread",
  async (net) => {
    await using kit = new Kit<number, Uint8Array>(net, { maxBufferedBytes: 1 });
    const { server } = kit;
    await kit.worker(() => new Uint8Array(50_000), {
      concurrency: 10,
      client: { prefetch: 10 },
    });
    for (const n of range(30)) server.send(n);
    await until(() => server.stats().unread >= 10, "all in flight are settled");
  },
);

both("Values of clients wait for credit, beside results", async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  let sent = 0;
  const producing = (async () => {
    for (; sent < 10_000; sent++) await client.send(sent);
    await client.end();
  })();
  await moment();
  assert(sent < 6000, `${sent} values were taken, none is read`);
  kit.server.end();
  let next = 0;
  for await (const n of kit.server) assertEquals(n, next++);
  assertEquals(next, 10_000);
  await producing;
});

both(
  "A plain reader is sent another item for each that it has settled",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await using reader = new ScriptedPeer(await kit.dial());
    await reader.join("stream", { window: 4 });
    await kit.active(1);
    for (const n of range(6)) server.send(n);
    await until(() => server.workers[0]!.inFlight === 4, "it is full");
    await reader.say(T.ACK, 0);
    await reader.say(T.PING, 1);
    await reader.until(T.PONG);
    assertEquals(server.stats().settled, 1);
    assertEquals(server.workers[0]!.inFlight, 4, "three, and the fifth");
    await kit.server.abort();
  },
);

// The other way round, a worker that dies here loses the values of an item.
Deno.test("An item is settled behind the values that were sent before, also if they wait", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<string, string>(conn);
  await server.greet();
  const items = client[Symbol.asyncIterator]();
  await server.until(T.CREDIT);
  await server.say(T.CREDIT, 1, 1000);
  const two = ["a", "b"].flatMap((item, i) => [i, payload(item)]);
  await server.say(T.ITEM, 1, 0, 0, ...two);
  await items.next();
  client.send("A");
  client.send("still A"); // there is credit for one
  await items.next(); // asking for it settles the first
  assertEquals((await server.next())?.type, T.VALUE);
  await server.say(T.PING, 1);
  assertEquals((await server.next())?.type, T.PONG, "no ACK before it");
  await server.say(T.CREDIT, 2, 1000);
  assertEquals((await server.next())?.fields, [payload("still A")]);
  const ack = await server.next();
  assertEquals([ack?.type, ack?.fields], [T.ACK, [0]]);
  await client.abort();
});

/** A client that knows how many values it may send, and its server by hand. */
async function granted<Value>(
  values: number,
  bytes: number,
): Promise<{ server: ScriptedPeer; client: Client<string, Value> }> {
  const [server, conn] = ScriptedPeer.pair();
  const client = new Client<string, Value>(conn);
  await server.greet();
  await client.opened;
  await server.say(T.CREDIT, values, bytes);
  await server.say(T.PING, 1);
  await server.until(T.PONG);
  return { server, client };
}

Deno.test("send() that waits for room rejects once the connection is lost", async () => {
  const { server, client } = await granted<string>(1, 1000);
  await using _ = server;
  const room = client.send("A");
  await server.until(T.VALUE); // this one has left: the next has no room
  assert(room !== undefined);
  await client.abort();
  const waits = within(room, 5000, "it is told");
  await assertRejects(() => waits, ConnectionLostError);
});

Deno.test("client.writable: what there is no credit for waits", async () => {
  const { server, client } = await granted<string>(1, 1000);
  await using _ = server;
  const writer = client.writable.getWriter();
  await writer.write("A");
  await server.until(T.VALUE);
  const written = writer.write("B");
  await server.say(T.PING, 2);
  assertEquals((await server.next())?.type, T.PONG);
  assertEquals(await stateOf(written), "pending");
  await server.say(T.CREDIT, 2, 1000);
  assertEquals((await server.next())?.fields, [payload("B")]);
  await written;
  await client.abort();
});

Deno.test("send(): all who wait for room are told of it", async () => {
  const bytes = 100 * 1024 * 1024;
  const { server, client } = await granted<Uint8Array>(1000, bytes);
  await using _ = server;
  const waits = range(5).map(() => client.send(new Uint8Array(100_000)));
  assert(waits.filter((wait) => wait !== undefined).length > 1, "it is full");
  for (const _ of waits) await server.until(T.VALUE);
  await within(Promise.all(waits), 5000, "there is room");
  await client.abort();
});

Deno.test("Values that wait for credit leave no faster than the server reads", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<string, Uint8Array>(conn);
  await server.greet();
  await client.opened;
  const left: Promise<void>[] = [];
  let count = 0;
  for (let i = 0; i < 100; i++) {
    const wait = client.send(new Uint8Array(16 * 1024));
    assert(wait !== undefined, "there is no credit yet");
    left.push(wait.then(() => void count++, () => {}));
  }
  await server.say(T.CREDIT, 1000, 100 * 1024 * 1024);
  await still(() => count, "the server doesn't read");
  assertLess(count, 50);
  await server.until(T.VALUE);
  await client.abort();
  await Promise.all(left);
});

both('results: "discard": nothing is kept, nothing stops', async (net) => {
  await using kit = new Kit<number, number>(net, { results: "discard" });
  const { server } = kit;
  let done = 0;
  const worker = await kit.worker((n) => (done++, n));
  const writer = server.writable.getWriter();
  for (const n of range(10_000)) await writer.write(n);
  await writer.close();
  await server.close();
  assertEquals(done, 10_000);
  assertEquals(server.stats().unread, 0);
  assertEquals(await Array.fromAsync(server.readable), []);
  await worker.done;
});

both(
  'results: "discard": submit() and map() have their results',
  async (net) => {
    await using kit = new Kit<number, number>(net, { results: "discard" });
    await kit.worker((n) => n + 1);
    assertEquals(await kit.server.submit(1), 2);
    assertEquals(await Array.fromAsync(kit.server.map([1, 2])), [2, 3]);
  },
);

both(
  'results: "discard": values of clients are dropped, and they go on',
  async (net) => {
    await using kit = new Kit<number, number>(net, { results: "discard" });
    const client = await kit.client();
    for (const n of range(5000)) await client.send(n);
    await client.close();
  },
);

both(
  "A worker that takes all places holds up nobody who comes later",
  async (net) => {
    for (
      const options of [{ client: { prefetch: 10_000 } }, { concurrency: 4096 }]
    ) {
      await using kit = new Kit<number, number>(net);
      const { server } = kit;
      await kit.worker(forever, options);
      const producing = (async () => {
        for (const n of range(30_000)) await server.send(n);
      })();
      producing.catch(() => {});
      await until(() => server.stats().inFlight >= 4096, "it has all places");
      await kit.worker((n) => n);
      let read = 0;
      for await (const _ of server) {
        if (++read === 10_000) break;
      }
      const held = server.workers[0]!.inFlight;
      assert(held <= 4096, `it holds ${held}`);
    }
  },
);

both(
  "A worker that asks for more than there are places holds up nobody",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await kit.worker((n) => n);
    await kit.worker(forever, { client: { prefetch: 10_000 } });
    const producing = (async () => {
      for (const n of range(20_000)) await server.send(n);
    })();
    producing.catch(() => {});
    let read = 0;
    for await (const _ of server) {
      if (++read === 10_000) break;
    }
    assert(server.workers[1]!.inFlight < 4096);
  },
);

both("An async generator's values arrive, and push back", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  let yielded = 0;
  await kit.worker(async function* (n) {
    for (const i of range(10_000)) {
      yielded++;
      yield await Promise.resolve(n * 100_000 + i);
    }
  });
  server.send(1);
  server.send(2);
  server.end();
  await until(() => server.stats().unread > 500, "values come");
  await moment();
  assert(yielded < 6000, `${yielded} were yielded, none is read`);
  assertEquals(server.stats().settled, 0);
  const got = await Array.fromAsync(server);
  assertEquals(got, [
    ...range(10_000).map((i) => 100_000 + i),
    ...range(10_000).map((i) => 200_000 + i),
  ]);
  assertEquals(server.stats().settled, 2);
});

both(
  "An async generator that throws fails its item, after its values",
  async (net) => {
    const failed: unknown[] = [];
    await using kit = new Kit<number, number>(net, {
      onFailure: ({ item }) => failed.push(item),
    });
    await kit.worker(async function* (n) {
      yield await Promise.resolve(n);
      if (n === 1) throw new Error("one");
      yield n + 100;
    });
    for (const n of range(3)) kit.server.send(n);
    kit.server.end();
    assertEquals(await Array.fromAsync(kit.server), [0, 100, 1, 2, 102]);
    assertEquals(failed, [1]);
  },
);

both(
  "The stalled event names why: no workers, workers that are full",
  async (net) => {
    await using none = new Kit<number, number>(net);
    none.server.send(1);
    await using full = new Kit<number, number>(net);
    await full.worker(forever, { client: { prefetch: 1 } });
    full.server.send(1);
    full.server.send(2);
    const first = await none.event("stalled");
    assertEquals([first.reason, first.waiting], ["no-workers", 1]);
    const second = await full.event("stalled");
    assertEquals([second.reason, second.waiting], ["workers-full", 1]);
  },
);

both("maxQueued bounds what send() takes beyond its promise", async (net) => {
  await using kit = new Kit<number, number>(net, { maxQueued: 3 });
  const { server } = kit;
  const rooms = range(3).map((n) => server.send(n));
  await assertRejects(async () => await server.send(3), RangeError);
  await kit.worker((n) => n);
  await Promise.all(rooms);
  await server.end();
  assertEquals(await Array.fromAsync(server), [0, 1, 2]);
});

/** What fails if nobody ever reads: a write, a send() or an end() after 5 s. */
async function unread(net: Net, face: "writable" | "send()"): Promise<void> {
  await using kit = new Kit<number, number>(net, { maxBufferedBytes: 1 });
  const { server } = kit;
  await kit.worker((n) => n);
  const writer = face === "writable" ? server.writable.getWriter() : null;
  const started = performance.now();
  const error = await assertRejects(async () => {
    for (let n = 0; n < 1000; n++) {
      await (writer === null ? server.send(n) : writer.write(n));
    }
  }, Error);
  const elapsed = performance.now() - started;
  assert(elapsed > 4500 && elapsed < 8000, `after ${elapsed} ms`);
  assert(error.message.includes("readable"), error.message);
  assert(error.message.includes("discard"), error.message);
  // What was taken is settled; a stream that has failed is at its end.
  if (writer === null) await server.end();
  const results = await within(Array.fromAsync(server), 5000, "an end");
  assertEquals(results, range(results.length));
  await server.closed;
}

/** The same, where nobody waits but for the end: what is left still comes. */
async function unreadEnd(net: Net): Promise<void> {
  await using kit = new Kit<number, number>(net, { maxBufferedBytes: 1 });
  const { server } = kit;
  await kit.worker((n) => n);
  for (const n of range(1000)) server.send(n);
  // At first a send() waits, too, and then the end alone.
  for (let time = 0; time < 2; time++) {
    const error = await assertRejects(
      () => within(server.end(), 8000, "told"),
      Error,
    );
    assert(error.message.includes("readable"), error.message);
  }
  const results = within(Array.fromAsync(server), 5000, "an end");
  await within(server.end(), 5000, "it is asked again");
  assertEquals((await results).length, 1000);
  await server.closed;
}

/** The same, though the workers have gone and every item is settled. */
async function unreadAndAlone(net: Net): Promise<void> {
  await using kit = new Kit<number, string>(net, { maxBufferedBytes: 1 });
  const { server } = kit;
  const { client } = await kit.worker(() => "a result", {
    client: { prefetch: 1 },
  });
  const room = server.send(1);
  assert(room instanceof Promise, "the worker is full");
  await until(() => server.stats().unread === 1, "its result waits");
  await client.close();
  const error = await assertRejects(() => within(room, 8000, "told"), Error);
  assert(error.message.includes("readable"), error.message);
  assertEquals((await kit.event("stalled")).reason, "results-unread");
}

/** The same, where it is values that nobody reads: their sender is full. */
async function unreadValues(
  net: Net,
  face: "writable" | "send()",
): Promise<void> {
  await using kit = new Kit<number, Uint8Array>(net);
  const { server } = kit;
  const client = await kit.client({ prefetch: 1 });
  (async () => {
    for await (const _ of client) await client.send(new Uint8Array(1 << 20));
  })().catch(() => {});
  const writer = face === "writable" ? server.writable.getWriter() : null;
  writer?.closed.catch(() => {});
  const writing = (async () => {
    for (const n of range(5)) {
      await (writer === null ? server.send(n) : writer.write(n));
    }
  })();
  const error = await assertRejects(() => within(writing, 10_000, "told"));
  assert(error instanceof Error);
  assert(error.message.includes("readable"), error.message);
  assert(error.message.includes("1 result waits"), error.message);
  assertEquals((await kit.event("stalled")).reason, "results-unread");
  const late = await assertRejects(
    () => server.close({ drainMs: 100 }),
    DrainTimeoutError,
  );
  assert(late.message.includes("nobody reads the results"), late.message);
}

/** A write that waits for a worker, or for a reader who is only slow. */
async function patient(net: Net): Promise<void> {
  await using alone = new Kit<number, number>(net);
  const last = await alone.worker((n) => n);
  const lone = alone.server.writable.getWriter();
  await lone.write(1);
  await until(() => alone.server.stats().unread === 1, "its result waits");
  await last.client.close();
  await until(() => alone.server.workers.length === 0, "nobody is there");
  const lonely = lone.write(2);
  lonely.catch(() => {});
  await using idle = new Kit<number, number>(net);
  const waiting = idle.server.writable.getWriter().write(1);
  waiting.catch(() => {});
  await using full = new Kit<number, number>(net);
  await full.worker(forever, { client: { prefetch: 4096 } });
  const filling = (async () => {
    for (const n of range(5000)) await full.server.send(n);
  })();
  filling.catch(() => {});
  await using going = new Kit<number, Uint8Array>(net);
  const reader = await going.client({ prefetch: 1 });
  reader.send(new Uint8Array(1 << 20)); // it may send no other
  (async () => {
    for await (const _ of reader) await moment(1);
  })().catch(() => {});
  const flowing = (async () => {
    for (;;) await going.server.send(1);
  })();
  flowing.catch(() => {});
  await using slow = new Kit<number, number>(net, { maxBufferedBytes: 1 });
  await slow.worker((n) => n);
  const results = slow.server[Symbol.asyncIterator]();
  const writer = slow.server.writable.getWriter();
  const writing = (async () => {
    for (const n of range(20)) await writer.write(n);
    await writer.close();
  })();
  await moment(5600);
  assertEquals(await stateOf(waiting), "pending");
  assertEquals(await stateOf(lonely), "pending", "there is room for results");
  assertEquals(full.server.stats().inFlight, 4096, "it has all places");
  assertEquals(await stateOf(filling), "pending", "there are no results");
  assertEquals(await stateOf(flowing), "pending", "none waits for 5 s");
  assertEquals(await stateOf(writing), "pending");
  assertEquals((await Array.fromAsync(results)).length, 20);
  await writing;
}

Deno.test("Who waits 5 s for a reader who never came is told so, and nobody else", async () => {
  const cases: Promise<void>[] = [];
  for (const net of ["memory", "tcp"] as const) {
    cases.push(unread(net, "writable"), unread(net, "send()"), patient(net));
    cases.push(unreadAndAlone(net), unreadEnd(net));
    cases.push(unreadValues(net, "writable"), unreadValues(net, "send()"));
  }
  for (const result of await Promise.allSettled(cases)) {
    if (result.status === "rejected") throw result.reason;
  }
});
