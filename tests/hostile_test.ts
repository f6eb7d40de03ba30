import { assert, assertEquals, assertLess } from "@std/assert";
import {
  cbor,
  CborTag,
  Client,
  type Codec,
  connect,
  gzip,
  listen,
  Server,
  type ServerEvent,
  type ServerOptions,
  work,
} from "../mod.ts";
import { range } from "./_support/channel_kit.ts";
import { MemoryListener, memoryPair } from "./_support/memory_pair.ts";
import { seeded } from "./_support/rng.ts";
import {
  concat,
  frame,
  payload,
  ScriptedPeer,
  sequence,
  T,
} from "./_support/scripted_peer.ts";
import { Gate, moment, still, until, within } from "./_support/within.ts";

/** A server on TCP with one good worker, and what it tells. */
async function pool(options: ServerOptions<number, number> = {}) {
  const events: ServerEvent[] = [];
  const server = listen<number, number>({
    port: 0,
    ...options,
    onEvent: (event) => void events.push(event),
  });
  const { port } = server.addr as Deno.NetAddr;
  const { transforms = [] } = options;
  const done = work<number, number>({ port, transforms }, (n) => n + 1);
  await server.ready();
  return {
    server,
    events,
    port,
    /** Asserts that the pool works as ever. */
    async works(): Promise<void> {
      const results = await Array.fromAsync(server.map(range(500)));
      assertEquals(results, range(500).map((n) => n + 1));
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await server.close();
      await done;
    },
  };
}

async function connectAll(port: number, count: number): Promise<Deno.Conn[]> {
  return await Promise.all(
    range(count).map(() => Deno.connect({ hostname: "127.0.0.1", port })),
  );
}

/** Reads a connection to its end. */
async function drain(conn: Deno.Conn): Promise<number> {
  const buffer = new Uint8Array(4096);
  let size = 0;
  try {
    for (;;) {
      const count = await conn.read(buffer);
      if (count === null) break;
      size += count;
    }
  } catch {
    // Reset: that is an end too.
  }
  conn.close();
  return size;
}

Deno.test("hostile: slow connections are dropped in time, next to a working pool", async () => {
  await using kit = await pool({ handshakeTimeoutMs: 200 });
  const hello = frame(T.HELLO, "distchan", 1, { signature: "distchan" });
  const slow = await connectAll(kit.port, 50);
  let at = 0;
  const timer = setInterval(() => {
    // A byte each, from time to time, as slowly as can be.
    const byte = hello.subarray(at, ++at);
    for (const conn of slow) conn.write(byte).catch(() => {});
  }, 20);
  const from = performance.now();
  const ended = Promise.all(slow.map(drain));
  await kit.works();
  const sizes = await ended;
  clearInterval(timer);
  assertLess(performance.now() - from, 5000);
  for (const size of sizes) assert(size > 0, "each is told why");
  const rejected = kit.events.filter((e) => e.type === "rejected");
  assertEquals(rejected.length, 50);
  for (const { code } of rejected) assertEquals(code, "timeout");
  await kit.works();
});

Deno.test("hostile: garbage is refused, next to a working pool", async () => {
  const rng = seeded("garbage");
  await using kit = await pool();
  for (const round of range(5)) {
    const conns = await connectAll(kit.port, 40);
    const ended = Promise.all(conns.map(async (conn) => {
      const garbage = rng.bytes(rng.int(5, 500));
      if (round === 0) garbage.set([0, 0, 0, 5]);
      await conn.write(garbage).catch(() => {});
      if (rng.chance(0.3)) await conn.closeWrite().catch(() => {});
      return await drain(conn);
    }));
    await kit.works();
    await ended;
  }
  await until(
    () => kit.events.filter((e) => e.type === "rejected").length >= 200,
    "all are rejected",
  );
  assertEquals(kit.server.workers.length, 1);
});

