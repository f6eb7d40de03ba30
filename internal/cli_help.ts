/**
 * The help, made of the tables in cli_spec.ts.
 *
 * @module
 */

import {
  COMMANDS,
  type CommandSpec,
  GLOBAL_OPTIONS,
  type OptionSpec,
  STATUSES,
} from "./cli_spec.ts";

const WIDTH = 79;

/** The help of `distchan` itself. */
export function generalHelp(): string {
  return [
    "distchan: send items to workers on any number of machines, get results back",
    "",
    "Usage: distchan COMMAND [OPTIONS]",
    "",
    "Commands:",
    table(COMMANDS.map(({ name, summary }) => [name, summary])),
    "",
    "Options:",
    table(GLOBAL_OPTIONS.map(row)),
    "",
    "Exit statuses:",
    table(STATUSES.map(([status, meaning]) => [String(status), meaning])),
    "",
    "distchan COMMAND --help tells more.",
    "",
  ].join("\n");
}

/** The help of a subcommand. */
export function commandHelp(spec: CommandSpec): string {
  const parts = [
    `distchan ${spec.name}: ${spec.summary}`,
    "",
    ...spec.usage.map((line, i) => `${i === 0 ? "Usage: " : "       "}${line}`),
  ];
  for (const paragraph of spec.details) parts.push("", wrap(paragraph, ""));
  parts.push("", "Options:", table(spec.options.map(row)));
  if (spec.examples.length > 0) {
    parts.push("", "Examples:", ...spec.examples.map((line) => `  ${line}`));
  }
  return parts.join("\n") + "\n";
}

function row({ name, short, value, help }: OptionSpec): [string, string] {
  const letter = short === undefined ? "    " : `-${short}, `;
  return [`${letter}--${name}${value === undefined ? "" : ` ${value}`}`, help];
}

function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  const indent = " ".repeat(width + 2);
  return rows.map(([left, right]) =>
    `  ${left.padEnd(width)}${wrap(right, indent).trimStart()}`
  ).join("\n");
}

/** Breaks text into lines that begin with `indent`. */
function wrap(text: string, indent: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (
      line !== "" && indent.length + line.length + 1 + word.length > WIDTH
    ) {
      lines.push(indent + line);
      line = "";
    }
    line += line === "" ? word : ` ${word}`;
  }
  return [...lines, indent + line].join("\n");
}
