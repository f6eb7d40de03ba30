/**
 * All that a server has spawned on its own machine, until it has ended.
 *
 * @module
 */

import { CborCodec } from "./cbor_codec.ts";
import { defined } from "./defined.ts";
import { LocalPool } from "./local_pool.ts";
import { type ConnectOptions, DEFAULTS, type SpawnOptions } from "./options.ts";

/** Workers of {@linkcode Server.spawn}: threads of this process. */
export interface LocalWorkers extends AsyncDisposable {
  /** How many were started. */
  readonly count: number;
  /**
   * Ends them: what they have begun is finished, and what they haven't goes
   * back to the queue.
   *
   * @returns Resolves when none is left.
   */
  close(): Promise<void>;
}

/** What local pools need of their server. */
export interface LocalPoolsHost {
  /** Where `client.ts` is: nothing in here imports it. */
  clientUrl(): string;
  /** How many items are settled, failed ones included. */
  progress(): number;
  /** A thread has crashed, and will be started again. */
  onCrash(name: string, error: Error): void;
  /** A pool can't go on. */
  onError(error: Error): void;
}

/** How long threads may take at the end to see it, in ms. */
const LEAVE_MS = 1000;

/** The local pools of a server. */
export class LocalPools {
  readonly #host: LocalPoolsHost;
  readonly #pools = new Set<LocalPool>();
  #closed: Promise<void> | null = null;

  /** @param host The server. */
  constructor(host: LocalPoolsHost) {
    this.#host = host;
  }

  /** How many have threads that work. */
  get size(): number {
    return this.#pools.size;
  }

  /**
   * Starts a pool.
   *
   * @param module The module whose default export is the handler.
   * @param options How many, and what they are called.
   * @param connect What its threads connect with.
   */
  spawn(
    module: URL,
    options: SpawnOptions,
    connect: ConnectOptions,
  ): LocalWorkers {
    // Codecs and transforms have code in them, which no thread can be sent.
    const { codec, transforms = [], ...rest } = connect;
    const pool = new LocalPool({
      url: module.href,
      clientUrl: this.#host.clientUrl(),
      count: options.count ?? navigator.hardwareConcurrency,
      concurrency: options.concurrency ?? DEFAULTS.concurrency,
      cbor: codec === undefined
        ? {}
        : codec instanceof CborCodec
        ? { maxDepth: codec.maxDepth }
        : null,
      transforms: transforms.map(({ name }) => name),
      connect: defined({
        ...rest,
        name: options.name,
        reconnect: { maxDelayMs: 1000 },
      }),
      progress: () => this.#host.progress(),
      onCrash: (name, error) => this.#host.onCrash(name, error),
      onError: (error) => this.#host.onError(error),
    });
    this.#pools.add(pool);
    pool.ended.then(() => this.#pools.delete(pool));
    const close = () => pool.leave();
    return { count: pool.count, close, [Symbol.asyncDispose]: close };
  }

  /**
   * A worker was dropped for its silence: if it is a thread of these, it is one
   * that a handler holds, and another takes its place.
   *
   * @param instance The worker's instance id, in hex.
   * @param reason Why it was dropped.
   */
  dropped(instance: string, reason: string): void {
    const error = new Error(`the thread was dropped: ${reason}`);
    this.#pools.forEach((pool) => pool.dropped(instance, error));
  }

  /** Ends all threads now. */
  terminate(): void {
    this.#pools.forEach((pool) => pool.terminate());
  }

  /** Resolves when no thread is left: they see the end by themselves. */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    const pools = [...this.#pools];
    const end = () => pools.forEach((pool) => pool.terminate());
    const timer = setTimeout(end, LEAVE_MS);
    await Promise.all(pools.map((pool) => pool.leave()));
    clearTimeout(timer);
  }
}