Deno.test("hostile: connections that hang on after they were refused make room", async () => {
  await using kit = await pool({ maxConnections: 10 });
  const conns = await connectAll(kit.port, 40);
  for (const conn of conns) {
    // Refused, and not read: it doesn't close either.
    await conn.write(new Uint8Array([0, 0, 0, 0])).catch(() => {});
  }
  await until(
    () => kit.events.filter((e) => e.type === "rejected").length >= 9,
    "they are refused",
  );
  const done = work<number, number>({
    port: kit.port,
    reconnect: { minDelayMs: 1 },
  }, (n) => n + 1);
  await kit.server.ready(2);
  await kit.works();
  for (const conn of conns) conn.close();
  await kit.server.close();
  await done;
});

Deno.test("hostile: of those that hang on after they were refused, the oldest makes room", async () => {
  await using kit = await pool({ maxConnections: 1 });
  const conns = await connectAll(kit.port, 80);
  const told = await Promise.all(
    conns.map((conn) => conn.read(new Uint8Array(4096))),
  );
  for (const size of told) assert(size, "each is told why");
  const rejected = kit.events.filter((e) => e.type === "rejected");
  assertEquals(rejected.length, 80);
  for (const { code } of rejected) assertEquals(code, "full");
  for (const conn of conns) conn.close();
  await kit.works();
});

Deno.test("hostile: a burst over maxConnections is told why", async () => {
  await using kit = await pool({ maxConnections: 1 });
  const conns = await connectAll(kit.port, 60);
  for (const size of await Promise.all(conns.map(drain))) {
    assert(size > 0, "each is told why");
  }
  const rejected = kit.events.filter((e) => e.type === "rejected");
  assertEquals(rejected.length, 60);
  for (const { code } of rejected) assertEquals(code, "full");
  await kit.works();
});

Deno.test("hostile: who is refused and doesn't close is closed", async () => {
  await using kit = await pool({ maxConnections: 1 });
  const [conn] = await connectAll(kit.port, 1);
  const told = await conn!.read(new Uint8Array(4096));
  assert(told !== null && told > 0, "it is told why");
  const byte = new Uint8Array(1);
  await until(
    () => conn!.write(byte).then(() => false, () => true),
    "the server has closed it",
  );
  conn!.close();
  await kit.works();
});

Deno.test("hostile: silent connections by the hundred hold up nobody", async () => {
  await using kit = await pool({ maxHandshakes: 100 });
  const silent = await connectAll(kit.port, 150);
  const ended = silent.map(drain);
  await until(
    () => kit.events.filter((e) => e.type === "rejected").length >= 50,
    "the oldest are dropped",
  );
  await kit.works();
  await kit.server.close();
  await Promise.all(ended);
});

Deno.test("hostile: bombs end their connections, next to a working pool", async () => {
  const transforms = [gzip()];
  const bomb = await new Response(
    ReadableStream.from(range(64).map(() => new Uint8Array(1 << 20)))
      .pipeThrough(new CompressionStream("gzip")),
  ).bytes();
  await using kit = await pool({ transforms });
  for (const _ of range(3)) {
    await using peer = await ScriptedPeer.connect(kit.port);
    await peer.handshake({ fields: { transforms: ["gzip"] } });
    await peer.say(T.CONFIRM, bomb.subarray(0, 3000));
    const rejected = await peer.rest();
    assertEquals(rejected.at(-1)!.type, T.REJECT);
    assertEquals(rejected.at(-1)!.fields[0], 4);
    peer.close();
  }
  await kit.works();
});

Deno.test("hostile: bytes before the handshake are bounded", async () => {
  const listener = new MemoryListener();
  await using server = new Server(listener);
  for (const size of [4097, 1 << 20, 0xffff_ffff]) {
    await using peer = new ScriptedPeer(listener.connect());
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, size);
    await peer.send(head);
    const [reject] = await peer.rest();
    assertEquals([reject?.type, reject?.fields[0]], [T.REJECT, 8]);
    peer.close();
  }
  assertEquals(server.workers.length, 0);
});

