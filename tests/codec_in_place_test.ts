/** The codec's faster way in and out, which a connection uses. */

import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { cbor, DecodeError, EncodeError } from "../codec.ts";
import { ByteWriter, SEGMENT_BYTES } from "../internal/byte_writer.ts";
import { CborCodec } from "../internal/cbor_codec.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import { assertSame } from "./_support/same.ts";

const codec = new CborCodec();

Deno.test("cbor() is a CborCodec", () => {
  assertInstanceOf(cbor(), CborCodec);
});

Deno.test("CborCodec.encodeInto() appends to what is in the buffer", () => {
  const out = new ByteWriter(4);
  out.writeUint(7);
  codec.encodeInto(out, { a: ["ключ", 1.1] });
  codec.encodeInto(out, [2]);
  const reader = new CborDecoder();
  reader.set(out.bytes, 0, out.length);
  assertEquals(reader.readUint(), 7);
  assertSame(reader.readValue(), { a: ["ключ", 1.1] });
  assertSame(reader.readValue(), [2]);
});

Deno.test("CborCodec.encodeInto() leaves large byte strings where they are", () => {
  const size = SEGMENT_BYTES;
  const large = new Uint8Array(size).fill(1);
  const view = new Float64Array(size / 8).fill(2);
  const value = {
    large,
    part: large.subarray(1),
    view,
    buffer: large.buffer,
    small: new Uint8Array(10),
  };
  const out = new ByteWriter();
  codec.encodeInto(out, value);
  assertEquals(out.segments.length, 3);
  assertEquals(out.segmentBytes, 3 * size);
  assertEquals(out.segments[0]!.bytes, large);
  assertEquals(out.segments[1]!.bytes.buffer, view.buffer);
  // One byte less than the threshold is copied.
  assertEquals(out.length > size - 1 && out.length < size + 200, true);
  assertSame(codec.decode(out.toBytes()), value);
  assertEquals(codec.encode(value), out.toBytes());
});

Deno.test("CborCodec.encodeInto() copies what may change its size", () => {
  const size = SEGMENT_BYTES;
  const resizable = new ArrayBuffer(size, { maxByteLength: 2 * size });
  for (
    const value of [
      resizable,
      new Uint8Array(resizable),
      new Uint8Array(resizable, 0, size),
      new Int16Array(new SharedArrayBuffer(size)),
    ]
  ) {
    const out = new ByteWriter();
    codec.encodeInto(out, value);
    assertEquals(out.segments.length, 0);
    assertEquals(out.length >= size, true);
  }
});

Deno.test("CborCodec.encodeInto() fails, is truncated, and goes on", () => {
  const out = new ByteWriter();
  codec.encodeInto(out, "kept");
  const { length, segments: { length: count } } = out;
  const bad = [new Uint8Array(SEGMENT_BYTES), "x".repeat(5000), () => {}];
  assertThrows(() => codec.encodeInto(out, bad), EncodeError, "$[2]");
  out.truncate(length, count);
  codec.encodeInto(out, "after");
  assertEquals(out.toBytes().toHex(), "646b657074" + "656166746572");
});

Deno.test("CborCodec.encodeInto() refuses to write into the middle of another value", () => {
  const out = new ByteWriter();
  let inner: unknown;
  const value = {
    a: 1,
    get b() {
      try {
        codec.encodeInto(out, "inner");
      } catch (error) {
        inner = error;
      }
      return 2;
    },
  };
  codec.encodeInto(out, value);
  assertInstanceOf(inner, EncodeError);
  assertSame(codec.decode(out.toBytes()), { a: 1, b: 2 });
  codec.encodeInto(out, 1);
});

