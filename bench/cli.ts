/**
 * The command line beside xargs and GNU parallel, as whole processes from start
 * to end, their programs included:
 *
 * ```sh
 * deno run -A tools/std.ts run -A bench/cli.ts             # a few minutes
 * deno run -A tools/std.ts run -A bench/cli.ts --commands=500 --runs=1
 * ```
 *
 * Two figures are wanted: lines through a JavaScript handler, beside a program
 * an item (at least 20 times as fast); and a command an item, beside `xargs -P2`
 * (less than 1.2 times its time). Time is that of the clock, and of the
 * processor: on a busy machine only the second says something.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { stdArgs } from "../tools/std.ts";

const CLI = fileURLToPath(new URL("../cli.ts", import.meta.url));

/** What a run took, for each of its items, in µs. */
interface Cost {
  readonly wall: number;
  readonly cpu: number;
}

interface Peer {
  readonly name: string;
  readonly items: number;
  /** Its command line; standard input is `seq` of the items. */
  readonly command: readonly string[];
}

const { values } = parseArgs({
  args: Deno.args,
  options: {
    lines: { type: "string", default: "100000" },
    commands: { type: "string", default: "3000" },
    runs: { type: "string", default: "3" },
  },
});
const lines = Number(values.lines), commands = Number(values.commands);
const runs = Number(values.runs);

const folder = await Deno.makeTempDir({ prefix: "distchan_bench_" });
const handler = `${folder}/handler.ts`;
await Deno.writeTextFile(
  handler,
  "export default (line: string) => `<${line}>`;\n",
);

const map = [
  Deno.execPath(),
  "run",
  "-qA",
  "--no-check",
  ...stdArgs(),
  CLI,
  "map",
  "--local=2",
];
const peers: Peer[] = [
  {
    name: "xargs -P2, a program an item",
    items: commands,
    command: ["xargs", "-P2", "-n1", "/bin/echo"],
  },
  {
    name: "GNU parallel -j2",
    items: commands,
    command: ["parallel", "-j2", "/bin/echo", "{}"],
  },
  {
    name: "distchan map --local 2 -- /bin/echo {}",
    items: commands,
    command: [...map, "--", "/bin/echo", "{}"],
  },
  {
    name: "distchan map --local 2 MODULE",
    items: lines,
    command: [...map, handler],
  },
  {
    name: "distchan map -k --joblog, MODULE",
    items: lines,
    command: [...map, "-k", `--joblog=${folder}/log`, handler],
  },
];

try {
  const costs = new Map<Peer, Cost[]>();
  // In turn, so that a busy minute is everybody's.
  for (let run = 0; run < runs; run++) {
    for (const peer of peers) {
      const cost = await measure(peer);
      if (cost !== null) costs.set(peer, [...costs.get(peer) ?? [], cost]);
    }
  }
  const [xargs] = peers;
  const base = median(costs.get(xargs!)!);
  console.log(
    "| peer | items | µs an item | processor µs | × xargs' time | × its processor time |",
  );
  console.log("| --- | ---: | ---: | ---: | ---: | ---: |");
  for (const peer of peers) {
    const all = costs.get(peer);
    if (all === undefined) {
      console.log(`| ${peer.name} | not there | | | | |`);
      continue;
    }
    const { wall, cpu } = median(all);
    const ratio = (a: number, b: number) => (a / b).toPrecision(2);
    console.log(
      `| ${peer.name} | ${peer.items} | ${wall.toFixed(0)} | ${
        cpu.toFixed(0)
      } | ${ratio(wall, base.wall)} | ${ratio(cpu, base.cpu)} |`,
    );
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}

/** Runs a peer once; null: it isn't there. */
async function measure({ items, command }: Peer): Promise<Cost | null> {
  const [program = ""] = command;
  if (!await isThere(program)) return null;
  await Deno.remove(`${folder}/log`).catch(() => {});
  const { stdout, stderr, success } = await new Deno.Command("bash", {
    args: [
      "-c",
      'TIMEFORMAT="%R %U %S"; time (seq "$0" | "$@" > "$OUT")',
      String(items),
      ...command,
    ],
    env: { OUT: `${folder}/out`, LC_ALL: "C" },
  }).output();
  const text = new TextDecoder().decode(stderr);
  if (!success) throw new Error(`${command.join(" ")}: ${text}`);
  const results =
    (await Deno.readTextFile(`${folder}/out`)).split("\n").length - 1;
  if (results !== items || stdout.length > 0) {
    throw new Error(`${command.join(" ")}: ${results} results of ${items}`);
  }
  const [real = 0, user = 0, sys = 0] = text.trim().split("\n").at(-1)!
    .split(" ").map(Number);
  return { wall: real * 1e6 / items, cpu: (user + sys) * 1e6 / items };
}

async function isThere(program: string): Promise<boolean> {
  const { success } = await new Deno.Command("sh", {
    args: ["-c", 'command -v "$0"', program],
    stdout: "null",
  }).output();
  return success;
}

function median(costs: readonly Cost[]): Cost {
  const middle = (values: number[]) =>
    values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
  return {
    wall: middle(costs.map(({ wall }) => wall)),
    cpu: middle(costs.map(({ cpu }) => cpu)),
  };
}
