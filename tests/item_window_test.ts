import { assert, assertEquals, assertFalse } from "@std/assert";
import { placesFor, shareOf } from "../internal/credit.ts";
import { ItemWindow } from "../internal/item_window.ts";

/** A window that a worker has set to so many. */
function fixed(limit: number, maxBytes = Infinity): ItemWindow {
  const window = new ItemWindow(maxBytes);
  window.grant({ concurrency: 1, limit, isAdaptive: false }, 1);
  return window;
}

/** Sends items while there is room. Returns how many the worker holds then. */
function fill(window: ItemWindow, held = 0): number {
  while (window.hasRoom(held)) window.sent(++held);
  return held;
}

Deno.test("ItemWindow.grant() gives what was asked for, as far as there are places", () => {
  const window = new ItemWindow(Infinity);
  const sizes = [[10, 1], [1_000_000, 1], [10, 100], [1_000_000, 100]].map(
    ([limit = 0, workers = 0]) => {
      window.grant({ concurrency: 1, limit, isAdaptive: false }, workers);
      return window.size;
    },
  );
  assertEquals(sizes, [10, placesFor(1), 10, shareOf(100)]);
  // More than a share: a worker has as many as it executes, and one.
  window.grant({ concurrency: 5000, limit: 9000, isAdaptive: false }, 100);
  assertEquals(window.size, 5001);
});

Deno.test("ItemWindow is sated by all that it may hold, and refilled after a batch", () => {
  const window = fixed(3);
  assertFalse(window.isSated);
  assertEquals(fill(window), 3);
  assert(window.isSated);
  window.settled(1);
  assertFalse(window.hasRoom(2), "the batch isn't at its end");
  window.endBatch(2, 0, 1);
  assert(window.hasRoom(2));
  assertFalse(window.hasRoom(3));
});

Deno.test("ItemWindow has room for one item whatever it is, if none is there", () => {
  const window = new ItemWindow(Infinity);
  assert(window.hasRoom(0), "before the first credit");
  assertFalse(window.hasRoom(1));
  const sated = fixed(3);
  fill(sated);
  sated.settled(3);
  assert(sated.hasRoom(0), "all of it was settled in a batch");
  sated.sent(1);
  assertFalse(sated.hasRoom(1), "there is more when the batch is at its end");
  sated.endBatch(1, 0, 1);
  assert(sated.hasRoom(1));
});

Deno.test("ItemWindow is full when the next item's bytes don't fit, until one is settled", () => {
  const window = fixed(10, 100);
  window.sent(1);
  assert(window.fits(100));
  assert(window.hasRoom(1));
  window.sent(2);
  assertFalse(window.fits(101));
  assertFalse(window.hasRoom(2));
  assertFalse(window.isSated, "it isn't how many they are");
  window.endBatch(2, 0, 1);
  assertFalse(window.hasRoom(2), "nothing was settled");
  window.settled(1);
  assert(window.hasRoom(1), "in the same batch");
});

Deno.test("ItemWindow.endBatch() takes what others leave when workers come and go", () => {
  const window = fixed(1_000_000);
  for (const workers of [1, 64, 2]) {
    window.endBatch(0, 0, workers);
    assertEquals(window.size, placesFor(1), "nothing was settled");
  }
  window.settled(1);
  window.endBatch(4095, 0, 64);
  assertEquals(window.size, shareOf(64));
  window.settled(1);
  window.endBatch(0, 0, 1);
  assertEquals(window.size, placesFor(1));
});

Deno.test("ItemWindow.grant() anew counts at once, also for one that is sated", () => {
  const window = fixed(2);
  assertEquals(fill(window), 2);
  window.grant({ concurrency: 1, limit: 5, isAdaptive: false }, 1);
  assertEquals(fill(window, 2), 5);
  window.grant({ concurrency: 1, limit: 3, isAdaptive: false }, 1);
  assertFalse(window.hasRoom(5));
  assertFalse(window.hasRoom(3));
  assert(window.hasRoom(2));
});

Deno.test("ItemWindow grows, if it is to adapt, and refills long queues by halves", () => {
  const window = new ItemWindow(Infinity);
  window.grant({ concurrency: 1, limit: 4096, isAdaptive: true }, 1);
  assertEquals(window.size, 2);
  // All that it may hold is done 1 ms later, and more of it each time.
  let now = 1;
  window.adaptive!.busy(now);
  for (let round = 0; round < 8; round++) {
    const held = fill(window);
    assertEquals(held, window.size);
    window.settled(held);
    window.endBatch(0, ++now, 1);
    window.adaptive!.busy(now);
  }
  const { size } = window, { refillAt } = window.adaptive!;
  assertEquals(size, 512);
  assert(refillAt < size - 64, String(refillAt));
  fill(window);
  for (let held = size - 1; held >= refillAt; held--) {
    assertFalse(window.hasRoom(held));
    window.settled(1);
    window.endBatch(held, now, 1);
  }
  assert(window.hasRoom(refillAt));
});

Deno.test("ItemWindow adapts within the worker's limit, and what many workers leave", () => {
  const sizes = [[100, 1], [4096, 64]].map(([limit = 0, workers = 0]) => {
    const window = new ItemWindow(Infinity);
    window.grant({ concurrency: 1, limit, isAdaptive: true }, workers);
    for (let now = 1; now < 20; now++) {
      window.adaptive!.busy(now);
      window.settled(fill(window));
      window.endBatch(0, now + 1, workers);
    }
    return window.size;
  });
  assertEquals(sizes, [100, 224]);
});

Deno.test("ItemWindow.endBatch() tells once what was settled in a batch", () => {
  const window = new ItemWindow(Infinity);
  window.grant({ concurrency: 1, limit: 4096, isAdaptive: true }, 1);
  const told: number[] = [];
  window.adaptive!.settled = (count) => void told.push(count);
  for (const counts of [[1, 1, 1], [7], [], [0], [2, 3]]) {
    for (const count of counts) window.settled(count);
    window.endBatch(9, 0, 1);
  }
  assertEquals(told, [3, 7, 5]);
});

Deno.test("ItemWindow.measured() counts at once, and for the next credit too", () => {
  const window = new ItemWindow(Infinity);
  assertEquals(window.rttMs, undefined);
  window.measured(80); // mostly before the first credit
  for (const rttMs of [80, 50, 60]) {
    window.measured(rttMs);
    window.grant({ concurrency: 1, limit: 64, isAdaptive: true }, 1);
    assertEquals(window.adaptive!.rttMs, rttMs, "it begins anew");
  }
  window.measured(90);
  assertEquals([window.rttMs, window.adaptive!.rttMs], [90, 60]);
  window.measured(40);
  assertEquals([window.rttMs, window.adaptive!.rttMs], [40, 40]);
});
