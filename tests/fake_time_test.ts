/**
 * Where a test fakes time, the global timers stand still. What distchan does
 * meanwhile is not a matter of time, and goes on.
 */
import { assertEquals } from "@std/assert";
import { listen, work } from "../mod.ts";
import { within } from "./_support/within.ts";

/** Global timers that never fire, as those of `FakeTime` between its ticks. */
function standStill(): Disposable {
  const { setTimeout, setInterval, clearTimeout, clearInterval } = globalThis;
  const stopped = { setTimeout: () => 0, setInterval: () => 0 };
  const clear = { clearTimeout: () => {}, clearInterval: () => {} };
  Object.assign(globalThis, stopped, clear);
  return {
    [Symbol.dispose]: () =>
      void Object.assign(globalThis, {
        setTimeout,
        setInterval,
        clearTimeout,
        clearInterval,
      }),
  };
}

/** Works to the end of a server, its timers standing still. */
async function run(): Promise<void> {
  using _still = standStill();
  const server = listen<number, Uint8Array>({ port: 0 });
  const { port } = server.addr;
  const workers = Array.from(
    { length: 9 }, // more than are accepted in one turn
    () => work<number, Uint8Array>({ port }, (n) => new Uint8Array(n)),
  );
  await server.ready(9);
  assertEquals((await server.submit(3)).length, 3);
  let bytes = 0;
  // So much that who reads it lets others have their turns.
  for await (const result of server.map(Array(60).fill(1_000_000))) {
    bytes += result.length;
  }
  assertEquals(bytes, 60_000_000);
  server.map([1]); // never iterated: it doesn't hold up the end
  await server.end();
  await server.closed;
  await Promise.all(workers);
}

Deno.test("a server and its workers come to their end while timers stand still", async () => {
  // `within` has its own first.
  await within(Promise.resolve().then(run), 20_000, "the end");
});
