/**
 * Workers on the server's own machine: `server.spawn()` and the option `local`.
 */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  cbor,
  connect,
  type ConnectOptions,
  gzip,
  HandshakeError,
  ItemFailure,
  listen,
  PoisonItemError,
  Server,
  work,
} from "../mod.ts";
import { defined } from "../internal/defined.ts";
import { Authority } from "./_support/certificates.ts";
import { Folder } from "./_support/folder.ts";
import { until, within } from "./_support/within.ts";

/** A module, without a file. */
function module(code: string): URL {
  return new URL("data:text/javascript," + encodeURIComponent(code));
}

const SQUARE = module("export default (n) => n * n");

function test(name: string, body: () => Promise<void>): void {
  Deno.test(name, () => within(body(), 50_000, name));
}

function names(server: Server<number, number>): string[] {
  return server.workers.map(({ name }) => name).sort();
}

test("listen({ local }) is a pool in one file", async () => {
  await using server = listen<number, number>({
    port: 0,
    local: { module: SQUARE, count: 2 },
  });
  const squares = await Array.fromAsync(server.map([1, 2, 3, 4]));
  assertEquals(squares, [1, 4, 9, 16]);
});

test("listen({ local }) works as a stream, and ends by itself", async () => {
  const server = listen<number, number>({
    port: 0,
    local: { module: SQUARE, count: 1 },
  });
  const items = ReadableStream.from([1, 2, 3]);
  const results = await Array.fromAsync(items.pipeThrough(server));
  assertEquals(results, [1, 4, 9]);
  await server.closed;
});

test("Server.spawn() starts threads beside other workers", async () => {
  await using server = listen<number, number>({
    port: 0,
    signature: "squares",
  });
  const { port } = server.addr as Deno.NetAddr;
  const remote = work<number, number>(
    { port, signature: "squares", name: "remote" },
    (n) => n * n,
  );
  const pool = server.spawn(SQUARE, { count: 2, name: "thread" });
  assertEquals(pool.count, 2);
  await server.ready(3);
  assertEquals(names(server), ["remote", "thread-1", "thread-2"]);
  const results = await Array.fromAsync(server.map([5, 6, 7]));
  assertEquals(results, [25, 36, 49]);
  await server.close();
  await remote;
});

test("Server.spawn() starts as many as there are cores", async () => {
  await using server = listen<number, number>({ port: 0 });
  await using pool = server.spawn(SQUARE);
  assertEquals(pool.count, navigator.hardwareConcurrency);
});

test("close() of a pool finishes what is begun, the server goes on", async () => {
  const server = listen<number, number>({ port: 0 });
  const slow = module(
    "export default (n) => new Promise((done) => setTimeout(done, 100, -n))",
  );
  const pool = server.spawn(slow, { count: 1 });
  const begun = server.submit(1);
  await until(() => server.stats().inFlight === 1, "it is begun");
  await pool.close();
  assertEquals(server.workers.length, 0);
  // Finished, or handed back before it was begun: never lost.
  const second = server.submit(2);
  server.spawn(slow, { count: 1 });
  assertEquals([await begun, await second], [-1, -2]);
  await pool.close(); // once more is nothing
  await server.close();
});

test("close() of a pool: a thread that crashes meanwhile isn't started again", async () => {
  const server = listen<number, number>({ port: 0, maxDeliveries: 2 });
  const crashing = module(`export default async () => {
    await new Promise((done) => setTimeout(done, 100));
    Deno.exit(3);
  }`);
  const pool = server.spawn(crashing, { count: 1 });
  const begun = server.submit(1);
  await until(() => server.stats().inFlight === 1, "it is begun");
  await within(pool.close(), 15_000, "the pool has ended");
  server.spawn(SQUARE, { count: 1 });
  assertEquals(await begun, 1);
  await server.close();
});

test("a thread that a handler holds doesn't hold up the end of the server", async () => {
  const server = listen<number, number>({
    port: 0,
    local: {
      module: module(
        `export default () =>
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20_000)`,
      ),
      count: 1,
    },
    heartbeat: { intervalMs: 50, timeoutMs: 200, dropMs: 30_000 },
    itemTimeoutMs: 100,
  });
  await assertRejects(() => server.submit(1), ItemFailure);
  await within(server.close(), 10_000, "it has ended");
});

