/**
 * What is measured, and what it should come to.
 *
 * @module
 */

import type { RunArguments } from "./arguments.ts";
import type { Outcome, RunOptions } from "./process.ts";
import type { Config } from "./workload.ts";

/** Who takes part in a scenario. */
export interface Peer {
  /** Its name in the table. */
  name: string;
  /** Its programs are `programs/PROGRAM_server.ts` and `_worker.ts`. */
  program: "baseline" | "distchan" | "raw";
  /** The checkout that they are in; this one by default. */
  root?: string;
  /** What its programs are told otherwise. */
  config?: Partial<Config>;
  /** Whether its ratio is judged; by default, that of `program: "distchan"`. */
  judged?: boolean;
  /** Whether it only shows what else there is, and `--quick` leaves it out. */
  isExtra?: boolean;
}

/** A figure of a scenario. */
export interface Metric {
  /** Its name; "" if it is the only one. */
  name: string;
  /** The figure. */
  value(outcome: Outcome, config: Config): number;
  /** How to print it. */
  format(value: number): string;
  /** The least, or the most, that the ratio to the first peer may be. */
  goal: { atLeast: number } | { atMost: number };
  /** Whether the figure itself is a ratio, and no other peer is looked at. */
  isRatio?: boolean;
}

/** One or several lines of the table. */
export interface Scenario {
  /** What filters match. */
  name: string;
  /** Its heading. */
  title: string;
  /** Who takes part; the first one is what the others are compared with. */
  peers: Peer[];
  /** What the programs are told. */
  config: Partial<Config> & { scenario: string };
  /** How they are run. */
  options?: RunOptions;
  /** What is looked at. */
  metrics: Metric[];
}

/** The processor that serial round trips are pinned to. */
const PINNED_CPU = "1";

/** What the streaming modes are told: items are tiny. */
const LARGE_PREFETCH = 4096;

const BASELINE: Peer = { name: "hand-written", program: "baseline" };
const ARRAYS: Peer = {
  name: "hand-written, arrays of 256",
  program: "baseline",
  config: { batch: 256 },
  isExtra: true,
};
/** It needs the real `@std/cbor`. */
const NAIVE: Peer = {
  name: "naive port",
  program: "baseline",
  config: { isNaive: true },
  isExtra: true,
};
const RAW: Peer = { name: "raw bytes", program: "raw" };
const RAW_FRESH: Peer = {
  name: "raw bytes, kept",
  program: "raw",
  config: { isFresh: true },
};
const DISTCHAN: Peer = { name: "distchan", program: "distchan" };

function perSecond(rate: number): string {
  return `${(rate / 1000).toFixed(0)} k/s`;
}

function megabytes(bytesPerSecond: number): string {
  return `${(bytesPerSecond / 1e6).toFixed(0)} MB/s`;
}

