/** `listen()`, `connect()` and the function `work()`, over TCP. */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import {
  type ClientEvent,
  connect,
  ConnectionLostError,
  HandshakeError,
  listen,
  type Server,
  type ServerOptions,
  work,
} from "../mod.ts";
import { REJECT_CODES } from "../internal/frame.ts";
import { range } from "./_support/channel_kit.ts";
import { freePort } from "./_support/examples.ts";
import { ScriptedPeer, T } from "./_support/scripted_peer.ts";
import { Gate, stateOf, until, within } from "./_support/within.ts";

const fast = { minDelayMs: 5, maxDelayMs: 20 };

function portOf(server: Server<never, never> | Server): number {
  return (server.addr as Deno.NetAddr).port;
}

function start<Item, Result>(
  options: ServerOptions<Item, Result> & { port?: number } = {},
): { server: Server<Item, Result>; port: number } {
  const server = listen<Item, Result>({ port: 0, ...options });
  return { server, port: portOf(server as Server) };
}

Deno.test("listen() binds 127.0.0.1, and port 0 is any that is free", async () => {
  const { server } = start();
  const addr = server.addr as Deno.NetAddr;
  assertEquals(addr.hostname, "127.0.0.1");
  assert(addr.port > 0);
  await server.close();
});

Deno.test("connect() resolves once the handshake is done", async () => {
  const { server, port } = start<number, number>();
  const client = await connect<number, number>({ port });
  await client.opened;
  assertEquals(server.workers.length, 1);
  await client.close();
  await server.close();
});

Deno.test("connect() is one attempt: nobody there rejects", async () => {
  await assertRejects(
    () => connect({ port: freePort() }),
    Deno.errors.ConnectionRefused,
  );
});

Deno.test("work() tries again if a connection is lost before it is set up", async () => {
  // As on macOS: a socket whose peer has reset it takes no options any more.
  const { server, port } = start<number, number>();
  const { connect } = Deno;
  let connections = 0;
  Deno.connect = (async (options: Deno.ConnectOptions) => {
    const conn = await connect(options);
    if (++connections > 1) return conn;
    conn.close();
    return Object.assign(conn, {
      setNoDelay() {
        throw new TypeError("Invalid argument (os error 22)");
      },
    });
  }) as typeof Deno.connect;
  try {
    const working = work<number, number>(
      { port, reconnect: fast },
      (n) => n * 2,
    );
    assertEquals(await server.submit(21), 42);
    assertEquals(connections, 2);
    await server.close();
    await working;
  } finally {
    Deno.connect = connect;
  }
});

Deno.test("connect() takes reconnect, without effect", async () => {
  await assertRejects(
    () => connect({ port: freePort(), reconnect: { minDelayMs: 1 } }),
    Deno.errors.ConnectionRefused,
  );
});

Deno.test("connect(): a signal ends the attempt with its reason", async () => {
  const reason = new Error("no time");
  const { server, port } = start();
  assertStrictEquals(
    await connect({ port, signal: AbortSignal.abort(reason) }).catch((e) => e),
    reason,
  );
  // A listener that never does its part of the handshake.
  const mute = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const controller = new AbortController();
  const connecting = connect({
    port: mute.addr.port,
    signal: controller.signal,
  }).catch((e) => e);
  const conn = await mute.accept();
  await conn.read(new Uint8Array(4096)); // its HELLO
  controller.abort(reason);
  assertStrictEquals(await within(connecting, 2000, "it ends"), reason);
  const read = conn.read(new Uint8Array(1));
  assertEquals(await within(read, 2000, "the connection is closed"), null);
  conn.close();
  mute.close();
  await server.close();
});