test("a thread that crashes is started again", async () => {
  const crashes: string[] = [];
  const server = listen<number, number>({
    port: 0,
    maxDeliveries: 2,
    onEvent: (event) => {
      if (event.type !== "crashed") return;
      const { name, error } = event;
      crashes.push(`${name}: ${error.name}: ${error.message}`);
    },
  });
  server.spawn(
    module(`export default (n) => {
      if (n < 0) Promise.reject(new RangeError("nobody catches this"));
      return n < 0 ? new Promise(() => {}) : n + 1;
    }`),
    { count: 1 },
  );
  assertEquals(await server.submit(1), 2);
  const failure = await assertRejects(() => server.submit(-1), ItemFailure);
  assert((failure as ItemFailure).error instanceof PoisonItemError);
  assertEquals(await server.submit(2), 3);
  const crash = "local-1: RangeError: nobody catches this";
  assertEquals(crashes, [crash, crash]);
  await server.close();
});

test("a server that is aborted from the event starts no thread again", async () => {
  let crashes = 0;
  const server = listen<number, number>({
    port: 0,
    onEvent(event) {
      // The second waits longest for its next start: the sanitizer sees it.
      if (event.type === "crashed" && ++crashes === 2) void server.abort();
    },
  });
  server.spawn(
    module(`export default (n) => {
      Promise.reject(new Error("nobody catches this"));
      return new Promise(() => {});
    }`),
    { count: 1 },
  );
  await assertRejects(() => server.submit(1));
  await server.closed.catch(() => {});
  assertEquals(crashes, 2);
});

test("a thread goes on when one item after the other ends it", async () => {
  const failed: number[] = [];
  await using server = listen<number, number>({ port: 0, maxDeliveries: 2 });
  server.spawn(
    module(`export default (n) => {
      if (n < 7) Deno.exit(3);
      return n + 1;
    }`),
    { count: 1 },
  );
  const results = await Array.fromAsync(
    server.map([1, 2, 3, 4, 5, 6, 7], {
      onFailure: ({ item }) => failed.push(item),
    }),
  );
  assertEquals([results, failed], [[8], [1, 2, 3, 4, 5, 6]]);
});

test("a thread that ends itself is started again", async () => {
  const server = listen<number, number>({ port: 0, maxDeliveries: 2 });
  server.spawn(
    module(`export default (n) => {
      if (n < 0) Deno.exit(3);
      return n + 1;
    }`),
    { count: 1 },
  );
  await assertRejects(() => server.submit(-1), ItemFailure);
  assertEquals(await server.submit(2), 3);
  await server.close();
});

test("a thread that ends itself when it was ended already lets go of its item", async () => {
  const server = listen<number, number>({ port: 0, maxDeliveries: 2 });
  server.spawn(
    module(`export default (n) => {
      if (n > 0) return n + 1;
      addEventListener("unhandledrejection", () => {
        // The pool has been told, and ends this thread meanwhile.
        for (const from = Date.now(); Date.now() - from < 300;);
        Deno.exit(3);
      });
      Promise.reject(new Error("nobody catches this"));
      return new Promise(() => {});
    }`),
    { count: 1 },
  );
  await assertRejects(
    () => within(server.submit(-1), 15_000, "the item fails"),
    ItemFailure,
  );
  assertEquals(await server.submit(2), 3);
  await server.close();
});

test("a thread that a handler holds for ever is replaced", async () => {
  const crashes: string[] = [];
  await using server = listen<number, number>({
    port: 0,
    local: {
      module: module(
        // Blocked, as by an endless loop, which would go on after the test.
        `export default (n) => {
          const never = new Int32Array(new SharedArrayBuffer(4));
          if (n === 0) Atomics.wait(never, 0, 0, 20_000);
          return n * n;
        }`,
      ),
      count: 2,
    },
    heartbeat: { intervalMs: 100, timeoutMs: 300, dropMs: 1000 },
    maxDeliveries: 2,
    onEvent: (event) => {
      if (event.type === "crashed") crashes.push(event.error.message);
    },
  });
  const results = server.map([0, 1, 2, 3, 4], { settled: true });
  const [first, ...rest] = await Array.fromAsync(results);
  assertInstanceOf(first!.failure, ItemFailure);
  assertInstanceOf(first!.failure.error, PoisonItemError);
  assertEquals(rest.map(({ result }) => result), [1, 4, 9, 16]);
  // Both are there again, or there would be none.
  await server.ready(2);
  assertEquals(await server.submit(5), 25);
  assert(crashes.length >= 2, `${crashes}`);
  for (const crash of crashes) {
    assertStringIncludes(crash, "larger heartbeat.dropMs");
  }
});

