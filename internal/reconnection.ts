/**
 * When `work()` tries again, and when it gives up. The clock and randomness are
 * passed in.
 *
 * @module
 */

import { Backoff } from "./backoff.ts";
import { ConnectionLostError, HandshakeError } from "./errors.ts";
import { DEFAULTS, type ReconnectOptions } from "./options.ts";
import { timerMs } from "./timer.ts";

/** So many failures of authentication in a row are final. */
const MAX_AUTH_FAILURES = 2;

/** The attempts of one `work()`. */
export class Reconnection {
  readonly #backoff: Backoff;
  readonly #isOff: boolean;
  readonly #maxAttempts: number;
  readonly #maxElapsedMs: number;
  #failures = 0;
  #authFailures = 0;
  #openedAt = 0;
  #lostAt: number;

  /**
   * @param options How to reconnect; false: not at all.
   * @param rim `random`, a number from 0 to 1, and the time in ms.
   */
  constructor(
    options: ReconnectOptions | false | undefined,
    { random, now }: { random: () => number; now: number },
  ) {
    this.#lostAt = now;
    const {
      minDelayMs = DEFAULTS.minDelayMs,
      maxDelayMs = DEFAULTS.maxDelayMs,
      maxAttempts = Infinity,
      maxElapsedMs = Infinity,
    } = options || {};
    this.#isOff = options === false;
    this.#backoff = new Backoff(minDelayMs, maxDelayMs, random);
    this.#maxAttempts = maxAttempts;
    this.#maxElapsedMs = maxElapsedMs;
  }

  /** Attempts since the last connection that lasted. */
  get attempts(): number {
    return this.#backoff.attempts;
  }

  /** A handshake was done. */
  opened(now: number): void {
    this.#openedAt = now;
    this.#failures = this.#authFailures = 0;
  }

  /** A connection that had done its handshake was lost. */
  lost(now: number): void {
    this.#lostAt = now;
    // Who is always sent away at once isn't to come back at once for ever.
    if (now - this.#openedAt >= this.#backoff.bound) this.#backoff.reset();
    // This is no failed attempt yet: the next may be.
    this.#failures = -1;
  }

  /** An attempt failed: the time until the next in ms, or null to give up. */
  next(error: unknown, now: number): number | null {
    this.#failures++;
    if (error instanceof HandshakeError && error.code === "auth") {
      this.#authFailures++;
    }
    if (this.#isOff || !this.#canHeal(error)) return null;
    const delayMs = this.#backoff.next();
    return this.#failures >= this.#maxAttempts ||
        now - this.#lostAt + delayMs > this.#maxElapsedMs
      ? null
      : delayMs;
  }

  /** Waits, or until a signal aborts. */
  wait(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, timerMs(ms));
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }

  /** Whether trying again may be of use. */
  #canHeal(error: unknown): boolean {
    if (error instanceof TypeError || error instanceof RangeError) {
      // What a system calls an invalid argument may be a route that leads
      // nowhere for now: Linux says so of a black hole, as of a VPN that is down.
      return "code" in error && error.code === "EINVAL";
    }
    // What isn't the name of a host never resolves: "http://server", "server:80".
    if (error instanceof URIError) return false;
    // A permission that this process has not, it never gets.
    if (error instanceof Deno.errors.NotCapable) return false;
    // The same item would break the same transform again.
    if (error instanceof ConnectionLostError) {
      return error.code !== "transforms";
    }
    if (!(error instanceof HandshakeError)) return true;
    if (error.code === "auth") return this.#authFailures < MAX_AUTH_FAILURES;
    return error.code === "full" || error.code === "timeout" ||
      error.code === "protocol";
  }
}
