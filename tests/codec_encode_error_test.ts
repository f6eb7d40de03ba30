import { assertEquals, assertThrows } from "@std/assert";
import { cbor, CborSimple, CborTag, EncodeError } from "../codec.ts";
import { ByteWriter, SEGMENT_BYTES } from "../internal/byte_writer.ts";
import { CborCodec } from "../internal/cbor_codec.ts";
import { FrameTooLargeError } from "../internal/errors.ts";

const codec = cbor();

function failure(value: unknown): EncodeError {
  return assertThrows(() => codec.encode(value), EncodeError);
}

class Job {}
class Bytes extends Uint8Array {}
class List extends Array {}

/** What can't be encoded, and what the error says of it. */
const refused: [name: string, value: unknown, message: string][] = [
  ["a function", () => {}, "is a function"],
  ["a class", Job, "is a function"],
  ["a symbol", Symbol("a"), "is a symbol"],
  ["a class instance", new Job(), "is an instance of Job"],
  ["a subclass of Array", new List(), "is an instance of List"],
  ["a subclass of Uint8Array", new Bytes(1), "is an instance of Bytes"],
  [
    "an object with a prototype",
    Object.create({}),
    "is an object with a prototype",
  ],
  ["a boxed number", Object(1), "is an instance of Number"],
  ["a boxed string", Object("a"), "is an instance of String"],
  ["a boxed boolean", Object(true), "is an instance of Boolean"],
  ["a boxed bigint", Object(1n), "is an instance of BigInt"],
  ["a Promise", Promise.resolve(), "is an instance of Promise"],
  ["a WeakMap", new WeakMap(), "is an instance of WeakMap"],
  ["a WeakRef", new WeakRef({}), "is an instance of WeakRef"],
  ["a generator", (function* () {})(), "is an object with a prototype"],
  [
    "a DataView",
    new DataView(new ArrayBuffer(1)),
    "is an instance of DataView",
  ],
  [
    "a SharedArrayBuffer",
    new SharedArrayBuffer(1),
    "is an instance of SharedArrayBuffer",
  ],
  ["a Blob", new Blob(), "is an instance of Blob"],
  ["an invalid Date", new Date(NaN), "is an invalid Date"],
  ["a lone high surrogate", "a\ud800", "has a lone surrogate"],
  ["a lone low surrogate", "\udc00" + "a".repeat(200), "has a lone surrogate"],
  ["a detached ArrayBuffer", detached(), "is detached"],
  ["a view of one", detachedView(Uint8Array), "has a detached buffer"],
  ["a typed view of one", detachedView(Int16Array), "has a detached buffer"],
  ["a negative tag", new CborTag(-1, 1), "has the tag number -1"],
  ["a fractional tag", new CborTag(1.5, 1), "has the tag number 1.5"],
  ["a tag of 2^64", new CborTag(2n ** 64n, 1), "has the tag number"],
];

function detached(): ArrayBuffer {
  const buffer = new ArrayBuffer(8);
  structuredClone(buffer, { transfer: [buffer] });
  return buffer;
}

function detachedView(
  View: Uint8ArrayConstructor | Int16ArrayConstructor,
): ArrayBufferView {
  const view = new View(8);
  structuredClone(view, { transfer: [view.buffer] });
  return view;
}

for (const [name, value, message] of refused) {
  Deno.test(`cbor() refuses ${name}`, () => {
    for (
      const [outer, path] of [
        [value, "$"],
        [[value], "$[0]"],
        [{ a: { b: value } }, "$.a.b"],
        [new Map([["k", value]]), '$.get("k")'],
      ] as const
    ) {
      const error = failure(outer);
      assertEquals(error.path, path);
      assertEquals(error.message.includes(`${path} ${message}`), true);
    }
  });
}

