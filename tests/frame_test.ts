import {
  assert,
  assertEquals,
  assertFalse,
  assertLessOrEqual,
  assertThrows,
} from "@std/assert";
import { cbor, type Codec } from "../codec.ts";
import { ByteWriter, SEGMENT_BYTES } from "../internal/byte_writer.ts";
import {
  DecodeError,
  EncodeError,
  FrameTooLargeError,
} from "../internal/errors.ts";
import { clip, frameName, FrameType, FrameWriter } from "../internal/frame.ts";
import { FrameDecoder } from "../internal/frame_decoder.ts";
import { PayloadCodec } from "../internal/payload.ts";
import { seeded } from "./_support/rng.ts";
import { type Frame, readFrame } from "./_support/scripted_peer.ts";

const codec = cbor();
const payloads = new PayloadCodec(codec);

function writer(limit = 1 << 30): FrameWriter {
  const frames = new FrameWriter(new ByteWriter());
  frames.limit = limit;
  return frames;
}

/** Everything that was written, as frames. */
function written(frames: FrameWriter): Frame[] {
  frames.close();
  const bytes = frames.out.toBytes();
  const decoder = new FrameDecoder(1 << 30);
  const all: Frame[] = [];
  for (let at = 0; at < bytes.length;) {
    const space = decoder.space();
    const part = bytes.subarray(at, at + space.length);
    space.set(part);
    decoder.advance(part.length);
    at += part.length;
    while (decoder.next()) {
      all.push(readFrame(decoder.bytes.slice(decoder.start, decoder.end)));
    }
  }
  assertFalse(decoder.partial);
  return all;
}

function value(frames: FrameWriter, value: unknown): number {
  return payloads.write(frames, value, () => frames.open(FrameType.VALUE));
}

function values(frame: Frame): unknown[] {
  return frame.fields.map((field) => codec.decode(field as Uint8Array));
}

function item(
  frames: FrameWriter,
  delivery: number,
  { attempt = 1, kind = 0 } = {},
): void {
  payloads.write(frames, delivery * 10, () => {
    frames.openItem(attempt, kind, delivery);
    frames.out.writeUint(delivery + 100);
  });
}

Deno.test("FrameWriter.begin() closes the frame before it", () => {
  const frames = writer();
  frames.begin(FrameType.PING);
  frames.out.writeUint(1);
  frames.begin(FrameType.END);
  frames.uints(FrameType.CANCEL, [1, 500]);
  assertEquals(
    written(frames).map((f) => [f.type, ...f.fields]),
    [[FrameType.PING, 1], [FrameType.END], [FrameType.CANCEL, 1, 500]],
  );
});

Deno.test("FrameWriter.close() without an open frame does nothing", () => {
  const frames = writer();
  frames.close();
  frames.close();
  assertEquals(frames.out.length, 0);
});

