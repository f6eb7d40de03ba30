/**
 * Liveness: what silence means, and who may take a silent worker's items
 * (design section 3, "Liveness").
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  Client,
  type Codec,
  ConnectionLostError,
  HandshakeError,
  ItemFailure,
  Server,
} from "../mod.ts";
import { Heartbeat } from "../internal/heartbeat.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { type MemoryConn, MemoryListener } from "./_support/memory_pair.ts";
import { frame, payload, ScriptedPeer, T } from "./_support/scripted_peer.ts";
import {
  answer,
  itemsOf,
  PATIENT,
  QUICK,
  scripted,
  takeItems,
} from "./_support/task_kit.ts";
import { Gate, moment, until, within } from "./_support/within.ts";
import { startWorker } from "./_support/worker_process.ts";

function block(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

Deno.test("Heartbeat asks with jitter, so that peers aren't asked all at once", () => {
  const options = { intervalMs: 100, timeoutMs: 300, dropMs: 1200 };
  for (const [random, at] of [[0, 80], [0.5, 90], [1, 100]] as const) {
    const heartbeat = new Heartbeat(options, random);
    assertEquals(heartbeat.judge(0, at - 1), "fine");
    assertEquals(heartbeat.judge(0, at), "ping");
    heartbeat.ping(at);
    assertEquals(heartbeat.judge(0, at + 1), "fine", "not asked twice");
    assertEquals(heartbeat.judge(0, at * 2), "ping", "asked again");
    assertEquals(heartbeat.judge(0, 300), "suspect");
    heartbeat.suspect = true;
    assertEquals(heartbeat.judge(0, 301), "ping");
    heartbeat.ping(301);
    assertEquals(heartbeat.judge(0, 1200), "drop");
    assertEquals(heartbeat.judge(1200, 1201), "fine", "it was heard");
  }
});

Deno.test("Heartbeat takes nobody for silent who wasn't asked", () => {
  const options = { intervalMs: 100, timeoutMs: 300, dropMs: 1200 };
  const heartbeat = new Heartbeat(options, 1);
  // This end stood still for an hour.
  assertEquals(heartbeat.judge(0, 3_600_000), "ping");
  heartbeat.ping(3_600_000);
  assertEquals(heartbeat.judge(0, 3_600_199), "ping");
  assertEquals(heartbeat.judge(0, 3_600_200), "suspect");
  heartbeat.suspect = true;
  assertEquals(heartbeat.judge(0, 3_601_100), "drop");
});

both("Any traffic counts as a sign of life", async (net) => {
  await using kit = new Kit<number, number>(net, { heartbeat: PATIENT });
  await using peer = await scripted(kit);
  peer.answersPings = false;
  for (let i = 0; i < 20; i++) {
    await moment(20);
    await peer.say(T.PONG, 999_999); // nobody asked: traffic all the same
  }
  assertEquals(kit.events.filter((e) => e.type === "suspect"), []);
  await kit.event("suspect"); // and without any it is
});

both(
  "A suspect's item goes to another, the first result wins, the copy is cancelled",
  async (net) => {
    await using kit = new Kit<string, string>(net, { heartbeat: PATIENT });
    const { server } = kit;
    await using silent = await scripted(kit, { name: "silent" });
    const result = server.submit("item");
    assertEquals(await takeItems(silent, 1), [
      { delivery: 0, id: 0, attempt: 1 },
    ]);
    const { worker, cause, ids } = await kit.event("redelivered");
    assertEquals([worker.name, cause, ids], ["silent", "suspect", [0]]);
    assertEquals(worker.state, "suspect");
    assertEquals(server.stats().pending, 1, "available to others");
    await kit.worker((item, { attempt }) => `${item} ${attempt}`);
    assertEquals(await result, "item 2");
    assertEquals((await silent.until(T.CANCEL)).fields, [0]);
    await answer(silent, 0, "late");
    assertEquals((await kit.event("duplicate")).id, 0);
    assertEquals((await kit.event("recovered")).worker.name, "silent");
    const { duplicates, settled, redelivered } = server.stats();
    assertEquals({ duplicates, settled, redelivered }, {
      duplicates: 1,
      settled: 1,
      redelivered: 1,
    });
  },
);

both("A suspect's late result wins when nobody else has one", async (net) => {
  await using kit = new Kit<string, string>(net, { heartbeat: PATIENT });
  await using silent = await scripted(kit, { name: "silent" });
  const result = kit.server.submit("item");
  await takeItems(silent, 1);
  await kit.event("suspect");
  let cancelled = false;
  const { client } = await kit.worker((_, { signal }) =>
    new Promise((_, reject) => {
      signal.addEventListener("abort", () => {
        cancelled = true;
        reject(signal.reason);
      });
    })
  );
  await until(
    () => kit.server.workers.some((w) => w.name === "" && w.inFlight === 1),
    "another has it",
  );
  await answer(silent, 0, "late");
  assertEquals(await result, "late");
  await until(() => cancelled, "the other copy is cancelled");
  assertEquals(kit.server.stats().duplicates, 0);
  assertEquals(kit.server.stats().failed, 0);
  await client.abort();
});

both(
  "A suspect gets no new items; heard again, it keeps what nobody took",
  async (net) => {
    await using kit = new Kit<number, number>(net, { heartbeat: PATIENT });
    const { server } = kit;
    await using peer = await scripted(kit);
    const results = [server.submit(10)];
    await takeItems(peer, 1);
    await kit.event("suspect");
    results.push(server.submit(11));
    await moment();
    assertEquals(server.stats().pending, 2);
    assertEquals(server.workers[0]!.inFlight, 1, "nothing new");
    await peer.say(T.PONG, 0);
    const recovered = await kit.event("recovered");
    assertEquals(recovered.worker.state, "active");
    // Not the first item again: it is still there.
    assertEquals(await takeItems(peer, 1), [{
      delivery: 1,
      id: 1,
      attempt: 1,
    }]);
    assertEquals(server.stats().pending, 0);
    await answer(peer, 0, 100);
    await answer(peer, 1, 110);
    assertEquals(await Promise.all(results), [100, 110]);
    assertEquals(server.stats().duplicates, 0);
  },
);

both(
  "A silent worker is dropped at dropMs, and the event says why",
  async (net) => {
    await using kit = new Kit<number, number>(net, { heartbeat: QUICK });
    await using silent = await scripted(kit, { name: "silent" });
    const result = kit.server.submit(1);
    await takeItems(silent, 1);
    const { code, reason, worker } = await kit.event("disconnected");
    assertEquals([code, worker.name], ["timeout", "silent"]);
    assert(/isolate.*dropMs/.test(reason), reason);
    // It reads that too, once it goes on.
    assertEquals((await silent.until(T.GOODBYE)).fields, [3, reason]);
    const types = kit.events.map((e) => e.type);
    assert(types.indexOf("suspect") < types.indexOf("disconnected"));
    await kit.worker((n) => n * 2);
    assertEquals(await result, 2);
  },
);

both(
  "An item whose trusted copy is lost is available again at once",
  async (net) => {
    await using kit = new Kit<number, number>(net, { heartbeat: PATIENT });
    await using silent = await scripted(kit, { name: "silent" });
    const result = kit.server.submit(1);
    await takeItems(silent, 1);
    await kit.event("suspect");
    const second = await scripted(kit, { name: "second" });
    await takeItems(second, 1);
    second.close(); // the copy is lost, and who has it else is silent
    await until(() => kit.server.stats().pending === 1, "it waits again");
    await kit.worker((n) => n * 2);
    assertEquals(await result, 2);
    await second[Symbol.asyncDispose]();
  },
);

both("Suspects are sent END, and not waited for", async (net) => {
  await using kit = new Kit<number, number>(net, { heartbeat: PATIENT });
  await using silent = await scripted(kit, { name: "silent" });
  const result = kit.server.submit(1);
  await takeItems(silent, 1);
  await kit.event("suspect");
  const other = await kit.worker((n) => n);
  await result;
  await within(kit.server.close(), 5000, "the server is closed");
  await other.done;
  await silent.until(T.END);
});

both(
  "A write that a worker doesn't read is a stall, however much it sends",
  async (net) => {
    await using kit = new Kit<Uint8Array, number>(net, {
      heartbeat: { intervalMs: 40, timeoutMs: 600, dropMs: 600 },
      onFailure: () => {},
    });
    await using peer = await scripted(kit, { name: "slow" });
    const big = new Uint8Array(3 * 1024 * 1024);
    for (let i = 0; i < 8; i++) kit.server.send(big);
    while (!kit.events.some((e) => e.type === "disconnected")) {
      await moment(20);
      await peer.say(T.PONG, 0);
    }
    const { code, reason } = await kit.event("disconnected");
    assertEquals(code, "timeout");
    assert(/nothing that was sent was read/.test(reason), reason);
    assertEquals(kit.events.filter((e) => e.type === "suspect"), []);
  },
);

both(
  "A frame that is begun must be finished, whatever trickles in",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      heartbeat: { intervalMs: 40, timeoutMs: 600, dropMs: 600 },
    });
    await using peer = await scripted(kit, { name: "half" });
    await peer.send(new Uint8Array([0, 0, 255, 0, T.RESULT]));
    while (!kit.events.some((e) => e.type === "disconnected")) {
      await moment(20);
      await peer.send(new Uint8Array(1));
    }
    const { code, reason } = await kit.event("disconnected");
    assertEquals(code, "timeout");
    assert(/begun and not finished/.test(reason), reason);
    assertEquals(kit.events.filter((e) => e.type === "suspect"), []);
  },
);

/** A frame comes so slowly that what was asked behind it isn't heard for long. */
async function asksBeside(peer: ScriptedPeer, type: number): Promise<void> {
  let isAsked = false;
  const asked = peer.until(T.PING, 3000).then(() => isAsked = true);
  await peer.send(new Uint8Array([0, 0, 255, 0, type]));
  const trickle = async () => {
    while (!isAsked && await peer.send(new Uint8Array(1))) await moment(5);
  };
  await Promise.race([asked, trickle()]);
  assert(isAsked, "it says that it is there");
}