Deno.test("hostile: a flood of connections leaves the event loop its turns", async () => {
  const { addr } = new MemoryListener();
  let accepted = 0;
  const closed = Promise.withResolvers<never>();
  closed.promise.catch(() => {});
  // All that wait in a backlog are there at once.
  const flood = {
    addr,
    accept(): Promise<Deno.Conn> {
      if (++accepted > 5000) return closed.promise;
      const [near, far] = memoryPair();
      near.close();
      return Promise.resolve(far);
    },
    close: () => closed.reject(new Deno.errors.BadResource("closed")),
  };
  const server = new Server(flood as unknown as Deno.Listener);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertLess(accepted, 100);
  await server.close();
});

Deno.test("hostile: a peer that sends without end leaves the event loop its turns", async () => {
  const listener = new MemoryListener();
  const server = new Server(listener);
  await using peer = new ScriptedPeer(listener.connect());
  await peer.handshake();
  const pings = concat(new Array(64).fill(frame(T.PING, 1)));
  let isOver = false;
  let sent = 0;
  // No turn of the event loop lies between one write and the next.
  const flood = (async () => {
    while (!isOver && sent < 10_000) {
      await peer.send(pings);
      sent++;
    }
  })();
  await new Promise((resolve) => setTimeout(resolve, 0));
  isOver = true;
  await flood;
  assertLess(sent, 5000);
  peer.close();
  await server.close();
});

Deno.test("hostile: who sends without end has no more time for an item", async () => {
  const failed = Promise.withResolvers<void>();
  await using server = listen<number, number>({
    port: 0,
    itemTimeoutMs: 100,
    results: "discard",
    onFailure: () => failed.resolve(),
  });
  const { port } = server.addr as Deno.NetAddr;
  await using peer = await ScriptedPeer.connect(port);
  await peer.handshake();
  await peer.say(T.CREDIT, 1, 1, 1, 0);
  server.send(1);
  await peer.until(T.ITEM);
  const pongs = concat(new Array(50_000).fill(frame(T.PONG, 0)));
  let isOver = false;
  const flood = (async () => {
    while (!isOver) await peer.send(pongs);
  })();
  try {
    await within(failed.promise, 5000, "the item fails");
  } finally {
    isOver = true;
    await flood;
    await server.abort();
  }
});

Deno.test("hostile: what a HELLO holds beside its fields is never made of it", async () => {
  await using server = listen({ port: 0 });
  await using peer = await ScriptedPeer.connect(
    (server.addr as Deno.NetAddr).port,
  );
  // As values these would be refused: a pattern, and a date, that are none.
  const welcome = await peer.handshake({
    fields: {
      pattern: new CborTag(21066, ["("]),
      date: new CborTag(0, "tomorrow"),
    },
  });
  assertEquals(welcome["signature"], "distchan");
});

/** A client in `work()` at a server that is a script; its handlers wait. */
Deno.test("hostile: who comes again and again with values fills no memory", async () => {
  const server = listen<number, Uint8Array>({
    port: 0,
    maxFrameBytes: 64 * 1024,
    maxInFlightBytes: 64 * 1024,
    maxBufferedBytes: 256 * 1024,
  });
  const { port } = server.addr;
  const come = async () => {
    const peer = await ScriptedPeer.connect(port);
    await peer.handshake();
    return peer;
  };
  const value = frame(T.VALUE, payload(new Uint8Array(60_000)));
  for (const _ of range(5)) {
    await using peer = await come();
    await peer.until(T.CREDIT);
    await peer.send(value);
    await peer.say(T.GOODBYE, 0, "");
    await peer.rest();
  }
  {
    await using peer = await come();
    await peer.send(value);
    const [reason] = (await peer.until(T.GOODBYE)).fields.slice(1);
    assertEquals(reason, "Cannot take VALUE: there is no credit for it");
  }
  // Who is honest waits until they are read.
  const { hostname } = server.addr;
  await using client = await connect<number, Uint8Array>({ hostname, port });
  const sent = client.send(new Uint8Array(1));
  await moment();
  assertEquals(server.stats().unread, 5);
  const sizes: number[] = [];
  for await (const { length } of server) {
    sizes.push(length);
    if (sizes.length === 6) break;
  }
  await sent;
  assertEquals(sizes, [60_000, 60_000, 60_000, 60_000, 60_000, 1]);
  await client.close();
  await server.close();
});

