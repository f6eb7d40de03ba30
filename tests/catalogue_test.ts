/**
 * The failure catalogue (design section 8): what the Go package does wrong,
 * each as a named test, over TCP, and with real processes where a process is
 * the point.
 */
import process from "node:process";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertLess,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  Client,
  connect,
  ConnectionLostError,
  HandshakeError,
  ItemFailure,
  listen,
  Server,
  type ServerEvent,
  type ServerOptions,
  work,
} from "../mod.ts";
import { range } from "./_support/channel_kit.ts";
import { type Process, ROOT, startDeno } from "./_support/process.ts";
import { seeded } from "./_support/rng.ts";
import { stateOf, until, within } from "./_support/within.ts";

const PROGRAM = `${ROOT}tests/_support/program.ts`;
const local = { hostname: "127.0.0.1" };

function start<Item, Result>(
  options: ServerOptions<Item, Result> = {},
): { server: Server<Item, Result>; port: number } {
  const server = listen<Item, Result>({ port: 0, ...options });
  return { server, port: (server.addr as Deno.NetAddr).port };
}

/** Runs one of the programs of `program.ts`. */
function run(name: string, ...args: (string | number)[]): Process {
  return startDeno(["-A", PROGRAM, name, ...args.map(String)]);
}

function sorted(numbers: Iterable<number>): number[] {
  return [...numbers].sort((a, b) => a - b);
}

const doubles = (count: number) => range(count).map((n) => n * 2);

Deno.test("D1 a worker dies holding buffered items: others get them", async () => {
  const { server, port } = start<number, number>();
  await using doomed = run("hold", port, 10);
  await server.ready();
  for (const n of range(100)) server.send(n);
  server.end();
  const results = server[Symbol.asyncIterator]();
  const got: number[] = [];
  for (let i = 0; i < 10; i++) got.push((await results.next()).value!);
  await doomed.stdout.line(/^holding$/);
  assert(server.stats().inFlight >= 50, "it holds what it has not read");
  doomed.signal("SIGKILL");
  await doomed.exit;
  await using rescuer = run("hold", port, 91); // the tenth was not settled
  for (let i = 0; i < 91; i++) got.push((await results.next()).value!);
  assertEquals(sorted(new Set(got)), doubles(100));
  assertEquals(got.length, 101, "only the item in hand came twice");
  await rescuer.stdout.line(/^holding$/);
  await server.abort();
});

Deno.test("D2 a silent peer is no worker, and swallows nothing", async () => {
  const { server, port } = start<number, number>();
  const silent = await Promise.all(
    range(3).map(() => Deno.connect({ ...local, port })),
  );
  const ready = server.ready();
  for (const n of range(50)) server.send(n);
  assertEquals(await stateOf(ready), "pending");
  assertEquals(server.workers, []);
  assertEquals(server.stats().inFlight, 0);
  await using worker = run("double", port);
  await ready;
  assertEquals(server.workers.length, 1);
  server.end();
  assertEquals(sorted(await Array.fromAsync(server)), doubles(50));
  await worker.exit;
  for (const conn of silent) conn.close();
});

Deno.test("D2 a port scan opens and closes: nothing happens", async () => {
  const { server, port } = start<number, number>();
  for (let i = 0; i < 20; i++) (await Deno.connect({ ...local, port })).close();
  const working = work<number, number>({ port }, (n) => n);
  assertEquals(await server.submit(1), 1);
  assertEquals(server.workers.length, 1);
  await server.close();
  await working;
});

/** Joins a client to a server, and ends after so many bytes in one direction. */
function cutAfter(
  outer: Deno.Conn,
  inner: Deno.Conn,
  bytes: { down?: number; up?: number },
): Promise<void> {
  const pump = async (from: Deno.Conn, to: Deno.Conn, left = Infinity) => {
    const buffer = new Uint8Array(65536);
    try {
      while (left > 0) {
        const count = await from.read(buffer);
        if (count === null) break;
        const passed = Math.min(count, left);
        left -= passed;
        for (let at = 0; at < passed;) {
          at += await to.write(buffer.subarray(at, passed));
        }
      }
      await (to as Deno.TcpConn).closeWrite();
    } catch {
      // Closed by an end.
    }
  };
  return Promise.all([
    pump(inner, outer, bytes.down),
    pump(outer, inner, bytes.up),
  ]).then(() => {
    outer.close();
    inner.close();
  });
}

