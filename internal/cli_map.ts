/**
 * `distchan map`.
 *
 * @module
 */

import {
  InsecureBindError,
  listen,
  type ListenOptions,
  type MapOutcome,
  type Server,
  type ServerEvent,
} from "../mod.ts";
import { isLoopback } from "./bind.ts";
import {
  type Address,
  type Arguments,
  FatalError,
  formatAddress,
  parseAddress,
  readPem,
  readSecret,
  UsageError,
} from "./cli_arguments.ts";
import { countItems, type Format, ItemSource } from "./cli_input.ts";
import { excerpt, many, PipeClosedError } from "./cli_output.ts";
import { Joblog } from "./cli_joblog.ts";
import { CliLocalPool } from "./cli_local_pool.ts";
import { readRunnable, type Runnable, toUsable } from "./cli_module.ts";
import { Console } from "./cli_progress.ts";
import { Reporter } from "./cli_reporter.ts";
import { StopSignals } from "./cli_signals.ts";
import { settledWithin } from "./promises.ts";
import { causesOf, reasonOf } from "./thrown.ts";

/** How often it is looked whether draining is of any use, in ms. */
const DRAIN_TICK_MS = 50;
/** How long workers may take to say goodbye when all is done, in ms. */
const GOODBYE_MS = 5000, LOCAL_GOODBYE_MS = 300;
/** How many rejected workers are told, and how many crashes. */
const MAX_REJECTED = 10, MAX_CRASHES = 10;
/** So much of what is behind a failure is told, in UTF-16 units. */
const MAX_CAUSE = 1000;

/** What the command line says. */
interface Settings {
  readonly format: Format;
  readonly input: string | undefined;
  readonly listenAt: Address | null;
  readonly dashboardAt: Address | null;
  readonly runnable: Runnable | null;
  readonly local: number;
  readonly isolate: boolean;
  readonly ordered: boolean;
  readonly options: ListenOptions<unknown, unknown>;
}

/** Why the server was aborted: nothing can be done any more, or is to be. */
class Stopped extends Error {}

/** Runs `distchan map`; resolves with its exit status. */
export async function map(args: Arguments): Promise<number> {
  const settings = await readSettings(args);
  using joblog = await openJoblog(args);
  using run = new MapCommand(settings, {
    joblog,
    isQuiet: args.has("quiet"),
    stream: await openInput(settings.input),
  });
  return await run.run();
}

/** One run. */
class MapCommand implements Disposable {
  readonly #settings: Settings;
  readonly #joblog: Joblog | null;
  readonly #source: ItemSource;
  readonly #console: Console;
  readonly #reporter: Reporter;
  readonly #server: Server<unknown, unknown>;
  readonly #signals: StopSignals;
  readonly #counting = new AbortController();
  #pool: CliLocalPool | null = null;
  #total = NaN;
  #rejected = 0;
  #crashes = 0;
  #isClosing = false;
  #drainTimer: ReturnType<typeof setInterval> | undefined;

