/**
 * The codec and the real `@std/cbor` read each other's bytes, where the latter
 * is right: below 2^32, no typed arrays but Uint8Array, ASCII keys of at least
 * one character.
 */

import { assert, assertEquals } from "@std/assert";
import { cbor, CborTag, type CborType } from "../codec.ts";
import { stdCbor } from "./_support/real_std.ts";
import { type Rng, seeded } from "./_support/rng.ts";
import { assertSame } from "./_support/same.ts";

const codec = cbor();

if (stdCbor === undefined) {
  console.log(
    "the tests against @std/cbor are skipped: only its stand-in is here",
  );
}

const values: CborType[] = [
  null,
  undefined,
  true,
  false,
  0,
  23,
  24,
  65536,
  -1,
  -70000,
  0.5,
  1.1,
  NaN,
  Infinity,
  "",
  "text",
  "ключ 🙂",
  "x".repeat(1000),
  new Uint8Array([1, 2, 3]),
  new Date(0),
  new Date(1363896240500),
  [],
  [1, [2, [3]]],
  {},
  { a: 1, b: { c: [1, 2] } },
  new Map<CborType, CborType>([[1, "a"], ["b", 2]]),
  new CborTag(1000, ["a"]),
  2n ** 64n,
  -(2n ** 70n),
];

function randomValue(rng: Rng, depth: number): CborType {
  const length = rng.int(0, 5);
  switch (depth === 0 ? rng.int(3, 8) : rng.int(0, 8)) {
    case 0:
      return Array.from({ length }, () => randomValue(rng, depth - 1));
    case 1:
      return Object.fromEntries(
        Array.from(
          { length },
          (_, i) => [`k${i}`, randomValue(rng, depth - 1)],
        ),
      );
    case 2:
      return new Map(
        Array.from({ length }, (_, i) => [i, randomValue(rng, depth - 1)]),
      );
    case 3:
      return rng.int(-(2 ** 31), 2 ** 31);
    case 4:
      return rng.float();
    case 5:
      return rng.bytes(rng.int(0, 300));
    case 6:
      return "aé水🙂".repeat(rng.int(0, 40));
    case 7:
      return new Date(rng.int(0, 1e9) * 1000);
    default:
      return rng.pick([null, undefined, true, false]);
  }
}

Deno.test({
  name: "cbor() reads what @std/cbor writes (needs the real one)",
  ignore: stdCbor === undefined,
  fn() {
    assert(stdCbor);
    const rng = seeded("cbor() reads what @std/cbor writes");
    const random = Array.from({ length: 1000 }, () => randomValue(rng, 3));
    for (const value of [...values, ...random]) {
      assertSame(codec.decode(stdCbor.encodeCbor(value)), value);
    }
  },
});

Deno.test({
  name: "cbor() is read by @std/cbor (needs the real one)",
  ignore: stdCbor === undefined,
  fn() {
    assert(stdCbor);
    const rng = seeded("cbor() is read by @std/cbor");
    const random = Array.from({ length: 1000 }, () => randomValue(rng, 3));
    for (const value of [...values, ...random]) {
      assertEquals(stdCbor.decodeCbor(codec.encode(value)), value);
    }
  },
});

Deno.test({
  name: "cbor() and @std/cbor write the same bytes (needs the real one)",
  ignore: stdCbor === undefined,
  fn() {
    assert(stdCbor);
    for (const value of values) {
      // It writes every float as a double.
      if (typeof value === "number" && !Number.isInteger(value)) continue;
      if (value instanceof Date && value.getTime() % 1000 !== 0) continue;
      assertEquals(codec.encode(value), stdCbor.encodeCbor(value));
    }
  },
});
