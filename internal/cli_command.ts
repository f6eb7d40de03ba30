/**
 * A command as a handler: run once for every item, never through a shell.
 *
 * @module
 */

import type { Handler, WorkContext } from "../mod.ts";
import { UsageError } from "./cli_arguments.ts";
import { toJson } from "./cli_output.ts";
import { concat } from "./concat.ts";

/** How much of a command's standard error its failure quotes, in bytes. */
const MAX_STDERR = 8 * 1024;
/** How long a cancelled command may go on after SIGTERM, in ms. */
const GRACE_MS = 2000;
/**
 * Ctrl-C on a terminal goes to a command and to this process, and so does the
 * SIGTERM of `timeout` and of systemd: within so long this process learns what
 * it was that ended the command, in ms.
 */
const SIGNAL_MS = 200;

/** The exit status of what it ends on Windows: STATUS_CONTROL_C_EXIT. */
const CONTROL_C_EXIT = 0xc000013a | 0;

const isWindows = Deno.build.os === "windows";

/** What a command may print, in bytes, unless it is said. */
export const MAX_OUTPUT_BYTES: number = 1024 * 1024;

/** One command that runs. */
interface Running {
  readonly child: Deno.ChildProcess;
  /** Signals it; if it has ended, those who hold its output aren't waited for. */
  readonly stop: (how: Deno.Signal) => void;
  /** Asks it to end, by force if it won't. */
  readonly cancel: () => void;
  /** It ran when this process was told to stop. */
  wasInterrupted: boolean;
}

/** Runs a command for items, as many at once as it is called. */
export class CommandRunner {
  /** What does the work. */
  readonly handler: Handler<unknown, string | Uint8Array | undefined>;
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #takesItem: boolean;
  readonly #maxOutputBytes: number;
  readonly #running = new Set<Running>();
  #interrupted = 0;

  /**
   * @param command The program and its arguments; `{}` stands for the item.
   * @param maxOutputBytes A command that prints more fails.
   * @throws {UsageError} If there is no program, or the item would be it.
   */
  constructor(command: readonly string[], maxOutputBytes: number) {
    const [program = "", ...args] = command;
    if (program === "") {
      throw new UsageError("which command? Give it behind --");
    }
    if (program.includes("{}")) {
      throw new UsageError(
        "{} can't be the command itself, only its arguments",
      );
    }
    this.#program = program;
    this.#args = args;
    this.#takesItem = args.some((arg) => arg.includes("{}"));
    this.#maxOutputBytes = maxOutputBytes;
    this.handler = (item, context) => this.#run(item, context);
  }

  /** Whether all that runs will never be finished. */
  get isStuck(): boolean {
    return this.#interrupted > 0 && this.#running.size === 0;
  }

  /**
   * Checks that the program is there: a worker without it would only make
   * items fail.
   *
   * @throws {UsageError} If it isn't.
   */
  async check(): Promise<void> {
    const program = this.#program;
    const paths = program.includes("/")
      ? [program]
      : (envPath() ?? "").split(":").filter((dir) => dir !== "").map((dir) =>
        `${dir}/${program}`
      );
    if (isWindows || paths.length === 0) return;
    for (const path of paths) {
      try {
        const { isFile, mode } = await Deno.stat(path);
        if (isFile && ((mode ?? 0o111) & 0o111) !== 0) return;
      } catch (error) {
        // Without --allow-read it can't be known.
        if (error instanceof Deno.errors.NotCapable) return;
      }
    }
    throw new UsageError(`there is no command ${program}`);
  }

