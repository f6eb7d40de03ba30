import { assertEquals, assertThrows } from "@std/assert";
import { ByteWriter } from "../internal/byte_writer.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import { seeded } from "./_support/rng.ts";

const hex = (out: ByteWriter) => out.toBytes().toHex();

Deno.test("ByteWriter.writeHead() writes the shortest head of every major type", () => {
  const heads: [major: number, value: number, hex: string][] = [
    [0, 0, "00"],
    [1, 23, "37"],
    [2, 24, "5818"],
    [3, 255, "78ff"],
    [4, 256, "990100"],
    [5, 65535, "b9ffff"],
    [6, 65536, "da00010000"],
    [0, 2 ** 31, "1a80000000"],
    [0, 2 ** 32 - 1, "1affffffff"],
    [0, 2 ** 32, "1b0000000100000000"],
    [0, 2 ** 53 - 1, "1b001fffffffffffff"],
    [0, 2 ** 53, "1b0020000000000000"],
    [7, 21, "f5"],
  ];
  for (const [major, value, expected] of heads) {
    const out = new ByteWriter(0);
    out.writeHead(major, value);
    assertEquals(hex(out), expected);
  }
});

Deno.test("ByteWriter grows and keeps what it has", () => {
  const rng = seeded("ByteWriter grows");
  const out = new ByteWriter(1);
  const written: (number | string | Uint8Array)[] = [];
  for (let i = 0; i < 500; i++) {
    const value = rng.pick([
      rng.int(0, 2 ** rng.int(0, 53)),
      "aé水🙂".repeat(rng.int(0, 60)),
      "a".repeat(rng.int(0, 9000)),
      "水".repeat(rng.int(0, 9000)),
      rng.bytes(rng.int(0, 300)),
    ]);
    written.push(value);
    if (typeof value === "number") out.writeUint(value);
    else if (typeof value === "string") out.writeText(value);
    else out.writeBytes(value);
  }
  const reader = new CborDecoder();
  reader.set(out.bytes, 0, out.length);
  for (const value of written) assertEquals(reader.readValue(), value);
  assertEquals(reader.pos, reader.end);
});

Deno.test("ByteWriter.writeText() writes every length of text around a head's limit", () => {
  for (const letter of ["a", "é", "水", "🙂"]) {
    for (const size of [0, 1, 23, 24, 63, 64, 65, 255, 256, 65535, 65536]) {
      const text = letter.repeat(Math.floor(size / letter.length)) +
        "z".repeat(size % letter.length);
      for (const capacity of [0, size, size * 3 + 9]) {
        const out = new ByteWriter(capacity);
        out.writeText(text);
        const reader = new CborDecoder();
        reader.set(out.bytes, 0, out.length);
        assertEquals(reader.readText(), text);
        assertEquals(reader.pos, out.length);
        const body = new TextEncoder().encode(text).length;
        const expected = new ByteWriter();
        expected.writeHead(3, body);
        assertEquals(out.length, expected.length + body);
      }
    }
  }
});

Deno.test("ByteWriter.writeText() refuses lone surrogates and writes nothing", () => {
  const texts = [
    "\ud800",
    "a\udfff",
    "\ud800".repeat(100),
    "🙂".slice(0, 1) + "a",
  ];
  for (const text of texts) {
    const out = new ByteWriter();
    out.writeUint(1);
    assertThrows(() => out.writeText(text), RangeError, "lone surrogate");
    assertEquals(out.tryWriteText(text), false);
    assertEquals(hex(out), "01");
  }
});

Deno.test("ByteWriter.toBytes() puts segments where they belong", () => {
  const out = new ByteWriter();
  out.addSegment(new Uint8Array([1]));
  out.writeUint(2);
  out.addSegment(new Uint8Array([3]));
  out.addSegment(new Uint8Array([4, 5]));
  out.writeUint(6);
  out.addSegment(new Uint8Array([7]));
  assertEquals(hex(out), "01020304050607");
  assertEquals(out.length, 2);
  assertEquals(out.segmentBytes, 5);
});

Deno.test("ByteWriter.endHead() moves what follows where the head needs room", () => {
  const heads: [value: number, hex: string][] = [
    [0, "a0"],
    [23, "b7"],
    [24, "b818"],
    [256, "b90100"],
    [65536, "ba00010000"],
  ];
  for (const [value, expected] of heads) {
    const out = new ByteWriter(0);
    out.addSegment(new Uint8Array([0xee]));
    const at = out.beginHead();
    out.writeUint(1);
    out.addSegment(new Uint8Array([0xff]));
    out.writeUint(2);
    out.endHead(at, 5, value);
    assertEquals(hex(out), "ee" + expected + "01ff02");
  }
});

Deno.test("ByteWriter.writeInt32() writes the shortest integer", () => {
  for (const value of [0, 23, 24, 255, 256, 65535, 65536, 2 ** 31 - 1]) {
    const out = new ByteWriter(0);
    out.writeInt32(value);
    out.writeInt32(~value);
    const expected = new ByteWriter();
    expected.writeHead(0, value);
    expected.writeHead(1, value);
    assertEquals(hex(out), hex(expected));
  }
});

Deno.test("ByteWriter.truncate() goes back to an earlier state", () => {
  const out = new ByteWriter();
  out.writeUint(1);
  out.addSegment(new Uint8Array([2]));
  const { length, segments: { length: count } } = out;
  out.writeText("gone");
  out.addSegment(new Uint8Array(9));
  out.truncate(length, count);
  assertEquals(out.segmentBytes, 1);
  out.writeUint(3);
  assertEquals(hex(out), "010203");
});

Deno.test("ByteWriter.reset() empties it and leaves the old segments alone", () => {
  const out = new ByteWriter();
  out.writeUint(1);
  out.addSegment(new Uint8Array([2]));
  const { bytes, segments } = out;
  out.reset();
  assertEquals(hex(out), "");
  assertEquals(out.segmentBytes, 0);
  assertEquals(out.bytes, bytes);
  assertEquals(segments.length, 1);
});
