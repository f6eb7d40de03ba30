/**
 * Which worker gets what, and how much of it: design section 3, "Dispatch" and
 * the windows of "Back pressure".
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ByKey, type WorkerInfo } from "../internal/dispatcher.ts";
import { Mode } from "../internal/frame.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { ScriptedPeer, T } from "./_support/scripted_peer.ts";
import { answer, itemsOf, scripted, takeItems } from "./_support/task_kit.ts";
import { forever, Gate, moment, until, within } from "./_support/within.ts";

both(
  "Round robin is strict while all are free: item k to worker k mod n",
  async (net) => {
    for (const count of [1, 2, 3, 5]) {
      await using kit = new Kit<number, [number, number]>(net);
      await kit.workers(count, (i) => (n) => [n, i], {
        client: { prefetch: 100 },
      });
      for (const n of range(60)) kit.server.send(n);
      kit.server.end();
      for await (const [n, worker] of kit.server) {
        assertEquals(worker, n % count, `item ${n} of ${count} workers`);
      }
    }
  },
);

both("Round robin goes on where it was, item after item", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.workers(3, (i) => () => i);
  const results: number[] = [];
  for (const n of range(12)) results.push(await kit.server.submit(n));
  assertEquals(results, range(12).map((n) => n % 3));
});

both("Round robin is strict for writable and map() as well", async (net) => {
  await using kit = new Kit<number, [number, number]>(net);
  await kit.workers(3, (i) => (n) => [n, i], { client: { prefetch: 100 } });
  const mapped = await Array.fromAsync(kit.server.map(range(30)));
  assertEquals(mapped, range(30).map((n) => [n, n % 3]));
  const written = await Array.fromAsync(
    ReadableStream.from(range(30)).pipeThrough(kit.server),
  );
  assertEquals(
    written.toSorted(([a], [b]) => a - b),
    range(30).map((n) => [n, n % 3]),
  );
});

both("A full worker is passed over", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const full = await kit.client({ prefetch: 2 });
  full[Symbol.asyncIterator]();
  await kit.active(1);
  const seen: number[] = [];
  await kit.worker((n) => (seen.push(n), n), { client: { prefetch: 100 } });
  for (const n of range(50)) server.send(n);
  await until(() => seen.length === 48, "the free one does the rest");
  assertEquals(seen, range(50).filter((n) => n !== 0 && n !== 2));
});

both("One slow worker never holds up another", async (net) => {
  await using kit = new Kit<number, number>(net, { results: "discard" });
  const { server } = kit;
  await kit.worker(forever);
  let fast = 0;
  await kit.worker((n) => (fast++, n));
  const producing = (async () => {
    for (const n of range(3000)) await server.send(n);
  })();
  await until(() => fast >= 2990, "the fast one does nearly all");
  await producing;
});

both("Order is kept from the server to each worker", async (net) => {
  await using kit = new Kit<number, number>(net, { results: "discard" });
  const { server } = kit;
  const seen = range(3).map((): number[] => []);
  await kit.workers(3, (i) => (n) => (seen[i]!.push(n), n));
  for (const n of range(5000)) await server.send(n);
  await server.close();
  for (const items of seen) {
    assertEquals(items, items.toSorted((a, b) => a - b));
  }
  assertEquals(seen.flat().length, 5000);
});

both("prefetch: at most so many items at a reader", async (net) => {
  for (const prefetch of [1, 3, 10]) {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client({ prefetch });
    const items = client[Symbol.asyncIterator]();
    await kit.active(1);
    for (const n of range(30)) kit.server.send(n);
    await moment();
    assertEquals(kit.server.workers[0]!.inFlight, prefetch);
    for (const n of range(30)) assertEquals((await items.next()).value, n);
  }
});

both("prefetch: at most so many items at a worker", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(forever, { concurrency: 2, client: { prefetch: 5 } });
  for (const n of range(30)) kit.server.send(n);
  await moment();
  assertEquals(kit.server.stats().inFlight, 5);
});

both('prefetch "auto": 64 items for a reader', async (net) => {
  await using kit = new Kit<number, number>(net);
  const client = await kit.client();
  client.readable;
  await kit.active(1);
  for (const n of range(100)) kit.server.send(n);
  await moment();
  assertEquals(kit.server.stats().inFlight, 64);
});

both(
  'prefetch "auto": concurrency + 1 items for a worker at first',
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker(forever, { concurrency: 3 });
    for (const n of range(100)) kit.server.send(n);
    await moment();
    assertEquals(kit.server.stats().inFlight, 4);
  },
);

both("A client grants nothing until a face is taken", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const client = await kit.client();
  server.send(1);
  await moment();
  assertEquals(server.stats().inFlight, 0);
  assertEquals(server.workers[0]!.state, "idle");
  client.send(7); // a writing face grants nothing
  await moment();
  assertEquals(server.stats().inFlight, 0);
  client.readable;
  await until(() => server.stats().inFlight === 1, "the item is sent");
  assertEquals(server.workers[0]!.state, "active");
});

both("concurrency: so many handlers at once, and no more", async (net) => {
  await using kit = new Kit<number, number>(net);
  let running = 0, most = 0;
  const gate = new Gate();
  await kit.worker(async (n) => {
    most = Math.max(most, ++running);
    await gate.pass();
    running--;
    return n;
  }, { concurrency: 4, client: { prefetch: 20 } });
  const results = range(20).map((n) => kit.server.submit(n));
  await until(() => running === 4, "four run");
  await moment();
  assertEquals(running, 4);
  gate.open();
  assertEquals(await Promise.all(results), range(20));
  assertEquals(most, 4);
});

both(
  "maxInFlightBytes is strict, and an idle worker gets any item",
  async (net) => {
    const maxFrameBytes = 100_000;
    await using kit = new Kit<Uint8Array, number>(net, {
      maxFrameBytes,
      maxInFlightBytes: 100_000,
      results: "discard",
    });
    const { server } = kit;
    const client = await kit.client({ prefetch: 1000 });
    const items = client[Symbol.asyncIterator]();
    await kit.active(1);
    for (let i = 0; i < 10; i++) server.send(new Uint8Array(40_000));
    await moment();
    assertEquals(server.workers[0]!.inFlight, 2, "three would be 120 kB");
    await items.next();
    await items.next();
    await moment();
    assertEquals(server.workers[0]!.inFlight, 2);
    server.send(new Uint8Array(10));
    await moment();
    assertEquals(server.workers[0]!.inFlight, 2, "order is kept");
  },
);

both(
  "maxInFlightBytes: items as large as a frame go one by one",
  async (net) => {
    await using kit = new Kit<Uint8Array, number>(net, {
      maxFrameBytes: 4096,
      maxInFlightBytes: 4096,
    });
    let most = 0;
    await kit.worker((bytes) => {
      most = Math.max(most, kit.server.stats().inFlight);
      return bytes.length;
    }, { client: { prefetch: 100 } });
    const sizes = range(20).map(() => 4000);
    assertEquals(
      await Array.fromAsync(
        kit.server.map(sizes.map((n) => new Uint8Array(n))),
      ),
      sizes,
    );
    assertEquals(most, 1);
  },
);

both(
  "Small items pass beside large ones within maxInFlightBytes",
  async (net) => {
    await using kit = new Kit<Uint8Array, number>(net, {
      maxFrameBytes: 100_000,
      maxInFlightBytes: 200_000,
    });
    await kit.workers(2, () => (bytes) => bytes.length);
    const sizes = range(500).map((i) => i % 7 === 0 ? 90_000 : i);
    assertEquals(
      await Array.fromAsync(
        kit.server.map(sizes.map((n) => new Uint8Array(n))),
      ),
      sizes,
    );
  },
);

both('dispatch "least-loaded" goes to the one with the fewest', async (net) => {
  await using kit = new Kit<number, number>(net, { dispatch: "least-loaded" });
  const gate = new Gate();
  await kit.workers(2, (i) => async () => {
    if (i === 0) await gate.pass();
    return i;
  }, { client: { prefetch: 100 } });
  const first = kit.server.submit(0); // to the first of two that are idle
  for (const n of range(20)) assertEquals(await kit.server.submit(n), 1);
  gate.open();
  assertEquals(await first, 0);
});

both(
  "CREDIT that grows makes room at once, though nothing was settled",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await using peer = await scripted(kit, { window: 1 });
    for (const n of range(3)) kit.server.submit(n).catch(() => {});
    await takeItems(peer, 1);
    await peer.say(T.CREDIT, Mode.WORK, 1, 3, 0);
    assertEquals((await takeItems(peer, 2)).map(({ id }) => id), [1, 2]);
  },
);

both("dispatch by key: submit() leaves those out who read", async (net) => {
  await using kit = new Kit<number, number>(net, {
    handshakeTimeoutMs: 60_000,
    dispatch: { key: (n) => `key ${n}` },
  });
  const reader = await kit.client();
  const reading = Array.fromAsync(reader);
  await kit.active(1);
  await kit.worker((n) => n * 2);
  const results = range(40).map((n) => kit.server.submit(n));
  assertEquals(await Promise.all(results), range(40).map((n) => n * 2));
  await kit.server.close();
  assertEquals(await reading, []);
});

both("dispatch: a dispatcher of one's own is asked", async (net) => {
  const free: number[] = [];
  await using kit = new Kit<number, number>(net, {
    dispatch: {
      pick(workers, item) {
        free.push(workers.length);
        return item as number % workers.length;
      },
    },
  });
  await kit.workers(3, (i) => () => i);
  assertEquals(await kit.server.submit(5), 2);
  assertEquals(await kit.server.submit(3), 0);
  assertEquals(free, [3, 3]);
});

both("Server.workers and stats() tell what is so", async (net) => {
  await using kit = new Kit<number, number>(net, { onFailure: () => {} });
  const { server } = kit;
  assertEquals(server.workers, []);
  await kit.worker((n) => {
    if (n < 0) throw new Error("negative");
    return n;
  }, { client: { name: "ada" } });
  server.send(1);
  server.send(-1);
  const results = server[Symbol.asyncIterator]();
  await results.next();
  await until(() => server.stats().failed === 1, "one has failed");
  const [info] = server.workers;
  assertEquals(info!.id, 0);
  assertEquals(info!.name, "ada");
  assertEquals(info!.settled, 1);
  assertEquals(info!.failed, 1);
  assertEquals(info!.inFlight, 0);
  assertEquals(info!.state, "active");
  assertEquals("hostname" in info!.addr && info!.addr.hostname, "127.0.0.1");
  await until(() => server.workers[0]!.rttMs !== undefined, "rttMs is known");
  const stats = server.stats();
  assertEquals(stats.settled, 1);
  assertEquals(stats.pending, 0);
  assertEquals(stats.inFlight, 0);
  assert(stats.bytesIn > 0 && stats.bytesOut > 0);
  assertEquals(stats.workers.length, 1);
  await server.abort();
  const after = server.stats();
  assert(after.bytesIn >= stats.bytesIn, "bytes of connections that are gone");
  assert(after.bytesOut >= stats.bytesOut);
});

both(
  "A worker that seemed far, or has become slow, is measured again while it settles items",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await using peer = new ScriptedPeer(await kit.dial());
    peer.answersPings = false;
    await peer.handshake();
    const first = await peer.until(T.PING);
    await moment(30); // it isn't far: it is busy, as all that begin are
    await peer.say(T.PONG, first.fields[0]);
    await peer.say(T.CREDIT, 1, 1, 2, 1);
    peer.answersPings = true;
    const results = Array.fromAsync(server.map(range(1_000_000)));
    results.catch(() => {});
    /** Settles items until so many more PINGs have come, or for so long. */
    const settle = async (pings: number, ms: number, itemMs = 2) => {
      const from = peer.frames.length, since = performance.now();
      const asked = () =>
        peer.frames.slice(from).filter(({ type }) => type === T.PING).length;
      while (asked() < pings && performance.now() - since < ms) {
        const { type, fields } = (await peer.next())!;
        if (type !== T.ITEM) continue;
        for (const { delivery } of itemsOf(fields)) {
          await answer(peer, delivery, "result");
          await moment(itemMs);
        }
      }
      return asked();
    };
    assertEquals(await settle(1, 10_000), 1);
    while (server.workers[0]!.rttMs! > 20) await settle(1, 1500);
    assertEquals(await settle(1, 1500), 0, "it is near");
    assertEquals(await settle(1, 10_000, 50), 1);
    await server.abort();
  },
);

