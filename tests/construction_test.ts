/**
 * What throws at construction: design section 2. Each single option is in
 * `options_test.ts`.
 */
import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import {
  Client,
  type Codec,
  connect,
  gzip,
  InsecureBindError,
  listen,
  Server,
  type Transform,
  work,
} from "../mod.ts";
import { FrameType } from "../internal/frame.ts";
import { listenOn } from "./_support/channel_kit.ts";
import { MemoryListener, memoryPair } from "./_support/memory_pair.ts";
import { type Direction, relay } from "./_support/relay.ts";

const UNKNOWN = { unknown: 1 } as object;
const OUT_OF_RANGE = { maxFrameBytes: -1 };

Deno.test("new Server() throws, and leaves the listener to its owner", () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  assertThrows(() => new Server(listener, UNKNOWN), TypeError, "unknown");
  assertThrows(() => new Server(listener, OUT_OF_RANGE), RangeError);
  listener.close();
});

Deno.test("listen() throws, and listens nowhere", () => {
  assertThrows(() => listen({ port: 0, ...UNKNOWN }), TypeError, "unknown");
  assertThrows(() => listen({ port: 0, ...OUT_OF_RANGE }), RangeError);
  assertThrows(() => listen({ port: 70_000 }), RangeError);
  assertThrows(() => listen({} as { port: number }), TypeError);
  assertThrows(() => listen({ port: 0, cert: "PEM" }), TypeError);
});

Deno.test("maxInFlightBytes below maxFrameBytes is a RangeError", async () => {
  assertThrows(
    () => listen({ port: 0, maxInFlightBytes: 4 * 1024 * 1024 - 1 }),
    RangeError,
  );
  assertThrows(
    () => listen({ port: 0, maxFrameBytes: 9 * 1024 * 1024 }),
    RangeError,
  );
  const server = listen({ port: 0, maxInFlightBytes: 4 * 1024 * 1024 });
  await server.close();
});

Deno.test("new Client() throws, and leaves the connection to its owner", () => {
  const [conn, other] = memoryPair();
  assertThrows(() => new Client(conn, UNKNOWN), TypeError, "unknown");
  assertThrows(() => new Client(conn, OUT_OF_RANGE), RangeError);
  conn.close();
  other.close();
});

Deno.test("new Server() and new Client() say what they expected", () => {
  for (
    const [wrong, got] of [[undefined, "undefined"], [null, "null"], [
      {},
      "object",
    ]]
  ) {
    assertThrows(
      () => new Server(wrong as Deno.Listener),
      TypeError,
      `expected a listener, got ${got}`,
    );
    assertThrows(
      () => new Client(wrong as Deno.Conn),
      TypeError,
      `expected a connection, got ${got}`,
    );
  }
});

Deno.test("connect() and work() reject", async () => {
  const noop = () => {};
  await assertRejects(() => connect({ port: 1, ...UNKNOWN }), TypeError);
  await assertRejects(() => connect({ port: 1, ...OUT_OF_RANGE }), RangeError);
  await assertRejects(() => work({ port: 1, ...UNKNOWN }, noop), TypeError);
  await assertRejects(() => work({ port: 1 }, noop, UNKNOWN), TypeError);
  await assertRejects(
    () => work({ port: 1 }, noop, { concurrency: 0 }),
    RangeError,
  );
  await assertRejects(
    () => work({ port: 1 }, "handler" as unknown as () => void),
    TypeError,
  );
});

Deno.test("submit(), map(), ready() and close() check their options", async () => {
  await using server = listen<number, number>({ port: 0 });
  await assertRejects(() => server.submit(1, UNKNOWN), TypeError);
  await assertRejects(() => server.submit(1, { timeoutMs: -1 }), RangeError);
  assertThrows(() => server.map([], { ordered: "no" } as object), TypeError);
  assertThrows(() => server.map([], { window: 0 }), RangeError);
  await assertRejects(() => server.ready(-1), RangeError);
  await assertRejects(() => server.ready(1.5), RangeError);
  await assertRejects(() => server.ready("2" as never), TypeError, "a string");
  await assertRejects(() => server.close({ drainMs: -1 }), RangeError);
});

Deno.test("Options that are undefined count as left out", async () => {
  const options = {
    port: 0,
    hostname: undefined,
    secret: undefined,
    onEvent: undefined,
    heartbeat: undefined,
  };
  const server = listen(options as unknown as { port: number });
  await server.close();
});

Deno.test("InsecureBindError: other addresses need a secret, TLS or insecure", async () => {
  for (const hostname of ["0.0.0.0", "::", "192.168.1.5", "example.com"]) {
    const error = assertThrows(
      () => listen({ port: 0, hostname }),
      InsecureBindError,
    );
    assert(error.message.includes(hostname));
  }
  for (const hostname of ["127.0.0.1", "localhost", "LocalHost"]) {
    const server = listen({ port: 0, hostname });
    await server.close();
  }
  const one = listen({ port: 0, hostname: "0.0.0.0", insecure: true });
  const two = listen({ port: 0, hostname: "0.0.0.0", secret: "s" });
  await Promise.all([one.close(), two.close()]);
});

