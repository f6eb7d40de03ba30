import { assert, assertEquals, assertLess, assertThrows } from "@std/assert";
import process from "node:process";
import { cbor, CborTag, DecodeError } from "../codec.ts";
import { CborCodec } from "../internal/cbor_codec.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import { PayloadCodec } from "../internal/payload.ts";
import { randomValue } from "./_support/random_value.ts";
import { type Rng, seeded } from "./_support/rng.ts";

const codec = cbor();
const bytes = (hex: string) => Uint8Array.fromHex(hex);

/** Bytes that are a head over and over, with an end. */
function nested(head: string, count: number, tail = ""): Uint8Array {
  return bytes(head.repeat(count) + tail);
}

/** What this process has used of the processor: a busy one is no slow codec. */
function usedMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function refuse(payload: Uint8Array, reason: string): void {
  assertThrows(() => codec.decode(payload), DecodeError, reason);
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(a.length + b.length);
  result.set(a);
  result.set(b, a.length);
  return result;
}

/** Changes a payload at random, as a broken or hostile peer might. */
function mutate(rng: Rng, payload: Uint8Array): Uint8Array {
  let result = payload.slice();
  for (let i = rng.int(1, 3); i > 0; i--) {
    const at = rng.int(0, Math.max(0, result.length - 1));
    switch (rng.int(0, 5)) {
      case 0: // One bit.
        result[at]! ^= 1 << rng.int(0, 7);
        break;
      case 1: // One byte.
        result[at] = rng.uint32();
        break;
      case 2: // An end that is missing.
        result = result.slice(0, at);
        break;
      case 3: // A part twice.
        result = joined(
          result.subarray(0, at),
          result.subarray(rng.int(0, at)),
        );
        break;
      case 4: // A part less.
        result = joined(
          result.subarray(0, at),
          result.subarray(rng.int(at, result.length)),
        );
        break;
      default: // A head that claims much.
        if (result.length > 0) {
          result[at] = rng.pick([
            0x9b,
            0xbb,
            0x5b,
            0x7b,
            0xdb,
            0x1b,
            0x9f,
            0xff,
          ]);
        }
    }
  }
  return result;
}

Deno.test("cbor() decodes or refuses 100,000 mutated payloads", () => {
  const name = "cbor() decodes or refuses 100,000 mutated payloads";
  const rng = seeded(name);
  let decoded = 0;
  let slowest = 0;
  for (let round = 0; round < 1000; round++) {
    const payload = codec.encode(randomValue(rng));
    for (let i = 0; i < 100; i++) {
      const mutated = mutate(rng, payload);
      const start = performance.now();
      try {
        codec.decode(mutated);
        decoded++;
      } catch (error) {
        if (!(error instanceof DecodeError)) {
          throw new Error(`not a DecodeError: ${mutated.toHex()}`, {
            cause: error,
          });
        }
        assert(error.offset >= 0 && error.offset <= mutated.length);
      }
      slowest = Math.max(slowest, performance.now() - start);
    }
  }
  // Both happened, and often.
  assert(decoded > 1000 && decoded < 99_000, `${decoded} decoded`);
  assertLess(slowest, 2000);
});

Deno.test("cbor() decodes or refuses random bytes", () => {
  const rng = seeded("cbor() decodes or refuses random bytes");
  for (let i = 0; i < 50_000; i++) {
    const payload = rng.bytes(rng.int(0, 40));
    try {
      codec.decode(payload);
    } catch (error) {
      assert(error instanceof DecodeError, payload.toHex());
    }
  }
});

Deno.test("cbor() encodes what it decoded from random bytes to the same value", () => {
  const rng = seeded("cbor() encodes what it decoded from random bytes");
  for (let i = 0; i < 50_000; i++) {
    let value: unknown;
    try {
      value = codec.decode(rng.bytes(rng.int(1, 12)));
    } catch {
      continue;
    }
    const payload = codec.encode(value);
    assertEquals(codec.encode(codec.decode(payload)), payload);
  }
});

