/**
 * The adaptive window and dispatch in simulated time: tiny items fly, heavy
 * items balance. Nothing here depends on the machine's speed.
 */
import { assert, assertEquals } from "@std/assert";
import { ByKey } from "../internal/dispatcher.ts";
import type { Worker } from "../internal/delivery.ts";
import { range } from "./_support/channel_kit.ts";
import { seeded } from "./_support/rng.ts";
import { Sim, type SimWorker } from "./_support/sim.ts";

/** The time that n items take at best with workers of these speeds, in ms. */
function idealMs(count: number, takes: readonly number[]): number {
  let low = 0, high = count * Math.min(...takes);
  while (high - low > 0.01) {
    const mid = (low + high) / 2;
    const done = takes.reduce((sum, t) => sum + Math.floor(mid / t), 0);
    if (done >= count) high = mid;
    else low = mid;
  }
  return high;
}

for (const latencyMs of [0, 0.2, 5]) {
  Deno.test(`Two workers, one ten times slower, 400 items of 10 ms: within 15 % of the ideal, ${latencyMs} ms away`, () => {
    const sim = new Sim();
    sim.worker({ takes: () => 10, latencyMs });
    sim.worker({ takes: () => 100, latencyMs });
    for (const n of range(400)) sim.offer(n);
    const start = sim.clock.now;
    sim.clock.run();
    assertEquals(sim.results.length, 400);
    const ideal = idealMs(400, [10, 100]), took = sim.endedAt - start;
    assert(took <= ideal * 1.15, `${took} ms, ideal is ${ideal} ms`);
  });

  Deno.test(`Items of 1 s: nobody holds an unbegun one while another idles for longer than one item, ${latencyMs} ms away`, () => {
    const sim = new Sim();
    const workers = range(4).map(() =>
      sim.worker({ takes: () => 1000, latencyMs })
    );
    let worst = 0;
    sim.onStep = () => {
      const holds = workers.some((w) => w.unbegun > 0);
      for (const worker of workers) {
        if (!holds || worker.idleSince === 0) continue;
        worst = Math.max(worst, sim.clock.now - worker.idleSince);
      }
    };
    for (const n of range(50)) sim.offer(n);
    sim.clock.run();
    assertEquals(sim.results.length, 50);
    assert(worst <= 1000 + 4 * latencyMs, `one idled for ${worst} ms`);
    const ideal = idealMs(50, [1000, 1000, 1000, 1000]);
    assert(sim.endedAt <= ideal * 1.15, `${sim.endedAt} ms of ${ideal}`);
  });

  Deno.test(`Items of 0.05 ms fly: the window grows until nobody idles, ${latencyMs} ms away`, () => {
    const sim = new Sim();
    const workers = range(2).map(() =>
      sim.worker({ takes: () => 0.05, latencyMs })
    );
    for (const n of range(20_000)) sim.offer(n);
    sim.clock.run();
    for (const worker of workers) {
      const busy = worker.executed.length * 0.05;
      assert(worker.idleMs < busy * 0.25, `idle for ${worker.idleMs} ms`);
    }
  });
}

Deno.test("When items turn slow the window shrinks at once", () => {
  const sim = new Sim();
  const worker = sim.worker({
    takes: (n) => (n as number) < 4000 ? 0.05 : 50,
    latencyMs: 2,
  });
  for (const n of range(4030)) sim.offer(n);
  let atTurn = 0;
  sim.onStep = () => {
    if (worker.executed.length === 4000) atTurn = worker.window.size;
  };
  const sizes: number[] = [];
  while (worker.executed.length < 4003) sim.clock.run(sim.clock.now + 1);
  sizes.push(worker.window.size);
  assert(atTurn > 60, `${atTurn}`);
  assert(sizes[0]! <= 3, `${sizes[0]} after three slow items`);
});

Deno.test("Concurrency: as many run as may, and one more waits", () => {
  const sim = new Sim();
  const worker = sim.worker({ takes: () => 100, concurrency: 8 });
  let most = 0;
  sim.onStep = () => most = Math.max(most, worker.inFlight.count);
  for (const n of range(80)) sim.offer(n);
  sim.clock.run();
  assertEquals(sim.endedAt - 1, 1000);
  assert(most <= 8 + 3, `${most} were there`);
});

