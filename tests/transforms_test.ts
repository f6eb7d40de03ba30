import { Buffer } from "node:buffer";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  aesGcm,
  Client,
  connect,
  ConnectionLostError,
  DrainTimeoutError,
  FrameTooLargeError,
  fromTransformStream,
  gzip,
  HandshakeError,
  ItemFailure,
  listen,
  PoisonItemError,
  type Transform,
  work,
} from "../mod.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import { readHello, readWelcome, Transcript } from "../internal/handshake.ts";
import {
  MAX_CONFIRM_BYTES,
  plainLimit,
  TransformChain,
} from "../internal/transforms.ts";
import { TransformedFrames } from "../internal/transformed_frames.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { golden } from "./_support/golden.ts";
import { relay } from "./_support/relay.ts";
import { seeded } from "./_support/rng.ts";
import { Gate, moment, until, within } from "./_support/within.ts";

const sessionId = new Uint8Array(32).fill(7);

function chain(
  transforms: readonly Transform[],
  options: {
    role?: "server" | "client";
    maxBytes?: number;
    id?: Uint8Array;
  } = {},
): TransformChain {
  const { role = "server", maxBytes = 1 << 20, id = sessionId } = options;
  return new TransformChain(transforms, { role, sessionId: id, maxBytes });
}

/** Notes what passes through it. */
function noting(name: string, log: string[]): Transform {
  return {
    name,
    open: ({ role }) => ({
      encode(bytes) {
        log.push(`${role} encode ${name}`);
        return bytes;
      },
      async decode(bytes) {
        log.push(`${role} decode ${name}`);
        return await Promise.resolve(bytes);
      },
    }),
  };
}

const utf8 = new TextEncoder();

Deno.test("TransformChain applies transforms in order and undoes them in reverse", async () => {
  const log: string[] = [];
  const both = chain([noting("a", log), noting("b", log)]);
  await both.encode(new Uint8Array(1));
  await both.decode(new Uint8Array(1));
  assertEquals(log, [
    "server encode a",
    "server encode b",
    "server decode b",
    "server decode a",
  ]);
});

Deno.test("TransformedFrames.write() has written what comes before a frame that fails", async () => {
  const picky: Transform = {
    name: "picky",
    open: () => ({
      encode(bytes) {
        if (bytes.length > 1) throw new Error("too long");
        return bytes;
      },
      decode: (bytes) => bytes,
    }),
  };
  const written: Uint8Array[] = [];
  const frames = new TransformedFrames(chain([picky]), {
    limit: 100,
    plainBytes: 0,
    isCrowded: () => false,
    write: (bytes) => Promise.resolve(void written.push(bytes)),
  });
  const short = [0, 0, 0, 1, 7], long = [0, 0, 0, 2, 8, 9];
  await assertRejects(
    () => frames.write(new Uint8Array([...short, ...long])),
    Error,
    "too long",
  );
  assertEquals(written, [new Uint8Array(short)]);
});

Deno.test("TransformChain names the transform that failed", async () => {
  const broken: Transform = {
    name: "broken",
    open: () => ({
      encode: () => "text" as never,
      decode() {
        throw new Error("oh no");
      },
    }),
  };
  const open = chain([broken]);
  await assertRejects(
    () => open.encode(new Uint8Array(1)),
    Error,
    'Cannot encode frame: transform "broken" failed: it returned string, expected a Uint8Array',
  );
  await assertRejects(
    () => open.decode(new Uint8Array(1)),
    Error,
    'Cannot decode frame: transform "broken" failed: oh no',
  );
  assertThrows(
    () =>
      chain([{
        name: "shut",
        open() {
          throw new Error("locked");
        },
      }]),
    Error,
    'Cannot open transform "shut": locked',
  );
});

Deno.test("gzip gives back what went in", async () => {
  const rng = seeded("gzip");
  const open = chain([gzip()]);
  for (const length of [0, 1, 100, 70_000, 1 << 20]) {
    for (const bytes of [rng.bytes(length), new Uint8Array(length).fill(9)]) {
      const encoded = await open.encode(bytes);
      assertEquals([...encoded.subarray(0, 2)], [0x1f, 0x8b]);
      assertEquals(await open.decode(encoded), bytes);
    }
  }
});

Deno.test("gzip makes no frame larger than plainLimit() allows for", async () => {
  const rng = seeded("gzip limit");
  for (const limit of [1024, 5000, 100_000, 4 * 1024 * 1024]) {
    for (const count of [1, 2]) {
      const transforms = new Array(count).fill(gzip());
      const open = chain(transforms, { maxBytes: limit });
      const encoded = await open.encode(rng.bytes(plainLimit(limit, count)));
      assert(encoded.length <= limit, `${encoded.length} of ${limit}`);
      await open.decode(encoded);
    }
  }
});

Deno.test("gzip stops a bomb at the limit before the memory is spent", async () => {
  const bomb = await bombOf(256);
  assert(bomb.length < 300_000);
  let largest = 0, total = 0;
  const original = DecompressionStream.prototype;
  const descriptor = Object.getOwnPropertyDescriptor(original, "readable")!;
  Object.defineProperty(original, "readable", {
    configurable: true,
    get(): ReadableStream<Uint8Array> {
      return descriptor.get!.call(this).pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform(chunk, controller) {
            largest = Math.max(largest, chunk.length);
            total += chunk.length;
            controller.enqueue(chunk);
          },
        }),
      );
    },
  });
  try {
    await assertRejects(
      () => chain([gzip({ maxOutputBytes: 100_000 })]).decode(bomb),
      Error,
      "more than 100000 bytes come out of it",
    );
    await assertRejects(
      () => chain([gzip()], { maxBytes: 1 << 20 }).decode(bomb),
      Error,
      "more than 1048576 bytes come out of it",
    );
  } finally {
    Object.defineProperty(original, "readable", descriptor);
  }
  assert(largest <= 2 << 20, `${largest} bytes came at once`);
  assert(total <= 6 << 20, `${total} bytes came in all`);
});