  constructor(
    settings: Settings,
    given: {
      joblog: Joblog | null;
      isQuiet: boolean;
      stream: ReadableStream<Uint8Array>;
    },
  ) {
    const { joblog, isQuiet, stream } = given;
    const { format, input } = settings;
    this.#settings = settings;
    this.#joblog = joblog;
    this.#server = openServer(settings, (event) => this.#onEvent(event));
    this.#source = new ItemSource(stream, {
      format,
      isSettled: (item) => joblog !== null && joblog.has(item),
      onUnreadable: (item, { name, message }) =>
        this.#reporter.add(item, { failure: { name, message, attempts: 0 } }),
    });
    const console = this.#console = new Console(
      () => this.#progress(),
      isQuiet,
    );
    this.#reporter = new Reporter({ joblog, format, console });
    this.#signals = new StopSignals(() => this.#drain(), () => this.#stop());
    if (console.showsBar && input !== undefined) {
      countItems(input, format, this.#counting.signal).then(
        (total) => this.#total = total,
        () => {}, // it has gone: then it isn't known
      );
    }
    if (settings.listenAt !== null && !isQuiet) {
      const addr = this.#server.addr as Deno.NetAddr;
      console.print(`listening on ${formatAddress(addr)}`);
    }
    const { dashboardAddr } = this.#server;
    if (dashboardAddr !== undefined && !isQuiet) {
      // A certificate isn't for loopback: see listen().
      const isTls = settings.options.cert !== undefined &&
        !isLoopback(dashboardAddr.hostname);
      console.print(
        `dashboard on http${isTls ? "s" : ""}://${
          formatAddress(dashboardAddr)
        }/`,
      );
    }
  }

  /** Maps everything; resolves with the exit status. */
  async run(): Promise<number> {
    const error = await this.#map();
    try {
      await this.#reporter.finish();
    } catch (writing) {
      if (error === null) return this.#fail(writing);
    }
    if (error !== null) return this.#fail(error);
    const { status } = this.#signals;
    const isDone = this.#source.hasEnded && this.#source.taken.size === 0;
    if (status !== null && !isDone) {
      this.#tellStopped();
      return status;
    }
    const failedBefore = this.#joblog?.failedBefore ?? 0;
    if (failedBefore > 0) {
      this.#console.print(
        `items that failed in earlier runs: ${failedBefore} (--resume-failed does them again)`,
      );
    }
    const failed = this.#reporter.failed + failedBefore;
    return failed > 0 ? 1 : 0;
  }

  /** Frees all it holds. */
  [Symbol.dispose](): void {
    clearInterval(this.#drainTimer);
    this.#counting.abort();
    this.#pool?.end();
    this.#signals[Symbol.dispose]();
    this.#console[Symbol.dispose]();
  }

  /** Resolves with what went wrong; null: nothing. */
  async #map(): Promise<unknown> {
    const server = this.#server, source = this.#source;
    try {
      this.#startPool();
      const outcomes = server.map(source, {
        ordered: this.#settings.ordered,
        settled: true,
      });
      for await (const outcome of outcomes) {
        const full = this.#report(outcome);
        if (full !== undefined) await full;
      }
      clearInterval(this.#drainTimer);
      await this.#reporter.finish();
      await this.#close();
      return null;
    } catch (error) {
      source.stop();
      this.#isClosing = true; // a thread that comes now is no stranger
      const isOver = server.abort(error);
      // A socket that doesn't close isn't worth waiting for.
      await settledWithin(isOver, 500);
      return error instanceof Stopped ? null : error;
    }
  }

  /** Every item is settled: the workers are told, and may say goodbye. */
  async #close(): Promise<void> {
    this.#isClosing = true;
    const server = this.#server;
    // Those of this machine may be blocked for ever by an item that timed out.
    const timer = setTimeout(() => {
      if (server.workers.every(({ name }) => this.#pool?.has(name))) {
        void server.abort();
      }
    }, LOCAL_GOODBYE_MS);
    await server.close({ drainMs: GOODBYE_MS }).catch(() => {});
    clearTimeout(timer);
  }

  #report(outcome: MapOutcome<unknown, unknown>): Promise<void> | undefined {
    const { taken } = this.#source;
    const item = taken.get(outcome.index)!;
    taken.delete(outcome.index);
    const { failure } = outcome;
    if (failure === undefined) {
      return this.#reporter.add(item, { result: outcome.result });
    }
    const { error, attempts } = failure;
    const { name, message } = error;
    const cause = excerpt(causesOf(error), MAX_CAUSE);
    return this.#reporter.add(item, {
      failure: { name, message, ...(cause === "" ? {} : { cause }), attempts },
    });
  }

  #startPool(): void {
    const { runnable, local, isolate } = this.#settings;
    if (runnable === null || local === 0) return;
    this.#pool = new CliLocalPool(this.#server, {
      runnable,
      count: local,
      isolate,
    });
  }

  #onEvent(event: ServerEvent): void {
    if (this.#isClosing) return;
    if (event.type === "crashed" && this.#crashes++ < MAX_CRASHES) {
      const { name, error } = event;
      this.#console.print(
        `distchan: ${name} crashed: ${
          excerpt(`${error.name}: ${error.message}`, 200)
        }`,
      );
    } else if (event.type === "rejected" && this.#rejected++ < MAX_REJECTED) {
      const { code, reason } = event;
      const addr = formatAddress(event.addr as Deno.NetAddr);
      this.#console.print(
        `distchan: rejected a connection from ${addr} (${code}): ${reason}`,
      );
    }
  }

  /** The first Ctrl-C. */
  #drain(): void {
    this.#console.print(
      "stopping: waiting for what is under way; once more to stop at once",
    );
    this.#source.stop();
    this.#pool?.leave();
    this.#drainTimer = setInterval(() => {
      const { workers } = this.#server;
      const isOver = workers.every(({ name }) =>
        this.#pool !== null && this.#pool.has(name) && this.#pool.isStuck
      );
      // Nobody is left who could finish anything.
      if (isOver) this.#abort();
    }, DRAIN_TICK_MS);
  }

  /** The second. */
  #stop(): void {
    this.#pool?.end();
    this.#abort();
  }

  #abort(): void {
    this.#isClosing = true; // whoever is cut off in a handshake was no stranger
    void this.#server.abort(new Stopped());
  }

  #fail(error: unknown): number {
    if (error instanceof PipeClosedError) throw error;
    this.#console.clear();
    const usable = toUsable(error);
    if (
      this.#pool === null || usable instanceof UsageError ||
      usable instanceof FatalError
    ) throw usable;
    // The pool has given up, or one of its workers was refused.
    throw new FatalError(reasonOf(error));
  }

  #tellStopped(): void {
    const { hasEnded, read, skipped, taken } = this.#source;
    const settled = this.#reporter.done + skipped;
    this.#console.print(
      // Nobody knows how many those are that weren't read.
      `stopped with ${many(settled, "item")} settled, ${
        hasEnded ? taken.size : "others"
      } not${this.#joblog === null ? "" : "; --resume goes on"}` +
        (read === 0 ? " (nothing was read)" : ""),
    );
  }

  #progress() {
    const { done, failed } = this.#reporter;
    const { hasEnded, read, skipped } = this.#source;
    return {
      done,
      failed,
      skipped,
      total: hasEnded ? read : this.#total,
      workers: this.#server.workers.length,
      isStopping: this.#signals.status !== null,
    };
  }
}

