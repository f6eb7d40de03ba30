import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { cbor, CborSimple, CborTag } from "../codec.ts";
import vectors from "./testdata/rfc8949_appendix_a.json" with { type: "json" };
import { assertSame } from "./_support/same.ts";

const codec = cbor();
const bytes = (hex: string) => Uint8Array.fromHex(hex);

/** What the vectors that JSON can't express stand for. */
const diagnostics: Record<string, unknown> = {
  "Infinity": Infinity,
  "NaN": NaN,
  "-Infinity": -Infinity,
  "undefined": undefined,
  "simple(16)": new CborSimple(16),
  "simple(24)": new CborSimple(24),
  "simple(255)": new CborSimple(255),
  '0("2013-03-21T20:04:00Z")': new Date("2013-03-21T20:04:00Z"),
  "1(1363896240)": new Date(1363896240_000),
  "1(1363896240.5)": new Date(1363896240_500),
  "23(h'01020304')": new CborTag(23, bytes("01020304")),
  "24(h'6449455446')": new CborTag(24, bytes("6449455446")),
  '32("http://www.example.com")': new URL("http://www.example.com"),
  "h''": bytes(""),
  "h'01020304'": bytes("01020304"),
  "{1: 2, 3: 4}": new Map([[1, 2], [3, 4]]),
  "(_ h'0102', h'030405')": bytes("0102030405"),
};

/** Vectors whose numbers JSON.parse() rounds. */
const bigints: Record<string, bigint> = {
  "1bffffffffffffffff": 2n ** 64n - 1n,
  "c249010000000000000000": 2n ** 64n,
  "3bffffffffffffffff": -(2n ** 64n),
  "c349010000000000000000": -(2n ** 64n) - 1n,
};

/**
 * Vectors that are the preferred encoding of their value in CBOR's data model,
 * and what this profile writes instead, by the rule that it follows.
 */
const written: Record<string, [rule: string, hex: string]> = {
  "f90000": ["integral numbers are integers", "00"],
  "f93c00": ["integral numbers are integers", "01"],
  "f97bff": ["integral numbers are integers", "19ffe0"],
  "fa47c35000": ["integral numbers are integers", "1a000186a0"],
  "f9c400": ["integral numbers are integers", "23"],
  "1bffffffffffffffff": ["a bigint is a bignum", "c248ffffffffffffffff"],
  "3bffffffffffffffff": ["a bigint is a bignum", "c348ffffffffffffffff"],
  "c074323031332d30332d32315432303a30343a30305a": [
    "a Date is tag 1",
    "c11a514b67b0",
  ],
  "d82076687474703a2f2f7777772e6578616d706c652e636f6d": [
    "a URL is its href",
    "d82077687474703a2f2f7777772e6578616d706c652e636f6d2f",
  ],
  "a201020304": ["a Map is tag 259", "d90103a201020304"],
};

Deno.test("cbor() decodes every vector of RFC 8949 Appendix A", () => {
  for (const { hex, diagnostic, decoded } of vectors) {
    const actual = codec.decode(bytes(hex));
    if (hex in bigints) assertSame(actual, bigints[hex]);
    else if (diagnostic === undefined) assertSame(actual, decoded);
    else {
      assert(diagnostic in diagnostics, `${diagnostic} has no expectation`);
      assertSame(actual, diagnostics[diagnostic]);
    }
  }
  assertEquals(vectors.length, 82);
});

Deno.test("cbor() produces every preferred encoding of RFC 8949 Appendix A", () => {
  for (const { hex, roundtrip } of vectors) {
    if (!roundtrip) continue;
    const [rule, expected] = written[hex] ?? ["the preferred encoding", hex];
    assertEquals(
      codec.encode(codec.decode(bytes(hex))).toHex(),
      expected,
      rule,
    );
  }
});

