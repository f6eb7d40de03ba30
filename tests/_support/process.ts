/**
 * Real processes in tests: start one, wait for a line that it prints, signal
 * it, wait for its end. None outlives its test: `await using` ends it, and so
 * does its deadline.
 *
 * @module
 */

import process from "node:process";
import { fileURLToPath } from "node:url";
import { stdArgs } from "../../tools/std.ts";

/** The repository's root folder, with a slash at its end. */
export const ROOT: string = fileURLToPath(new URL("../../", import.meta.url));

const DEADLINE_MS = 60_000;

/** How a process ended, and all it printed. */
export interface Exit {
  code: number;
  signal: Deno.Signal | null;
  stdout: string;
  stderr: string;
}

/** Options of {@linkcode Process}. */
export interface ProcessOptions {
  /** @default {the repository's root} */
  cwd?: string;
  /** Added to this process's environment. */
  env?: Record<string, string>;
  /** What the process reads; with "open" the test writes it bit by bit. @default {""} */
  stdin?: string | "open";
  /** When to end it, in milliseconds from its start. @default {60_000} */
  deadlineMs?: number;
}

/** A running process of this test. */
export class Process implements AsyncDisposable {
  /** What it prints. */
  readonly stdout: Lines;
  /** What it complains of. */
  readonly stderr: Lines;
  /** Its end, once all its output is read. */
  readonly exit: Promise<Exit>;
  readonly #child: Deno.ChildProcess;
  readonly #name: string;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  #ended = false;
  #late = false;

  /** Starts `program` with `args`. */
  constructor(
    program: string,
    args: readonly string[],
    options: ProcessOptions = {},
  ) {
    const { cwd = ROOT, env = {}, stdin = "", deadlineMs = DEADLINE_MS } =
      options;
    // An import map can be an argument, and fill the screen.
    this.#name = [program, ...args].map((arg) => arg.slice(0, 100)).join(" ");
    this.#child = new Deno.Command(program, {
      args: [...args],
      cwd,
      env: { NO_COLOR: "1", ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.stdout = new Lines(this.#child.stdout, () => this.#describe());
    this.stderr = new Lines(this.#child.stderr, () => this.#describe());
    this.#stdin = this.#child.stdin.getWriter();
    this.exit = this.#watch(deadlineMs);
    this.exit.catch(() => {}); // whoever waits for it sees it
    if (stdin !== "open") {
      this.write(stdin).then(() => this.closeStdin());
    }
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Writes to its standard input; a process that has closed it is none the wiser. */
  async write(text: string): Promise<void> {
    await this.#stdin.write(new TextEncoder().encode(text)).catch(() => {});
  }

  /** Ends its standard input. */
  async closeStdin(): Promise<void> {
    await this.#stdin.close().catch(() => {});
  }

  /** Sends it a signal; one that has ended is left alone. */
  signal(name: Deno.Signal): void {
    if (this.#ended) return;
    try {
      this.#child.kill(name);
    } catch (error) {
      // It has ended, and that wasn't told yet.
      const isGone = error instanceof TypeError ||
        error instanceof Deno.errors.NotFound;
      if (!isGone) throw error;
    }
  }

  /** Ends it if it still runs, and waits until nothing is left of it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.signal("SIGKILL");
    await this.#stdin.abort().catch(() => {});
    await this.exit.catch(() => {});
  }

  async #watch(deadlineMs: number): Promise<Exit> {
    const timer = setTimeout(() => {
      this.#late = true;
      this.signal("SIGKILL");
    }, deadlineMs);
    const { code, signal } = await this.#child.status;
    this.#ended = true;
    clearTimeout(timer);
    await this.#stdin.abort().catch(() => {});
    const [stdout, stderr] = await Promise.all([
      this.stdout.text,
      this.stderr.text,
    ]);
    if (this.#late) {
      throw new Error(`Not done within ${deadlineMs} ms: ${this.#describe()}`);
    }
    return { code, signal, stdout, stderr };
  }

  #describe(): string {
    return `${this.#name}\n--- stdout\n${this.stdout.soFar}` +
      `\n--- stderr\n${this.stderr.soFar}`;
  }
}

/** One output of a process, while it comes. */
export class Lines {
  /** All of it, once it is closed. */
  readonly text: Promise<string>;
  readonly #describe: () => string;
  #soFar = "";
  #done = false;
  #next = 0; // where the lines begin that no wait has passed yet
  #more = Promise.withResolvers<void>();

  /** Reads `stream` to its end; `describe` is for errors. */
  constructor(stream: ReadableStream<Uint8Array>, describe: () => string) {
    this.#describe = describe;
    this.text = this.#read(stream);
  }

  /** What has come until now. */
  get soFar(): string {
    return this.#soFar;
  }

  /**
   * Waits for a whole line that matches `pattern`, and returns the match. The
   * next wait looks only at the lines behind it. Rejects, with all that was
   * printed, when the output ends without one: at the process's deadline at
   * the latest.
   */
  async line(pattern: RegExp): Promise<RegExpMatchArray> {
    for (;;) {
      for (let end; (end = this.#soFar.indexOf("\n", this.#next)) >= 0;) {
        const line = this.#soFar.slice(this.#next, end);
        this.#next = end + 1;
        const match = line.match(pattern);
        if (match) return match;
      }
      if (this.#done) {
        throw new Error(`No line matches ${pattern}: ${this.#describe()}`);
      }
      await this.#more.promise;
    }
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<string> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.#soFar += decoder.decode(chunk, { stream: true });
      this.#more.resolve();
      this.#more = Promise.withResolvers();
    }
    this.#soFar += decoder.decode();
    this.#done = true;
    this.#more.resolve();
    return this.#soFar;
  }
}

/**
 * Starts `deno run` with `@std` resolved as it is for the tests.
 *
 * @param args Flags, the script and its arguments.
 */
export function startDeno(
  args: readonly string[],
  options?: ProcessOptions,
): Process {
  return new Process(
    Deno.execPath(),
    ["run", "--no-prompt", ...stdArgs(), ...args],
    options,
  );
}

/**
 * Runs a script that may call `gc()`, since memory can be looked at only in a
 * process of its own. Returns what it prints.
 *
 * @param script Its text; it imports `Deno.args[0]`.
 * @param module The module that it is about, from the repository's root.
 */
export async function runWithGc(
  script: string,
  module: string,
): Promise<string> {
  await using running = startDeno([
    ...["-A", "--v8-flags=--expose-gc"],
    `data:text/javascript,${encodeURIComponent(script)}`,
    new URL(`../../${module}`, import.meta.url).href,
  ]);
  const { code, stdout, stderr } = await running.exit;
  if (code !== 0) throw new Error(`The script ended with ${code}: ${stderr}`);
  return stdout;
}

/** Whether a process is there; a zombie, which nobody has waited for, counts. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0); // asks, and sends nothing
  } catch {
    return false;
  }
}
