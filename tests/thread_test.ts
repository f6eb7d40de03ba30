import { assertLessOrEqual } from "@std/assert";
import "node:worker_threads"; // what loads it later has it at once
import { listen, work } from "../mod.ts";
import { startSoon } from "../internal/thread.ts";
import { afterTurn } from "../internal/timer.ts";
import { within } from "./_support/within.ts";

const THREADS = 12;
const LOADED = "DISTCHAN_TEST_LOADED_";

/** A module that says in the environment, which threads share, that it loads. */
const MODULE = new URL(
  "data:text/javascript," + encodeURIComponent(
    `Deno.env.set("${LOADED}" + crypto.randomUUID(), "1");` +
      "export default (n) => n;",
  ),
);

function loaded(): string[] {
  return Object.keys(Deno.env.toObject()).filter((k) => k.startsWith(LOADED));
}

/** Threads come no faster than the turns of the event loop. */
async function eachInItsTurn(): Promise<void> {
  for (let turns = 1, count = 0; count < THREADS; turns++) {
    await new Promise<void>((resolve) => afterTurn(resolve));
    count = loaded().length;
    assertLessOrEqual(count, turns + 1);
  }
}

for (const kind of ["threads of a local pool", "isolates"] as const) {
  Deno.test(`${kind} start one a turn of the event loop`, async () => {
    await using server = listen<number, number>({ port: 0 });
    const { port } = server.addr;
    const leave = new AbortController();
    try {
      if (kind === "isolates") {
        const options = { concurrency: THREADS, isolate: true };
        work({ port, signal: leave.signal }, MODULE, options).catch(() => {});
      } else server.spawn(MODULE, { count: THREADS });
      await within(eachInItsTurn(), 50_000, kind);
      await server.ready();
    } finally {
      leave.abort();
      for (const name of loaded()) Deno.env.delete(name);
    }
  });
}

Deno.test("threads of a local pool that has ended aren't started any more", async () => {
  const server = listen<number, number>({ port: 0 });
  server.spawn(MODULE, { count: 3 });
  await import("node:worker_threads"); // as each of them does first
  await server.abort();
  // Behind them. One that had been started would leak now.
  await new Promise<void>((resolve) => startSoon(resolve));
});
