/**
 * The demo: a server and four worker processes compute the SHA-256 of every
 * file below a folder (hidden ones and .git included, symbolic links not
 * followed), one worker is killed halfway, and the proof at the end shows that
 * every file has its checksum, once.
 *
 *     deno task demo
 *     deno task demo -- DIR
 *
 * Status 0: all is right. 1: something isn't. 2: wrong usage. 130: interrupted.
 */
import { setTimeout as delay } from "node:timers/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { listen, type Server } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { stopSignal, usageError } from "../args.ts";
import { ProgressLine } from "../progress.ts";
import { Fleet } from "./fleet.ts";
import { Proof } from "./proof.ts";
import type { Checksum, FileRef } from "./types.ts";
import { errorMessage, folderArgument, walk } from "./walk.ts";

const WORKERS = 4;
/** For the slowest of machines: as a rule it's a fraction of a second. */
const START_MS = 60_000;
const DRAIN_MS = 10_000;

/** The worker that was killed, and what it was doing. */
interface Victim {
  name: string;
  /** Files done by all workers together at that moment. */
  after: number;
  /** Files that it held. */
  inFlight: number;
}

class Demo implements AsyncDisposable {
  readonly #root: string;
  readonly #total: number;
  readonly #progress = new ProgressLine();
  readonly #proof: Proof;
  readonly #server: Server<FileRef, Checksum>;
  readonly #fleet: Fleet;
  #checks = Promise.resolve(); // of failures: these come by a callback
  #victim: Promise<Victim> | undefined;
  #skipped = 0; // folders that can't be read
  /** Resolves when the victim has been stopped, and is about to be killed. */
  readonly #stopped = Promise.withResolvers<void>();

  constructor(root: string, total: number) {
    this.#root = root;
    this.#total = total;
    this.#proof = new Proof(root, (line) => this.tell(line));
    this.#server = listen<FileRef, Checksum>({
      port: 0,
      onFailure: (failure) => {
        this.#checks = this.#checks
          .then(() => this.#proof.checkFailure(failure))
          .then(() => this.#step());
      },
    });
    const { port } = this.#server.addr as Deno.NetAddr;
    this.#fleet = new Fleet(root, port, WORKERS);
  }

  /** Does all files; rejects when that can't be done. */
  async run(stopped: AbortSignal): Promise<void> {
    stopped.addEventListener("abort", () => this.#drain());
    await this.#allActive(stopped);
    for (const [name, pid] of this.#fleet.pids) {
      console.log(`${name}: process ${pid}`);
    }
    this.#fleet.ended().then(() =>
      // Without workers the rest would wait for new ones.
      this.#server.abort(new Error("every worker has gone"))
    );
    this.#step();
    const skip = (path: string, error: unknown) => {
      this.#skipped++;
      this.tell(`skipped: ${JSON.stringify(path)} ${errorMessage(error)}`);
    };
    const files = this.#proof.watch(this.#heldBack(walk(this.#root, skip)));
    const results = ReadableStream.from(files).pipeThrough(this.#server);
    for await (const checksum of results) {
      await this.#proof.check(checksum);
      this.#step();
    }
    await this.#checks;
  }

  /** Prints what came out, and returns whether all of it is right. */
  async report(): Promise<boolean> {
    const victim = await this.#victim;
    const ended = await this.#fleet.ended();
    this.#proof.finish();
    this.#progress.clear();
    if (victim) {
      const { name, after, inFlight } = victim;
      console.log(
        `killed: ${name}, when ${after} files were done and it held ${inFlight}`,
      );
    }
    for (const { name, status } of ended) {
      const how = status.signal ?? `status ${status.code}`;
      const files = this.#proof.byWorker.get(name) ?? 0;
      console.log(`${name}: ${files} files, ended with ${how}`);
    }
    console.log(`redelivered: ${this.#server.stats().redelivered}`);
    const { right, wrong, changed, unreadable } = this.#proof.counts;
    console.log(
      `proof: ${this.#proof.sent} files, ${right} right, ${wrong} wrong, ` +
        `${changed} changed meanwhile, ${unreadable} unreadable`,
    );
    const good = wrong === 0 &&
      ended.every(({ name, status }) =>
        status.success || name === victim?.name
      );
    const which = changed + unreadable + this.#skipped === 0
      ? "every file"
      : "every file that could be read, and wasn't changed,";
    console.log(
      good ? `${which} has exactly one right checksum` : "FAILED",
    );
    return good;
  }

  /** Says how far it came. */
  interrupted(): string {
    return `interrupted after ${this.#proof.settled} of ${this.#total} files`;
  }

  /** Prints a line beside the progress. */
  tell(line: string): void {
    this.#progress.clear();
    console.error(line);
  }

  /** Leaves no process and no socket behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#progress.clear();
    // Not `close()`: that would wait for work that nobody does any more.
    await this.#server.abort();
    await this.#fleet[Symbol.asyncDispose]();
  }

  /**
   * Holds the last files back, one for each worker, until the victim is
   * stopped: so that it gets something to die with in a small folder, too,
   * where all is done before anybody can look.
   */
  async *#heldBack(files: AsyncIterable<FileRef>): AsyncGenerator<FileRef> {
    for await (const file of files) {
      if (file.id >= this.#total - WORKERS) await this.#stopped.promise;
      yield file;
    }
  }

  /** After each file, and once before the first. */
  #step(): void {
    this.#progress.show(this.#proof.settled, this.#total, "files");
    // More may be done than this process has checked.
    const { settled, failed } = this.#server.stats();
    const half = Math.min(this.#total / 2, this.#total - WORKERS);
    if (this.#total > 0 && settled + failed >= half) {
      this.#victim ??= this.#killOne();
    }
  }

  /** Kills the worker with the most to do, in the middle of doing it. */
  async #killOne(): Promise<Victim> {
    const { settled, failed } = this.#server.stats();
    const [name = "worker-1"] = this.#server.workers
      .toSorted((a, b) => b.inFlight - a.inFlight)
      .map((worker) => worker.name);
    const inFlight = () =>
      this.#server.workers.find((it) => it.name === name)?.inFlight ?? 0;
    // Stopped first: then what it has sent arrives, and what it gets it can't
    // finish any more, so that it surely dies with work in its hands.
    if (Deno.build.os !== "windows") this.#fleet.signal(name, "SIGSTOP");
    for (let same = 0; same < 5;) {
      const before = inFlight();
      await delay(20);
      same = inFlight() === before ? same + 1 : 0;
    }
    this.#stopped.resolve();
    for (let tries = 0; tries < 50 && inFlight() === 0; tries++) {
      await delay(20);
    }
    const victim = { name, after: settled + failed, inFlight: inFlight() };
    this.#fleet.signal(name, "SIGKILL");
    return victim;
  }

