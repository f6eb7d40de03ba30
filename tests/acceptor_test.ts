import { assert, assertEquals, assertRejects } from "@std/assert";
import { afterTurn } from "../internal/timer.ts";
import { listen, Server } from "../mod.ts";
import { memoryPair } from "./_support/memory_pair.ts";
import { within } from "./_support/within.ts";

type Outcome = "error" | "reset" | "gone" | "connection";

/** Fails again and again, with a connection between; then it waits. */
class Failing implements Deno.Listener {
  readonly addr: Deno.Addr = {
    transport: "tcp",
    hostname: "127.0.0.1",
    port: 1,
  };
  readonly #outcomes: Outcome[];
  readonly #closed = Promise.withResolvers<Deno.Conn>();
  readonly waits = Promise.withResolvers<void>();

  constructor(...outcomes: Outcome[]) {
    this.#outcomes = outcomes;
  }

  accept(): Promise<Deno.Conn> {
    const outcome = this.#outcomes.shift();
    if (outcome === "error") return Promise.reject(new Error("no more files"));
    if (outcome === "reset") {
      return Promise.reject(new Deno.errors.ConnectionReset("by its peer"));
    }
    if (outcome === "gone") { // as on macOS
      const error = new TypeError("Invalid argument (os error 22)");
      return Promise.reject(Object.assign(error, { code: "EINVAL" }));
    }
    if (outcome === "connection") {
      const [near, far] = memoryPair();
      near.close();
      return Promise.resolve(far);
    }
    this.waits.resolve();
    return this.#closed.promise;
  }

  close(): void {
    this.#closed.reject(new Deno.errors.BadResource("closed"));
  }

  ref(): void {}

  unref(): void {}

  [Symbol.dispose](): void {
    this.close();
  }

  async *[Symbol.asyncIterator](): AsyncIterableIterator<Deno.Conn> {}
}

/** The pauses of an accept loop, in ms, until there is nothing more. */
async function pausesOf(...outcomes: Outcome[]): Promise<number[]> {
  const { setTimeout } = globalThis;
  const pauses: number[] = [];
  globalThis.setTimeout = ((callback: () => void, ms: number) => {
    pauses.push(ms);
    return setTimeout(callback, ms);
  }) as typeof setTimeout;
  try {
    const listener = new Failing(...outcomes);
    await using _server = new Server(listener);
    await within(listener.waits.promise, 5000, "all are past");
    return pauses.filter((ms) => ms < 100);
  } finally {
    globalThis.setTimeout = setTimeout;
  }
}

Deno.test("Acceptor: the pause after an error doubles, and is short again after a connection", async () => {
  assertEquals(
    await pausesOf("error", "error", "error", "connection", "error", "error"),
    [5, 10, 20, 5, 10],
  );
});

Deno.test("Acceptor: who has reset its own connection costs no pause, many others' turns", async () => {
  for (const outcome of ["reset", "gone"] as const) {
    const resets = Array<Outcome>(16).fill(outcome);
    let hasTurned = false;
    afterTurn(() => hasTurned = true);
    assertEquals(await pausesOf(...resets), []);
    assert(hasTurned);
  }
});

Deno.test("Acceptor: a listener that somebody else closes aborts the server", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = new Server(listener);
  listener.close();
  const closed = within(server.closed, 5000, "no worker can come any more");
  await assertRejects(() => closed, Deno.errors.BadResource);
});

Deno.test("Acceptor.stop(): that accept() fails then is told nobody", async () => {
  const events: string[] = [];
  const server = listen({
    port: 0,
    onEvent: ({ type }) => void events.push(type),
  });
  await server.close();
  assertEquals(events, []);
});

Deno.test("Acceptor.stop(): a connection that still comes is closed", async () => {
  const coming = Promise.withResolvers<Deno.Conn>();
  const [near, far] = memoryPair();
  const server = new Server({
    addr: { transport: "tcp", hostname: "127.0.0.1", port: 1 },
    accept: () => coming.promise,
    close() {},
  } as unknown as Deno.Listener);
  const closed = server.abort();
  coming.resolve(far);
  await closed;
  assertEquals(await within(near.read(new Uint8Array(1)), 5000, "EOF"), null);
  near.close();
});