both(
  "Who reads a long frame says something meanwhile, on both ends",
  async (net) => {
    const heartbeat = { intervalMs: 40, timeoutMs: 1000, dropMs: 10_000 };
    await using kit = new Kit<number, number>(net, { heartbeat });
    await using worker = await scripted(kit);
    worker.answersPings = false;
    await worker.until(T.PING); // right behind the handshake
    await asksBeside(worker, T.RESULT);

    const [server, conn] = ScriptedPeer.pair();
    await using client = new Client(conn, { heartbeat });
    await server.greet();
    await client.opened;
    server.answersPings = false;
    await asksBeside(server, T.ITEM);
    await client.abort();
    await server[Symbol.asyncDispose]();
  },
);

both("A handshake that stalls has a deadline, on both ends", async (net) => {
  await using kit = new Kit<number, number>(net, { handshakeTimeoutMs: 100 });
  await using peer = new ScriptedPeer(await kit.dial());
  assertEquals((await kit.event("rejected")).code, "timeout");
  await peer.until(T.REJECT);

  const [server, conn] = ScriptedPeer.pair();
  const client = new Client(conn, { handshakeTimeoutMs: 100 });
  const error = await assertRejects(() => client.opened, HandshakeError);
  assertEquals(error.code, "timeout");
  await server[Symbol.asyncDispose]();
});

