/**
 * A line on the terminal that is written over as the work goes on. Where
 * stdout or stderr is no terminal there is none.
 */
export class ProgressLine implements Disposable {
  readonly #on = Deno.stdout.isTerminal() && Deno.stderr.isTerminal();
  readonly #start = performance.now();
  #shownAt = -Infinity;

  /** Shows `done` of `total` and a rate, ten times a second at most. */
  show(done: number, total: number, what: string): void {
    const now = performance.now();
    if (!this.#on || (now - this.#shownAt < 100 && done < total)) return;
    this.#shownAt = now;
    const share = total === 0 ? 1 : done / total;
    const bar = "█".repeat(Math.round(share * 20)).padEnd(20, "░");
    const rate = Math.round(done / ((now - this.#start) / 1000));
    this.#write(
      `${bar} ${
        Math.floor(share * 100)
      } %  ${done}/${total} ${what}  ${rate}/s`,
    );
  }

  /** Wipes the line, so that what is printed next stands alone. */
  clear(): void {
    if (this.#on) this.#write("");
  }

  /** As {@linkcode clear}. */
  [Symbol.dispose](): void {
    this.clear();
  }

  #write(text: string): void {
    // Back to the first column, and wipe what is left of an older, longer line.
    Deno.stderr.writeSync(new TextEncoder().encode(`\r${text}\x1b[K`));
  }
}