both(
  "Server.ready() waits for workers whose handshake is done",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await server.ready(0);
    const one = server.ready(), two = server.ready(2);
    const silent = await kit.dial();
    let isTwo = false;
    two.then(() => isTwo = true);
    await kit.client();
    await one;
    assertEquals(isTwo, false);
    await kit.client();
    await two;
    await server.ready(2);
    silent.close();
  },
);

both("Behind Server.ready() round robin is strict at once", async (net) => {
  for (let round = 0; round < 10; round++) {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const ready = server.ready(3);
    const clients = await Promise.all(range(3).map(() => kit.client()));
    // They ask for items, and the server has yet to hear of it.
    const readers = clients.map((client) => Array.fromAsync(client));
    await (round % 2 === 0 ? ready : server.ready(3));
    // Else they may share what is sent only since they ask in the same turn.
    assert(server.workers.every(({ state }) => state === "active"));
    for (const n of range(9)) server.send(n);
    server.end();
    const read = (await Promise.all(readers)).toSorted(([a], [b]) => a! - b!);
    assertEquals(read, [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
  }
});

both("What waits is for all workers that ask in one turn", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const clients = await Promise.all(range(3).map(() => kit.client()));
  for (const n of range(9)) server.send(n);
  server.end();
  const readers = clients.map((client) => Array.fromAsync(client));
  const read = (await Promise.all(readers)).toSorted(([a], [b]) => a! - b!);
  assertEquals(read, [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
});

both("Server.ready() waits a moment for a first CREDIT", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const client = await kit.client();
  const controller = new AbortController();
  const given = server.ready(1, { signal: controller.signal });
  await moment(1); // its timer runs
  controller.abort(new Error("no time"));
  await assertRejects(() => given, Error, "no time");
  await within(server.ready(), 5000, "who only connects counts, too");
  client[Symbol.asyncIterator]();
  await kit.active(1);
  await server.ready();
});

both("dispatch by key: behind ready() no key moves", async (net) => {
  for (let round = 0; round < 10; round++) {
    await using kit = new Kit<number, number>(net, {
      dispatch: { key: (n) => `key ${n % 10}` },
    });
    const clients = await Promise.all(range(3).map(() => kit.client()));
    await kit.server.ready(3);
    // They ask for items one after the other.
    const results = range(30).map((n) => kit.server.submit(n));
    const done = clients.map((client, i) => client.work(() => i));
    const workers = await Promise.all(results);
    assertEquals(workers.slice(10), workers.slice(0, 20));
    await kit.server.close();
    await Promise.all(done);
  }
});

both(
  "dispatch by key: calls wait for who has only just come",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      handshakeTimeoutMs: 60_000,
      dispatch: { key: (n) => `key ${n}` },
    });
    const { server } = kit;
    const first = await scripted(kit);
    const late = new ScriptedPeer(await kit.dial());
    await late.handshake();
    await until(() => server.workers.length === 2, "it is there");
    const results = range(30).map((n) => server.submit(n).catch(() => {}));
    assert(server.stats().pending > 0, "they wait for its first");
    await late.say(T.CREDIT, Mode.WORK, 1, 64, 0);
    await until(() => server.stats().pending === 0, "all have a worker");
    assert(server.workers.every(({ inFlight }) => inFlight > 0));
    for (const peer of [first, late]) peer.close();
    await server.abort();
    await Promise.all(results);
  },
);