Deno.test("cbor() writes a float that is no integer in the shortest form", () => {
  const encodings: [number, string][] = [
    [0.5, "f93800"],
    [-0, "f98000"],
    [5.960464477539063e-8, "f90001"],
    [2 ** -25, "fa33000000"],
    [1.1, "fb3ff199999999999a"],
    [3.4028234663852886e38, "fa7f7fffff"],
    [2 ** 54, "fa5a800000"],
    [2 ** 53 + 2, "fb4340000000000001"],
    [-(2 ** 60), "fadd800000"],
    [1e300, "fb7e37e43c8800759c"],
    [NaN, "f97e00"],
  ];
  for (const [value, hex] of encodings) {
    assertEquals(codec.encode(value).toHex(), hex);
    assertSame(codec.decode(bytes(hex)), value);
  }
});

Deno.test("cbor() writes integers to 2^53 as integers, in the shortest form", () => {
  const encodings: [number, string][] = [
    [0, "00"],
    [23, "17"],
    [24, "1818"],
    [255, "18ff"],
    [256, "190100"],
    [65535, "19ffff"],
    [65536, "1a00010000"],
    [2 ** 32 - 1, "1affffffff"],
    [2 ** 32, "1b0000000100000000"],
    [2 ** 53 - 1, "1b001fffffffffffff"],
    [2 ** 53, "1b0020000000000000"],
    [-1, "20"],
    [-24, "37"],
    [-25, "3818"],
    [-256, "38ff"],
    [-257, "390100"],
    [-(2 ** 32), "3affffffff"],
    [-(2 ** 32) - 1, "3b0000000100000000"],
    [-(2 ** 53), "3b001fffffffffffff"],
  ];
  for (const [value, hex] of encodings) {
    assertEquals(codec.encode(value).toHex(), hex);
    assertSame(codec.decode(bytes(hex)), value);
  }
});

Deno.test("cbor() decodes plain integers past 2^53 as bigints", () => {
  assertSame(codec.decode(bytes("1b0020000000000001")), 2n ** 53n + 1n);
  assertSame(codec.decode(bytes("3b0020000000000000")), -(2n ** 53n) - 1n);
});

Deno.test("cbor() decodes integers and lengths that aren't in the shortest form", () => {
  assertSame(codec.decode(bytes("1b0000000000000001")), 1);
  assertSame(codec.decode(bytes("3800")), -1);
  assertSame(codec.decode(bytes("790001" + "61")), "a");
  assertSame(codec.decode(bytes("9b0000000000000001" + "f6")), [null]);
  assertSame(codec.decode(bytes("da00000102" + "8101")), new Set([1]));
});

Deno.test("cbor() always writes a bigint as a bignum", () => {
  const encodings: [bigint, string][] = [
    [0n, "c240"],
    [1n, "c24101"],
    [-1n, "c340"],
    [-2n, "c34101"],
    [256n, "c2420100"],
    [-(2n ** 64n), "c348ffffffffffffffff"],
  ];
  for (const [value, hex] of encodings) {
    assertEquals(codec.encode(value).toHex(), hex);
    assertSame(codec.decode(bytes(hex)), value);
  }
  // Leading zeros are well-formed, and pieces too.
  assertSame(codec.decode(bytes("c2430000ff")), 255n);
  assertSame(codec.decode(bytes("c25f410141ffff")), 511n);
});

