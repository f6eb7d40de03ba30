/**
 * "When things go wrong" of README.md: a test for each row of its table, named
 * as the row is. Processes are real where the row is about one.
 */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  type ClientEvent,
  connect,
  ConnectionLostError,
  DrainTimeoutError,
  EncodeError,
  HandshakeError,
  ItemFailure,
  ItemTimeoutError,
  listen,
  PoisonItemError,
  RemoteError,
  Server,
  type ServerEvent,
  type ServerOptions,
  type Transform,
  work,
} from "../mod.ts";
import { Authority } from "./_support/certificates.ts";
import { range } from "./_support/channel_kit.ts";
import { Folder } from "./_support/folder.ts";
import { MemoryListener } from "./_support/memory_pair.ts";
import type { Process } from "./_support/process.ts";
import { ScriptedPeer, T } from "./_support/scripted_peer.ts";
import { TcpProxy } from "./_support/tcp_proxy.ts";
import { until, within } from "./_support/within.ts";
import { startWorker } from "./_support/worker_process.ts";

const QUICK = { intervalMs: 50, timeoutMs: 150, dropMs: 450 };
const PATIENT = { intervalMs: 50, timeoutMs: 150, dropMs: 60_000 };

const tested: string[] = [];

/** A test of one row. */
function fault(row: string, body: () => Promise<void>): void {
  tested.push(row);
  Deno.test(`When things go wrong: ${row}`, () => within(body(), 60_000, row));
}

type Item = unknown;

/** A server that remembers what it told. */
function serve(options: ServerOptions<Item, number> = {}): {
  server: Server<Item, number>;
  port: number;
  events: ServerEvent<Item>[];
  told<T extends ServerEvent["type"]>(
    type: T,
  ): Promise<Extract<ServerEvent<Item>, { type: T }>>;
} {
  const events: ServerEvent<Item>[] = [];
  const server = listen<Item, number>({
    port: 0,
    ...options,
    onEvent: (event) => events.push(event),
  });
  const { port } = server.addr as Deno.NetAddr;
  return {
    server,
    port,
    events,
    told: async (type) => {
      const find = () => events.find((event) => event.type === type);
      await until(() => find() !== undefined, `event "${type}"`, 20_000);
      return find() as never;
    },
  };
}

/** Waits until a process tells an event. */
async function hears(
  process: Process,
  type: ClientEvent["type"],
): Promise<void> {
  await process.stdout.line(new RegExp(`"type":"${type}"`));
}

fault("a worker's process dies", async () => {
  const { server, port, events, told } = serve();
  await using doomed = startWorker({ port, name: "doomed", prefetch: 1 });
  await server.ready();
  const results = range(20).map((n) =>
    server.submit(n === 3 ? { n, act: "block", ms: 60_000 } : n)
  );
  results.forEach((result) => result.catch(() => {}));
  await results[2];
  doomed.signal("SIGKILL");
  const gone = await told("disconnected");
  assert(["eof", "reset"].includes(gone.code), gone.code);
  const back = await told("redelivered");
  assertEquals(back.worker.name, "doomed");
  assertEquals(back.cause, "lost");
  assertEquals(back.ids, [3]);
  const types = events.map((e) => e.type);
  assert(types.indexOf("disconnected") < types.indexOf("redelivered"));
  const helper = work<Item, number>(
    { port },
    (item) =>
      (typeof item === "number" ? item : (item as { n: number }).n) * 3 + 1,
  );
  assertEquals(await Promise.all(results), range(20).map((n) => n * 3 + 1));
  await server.close();
  await helper;
});

fault("a thread of `spawn()` crashes, or is dropped", async () => {
  const { server, told } = serve();
  const handler = `export default (n, { attempt }) => {
    if (n !== 3 || attempt > 1) return n * 3 + 1;
    Promise.reject(new RangeError("nobody catches this"));
    return new Promise(() => {});
  };`;
  server.spawn(
    new URL("data:text/javascript," + encodeURIComponent(handler)),
    { count: 1 },
  );
  const results = range(20).map((n) => server.submit(n));
  assertEquals(await Promise.all(results), range(20).map((n) => n * 3 + 1));
  const { name, error } = await told("crashed");
  assertEquals(
    [name, error.name, error.message],
    ["local-1", "RangeError", "nobody catches this"],
  );
  assertEquals((await told("redelivered")).cause, "lost");
  await server.close();
});