test("a pool that crashes again and again aborts the server", async () => {
  const server = listen<number, number>({ port: 0, maxDeliveries: 100 });
  server.spawn(
    module(`export default () => {
      Promise.reject(new RangeError("always"));
      return new Promise(() => {});
    }`),
    { count: 1 },
  );
  const error = await assertRejects(() => server.submit(1), Error, "gave up");
  assertStringIncludes((error as Error).message, "always");
  await assertRejects(() => server.closed, Error, "gave up");
});

test("a pool goes on though its threads crash, if they finish something first", async () => {
  await using server = listen<number, number>({
    port: 0,
    maxDeliveries: 100,
    retry: { attempts: 100, backoffMs: 1 },
  });
  server.spawn(
    // Each thread fails once, which settles nothing yet, and ends itself then.
    module(`let isSecond = false;
    export default (n, { attempt }) => {
      if (attempt > 22) return n;
      if (isSecond) Deno.exit(3);
      isSecond = true;
      throw new Error("once more");
    }`),
    { count: 1 },
  );
  assertEquals(await server.submit(1), 1);
});

test("a module that can't be used aborts the server, and says why", async () => {
  for (
    const [code, why] of [
      ["throw new Error('not today')", "not today"],
      ["export const handler = 1", "expected a function"],
      ["syntax error", "Cannot load the handler"],
      ["Deno.exit(1)", "exit code 1"],
      ["Deno.exit(1); export default (n) => n", "exit code 1"],
    ] as const
  ) {
    const server = listen<number, number>({
      port: 0,
      local: { module: module(code), count: 2 },
    });
    await assertRejects(() => server.submit(1), TypeError, why);
    await assertRejects(() => server.closed, TypeError, why);
  }
});

test("the error of a module that can't be used shows where in the thread it was made", async () => {
  const server = listen<number, number>({
    port: 0,
    local: { module: module("export const handler = 1"), count: 1 },
  });
  const { stack } = await assertRejects(() => server.closed, TypeError);
  assertStringIncludes(stack!, "local_worker.ts");
});

test("codec and transforms come from the module", async () => {
  const root = new URL("../mod.ts", import.meta.url).href;
  const code = `
    import { gzip } from ${JSON.stringify(root)};
    export const codec = {
      name: "json",
      encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
      decode: (bytes) => JSON.parse(new TextDecoder().decode(bytes)),
    };
    export const transforms = [gzip({ maxOutputBytes: 1e6 })];
    export default (n) => n * n;`;
  const options = {
    port: 0,
    codec: {
      name: "json",
      encode: (value: unknown) =>
        new TextEncoder().encode(JSON.stringify(value)),
      decode: (bytes: Uint8Array) =>
        JSON.parse(new TextDecoder().decode(bytes)),
    },
    transforms: [gzip({ maxOutputBytes: 1e6 })],
    secret: new Uint8Array([1, 2, 3]),
  };
  const local = { module: module(code), count: 1 };
  {
    await using server = listen<number, number>({ ...options, local });
    assertEquals(await server.submit(4), 16);
  }
  for (const [key, other] of Object.entries({ codec: [], transforms: [1] })) {
    void other;
    const { codec, transforms } = options;
    const server = listen<number, number>({
      port: 0,
      ...(key === "codec" ? { codec } : { transforms }),
      local: { module: SQUARE, count: 1 },
    });
    await assertRejects(() => server.submit(1), TypeError, `"${key}"`);
    await assertRejects(() => server.closed, TypeError);
  }
});

test("a local pool needs nothing of the server's TLS", async () => {
  const authority = await Authority.create("A test's authority");
  // No name or address of this machine.
  const { cert, key } = await authority.issue("pool.example.org");
  const rejected: string[] = [];
  await using server = listen<number, number>({
    port: 0,
    hostname: "0.0.0.0",
    cert,
    key,
    secret: "s3cret",
    local: { module: SQUARE, count: 1 },
    onEvent: (event) => {
      if (event.type === "rejected") rejected.push(event.code);
    },
  });
  assertEquals(await server.submit(3), 9);
  const inThread = server.loopback();
  assertEquals(inThread.hostname, "127.0.0.1");
  assert(inThread.port !== (server.addr as Deno.NetAddr).port);
  work<number, number>({ ...inThread, name: "own" }, (n) => n * n);
  await server.ready(2);
  assertEquals(names(server), ["local-1", "own"]);
  // It is the same from then on, and only for whom it was given to.
  assertEquals(server.loopback(), inThread);
  for (const secret of ["s3cret", undefined]) {
    const { hostname, port } = inThread;
    const options = defined<ConnectOptions>({ hostname, port, secret });
    const error = await assertRejects(() => connect(options), HandshakeError);
    assertEquals((error as HandshakeError).code, "auth");
  }
  assertEquals(rejected, ["auth", "auth"]);
  const { port } = inThread;
  await server.close();
  await assertRejects(() => Deno.connect({ port }));
});

