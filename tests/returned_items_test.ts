import { assert, assertEquals, assertFalse, assertLess } from "@std/assert";
import process from "node:process";
import { ReturnedItems } from "../internal/returned_items.ts";
import { seeded } from "./_support/rng.ts";

/** An item that says itself what it is like. */
interface Like {
  id: number;
  like: number;
}

const itemsOf = () => new ReturnedItems<Like>(4, (item) => item.like);

Deno.test("ReturnedItems.take() has the lowest id first, of all likes", () => {
  const rng = seeded("returned items");
  const items = itemsOf();
  const ids = Array.from({ length: 200 }, (_, id) => id);
  for (const id of ids.toSorted(() => rng.float() - 0.5)) {
    items.add([{ id, like: rng.int(0, 3) }]);
  }
  const taken: number[] = [];
  for (let item = items.take(0); item !== null; item = items.take(0)) {
    taken.push(item.id);
  }
  assertEquals(taken, ids);
  assert(items.isEmpty);
});

Deno.test("ReturnedItems.take() passes over likes that are full", () => {
  const items = itemsOf();
  items.add([{ id: 1, like: 0 }, { id: 2, like: 3 }, { id: 3, like: 0 }]);
  assertEquals(items.take(1 << 0)?.id, 2);
  assertEquals(items.take(1 << 0), null);
  assertFalse(items.isEmpty);
  assertEquals(items.take(1 << 3)?.id, 1);
});

Deno.test("ReturnedItems.add() puts back what was taken", () => {
  const items = itemsOf();
  items.add([3, 1, 2].map((id) => ({ id, like: 1 })));
  const taken = [items.take(0)!, items.take(0)!];
  items.add(taken.reverse());
  assertEquals([...items].map(({ id }) => id), [3, 2, 1]);
});

Deno.test("ReturnedItems.tidy() drops some, once they may be half of all", () => {
  const items = itemsOf();
  items.add([1, 2, 3, 4].map((id) => ({ id, like: id % 2 })));
  items.tidy(1, ({ id }) => id > 2);
  assertEquals([...items].length, 4);
  items.tidy(1, ({ id }) => id > 2);
  assertEquals([items.take(0)?.id, items.take(0)?.id], [3, 4]);
  assert(items.isEmpty);
  items.add([{ id: 1, like: 0 }]);
  items.tidy(1, () => false);
  assert(items.isEmpty);
});

Deno.test("ReturnedItems.change() moves those that get other likes, and no others", () => {
  const rng = seeded("changed items");
  for (let round = 0; round < 50; round++) {
    const items = itemsOf();
    const all = Array.from({ length: 50 }, (_, id) => ({
      id,
      like: rng.int(0, 3),
    }));
    const here = all.filter(() => rng.float() < 0.7);
    items.add(here);
    const changed = all.filter(() => rng.float() < 0.4);
    // One may be blamed twice on the same process.
    items.change([...changed, ...changed.slice(0, 5)], () => {
      for (const item of changed) item.like = rng.int(0, 3);
    });
    for (let like = 0; like < 4; like++) {
      const others = 0b1111 & ~(1 << like);
      const taken: Like[] = [];
      for (let i = items.take(others); i !== null; i = items.take(others)) {
        taken.push(i);
      }
      assertEquals(taken, here.filter((item) => item.like === like));
    }
    assert(items.isEmpty);
  }
});

Deno.test("ReturnedItems.change() counts what was there twice", () => {
  const items = itemsOf();
  const all = Array.from({ length: 10 }, (_, id) => ({ id, like: 0 }));
  items.add(all.toReversed());
  items.tidy(1, () => false); // one is at a suspect that was heard again
  items.add([all[5]!]); // and is suspect again
  items.change([all[5]!], () => {
    all[5]!.like = 1;
  });
  for (const item of all) assertEquals(items.take(0), item);
  assert(items.isEmpty);
});

Deno.test("ReturnedItems puts what many workers return in order in n log n steps", () => {
  const items = itemsOf();
  const workers = 500, each = 100;
  let looks = 0;
  for (let worker = 0; worker < workers; worker++) {
    items.add(Array.from({ length: each }, (_, i) => ({
      get id() {
        looks++;
        return i * workers + worker;
      },
      like: 0,
    })));
    // As delivery looks whether there is room.
    items.add([items.take(0)!]);
  }
  assertLess(looks / (workers * each), 100);
  for (let id = 0; id < workers * each; id++) {
    assertEquals(items.take(0)?.id, id);
  }
  assert(items.isEmpty);
});

Deno.test("ReturnedItems.change() takes time in proportion to the items", () => {
  const items = itemsOf();
  const workers = 300, each = 700;
  const all = Array.from({ length: workers * each }, (_, id) => ({
    id,
    like: 0,
  }));
  items.add(all);
  // As they are remembered that one process has lost on many connections.
  const lost = all.toSorted((a, b) => a.id % workers - b.id % workers);
  const before = process.cpuUsage();
  items.change(lost, () => {
    for (const item of lost) item.like = 1;
  });
  // Far from tight: one by one, it takes many seconds.
  assertLess(process.cpuUsage(before).user, 2_000_000, "in µs");
  assertEquals(items.take(0)?.id, 0);
});
