import {
  assert,
  assertEquals,
  assertFalse,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import { ByteWriter } from "../internal/byte_writer.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import {
  DecodeError,
  HandshakeError,
  type HandshakeErrorCode,
  ProtocolError,
} from "../internal/errors.ts";
import {
  FrameType,
  FrameWriter,
  MAX_FRAME_BYTES,
  REJECT_CODES,
} from "../internal/frame.ts";
import {
  checkTerms,
  type Hello,
  readHello,
  readReject,
  readWelcome,
  rejectCode,
  sessionId,
  Transcript,
  type Welcome,
  writeHello,
  writeWelcome,
} from "../internal/handshake.ts";
import { hmac } from "./_support/hmac.ts";
import { seeded } from "./_support/rng.ts";
import { sequence } from "./_support/scripted_peer.ts";

const HELLO: Hello = {
  version: 1,
  signature: "distchan",
  codec: "cbor",
  transforms: [],
  maxFrameBytes: 4096,
  nonce: new Uint8Array(16).fill(1),
  instance: new Uint8Array(16).fill(2),
  name: "",
  auth: false,
  trace: false,
};
const WELCOME: Welcome = {
  version: 1,
  signature: "distchan",
  codec: "cbor",
  transforms: [],
  maxFrameBytes: 4096,
  nonce: new Uint8Array(16).fill(3),
  results: true,
  trace: false,
};

/** A reader behind the type of the one frame that is written. */
function written(write: (frames: FrameWriter) => void): CborDecoder {
  const frames = new FrameWriter(new ByteWriter());
  write(frames);
  const reader = new CborDecoder();
  reader.set(frames.out.toBytes(), 4);
  reader.readUint();
  return reader;
}

function reader(...values: unknown[]): CborDecoder {
  const reader = new CborDecoder();
  reader.set(sequence(...values));
  return reader;
}

function fields(of: Hello | Welcome, other: Record<string, unknown> = {}) {
  const { version: _, ...rest } = of;
  return Object.fromEntries(
    Object.entries({ ...rest, ...other }).filter(([, v]) => v !== undefined),
  );
}

Deno.test("readHello() reads what writeHello() writes, at random", () => {
  const rng = seeded("hellos");
  for (let i = 0; i < 200; i++) {
    const hello: Hello = {
      version: 1,
      signature: "s".repeat(rng.int(0, 40)) + "é😀",
      codec: rng.pick(["cbor", "json", ""]),
      transforms: Array.from({ length: rng.int(0, 5) }, (_, i) => `t${i}`),
      maxFrameBytes: rng.int(1024, MAX_FRAME_BYTES),
      nonce: rng.bytes(16),
      instance: rng.bytes(16),
      name: rng.pick(["", "a worker", "😀"]),
      auth: rng.chance(0.5),
      trace: rng.chance(0.5),
    };
    const from = written((frames) => writeHello(frames, hello));
    assertEquals(readHello(from), hello);
    from.finish();
  }
});

Deno.test("readWelcome() reads what writeWelcome() writes", () => {
  for (const results of [true, false]) {
    const welcome: Welcome = {
      ...WELCOME,
      results,
      transforms: ["gzip", "aes"],
      trace: !results,
    };
    const from = written((frames) => writeWelcome(frames, welcome));
    assertEquals(readWelcome(from), welcome);
    from.finish();
  }
});

Deno.test("readHello() and readWelcome() ignore keys that they don't know", () => {
  const more = {
    later: [1, { deep: true }],
    constructor: "x",
    "__proto__x": 1,
  };
  assertEquals(readHello(reader("distchan", 1, fields(HELLO, more))), HELLO);
  assertEquals(readWelcome(reader(1, fields(WELCOME, more))), WELCOME);
});

Deno.test("readHello() and readWelcome() take keys in any order, optional ones left out", () => {
  const rng = seeded("orders");
  const shuffled = (of: Record<string, unknown>) =>
    Object.fromEntries(rng.shuffle(Object.entries(of)));
  for (let i = 0; i < 20; i++) {
    assertEquals(
      readHello(
        reader(
          "distchan",
          1,
          shuffled(fields(HELLO, { name: undefined, auth: undefined })),
        ),
      ),
      HELLO,
    );
    assertEquals(
      readWelcome(reader(1, shuffled(fields(WELCOME, { results: undefined })))),
      WELCOME,
    );
  }
});

Deno.test("readHello() asks for the magic first, then the version", () => {
  assertThrows(
    () => readHello(reader("other", 9)),
    ProtocolError,
    'expected "distchan", got "other"',
  );
  const error = assertThrows(
    () => readHello(reader("distchan", 9, "another format")),
    HandshakeError,
    "speaks version 1 of the protocol, the peer speaks 9",
  );
  assertEquals(error.code, "version");
  assertThrows(() => readHello(reader(1)), DecodeError);
});

