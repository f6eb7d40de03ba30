/**
 * When a connection writes, one value at once and many together; whom it leaves
 * turns to; how much of a refused peer it still reads; and what is still done
 * once it can't write.
 */
import {
  assert,
  assertEquals,
  assertLess,
  assertLessOrEqual,
} from "@std/assert";
import { setTimeout } from "node:timers";
import { setImmediate } from "node:timers/promises";
import { SEGMENT_BYTES } from "../internal/byte_writer.ts";
import { Connection, type ConnectionEvents } from "../internal/connection.ts";
import type { ConnectionLostError } from "../internal/errors.ts";
import { FrameType } from "../internal/frame.ts";
import { type OpenTransform, TransformChain } from "../internal/transforms.ts";
import { moment } from "./_support/within.ts";

/** Whom nothing matters that a connection tells. */
const DEAF: ConnectionEvents = {
  onFrame: () => {},
  onBatch: () => {},
  onFlush: () => {},
  onDrain: () => {},
  onViolation: () => {},
  onEnd: () => {},
};

/** A socket that nothing comes from; it keeps the sizes of what is written. */
function sink(): { connection: Connection; sizes: number[] } {
  const sizes: number[] = [];
  const ended = Promise.withResolvers<null>();
  const connection = new Connection({
    read: () => ended.promise,
    write: (bytes) => {
      sizes.push(bytes.length);
      return Promise.resolve(bytes.length);
    },
    close: () => ended.resolve(null),
  }, {
    limit: 1024,
    events: DEAF,
  });
  return { connection, sizes };
}

/** Six bytes. */
function say(connection: Connection, times = 1): void {
  for (let i = 0; i < times; i++) {
    connection.prepare();
    connection.frames.uints(FrameType.PING, [1]);
    connection.schedule();
  }
}

/** Its frames go through this from here on, in both directions. */
function transform(
  connection: Connection,
  { encode = (bytes) => bytes, decode = (bytes) => bytes }: Partial<
    OpenTransform
  >,
  maxBytes = 1024,
): void {
  const open = () => ({ encode, decode });
  const sessionId = new Uint8Array(32);
  connection.useTransforms(
    new TransformChain([{ name: "odd", open }], {
      role: "server",
      sessionId,
      maxBytes,
    }),
    maxBytes,
  );
}

/** Keeps the event loop for as long as gzip does for a small frame. */
function burn(): void {
  const until = performance.now() + 0.2;
  while (performance.now() < until);
}

/** Until nothing is left to be written. */
async function turns(): Promise<void> {
  for (let i = 0; i < 5; i++) await setImmediate();
}

Deno.test("Connection writes the only value of a turn at once", async () => {
  const { connection, sizes } = sink();
  for (const count of [1, 2, 3]) {
    say(connection);
    assertEquals(sizes.length, count - 1);
    await Promise.resolve();
    assertEquals(sizes.length, count, "with the microtasks of its turn");
    await turns();
  }
  connection.end();
});

Deno.test("Connection.bytesOut counts what transforms make of frames", async () => {
  const { connection, sizes } = sink();
  say(connection); // leaves as it is
  transform(connection, { encode: (bytes) => new Uint8Array([...bytes, 0]) });
  say(connection, 3);
  await turns();
  assertEquals(sizes.reduce((sum, size) => sum + size, 0), 6 + 3 * 7);
  assertEquals(connection.bytesOut, 6 + 3 * 7);
  connection.end();
});

Deno.test("Connection.scheduleLater() while a write waits comes behind it", async () => {
  let isDue = false;
  const sizes: number[] = [];
  const written = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<null>();
  const connection = new Connection({
    read: () => ended.promise,
    write: async (bytes) => {
      sizes.push(bytes.length);
      if (sizes.length === 1) await written.promise;
      return bytes.length;
    },
    close: () => ended.resolve(null),
  }, {
    limit: 1024,
    events: {
      ...DEAF,
      onFlush: () => {
        if (!isDue) return;
        isDue = false;
        connection.prepare();
        connection.frames.uints(FrameType.ACK, [1]);
      },
    },
  });
  say(connection);
  await Promise.resolve();
  assertEquals(sizes, [6]);
  isDue = true;
  connection.scheduleLater();
  written.resolve();
  await turns();
  assertEquals(sizes, [6, 6]);
  connection.end();
});