Deno.test("fromTransformStream stops a bomb before all of it has come", async () => {
  const bomb = await bombOf(128);
  let largest = 0, total = 0;
  const bombed = fromTransformStream(
    "gzip",
    () => new CompressionStream("gzip"),
    () => {
      const { readable, writable } = new DecompressionStream("gzip");
      const seen = new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, controller) {
          largest = Math.max(largest, chunk.length);
          total += chunk.length;
          controller.enqueue(chunk);
        },
      });
      return { readable: readable.pipeThrough(seen), writable };
    },
  );
  await assertRejects(
    () => chain([bombed], { maxBytes: 1 << 20 }).decode(bomb),
    Error,
    "more than 1048576 bytes come out of it",
  );
  assert(largest <= 17 << 20, `${largest} bytes came at once`);
  assert(total <= 51 << 20, `${total} bytes came in all`);
});

Deno.test("gzip refuses what is cut, changed, longer or no gzip at all", async () => {
  const open = chain([gzip()]);
  const good = await open.encode(utf8.encode("hello ".repeat(100)));
  const bad = [
    new Uint8Array(0),
    utf8.encode("hello"),
    good.subarray(0, good.length - 3),
    Uint8Array.of(...good, 0),
    Uint8Array.of(...good, ...good),
    good.map((byte, i) => i === good.length - 6 ? byte ^ 1 : byte),
  ];
  for (const bytes of bad) {
    await assertRejects(() => open.decode(bytes), Error, '"gzip" failed');
  }
});

Deno.test("gzip({ maxOutputBytes }) takes so many bytes, and not one more", async () => {
  const limited = chain([gzip({ maxOutputBytes: 100 })]);
  const bytes = (count: number) =>
    chain([gzip()]).encode(new Uint8Array(count));
  assertEquals((await limited.decode(await bytes(100))).length, 100);
  await assertRejects(async () => limited.decode(await bytes(101)), Error);
});

Deno.test("gzip() takes options that a class gives: a limit is never dropped", async () => {
  class Limits {
    get maxOutputBytes(): number {
      return 100;
    }
  }
  const long = await chain([gzip()]).encode(new Uint8Array(101));
  await assertRejects(
    async () => await chain([gzip(new Limits())]).decode(long),
    Error,
    "more than 100 bytes come out of it",
  );
});

Deno.test("gzip checks its options", () => {
  assertThrows(() => gzip({ maxOutputBytes: 0 }), RangeError);
  assertThrows(() => gzip({ level: 9 } as never), TypeError, '"level"');
});

Deno.test("aesGcm refuses frames that were changed, repeated, moved, reflected or are another session's", async () => {
  const key = new Uint8Array(32).fill(1);
  const open = () => chain([aesGcm(key)], { role: "server" });
  const server = open();
  const frames: Uint8Array[] = [];
  for (const text of ["one", "one", "three"]) {
    frames.push(await server.encode(utf8.encode(text)));
  }
  assert(frames[0]!.join() !== frames[1]!.join(), "the same text looks alike");
  const client = (id = sessionId) =>
    chain([aesGcm(key)], { role: "client", id });

  const good = client();
  for (const [i, text] of ["one", "one", "three"].entries()) {
    assertEquals(await good.decode(frames[i]!), utf8.encode(text));
  }
  const refused = async (open: TransformChain, frame: Uint8Array) => {
    await assertRejects(() => open.decode(frame), Error, "is not authentic");
  };
  await refused(good, frames[2]!); // repeated
  await refused(client(), frames[1]!); // moved
  await refused(client(new Uint8Array(32)), frames[0]!); // another session's
  await refused(open(), frames[0]!); // reflected
  await refused(chain([aesGcm(new Uint8Array(32))]), frames[0]!); // another key
  await refused(client(), frames[0]!.subarray(1));
  await refused(client(), new Uint8Array(0));
  for (let i = 0; i < frames[0]!.length; i++) {
    const changed = frames[0]!.map((byte, j) => j === i ? byte ^ 0x10 : byte);
    await refused(client(), changed);
  }
});

Deno.test("aesGcm keeps a key of its own", async () => {
  const bytes = new Uint8Array(32).fill(3);
  const encoded = await chain([aesGcm(bytes)]).encode(utf8.encode("hello"));
  for (const key of [bytes.slice(), Buffer.from(bytes)]) {
    const transform = aesGcm(key);
    key.fill(0);
    const open = chain([transform], { role: "client" });
    assertEquals(await open.decode(encoded), utf8.encode("hello"));
  }
});

Deno.test("aesGcm twice would undo itself, and is refused", async () => {
  const key = new Uint8Array(32).fill(1);
  const transforms = [aesGcm(key), gzip(), aesGcm(key)];
  const reason = "expected aes-256-gcm at most once";
  assertThrows(() => listen({ port: 0, transforms }), RangeError, reason);
  await assertRejects(
    () => connect({ port: 1, transforms }),
    RangeError,
    reason,
  );
});

