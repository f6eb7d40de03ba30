import { assertEquals, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import {
  cbor,
  CborSimple,
  CborTag,
  type Codec,
  DecodeError,
  EncodeError,
} from "../codec.ts";
import { randomValue } from "./_support/random_value.ts";
import { seeded } from "./_support/rng.ts";
import { assertSame } from "./_support/same.ts";

const codec = cbor();
const roundTrip = (value: unknown) => codec.decode(codec.encode(value));

/** Values of every type that come back exactly as they were. */
const kept: Record<string, unknown[]> = {
  "null, undefined and booleans": [null, undefined, true, false],
  "numbers": [
    0,
    -0,
    1,
    -1,
    1.5,
    -1.5,
    0.1,
    NaN,
    Infinity,
    -Infinity,
    2 ** 31,
    -(2 ** 31) - 1,
    2 ** 32,
    Date.now(),
    Number.MAX_SAFE_INTEGER,
    Number.MIN_SAFE_INTEGER,
    2 ** 53,
    -(2 ** 53),
    2 ** 53 + 2,
    2 ** 64,
    1e300,
    Number.MIN_VALUE,
    Number.MAX_VALUE,
    65504,
    65505.5,
    2 ** -24,
    2 ** -25,
  ],
  "bigints": [
    0n,
    1n,
    -1n,
    255n,
    256n,
    2n ** 53n,
    2n ** 64n - 1n,
    -(2n ** 64n),
    2n ** 64n,
    -(2n ** 1000n) + 1n,
  ],
  "text": [
    "",
    "a",
    "\0",
    "x".repeat(23),
    "x".repeat(24),
    "x".repeat(255),
    "x".repeat(256),
    "x".repeat(70000),
    "é",
    "ü".repeat(23),
    "水".repeat(100),
    "🙂".repeat(64),
    "水".repeat(50000),
    "\ufeffbyte order mark",
    "\ufffd is itself",
    "\u007f\u0080",
  ],
  "byte strings and typed arrays": [
    new Uint8Array(0),
    new Uint8Array([0, 255]),
    new Uint8Array(70000).fill(7),
    new Uint8ClampedArray([1, 255]),
    new Int8Array([-128, 127]),
    new Uint16Array([65535]),
    new Int16Array([-32768]),
    new Uint32Array([4294967295]),
    new Int32Array([-2147483648]),
    new BigUint64Array([2n ** 64n - 1n]),
    new BigInt64Array([-(2n ** 63n)]),
    new Float16Array([1.5, -0, NaN]),
    new Float32Array([1.1, -0, Infinity]),
    new Float64Array([1.1, -0, NaN]),
    new Float64Array(5000).fill(0.1),
    new Uint16Array(0),
    new ArrayBuffer(0),
    new Uint8Array([1, 2, 3]).buffer,
    new ArrayBuffer(70000),
  ],
  "dates": [
    new Date(0),
    new Date(1),
    new Date(-1),
    new Date(999),
    new Date(-999),
    new Date(1363896240001),
    new Date(8.64e15),
    new Date(-8.64e15),
    new Date(8.64e15 - 1),
    new Date(-8.64e15 + 1),
    new Date("0001-01-01T00:00:00.001Z"),
  ],
  "maps": [
    new Map(),
    new Map<unknown, unknown>([[1, 2], ["a", { b: 1 }], [null, undefined]]),
    new Map<unknown, unknown>([[NaN, 1], [true, 2], [undefined, 3], [1n, 4]]),
    new Map([[[1], 1], [[1], 2]]),
    new Map([[{}, new Map([[new Date(5), new Set([1])]])]]),
    new Map([["1", 1], ["__proto__", 2]]),
  ],
  "sets": [
    new Set(),
    new Set<unknown>([1, "1", 1n, NaN, null, undefined]),
    new Set([{}, {}]),
    new Set([new Set([new Set()])]),
  ],
  "regular expressions": [
    /a/,
    /a\/b/dgimsuy,
    // deno-lint-ignore no-invalid-regexp
    /[\p{L}--[a-z]]/v,
    new RegExp(""),
    new RegExp("/"),
    new RegExp("\n"),
    /ключ/,
  ],
  "URLs": [
    new URL("https://example.com"),
    new URL("https://user:pass@example.com:8080/a%20b?c=d#e"),
    new URL("https://bücher.example/ключ"),
    new URL("data:,x"),
    new URL("file:///a/b"),
  ],
  "errors": [
    new Error(),
    new Error("message"),
    new TypeError("message", { cause: new RangeError("inner", { cause: 1 }) }),
    new Error("message", { cause: undefined }),
    new EvalError("a"),
    new ReferenceError("a"),
    new SyntaxError("a"),
    new URIError("a"),
    new AggregateError([new Error("a"), 1], "all", { cause: { a: 1 } }),
    new AggregateError([]),
  ],
  "plain objects": [
    {},
    { a: 1 },
    { "": 1, "a b": 2, "ключ": 3, "🙂": 4 },
    { 0: "zero", 1: "one", 4294967295: "not an index", a: 1 },
    { constructor: 1, toString: 2, hasOwnProperty: 3, valueOf: 4 },
    JSON.parse('{"__proto__": {"a": 1}, "b": {"__proto__": null}}'),
    Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`key${i}`, i])),
    { ["k".repeat(300)]: { ["k".repeat(300)]: 1 } },
  ],
  "objects without a prototype": [
    Object.create(null),
    Object.assign(Object.create(null), { a: Object.create(null) }),
    Object.defineProperty(Object.create(null), "__proto__", {
      value: 1,
      enumerable: true,
      configurable: true,
      writable: true,
    }),
  ],
  "arrays": [
    [],
    [1, [2, [3, []]]],
    [undefined, null],
    Array.from({ length: 1000 }, (_, i) => i),
    Array.from({ length: 300 }, () => ({ a: [{}] })),
  ],
  "tags and simple values": [
    new CborTag(6, "a"),
    new CborTag(0xffff, [new CborTag(0x10000, { a: 1 })]),
    new CborTag(2 ** 53 - 1, null),
    new CborTag(2n ** 53n + 1n, null),
    new CborTag(2n ** 64n - 1n, null),
    new CborTag(27, ["SomeType", 1]),
    new CborSimple(0),
    new CborSimple(19),
    new CborSimple(32),
    new CborSimple(255),
  ],
};