Deno.test("connect(): a signal is heard as the connection opens", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const { connect: dial } = Deno;
  try {
    for (const ticks of range(12)) {
      const controller = new AbortController();
      const reason = new Error(`after ${ticks} microtasks`);
      Deno.connect = (async (options: Deno.ConnectOptions) => {
        const conn = await dial(options);
        let later = Promise.resolve();
        for (let i = 0; i < ticks; i++) later = later.then(() => {});
        later.then(() => controller.abort(reason));
        return conn;
      }) as typeof Deno.connect;
      const { signal } = controller;
      const connecting = connect({ port, signal }).catch((error) => error);
      using _accepted = await listener.accept(); // nobody answers
      assertEquals(await within(connecting, 1000, reason.message), reason);
    }
  } finally {
    Deno.connect = dial;
  }
});

Deno.test("connect(): a signal that aborts as the connection is made leaves none open", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const { connect: dial } = Deno;
  const controller = new AbortController(), { signal } = controller;
  const reason = new Error("no time");
  try {
    // Deno 2.9.6 does so, and may hear of the connection behind the abort.
    Deno.connect = (async (options: Deno.ConnectOptions) => {
      const conn = await dial({
        ...options,
        signal: new AbortController().signal,
      });
      controller.abort(reason);
      options.signal!.throwIfAborted();
      return conn;
    }) as typeof Deno.connect;
    const connecting = connect({ port, signal }).catch((error) => error);
    using accepted = await listener.accept();
    assertStrictEquals(await within(connecting, 1000, "it ends"), reason);
    const read = accepted.read(new Uint8Array(1));
    assertEquals(await within(read, 1000, "the connection is closed"), null);
  } finally {
    Deno.connect = dial;
  }
});

Deno.test("connect() to what doesn't answer times out", async () => {
  const mute = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const connecting = connect({ port: mute.addr.port, handshakeTimeoutMs: 80 });
  const error = await assertRejects(() => connecting, HandshakeError);
  assertEquals(error.code, "timeout");
  (await mute.accept()).close();
  mute.close();
});

Deno.test("connect() to another protocol is a HandshakeError", async () => {
  const http = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const connecting = connect({ port: http.addr.port });
  connecting.catch(() => {});
  const conn = await http.accept();
  await conn.write(
    new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"),
  );
  const error = await assertRejects(() => connecting, HandshakeError);
  assertEquals(error.code, "protocol");
  conn.close();
  http.close();
});

Deno.test("work() resolves when the server has no more work", async () => {
  const { server, port } = start<number, number>();
  const working = work<number, number>({ port }, (n) => n * 2);
  const results = await Array.fromAsync(
    ReadableStream.from(range(100)).pipeThrough(server),
  );
  assertEquals(results, range(100).map((n) => n * 2));
  await working;
  await server.closed;
});

Deno.test("work() may start before its server", async () => {
  const port = freePort();
  const events: ClientEvent[] = [];
  const tried = Promise.withResolvers<void>();
  const working = work<number, number>({
    port,
    reconnect: fast,
    onEvent: (event) => {
      events.push(event);
      if (event.type === "reconnecting" && event.attempt === 3) tried.resolve();
    },
  }, (n) => n + 1);
  await tried.promise;
  const { server } = start<number, number>({ port });
  assertEquals(await server.submit(1), 2);
  await server.close();
  await working;
  assertEquals(events.at(-1)?.type, "disconnected");
  assert(events.some((e) => e.type === "connected"));
});

Deno.test("work() goes on over a restarted server", async () => {
  const first = start<number, number>();
  const { port } = first;
  const working = work<number, number>({ port, reconnect: fast }, (n) => n + 1);
  assertEquals(await first.server.submit(1), 2);
  await first.server.abort(new Error("crash"));
  const second = start<number, number>({ port });
  assertEquals(await second.server.submit(2), 3);
  await second.server.abort(new Error("crash"));
  const third = start<number, number>({ port });
  assertEquals(
    await Array.fromAsync(third.server.map(range(500))),
    range(500).map((n) => n + 1),
    "with full credit again",
  );
  await third.server.close();
  await working;
});