Deno.test("Connection under load writes the values of a turn together", async () => {
  const { connection, sizes } = sink();
  say(connection, 100);
  await turns();
  assertEquals(sizes, [600]);
  // The first comes alone, and the others with the microtasks after it.
  say(connection);
  await Promise.resolve().then(() => say(connection, 49));
  await turns();
  assertEquals(sizes, [600, 300]);
  // It was the only one: now it is serial traffic again.
  say(connection);
  await turns();
  say(connection);
  await Promise.resolve();
  assertEquals(sizes, [600, 300, 6, 6]);
  await turns();
  connection.end();
});

Deno.test("Connection doesn't hold back more than 1024 values or 64 KiB", async () => {
  const { connection, sizes } = sink();
  say(connection, 100);
  await turns();
  say(connection, 5000);
  assertEquals(sizes, [600, 6 * 1024], "in the same turn");
  await turns();
  assertEquals(sizes.reduce((sum, size) => sum + size), 6 * 5100);
  connection.frames.begin(FrameType.VALUE);
  connection.out.writeBytes(new Uint8Array(64 * 1024));
  connection.schedule();
  connection.schedule();
  assertEquals(sizes.at(-1)! > 64 * 1024, true, "in the same turn");
  await turns();
  connection.end();
});

Deno.test("Connection.saidAt is when it last wrote, also where a long byte string came last", async () => {
  const { connection, sizes } = sink();
  await new Promise((resolve) => setTimeout(resolve, 5));
  const before = performance.now();
  connection.prepare();
  connection.out.writeHead(2, SEGMENT_BYTES);
  connection.out.addSegment(new Uint8Array(SEGMENT_BYTES));
  connection.schedule();
  await turns();
  assertEquals(sizes, [5, SEGMENT_BYTES]);
  assertLessOrEqual(before, connection.saidAt);
  assertEquals(connection.writingSince, 0);
  connection.end();
});

/** How many of endless tiny frames are told in a turn, if they are undone so. */
async function toldInATurn(
  decode: (bytes: Uint8Array) => Uint8Array,
): Promise<number> {
  const frames = new Uint8Array(5 * 4096).map((_, i) => i % 5 < 3 ? 0 : 1);
  const first = Promise.withResolvers<void>();
  let told = 0;
  const connection = new Connection({
    read: (p) => {
      const count = Math.floor(Math.min(p.length, frames.length) / 5) * 5;
      p.set(frames.subarray(0, count));
      return Promise.resolve(count);
    },
    write: (bytes) => Promise.resolve(bytes.length),
    close: () => {},
  }, {
    limit: 1024,
    events: {
      ...DEAF,
      onFrame: () => {
        told++;
        first.resolve();
      },
    },
  });
  transform(connection, { decode }, 2 ** 20);
  connection.start();
  await first.promise;
  await setImmediate();
  connection.end();
  return told;
}

Deno.test("Connection leaves others their turns, whatever a transform makes of a frame", async () => {
  const plain = new Uint8Array(512 * 1024);
  assertLess(await toldInATurn(() => plain), 10, "two of them are a turn");
});

Deno.test("Connection leaves others their turns, however long a transform takes", async () => {
  const told = await toldInATurn((bytes) => (burn(), bytes));
  assertLess(told, 100);
});

Deno.test("Connection leaves others their turns, however long a transform takes to make a frame", async () => {
  const { connection } = sink();
  let made = 0;
  const encode = (bytes: Uint8Array) => {
    made++;
    burn();
    return bytes;
  };
  transform(connection, { encode });
  say(connection, 500);
  await setImmediate();
  assertLess(0, made);
  assertLess(made, 100);
  while (made < 500) await setImmediate();
  await turns();
  connection.end();
});

Deno.test("Connection counts no time in which a transform waits for an event", async () => {
  const { connection, sizes } = sink();
  let made = 0;
  const encode = async (bytes: Uint8Array) => {
    // As encryption on another thread does: others have their turns.
    const until = performance.now() + 2;
    while (performance.now() < until) await setImmediate();
    made++;
    return bytes;
  };
  transform(connection, { encode });
  say(connection, 20);
  while (made < 20) await setImmediate();
  await turns();
  assertEquals(sizes, [20 * 6], "they share a write");
  connection.end();
});

