/**
 * Whoever waits until enough workers are connected.
 *
 * @module
 */

import { clearTimeout, setTimeout } from "node:timers";

/**
 * Who has just come asks for items a round trip later, if it does at once. So
 * long it has for that before it counts all the same, in ms.
 */
const ASKING_MS = 100;

/** What {@linkcode Readiness} needs to know. */
export interface ReadinessOptions {
  /**
   * Whether there are so many workers; it throws why, if there can't be any
   * more.
   */
  hasWorkers(count: number): boolean;
  /** Whether so many of them aren't about to ask for their first items. */
  haveAsked(count: number): boolean;
}

/**
 * The waits of one server. Without the time for asking, what is sent behind
 * `ready()` would all go to the few that have asked by then.
 */
export class Readiness {
  readonly #options: ReadinessOptions;
  readonly #waits = new Set<() => void>();

  /** @param options What there is. */
  constructor(options: ReadinessOptions) {
    this.#options = options;
  }

  /**
   * Waits.
   *
   * @param count For how many.
   * @param signal Ends the wait.
   */
  wait(count: number, signal: AbortSignal | undefined): Promise<void> {
    const { hasWorkers, haveAsked } = this.#options;
    return new Promise((resolve, reject) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      let isLate = false;
      const look = (): boolean => {
        try {
          signal?.throwIfAborted();
          if (!hasWorkers(count)) return false;
          if (!isLate && !haveAsked(count)) {
            timer ??= setTimeout(late, ASKING_MS);
            return false;
          }
          resolve();
        } catch (error) {
          reject(error);
        }
        clearTimeout(timer);
        signal?.removeEventListener("abort", look);
        this.#waits.delete(look);
        return true;
      };
      const late = (): void => {
        timer = undefined;
        isLate = true;
        look();
        isLate = false;
      };
      if (look()) return;
      this.#waits.add(look);
      signal?.addEventListener("abort", look);
    });
  }

  /** A worker has come, or has asked, or no more will: all look again. */
  check(): void {
    for (const look of [...this.#waits]) look();
  }
}