Deno.test("EncodeError names the path", () => {
  const fn = () => {};
  const paths: [unknown, string][] = [
    [fn, "$"],
    [{ jobs: [1, 2, 3, { fn }] }, "$.jobs[3].fn"],
    [{ "a b": fn }, '$["a b"]'],
    [{ "": fn }, '$[""]'],
    [{ 0: fn }, '$["0"]'],
    [{ "ключ": { $: { _: fn } } }, "$.ключ.$._"],
    [{ 'a"b': fn }, '$["a\\"b"]'],
    [{ "\ud800": 1 }, '$["\\ud800"]'],
    [JSON.parse('{"__proto__": {"a": []}}'), ""],
    [new Map<unknown, unknown>([["a", 1], ["b", fn]]), '$.get("b")'],
    [new Map([[1, fn]]), "$.get(1)"],
    [new Map([[1n, fn]]), "$.get(1n)"],
    [new Map([[null, fn]]), "$.get(null)"],
    [new Map([[undefined, fn]]), "$.get(undefined)"],
    [new Map<unknown, unknown>([[1, 2], [{}, fn]]), "$.values()[1]"],
    [new Map<unknown, unknown>([[1, 2], [[fn], 1]]), "$.keys()[1][0]"],
    [{ a: new Set([1, [fn]]) }, "$.a.values()[1][0]"],
    [new CborTag(1000, [fn] as unknown as null), "$.tagContent[0]"],
    [new Error("a", { cause: { fn } }), "$.cause.fn"],
    [new AggregateError([1, fn]), "$.errors[1]"],
    [{ a: new URL("a:b"), b: [new Error("\ud800")] }, "$.b[0]"],
  ];
  for (const [value, path] of paths) {
    if (path !== "") assertEquals(failure(value).path, path);
    else codec.encode(value);
  }
});

Deno.test("EncodeError's message is a sentence", () => {
  assertEquals(
    failure({ jobs: [1, 2, 3, { fn() {} }] }).message,
    "Cannot encode value: $.jobs[3].fn is a function",
  );
});

Deno.test("cbor() refuses cycles and says where they close", () => {
  // deno-lint-ignore no-explicit-any
  const value: any = { a: { b: [0, {}] } };
  value.a.b[1].c = value.a;
  const error = failure(value);
  assertEquals(error.path, "$.a.b[1].c");
  assertEquals(
    error.message,
    "Cannot encode value: $.a.b[1].c is a cycle: it leads back to $.a",
  );

  const map = new Map();
  map.set("self", map);
  assertEquals(failure(map).path, '$.get("self")');
  const set = new Set();
  set.add(set);
  assertEquals(failure(set).path, "$.values()[0]");
  const thrown = new Error("a");
  thrown.cause = thrown;
  assertEquals(failure(thrown).path, "$.cause");
  const array: unknown[] = [];
  array.push([array]);
  assertEquals(failure(array).path, "$[0][0]");
});

Deno.test("CborCodec.encodeInto() names a cycle that is too large before it is too deep", () => {
  const item: Record<string, unknown> = { data: new Uint8Array(1000) };
  item["parents"] = [item];
  const out = new ByteWriter();
  out.valueLimit = 4096;
  const error = assertThrows(
    () => new CborCodec().encodeInto(out, item),
    EncodeError,
    "$.parents[0] is a cycle: it leads back to $",
  );
  assertEquals(error.path, "$.parents[0]");

  const shared = { data: item["data"] };
  assertThrows(
    () => new CborCodec().encodeInto(out, Array(100).fill(shared)),
    FrameTooLargeError,
  );
});

Deno.test("cbor() allows one object in two places", () => {
  const shared = { a: [1] };
  assertEquals(codec.decode(codec.encode([shared, shared])), [shared, shared]);
});

Deno.test("cbor() refuses what nests too deep and is no cycle", () => {
  let value: unknown = 1;
  for (let i = 0; i < 65; i++) value = [value];
  const error = failure(value);
  assertEquals(error.path, "$" + "[0]".repeat(64));
  assertEquals(
    error.message.includes("is nested too deep: the limit is 64"),
    true,
  );
});