both(
  "dispatch by key: who never asks for items holds nothing up",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      dispatch: { key: (n) => `key ${n}` },
      handshakeTimeoutMs: 500,
    });
    await kit.client();
    await kit.server.ready(1);
    const results = Promise.all(range(30).map((n) => kit.server.submit(n)));
    await kit.worker((n) => n);
    assertEquals(await within(results, 5000, "results"), range(30));
  },
);

both(
  "dispatch by key: what goes again goes before what is new, also where its worker never asks for items",
  async (net) => {
    await using kit = new Kit<string, number>(net, {
      dispatch: { key: (item) => item.slice(0, -1) },
      handshakeTimeoutMs: 500,
    });
    // Whose a key is among the workers 1 to 3, and among 1 and 2.
    const keyOf = (...owners: number[]): string => {
      const info = { state: "active" } as WorkerInfo;
      const pools = [[1, 2, 3], [1, 2]].map((ids) =>
        ids.map((id) => ({ id, isExpected: false, info }))
      );
      const strategy = new ByKey<typeof pools[0][0]>((key) => key);
      return range(1000).map((n) => `key ${n} `).find((key) =>
        pools.every((pool, i) =>
          strategy.pick(pool, key, () => true)!.id === owners[i]
        )
      )!;
    };
    const first = await scripted(kit);
    const busy = keyOf(1, 1), moves = keyOf(3, 2);
    const results = [`${busy}0`, `${busy}1`, `${moves}0`].map((item) =>
      kit.server.submit(item).catch(() => {})
    );
    await takeItems(first, 3);
    const full = await scripted(kit, { window: 1 });
    const free = await scripted(kit);
    const mute = new ScriptedPeer(await kit.dial());
    await mute.handshake();
    await kit.server.ready(4);
    await first.say(T.LEAVE, 0, 1, 2);
    await takeItems(full, 1);
    results.push(kit.server.submit(`${moves}1`).catch(() => {}));
    const items = await takeItems(free, 2);
    assertEquals(items.map(({ id }) => id), [2, 3]);
    await kit.server.abort();
    await Promise.all(results);
    for (const peer of [first, full, free, mute]) peer.close();
  },
);

