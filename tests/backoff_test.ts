import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import { Backoff } from "../internal/backoff.ts";
import { seeded } from "./_support/rng.ts";

Deno.test("Backoff.next() doubles its bound up to the longest", () => {
  const backoff = new Backoff(100, 10_000, () => 1);
  const delays = Array.from({ length: 10 }, () => backoff.next());
  assertEquals(
    delays,
    [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000],
  );
  assertEquals(backoff.attempts, 10);
});

Deno.test("Backoff.next() stays within its bound after any number of attempts", () => {
  const backoff = new Backoff(100, 10_000, () => 1);
  for (let i = 0; i < 3000; i++) assertLessOrEqual(backoff.next(), 10_000);
});

Deno.test("Backoff.next() is spread over the whole of its bound", () => {
  const rng = seeded("backoff");
  const backoff = new Backoff(1000, 1000, () => rng.float());
  const delays = Array.from({ length: 1000 }, () => backoff.next());
  assert(Math.min(...delays) < 50 && Math.max(...delays) > 950);
});

Deno.test("Backoff.reset() begins again", () => {
  const backoff = new Backoff(10, 1000, () => 1);
  for (let i = 0; i < 5; i++) backoff.next();
  backoff.reset();
  assertEquals([backoff.attempts, backoff.next()], [0, 10]);
});

Deno.test("Backoff with a shortest delay above the longest keeps the shortest", () => {
  const backoff = new Backoff(500, 100, () => 1);
  assertEquals([backoff.next(), backoff.next()], [500, 500]);
});
