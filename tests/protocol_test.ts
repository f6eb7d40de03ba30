/**
 * PROTOCOL.md and the code say the same: every frame of the document is what
 * the code writes, and the code reads it as the document means it.
 */
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  Client,
  ConnectionLostError,
  HandshakeError,
  type ItemFailure,
  RemoteError,
  Server,
  type ServerEvent,
} from "../mod.ts";
import { cbor } from "../codec.ts";
import { ByteWriter } from "../internal/byte_writer.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import {
  FrameType,
  FrameWriter,
  MAX_HANDSHAKE_BYTES,
} from "../internal/frame.ts";
import { FrameDecoder } from "../internal/frame_decoder.ts";
import {
  readHello,
  readReject,
  readWelcome,
  Transcript,
  writeHello,
  writeWelcome,
} from "../internal/handshake.ts";
import { PayloadCodec } from "../internal/payload.ts";
import { readTrace, writeTrace } from "../internal/trace_context.ts";
import { golden, goldenBlocks } from "./_support/golden.ts";
import { hmac } from "./_support/hmac.ts";
import { MemoryListener } from "./_support/memory_pair.ts";
import {
  payload,
  readFrame,
  ScriptedPeer,
  T,
} from "./_support/scripted_peer.ts";
import { until, within } from "./_support/within.ts";

const terms = { signature: "distchan", codec: "cbor", transforms: [] };
const hello = {
  ...terms,
  version: 1,
  maxFrameBytes: 4194304,
  nonce: sixteen(0),
  instance: sixteen(0xa0),
  name: "w1",
  auth: false,
  trace: false,
};
const welcome = {
  ...terms,
  version: 1,
  maxFrameBytes: 4194304,
  nonce: sixteen(0x10),
  results: true,
  trace: false,
};

const trace = {
  traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
  spanId: "00f067aa0ba902b7",
  traceFlags: 1,
};

const payloads = new PayloadCodec(cbor());

/** Every frame of section 11, as the code's own writer writes it. */
const WRITERS: Record<string, (frames: FrameWriter) => void> = {
  "HELLO": (f) => writeHello(f, hello),
  "WELCOME": (f) => writeWelcome(f, welcome),
  "REJECT": (f) => f.farewell(FrameType.REJECT, 1, "no"),
  "CHALLENGE": (f) => bytes(f, FrameType.CHALLENGE, sixteen(0x10)),
  "PROOF": (f) => bytes(f, FrameType.PROOF, range(0x40, 32)),
  "CONFIRM": (f) => bytes(f, FrameType.CONFIRM, range(0x60, 32)),
  "ITEM": (f) => {
    for (const [id, value] of ["hi", 1000].entries()) {
      payloads.write(f, value, () => {
        f.openItem(1, 0, id);
        f.out.writeUint(id);
      });
    }
  },
  "HELLO trace": (f) => writeHello(f, { ...hello, trace: true }),
  "WELCOME trace": (f) => writeWelcome(f, { ...welcome, trace: true }),
  "ITEM trace": (f) => {
    for (const [id, value] of ["hi", 1000].entries()) {
      payloads.write(f, value, () => {
        f.openItem(1, 0, id);
        f.out.writeUint(id);
        writeTrace(f.out, id === 0 ? trace : undefined);
      });
    }
  },
  "RESULT": (f) => {
    for (const [delivery, value] of ["HI", null].entries()) {
      payloads.write(f, value, () => {
        f.open(FrameType.RESULT);
        f.out.writeUint(delivery);
      });
    }
  },
  "ERROR": (f) => {
    f.begin(FrameType.ERROR);
    f.out.writeUint(2);
    f.out.writeText("TypeError");
    f.out.writeText("bad");
    f.out.writeHead(4, 3);
    f.out.writeText("Error");
    f.out.writeText("inner");
    f.out.bytes[f.out.length++] = 0xf6;
    f.out.bytes[f.out.length++] = 0xf6;
  },
  "VALUE": (f) => {
    for (const value of [[1, 2, 3], true]) {
      payloads.write(f, value, () => f.open(FrameType.VALUE));
    }
  },
  "DONE": (f) => f.uints(FrameType.DONE, [3, 4]),
  "ACK": (f) => f.uints(FrameType.ACK, [500]),
  "CREDIT worker": (f) => f.uints(FrameType.CREDIT, [1, 4, 4096, 1]),
  "CREDIT server": (f) => f.uints(FrameType.CREDIT, [4096, 1048576]),
  "CANCEL": (f) => f.uints(FrameType.CANCEL, [70000]),
  "LEAVE": (f) => f.uints(FrameType.LEAVE, [5, 6]),
  "END": (f) => f.uints(FrameType.END, []),
  "PING": (f) => f.uints(FrameType.PING, [7]),
  "PONG": (f) => f.uints(FrameType.PONG, [7]),
  "GOODBYE": (f) => f.farewell(FrameType.GOODBYE, 2, "why"),
};

