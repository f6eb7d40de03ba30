/**
 * Measures distchan and its peers end to end: see bench/README.md.
 *
 * ```sh
 * deno task bench [-- FILTER... --runs=5 --quick --against=DIR --profile=DIR]
 * ```
 *
 * @module
 */

import { stdCbor } from "../tests/_support/real_std.ts";
import { parseArgs, type RunArguments } from "./arguments.ts";
import { describeMachine, load } from "./machine.ts";
import { type Outcome, run, type RunOptions, waitForQuiet } from "./process.ts";
import { printProfiles } from "./prof_summary.ts";
import { configOf, type Peer, type Scenario, SCENARIOS } from "./scenarios.ts";
import { type Row, rowsOf, type Series, toMarkdown, toText } from "./table.ts";
import type { Config } from "./workload.ts";

/** How often a run is made again at most, with `--quiet`. */
const ATTEMPTS = 3;
const RESULTS = new URL("./RESULTS.md", import.meta.url);

async function main(): Promise<void> {
  const args = parseArgs(Deno.args);
  const scenarios = SCENARIOS.filter(({ name }) =>
    args.filters.length === 0 ||
    args.filters.some((filter) =>
      args.isExact ? name === filter : name.includes(filter)
    )
  );
  if (scenarios.length === 0) {
    console.error(
      `No scenario matches. There are: ${
        SCENARIOS.map(({ name }) => name).join(", ")
      }`,
    );
    Deno.exit(2);
  }
  if (args.withExtras && stdCbor === undefined) {
    console.log("Without the naive port: it needs the real @std/cbor");
  }
  const machine = await describeMachine();
  const loadBefore = load();
  const rows: Row[] = [];
  for (const scenario of scenarios) {
    const some = await measure(scenario, args);
    console.log(toText(some));
    rows.push(...some);
  }
  const failed = rows.filter(({ isReached }) => isReached === false).length;
  const judged = rows.filter(({ isReached }) => isReached !== undefined).length;
  console.log(`\n${judged - failed} of ${judged} goals reached`);
  if (args.profileDir !== undefined) await printProfiles(args.profileDir);
  if (!isWhole(args)) return;
  await Deno.writeTextFile(
    RESULTS,
    `# Results

Written by \`deno task bench\`; [README.md](./README.md) says what is
measured and how to read it.

${machine.map((line) => `- ${line}`).join("\n")}
- ${args.runs} runs each, ${args.warmUpMs} ms warm-up, ${args.measureMs} ms measured
- load average before: ${loadBefore}; after, the benchmark's own included: ${load()}

${toMarkdown(rows)}
`,
  );
  // It is one of the files that must be formatted.
  await new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--quiet", "RESULTS.md"],
    cwd: new URL(".", RESULTS),
  }).spawn().status;
}

/** Whether it measures all that there is, and often enough to be kept. */
function isWhole({ filters, withExtras, runs }: RunArguments): boolean {
  return filters.length === 0 && withExtras && runs >= 5;
}

async function measure(
  scenario: Scenario,
  args: RunArguments,
): Promise<Row[]> {
  const peers = scenario.peers.filter(({ isExtra, config }) =>
    !isExtra ||
    (args.withExtras && (!config?.isNaive || stdCbor !== undefined))
  );
  if (args.against !== undefined) {
    for (const peer of [...peers]) {
      if (peer.program !== "distchan") continue;
      const name = `${peer.name}, ${args.against}`;
      peers.push({ ...peer, name, root: args.against });
    }
  }
  const series: Series[] = peers.map((peer) => ({
    peer,
    config: configOf(scenario, peer, args),
    outcomes: [],
  }));
  for (let i = 0; i < args.runs; i++) {
    // Interleaved, and every other time the other way round.
    for (const one of i % 2 === 0 ? series : series.toReversed()) {
      const { peer, config } = one;
      const options = { ...scenario.options };
      if (args.profileDir !== undefined) options.profileDir = args.profileDir;
      one.outcomes.push(await runQuietly(peer, config, options, args.others));
    }
  }
  return rowsOf(scenario, series);
}

/** Runs again what others were in the way of, as often as a few times. */
async function runQuietly(
  peer: Peer,
  config: Config,
  options: RunOptions,
  others: number,
): Promise<Outcome> {
  let best: Outcome | null = null;
  for (let i = 0; i < ATTEMPTS; i++) {
    if (others !== Infinity) await waitForQuiet(others);
    const outcome = await run(peer, config, options);
    if (best === null || outcome.others < best.others) best = outcome;
    if (!(best.others > others)) break;
  }
  return best!;
}

await main();
