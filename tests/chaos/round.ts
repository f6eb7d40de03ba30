/**
 * One round of chaos: a server, workers as processes of their own, all that can
 * happen to them and to the network between, and then what must hold: each item
 * settles exactly once, nothing hangs, memory and descriptors are bounded, both
 * ends end.
 *
 * @module
 */

import {
  type ConnectOptions,
  listen,
  type Server,
  type ServerEvent,
  type WorkOptions,
} from "../../mod.ts";
import { Process, ROOT } from "../_support/process.ts";
import type { Rng } from "../_support/rng.ts";
import { TcpProxy } from "../_support/tcp_proxy.ts";
import { until, within } from "../_support/within.ts";
import { stdArgs } from "../../tools/std.ts";
import { Loads } from "./loads.ts";
import { Netns } from "./netns.ts";
import type { ActItem, WorkerArguments } from "./worker.ts";

/** What happened in a round, by name. */
export type Counts = Record<string, number>;

/** Options of {@linkcode runRound}. */
export interface RoundOptions {
  /** Where chance comes from. */
  rng: Rng;
  /** How long faults happen, in ms. */
  ms: number;
  /** Processes at once. @default {5} */
  workers?: number;
  /** Of them, so many are in network namespaces. @default {0} */
  netns?: number;
}

const HEARTBEAT = { intervalMs: 100, timeoutMs: 400, dropMs: 1500 };
const SECRET = "chaos";
/** What is left to do when the faults are over may take so long, in ms. */
const SETTLE_MS = 60_000;
/** A worker may hold so many bytes. */
const MAX_WORKER_RSS = 600 * 1024 * 1024;

/** The exit codes of workers that die of what their items say. */
const EXPECTED_CODES = new Set([0, 3, 128 + 6, 128 + 11, 128 + 9]);

/** Runs one round. Throws if anything doesn't hold. */
export async function runRound(options: RoundOptions): Promise<Counts> {
  const before = descriptors();
  const round = new Round(options);
  try {
    await round.run();
  } catch (error) {
    console.error(round.describe());
    throw error;
  } finally {
    await round[Symbol.asyncDispose]();
  }
  // A descriptor may take a moment to go, and Deno's first child costs two for
  // good.
  await until(
    () => descriptors() <= before + 2,
    `descriptors are closed: ${before} before`,
    10_000,
  );
  round.counts["descriptors"] = descriptors();
  return round.counts;
}

/** File descriptors that this process holds. */
export function descriptors(): number {
  try {
    return [...Deno.readDirSync("/proc/self/fd")].length;
  } catch {
    return 0; // no /proc here
  }
}

/** Resident memory of a process, in bytes; 0 if it isn't known. */
export function rssOf(pid: number): number {
  try {
    const [, pages] = Deno.readTextFileSync(`/proc/${pid}/statm`).split(" ");
    return Number(pages) * 4096;
  } catch {
    return 0;
  }
}

interface Worker {
  name: string;
  process: Process;
  isStopped: boolean;
  isGone: boolean;
}

class Round implements AsyncDisposable {
  readonly counts: Counts = {};
  readonly #options: RoundOptions;
  readonly #server: Server<ActItem, number>;
  readonly #proxies: TcpProxy[] = [];
  readonly #netns: Netns[] = [];
  readonly #workers = new Set<Worker>();
  readonly #tasks = new Set<Promise<void>>();
  readonly #events: string[] = [];
  readonly #loads: Loads;
  #started = 0;
  #isCalm = false;
  #error: Error | null = null;

