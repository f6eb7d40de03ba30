/**
 * The progress bar, on a terminal; elsewhere there is none.
 *
 * @module
 */

import { many, printable, printError, terminalSize } from "./cli_output.ts";

/** What there is to show. */
export interface Progress {
  /** Items settled in this run. */
  readonly done: number;
  /** Items settled in earlier runs. */
  readonly skipped: number;
  /** All items; NaN as long as that isn't known. */
  readonly total: number;
  readonly failed: number;
  readonly workers: number;
  /** It waits for what is under way. */
  readonly isStopping: boolean;
}

const FRAME_MS = 100;
/** The rate is that of about so long. */
const RATE_MS = 5000;

/** Standard error: the bar at its end, other lines above it. */
export class Console implements Disposable {
  readonly #showsBar: boolean;
  readonly #ask: () => Progress;
  readonly #timer: ReturnType<typeof setInterval> | undefined;
  readonly #history: { at: number; done: number }[] = [];
  #isDrawn = false;
  #isPaused = false;

  /**
   * @param ask Called for what there is to show.
   * @param isQuiet Whether there is no bar, terminal or not.
   */
  constructor(ask: () => Progress, isQuiet: boolean) {
    this.#ask = ask;
    this.#showsBar = !isQuiet && Deno.stderr.isTerminal();
    if (this.#showsBar) {
      this.#timer = setInterval(() => this.#draw(), FRAME_MS);
    }
  }

  /** Whether there is a bar. */
  get showsBar(): boolean {
    return this.#showsBar;
  }

  /** Prints a line on standard error. */
  print(line: string): void {
    // At Ctrl-C a terminal drops what it hasn't shown yet, wiping included,
    // and adds a "^C".
    if (this.#showsBar) this.#isDrawn = true;
    this.clear();
    // Also where it is none: behind `| tee`, or in a log, there is one later.
    printError(`${printable(line)}\n`);
  }

  /** Wipes the bar, so that what is printed next stands alone. */
  clear(): void {
    if (this.#isDrawn) printError("\r\x1b[K");
    this.#isDrawn = false;
  }

  /** The same, and none is drawn until what is returned is disposed of. */
  pause(): Disposable {
    this.clear();
    this.#isPaused = true;
    return { [Symbol.dispose]: () => this.#isPaused = false };
  }

  /** The bar is no more. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.clear();
  }

  #draw(): void {
    if (this.#isPaused) return;
    const progress = this.#ask();
    const now = performance.now();
    this.#history.push({ at: now, done: progress.done });
    while (now - this.#history[0]!.at > RATE_MS) this.#history.shift();
    const [oldest] = this.#history;
    const seconds = (now - oldest!.at) / 1000;
    const rate = seconds > 0 ? (progress.done - oldest!.done) / seconds : 0;
    const { columns } = terminalSize();
    printError(`\r${formatBar(progress, rate, columns)}\x1b[K`);
    this.#isDrawn = true;
  }
}

/** The bar as text, no wider than the terminal. */
export function formatBar(
  progress: Progress,
  rate: number,
  width: number,
): string {
  const { done, skipped, total, failed, workers, isStopping } = progress;
  const count = done + skipped;
  const parts = [
    Number.isNaN(total) ? `${count} done` : `${count}/${total}`,
    `${rate < 10 ? rate.toFixed(1) : Math.round(rate)}/s`,
  ];
  if (isStopping) parts.push("stopping");
  else if (!Number.isNaN(total) && rate > 0) {
    parts.push(`ETA ${formatTime((total - count) / rate)}`);
  }
  parts.push(
    workers === 0 ? "no workers" : many(workers, "worker"),
  );
  if (failed > 0) parts.push(`${failed} failed`);
  const text = parts.join("  ");
  if (Number.isNaN(total)) return text.slice(0, width - 1);
  // Multiplied first: 0.57 * 100 is below 57.
  const share = total === 0 ? 100 : Math.min(100, 100 * count / total);
  const percent = `${Math.floor(share)} %`.padStart(5);
  const room = Math.min(30, width - text.length - percent.length - 4);
  if (room < 5) return `${percent}  ${text}`.slice(0, width - 1);
  const filled = Math.round(share / 100 * room);
  const bar = "█".repeat(filled) + "░".repeat(room - filled);
  return `${percent} ${bar}  ${text}`;
}

function formatTime(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (n: number) => String(Math.floor(n)).padStart(2, "0");
  return whole < 3600
    ? `${Math.floor(whole / 60)}:${two(whole % 60)}`
    : `${Math.floor(whole / 3600)}:${two(whole / 60 % 60)}:${two(whole % 60)}`;
}