Deno.test("Workers of random speeds, items of random sizes: all are done once, near the ideal", () => {
  const rng = seeded("balance");
  for (let round = 0; round < 20; round++) {
    const sim = new Sim();
    const speeds = range(rng.int(1, 6)).map(() => 1 + rng.float() * 9);
    const concurrency = rng.int(1, 3);
    for (const speed of speeds) {
      sim.worker({ takes: (size) => (size as number) * speed, concurrency });
    }
    const sizes = range(600).map(() => 1 + rng.float() * 10);
    for (const size of sizes) sim.offer(size);
    sim.clock.run();
    assertEquals(
      (sim.results as number[]).toSorted((a, b) => a - b),
      sizes.toSorted((a, b) => a - b),
    );
    const work = sizes.reduce((sum, size) => sum + size, 0);
    const power = speeds.reduce((sum, s) => sum + concurrency / s, 0);
    const ideal = work / power + 11 * Math.max(...speeds);
    assert(
      sim.endedAt <= ideal * 1.25,
      `round ${round}: ${sim.endedAt} ms of ${ideal}, ${speeds}`,
    );
  }
});

// --- By key ---

interface Keyed {
  key: string;
  n: number;
}

function keyed(workers: number): { sim: Sim; pool: SimWorker[] } {
  const strategy = new ByKey<Worker>((item: Keyed) => item.key);
  const sim = new Sim({ strategy });
  const pool = range(workers).map(() => sim.worker({ takes: () => 1 }));
  return { sim, pool };
}

function homes(pool: readonly SimWorker[]): Map<string, number> {
  const homes = new Map<string, number>();
  for (const worker of pool) {
    for (const item of worker.executed as Keyed[]) {
      homes.set(item.key, worker.id);
    }
  }
  return homes;
}

Deno.test("dispatch by key: all items of a key go to one worker, in order", () => {
  const { sim, pool } = keyed(5);
  for (const n of range(2000)) sim.offer({ key: `key ${n % 100}`, n });
  sim.clock.run();
  assertEquals(sim.results.length, 2000);
  const seen = new Map<string, number>();
  for (const worker of pool) {
    assert(worker.executed.length > 100, "keys are spread");
    const last = new Map<string, number>();
    for (const { key, n } of worker.executed as Keyed[]) {
      assert(n > (last.get(key) ?? -1), `${key} is in order`);
      last.set(key, n);
      assertEquals(seen.get(key) ?? worker.id, worker.id, `${key} is at one`);
      seen.set(key, worker.id);
    }
  }
});

Deno.test("dispatch by key: when a worker dies its keys move, and only they", () => {
  const { sim, pool } = keyed(5);
  for (const n of range(1000)) sim.offer({ key: `key ${n % 200}`, n });
  sim.clock.run();
  const before = homes(pool);
  const [dead] = pool.splice(2, 1);
  sim.kill(dead!);
  for (const worker of pool) worker.executed.length = 0;
  for (const n of range(1000)) sim.offer({ key: `key ${n % 200}`, n });
  sim.clock.run();
  const after = homes(pool);
  let moved = 0;
  for (const [key, home] of before) {
    if (home === 2) moved++;
    else assertEquals(after.get(key), home, `${key} stays`);
    assert(after.has(key), `${key} has a new home`);
  }
  assert(moved > 10 && moved < 100, `${moved} keys moved`);
});

Deno.test("dispatch by key: a worker that joins takes keys from all, and no others move", () => {
  const { sim, pool } = keyed(4);
  for (const n of range(1000)) sim.offer({ key: `key ${n % 200}`, n });
  sim.clock.run();
  const before = homes(pool);
  for (const worker of pool) worker.executed.length = 0;
  pool.push(sim.worker({ takes: () => 1 }));
  for (const n of range(1000)) sim.offer({ key: `key ${n % 200}`, n });
  sim.clock.run();
  const from = new Set<number>();
  for (const [key, home] of homes(pool)) {
    if (home === before.get(key)) continue;
    assertEquals(home, 4, `${key} moved to the new one`);
    from.add(before.get(key)!);
  }
  assertEquals(from.size, 4);
});
