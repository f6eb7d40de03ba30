/**
 * Ctrl-C: once stops in order, twice at once.
 *
 * @module
 */

/** Listens for SIGINT and SIGTERM. */
export class StopSignals implements Disposable {
  readonly #names: readonly Deno.Signal[] = Deno.build.os === "windows"
    ? ["SIGINT", "SIGBREAK"]
    : ["SIGINT", "SIGTERM"];
  readonly #listeners = new Map<Deno.Signal, () => void>();
  #count = 0;
  #status: number | null = null;

  /**
   * @param onStop The first one has come.
   * @param onAgain The second one has come. A third ends the process.
   */
  constructor(onStop: () => void, onAgain: () => void) {
    for (const name of this.#names) {
      const listener = () => {
        this.#count++;
        this.#status ??= name === "SIGTERM" ? 143 : 130;
        if (this.#count === 1) onStop();
        else if (this.#count === 2) onAgain();
        else Deno.exit(this.#status);
      };
      Deno.addSignalListener(name, listener);
      this.#listeners.set(name, listener);
    }
  }

  /** The exit status of a process that was stopped so; null: it wasn't. */
  get status(): number | null {
    return this.#status;
  }

  /** Listens no more. */
  [Symbol.dispose](): void {
    for (const [name, listener] of this.#listeners) {
      Deno.removeSignalListener(name, listener);
    }
  }
}