/** Reads 150,000 frames of five bytes, which are always here already. */
async function flood(
  isCrowded: () => boolean,
  onFrame: () => void = () => {},
): Promise<void> {
  const total = 5 * 150_000;
  const ended = Promise.withResolvers<void>();
  let sent = 0;
  const connection = new Connection({
    read: (p) => {
      if (sent >= total) return Promise.resolve(null);
      for (let i = 0; i < p.length; i++) p[i] = sent++ % 5 < 3 ? 0 : 1;
      return Promise.resolve(p.length);
    },
    write: (bytes) => Promise.resolve(bytes.length),
    close: () => {},
  }, {
    limit: 1024,
    isCrowded,
    events: { ...DEAF, onFrame, onEnd: () => ended.resolve() },
  });
  connection.start();
  await ended.promise;
}

Deno.test("Connection under a flood waits for a timer now and then, if there are others", async () => {
  const pauses: number[][] = [];
  let told = 0;
  await flood(() => {
    // This timer is set before the connection's, and so is due before it.
    const pause = [told];
    pauses.push(pause);
    setTimeout(() => pause.push(told), 0);
    return true;
  }, () => told++);
  // Each of 16 MiB, at 261 bytes a frame; others may have begun the first.
  assert([2, 3].includes(pauses.length), `${pauses.length} pauses`);
  for (const [from, to] of pauses) assertEquals(from, to, "nothing is told");
});

Deno.test("Connections that are flooded at the same time wait together", async () => {
  let pauses = 0;
  const paused = () => ++pauses > 0;
  await Promise.all([flood(paused), flood(paused), flood(paused)]);
  assertLess(20, pauses, "each by itself would wait twice");
});

Deno.test("Connections that are flooded pause also next to one that is by itself", async () => {
  let pauses = 0;
  // Of every two turns the second is its own, and so is each sixteenth.
  await Promise.all([flood(() => ++pauses > 0), flood(() => false)]);
  assertLess(1, pauses);
});

/** How much is read of a peer that goes on sending after the last frame. */
async function readAfterFinish(isKnown: boolean): Promise<number> {
  const total = 4 * 1024 * 1024;
  const ended = Promise.withResolvers<void>();
  let read = 0;
  const connection = new Connection({
    read: (p) => {
      const count = Math.min(p.length, total - read);
      read += count;
      return Promise.resolve(count === 0 ? null : count);
    },
    write: (bytes) => Promise.resolve(bytes.length),
    close: () => {},
  }, {
    limit: 1024,
    events: { ...DEAF, onEnd: () => ended.resolve() },
  });
  if (isKnown) connection.receiveLimit = 1024;
  connection.finish();
  connection.start();
  await ended.promise;
  return read;
}

Deno.test("Connection reads 1 MiB of a stranger that was refused, and all of a peer", async () => {
  const stranger = await readAfterFinish(false);
  assertLess(stranger, 1.5 * 1024 * 1024);
  assertLess(1024 * 1024, stranger);
  assertEquals(await readAfterFinish(true), 4 * 1024 * 1024);
});

/** What a peer that reads a byte at a time has read when its connection ends. */
async function lastOutput(isKnown: boolean, most: number): Promise<string> {
  const ended = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<null>();
  let read = 0;
  const connection = new Connection({
    read: () => closed.promise,
    write: () => {
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      // Six take longer than a second, also one that begins anew.
      if (read < most) setTimeout(() => resolve((read++, 1)), 450);
      else closed.promise.then(() => reject(new Error("closed")));
      return promise;
    },
    closeWrite: () => Promise.resolve(closed.resolve(null)),
    close: () => closed.resolve(null),
  }, {
    limit: 1024,
    events: { ...DEAF, onEnd: () => ended.resolve() },
  });
  if (isKnown) connection.receiveLimit = 1024;
  connection.start();
  say(connection);
  connection.finish();
  await ended.promise;
  return read === 6 ? "all" : read < most ? "cut off" : "not read";
}

Deno.test("Connection that ends waits for a peer that still reads, not for a stranger", async () => {
  assertEquals(
    await Promise.all([
      lastOutput(true, 6),
      lastOutput(false, 6),
      lastOutput(true, 2),
    ]),
    ["all", "cut off", "not read"],
  );
});

Deno.test("Connection that ends waits for its transforms behind what was just read", async () => {
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<null>();
  let frames = 0;
  const connection = new Connection({
    read: () => closed.promise,
    write: async (bytes) => {
      await moment(900);
      frames++;
      return bytes.length;
    },
    closeWrite: () => Promise.resolve(closed.resolve(null)),
    close: () => closed.resolve(null),
  }, { limit: 1024, events: { ...DEAF, onEnd: () => resolve() } });
  connection.receiveLimit = 1024;
  transform(connection, {
    encode: async (bytes) => {
      if (frames === 1) await moment(300);
      return bytes;
    },
  });
  connection.start();
  say(connection);
  connection.flush();
  say(connection);
  connection.finish(); // a second later the second frame is in its transform
  await ended;
  assertEquals(frames, 2);
});

