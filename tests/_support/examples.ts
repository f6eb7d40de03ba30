/**
 * The examples as their documentation starts them: with the permissions of the
 * command in the script's own header and no others, on a port that is free.
 *
 * @module
 */

import { isAbsolute } from "node:path";
import { assertEquals } from "@std/assert";
import {
  type Process,
  type ProcessOptions,
  ROOT,
  startDeno,
} from "./process.ts";

/** Options of {@linkcode startExample}. */
export interface ExampleOptions extends ProcessOptions {
  /** The server's port; 0 in a server takes any. @default {0} */
  port?: number;
  /** What stands for 5679, where an example has two servers. @default {0} */
  secondPort?: number;
  /** What stands for `DIR` in the command. */
  dir?: string;
  /** Arguments behind the command's own. */
  args?: string[];
}

/** A command that runs an example. */
export interface ExampleCommand {
  /** Flags for deno. */
  flags: string[];
  /** The script, from the repository's root. */
  script: string;
  /** What stands behind it. */
  args: string[];
}

/** Finds the commands in a text that run examples. */
export function commandsIn(text: string): ExampleCommand[] {
  const pattern = /deno run ((?:--\S+ )*)(examples\/\S+\.ts)([^\n]*)/g;
  return [...text.matchAll(pattern)].map(([, flags, script, args]) => ({
    flags: words(flags!),
    script: script!,
    args: words(args!),
  }));
}

/** The command in a script's own header; the first, if there are several. */
export async function documentedCommand(
  script: string,
): Promise<ExampleCommand> {
  const [header] = (await Deno.readTextFile(ROOT + script)).split("*/", 1);
  const command = commandsIn(header!)[0];
  assertEquals(
    command?.script,
    script,
    `${script} shows no command of its own`,
  );
  return command!;
}

/** Starts `examples/<name>` as its header says. */
export async function startExample(
  name: string,
  options: ExampleOptions = {},
): Promise<Process> {
  const { port = 0, secondPort = 0, dir = "", args = [], ...rest } = options;
  const command = await documentedCommand(`examples/${name}`);
  // Modules in isolates are read: @std's as well, where it is a checkout.
  const std = Deno.env.get("DISTCHAN_STD") ?? "";
  const own = (word: string) =>
    word.replace("127.0.0.1:5678", `127.0.0.1:${port}`)
      .replace("127.0.0.1:5679", `127.0.0.1:${secondPort}`)
      .replace(/^--allow-read=\.$/, isAbsolute(std) ? `$&,${std}` : "$&")
      .replace("DIR", dir);
  return startDeno([
    ...command.flags.map(own),
    ROOT + command.script,
    ...command.args.map(own),
    `--port=${port}`,
    ...args,
  ], rest);
}

/** Waits until a server says where it listens. */
export async function portOf(server: Process): Promise<number> {
  const [, port] = await server.stderr.line(/^listening on .*:(\d+)$/);
  return Number(port);
}

/** Waits for the end of a process, which has to be a good one. */
export async function success(process: Process): Promise<string> {
  const { code, signal, stdout, stderr } = await process.exit;
  assertEquals({ code, signal }, { code: 0, signal: null }, stderr);
  return stdout;
}

/** A port that nobody listens on, for a worker that starts before its server. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}

/** The lines of an output whose order isn't given. */
export function sortedLines(text: string): string[] {
  return text.replace(/\n$/, "").split("\n").sort();
}

function words(text: string): string[] {
  return text.split(" ").filter((word) => word !== "");
}