Deno.test("work() reconnects when only its connection is lost", async () => {
  const { server, port } = start<number, number>();
  const gate = new Gate();
  const proxy = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const working = work<number, number>({
    port: proxy.addr.port,
    reconnect: fast,
  }, async (n) => {
    await gate.pass();
    return n + 1;
  });
  const first = await proxied(proxy, port);
  const result = server.submit(1);
  await until(() => gate.passing === 1, "the item is executed");
  first.close();
  const second = await proxied(proxy, port);
  gate.open();
  assertEquals(await result, 2);
  await server.close();
  await working;
  second.close();
  proxy.close();
});

/** Accepts a connection and joins it to another. */
async function proxied(
  listener: Deno.Listener,
  port: number,
): Promise<{ close(): void }> {
  const [outer, inner] = await Promise.all([
    listener.accept(),
    Deno.connect({ hostname: "127.0.0.1", port }),
  ]);
  const close = () => {
    for (const conn of [outer, inner]) {
      try {
        conn.close();
      } catch {
        // Closed already.
      }
    }
  };
  outer.readable.pipeTo(inner.writable).catch(() => {}).then(close);
  inner.readable.pipeTo(outer.writable).catch(() => {}).then(close);
  return { close };
}

Deno.test("work(): reconnect: false gives up at once", async () => {
  await assertRejects(
    () => work({ port: freePort(), reconnect: false }, () => {}),
    Deno.errors.ConnectionRefused,
  );
  const { server, port } = start();
  const working = work({ port, reconnect: false }, () => {});
  working.catch(() => {});
  await server.ready();
  await server.abort(new Error("crash"));
  const error = await assertRejects(() => working, ConnectionLostError);
  assertEquals(error.code, "aborted");
  assertEquals(error.reason, "crash");
});

Deno.test("work(): maxAttempts gives up with the last error", async () => {
  let attempts = 0;
  await assertRejects(
    () =>
      work({
        port: freePort(),
        reconnect: { ...fast, maxAttempts: 4 },
        onEvent: ({ type }) => {
          if (type === "reconnecting") attempts++;
        },
      }, () => {}),
    Deno.errors.ConnectionRefused,
  );
  assertEquals(attempts, 3, "three more after the first");
});

Deno.test("work(): maxAttempts counts attempts, not the connection before", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const reconnect = { ...fast, maxAttempts: 1 };
  const working = work({ port, reconnect }, () => {});
  for (const isLast of [false, false, true]) {
    const accepted = within(listener.accept(), 10_000, "an attempt");
    await using peer = new ScriptedPeer(await accepted);
    await peer.greet();
    await peer.until(T.CREDIT);
    if (!isLast) continue; // it is lost
    await peer.say(T.END);
    await peer.until(T.GOODBYE);
    await peer.say(T.GOODBYE, 0, "");
  }
  await within(working, 10_000, "the end");
});

Deno.test("work(): maxElapsedMs gives up", async () => {
  const started = performance.now();
  await assertRejects(
    () =>
      work({
        port: freePort(),
        reconnect: { ...fast, maxElapsedMs: 100 },
      }, () => {}),
    Deno.errors.ConnectionRefused,
  );
  assert(performance.now() - started < 2000);
});

Deno.test("work(): what can't heal ends it at once", async () => {
  const { server, port } = start({ signature: "one" });
  let attempts = 0;
  const error = await assertRejects(
    () =>
      work({
        port,
        signature: "two",
        reconnect: fast,
        onEvent: ({ type }) => {
          if (type === "reconnecting") attempts++;
        },
      }, () => {}),
    HandshakeError,
  );
  assertEquals(error.code, "signature");
  assertEquals(attempts, 0);
  await server.close();
});

Deno.test("work(): what can't be a host's name ends it at once", async () => {
  for (const hostname of ["http://127.0.0.1", "127.0.0.1:80", "a b"]) {
    const working = work({ hostname, port: 1, reconnect: fast }, () => {});
    const error = await within(assertRejects(() => working), 5000, hostname);
    assertStringIncludes((error as Error).message, `'${hostname}'`);
  }
});