Deno.test("aesGcm takes bytes and CryptoKeys, and no others", async () => {
  const bytes = new Uint8Array(32).fill(3);
  const hkdf = await crypto.subtle.importKey("raw", bytes, "HKDF", false, [
    "deriveBits",
  ]);
  const keyOnly = await crypto.subtle.importKey("raw", bytes, "HKDF", false, [
    "deriveKey",
  ]);
  const aes = await crypto.subtle.importKey("raw", bytes, "AES-GCM", true, [
    "encrypt",
  ]);
  const encoded = await chain([aesGcm(bytes)]).encode(utf8.encode("hello"));
  for (const key of [bytes, hkdf, keyOnly, aes]) {
    const open = chain([aesGcm(key)], { role: "client" });
    assertEquals(await open.decode(encoded), utf8.encode("hello"));
  }
  assertThrows(() => aesGcm(new Uint8Array(16)), RangeError, "16 bytes");
  assertThrows(() => aesGcm("secret" as never), TypeError, "string");
  const other = await crypto.subtle.generateKey(
    { name: "HMAC", hash: "SHA-256" },
    true,
    ["sign"],
  );
  assertThrows(() => aesGcm(other), TypeError, "HMAC");
  const shut = await crypto.subtle.importKey("raw", bytes, "AES-GCM", false, [
    "decrypt",
  ]);
  assertThrows(() => aesGcm(shut), TypeError, "may encrypt");
  for (const extractable of [true, false]) {
    const short = await crypto.subtle.importKey(
      "raw",
      bytes.subarray(0, 16),
      "AES-GCM",
      extractable,
      ["encrypt"],
    );
    assertThrows(() => aesGcm(short), TypeError, "256 bits");
  }
  const cbc = await crypto.subtle.importKey("raw", bytes, "AES-CBC", false, [
    "encrypt",
  ]);
  assertThrows(() => aesGcm(cbc), TypeError, "AES-CBC");
});

Deno.test("aesGcm takes a key that can't be extracted, if both ends have one", async () => {
  const bytes = Uint8Array.from({ length: 32 }, (_, i) => i);
  const sealed = (usages: KeyUsage[]) =>
    crypto.subtle.importKey("raw", bytes, "AES-GCM", false, usages);
  const one = aesGcm(await sealed(["encrypt"]));
  const other = aesGcm(await sealed(["decrypt", "encrypt"]));
  const protocol = await Deno.readTextFile(
    new URL("../PROTOCOL.md", import.meta.url),
  );
  const material = /`([\da-f]{64})`\.\s+At\s+most\s+one/.exec(protocol)![1]!;
  const encoded = await chain([one]).encode(utf8.encode("hello"));
  // The last: as PROTOCOL.md has it.
  for (const transform of [one, other, aesGcm(Uint8Array.fromHex(material))]) {
    const open = chain([transform], { role: "client" });
    assertEquals(await open.decode(encoded), utf8.encode("hello"));
  }

  await using server = listen<string, string>({ port: 0, transforms: [one] });
  const { port } = server.addr as Deno.NetAddr;
  const worker = work<string, string>(
    { port, transforms: [other] },
    (word) => word.toUpperCase(),
  );
  assertEquals(await server.submit("hello"), "HELLO");
  await assertRejects(
    () => connect({ port, transforms: [aesGcm(bytes)] }),
    HandshakeError,
    "aes-256-gcm-sealed",
  );
  await server.close();
  await worker;
  const transforms = [one, aesGcm(bytes)];
  assertThrows(() => listen({ port: 0, transforms }), RangeError, "once");
});

Deno.test("fromTransformStream checks its arguments", () => {
  const make = () => new TransformStream<Uint8Array, Uint8Array>();
  assertThrows(() => fromTransformStream(1 as never, make, make), TypeError);
  for (const [encoder, decoder] of [[make, null], [null, make]]) {
    assertThrows(
      () => fromTransformStream("x", encoder as never, decoder as never),
      TypeError,
      "expected two functions",
    );
  }
});

Deno.test("fromTransformStream bounds what comes out", async () => {
  const make = () =>
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        for (let i = 0; i < 1000; i++) controller.enqueue(chunk);
      },
    });
  const open = chain([fromTransformStream("more", make, make)], {
    maxBytes: 1000,
  });
  const encoded = await open.encode(new Uint8Array(1));
  assertEquals(encoded.length, 1000);
  assertEquals((await open.decode(new Uint8Array(1))).length, 1000);
  await assertRejects(
    () => open.decode(encoded),
    Error,
    "more than 1000 bytes come out of it",
  );
});

Deno.test("fromTransformStream takes nothing but Uint8Arrays", async () => {
  const make = (chunk: unknown) => () =>
    new TransformStream<Uint8Array, Uint8Array>({
      transform(_, controller) {
        for (let i = 0; i < 2; i++) controller.enqueue(chunk as Uint8Array);
      },
    });
  for (const chunk of ["text", new ArrayBuffer(2000), [1, 2]]) {
    const open = chain([fromTransformStream("x", make(chunk), make(chunk))], {
      maxBytes: 1000,
    });
    await assertRejects(
      () => open.decode(new Uint8Array(1)),
      Error,
      "expected a Uint8Array",
    );
  }
});