for (const [name, write] of Object.entries(WRITERS)) {
  Deno.test(`FrameWriter writes ${name} as PROTOCOL.md has it`, () => {
    const frames = new FrameWriter(new ByteWriter());
    write(frames);
    frames.close();
    assertEquals(frames.out.toBytes().toHex(), golden(name).toHex());
  });
}

Deno.test("PROTOCOL.md has the bytes of every frame type, and no other", () => {
  const names = goldenBlocks().map((b) => b.name);
  for (const name of Object.keys(FrameType)) {
    assert(
      names.some((n) => n === name || n.startsWith(name + " ")),
      `no block for ${name}`,
    );
  }
  for (const name of names) {
    assert(
      name in WRITERS ||
        /^(secret|aes|session) \d+ (worker|server)$/.test(name),
      `block "${name}" is checked by no test`,
    );
  }
});

Deno.test("PROTOCOL.md: section 4 lists every frame type of the code", () => {
  const text = Deno.readTextFileSync(
    new URL("../PROTOCOL.md", import.meta.url),
  );
  const rows = [...text.matchAll(/^\| (\d+) +\| ([A-Z]+) +\| [CS]/gm)];
  assertEquals(
    Object.fromEntries(rows.map(([, type, name]) => [name, Number(type)])),
    { ...FrameType },
  );
});

Deno.test("FrameDecoder and CborDecoder read every block of PROTOCOL.md", () => {
  for (const { name, bytes } of goldenBlocks()) {
    const decoder = new FrameDecoder(MAX_HANDSHAKE_BYTES);
    decoder.space().set(bytes);
    decoder.advance(bytes.length);
    assert(decoder.next(), name);
    assertEquals(decoder.end - decoder.start, bytes.length - 4, name);
    assert(!decoder.partial, name);
    const { type } = readFrame(
      decoder.bytes.slice(decoder.start, decoder.end),
    );
    const what = name.split(" ")[0]!;
    if (what in T) assertEquals(type, T[what as keyof typeof T], name);
  }
});

Deno.test("readHello(), readWelcome() and readReject() read their blocks", () => {
  assertEquals(readHello(reader("HELLO")), hello);
  assertEquals(readWelcome(reader("WELCOME")), welcome);
  assertEquals(readHello(reader("HELLO trace")), { ...hello, trace: true });
  assertEquals(readWelcome(reader("WELCOME trace")), {
    ...welcome,
    trace: true,
  });
  const error = readReject(reader("REJECT"));
  assertEquals([error.code, error.message], ["signature", "no"]);
});

Deno.test("readTrace() reads the traces of their block", () => {
  const item = reader("ITEM trace");
  for (let field = 0; field < 3; field++) item.readUint();
  for (const expected of [trace, undefined]) {
    item.readUint();
    assertEquals(readTrace(item), expected);
    item.readBytesRange();
  }
  item.finish();
});

