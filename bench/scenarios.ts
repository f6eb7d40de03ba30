/**
 * What is measured.
 *
 * @module
 */

import type { RunArguments } from "./arguments.ts";
import type { Outcome, Peer, RunOptions } from "./process.ts";
import type { Config } from "./workload.ts";

/** One line of the table. */
export interface Scenario {
  /** What filters match. */
  name: string;
  /** Its heading. */
  title: string;
  /** Who takes part; the first one is what the others are compared with. */
  peers: Peer[];
  /** What the programs are told. */
  config(args: RunArguments): Config;
  /** How they are run. */
  options: RunOptions;
  /** The figure. */
  value(outcome: Outcome): number;
  /** How to print the figure. */
  format(value: number): string;
  /** What distchan's ratio should be. */
  goal: number;
}

const BASELINE: Peer = { name: "hand-written", program: "baseline" };
const DISTCHAN: Peer = { name: "distchan", program: "distchan" };

function thousands(rate: number): string {
  return `${(rate / 1000).toFixed(0)} k/s`;
}

function config(
  args: RunArguments,
  scenario: string,
  workers = 1,
): Config {
  return {
    scenario,
    port: 0,
    workers,
    connections: 1,
    warmUpMs: args.warmUpMs,
    measureMs: args.measureMs,
    bytes: 0,
    counts: [],
  };
}

function roundTrip(workers: number): Scenario {
  return {
    name: `roundtrip${workers}`,
    title: `Round trip, send() + iteration with work(), ${workers} worker${
      workers === 1 ? "" : "s"
    }`,
    peers: [BASELINE, DISTCHAN],
    config: (args) => config(args, "roundtrip", workers),
    options: {},
    value: ({ server }) => server!.rate,
    format: thousands,
    goal: 1.5,
  };
}

/** All of them. */
export const SCENARIOS: readonly Scenario[] = [
  roundTrip(1),
  roundTrip(4),
  {
    name: "oneway",
    title: "One way, send() + iteration",
    peers: [BASELINE, DISTCHAN],
    config: (args) => config(args, "oneway"),
    options: {},
    value: ({ workers }) => workers[0]!.rate,
    format: thousands,
    goal: 1.5,
  },
];
