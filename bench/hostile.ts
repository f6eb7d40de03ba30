/**
 * A working pool, and everything at once that somebody on the network can do
 * to it without belonging to it:
 *
 * - 500 connections that say one byte a second, and come again when dropped,
 * - 1,000 connections a second that send garbage,
 * - a gzip bomb a second, by a peer that did the handshake.
 *
 * ```sh
 * deno run -A tools/std.ts run -A bench/hostile.ts --seconds 30 --rounds 3
 * ```
 *
 * In each round the attack is run twice, so that the processors are as busy
 * both times: at another server (the pool is undisturbed), and at the pool's.
 * What is compared is the pool's items a second, and the median of the rounds is
 * taken. It ends with status 1 if less than 70 % are left, or the server's
 * memory grew by more than 256 MiB.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import {
  Client,
  gzip,
  listen,
  type ServerOptions,
  type Transform,
  work,
} from "../mod.ts";
import { stdArgs } from "../tools/std.ts";

const SLOW = 500;
const GARBAGE_A_SECOND = 1000;
const MIN_SHARE = 0.7;
const MAX_GROWTH_BYTES = 256 * 1024 * 1024;
/** Loopback addresses, so that ports don't run out. */
const ADDRESSES = 8;
const WARM_UP_MS = 3000;
const MIB = 1024 * 1024;

/** What a server says of itself at the end of a measurement. */
interface Figures {
  itemsASecond: number;
  rssBefore: number;
  rssMax: number;
  rejected: number;
  bombs: number;
  /** Of a processor, in percent. */
  processor: number;
}

// --- The server: a pool, and beside it an end that takes gzip ---

async function serve(): Promise<void> {
  let rejected = 0, bombs = 0;
  const options: ServerOptions<number, number> = {
    insecure: true,
    onEvent(event) {
      if (event.type === "rejected") rejected++;
      if (event.type === "disconnected" && event.code === "transforms") bombs++;
    },
  };
  const hostname = "0.0.0.0";
  const pool = listen<number, number>({ ...options, hostname, port: 0 });
  const zipped = listen<number, number>({
    ...options,
    hostname,
    port: 0,
    transforms: [gzip()],
  });
  const ports = [pool, zipped].map(({ addr }) => (addr as Deno.NetAddr).port);
  console.log(JSON.stringify(ports));
  let results = 0;
  let rssMax = 0;
  const run = async () => {
    for await (const _ of pool.map(numbers(), { ordered: false })) results++;
  };
  let running: Promise<void> | undefined;
  for await (const line of lines(Deno.stdin.readable)) {
    const { seconds } = JSON.parse(line) as { seconds: number };
    if (seconds === 0) break;
    await sleep(WARM_UP_MS);
    // A decoy has no workers, and nothing to do.
    if (pool.workers.length > 0) running ??= run();
    await sleep(WARM_UP_MS);
    const before = results, startedAt = performance.now();
    const rssBefore = Deno.memoryUsage().rss;
    [rejected, bombs, rssMax] = [0, 0, rssBefore];
    const cpu = process.cpuUsage();
    const timer = setInterval(() => {
      rssMax = Math.max(rssMax, Deno.memoryUsage().rss);
    }, 100);
    await sleep(seconds * 1000);
    clearInterval(timer);
    const ms = performance.now() - startedAt;
    const { user, system } = process.cpuUsage(cpu);
    const figures: Figures = {
      itemsASecond: (results - before) / ms * 1000,
      rssBefore,
      rssMax,
      rejected,
      bombs,
      processor: (user + system) / 10 / ms,
    };
    console.log(JSON.stringify(figures));
  }
  Deno.exit();
}

function* numbers(): Generator<number> {
  for (let i = 0;; i = (i + 1) % 1000) yield i;
}

// --- The attackers ---

async function attack(pool: number, zipped: number): Promise<void> {
  for (let i = 0; i < SLOW; i++) slow(pool, i);
  const bomb = await bombOf(256);
  const startedAt = performance.now();
  for (let sent = 0, bombs = 0;;) {
    // As many as are due, so that a late timer doesn't make it milder.
    const seconds = (performance.now() - startedAt) / 1000;
    for (; sent < seconds * GARBAGE_A_SECOND; sent++) garbage(pool, sent);
    for (; bombs < seconds; bombs++) throwBomb(zipped, bomb).catch(() => {});
    await sleep(10);
  }
}

async function slow(port: number, i: number): Promise<void> {
  const byte = new Uint8Array([0]);
  for (;;) {
    try {
      const conn = await Deno.connect({ hostname: address(i), port });
      conn.readable.pipeTo(new WritableStream()).catch(() => {});
      // The length of a frame, then HELLO, and on and on.
      for (const value of [0, 0, 1, 0, 1, ...new Array(250).fill(0x61)]) {
        byte[0] = value;
        await conn.write(byte);
        await sleep(1000);
      }
    } catch {
      // Dropped: it comes again.
    }
  }
}

