import {
  assert,
  assertEquals,
  assertFalse,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
} from "@std/assert";
import {
  AdaptiveWindow,
  CreditGrant,
  CreditUse,
  MAX_WINDOW,
  shareOf,
  usefulShareOf,
} from "../internal/credit.ts";
import { seeded } from "./_support/rng.ts";

/**
 * A worker whose items take so long, kept as full as its window allows; what it
 * settled is told once a batch. Returns the window after every batch.
 */
function simulate(
  window: AdaptiveWindow,
  { itemMs, batchMs, batches, from = 0, concurrency = 1 }: {
    itemMs: number;
    batchMs: number;
    batches: number;
    from?: number;
    concurrency?: number;
  },
): number[] {
  const sizes: number[] = [];
  let held = window.size, owed = 0;
  window.busy(from);
  for (let i = 1; i <= batches; i++) {
    owed += batchMs * concurrency / itemMs;
    const count = Math.min(held, Math.floor(owed));
    // Nothing is saved up by a worker that ran dry.
    owed = Math.min(owed - count, 1);
    held -= count;
    if (count > 0) window.settled(count, held, from + i * batchMs);
    held = Math.max(held, window.size);
    sizes.push(window.size);
  }
  return sizes;
}

Deno.test("AdaptiveWindow starts at one more than the concurrency", () => {
  assertEquals(new AdaptiveWindow(1, 4096).size, 2);
  assertEquals(new AdaptiveWindow(16, 4096).size, 17);
  assertEquals(new AdaptiveWindow(16, 8).size, 8);
  assertEquals(new AdaptiveWindow(4096, 1_000_000).size, MAX_WINDOW);
});

Deno.test("AdaptiveWindow adapts though items went out before a settlement was told", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  let now = 10_000;
  window.busy(now);
  for (let i = 0; i < 5; i++) {
    // A result is being checked; who awaits it submits the next one then.
    now += 2;
    window.busy(now);
    window.settled(1, 1, now);
  }
  for (let i = 0; i < 20; i++) {
    now += 1;
    window.settled(window.size, 0, now);
    window.busy(now);
  }
  assertEquals(window.size, MAX_WINDOW);
});

Deno.test("AdaptiveWindow flies to 4096 with tiny items", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  const sizes = simulate(window, { itemMs: 0.0001, batchMs: 1, batches: 15 });
  assertEquals(sizes.at(-1), 4096);
  for (const [i, size] of sizes.entries()) {
    assertLessOrEqual(size, (sizes[i - 1] ?? 2) * 2, "it at most doubles");
  }
});

Deno.test("AdaptiveWindow keeps to the worker's own limit", () => {
  const window = new AdaptiveWindow(1, 100);
  const sizes = simulate(window, { itemMs: 0.001, batchMs: 1, batches: 20 });
  assertEquals(Math.max(...sizes), 100);
});

Deno.test("AdaptiveWindow queues no more than the worker needs, and 20 ms at most", () => {
  // What is enough until the next batch is told of, at most twice as much.
  for (
    const [itemMs, batchMs, least, most] of [
      [0.01, 2, 200, 400],
      [0.1, 8, 80, 160],
      [1, 5, 5, 10],
      [5, 5, 2, 5],
      [1000, 1000, 2, 2],
    ] as const
  ) {
    const window = new AdaptiveWindow(1, MAX_WINDOW);
    const sizes = simulate(window, { itemMs, batchMs, batches: 50 });
    assertGreaterOrEqual(sizes.at(-1)!, least, `items of ${itemMs} ms`);
    assertLessOrEqual(Math.max(...sizes.slice(20)), most);
    assertLessOrEqual(sizes.at(-1)!, Math.max(2, 1 + 20 / itemMs));
  }
});

Deno.test("AdaptiveWindow shrinks at once when items are slow", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  simulate(window, { itemMs: 0.0001, batchMs: 1, batches: 20 });
  assertEquals(window.size, 4096);
  // One item that takes a second: the first thing that is heard of it.
  window.settled(1, 4000, 1020);
  assertEquals(window.size, 2);
});

