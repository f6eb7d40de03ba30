/**
 * Long byte strings that are read into allocations of their own: whatever a
 * frame holds and however it comes, what is read is what is read without.
 */
import {
  assert,
  assertEquals,
  assertGreater,
  assertLessOrEqual,
} from "@std/assert";
import { cbor } from "../codec.ts";
import { CborCodec } from "../internal/cbor_codec.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import { DecodeError } from "../internal/errors.ts";
import { FrameDecoder } from "../internal/frame_decoder.ts";
import { findLongString, LONG_BYTES } from "../internal/long_string.ts";
import { PayloadCodec } from "../internal/payload.ts";
import { Kit, type Net } from "./_support/channel_kit.ts";
import { type Rng, seeded } from "./_support/rng.ts";
import { assertSame } from "./_support/same.ts";
import { concat, framed, sequence } from "./_support/scripted_peer.ts";

const KIB = 1024;
const codec = cbor();
const payloads = new PayloadCodec(new CborCodec());

/** What was read of a frame: its values, or why there are none. */
type Read = { ids: number[]; values: unknown[]; asides: number } | {
  error: string;
};

/** Reads frames of `[8, 1, 0, 0, id, payload, ...]` that come in parts. */
function read(
  bytes: Uint8Array,
  long: FrameDecoder["long"],
  size: () => number,
): Read[] {
  const decoder = new FrameDecoder(64 * KIB * KIB);
  decoder.long = long;
  const reader = new CborDecoder();
  const frames: Read[] = [];
  for (let at = 0; at < bytes.length;) {
    const space = decoder.space();
    assertGreater(space.length, 0, "there is always room to read into");
    const part = bytes.subarray(at, at + Math.min(size(), space.length));
    space.set(part);
    decoder.advance(part.length);
    at += part.length;
    while (decoder.next()) {
      reader.set(decoder.bytes, decoder.start, decoder.end);
      reader.aside = decoder.aside;
      frames.push(readOne(reader, long));
    }
  }
  return frames;
}

function readOne(reader: CborDecoder, long: FrameDecoder["long"]): Read {
  const asides = reader.aside === null ? 0 : 1;
  const ids: number[] = [], values: unknown[] = [];
  try {
    for (let i = 0; i < 4; i++) reader.readUint();
    do {
      ids.push(reader.readUint());
      reader.readBytesRange();
      values.push(
        long === "payloads"
          ? payloads.read(reader.rangeBytes())
          : payloads.readFrom(reader),
      );
    } while (!reader.done);
    return { ids, values, asides };
  } catch (error) {
    assert(error instanceof DecodeError, `not a DecodeError: ${error}`);
    return { error: "DecodeError" };
  }
}

function frameOf(...values: unknown[]): Uint8Array<ArrayBuffer> {
  return framed(
    sequence(8, 1, 0, 0, ...values.flatMap((v, i) => [i, codec.encode(v)])),
  );
}

/** Values with a long byte string in them, of all kinds that there are. */
function shapes(rng: Rng): Record<string, unknown[]> {
  const long = (more = 0) => rng.bytes(LONG_BYTES + more);
  return {
    "a byte string": [long()],
    "a longer one": [long(3 * KIB * KIB)],
    "one of an object": [{ id: 1, name: "x", bytes: long(5), last: [1, 2] }],
    "one of nested arrays": [[[["a", long(7)], 1], { b: null }]],
    "two of an array": [[long(1), long(2)]],
    "after short values": ["short", { a: 1 }, long(9)],
    "before short values": [long(9), "short", { a: 1 }],
    "a Float64Array": [{ floats: new Float64Array(long().buffer) }],
    "a Uint16Array": [new Uint16Array(long().buffer)],
    "an ArrayBuffer": [long().buffer],
    "a bigint": [2n ** BigInt(LONG_BYTES * 8 + 5) - 1n],
    "a Map": [new Map<unknown, unknown>([["k", long()], [long(4), 1]])],
    "a long text": ["x".repeat(LONG_BYTES * 2)],
    "a text before": [["x".repeat(LONG_BYTES * 2), long()]],
    "many small things": [Array.from({ length: 99_999 }, (_, i) => i)],
    "many small things before": [[
      ...Array.from({ length: 99_999 }, (_, i) => i),
      long(),
    ]],
    "just too short": [rng.bytes(LONG_BYTES - 1)],
  };
}

