/**
 * What workers run, by the command line: a module or a command.
 *
 * @module
 */

import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Arguments, UsageError } from "./cli_arguments.ts";
import { CommandRunner, MAX_OUTPUT_BYTES } from "./cli_command.ts";
import { reasonOf } from "./thrown.ts";

/** The most that a command may print: a result has to fit into a frame. */
const MAX_MAX_OUTPUT = 4 * 1024 * 1024 - 4096;

/** What is run for every item. */
export type Runnable =
  | { readonly kind: "module"; readonly url: URL }
  | { readonly kind: "command"; readonly runner: CommandRunner };

/**
 * Reads which module or command it is.
 *
 * @returns Null: neither is there.
 * @throws {UsageError} If both are, or what there is can't be run.
 */
export async function readRunnable(args: Arguments): Promise<Runnable | null> {
  const { operands, command } = args;
  const maxOutput = args.count("max-output", 1, MAX_MAX_OUTPUT) ??
    MAX_OUTPUT_BYTES;
  if (command !== null) {
    if (operands.length > 0) {
      throw new UsageError(
        `${operands[0]} and a command behind --: expected one of them`,
      );
    }
    const runner = new CommandRunner(command, maxOutput);
    await runner.check();
    return { kind: "command", runner };
  }
  if (operands.length === 0) return null;
  if (operands.length > 1) {
    throw new UsageError(
      `${operands.length} modules, expected one; a command stands behind --`,
    );
  }
  return { kind: "module", url: moduleUrl(operands[0]!) };
}

/** An error of workers: a handler that can't be loaded is wrong usage. */
export function toUsable(error: unknown): unknown {
  return error instanceof TypeError &&
      error.message.startsWith("Cannot load the handler")
    ? new UsageError(reasonOf(error))
    : error;
}

/** A path, or a URL as it is. */
function moduleUrl(text: string): URL {
  // One letter in front of the colon is a drive.
  if (!/^[a-z][a-z0-9+.-]+:/i.test(text)) return pathToFileURL(resolve(text));
  const url = URL.parse(text);
  if (url === null) throw new UsageError(`${text} is no URL of a module`);
  return url;
}
