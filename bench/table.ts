/**
 * From outcomes to the table.
 *
 * @module
 */

import type { Outcome } from "./process.ts";
import type { Metric, Peer, Scenario } from "./scenarios.ts";
import type { Config } from "./workload.ts";

/** One line of the table. */
export interface Row {
  /** What is measured. */
  title: string;
  /** Who. */
  peer: string;
  /** The median. */
  figure: string;
  /** The median ratio to the first peer, and its range; "" for that one. */
  ratio: string;
  /** The goal; "" where there is none. */
  goal: string;
  /** Whether it was reached; undefined where there is none. */
  isReached: boolean | undefined;
  /** Processor time a value, of the server and of a worker. */
  cpu: string;
  /** Values a second, at the median. */
  rate: number;
  /** What others took of the machine, at the median, in processors. */
  others: number;
}

/** The outcomes of one peer, in the order of the runs. */
export interface Series {
  /** Who. */
  peer: Peer;
  /** What its programs were told. */
  config: Config;
  /** What came out. */
  outcomes: Outcome[];
}

/** The lines of a scenario. */
export function rowsOf(scenario: Scenario, series: readonly Series[]): Row[] {
  return scenario.metrics.flatMap((metric) =>
    series.map((one) => rowOf(scenario, metric, one, series[0]!))
  );
}

function rowOf(
  scenario: Scenario,
  metric: Metric,
  { peer, config, outcomes }: Series,
  first: Series,
): Row {
  const values = outcomes.map((outcome) => metric.value(outcome, config));
  // Those that ran next to each other are compared: what else the machine did
  // then was nearly the same.
  if (values.includes(0)) {
    throw new Error(`${scenario.title}: ${peer.name} measured nothing`);
  }
  const ratios = metric.isRatio
    ? values
    : values.map((value, i) =>
      value / metric.value(first.outcomes[i]!, first.config)
    );
  const hasRatio = metric.isRatio || peer !== first.peer;
  const isJudged = hasRatio && (peer.judged ?? peer.program === "distchan");
  const middle = median(ratios);
  const { goal } = metric;
  return {
    title: scenario.title + (metric.name === "" ? "" : `, ${metric.name}`),
    peer: peer.name,
    figure: metric.isRatio ? "" : metric.format(median(values)),
    ratio: hasRatio
      ? `${middle.toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${
        Math.max(...ratios).toFixed(2)
      })`
      : "",
    goal: !isJudged
      ? ""
      : "atLeast" in goal
      ? `at least ${goal.atLeast}`
      : `at most ${goal.atMost}`,
    isReached: !isJudged
      ? undefined
      : "atLeast" in goal
      ? middle >= goal.atLeast
      : middle <= goal.atMost,
    cpu: cpuOf(outcomes),
    rate: median(
      outcomes.map(({ server, workers }) => (server ?? workers[0])!.rate),
    ),
    others: median(outcomes.map(({ others }) => others)),
  };
}

function cpuOf(outcomes: readonly Outcome[]): string {
  const server = outcomes.flatMap(({ server }) => server?.cpuMicros ?? []);
  const workers = outcomes.flatMap(({ workers }) =>
    workers.map(({ cpuMicros }) => cpuMicros).filter((micros) => micros > 0)
  );
  const format = (micros: number[]) =>
    micros.length === 0 ? "–" : median(micros).toFixed(2);
  return `${format(server)} / ${format(workers)}`;
}

/** The middle one, or the mean of the middle two. */
function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[middle]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Lines as text for a terminal. */
export function toText(rows: readonly Row[]): string {
  const lines: string[] = [];
  let title = "";
  for (const row of rows) {
    if (row.title !== title) lines.push("", title = row.title);
    lines.push(
      `  ${row.peer.padEnd(28)} ${row.figure.padStart(10)}  ${
        row.ratio.padEnd(22)
      } ${row.goal.padEnd(13)} ${
        verdict(row).padEnd(5)
      } cpu ${row.cpu} µs, others ${row.others.toFixed(2)}`,
    );
  }
  return lines.join("\n");
}

/** Lines as a table in Markdown. */
export function toMarkdown(rows: readonly Row[]): string {
  const lines = [
    "| | peer | median | ratio (range) | goal | | processor time a value, server / worker, µs |",
    "|---|---|--:|--:|--:|---|--:|",
  ];
  let title = "";
  for (const row of rows) {
    const cells = [
      row.title === title ? "" : row.title,
      row.peer,
      row.figure,
      row.ratio,
      row.goal,
      verdict(row),
      row.cpu,
    ];
    title = row.title;
    lines.push(`| ${cells.join(" | ")} |`);
  }
  return lines.join("\n");
}

function verdict({ isReached }: Row): string {
  return isReached === undefined ? "" : isReached ? "PASS" : "FAIL";
}