Deno.test("hostile: who comes again and again with tiny values fills no memory", async () => {
  await using server = listen<number, number>({ port: 0 });
  const { port } = server.addr;
  const values = frame(T.VALUE, ...range(4096).map(() => payload(0)));
  for (const _ of range(3)) {
    await using peer = await ScriptedPeer.connect(port);
    await peer.handshake();
    await peer.until(T.CREDIT);
    await peer.send(values);
    await peer.say(T.GOODBYE, 0, "");
    await peer.rest();
  }
  assertEquals(server.stats().unread, 3 * 4096);
  await using peer = await ScriptedPeer.connect(port);
  await peer.handshake();
  await peer.say(T.VALUE, payload(0));
  const [, reason] = (await peer.until(T.GOODBYE)).fields;
  assertEquals(reason, "Cannot take VALUE: there is no credit for it");
  await server.abort();
});

Deno.test("hostile: a reason is kept no longer than it may be on the wire", async () => {
  await using kit = await pool({ maxDeliveries: 2 });
  const long = "\0".repeat(3_000_000);
  const { port } = kit;
  {
    await using stranger = await ScriptedPeer.connect(port);
    await stranger.say(T.HELLO, long.slice(0, 4000));
    await stranger.rest();
  }
  await using peer = await ScriptedPeer.connect(port);
  await peer.handshake();
  await peer.say(T.GOODBYE, 2, long);
  await peer.rest();
  await until(
    () => kit.events.some(({ type }) => type === "disconnected"),
    "it is gone",
  );
  const reasons = kit.events.flatMap((event) =>
    "reason" in event ? [event.reason.length] : []
  );
  assertEquals(reasons, [1000, 1000]);
});

Deno.test("hostile: what a codec says of a value is kept no longer either", async () => {
  const long = "\0".repeat(500_000);
  const loud: Codec<unknown> = {
    name: "loud",
    encode: () => new Uint8Array(1),
    decode: () => {
      throw new Error(long);
    },
  };
  const entry = sequence(long, 1);
  const bad = concat([new Uint8Array([0xa2]), entry, entry]);
  for (const codec of [cbor(), loud]) {
    const reasons: string[] = [];
    await using server = listen({
      port: 0,
      codec,
      onEvent: (e) =>
        void (e.type === "disconnected" && reasons.push(e.reason)),
    });
    const { port } = server.addr as Deno.NetAddr;
    await using peer = await ScriptedPeer.connect(port);
    await peer.join("stream", { fields: { codec: codec.name } });
    await peer.say(T.VALUE, bad);
    await peer.until(T.GOODBYE);
    assertEquals(reasons.length, 1);
    assertLess(reasons[0]!.length, 1001);
  }
});

Deno.test("hostile: what a peer says to people does nothing on a terminal", async () => {
  const said = "a\x1b]0;b\x07\x9b2J\u202e\n";
  const shown = "a\ufffd]0;b\ufffd\ufffd2J\ufffd\n";
  await using kit = await pool();
  await using peer = await ScriptedPeer.connect(kit.port);
  await peer.handshake({ fields: { name: said } });
  await peer.say(T.GOODBYE, 2, said);
  await peer.rest();
  const gone = kit.events.find((event) => event.type === "disconnected");
  assertEquals([gone?.worker.name, gone?.reason], [shown, shown]);

  for (const isWelcome of [false, true]) {
    const [server, conn] = ScriptedPeer.pair();
    await using _ = server;
    const client = new Client(conn);
    if (isWelcome) await server.greet();
    await server.say(isWelcome ? T.GOODBYE : T.REJECT, 2, said);
    const error = await client.closed.catch((error) => error);
    assert(error.message.endsWith(shown), Deno.inspect(error.message));
  }
});

