/**
 * Prints where the time of a `.cpuprofile` went:
 *
 * ```sh
 * deno run -A bench/prof_summary.ts FILE_OR_FOLDER... [--top=25]
 * ```
 *
 * "self" is the time in the function itself, "total" with all that it calls.
 * Idle time is left out of the percentages.
 *
 * @module
 */

import { join } from "node:path";

interface CallFrame {
  functionName: string;
  url: string;
  lineNumber: number;
}

interface ProfileNode {
  id: number;
  callFrame: CallFrame;
  children?: number[];
}

interface Profile {
  nodes: ProfileNode[];
  samples: number[];
  timeDeltas: number[];
}

interface Row {
  name: string;
  self: number;
  total: number;
}

const IDLE = new Set(["(idle)", "(program)", "(root)"]);

/** Options of {@linkcode printProfiles}. */
export interface SummaryOptions {
  /** How many functions. @default {25} */
  top?: number;
}

/** A table of the functions that took the most time of a profile. */
function summarize(
  profile: Profile,
  { top = 25 }: SummaryOptions = {},
): string {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const self = new Map<number, number>();
  for (const [i, id] of profile.samples.entries()) {
    self.set(id, (self.get(id) ?? 0) + (profile.timeDeltas[i] ?? 0));
  }
  const rows = new Map<string, Row>();
  let busy = 0, idle = 0;
  const visit = (id: number, above: ReadonlySet<string>): number => {
    const node = nodes.get(id)!;
    const key = describe(node.callFrame);
    let row = rows.get(key);
    if (row === undefined) {
      row = { name: key, self: 0, total: 0 };
      rows.set(key, row);
    }
    const own = self.get(id) ?? 0;
    row.self += own;
    if (node.callFrame.functionName === "(idle)") idle += own;
    else if (!IDLE.has(node.callFrame.functionName)) busy += own;
    let total = own;
    const inside = new Set(above).add(key);
    for (const child of node.children ?? []) total += visit(child, inside);
    if (!above.has(key)) row.total += total; // recursion counts once
    return total;
  };
  const root = profile.nodes[0];
  if (root !== undefined) visit(root.id, new Set());
  const program = rows.get("(program)")?.self ?? 0;
  const percent = (time: number) =>
    `${(time / (busy || 1) * 100).toFixed(1)}%`.padStart(6);
  const out = [
    `JS busy ${ms(busy)} ms, native "(program)" ${ms(program)} ms, ` +
    `idle ${ms(idle)} ms`,
    "  self  total  function",
  ];
  const sorted = [...rows.values()].filter((row) => !IDLE.has(row.name))
    .sort((a, b) => b.self - a.self).slice(0, top);
  for (const row of sorted) {
    out.push(`${percent(row.self)} ${percent(row.total)}  ${row.name}`);
  }
  return out.join("\n");
}

function ms(micros: number): string {
  return (micros / 1000).toFixed(0);
}

function describe({ functionName, url, lineNumber }: CallFrame): string {
  const name = functionName || "(anonymous)";
  if (url === "") return name;
  const file = url.split("/").slice(-2).join("/");
  return `${name} ${file}:${lineNumber + 1}`;
}

/** The profiles at a path: itself, or all that are below it, by name. */
async function find(path: string): Promise<string[]> {
  if (!(await Deno.stat(path)).isDirectory) return [path];
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(path)) {
    if (isDirectory) found.push(...await find(join(path, name)));
    else if (name.endsWith(".cpuprofile")) found.push(join(path, name));
  }
  return found.sort();
}

/** Prints the summaries of the profiles at a path. */
export async function printProfiles(
  path: string,
  options: SummaryOptions = {},
): Promise<void> {
  for (const file of await find(path)) {
    console.log(`\n${file}`);
    console.log(summarize(JSON.parse(await Deno.readTextFile(file)), options));
  }
}

async function main(): Promise<void> {
  const paths = Deno.args.filter((arg) => !arg.startsWith("--"));
  if (paths.length === 0) {
    console.error(
      "Usage: bench/prof_summary.ts FILE_OR_FOLDER... [--top=25]",
    );
    Deno.exit(2);
  }
  const top = Deno.args.find((arg) => arg.startsWith("--top="))?.slice(6);
  for (const path of paths) {
    await printProfiles(path, { top: Number(top ?? 25) });
  }
}

if (import.meta.main) await main();