  /**
   * This process was told to stop, and what runs perhaps as well, as by Ctrl-C
   * on a terminal: what ends badly from now on hasn't failed, it was
   * interrupted, and its item gets no answer.
   */
  interrupt(): void {
    for (const running of this.#running) running.wasInterrupted = true;
  }

  /** Ends everything; resolves when it has ended, which may take a while. */
  async end(): Promise<void> {
    for (const { cancel } of this.#running) cancel();
    await Promise.allSettled(
      this.#running.values().map(({ child }) => child.status),
    );
  }

  /** Ends everything at once. */
  terminate(): void {
    for (const { stop } of this.#running) stop("SIGKILL");
  }

  async #run(
    item: unknown,
    { signal }: WorkContext,
  ): Promise<string | Uint8Array | undefined> {
    const text = typeof item === "string" ? item : toJson(item);
    if (this.#takesItem && text.includes("\0")) {
      throw new TypeError("The item has a NUL character: no argument can");
    }
    const child = new Deno.Command(this.#program, {
      args: this.#takesItem
        ? this.#args.map((arg) => arg.replaceAll("{}", () => text))
        : [...this.#args],
      stdin: this.#takesItem ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const max = this.#maxOutputBytes;
    let isTooLong = false, hasEnded = false;
    const stdout = new Collector(child.stdout, max, () => {
      isTooLong = true;
      stop("SIGKILL");
    });
    const stderr = new Collector(child.stderr, MAX_STDERR);
    const stop = (how: Deno.Signal) => {
      if (!hasEnded) return signalTree(child, how);
      stdout.cancel();
      stderr.cancel();
    };
    let timer: ReturnType<typeof setTimeout> | undefined;
    const cancel = () => {
      if (timer !== undefined) return;
      stop("SIGTERM");
      timer = setTimeout(() => stop("SIGKILL"), GRACE_MS);
    };
    const running: Running = { child, stop, cancel, wasInterrupted: false };
    this.#running.add(running);
    signal.addEventListener("abort", cancel);
    if (signal.aborted) cancel();
    let status: Deno.CommandStatus;
    try {
      // Not waited for: what it has left behind may hold its input, unread.
      if (!this.#takesItem) void feed(child.stdin, text);
      status = await child.status;
      hasEnded = true;
      if (signal.aborted || isTooLong) stop("SIGKILL");
      await Promise.all([stdout.done, stderr.done]);
      if (!signal.aborted && isStopped(status)) {
        await new Promise((resolve) => setTimeout(resolve, SIGNAL_MS));
      }
    } finally {
      signal.removeEventListener("abort", cancel);
      clearTimeout(timer);
      this.#running.delete(running);
    }
    signal.throwIfAborted();
    if (isTooLong) {
      throw new RangeError(
        `The command printed more than ${max} bytes: --max-output allows more`,
      );
    }
    if (!status.success) {
      if (running.wasInterrupted) {
        this.#interrupted++;
        return await new Promise<never>(() => {});
      }
      const why = status.signal === null
        ? `exit status ${status.code}`
        : `ended by ${status.signal}`;
      const said = new TextDecoder().decode(stderr.bytes()).trimEnd();
      throw new CommandError(said === "" ? why : `${why}: ${said}`);
    }
    return toResult(stdout.bytes());
  }
}

/** Whether a command ended as those do that are told to stop. */
function isStopped({ signal, code }: Deno.CommandStatus): boolean {
  return signal === "SIGINT" || signal === "SIGTERM" ||
    [130, 143, CONTROL_C_EXIT].includes(code);
}

/** A command's exit status was not 0. */
class CommandError extends Error {
  override readonly name = "CommandError";
}

/** What a command prints, without its last line's end; nothing: undefined. */
function toResult(bytes: Uint8Array): string | Uint8Array | undefined {
  if (bytes.length === 0) return undefined;
  let end = bytes.length;
  if (bytes[end - 1] === 0x0a) end -= bytes[end - 2] === 0x0d ? 2 : 1;
  const printed = bytes.subarray(0, end);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
      .decode(printed);
  } catch {
    return printed;
  }
}

async function feed(
  stdin: WritableStream<Uint8Array>,
  text: string,
): Promise<void> {
  const writer = stdin.getWriter();
  try {
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch {
    // It doesn't read it, which is its own affair.
  }
}

/** Reads a stream, and keeps so much of its end. */
class Collector {
  /** Resolves when the stream has ended. */
  readonly done: Promise<void>;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #max: number;
  readonly #onOver: () => void;
  readonly #parts: Uint8Array[] = [];
  #size = 0;

  constructor(
    stream: ReadableStream<Uint8Array>,
    max: number,
    onOver: () => void = () => {},
  ) {
    this.#reader = stream.getReader();
    this.#max = max;
    this.#onOver = onOver;
    this.done = this.#read();
  }

  bytes(): Uint8Array {
    return concat(this.#parts).subarray(-this.#max);
  }

  cancel(): void {
    this.#reader.cancel().catch(() => {});
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await this.#reader.read();
        if (done) return;
        this.#add(value);
      }
    } catch {
      // Cancelled, or lost: what has come is what there is.
    }
  }

  #add(part: Uint8Array): void {
    this.#parts.push(part);
    this.#size += part.length;
    if (this.#size > this.#max) this.#onOver();
    while (this.#size - this.#parts[0]!.length >= this.#max) {
      this.#size -= this.#parts.shift()!.length;
    }
  }
}

/** Signals a process and, where that can be known, all that came of it. */
function signalTree(child: Deno.ChildProcess, signal: Deno.Signal): void {
  const pids = [child.pid];
  for (const parent of pids) pids.push(...childrenOf(parent)); // grows meanwhile
  try {
    child.kill(signal); // needs no permission beyond that to start it
  } catch {
    // It has ended by itself.
  }
  for (const pid of pids.slice(1)) {
    try {
      Deno.kill(pid, signal);
    } catch {
      // So has this one, or it may not be signalled.
    }
  }
}

function childrenOf(pid: number): number[] {
  if (Deno.build.os !== "linux") return [];
  const children: number[] = [];
  try {
    for (const { name: thread } of Deno.readDirSync(`/proc/${pid}/task`)) {
      const text = Deno.readTextFileSync(
        `/proc/${pid}/task/${thread}/children`,
      );
      children.push(...text.split(" ").filter((t) => t !== "").map(Number));
    }
  } catch {
    // It has ended meanwhile, or may not be looked at.
  }
  return children;
}

function envPath(): string | undefined {
  const query = { name: "env", variable: "PATH" } as const;
  return Deno.permissions.querySync(query).state === "granted"
    ? Deno.env.get("PATH")
    : undefined;
}