Deno.test("Connection that can't write any more still tells what has come", async () => {
  const written = Promise.withResolvers<number>();
  const came = Promise.withResolvers<number>();
  const ended = Promise.withResolvers<ConnectionLostError>();
  const told: (number | string)[] = [];
  let reads = 0;
  const connection = new Connection({
    read: async (p) => {
      if (reads++ > 0) return null;
      await came.promise;
      p.set([0, 0, 0, 1, 7, 0, 0, 0, 1, 8]);
      return 10;
    },
    write: () => written.promise,
    close: () => {},
  }, {
    limit: 1024,
    events: {
      ...DEAF,
      onFrame: (type) => void told.push(type),
      onBatch: () => void told.push("batch"),
      onEnd: (error) => ended.resolve(error),
    },
  });
  connection.start();
  say(connection);
  await turns();
  written.reject(new Error("broken pipe"));
  await turns();
  assertEquals(connection.isOpen, false);
  came.resolve(10);
  const { code, reason } = await ended.promise;
  assertEquals([code, reason], ["reset", "broken pipe"]);
  assertEquals(told, [7, 8, "batch"]);
});

Deno.test("Connection that can't write any more waits for no room in its output", async () => {
  const written = Promise.withResolvers<number>();
  const ended = Promise.withResolvers<ConnectionLostError>();
  const told: number[] = [];
  let reads = 0;
  const connection = new Connection({
    read: (p) => {
      if (reads++ > 0) return Promise.resolve(null);
      p.set([0, 0, 0, 1, 7, 0, 0, 0, 1, 8]);
      return Promise.resolve(10);
    },
    write: () => written.promise,
    close: () => {},
  }, {
    limit: 1024,
    events: {
      ...DEAF,
      onFrame: (type) => {
        told.push(type);
        connection.holdUntilRoom(performance.now());
      },
      onEnd: (error) => ended.resolve(error),
    },
  });
  say(connection);
  await turns();
  say(connection, 11_000);
  connection.start();
  await turns();
  assertEquals([told, connection.busy], [[7], true]);
  written.reject(new Error("broken pipe"));
  await ended.promise;
  assertEquals(told, [7, 8]);
});

Deno.test("Connection writes what is before a frame that a transform can't make", async () => {
  const written: number[] = [];
  const ended = Promise.withResolvers<ConnectionLostError>();
  const over = Promise.withResolvers<null>();
  const connection = new Connection({
    read: () => over.promise,
    write: (bytes) => {
      written.push(...bytes);
      return Promise.resolve(bytes.length);
    },
    close: () => over.resolve(null),
  }, {
    limit: 1024,
    events: { ...DEAF, onEnd: (error) => ended.resolve(error) },
  });
  let frames = 0;
  transform(connection, {
    encode: (bytes) => {
      if (++frames === 3) throw new Error("no third");
      return bytes;
    },
  });
  connection.start();
  say(connection, 4);
  const { code } = await ended.promise;
  assertEquals(code, "transforms");
  assertEquals(frames, 3);
  const frame = [0, 0, 0, 2, FrameType.PING, 1];
  assertEquals(written, [...frame, ...frame]);
});

Deno.test("Connection: a transform may keep what it is handed, and take its buffer away", async () => {
  const frames = [0, 0, 0, 1, 7, 0, 0, 0, 1, 8];
  const over = Promise.withResolvers<null>();
  const written: number[] = [], told: number[] = [];
  let reads = 0;
  const connection = new Connection({
    read: (p) => {
      if (reads++ > 0) return over.promise;
      p.set(frames);
      return Promise.resolve(frames.length);
    },
    write: (bytes) => {
      written.push(...bytes);
      return Promise.resolve(bytes.length);
    },
    close: () => over.resolve(null),
  }, {
    limit: 1024,
    events: { ...DEAF, onFrame: (type) => void told.push(type) },
  });
  const take = (bytes: Uint8Array) =>
    new Uint8Array((bytes.buffer as ArrayBuffer).transfer())
      .subarray(bytes.byteOffset);
  transform(connection, { encode: take, decode: take });
  connection.start();
  say(connection, 2);
  await turns();
  assertEquals(told, [7, 8]);
  const frame = [0, 0, 0, 2, FrameType.PING, 1];
  assertEquals(written, [...frame, ...frame]);
  connection.end();
});
