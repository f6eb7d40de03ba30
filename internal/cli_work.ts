/**
 * `distchan work`.
 *
 * @module
 */

import {
  type ClientEvent,
  type ConnectOptions,
  HandshakeError,
  work as connectAndWork,
  type WorkOptions,
} from "../mod.ts";
import {
  type Arguments,
  FatalError,
  formatAddress,
  parseAddress,
  readPem,
  readSecret,
  UsageError,
} from "./cli_arguments.ts";
import { readRunnable, type Runnable, toUsable } from "./cli_module.ts";
import { excerpt, printError } from "./cli_output.ts";
import { StopSignals } from "./cli_signals.ts";
import { MAX_CONCURRENCY } from "./frame.ts";
import { reasonOf } from "./thrown.ts";

const GIVE_UP_MS = 60_000;
const STUCK_TICK_MS = 50;
/** So much of what a server says is shown, in UTF-16 units. */
const MAX_REASON = 500;

/** Runs `distchan work`; resolves with its exit status. */
export async function work(args: Arguments): Promise<number> {
  const connect = args.text("connect");
  if (connect === undefined) {
    throw new UsageError("which server? Give --connect HOST:PORT");
  }
  const address = parseAddress(connect, "--connect", { minPort: 1 });
  const jobs = args.count("jobs", 1, MAX_CONCURRENCY);
  const giveUpMs = args.ms("give-up", true) ?? GIVE_UP_MS;
  const ca = await readPem(args, "ca", "certificate");
  const secret = await readSecret(args);
  const runnable = await readRunnable(args);
  if (runnable === null) {
    throw new UsageError("what is to be run? Give MODULE.ts, or -- COMMAND");
  }
  const tell = (line: string) => {
    if (!args.has("quiet")) printError(`${line}\n`);
  };
  const where = formatAddress(address);
  const absence = new Absence(giveUpMs, where, tell);
  const leave = new AbortController();
  using _signals = stopSignals(runnable, leave, tell);
  const options: ConnectOptions = {
    ...address,
    name: args.text("name") ?? machineName(),
    tls: ca === undefined ? args.has("tls") : { caCerts: [ca] },
    ...(secret === undefined ? {} : { secret }),
    signal: absence.signal,
    // The server's absence begins with the first attempt that fails.
    handshakeTimeoutMs: Math.max(1, Math.min(5000, giveUpMs)),
    reconnect: { maxDelayMs: Math.min(5000, Math.max(100, giveUpMs / 10)) },
    onEvent: (event) => absence.onEvent(event),
  };
  const workOptions: WorkOptions = {
    concurrency: jobs ?? 1,
    isolate: runnable.kind === "module" && jobs !== undefined,
    signal: leave.signal,
  };
  try {
    await connectAndWork(
      options,
      runnable.kind === "command" ? runnable.runner.handler : runnable.url,
      workOptions,
    );
  } catch (error) {
    if (error instanceof HandshakeError) {
      throw new FatalError(
        `${where} refused: ${excerpt(error.message, MAX_REASON)}`,
      );
    }
    if (isUnusable(error)) {
      throw new UsageError(`can't connect to ${where}: ${reasonOf(error)}`);
    }
    throw toUsable(error);
  } finally {
    absence.end();
    // Those of a server that is lost: they were cancelled.
    if (runnable.kind === "command") await runnable.runner.end();
  }
  tell(leave.signal.aborted ? "left" : "done: the server has no more work");
  return 0;
}

/** Whether --connect has no host's name, or --ca no certificate, in it. */
function isUnusable(error: unknown): boolean {
  return error instanceof URIError ||
    (error instanceof TypeError &&
      error.message.startsWith("Cannot use connect options"));
}

/**
 * How long the server has been away: from the first attempt that failed, or
 * the loss of a connection. Before the first attempt the module is loaded, in
 * every isolate, which may take longer than anybody would wait for a server.
 */
class Absence {
  readonly #controller = new AbortController();
  readonly #giveUpMs: number;
  readonly #where: string;
  readonly #tell: (line: string) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastError: Error | null = null;
  #isConnected = false;

  constructor(giveUpMs: number, where: string, tell: (line: string) => void) {
    this.#giveUpMs = giveUpMs;
    this.#where = where;
    this.#tell = tell;
  }

  /** Aborts when it has been away for too long. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  onEvent(event: ClientEvent): void {
    if (event.type === "connected") {
      this.#tell(`connected to ${this.#where}`);
      this.end();
      this.#lastError = null;
      this.#isConnected = true;
    } else if (event.type === "disconnected") {
      // Of one that never was a connection "reconnecting" tells, or the end.
      if (!this.#isConnected || event.code === "normal") return;
      this.#isConnected = false;
      const reason = excerpt(event.reason, MAX_REASON);
      this.#tell(`lost ${this.#where} (${event.code}): ${reason}`);
      this.#begin();
    } else if (event.type === "reconnecting") {
      if (event.error.message !== this.#lastError?.message) {
        const reason = excerpt(event.error.message, MAX_REASON);
        this.#tell(`waiting for ${this.#where}: ${reason}`);
      }
      this.#lastError = event.error;
      this.#begin();
    }
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #begin(): void {
    if (this.#timer !== undefined || this.#giveUpMs === Infinity) return;
    this.#timer = setTimeout(() => {
      const seconds = this.#giveUpMs / 1000;
      const why = this.#lastError === null
        ? ""
        : `: ${excerpt(reasonOf(this.#lastError), MAX_REASON)}`;
      this.#controller.abort(
        new FatalError(
          `gave up after ${seconds} s without ${this.#where}${why}`,
        ),
      );
    }, this.#giveUpMs);
  }
}

function stopSignals(
  runnable: Runnable,
  leave: AbortController,
  tell: (line: string) => void,
): Disposable {
  const runner = runnable.kind === "command" ? runnable.runner : null;
  let timer: ReturnType<typeof setInterval> | undefined;
  const signals = new StopSignals(() => {
    tell("leaving: waiting for what is under way; once more to stop at once");
    runner?.interrupt();
    leave.abort();
    if (runner === null) return;
    // The end of the connection is what gives interrupted items back.
    timer = setInterval(() => {
      if (runner.isStuck) Deno.exit(signals.status!);
    }, STUCK_TICK_MS);
  }, () => {
    runner?.terminate();
    Deno.exit(signals.status!);
  });
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      signals[Symbol.dispose]();
    },
  };
}

function machineName(): string {
  const { state } = Deno.permissions.querySync({
    name: "sys",
    kind: "hostname",
  });
  const host = state === "granted" ? Deno.hostname() : "worker";
  return `${host}:${Deno.pid}`;
}
