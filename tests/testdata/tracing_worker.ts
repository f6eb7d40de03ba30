/** A worker for tests of tracing; it ends with its server. */
import { type ConnectOptions, work, type WorkOptions } from "../../mod.ts";
import handle, { type TracedItem } from "./tracing_handler.ts";

const { connect, options = {} }: {
  connect: ConnectOptions;
  options?: WorkOptions;
} = JSON.parse(Deno.args[0]!);
await work<TracedItem, unknown>(
  connect,
  options.isolate
    ? new URL("./tracing_handler.ts", import.meta.url)
    : handle,
  options,
);
console.log("done");
