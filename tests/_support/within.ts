/**
 * Waits that end: nothing in a test waits without a deadline.
 *
 * @module
 */

/** Waits for a promise, for so long at most. */
export async function within<T>(
  promise: PromiseLike<T>,
  ms: number,
  what: string,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`Not within ${ms} ms: ${what}`)),
      ms,
    );
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until something holds that nobody tells. */
export async function until(
  holds: () => boolean | Promise<boolean>,
  what: string,
  ms = 20_000,
): Promise<void> {
  const deadline = performance.now() + ms;
  for (let delayMs = 0; !await holds(); delayMs = Math.min(20, delayMs + 1)) {
    if (performance.now() > deadline) {
      throw new Error(`Not within ${ms} ms: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, delayMs));
  }
}

/** Waits until a number that grows by itself has come to a standstill. */
export async function still(count: () => number, what: string): Promise<void> {
  let before = NaN, looks = 0;
  await until(() => {
    looks = count() === before ? looks + 1 : 0;
    before = count();
    return looks >= 10;
  }, what);
}

/** Gives what must not happen the time to happen. */
export function moment(ms = 60): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** What never comes, as a handler that never ends. */
export function forever(): Promise<never> {
  return new Promise(() => {});
}

/** What became of a promise so far. */
export async function stateOf(
  promise: PromiseLike<unknown>,
): Promise<"pending" | "resolved" | "rejected"> {
  const pending = {};
  try {
    // A few turns of the event loop: streams take some microtasks each.
    const turns = new Promise((resolve) => setTimeout(resolve, 5, pending));
    return await Promise.race([promise, turns]) === pending
      ? "pending"
      : "resolved";
  } catch {
    return "rejected";
  }
}

/** A promise that a test resolves: what a handler waits at. */
export class Gate {
  readonly #opened = Promise.withResolvers<void>();
  /** How many have come to it. */
  passing = 0;

  /** Waits until it is open. */
  async pass(): Promise<void> {
    this.passing++;
    await this.#opened.promise;
  }

  /** Lets everybody through, now and later. */
  open(): void {
    this.#opened.resolve();
  }
}