for (const [what, values] of Object.entries(kept)) {
  Deno.test("cbor() reads long text whatever the text before was", () => {
    const long = "The quick brown fox. ".repeat(20);
    const texts = [long, `${long}é`, `é${long}`, `${long}水`, `${long}\ufffd`];
    const malformed = [0x80, 0xff, 0xc3].map((byte) => {
      const payload = codec.encode(`${long}x`);
      payload[payload.length - 1] = byte;
      return payload;
    });
    for (const before of texts) {
      for (const text of texts) {
        codec.decode(codec.encode(before));
        assertEquals(roundTrip(text), text);
      }
      for (const payload of malformed) {
        codec.decode(codec.encode(before));
        assertThrows(
          () => codec.decode(payload),
          DecodeError,
          "not valid UTF-8",
        );
      }
    }
  });

  Deno.test(`cbor() keeps ${what}`, () => {
    for (const value of values) {
      assertSame(roundTrip(value), value);
      // In the middle of other values too.
      const nested = { a: [value, "z"], b: new Map([[1, value]]), c: 0 };
      assertSame(roundTrip(nested), nested);
    }
  });
}

Deno.test("cbor() keeps random values", () => {
  const rng = seeded("cbor() keeps random values");
  for (let i = 0; i < 5000; i++) {
    const value = randomValue(rng);
    assertSame(roundTrip(value), value);
  }
});

