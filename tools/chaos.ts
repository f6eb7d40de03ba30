/**
 * Chaos: workers as real processes that are shot, stopped and cut off while
 * items flow. Every round checks that each item settled exactly once, that
 * nothing hangs, that memory and descriptors are bounded, and that both ends
 * end.
 *
 * ```sh
 * deno task chaos                            # ten minutes
 * deno task chaos -- --minutes 1 --seed 7
 * ```
 *
 * As root, where `ip netns` works, some workers are in network namespaces whose
 * link goes down and comes back.
 *
 * @module
 */

import { hasNetns } from "../tests/chaos/netns.ts";
import { type Counts, runRound } from "../tests/chaos/round.ts";
import { Rng } from "../tests/_support/rng.ts";

/** A round's faults last so long, in ms. */
const ROUND_MS = 30_000;
/** So many more descriptors than after the first round may be open later. */
const MORE_DESCRIPTORS = 2;
/** What the server's memory may grow by, from the third round on, in MB. */
const MAX_GROWTH_MB = 300;

const options = { minutes: 10, seed: -1 };
for (let i = 0; i < Deno.args.length; i++) {
  if (Deno.args[i] === "--") continue;
  const [, name, value = Deno.args[++i]] =
    Deno.args[i]!.match(/^--(minutes|seed)(?:=(.*))?$/) ?? [];
  if (name === undefined || !(Number(value) >= 0)) {
    console.error("Usage: deno task chaos -- [--minutes N] [--seed N]");
    Deno.exit(2);
  }
  options[name as keyof typeof options] = Number(value);
}

const seed = options.seed >= 0
  ? options.seed >>> 0
  : crypto.getRandomValues(new Uint32Array(1))[0]!;
const rng = new Rng(seed);
const netns = await hasNetns();
console.log(`chaos: --seed ${seed}, ${options.minutes} minutes`);
if (!netns) {
  console.log("skipped: network namespaces (they take root and `ip netns`)");
}

const total: Counts = {};
const rss: number[] = [];
const start = performance.now();
const end = start + options.minutes * 60_000;
let rounds = 0;
let firstDescriptors: number | undefined;
try {
  while (performance.now() < end) {
    const roundSeed = rng.uint32();
    const counts = await runRound({
      rng: new Rng(roundSeed),
      ms: Math.min(ROUND_MS, Math.max(5000, end - performance.now())),
      netns: netns && rounds % 2 === 1 ? 2 : 0,
    });
    rounds++;
    rss.push(Deno.memoryUsage().rss / 1e6);
    for (const [name, count] of Object.entries(counts)) {
      total[name] = name.endsWith("MB") || name === "descriptors"
        ? Math.max(total[name] ?? 0, count)
        : (total[name] ?? 0) + count;
    }
    console.log(
      `round ${rounds} (${roundSeed}): ${counts["items"]} items, ${
        counts["redelivered"]
      } redelivered, ${counts["duplicates"]} duplicates, ${
        counts["processes"]
      } processes, ${Math.round(rss.at(-1)!)} MB`,
    );
    const { descriptors = 0 } = counts;
    firstDescriptors ??= descriptors;
    if (descriptors > firstDescriptors + MORE_DESCRIPTORS) {
      throw new Error(`${descriptors} descriptors are open`);
    }
    const growth = rss.at(-1)! - (rss[2] ?? Infinity);
    if (growth > MAX_GROWTH_MB) {
      throw new Error(`The server's process grew by ${Math.round(growth)} MB`);
    }
  }
} catch (error) {
  console.error(error);
  console.error(`chaos: failed in round ${rounds + 1}, --seed ${seed}`);
  Deno.exit(1);
}
const minutes = ((performance.now() - start) / 60_000).toFixed(1);
console.log(`\n${rounds} rounds in ${minutes} minutes, --seed ${seed}`);
for (const [name, count] of Object.entries(total).sort()) {
  console.log(`${String(count).padStart(12)}  ${name}`);
}
console.log("Each item has settled exactly once.");
Deno.exit(0);