Deno.test("FrameWriter.open() lets values share a frame until it is full", () => {
  const frames = writer();
  for (let i = 0; i < 10; i++) value(frames, i);
  frames.uints(FrameType.PING, [1]);
  value(frames, 10);
  const [first, ping, second] = written(frames);
  assertEquals(values(first!), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assertEquals(ping!.type, FrameType.PING);
  assertEquals(values(second!), [10]);

  const many = writer();
  for (let i = 0; i < 20_000; i++) value(many, i);
  const all = written(many);
  assertEquals(
    all.flatMap(values),
    Array.from({ length: 20_000 }, (_, i) => i),
  );
  assert(all.length > 1);
  for (const { body } of all) assertLessOrEqual(body.length, 17 * 1024);
});

Deno.test("FrameWriter.open() counts segments as part of the frame", () => {
  const frames = writer();
  for (let i = 0; i < 3; i++) {
    value(frames, new Uint8Array(SEGMENT_BYTES).fill(i));
  }
  const all = written(frames);
  assertEquals(all.length, 3);
  for (const [i, frame] of all.entries()) {
    assertEquals(values(frame), [new Uint8Array(SEGMENT_BYTES).fill(i)]);
  }
});

Deno.test("FrameWriter.openItem() starts a frame when attempt or kind differ", () => {
  const frames = writer();
  item(frames, 0);
  item(frames, 1);
  item(frames, 2, { attempt: 2 });
  item(frames, 3, { attempt: 2, kind: 1 });
  item(frames, 4, { attempt: 2, kind: 1 });
  item(frames, 5);
  assertEquals(
    written(frames).map(({ fields: [attempt, kind, delivery, ...rest] }) => [
      attempt,
      kind,
      delivery,
      rest.filter((_, i) => i % 2 === 0),
    ]),
    [
      [1, 0, 0, [100, 101]],
      [2, 0, 2, [102]],
      [2, 1, 3, [103, 104]],
      [1, 0, 5, [105]],
    ],
  );
});

Deno.test("FrameWriter.endPayload() writes the length of any payload", () => {
  for (
    const length of [0, 1, 23, 24, 255, 256, 0xfffe, 0xffff, 0x10000, 1 << 20]
  ) {
    const frames = writer();
    const bytes = new Uint8Array(length).fill(7);
    value(frames, "before");
    // As text it is written in place, as bytes it may become a segment.
    value(frames, "a".repeat(length));
    value(frames, bytes);
    value(frames, [bytes, "between", bytes]);
    value(frames, "behind");
    assertEquals(written(frames).flatMap(values), [
      "before",
      "a".repeat(length),
      bytes,
      [bytes, "between", bytes],
      "behind",
    ], `${length} bytes`);
  }
});

Deno.test("FrameWriter writes the lengths of random values right", () => {
  const rng = seeded("frames");
  const frames = writer();
  const all: unknown[] = [];
  for (let i = 0; i < 300; i++) {
    const size = Math.floor(2 ** (rng.float() * 18));
    const next = rng.pick<() => unknown>([
      () => rng.bytes(size),
      () => "é".repeat(size),
      () => [rng.bytes(size), rng.bytes(20_000), size],
      () => size,
    ])();
    all.push(next);
    value(frames, next);
    if (rng.chance(0.1)) frames.close();
  }
  assertEquals(written(frames).flatMap(values), all);
});

Deno.test("FrameWriter.restore() takes back what came since", () => {
  const frames = writer();
  value(frames, 1);
  frames.restore(0, 0);
  assertEquals(frames.out.length, 0);
  value(frames, 1);
  const { length } = frames.out;
  value(frames, new Uint8Array(200_000));
  assertEquals(frames.out.segments.length, 1);
  frames.restore(length, 0);
  value(frames, 2);
  frames.close();
  const closed = frames.out.length;
  frames.uints(FrameType.PING, [1]);
  value(frames, 3);
  frames.restore(closed, 0);
  value(frames, 4);
  const [first, second, ...none] = written(frames);
  assertEquals(values(first!), [1, 2]);
  assertEquals(values(second!), [4]);
  assertEquals(none, []);
  assertEquals(frames.out.segmentBytes, 0);
});

Deno.test("PayloadCodec.write() leaves nothing of what can't be encoded", () => {
  const frames = writer();
  value(frames, 1);
  assertThrows(
    () => value(frames, [new Uint8Array(20_000), { fn() {} }]),
    EncodeError,
    "$[1].fn",
  );
  value(frames, 2);
  assertEquals(written(frames).flatMap(values), [1, 2]);
  assertEquals(frames.out.segmentBytes, 0);
});

Deno.test("PayloadCodec.write() gives a value that is too much for the frame its own", () => {
  const frames = writer(1024);
  value(frames, "a".repeat(600));
  value(frames, "b".repeat(600));
  value(frames, "c".repeat(100));
  assertEquals(written(frames).map(values), [
    ["a".repeat(600)],
    ["b".repeat(600), "c".repeat(100)],
  ]);
});

Deno.test("PayloadCodec.write() keeps to the limit, to the byte", () => {
  // Type, payload's head of 3, text's head of 3.
  const most = 1024 - 7;
  const fits = writer(1024);
  value(fits, "a".repeat(most));
  assertEquals(written(fits)[0]!.body.length, 1024);
  const frames = writer(1024);
  value(frames, 1);
  const error = assertThrows(
    () => value(frames, "a".repeat(most + 1)),
    FrameTooLargeError,
    "its frame is 1025 bytes, limit is 1024 bytes",
  );
  assertEquals([error.bytes, error.limit], [1025, 1024]);
  value(frames, 2);
  assertEquals(written(frames).flatMap(values), [1, 2]);
});

Deno.test("PayloadCodec.write() gives up a value that is far too long", () => {
  const frames = writer(100_000);
  // 2^40 times what is at the bottom: nobody could wait for its end.
  const twice = (part: unknown) => {
    for (let i = 0; i < 40; i++) part = [part, part];
    return part;
  };
  const long = [
    twice(1),
    new Map([[1, twice("text")]]),
    twice({ bytes: new Uint8Array(SEGMENT_BYTES) }),
  ];
  for (const one of long) {
    value(frames, 1);
    const error = assertThrows(
      () => value(frames, one),
      FrameTooLargeError,
      "its frame is more than ",
    );
    assertEquals(error.limit, 100_000);
    assert(error.bytes > 400_000 && error.bytes < 4_000_000, error.message);
    value(frames, 2);
    assertEquals(written(frames).flatMap(values), [1, 2]);
    assertEquals(frames.out.segmentBytes, 0);
    frames.out.reset();
  }
  // What was written before doesn't count, nor what comes after.
  for (let i = 0; i < 20; i++) value(frames, "a".repeat(90_000));
  assertEquals(written(frames).length, 20);
});

Deno.test("PayloadCodec.write() of a codec that isn't ours copies or refers", () => {
  const raw = new PayloadCodec(
    {
      name: "raw",
      encode: (bytes: Uint8Array) => bytes,
      decode: (payload: Uint8Array) => payload,
    } as Codec<unknown>,
  );
  const frames = writer();
  const small = new Uint8Array([1, 2, 3]),
    large = new Uint8Array(SEGMENT_BYTES);
  for (const bytes of [small, large]) {
    raw.write(frames, bytes, () => frames.open(FrameType.VALUE));
  }
  assertEquals(frames.out.segmentBytes, SEGMENT_BYTES);
  assertEquals(written(frames).flatMap((f) => f.fields), [small, large]);
});

Deno.test("PayloadCodec turns whatever a codec throws into its own errors", () => {
  const bad = new PayloadCodec({
    name: "bad",
    encode(value: unknown) {
      if (value === 1) return "text" as unknown as Uint8Array;
      throw value;
    },
    decode: () => {
      throw new RangeError("no");
    },
  });
  const frames = writer();
  const open = () => frames.open(FrameType.VALUE);
  assertThrows(
    () => bad.write(frames, new Error("broken"), open),
    EncodeError,
    'codec "bad" failed: broken',
  );
  assertThrows(() => bad.write(frames, "text", open), EncodeError, "text");
  assertThrows(
    () => bad.write(frames, 1, open),
    EncodeError,
    "returned string, expected a Uint8Array",
  );
  assertEquals(frames.out.length, 0);
  assertThrows(
    () => bad.read(new Uint8Array(4)),
    DecodeError,
    'codec "bad" failed: no',
  );
});

Deno.test("PayloadCodec.write() can be called from a getter of its value", () => {
  const frames = writer(), other = writer();
  value(frames, {
    get nested() {
      value(other, "inner");
      return "outer";
    },
  });
  assertEquals(written(frames).flatMap(values), [{ nested: "outer" }]);
  assertEquals(written(other).flatMap(values), ["inner"]);
});

Deno.test("PayloadCodec.write() leaves the frame alone in which a value is half-written", () => {
  for (const size of [10, 20_000]) {
    const frames = writer();
    const outer = {
      long: "x".repeat(size), // in a full frame another value opens its own
      get nested() {
        assertThrows(
          () => value(frames, "inner"),
          EncodeError,
          "another value",
        );
        return 1;
      },
      end: "y",
    };
    value(frames, outer);
    value(frames, "after");
    assertEquals(
      written(frames).flatMap(values),
      [{ long: outer.long, nested: 1, end: "y" }, "after"],
    );
  }
});

Deno.test("FrameWriter.farewell() cuts the reason and makes it well-formed", () => {
  const frames = writer();
  frames.farewell(FrameType.GOODBYE, 2, "x".repeat(5000));
  frames.farewell(FrameType.REJECT, 1, "lone \ud800 surrogate");
  const [goodbye, reject] = written(frames);
  assertEquals(goodbye!.fields, [2, "x".repeat(999) + "…"]);
  assertEquals(reject!.fields, [1, "lone \ufffd surrogate"]);
});

Deno.test("FrameWriter.farewell() keeps to the peer's limit", () => {
  for (const limit of [256, 1024, 3000]) {
    for (const unit of ["x", "\u20ac", "\u{1f600}"]) {
      const frames = writer(limit);
      frames.farewell(FrameType.GOODBYE, 2, unit.repeat(5000));
      assertLessOrEqual(frames.out.length, 4 + limit);
      const [frame] = written(frames);
      assert(String(frame!.fields[1]).endsWith("…"));
    }
  }
});

Deno.test("clip() never cuts a character in half", () => {
  assertEquals(clip("short", 5), "short");
  assertEquals(clip("longer", 5), "long…");
  assert(clip("😀😀😀", 4).isWellFormed());
  assertLessOrEqual(clip("😀😀😀", 4).length, 4);
});

Deno.test("frameName() names every type, and says the number of any other", () => {
  for (const [name, type] of Object.entries(FrameType)) {
    assertEquals(frameName(type), name);
  }
  assertEquals(frameName(99), "frame of type 99");
});

Deno.test("PayloadCodec.write() can be called from a codec of one's own", () => {
  const frames = writer();
  const codec = new PayloadCodec({
    name: "nested",
    encode(value) {
      if (value === "outer") codec.write(frames, "inner", open);
      return new TextEncoder().encode(String(value));
    },
    decode: (payload) => new TextDecoder().decode(payload),
  });
  const open = () => frames.open(FrameType.VALUE);
  codec.write(frames, "outer", open);
  const [frame] = written(frames);
  assertEquals(
    frame!.fields.map((field) => codec.read(field as Uint8Array)),
    ["inner", "outer"],
  );
});