Deno.test("cbor() keeps every date to the millisecond", () => {
  const rng = seeded("cbor() keeps every date");
  for (let i = 0; i < 20_000; i++) {
    const time = Math.trunc(
      (rng.float() * 2 - 1) * 10 ** rng.int(1, 15) * 8.64,
    );
    assertEquals((roundTrip(new Date(time)) as Date).getTime(), time);
  }
});

Deno.test("cbor() keeps every half-precision float, in three bytes or fewer", () => {
  const bits = new Uint16Array(1);
  const float = new Float16Array(bits.buffer);
  for (let i = 0; i < 0x10000; i++) {
    bits[0] = i;
    const bytes = codec.encode(float[0]);
    assertEquals(bytes.length <= 3, true);
    assertSame(codec.decode(bytes), float[0]);
  }
});

Deno.test("cbor() keeps keys and members that only look alike", () => {
  const twins = () => [new Uint8Array([1]), new Uint8Array([1]), [], []];
  const map = new Map(twins().map((key, i) => [key, i]));
  assertSame(codec.decode(codec.encode(map)), map);
  const set = new Set(twins());
  assertSame(codec.decode(codec.encode(set)), set);
});

Deno.test("cbor() makes holes undefined", () => {
  // deno-lint-ignore no-sparse-arrays
  assertSame(roundTrip([, 1, ,]), [undefined, 1, undefined]);
});

Deno.test("cbor() keeps own properties named like Object.prototype's", () => {
  const value = roundTrip(JSON.parse('{"__proto__": {"polluted": true}}'));
  assertEquals(Object.getPrototypeOf(value), Object.prototype);
  assertEquals(Object.keys(value as object), ["__proto__"]);
  assertEquals((value as { polluted?: boolean }).polluted, undefined);
});

Deno.test("cbor() calls no setter of Object.prototype's, such as --unstable-unsafe-proto brings", () => {
  Object.defineProperty(Object.prototype, "__proto__", {
    set() {
      throw new Error("it is called");
    },
    configurable: true,
  });
  try {
    const codec = cbor<object>();
    const payload = codec.encode(JSON.parse('{"__proto__": 1}'));
    // From the second time on its shape is known.
    for (let i = 0; i < 3; i++) {
      assertEquals(Object.keys(codec.decode(payload)), ["__proto__"]);
    }
  } finally {
    Reflect.deleteProperty(Object.prototype, "__proto__");
  }
});

Deno.test("cbor() keeps the name of an error of any class", () => {
  class JobError extends TypeError {
    override name = "JobError";
  }
  const job = roundTrip(new JobError("a")) as Error;
  assertEquals(job instanceof TypeError, true);
  assertEquals(`${job}`, "JobError: a");
  assertEquals(job.stack, "JobError: a");

  const abort = roundTrip(new DOMException("b", "AbortError")) as Error;
  assertEquals(abort instanceof Error, true);
  assertEquals(`${abort}`, "AbortError: b");

  const emptied = Object.assign(new AggregateError([], "d"), { errors: 1 });
  assertEquals(`${roundTrip(emptied)}`, "AggregateError: d");

  const claimed = new Error("c");
  claimed.name = "ArrayBuffer";
  assertEquals(`${roundTrip(claimed)}`, "ArrayBuffer: c");
});

Deno.test("cbor() calls getters, and leaves out symbol keys and hidden properties", () => {
  const value = {
    get a() {
      return 1;
    },
    [Symbol("b")]: 2,
  };
  Object.defineProperty(value, "c", { value: 3, enumerable: false });
  assertSame(roundTrip(value), { a: 1 });
});

Deno.test("cbor() leaves out what an array or a Map has beside its elements", () => {
  const found = "abc".match(/b/);
  const map = Object.assign(new Map([[1, 2]]), { note: "a" });
  const decoded = codec.decode(codec.encode([found, map]));
  assertEquals(decoded, [["b"], new Map([[1, 2]])]);
});

Deno.test("cbor() leaves out what every object inherits", () => {
  const prototype = Object.prototype as { everywhere?: number };
  prototype.everywhere = 1;
  try {
    assertEquals(codec.encode({ a: 1 }).toHex(), "a1616101");
    assertEquals(codec.encode({ everywhere: 2 }).length, 13);
  } finally {
    delete prototype.everywhere;
  }
});