  constructor(options: RoundOptions) {
    this.#options = options;
    const { rng, netns = 0 } = options;
    this.#server = listen<ActItem, number>({
      port: 0,
      hostname: netns > 0 ? "0.0.0.0" : "127.0.0.1",
      secret: SECRET,
      heartbeat: HEARTBEAT,
      maxDeliveries: 5,
      retry: { attempts: 3, backoffMs: 5 },
      dispatch: rng.pick(["round-robin", "least-loaded"]),
      handshakeTimeoutMs: 2000,
      onFailure: (failure) => this.#loads.onFailure(failure),
      onEvent: (event) => this.#onEvent(event),
    });
    this.#loads = new Loads(this.#server, rng);
  }

  async run(): Promise<void> {
    const { rng, ms, workers = 5, netns = 0 } = this.#options;
    const { port } = this.#server.addr as Deno.NetAddr;
    for (let i = 0; i < 2; i++) this.#proxies.push(new TcpProxy(port));
    for (let i = 0; i < netns; i++) {
      const made = await Netns.make();
      if (made === null) throw new Error("Cannot make a network namespace");
      this.#netns.push(made);
    }
    for (let i = 0; i < workers; i++) {
      this.#start(i < netns ? this.#netns[i] : undefined);
    }
    await within(this.#server.ready(), 30_000, "the first worker is there");
    this.#loads.start();
    const end = performance.now() + ms;
    while (performance.now() < end && this.#error === null) {
      await sleep(rng.int(50, 900));
      await this.#misfortune();
    }
    await this.#calm();
    await within(this.#loads.finish(), SETTLE_MS, "all loads are done");
    this.#check();
    await this.#end();
    this.#check();
    Object.assign(this.counts, this.#loads.counts);
    const { settled, failed, redelivered, duplicates } = this.#server.stats();
    Object.assign(this.counts, { settled, failed, redelivered, duplicates });
    this.#loads.check(this.#server.stats());
  }

  /** What is known, for whoever looks for the cause. */
  describe(): string {
    return [
      `--- stats ${Deno.inspect(this.#server.stats(), { depth: 4 })}`,
      `--- loads ${Deno.inspect(this.#loads.counts)}`,
      `--- counts ${Deno.inspect(this.counts)}`,
      `--- the last events`,
      ...this.#events.slice(-40),
    ].join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isCalm = true;
    await this.#server.abort();
    await this.#loads[Symbol.asyncDispose]();
    for (const { process } of this.#workers) {
      signal(process, "SIGCONT");
      await process[Symbol.asyncDispose]();
    }
    for (const proxy of this.#proxies) await proxy[Symbol.asyncDispose]();
    for (const netns of this.#netns) await netns[Symbol.asyncDispose]();
    await Promise.all(this.#tasks);
  }

  #check(): void {
    if (this.#error !== null) throw this.#error;
  }

  #count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by;
  }

  #onEvent(event: ServerEvent<ActItem>): void {
    this.#count(`event ${event.type}`);
    const { worker, ...rest } = event as { type: string; worker?: unknown };
    const name = (worker as { name: string } | undefined)?.name ?? "";
    this.#events.push(
      `${Math.round(performance.now())} ${name} ${
        Deno.inspect(rest, { depth: 1, iterableLimit: 5, breakLength: 200 })
          .slice(0, 300)
      }`,
    );
    if (this.#events.length > 200) this.#events.splice(0, 100);
    if (
      event.type === "disconnected" &&
      !["normal", "eof", "reset", "timeout", "aborted"].includes(event.code)
    ) {
      this.#error ??= new Error(
        `A worker was dropped for ${event.code}: ${event.reason}`,
      );
    }
  }

  /** Starts a process, and another when it dies. */
  #start(netns?: Netns): void {
    const { rng } = this.#options;
    const name = `worker ${this.#started++}`;
    const { port } = this.#server.addr as Deno.NetAddr;
    const isDirect = netns !== undefined || rng.chance(0.3);
    const connect: ConnectOptions = {
      hostname: netns?.host ?? "127.0.0.1",
      port: isDirect ? port : rng.pick(this.#proxies).port,
      name,
      secret: SECRET,
      heartbeat: HEARTBEAT,
      handshakeTimeoutMs: 2000,
      reconnect: { minDelayMs: 10, maxDelayMs: 200 },
    };
    if (rng.chance(0.3)) connect.prefetch = rng.int(1, 64);
    const work: WorkOptions = { concurrency: rng.pick([1, 1, 2, 8]) };
    const args = [
      "run",
      "--no-prompt",
      ...stdArgs(),
      "-A",
      "--no-check",
      `${ROOT}tests/chaos/worker.ts`,
      JSON.stringify({ connect, work } satisfies WorkerArguments),
    ];
    const options = {
      stdin: "open",
      deadlineMs: this.#options.ms + 2 * SETTLE_MS,
    } as const;
    const process = netns === undefined
      ? new Process(Deno.execPath(), args, options)
      : new Process(
        "ip",
        ["netns", "exec", netns.name, Deno.execPath(), ...args],
        options,
      );
    const worker = { name, process, isStopped: false, isGone: false };
    this.#workers.add(worker);
    this.#count("processes");
    const watch = async () => {
      try {
        const { code, stderr } = await process.exit;
        if (!EXPECTED_CODES.has(code)) {
          this.#error ??= new Error(`${name} exited with ${code}: ${stderr}`);
        }
        if (code !== 0) this.#count(`exit ${code}`);
      } catch (error) {
        this.#error ??= error as Error;
      }
      worker.isGone = true;
      this.#workers.delete(worker);
      if (!this.#isCalm) this.#start(netns);
    };
    const task = watch().finally(() => this.#tasks.delete(task));
    this.#tasks.add(task);
  }

  async #misfortune(): Promise<void> {
    const { rng } = this.#options;
    this.#watchMemory();
    const worker = rng.pick([...this.#workers]);
    const proxy = rng.pick(this.#proxies);
    switch (rng.int(0, 11)) {
      case 0:
      case 1:
        signal(worker.process, "SIGKILL");
        return this.#count("SIGKILL");
      case 2:
      case 3:
        return this.#stop(worker, rng.pick([50, 300, 700, 2500]));
      case 4:
        worker.process.write("leave\n");
        return this.#count("leave");
      case 5:
        proxy.cut();
        return this.#count("cut all");
      case 6:
        proxy.cut(rng);
        return this.#count("cut one");
      case 7:
        proxy.freeze();
        this.#later(rng.pick([50, 300, 700, 2500]), () => proxy.thaw());
        return this.#count("freeze");
      case 8:
        proxy.weather = rng.pick([
          {},
          { chunkBytes: () => rng.int(1, 7) },
          { chunkBytes: () => 1024, delayMs: () => rng.float() * 5 },
          { delayMs: () => rng.float() * 20 },
        ]);
        return this.#count("weather");
      case 9:
        this.#stranger();
        return this.#count("stranger");
      default: {
        if (this.#netns.length === 0) return;
        const netns = rng.pick(this.#netns);
        await netns.plug(false);
        this.#later(
          rng.pick([200, 700, 2500]),
          () => netns.plug(true),
        );
        return this.#count("unplugged");
      }
    }
  }

  #stop(worker: Worker, ms: number): void {
    if (worker.isStopped) return;
    worker.isStopped = true;
    signal(worker.process, "SIGSTOP");
    this.#count("SIGSTOP");
    this.#later(ms, () => {
      worker.isStopped = false;
      signal(worker.process, "SIGCONT");
    });
  }

  /** Somebody connects who is no worker. */
  #stranger(): void {
    const { rng } = this.#options;
    const bytes = rng.bytes(rng.int(0, 200));
    const ms = rng.int(0, 300);
    const { port } = this.#server.addr as Deno.NetAddr;
    const visit = async () => {
      try {
        using conn = await Deno.connect({ hostname: "127.0.0.1", port });
        if (bytes.length > 0) await conn.write(bytes);
        await sleep(ms);
      } catch {
        // Shown the door already.
      }
    };
    const task = visit().finally(() => this.#tasks.delete(task));
    this.#tasks.add(task);
  }

  #later(ms: number, action: () => unknown): void {
    const task = sleep(ms).then(action).then(() => {}, () => {})
      .finally(() => this.#tasks.delete(task));
    this.#tasks.add(task);
  }

  #watchMemory(): void {
    for (const { name, process } of this.#workers) {
      const rss = rssOf(process.pid);
      this.counts["worker rss MB"] = Math.max(
        this.counts["worker rss MB"] ?? 0,
        Math.round(rss / 1e6),
      );
      if (rss > MAX_WORKER_RSS) {
        this.#error ??= new Error(`${name} holds ${rss} bytes`);
      }
    }
    this.counts["server rss MB"] = Math.max(
      this.counts["server rss MB"] ?? 0,
      Math.round(Deno.memoryUsage().rss / 1e6),
    );
  }

  /** No more faults: what was broken is mended. */
  async #calm(): Promise<void> {
    for (const proxy of this.#proxies) {
      proxy.thaw();
      proxy.weather = {};
    }
    for (const worker of this.#workers) signal(worker.process, "SIGCONT");
    for (const netns of this.#netns) await netns.plug(true);
  }

  /** All are connected, the server ends, and so do they, by themselves. */
  async #end(): Promise<void> {
    await until(
      () => {
        this.#check();
        const there = new Set(this.#server.workers.map((w) => w.name));
        return [...this.#workers].every((w) => there.has(w.name)) &&
          this.#server.workers.every((w) =>
            w.state === "active" && w.inFlight === 0
          );
      },
      "all workers are connected when the faults are over",
      30_000,
    );
    this.#isCalm = true;
    const workers = [...this.#workers];
    await within(this.#server.close(), 30_000, "the server has ended");
    await within(this.#loads.end(), 5000, "its reader has seen the end");
    for (const { name, process } of workers) {
      const { code, stderr } = await within(
        process.exit,
        15_000,
        `${name} has ended by itself`,
      );
      if (code !== 0) throw new Error(`${name} ended with ${code}: ${stderr}`);
    }
  }
}

/** A process may have ended a moment ago. */
function signal(process: Process, name: Deno.Signal): void {
  try {
    process.signal(name);
  } catch {
    // So it has.
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
