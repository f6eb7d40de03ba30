import { assertEquals } from "@std/assert";
import {
  ArrivalWindow,
  EMPTY,
  ReorderWindow,
} from "../internal/reorder_window.ts";
import { seeded } from "./_support/rng.ts";

Deno.test("ReorderWindow yields results in the order of their items", () => {
  const window = new ReorderWindow();
  assertEquals(window.take(), EMPTY);
  window.put(2, "c", 30);
  window.put(1, "b", 20);
  assertEquals(window.take(), EMPTY);
  window.put(0, "a", 10);
  assertEquals(window.bytes, 60);
  assertEquals([window.take(), window.take()], ["a", "b"]);
  assertEquals(window.bytes, 30);
  assertEquals([window.take(), window.take()], ["c", EMPTY]);
  assertEquals(window.bytes, 0);
});

Deno.test("ReorderWindow and ArrivalWindow take undefined, which is a result too", () => {
  for (const window of [new ReorderWindow(), new ArrivalWindow()]) {
    window.put(0, undefined, 1);
    assertEquals([window.take(), window.take()], [undefined, EMPTY]);
  }
});

Deno.test("ArrivalWindow yields results as they came", () => {
  const window = new ArrivalWindow();
  window.put(2, "c", 30);
  window.put(0, "a", 10);
  assertEquals(window.bytes, 40);
  assertEquals([window.take(), window.bytes], ["c", 10]);
  assertEquals([window.take(), window.take()], ["a", EMPTY]);
  assertEquals(window.bytes, 0);
});

Deno.test("ReorderWindow and ArrivalWindow drop what waits", () => {
  for (const window of [new ReorderWindow(), new ArrivalWindow()]) {
    for (let i = 40; i >= 0; i--) window.put(i, i, 1);
    window.clear();
    assertEquals([window.bytes, window.take()], [0, EMPTY]);
  }
});

Deno.test("ReorderWindow loses and confuses nothing, however far the results are apart", () => {
  const rng = seeded("ReorderWindow");
  const window = new ReorderWindow();
  /** Results that aren't put yet, and their sizes, by index. */
  const open = new Map<number, number>();
  const sizes: number[] = [];
  let next = 0, bytes = 0;
  for (let step = 0; step < 20_000; step++) {
    if (rng.chance(0.02)) {
      for (let i = rng.int(1, 200); i > 0; i--) {
        open.set(sizes.length, sizes.push(rng.int(0, 9)));
      }
    }
    const [index] = [...open.keys()].slice(rng.int(0, open.size), -1);
    if (index !== undefined && rng.chance(0.7)) {
      open.delete(index);
      window.put(index, index, sizes[index]!);
      bytes += sizes[index]!;
    } else {
      const isHere = next < sizes.length && !open.has(next);
      assertEquals(window.take(), isHere ? next : EMPTY);
      if (isHere) bytes -= sizes[next++]!;
    }
    assertEquals(window.bytes, bytes);
  }
});
