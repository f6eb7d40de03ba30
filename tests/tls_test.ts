import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  Client,
  type ClientEvent,
  connect,
  HandshakeError,
  InsecureBindError,
  listen,
  Server,
  type ServerEvent,
  work,
} from "../mod.ts";
import { handshakeTls } from "../internal/tls_handshake.ts";
import { Authority } from "./_support/certificates.ts";
import { frame, payload, ScriptedPeer, T } from "./_support/scripted_peer.ts";
import { until, within } from "./_support/within.ts";

const authority = await Authority.create("distchan test authority");
const other = await Authority.create("another authority");
const certificate = await authority.issue();
const caCerts = [authority.cert];

function portOf(server: { addr: Deno.Addr }): number {
  return (server.addr as Deno.NetAddr).port;
}

Deno.test("TLS: listen() with cert and key, work() and connect() with caCerts", async () => {
  const server = listen<string, string>({ port: 0, ...certificate });
  const port = portOf(server);
  for (const hostname of ["127.0.0.1", "localhost"]) {
    const client = await connect({ port, hostname, tls: { caCerts } });
    await client.close();
  }
  const done = work<string, string>(
    { port, tls: { caCerts } },
    (text) => text.toUpperCase(),
  );
  const long = "x".repeat(1_000_000);
  assertEquals(await server.submit(long), long.toUpperCase());
  const bytes = "y".repeat(100);
  const results = await Array.fromAsync(
    server.map(new Array(1000).fill(bytes)),
  );
  assertEquals(results.length, 1000);
  await server.close();
  await done;
});

Deno.test("TLS: a dashboard off loopback has the server's certificate", async () => {
  const absent: object = { cert: undefined, key: undefined };
  await using server = listen({
    port: 0,
    ...certificate,
    secret: "of the page",
    dashboard: { port: 0, hostname: "0.0.0.0", ...absent },
  });
  using client = Deno.createHttpClient({ caCerts });
  const { port } = server.dashboardAddr!;
  const response = await fetch(`https://localhost:${port}/healthz`, { client });
  assertEquals([response.status, await response.text()], [200, "open\n"]);
});

Deno.test("TLS: a dashboard off loopback without a secret is told so", () => {
  const dashboard = { port: 0, hostname: "0.0.0.0" };
  const error = assertThrows(
    () => listen({ port: 0, ...certificate, dashboard }),
    InsecureBindError,
    "Cannot open a dashboard on 0.0.0.0: ",
  );
  assert(!error.message.includes("nor TLS"), "TLS is set");
});

Deno.test("TLS: a listener and a connection that are handed in", async () => {
  const listener = Deno.listenTls({
    hostname: "127.0.0.1",
    port: 0,
    ...certificate,
  });
  const server = new Server<number, number>(listener);
  const conn = await Deno.connectTls({
    hostname: "localhost",
    port: listener.addr.port,
    caCerts,
  });
  const client = new Client<number, number>(conn);
  const done = client.work((n) => n + 1);
  assertEquals(await server.submit(1), 2);
  await server.close();
  await done;
});

Deno.test("TLS: a client that waits for the rest of a frame says so", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  server.answersPings = false;
  const client = new Client<string, string>(
    Object.assign(conn, { handshake: () => Promise.resolve({}) }),
  );
  const done = client.work((text) => text.toUpperCase());
  await server.greet();
  await server.expect(T.CREDIT);
  for (const delivery of [0, 1]) {
    const item = frame(T.ITEM, 1, 1, delivery, delivery, payload("word"));
    await server.send(item.subarray(0, 9));
    // Once a frame, and never answered: whoever answers would have to wait.
    assertEquals((await server.expect(T.PONG)).fields, [0]);
    await server.send(item.subarray(9, 10));
    await server.send(item.subarray(10));
    const { fields } = await server.expect(T.RESULT);
    assertEquals(fields, [delivery, payload("WORD")]);
  }
  // What the server has asked for comes first.
  const item = frame(T.ITEM, 1, 1, 2, 2, payload("word"));
  await server.send(frame(T.PING, 7), item.subarray(0, 9));
  assertEquals((await server.expect(T.PONG)).fields, [7]);
  await server.send(item.subarray(9));
  await server.expect(T.RESULT);
  await server.say(T.END);
  await server.expect(T.GOODBYE);
  await server.say(T.GOODBYE, 0, "");
  await done;
});

Deno.test("TLS: with a secret, both ends are known to each other", async () => {
  const events: ServerEvent[] = [];
  const server = listen<number, number>({
    port: 0,
    ...certificate,
    secret: "sesame",
    onEvent: (event) => events.push(event),
  });
  const options = { port: portOf(server), tls: { caCerts } };
  for (const secret of [{}, { secret: "guess" }]) {
    const error = await assertRejects(
      () => connect({ ...options, ...secret }),
      HandshakeError,
    );
    assertEquals(error.code, "auth");
  }
  assertEquals(
    events.map((e) => e.type === "rejected" && e.code),
    ["auth", "auth"],
  );
  const done = work<number, number>(
    { ...options, secret: "sesame" },
    (n) => n + 1,
  );
  assertEquals(await server.submit(1), 2);
  await server.close();
  await done;
});