/** A port whose first connection is cut, and where others pass. */
function cutting(
  port: number,
  bytes: { down?: number; up?: number },
): { port: number; close(): Promise<void> } {
  const listener = Deno.listen({ ...local, port: 0 });
  const pumps: Promise<void>[] = [];
  const accepting = (async () => {
    try {
      for (let first = true;; first = false) {
        const outer = await listener.accept();
        const inner = await Deno.connect({ ...local, port });
        pumps.push(cutAfter(outer, inner, first ? bytes : {}));
      }
    } catch {
      // Closed.
    }
  })();
  return {
    port: listener.addr.port,
    async close() {
      listener.close();
      await accepting;
      await Promise.all(pumps);
    },
  };
}

Deno.test("D3 a torn frame is a loss at the client, not an end", async () => {
  const rng = seeded("D3 client");
  for (let i = 0; i < 10; i++) {
    const { server, port } = start<string, string>();
    const proxy = cutting(port, { down: rng.int(400, 30_000) });
    const client = await connect<string, string>({ port: proxy.port });
    for (const n of range(40)) server.send(`${n} `.repeat(500));
    server.end();
    const got: string[] = [];
    const error = await assertRejects(async () => {
      for await (const item of client) got.push(item);
    }, ConnectionLostError);
    assertEquals(error.code, "eof");
    assertEquals(got, range(got.length).map((n) => `${n} `.repeat(500)));
    assertLess(got.length, 40);
    await assertRejects(() => client.closed, ConnectionLostError);
    const rest = await connect<string, string>({ port });
    const items = await Array.fromAsync(rest);
    assertEquals(items.at(-1), "39 ".repeat(500));
    assertEquals(items.length >= 40 - got.length, true, "nothing is missing");
    await rest.closed;
    await server.closed;
    await proxy.close();
  }
});

Deno.test("D3 a torn frame is a loss at the server, not an end", async () => {
  const rng = seeded("D3 server");
  for (let i = 0; i < 10; i++) {
    const events: ServerEvent[] = [];
    const { server, port } = start<number, string>({
      onEvent: (event) => events.push(event as ServerEvent),
    });
    const proxy = cutting(port, { up: rng.int(400, 30_000) });
    const working = work<number, string>({
      port: proxy.port,
      reconnect: { minDelayMs: 1, maxDelayMs: 10 },
    }, (n) => `${n} `.repeat(500));
    const results = await Array.fromAsync(
      ReadableStream.from(range(40)).pipeThrough(server),
    );
    assertEquals(
      results.toSorted((a, b) => parseInt(a) - parseInt(b)),
      range(40).map((n) => `${n} `.repeat(500)),
    );
    await working;
    const lost = events.find((event) => event.type === "disconnected");
    assertEquals(lost?.type === "disconnected" && lost.code, "eof");
    await proxy.close();
  }
});

