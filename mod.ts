/**
 * Distributed channels: a server writes values, workers on any number of
 * machines read them, results come back. No broker: two scripts and a port.
 *
 * The server is a `{ readable, writable }` pair, so a pool of machines is a
 * `TransformStream`, with back pressure from the slowest part to the producer,
 * and nothing lost when a worker dies.
 *
 * @example A pool of workers
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { listen, work } from "@distchan/distchan";
 *
 * const server = listen<string, string>({ port: 0 });
 *
 * // Usually on other machines: as many as there are.
 * const { port } = server.addr;
 * work<string, string>({ port }, (word) => word.toUpperCase());
 *
 * const words = ReadableStream.from(["hello", "world"]);
 * const results = await Array.fromAsync(words.pipeThrough(server));
 * assertEquals(results, ["HELLO", "WORLD"]);
 * ```
 *
 * @module
 */

export * from "./server.ts";
export * from "./client.ts";
export * from "./codec.ts";
