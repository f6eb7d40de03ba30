/** Keys that a peer has chosen so that V8 looks for each among all others. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { cbor, DecodeError } from "../codec.ts";
import { KeyBuckets } from "../internal/key_buckets.ts";

const codec = cbor();
const COUNT = 20_000;

/** The 64 bits that V8 hashes to `hash`, of those with `i` above it. */
function preimage(i: number, hash: bigint): bigint {
  const wrap = (n: bigint) => BigInt.asUintN(64, n);
  const inverse = (factor: bigint) => {
    let x = 1n;
    for (let n = 0; n < 7; n++) x = wrap(x * (2n - factor * x));
    return x;
  };
  const unshift = (n: bigint, bits: bigint) => {
    let x = n;
    for (let done = bits; done < 64n; done += bits) x = n ^ (x >> bits);
    return wrap(x);
  };
  let n = unshift((BigInt(i) << 30n) | hash, 22n);
  n = unshift(wrap(n * inverse(65n)), 11n);
  n = unshift(wrap(n * inverse(21n)), 31n);
  return wrap((n + 1n) * inverse((1n << 18n) - 1n));
}

function toDouble(bits: bigint): number {
  return new Float64Array(new BigUint64Array([bits]).buffer)[0]!;
}

/** Integers of 32 bits that share the last bits of their hash. */
function collidingIntegers(count: number): number[] {
  const found: number[] = [];
  for (let i = 0; found.length < count; i++) {
    let key = (~i + (i << 15)) | 0;
    key ^= key >>> 12;
    key = (key + (key << 2)) | 0;
    key ^= key >>> 4;
    key = Math.imul(key, 2057);
    if (((key ^ (key >>> 16)) & 0x3fff) === 77) found.push(i | 0);
  }
  return found;
}

const indices = Array.from({ length: COUNT }, (_, i) => i);
const colliding: Record<string, (number | bigint | string)[]> = {
  "bigints with the same last 64 bits": indices.map((i) => BigInt(i) << 64n),
  "bigints that were computed": indices.map((i) => preimage(i, 12345n)),
  "doubles that were computed": indices.map((i) => toDouble(preimage(i, 5n)))
    .filter((n) => !Number.isNaN(n)),
  "integers that were computed": collidingIntegers(10_500),
  "text that is a number": indices.map((i) => String(1e9 + i * 32768)),
};

for (const [name, keys] of Object.entries(colliding)) {
  Deno.test(`The codec refuses sets and maps of ${name}`, () => {
    // The same keys in V8's own order of magnitude: what is sent is well-formed.
    for (const value of [new Set(keys), new Map(keys.map((k) => [k, 0]))]) {
      const payload = codec.encode(value);
      assertThrows(() => codec.decode(payload), DecodeError, "collide");
      if (value instanceof Map && typeof keys[0] !== "string") {
        const untagged = payload.subarray(3); // without tag 259
        assertEquals(untagged[0]! >> 5, 5);
        assertThrows(() => codec.decode(untagged), DecodeError, "collide");
      }
    }
    if (typeof keys[0] === "string") {
      // An object as far as its keys are text: what it becomes is a Map.
      const object = Object.fromEntries(keys.map((key) => [key, 0]));
      const payload = codec.encode(object).with(2, keys.length + 1 & 0xff);
      const mixed = new Uint8Array([...payload, 0x01, 0x00]);
      assertThrows(() => codec.decode(mixed), DecodeError, "collide");
    }
    assertEquals(codec.decode(codec.encode(keys)), keys, "a list is fine");
  });
}

const good: Record<string, (i: number) => number | bigint | string> = {
  "text of 0, 1, 2 …": (i) => String(i),
  "0, 1, 2 …": (i) => i,
  "multiples of 65,536": (i) => i * 65536,
  "points in time": (i) => 1_700_000_000_000 + i * 1000,
  "fractions": (i) => i / 7,
  "powers and their neighbours": (i) => 2 ** (i % 1000) + i,
  "bigints": (i) => BigInt(i),
  "negative bigints": (i) => -BigInt(i) * 1_000_003n,
  "bigints of 128 bits": (i) =>
    (BigInt(i) << 64n) |
    (BigInt(i) * 0x9e37_79b9_7f4a_7c15n & (1n << 64n) - 1n),
  "long bigints": (i) =>
    (BigInt(i) << 512n) | (BigInt(i) * 0x9e37_79b9_7f4a_7c15n),
  "small bigints, shifted": (i) => BigInt(i % 1000) << 64n,
};