both(
  "itemTimeoutMs: who takes a suspect's item has the whole time",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      heartbeat: PATIENT,
      itemTimeoutMs: 2000,
    });
    await using peer = await scripted(kit, { window: 1 });
    const result = kit.server.submit(1);
    await takeItems(peer, 1);
    peer.answersPings = false;
    await kit.event("suspect");
    await moment(1200);
    await kit.worker(async (n) => (await moment(1200), n), {
      client: { heartbeat: PATIENT },
    });
    assertEquals(await result, 1);
  },
);

both(
  "itemTimeoutMs runs at a suspect, as long as nobody else has its item",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      heartbeat: PATIENT,
      itemTimeoutMs: 400,
    });
    await using peer = await scripted(kit, { window: 1 });
    const result = kit.server.submit(1);
    await takeItems(peer, 1);
    peer.answersPings = false;
    await kit.event("suspect");
    const { error } = await assertRejects(() => result, ItemFailure);
    assertEquals(error.name, "ItemTimeoutError");
  },
);

Deno.test("The client judges the server in the same way", async () => {
  const events: string[] = [];
  const [server, conn] = ScriptedPeer.pair();
  await using peer = server;
  peer.answersPings = false;
  const client = new Client(conn, {
    heartbeat: QUICK,
    onEvent: (event) => events.push(event.type),
  });
  await peer.greet();
  await client.opened;
  await peer.until(T.PING); // the client asks
  await until(() => events.includes("suspect"), "the server is suspect");
  await peer.say(T.PING, 7);
  await until(() => events.includes("recovered"), "it was heard");
  const error = await assertRejects(() => client.closed, ConnectionLostError);
  assertEquals(error.code, "timeout");
  assertEquals(events, [
    "connected",
    "suspect",
    "recovered",
    "suspect",
    "disconnected",
  ]);
});

