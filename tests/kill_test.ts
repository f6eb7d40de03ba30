/**
 * Workers in `work()` die by SIGKILL at any moment, 100 in a row: no result is
 * lost, doubled or invented, whichever way its item went in.
 */
import { assert, assertEquals } from "@std/assert";
import { listen } from "../mod.ts";
import { ROOT, startDeno } from "./_support/process.ts";
import { seeded } from "./_support/rng.ts";
import { within } from "./_support/within.ts";

const PROGRAM = `${ROOT}tests/_support/program.ts`;
const KILLS = 100;
/** Workers at a time. */
const SLOTS = 4;
/** Ways in don't share numbers, so that a result betrays where it belongs. */
const SENT = 0, MAPPED = 1e9, SUBMITTED = 2e9;

Deno.test("Workers killed 100 times in a row: every result comes exactly once", async () => {
  const rng = seeded("kill");
  const connected = new Map<string, () => void>();
  const server = listen<number, number>({
    port: 0,
    maxDeliveries: Infinity,
    onEvent: (event) => {
      if (event.type === "connected") connected.get(event.worker.name)?.();
    },
  });
  const { port } = server.addr as Deno.NetAddr;
  let isOver = false;

  let sent = 0;
  const sending = (async () => {
    for (; !isOver; sent++) await server.send(SENT + sent);
    await server.end();
  })();
  const seen = new Set<number>();
  const reading = (async () => {
    for await (const result of server) {
      assert(!seen.has(result), `${result} came twice`);
      seen.add(result);
    }
  })();

  let mapped = 0;
  const mapping = (async () => {
    const source = (function* () {
      for (let n = 0; !isOver; n++) yield MAPPED + n;
    })();
    for await (const result of server.map(source, { window: 50 })) {
      assertEquals(result, (MAPPED + mapped++) * 2);
    }
  })();

  let submitted = 0;
  const submitting = Promise.all(
    Array.from({ length: 10 }, async () => {
      while (!isOver) {
        const n = SUBMITTED + submitted++;
        assertEquals(await server.submit(n), n * 2);
      }
    }),
  );

  let started = 0, atWork = 0;
  const slot = async () => {
    while (started < KILLS) {
      const name = `worker ${started++}`;
      // By chance at work, after so many results, or while it starts.
      const isAtWork = rng.chance(0.8);
      const results = rng.int(0, 60), delayMs = rng.int(0, isAtWork ? 5 : 400);
      const { promise, resolve } = Promise.withResolvers<void>();
      connected.set(name, resolve);
      await using worker = startDeno([
        "-A",
        PROGRAM,
        "double",
        `${port}`,
        `${rng.int(1, 4)}`,
        `${rng.int(1, 3)}`,
        name,
      ]);
      if (isAtWork) {
        const early = worker.exit.then(({ stderr }) => {
          throw new Error(`${name} has ended: ${stderr}`);
        });
        early.catch(() => {});
        await within(
          Promise.race([promise, early]),
          30_000,
          `${name} connects`,
        );
        atWork++;
        const settled = () =>
          server.workers.find((w) => w.name === name)?.settled ?? Infinity;
        const deadline = performance.now() + 1000;
        while (settled() < results && performance.now() < deadline) {
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      }
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      worker.signal("SIGKILL");
      assertEquals((await worker.exit).signal, "SIGKILL");
    }
  };
  const work = Promise.all([reading, mapping, submitting]);
  await Promise.race([
    Promise.all(Array.from({ length: SLOTS }, slot)),
    work, // fails first
  ]);

  isOver = true;
  await using last = startDeno(["-A", PROGRAM, "double", `${port}`, "1", "8"]);
  await within(Promise.all([sending, work]), 30_000, "all is settled");
  await within(server.closed, 5000, "closed");
  assertEquals((await last.exit).code, 0);

  assertEquals(seen.size, sent);
  for (let n = 0; n < sent; n++) {
    assert(seen.has((SENT + n) * 2), `the result of ${n} is lost`);
  }
  const { redelivered, settled, failed } = server.stats();
  assertEquals(settled, sent + mapped + submitted);
  assertEquals(failed, 0);
  assert(redelivered > 0);
  console.log(
    `${KILLS} killed, ${atWork} at work; ${settled} settled, ${redelivered} redelivered`,
  );
});