fault("an item kills every worker that takes it", async () => {
  const { server, port, told } = serve();
  const failed = assertRejects(
    () => server.submit({ n: 1, act: "exit" }),
    ItemFailure,
  );
  const workers: Process[] = [];
  try {
    for (const name of ["one", "two", "three"]) {
      const worker = startWorker({ port, name });
      workers.push(worker);
      assertEquals((await worker.exit).code, 3);
    }
    const { error } = await failed;
    assert(error instanceof PoisonItemError);
    assertEquals(error.attempts.map((a) => a.worker), ["one", "two", "three"]);
    assertEquals((await told("failed")).failure.error, error);
    await server.close();
  } finally {
    for (const worker of workers) await worker[Symbol.asyncDispose]();
  }
});

fault("a handler throws", async () => {
  const { server, port } = serve();
  await using worker = startWorker({ port });
  const { error } = await assertRejects(
    () => server.submit({ n: 5, act: "throw" }),
    ItemFailure,
  );
  assert(error instanceof RemoteError);
  assertEquals([error.name, error.message], ["RangeError", "Cannot do 5"]);
  const cause = error.cause as Error;
  assertEquals([cause.name, cause.message], ["TypeError", "because"]);
  assertEquals(await server.submit(6), 19, "the worker goes on");
  await server.close();
  assertEquals((await worker.exit).code, 0);

  const again = serve({ retry: { attempts: 3, backoffMs: 1 } });
  await using second = startWorker({ port: again.port });
  const result = again.server.submit({ n: 5, act: "throw", upTo: 2 });
  assertEquals(await result, 16);
  assertEquals(
    again.events.filter((e) => e.type === "retry").map((e) => e.error.message),
    ["Cannot do 5", "Cannot do 5"],
  );
  await again.server.close();
  await second.exit;
});

fault("a handler takes too long", async () => {
  const { server, port } = serve({ itemTimeoutMs: 1000 });
  await using worker = startWorker({ port });
  await server.ready();
  const { error } = await assertRejects(
    () => server.submit({ n: 1, act: "hang" }),
    ItemFailure,
  );
  assert(error instanceof ItemTimeoutError);
  assertEquals(error.timeoutMs, 1000);
  const own = await assertRejects(
    () => server.submit({ n: 1, act: "hang" }, { timeoutMs: 50 }),
    ItemFailure,
  );
  assert(own.error instanceof ItemTimeoutError);
  assertEquals(own.error.timeoutMs, 50);
  // The handler's signal aborted, or there would be no room for this.
  assertEquals(await server.submit(2), 7);
  await server.close();
  await worker.exit;
});

fault("a handler blocks its event loop", async () => {
  const { server, port, events, told } = serve({ heartbeat: PATIENT });
  await using folder = await Folder.make();
  await using blocked = startWorker({ port, name: "blocked" });
  await server.ready();
  const block = { n: 1, act: "block", ms: 60_000, upTo: 1 };
  const until = `${folder.path}/other`; // has done it
  const result = server.submit({ ...block, until });
  assertEquals((await told("suspect")).worker.name, "blocked");
  await using other = startWorker({ port, name: "other" });
  assertEquals(await result, 4);
  await folder.write("other", "");
  await told("recovered");
  await told("duplicate");
  const { redelivered, duplicates, settled } = server.stats();
  assertEquals({ redelivered, duplicates, settled }, {
    redelivered: 1,
    duplicates: 1,
    settled: 1,
  });
  assert(!events.some((e) => e.type === "disconnected"));
  await server.close();
  assertEquals((await blocked.exit).code, 0);
  assertEquals((await other.exit).code, 0);

  const short = serve({ heartbeat: QUICK });
  await using lost = startWorker({ port: short.port });
  const late = short.server.submit(block);
  const { code, reason } = await short.told("disconnected");
  assertEquals(code, "timeout");
  assert(reason.includes("dropMs"), reason);
  await using next = startWorker({ port: short.port });
  assertEquals(await late, 4);
  await short.server.close();
  lost.signal("SIGKILL");
  await next.exit;
});