Deno.test("work(): an address to which no route leads is tried again", async () => {
  // Of this one, without its interface, Linux says EINVAL: for Deno a TypeError.
  const over = new AbortController();
  const again = new Gate();
  const working = work({
    hostname: "fe80::1",
    port: 1,
    handshakeTimeoutMs: 1000,
    reconnect: fast,
    signal: over.signal,
    onEvent: ({ type }) => {
      if (type === "reconnecting") again.open();
    },
  }, () => {});
  await within(
    Promise.race([again.pass(), working]),
    10_000,
    "another attempt",
  );
  over.abort(new Error("enough"));
  await assertRejects(() => working, Error, "enough");
});

Deno.test("work(): a wrong secret ends it at the second time", async () => {
  const { server, port } = start({ secret: "right" });
  let attempts = 0;
  const error = await assertRejects(
    () =>
      work({
        port,
        secret: "wrong",
        reconnect: fast,
        onEvent: ({ type }) => {
          if (type === "reconnecting") attempts++;
        },
      }, () => {}),
    HandshakeError,
  );
  assertEquals(error.code, "auth");
  assertEquals(attempts, 1);
  await server.close();
});

Deno.test("work(): a refused secret is forgotten once one was taken", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const working = work({ port, reconnect: fast }, () => {});
  const accept = async () => new ScriptedPeer(await listener.accept());
  for (let i = 0; i < 2; i++) {
    await using refusing = await accept();
    await refusing.expect(T.HELLO);
    await refusing.say(T.REJECT, REJECT_CODES.indexOf("auth"), "no");
    await refusing.rest();
    await using taking = await accept();
    await taking.greet();
    await taking.until(T.CREDIT);
    if (i === 0) continue; // it is lost
    await taking.say(T.END);
    await taking.until(T.GOODBYE);
    await taking.say(T.GOODBYE, 0, "");
    await within(working, 10_000, "the end");
  }
});

Deno.test("work(): its signal ends the wait for a server", async () => {
  const controller = new AbortController();
  const working = work({ port: freePort() }, () => {}, {
    signal: controller.signal,
  });
  assertEquals(await stateOf(working), "pending");
  controller.abort();
  await within(working, 1000, "work() resolves");
});

Deno.test("work(): its signal leaves, and does not reconnect", async () => {
  const { server, port } = start<number, number>();
  const controller = new AbortController();
  const working = work<number, number>({ port, reconnect: fast }, (n) => n, {
    signal: controller.signal,
  });
  assertEquals(await server.submit(1), 1);
  controller.abort();
  await within(working, 1000, "work() resolves");
  await until(() => server.workers.length === 0, "it is gone");
  await server.close();
});

Deno.test("work(): the connection's signal ends the attempts with its reason", async () => {
  const controller = new AbortController();
  const reason = new Error("stop trying");
  const working = work(
    { port: freePort(), signal: controller.signal },
    () => {},
  );
  assertEquals(await stateOf(working), "pending");
  controller.abort(reason);
  assertStrictEquals(
    await within(working.catch((e) => e), 1000, "work() rejects"),
    reason,
  );
});

Deno.test("work(): the connection's signal leaves once there is one", async () => {
  const { server, port } = start<number, number>();
  const controller = new AbortController();
  const begun = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  const working = work<number, number>(
    { port, reconnect: fast, signal: controller.signal },
    async (n) => {
      begun.resolve();
      await finish.promise;
      return n;
    },
  );
  const result = server.submit(1);
  await begun.promise;
  controller.abort();
  assertEquals(await stateOf(working), "pending");
  finish.resolve();
  await within(working, 1000, "work() resolves");
  assertEquals(await result, 1);
  await until(() => server.workers.length === 0, "it is gone");
  await server.close();
});

Deno.test("work(): the handler's signal aborts when the connection is lost", async () => {
  const { server, port } = start<number, number>();
  const aborted = Promise.withResolvers<unknown>();
  const working = work<number, number>({ port, reconnect: false }, (
    _,
    { signal },
  ) => {
    signal.addEventListener("abort", () => aborted.resolve(signal.reason));
    return new Promise<never>(() => {});
  });
  working.catch(() => {});
  server.send(1);
  await until(() => server.stats().inFlight === 1, "the item is in flight");
  await server.abort();
  assertInstanceOf(await within(aborted.promise, 2000, "abort"), Error);
  await assertRejects(() => working, ConnectionLostError);
});

