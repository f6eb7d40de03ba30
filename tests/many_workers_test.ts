/** Many workers on one server. */
import { assert, assertEquals } from "@std/assert";
import { Client, Server } from "../mod.ts";
import { range } from "./_support/channel_kit.ts";
import { MemoryListener } from "./_support/memory_pair.ts";
import { within } from "./_support/within.ts";

Deno.test("500 workers on one server: all get work, 20,000 items come in order", async () => {
  const listener = new MemoryListener();
  const server = new Server<number, number>(listener, {
    handshakeTimeoutMs: 60_000, // on a busy machine 500 take their time
  });
  const workers = range(500).map(() => {
    const client = new Client<number, number>(listener.connect(), {
      handshakeTimeoutMs: 60_000,
    });
    return client.work((n) => n * 2);
  });
  await within(server.ready(500), 60_000, "all are there");
  let next = 0;
  for await (const result of server.map(range(20_000))) {
    assertEquals(result, next++ * 2);
  }
  assertEquals(next, 20_000);
  const settled = server.workers.map((w) => w.settled);
  assert(Math.min(...settled) > 0, "all get work");
  await within(server.close(), 30_000, "the end");
  await Promise.all(workers);
});