const SPLITS: Record<string, (rng: Rng) => () => number> = {
  "whole": () => () => Infinity,
  "in parts of 64 KiB": () => () => 64 * KIB,
  "in parts of 1000 bytes": () => () => 1000,
  "split at random": (rng) => () => rng.int(1, 90_000),
};

for (const [name, split] of Object.entries(SPLITS)) {
  Deno.test(`FrameDecoder reads long strings aside that come ${name}`, () => {
    const rng = seeded(`long strings ${name}`);
    let asides = 0;
    for (const [shape, values] of Object.entries(shapes(rng))) {
      const bytes = concat([
        frameOf("before"),
        frameOf(...values),
        frameOf("after"),
        frameOf(...values),
      ]);
      for (const long of ["none", "payloads", "values"] as const) {
        const frames = read(bytes, long, split(rng));
        assertEquals(frames.length, 4, shape);
        for (
          const [i, expected] of [["before"], values, ["after"], values]
            .entries()
        ) {
          const frame = frames[i]!;
          assert("values" in frame, `${shape}, ${long}`);
          assertEquals(frame.ids, expected.map((_, i) => i));
          assertSame(frame.values, expected);
          if (long === "none") assertEquals(frame.asides, 0);
          else asides += frame.asides;
        }
      }
    }
    assertGreater(asides, 5, "it was needed at all");
  });
}

Deno.test("A long string that was read aside has a buffer of its own size", () => {
  const value = { id: 7, bytes: new Uint8Array(4 * LONG_BYTES).fill(9) };
  const [frame] = read(frameOf(value), "values", () => 32 * KIB);
  assert(frame !== undefined && "values" in frame);
  assertEquals(frame.asides, 1);
  const { bytes } = frame.values[0] as typeof value;
  assertEquals(bytes.buffer.byteLength, bytes.length);
  assertEquals(bytes, value.bytes);
});

Deno.test("A long string is let go of once its frame was read", () => {
  const decoder = new FrameDecoder(64 * KIB * KIB);
  decoder.long = "values";
  const bytes = frameOf(new Uint8Array(4 * LONG_BYTES));
  for (let at = 0; at < bytes.length;) {
    const space = decoder.space();
    const part = bytes.subarray(at, at + Math.min(space.length, 32 * KIB));
    space.set(part);
    decoder.advance(part.length);
    at += part.length;
  }
  assert(decoder.next());
  assertEquals(decoder.aside?.bytes.length, 4 * LONG_BYTES);
  assert(!decoder.next());
  decoder.space();
  assertEquals(decoder.aside, null, "an idle connection keeps nothing");
});

Deno.test("Frames that are damaged are read the same, aside or not", () => {
  const rng = seeded("damaged long strings");
  const all = Object.values(shapes(rng)).map((values) => frameOf(...values))
    .filter((frame) => frame.length < 4 * LONG_BYTES);
  let errors = 0, asides = 0;
  for (let i = 0; i < 400; i++) {
    const frame = rng.pick(all).slice();
    // The heads are in front; the frame's own length stays.
    for (let hits = rng.int(1, 3); hits > 0; hits--) {
      frame[rng.int(4, 40)] = rng.pick([
        rng.int(0, 255),
        0x5a,
        0x5b,
        0x42,
        0x5f,
        0x82,
      ]);
    }
    const bytes = concat([frame, frameOf("after")]);
    const step = rng.int(1, 4) * 20 * KIB;
    const plain = read(bytes, "none", () => step);
    for (const long of ["payloads", "values"] as const) {
      const frames = read(bytes, long, () => step);
      assertEquals(frames.length, plain.length);
      for (const [k, frame] of frames.entries()) {
        if ("error" in frame) {
          errors++;
          assertEquals(frame, plain[k]);
          continue;
        }
        asides += frame.asides;
        const other = plain[k]!;
        assert("values" in other);
        assertEquals(frame.ids, other.ids);
        assertSame(frame.values, other.values);
      }
    }
  }
  assertGreater(errors, 50);
  assertGreater(asides, 50);
});