Deno.test("CborCodec.encodeInto() may write two buffers in turn", () => {
  const first = new ByteWriter(1);
  const second = new ByteWriter(1);
  const value = {
    a: "x".repeat(100),
    get b() {
      codec.encodeInto(second, { big: new Uint8Array(SEGMENT_BYTES), c: "y" });
      return new Uint8Array(SEGMENT_BYTES);
    },
    d: [1],
  };
  codec.encodeInto(first, value);
  assertEquals(first.segments.length, 1);
  assertEquals(second.segments.length, 1);
  assertSame(codec.decode(first.toBytes()), {
    a: value.a,
    b: new Uint8Array(SEGMENT_BYTES),
    d: [1],
  });
});

Deno.test("CborCodec.decodeFrom() decodes a range, with offsets from its start", () => {
  const bytes = Uint8Array.fromHex("ff8201616182ff");
  assertSame(codec.decodeFrom(bytes, 1, 5), [1, "a"]);
  const error = assertThrows(
    () => codec.decodeFrom(bytes, 1, 4),
    DecodeError,
  );
  assertEquals(error.offset, 3);
  assertThrows(() => codec.decodeFrom(bytes, 1, 6), DecodeError, "1 bytes");
});

Deno.test("CborDecoder reads a sequence, item by item", () => {
  const out = new ByteWriter();
  out.writeUint(300);
  out.writeText("text");
  out.writeBytes(new Uint8Array([1, 2]));
  codec.encodeInto(out, { a: 1 });
  const reader = new CborDecoder();
  reader.set(out.bytes, 0, out.length);
  assertEquals(reader.readUint(), 300);
  assertEquals(reader.readText(), "text");
  reader.readBytesRange();
  assertEquals(
    out.bytes.subarray(reader.rangeStart, reader.rangeEnd),
    new Uint8Array([1, 2]),
  );
  assertSame(reader.readValue(), { a: 1 });
  assertEquals(reader.pos, reader.end);
});

Deno.test("CborDecoder refuses items of another type, and those past the end", () => {
  const refused: [string, keyof CborDecoder & `read${string}`][] = [
    ["", "readUint"],
    ["20", "readUint"],
    ["6161", "readUint"],
    ["f90000", "readUint"],
    ["1b0020000000000001", "readUint"],
    ["1bffffffffffffffff", "readUint"],
    ["18", "readUint"],
    ["", "readText"],
    ["4161", "readText"],
    ["6261", "readText"],
    ["61ff", "readText"],
    ["", "readBytesRange"],
    ["6161", "readBytesRange"],
    ["420a", "readBytesRange"],
    ["5bffffffffffffffff", "readBytesRange"],
    ["5f4161ff", "readBytesRange"],
    ["", "readValue"],
    ["8201", "readValue"],
  ];
  for (const [hex, method] of refused) {
    const reader = new CborDecoder();
    // What comes after the end must not be read.
    reader.set(
      Uint8Array.fromHex("00" + hex + "0000000000"),
      1,
      1 + hex.length / 2,
    );
    assertThrows(() => reader[method](), DecodeError, "", `${method} ${hex}`);
  }
});

Deno.test("CborCodec.decodeFrom() finds a key twice, one of which is aside", () => {
  const long = new Uint8Array(200);
  // A map of two byte strings of 200 zeros, the first of which is elsewhere.
  const bytes = new Uint8Array([0xa2, 0x58, 200, 1, 0x58, 200, ...long, 2]);
  const aside = { at: 3, bytes: long };
  assertThrows(
    () => new CborCodec().decodeFrom(bytes, 0, bytes.length, aside),
    DecodeError,
    "twice",
  );
  bytes[bytes.length - 2] = 1;
  const map = new CborCodec().decodeFrom(bytes, 0, bytes.length, aside);
  assertEquals((map as Map<unknown, unknown>).size, 2);
});

Deno.test("CborCodec.decodeFrom() finds a key twice before what is aside", () => {
  const bytes = new Uint8Array([0xa2, 0x41, 1, 0, 0x41, 1, 0x58, 200]);
  const aside = { at: bytes.length, bytes: new Uint8Array(200) };
  assertThrows(
    () => new CborCodec().decodeFrom(bytes, 0, bytes.length, aside),
    DecodeError,
    "twice",
  );
});