Deno.test("HandshakeError names both sides' values: signature, codec, transforms", async () => {
  const codec = {
    name: "mine",
    encode: () => new Uint8Array(),
    decode: () => null,
  };
  const transforms = [{
    name: "noop",
    open: () => ({
      encode: (bytes: Uint8Array) => bytes,
      decode: (bytes: Uint8Array) => bytes,
    }),
  }];
  const rejected: string[] = [];
  const { server, port } = start({
    signature: "ours",
    onEvent: (event) => {
      if (event.type === "rejected") rejected.push(event.code);
    },
  });
  const cases = [
    ["signature", { signature: "theirs" }, ['"theirs"', '"ours"']],
    ["codec", { signature: "ours", codec }, ['"mine"', '"cbor"']],
    ["transforms", { signature: "ours", transforms }, ['["noop"]', "[]"]],
  ] as const;
  for (const [code, options, texts] of cases) {
    const error = await assertRejects(
      () => connect({ port, ...options }),
      HandshakeError,
    );
    assertEquals(error.code, code);
    for (const text of texts) {
      assert(error.message.includes(text), error.message);
    }
  }
  assertEquals(rejected, ["signature", "codec", "transforms"]);
  assertEquals(server.workers, []);
  await server.close();
});

Deno.test("A client's opened and closed reject with the HandshakeError", async () => {
  const { Client } = await import("../mod.ts");
  const { server, port } = start({ signature: "ours" });
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  const client = new Client(conn);
  const error = await assertRejects(() => client.opened, HandshakeError);
  assertStrictEquals(await client.closed.catch((e) => e), error);
  const read = client.readable.getReader().read();
  assertStrictEquals(await read.catch((e) => e), error);
  await client.abort();
  await server.close();
});

Deno.test("maxConnections: one more is refused with code full, and work() waits", async () => {
  const { server, port } = start<number, number>({ maxConnections: 1 });
  const one = await connect<number, number>({ port });
  const error = await assertRejects(() => connect({ port }), HandshakeError);
  assertEquals(error.code, "full");
  const working = work<number, number>({ port, reconnect: fast }, (n) => n);
  assertEquals(await stateOf(working), "pending");
  await one.close();
  assertEquals(await server.submit(1), 1);
  await server.close();
  await working;
});

Deno.test("maxHandshakes: past it the oldest is dropped", async () => {
  const { server, port } = start({ maxHandshakes: 2 });
  const dial = () => Deno.connect({ hostname: "127.0.0.1", port });
  const mute = [await dial(), await dial(), await dial()];
  const buffer = new Uint8Array(1000);
  const read = async (conn: Deno.Conn) => {
    while (await conn.read(buffer) !== null);
  };
  await within(read(mute[0]!), 3000, "the oldest is closed");
  const client = await connect({ port });
  await client.close();
  for (const conn of mute) conn.close();
  await server.close();
});

Deno.test("Differing maxFrameBytes are no mismatch: each sender keeps to the other's", async () => {
  const { server, port } = start<string, string>({ maxFrameBytes: 10_000 });
  const working = work<string, string>(
    { port, maxFrameBytes: 100_000, reconnect: false },
    (s) => s === "short" ? "x".repeat(20_000) : `${s.length}`,
  );
  assertEquals(await server.submit("x".repeat(90_000)), "90000");
  const tooLong = await server.submit("x".repeat(100_000)).catch((e) => e);
  assertEquals(tooLong.error.name, "FrameTooLargeError");
  const tooLongBack = await server.submit("short").catch((e) => e);
  assertEquals(tooLongBack.error.name, "FrameTooLargeError");
  assertEquals(await server.submit("x"), "1");
  await server.close();
  await working;
});