Deno.test("cbor() writes each JavaScript type as PROTOCOL.md has it", () => {
  const encodings: [unknown, string][] = [
    [new Date(0), "c100"],
    [new Date(1500), "c1f93e00"],
    [new Date(-1), "c1fbbf50624dd2f1a9fc"],
    [new Map([[1, "a"]]), "d90103a1016161"],
    [new Set([1]), "d901028101"],
    [/a/, "d9524a81" + "6161"],
    [/a/gi, "d9524a82" + "6161" + "626769"],
    [new URL("a:b"), "d82063613a62"],
    [Object.assign(Object.create(null), { a: 1 }), "d90113a1616101"],
    [new Uint8Array([1]), "4101"],
    [new Uint8ClampedArray([1]), "d8444101"],
    [new Int8Array([-1]), "d84841ff"],
    [new ArrayBuffer(1), "d81b826b4172726179427566666572" + "4100"],
    [new TypeError("m"), "d81b8269547970654572726f72" + "616d"],
    [
      Object.assign(new Error("m", { cause: 1 }), { name: "E" }),
      "d81b83654572726f72" + "616d" + "a2646e616d656145656361757365" + "01",
    ],
    [
      new AggregateError([1], "m"),
      "d81b836e4167677265676174654572726f72" + "616d" + "a1666572726f7273" +
      "8101",
    ],
    [new CborTag(1000, "a"), "d903e86161"],
    [new CborTag(2n ** 64n - 1n, "a"), "dbffffffffffffffff6161"],
    [new CborSimple(19), "f3"],
    [new CborSimple(32), "f820"],
  ];
  for (const [value, hex] of encodings) {
    assertEquals(codec.encode(value).toHex(), hex, Deno.inspect(value));
  }
});

Deno.test("cbor() decodes RFC 8746 typed arrays of both byte orders", () => {
  const decodings: [string, ArrayBufferView][] = [
    ["d840" + "420102", new Uint8Array([1, 2])],
    ["d841" + "420102", new Uint16Array([0x102])],
    ["d845" + "420201", new Uint16Array([0x102])],
    ["d842" + "4401020304", new Uint32Array([0x1020304])],
    ["d846" + "4404030201", new Uint32Array([0x1020304])],
    ["d843" + "480102030405060708", new BigUint64Array([0x102030405060708n])],
    ["d847" + "480807060504030201", new BigUint64Array([0x102030405060708n])],
    ["d849" + "42fffe", new Int16Array([-2])],
    ["d84d" + "42feff", new Int16Array([-2])],
    ["d84a" + "44fffffffe", new Int32Array([-2])],
    ["d84e" + "44feffffff", new Int32Array([-2])],
    ["d84b" + "48fffffffffffffffe", new BigInt64Array([-2n])],
    ["d84f" + "48feffffffffffffff", new BigInt64Array([-2n])],
    ["d850" + "423e00", new Float16Array([1.5])],
    ["d854" + "42003e", new Float16Array([1.5])],
    ["d851" + "443fc00000", new Float32Array([1.5])],
    ["d855" + "440000c03f", new Float32Array([1.5])],
    ["d852" + "483ff8000000000000", new Float64Array([1.5])],
    ["d856" + "48000000000000f83f", new Float64Array([1.5])],
  ];
  for (const [hex, view] of decodings) {
    assertSame(codec.decode(bytes(hex)), view);
  }
  // There is no class for these.
  assertInstanceOf(codec.decode(bytes("d853" + "40")), CborTag);
});

Deno.test("cbor() decodes tag 0 in every form of RFC 3339", () => {
  const texts: [string, string][] = [
    ["2013-03-21T20:04:00Z", "2013-03-21T20:04:00.000Z"],
    ["2013-03-21T20:04:00.123456Z", "2013-03-21T20:04:00.123Z"],
    ["2013-03-21T20:04:00.0123456789Z", "2013-03-21T20:04:00.012Z"],
    ["2013-03-21t20:04:00.00000000099999z", "2013-03-21T20:04:00.000Z"],
    ["2013-03-21T20:04:00.9999999999+00:00", "2013-03-21T20:04:00.999Z"],
    ["2013-03-21T20:04:00+01:30", "2013-03-21T18:34:00.000Z"],
    ["2013-03-21t20:04:00z", "2013-03-21T20:04:00.000Z"],
    ["2000-02-29T23:59:59.9Z", "2000-02-29T23:59:59.900Z"],
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"],
  ];
  for (const [text, iso] of texts) {
    const actual = codec.decode(codec.encode(new CborTag(0, text)));
    assertSame(actual, new Date(iso));
  }
});