fault("a machine or a network goes silent", async () => {
  const { server, port, events, told } = serve({ heartbeat: QUICK });
  await using silent = startWorker({ port, name: "silent" });
  await server.ready();
  const result = server.submit({ n: 1, act: "hang", upTo: 1 });
  await until(() => server.stats().inFlight === 1, "it is there");
  silent.signal("SIGSTOP");
  await told("suspect");
  const { code, worker } = await told("disconnected");
  assertEquals([code, worker.name], ["timeout", "silent"]);
  const types = events.map((e) => e.type);
  assert(types.indexOf("suspect") < types.indexOf("disconnected"));
  await using other = startWorker({ port });
  assertEquals(await result, 4);
  await server.close();
  await other.exit;
  silent.signal("SIGKILL");
});

fault("the network is cut and comes back", async () => {
  const { server, port, told } = serve();
  await using proxy = new TcpProxy(port);
  await using worker = startWorker({
    port: proxy.port,
    reconnect: { minDelayMs: 5, maxDelayMs: 50 },
  }, { tell: true });
  await hears(worker, "connected");
  const result = server.submit({ n: 1, act: "hang", upTo: 1 });
  await until(() => server.stats().inFlight === 1, "it is there");
  proxy.refuse(true);
  proxy.cut();
  await told("redelivered");
  await hears(worker, "reconnecting");
  proxy.refuse(false);
  await hears(worker, "connected");
  assertEquals(await result, 4);
  await server.close();
  assertEquals((await worker.exit).code, 0);
});

fault("the server dies", async () => {
  const first = serve();
  const { port } = first;
  await using worker = startWorker({
    port,
    reconnect: { minDelayMs: 5, maxDelayMs: 50 },
  }, { tell: true });
  await hears(worker, "connected");
  const client = await connect<Item, number>({ port });
  const reading = assertRejects(
    () => client[Symbol.asyncIterator]().next(),
    ConnectionLostError,
  );
  const failed = assertRejects(() => first.server.submit(1), Error, "crash");
  const dead = first.server.abort(new Error("crash"));
  await failed;
  await dead;
  await reading;
  const lost = await assertRejects(() => client.closed, ConnectionLostError);
  assertEquals([lost.code, lost.reason], ["aborted", "crash"]);
  await hears(worker, "reconnecting");
  const second = listen<Item, number>({ port });
  await hears(worker, "connected");
  assertEquals(await second.submit(2), 7, "what the first had is gone");
  await second.close();
  assertEquals((await worker.exit).code, 0);
});

fault("a handler never lets go of a cancelled item", async () => {
  const { server, port, told } = serve({
    heartbeat: { intervalMs: 50, timeoutMs: 300, dropMs: 60_000 },
  });
  await using stubborn = startWorker({ port, name: "stubborn", prefetch: 20 });
  await server.ready();
  const cancel = new AbortController();
  const { signal } = cancel;
  const results = range(10).map((n) =>
    n === 0 ? server.submit({ n, act: "ignore" }, { signal }) : server.submit(n)
  );
  results[0]!.catch(() => {});
  await stubborn.stdout.line(/^ignoring$/); // one that isn't begun is let go of
  cancel.abort();
  await assertRejects(() => results[0]!, DOMException);
  assertEquals((await told("suspect")).worker.name, "stubborn");
  const helper = work<Item, number>({ port }, (n) => n as number * 3 + 1);
  assertEquals(
    await Promise.all(results.slice(1)),
    range(10).slice(1).map((n) => n * 3 + 1),
  );
  await server.close(); // nobody waits for it
  await helper;
  stubborn.signal("SIGKILL");
});