Deno.test("Transcript: the proofs are those of PROTOCOL.md", () => {
  const body = (name: string) => golden(`secret ${name}`).slice(4);
  const ours = new Transcript(new TextEncoder().encode("s3cret"));
  const said: Uint8Array[] = [];
  const say = (name: string) => {
    ours.add(body(name));
    said.push(body(name));
  };
  say("1 worker");
  say("2 server");
  const [proof] = readFrame(body("3 worker")).fields as [Uint8Array];
  assert(ours.verify("client", proof));
  assertEquals(hmac("s3cret", "client", said).toHex(), proof.toHex());
  assert(!ours.verify("server", proof), "the other end's proof is another");
  say("3 worker");
  say("4 server");
  const [answer] = readFrame(body("5 server")).fields as [Uint8Array];
  assert(ours.verify("server", answer));
  assertEquals(hmac("s3cret", "server", said).toHex(), answer.toHex());
});

Deno.test("Server plays its part of PROTOCOL.md's session", async () => {
  const listener = new MemoryListener();
  const server = new Server<string, string>(listener);
  await using peer = new ScriptedPeer(listener.connect());
  peer.answersPings = false;
  server.send("hello");
  server.end();
  const results = Array.fromAsync(server);
  for (const { name, bytes } of session()) {
    if (name.endsWith("worker")) await peer.send(bytes);
    else assertEquals(comparable(await peer.next()), comparable(bytes), name);
  }
  assertEquals(await peer.next(), null);
  peer.close();
  assertEquals(await within(results, 5000, "the results"), ["HELLO"]);
  await within(server.closed, 5000, "the server is closed");
});

Deno.test("Client plays its part of PROTOCOL.md's session", async () => {
  const [peer, conn] = ScriptedPeer.pair();
  await using _ = peer;
  peer.answersPings = false;
  const client = new Client<string, string>(conn, { name: "w1" });
  const done = client.work((word) => word.toUpperCase());
  for (const { name, bytes } of session()) {
    if (name.endsWith("server")) await peer.send(bytes);
    else assertEquals(comparable(await peer.next()), comparable(bytes), name);
  }
  await within(done, 5000, "work() resolves");
  assertEquals(await peer.next(), null);
});

Deno.test("Server reads and writes the blocks of section 11, in mode work", async () => {
  const listener = new MemoryListener();
  const failures: ItemFailure<unknown>[] = [];
  const events: ServerEvent<unknown>[] = [];
  await using server = new Server<unknown, unknown>(listener, {
    onFailure: (failure) => failures.push(failure),
    onEvent: (event) => events.push(event),
  });
  const worker = new ScriptedPeer(listener.connect());
  await using _ = worker;
  worker.answersPings = false;
  await worker.send(golden("HELLO"));
  await worker.expect(T.WELCOME);
  await worker.expect(T.PING);
  assertSent(await worker.next(), "CREDIT server");
  server.send("hi");
  server.send(1000);
  const results = server[Symbol.asyncIterator]();
  await worker.send(golden("CREDIT worker"));
  assertSent(await worker.until(T.ITEM), "ITEM");
  for (const item of [2, 3, 4, 5, 6]) server.send(item);
  // Its window starts at concurrency + 1, and grows with what is settled.
  await worker.send(golden("RESULT"));
  assertEquals((await results.next()).value, "HI");
  assertEquals((await results.next()).value, null);
  await until(() => server.stats().inFlight === 5, "five items are there");
  await worker.send(golden("ERROR"));
  await until(() => failures.length === 1, "an item has failed");
  const { id, item, error } = failures[0]!;
  assertEquals([id, item, error.name, error.message], [
    2,
    2,
    "TypeError",
    "bad",
  ]);
  assertInstanceOf(error, RemoteError);
  assertInstanceOf(error.cause, RemoteError);
  assertEquals([error.cause.name, error.cause.message], ["Error", "inner"]);
  await worker.send(golden("VALUE"));
  assertEquals((await results.next()).value, [1, 2, 3]);
  assertEquals((await results.next()).value, true);
  await worker.send(golden("DONE"));
  await until(() => server.stats().settled === 4, "two more are settled");
  await worker.send(golden("PING"));
  assertSent(await worker.until(T.PONG), "PONG");
  await worker.send(golden("LEAVE"));
  await until(() => server.stats().redelivered === 2, "two are handed back");
  assertEquals(server.workers[0]!.state, "leaving");
  await worker.send(golden("GOODBYE"));
  assertEquals(await worker.next(), null);
  worker.close();
  await until(() => server.workers.length === 0, "the worker is gone");
  const gone = events.find((e) => e.type === "disconnected");
  assertEquals([gone?.code, gone?.reason], ["protocol", "why"]);
  await server.abort();
});