for (const [name, make] of Object.entries(good)) {
  Deno.test(`KeyBuckets accepts any number of keys like ${name}`, () => {
    const buckets = new KeyBuckets();
    const keys = new Set(Array.from({ length: 200_000 }, (_, i) => make(i)));
    for (const key of keys) assert(buckets.accepts(key), `${key}`);
  });
}

Deno.test("KeyBuckets accepts some thousands of keys that collide by nature", () => {
  for (
    const make of [
      (i: number) => BigInt(i) << 64n, // IPv6 networks
      (i: number) => 1n << BigInt(i), // of which few have the same length
      (i: number) => String(i * 65536), // places in a file
    ]
  ) {
    const buckets = new KeyBuckets();
    for (let i = 0; i < 8000; i++) assert(buckets.accepts(make(i)), `${i}`);
  }
});

Deno.test("KeyBuckets counts nothing whose hash nobody can know", () => {
  const buckets = new KeyBuckets();
  for (let i = 0; i < 20_000; i++) {
    for (const key of ["text", "01", "99999999999", true, null, undefined]) {
      assert(buckets.accepts(key));
    }
  }
});

Deno.test("The codec refuses hundreds of long texts of one length as keys and members", () => {
  const texts = (count: number, length: (i: number) => number) =>
    Array.from({ length: count }, (_, i) => String(i).padStart(length(i), "a"));
  const containers: ((keys: string[]) => unknown)[] = [
    (keys) => new Set(keys),
    (keys) => new Map(keys.map((key) => [key, 0])),
    (keys) => Object.fromEntries(keys.map((key) => [key, 0])),
    (keys) => Object.setPrototypeOf(containers[2]!(keys), null),
  ];
  for (const make of containers) {
    const refused = codec.encode(make(texts(500, () => 16_384)));
    assertThrows(() => codec.decode(refused), DecodeError, "collide");
    for (const length of [() => 16_383, (i: number) => 16_384 + i]) {
      codec.decode(codec.encode(make(texts(500, length))));
    }
  }
});

Deno.test("The codec refuses hundreds of long bigints with the same last 64 bits", () => {
  const bigints = (count: number, shift: bigint) =>
    Array.from(
      { length: count },
      (_, i) => (1n << 32768n) + (1n << shift) * BigInt(i),
    );
  for (
    const make of [
      (keys: bigint[]) => new Set(keys),
      (keys: bigint[]) => new Set(keys.map((key) => -key)),
      (keys: bigint[]) => new Map(keys.map((key) => [key, 0])),
    ]
  ) {
    const refused = codec.encode(make(bigints(900, 64n)));
    assertThrows(() => codec.decode(refused), DecodeError, "collide");
    codec.decode(codec.encode(make(bigints(900, 0n))));
    codec.decode(codec.encode(make(bigints(90, 64n))));
  }
});

Deno.test("The codec refuses hundreds of long keys that are objects, of one length", () => {
  const map = (count: number, length: number) => {
    const payload = new Uint8Array(3 + count * (length + 4));
    payload.set([0xb9, count >> 8, count & 0xff]);
    const view = new DataView(payload.buffer);
    for (let i = 0, at = 3; i < count; i++, at += length + 4) {
      payload.set([0x59, length >> 8, length & 0xff], at);
      view.setUint32(at + 3, i);
    }
    return payload;
  };
  // Three bytes are its head.
  const refused = map(500, 16_381);
  assertThrows(() => codec.decode(refused), DecodeError, "collide");
  assertEquals(
    (codec.decode(map(500, 16_380)) as Map<unknown, unknown>).size,
    500,
  );
});