fault("a worker with another signature, codec, secret", async () => {
  const { server, port, events } = serve({ secret: "right" });
  const odd = {
    name: "odd",
    encode: () => new Uint8Array(),
    decode: () => 0,
  };
  const options = { port, secret: "right", reconnect: { minDelayMs: 1 } };
  for (
    const [code, option, named] of [
      ["signature", { signature: "other" }, [`"other"`, `"distchan"`]],
      ["codec", { codec: odd }, [`"odd"`, `"cbor"`]],
      ["auth", { secret: "wrong" }, ["secret"]],
    ] as const
  ) {
    const error = await assertRejects(
      () => work<Item, number>({ ...options, ...option }, () => 0),
      HandshakeError,
    );
    assertEquals(error.code, code);
    for (const name of named) assert(error.message.includes(name));
  }
  const rejected = events.filter((e) => e.type === "rejected");
  assertEquals(
    rejected.map((e) => e.code),
    ["signature", "codec", "auth", "auth"],
  );
  await server.close();
});

fault("a certificate that the worker doesn't trust", async () => {
  const { cert, key } = await (await Authority.create("unknown")).issue();
  const rejected: string[] = [];
  await using server = listen<Item, number>({
    port: 0,
    cert,
    key,
    onEvent: (e) => e.type === "rejected" && rejected.push(e.code),
  });
  const { port } = server.addr;
  const error = await assertRejects(
    () =>
      work<Item, number>(
        { port, tls: true, reconnect: { minDelayMs: 1 } },
        () => 0,
      ),
    HandshakeError,
  );
  assertEquals(error.code, "auth");
  await until(() => rejected.length === 2, "the server tells of both tries");
});

fault("one end speaks TLS, the other doesn't", async () => {
  const { cert, key } = await (await Authority.create("tests")).issue();
  const ends = [
    [{ cert, key }, {}, "seems to speak TLS"],
    [{}, { tls: true }, "TLS: "],
  ] as const;
  for (const [serverOptions, clientOptions, reason] of ends) {
    const rejected: string[] = [];
    const server = listen<Item, number>({
      port: 0,
      ...serverOptions,
      onEvent: (e) => e.type === "rejected" && rejected.push(e.code),
    });
    const tries: Error[] = [];
    const controller = new AbortController();
    const working = work<Item, number>(
      {
        port: server.addr.port,
        ...clientOptions,
        reconnect: { minDelayMs: 1, maxDelayMs: 5 },
        onEvent: (e) => e.type === "reconnecting" && tries.push(e.error),
      },
      () => 0,
      { signal: controller.signal },
    );
    await until(() => tries.length > 3, "it tries on and on");
    assert(tries.every((e) => e instanceof HandshakeError));
    assertStringIncludes(tries[0]!.message, reason);
    await until(() => rejected.length > 0, "the server tells it as well");
    controller.abort();
    await working;
    await server.close();
  }
});

fault("a transform fails on a connection", async () => {
  const picky: Transform = {
    name: "picky",
    open: ({ role }) => ({
      encode: (bytes) => bytes,
      decode: (bytes) => {
        if (role === "client" && bytes.length > 1000) throw new Error("no");
        return bytes;
      },
    }),
  };
  const transforms = [picky];
  const { server, port, told } = serve({ transforms });
  const failed = assertRejects(
    () => server.submit("x".repeat(2000)),
    ConnectionLostError,
  );
  const events: string[] = [];
  const error = await assertRejects(
    () =>
      work<Item, number>({
        port,
        transforms,
        reconnect: { minDelayMs: 1 },
        onEvent: ({ type }) => events.push(type),
      }, () => 0),
    ConnectionLostError,
  );
  assertEquals(error.code, "transforms");
  assertEquals(events, ["connected", "disconnected"], "the same would fail");
  assertEquals((await told("disconnected")).code, "transforms");
  assertEquals((await told("redelivered")).ids, [0]);
  await server.abort(error);
  await failed;
});