Deno.test("TransformChain undoes a CONFIRM within bounds of its own", async () => {
  const open = chain([gzip()], { maxBytes: 1 << 22 });
  const long = new Uint8Array(MAX_CONFIRM_BYTES + 1);
  const encoded = await open.encode(long);
  await assertRejects(
    () => open.decodeConfirm(encoded),
    Error,
    `more than ${MAX_CONFIRM_BYTES} bytes come out of it`,
  );
  assertEquals(await open.decode(encoded), long);
  const short = await open.encode(long.subarray(1));
  assertEquals((await open.decodeConfirm(short)).length, MAX_CONFIRM_BYTES);
});

Deno.test("TransformChain tells transforms the bound of a CONFIRM while they undo it", async () => {
  const limits: number[] = [];
  const open = chain([{
    name: "curious",
    open: (context) => ({
      encode: (bytes) => bytes,
      decode: (bytes) => {
        limits.push(context.maxBytes);
        return bytes;
      },
    }),
  }], { maxBytes: 1 << 22 });
  await open.decodeConfirm(new Uint8Array(1));
  await open.decode(new Uint8Array(1));
  assertEquals(limits, [MAX_CONFIRM_BYTES, 1 << 22]);
});

Deno.test("TransformChain bounds what comes out of each transform that doesn't itself", async () => {
  const sized = (name: string, bytes: number) => ({
    name,
    open: () => ({
      encode: (bytes: Uint8Array) => bytes,
      decode: () => new Uint8Array(bytes),
    }),
  });
  const open = chain([sized("small", 1), sized("large", 11)], { maxBytes: 10 });
  await assertRejects(
    () => open.decode(new Uint8Array(1)),
    Error,
    'transform "large" failed: more than 10 bytes come out of it',
  );
  const small = chain([sized("small", 10)], { maxBytes: 10 });
  assertEquals((await small.decode(new Uint8Array(1))).length, 10);
});

Deno.test("aesGcm makes the bytes of PROTOCOL.md", async () => {
  const body = (name: string) => golden(`aes ${name}`).slice(4);
  const read = (name: string) => {
    const reader = new CborDecoder();
    const bytes = body(name);
    reader.set(bytes, 0, bytes.length);
    reader.readUint();
    return reader;
  };
  const id = new Uint8Array([
    ...readHello(read("1 worker")).nonce,
    ...readWelcome(read("2 server")).nonce,
  ]);
  const transcript = new Transcript(null);
  transcript.add(body("1 worker"));
  transcript.add(body("2 server"));
  const transform = aesGcm(Uint8Array.from({ length: 32 }, (_, i) => i));
  const client = chain([transform], { role: "client", id });
  const server = chain([transform], { role: "server", id });
  const sent = await client.encode(transcript.digest("client"));
  assertEquals(sent.toHex(), read("3 worker").readBytes().toHex());
  const answered = await server.encode(transcript.digest("server"));
  assertEquals(answered.toHex(), read("4 server").readBytes().toHex());
  const text = await Deno.readTextFile(
    new URL("../PROTOCOL.md", import.meta.url),
  );
  const ping = (await server.encode(new Uint8Array([20, 1]))).toHex();
  for (
    const hex of [
      transcript.digest("client").toHex(),
      transcript.digest("server").toHex(),
      `00000012${ping}`,
    ]
  ) assertStringIncludes(text, hex);
});

both("transforms carry everything, with a secret too", async (net) => {
  const key = new Uint8Array(32).fill(5);
  const deflate = fromTransformStream(
    "deflate",
    () => new CompressionStream("deflate"),
    () => new DecompressionStream("deflate"),
  );
  for (
    const transforms of [[gzip()], [aesGcm(key)], [
      deflate,
      gzip(),
      aesGcm(key),
    ]]
  ) {
    for (const secret of [{}, { secret: "s" }]) {
      const options = { ...secret, transforms };
      await using kit = new Kit<unknown, unknown>(net, options);
      await kit.worker((item) => item, { client: options });
      const items = [
        1,
        "text",
        new Uint8Array(100_000).fill(1),
        { deep: [new Uint8Array(20_000), "x".repeat(1000)] },
        ...new Array(100).fill("many"),
      ];
      const results = await Array.fromAsync(kit.server.map(items));
      assertEquals(results, items);
    }
  }
});

both("transforms leave room for the largest value", async (net) => {
  const rng = seeded("largest value");
  const options = { transforms: [gzip()], maxFrameBytes: 20_000 };
  await using kit = new Kit<Uint8Array, number>(net, {
    ...options,
    maxInFlightBytes: 40_000,
  });
  await kit.worker((item) => item.length, { client: options });
  const limit = plainLimit(20_000, 1);
  const largest = rng.bytes(limit - 40);
  assertEquals(await kit.server.submit(largest), largest.length);
  const failure = await assertRejects(() =>
    kit.server.submit(rng.bytes(limit))
  ) as ItemFailure;
  assertInstanceOf(failure.error, FrameTooLargeError);
});

both("transforms that differ are named by both ends", async (net) => {
  await using kit = new Kit(net, { transforms: [gzip()] });
  const client = new Client(await kit.dial());
  const error = await assertRejects(() => client.opened, HandshakeError);
  assertEquals(error.code, "transforms");
  assertStringIncludes(error.message, '[], the server\'s is ["gzip"]');
  assertEquals((await kit.event("rejected")).code, "transforms");
  await client.abort();
});