Deno.test("usefulShareOf() is all of a share for few workers, or a far one", () => {
  for (const workers of [1, 2, 3, 4]) {
    assertEquals(usefulShareOf(workers, 0.1), shareOf(workers));
  }
  for (const workers of [1, 8, 64, 1000]) {
    assertEquals(usefulShareOf(workers, 60), shareOf(workers));
  }
});

Deno.test("usefulShareOf() is less for one of many that are near, and grows with the way", () => {
  assertEquals(usefulShareOf(8, 1), 384);
  assertEquals(usefulShareOf(64, 1), 224);
  let before = 0;
  for (let rttMs = 0; rttMs < 100; rttMs++) {
    const share = usefulShareOf(64, rttMs);
    assertGreaterOrEqual(share, before);
    assertLessOrEqual(share, shareOf(64));
    before = share;
  }
});

Deno.test("AdaptiveWindow never leaves a worker without its concurrency and one", () => {
  const window = new AdaptiveWindow(8, MAX_WINDOW);
  window.busy(0);
  window.settled(1, 8, 60_000);
  assertEquals(window.size, 9);
});

Deno.test("AdaptiveWindow doesn't grow while the worker has enough", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  window.busy(0);
  for (let now = 2; now < 100; now += 2) window.settled(1000, 2, now);
  assertEquals(window.size, 2);
  window.settled(1000, 0, 100); // it ran dry
  assertEquals(window.size, 4);
});

Deno.test("AdaptiveWindow remembers a dry moment until it measures", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  window.busy(0);
  window.settled(5, 0, 0.2);
  assertEquals(window.size, 2, "too soon to measure");
  window.settled(5, 3, 1.2);
  assertEquals(window.size, 4);
});

Deno.test("AdaptiveWindow doesn't count the time in which there was no work", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  simulate(window, { itemMs: 0.01, batchMs: 5, batches: 20 });
  const { size } = window;
  assertGreater(size, 100);
  window.busy(60_000); // after a minute without items
  window.settled(size - 2, 2, 60_005);
  assertEquals(window.size, size);
});

Deno.test("AdaptiveWindow of a worker that is given one item at a time stays small", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  for (let now = 2; now < 100; now += 2) {
    window.busy(now);
    window.settled(1, 0, now + 2);
    assertLessOrEqual(window.size, 1 + 20 / 2);
  }
});

Deno.test("AdaptiveWindow grows when all it may hold comes back at once, however late", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  window.rttMs = 0.1; // as it was before the machine was busy
  let now = 0;
  for (let i = 0; i < 12; i++) {
    window.busy(now);
    now += 200;
    window.settled(window.size, 0, now);
  }
  assertEquals(window.size, MAX_WINDOW);
  // A slow worker that has another item left isn't starved.
  const slow = new AdaptiveWindow(1, MAX_WINDOW);
  for (let i = 1; i < 12; i++) slow.settled(1, 1, i * 200);
  assertEquals(slow.size, 2);
});

Deno.test("AdaptiveWindow queues one item of a second, however late it hears of them", () => {
  for (const concurrency of [1, 4]) {
    const window = new AdaptiveWindow(concurrency, MAX_WINDOW);
    window.busy(0);
    // This end stood still: all that the worker held came back meanwhile.
    for (let now = 5000; now < 50_000; now += 5000) {
      window.settled(concurrency + 1, 0, now);
      window.busy(now);
      assertEquals(window.size, concurrency + 1);
    }
  }
});

Deno.test("AdaptiveWindow queues more for a far worker", () => {
  const near = new AdaptiveWindow(1, MAX_WINDOW);
  simulate(near, { itemMs: 0.5, batchMs: 2, batches: 100 });
  assertLess(near.size, 20);
  const far = new AdaptiveWindow(1, MAX_WINDOW);
  far.rttMs = 100;
  simulate(far, { itemMs: 0.5, batchMs: 100, batches: 100 });
  // Enough to work on until what it settled has come and new items have gone.
  assertGreaterOrEqual(far.size, 200);
  assertLess(far.size, 500);
});

