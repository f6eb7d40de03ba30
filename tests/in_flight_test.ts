import { assert, assertEquals, assertFalse } from "@std/assert";
import { Entry, InFlight, type Way } from "../internal/in_flight.ts";
import { type Rng, seeded } from "./_support/rng.ts";

type Worker = { name: string };

const way: Way<Worker> = {
  kind: 0,
  hasPlace: () => true,
  dispatched() {},
  result() {},
  done() {},
  failed() {},
};

function entry(id: number, bytes = 1): Entry<Worker> {
  const entry = new Entry<Worker>(id, `item ${id}`, way, 0);
  entry.bytes = bytes;
  return entry;
}

function filled(count: number): InFlight<Worker> {
  const inFlight = new InFlight<Worker>();
  for (let i = 0; i < count; i++) inFlight.add(entry(i));
  return inFlight;
}

const ids = (entries: Iterable<Entry<Worker>>) => [...entries].map((e) => e.id);
const numbers = (inFlight: InFlight<Worker>) =>
  [...inFlight.entries()].map(([delivery]) => delivery);

Deno.test("InFlight numbers deliveries from 0 on", () => {
  const inFlight = new InFlight<Worker>();
  assertEquals(inFlight.next, 0);
  for (let i = 0; i < 100; i++) {
    inFlight.add(entry(i * 7));
    assertEquals(inFlight.next, i + 1);
    assertEquals(inFlight.take(i)?.id, i * 7);
  }
  assertEquals([inFlight.count, inFlight.bytes], [0, 0]);
});

Deno.test("InFlight.take() gives each once, and null for what isn't held", () => {
  const inFlight = filled(5);
  assertEquals(inFlight.take(3)?.id, 3);
  assertEquals(inFlight.take(3), null);
  for (const wrong of [5, 6, 1000, 2 ** 32 + 1, 2 ** 53]) {
    assertEquals(inFlight.take(wrong), null, String(wrong));
  }
  assertEquals([inFlight.count, inFlight.bytes], [4, 4]);
});

Deno.test("InFlight.takeUpTo() takes the oldest first", () => {
  const inFlight = filled(6);
  inFlight.take(1);
  const taken: number[] = [];
  for (;;) {
    const next = inFlight.takeUpTo(3);
    if (next === null) break;
    taken.push(next.id);
  }
  assertEquals(taken, [0, 2, 3]);
  assertEquals(numbers(inFlight), [4, 5]);
  assertEquals(inFlight.takeUpTo(3), null);
  assertEquals(inFlight.takeUpTo(Infinity)?.id, 4);
});

Deno.test("InFlight.oldest() gives the first in the order of delivery", () => {
  const inFlight = filled(10);
  for (const gone of [0, 2, 5]) inFlight.take(gone);
  assertEquals(ids(inFlight.oldest(3)), [1, 3, 4]);
  assertEquals(ids(inFlight.oldest(100)), [1, 3, 4, 6, 7, 8, 9]);
  assertEquals(inFlight.oldest(0), []);
  assertEquals(inFlight.oldest(-1), []);
});

Deno.test("InFlight holds a straggler while thousands of others pass", () => {
  const inFlight = new InFlight<Worker>();
  for (const id of [0, 1, 2]) inFlight.add(entry(id));
  inFlight.take(0);
  for (let i = 3; i < 10_000; i++) {
    inFlight.add(entry(i));
    assertEquals(inFlight.take(i)?.id, i);
    assertEquals(inFlight.count, 2);
  }
  assertEquals(ids(inFlight.oldest(2)), [1, 2]);
  inFlight.add(entry(10_000));
  assertEquals(numbers(inFlight), [1, 2, 10_000]);
  assertEquals(inFlight.take(2)?.id, 2);
  assertEquals(inFlight.take(2), null);
  assertEquals(inFlight.takeUpTo(10_000)?.id, 1);
  assertEquals(inFlight.takeUpTo(10_000)?.id, 10_000);
  assertEquals([inFlight.count, inFlight.bytes], [0, 0]);
});