Deno.test("TLS: a certificate that isn't trusted is an error with a name", async () => {
  const events: ServerEvent[] = [];
  await using server = listen({
    port: 0,
    ...certificate,
    onEvent: (event) => events.push(event),
  });
  const port = portOf(server);
  for (const tls of [true, { caCerts: [other.cert] }]) {
    const error = await assertRejects(
      () => connect({ port, tls }),
      HandshakeError,
      "the server's certificate is not accepted",
    );
    assertEquals(error.code, "auth");
    assertStringIncludes(error.message, "UnknownIssuer");
  }
  await until(() => events.length >= 2, "the server tells of both");
  for (const event of events) assertEquals(event.type, "rejected");
});

Deno.test("TLS: a certificate for another name is an error with a name", async () => {
  const elsewhere = await authority.issue("elsewhere.example");
  await using server = listen({ port: 0, ...elsewhere });
  const error = await assertRejects(
    () =>
      connect({
        port: portOf(server),
        hostname: "localhost",
        tls: { caCerts },
      }),
    HandshakeError,
  );
  assertEquals(error.code, "auth");
  assertStringIncludes(error.message, "not valid for name");
});

Deno.test("TLS: work() gives up on a certificate that isn't trusted, at the second time", async () => {
  await using server = listen({ port: 0, ...certificate });
  const events: ClientEvent[] = [];
  const error = await assertRejects(
    () =>
      within(
        work({
          port: portOf(server),
          tls: true,
          reconnect: { minDelayMs: 1 },
          onEvent: (event) => events.push(event),
        }, (x) => x),
        10_000,
        "work() gives up",
      ),
    HandshakeError,
  );
  assertEquals(error.code, "auth");
  assertEquals(events.map((event) => event.type), ["reconnecting"]);
});

Deno.test("TLS on one end only is an error on both, and the server goes on", async () => {
  const events: ServerEvent[] = [];
  const onEvent = (event: ServerEvent) => void events.push(event);
  await using secure = listen<number, number>({
    port: 0,
    ...certificate,
    onEvent,
  });
  await using plain = listen({ port: 0, onEvent });
  await assertRejects(
    () => connect({ port: portOf(plain), tls: { caCerts } }),
    HandshakeError,
    "TLS",
  );
  await assertRejects(
    () => connect({ port: portOf(secure) }),
    HandshakeError,
  );
  await until(() => events.length >= 2, "both servers tell of it");
  work<number, number>(
    { port: portOf(secure), tls: { caCerts } },
    (n) => n + 1,
  );
  assertEquals(await secure.submit(1), 2);
});

Deno.test("TLS: connect() waits no longer than handshakeTimeoutMs, and its signal", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const options = { port: listener.addr.port, tls: true };
  const accepted: Promise<Deno.Conn>[] = [];
  accepted.push(listener.accept());
  const error = await assertRejects(
    () => connect({ ...options, handshakeTimeoutMs: 50 }),
    HandshakeError,
  );
  assertEquals(error.code, "timeout");
  accepted.push(listener.accept());
  const controller = new AbortController();
  const connecting = connect({ ...options, signal: controller.signal });
  await accepted[1];
  controller.abort(new Error("never mind"));
  const ended = within(connecting, 2000, "before the time for it is over");
  await assertRejects(() => ended, Error, "never mind");
  for (const conn of accepted) (await conn).close();
});

Deno.test("TLS: a handshake that is done and closed in the same turn is too late", async () => {
  const leave = new AbortController();
  for (const stop of [undefined, new Error("never mind")]) {
    const done = Promise.withResolvers<Deno.TlsHandshakeInfo>();
    const conn = {
      handshake: () => done.promise,
      close: () => done.resolve({ alpnProtocol: null }),
    } as Deno.TlsConn;
    const handshake = handshakeTls(conn, {
      signal: leave.signal,
      timeoutMs: stop === undefined ? 1 : 60_000,
    });
    if (stop !== undefined) leave.abort(stop);
    const error = await assertRejects(() => handshake, Error);
    if (stop !== undefined) assertEquals(error, stop);
    else assertEquals((error as HandshakeError).code, "timeout");
  }
});

Deno.test("TLS: a peer that says nothing doesn't hold up the others", async () => {
  await using server = listen<number, number>({ port: 0, ...certificate });
  const port = portOf(server);
  const silent = await Promise.all(
    new Array(8).fill(0).map(() =>
      Deno.connect({ hostname: "127.0.0.1", port })
    ),
  );
  work<number, number>({ port, tls: { caCerts } }, (n) => n + 1);
  assertEquals(await server.submit(1), 2);
  for (const conn of silent) conn.close();
});

Deno.test("TLS: work() gives up at once on caCerts that can't be read", async () => {
  await using server = listen({ port: 0, ...certificate });
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
  await assertRejects(
    () =>
      within(
        work(
          { port: portOf(server), tls: { caCerts: [broken] } },
          (x) => x,
        ),
        5000,
        "work() gives up",
      ),
    TypeError,
    "Cannot use connect options: tls: ",
  );
});

