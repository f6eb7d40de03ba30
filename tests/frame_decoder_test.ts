import {
  assert,
  assertEquals,
  assertFalse,
  assertLessOrEqual,
  assertThrows,
} from "@std/assert";
import { ProtocolError } from "../internal/errors.ts";
import { FrameDecoder } from "../internal/frame_decoder.ts";
import { type Rng, seeded } from "./_support/rng.ts";
import { concat, framed } from "./_support/scripted_peer.ts";

const KIB = 1024, MIB = 1024 * KIB;

/** Feeds bytes, so many at a time, and returns the frames' bodies. */
function feed(
  decoder: FrameDecoder,
  bytes: Uint8Array,
  size: () => number,
): Uint8Array[] {
  const bodies: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const space = decoder.space();
    assert(space.length > 0, "there is always room to read into");
    const part = bytes.subarray(at, at + Math.min(size(), space.length));
    space.set(part);
    decoder.advance(part.length);
    at += part.length;
    while (decoder.next()) {
      bodies.push(decoder.bytes.slice(decoder.start, decoder.end));
    }
  }
  return bodies;
}

const SPLITS: Record<string, (rng: Rng) => () => number> = {
  "whole": () => () => Infinity,
  "byte by byte": () => () => 1,
  "split at random": (rng) => () => rng.int(1, 9000),
  "split at random, finely": (rng) => () => rng.int(1, 7),
};

for (const [name, split] of Object.entries(SPLITS)) {
  Deno.test(`FrameDecoder finds frames that come ${name}`, () => {
    const rng = seeded(`frames ${name}`);
    const bodies = Array.from(
      { length: 200 },
      () => rng.bytes(Math.max(1, Math.floor(2 ** (rng.float() * 14)))),
    );
    const decoder = new FrameDecoder(16 * KIB);
    const found = feed(decoder, concat(bodies.map(framed)), split(rng));
    assertEquals(found.length, bodies.length);
    for (const [i, body] of found.entries()) {
      assertEquals(body.toHex(), bodies[i]!.toHex());
    }
    assertFalse(decoder.partial);
  });

  Deno.test(`FrameDecoder refuses lengths that come ${name}`, () => {
    const rng = seeded(`lengths ${name}`);
    for (
      const [length, reason] of [
        [0, "length is 0, expected at least 1"],
        [4097, "length is 4097, limit is 4096"],
        [0x7fff_ffff, "length is 2147483647, limit is 4096"],
        [0x8000_0000, "length is 2147483648, limit is 4096"],
        [0xffff_ffff, "length is 4294967295, limit is 4096"],
      ] as const
    ) {
      const head = new Uint8Array(4);
      new DataView(head.buffer).setUint32(0, length);
      const bytes = concat([framed(new Uint8Array(10)), head]);
      assertThrows(
        () => feed(new FrameDecoder(4096), bytes, split(rng)),
        ProtocolError,
        reason,
      );
    }
  });
}

Deno.test("FrameDecoder takes a frame of exactly its limit", () => {
  const bytes = framed(new Uint8Array(4096).fill(1));
  const [body] = feed(new FrameDecoder(4096), bytes, () => 1000);
  assertEquals(body!.length, 4096);
});

Deno.test("FrameDecoder says whether a frame has begun", () => {
  const decoder = new FrameDecoder(4096);
  assertFalse(decoder.partial);
  feed(decoder, framed(new Uint8Array([1, 2])).subarray(0, 1), () => 1);
  assert(decoder.partial);
  feed(decoder, framed(new Uint8Array([1, 2])).subarray(1), () => 1);
  assertFalse(decoder.partial);
});

Deno.test("FrameDecoder.limit counts from the next frame on", () => {
  const decoder = new FrameDecoder(16);
  const bytes = concat([
    framed(new Uint8Array(16)),
    framed(new Uint8Array(5000)),
  ]);
  decoder.space().set(bytes.subarray(0, 100));
  decoder.advance(100);
  assert(decoder.next());
  decoder.limit = 8000; // the handshake is done
  assertFalse(decoder.next());
  const [body] = feed(decoder, bytes.subarray(100), () => Infinity);
  assertEquals(body!.length, 5000);
});

Deno.test("FrameDecoder's memory follows what came, not what is announced", () => {
  const decoder = new FrameDecoder(0xffff_ffff);
  const head = new Uint8Array([0xff, 0xff, 0xff, 0xff]);
  feed(decoder, head, () => 1);
  decoder.space();
  assertLessOrEqual(decoder.bytes.length, 2 * KIB);
  for (let came = 4; came < 8 * MIB;) {
    const space = decoder.space();
    const count = Math.min(space.length, 3000);
    decoder.advance(count);
    came += count;
    decoder.next();
    assertLessOrEqual(decoder.bytes.length, Math.max(128 * KIB, 4 * came));
  }
});

Deno.test("FrameDecoder's buffer grows by little for a frame that ends soon", () => {
  const decoder = new FrameDecoder(16 * MIB);
  const body = new Uint8Array(10 * MIB).fill(3);
  const [found] = feed(decoder, framed(body), () => 64 * KIB);
  assertEquals(found!.length, body.length);
  assertLessOrEqual(decoder.bytes.length, 16 * MIB + 4);
});

Deno.test("FrameDecoder's buffer is small again when traffic is", () => {
  const decoder = new FrameDecoder(16 * MIB);
  const idle = decoder.bytes.length;
  assertLessOrEqual(idle, 4 * KIB);
  feed(decoder, framed(new Uint8Array(5 * MIB)), () => Infinity);
  for (let i = 0; i < 200; i++) {
    feed(decoder, framed(new Uint8Array(10)), () => Infinity);
  }
  decoder.space();
  assertEquals(decoder.bytes.length, idle);
});

Deno.test("FrameDecoder tells who speaks another protocol", () => {
  for (
    const [head, words] of [
      ["\x16\x03\x01\x02", ": the peer seems to speak TLS"],
      ["\x15\x03\x03\x00", ": the peer seems to speak TLS"],
      ["GET ", ": the peer seems to speak HTTP"],
      ["HTTP", ": the peer seems to speak HTTP"],
      ["SSH-", ""],
      ["\xff\xff\xff\xff", ""],
    ] as const
  ) {
    const decoder = new FrameDecoder(4096);
    const bytes = Uint8Array.from(head, (char) => char.charCodeAt(0));
    decoder.space().set(bytes);
    decoder.advance(4);
    const length = new DataView(bytes.buffer).getUint32(0);
    const { message } = assertThrows(() => decoder.next(), ProtocolError);
    assertEquals(
      message,
      `Cannot decode frame: length is ${length}, limit is 4096${words}`,
    );
  }
});
