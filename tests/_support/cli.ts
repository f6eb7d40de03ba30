/**
 * The command line as a process.
 *
 * @module
 */

import { main } from "../../cli.ts";
import {
  type Process,
  type ProcessOptions,
  ROOT,
  startDeno,
} from "./process.ts";

/** Where the handlers of the command line's tests are. */
export const HANDLERS: string = `${ROOT}tests/testdata/cli/`;

/** Starts `distchan` with arguments. */
export function startCli(
  args: readonly string[],
  options?: ProcessOptions,
): Process {
  return startDeno(["-A", "--no-check", `${ROOT}cli.ts`, ...args], options);
}

/** How a command line ended. */
export interface Outcome {
  readonly code: number;
  /** Its standard output, in lines. */
  readonly lines: string[];
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `distchan` to its end. */
export async function runCli(
  args: readonly string[],
  options?: ProcessOptions,
): Promise<Outcome> {
  await using process = startCli(args, options);
  const { code, stdout, stderr } = await process.exit;
  return { code, lines: stdout.split("\n").slice(0, -1), stdout, stderr };
}

/**
 * Runs `distchan` in this process, many times as fast: for command lines that
 * are refused. What it prints to standard output isn't caught.
 */
export async function runHere(
  args: readonly string[],
): Promise<{ code: number; stderr: string }> {
  let stderr = "";
  const { writeSync } = Deno.stderr;
  Deno.stderr.writeSync = (bytes) => {
    stderr += new TextDecoder().decode(bytes);
    return bytes.length;
  };
  try {
    const code = await main(args);
    return { code, stderr: stderr.trimEnd() };
  } finally {
    Deno.stderr.writeSync = writeSync;
  }
}

/** Where `distchan map --listen` listens, once it does. */
export async function addressOf(process: Process): Promise<string> {
  const [, address = ""] = await process.stderr.line(/^listening on (.*)$/);
  return address;
}

/** `seq FROM TO`, as text. */
export function seq(from: number, to: number): string {
  let text = "";
  for (let n = from; n <= to; n++) text += `${n}\n`;
  return text;
}

/** Whether a program is there. */
export function hasProgram(name: string): boolean {
  for (const dir of (Deno.env.get("PATH") ?? "").split(":")) {
    try {
      if (Deno.statSync(`${dir}/${name}`).isFile) return true;
    } catch {
      // Not there.
    }
  }
  return false;
}