Deno.test("TLS: work() tries again if the connection is gone before TLS begins", async () => {
  // As of a proxy with no server behind it, which resets at once: Deno asks the
  // system for the peer's address, and there is none any more.
  await using server = listen<number, number>({ port: 0, ...certificate });
  const { startTls } = Deno;
  Deno.startTls = () => {
    Deno.startTls = startTls;
    const gone = new Deno.errors.NotConnected("not connected (os error 107)");
    return Promise.reject(Object.assign(gone, { code: "ENOTCONN" }));
  };
  try {
    const working = work<number, number>({
      port: portOf(server),
      tls: { caCerts },
      reconnect: { minDelayMs: 5, maxDelayMs: 5 },
    }, (n) => n + 1);
    const answer = Promise.race([server.submit(1), working]);
    assertEquals(await within(answer, 5000, "another attempt"), 2);
  } finally {
    Deno.startTls = startTls;
  }
});

Deno.test("TLS options are checked", async () => {
  const port = 0;
  assertThrows(() => listen({ port, cert: certificate.cert }), TypeError);
  assertThrows(() => listen({ port, key: certificate.key }), TypeError);
  assertThrows(() => listen({ port, cert: "no", key: "none" }), TypeError);
  for (
    const tls of ["yes", { caCerts: "text" }, { caCerts: ["text"] }, { ca: [] }]
  ) {
    await assertRejects(
      () => connect({ port: 1, tls: tls as never }),
      TypeError,
    );
  }
});

Deno.test("TLS: a certificate and a key that can't be used are named", async () => {
  const { cert, key } = certificate;
  const { key: another } = await authority.issue();
  const label = "PRIVATE KEY", encrypted = `ENCRYPTED ${label}`;
  for (
    const tls of [
      { cert, key: another },
      { cert, key: key.replaceAll(label, encrypted) },
      { cert: cert.replace("-----END", "---END"), key },
    ]
  ) {
    assertThrows(
      () => listen({ port: 0, ...tls }),
      Deno.errors.InvalidData,
      "Cannot use listen options: cert and key: ",
    );
    assertThrows(
      () => listen({ port: 0, dashboard: { port: 0, ...tls } }),
      Deno.errors.InvalidData,
      "Cannot use dashboard options: cert and key: ",
    );
  }
  // What has to do with neither is left as it is.
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  assertThrows(
    () => listen({ port: taken.addr.port, cert, key }),
    Deno.errors.AddrInUse,
  );
});

Deno.test("InsecureBindError: an open address needs a secret, TLS or insecure", async () => {
  const options = { hostname: "0.0.0.0", port: 0 };
  const error = assertThrows(() => listen(options), InsecureBindError);
  assertEquals(error.hostname, "0.0.0.0");
  for (
    const enough of [{ secret: "s" }, certificate, { insecure: true }]
  ) {
    await using server = listen({ ...options, ...enough });
    assert(portOf(server) > 0);
  }
  const plain = Deno.listen(options);
  assertThrows(() => new Server(plain), InsecureBindError);
  await using _insecure = new Server(plain, { insecure: true });
  await using _tls = new Server(
    Deno.listenTls({ ...options, ...certificate }),
  );
  for (const hostname of ["127.0.0.1", "localhost"]) {
    await using _server = listen({ hostname, port: 0 });
  }
});

Deno.test("InsecureBindError: IPv6 and unix sockets", async () => {
  for (const hostname of ["::", "0:0:0:0:0:0:0:0"]) {
    assertThrows(() => listen({ hostname, port: 0 }), InsecureBindError);
  }
  const plain = Deno.listen({ hostname: "::", port: 0 });
  assertThrows(() => new Server(plain), InsecureBindError);
  plain.close();
  // macOS has no other address of loopback by itself.
  const other = Deno.build.os === "darwin" ? [] : ["127.0.0.2"];
  for (const hostname of ["::1", ...other]) {
    await using _server = listen({ hostname, port: 0 });
    await using _handed = new Server(Deno.listen({ hostname, port: 0 }));
  }
  const folder = await Deno.makeTempDir();
  const path = `${folder}/socket`;
  const transport = "unix" as const;
  const listener = Deno.listen({ transport, path });
  const server = new Server<number, number>(listener as Deno.Listener);
  const conn = await Deno.connect({ transport, path });
  const done = new Client<number, number>(conn as Deno.Conn).work((n) => n + 1);
  assertEquals(await server.submit(1), 2);
  await server.close();
  await done;
  await Deno.remove(folder, { recursive: true });
});

Deno.test("TLS: a host name that no certificate can have leaves no connection", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const accepting = listener.accept();
  await assertRejects(
    () => connect({ hostname: "127.1", port, tls: true }),
    TypeError,
    "Cannot use connect options: tls: Invalid hostname",
  );
  using conn = await accepting;
  assertEquals(await conn.read(new Uint8Array(1)), null, "it is closed");
  listener.close();
});