fault("a port scan, garbage, a hostile peer", async () => {
  const { server, port, events, told } = serve({ handshakeTimeoutMs: 1000 });
  const worker = work<Item, number>({ port, name: "good" }, (n) => Number(n));
  await server.ready();
  const dial = () => Deno.connect({ hostname: "127.0.0.1", port });
  (await dial()).close(); // a port scan
  await using mute = new ScriptedPeer(await dial());
  await using noise = new ScriptedPeer(await dial());
  await noise.send(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  await noise.rest();
  await mute.rest();
  const rejected = events.filter((e) => e.type === "rejected");
  assertEquals(
    new Set(rejected.map((e) => e.code)),
    new Set(["protocol", "timeout"]),
  );
  await using hostile = await ScriptedPeer.connect(port);
  await hostile.handshake();
  await hostile.say(T.DONE, 999);
  const { code } = await told("disconnected");
  assertEquals(code, "protocol");
  const goodbye = await hostile.until(T.GOODBYE);
  assertEquals(goodbye.fields[0], 2);
  assertEquals(await server.submit(5), 5, "nothing else happened");
  await server.close();
  await worker;
});

fault("a value that can't be encoded", async () => {
  const failures: ItemFailure[] = [];
  const { server, port, told } = serve({
    onFailure: (failure) => failures.push(failure),
  });
  const worker = work<Item, number>({ port }, () => 1);
  await server.ready();
  const item = { jobs: [0, 1, 2, { fn() {} }] };
  const { error, attempts } = await assertRejects(
    () => server.submit(item),
    ItemFailure,
  );
  assert(error instanceof EncodeError);
  assertEquals([error.path, attempts], ["$.jobs[3].fn", 0]);
  server.send(item);
  server.send("fine");
  server.end();
  assertEquals(await Array.fromAsync(server), [1]);
  assertEquals((failures[0]!.error as EncodeError).path, "$.jobs[3].fn");
  await told("failed");
  await worker;
});

fault("no worker is there", async () => {
  const { server, port, told } = serve();
  const result = server.submit(1);
  const { reason, waiting } = await told("stalled");
  assertEquals([reason, waiting], ["no-workers", 1]);
  const worker = work<Item, number>({ port }, (n) => Number(n) + 1);
  assertEquals(await result, 2);
  await server.close();
  await worker;
});

fault("nobody reads the results", async () => {
  const { server, port, told } = serve();
  const worker = work<Item, number>({ port }, (n) => Number(n));
  const stalled = told("stalled");
  let blocked: Promise<void> | undefined, sent = 0;
  while (sent < 20_000) {
    const wait = server.send(sent++);
    if (wait === undefined) continue;
    blocked = wait;
    if (await Promise.race([wait.then(() => false), stalled])) break;
  }
  assertEquals((await stalled).reason, "results-unread");
  assert(server.stats().unread <= 4096);
  const reading = (async () => {
    let count = 0;
    for await (const n of server) assertEquals(n, count++);
    return count;
  })();
  await blocked;
  server.end();
  assertEquals(await reading, sent);
  assert(sent >= 4096);
  await worker;
});

fault("`accept()` fails for a moment", async () => {
  const listener = new MemoryListener();
  const errors: Error[] = [];
  const server = new Server<Item, number>(listener, {
    onEvent: (e) => {
      if (e.type === "accept-error") errors.push(e.error);
    },
  });
  for (let i = 0; i < 3; i++) {
    listener.failAccept(new Error("Too many open files"));
    await until(() => errors.length === i + 1, "it is told");
    await new Promise((resolve) => setTimeout(resolve, 10 * 2 ** i));
  }
  await using peer = new ScriptedPeer(listener.connect());
  await peer.handshake();
  await server.ready();
  await server.abort();
});

fault("the end takes too long", async () => {
  const { server, port } = serve();
  await using worker = startWorker({ port });
  await server.ready();
  server.submit({ n: 1, act: "hang" }).catch(() => {});
  server.submit(2).catch(() => {});
  await until(() => server.stats().inFlight >= 1, "it is executed");
  const error = await assertRejects(
    () => server.close({ drainMs: 200 }),
    DrainTimeoutError,
  );
  assertEquals(error.unfinished.map(({ id }) => id), [0, 1]);
  assertEquals(error.unfinished[1]!.item, 2);
  await assertRejects(() => server.closed, DrainTimeoutError);
  worker.signal("SIGTERM");
});

Deno.test("When things go wrong: each row of README.md has its test", async () => {
  const readme = await Deno.readTextFile(
    new URL("../README.md", import.meta.url),
  );
  const section = readme.split("## When things go wrong")[1]!.split(
    "\n## ",
  )[0]!;
  const rows = section.split("\n").filter((line) => line.startsWith("| "))
    .slice(2) // its head
    .map((line) => line.split("|")[1]!.trim());
  assert(rows.length > 10);
  assertEquals(tested, rows);
});