Deno.test("cbor() keeps objects with many keys and large byte strings inside", () => {
  for (const count of [23, 24, 25, 255, 256, 300]) {
    const value = Object.fromEntries(
      Array.from({ length: count }, (_, i) => [`key${i}`, {
        a: new Uint8Array(i % 50 === 0 ? 20_000 : 1).fill(i),
        [`b${i}`]: Object.fromEntries(
          Array.from({ length: i % 30 }, (_, j) => [`c${j}`, j]),
        ),
      }]),
    );
    assertSame(roundTrip(value), value);
  }
});

Deno.test("cbor() sees through a Proxy", () => {
  assertSame(roundTrip(new Proxy({ a: 1 }, {})), { a: 1 });
  assertSame(roundTrip(new Proxy([1, 2], {})), [1, 2]);
  const strict = new Proxy({ a: 1 }, {
    get(target, key) {
      if (key in target) return Reflect.get(target, key);
      throw new TypeError(`no property ${String(key)}`);
    },
  });
  assertSame(roundTrip(strict), { a: 1 });
});

Deno.test("cbor() decodes a Buffer, and a view of any kind of buffer, as a plain array", () => {
  assertSame(roundTrip(Buffer.from("a")), new Uint8Array([97]));
  assertSame(
    roundTrip(new Uint8Array([9, 1, 2, 9]).subarray(1, 3)),
    new Uint8Array([1, 2]),
  );
  for (const size of [2, 70000]) {
    const resizable = new ArrayBuffer(size, { maxByteLength: size * 2 });
    assertSame(roundTrip(new Uint8Array(resizable)), new Uint8Array(size));
    assertSame(roundTrip(resizable), new ArrayBuffer(size));
    const shared = new Uint8Array(new SharedArrayBuffer(size));
    assertSame(roundTrip(shared), new Uint8Array(size));
  }
});

Deno.test("cbor() copies byte strings out of the payload", () => {
  const payload = codec.encode([new Uint8Array([1, 2]), new Int16Array([3])]);
  const [a, b] = codec.decode(payload) as [Uint8Array, Int16Array];
  payload.fill(0);
  assertSame(a, new Uint8Array([1, 2]));
  assertSame(b, new Int16Array([3]));
  assertEquals(a.buffer.byteLength, 2);
});

Deno.test("cbor() returns bytes that no later call changes", () => {
  const values = Array.from(
    { length: 3000 },
    (_, i) => ({ i, text: "x".repeat(i) }),
  );
  const payloads = values.map((value) => codec.encode(value));
  for (const [i, value] of values.entries()) {
    assertSame(codec.decode(payloads[i]!), value);
  }
});

Deno.test("cbor() works on after the buffer of a payload was detached", () => {
  const { buffer } = codec.encode("a");
  structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
  assertSame(roundTrip("b"), "b");
});

Deno.test("cbor() decodes a payload that is a part of a buffer", () => {
  const inner = codec.encode({ a: "ü".repeat(100), b: 1.1 });
  const outer = new Uint8Array(inner.length + 20).fill(0xff);
  outer.set(inner, 7);
  assertSame(codec.decode(outer.subarray(7, 7 + inner.length)), {
    a: "ü".repeat(100),
    b: 1.1,
  });
  assertSame(codec.decode(Buffer.from(inner)), codec.decode(inner));
});

Deno.test("cbor() gives tags that it knows their meaning, whoever wrote them", () => {
  assertSame(roundTrip(new CborTag(1, 5)), new Date(5000));
  assertSame(roundTrip(new CborTag(258, [1])), new Set([1]));
  assertSame(roundTrip(new CborTag(35, "a+")), /a+/);
  assertSame(roundTrip(new CborTag(64, new Uint8Array(2))), new Uint8Array(2));
  assertThrows(() => roundTrip(new CborTag(1, "a")), DecodeError);
});