async function garbage(port: number, i: number): Promise<void> {
  try {
    using conn = await Deno.connect({ hostname: address(i), port });
    await conn.write(crypto.getRandomValues(new Uint8Array(64)));
    await conn.read(new Uint8Array(1024));
  } catch {
    // As it should be.
  }
}

async function throwBomb(port: number, bomb: Uint8Array): Promise<void> {
  let isArmed = false;
  const bomber: Transform = {
    name: "gzip",
    open(context) {
      const good = gzip().open(context);
      return {
        encode: (bytes) => isArmed ? bomb : good.encode(bytes),
        decode: (bytes) => good.decode(bytes),
      };
    },
  };
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  const client = new Client<number, number>(conn, { transforms: [bomber] });
  await client.opened;
  isArmed = true;
  client.send(1);
  await client.closed;
}

async function bombOf(mebibytes: number): Promise<Uint8Array> {
  const zeros = new Uint8Array(MIB);
  const stream = ReadableStream.from(
    (function* () {
      for (let i = 0; i < mebibytes; i++) yield zeros;
    })(),
  );
  return await new Response(
    stream.pipeThrough(new CompressionStream("gzip")),
  ).bytes();
}

function address(i: number): string {
  return `127.0.0.${1 + i % ADDRESSES}`;
}

// --- The measurement ---

async function measure(seconds: number, rounds: number): Promise<void> {
  using pool = new Program("server");
  using decoy = new Program("server");
  const poolPorts = JSON.parse(await pool.line()) as number[];
  const decoyPorts = JSON.parse(await decoy.line()) as number[];
  using _worker = new Program("worker", String(poolPorts[0]));
  console.log(
    `${rounds} rounds of ${seconds} s each, on ${navigator.hardwareConcurrency} cores`,
  );
  report("alone", await pool.figures(seconds));
  const shares: number[] = [], growths: number[] = [];
  for (let round = 0; round < rounds; round++) {
    let undisturbed: Figures, attacked: Figures;
    {
      using _attack = new Program("attack", ...decoyPorts.map(String));
      const other = decoy.figures(seconds);
      undisturbed = await pool.figures(seconds);
      report("undisturbed, the attack is elsewhere", undisturbed);
      report("  (there)", await other);
    }
    {
      using _attack = new Program("attack", ...poolPorts.map(String));
      attacked = await pool.figures(seconds);
      report("attacked", attacked);
    }
    shares.push(attacked.itemsASecond / undisturbed.itemsASecond);
    growths.push(attacked.rssMax - attacked.rssBefore);
  }
  const percents = shares.map((share) => `${Math.round(share * 100)} %`);
  const share = shares.toSorted((a, b) => a - b)[rounds >> 1]!;
  const growth = Math.max(...growths);
  console.log(
    `${Math.round(share * 100)} % of the undisturbed pool's items (${
      percents.join(", ")
    }), memory grew by ${Math.round(growth / MIB)} MiB`,
  );
  if (share < MIN_SHARE || growth > MAX_GROWTH_BYTES) {
    console.log(
      `not ok: expected at least ${MIN_SHARE * 100} % and at most ${
        MAX_GROWTH_BYTES / MIB
      } MiB`,
    );
    Deno.exitCode = 1;
  }
}

function report(what: string, figures: Figures): void {
  const { itemsASecond, rssMax, rejected, bombs, processor } = figures;
  console.log(
    `${what}: ${Math.round(itemsASecond)} items/s, memory ${
      Math.round(rssMax / MIB)
    } MiB at most, ${
      Math.round(processor)
    } % of a processor, ${rejected} rejected, ${bombs} bombs`,
  );
}

/** A process of this file. */
class Program implements Disposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncIterableIterator<string>;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;

  constructor(...args: string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", ...stdArgs(), import.meta.filename!, ...args],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#lines = lines(this.#child.stdout);
    this.#stdin = this.#child.stdin.getWriter();
  }

  /** The next line that it prints. */
  async line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("The process has ended");
    return value;
  }

  /** Lets a server measure. */
  async figures(seconds: number): Promise<Figures> {
    await this.#stdin.write(
      new TextEncoder().encode(JSON.stringify({ seconds }) + "\n"),
    );
    return JSON.parse(await this.line());
  }

  [Symbol.dispose](): void {
    this.#child.kill("SIGKILL");
  }
}

async function* lines(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncIterableIterator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

if (import.meta.main) {
  const [program, ...rest] = Deno.args;
  const ports = rest.map(Number);
  if (program === "server") await serve();
  else if (program === "worker") {
    await work<number, number>({ port: ports[0]! }, (n) => n + 1);
  } else if (program === "attack") await attack(ports[0]!, ports[1]!);
  else {
    const { values } = parseArgs({
      args: Deno.args,
      options: {
        seconds: { type: "string", default: "30" },
        rounds: { type: "string", default: "3" },
      },
    });
    await measure(Number(values.seconds), Number(values.rounds));
  }
}