Deno.test("InFlight.takeUpTo() takes stragglers before the ring", () => {
  const inFlight = filled(2);
  for (let i = 2; i < 100; i++) {
    inFlight.add(entry(i));
    if (i < 98) inFlight.take(i);
  }
  assertEquals(inFlight.takeUpTo(0)?.id, 0);
  assertEquals(inFlight.takeUpTo(0), null);
  assertEquals(inFlight.takeUpTo(98)?.id, 1);
  assertEquals(inFlight.takeUpTo(98)?.id, 98);
  assertEquals(inFlight.takeUpTo(98), null);
  assertEquals(numbers(inFlight), [99]);
});

/** Does random things to a ledger and to a Map, which must agree. */
function compare(rng: Rng, steps: number, mostHeld: number): void {
  const inFlight = new InFlight<Worker>();
  const model = new Map<number, Entry<Worker>>();
  let bytes = 0;
  const gone = (delivery: number) => {
    bytes -= model.get(delivery)!.bytes;
    model.delete(delivery);
  };
  for (let step = 0; step < steps; step++) {
    const held = [...model.keys()];
    const what = rng.float();
    if (what < 0.5 && held.length < mostHeld) {
      const added = entry(step, rng.int(0, 100));
      model.set(inFlight.next, added);
      bytes += added.bytes;
      inFlight.add(added);
    } else if (what < 0.85 && held.length > 0) {
      // Mostly near the ends: in order, or the newest, with stragglers left.
      const delivery = rng.pick([
        held[0]!,
        held.at(-1)!,
        held.at(-1)!,
        rng.pick(held),
      ]);
      assert(inFlight.take(delivery) === model.get(delivery), "take()");
      gone(delivery);
    } else if (what < 0.9) {
      const delivery = rng.int(0, inFlight.next + 2);
      const expected = model.get(delivery) ?? null;
      assert(inFlight.take(delivery) === expected, "take() of anything");
      if (expected !== null) gone(delivery);
    } else if (what < 0.93 && held.length > 0) {
      const upTo = rng.pick(held) + rng.int(-1, 1);
      for (;;) {
        const first = model.keys().next().value;
        const expected = first === undefined || first > upTo
          ? null
          : model.get(first)!;
        assert(inFlight.takeUpTo(upTo) === expected, "takeUpTo()");
        if (expected === null) break;
        gone(first!);
      }
    } else {
      assertEquals(numbers(inFlight), held);
      const some = rng.int(0, 5);
      assertEquals(
        ids(inFlight.oldest(some)),
        ids([...model.values()].slice(0, some)),
      );
    }
    assertEquals([inFlight.count, inFlight.bytes], [model.size, bytes]);
  }
  assertEquals([...inFlight.entries()], [...model]);
}

Deno.test("InFlight does what a Map would, at random", () => {
  const rng = seeded("ledger");
  for (const mostHeld of [1, 3, 8, 16, 17, 64, 1000]) {
    for (let round = 0; round < 10; round++) compare(rng, 2000, mostHeld);
  }
});

Deno.test("Entry knows its holders, in the order in which they got it", () => {
  const a = { name: "a" }, b = { name: "b" }, c = { name: "c" };
  const item = entry(1);
  assertFalse(item.isHeld);
  assertEquals(item.holders(), []);
  item.hold(a, 5);
  assert(item.isHeld && item.isAt(a));
  assertFalse(item.isAt(b));
  item.hold(b, 6);
  item.hold(c, 7);
  assertEquals(item.holders(), [a, b, c]);
  assert(item.isAt(b) && item.isAt(c));
  item.release(b);
  assertEquals(item.holders(), [a, c]);
  item.release(b); // it doesn't hold it any more: nothing happens
  assertEquals(item.holders(), [a, c]);
  item.release(a);
  assertEquals([item.holder, item.delivery], [c, 7]);
  item.release(c);
  assertFalse(item.isHeld);
  assertEquals(item.delivery, -1);
});
