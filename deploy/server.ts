/**
 * A pool of workers behind HTTP: each POST's body is an item, the response its
 * result.
 *
 *     DISTCHAN_SECRET=… deno run --allow-net=127.0.0.1 --allow-env=DISTCHAN_SECRET deploy/server.ts
 *
 * Workers connect to `--port` [5678], users to `--http-port` [8000]; the live
 * page with /healthz and /metrics is at `--dashboard-port` [8080]. On SIGTERM
 * it takes no more, answers all that it was asked whole, and ends.
 */
import { setTimeout as delay } from "node:timers/promises";
import { ItemFailure, listen } from "../mod.ts"; // yours: "jsr:@distchan/distchan"
import {
  announce,
  readArguments,
  readSecret,
  stopSignal,
  wholeNumber,
} from "../examples/args.ts";

/** The default of `maxFrameBytes`: what is larger fails anyway. */
const MAX_BYTES = 4 * 1024 * 1024;

const { hostname, port, values } = readArguments("http-port", "dashboard-port");
const portOf = (name: keyof typeof values, otherwise: string) =>
  wholeNumber(`--${name}`, values[name] ?? otherwise, { max: 65535 });
const secret = readSecret();
const stopped = stopSignal(); // before anybody is told that it is there

await using server = listen<string, string>({
  hostname,
  port,
  secret,
  dashboard: { hostname, port: portOf("dashboard-port", "8080") },
});
announce(server);
console.error(`dashboard on port ${server.dashboardAddr?.port}`);

const http = Deno.serve({
  hostname,
  port: portOf("http-port", "8000"),
  onListen: ({ port }) => console.error(`http on port ${port}`),
}, answer);

/** Requests that are still coming in, and those that wait for their result. */
const reading = new Set<Promise<string>>();
const answering = new Set<Promise<string>>();

async function answer(request: Request): Promise<Response> {
  if (request.method !== "POST") return respond(405, "POST an item\n");
  let item: string;
  try {
    item = await during(reading, read(request));
  } catch (error) {
    return error instanceof RangeError
      ? respond(413, `${error.message}\n`)
      : respond(400, "the item isn't whole, or isn't UTF-8\n");
  }
  try {
    // Whoever has gone away needs no result.
    const result = server.submit(item, { signal: request.signal });
    return respond(200, await during(answering, result));
  } catch (error) {
    if (request.signal.aborted) return respond(499, "nobody is there\n");
    if (!(error instanceof ItemFailure)) throw error;
    return respond(500, `${error.message}\n`);
  }
}

/** Reads an item, and no more of it than a worker would take. */
async function read(request: Request): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let item = "", size = 0;
  for await (const bytes of request.body ?? []) {
    size += bytes.length;
    if (size > MAX_BYTES) {
      throw new RangeError(`an item has at most ${MAX_BYTES} bytes`);
    }
    item += decoder.decode(bytes, { stream: true });
  }
  return item + decoder.decode();
}

function respond(status: number, text: string): Response {
  // Who is told so sends nothing that nobody would read.
  const headers = stopped.aborted ? { connection: "close" } : {};
  return new Response(text, { status, headers });
}

/** `promise`, which is in `set` until it settles. */
function during<T>(set: Set<Promise<T>>, promise: Promise<T>): Promise<T> {
  set.add(promise);
  return promise.finally(() => set.delete(promise));
}

await new Promise((resolve) => stopped.addEventListener("abort", resolve));
// Deno 2.9's shutdown() breaks off requests that it hasn't read to their end,
// and waits for ever for whoever has sent half of one. So what is on its way
// has half a second to get here, and half a request five.
for (let n = 0; n < 5 || (n < 50 && reading.size > 0); n++) await delay(100);
const shutdown = http.shutdown();
while (answering.size > 0) await Promise.allSettled(answering);
await Promise.race([shutdown, delay(5_000)]);
await server.close();
Deno.exit(); // whoever is still connected would keep it here
