/**
 * 500 workers on one server: what an idle connection costs, and whether all get
 * work.
 *
 * ```sh
 * deno run -A tools/std.ts run -A bench/idle.ts
 * ```
 *
 * The goal is less than 30 KiB a connection, and no timer for each.
 *
 * @module
 */

import process from "node:process";
import { stdArgs } from "../tools/std.ts";
import type { listen as Listen } from "../server.ts";

const WORKERS = 500, PROCESSES = 5, ITEMS = 20_000;
const GOAL_KIB = 30;

if (Deno.args[0] !== "--server") {
  // Only with gc() the figures are of what is held, not of what is left over.
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      "--v8-flags=--expose-gc",
      ...stdArgs(),
      import.meta.url,
      "--server",
    ],
  }).spawn().status;
  Deno.exit(code);
}

const timers = new Set<unknown>();
for (const name of ["setTimeout", "setInterval"] as const) {
  const set = globalThis[name] as unknown as (...args: unknown[]) => number;
  const isOnce = name === "setTimeout";
  // deno-lint-ignore no-explicit-any
  (globalThis as any)[name] = (
    run: (...args: unknown[]) => void,
    ...args: unknown[]
  ) => {
    const id = set((...given: unknown[]) => {
      if (isOnce) timers.delete(id);
      run(...given);
    }, ...args);
    timers.add(id);
    return id;
  };
}
for (const name of ["clearTimeout", "clearInterval"] as const) {
  const clear = globalThis[name];
  globalThis[name] = (id) => {
    timers.delete(id);
    clear(id);
  };
}
// Behind the counting of timers.
const { listen } = await import("../server.ts") as { listen: typeof Listen };

const gc = (globalThis as unknown as { gc(): void }).gc;

async function memory(): Promise<{ held: number; rss: number }> {
  for (let i = 0; i < 5; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const { heapUsed, external, rss } = Deno.memoryUsage();
  return { held: heapUsed + external, rss };
}

function clients(port: number, count: number): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      ...stdArgs(),
      new URL("./programs/idle_clients.ts", import.meta.url).href,
      String(port),
      String(count),
    ],
  }).spawn();
}

/** A server that has had 50 workers, so that its code is warm. */
async function warmUp(): Promise<void> {
  const server = listen<number, number>({ port: 0 });
  const child = clients((server.addr as Deno.NetAddr).port, 50);
  await server.ready(50);
  for await (const _ of server.map(Array.from({ length: 5000 }, (_, i) => i)));
  await server.close();
  await child.status;
}

await warmUp();
const server = listen<number, number>({ port: 0 });
const { port } = server.addr as Deno.NetAddr;
const before = await memory();
const timersBefore = timers.size;
const children = Array.from(
  { length: PROCESSES },
  () => clients(port, WORKERS / PROCESSES),
);
await server.ready(WORKERS);
while (server.workers.some((w) => w.state !== "active")) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
const idle = await memory();
const moreTimers = timers.size - timersBefore;
const cpu = process.cpuUsage();
await new Promise((resolve) => setTimeout(resolve, 5000));
const { user, system } = process.cpuUsage(cpu);

const start = performance.now();
let expected = 0;
for await (
  const result of server.map(Array.from({ length: ITEMS }, (_, i) => i))
) {
  if (result !== expected * 2) throw new Error(`Got ${result} at ${expected}`);
  expected++;
}
const tookMs = performance.now() - start;
const settled = server.workers.map((worker) => worker.settled);
const after = await memory();
await server.close();
for (const child of children) await child.status;

const each = (now: { held: number; rss: number }, of: "held" | "rss") =>
  (now[of] - before[of]) / WORKERS / 1024;
const kib = each(idle, "held");
console.log(
  `${WORKERS} workers in ${PROCESSES} processes, Deno ${Deno.version.deno}
heap, an idle connection     ${kib.toFixed(1)} KiB (goal: < ${GOAL_KIB})
resident, likewise           ${each(idle, "rss").toFixed(1)} KiB
heap, after the work         ${each(after, "held").toFixed(1)} KiB
timers for all connections   ${moreTimers}
processor, all of them idle  ${((user + system) / 5e4).toFixed(2)} %
${ITEMS} items in order       ${Math.round(tookMs)} ms
items a worker               ${Math.min(...settled)} to ${
    Math.max(...settled)
  }`,
);
const isGood = kib < GOAL_KIB && moreTimers <= 2 && Math.min(...settled) > 0;
Deno.exit(isGood ? 0 : 1);
