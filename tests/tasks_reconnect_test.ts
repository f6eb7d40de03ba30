/**
 * The function `work()` reconnects, and knows when to stop (design section 3,
 * "Ending").
 */
import { assert, assertEquals } from "@std/assert";
import {
  type ClientEvent,
  type ConnectOptions,
  listen,
  type Server,
  work,
} from "../mod.ts";
import { range } from "./_support/channel_kit.ts";
import { TcpProxy } from "./_support/tcp_proxy.ts";
import { Gate, moment, until, within } from "./_support/within.ts";

const FAST = { minDelayMs: 2, maxDelayMs: 20 };

/** A test with a deadline. */
function test(name: string, body: () => Promise<void>): void {
  Deno.test(name, () => within(body(), 20_000, name));
}

function portOf(server: Server<never, never> | Server): number {
  return (server.addr as Deno.NetAddr).port;
}

/** A worker, and everything that it told. */
function start(
  options: ConnectOptions,
  handler: (n: number) => number | Promise<number> = (n) => n * 2,
  signal?: AbortSignal,
): { done: Promise<void>; events: ClientEvent[]; types: () => string[] } {
  const events: ClientEvent[] = [];
  const done = work<number, number>(
    { reconnect: FAST, ...options, onEvent: (e) => events.push(e) },
    handler,
    signal === undefined ? {} : { signal },
  );
  done.catch(() => {});
  return { done, events, types: () => events.map((e) => e.type) };
}

test("work() goes on at a restarted server, with full credit again", async () => {
  const first = listen<number, number>({ port: 0 });
  const port = portOf(first as Server);
  const gate = new Gate();
  const worker = start({ port, prefetch: 4 }, async (n) => {
    await gate.pass();
    return n * 2;
  });
  range(10).forEach((n) => first.submit(n).catch(() => {}));
  await until(() => first.stats().inFlight === 4, "four are there");
  await first.abort(new Error("the server crashes"));
  const second = listen<number, number>({ port });
  const results = range(10).map((n) => second.submit(n));
  await until(() => second.stats().inFlight === 4, "four are there again");
  gate.open();
  assertEquals(await Promise.all(results), range(10).map((n) => n * 2));
  await second.close();
  await worker.done;
  const types = worker.types();
  assertEquals(types.filter((t) => t === "connected").length, 2);
  assert(types.indexOf("disconnected") < types.indexOf("reconnecting"));
  const lost = worker.events.find((e) => e.type === "disconnected");
  assertEquals(lost?.type === "disconnected" && lost.code, "aborted");
});

test("work() comes through cuts: each item has one result", async () => {
  const server = listen<number, number>({ port: 0 });
  await using proxy = new TcpProxy(portOf(server as Server));
  const leave = new AbortController();
  const workers = range(2).map(() =>
    start({ port: proxy.port }, undefined, leave.signal)
  );
  const got: number[] = [];
  for await (const result of server.map(range(2000))) {
    got.push(result);
    if (got.length % 250 === 0) proxy.cut();
  }
  assertEquals(got, range(2000).map((n) => n * 2));
  await server.close();
  leave.abort(); // whoever was cut off at the end has seen none
  await Promise.all(workers.map((w) => w.done));
  assert(proxy.cuts > 0);
});

test("A worker that leaves finishes what it has begun, over a lost connection too", async () => {
  const server = listen<number, number>({ port: 0 });
  await using proxy = new TcpProxy(portOf(server as Server));
  const gate = new Gate();
  const leave = new AbortController();
  const worker = start({ port: proxy.port }, async (n) => {
    await gate.pass();
    return n * 2;
  }, leave.signal);
  const result = server.submit(1);
  await until(() => gate.passing === 1, "it is executed");
  leave.abort();
  proxy.cut();
  await within(worker.done, 2000, "it doesn't come back");
  gate.open();
  const other = start({ port: portOf(server as Server) });
  assertEquals(await result, 2);
  await server.close();
  await other.done;
});

test("A half-open connection is noticed by both ends, and replaced", async () => {
  const heartbeat = { intervalMs: 50, timeoutMs: 150, dropMs: 300 };
  const codes: string[] = [];
  const server = listen<number, number>({
    port: 0,
    heartbeat,
    onEvent: (e) => {
      if (e.type === "disconnected") codes.push(e.code);
    },
  });
  await using proxy = new TcpProxy(portOf(server as Server));
  const worker = start({ port: proxy.port, heartbeat });
  assertEquals(await server.submit(1), 2);
  proxy.freeze();
  proxy.refuse(true);
  const result = server.submit(2);
  await until(() => codes.length === 1, "the server notices");
  await until(() => worker.types().includes("disconnected"), "so does it");
  proxy.thaw();
  proxy.refuse(false);
  assertEquals(await result, 4);
  assertEquals(codes, ["timeout"]);
  await moment(0);
  await server.close();
  await worker.done;
});

test("A host that doesn't answer at all is given up in time, and tried again", async () => {
  // A full queue of connections: the system drops what comes, as a broken
  // network does.
  const listener = Deno.listen({
    hostname: "127.0.0.1",
    port: 0,
    tcpBacklog: 1,
  });
  const { port } = listener.addr;
  const fillers: Deno.Conn[] = [];
  const stop = new AbortController();
  while (fillers.length < 10) {
    const full = AbortSignal.any([stop.signal, AbortSignal.timeout(200)]);
    try {
      fillers.push(
        await Deno.connect({ hostname: "127.0.0.1", port, signal: full }),
      );
    } catch {
      break;
    }
  }
  assert(fillers.length < 10, "the queue is full");
  const leave = new AbortController();
  const worker = start(
    { port, handshakeTimeoutMs: 100 },
    undefined,
    leave.signal,
  );
  await until(
    () => worker.types().filter((t) => t === "reconnecting").length >= 2,
    "it tries again",
  );
  const [event] = worker.events;
  assert(event?.type === "reconnecting");
  assert(/didn't answer within 100 ms/.test(event.error.message));
  leave.abort();
  await worker.done;
  for (const filler of fillers) filler.close();
  listener.close();
});