Deno.test("AdaptiveWindow.measured() keeps the shortest round trip", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  const kept = [30, 200, 10, 20].map((rttMs) => {
    window.measured(rttMs);
    return window.rttMs;
  });
  assertEquals(kept, [30, 30, 10, 10]);
});

Deno.test("AdaptiveWindow.sampled() doubts the way where the rate falls to less than half", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  window.measured(10);
  for (const rate of [1000, 0, 500, 1000]) assertFalse(window.sampled(rate));
  assert(window.sampled(400));
  // The first of them waited behind what was sent before.
  const kept = [900, 18, 500].map((rttMs) => {
    window.measured(rttMs);
    assert(window.sampled(400));
    return window.rttMs;
  });
  assertEquals(kept, [10, 10, 10]);
  window.measured(400);
  assertEquals(window.rttMs, 18);
  assertFalse(window.sampled(400));
});

Deno.test("AdaptiveWindow.sampled() begins anew where the rate falls by half again", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  window.measured(10);
  window.sampled(1000);
  window.sampled(400);
  window.measured(10); // the way was the same until now
  window.sampled(100);
  for (let i = 0; i < 4; i++) window.measured(15);
  assertEquals(window.rttMs, 15);
  // A rate that only swings doesn't begin it.
  window.sampled(40);
  for (const rate of [100, 40, 100, 40]) {
    window.sampled(rate);
    window.measured(18);
  }
  assertEquals(window.rttMs, 18);
});

Deno.test("AdaptiveWindow measures a way that became long until it doesn't become longer", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  window.measured(10);
  window.sampled(1000);
  window.sampled(10);
  for (const rttMs of [50, 120, 130]) {
    for (let i = 0; i < 4; i++) window.measured(rttMs);
    assertEquals(window.rttMs, rttMs);
  }
  for (let i = 0; i < 4; i++) window.measured(300); // others have waited
  assertEquals(window.rttMs, 130);
});

/**
 * A worker to whom the way changes after 5 s, within `overMs`. `isNarrow`: it is
 * the way that takes `itemMs` an item, so PINGs wait behind the items. Returns how
 * many items it settled from one time to another, in ms.
 */
function moved(
  window: AdaptiveWindow,
  { before, after, overMs = 1, isNarrow, from, to }: {
    before: { rttMs: number; itemMs: number };
    after: { rttMs: number; itemMs: number };
    overMs?: number;
    isNarrow: boolean;
    from: number;
    to: number;
  },
): number {
  const due: number[] = [];
  let last = 0, sampled = 0, settled = 0;
  window.measured(before.rttMs);
  for (let now = 1; now < to; now++) {
    const { itemMs } = now < 5000 ? before : after;
    const changed = now < 5000 ? 0 : Math.min(1, (now - 5000) / overMs);
    const rttMs = before.rttMs + (after.rttMs - before.rttMs) * changed;
    let count = 0;
    for (; due.length > 0 && due[0]! <= now; count++) due.shift();
    if (count > 0) window.settled(count, due.length, now);
    sampled += count;
    if (now >= from) settled += count;
    if (now % 1000 === 0) {
      const isDue = window.sampled(sampled);
      if (isDue) {
        window.measured(isNarrow ? Math.max(rttMs, last - now) : rttMs);
      }
      sampled = 0;
    }
    while (due.length < window.size) {
      if (due.length === 0) window.busy(now);
      last = Math.max(now + rttMs, last + itemMs);
      due.push(last);
    }
  }
  return settled;
}

Deno.test("AdaptiveWindow keeps a worker busy that becomes far", () => {
  const itemMs = 5, rttMs = 300, from = 20_000, to = 30_000;
  for (const nearMs of [1, 30]) {
    const window = new AdaptiveWindow(1, MAX_WINDOW);
    const before = { rttMs: nearMs, itemMs };
    const after = { rttMs, itemMs };
    const way = { before, after, isNarrow: false, from, to };
    const settled = moved(window, way);
    assertGreater(settled, 0.9 * (to - from) / itemMs, `${nearMs} ms before`);
    assertLess(window.size, 1 + (20 + 4 * rttMs) / itemMs);
  }
});