Deno.test("cbor() survives a depth limit that is larger than the stack", () => {
  const endless = cbor({ maxDepth: 1e9 });
  // deno-lint-ignore no-explicit-any
  const cycle: any = {};
  cycle.a = cycle;
  assertThrows(() => endless.encode(cycle), EncodeError);
  assertEquals(endless.decode(endless.encode([1])), [1]);
});

Deno.test("cbor() wraps what a getter or a Proxy throws", () => {
  const cause = new Error("no");
  const trap = () => {
    throw cause;
  };
  const values: [unknown, string][] = [
    [{
      a: {
        get b() {
          return trap();
        },
      },
    }, "$.a.b"],
    [[1, new Proxy({}, { ownKeys: trap })], "$[1]"],
    [{ a: new Proxy({}, { getPrototypeOf: trap }) }, "$.a"],
    [new Proxy([1], { get: trap }), "$"],
  ];
  for (const [value, path] of values) {
    const error = failure(value);
    assertEquals(error.path, path);
    assertEquals(error.cause, cause);
    assertEquals(error.message.includes("no"), true);
  }
});

Deno.test("cbor() refuses bytes that are transferred away while their value is encoded", () => {
  for (const size of [10, 20_000, 200_000]) {
    const value = () => ({
      bytes: new Uint8Array(size),
      get later() {
        this.bytes.buffer.transfer();
        return "x";
      },
    });
    const out = new ByteWriter();
    const encodeInto = () => new CborCodec().encodeInto(out, value());
    if (size < SEGMENT_BYTES) encodeInto(); // copied before
    else {
      const gone = new Uint8Array(SEGMENT_BYTES);
      out.addSegment(gone);
      gone.buffer.transfer(); // another value's: not this one's failure
      assertThrows(encodeInto, EncodeError, "has a detached buffer");
    }
    if (size === 10) codec.encode(value());
    else assertEquals(failure(value()).path, "$");
    assertEquals(codec.decode(codec.encode("after")), "after");
  }
});

Deno.test("cbor() refuses objects that only claim a class", () => {
  for (
    const { prototype } of [Date, Map, Set, RegExp, ArrayBuffer, URL, Int8Array]
  ) {
    assertThrows(() => codec.encode(Object.create(prototype)), EncodeError);
  }
  for (
    const [{ prototype }, own] of [
      [Uint8Array, { length: 3, buffer: {} }],
      [CborSimple, { value: 300 }],
      [CborSimple, {}],
    ] as [{ prototype: object }, object][]
  ) {
    assertThrows(
      () => codec.encode(Object.setPrototypeOf(own, prototype)),
      EncodeError,
      "is an instance of",
    );
  }
});

Deno.test("cbor() refuses a Map or Set that changes while it is encoded", () => {
  const map: Map<unknown, unknown> = new Map();
  map.set("a", {
    get grow() {
      map.set(map.size, 1);
      return 1;
    },
  });
  assertEquals(failure([map]).path, "$[0]");
  const set = new Set<unknown>();
  set.add({
    get shrink() {
      set.clear();
      return 1;
    },
  });
  assertEquals(failure({ set }).path, "$.set");
});

Deno.test("cbor() encodes an array or object that changes as what it reads", () => {
  const array: unknown[] = [{
    get shrink() {
      array.length = 1;
      return 1;
    },
  }, 2];
  assertEquals(codec.decode(codec.encode(array)), [{ shrink: 1 }, undefined]);
});

Deno.test("cbor() names the first element of an array too", () => {
  const array = Object.defineProperty([0, 1], 0, {
    get() {
      throw new Error("not now");
    },
  });
  assertEquals(failure({ array }).path, "$.array[0]");
});

Deno.test("cbor() refuses a view of a buffer that has become too short", () => {
  const buffer = new ArrayBuffer(16, { maxByteLength: 16 });
  const views = [new Uint8Array(buffer, 8), new Float64Array(buffer, 8, 1)];
  const bytes = new Uint8Array(buffer, 0, 12);
  buffer.resize(4);
  assertEquals(failure(views.slice(1)).path, "$[0]");
  assertEquals(failure({ bytes }).path, "$.bytes");
});