Deno.test("cbor() may be called by the getter of a value that it encodes", () => {
  const value = {
    a: "x".repeat(50),
    get inner() {
      return codec.encode({
        get deeper() {
          return codec.encode("y".repeat(3000));
        },
      });
    },
    z: 1,
  };
  const { inner, ...rest } = roundTrip(value) as typeof value;
  assertSame(rest, { a: "x".repeat(50), z: 1 });
  const { deeper } = codec.decode(inner) as { deeper: Uint8Array };
  assertSame(codec.decode(deeper), "y".repeat(3000));
});

Deno.test("cbor() works on after a value that can't be encoded", () => {
  for (const bad of [() => {}, { a: "\ud800" }, [[Symbol()]]]) {
    assertThrows(() => codec.encode({ big: new Uint8Array(20000), bad }));
    assertSame(roundTrip({ a: 1 }), { a: 1 });
  }
});

Deno.test("cbor() limits depth alike on both sides", () => {
  const nest: Record<string, (inner: unknown) => unknown> = {
    array: (inner) => [inner],
    object: (inner) => ({ inner }),
    map: (inner) => new Map([[1, inner]]),
    set: (inner) => new Set([inner]),
    tag: (inner) => new CborTag(1000, inner as null),
    "tag 27": (inner) => new CborTag(27, ["a name", inner as null]),
    "null object": (inner) => Object.assign(Object.create(null), { inner }),
  };
  const small: Codec<unknown> = cbor({ maxDepth: 3 });
  for (const [name, wrap] of Object.entries(nest)) {
    const at = (depth: number) => {
      let value: unknown = new Date(0);
      for (let i = 0; i < depth; i++) value = wrap(value);
      return value;
    };
    for (const [limited, limit] of [[codec, 64], [small, 3]] as const) {
      const deepest = at(limit);
      assertSame(limited.decode(limited.encode(deepest)), deepest);
      assertThrows(
        () => limited.encode(at(limit + 1)),
        EncodeError,
        "too deep",
      );
      const tooDeep = cbor({ maxDepth: 100 }).encode(at(limit + 1));
      assertThrows(
        () => limited.decode(tooDeep),
        DecodeError,
        "too deep",
        name,
      );
    }
  }
  // A number, once it has been read.
  const one: Codec<unknown> = cbor({ maxDepth: 1 });
  assertSame(
    one.decode(one.encode(new CborTag(27n, ["a name"]))),
    new CborTag(27, ["a name"]),
  );
});

Deno.test("cbor() counts an error as two levels, a buffer as one, a regular expression as none", () => {
  const two = cbor({ maxDepth: 2 });
  const error = new Error("a", { cause: 1 });
  assertSame(two.decode(two.encode(error)), error);
  assertThrows(() => two.encode([error]), EncodeError, "too deep");
  const bytes = codec.encode([error]);
  assertThrows(() => two.decode(bytes), DecodeError, "too deep");
  assertSame(two.decode(two.encode([new ArrayBuffer(1)])), [
    new ArrayBuffer(1),
  ]);
  assertThrows(() => two.encode([[new ArrayBuffer(1)]]), EncodeError, "deep");
  assertSame(two.decode(two.encode([[/a/g]])), [[/a/g]]);
});

Deno.test("cbor() checks its options", () => {
  assertEquals(cbor().name, "cbor");
  assertEquals(cbor({}).name, "cbor");
  const wrong = [null, 1, "a", { depth: 1 }, { maxDepth: "1" }];
  for (const options of wrong) {
    assertThrows(() => cbor(options as object), TypeError);
  }
  for (const maxDepth of [0, -1, 1.5, NaN, Infinity]) {
    assertThrows(() => cbor({ maxDepth }), RangeError, "maxDepth");
  }
});

Deno.test("CborSimple refuses numbers that are no simple values", () => {
  for (const value of [-1, 20, 23, 25, 31, 256, 1.5, NaN]) {
    assertThrows(() => new CborSimple(value), RangeError);
  }
});