both(
  "aesGcm with another key is an error of its own on both ends",
  async (net) => {
    for (const first of [[], [gzip()]]) {
      await using kit = new Kit(net, {
        transforms: [...first, aesGcm(new Uint8Array(32))],
      });
      const client = new Client(await kit.dial(), {
        transforms: [...first, aesGcm(new Uint8Array(32).fill(1))],
      });
      const error = await assertRejects(() => client.opened, HandshakeError);
      assertEquals(error.code, "transforms");
      assertStringIncludes(error.message, "different keys");
      await assertRejects(() => client.closed, HandshakeError);
      const rejected = await kit.event("rejected");
      assertEquals(rejected.code, "transforms");
      assertStringIncludes(rejected.reason, "different keys");
      assertEquals(kit.server.workers.length, 0);
    }
  },
);

Deno.test("aesGcm derives no key that a failed handshake doesn't use", async () => {
  const { subtle } = crypto;
  const { deriveBits } = subtle;
  let derived = 0;
  subtle.deriveBits = (...args) => {
    derived++;
    return deriveBits.apply(subtle, args);
  };
  try {
    await using kit = new Kit("memory", {
      transforms: [aesGcm(new Uint8Array(32))],
    });
    const client = new Client(await kit.dial(), {
      transforms: [aesGcm(new Uint8Array(32).fill(1))],
    });
    await assertRejects(() => client.closed, HandshakeError);
    await kit.event("rejected");
  } finally {
    subtle.deriveBits = deriveBits;
  }
  assertEquals(derived, 2); // the client's, at both ends
});

Deno.test("work() gives up on another key", async () => {
  await using server = listen({
    port: 0,
    transforms: [aesGcm(new Uint8Array(32))],
  });
  const { port } = server.addr as Deno.NetAddr;
  const error = await assertRejects(
    () =>
      within(
        work(
          { port, transforms: [aesGcm(new Uint8Array(32).fill(1))] },
          (x) => x,
        ),
        5000,
        "work() gives up",
      ),
    HandshakeError,
  );
  assertEquals(error.code, "transforms");
});

both(
  "a transform that is undone one way only is found in the handshake",
  async (net) => {
    const oneWay = (broken: "server" | "client"): Transform => ({
      name: "one way",
      open: ({ role }) => ({
        encode: (bytes) =>
          role === broken ? bytes.map((byte) => byte ^ 1) : bytes,
        decode: (bytes) => bytes,
      }),
    });
    for (const broken of ["server", "client"] as const) {
      await using kit = new Kit(net, { transforms: [oneWay(broken)] });
      const client = new Client(await kit.dial(), {
        transforms: [oneWay(broken)],
      });
      const error = await assertRejects(() => client.opened, HandshakeError);
      assertEquals(error.code, "transforms");
      const { code } = broken === "client"
        ? await kit.event("rejected")
        : await kit.event("disconnected");
      assertEquals(code, "transforms");
      await client.abort();
    }
  },
);

both("a transform that never settles holds up nobody's end", async (net) => {
  const never = new Promise<Uint8Array>(() => {});
  let isStuck = false;
  const stuck = (step: "encode" | "decode"): Transform => ({
    name: "stuck",
    open: ({ role }) => ({
      encode: (bytes) => bytes,
      decode: (bytes) => bytes,
      [step]: (bytes: Uint8Array) =>
        isStuck && role === "server" ? never : bytes,
    }),
  });
  for (const step of ["encode", "decode"] as const) {
    isStuck = false;
    const transforms = [stuck(step)];
    await using kit = new Kit<number, number>(net, { transforms });
    const { client } = await kit.worker((n) => n, { client: { transforms } });
    assertEquals(await kit.server.submit(1), 1);
    isStuck = true;
    const result = assertRejects(() => kit.server.submit(2));
    await assertRejects(
      () => within(kit.server.close({ drainMs: 50 }), 5000, "it closes"),
      DrainTimeoutError,
    );
    await result;
    await client.abort();
  }
});

both("a transform that can't be opened fails the handshake", async (net) => {
  const shut = (role: string): Transform => ({
    name: "shut",
    open(context) {
      if (context.role === role) throw new Error("locked");
      return { encode: (bytes) => bytes, decode: (bytes) => bytes };
    },
  });
  for (const role of ["server", "client"]) {
    await using kit = new Kit(net, { transforms: [shut(role)] });
    const client = new Client(await kit.dial(), { transforms: [shut(role)] });
    const error = await assertRejects(() => client.opened, HandshakeError);
    assertEquals(error.code, "transforms");
    assertStringIncludes(error.message, 'Cannot open transform "shut": locked');
    await kit.event("rejected");
  }
});

both(
  "aesGcm lets nobody on the way read, or change the handshake",
  async (net) => {
    const transforms = [aesGcm(new Uint8Array(32).fill(9))];
    await using kit = new Kit<string, string>(net, { transforms });
    const way = relay(await kit.dial());
    const client = new Client<string, string>(way.conn, { transforms });
    const done = client.work((text) => text.toUpperCase());
    assertEquals(await kit.server.submit("attack at dawn"), "ATTACK AT DAWN");
    await kit.server.close();
    await done;
    const all = [...way.seen["to server"], ...way.seen["to client"]];
    const text = all.map((body) => new TextDecoder().decode(body)).join();
    assertStringIncludes(text, "aes-256-gcm");
    assert(!text.toLowerCase().includes("attack"));
    await way.done;
  },
);

