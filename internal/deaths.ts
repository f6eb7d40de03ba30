/**
 * Whom items are blamed on: each process that died while it executed them. When
 * the same process comes back, it didn't die, and the blame is taken back.
 *
 * @module
 */

import { type Blame, type Entry, SETTLED } from "./in_flight.ts";

/** So many processes are remembered. */
const MAX_DEATHS = 1024;

/** The processes that died, by their instance ids, and what they executed. */
export class Deaths {
  readonly #blamed = new Map<string, Entry<unknown>[]>();

  /** A process died while it executed these items. */
  blame(entries: readonly Entry<unknown>[], death: Blame): void {
    for (const entry of entries) (entry.blames ??= []).push(death);
    const { instance } = death;
    if (instance === null) return;
    const blamed = this.#blamed.get(instance) ?? [];
    this.#blamed.delete(instance);
    // Not copied: a process may have lost thousands of connections.
    for (const entry of entries) blamed.push(entry);
    this.#blamed.set(instance, blamed);
    if (this.#blamed.size <= MAX_DEATHS) return;
    for (const oldest of this.#blamed.keys()) {
      this.#blamed.delete(oldest);
      break;
    }
  }

  /** Items that are settled needn't be remembered; to be called now and then. */
  tidy(): void {
    for (const [instance, entries] of this.#blamed) {
      const left = entries.filter(({ state }) => state !== SETTLED);
      if (left.length === 0) this.#blamed.delete(instance);
      else if (left.length < entries.length) this.#blamed.set(instance, left);
    }
  }

  /** The items that are blamed on a process. */
  of(instance: string): readonly Entry<unknown>[] {
    return this.#blamed.get(instance) ?? [];
  }

  /** A process that was thought dead is back. */
  takeBack(instance: string): void {
    const entries = this.#blamed.get(instance) ?? [];
    this.#blamed.delete(instance);
    for (const entry of entries) {
      const blames = entry.blames?.filter((b) => b.instance !== instance) ?? [];
      entry.blames = blames.length > 0 ? blames : null;
    }
  }
}
