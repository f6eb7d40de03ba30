/**
 * What is sent, what is answered, and how rates are taken: the same for all
 * peers.
 *
 * @module
 */

import process from "node:process";

/** What goes to workers. */
export interface Item {
  /** 36 characters. */
  id: string;
  /** A number. */
  a: number;
  /** Another. */
  b: number;
}

/** What comes back. */
export interface Answer {
  /** The item's. */
  id: string;
  /** The sum of the item's numbers. */
  answer: number;
}

/** A program's configuration: the first argument of its command line, in JSON. */
export interface Config {
  /** What is measured. */
  scenario: string;
  /** Where the server is; for workers only. */
  port: number;
  /** How many workers there are. */
  workers: number;
  /** Connections that one worker process makes. */
  connections: number;
  /** What runs before the clock does, in ms. */
  warmUpMs: number;
  /** How long is measured, in ms. */
  measureMs: number;
  /** The size of a value, where it has one, in bytes. */
  bytes: number;
  /** How many values, where that is fixed: the clock doesn't matter then. */
  counts: number[];
}

/** What a program found out. */
export interface Report {
  /** Values a second, if it counted any. */
  rate: number;
  /** Processor time a value, in µs. */
  cpuMicros: number;
  /** Of each round trip, in µs, if it made any. */
  p50?: number;
  /** The same. */
  p99?: number;
  /** Heap in use after garbage collection, in bytes, if it was asked for. */
  heapBytes?: number;
}

const IDS = Array.from({ length: 4096 }, () => crypto.randomUUID());

/** The `i`th item. */
export function makeItem(i: number): Item {
  return { id: IDS[i & 4095]!, a: i & 0xffff, b: i & 0xff };
}

/** What a worker does. */
export function answer(item: Item): Answer {
  return { id: item.id, answer: item.a + item.b };
}

/** What the answer to the `i`th item must be. */
export function expected(i: number): number {
  return (i & 0xffff) + (i & 0xff);
}

/** Counts values, and takes the rate between the warm-up and the end. */
export class Meter {
  /** Values so far. */
  count = 0;
  /** Whether all that is to be measured was. */
  done = false;
  readonly #warmUpMs: number;
  readonly #measureMs: number;
  readonly #mask: number;
  #startedAt = 0;
  #from = 0;
  #fromCount = 0;
  #fromCpu = 0;
  #report: Report = { rate: 0, cpuMicros: 0 };

  /**
   * @param config The times.
   * @param mask The clock is looked at whenever these bits of the count are 0.
   */
  constructor(config: Config, mask = 0xff) {
    this.#warmUpMs = config.warmUpMs;
    this.#measureMs = config.measureMs;
    this.#mask = mask;
  }

  /** A value came. */
  add(): void {
    if ((++this.count & this.#mask) === 0) this.#look();
  }

  /** What was measured. */
  report(): Report {
    return this.#report;
  }

  #look(): void {
    const now = performance.now();
    if (this.#startedAt === 0) this.#startedAt = now;
    if (this.#from === 0) {
      if (now - this.#startedAt < this.#warmUpMs) return;
      this.#from = now;
      this.#fromCount = this.count;
      this.#fromCpu = cpuMicros();
      return;
    }
    if (this.done || now - this.#from < this.#measureMs) return;
    this.done = true;
    const count = this.count - this.#fromCount;
    this.#report = {
      rate: count / (now - this.#from) * 1000,
      cpuMicros: (cpuMicros() - this.#fromCpu) / count,
    };
  }
}

/** Processor time of this process so far, in µs. */
export function cpuMicros(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

/** The configuration of this program. */
export function readConfig(): Config {
  return JSON.parse(Deno.args[0] ?? "{}");
}

/** Tells `bench/run.ts` something. */
export function tell(message: Record<string, unknown>): void {
  console.log(JSON.stringify(message));
}

/** How long a sender of one way traffic goes on, in ms. */
export function sendMs(config: Config): number {
  return config.warmUpMs + config.measureMs + 150;
}

/** Percentiles of some times. */
export function percentiles(
  micros: Float64Array,
): { p50: number; p99: number } {
  const sorted = micros.toSorted();
  const at = (share: number) => sorted[Math.floor(sorted.length * share)]!;
  return { p50: at(0.5), p99: at(0.99) };
}
