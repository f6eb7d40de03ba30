/**
 * A server's figures, and their text in the format of Prometheus, version 0.0.4.
 *
 * @module
 */

import type { WorkerInfo } from "./dispatcher.ts";

/** Figures of a server, all counted from its start. */
export interface ServerStats {
  /** Items that wait for a worker. */
  pending: number;
  /** Items that workers hold. */
  inFlight: number;
  /** Items settled with a result, or by reading on. */
  settled: number;
  /** Items failed. */
  failed: number;
  /** Items that went back to the queue after a dispatch. */
  redelivered: number;
  /**
   * Late results that were dropped: another worker's was first, or the item
   * had timed out or was cancelled.
   */
  duplicates: number;
  /** Results and values that nobody has read yet. */
  unread: number;
  /** Bytes read from all connections. */
  bytesIn: number;
  /** Bytes written to all connections. */
  bytesOut: number;
  /** The workers, each with its own figures. */
  workers: readonly WorkerInfo[];
}

/** The content type that goes with it. */
export const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

const STATES = ["idle", "active", "suspect", "leaving"] as const;

/** The text. */
export function renderMetrics(figures: ServerStats): string {
  const { workers } = figures;
  const lines: string[] = [];
  const family = (
    name: string,
    type: "gauge" | "counter",
    help: string,
    samples: [labels: string, value: number][],
  ) => {
    lines.push(
      `# HELP distchan_${name} ${help}`,
      `# TYPE distchan_${name} ${type}`,
    );
    for (const [labels, value] of samples) {
      lines.push(`distchan_${name}${labels} ${value}`);
    }
  };
  const one = (value: number): [string, number][] => [["", value]];
  const each = (
    of: (worker: WorkerInfo) => number | undefined,
  ): [string, number][] =>
    workers.flatMap((worker) => {
      const value = of(worker);
      return value === undefined ? [] : [[labelsOf(worker), value]];
    });
  family(
    "queue_depth",
    "gauge",
    "Items that wait for a worker.",
    one(figures.pending),
  );
  family(
    "in_flight",
    "gauge",
    "Items that workers hold.",
    one(figures.inFlight),
  );
  family(
    "unread_results",
    "gauge",
    "Results and values that nobody has read yet.",
    one(figures.unread),
  );
  family(
    "settled_total",
    "counter",
    "Items settled with a result, or by reading on.",
    one(figures.settled),
  );
  family("failed_total", "counter", "Items failed.", one(figures.failed));
  family(
    "redelivered_total",
    "counter",
    "Items that went back to the queue after a dispatch.",
    one(figures.redelivered),
  );
  family(
    "duplicates_total",
    "counter",
    "Late results that were dropped.",
    one(figures.duplicates),
  );
  family(
    "received_bytes_total",
    "counter",
    "Bytes read from all connections.",
    one(figures.bytesIn),
  );
  family(
    "sent_bytes_total",
    "counter",
    "Bytes written to all connections.",
    one(figures.bytesOut),
  );
  family(
    "workers",
    "gauge",
    "Connected workers by state.",
    STATES.map((state) => [
      `{state="${state}"}`,
      workers.filter((worker) => worker.state === state).length,
    ]),
  );
  family(
    "worker_in_flight",
    "gauge",
    "Items that this worker holds.",
    each((worker) => worker.inFlight),
  );
  family(
    "worker_rate",
    "gauge",
    "Items that this worker settles a second.",
    each((worker) => worker.ratePerSecond),
  );
  family(
    "worker_round_trip_seconds",
    "gauge",
    "The last measured round trip to this worker.",
    each(({ rttMs }) => rttMs === undefined ? undefined : rttMs / 1000),
  );
  family(
    "worker_settled_total",
    "counter",
    "Items that this worker settled with a result, or by reading on.",
    each((worker) => worker.settled),
  );
  family(
    "worker_failed_total",
    "counter",
    "Items that this worker settled with an error.",
    each((worker) => worker.failed),
  );
  return lines.join("\n") + "\n";
}

function labelsOf({ id, name }: WorkerInfo): string {
  return `{worker="${id}",name="${escapeLabel(name)}"}`;
}

/** A worker's name is what its owner wants it to be. */
function escapeLabel(text: string): string {
  return text.toWellFormed().replaceAll("\\", "\\\\").replaceAll('"', '\\"')
    .replaceAll("\n", "\\n");
}