both(
  "dispatch: a dispatcher of one's own sees only who has room, whoever dies",
  async (net) => {
    const seen: number[][] = [];
    await using kit = new Kit<number, number>(net, {
      dispatch: {
        pick(free) {
          seen.push(free.map(({ inFlight }) => inFlight));
          return free.length - 1;
        },
      },
    });
    const gate = new Gate();
    const pass = async (n: number) => {
      await gate.pass();
      return n;
    };
    await kit.worker(pass, { client: { prefetch: 1 } });
    const dying = await kit.worker(() => forever(), {
      client: { prefetch: 1 },
    });
    const results = [1, 2].map((n) => kit.server.submit(n));
    await until(() => gate.passing === 1, "one is executed");
    kit.crash(dying.client);
    await kit.event("redelivered"); // and must wait until nobody else is there
    await kit.server.submit(3, { timeoutMs: 60 }).catch(() => {});
    gate.open();
    assertEquals(await Promise.all(results), [1, 2]);
    assertEquals(seen, [[0, 0], [0], [0]]);
  },
);

both("dispatch by key: key() keeps its this", async (net) => {
  const dispatch = {
    keys: ["even", "odd"],
    key(n: number): string {
      return this.keys[n % 2]!;
    },
  };
  await using kit = new Kit<number, number>(net, { dispatch });
  await kit.workers(4, (i) => () => i);
  const by = await Promise.all(range(20).map((n) => kit.server.submit(n)));
  assertEquals(by, by.map((_, n) => by[n % 2]));
});

