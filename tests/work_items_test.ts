/**
 * Items that wait for a runner: in order, and found again when they are cancelled.
 */
import { assertEquals } from "@std/assert";
import { ItemKind } from "../internal/frame.ts";
import { WaitingItems } from "../internal/work_items.ts";
import { seeded } from "./_support/rng.ts";

Deno.test("WaitingItems does what a list would, whatever is cancelled in between", () => {
  const rng = seeded("work items");
  const items = new WaitingItems(), list: number[] = [];
  for (let step = 0, next = 0; step < 5000; step++) {
    const what = rng.int(0, 9);
    if (what < 5) {
      list.push(next);
      const attempt = 1, kind = ItemKind.CALL, value = next;
      items.push({ delivery: next, id: next, attempt, kind, value });
      next += rng.int(1, 3);
    } else if (what < 7 && list.length > 0) {
      const { delivery, value } = items.shift();
      assertEquals([delivery, value], [list[0], list.shift()]);
    } else if (what < 9) {
      // One that waits, one that never was here, or one that is gone.
      const delivery = rng.int(Math.max(0, next - 20), next);
      const i = list.indexOf(delivery);
      assertEquals(items.cancel(delivery)?.value, list[i]);
      if (i >= 0) list.splice(i, 1);
    } else if (rng.chance(0.05)) {
      const all = items.takeAll().map(({ delivery }) => delivery);
      assertEquals(all, list.splice(0));
    }
    assertEquals(items.length, list.length);
  }
});

Deno.test("WaitingItems.cancel() finds an item once", () => {
  const items = new WaitingItems();
  for (let delivery = 0; delivery < 10; delivery++) {
    items.push({ delivery, id: delivery, attempt: 1, kind: 0, value: "x" });
  }
  assertEquals(items.cancel(7)?.delivery, 7);
  assertEquals(items.cancel(7), null);
  assertEquals(items.length, 9);
});
