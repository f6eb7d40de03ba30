/**
 * What the examples' command lines share, so that each example shows only
 * distchan: `--host`, `--port`, the secret, and what SIGINT and SIGTERM do.
 */
import { parseArgs, type ParseArgsConfig } from "node:util";
import type { Server } from "../mod.ts";

/** The port of the seed's example; `--port 0` takes any that is free. */
const DEFAULT_PORT = "5678";
const DRAIN_MS = 10_000;

/** One command line, read. */
export interface Arguments<Name extends string> {
  /** Where to listen, or the server to connect to. */
  hostname: string;
  /** Its port. */
  port: number;
  /** The example's own options, by name. */
  values: { [name in Name]?: string };
  /** What stands on the command line without a name. */
  positionals: string[];
}

/**
 * Reads `Deno.args`: `--host`, `--port` and the options named in `own`, each
 * with a value. A command line that can't be read ends the process with
 * status 2, as usual for wrong usage.
 */
export function readArguments<Name extends string = never>(
  ...own: Name[]
): Arguments<Name> {
  const options: ParseArgsConfig["options"] = {
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: DEFAULT_PORT },
  };
  for (const name of own) options[name] = { type: "string" };
  try {
    const { values, positionals } = parseArgs({
      args: Deno.args,
      options,
      allowPositionals: true,
    });
    // Of two folders one would be left out, and the status be 0.
    if (positionals.length > 1) throw new Error("one argument at a time");
    const { host, port } = values as { host: string; port: string };
    return {
      hostname: host,
      port: wholeNumber("--port", port, { max: 65535 }),
      values: values as { [name in Name]?: string },
      positionals,
    };
  } catch (error) {
    usageError(error instanceof Error ? error.message : String(error));
  }
}

/** Reads a whole number from `min` to `max`; anything else is a usage error. */
export function wholeNumber(
  name: string,
  text: string,
  { min = 0, max = Number.MAX_SAFE_INTEGER }: { min?: number; max?: number } =
    {},
): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  usageError(
    `${name} takes a whole number from ${min} to ${max}, not "${text}"`,
  );
}

/**
 * The secret of both ends, from the variable `DISTCHAN_SECRET`. Deno's own error
 * for one that isn't text would show it.
 */
export function readSecret(): string {
  let secret: string | undefined;
  try {
    secret = Deno.env.get("DISTCHAN_SECRET");
  } catch (error) {
    if (!(error instanceof Deno.errors.InvalidData)) throw error;
    usageError("DISTCHAN_SECRET isn't UTF-8");
  }
  if (!secret) usageError("DISTCHAN_SECRET isn't set");
  return secret;
}

/** Says what is wrong with the command line, and ends the process with status 2. */
export function usageError(message: string): never {
  console.error(`error: ${message}`);
  Deno.exit(2);
}

/**
 * Says where a server listens, on stderr: stdout is for results alone, so that
 * a server can stand in a pipeline.
 */
export function announce(server: Pick<Server<never, unknown>, "addr">): void {
  const { hostname, port } = server.addr as Deno.NetAddr;
  console.error(`listening on ${hostname}:${port}`);
}

/**
 * Aborts at the first SIGINT or SIGTERM. A worker hands it to `work()`: what it
 * has begun is finished, what it has not goes back to the server.
 */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  // Windows knows no SIGTERM.
  const names: Deno.Signal[] = Deno.build.os === "windows"
    ? ["SIGINT"]
    : ["SIGINT", "SIGTERM"];
  const stop = () => {
    // The second Ctrl-C is the system's again, and ends the process at once.
    for (const name of names) Deno.removeSignalListener(name, stop);
    controller.abort();
  };
  for (const name of names) Deno.addSignalListener(name, stop);
  return controller.signal;
}

/**
 * Drains `server` at the first SIGINT or SIGTERM: no new items go out, results
 * of those that are out still come in, then the loop over them ends.
 */
export function drainOnSignal(
  server: Pick<Server<never, unknown>, "close" | "stats">,
): AbortSignal {
  const signal = stopSignal();
  signal.addEventListener("abort", () => {
    if (server.stats().workers.length === 0) Deno.exit(130); // nobody is there
    console.error("stopping: waiting for the results that are under way");
    Deno.exitCode = 130; // what comes of it isn't all that was asked for
    // Ctrl-C reaches the workers of this terminal too, and they hand back what
    // they have not begun: with the last of them gone nobody would finish it.
    const look = () => {
      const { workers, pending, inFlight } = server.stats();
      if (workers.length > 0 || pending + inFlight === 0) return;
      console.error("stopping: no worker is left to finish the rest");
      Deno.exit(130);
    };
    const timer = setInterval(look, 100);
    server.close({ drainMs: DRAIN_MS }).catch((error) => {
      console.error(`error: ${error.message}`);
      Deno.exit(1);
    }).finally(() => clearInterval(timer));
  });
  return signal;
}
