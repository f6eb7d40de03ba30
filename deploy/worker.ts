/**
 * A worker of the server beside it.
 *
 *     DISTCHAN_SECRET=… deno run --allow-net=SERVER:5678 --allow-env=DISTCHAN_SECRET deploy/worker.ts --host SERVER
 *
 * It connects to `--port` [5678], again and again, and executes `--concurrency`
 * [1] items at once; stderr says when it is connected, and why it isn't. On
 * SIGTERM it finishes what it has begun, hands back the rest, and ends.
 */
import { type ClientEvent, work } from "../mod.ts"; // yours: "jsr:@distchan/distchan"
import {
  readArguments,
  readSecret,
  stopSignal,
  wholeNumber,
} from "../examples/args.ts";
import handler from "./handler.ts";

const { hostname, port, values } = readArguments("concurrency", "name");
const { concurrency = "1", name = `worker ${Deno.pid}` } = values;
const secret = readSecret();

await work<string, string>(
  { hostname, port, secret, name, onEvent: log },
  handler,
  {
    concurrency: wholeNumber("--concurrency", concurrency, {
      min: 1,
      max: 4096,
    }),
    signal: stopSignal(),
  },
);

/** What an operator wants to know of a worker that does nothing. */
function log(event: ClientEvent): void {
  if (event.type === "connected") console.error("connected");
  if (event.type === "reconnecting") {
    console.error(`reconnecting: ${event.error.message}`);
  }
}
