/** A lot, for a while: memory stays flat, nothing leaks. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { connect, listen, type Server, work } from "../mod.ts";
import { type Process, ROOT, startDeno } from "./_support/process.ts";
import { until, within } from "./_support/within.ts";

const PROGRAM = `${ROOT}tests/_support/program.ts`;
const MB = 1_000_000;

/** Starts a worker process that sends back what it gets. */
function echo(addr: Deno.Addr): Process {
  const { port } = addr as Deno.NetAddr;
  return startDeno(["-A", PROGRAM, "echo", `${port}`]);
}

/** Memory of a process in bytes; of this one, or where /proc tells. */
function memoryOf(pid: number): number {
  if (pid === Deno.pid) return Deno.memoryUsage().rss;
  if (Deno.build.os !== "linux") return 0;
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(status.match(/VmRSS:\s+(\d+)/)![1]) * 1024;
}

Deno.test("1,000,000 small items go through one worker process, with memory flat", async () => {
  const count = 1_000_000;
  const server = listen<number, number>({ port: 0 });
  await using worker = echo(server.addr);
  await server.ready();
  const sending = (async () => {
    for (let n = 0; n < count; n++) {
      const room = server.send(n);
      if (room !== undefined) await room;
    }
    await server.end();
  })();
  const pids = [Deno.pid, worker.pid];
  // What other tests have left in this process may be freed meanwhile: only
  // what rises again above the least so far is growth.
  const least = pids.map(() => Infinity), growth = pids.map(() => 0);
  let next = 0;
  for await (const n of server) {
    if (n !== next++) throw new Error(`${n} came, expected ${next - 1}`);
    // The first fifth warms up: code is compiled, heaps find their size.
    if (next % 50_000 !== 0 || next < count / 5) continue;
    pids.forEach((pid, i) => {
      const bytes = memoryOf(pid);
      least[i] = Math.min(least[i]!, bytes);
      growth[i] = Math.max(growth[i]!, (bytes - least[i]!) / MB);
    });
  }
  await sending;
  assertEquals(next, count);
  await server.closed;
  assertEquals((await worker.exit).code, 0);
  console.log(`memory grew by ${growth.map(Math.round)} MB (server, worker)`);
  for (const mb of growth) assertLess(mb, 80);
});

/** Sends 4,000 items of 64 KiB and reads as many back. */
async function transfer(
  server: Server<Uint8Array, Uint8Array>,
  onProgress: (count: number) => void = () => {},
): Promise<number> {
  const count = 4000;
  const before = Deno.memoryUsage().rss;
  let most = before;
  const item = new Uint8Array(65_536);
  const sending = (async () => {
    for (let n = 0; n < count; n++) await server.send(item);
    await server.end();
  })();
  let got = 0;
  for await (const result of server) {
    assertEquals(result.length, 65_536);
    onProgress(++got);
    most = Math.max(most, Deno.memoryUsage().rss);
  }
  await sending;
  assertEquals(got, count);
  return (most - before) / MB;
}

Deno.test({
  name:
    "A worker stopped next to a healthy one: 4,000 items of 64 KiB are done",
  ignore: Deno.build.os === "windows",
  async fn() {
    const server = listen<Uint8Array, Uint8Array>({
      port: 0,
      heartbeat: { intervalMs: 200, timeoutMs: 1000, dropMs: 2000 },
    });
    await using stopped = echo(server.addr);
    await using healthy = echo(server.addr);
    await server.ready(2);
    const growth = await transfer(server, (count) => {
      if (count === 100) stopped.signal("SIGSTOP");
    });
    await within(server.closed, 5000, "closed");
    console.log(`memory grew by ${Math.round(growth)} MB`);
    assertLess(growth, 200);
    assert(server.stats().redelivered > 0);
    assertEquals((await healthy.exit).code, 0);
  },
});

Deno.test("A reader that never reads next to a healthy worker: 4,000 items of 64 KiB are done", async () => {
  const server = listen<Uint8Array, Uint8Array>({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  const reader = await connect<Uint8Array, Uint8Array>({ port });
  reader.readable;
  await using healthy = echo(server.addr);
  await server.ready(2);
  let unread = 0;
  const growth = await transfer(server, (count) => {
    const [{ inFlight } = { inFlight: 0 }] = server.workers;
    unread = Math.max(unread, inFlight);
    // All but what it holds is done: it gives up, and that is done too.
    if (count === 4000 - inFlight) reader.abort();
  });
  assert(unread > 0 && unread <= 64, `it held ${unread}`);
  console.log(`memory grew by ${Math.round(growth)} MB`);
  assertLess(growth, 200);
  assertEquals((await healthy.exit).code, 0);
});

Deno.test({
  name: "200 connects and disconnects leave no descriptor",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const server = listen<number, number>({ port: 0 });
    const { port } = server.addr as Deno.NetAddr;
    const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
    const visit = async () => {
      const leave = new AbortController();
      const working = work<number, number>({ port }, (n) => n, {
        signal: leave.signal,
      });
      assertEquals(await server.submit(1), 1);
      leave.abort();
      await working;
    };
    await visit();
    await until(() => server.workers.length === 0, "it is gone");
    const before = descriptors();
    for (let i = 0; i < 200; i++) await visit();
    await until(
      () => descriptors() <= before,
      `${descriptors()} descriptors are open, ${before} were`,
    );
    await server.close();
  },
});