Deno.test("The client judges a server that never answers its goodbye", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using peer = server;
  const client = new Client(conn, { heartbeat: QUICK });
  await peer.greet();
  await client.opened;
  const closed = client.close();
  await peer.until(T.GOODBYE);
  const error = await assertRejects(
    () => within(closed, 5000, "it gives up"),
    ConnectionLostError,
  );
  assertEquals(error.code, "timeout");
});

Deno.test("A loop that was late reads first and judges after", async () => {
  const heartbeat = { intervalMs: 100, timeoutMs: 300, dropMs: 700 };
  await using kit = new Kit<number, number>("tcp", { heartbeat });
  const { port } = kit.server.addr as Deno.NetAddr;
  await using worker = startWorker({
    port,
    // It never asks by itself: the server's own loop has to be fair.
    heartbeat: { intervalMs: 60_000, timeoutMs: 60_000 },
  });
  await within(kit.active(1), 20_000, "the worker is there");
  for (let i = 0; i < 3; i++) {
    block(900); // longer than dropMs
    assertEquals(await kit.server.submit(i), i * 3 + 1);
    await moment(400);
  }
  const types = kit.events.map((e) => e.type);
  assertEquals(types, ["connected"]);
  await kit.server.close();
  assertEquals((await worker.exit).code, 0);
});

Deno.test("A standstill isn't the time that the rest of a frame takes, at either end", async () => {
  const heartbeat = { intervalMs: 100, timeoutMs: 300, dropMs: 700 };
  const standStill = async () => {
    await moment(); // what came is read
    block(900); // longer than dropMs
    await moment(); // it is judged
  };
  await using kit = new Kit<number, number>("memory", { heartbeat });
  await using worker = await scripted(kit);
  const result = kit.server.submit(1);
  result.catch(() => {});
  await takeItems(worker, 1);
  const answer = frame(T.RESULT, 0, payload(7));
  await worker.send(answer.subarray(0, 6));
  await standStill();
  await worker.send(answer.subarray(6));
  assertEquals(await within(result, 5000, "it is whole"), 7);

  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<number, number>(conn, { heartbeat });
  await server.greet();
  const item = client[Symbol.asyncIterator]().next();
  item.catch(() => {});
  await server.until(T.CREDIT);
  const items = frame(T.ITEM, 1, 0, 0, 0, payload(7));
  await server.send(items.subarray(0, 6));
  await standStill();
  await server.send(items.subarray(6));
  assertEquals((await item).value, 7);
  await client.abort();
});

