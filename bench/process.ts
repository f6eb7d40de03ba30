/**
 * Runs the programs of one measurement: a server, then its workers, each in a
 * process of its own.
 *
 * @module
 */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stdArgs } from "../tools/std.ts";
import type { Config, Report } from "./workload.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** A pair of programs. */
export interface Programs {
  /** What it is called in messages. */
  name: string;
  /** They are `programs/PROGRAM_server.ts` and `programs/PROGRAM_worker.ts`. */
  program: string;
  /** The checkout that they are in; this one by default. */
  root?: string;
}

/** How to run. */
export interface RunOptions {
  /** The processors that all processes are pinned to, as taskset has it. */
  cpus?: string;
  /** Where CPU profiles go. */
  profileDir?: string;
  /** Arguments for V8, such as `--expose-gc`. */
  v8Flags?: string;
}

/** What a run came to. */
export interface Outcome {
  /** What the server reported, if anything. */
  server: Report | null;
  /** What the workers reported. */
  workers: Report[];
  /** The largest resident memory of the server in each phase, in bytes. */
  serverRss: number[];
  /** The same, of the largest worker. */
  workerRss: number[];
  /**
   * What others took of the machine meanwhile, in processors; NaN if that
   * can't be known.
   */
  others: number;
}

type Message = { port: number } | { report: Report } | { phase: number };

/** How long a run may take, in ms. */
const TIMEOUT_MS = 120_000;
/** If there are more workers, only the server is profiled. */
const MAX_PROFILED_WORKERS = 8;
/** How often memory is looked at, in ms. */
const SAMPLE_MS = 50;

/** Runs a pair of programs once. */
export async function run(
  peer: Programs,
  config: Config,
  options: RunOptions = {},
): Promise<Outcome> {
  const outcome: Outcome = {
    server: null,
    workers: [],
    serverRss: [],
    workerRss: [],
    others: NaN,
  };
  const port = Promise.withResolvers<number>();
  let phase = 0;
  const children: Deno.ChildProcess[] = [];
  const start = (
    role: "server" | "worker",
    config: Config,
    onMessage: (message: Message) => void,
  ): Promise<void> => {
    const child = spawn(peer, role, config, options);
    children.push(child);
    return follow(child, `${peer.name} ${role}`, onMessage);
  };
  const end = () => {
    for (const child of children) {
      try {
        child.kill("SIGKILL");
      } catch {
        // Ended already.
      }
    }
  };
  const timer = setTimeout(end, TIMEOUT_MS);
  const startedAt = performance.now();
  const busyBefore = machineTicks();
  const sample = () => {
    const [server, ...workers] = children.map(({ pid }) => rss(pid));
    raise(outcome.serverRss, phase, server ?? 0);
    raise(outcome.workerRss, phase, Math.max(...workers));
  };
  const sampler = setInterval(sample, SAMPLE_MS);
  try {
    const server = start("server", config, (message) => {
      if ("port" in message) port.resolve(message.port);
      else if ("phase" in message) phase = message.phase;
      else outcome.server = message.report;
    });
    server.catch(port.reject);
    const workerConfig = { ...config, port: await port.promise };
    const all = [server];
    for (let i = 0; i < config.workers; i += config.workersAProcess) {
      all.push(start("worker", workerConfig, (message) => {
        if ("report" in message) outcome.workers.push(message.report);
      }));
    }
    const before = childTicks();
    await Promise.all(all);
    const own = childTicks() - before;
    const ms = performance.now() - startedAt;
    const others = machineTicks() - busyBefore - own;
    outcome.others = Math.max(0, others * 1000 / TICKS_PER_SECOND / ms);
    return outcome;
  } finally {
    clearTimeout(timer);
    clearInterval(sampler);
    end();
  }
}

function spawn(
  peer: Programs,
  role: "server" | "worker",
  config: Config,
  { cpus, profileDir, v8Flags }: RunOptions,
): Deno.ChildProcess {
  const root = peer.root ?? ROOT;
  const args = ["run", "--quiet", "--no-check", "-A", ...stdArgs()];
  // A profiler in each of many workers would be most of what there is to see.
  if (
    profileDir !== undefined &&
    (role === "server" ||
      config.workers <= MAX_PROFILED_WORKERS * config.workersAProcess)
  ) {
    const dir = join(profileDir, `${config.scenario}_${peer.program}_${role}`);
    args.push("--cpu-prof", `--cpu-prof-dir=${dir}`);
  }
  if (v8Flags !== undefined) args.push(`--v8-flags=${v8Flags}`);
  args.push(
    join(root, "bench/programs", `${peer.program}_${role}.ts`),
    JSON.stringify(config),
  );
  const deno = Deno.execPath();
  const command = cpus === undefined
    ? new Deno.Command(deno, { args, stdin: "null", stdout: "piped" })
    : new Deno.Command("taskset", {
      args: ["-c", cpus, deno, ...args],
      stdin: "null",
      stdout: "piped",
    });
  return command.spawn();
}

/** Hands on what a process tells, until it has ended. */
async function follow(
  child: Deno.ChildProcess,
  name: string,
  onMessage: (message: Message) => void,
): Promise<void> {
  let text = "";
  for await (
    const chunk of child.stdout.pipeThrough(new TextDecoderStream())
  ) {
    const lines = (text + chunk).split("\n");
    text = lines.pop()!;
    for (const line of lines) onMessage(JSON.parse(line));
  }
  const { success, code, signal } = await child.status;
  if (!success) throw new Error(`${name} ended with ${signal ?? code}`);
}

/** The kernel's unit of time in /proc. */
const TICKS_PER_SECOND = 100;

/**
 * Waits until others leave the machine alone, but no longer than 5 s.
 *
 * @param others What they may take, in processors.
 */
export async function waitForQuiet(others: number): Promise<void> {
  for (let i = 0; i < 20; i++) {
    const before = machineTicks();
    await new Promise((resolve) => setTimeout(resolve, 250));
    const busy = machineTicks() - before;
    if (!(busy * 4 / TICKS_PER_SECOND > others)) return;
  }
}

/**
 * What all processes together have taken so far, but for those that let others
 * go first (`nice`); NaN if that can't be known.
 */
function machineTicks(): number {
  const [, user = NaN, , system = NaN, , , irq = 0, softirq = 0] = proc("stat")
    .split("\n")[0]!.split(/\s+/).map(Number);
  return user + system + irq + softirq;
}

/** What children that have ended, and been waited for, have taken. */
function childTicks(): number {
  const fields = proc("self/stat").split(") ").at(-1)!.split(" ");
  return Number(fields[13]) + Number(fields[14]);
}

function proc(path: string): string {
  try {
    return Deno.readTextFileSync(`/proc/${path}`);
  } catch {
    return "";
  }
}

function raise(values: number[], i: number, value: number): void {
  values[i] = Math.max(values[i] ?? 0, value);
}

/** Resident memory of a process, in bytes; 0 if that can't be known. */
function rss(pid: number): number {
  const status = proc(`${pid}/status`);
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
}
