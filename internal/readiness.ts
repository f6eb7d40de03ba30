/**
 * Whoever waits until enough workers are connected.
 *
 * @module
 */

/** The waits of one server. */
export class Readiness {
  readonly #hasWorkers: (count: number) => boolean;
  readonly #waits = new Set<() => void>();

  /**
   * @param hasWorkers Whether there are so many; it throws why, if there can't
   * be any more.
   */
  constructor(hasWorkers: (count: number) => boolean) {
    this.#hasWorkers = hasWorkers;
  }

  /**
   * Waits.
   *
   * @param count For how many.
   * @param signal Ends the wait.
   */
  wait(count: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): boolean => {
        try {
          signal?.throwIfAborted();
          if (!this.#hasWorkers(count)) return false;
          resolve();
        } catch (error) {
          reject(error);
        }
        signal?.removeEventListener("abort", look);
        this.#waits.delete(look);
        return true;
      };
      if (look()) return;
      this.#waits.add(look);
      signal?.addEventListener("abort", look);
    });
  }

  /** A worker has come, or no more will: all look again. */
  check(): void {
    for (const look of [...this.#waits]) look();
  }
}