Deno.test("D4 results for a server that died are not accepted in silence", async () => {
  await using host = run("server");
  const [port] = await host.stdout.line(/^\d+$/);
  const client = await connect<number, number>({ port: Number(port) });
  const items = client[Symbol.asyncIterator]();
  assertEquals((await items.next()).value, 1);
  host.signal("SIGKILL");
  await host.exit;
  await assertRejects(async () => {
    for (;;) {
      await client.send(2);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }, ConnectionLostError);
  await assertRejects(() => client.closed, ConnectionLostError);
  await assertRejects(() => client.end(), ConnectionLostError);
});

Deno.test("D4 what was sent at the moment of the death is not said to be there", async () => {
  await using host = run("server");
  const [port] = await host.stdout.line(/^\d+$/);
  const client = await connect<number, number>({ port: Number(port) });
  host.signal("SIGSTOP"); // the network takes it, nobody reads it
  client.send(2);
  const ended = client.end();
  await ended;
  assertEquals(await stateOf(client.closed), "pending", "left, not arrived");
  host.signal("SIGKILL");
  await assertRejects(() => client.closed, ConnectionLostError);
  await host.exit;
});

Deno.test("D5 one unencodable value evicts nobody", async () => {
  const failures: ItemFailure[] = [];
  const { server, port } = start<unknown, unknown>({
    onFailure: (failure) => failures.push(failure as ItemFailure),
  });
  await using one = run("echo", port);
  await using two = run("echo", port);
  await server.ready(2);
  for (const n of range(10)) await server.send(n % 5 === 0 ? () => {} : n);
  await until(() => server.stats().settled === 8, "the others are settled");
  const before = process.cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { user, system } = process.cpuUsage(before);
  assertLess(user + system, 250_000, "nothing spins");
  assertEquals(server.workers.length, 2);
  assertEquals(failures.map(({ id }) => id), [0, 5]);
  await server.close();
  await Promise.all([one.exit, two.exit]);
});

Deno.test("D6 garbage from any peer costs it its connection, and the server nothing", async () => {
  const rng = seeded("D6");
  const text = (s: string) => new TextEncoder().encode(s);
  const garbage = [
    text("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    text("SSH-2.0-OpenSSH_9.6\r\n"),
    new Uint8Array([0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]),
    new Uint8Array(4096),
    new Uint8Array(4096).fill(0xff),
    new Uint8Array(4096).fill(0x9f),
    ...range(50).map(() => rng.bytes(rng.int(1, 5000))),
  ];
  const { server, port } = start<number, number>();
  const working = work<number, number>({ port }, (n) => n * 2);
  const results = Array.fromAsync(server.map(range(1000)));
  for (const bytes of garbage) {
    const conn = await Deno.connect({ ...local, port });
    await conn.write(bytes).catch(() => {});
    await conn.closeWrite().catch(() => {});
    const drained = new Uint8Array(4096);
    const closed = (async () => {
      while (await conn.read(drained).catch(() => null) !== null);
    })();
    await within(closed, 6000, "the connection is closed");
    conn.close();
  }
  assertEquals(await results, doubles(1000));
  assertEquals(server.workers.length, 1);
  await server.close();
  await working;
});

Deno.test("D6 a worker with another type, or a decoder that fails, crashes nobody", async () => {
  const { server, port } = start<number, number>();
  const cbor = (await import("../mod.ts")).cbor();
  const picky = {
    name: "cbor",
    encode: (value: unknown) => cbor.encode(value),
    decode(payload: Uint8Array) {
      const value = cbor.decode(payload);
      if (value === 3) throw new TypeError("not that one");
      return value;
    },
  };
  const other = work({ port, codec: picky }, () => ({ quite: "different" }));
  await server.ready();
  const results = await Promise.allSettled(
    range(5).map((n) => server.submit(n)),
  );
  assertEquals(results.map(({ status }) => status), [
    ...["fulfilled", "fulfilled", "fulfilled"],
    ...["rejected", "fulfilled"],
  ]);
  assertInstanceOf((results[3] as PromiseRejectedResult).reason, ItemFailure);
  await server.close();
  await other;
});

Deno.test("D7 an unencodable result fails its item, and the worker lives", async () => {
  const { server, port } = start<number, number>();
  await using worker = run("odd", port);
  const outcomes = await Array.fromAsync(
    server.map(range(20), { settled: true }),
  );
  for (const { item, result, failure } of outcomes) {
    if (item % 2 === 0) assertEquals(result, item);
    else assertEquals(failure?.error.name, "EncodeError");
  }
  await server.close();
  const { code, stderr } = await worker.exit;
  assertEquals([code, stderr], [0, ""]);
});

/** A listener that fails before it works. */
class Failing implements Deno.Listener {
  readonly addr: Deno.Addr;
  readonly #listener: Deno.Listener;
  readonly #errors: Error[];

  constructor(listener: Deno.Listener, errors: Error[]) {
    this.#listener = listener;
    this.#errors = errors;
    this.addr = listener.addr;
  }

  accept(): Promise<Deno.Conn> {
    const error = this.#errors.shift();
    return error ? Promise.reject(error) : this.#listener.accept();
  }

  close(): void {
    this.#listener.close();
  }

  ref(): void {}

  unref(): void {}

  [Symbol.dispose](): void {
    this.close();
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Deno.Conn> {
    return this.#listener[Symbol.asyncIterator]();
  }
}

Deno.test("D8 transient accept errors end nothing", async () => {
  const errors = [
    new Deno.errors.ConnectionAborted("aborted"),
    new Error("Too many open files (os error 24)"),
    new Deno.errors.ConnectionReset("reset"),
  ];
  const told: unknown[] = [];
  const listener = Deno.listen({ ...local, port: 0 });
  const server = new Server<number, number>(
    new Failing(listener, [...errors]),
    {
      onEvent: (event) => {
        if (event.type === "accept-error") told.push(event.error);
      },
    },
  );
  const { port } = listener.addr;
  for (const n of range(20)) server.send(n);
  const workers = range(3).map(() =>
    work<number, number>({ port }, (n) => n * 2)
  );
  await within(server.ready(3), 5000, "all are accepted");
  server.end();
  assertEquals(sorted(await Array.fromAsync(server)), doubles(20));
  assertEquals(told, errors);
  await Promise.all(workers);
});

Deno.test("D8 connections that are reset before accept() hold up nobody", async () => {
  const errors = range(100).map(() => new Deno.errors.NotConnected("reset"));
  const listener = Deno.listen({ ...local, port: 0 });
  await using server = new Server<number, number>(
    new Failing(listener, [...errors]),
  );
  const { port } = listener.addr;
  work<number, number>({ port }, (n) => n * 2);
  // Not after a pause for each.
  await within(server.ready(), 5000, "the next one is accepted");
  assertEquals(await server.submit(21), 42);
});

Deno.test("D9 a wrong secret or signature is an error, and no normal end", async () => {
  const { server, port } = start<number, number>({
    signature: "ours",
    secret: "right",
  });
  const attempts = [
    ["signature", { signature: "theirs", secret: "right" }],
    ["auth", { signature: "ours", secret: "wrong" }],
    ["auth", { signature: "ours" }],
  ] as const;
  for (const [code, options] of attempts) {
    const error = await assertRejects(
      () => connect({ port, ...options }),
      HandshakeError,
    );
    assertEquals(error.code, code);
    await assertRejects(
      () => work({ port, ...options, reconnect: false }, () => {}),
      HandshakeError,
    );
    const client = new Client(await Deno.connect({ ...local, port }), options);
    await assertRejects(() => Array.fromAsync(client), HandshakeError);
    await assertRejects(() => client.closed, HandshakeError);
    await client.abort();
  }
  assertEquals(server.workers, []);
  await server.close();
});

Deno.test("D10 the last worker leaves before the end: the results end all the same", async () => {
  const { server, port } = start<number, number>();
  await using worker = run("double", port);
  for (const n of range(10)) server.send(n);
  const results = server[Symbol.asyncIterator]();
  const got: number[] = [];
  for (let i = 0; i < 10; i++) got.push((await results.next()).value!);
  worker.signal("SIGTERM");
  const { code } = await worker.exit;
  assertEquals(code, 0);
  await until(() => server.workers.length === 0, "it has left");
  server.end();
  assertEquals((await within(results.next(), 2000, "the end")).done, true);
  await within(server.closed, 2000, "closed");
  assertEquals(sorted(got), doubles(10));
});

Deno.test({
  name: "D11 one stalled worker holds up nobody else",
  ignore: Deno.build.os === "windows",
  async fn() {
    const { server, port } = start<number, number>();
    await using stalled = run("double", port);
    await server.ready();
    assertEquals(await server.submit(1), 2);
    await using healthy = run("double", port);
    await server.ready(2);
    stalled.signal("SIGSTOP");
    const got: number[] = [];
    const reading = (async () => {
      for await (const n of server) got.push(n);
    })();
    for (const n of range(2000)) await server.send(n);
    const ended = server.end();
    await until(
      () => server.stats().settled >= 1900,
      "the healthy one does nearly all",
      10_000,
    );
    assertLess(server.stats().inFlight, 101);
    stalled.signal("SIGCONT");
    await ended;
    await reading;
    assertEquals(sorted(got), doubles(2000));
    await Promise.all([stalled.exit, healthy.exit]);
  },
});

Deno.test("D12 write all, then read: a documented bound, and an event", async () => {
  const stalled = Promise.withResolvers<string>();
  const { server, port } = start<number, number>({
    onEvent: (event) => {
      if (event.type === "stalled") stalled.resolve(event.reason);
    },
  });
  const working = work<number, number>({ port }, (n) => n * 2);
  await server.ready(); // or it would be told that nobody is there
  const writer = server.writable.getWriter();
  let written = 0;
  const writing = (async () => {
    for (; written < 6000; written++) await writer.write(written);
    await writer.close();
  })();
  writing.catch(() => {});
  assertEquals(await within(stalled.promise, 5000, "event"), "results-unread");
  assert(written >= 4000 && written <= 4200, `${written} were written`);
  assertEquals(sorted(await Array.fromAsync(server.readable)), doubles(6000));
  await writing;
  await working;
});

Deno.test("D12 write a few, then read: nothing stalls", async () => {
  const { server, port } = start<number, number>();
  const working = work<number, number>({ port }, (n) => n * 2);
  const writer = server.writable.getWriter();
  for (const n of range(4000)) await writer.write(n);
  await writer.close();
  assertEquals(sorted(await Array.fromAsync(server.readable)), doubles(4000));
  await working;
});

Deno.test("D13 closed resolves when there is nothing to send", async () => {
  const { server, port } = start<number, number>();
  const reader = await connect<number, number>({ port });
  const reading = Array.fromAsync(reader);
  const writer = await connect<number, number>({ port });
  const neither = await connect<number, number>({ port });
  const both = await connect<number, number>({ port });
  const ended = both.end();
  const all = Array.fromAsync(both);
  const written = writer.end();
  server.end();
  for (
    const [who, client] of Object.entries({ reader, writer, neither, both })
  ) {
    await within(client.closed, 2000, `${who}.closed`);
  }
  assertEquals([await reading, await all], [[], []]);
  await Promise.all([written, ended]);
  await within(server.closed, 2000, "server.closed");
});

Deno.test("D14 a process that stays alive doesn't keep the end open", async () => {
  const { server, port } = start<number, number>();
  await using worker = run("stay", port);
  await using idle = run("idle", port);
  await idle.stdout.line(/^connected$/);
  await server.ready(2);
  for (const n of range(10)) server.send(n);
  server.end();
  const results = Array.fromAsync(server);
  assertEquals(sorted(await within(results, 5000, "the end")), doubles(10));
  await within(server.closed, 2000, "closed");
  await worker.stdout.line(/^done$/);
});

Deno.test("D15 close twice, in every order", async () => {
  const { server, port } = start<number, number>();
  const client = await connect<number, number>({ port });
  const items = client[Symbol.asyncIterator]();
  await Promise.all([client.end(), client.end()]);
  await items.return!();
  await items.return!();
  await Promise.all([client.close(), client.close(), client.closed]);
  await client.abort();
  await client.close();
  await server.end();
  await server.end();
  await Promise.all([server.close(), server.close()]);
  await server.abort();
  await server.close();
  await server.closed;
  await server[Symbol.asyncDispose]();
  await client[Symbol.asyncDispose]();
});

Deno.test("D15 both ends close at the same time", async () => {
  for (let i = 0; i < 20; i++) {
    const { server, port } = start<number, number>();
    const client = await connect<number, number>({ port });
    client.send(1);
    const settled = await within(
      Promise.allSettled([server.close(), client.close()]),
      5000,
      "both are closed",
    );
    assertEquals(settled[0]!.status, "fulfilled");
  }
});

Deno.test("D16 close while a write is blocked, on both sides", async () => {
  const { server, port } = start<Uint8Array, Uint8Array>();
  const writer = server.writable.getWriter();
  const blocked = writer.write(new Uint8Array(10));
  const closing = writer.close();
  const client = await connect<Uint8Array, Uint8Array>({ port });
  let isBlocked = false;
  const sending = (async () => {
    for (let n = 0; n < 500; n++) {
      const room = client.send(new Uint8Array(65_536));
      isBlocked = room !== undefined;
      await room;
      isBlocked = false;
    }
  })();
  sending.catch(() => {});
  await until(() => isBlocked, "the client is blocked");
  const closed = client.close();
  await assertRejects(() => sending, TypeError);
  const reading = (async () => {
    let count = 0;
    for await (const _ of server) count++;
    return count;
  })();
  await within(closed, 5000, "the client is closed");
  const second = await connect<Uint8Array, Uint8Array>({ port });
  const items = await within(Array.fromAsync(second), 5000, "the end");
  assertEquals(items.map((item) => item.length), [10]);
  await Promise.all([blocked, closing]);
  assert(await reading > 0);
  await server.closed;
});

Deno.test("D17 cancel the reader on either side: nothing panics, all ends", async () => {
  const { server, port } = start<number, number>();
  const working = work<number, number>({ port }, (n) => n * 2);
  const client = await connect<number, number>({ port });
  const reader = client.readable.getReader();
  const writer = server.writable.getWriter();
  for (const n of range(10)) writer.write(n).catch(() => {});
  await reader.read();
  await reader.cancel("enough");
  await within(client.closed, 2000, "the client has said goodbye");
  const results = server.readable.getReader();
  await results.read();
  const reason = new Error("enough of all");
  await results.cancel(reason);
  assertStrictEquals(await writer.closed.catch((e) => e), reason);
  await within(working, 2000, "work() ends");
  await within(server.closed, 2000, "closed");
});

Deno.test("D18 start: items, faces and ends before the handshake", async () => {
  for (let i = 0; i < 20; i++) {
    const { server, port } = start<number, number>();
    for (const n of range(5)) server.send(n);
    server.end();
    const conn = await Deno.connect({ ...local, port });
    const client = new Client<number, number>(conn);
    const items = client.readable.getReader(); // before it is open
    const first = items.read();
    client.send(100);
    const ended = client.end();
    assertEquals((await first).value, 0);
    for (const n of range(5).slice(1)) {
      assertEquals((await items.read()).value, n);
    }
    assertEquals((await items.read()).done, true);
    await ended;
    assertEquals(await Array.fromAsync(server), [100]);
    await Promise.all([client.closed, server.closed]);
  }
});

Deno.test("D18 an end marker inside a value ends nothing", async () => {
  const values = [
    new Uint8Array([0, 0, 0, 1, 17]), // END, as it is on the wire
    new Uint8Array([0, 0, 0, 4, 22, 0, 0x60]), // GOODBYE
    new Uint8Array(0),
    "",
    "\0\0\0\x01\x11",
    null,
    undefined,
    [],
    {},
    0,
    false,
    -1,
  ];
  const { server, port } = start<unknown, unknown>();
  const working = work({ port }, (value) => value);
  assertEquals(await Array.fromAsync(server.map(values)), values);
  for (const value of values) server.send(value);
  server.end();
  assertEquals(await Array.fromAsync(server), values);
  await working;
});

Deno.test({
  name:
    "D19 waiting burns no processor: for a worker, a server, an item, the end",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const { server, port } = start<number, number>();
    await using host = run("ready");
    await host.stdout.line(/^\d+$/);
    await using waiting = run("double", port);
    await server.ready();
    const nobody = Deno.listen({ ...local, port: 0 });
    const free = nobody.addr.port;
    nobody.close();
    await using early = run("stay", free);
    await early.stdout.line(/^reconnecting$/);
    await using holding = run("hold", port, 0);
    await holding.stdout.line(/^holding$/);
    const processes = { host, waiting, early, holding };
    let used: Record<string, number>;
    const measure = async () => {
      const before = Object.values(processes).map(({ pid }) => ticks(pid));
      const own = process.cpuUsage();
      await new Promise((resolve) => setTimeout(resolve, 2000));
      const { user, system } = process.cpuUsage(own);
      used = { own: (user + system) / 1000 };
      Object.entries(processes).forEach(([name, { pid }], i) => {
        used[name] = (ticks(pid) - before[i]!) * 10;
      });
    };
    // What starting up has left to do comes to its end.
    for (let tries = 0; tries < 5; tries++) {
      await measure();
      if (Object.values(used!).every((ms) => ms < 100)) break;
    }
    for (const [name, ms] of Object.entries(used!)) {
      assertLess(ms, 100, `ms of 2000: ${name}`);
    }
    await server.abort();
  },
});

/** Processor time of a process so far, in hundredths of a second. */
function ticks(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

Deno.test({
  name: "D20 dropped connections leak no descriptors",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const { server, port } = start<number, number>();
    const count = () => [...Deno.readDirSync("/proc/self/fd")].length;
    const round = async () => {
      const conn = await Deno.connect({ ...local, port });
      await conn.write(new Uint8Array([1, 2, 3]));
      conn.close(); // silent peers
      const closed = await connect<number, number>({ port });
      await closed.close();
      const aborted = await connect<number, number>({ port });
      await aborted.abort();
      await assertRejects(() => connect({ port, signature: "other" }));
      const raw = await Deno.connect({ ...local, port });
      const lost = new Client<number, number>(raw);
      await lost.opened;
      raw.close();
      await assertRejects(() => lost.closed);
    };
    await round();
    await until(() => server.workers.length === 0, "all are gone");
    await new Promise((resolve) => setTimeout(resolve, 50));
    const before = count();
    for (let i = 0; i < 40; i++) await round();
    await until(() => server.workers.length === 0, "all are gone");
    await until(() => count() <= before, `${count()} descriptors, ${before}`);
    await server.close();
  },
});

Deno.test("D21 no length is taken on trust", async () => {
  const { server, port } = start<number, number>();
  const lengths = [
    700 * 1024 * 1024, // the catalogue's
    0xffff_ffff, // -1
    0x8000_0000, // the smallest there is
    0x7fff_ffff,
    5000, // more than a handshake may take
    0,
  ];
  const before = Deno.memoryUsage().rss;
  for (const length of lengths) {
    const conn = await Deno.connect({ ...local, port });
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, length);
    await conn.write(head);
    const closed = (async () => {
      const buffer = new Uint8Array(4096);
      while (await conn.read(buffer).catch(() => null) !== null);
    })();
    await within(closed, 2000, `a frame of ${length} bytes is refused at once`);
    conn.close();
  }
  // An unfinished frame, sent for real.
  const conn = await Deno.connect({ ...local, port });
  const head = new Uint8Array([0, 0, 0x0f, 0xff]);
  await conn.write(head);
  const sending = (async () => {
    for (;;) await conn.write(new Uint8Array(65_536));
  })();
  const error = await within(sending.catch((e) => e), 5000, "it is dropped");
  assertInstanceOf(error, Error);
  conn.close();
  assertLess(Deno.memoryUsage().rss - before, 100_000_000);
  const working = work<number, number>({ port }, (n) => n);
  assertEquals(await server.submit(1), 1);
  await server.close();
  await working;
});

Deno.test("D22 nothing but results is on stdout, whatever happens", async () => {
  const lines = range(500).map((n) => `line ${n}`);
  await using pipeline = startDeno(["-A", PROGRAM, "pipeline"], {
    stdin: lines.join("\n") + "\n",
  });
  const [port = ""] = await pipeline.stderr.line(/^\d+$/);
  const conn = await Deno.connect({ ...local, port: Number(port) });
  await conn.write(new TextEncoder().encode("garbage, and a lot of it\n"));
  await using one = run("upper", port, 50); // and no more: it has to be killed
  await using two = run("upper", port);
  await pipeline.stdout.line(/^LINE 20$/);
  one.signal("SIGKILL");
  const { code, stdout, stderr } = await pipeline.exit;
  assertEquals(code, 0);
  assertEquals(stdout, lines.join("\n").toUpperCase() + "\n");
  assertEquals(stderr, `${port}\n`);
  const ended = await two.exit;
  assertEquals([ended.code, ended.stdout, ended.stderr], [0, "", ""]);
  conn.close();
});
