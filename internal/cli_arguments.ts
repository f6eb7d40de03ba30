/**
 * Reads a subcommand's arguments by its table of options.
 *
 * @module
 */

import { parseArgs } from "node:util";
import type { CommandSpec } from "./cli_spec.ts";
import { reasonOf } from "./thrown.ts";

/** The command line, or something it names, can't be used: exit status 2. */
export class UsageError extends Error {}

/** The work can't go on: exit status 3. */
export class FatalError extends Error {}

/** Without a byte order mark, which some editors put before a text. */
const UTF8 = new TextDecoder("utf-8", { fatal: true });

/** A host and a port. */
export interface Address {
  readonly hostname: string;
  readonly port: number;
}

/** A subcommand's arguments. */
export class Arguments {
  /** What stands behind the options, in front of a `--`. */
  readonly operands: readonly string[];
  /** What stands behind a `--`; null: there is none. */
  readonly command: readonly string[] | null;
  readonly #values: ReadonlyMap<string, string | true>;
  readonly #spec: CommandSpec;

  /**
   * Reads them.
   *
   * @throws {UsageError} If there is an option that isn't in the table, or one
   * without its value.
   */
  constructor(spec: CommandSpec, args: readonly string[]) {
    this.#spec = spec;
    const end = args.indexOf("--");
    this.command = end < 0 ? null : args.slice(end + 1);
    const values = new Map<string, string | true>();
    const operands: string[] = [];
    const { tokens } = parseArgs({
      args: end < 0 ? [...args] : args.slice(0, end),
      options: Object.fromEntries(
        spec.options.map(({ name, short, value }) => [name, {
          type: value === undefined ? "boolean" as const : "string" as const,
          ...(short === undefined ? {} : { short }),
        }]),
      ),
      strict: false,
      allowPositionals: true,
      tokens: true,
    });
    for (const token of tokens) {
      if (token.kind === "positional") operands.push(token.value);
      if (token.kind !== "option") continue;
      const { name, rawName, value } = token;
      const option = spec.options.find((o) => o.name === name);
      if (option === undefined) {
        throw this.#error(`there is no option ${rawName}`);
      }
      if (option.value === undefined) {
        if (value !== undefined) throw this.#error(`${rawName} takes no value`);
        values.set(name, true);
        continue;
      }
      if (value === undefined) {
        throw this.#error(`${rawName} needs a value: ${option.value}`);
      }
      if (option.choices?.includes(value) === false) {
        throw this.#error(
          `${rawName} is "${value}", expected ${option.choices.join(", ")}`,
        );
      }
      values.set(name, value);
    }
    this.operands = operands;
    this.#values = values;
  }

  /** Whether an option is there. */
  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** An option's value. */
  text(name: string): string | undefined {
    const value = this.#values.get(name);
    return value === true ? undefined : value;
  }

  /** A whole number. */
  count(name: string, min: number, max: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw this.#error(
      `--${name} is "${text}", expected a whole number from ${min} to ${max}`,
    );
  }

  /** A time in seconds, as milliseconds; with `never`, Infinity for "never". */
  ms(name: string, never = false): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    if (never && text === "never") return Infinity;
    const value = Number(text);
    if (/^\d*\.?\d+$/.test(text) && value > 0 && value <= 2_000_000) {
      return value * 1000;
    }
    throw this.#error(
      `--${name} is "${text}", expected seconds above 0, up to 2000000${
        never ? ', or "never"' : ""
      }`,
    );
  }

  /** Complains about the command line. */
  #error(what: string): UsageError {
    return new UsageError(`${what}; see distchan ${this.#spec.name} --help`);
  }
}

/**
 * Reads `HOST:PORT`, `[IPv6]:PORT`, and `:PORT` for this machine.
 *
 * @param what The option it is of.
 * @throws {UsageError} If it is none of them.
 */
export function parseAddress(
  text: string,
  what: string,
  { minPort = 0 }: { minPort?: number } = {},
): Address {
  const match = text.match(/^(?:(?:\[([^\]]+)\]|([^:[\]]*)):)?(\d{1,5})$/);
  const port = Number(match?.[3]);
  if (match === null || port > 65535 || port < minPort) {
    throw new UsageError(
      `${what} is "${text}", expected HOST:PORT, or :PORT for this machine`,
    );
  }
  return { hostname: match[1] || match[2] || "127.0.0.1", port };
}

/** Writes an address as {@linkcode parseAddress} reads it. */
export function formatAddress({ hostname, port }: Address): string {
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/**
 * Reads a file that the command line names.
 *
 * @throws {UsageError} If it can't be read.
 */
async function readNamedFile(
  args: Arguments,
  name: string,
): Promise<Uint8Array | undefined> {
  const path = args.text(name);
  if (path === undefined) return undefined;
  try {
    return await Deno.readFile(path);
  } catch (error) {
    throw new UsageError(`can't read --${name} ${path}: ${reasonOf(error)}`);
  }
}

/** What a file of PEM has to have; Deno knows no keys with a passphrase. */
const PEM: Record<"certificate" | "private key", RegExp> = {
  "certificate": /-----BEGIN CERTIFICATE-----/,
  "private key": /-----BEGIN (RSA |EC )?PRIVATE KEY-----/,
};

/**
 * Reads a file of PEM, in which only what is ASCII counts.
 *
 * @throws {UsageError} If it can't be read, or has none of what is wanted.
 */
export async function readPem(
  args: Arguments,
  name: string,
  what: keyof typeof PEM,
): Promise<string | undefined> {
  const bytes = await readNamedFile(args, name);
  if (bytes === undefined) return undefined;
  const text = new TextDecoder().decode(bytes);
  // What isn't PEM would be passed over in silence, or nobody told where it is.
  if (!PEM[what].test(text)) {
    const how = what === "certificate" ? "PEM" : "PEM without a passphrase";
    throw new UsageError(
      `--${name} ${args.text(name)} has no ${what}, expected ${how}`,
    );
  }
  return text;
}

/**
 * The secret: `--secret-file`, or else the variable `DISTCHAN_SECRET`, which
 * is then removed, so that neither commands nor handlers are told.
 */
export async function readSecret(args: Arguments): Promise<string | undefined> {
  const variable = "DISTCHAN_SECRET";
  let secret: string | undefined;
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  // Without the permission there is none: a worker isn't to ask for it.
  if (state === "granted") {
    try {
      secret = Deno.env.get(variable) || undefined;
    } catch {
      throw notText(variable); // the reason has the secret in it
    }
    if (secret !== undefined) Deno.env.delete(variable);
  }
  const bytes = await readNamedFile(args, "secret-file");
  if (bytes === undefined) return secret;
  let text: string;
  try {
    text = UTF8.decode(bytes);
  } catch {
    throw notText("--secret-file");
  }
  const line = text.replace(/\r?\n$/, "");
  if (line === "") throw new UsageError("--secret-file is empty");
  return line;
}

/** Bytes that aren't text would all read the same. */
function notText(what: string): UsageError {
  return new UsageError(
    `${what} isn't UTF-8, expected text: random bytes in hex or Base64`,
  );
}
