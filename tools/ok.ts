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

const steps: { name: string; args: string[] }[] = [
  { name: "format", args: ["fmt", "--check"] },
  { name: "lint", args: ["lint"] },
  { name: "types", args: ["check", "."] },
  {
    name: "documentation",
    args: ["doc", "--lint", ...Object.values(config.exports)],
  },
  { name: "publish", args: ["publish", "--dry-run", "--allow-dirty"] },
  {
    name: "tests",
    args: ["test", "-A", "--doc", "--coverage-raw-data-only"]
      .concat(`--coverage=${coverage}`),
  },
  { name: "coverage", args: ["coverage", `--include=${sources}`, coverage] },
];

const std = await resolveStd();
Deno.chdir(root);
const times: string[] = [];
let failed = "";
try {
  for (const { name, args } of steps) {
    console.log(`\n== ${name}: deno ${args.join(" ")}`);
    const start = performance.now();
    const { success, code } = await runDeno(std, args);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    times.push(`${name} ${seconds} s`);
    if (!success) {
      failed = `step "${name}" failed with exit status ${code}`;
      break;
    }
  }
} finally {
  await Deno.remove(coverage, { recursive: true });
}
console.log(`\n${times.join(", ")} (@std: ${std.mode})`);
console.log(failed ? `not ok: ${failed}` : "ok: all steps passed");
Deno.exit(failed ? 1 : 0);