for (
  const [what, other] of [
    ["signature", { signature: 1 }],
    ["codec", { codec: null }],
    ["transforms", { transforms: "gzip" }],
    ["transforms", { transforms: ["gzip", 1] }],
    ["maxFrameBytes", { maxFrameBytes: 1023 }],
    ["maxFrameBytes", { maxFrameBytes: 2 ** 32 }],
    ["maxFrameBytes", { maxFrameBytes: 4096n }],
    ["nonce", { nonce: new Uint8Array(15) }],
    ["nonce", { nonce: new Uint16Array(8) }],
  ] as const
) {
  Deno.test(`readHello() and readWelcome() refuse ${Deno.inspect(other)}`, () => {
    for (
      const read of [
        () => readHello(reader("distchan", 1, fields(HELLO, other))),
        () => readWelcome(reader(1, fields(WELCOME, other))),
      ]
    ) assertThrows(read, ProtocolError, what);
  });
}

Deno.test("readHello() takes own keys only", () => {
  // A peer can't reach into prototypes by the names of its keys.
  const given = fields(HELLO, { name: undefined, toString: "x" });
  assertEquals(readHello(reader("distchan", 1, given)).name, "");
});

Deno.test("readHello() cuts a name that the writer should have cut", () => {
  const given = fields(HELLO, { name: "n".repeat(3000) });
  const { name } = readHello(reader("distchan", 1, given));
  assertEquals(name, `${"n".repeat(199)}…`);
});

Deno.test("checkTerms() names the first difference and both sides' values", () => {
  const ours = { signature: "a", codec: "cbor", transforms: ["gzip"] };
  checkTerms({ ...ours }, ours);
  for (
    const [theirs, code, message] of [
      [{ ...ours, signature: "b", codec: "x" }, "signature", '"b".*"a"'],
      [{ ...ours, codec: "json", transforms: [] }, "codec", '"json".*"cbor"'],
      [{ ...ours, transforms: [] }, "transforms", '\\[\\].*\\["gzip"\\]'],
      [{ ...ours, transforms: ["aes", "gzip"] }, "transforms", "aes"],
    ] as const
  ) {
    const error = assertThrows(() => checkTerms(theirs, ours), HandshakeError);
    assertEquals(error.code, code);
    assert(new RegExp(message).test(error.message), error.message);
  }
});

Deno.test("readReject() knows every code, and takes others for protocol", () => {
  for (const [number, code] of REJECT_CODES.entries()) {
    const from = written((frames) =>
      frames.farewell(FrameType.REJECT, number, "why")
    );
    const error = readReject(from);
    assertEquals([error.code, error.message], [code ?? "protocol", "why"]);
    if (code !== undefined) assertEquals(rejectCode(code), number);
  }
  assertEquals(readReject(reader(1000, "new")).code, "protocol");
  assertThrows(() => readReject(reader(1)), DecodeError);
  assertThrows(() => readReject(reader(1, "why", 2)), DecodeError, "follow");
});

Deno.test("readReject() cuts a reason that the writer should have cut", () => {
  const { message } = readReject(reader(6, "r".repeat(3000)));
  assertEquals(message, `${"r".repeat(999)}…`);
});

Deno.test("rejectCode() gives every code a number of its own", () => {
  const codes: HandshakeErrorCode[] = [
    "signature",
    "version",
    "codec",
    "transforms",
    "auth",
    "full",
    "timeout",
    "protocol",
  ];
  assertEquals(codes.map(rejectCode), [1, 2, 3, 4, 5, 6, 7, 8]);
});

Deno.test("sessionId() is the client's nonce, then the server's", () => {
  const id = sessionId(new Uint8Array([1, 2]), new Uint8Array([3, 4]));
  assertEquals(id, new Uint8Array([1, 2, 3, 4]));
});

Deno.test("Transcript: a proof is over everything that was said", () => {
  const rng = seeded("transcripts");
  const secret = new TextEncoder().encode("secret");
  const bodies = [rng.bytes(100), rng.bytes(17), rng.bytes(33)];
  const said = (parts: readonly Uint8Array[], key = secret) => {
    const transcript = new Transcript(key);
    for (const part of parts) transcript.add(part);
    return transcript;
  };
  const proof = said(bodies).proof("client");
  assertEquals(proof.toHex(), hmac("secret", "client", bodies).toHex());
  assert(said(bodies).verify("client", proof));
  assertFalse(said(bodies).verify("server", proof), "the other role");
  assertFalse(said(bodies.slice(0, 2)).verify("client", proof));
  assertFalse(said(bodies.toReversed()).verify("client", proof));
  assertFalse(said(bodies, rng.bytes(6)).verify("client", proof));
  assertFalse(said(bodies).verify("client", proof.subarray(0, 31)));
  assertFalse(said(bodies).verify("client", new Uint8Array(0)));
  for (let i = 0; i < 50; i++) {
    const changed = bodies.map((b) => b.slice());
    const part = rng.pick(changed);
    part[rng.int(0, part.length - 1)]! ^= 1 << rng.int(0, 7);
    assertFalse(said(changed).verify("client", proof));
  }
  // The border between two bodies counts, not only their bytes.
  const joined = new Uint8Array([...bodies[0]!, ...bodies[1]!]);
  const moved = [joined.subarray(0, 99), joined.subarray(99), bodies[2]!];
  assertNotEquals(said(moved).proof("client"), proof);
});