Deno.test("InsecureBindError: a listener of one's own is checked too", async () => {
  const listener = Deno.listen({ hostname: "0.0.0.0", port: 0 });
  assertThrows(() => new Server(listener), InsecureBindError);
  assertEquals(listener.addr.transport, "tcp", "it is still the caller's");
  const server = new Server(listener, { insecure: true });
  await server.close();
});

Deno.test("InsecureBindError: a vsock is open to other machines", () => {
  const addr: Deno.Addr = { transport: "vsock", cid: 3, port: 5678 };
  const listener = Object.assign(new MemoryListener(), { addr });
  assertThrows(() => new Server(listener), InsecureBindError, "vsock:3");
  new Server(listener, { secret: "s3cret" }).abort();
});

/** What a construction says that a handshake takes too many bytes for. */
function handshakeBytes(construct: () => void, expected: string): number {
  const { message } = assertThrows(construct, RangeError, expected);
  const pattern = /make a handshake of (\d+) bytes, limit is 4096$/;
  assertMatch(message, pattern);
  return Number(message.match(pattern)![1]);
}

Deno.test("what doesn't fit into a handshake is a RangeError on the end that says it", async () => {
  const [conn, other] = memoryPair();
  const long = "x".repeat(5000);
  const many = Array.from({ length: 1000 }, () => gzip());
  const codec: Codec<unknown> = {
    name: long,
    encode: () => new Uint8Array(),
    decode: () => null,
  };
  for (
    const options of [{ signature: long }, { transforms: many }, { codec }]
  ) {
    const to = { port: 1, ...options };
    const ours = "Cannot use server options: signature, codec, transforms make";
    assertGreater(handshakeBytes(() => listen({ ...to, port: 0 }), ours), 5000);
    const theirs = "options: signature, codec, transforms and name make";
    handshakeBytes(() => new Client(conn, options), `client ${theirs}`);
    await assertRejects(() => connect(to), RangeError, `connect ${theirs}`);
    await assertRejects(() => work(to, () => {}), RangeError, theirs);
  }
  // Characters aren't bytes.
  const signature = "я".repeat(2048);
  assertThrows(() => listen({ port: 0, signature }), RangeError);
  conn.close();
  other.close();
});

Deno.test("the longest handshake that is taken succeeds", async () => {
  for (const secret of [undefined, "s3cret"]) {
    const optionsOf = (length: number) => ({
      port: 0,
      signature: "x".repeat(length),
      ...(secret === undefined ? {} : { secret }),
    });
    const name = "n".repeat(10_000); // most of it is cut off
    const [conn, other] = memoryPair();
    const bytes = (length: number) => {
      const { port: _, ...options } = optionsOf(length);
      return handshakeBytes(() => new Client(conn, { ...options, name }), "");
    };
    const length = 4096 - (bytes(5000) - 5000);
    assertEquals(bytes(length + 1), 4097);
    conn.close();
    other.close();
    await using server = listen<number, number>(optionsOf(length));
    const { port } = server.addr as Deno.NetAddr;
    work<number, number>({ ...optionsOf(length), port, name }, (n) => n + 1);
    assertEquals(await server.submit(1), 2);
  }
});

Deno.test("a handshake is counted as what each end says in it", async () => {
  const same = (bytes: Uint8Array) => bytes;
  const plain: Transform = {
    name: "plain",
    open: () => ({ encode: same, decode: same }),
  };
  const [spare, other] = memoryPair();
  for (const secret of [{}, { secret: "s3cret" }]) {
    for (const transforms of [[], [plain]]) {
      const optionsOf = (length: number) => ({
        ...secret,
        transforms,
        signature: "x".repeat(length),
      });
      const { listener, dial } = listenOn("memory");
      const server = new Server(listener, optionsOf(1000));
      const { conn, seen, done } = relay(await dial());
      const client = new Client(conn, optionsOf(1000));
      await client.opened;
      const said = (direction: Direction) =>
        seen[direction].filter(([type]) => type! <= FrameType.CONFIRM)
          .reduce((bytes, body) => bytes + 4 + body.length, 0);
      const trace = 7; // counted, and said by nobody
      assertEquals(
        said("to server"),
        handshakeBytes(() => new Client(spare, optionsOf(5000)), "") -
          4000 - trace,
      );
      assertEquals(
        said("to client"),
        handshakeBytes(() => listen({ port: 0, ...optionsOf(5000) }), "") -
          4000 - trace,
      );
      await client.abort();
      await server.abort();
      await done;
    }
  }
  spare.close();
  other.close();
});

Deno.test("a function can take a Server of whatever items", async () => {
  const countWorkers = (server: Server) => server.workers.length;
  await using server = listen<string, number>({ port: 0 });
  assertEquals(countWorkers(server), 0);
});