async function readSettings(args: Arguments): Promise<Settings> {
  const listenText = args.text("listen");
  const listenAt = listenText === undefined
    ? null
    : parseAddress(listenText, "--listen");
  const runnable = await readRunnable(args);
  const given = args.count("local", 0, 1024);
  const local = given ??
    (runnable === null ? 0 : navigator.hardwareConcurrency);
  if (local > 0 && runnable === null) {
    throw new UsageError(
      "--local needs what its workers run: MODULE.ts, or -- COMMAND",
    );
  }
  if (local === 0 && listenAt === null) {
    throw new UsageError(
      given === 0
        ? "--local is 0 and there is no --listen: who is to do the work?"
        : "who is to do the work? Give --listen for workers that connect, or MODULE.ts or -- COMMAND for workers on this machine",
    );
  }
  if (args.has("isolate") && runnable?.kind !== "module") {
    throw new UsageError(
      "--isolate is for workers on this machine of MODULE.ts",
    );
  }
  const cert = await readPem(args, "cert", "certificate");
  const key = await readPem(args, "key", "private key");
  if ((cert === undefined) !== (key === undefined)) {
    throw new UsageError("--cert and --key: expected both, or none");
  }
  const input = args.text("input");
  const retries = args.count("retries", 0, 1_000_000);
  const timeoutMs = args.ms("timeout");
  const dashboardText = args.text("dashboard");
  const dashboardAt = dashboardText === undefined
    ? null
    : parseAddress(dashboardText, "--dashboard");
  // Nobody else on this machine is to take part; a dashboard for others needs
  // a secret that they know.
  const isPrivate = listenAt === null &&
    (dashboardAt === null || isLoopback(dashboardAt.hostname));
  const secret = await readSecret(args) ??
    (isPrivate ? crypto.randomUUID() : undefined);
  return {
    format: (args.text("format") ?? "lines") as Format,
    input: input === "-" ? undefined : input,
    listenAt,
    dashboardAt,
    runnable,
    local,
    isolate: args.has("isolate") || timeoutMs !== undefined,
    ordered: args.has("keep-order"),
    options: {
      ...listenAt ?? { hostname: "127.0.0.1", port: 0 },
      insecure: args.has("insecure"),
      ...(dashboardAt === null ? {} : { dashboard: dashboardAt }),
      ...(secret === undefined ? {} : { secret }),
      ...(cert === undefined ? {} : { cert, key: key! }),
      ...(retries === undefined ? {} : { retry: { attempts: retries + 1 } }),
      ...(timeoutMs === undefined ? {} : { itemTimeoutMs: timeoutMs }),
    },
  };
}

async function openJoblog(args: Arguments): Promise<Joblog | null> {
  const path = args.text("joblog");
  const resumeFailed = args.has("resume-failed");
  const resume = args.has("resume") || resumeFailed;
  if (path === undefined) {
    if (resume) {
      const name = resumeFailed ? "--resume-failed" : "--resume";
      throw new UsageError(`${name} needs the --joblog to resume`);
    }
    return null;
  }
  return await Joblog.open(path, { resume, resumeFailed });
}

async function openInput(
  path: string | undefined,
): Promise<ReadableStream<Uint8Array>> {
  if (path === undefined) return Deno.stdin.readable;
  try {
    const file = await Deno.open(path);
    if (!(await file.stat()).isDirectory) return file.readable;
    file.close();
  } catch (error) {
    throw new UsageError(`can't read --input ${path}: ${reasonOf(error)}`);
  }
  throw new UsageError(`can't read --input ${path}: it is a directory`);
}

function openServer(
  { options, dashboardAt }: Settings,
  onEvent: (event: ServerEvent) => void,
): Server<unknown, unknown> {
  try {
    return listen({ ...options, onEvent });
  } catch (error) {
    if (error instanceof InsecureBindError) {
      // A dashboard needs more than TLS: there, nobody else asks for a secret.
      const isEnough = options.cert === undefined &&
        (dashboardAt === null || isLoopback(dashboardAt.hostname));
      const tls = isEnough ? ", --cert and --key" : "";
      throw new UsageError(
        `${error.hostname} is open to other machines: set a secret (--secret-file or DISTCHAN_SECRET)${tls}, or --insecure`,
      );
    }
    const where = formatAddress({ hostname: "127.0.0.1", ...options });
    const other = dashboardAt === null
      ? ""
      : ` and ${formatAddress(dashboardAt)}`;
    const message = `can't listen on ${where}${other}: ${reasonOf(error)}`;
    // That is of --cert or --key.
    throw error instanceof Deno.errors.InvalidData
      ? new UsageError(message)
      : new FatalError(message);
  }
}
