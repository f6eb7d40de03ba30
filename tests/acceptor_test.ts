import { assertEquals } from "@std/assert";
import { Server } from "../mod.ts";
import { memoryPair } from "./_support/memory_pair.ts";
import { within } from "./_support/within.ts";

/** Fails again and again, with a connection between; then it waits. */
class Failing implements Deno.Listener {
  readonly addr: Deno.Addr = {
    transport: "tcp",
    hostname: "127.0.0.1",
    port: 1,
  };
  readonly #outcomes: ("error" | "connection")[];
  readonly #closed = Promise.withResolvers<Deno.Conn>();
  readonly waits = Promise.withResolvers<void>();

  constructor(...outcomes: ("error" | "connection")[]) {
    this.#outcomes = outcomes;
  }

  accept(): Promise<Deno.Conn> {
    const outcome = this.#outcomes.shift();
    if (outcome === "error") return Promise.reject(new Error("no more files"));
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

Deno.test("Acceptor: the pause after an error doubles, and is short again after a connection", async () => {
  const { setTimeout } = globalThis;
  const pauses: number[] = [];
  globalThis.setTimeout = ((callback: () => void, ms: number) => {
    pauses.push(ms);
    return setTimeout(callback, ms);
  }) as typeof setTimeout;
  try {
    const listener = new Failing(
      "error",
      "error",
      "error",
      "connection",
      "error",
      "error",
    );
    await using _server = new Server(listener);
    await within(listener.waits.promise, 5000, "all are past");
    assertEquals(pauses.filter((ms) => ms < 100), [5, 10, 20, 5, 10]);
  } finally {
    globalThis.setTimeout = setTimeout;
  }
});