function micros(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 0)} µs`;
}

function ratio(value: number): string {
  return value.toFixed(2);
}

/** Values a second, as the one who reads at the end of the way counts them. */
function rate(atLeast: number, isOneWay = false): Metric {
  return {
    name: "",
    value: ({ server, workers }) => (isOneWay ? workers[0] : server)!.rate,
    format: perSecond,
    goal: { atLeast },
  };
}

function bulk(bytes: number, size: string, atLeast: number): Scenario {
  return {
    name: `bulk${size.replace(" ", "")}`,
    title: `Bulk one way, ${size}`,
    peers: [RAW, RAW_FRESH, DISTCHAN],
    config: { scenario: "bulk", bytes },
    metrics: [{
      name: "",
      value: ({ workers }) => workers[0]!.rate * bytes,
      format: megabytes,
      goal: { atLeast },
    }],
  };
}

/** The last round's figure by that of the round before. */
function last(values: readonly number[]): number {
  return values.at(-1)! / values.at(-2)!;
}

/** All of them. */
export const SCENARIOS: readonly Scenario[] = [
  {
    name: "roundtrip1",
    title: "Round trip, `send()` + iteration with `work()`, 1 worker",
    peers: [BASELINE, ARRAYS, NAIVE, DISTCHAN],
    config: { scenario: "roundtrip" },
    metrics: [rate(1.5)],
  },
  {
    name: "roundtrip4",
    title: "Round trip, `send()` + iteration with `work()`, 4 workers",
    peers: [BASELINE, ARRAYS, NAIVE, DISTCHAN],
    config: { scenario: "roundtrip", workers: 4 },
    metrics: [rate(1.5)],
  },
  {
    name: "map",
    title: "Round trip, ordered `map()` with `work()`, 1 worker",
    peers: [{ ...BASELINE, config: { scenario: "roundtrip" } }, DISTCHAN],
    config: { scenario: "map" },
    metrics: [rate(1.5)],
  },
  {
    name: "oneway",
    title: "One way, `send()` + iteration",
    peers: [BASELINE, ARRAYS, NAIVE, DISTCHAN],
    config: { scenario: "oneway", prefetch: LARGE_PREFETCH },
    metrics: [rate(1.5, true)],
  },
  {
    name: "streams",
    title: "Round trip through `pipeThrough(server)`, `readable`/`writable` " +
      "worker",
    peers: [{ ...BASELINE, config: { scenario: "roundtrip" } }, DISTCHAN],
    config: { scenario: "streams", prefetch: LARGE_PREFETCH },
    metrics: [rate(0.65)],
  },
  {
    name: "onewayStreams",
    title: "One way through the streams",
    peers: [{ ...BASELINE, config: { scenario: "oneway" } }, DISTCHAN],
    config: { scenario: "onewayStreams", prefetch: LARGE_PREFETCH },
    metrics: [rate(0.75, true)],
  },
  bulk(64 * 1024, "64 KiB", 1),
  bulk(1024 * 1024, "1 MiB", 0.65),
  {
    name: "serial",
    title: "Serial `submit()`, both ends pinned to one processor",
    peers: [RAW, DISTCHAN],
    config: { scenario: "serial" },
    options: { cpus: PINNED_CPU },
    metrics: [{
      name: "p50",
      value: ({ server }) => server!.p50!,
      format: micros,
      goal: { atMost: 1.35 },
    }, {
      name: "p99",
      value: ({ server }) => server!.p99!,
      format: micros,
      goal: { atMost: 1.6 },
    }],
  },
  {
    name: "workers64",
    title: "1 to 64 workers: processor time a value on the server",
    peers: [
      { ...DISTCHAN, name: "distchan, 1 worker", judged: false },
      {
        ...DISTCHAN,
        name: "distchan, 64 workers",
        // As many processes on a few cores would be a test of its caches.
        config: { workers: 64, workersAProcess: 16 },
      },
    ],
    config: { scenario: "roundtrip", warmUpMs: 5000, measureMs: 3000 },
    metrics: [{
      name: "",
      value: ({ server }) => server!.cpuMicros,
      format: micros,
      goal: { atMost: 1.3 },
    }],
  },
  {
    name: "growth",
    title: "A million items, then ten million",
    peers: [DISTCHAN],
    config: { scenario: "growth", counts: [300_000, 1_000_000, 10_000_000] },
    options: { v8Flags: "--expose-gc" },
    metrics: [{
      name: "rate",
      value: ({ server }) => last(server!.rates!),
      format: ratio,
      goal: { atLeast: 0.9 },
      isRatio: true,
    }, {
      name: "heap after a collection",
      value: ({ server }) => last(server!.heapBytes!),
      format: ratio,
      goal: { atMost: 1.1 },
      isRatio: true,
    }, {
      name: "peak memory, server",
      value: ({ serverRss }) => last(serverRss),
      format: ratio,
      goal: { atMost: 1.1 },
      isRatio: true,
    }, {
      name: "peak memory, worker",
      value: ({ workerRss }) => last(workerRss),
      format: ratio,
      goal: { atMost: 1.1 },
      isRatio: true,
    }],
  },
];

/** What a peer's programs are told. */
export function configOf(
  scenario: Scenario,
  peer: Peer,
  { warmUpMs, measureMs }: RunArguments,
): Config {
  return {
    port: 0,
    workers: 1,
    workersAProcess: 1,
    warmUpMs,
    measureMs,
    bytes: 0,
    batch: 1,
    isNaive: false,
    prefetch: "auto",
    isFresh: false,
    counts: [],
    ...scenario.config,
    ...peer.config,
  };
}