Deno.test("cbor() refuses 200 bytes of nested headers", () => {
  const heads = {
    "an array": "81",
    "an endless array": "9f",
    "a large array": "98ff",
    "a map's value": "a16161",
    "a map's key": "a1",
    "an endless map": "bf",
    "an unknown tag": "c6",
    "a long tag": "db00ffffffffffffff",
    "a Set": "d9010281",
    "a Map": "d90103a100",
    "a dictionary": "d90113a16161",
    "an error": "d81b83654572726f7260a1656361757365",
  };
  for (const [what, head] of Object.entries(heads)) {
    const payload = nested(
      head,
      Math.max(70, Math.ceil(400 / head.length)),
      "00",
    );
    assertThrows(() => codec.decode(payload), DecodeError, "", what);
  }
  refuse(nested("81", 200, "00"), "nested too deep: the limit is 64");
  refuse(nested("c6", 200, "00"), "nested too deep: the limit is 64");
});

Deno.test("cbor() refuses a million nested headers whatever the limit", () => {
  const unlimited = cbor({ maxDepth: 2 ** 40 });
  for (const head of ["81", "9f", "c6", "d9010281"]) {
    const payload = nested(head, 1_000_000, "00");
    assertThrows(() => unlimited.decode(payload), DecodeError);
  }
});

Deno.test("cbor() refuses counts and lengths that the bytes can't hold", () => {
  for (const major of ["9", "b", "5", "7"]) {
    for (
      const length of [
        "8ff",
        "9ffff",
        "affffffff",
        "b0000000100000000",
        "b001fffffffffffff",
        "b0020000000000001",
        "bffffffffffffffff",
      ]
    ) {
      assertThrows(() => codec.decode(bytes(major + length)), DecodeError);
      assertThrows(
        () => codec.decode(bytes(`d90102${major}${length}00`)),
        DecodeError,
      );
    }
  }
});

Deno.test("cbor() allocates no more than the bytes can hold, however they nest", () => {
  // Each array claims all of the bytes that are left, which its neighbours
  // claim as well: the claims add up to 64 times the payload.
  const size = 4 * 1024 * 1024;
  const payload = new Uint8Array(size);
  for (let depth = 0; depth < 60; depth++) {
    payload.set([0x9a, 0, 0x3f, 0xf0, 0], depth * 5);
  }
  const before = Deno.memoryUsage().heapTotal;
  const start = usedMs();
  for (let i = 0; i < 10; i++) refuse(payload, "more than the bytes");
  assertLess(usedMs() - start, 2000);
  assertLess(Deno.memoryUsage().heapTotal - before, 256 * 1024 * 1024);
});

Deno.test("cbor() takes time in proportion to the bytes", () => {
  const n = 200_000;
  const head = "ba" + n.toString(16).padStart(8, "0");
  const payloads: Record<string, () => Uint8Array> = {
    "many keys": () =>
      codec.encode(
        Object.fromEntries(Array.from({ length: n }, (_, i) => [`k${i}`, i])),
      ),
    "many integer keys": () =>
      bytes(
        head + Array.from({ length: n }, (_, i) =>
          "1a" + i.toString(16).padStart(8, "0") + "00").join(""),
      ),
    "many array keys": () =>
      bytes(
        head + Array.from({ length: n }, (_, i) =>
          "811a" + i.toString(16).padStart(8, "0") + "00").join(""),
      ),
    "a large Map": () =>
      codec.encode(new Map(Array.from({ length: n }, (_, i) => [i, i]))),
    "a large Set": () =>
      codec.encode(new Set(Array.from({ length: n }, (_, i) => `v${i}`))),
    "a large bignum": () => codec.encode(1n << BigInt(8 * 1024 * 1024)),
    "many tiny chunks of text": () => bytes("7f" + "6161".repeat(n) + "ff"),
    "many empty chunks of text": () => bytes("7f" + "60".repeat(n) + "ff"),
    "many tiny chunks of bytes": () => bytes("5f" + "4161".repeat(n) + "ff"),
    "text that is mostly U+FFFD": () => codec.encode("\ufffd".repeat(n)),
    "many short texts with U+FFFD": () =>
      codec.encode(Array.from({ length: n }, () => "\ufffd")),
    "many different keys": () =>
      codec.encode(
        Array.from(
          { length: n / 2 },
          (_, i) => ({ [`a${i}`]: { [`b${i}`]: 1 } }),
        ),
      ),
    "many empty objects": () =>
      codec.encode(Array.from({ length: n }, () => ({}))),
    "many regular expressions": () =>
      codec.encode(
        Array.from({ length: n / 10 }, (_, i) => new RegExp(`a${i}`)),
      ),
    "maps that turn out to have other keys": () => {
      let value = bytes("a26161000000");
      for (let depth = 0; depth < 62; depth++) {
        value = Uint8Array.of(...bytes("a26161"), ...value, 0, 0);
      }
      return value;
    },
  };
  for (const [what, make] of Object.entries(payloads)) {
    const payload = make();
    const start = usedMs();
    codec.decode(payload);
    // Far from tight: a quadratic algorithm takes minutes here.
    assertLess(usedMs() - start, 5000, what);
  }
});