Deno.test("A loop that is late at every tick judges all the same", async () => {
  await using kit = new Kit<number, number>("tcp", { heartbeat: QUICK });
  await using silent = await scripted(kit);
  kit.server.submit(1).catch(() => {});
  await takeItems(silent, 1);
  const deadline = performance.now() + 15_000;
  while (!kit.events.some((e) => e.type === "disconnected")) {
    assert(performance.now() < deadline, "never judged");
    block(150);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  assertEquals((await kit.event("disconnected")).code, "timeout");
});

Deno.test("A handler that blocks its loop for three timeouts loses nothing and runs once", async () => {
  await using kit = new Kit<unknown, number>("tcp", {
    heartbeat: { intervalMs: 100, timeoutMs: 300, dropMs: 30_000 },
  });
  const { server } = kit;
  const { port } = server.addr as Deno.NetAddr;
  await using worker = startWorker({
    port,
    heartbeat: { intervalMs: 100, timeoutMs: 300, dropMs: 30_000 },
  });
  await within(kit.active(1), 20_000, "the worker is there");
  const results = await Promise.all([
    server.submit({ n: 1, act: "block", ms: 900 }),
    server.submit(2),
    server.submit({ n: 3, act: "block", ms: 900 }),
    server.submit(4),
  ]);
  assertEquals(results, [4, 7, 10, 13]);
  await until(
    () => kit.events.some((e) => e.type === "recovered"),
    "it is heard",
  );
  const { duplicates, settled } = server.stats();
  assertEquals({ duplicates, settled }, { duplicates: 0, settled: 4 });
  assert(kit.events.some((e) => e.type === "suspect"));
  assert(!kit.events.some((e) => e.type === "disconnected"));
  await server.close();
  const { code } = await worker.exit;
  assertEquals(code, 0);
});

Deno.test("itemsOf() of the support reads a frame of several items", () => {
  assertEquals(itemsOf([1, 0, 5, 7, "a", 8, "b"]), [
    { delivery: 5, id: 7, attempt: 1 },
    { delivery: 6, id: 8, attempt: 1 },
  ]);
});

Deno.test("A suspect that wakes up after the end is done: it doesn't reconnect", async () => {
  await using kit = new Kit<unknown, number>("tcp", { heartbeat: PATIENT });
  const { server } = kit;
  const { port } = server.addr as Deno.NetAddr;
  await using sleeper = startWorker({ port });
  await within(kit.active(1), 20_000, "the worker is there");
  const result = server.submit({ n: 1, act: "block", ms: 1500, upTo: 1 });
  await kit.event("suspect");
  await kit.worker(() => 4);
  assertEquals(await result, 4);
  await within(server.close(), 5000, "the server doesn't wait for it");
  assertEquals((await within(sleeper.exit, 10_000, "it ends")).code, 0);
});

both(
  "A worker that never lets go of what was cancelled holds up nobody else's items",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      heartbeat: { ...QUICK, dropMs: 60_000 },
    });
    const { server } = kit;
    let letGo = () => {};
    const stubborn = await kit.worker(
      (n) => n > 0 ? n : new Promise((resolve) => letGo = () => resolve(-1)),
      { client: { name: "stubborn", prefetch: 20 } },
    );
    const results = range(10).map((n) =>
      server.submit(n, n === 0 ? { timeoutMs: 50 } : {})
    );
    await assertRejects(() => results[0]!, ItemFailure, "50 ms");
    await kit.event("suspect");
    // Nobody else is there yet, and it isn't given more.
    await until(() => server.stats().pending > 0, "the others wait");
    await kit.worker((n) => n * 2);
    assertEquals(
      await Promise.all(results.slice(1)),
      range(10).slice(1).map((n) => n * 2),
    );
    assertEquals(server.workers[0]!.state, "suspect");
    letGo();
    await kit.event("recovered");
    assertEquals(server.stats().failed, 1);
    stubborn.client.abort();
  },
);

both(
  "A handler that never lets go doesn't hold up the end, whatever the concurrency",
  async (net) => {
    for (const [concurrency, prefetch] of [[4, 20], [4, 2], [1, 1]] as const) {
      await using kit = new Kit<number, number>(net, {
        heartbeat: { ...QUICK, dropMs: 60_000 },
        itemTimeoutMs: 50,
        onFailure: () => {},
      });
      const { server } = kit;
      const { client } = await kit.worker(
        (n) => n > 0 ? n : new Promise(() => {}),
        { concurrency, client: { prefetch } },
      );
      // With one slot, what is behind it would wait for another worker.
      for (const n of range(Math.min(2, concurrency))) server.send(n);
      server.end();
      const results = await within(Array.fromAsync(server), 5000, "the end");
      assertEquals(results, concurrency === 1 ? [] : [1]);
      await within(server.closed, 5000, "closed resolves");
      await client.abort();
    }
  },
);

