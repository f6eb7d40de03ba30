/**
 * The programs that tests run as processes of their own:
 *
 *     deno run -A tests/_support/program.ts NAME PORT [ARGUMENT…]
 *
 * @module
 */

import { type ClientEvent, connect, listen, work } from "../../mod.ts";

/** Each program, by its name. */
const programs: Record<
  string,
  (port: number, args: string[]) => Promise<void>
> = {
  /** Answers n with 2n, after so many ms. SIGTERM leaves in order. */
  async double(port, [delayMs = "0", concurrency = "1", name = ""]) {
    const leave = new AbortController();
    Deno.addSignalListener("SIGTERM", () => leave.abort());
    const ms = Number(delayMs);
    await work<number, number>(
      { port, name, reconnect: { minDelayMs: 5, maxDelayMs: 50 } },
      ms === 0 ? (n) => n * 2 : async (n) => {
        await new Promise((resolve) => setTimeout(resolve, ms));
        return n * 2;
      },
      { concurrency: Number(concurrency), signal: leave.signal },
    );
    console.log("done");
    Deno.exit(0);
  },

  /** Works to the end, says so, and stays alive. */
  async stay(port) {
    const onEvent = ({ type }: ClientEvent) =>
      type === "reconnecting" && console.log(type);
    await work<number, number>({ port, onEvent }, (n) => n * 2);
    console.log("done");
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },

  /** Answers with the item itself. */
  async echo(port) {
    await work({ port }, (item) => item);
  },

  /** Answers with the length of what it gets. */
  async size(port) {
    await work<Uint8Array, number>({ port }, (bytes) => bytes.length);
  },

  /** Answers odd numbers with something that can't be sent. */
  async odd(port) {
    await work<number, unknown>({ port }, (n) => n % 2 === 1 ? () => {} : n);
    console.log("done");
  },

  /** Reads so many items, answers each, and then neither reads nor ends. */
  async hold(port, [count = "0"]) {
    const client = await connect<number, number>({ port });
    const items = client[Symbol.asyncIterator]();
    for (let i = 0; i < Number(count); i++) {
      const { value } = await items.next();
      await client.send(value! * 2);
    }
    console.log("holding");
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },

  /** A client that takes no face. */
  async idle(port) {
    await connect({ port });
    console.log("connected");
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },

  /** A server that waits for a worker, and then for its end. */
  async server() {
    const server = listen<number, number>({ port: 0 });
    console.log((server.addr as Deno.NetAddr).port);
    server.send(1);
    for await (const _ of server);
  },

  /** A server that waits for a worker who never comes. */
  async ready() {
    const server = listen<number, number>({ port: 0 });
    console.log((server.addr as Deno.NetAddr).port);
    await server.ready(100);
  },

  /** Lines of stdin through workers to stdout: a part of a pipeline. */
  async pipeline() {
    const server = listen<string, string>({ port: 0, maxDeliveries: 100 });
    console.error((server.addr as Deno.NetAddr).port);
    const text = await new Response(Deno.stdin.readable).text();
    const results = server.map(text.trimEnd().split("\n"));
    for await (const line of results) console.log(line);
    await server.close();
  },

  /**
   * A worker of a pipeline: slow enough to be met at work. With a count, it
   * does so many lines, and never ends the next.
   */
  async upper(port, [count = "Infinity"]) {
    let left = Number(count);
    await work<string, string>({ port }, async (line) => {
      if (left-- <= 0) await new Promise(() => {});
      await new Promise((resolve) => setTimeout(resolve, 2));
      return line.toUpperCase();
    });
  },
};

if (import.meta.main) {
  const [name = "", port = "0", ...args] = Deno.args;
  await programs[name]!(Number(port), args);
}
