/**
 * A soak: items flow for half an hour while workers come, leave and are shot.
 * Memory must stay flat on both sides.
 *
 * ```sh
 * deno task soak
 * deno task soak -- --minutes 5
 * ```
 *
 * Every ten seconds the resident memory of this process, the server's, and of
 * two workers that stay is taken. At the end the slope of each is fitted from
 * the first quarter on, where everything is warm.
 *
 * @module
 */

import { listen } from "../server.ts";
import { stdArgs } from "../tools/std.ts";

/** Workers that stay, and those that come and go. */
const STAYERS = 2, GUESTS = 4;
/** A guest stays so long, in ms. */
const MIN_STAY_MS = 3000, MAX_STAY_MS = 15_000;
const SAMPLE_MS = 10_000;
/** What the median of the last quarter may be above the second's, in MB. */
const MAX_GROWTH_MB = 32;

const index = Deno.args.findIndex((arg) => arg.startsWith("--minutes"));
const minutes = index < 0
  ? 30
  : Number(Deno.args[index]!.split("=")[1] ?? Deno.args[index + 1]);
if (!(minutes > 0)) {
  console.error("Usage: deno task soak -- [--minutes N]");
  Deno.exit(2);
}

const server = listen<unknown, unknown>({
  port: 0,
  maxDeliveries: 10, // guests are shot at random
  onFailure: (failure) => {
    throw failure;
  },
});
const { port } = server.addr as Deno.NetAddr;

interface Worker {
  child: Deno.ChildProcess;
  write(text: string): Promise<void>;
}

function start(name: string): Worker {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--no-check",
      ...stdArgs(),
      `--allow-net=127.0.0.1:${port}`,
      new URL("./programs/soak_worker.ts", import.meta.url).href,
      String(port),
      name,
    ],
    stdin: "piped",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
  const writer = child.stdin.getWriter();
  return {
    child,
    write: (text) =>
      writer.write(new TextEncoder().encode(text)).catch(() => {}),
  };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Resident memory in MB. */
function rss(pid: number): number {
  const [, pages] = Deno.readTextFileSync(`/proc/${pid}/statm`).split(" ");
  return Number(pages) * 4096 / 1e6;
}

let isOver = false;
let guests = 0, shot = 0, left = 0;

async function guest(): Promise<void> {
  while (!isOver) {
    const worker = start(`guest ${guests++}`);
    const stayMs = MIN_STAY_MS + Math.random() * (MAX_STAY_MS - MIN_STAY_MS);
    const end = performance.now() + stayMs;
    while (!isOver && performance.now() < end) await sleep(100);
    if (!isOver && Math.random() < 0.3) {
      shot++;
      worker.child.kill("SIGKILL");
    } else {
      left++;
      await worker.write("leave");
    }
    await worker.child.status;
  }
}

let items = 0;

/** Numbers, texts and bytes, small and large, as calls in order. */
async function calls(): Promise<void> {
  let expected = 0;
  const source = function* () {
    for (let n = 0; !isOver; n++) {
      yield n % 1000 === 0
        ? { n, bytes: new Uint8Array(32 * 1024) }
        : { n, text: `item ${n} `.repeat(n % 20) };
    }
  };
  for await (const result of server.map(source())) {
    items++;
    const { n } = result as { n: number };
    if (n !== expected++) throw new Error(`Got ${n}, not ${expected - 1}`);
  }
}

async function send(): Promise<void> {
  for (let n = 0; !isOver; n++) {
    const room = server.send(n);
    if (room) await room;
  }
  await server.end();
}

async function receive(): Promise<void> {
  for await (const _ of server) items++;
}

const stayers = Array.from({ length: STAYERS }, (_, i) => start(`stayer ${i}`));
const tasks = Array.from({ length: GUESTS }, guest);
tasks.push(calls(), send(), receive());
Promise.all(tasks).catch((error) => {
  console.error(error);
  Deno.exit(1);
});

const samples: number[][] = [];
const begin = performance.now();
console.log(`soak: ${minutes} minutes`);
console.log(" minute     items/s  server MB  heap MB  worker MB");
let before = 0;
while (performance.now() - begin < minutes * 60_000) {
  await sleep(SAMPLE_MS);
  const workers = stayers.map(({ child }) => rss(child.pid));
  const heap = Deno.memoryUsage().heapUsed / 1e6;
  samples.push([rss(Deno.pid), ...workers]);
  const minute = (performance.now() - begin) / 60_000;
  console.log(
    [
      minute.toFixed(1).padStart(7),
      Math.round((items - before) * 1000 / SAMPLE_MS).toString().padStart(11),
      samples.at(-1)![0]!.toFixed(0).padStart(10),
      heap.toFixed(0).padStart(8),
      "  " + workers.map((mb) => mb.toFixed(0).padStart(4)).join(" "),
    ].join(" "),
  );
  before = items;
}
isOver = true;
await Promise.all(tasks.slice(0, -1));
await server.close();
for (const { child } of stayers) {
  const { code } = await child.status;
  if (code !== 0) throw new Error(`A worker that stayed ended with ${code}`);
}

const median = (numbers: number[]) =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;
const quarter = Math.floor(samples.length / 4);
const stats = server.stats();
console.log(
  `\n${items} items, ${guests} guests, ${left} left, ${shot} were shot; ${stats.redelivered} items redelivered, ${stats.failed} failed`,
);
let isFlat = true;
for (let who = 0; who <= STAYERS; who++) {
  const of = (from: number, to?: number) =>
    median(samples.slice(from, to).map((sample) => sample[who]!));
  const early = of(quarter, 2 * quarter), late = of(-quarter || -1);
  const name = who === 0 ? "server" : `worker ${who}`;
  console.log(
    `${name}: ${early.toFixed(1)} MB in the second quarter, ${
      late.toFixed(1)
    } MB in the last`,
  );
  if (late - early > MAX_GROWTH_MB) isFlat = false;
}
console.log(isFlat ? "Memory is flat." : "Memory has grown.");
Deno.exit(isFlat ? 0 : 1);