both("aesGcm notices a changed HELLO", async (net) => {
  const transforms = [aesGcm(new Uint8Array(32).fill(9))];
  await using kit = new Kit<string, string>(net, { transforms });
  const way = relay(await kit.dial(), (body, direction, index) => {
    if (direction === "to server" && index === 0) {
      const at = new TextDecoder("latin1").decode(body).indexOf("worker-1");
      body[at + 7] = "2".charCodeAt(0);
    }
    return [body];
  });
  const client = new Client(way.conn, { transforms, name: "worker-1" });
  const error = await assertRejects(() => client.opened, HandshakeError);
  assertEquals(error.code, "transforms");
  assertEquals((await kit.event("rejected")).code, "transforms");
  await way.done;
});

for (
  const [what, meddle] of [
    ["changed", (body: Uint8Array) => [body.map((b, i) => i ? b : b ^ 1)]],
    ["repeated", (body: Uint8Array) => [body, body]],
    ["left out", () => []],
  ] as const
) {
  both(`aesGcm ends a connection on which a frame was ${what}`, async (net) => {
    const transforms = [aesGcm(new Uint8Array(32).fill(9))];
    await using kit = new Kit<number, number>(net, { transforms });
    let isOn = false;
    const way = relay(await kit.dial(), (body, direction) => {
      if (direction !== "to server" || !isOn) return [body];
      isOn = false;
      return meddle(body);
    });
    const client = new Client<number, number>(way.conn, { transforms });
    client.work((n) => n + 1).catch(() => {});
    assertEquals(await kit.server.submit(1), 2);
    isOn = true;
    const lost = kit.event("disconnected");
    const results = [kit.server.submit(2)];
    if (what === "left out") {
      // The frame behind the one that is missing tells.
      await way.inject("to server", new Uint8Array(40));
    }
    assertEquals((await lost).code, "transforms");
    const error = await assertRejects(
      () => client.closed,
      ConnectionLostError,
    );
    assertEquals(error.code, "transforms");
    // Another worker gets what was under way.
    await kit.worker((n) => n + 1, { client: { transforms } });
    assertEquals(await Promise.all(results), [3]);
    await way.done;
  });
}

both("aesGcm refuses a frame that is sent back", async (net) => {
  const transforms = [aesGcm(new Uint8Array(32).fill(9))];
  await using kit = new Kit<number, number>(net, { transforms });
  const way = relay(await kit.dial());
  const client = new Client<number, number>(way.conn, { transforms });
  client.work((n) => n + 1).catch(() => {});
  assertEquals(await kit.server.submit(1), 2);
  await way.inject("to client", way.seen["to server"].at(-1)!);
  const error = await assertRejects(() => client.closed, ConnectionLostError);
  assertEquals(error.code, "transforms");
  assertEquals((await kit.event("disconnected")).code, "transforms");
  await way.done;
});

both("a bomb ends its own connection and no other", async (net) => {
  const transforms = [gzip({ maxOutputBytes: 1 << 20 })];
  await using kit = new Kit<string, string>(net, { transforms });
  const bomb = await bombOf(64);
  let isArmed = false;
  const bomber: Transform = {
    name: "gzip",
    open(context) {
      const good = gzip().open(context);
      return {
        encode: (bytes) => isArmed ? bomb : good.encode(bytes),
        decode: (bytes) => good.decode(bytes),
      };
    },
  };
  const client = await kit.client({ transforms: [bomber] });
  isArmed = true;
  client.send("boom");
  const { code, reason } = await kit.event("disconnected");
  assertEquals(code, "transforms");
  assertStringIncludes(reason, "more than 1048576 bytes come out of it");
  const error = await assertRejects(() => client.closed, ConnectionLostError);
  assertEquals(error.code, "transforms");
  await kit.worker((text) => text + "!", { client: { transforms } });
  assertEquals(await kit.server.submit("hello"), "hello!");
});

both(
  "a transform that makes too much of a frame loses its connection with a reason",
  async (net) => {
    const padding: Transform = {
      name: "padding",
      open: () => ({
        encode(bytes) {
          if (bytes.length < 2000) return bytes;
          return new Uint8Array(30_000);
        },
        decode: (bytes) => bytes,
      }),
    };
    const options = { transforms: [padding], maxFrameBytes: 20_000 };
    await using kit = new Kit<string, string>(net, options);
    const client = await kit.client(options);
    client.send("x".repeat(3000));
    const error = await assertRejects(() => client.closed, ConnectionLostError);
    assertEquals(error.code, "transforms");
    assertStringIncludes(error.reason, "transforms made 30000 bytes");
  },
);

Deno.test("an item that a transform of the server can't encode becomes poison", async () => {
  const picky = pickyTransform("server", "bad item");
  const transforms = [picky];
  const server = listen<string, string>({ port: 0, transforms });
  const { port } = server.addr as Deno.NetAddr;
  const reconnect = { minDelayMs: 1, maxDelayMs: 10 };
  // The same process each time: its blame isn't taken back.
  const working = work<string, string>(
    { port, transforms, reconnect },
    (text) => text.toUpperCase(),
  );
  const results = Promise.all([1, 2, 3].map((n) => server.submit(`item ${n}`)));
  const failure = await within(
    assertRejects(() => server.submit("bad item"), ItemFailure),
    20_000,
    "it fails by itself",
  );
  assert(failure.error instanceof PoisonItemError, failure.message);
  assertStringIncludes(failure.error.attempts[0]!.reason, "not this one");
  assertEquals(await results, ["ITEM 1", "ITEM 2", "ITEM 3"]);
  assertEquals(await server.submit("another"), "ANOTHER");
  await server.close();
  await working;
});