both(
  "A suspect with values under way isn't told that they have arrived",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      heartbeat: { intervalMs: 40, timeoutMs: 200, dropMs: 60_000 },
    });
    await using peer = await scripted(kit, { name: "away", mode: "stream" });
    peer.answersPings = false;
    await kit.event("suspect");
    await kit.server.end();
    const { fields } = await peer.until(T.GOODBYE);
    assertEquals(fields[0], 3, "timeout");
    assertEquals((await kit.event("disconnected")).code, "timeout");
    await kit.server.closed;
  },
);

both(
  "close() resolves once all is settled, though a suspect's socket lingers",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      heartbeat: { intervalMs: 40, timeoutMs: 120, dropMs: 60_000 },
    });
    await using peer = await scripted(kit, { name: "away" });
    peer.answersPings = false;
    await kit.event("suspect");
    // It doesn't close its end: this one waits for that for a second.
    await kit.server.close({ drainMs: 300 });
  },
);

both(
  "A server's own pause isn't taken off the time of its items",
  async (net) => {
    await using kit = new Kit<number, number>(net, { itemTimeoutMs: 1000 });
    await using peer = await scripted(kit, { name: "slow" });
    const result = kit.server.submit(1);
    await peer.until(T.ITEM);
    await until(() => kit.server.workers[0]!.inFlight === 1, "it is there");
    await moment(300); // its time runs
    block(1500);
    // Its result comes a little after the pause, as if it had been on its way.
    await moment(100);
    await peer.say(T.RESULT, 0, payload(2));
    assertEquals(await result, 2);
  },
);

Deno.test("A standstill takes no time from a handshake, at either end", async () => {
  const handshakeTimeoutMs = 400;
  await using kit = new Kit("memory", { handshakeTimeoutMs });
  await using worker = new ScriptedPeer(await kit.dial());
  await moment(0); // it is accepted
  block(700);
  await moment(); // it is judged
  await worker.handshake();

  const [server, conn] = ScriptedPeer.pair();
  const client = new Client(conn, { handshakeTimeoutMs });
  block(700);
  await moment();
  await server.greet();
  await client.opened;
  await client.abort();
  await server[Symbol.asyncDispose]();
});

both(
  "A standstill gives no time to who is accepted after it",
  async (net) => {
    await using kit = new Kit(net, { handshakeTimeoutMs: 200 });
    await kit.client(); // deadlines are looked after
    await moment();
    const dialed = kit.dial();
    block(2000);
    using _silent = await dialed;
    const acceptedAt = performance.now();
    await kit.event("rejected");
    const ms = performance.now() - acceptedAt;
    assert(ms < 1900, `${ms} ms for a handshake of 200 ms`);
  },
);

/**
 * A worker that was busy while a server ended: `begun` tells that it has an
 * item, `goOn` lets it read on and answer, when nothing can be written any more.
 */
async function standing() {
  const [server, conn] = ScriptedPeer.pair();
  const begun = Promise.withResolvers<void>();
  const going = Promise.withResolvers<void>();
  const { read, write } = conn;
  let isGone = false;
  conn.read = async (bytes) => {
    const count = await read.call(conn, bytes);
    if (isGone) await going.promise;
    return count;
  };
  conn.write = (bytes) =>
    isGone
      ? Promise.reject(new Deno.errors.BrokenPipe("Broken pipe"))
      : write.call(conn, bytes);
  const client = new Client<number, number>(conn);
  const done = client.work(async (n) => {
    isGone = true;
    begun.resolve();
    await going.promise;
    return n;
  });
  done.catch(() => {});
  await server.greet();
  await server.until(T.CREDIT);
  await server.say(T.ITEM, 1, 1, 0, 0, payload(1));
  await begun.promise;
  return { server, client, done, goOn: going.resolve };
}

Deno.test("What a server said before it was gone is read, though nothing can be written", async () => {
  const { server, client, done, goOn } = await standing();
  await server.say(T.END);
  await server.say(T.GOODBYE, 0, "the server has finished");
  await server[Symbol.asyncDispose]();
  goOn();
  await within(done, 5000, "it has ended");
  await client.closed;
});