Deno.test("cbor() refuses a key that is there twice at the end of a large map", () => {
  const n = 100_000;
  const object = Object.fromEntries(
    Array.from({ length: n }, (_, i) => [`k${i}`, 0]),
  );
  const payload = codec.encode({ ...object, x1: 1 });
  const at = payload.length - 3;
  // "x1" becomes "k1".
  payload[at + 0] = "k".charCodeAt(0);
  const error = assertThrows(
    () => codec.decode(payload),
    DecodeError,
    'key "k1" is there twice',
  );
  assertEquals(error.offset, at - 1);
});

Deno.test("cbor() encodes a large bignum in linear time", () => {
  const value = (1n << BigInt(16 * 1024 * 1024)) - 1n;
  const start = usedMs();
  assertEquals(codec.decode(codec.encode(value)) === value, true);
  assertLess(usedMs() - start, 5000);
});

Deno.test("cbor() refuses a regular expression that nests too deep to parse", () => {
  refuse(codec.encode(new CborTag(21066, ["(".repeat(100_000)])), "not valid");
  refuse(
    codec.encode(
      new CborTag(21066, ["(".repeat(100_000) + ")".repeat(100_000)]),
    ),
    "not valid",
  );
});

Deno.test("cbor() gives no peer a prototype to write to", () => {
  const payloads = [
    "a1 695f5f70726f746f5f5f a1 61 61 01",
    "a1 6b636f6e7374727563746f72 a1 69 70726f746f74797065 a1 61 61 01",
    "d81b83654572726f7260a1 656361757365 a1 695f5f70726f746f5f5f a1 61 61 01",
    "d90113a1 695f5f70726f746f5f5f a1 61 61 01",
  ];
  for (const hex of payloads) codec.decode(bytes(hex.replaceAll(" ", "")));
  const details = "d81b83654572726f7260a1 695f5f70726f746f5f5f a1 61 61 01";
  assertThrows(() => codec.decode(bytes(details.replaceAll(" ", ""))));
  assertEquals(({} as { a?: 1 }).a, undefined);
  assertEquals((new Error() as unknown as { a?: 1 }).a, undefined);
});

Deno.test("cbor() keeps a peer's text from other peers' memory", () => {
  // What is cached for speed is told apart by its bytes, not by its hash.
  const rng = seeded("cbor() keeps keys apart");
  for (let round = 0; round < 200; round++) {
    const keys = Array.from(
      { length: 50 },
      () => `k${rng.int(0, 9)}${"x".repeat(rng.int(0, 3))}${rng.int(0, 9)}`,
    );
    const object = Object.fromEntries(keys.map((key, i) => [key, i]));
    assertEquals(codec.decode(codec.encode(object)), object);
  }
});

Deno.test("PayloadCodec.beginFrame(): regular expressions are limited in each frame, not in a connection", () => {
  const payloads = new PayloadCodec(codec);
  const reader = new CborDecoder();
  const read = (from: number) => {
    const list = Array.from(
      { length: 512 },
      (_, i) => new RegExp(`\\p{L}\\P{Lu}${from + i}`, "u"),
    );
    reader.set(codec.encode(codec.encode(list)));
    reader.readBytesRange();
    assertEquals(payloads.readFrom(reader), list);
  };
  payloads.beginFrame();
  read(0);
  payloads.beginFrame();
  read(1000);
  assertThrows(() => read(2000), DecodeError, "more than 1024 escapes");
});

