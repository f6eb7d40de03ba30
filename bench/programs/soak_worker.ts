/**
 * A worker of bench/soak.ts: gives back what it gets. It leaves at `leave` on
 * its standard input, and ends with it.
 *
 * Usage: `soak_worker.ts PORT NAME`
 *
 * @module
 */

import { work } from "../../client.ts";

const [port, name] = Deno.args as [string, string];
const leave = new AbortController();
(async () => {
  const decoder = new TextDecoder();
  for await (const chunk of Deno.stdin.readable) {
    if (decoder.decode(chunk).includes("leave")) leave.abort();
  }
  Deno.exit(0);
})();
await work<unknown, unknown>(
  { port: Number(port), name, reconnect: { minDelayMs: 10, maxDelayMs: 500 } },
  (item) => item,
  { signal: leave.signal },
);
Deno.exit(0);