Deno.test("A worker that can't answer, and whose server said no goodbye, is lost", async () => {
  for (const isClosed of [true, false]) {
    const { server, client, done, goOn } = await standing();
    if (isClosed) await server[Symbol.asyncDispose]();
    goOn();
    const error = await assertRejects(
      () => within(done, 5000, "it has ended"),
      ConnectionLostError,
    );
    // Which of the two tells first is as it comes.
    if (!isClosed) assertEquals(error.reason, "Broken pipe");
    await assertRejects(() => client.closed, ConnectionLostError);
    await server[Symbol.asyncDispose]();
  }
});

Deno.test("A worker that can't answer any more begins no other items", async () => {
  const [server, conn] = ScriptedPeer.pair();
  const gates = [new Gate(), new Gate(), new Gate()];
  const client = new Client<number, void>(conn);
  const done = client.work((n) => gates[n]!.pass());
  await server.greet();
  await server.until(T.CREDIT);
  for (const n of [0, 1, 2]) await server.say(T.ITEM, 1, 1, n, n, payload(n));
  await until(() => gates[0]!.passing > 0, "the first is begun");
  conn.write = () => Promise.reject(new Deno.errors.BrokenPipe("Broken pipe"));
  gates[0]!.open(); // its answer will fail, which nobody knows yet
  await until(() => gates[1]!.passing > 0, "the second is begun");
  await moment(0);
  gates[1]!.open();
  await moment(0);
  assertEquals(gates[2]!.passing, 0);
  await server[Symbol.asyncDispose]();
  await assertRejects(() => done, ConnectionLostError);
});

Deno.test("abort() of an end that can't write any more waits for nobody", async () => {
  for (const role of ["client", "server"]) {
    const [peer, conn] = ScriptedPeer.pair();
    const { promise: isBroken, resolve } = Promise.withResolvers<void>();
    const breaks = () => {
      conn.write = () => {
        resolve();
        return Promise.reject(new Deno.errors.BrokenPipe("Broken pipe"));
      };
      return peer.say(T.PING, 1);
    };
    let end: Client | Server;
    if (role === "client") {
      end = new Client(conn);
      await peer.greet();
    } else {
      const listener = new MemoryListener();
      const { accept } = listener;
      listener.accept = () => {
        listener.accept = accept;
        return Promise.resolve(conn as MemoryConn);
      };
      end = new Server(listener);
      await peer.handshake();
    }
    await breaks();
    await isBroken;
    await moment(0);
    let hasEnded = false;
    end.closed.catch(() => hasEnded = true);
    const aborted = end.abort();
    await moment(0);
    assert(hasEnded, role);
    await aborted;
    await peer[Symbol.asyncDispose]();
  }
});

Deno.test("maxInFlightBytes: a suspect has all of it again, whatever size the codec made of the copy", async () => {
  let size = 900;
  const codec = {
    name: "cbor",
    encode: () => new Uint8Array(size),
    decode: ({ length }: Uint8Array) => length,
  };
  await using kit = new Kit<number, number>("memory", {
    codec: codec as Codec<unknown>,
    maxFrameBytes: 1024,
    maxInFlightBytes: 1024,
    heartbeat: PATIENT,
  });
  const { server } = kit;
  const suspect = await scripted(kit);
  const first = server.submit(1);
  await takeItems(suspect, 1);
  await kit.event("suspect");
  size = 1;
  const other = await scripted(kit);
  await takeItems(other, 1);
  await answer(other, 0, 1);
  await first;
  await other.say(T.GOODBYE, 0, "");
  await suspect.say(T.ERROR, 0, "Error", "cancelled", null, null);
  await until(() => server.workers.length === 1 && kit.actives === 1, "one");
  size = 100;
  const rest = range(20).map((n) => server.submit(n).catch(() => {}));
  assertEquals(server.workers.map(({ inFlight }) => inFlight), [10]);
  await server.abort();
  await Promise.all(rest);
  suspect.close();
  other.close();
});