Deno.test("A long string takes no memory before a part of it has come", () => {
  const limit = 64 * KIB * KIB;
  const decoder = new FrameDecoder(limit);
  decoder.long = "values";
  const size = limit - 100;
  const head = new Uint8Array(19 + 128 * KIB);
  const view = new DataView(head.buffer);
  view.setUint32(0, size + 15);
  head.set([8, 1, 0, 0, 0, 0x5a], 4);
  view.setUint32(10, size + 5);
  head[14] = 0x5a;
  view.setUint32(15, size);
  for (let at = 0; at < head.length;) {
    const space = decoder.space();
    assertLessOrEqual(space.length, 16 * Math.max(at, 8 * KIB));
    const part = head.subarray(at, at + Math.min(space.length, 1000));
    space.set(part);
    decoder.advance(part.length);
    at += part.length;
    decoder.next();
  }
});

Deno.test("findLongString() passes over what has come whole", () => {
  const body = sequence(8, 1, 0, 0, 1, codec.encode("x"), 2);
  const long = codec.encode({ a: [1, new Uint8Array(LONG_BYTES)] });
  const bytes = concat([body, sequence(long)]);
  const end = bytes.length - LONG_BYTES + 500;
  const { length } = bytes;
  const find = (inside: boolean, upTo = end) =>
    findLongString(bytes, { start: 0, end: upTo, length, inside });
  assertEquals(find(true), { at: length - LONG_BYTES, size: LONG_BYTES });
  assertEquals(find(false), { at: length - long.length, size: long.length });
  assertEquals(find(true, length), null, "all of it has come");
  assertEquals(find(true, body.length), null, "nothing of it has come");
  bytes[body.length + 5] = 0x7f;
  assertEquals(
    find(true),
    null,
    "what is of indefinite length may be anything",
  );
});

Deno.test("findLongString() keeps to the payload, and to frames that have one", () => {
  // Malformed: the string is longer than its payload, but not than the frame.
  const payload = codec.encode(new Uint8Array(2 * LONG_BYTES));
  const after = codec.encode(new Uint8Array(2 * LONG_BYTES));
  const bytes = sequence(8, 1, 0, 0, 1, payload, 2, after);
  const end = 20_000, { length } = bytes;
  const found = findLongString(bytes, { start: 0, end, length, inside: true });
  assertEquals(found, { at: 15, size: 2 * LONG_BYTES });
  new DataView(bytes.buffer).setUint32(11, 2 * LONG_BYTES + 1);
  for (const inside of [true, false]) {
    assertEquals(
      findLongString(bytes, { start: 0, end, length, inside }),
      inside ? null : { at: 10, size: payload.length },
      "the item fails, not the connection",
    );
  }
  const error = sequence(10, 1, "Error", "message", null, payload);
  assertEquals(
    findLongString(error, {
      start: 0,
      end,
      length: error.length,
      inside: true,
    }),
    null,
    "ERROR has no payload",
  );
});

/** A codec of one's own, over the other. */
const own = {
  name: "own",
  encode: (value: unknown) => codec.encode([value]),
  decode: (bytes: Uint8Array) => (codec.decode(bytes) as unknown[])[0],
};

for (const net of ["memory", "tcp"] satisfies Net[]) {
  Deno.test(`Long byte strings go there and back (${net})`, async () => {
    const rng = seeded(`long strings ${net}`);
    for (const options of [{}, { codec: own }]) {
      await using kit = new Kit<unknown, unknown>(net, options);
      await kit.worker((item) => item, { client: options });
      for (const values of Object.values(shapes(rng))) {
        for (const value of values) {
          assertSame(await kit.server.submit(value), value);
        }
      }
    }
  });
}
