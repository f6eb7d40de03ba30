/**
 * Liveness as arithmetic: what silence means. Any traffic counts as a sign of
 * life; the clock is passed in.
 *
 * ```text
 *   0          intervalMs          timeoutMs               dropMs   silence
 *   ├── fine ───────┼── ping, again ────┼── suspect, ping ────┼── drop ──►
 * ```
 *
 * @module
 */

import type { HeartbeatOptions } from "./options.ts";

/** What to do about a silent peer. */
export type Verdict = "fine" | "ping" | "suspect" | "drop";

/** A connection, as far as its peer's silence is concerned. */
export interface Audible {
  /** When the peer was last heard, in ms. */
  readonly heardAt: number;
  /** Whether this end doesn't listen now. */
  readonly isDeaf: boolean;
  /** When this end last said something, in ms. */
  readonly saidAt: number;
  /** What has waited for the peer longest, and how long, in ms. */
  stall(now: number): { what: string; ms: number };
}

/** Judges the silence of one peer. */
export class Heartbeat {
  /** Whether the peer is suspect now. */
  suspect = false;
  readonly #options: Required<HeartbeatOptions>;
  readonly #jitter: number;
  #pingedAt = -Infinity;
  /** The last sign of life that was judged, and the first ping since. */
  #heardAt = -Infinity;
  #askedAt = Infinity;
  #token = 0;
  #answered = 0;

  /**
   * @param options When silence means what.
   * @param random A number from 0 to 1, so that peers aren't asked all at once.
   */
  constructor(options: Required<HeartbeatOptions>, random: number) {
    this.#options = options;
    this.#jitter = 0.8 + 0.2 * random;
  }

  /**
   * What to do now.
   *
   * @param heardAt When the peer was last heard, in ms; null: this end doesn't
   * listen now, so it can't judge, but it goes on to say something itself.
   * @param now The time, in ms.
   * @param saidAt When this end last said something: what the peer asks may be
   * behind a long frame that is coming, and this end is silent meanwhile.
   */
  judge(heardAt: number | null, now: number, saidAt: number = now): Verdict {
    const isDeaf = heardAt === null;
    heardAt ??= now;
    if (heardAt !== this.#heardAt) {
      this.#heardAt = heardAt;
      this.#askedAt = Infinity;
    }
    const { intervalMs, timeoutMs, dropMs } = this.#options;
    const interval = intervalMs * this.#jitter;
    // Past the interval, silence counts from the first ping on: if this end's
    // own loop stood still, nobody was asked.
    const silence = Math.min(
      now - heardAt,
      interval + Math.max(0, now - this.#askedAt),
    );
    if (silence >= dropMs) return "drop";
    if (silence >= timeoutMs && !this.suspect) return "suspect";
    const mayAsk = now - this.#pingedAt >= interval;
    const isDue = silence >= interval || isDeaf || now - saidAt >= interval;
    return isDue && mayAsk ? "ping" : "fine";
  }

  /**
   * What to do now about the peer of a connection; `reason` is why it is
   * dropped, if so. One that says something, and doesn't read or finish what it
   * has begun, is dropped as late as one that is silent.
   *
   * @param connection The connection.
   * @param now The time, in ms.
   * @param isDeaf Whether silence means nothing: this end doesn't listen.
   */
  judgePeer(
    connection: Audible,
    now: number,
    isDeaf: boolean = connection.isDeaf,
  ): { verdict: Verdict; reason: string } {
    const { what, ms } = connection.stall(now);
    if (ms >= this.#options.dropMs) {
      return { verdict: "drop", reason: `${what} for ${Math.round(ms)} ms` };
    }
    const { heardAt, saidAt } = connection;
    return {
      verdict: this.judge(isDeaf ? null : heardAt, now, saidAt),
      reason: `nothing was heard for ${Math.round(now - heardAt)} ms`,
    };
  }

  /** Whether the last ping has no answer yet. */
  get isAsking(): boolean {
    return this.#answered !== this.#token;
  }

  /** A ping is sent now; returns its token. */
  ping(now: number): number {
    this.#pingedAt = now;
    this.#askedAt = Math.min(this.#askedAt, now);
    return ++this.#token;
  }

  /** A pong came: the round trip in ms, if it answers the last ping. */
  pong(token: number, now: number): number | undefined {
    if (token !== this.#token) return undefined;
    this.#answered = token;
    return now - this.#pingedAt;
  }
}

/** How often to judge, in ms: a fraction of the shortest time that counts. */
export function tickMs(...times: (number | undefined)[]): number {
  const shortest = Math.min(...times.map((t) => t ?? Infinity));
  return Math.min(250, Math.max(5, shortest / 4));
}
