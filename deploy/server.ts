/**
 * A pool of workers behind HTTP: each POST's body is an item, the response its
 * result.
 *
 *     DISTCHAN_SECRET=… deno run --allow-net=127.0.0.1 --allow-env=DISTCHAN_SECRET deploy/server.ts
 *
 * Workers connect to `--port` [5678], users to `--http-port` [8000]; the live
 * page with /healthz and /metrics is at `--dashboard-port` [8080]. On SIGTERM
 * it takes no more, answers what it has, and ends.
 */
import { ItemFailure, listen } from "../mod.ts"; // yours: "jsr:@distchan/distchan"
import {
  announce,
  readArguments,
  stopSignal,
  usageError,
  wholeNumber,
} from "../examples/args.ts";

const { hostname, port, values } = readArguments("http-port", "dashboard-port");
const portOf = (name: keyof typeof values, otherwise: string) =>
  wholeNumber(`--${name}`, values[name] ?? otherwise, 65535);
const secret = Deno.env.get("DISTCHAN_SECRET");
if (!secret) usageError("DISTCHAN_SECRET isn't set");
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

async function answer(request: Request): Promise<Response> {
  if (request.method !== "POST") {
    return new Response("POST an item\n", { status: 405 });
  }
  try {
    const item = await request.text();
    // Whoever has gone away needs no result.
    return new Response(await server.submit(item, { signal: request.signal }));
  } catch (error) {
    if (!(error instanceof ItemFailure)) throw error;
    return new Response(`${error.message}\n`, { status: 500 });
  }
}

stopped.addEventListener("abort", () => void http.shutdown());
await http.finished; // all that was asked is answered
