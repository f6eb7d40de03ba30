/**
 * A network that fails on command: a proxy between TCP clients and a server on
 * this machine.
 *
 * @module
 */

import type { Rng } from "./rng.ts";

/** What a connection through the proxy suffers. */
export interface Weather {
  /** A chunk is passed on after so long, in ms. */
  delayMs?: () => number;
  /** The most bytes that are passed on at once. */
  chunkBytes?: () => number;
}

/** A proxy on a port of its own. */
export class TcpProxy implements AsyncDisposable {
  /** Where clients connect. */
  readonly port: number;
  /** How the weather is; it may change at any time. */
  weather: Weather;
  /** Connections that were cut. */
  cuts = 0;
  readonly #target: { hostname: string; port: number };
  readonly #listener: Deno.TcpListener;
  readonly #pairs = new Set<[Deno.TcpConn, Deno.TcpConn]>();
  readonly #tasks = new Set<Promise<void>>();
  #frozen: PromiseWithResolvers<void> | null = null;
  #refuses = false;

  /**
   * @param port The server's port.
   * @param weather How the weather is.
   */
  constructor(port: number, weather: Weather = {}) {
    this.weather = weather;
    this.#target = { hostname: "127.0.0.1", port };
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.port = this.#listener.addr.port;
    this.#run(this.#accept());
  }

  /** Cuts all connections, or one of them by chance. */
  cut(rng?: Rng): void {
    const pairs = [...this.#pairs];
    for (const pair of rng ? pairs.splice(rng.int(0, 99), 1) : pairs) {
      this.cuts++;
      close(pair);
    }
  }

  /** Nothing passes any more, and nobody is told: a half-open connection. */
  freeze(): void {
    this.#frozen ??= Promise.withResolvers();
  }

  /** What waits passes, and all that follows. */
  thaw(): void {
    this.#frozen?.resolve();
    this.#frozen = null;
  }

  /** New connections are closed at once, or not any more. */
  refuse(refuses: boolean): void {
    this.#refuses = refuses;
  }

  /** Cuts all, and accepts no more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.thaw();
    for (const pair of this.#pairs) close(pair);
    while (this.#tasks.size > 0) await Promise.all(this.#tasks);
  }

  #run(task: Promise<void>): void {
    const done = task.catch(() => {}).finally(() => this.#tasks.delete(done));
    this.#tasks.add(done);
  }

  async #accept(): Promise<void> {
    for await (const near of this.#listener) {
      if (this.#refuses) near.close();
      else this.#run(this.#connect(near));
    }
  }

  async #connect(near: Deno.TcpConn): Promise<void> {
    let far: Deno.TcpConn;
    try {
      far = await Deno.connect(this.#target);
    } catch {
      near.close();
      return;
    }
    near.setNoDelay(true);
    far.setNoDelay(true);
    const pair: [Deno.TcpConn, Deno.TcpConn] = [near, far];
    this.#pairs.add(pair);
    await Promise.all([
      this.#pass(near, far, pair),
      this.#pass(far, near, pair),
    ]);
    this.#pairs.delete(pair);
    close(pair);
  }

  async #pass(
    from: Deno.TcpConn,
    to: Deno.TcpConn,
    pair: [Deno.TcpConn, Deno.TcpConn],
  ): Promise<void> {
    const buffer = new Uint8Array(16 * 1024);
    try {
      for (;;) {
        const { chunkBytes, delayMs } = this.weather;
        const most = Math.max(1, chunkBytes?.() ?? buffer.length);
        const count = await from.read(buffer.subarray(0, most));
        if (this.#frozen !== null) await this.#frozen.promise;
        if (count === null) break;
        const ms = delayMs?.() ?? 0;
        if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
        for (let at = 0; at < count;) {
          at += await to.write(buffer.subarray(at, count));
        }
      }
      await to.closeWrite();
    } catch {
      close(pair); // one end is gone; the other learns of it
    }
  }
}

function close(pair: readonly Deno.TcpConn[]): void {
  for (const conn of pair) {
    try {
      conn.close();
    } catch {
      // Closed already.
    }
  }
}