Deno.test("Server reads ACK of section 11", async () => {
  const listener = new MemoryListener();
  await using server = new Server<number, unknown>(listener, {
    results: "discard",
  });
  await using worker = new ScriptedPeer(listener.connect());
  await worker.join("stream", { window: 1000 });
  for (let i = 0; i < 502; i++) server.send(i);
  await until(() => server.stats().inFlight === 502, "all are in flight");
  await worker.send(golden("ACK"));
  await until(() => server.stats().settled === 501, "501 are settled");
  assertEquals(server.stats().inFlight, 1);
  worker.close();
  await server.abort();
});

Deno.test("Client reads and writes the blocks of section 11, in mode work", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  server.answersPings = false;
  const client = new Client<unknown, unknown>(conn);
  const seen: unknown[] = [];
  const done = client.work((item) => {
    seen.push(item);
    if (item === "hi") return "HI";
    if (item === 1000) return null;
    throw new TypeError("bad", { cause: new Error("inner") });
  }, { concurrency: 4 });
  await server.expect(T.HELLO);
  await server.send(golden("WELCOME"));
  assertSent(await server.next(), "CREDIT worker");
  await server.send(golden("ITEM"));
  assertSent(await server.next(), "RESULT");
  assertEquals(seen, ["hi", 1000]);
  await server.say(T.ITEM, 1, 1, 2, 2, payload("?"));
  assertSent(await server.next(), "ERROR");
  await server.send(golden("CREDIT server"));
  await server.send(golden("CANCEL")); // it holds no such delivery
  await server.send(golden("PING"));
  assertSent(await server.next(), "PONG");
  await server.send(golden("PONG")); // nobody asked for it
  await server.send(golden("END"));
  await server.expect(T.GOODBYE);
  await server.say(T.GOODBYE, 0, "");
  await within(done, 5000, "work() resolves");
});

Deno.test("Client writes VALUE, ACK, DONE and reads GOODBYE of section 11", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<unknown, unknown>(conn, { prefetch: 600 });
  await server.greet();
  await server.send(golden("CREDIT server"));
  await client.opened;
  client.send([1, 2, 3]);
  client.send(true);
  assertSent(await server.until(T.VALUE), "VALUE");
  const items = client[Symbol.asyncIterator]();
  await server.until(T.CREDIT);
  const all = Array.from({ length: 502 }, (_, i) => [i, payload(i)]).flat();
  await server.say(T.ITEM, 1, 0, 0, ...all);
  for (let i = 0; i < 502; i++) await items.next();
  let ack = await server.until(T.ACK);
  while (ack.fields[0] !== 500) ack = await server.until(T.ACK);
  assertSent(ack, "ACK");
  await server.send(golden("GOODBYE"));
  const error = await client.closed.catch((error) => error);
  assertInstanceOf(error, ConnectionLostError);
  assertEquals([error.code, error.reason], ["protocol", "why"]);
});

Deno.test("Client writes DONE of section 11 when results aren't wanted", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<number, unknown>(conn);
  const done = client.work((n) => n);
  await server.greet({ fields: { results: false } });
  await server.until(T.CREDIT);
  const items = [0, 1, 2, 3, 4].flatMap((n) => [n, payload(n)]);
  await server.say(T.ITEM, 1, 0, 0, ...items.slice(0, 6));
  assertEquals((await server.until(T.DONE)).fields, [0, 1, 2]);
  await server.say(T.ITEM, 1, 0, 3, ...items.slice(6));
  assertSent(await server.until(T.DONE), "DONE");
  server.close();
  await done.catch(() => {});
});