both(
  "a result that a transform of the worker can't encode makes its item poison",
  async (net) => {
    const picky = pickyTransform("client", "BAD");
    // What is behind it numbers frames: none may be left out.
    const transforms = [picky, aesGcm(new Uint8Array(32).fill(9))];
    await using kit = new Kit<string, string>(net, { transforms });
    const failure = assertRejects(
      () => kit.server.submit("bad"),
      ItemFailure,
    );
    // The same process each time: its blame isn't taken back.
    for (let i = 0; i < 3; i++) {
      const client = await kit.client({ transforms });
      const error = await assertRejects(
        () => client.work((text) => text.toUpperCase()),
        ConnectionLostError,
      );
      assertEquals(error.code, "transforms");
      const { code, reason } = await kit.event("disconnected");
      assertEquals(code, "transforms");
      assertStringIncludes(reason, "not this one");
    }
    const { error } = await within(failure, 20_000, "it fails");
    assert(error instanceof PoisonItemError, String(error));
    await kit.worker((text) => text + "!", { client: { transforms } });
    assertEquals(await kit.server.submit("good"), "good!");
  },
);

both(
  "a value that a transform of the worker can't encode leaves its item unsettled",
  async (net) => {
    // What tells that the item is done comes behind its value.
    const picky = pickyTransform("client", "BAD", () => moment(100));
    const transforms = [picky];
    for (const isWork of [false, true]) {
      await using kit = new Kit<string, string>(net, { transforms });
      void kit.server.send("item");
      const client = await kit.client({ transforms });
      const error = await assertRejects(async () => {
        if (isWork) {
          return await client.work(async function* () {
            yield "BAD";
            await moment(20);
          });
        }
        for await (const _ of client) {
          void client.send("BAD");
          await moment(20);
        }
      }, ConnectionLostError);
      assertEquals(error.code, "transforms");
      const { code } = await kit.event("disconnected");
      assertEquals(code, "transforms");
      const items = (await kit.client({ transforms }))[Symbol.asyncIterator]();
      const { value } = await within(items.next(), 5000, "it is redelivered");
      assertEquals(value, "item");
    }
  },
);

for (const broken of ["server", "client"] as const) {
  for (const step of ["encode", "decode"] as const) {
    Deno.test(`an item of which a transform makes nothing becomes poison: ${broken}, ${step}`, async () => {
      const swallow: Transform = {
        name: "swallow",
        open({ role }) {
          const pass = (bytes: Uint8Array) => bytes;
          const lose = (bytes: Uint8Array) =>
            role === broken && Buffer.from(bytes).includes("bad")
              ? new Uint8Array(0)
              : bytes;
          return { encode: pass, decode: pass, [step]: lose };
        },
      };
      const transforms = [swallow];
      await using server = listen<string, string>({ port: 0, transforms });
      const { port } = server.addr;
      const failure = assertRejects(() => server.submit("bad"), ItemFailure);
      // The same process each time: its blame isn't taken back.
      for (let i = 0; i < 3; i++) {
        await assertRejects(async () => {
          const client = await connect<string, string>({ port, transforms });
          await client.work((text) => text);
        }, ConnectionLostError);
      }
      const { error } = await within(failure, 20_000, "it fails");
      assert(error instanceof PoisonItemError, String(error));
      assertStringIncludes(error.attempts[0]!.reason, "no bytes come out");
    });
  }
}

/** One that can't encode, at one end, a frame with this text in it. */
function pickyTransform(
  at: "server" | "client",
  text: string,
  before?: () => Promise<void>,
): Transform {
  const refuse = (): never => {
    throw new Error("not this one");
  };
  return {
    name: "picky",
    open: ({ role }) => ({
      encode(bytes) {
        if (role !== at || !Buffer.from(bytes).includes(text)) return bytes;
        return before === undefined ? refuse() : before().then(refuse);
      },
      decode: (bytes) => bytes,
    }),
  };
}

/** A gzip of so many MiB of zeros. */
async function bombOf(mebibytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const zeros = new Uint8Array(1 << 20);
  const stream = ReadableStream.from(
    (function* () {
      for (let i = 0; i < mebibytes; i++) yield zeros;
    })(),
  );
  return await new Response(
    stream.pipeThrough(new CompressionStream("gzip")),
  ).bytes();
}

Deno.test("transforms that leave no room in a frame are a RangeError", () => {
  const many = Array.from({ length: 12 }, (_, i) => ({
    name: `t${i}`,
    open: () => ({
      encode: (b: Uint8Array) => b,
      decode: (b: Uint8Array) => b,
    }),
  }));
  const options = { port: 0, maxFrameBytes: 1024, maxInFlightBytes: 1024 };
  assertThrows(
    () => listen({ ...options, transforms: many }),
    RangeError,
    "maxFrameBytes is 1024, expected more for 12 transforms: 208 bytes are left",
  );
  listen({ ...options, transforms: many.slice(1) }).abort();
});