async function waitingClient() {
  const [peer, conn] = ScriptedPeer.pair();
  const client = new Client(conn);
  await peer.greet();
  const gate = new Gate();
  client.work(() => gate.pass()).catch(() => {});
  await peer.expect(T.CREDIT);
  return {
    client,
    peer,
    async [Symbol.asyncDispose]() {
      await client.abort();
      await peer[Symbol.asyncDispose]();
    },
  };
}

Deno.test("hostile: an item is answered once, however often a server cancels it", async () => {
  await using waiting = await waitingClient();
  const { peer } = waiting;
  const items = Array.from({ length: 4000 }, (_, i) => [i, payload(i)]).flat();
  await peer.say(T.ITEM, 1, 0, 0, ...items);
  const numbers = Array.from({ length: 3999 }, (_, i) => i + 1);
  for (let i = 0; i < 25; i++) await peer.say(T.CANCEL, ...numbers);
  await peer.say(T.PING, 7);
  let errors = 0;
  for (;;) {
    const { type } = (await peer.next())!;
    if (type === T.ERROR) errors++;
    if (type === T.PONG) break;
  }
  assertEquals(errors, 3999, "each is answered once");
});

Deno.test("hostile: a server that reads none of the answers is read no further", async () => {
  // Items that can't be decoded, and such as nobody waits for, are answered.
  const bad = new Uint8Array([0xff]);
  for (const isCancelled of [false, true]) {
    await using waiting = await waitingClient();
    const { peer } = waiting;
    let delivery = 0, sent = 0;
    const flood = (async () => {
      for (; sent < 40; sent++) {
        const first = delivery;
        const items: unknown[] = [];
        for (; delivery < first + 1000; delivery++) {
          items.push(delivery, isCancelled ? payload(delivery) : bad);
        }
        if (!await peer.say(T.ITEM, 1, 0, first, ...items)) return;
        if (!isCancelled) continue;
        const numbers = items.filter((_, i) => i % 2 === 0);
        if (!await peer.say(T.CANCEL, ...numbers)) return;
      }
    })();
    await still(() => sent, "nothing more is read");
    assertLess(sent, 40);
    await waiting.client.abort();
    await flood;
  }
});

Deno.test("hostile: items that are answered at once leave the event loop its turns", async () => {
  const [peer, conn] = ScriptedPeer.pair();
  let failed = 0, suspected = 0;
  const client = new Client(conn, {
    heartbeat: { intervalMs: 50, timeoutMs: 150, dropMs: 60_000 },
    onEvent: ({ type }) => {
      if (type === "failed") failed++;
      if (type === "suspect") suspected++;
    },
  });
  await peer.greet();
  const reading = client[Symbol.asyncIterator]().next().catch(() => {});
  await peer.expect(T.CREDIT);
  // None of them can be decoded.
  const frames = range(400).map((i) => {
    const ids = range(64).map((id) => [id, new Uint8Array([0xff])]);
    return frame(T.ITEM, 1, 0, i * 64, ...ids.flat());
  });
  let isOver = false, most = 0;
  const turns = (async () => {
    for (let before = 0; !isOver; before = failed) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      most = Math.max(most, failed - before);
    }
  })();
  await peer.send(...frames, frame(T.PING, 7));
  while ((await peer.next())?.type !== T.PONG);
  isOver = true;
  await turns;
  assertEquals(failed, 400 * 64);
  assertLess(most, failed / 10);
  assertEquals(suspected, 0, "what it has sent was here all the time");
  await client.abort();
  await reading;
  peer.close();
});