  /** Waits for every worker; one that ends instead is an error. */
  async #allActive(stopped: AbortSignal): Promise<void> {
    const signal = AbortSignal.any([stopped, AbortSignal.timeout(START_MS)]);
    const tooEarly = this.#fleet.firstEnded().then(({ name, status }) => {
      throw new Error(`${name} ended with status ${status.code}`);
    });
    await Promise.race([this.#server.ready(WORKERS, { signal }), tooEarly]);
    // Connected is not all: a victim that hasn't asked for files yet gets none.
    while (this.#server.workers.some(({ state }) => state !== "active")) {
      await Promise.race([delay(20, undefined, { signal }), tooEarly]);
    }
  }

  #drain(): void {
    this.tell("stopping: waiting for the files that are under way");
    this.#server.close({ drainMs: DRAIN_MS })
      .catch((error) => this.tell(errorMessage(error)));
  }
}

/** The folder on the command line, or this repository. */
async function folderToDo(): Promise<string> {
  let paths: string[] = [];
  try {
    paths = parseArgs({ allowPositionals: true }).positionals;
  } catch (error) {
    usageError(errorMessage(error));
  }
  if (paths.length > 1) usageError("one folder at a time");
  const repository = fileURLToPath(new URL("../../", import.meta.url));
  if (paths[0] === undefined) {
    return await Deno.realPath(await folderArgument(repository));
  }
  // `deno task` runs in the repository: a path is meant from where it was typed.
  const { state } = await Deno.permissions.query({
    name: "env",
    variable: "INIT_CWD",
  });
  const from = state === "granted" ? Deno.env.get("INIT_CWD") : undefined;
  return await Deno.realPath(
    await folderArgument(resolve(from ?? ".", paths[0])),
  );
}

async function count(root: string): Promise<number> {
  let total = 0;
  for await (const _ of walk(root, () => {})) total++;
  return total;
}

async function main(): Promise<number> {
  const root = await folderToDo();
  // Counted first, and walked once more for the work: so no list is kept.
  const total = await count(root);
  console.log(`SHA-256 of the ${total} files below ${root}`);

  const stopped = stopSignal();
  await using demo = new Demo(root, total);
  try {
    await demo.run(stopped);
    if (!stopped.aborted) return await demo.report() ? 0 : 1;
  } catch (error) {
    if (!stopped.aborted) {
      demo.tell(`error: ${errorMessage(error)}`);
      return 1;
    }
  }
  demo.tell(demo.interrupted());
  return 130;
}

if (import.meta.main) Deno.exitCode = await main();
