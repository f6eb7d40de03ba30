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
  /** How many of them share a process. */
  workersAProcess: number;
  /** What runs before the clock does, in ms. */
  warmUpMs: number;
  /** How long is measured, in ms. */
  measureMs: number;
  /** The size of a value, where it has one, in bytes. */
  bytes: number;
  /** How many items the hand-written peer puts into an array; 1: no arrays. */
  batch: number;
  /** Whether the hand-written peer is the naive one. */
  isNaive: boolean;
  /** Whether each read of raw bytes goes into memory of its own. */
  isFresh: boolean;
  /** Whether client.readable and iteration have a large window. */
  prefetch: number | "auto";
  /** How many values, where that is fixed, in rounds. */
  counts: number[];
}

/** What a program found out. */
export interface Report {
  /** Values a second. */
  rate: number;
  /** Processor time a value, in µs. */
  cpuMicros: number;
  /** The median of the round trips, in µs, if it made single ones. */
  p50?: number;
  /** The time that 1 of 100 took longer than, in µs. */
  p99?: number;
  /** Of each round of `counts`: values a second. */
  rates?: number[];
  /** Of each round of `counts`: the heap after a garbage collection, in bytes. */
  heapBytes?: number[];
}

/** A sender goes on for so long after its reader has measured, in ms. */
const END_MS = 300;

/** Plain strings, as they come out of files and databases. */
const IDS: string[] = JSON.parse(
  JSON.stringify(Array.from({ length: 4096 }, () => crypto.randomUUID())),
);

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
  readonly #stride: number;
  #nextLook: number;
  #startedAt = 0;
  #from = 0;
  #fromCount = 0;
  #fromCpu = 0;
  #report: Report = { rate: 0, cpuMicros: 0 };

  /**
   * @param config The times.
   * @param stride The clock is looked at after so many.
   */
  constructor(config: Config, stride = 256) {
    this.#warmUpMs = config.warmUpMs;
    this.#measureMs = config.measureMs;
    this.#stride = this.#nextLook = stride;
  }

  /** Something came: a value, or so many of whatever is counted. */
  add(count = 1): void {
    if ((this.count += count) >= this.#nextLook) this.#look();
  }

  /** What was measured. */
  report(): Report {
    if (!this.done) this.#finish(performance.now());
    return this.#report;
  }

  #look(): void {
    this.#nextLook = this.count + this.#stride;
    const now = performance.now();
    if (this.#startedAt === 0) this.#startedAt = now;
    if (this.#from === 0) {
      if (now - this.#startedAt < this.#warmUpMs) return;
      this.#from = now;
      this.#fromCount = this.count;
      this.#fromCpu = cpuMicros();
    } else if (!this.done && now - this.#from >= this.#measureMs) {
      this.#finish(now);
    }
  }

  #finish(now: number): void {
    const count = this.count - this.#fromCount;
    if (this.#from === 0 || count === 0) return; // it took part, and that is all
    this.done = true;
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

/** Sends one way for as long as it takes, and says what that cost. */
export async function sendOneWay(
  config: Config,
  send: (isOver: () => boolean) => Promise<number>,
): Promise<Report> {
  const from = performance.now(), fromCpu = cpuMicros();
  const until = from + config.warmUpMs + config.measureMs + END_MS;
  const count = await send(() => performance.now() >= until);
  return {
    rate: count / (performance.now() - from) * 1000,
    cpuMicros: (cpuMicros() - fromCpu) / count,
  };
}

/** The configuration of this program. */
export function readConfig(): Config {
  return JSON.parse(Deno.args[0] ?? "{}");
}

/** Tells `bench/run.ts` something. */
export function tell(message: Record<string, unknown>): void {
  console.log(JSON.stringify(message));
}

/** Round trips before, and those of which the time is taken. */
const WARM_UP_TRIPS = 20_000, TRIPS = 30_000;

/** Takes the time of round trips, one after the other. */
export async function takeTrips(
  trip: (i: number) => Promise<unknown>,
): Promise<Report> {
  for (let i = 0; i < WARM_UP_TRIPS; i++) await trip(i);
  const micros = new Float64Array(TRIPS);
  const fromCpu = cpuMicros();
  const from = performance.now();
  let before = from;
  for (let i = 0; i < TRIPS; i++) {
    await trip(i);
    const now = performance.now();
    micros[i] = (now - before) * 1000;
    before = now;
  }
  const cpu = (cpuMicros() - fromCpu) / TRIPS;
  micros.sort();
  return {
    rate: TRIPS / (before - from) * 1000,
    cpuMicros: cpu,
    p50: micros[TRIPS * 0.5]!,
    p99: micros[TRIPS * 0.99]!,
  };
}

/** The heap that is left after a garbage collection, in bytes. */
export function heapAfterGc(): number {
  (globalThis as { gc?: () => void }).gc?.();
  return Deno.memoryUsage().heapUsed;
}