both(
  "Several map()s side by side have their turns, whoever was first",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker((n) => n, { client: { prefetch: 100 } });
    const counts = [0, 0, 0];
    let isDone = false;
    function* endless() {
      for (let n = 0; !isDone; n++) yield n;
    }
    async function* waiting() {
      for (const n of endless()) yield await n;
    }
    const sources = [endless, endless, waiting];
    await Promise.all(sources.map(async (source, i) => {
      for await (const _ of kit.server.map(source())) {
        if (++counts[i]! === 3000) isDone = true;
      }
    }));
    assert(Math.min(...counts) > 1000, `results: ${counts}`);
  },
);

both("send() has its turns beside map() and many submit()s", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  await kit.worker((n) => n, { client: { prefetch: 8 } });
  let sent = 0, mapped = 0, submitted = 0;
  const isDone = () => submitted >= 3000;
  function* endless() {
    for (let n = 0; !isDone(); n++) yield n;
  }
  const read = Array.fromAsync(server);
  await Promise.all([
    (async () => {
      for (; !isDone(); sent++) await server.send(sent);
    })(),
    (async () => {
      for await (const _ of server.map(endless())) mapped++;
    })(),
    ...range(64).map(async (n) => {
      for (; !isDone(); submitted++) await server.submit(n);
    }),
  ]);
  server.end();
  assertEquals((await read).length, sent);
  assert(
    sent > 150 && mapped > 1000,
    `sent: ${sent}, mapped: ${mapped}, submitted: ${submitted}`,
  );
});

both(
  "send() has its turns beside a map() that takes every place",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await kit.worker((n) => Promise.resolve(n), { client: { prefetch: 1 } });
    let sent = 0, mapped = 0;
    async function* numbers() {
      for (let n = 0; n < 300; n++) yield await n;
    }
    const read = Array.fromAsync(server);
    await Promise.all([
      (async () => {
        for (; mapped < 300; sent++) await server.send(sent);
      })(),
      (async () => {
        for await (const _ of server.map(numbers())) mapped++;
      })(),
    ]);
    server.end();
    assertEquals((await read).length, sent);
    assert(sent > 100, `sent: ${sent}`);
  },
);
