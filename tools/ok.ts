/**
 * Everything that CI runs, step by step; stops at the first that fails.
 *
 * ```sh
 * deno task ok
 * ```
 *
 * @module
 */

import config from "../deno.json" with { type: "json" };
import { resolveStd, runDeno } from "./std.ts";

const root = new URL("../", import.meta.url);
const coverage = await Deno.makeTempDir({ prefix: "distchan_coverage_" });
const sources = `^${
  root.href.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")
}(?:mod|server|client|codec|cli|internal/)`;

const test = ["test", "-A", "--coverage-raw-data-only"]
  .concat(`--coverage=${coverage}`);
const half = await everySecondTest();

/** What runs `beside` another command is printed after it. */
const steps: { name: string; args: string[]; beside?: string[] }[] = [
  { name: "format", args: ["fmt", "--check"] },
  { name: "lint", args: ["lint"] },
  { name: "types", args: ["check", "."] },
  {
    name: "documentation",
    args: ["doc", "--lint", ...Object.values(config.exports)],
  },
  { name: "publish", args: ["publish", "--dry-run", "--allow-dirty"] },
  {
    // Tests wait most of their time, so two halves take little more than one.
    // Not `--parallel`: some tests measure the process that they are in.
    name: "tests",
    args: [...test, "--doc", `--ignore=${half}`],
    beside: [...test, ...half],
  },
  { name: "coverage", args: ["coverage", `--include=${sources}`, coverage] },
];

const std = await resolveStd();
Deno.chdir(root);
const times: string[] = [];
let failed = "";
try {
  for (const { name, args, beside } of steps) {
    if (name === "coverage") await removeTorn(coverage);
    console.log(`\n== ${name}: deno ${args.join(" ")}`);
    const start = performance.now();
    const first = runDeno(std, args);
    const statuses = await Promise.all(
      beside === undefined ? [first] : [first, runBeside(first, beside)],
    );
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    times.push(`${name} ${seconds} s`);
    const status = statuses.find(({ success }) => !success);
    if (status !== undefined) {
      failed = `step "${name}" failed with exit status ${status.code}`;
      break;
    }
  }
} finally {
  await Deno.remove(coverage, { recursive: true });
}
console.log(`\n${times.join(", ")} (@std: ${std.mode})`);
console.log(failed ? `not ok: ${failed}` : "ok: all steps passed");
Deno.exit(failed ? 1 : 0);

/** Runs a command now, and prints what it says when another has ended. */
async function runBeside(
  other: Promise<unknown>,
  args: string[],
): Promise<Deno.CommandStatus> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "tools/std.ts", ...args],
    env: { DISTCHAN_STD: std.mode },
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const output = child.stdout.pipeThrough(
    new TransformStream(undefined, undefined, { highWaterMark: Infinity }),
  );
  await other;
  console.log(`\n== beside it: deno ${args.join(" ")}`);
  await output.pipeTo(Deno.stdout.writable, { preventClose: true });
  return await child.status;
}

/**
 * Removes the profiles that aren't whole: tests shoot processes, and one may
 * have been writing its own.
 */
async function removeTorn(folder: string): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) {
    const path = `${folder}/${name}`;
    using file = await Deno.open(path);
    const { size } = await file.stat();
    const end = new Uint8Array(2);
    await file.seek(Math.max(0, size - end.length), Deno.SeekMode.Start);
    await file.read(end);
    // They are indented JSON: an object that is closed in the first column.
    if (new TextDecoder().decode(end) === "\n}") continue;
    console.log(`removed, since it isn't whole: ${path}, ${size} bytes`);
    await Deno.remove(path);
  }
}

/** The paths of every second file with tests. */
async function everySecondTest(): Promise<string[]> {
  const paths: string[] = [];
  const read = async (folder: string) => {
    for await (
      const { name, isDirectory } of Deno.readDir(new URL(folder, root))
    ) {
      if (isDirectory) await read(`${folder}${name}/`);
      else if (name.endsWith("_test.ts")) paths.push(folder + name);
    }
  };
  await read("tests/");
  return paths.sort().filter((_, i) => i % 2 === 1);
}
