/**
 * The command line: items from standard input to workers on any number of
 * machines, results on standard output.
 *
 * ```sh
 * seq 1000 | deno run -A jsr:@distchan/distchan/cli map --local 2 -- factor {}
 * ```
 *
 * `deno run -A jsr:@distchan/distchan/cli --help` lists the commands; docs/cli.md
 * in the repository tells all of it.
 *
 * @example As a part of another program
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { main } from "@distchan/distchan/cli";
 *
 * assertEquals(await main(["help", "map"]), 0);
 * ```
 *
 * @module
 */

import config from "./deno.json" with { type: "json" };
import { Arguments, FatalError, UsageError } from "./internal/cli_arguments.ts";
import { completions, type Shell } from "./internal/cli_completions.ts";
import { commandHelp, generalHelp } from "./internal/cli_help.ts";
import {
  PipeClosedError,
  print,
  printable,
  printError,
} from "./internal/cli_output.ts";
import { COMMANDS, type CommandSpec, SHELLS } from "./internal/cli_spec.ts";

/**
 * Runs a command line to its end. It handles SIGINT and SIGTERM meanwhile, and
 * uses this process's standard streams.
 *
 * @param args What stands behind the program's name, as in `Deno.args`.
 * @returns The exit status: 0 if all is done, 1 if an item failed, 2 if the
 * command line can't be used, 3 if it couldn't go on, and 130, 141 or 143 if it
 * was stopped by SIGINT, by the end of who reads its output, or by SIGTERM.
 *
 * @example Wrong usage
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { main } from "@distchan/distchan/cli";
 *
 * assertEquals(await main(["work", "--connect", "nowhere"]), 2);
 * ```
 */
export async function main(args: readonly string[]): Promise<number> {
  try {
    return await dispatch(args);
  } catch (error) {
    if (error instanceof PipeClosedError) return 141;
    const isUsage = error instanceof UsageError;
    if (!isUsage && !(error instanceof FatalError)) throw error;
    printError(`distchan: ${printable(error.message)}\n`);
    return isUsage ? 2 : 3;
  }
}

async function dispatch(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  switch (name) {
    case undefined:
      printError(generalHelp());
      return 2;
    case "-h":
    case "--help":
      return tell(generalHelp());
    case "-V":
    case "--version":
      return tell(`distchan ${config.version}\n`);
  }
  const spec = commandNamed(name);
  const read = new Arguments(spec, rest);
  if (read.has("help")) return tell(commandHelp(spec));
  switch (spec.name) {
    case "help": {
      const topic = onlyOperand(read);
      return tell(
        topic === undefined ? generalHelp() : commandHelp(commandNamed(topic)),
      );
    }
    case "completions": {
      const shell = onlyOperand(read);
      if (!SHELLS.includes(shell as Shell)) {
        const shells = SHELLS.join(", ");
        throw new UsageError(
          shell === undefined
            ? `which shell? Give one of ${shells}`
            : `which shell? "${shell}" is none of ${shells}`,
        );
      }
      return tell(completions(shell as Shell));
    }
    // Loaded only when needed: help and completions are quick.
    case "map":
      return await (await import("./internal/cli_map.ts")).map(read);
    case "work":
      return await (await import("./internal/cli_work.ts")).work(read);
    default:
      return await (await import("./internal/cli_top.ts")).top(read);
  }
}

/** The one that a command takes at most. */
function onlyOperand({ operands }: Arguments): string | undefined {
  if (operands.length > 1) {
    throw new UsageError(`unexpected "${operands[1]}" behind ${operands[0]}`);
  }
  return operands[0];
}

function commandNamed(name: string): CommandSpec {
  const spec = COMMANDS.find((command) => command.name === name);
  if (spec !== undefined) return spec;
  throw new UsageError(
    `there is no command ${name}, expected one of ${
      COMMANDS.map((command) => command.name).join(", ")
    }; see distchan --help`,
  );
}

function tell(text: string): number {
  print(text);
  return 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