for (const side of ["server", "worker"] as const) {
  both(
    `A transform that is slow to encode is nobody's silence: ${side}`,
    async (net) => {
      const heartbeat = { intervalMs: 20, timeoutMs: 250, dropMs: 300 };
      const transform = (isSlow: boolean): Transform => ({
        name: "slow",
        open: () => ({
          encode: async (bytes) => {
            // In all it takes longer than dropMs, each less than timeoutMs.
            if (isSlow && bytes.length > 1000) await moment(80);
            return bytes;
          },
          decode: (bytes) => bytes,
        }),
      });
      await using kit = new Kit<Uint8Array, Uint8Array>(net, {
        heartbeat,
        transforms: [transform(side === "server")],
      });
      const items = range(8).map((n) => new Uint8Array(70_000).fill(n));
      const results = items.map((item) => kit.server.submit(item));
      await kit.worker((item) => item, {
        client: { heartbeat, transforms: [transform(side === "worker")] },
      });
      assertEquals(await Promise.all(results), items);
      assertEquals(kit.events.map(({ type }) => type), ["connected"]);
    },
  );
}

Deno.test("a connection that has ended gets no items while its transform is busy", async () => {
  const gate = new Gate();
  let isBusy = false;
  const slow: Transform = {
    name: "slow",
    open: ({ role }) => ({
      async encode(bytes) {
        if (isBusy && role === "server") await gate.pass();
        return bytes;
      },
      decode: (bytes) => bytes,
    }),
  };
  await using kit = new Kit<number, number>("memory", { transforms: [slow] });
  const client = { transforms: [slow] };
  const dying = await kit.worker((n) => n, { client, concurrency: 8 });
  isBusy = true;
  const first = kit.server.submit(0);
  await until(() => gate.passing > 0, "its frame is in the transform");
  kit.crash(dying.client);
  await moment(0);
  const others = [1, 2, 3].map((n) => kit.server.submit(n));
  assertEquals(kit.server.workers.map(({ inFlight }) => inFlight), [1]);
  assertEquals(kit.server.stats().pending, 3);
  isBusy = false;
  gate.open();
  await kit.worker((n) => n, { client });
  assertEquals(await Promise.all([first, ...others]), [0, 1, 2, 3]);
  const { ids } = await kit.event("redelivered");
  assertEquals(ids, [0]);
});

both(
  "a transform may use its output again, and keep its input",
  async (net) => {
    const scratchy: Transform = {
      name: "scratchy",
      open() {
        const scratch = new Uint8Array(100_000);
        return {
          encode(bytes) {
            scratch.set(bytes);
            return scratch.subarray(0, bytes.length);
          },
          decode: (bytes) => bytes,
        };
      },
    };
    const minus = (bytes: Uint8Array, last: Uint8Array) =>
      bytes.map((byte, i) => byte ^ (last[i] ?? 0));
    const delta: Transform = {
      name: "delta",
      open() {
        let sent = new Uint8Array(0), came = new Uint8Array(0);
        return {
          encode(bytes) {
            const changed = minus(bytes, sent);
            sent = bytes as typeof sent;
            return changed;
          },
          decode: (bytes) => came = minus(bytes, came) as typeof came,
        };
      },
    };
    for (const transform of [scratchy, delta]) {
      const transforms = [transform];
      await using kit = new Kit<string, string>(net, { transforms });
      await kit.worker((text) => text, { client: { transforms } });
      for (const n of range(10)) {
        const items = range(n).map((m) => "x".repeat(1000 * m));
        assertEquals(await Array.fromAsync(kit.server.map(items)), items);
      }
      assertEquals(kit.events.map(({ type }) => type), ["connected"]);
    }
  },
);

both("a goodbye that is in a transform outlives a standstill", async (net) => {
  const slow: Transform = {
    name: "slow",
    open: () => ({
      async encode(bytes) {
        for (let turns = 0; turns < 3; turns++) await moment(0);
        return bytes;
      },
      decode: (bytes) => bytes,
    }),
  };
  const transforms = [slow];
  await using kit = new Kit<number, number>(net, {
    transforms,
    onEvent({ type }) {
      if (type !== "disconnected") return;
      // The reader of the results has something to do, for example.
      const since = performance.now();
      while (performance.now() - since < 1200);
    },
  });
  const client = await kit.client({ transforms });
  await client.close();
});

/** Waits at one end before it undoes a frame. */
function gated(gate: Gate, at: "server" | "client"): Transform {
  return {
    name: "gated",
    open: ({ role }) => ({
      encode: (bytes) => bytes,
      decode: async (bytes) => {
        if (role === at) await gate.pass();
        return bytes;
      },
    }),
  };
}

both(
  "transforms: a server's that come to an end too late open nothing",
  async (net) => {
    const gate = new Gate();
    const transforms = [gated(gate, "server")];
    await using kit = new Kit(net, { transforms, handshakeTimeoutMs: 100 });
    const client = new Client(await kit.dial(), { transforms });
    const error = await assertRejects(() => client.opened, HandshakeError);
    assertEquals(error.code, "timeout");
    gate.open();
    await moment();
    assertEquals(kit.events.map(({ type }) => type), ["rejected"]);
  },
);

both(
  "transforms: a client's that come to an end after its abort open nothing",
  async (net) => {
    const gate = new Gate(), types: string[] = [];
    const transforms = [gated(gate, "client")];
    await using kit = new Kit(net, { transforms });
    const client = new Client(await kit.dial(), {
      transforms,
      onEvent: ({ type }) => types.push(type),
    });
    await until(() => gate.passing > 0, "it undoes CONFIRM");
    const aborted = client.abort();
    gate.open();
    await aborted;
    await moment();
    assertEquals(types.includes("connected"), false, `${types}`);
  },
);