Deno.test("Client keeps DONE to the server's maxFrameBytes", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<number, unknown>(conn);
  const done = client.work((n) => n, { concurrency: 64 });
  await server.greet({ fields: { results: false, maxFrameBytes: 1024 } });
  await server.until(T.CREDIT);
  const ids = Array.from({ length: 4000 }, (_, id) => id);
  const items = ids.flatMap((id) => [id, payload(id)]);
  await server.say(T.ITEM, 1, 0, 0, ...items);
  const named: unknown[] = [];
  let largest = 0;
  while (named.length < ids.length) {
    const { fields, body } = await server.until(T.DONE);
    named.push(...fields);
    largest = Math.max(largest, body.length);
  }
  assertEquals(named, ids);
  assert(largest > 1000 && largest <= 1024, `the largest has ${largest} bytes`);
  server.close();
  await done.catch(() => {});
});

Deno.test("Client keeps LEAVE to what transforms leave of the smallest frame", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<number, unknown>(conn, { prefetch: 1e6 });
  const leaving = new AbortController();
  const { signal } = leaving;
  const held = Promise.withResolvers<void>();
  // Numbers from here on take five bytes.
  const first = 0x10000;
  const done = client.work(
    (n) => n < first ? undefined : held.promise,
    { signal },
  );
  await server.greet({ fields: { results: false } });
  await server.until(T.CREDIT);
  const ids = Array.from({ length: first + 200 }, (_, id) => id);
  for (let at = 0; at < ids.length; at += 8192) {
    const items = ids.slice(at, at + 8192).flatMap((id) => [id, payload(id)]);
    await server.say(T.ITEM, 1, 0, at, ...items);
  }
  let last: unknown;
  while (last !== first - 1) last = (await server.until(T.DONE)).fields.at(-1);
  leaving.abort();
  const named: unknown[] = [];
  while (named.length < 199) {
    const { fields, body } = await server.until(T.LEAVE);
    named.push(...fields);
    assert(body.length <= 256, `a LEAVE of ${body.length} bytes`);
  }
  assertEquals(named, ids.slice(first + 1));
  held.resolve();
  server.close();
  await done.catch(() => {});
});

Deno.test("Client rejects with what REJECT of section 11 says", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client(conn);
  await server.send(golden("REJECT"));
  const error = await client.opened.catch((error) => error);
  assertInstanceOf(error, HandshakeError);
  assertEquals([error.code, error.message], ["signature", "no"]);
  await client.closed.catch(() => {});
});

/** The blocks of section 12. */
function session() {
  return goldenBlocks().filter((b) => b.name.startsWith("session "));
}

/** What must be equal of a frame of the session: all but what is random. */
function comparable(frame: { body: Uint8Array } | Uint8Array | null) {
  assert(frame !== null, "the connection has ended");
  const body = frame instanceof Uint8Array ? frame.slice(4) : frame.body;
  const { type, fields } = readFrame(body.slice());
  const map = fields.at(-1);
  if (typeof map === "object" && map !== null && "nonce" in map) {
    return [type, ...fields.slice(0, -1), {
      ...map,
      nonce: (map.nonce as Uint8Array).length,
      instance: (map as { instance?: Uint8Array }).instance?.length,
    }];
  }
  return [type, body.toHex()];
}

function assertSent(frame: { body: Uint8Array } | null, name: string): void {
  assert(frame !== null, "the connection has ended");
  assertEquals(frame.body.toHex(), golden(name).slice(4).toHex(), name);
}

function reader(name: string): CborDecoder {
  const reader = new CborDecoder();
  reader.set(golden(name), 4);
  reader.readUint();
  return reader;
}

function bytes(frames: FrameWriter, type: number, content: Uint8Array): void {
  frames.begin(type);
  frames.out.writeBytes(content);
}

function range(from: number, count: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: count }, (_, i) => from + i);
}

function sixteen(from: number): Uint8Array<ArrayBuffer> {
  return range(from, 16);
}