Deno.test("codec: regular expressions that are slow to read are limited, all together", () => {
  const emoji = (i: number) => new RegExp(`\\p{RGI_Emoji}${i}`, "v");
  const letters = (i: number) => new RegExp(`\\p{L}\\P{Lu}${i}`, "u");
  const words = (i: number) => new RegExp(`[${"\\W".repeat(64)}]${i}`, "ui");
  const classes = (i: number) => new RegExp(`[a${i}]`.repeat(100), "v");
  for (
    const [make, fit] of [
      [emoji, 31],
      [letters, 512],
      [words, 16],
      [classes, 10],
    ] as const
  ) {
    const list = Array.from({ length: fit + 1 }, (_, i) => make(i));
    refuse(codec.encode(list), "more than 1024 escapes");
    list.pop();
    // Each value has as many, whatever came before it.
    for (let i = 0; i < 2; i++) {
      assertEquals(codec.decode(codec.encode(list)), list);
    }
    const same = Array.from({ length: 2000 }, () => make(0));
    assertEquals(
      codec.decode(codec.encode(same)),
      same,
      "the same is read once",
    );
  }
  const many = Array.from({ length: 5000 }, (_, i) => new RegExp(`p{${i}}[a]`));
  assertEquals(codec.decode(codec.encode(many)), many, "without u or v");
});

Deno.test("codec: references to groups of one name are limited, all together", () => {
  const pattern = (groups: number, references: number, i = 0) =>
    `${"(?<a>)|".repeat(groups)}${"\\k<a>".repeat(references)}${i}`;
  // Such an expression would take seconds and gigabytes: it is never made here.
  const payload = (source: string) =>
    codec.encode(new CborTag(21066, [source, "i"]));
  refuse(payload(pattern(10_000, 20_000)), "pairs of a named group");
  const good = Array.from(
    { length: 4 },
    (_, i) => new RegExp(pattern(512, 512, i)),
  );
  for (let i = 0; i < 2; i++) {
    assertEquals(codec.decode(codec.encode(good)), good);
  }
  refuse(
    codec.encode([...good, new RegExp(pattern(2, 1))]),
    "pairs of a named group",
  );
});

Deno.test("codec: regular expressions of many groups, or with v of long classes, are limited, all together", () => {
  const groups = (count: number) => "(?<a>)|".repeat(count);
  const characters = (count: number) => {
    const codes = Array.from({ length: count }, (_, i) => 0x4000 + 2 * i);
    return `[${String.fromCharCode(...codes)}]`;
  };
  // Reading larger ones would take minutes.
  const payload = (...list: [source: string, flags: string][]) =>
    codec.encode(list.map((content) => new CborTag(21066, content)));
  refuse(payload([groups(28_000), "i"]), "pairs of named groups");
  refuse(payload([characters(16_000), "iv"]), "pairs of named groups");
  assertEquals(
    (codec.decode(payload([characters(16_000), "i"])) as unknown[]).length,
    1,
    "without v it takes no time",
  );
  const good: [string, string][] = [
    [groups(1448), "i"],
    [characters(1446), "iv"],
  ];
  for (let i = 0; i < 2; i++) codec.decode(payload(...good));
  refuse(payload(...good, [characters(1), "v"], [groups(40), ""]), "pairs of");
  const unended = characters(4000).slice(0, -1);
  for (const source of [unended, `[\\]${unended}`, `[[a]${unended}`]) {
    refuse(payload([source, "v"]), "pairs of named groups");
  }
  // What is in no class is compared with nothing.
  const long = `[a-z]${"\\]x".repeat(2000)}`;
  const many = Array.from(
    { length: 1000 },
    (_, i) => new RegExp(`[a-z]${"x".repeat(100)}${i}`, "v"),
  );
  for (const list of [[new RegExp(long, "v")], many]) {
    assertEquals(codec.decode(codec.encode(list)), list);
  }
});

Deno.test("codec: regular expressions that are refused or wrong count again in each payload of a frame", () => {
  const inFrame = new CborCodec();
  const refuseNext = (source: string, why: string) => {
    const payload = codec.encode(new CborTag(21066, [source, "i"]));
    assertThrows(
      () => inFrame.decodeFrom(payload, 0, payload.length),
      DecodeError,
      why,
    );
  };
  const groups = "(?<a>)|".repeat(1200);
  refuseNext(`${groups})`, "is not valid");
  refuseNext(`${groups})`, "is not valid");
  // Three of them are more than may be.
  for (let i = 0; i < 2; i++) refuseNext(`${groups})`, "pairs of named groups");
  inFrame.resetLimits();
  refuseNext(`${groups})`, "is not valid");
});

Deno.test("codec: text longer than any string is a DecodeError", () => {
  const payload = new Uint8Array(5 + 2 ** 29); // never touched, so no memory
  payload.set([0x7a, 0x20, 0, 0, 0]);
  refuse(payload, "text of 536870912 bytes is too long");
});
