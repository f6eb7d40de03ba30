/**
 * Many workers in one process, for bench/idle.ts.
 *
 * Usage: `idle_clients.ts PORT COUNT`
 *
 * @module
 */

import { work } from "../../client.ts";

const [port, count] = Deno.args.map(Number) as [number, number];
await Promise.all(
  Array.from(
    { length: count },
    () => work<number, number>({ port }, (n) => n * 2),
  ),
);
Deno.exit(0);