Deno.test("AdaptiveWindow keeps a worker busy that becomes far bit by bit", () => {
  const itemMs = 1, from = 40_000, to = 50_000;
  for (const rttMs of [60, 150, 300]) {
    for (let overMs = 500; overMs <= 10_000; overMs += 500) {
      const window = new AdaptiveWindow(1, MAX_WINDOW);
      const before = { rttMs: 1, itemMs };
      const after = { rttMs, itemMs };
      const way = { before, after, overMs, isNarrow: false, from, to };
      const settled = moved(window, way);
      const least = 0.4 * (to - from) / itemMs;
      assertGreater(settled, least, `${rttMs} ms, within ${overMs}`);
    }
  }
});

Deno.test("AdaptiveWindow queues few slow items where PINGs wait for their handler", () => {
  for (const itemMs of [50, 100, 300, 1000]) {
    const window = new AdaptiveWindow(1, MAX_WINDOW);
    window.measured(2);
    simulate(window, { itemMs: 2, batchMs: 2, batches: 50 });
    window.sampled(500);
    for (let i = 0; i < 4; i++) {
      window.sampled(1000 / itemMs);
      window.measured(0.75 * itemMs);
    }
    const from = 100, batches = 50;
    const sizes = simulate(window, { itemMs, batchMs: itemMs, batches, from });
    assertLessOrEqual(Math.max(...sizes.slice(10)), 3, `${itemMs} ms`);
  }
});

Deno.test("AdaptiveWindow doesn't take few slow items among quick ones for a long way", () => {
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  window.measured(0.4);
  simulate(window, { itemMs: 2, batchMs: 2, batches: 50 });
  const { size } = window;
  window.sampled(500);
  let now = 100;
  for (let i = 0; i < 4; i++) {
    window.sampled(20);
    for (let quick = 0; quick < 3 * size; quick++) {
      window.settled(1, size - 1, now += 2);
    }
    window.settled(1, size - 1, now += 2000);
    window.measured(1500); // the PING came while it ran
  }
  assertLessOrEqual(window.rttMs, 2 * size);
  for (let quick = 0; quick < 3 * size; quick++) {
    window.settled(1, size - 1, now += 2);
    assertLessOrEqual(window.size, 1 + (20 + 2 * size) / 2);
  }
});

Deno.test("AdaptiveWindow hardly takes a way that becomes narrow for a longer one", () => {
  const rttMs = 50, from = 20_000, to = 60_000;
  const before = { rttMs, itemMs: 2 }, after = { rttMs, itemMs: 40 };
  const window = new AdaptiveWindow(1, MAX_WINDOW);
  const settled = moved(window, { before, after, isNarrow: true, from, to });
  assertGreater(settled, 0.9 * (to - from) / after.itemMs);
  assertLess(window.rttMs, 2 * rttMs);
});

/**
 * A worker that is `rttMs` away and settles an item in `itemMs`. Of a third of
 * the items a segment is lost: they, and what is behind them, come a round trip
 * later. Returns how many items it settled from one time to another, in ms.
 */
function lossy(
  window: AdaptiveWindow,
  { rttMs, itemMs, from, to }: {
    rttMs: number;
    itemMs: number;
    from: number;
    to: number;
  },
): number {
  const rng = seeded("loss");
  const due: number[] = [];
  let last = 0, settled = 0;
  window.rttMs = rttMs;
  for (let now = 1; now < to; now++) {
    let count = 0;
    for (; due.length > 0 && due[0]! <= now; count++) due.shift();
    if (count > 0) window.settled(count, due.length, now);
    if (now >= from) settled += count;
    while (due.length < window.size) {
      if (due.length === 0) window.busy(now);
      const wayMs = rng.chance(1 / 3) ? rttMs * 2 : rttMs;
      last = Math.max(now + wayMs, last + itemMs);
      due.push(last);
    }
  }
  return settled;
}

