import { assertEquals, assertLess } from "@std/assert";
import type { Delivery, Item, Worker } from "../internal/delivery.ts";
import { Entry } from "../internal/in_flight.ts";
import { Retries } from "../internal/retries.ts";
import { range } from "./_support/channel_kit.ts";
import { until } from "./_support/within.ts";

/** A delivery that keeps what comes back, and the retries at it. */
function retriesOf() {
  const requeued: number[][] = [];
  const retries = new Retries({
    retry: { attempts: 2, backoffMs: 1 },
    spans: null,
    onRetry: () => {},
    delivery: {
      hold: () => true,
      requeue: (entries: Item[]) => requeued.push(entries.map((e) => e.id)),
    } as unknown as Delivery,
  });
  const fail = (id: number) => {
    const entry: Item = new Entry(id, null, null as never, 0);
    retries.error(null as unknown as Worker, entry, new Error("again"));
  };
  return { retries, requeued, fail };
}

Deno.test("Retries: what is due together goes back together", async () => {
  const { retries, requeued, fail } = retriesOf();
  for (const id of range(1000)) fail(id);
  await until(() => requeued.flat().length === 1000, "all are back");
  assertEquals(requeued.flat().toSorted((a, b) => a - b), range(1000));
  assertLess(requeued.length, 100);
  retries.stop();
});

Deno.test("Retries.stop() leaves no timer, not even of what is due", async () => {
  const { retries, requeued, fail } = retriesOf();
  fail(0);
  await until(() => requeued.length === 1, "it is back");
  fail(1);
  retries.stop();
  assertEquals(requeued, [[0]]);
});
