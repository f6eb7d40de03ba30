import { stdArgs } from "../../tools/std.ts";

/** How one worker process ended. */
export interface Ended {
  name: string;
  status: Deno.CommandStatus;
}

/** The demo's worker processes. Disposing of it leaves none behind. */
export class Fleet implements AsyncDisposable {
  readonly #children = new Map<string, Deno.ChildProcess>();

  /** Starts `count` checksum workers that read below `root`. */
  constructor(root: string, port: number, count: number) {
    for (let i = 1; i <= count; i++) {
      const name = `worker-${i}`;
      const command = new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          ...stdArgs(),
          `--allow-net=127.0.0.1:${port}`,
          // The folder by its short name: a comma in a path would be taken for
          // the end of one.
          "--allow-read=.",
          new URL("./worker.ts", import.meta.url).href,
          `--port=${port}`,
          `--name=${name}`,
          "--give-up=10",
          ".",
        ],
        cwd: root,
        stdin: "null",
        stdout: "null",
        stderr: "inherit",
        // A group of its own: Ctrl-C on the terminal goes to the demo alone,
        // which then drains instead of losing its workers.
        detached: true,
      });
      this.#children.set(name, command.spawn());
    }
  }

  /** The workers' process ids, by name. */
  get pids(): Map<string, number> {
    return new Map([...this.#children].map(([name, { pid }]) => [name, pid]));
  }

  /** Sends a signal to a worker; to one that has ended, nothing. */
  signal(name: string, signal: Deno.Signal): void {
    try {
      this.#children.get(name)?.kill(signal);
    } catch {
      // It has ended by itself.
    }
  }

  /** Each worker's end, in the order they were started in. */
  ended(): Promise<Ended[]> {
    return Promise.all(this.#ends());
  }

  /** The end of the worker that is the first to go. */
  firstEnded(): Promise<Ended> {
    return Promise.race(this.#ends());
  }

  /** Ends those that still run, and waits for all of them. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#children.keys()) this.signal(name, "SIGKILL");
    await this.ended();
  }

  #ends(): Promise<Ended>[] {
    return [...this.#children].map(async ([name, { status }]) => ({
      name,
      status: await status,
    }));
  }
}
