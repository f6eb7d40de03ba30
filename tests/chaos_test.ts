/**
 * A short part of chaos, each with a seed that is printed: connections that
 * fail in memory, and workers that are processes. `deno task chaos` has more.
 */
import { assert, assertEquals } from "@std/assert";
import { Client, Server } from "../mod.ts";
import { range } from "./_support/channel_kit.ts";
import { type Fate, FaultyDuplex } from "./_support/faulty_duplex.ts";
import { MemoryListener } from "./_support/memory_pair.ts";
import { type Rng, seeded } from "./_support/rng.ts";
import { within } from "./_support/within.ts";
import { runRound } from "./chaos/round.ts";

const HEARTBEAT = { intervalMs: 30, timeoutMs: 100, dropMs: 300 };

interface Trouble {
  chunkBytes?: number;
  delayMs?: number;
  fates?: readonly Fate[];
  lifeBytes?: number;
}

/** Items through three workers whose connections fail; returns what became. */
async function survive(
  rng: Rng,
  items: number,
  trouble: Trouble,
): Promise<Map<Fate, number>> {
  const listener = new MemoryListener();
  const server = new Server<number, number>(listener, {
    heartbeat: HEARTBEAT,
    maxDeliveries: 1000, // a process that lives is blamed only for a moment
  });
  const fates = new Map<Fate, number>();
  const leave = new AbortController();
  const worker = async () => {
    while (!leave.signal.aborted) {
      const duplex = new FaultyDuplex(listener.connect(), { rng, ...trouble });
      const client = new Client<number, number>(duplex, {
        heartbeat: HEARTBEAT,
        handshakeTimeoutMs: 500,
        prefetch: rng.int(1, 64),
      });
      const work = client.work(
        (n) => n % 100 === 0 ? Promise.resolve(n * 7) : n * 7,
        { signal: leave.signal, concurrency: 2 },
      );
      await work.catch(() => {});
      await client.abort();
      for (const fate of duplex.fates) {
        fates.set(fate, (fates.get(fate) ?? 0) + 1);
      }
    }
  };
  const workers = range(3).map(worker);
  try {
    const ordered: number[] = [];
    for await (const result of server.map(range(items))) ordered.push(result);
    assertEquals(ordered, range(items).map((n) => n * 7));
    const got: number[] = [];
    const sending = (async () => {
      for (const n of range(items)) await server.send(n);
    })();
    for await (const result of server) {
      got.push(result / 7);
      if (got.length === items) break; // one more would be a duplicate
    }
    await sending;
    assertEquals(got.sort((a, b) => a - b), range(items), "exactly one each");
    assertEquals(server.stats().settled, 2 * items);
    assertEquals(server.stats().failed, 0);
  } finally {
    leave.abort();
    await server.abort();
    listener[Symbol.dispose]();
    await Promise.all(workers);
  }
  return fates;
}

const troubles: [string, number, Trouble][] = [
  ["split at every byte", 300, { chunkBytes: 1 }],
  ["split anywhere", 3000, { chunkBytes: 40 }],
  ["delayed", 1000, { delayMs: 3, chunkBytes: 2000 }],
  ["dropped", 3000, { fates: ["drop"], lifeBytes: 3000 }],
  ["reset", 3000, { fates: ["reset"], lifeBytes: 3000 }],
  ["stalling", 3000, { fates: ["stall"], lifeBytes: 6000 }],
  ["half open", 3000, { fates: ["half-open"], lifeBytes: 8000 }],
  ["anything", 3000, {
    chunkBytes: 500,
    delayMs: 1,
    fates: ["drop", "reset", "half-open", "stall", "stall"],
    lifeBytes: 8000,
  }],
];

for (const [name, items, trouble] of troubles) {
  Deno.test(`Each item settles exactly once over connections that are ${name}`, async () => {
    const rng = seeded(name);
    const fates = await within(
      survive(rng, items, trouble),
      60_000,
      `all is done, seed ${rng.seed}`,
    );
    for (const fate of new Set(trouble.fates)) {
      if (trouble.fates!.length === 1) {
        assert((fates.get(fate) ?? 0) > 0, `${fate} has happened`);
      }
    }
  });
}

Deno.test({
  name: "Each item settles exactly once whatever happens to processes",
  // `/proc` tells what is open, and the signals are those of Unix.
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const rng = seeded("chaos");
    const counts = await runRound({ rng, ms: 4000 });
    assert(counts["items"]! > 100);
  },
});
