/**
 * Measures distchan and its peers end to end: see bench/README.md.
 *
 * ```sh
 * deno task bench [-- FILTER... --runs=5 --quick --write --against=DIR --profile=DIR]
 * ```
 *
 * @module
 */

import { parseArgs, type RunArguments } from "./arguments.ts";
import { type Outcome, type Peer, run } from "./process.ts";
import { type Scenario, SCENARIOS } from "./scenarios.ts";
import { summarize } from "./prof_summary.ts";
import { join } from "node:path";

const args = parseArgs(Deno.args);
const chosen = SCENARIOS.filter((scenario) =>
  args.filters.length === 0 ||
  args.filters.some((filter) => scenario.name.includes(filter))
);
if (chosen.length === 0) {
  console.error(`No scenario matches: ${args.filters.join(" ")}`);
  Deno.exit(2);
}
for (const scenario of chosen) await measure(scenario, args);
if (args.profileDir !== undefined) await printProfiles(args.profileDir);

async function measure(scenario: Scenario, args: RunArguments): Promise<void> {
  const peers: Peer[] = [...scenario.peers];
  if (args.against !== undefined) {
    peers.push({
      name: `distchan in ${args.against}`,
      program: "distchan",
      root: args.against,
    });
  }
  const values = new Map<Peer, number[]>();
  const details = new Map<Peer, string>();
  for (let i = 0; i < args.runs; i++) {
    // Interleaved, and each run the other way round, so that what else the
    // machine does hits all alike.
    const order = i % 2 === 0 ? peers : peers.toReversed();
    for (const peer of order) {
      const outcome = await run(peer, scenario.config(args), {
        ...scenario.options,
        ...(args.profileDir === undefined
          ? {}
          : { profileDir: args.profileDir }),
      });
      const list = values.get(peer) ?? [];
      list.push(scenario.value(outcome));
      values.set(peer, list);
      details.set(peer, cpu(outcome));
    }
  }
  const [baseline = peers[0]!] = peers;
  console.log(`\n${scenario.title}`);
  for (const peer of peers) {
    const mine = values.get(peer)!;
    const ratios = mine.map((value, i) => value / values.get(baseline)![i]!);
    const ratio = peer === baseline
      ? ""
      : `${median(ratios).toFixed(2)} x (${Math.min(...ratios).toFixed(2)} to ${
        Math.max(...ratios).toFixed(2)
      })`;
    console.log(
      `  ${peer.name.padEnd(24)} ${
        scenario.format(median(mine)).padStart(12)
      }  ${ratio.padEnd(24)} ${details.get(peer)}`,
    );
  }
  console.log(`  goal: ${scenario.goal} x`);
}

function cpu({ server, workers }: Outcome): string {
  const parts: string[] = [];
  if (server !== null) parts.push(`server ${server.cpuMicros.toFixed(2)} µs`);
  if (workers.length > 0) {
    parts.push(
      `worker ${median(workers.map((w) => w.cpuMicros)).toFixed(2)} µs`,
    );
  }
  return `processor time a value: ${parts.join(", ")}`;
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[middle]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

async function printProfiles(dir: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(dir)) {
    if (!isDirectory || !name.includes("distchan")) continue;
    const files: string[] = [];
    for await (const file of Deno.readDir(join(dir, name))) {
      files.push(file.name);
    }
    const path = join(dir, name, files.sort().at(-1)!);
    console.log(`\n${path}`);
    console.log(summarize(JSON.parse(await Deno.readTextFile(path))));
  }
}
