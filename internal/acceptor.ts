/**
 * Where connections come in: accept loops, and how many may be open. A flood of
 * connections, or an error of accept(), stops neither the server nor whoever is
 * connected already.
 *
 * ```text
 *   accept() ──► fewer than maxConnections are open: its handshake begins, and
 *       │        over maxHandshakes the oldest that isn't done is refused
 *       ├──────► up to MAX_REFUSALS more: is told so, and may read it
 *       └──────► else: the oldest of these is closed, and makes room
 * ```
 *
 * @module
 */

import { type Duplex, tuneSocket } from "./connection.ts";
import { HandshakeError } from "./errors.ts";
import { settledWithin } from "./promises.ts";
import { afterTurn } from "./timer.ts";
import { type LinkHost, WorkerLink } from "./worker_link.ts";

/**
 * After so many connections the accept loop waits for a timer. Those that wait
 * in the backlog are accepted at once otherwise, and in a flood of them nobody
 * else has a turn; and only an event loop that has nothing to do for a moment
 * looks at its sockets each time (else, with tokio, every 61st).
 */
const ACCEPTS_AT_ONCE = 8;
/** How long to wait after an error of accept(), at first and at most, in ms. */
const ACCEPT_DELAY_MS = 5, MAX_ACCEPT_DELAY_MS = 1000;
/** How long a listener's accept() may go on after its close(), in ms. */
const STOP_MS = 100;
/** Connections over the limit that are told so at once, before they close. */
const MAX_REFUSALS = 64;

/** Options of {@linkcode Acceptor}. */
export interface AcceptorOptions {
  /** All connections that are open: new ones are added, and nobody removed. */
  readonly links: Set<WorkerLink>;
  /** How many may be open. */
  readonly maxConnections: number;
  /** How many of them may not have done their handshake. */
  readonly maxHandshakes: number;
  /** There is a new connection. */
  onAccepted(): void;
  /** A connection couldn't be accepted. */
  onError(error: Error): void;
  /** Somebody else closed a listener: no worker can come any more. */
  onListenerLost(error: Error): void;
}

/** A pause of an accept loop. */
interface Pause {
  readonly forget: () => void;
  readonly wake: () => void;
}

/** Accepts the connections of a server, on one listener or more. */
export class Acceptor {
  readonly #options: AcceptorOptions;
  readonly #listeners: Deno.Listener[] = [];
  readonly #loops: Promise<void>[] = [];
  readonly #pauses = new Set<Pause>();
  #isStopped = false;

  /** @param options The limits, and whom to tell. */
  constructor(options: AcceptorOptions) {
    this.#options = options;
  }

  /**
   * Accepts what comes, until {@linkcode Acceptor.stop}.
   *
   * @param listener Where it comes; it belongs to the acceptor from now on.
   * @param host What its links need of the server.
   */
  accept(listener: Deno.Listener, host: LinkHost): void {
    this.#listeners.push(listener);
    this.#loops.push(this.#accept(listener, host));
  }

  async #accept(listener: Deno.Listener, host: LinkHost): Promise<void> {
    let delayMs = ACCEPT_DELAY_MS;
    for (let accepted = 1;; accepted++) {
      try {
        const conn = await listener.accept();
        delayMs = ACCEPT_DELAY_MS;
        if (this.#isStopped) {
          conn.close();
          return;
        }
        this.#onConnection(conn, host);
        if (accepted % ACCEPTS_AT_ONCE === 0) await this.#pause(afterTurn);
      } catch (error) {
        if (this.#isStopped) return;
        this.#options.onError(error as Error);
        if (this.#isStopped) return; // whoever was told had enough
        if (error instanceof Deno.errors.BadResource) {
          this.#options.onListenerLost(error);
          return;
        }
        if (isOfOne(error)) {
          if (accepted % ACCEPTS_AT_ONCE === 0) await this.#pause(afterTurn);
        } else {
          await this.#pause((wake) => afterTime(wake, delayMs));
          delayMs = Math.min(delayMs * 2, MAX_ACCEPT_DELAY_MS);
        }
        if (this.#isStopped) return;
      }
    }
  }

  /** Closes the listeners; the connections stay. */
  stop(): void {
    this.#isStopped = true;
    for (const listener of this.#listeners) {
      try {
        listener.close();
      } catch {
        // Closed already.
      }
    }
    for (const { forget, wake } of this.#pauses) {
      forget();
      wake();
    }
  }

  /**
   * After {@linkcode Acceptor.stop}: resolves when others can listen there. An
   * address is free once its last accept() has ended; that of a listener of the
   * caller's own may never end.
   */
  async stopped(): Promise<void> {
    await settledWithin(Promise.allSettled(this.#loops), STOP_MS);
  }

  async #pause(begin: (wake: () => void) => () => void): Promise<void> {
    const { promise, resolve: wake } = Promise.withResolvers<void>();
    const pause: Pause = { forget: begin(wake), wake };
    this.#pauses.add(pause);
    await promise;
    this.#pauses.delete(pause);
  }

  #onConnection(conn: Deno.Conn, host: LinkHost): void {
    const { links, maxConnections } = this.#options;
    const open = this.#makeRoom();
    if (links.size >= maxConnections + MAX_REFUSALS) {
      conn.close(); // what made room still waits for its transforms
      return;
    }
    tuneSocket(conn);
    const link = new WorkerLink(conn as Duplex, conn.remoteAddr, host);
    links.add(link);
    link.connection.start();
    if (open >= maxConnections) {
      link.reject(
        new HandshakeError(
          "full",
          `Handshake failed: ${maxConnections} connections are open, maxConnections is reached`,
        ),
      );
    }
    this.#limitHandshakes();
    this.#options.onAccepted();
  }

  /**
   * Those that were refused, and only wait for their peers, count apart: where
   * room is short, the oldest of MAX_REFUSALS makes some. Returns how many
   * others there are, or might be.
   */
  #makeRoom(): number {
    const { links, maxConnections } = this.#options;
    if (links.size < maxConnections) return links.size;
    let refused = 0;
    let oldest: WorkerLink | null = null;
    for (const link of links) {
      if (link.isHandshaking || link.isWorker) continue;
      oldest ??= link;
      refused++;
    }
    const open = links.size - refused; // the oldest, if it goes, is none of these
    if (refused >= MAX_REFUSALS) oldest!.connection.end();
    return open;
  }

  /** The oldest that hasn't done its handshake makes room. */
  #limitHandshakes(): void {
    const { links, maxHandshakes } = this.#options;
    let handshakes = 0;
    let oldest: WorkerLink | null = null;
    for (const link of links) {
      if (!link.isHandshaking) continue;
      oldest ??= link;
      handshakes++;
    }
    if (handshakes > maxHandshakes) {
      oldest!.reject(
        new HandshakeError(
          "full",
          `Handshake failed: ${maxHandshakes} others are under way, maxHandshakes is reached`,
        ),
      );
    }
  }
}

function afterTime(call: () => void, ms: number): () => void {
  const timer = setTimeout(call, ms);
  return () => clearTimeout(timer);
}

/**
 * Whether an error of accept() is that of one connection, whose peer has reset
 * it already, as probes do: the next one isn't to wait for that.
 */
function isOfOne(error: unknown): boolean {
  return error instanceof Deno.errors.NotConnected ||
    error instanceof Deno.errors.ConnectionAborted ||
    error instanceof Deno.errors.ConnectionReset ||
    // So macOS calls it, since such a connection has no addresses any more.
    (error instanceof TypeError && "code" in error && error.code === "EINVAL");
}
