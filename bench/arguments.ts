/**
 * The command line of `bench/run.ts`.
 *
 * @module
 */

import { resolve } from "node:path";

/** What `bench/run.ts` is told. */
export interface RunArguments {
  /** Parts of scenarios' names; none: all. */
  filters: string[];
  /** Whether the filters are whole names. */
  isExact: boolean;
  /** Whether those take part that only show what else there is. */
  withExtras: boolean;
  /** How often each peer is run. */
  runs: number;
  /** What runs before the clock does, in ms. */
  warmUpMs: number;
  /** How long is measured, in ms. */
  measureMs: number;
  /** What others may take of the machine during a run, in processors. */
  others: number;
  /** Another checkout, whose distchan is one more peer. */
  against?: string;
  /** Where CPU profiles go. */
  profileDir?: string;
}

/** Reads a command line. */
export function parseArgs(args: readonly string[]): RunArguments {
  const parsed: RunArguments = {
    filters: [],
    isExact: false,
    withExtras: true,
    runs: 5,
    warmUpMs: 3000,
    measureMs: 1000,
    others: Infinity,
  };
  for (const arg of args) {
    const [name, value = ""] = arg.split("=", 2) as [string, string?];
    if (name === "--") continue;
    else if (!name.startsWith("--")) parsed.filters.push(arg);
    else if (name === "--only") {
      parsed.filters.push(...value.split(","));
      parsed.isExact = true;
    } else if (name === "--runs") parsed.runs = Number(value);
    else if (name === "--quick") {
      parsed.withExtras = false;
      parsed.runs = 3;
      parsed.warmUpMs = 2000;
      parsed.measureMs = 500;
    } else if (name === "--quiet") parsed.others = Number(value || 0.25);
    else if (name === "--against") {
      parsed.withExtras = false;
      parsed.against = resolve(value);
    } else if (name === "--profile") {
      parsed.withExtras = false;
      parsed.profileDir = resolve(value || "bench/profiles");
      parsed.runs = 1;
    } else {
      console.error(`Unknown option: ${arg}`);
      Deno.exit(2);
    }
  }
  return parsed;
}