test("threads take values that are nested as deep as the server's codec allows", async () => {
  await using server = listen<unknown, unknown>({
    port: 0,
    codec: cbor({ maxDepth: 100 }),
    local: { module: module("export default (value) => value"), count: 1 },
  });
  let nested: unknown = 7;
  for (let depth = 0; depth < 90; depth++) nested = [nested];
  assertEquals(await server.submit(nested), nested);
});

test("Server.loopback() is all that a worker in this process needs", async () => {
  await using server = listen<number, number>({
    port: 0,
    hostname: "0.0.0.0",
    secret: new Uint8Array([1, 2, 3]),
    signature: "squares",
    codec: cbor({ maxDepth: 8 }),
    transforms: [gzip()],
  });
  assertEquals(Object.keys(server.loopback()).toSorted(), [
    "codec",
    "hostname",
    "port",
    "secret",
    "signature",
    "transforms",
  ]);
  work<number, number>(server.loopback(), (n) => n * n);
  assertEquals(await server.submit(3), 9);
  await server.close();
  assertThrows(() => server.loopback(), TypeError, "has ended");
});

test("a server on all addresses is reached at loopback", async () => {
  await using server = listen<number, number>({
    port: 0,
    hostname: "0.0.0.0",
    secret: "s3cret",
    local: { module: SQUARE, count: 1 },
  });
  assertEquals(await server.submit(3), 9);
});

test("a server that ends at once leaves no thread behind", async () => {
  for (const end of ["close", "abort"] as const) {
    const server = listen<number, number>({
      port: 0,
      local: { module: SQUARE, count: 2 },
    });
    await server[end]();
    assertThrows(() => server.spawn(SQUARE), TypeError, "has ended");
  }
  const server = listen<number, number>({
    port: 0,
    local: { module: SQUARE, count: 2 },
  });
  await server.ready(2);
  const never = module("export default () => new Promise(() => {})");
  server.spawn(never, { count: 1, name: "never" });
  await server.ready(3);
  const stuck = server.submit(1);
  stuck.catch(() => {});
  await server.abort(new Error("enough"));
  await assertRejects(() => stuck, Error, "enough");
});

test("spawn() and local check what they are given", async () => {
  await using server = listen<number, number>({ port: 0 });
  assertThrows(() => server.spawn("./handler.ts" as never), TypeError, "a URL");
  assertThrows(() => server.spawn(SQUARE, { count: 0 }), RangeError);
  assertThrows(() => server.spawn(SQUARE, { cores: 2 } as never), TypeError);
  const local = (local: unknown) => () =>
    listen({ port: 0, local: local as { module: URL } });
  assertThrows(local({}), TypeError, "module");
  assertThrows(local({ module: "./x.ts" }), TypeError, "a URL");
  assertThrows(local({ module: SQUARE, count: 0.5 }), RangeError);
  await using folder = await Folder.make();
  const path = `${folder.path}/socket`;
  const listener = Deno.listen({ transport: "unix", path }) as Deno.Listener;
  await using unix = new Server(listener);
  assertThrows(() => unix.spawn(SQUARE), TypeError, "expected TCP");
  assertThrows(() => unix.loopback(), TypeError, "expected TCP");
});

test("spawn(): many crashes at once start one thread again", async () => {
  const server = listen<number, number>({ port: 0 });
  server.spawn(
    module(`export default (n) => {
      for (let i = 0; i < 3; i++) Promise.reject(new Error("crash " + i));
      return new Promise(() => {});
    }`),
    { count: 1 },
  );
  const failure = await assertRejects(() => server.submit(1), ItemFailure);
  assert(failure.error instanceof PoisonItemError, failure.message);
  assertEquals(failure.error.attempts.length, 3);
  await server.ready();
  assertEquals(server.workers.length, 1);
  await server.abort();
});