Deno.test("AdaptiveWindow keeps a far worker busy though segments are lost", () => {
  for (const rttMs of [30, 150]) {
    const itemMs = 2;
    const window = new AdaptiveWindow(1, MAX_WINDOW);
    const from = 5000, to = 15_000;
    const settled = lossy(window, { rttMs, itemMs, from, to });
    assertGreater(settled, 0.8 * (to - from) / itemMs, `${rttMs} ms away`);
    // It doesn't hold much more than what is on the way.
    assertLess(window.size, 1 + (20 + 4 * rttMs) / itemMs);
  }
});

Deno.test("AdaptiveWindow queues no more for a near worker whose machine is busy", () => {
  const rttMs = 18, itemMs = 2;
  for (let to = 2000; to < 10_000; to += 500) {
    const window = new AdaptiveWindow(1, MAX_WINDOW);
    lossy(window, { rttMs, itemMs, from: 0, to });
    assertLessOrEqual(window.size, 1 + (20 + rttMs) / itemMs);
  }
});

Deno.test("CreditUse is closed until the first credit", () => {
  const use = new CreditUse();
  assertFalse(use.open);
  use.grant(1, 100);
  assert(use.open);
});

Deno.test("CreditUse closes after so many values, or so many bytes", () => {
  const byValues = new CreditUse();
  byValues.grant(2, 1000);
  byValues.sent(1);
  assert(byValues.open);
  byValues.sent(1);
  assertFalse(byValues.open);
  const byBytes = new CreditUse();
  byBytes.grant(100, 1000);
  byBytes.sent(999);
  assert(byBytes.open);
  byBytes.sent(5_000_000); // the value that crosses is allowed, whatever its size
  assertFalse(byBytes.open);
  byBytes.grant(200, 2000); // a total, not an increment
  assertFalse(byBytes.open);
});

Deno.test("CreditUse.grant() never takes credit back", () => {
  const use = new CreditUse();
  use.grant(10, 100);
  use.grant(5, 50);
  use.grant(0, 0);
  for (let i = 0; i < 9; i++) use.sent(1);
  assert(use.open);
});

Deno.test("CreditGrant is due when half a window was read", () => {
  const grant = new CreditGrant(10, 1000);
  assert(grant.due);
  grant.renew();
  assertEquals([grant.values, grant.bytes], [10, 1000]);
  for (let i = 0; i < 4; i++) grant.take(1);
  assertFalse(grant.due);
  grant.take(1);
  assert(grant.due);
  grant.renew();
  assertEquals([grant.values, grant.bytes], [15, 1005]);
  grant.take(499);
  assertFalse(grant.due);
  grant.take(1);
  assert(grant.due);
});

Deno.test("CreditGrant and CreditUse never get stuck, and never pass the window", () => {
  const rng = seeded("credit");
  for (let round = 0; round < 50; round++) {
    const values = rng.int(1, 50), bytes = rng.int(1, 5000);
    const grant = new CreditGrant(values, bytes), use = new CreditUse();
    const wire: [number, number][] = [];
    const renew = () => {
      grant.renew();
      wire.push([grant.values, grant.bytes]);
    };
    renew();
    const unread: number[] = [];
    let sent = 0, unreadBytes = 0;
    for (let step = 0; sent < 1000; step++) {
      assertLess(step, 100_000, "it is stuck");
      const what = rng.int(0, 2);
      if (what === 0 && wire.length > 0) {
        const credit = wire.shift()!;
        use.grant(...credit);
        if (rng.chance(0.1)) wire.push(credit); // late, and twice
      } else if (what === 1 && use.open) {
        const size = rng.int(0, 2000);
        use.sent(size);
        assertLess(unreadBytes, bytes, "it was started within the window");
        unread.push(size);
        unreadBytes += size;
        sent++;
        assertLessOrEqual(unread.length, values);
      } else if (what === 2 && unread.length > 0) {
        const size = unread.shift()!;
        unreadBytes -= size;
        grant.take(size);
        if (grant.due) renew();
      }
    }
  }
});
