/**
 * A connection that fails, by a seed: it delays, splits at any byte, stalls,
 * stands half open, is dropped or reset. Nothing is ever changed, repeated or
 * moved: that is what TCP promises too.
 *
 * @module
 */

import type { Rng } from "./rng.ts";

/** What becomes of a connection at its time. */
export type Fate =
  /** Both ends see the end of what was sent. */
  | "drop"
  /** Both ends see an error. */
  | "reset"
  /** Nothing passes any more, and nobody is told. */
  | "half-open"
  /** Nothing passes for a while. */
  | "stall";

/** Options of {@linkcode FaultyDuplex}. */
export interface FaultyOptions {
  /** Where chance comes from. */
  rng: Rng;
  /** The most bytes that pass at once: 1 is byte by byte. @default {Infinity} */
  chunkBytes?: number;
  /** The longest time that a read or a write takes, in ms. @default {0} */
  delayMs?: number;
  /** What may become of it. @default {[]} */
  fates?: readonly Fate[];
  /** The bytes that pass before that, on the average. @default {16_384} */
  lifeBytes?: number;
  /** How long a stall is at most, in ms. @default {300} */
  stallMs?: number;
}

/** Wraps one end of a connection. */
export class FaultyDuplex implements Deno.Conn<Deno.NetAddr> {
  /** What became of it so far. */
  readonly fates: Fate[] = [];
  readonly #conn: Deno.Conn<Deno.NetAddr>;
  readonly #options: FaultyOptions;
  readonly #over = Promise.withResolvers<never>();
  #left = Infinity;
  #until: Promise<void> | null = null;
  #timers = new Set<ReturnType<typeof setTimeout>>();
  #closed = false;
  #reset = false;

  /**
   * @param conn The connection, which belongs to the wrapper from now on.
   * @param options What happens to it.
   */
  constructor(conn: Deno.Conn<Deno.NetAddr>, options: FaultyOptions) {
    this.#conn = conn;
    this.#options = options;
    this.#over.promise.catch(() => {});
    this.#live();
  }

  get localAddr(): Deno.NetAddr {
    return this.#conn.localAddr;
  }

  get remoteAddr(): Deno.NetAddr {
    return this.#conn.remoteAddr;
  }

  async read(p: Uint8Array): Promise<number | null> {
    await this.#pass();
    const most = this.#most(p.length);
    const count = await this.#race(this.#conn.read(p.subarray(0, most)));
    // What came late for a connection that stands half open never comes.
    if (this.#until !== null) await this.#race(this.#until);
    this.#spend(count ?? 0);
    return count;
  }

  async write(p: Uint8Array): Promise<number> {
    await this.#pass();
    const count = await this.#race(
      this.#conn.write(p.subarray(0, this.#most(p.length))),
    );
    this.#spend(count);
    return count;
  }

  async closeWrite(): Promise<void> {
    await this.#pass();
    await (this.#conn as Deno.TcpConn).closeWrite();
  }

  close(): void {
    if (this.#closed) throw new Deno.errors.BadResource("Bad resource ID");
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#over.reject(new Deno.errors.Interrupted("operation canceled"));
    if (!this.#reset) this.#shut();
  }

  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#conn.readable;
  }

  get writable(): WritableStream<Uint8Array<ArrayBufferLike>> {
    return this.#conn.writable;
  }

  ref(): void {}

  unref(): void {}

  [Symbol.dispose](): void {
    if (!this.#closed) this.close();
  }

  #live(): void {
    const { rng, fates = [], lifeBytes = 16_384 } = this.#options;
    if (fates.length === 0) return;
    this.#left = Math.ceil(-Math.log(1 - rng.float()) * lifeBytes);
  }

  #most(length: number): number {
    const { rng, chunkBytes = Infinity } = this.#options;
    if (chunkBytes === Infinity) return length;
    return Math.min(length, rng.int(1, chunkBytes));
  }

  async #pass(): Promise<void> {
    const { rng, delayMs = 0 } = this.#options;
    if (this.#until !== null) await this.#race(this.#until);
    if (delayMs > 0 && rng.chance(0.5)) {
      await this.#race(this.#sleep(rng.float() * delayMs));
    }
    if (this.#reset) throw reset();
  }

  #spend(bytes: number): void {
    this.#left -= bytes;
    if (this.#left > 0) return;
    const { rng, fates = [], stallMs = 300 } = this.#options;
    const fate = rng.pick(fates);
    this.fates.push(fate);
    this.#left = Infinity;
    if (fate === "stall") {
      this.#until = this.#sleep(rng.float() * stallMs).then(() => {
        this.#until = null;
      });
      this.#live();
    } else if (fate === "half-open") {
      this.#until = new Promise(() => {}); // close() ends it
    } else {
      this.#reset = true;
      this.#shut();
      this.#over.reject(reset());
    }
  }

  #shut(): void {
    try {
      this.#conn.close();
    } catch {
      // Closed already.
    }
  }

  #race<T>(promise: Promise<T>): Promise<T> {
    promise.catch(() => {});
    return Promise.race([promise, this.#over.promise]);
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        resolve();
      }, ms);
      this.#timers.add(timer);
    });
  }
}

function reset(): Error {
  return new Deno.errors.ConnectionReset("Connection reset by peer");
}
