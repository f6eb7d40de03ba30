/**
 * The end that defines the work: {@linkcode listen} and {@linkcode Server}.
 *
 * @example A pool of workers as a `TransformStream`
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { listen } from "@distchan/distchan/server";
 * import { work } from "@distchan/distchan/client";
 *
 * await using server = listen<string, string>({ port: 0 });
 * const { port } = server.addr;
 * const worker = work<string, string>({ port }, (word) => word.toUpperCase());
 *
 * const words = ReadableStream.from(["hello", "world"]);
 * const results = await Array.fromAsync(words.pipeThrough(server));
 *
 * assertEquals(results, ["HELLO", "WORLD"]);
 * await worker;
 * ```
 *
 * @module
 */

import { cbor } from "./codec.ts";
import { Acceptor } from "./internal/acceptor.ts";
import { checkBind, checkListener, isLoopback } from "./internal/bind.ts";
import { Inlet, Outlet } from "./internal/channel.ts";
import { Dashboard, type ServerPhase } from "./internal/dashboard.ts";
import { defined } from "./internal/defined.ts";
import {
  Delivery,
  type Item as Entry,
  type Worker,
} from "./internal/delivery.ts";
import { strategyOf, type WorkerInfo } from "./internal/dispatcher.ts";
import { DrainTimeoutError, ItemFailure } from "./internal/errors.ts";
import { type ServerEvent, tellEvent } from "./internal/events.ts";
import { checkHandshake, termsOf } from "./internal/handshake.ts";
import { ItemSpans } from "./internal/item_spans.ts";
import { LocalPools, type LocalWorkers } from "./internal/local_pools.ts";
import { Loopback } from "./internal/loopback.ts";
import { Mode } from "./internal/frame.ts";
import { MapRun } from "./internal/map_run.ts";
import type { ServerStats } from "./internal/metrics.ts";
import {
  type ConnectOptions,
  type DashboardOptions,
  DEFAULTS,
  kindOf,
  type ListenOptions,
  type MapOptions,
  type MapOutcome,
  resolveHeartbeat,
  secretBytes,
  type ServerOptions,
  type SpawnOptions,
  type SubmitOptions,
} from "./internal/options.ts";
import { PayloadCodec } from "./internal/payload.ts";
import { deferred, settledWithin } from "./internal/promises.ts";
import { Readiness } from "./internal/readiness.ts";
import { Retries } from "./internal/retries.ts";
import { ItemSchema } from "./internal/schema.ts";
import { ServerWatch } from "./internal/server_watch.ts";
import { afterTurn } from "./internal/timer.ts";
import { tracingOfProcess } from "./internal/tracing.ts";
import { ownOptions, validate } from "./internal/validate.ts";
import { afterEnd, ChannelWay, SubmitWay } from "./internal/ways.ts";
import type { LinkHost, WorkerLink } from "./internal/worker_link.ts";
import { reasonOf } from "./internal/thrown.ts";

export {
  ConnectionLostError,
  DecodeError,
  DrainTimeoutError,
  EncodeError,
  FrameTooLargeError,
  HandshakeError,
  type HandshakeErrorCode,
  InsecureBindError,
  ItemFailure,
  ItemTimeoutError,
  type PoisonAttempt,
  PoisonItemError,
  ProtocolError,
  RemoteError,
  ValidationError,
  type ValidationIssue,
} from "./internal/errors.ts";
export type { Codec } from "./codec.ts";
export type { Dispatcher, WorkerInfo } from "./internal/dispatcher.ts";
export type {
  ClientEvent,
  ServerEvent,
  StallReason,
} from "./internal/events.ts";
export type {
  ClientOptions,
  CommonOptions,
  ConnectOptions,
  DashboardOptions,
  HeartbeatOptions,
  ListenOptions,
  LocalOptions,
  MapOptions,
  MapOutcome,
  ReconnectOptions,
  RetryOptions,
  ServerOptions,
  SpawnOptions,
  SubmitOptions,
} from "./internal/options.ts";
export type { LocalWorkers } from "./internal/local_pools.ts";
export type { ServerStats } from "./internal/metrics.ts";
export type { SchemaResult, StandardSchemaV1 } from "./internal/schema.ts";
export { aesGcm } from "./internal/aes_gcm.ts";
export { gzip, type GzipOptions } from "./internal/gzip.ts";
export {
  type ByteTransformStream,
  fromTransformStream,
} from "./internal/stream_transform.ts";
export type {
  OpenTransform,
  Transform,
  TransformContext,
} from "./internal/transforms.ts";

/**
 * Listens for workers.
 *
 * @typeParam Item What is sent to workers.
 * @typeParam Result What comes back.
 * @param options Where to listen, and the options of the server.
 * @returns The server, which listens already.
 * @throws {InsecureBindError} If the address is open to other machines and
 * neither `secret` nor TLS is set, nor `insecure: true`; or the dashboard's is,
 * without `secret`.
 * @throws {TypeError} If an option is unknown or of the wrong type.
 * @throws {RangeError} If an option is out of range.
 * @throws {Deno.errors.AddrInUse} If somebody else listens there, or where the
 * dashboard is to be.
 * @throws {Deno.errors.InvalidData} If `cert` or `key` can't be read, or one
 * isn't the other's.
 *
 * @example Send items and iterate over the results
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { listen } from "@distchan/distchan/server";
 * import { work } from "@distchan/distchan/client";
 *
 * const server = listen<number, number>({ port: 0 });
 * const { port } = server.addr;
 * const worker = work<number, number>({ port }, (n) => n * n);
 *
 * for (const n of [1, 2, 3]) await server.send(n);
 * server.end();
 * const squares = [];
 * for await (const square of server) squares.push(square);
 *
 * assertEquals(squares, [1, 4, 9]);
 * await worker;
 * await server.closed;
 * ```
 */
export function listen<Item, Result>(
  options: ListenOptions<Item, Result>,
): Server<Item, Result> & { readonly addr: Deno.NetAddr } {
  options = ownOptions(options, "listen");
  const { hostname = DEFAULTS.hostname, port, cert, key, local, ...rest } =
    options;
  const hasTls = cert !== undefined && key !== undefined;
  if (!hasTls) checkBind(hostname, rest);
  if (hasTls && rest.dashboard !== undefined) {
    const { hostname = DEFAULTS.hostname } = rest.dashboard;
    if (!isLoopback(hostname)) {
      const own = rest.dashboard;
      rest.dashboard = own.cert === undefined ? { ...own, cert, key } : own;
    }
  }
  const listener = hasTls
    ? withPem("listen", () => Deno.listenTls({ hostname, port, cert, key }))
    : Deno.listen({ hostname, port });
  try {
    const server = new Server<Item, Result>(listener, rest);
    if (local !== undefined) {
      const { module, ...spawnOptions } = local;
      server.spawn(module, spawnOptions);
    }
    return server as typeof server & { readonly addr: Deno.NetAddr };
  } catch (error) {
    // The dashboard's port is taken, for example.
    listener.close();
    throw error;
  }
}

/**
 * The end of a channel that defines the work. Every item is given to one worker,
 * and to another only if that one is lost or falls silent; what workers write
 * back comes out of it. It is a
 * `{ readable, writable }` pair, so a pool of workers is a `TransformStream`.
 *
 * @typeParam Item What is sent to workers.
 * @typeParam Result What comes back.
 *
 * @example One item, its own result
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { Server } from "@distchan/distchan/server";
 * import { work } from "@distchan/distchan/client";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * await using server = new Server<number, number>(listener);
 * const { port } = server.addr as Deno.NetAddr;
 * work<number, number>({ port }, (n) => n + 1);
 *
 * assertEquals(await server.submit(41), 42);
 * ```
 */
export class Server<Item = unknown, Result = unknown>
  implements AsyncDisposable, AsyncIterable<Result> {
  readonly #listener: Deno.Listener;
  readonly #options: ServerOptions;
  readonly #links = new Set<WorkerLink>();
  /** Workers that may send no values before others' are read. */
  readonly #uncredited = new Set<WorkerLink>();
  readonly #acceptor: Acceptor;
  readonly #maps = new Set<MapRun>();
  /** Calls off that those are dropped that nobody iterates. */
  #forgetNewMaps: () => void = () => {};
  readonly #delivery: Delivery;
  /** Null: tracing is off. */
  readonly #spans: ItemSpans | null;
  readonly #outlet: Outlet<unknown, WorkerLink | null>;
  readonly #inlet: Inlet<Item>;
  readonly #channel: ChannelWay;
  readonly #submits: SubmitWay;
  readonly #host: LinkHost;
  readonly #closed = deferred<void>();
  /** After an end in order: until the port is free. */
  #stopped: Promise<void> | null = null;
  readonly #readiness = new Readiness({
    hasWorkers: (count) => this.#hasWorkers(count),
    haveAsked: (count) => this.#haveAsked(count),
  });
  readonly #watch: ServerWatch;
  #phase: ServerPhase = "open";
  #abortReason: unknown;
  #nextWorkerId = 0;
  #bytesIn = 0;
  #bytesOut = 0;
  readonly #retries: Retries;
  #closing: Promise<void> | null = null;
  readonly #dashboard: Dashboard | null;
  readonly #pools: LocalPools;
  readonly #loopback: Loopback;

  /**
   * Makes a server of a listener.
   *
   * @param listener Where workers connect: TCP, TLS or anything alike. It
   * belongs to the server from now on.
   * @param options The options.
   * @throws {InsecureBindError} If the listener is open to other machines, has
   * no TLS, and neither `secret` nor `insecure: true` is set; or the dashboard
   * is, without one of these two.
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(
    listener: Deno.Listener,
    options: ServerOptions<Item, Result> = {},
  ) {
    options = ownOptions(options, "server");
    checkHandshake(options, "server");
    checkListener(listener, options);
    this.#listener = listener;
    this.#options = options;
    const itemSchema = options.itemSchema === undefined
      ? null
      : new ItemSchema<Entry>(options.itemSchema);
    const tracing = tracingOfProcess();
    this.#spans = tracing === null ? null : new ItemSpans(tracing);
    this.#delivery = this.#makeDelivery(itemSchema);
    this.#outlet = this.#makeOutlet();
    const host = {
      delivery: this.#delivery,
      maxQueued: options.maxQueued ?? Infinity,
      onChannelFailure: (failure: ItemFailure) =>
        this.#onChannelFailure(failure as ItemFailure<Item>),
      onBroken: () => void this.#end(),
    };
    this.#channel = new ChannelWay(host, {
      outlet: options.results === "discard"
        ? null
        : this.#outlet as Outlet<unknown, unknown>,
      maxBufferedBytes: options.maxBufferedBytes ?? DEFAULTS.maxBufferedBytes,
      isMute: () => this.#isMute,
    });
    this.#submits = new SubmitWay(host);
    this.#delivery.addWay(this.#channel);
    this.#delivery.addWay(this.#submits);
    const heartbeat = resolveHeartbeat(options.heartbeat);
    this.#watch = this.#makeWatch(heartbeat);
    this.#retries = new Retries({
      retry: options.retry,
      delivery: this.#delivery,
      spans: this.#spans,
      onRetry: (id, error, delayMs) =>
        this.#emit({ type: "retry", id, error, delayMs }),
    });
    this.#inlet = new Inlet<Item>({
      send: (item) => this.#watched(this.#channel.send(item)),
      write: (item) => this.#watched(this.#channel.write(item)),
      end: () => this.#end(),
      onAbort: (reason) => void this.abort(reason),
    }, "server.writable");
    this.#host = this.#makeHost({ itemSchema, heartbeat });
    this.#dashboard = options.dashboard === undefined
      ? null
      : this.#openDashboard(options.dashboard);
    this.#pools = new LocalPools({
      clientUrl,
      progress: () => this.#delivery.settled + this.#delivery.failed,
      onCrash: (name, error) => this.#emit({ type: "crashed", name, error }),
      onError: (error) => this.#abort(error),
    });
    this.#loopback = new Loopback({
      listener,
      options,
      openDoor: (secret) => {
        const door = Deno.listen({ hostname: "127.0.0.1", port: 0 });
        this.#acceptor.accept(door, { ...this.#host, secret });
        return door.addr;
      },
    });
    this.#acceptor = new Acceptor({
      links: this.#links,
      maxConnections: options.maxConnections ?? DEFAULTS.maxConnections,
      maxHandshakes: options.maxHandshakes ?? DEFAULTS.maxHandshakes,
      onAccepted: () => this.#watch.start(),
      onError: (error) => this.#emit({ type: "accept-error", error }),
      onListenerLost: (error) => this.#abort(error),
    });
    this.#acceptor.accept(listener, this.#host);
  }

  /** Where the server listens. */
  get addr(): Deno.Addr {
    return this.#listener.addr;
  }

  /** Where the live page is; undefined without the option `dashboard`. */
  get dashboardAddr(): Deno.NetAddr | undefined {
    return this.#dashboard?.addr;
  }

  /**
   * Work out: items to be sent to workers. `write()` resolves when its item is
   * dispatched. The stream's other face is {@linkcode Server.send}.
   *
   * A `write()` that is blocked for 5 s because nobody has ever taken `readable`
   * rejects, and with it the stream is at its end: what was written before is
   * still settled, and its results can be read.
   *
   * @throws {TypeError} If `send()` or `end()` was used before.
   */
  get writable(): WritableStream<Item> {
    return this.#inlet.writable;
  }

  /**
   * Results in, as they complete, and the values that workers write. Its other
   * face is iteration.
   *
   * @throws {TypeError} If iteration was used before.
   */
  get readable(): ReadableStream<Result> {
    return this.#outlet.readable as ReadableStream<Result>;
  }

  /**
   * Takes an item: the fast way in.
   *
   * It never throws for a failure of its item (see `onFailure`).
   *
   * @param item The item. It must not change until it is settled.
   * @returns `undefined`: taken, and there is room for another. A promise:
   * taken too, but wait for it before the next. It rejects if the item isn't
   * taken: TypeError after the end, RangeError past `maxQueued`, the reason if
   * the channel was given up; and after 5 seconds without room while nobody ever
   * took the results. Ignoring that is allowed.
   * @throws {TypeError} If `writable` was used before.
   */
  send(item: Item): Promise<void> | undefined {
    return this.#inlet.send(item);
  }

  /**
   * No more items: what `writable.close()` is for those who use `send()`.
   *
   * @returns Resolves once nothing waits for its first dispatch. It rejects with
   * the reason if the channel was given up; after 5 seconds in which items wait
   * while nobody ever took the results; and with a TypeError if `writable` was
   * used before. Ignoring that is allowed.
   */
  end(): Promise<void> {
    return this.#inlet.end();
  }

  /**
   * Iterates over results and values: the fast way out. Leaving the loop
   * cancels what is under way, as cancelling `readable` does.
   *
   * @throws {TypeError} If `readable` was used before.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Result, undefined> {
    return this.#outlet.iterate() as AsyncIterableIterator<Result, undefined>;
  }

  /** The workers whose handshake is done, as they are now. */
  get workers(): readonly WorkerInfo[] {
    return this.#connected.map((worker) => ({ ...worker.info }));
  }

  /**
   * Waits for workers.
   *
   * @param count How many; 1 by default.
   * @param options `signal` ends the wait.
   * @returns Resolves when at least `count` workers are connected, and ask for
   * items: who doesn't counts all the same after 100 ms. It rejects with the
   * signal's reason, with a TypeError once the server is closed, and with the
   * reason if it was aborted.
   * @throws {TypeError} If an option is unknown, or something of the wrong type.
   * @throws {RangeError} If `count` isn't an integer from 0 on.
   */
  async ready(
    count: number = 1,
    options: { signal?: AbortSignal } = {},
  ): Promise<void> {
    validate(options, "ready");
    if (typeof count !== "number") {
      throw new TypeError(
        `Cannot wait for workers: count is a ${typeof count}, expected a number`,
      );
    }
    if (!Number.isInteger(count) || count < 0) {
      throw new RangeError(
        `Cannot wait for workers: count is ${count}, expected an integer from 0 on`,
      );
    }
    await this.#readiness.wait(count, options.signal);
  }

  /**
   * Sends one item to a worker in `work()`, and waits for its result.
   *
   * @param item The item.
   * @param options `signal` and `timeoutMs`.
   * @returns The item's own result. It rejects with an {@linkcode ItemFailure},
   * with the signal's reason, with a RangeError past `maxQueued`, with a
   * TypeError after the end, or with the reason if the server was aborted.
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If an option is out of range.
   */
  submit(item: Item, options: SubmitOptions = {}): Promise<Result> {
    try {
      validate(options, "submit");
    } catch (error) {
      return Promise.reject(error); // async would cost a promise an item
    }
    const result = this.#submits.submit(item, options) as Promise<Result>;
    this.#watch.start();
    return result;
  }

  /**
   * Maps items to results through the workers in `work()`.
   *
   * @param items The items, as many as there are: they are taken as there is
   * room for them.
   * @param options The options.
   * @returns The results, in the order of their items unless
   * `{ ordered: false }`. Leaving the loop cancels what is under way and closes
   * the source. It throws an {@linkcode ItemFailure} unless `onFailure` or
   * `settled` is set; what the source throws, once the results before it were
   * read; a TypeError if the server has ended. Nothing is taken before the
   * first is asked for; from then on until the last was, or `return()` is
   * called, the server doesn't end.
   * @throws {TypeError} If `items` isn't iterable, or an option is unknown or
   * of the wrong type.
   * @throws {RangeError} If an option is out of range.
   *
   * @example Squares, in order
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { listen } from "@distchan/distchan/server";
   * import { work } from "@distchan/distchan/client";
   *
   * await using server = listen<number, number>({ port: 0 });
   * const { port } = server.addr;
   * work<number, number>({ port }, (n) => n * n, { concurrency: 4 });
   *
   * assertEquals(await Array.fromAsync(server.map([1, 2, 3])), [1, 4, 9]);
   * ```
   */
  map(
    items: Iterable<Item> | AsyncIterable<Item>,
    options: MapOptions<Item> & { settled: true },
  ): AsyncIterableIterator<MapOutcome<Item, Result>>;
  /**
   * Maps items to results through the workers in `work()`.
   *
   * @param items The items.
   * @param options The options. For the type of what is yielded to be right,
   * write `settled: true` in the call, not in a variable of this type.
   */
  map(
    items: Iterable<Item> | AsyncIterable<Item>,
    options?: MapOptions<Item>,
  ): AsyncIterableIterator<Result>;
  map(
    items: Iterable<Item> | AsyncIterable<Item>,
    options: MapOptions<Item> = {},
  ): AsyncIterableIterator<Result | MapOutcome<Item, Result>> {
    options = ownOptions(options, "map");
    if (
      typeof items !== "object" && typeof items !== "string" ||
      !(Symbol.iterator in Object(items)) &&
        !(Symbol.asyncIterator in Object(items))
    ) {
      throw new TypeError(
        `Cannot map: items is ${kindOf(items)}, expected an iterable of them`,
      );
    }
    const run = new MapRun(items, options as MapOptions, {
      delivery: this.#delivery,
      maxBufferedBytes: this.#options.maxBufferedBytes ??
        DEFAULTS.maxBufferedBytes,
      onMapStart: (run) => {
        this.#delivery.addWay(run);
        this.#watch.start();
      },
      onMapEnd: (run) => {
        this.#maps.delete(run);
        this.#delivery.removeWay(run);
        this.#checkEnd();
      },
    });
    if (!run.isOver) {
      if (this.#phase === "aborted") run.stop(this.#abortReason);
      else if (this.#submits.isClosed) run.stop(afterEnd("map"));
      else this.#maps.add(run);
    }
    return run as unknown as AsyncIterableIterator<Result>;
  }

  /**
   * Starts workers on this machine: threads that connect over loopback and run
   * the module's default export, so that one file uses all cores, and workers
   * elsewhere may join at any time.
   *
   * They end with the server. One that crashes, or that its handler blocks past
   * `heartbeat.dropMs`, is replaced; if that goes on, or the module can't be
   * used, the server is aborted with an error that says why. What an endless
   * loop blocks keeps its core busy until the process ends. They have this
   * process's permissions, and need `--allow-net` of the server's address, as an
   * IP address (with TLS or on `0.0.0.0` of 127.0.0.1: see
   * {@linkcode Server.loopback}), and `--allow-read` of the module and of the
   * local files that it imports.
   *
   * @param module The module whose default export is the handler. With a codec
   * of one's own it exports that as `codec`, with any transforms, `gzip()` too,
   * those as `transforms`.
   * @param options How many, and what they are called.
   * @returns A handle to end them before the server ends.
   * @throws {TypeError} If an option is unknown or of the wrong type, the
   * server has ended, or it doesn't listen on TCP; also in a thread that runs
   * the same module: a program that is its own handler starts its server behind
   * `if (import.meta.main)`.
   * @throws {RangeError} If an option is out of range.
   *
   * @example All cores
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { listen } from "@distchan/distchan/server";
   *
   * await using server = listen<number, number>({ port: 0 });
   * // Yours: new URL("./handler.ts", import.meta.url)
   * server.spawn(new URL("data:text/javascript,export default (n) => n * n"));
   *
   * assertEquals(await Array.fromAsync(server.map([1, 2, 3])), [1, 4, 9]);
   * ```
   */
  spawn(module: URL, options: SpawnOptions = {}): LocalWorkers {
    if (!(module instanceof URL)) {
      throw new TypeError(
        `Cannot spawn workers: module is ${kindOf(module)}, expected a URL`,
      );
    }
    validate(options, "spawn");
    if (this.#phase !== "open") {
      throw new TypeError("Cannot spawn workers: the server has ended");
    }
    const { maxFrameBytes, handshakeTimeoutMs, heartbeat } = this.#options;
    return this.#pools.spawn(
      module,
      options,
      defined<ConnectOptions>({
        ...this.loopback(),
        maxFrameBytes,
        handshakeTimeoutMs,
        heartbeat,
      }),
    );
  }

  /**
   * What a worker on this machine connects with: address, secret, signature,
   * codec and transforms, as options of `work()` and `connect()`.
   *
   * Where the server speaks TLS, its workers on this machine need none: for
   * them it then listens on a port of its own on 127.0.0.1 as well, from the
   * first call on, and lets in who knows the secret that is returned, which is
   * random. {@linkcode Server.spawn} does the same.
   *
   * @returns The options; add a `name`, for example.
   * @throws {TypeError} If the server has ended, or doesn't listen on TCP.
   *
   * @example A worker in the server's own thread
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { listen } from "@distchan/distchan/server";
   * import { work } from "@distchan/distchan/client";
   *
   * await using server = listen<number, number>({ port: 0, secret: "s3cret" });
   * work<number, number>(server.loopback(), (n) => n * n);
   *
   * assertEquals(await server.submit(3), 9);
   * ```
   */
  loopback(): ConnectOptions {
    if (this.#isOver) {
      throw new TypeError("Cannot connect to a server that has ended");
    }
    return this.#loopback.connectOptions();
  }

  /** Figures, cheap enough to be asked at any time. */
  stats(): ServerStats {
    const { alive, waiting, settled, failed, redelivered, duplicates } =
      this.#delivery;
    let bytesIn = this.#bytesIn, bytesOut = this.#bytesOut;
    for (const { connection } of this.#links) {
      bytesIn += connection.bytesIn;
      bytesOut += connection.bytesOut;
    }
    return {
      pending: waiting,
      inFlight: alive - waiting,
      settled,
      failed,
      redelivered,
      duplicates,
      unread: this.#outlet.length,
      bytesIn,
      bytesOut,
      workers: this.workers,
    };
  }

  /**
   * Finishes in order: no more items are taken, those that were are settled,
   * and the workers end. What was written to `writable` before it is taken, also
   * if it waits in the stream.
   *
   * A worker that falls silent behind its last result is waited for until it is
   * a suspect, `heartbeat.timeoutMs`: by default that is just longer than
   * `drainMs`. Where machines go down as the work ends, give a second more.
   *
   * @param options `drainMs`: how long it may take, in ms; 30,000 by default.
   * If it is called again, the first call's counts.
   * @returns Resolves when all is closed. It rejects with a
   * {@linkcode DrainTimeoutError} if time ran out, and with the reason if the
   * server was aborted.
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If `drainMs` is below 0.
   */
  close(options: { drainMs?: number } = {}): Promise<void> {
    try {
      validate(options, "close");
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#closing ??= this.#close(options.drainMs ?? DEFAULTS.drainMs);
  }

  /**
   * Stops now: both sides of the channel error with the reason, and the workers
   * are told.
   *
   * @param reason Why.
   * @returns Resolves when all connections are closed; the port may be taken for a
   * moment longer.
   */
  async abort(
    reason: unknown = new DOMException("The server was aborted", "AbortError"),
  ): Promise<void> {
    this.#abort(reason);
    await this.#closed.promise.catch(() => {});
  }

  /**
   * Resolves when all items are settled and all workers have gone. It rejects
   * with the reason if the server was aborted; ignoring it is allowed.
   */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Finishes in order, as {@linkcode Server.close} does. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#phase === "aborted") await this.abort();
    else await this.close();
  }

  #makeDelivery(schema: ItemSchema<Entry> | null): Delivery {
    const { dispatch, maxDeliveries } = this.#options;
    return new Delivery({
      strategy: strategyOf(dispatch),
      maxDeliveries: maxDeliveries ?? DEFAULTS.maxDeliveries,
      schema,
      tracer: this.#spans,
      events: {
        onRedelivered: (worker, ids, cause) =>
          this.#emit({
            type: "redelivered",
            worker: { ...worker.info },
            ids,
            cause,
          }),
        onFailed: (failure) =>
          this.#emit({
            type: "failed",
            failure: failure as ItemFailure<Item>,
          }),
        onDuplicate: (worker, id) =>
          this.#emit({ type: "duplicate", worker: { ...worker.info }, id }),
        onLetGo: (entry) => this.#retries.forget(entry),
        onIdle: () => this.#checkEnd(),
      },
    });
  }

  #makeOutlet(): Outlet<unknown, WorkerLink | null> {
    return new Outlet({
      onRead: (bytes, link) => {
        if (link === null) this.#channel.resultRead();
        else {
          link.valueRead(bytes);
          this.#channel.valueRead();
        }
        if (this.#uncredited.size > 0) this.#grantValues();
      },
      onCancel: (reason, unread) => {
        this.#onCancel(reason);
        // Whoever waits to send more must come to its end.
        for (const { from, bytes } of unread) from?.valueRead(bytes);
        this.#grantValues();
      },
    }, { name: "server.readable", burst: 64 });
  }

  #makeWatch(heartbeat: LinkHost["heartbeat"]): ServerWatch {
    const { handshakeTimeoutMs, itemTimeoutMs } = this.#options;
    return new ServerWatch({
      links: this.#links,
      delivery: this.#delivery,
      channel: this.#channel,
      handshakeTimeoutMs: handshakeTimeoutMs ?? DEFAULTS.handshakeTimeoutMs,
      heartbeat,
      itemTimeoutMs,
      expectsItems: () => this.#maps.values().some((map) => !map.isNew),
      onEvent: (event) => this.#emit(event),
      onSuspect: () => this.#checkEnd(),
    });
  }

  #makeHost(
    { itemSchema, heartbeat }: Pick<LinkHost, "itemSchema" | "heartbeat">,
  ): LinkHost {
    const options = this.#options;
    return {
      terms: termsOf(options),
      transforms: options.transforms ?? [],
      secret: secretBytes(options.secret),
      payloads: new PayloadCodec(options.codec ?? cbor()),
      maxFrameBytes: options.maxFrameBytes ?? DEFAULTS.maxFrameBytes,
      maxInFlightBytes: options.maxInFlightBytes ?? DEFAULTS.maxInFlightBytes,
      keepsResults: options.results !== "discard",
      hasTraces: this.#spans !== null,
      spans: this.#spans,
      heartbeat,
      itemSchema,
      resultSchema: options.resultSchema ?? null,
      delivery: this.#delivery,
      isCrowded: () => this.#links.size > 1,
      onOpen: (link) => this.#onOpen(link),
      onError: (link, entry, error) => this.#retries.error(link, entry, error),
      wantsValues: () => this.#wantsValues,
      onValue: (link, value, bytes) => this.#onValue(link, value, bytes),
      onInvalidValue: (link, error, bytes) =>
        this.#onInvalidValue(link, error, bytes),
      onRejected: ({ addr }, code, reason) =>
        this.#emit({ type: "rejected", addr, code, reason }),
      onAsked: () => this.#readiness.check(),
      onGone: (link, code, reason) => this.#onGone(link, code, reason),
      onHeard: (link) => this.#onHeard(link),
      onClosed: (link) => this.#onLinkClosed(link),
    };
  }

  async #close(drainMs: number): Promise<void> {
    const isDry = this.#inlet.finish(afterEnd("write"));
    if (isDry === undefined) this.#end();
    else {
      this.#submits.close(afterEnd("submit"));
      isDry.then(() => void this.#end());
    }
    for (const map of [...this.#maps]) map.finish(afterEnd("map"));
    if (this.#phase === "aborted") return this.#closed.promise;
    await settledWithin(this.#closed.promise, drainMs);
    this.#hurry();
    // What is left then is only the other ends' closing.
    if (this.#isOver) return this.#closed.promise;
    const unfinished = this.#delivery.unfinished().map((
      { id, item },
    ) => ({ id, item: item as Item }));
    const error = new DrainTimeoutError<Item>(drainMs, unfinished, {
      why: this.#whatHoldsUp(),
    });
    await this.abort(error);
    throw error;
  }

  #whatHoldsUp(): string {
    const { alive, workers } = this.#delivery;
    const isMute = this.#outlet.length > 0 && this.#isMute;
    if (alive === 0) {
      if (this.#maps.size > 0) return "nobody reads the results of a map()";
      if (isMute) return "nobody reads the results";
      const names = [...this.#links]
        .filter((link) => link.isWorker && !link.isSuspect)
        .map(({ label }) => label);
      if (names.length > 10) names.splice(10, Infinity, "and others");
      return names.length > 0 ? `no goodbye from ${names.join(", ")}` : "";
    }
    if (isMute || this.#channel.isUnread) return "nobody reads the results";
    return workers.length === 0 ? "there are no workers" : "";
  }

  #end(): Promise<void> {
    const end = this.#channel.end();
    this.#submits.close(afterEnd("submit"));
    this.#dropNewMaps();
    this.#checkEnd();
    return end;
  }

  /** A map() that nobody iterates doesn't hold up the end; this turn is left. */
  #dropNewMaps(): void {
    if (!this.#maps.values().some((map) => map.isNew)) return;
    this.#forgetNewMaps();
    this.#forgetNewMaps = afterTurn(() => {
      for (const map of [...this.#maps]) {
        if (map.isNew) map.stop(afterEnd("map"));
      }
    });
  }

  /** Where somebody waits for room there is something to look after. */
  #watched(room: Promise<void> | undefined): Promise<void> | undefined {
    if (room !== undefined) this.#watch.start();
    return room;
  }

  /** Everything is settled: the workers are told so. */
  #checkEnd(): void {
    if (this.#phase === "ending") return this.#checkFinished();
    if (
      this.#phase !== "open" || !this.#channel.isClosed ||
      this.#maps.size > 0 || this.#delivery.alive > 0
    ) return;
    this.#phase = "ending";
    for (const link of this.#links) link.end();
    this.#checkFinished();
  }

  /** The workers have said goodbye: all is over. */
  #checkFinished(): void {
    if (this.#phase !== "ending") return;
    for (const worker of this.#delivery.workers) {
      if (!worker.isSuspect) return;
    }
    this.#phase = "finished";
    this.#outlet.end();
    this.#inlet.finish(afterEnd("write"));
    this.#shutDown("normal", "the server has finished");
  }

  /** Its end waits for nobody who reads slowly. */
  #hurry(): void {
    for (const { connection } of this.#links) connection.hurry();
  }

  #abort(reason: unknown): void {
    this.#hurry();
    if (this.#phase === "aborted" || this.#phase === "finished") return;
    this.#phase = "aborted";
    this.#abortReason = reason;
    this.#channel.fail(reason);
    this.#submits.fail(reason);
    // First, so that no map() looks for its own among all that is in flight.
    this.#delivery.discardAll(this.#delivery.unfinished());
    for (const map of [...this.#maps]) map.stop(reason);
    this.#outlet.fail(reason);
    this.#inlet.fail(reason);
    this.#shutDown("aborted", reasonOf(reason));
  }

  #shutDown(code: "normal" | "aborted", reason: string): void {
    this.#watch.stop();
    this.#retries.stop();
    this.#forgetNewMaps();
    this.#acceptor.stop();
    // What abort() rejects is rejected along with `closed`: it waits for no port.
    if (code === "normal") this.#stopped = this.#acceptor.stopped();
    else this.#pools.terminate();
    for (const link of [...this.#links]) {
      // A suspect that may have values under way isn't told that all is well.
      const isUnheard = code === "normal" && link.isWorker &&
        link.mode === Mode.STREAM;
      link.goodbye(isUnheard ? "timeout" : code, reason);
    }
    if (code === "aborted") this.#readiness.check();
    this.#checkClosed();
  }

  #checkClosed(): void {
    if (this.#links.size > 0) return;
    Promise.all([
      this.#stopped,
      this.#dashboard?.close(),
      this.#pools.size === 0 ? null : this.#pools.close(),
    ]).then(() => this.#settleClosed());
  }

  #settleClosed(): void {
    this.#readiness.check();
    if (this.#phase === "finished") this.#closed.resolve();
    else if (this.#phase === "aborted") this.#closed.reject(this.#abortReason);
  }

  #openDashboard(options: DashboardOptions): Dashboard {
    const { hostname = DEFAULTS.hostname, port, cert, key } = options;
    checkBind(hostname, this.#options, { isDashboard: true });
    const isLocal = isLoopback(hostname);
    return new Dashboard({
      title: this.#options.signature ?? DEFAULTS.signature,
      token: isLocal ? null : secretBytes(this.#options.secret),
      isLoopback: isLocal,
      stats: () => this.stats(),
      phase: () => this.#phase,
      serve: (handler, signal, again = port) =>
        withPem("dashboard", () =>
          Deno.serve({
            hostname,
            port: again,
            signal,
            // By themselves these print.
            onListen: () => {},
            onError: () => new Response(null, { status: 500 }),
            ...(cert !== undefined && key !== undefined ? { cert, key } : {}),
          }, handler)),
    });
  }

  /** Whether there are so many; it throws why, if there never will be. */
  #hasWorkers(count: number): boolean {
    if (this.#connected.length >= count) return true;
    if (this.#phase === "aborted") throw this.#abortReason;
    if (this.#phase === "finished") {
      throw new TypeError("Cannot wait for workers: the server is closed");
    }
    return false;
  }

  #haveAsked(count: number): boolean {
    return this.#connected.filter((worker) => !worker.isExpected).length >=
      count;
  }

  /** Without one whose event "disconnected" is being told. */
  get #connected(): Worker[] {
    return this.#delivery.workers.filter(({ isWorker }) => isWorker);
  }

  get #isOver(): boolean {
    return this.#phase === "finished" || this.#phase === "aborted";
  }

  #onOpen(link: WorkerLink): void {
    link.id = this.#nextWorkerId++;
    this.#delivery.addWorker(link);
    this.#uncredited.add(link);
    this.#grantValues();
    this.#emit({ type: "connected", worker: { ...link.info } });
    if (this.#phase === "ending") link.end();
    this.#readiness.check();
  }

  /**
   * The first credit of a connection waits, too, where much is unread: else a
   * peer could use it up and come again, without end, and fill the memory.
   */
  #grantValues(): void {
    const { bytes, length } = this.#outlet;
    const { maxBufferedBytes = DEFAULTS.maxBufferedBytes } = this.#options;
    if (bytes > maxBufferedBytes || length > 2 * this.#delivery.places) return;
    for (const link of this.#uncredited) link.grantValues();
    this.#uncredited.clear();
  }

  get #wantsValues(): boolean {
    return this.#options.results !== "discard" && !this.#outlet.isClosed;
  }

  /** Whether no worker may send a value before others are read. */
  get #isMute(): boolean {
    const workers = [...this.#links].filter((link) => link.isWorker);
    return workers.length > 0 && workers.every((link) => link.isMute);
  }

  #onValue(link: WorkerLink, value: unknown, bytes: number): void {
    if (this.#wantsValues) this.#outlet.push(value, bytes, link);
    else link.valueRead(bytes);
  }

  /** It is told as a failure of the item that the worker is at. */
  #onInvalidValue(link: WorkerLink, error: Error, bytes: number): void {
    link.valueRead(bytes);
    if (!this.#wantsValues) return;
    const [entry] = link.inFlight.oldest(1);
    this.#onChannelFailure(
      new ItemFailure(entry?.item as Item, {
        id: entry?.id ?? -1,
        error,
        attempts: entry?.attempts ?? 0,
      }),
    );
  }

  #onGone(link: WorkerLink, code: string, reason: string): void {
    this.#uncredited.delete(link);
    const info = { ...link.info };
    const isBlamed = code !== "normal" && code !== "aborted" &&
      !link.isLeaving;
    this.#emit({ type: "disconnected", worker: info, code, reason });
    this.#delivery.removeWorker(
      link,
      isBlamed
        ? {
          worker: link.label,
          at: Date.now(),
          reason,
          // Of what broke a transform or the protocol the process has not died,
          // and the same item would do it again.
          instance: code === "transforms" || code === "protocol"
            ? null
            : link.instance,
        }
        : null,
    );
    if (code === "timeout") this.#pools.dropped(link.instance, reason);
    this.#checkEnd();
  }

  /** What nobody took of a suspect's items stays with it. */
  #onHeard(link: WorkerLink): void {
    this.#emit({ type: "recovered", worker: { ...link.info } });
    this.#delivery.trust(link);
  }

  #onLinkClosed(link: WorkerLink): void {
    if (!this.#links.delete(link)) return;
    this.#bytesIn += link.connection.bytesIn;
    this.#bytesOut += link.connection.bytesOut;
    if (this.#isOver) this.#checkClosed();
  }

  /** The reader wants no more: what is queued and running for it is cancelled. */
  #onCancel(reason: unknown): void {
    if (this.#isOver) return;
    const error = reason ??
      new DOMException("The reader wants no more results", "AbortError");
    this.#channel.fail(error);
    this.#inlet.fail(error);
    this.#submits.close(afterEnd("submit"));
    this.#delivery.discardAll(this.#delivery.unfinished(this.#channel));
    this.#dropNewMaps();
    this.#checkEnd();
  }

  #onChannelFailure(failure: ItemFailure<Item>): void {
    const { onFailure } = this.#options;
    if (onFailure === undefined) {
      this.#abort(failure);
      return;
    }
    try {
      onFailure(failure);
    } catch (error) {
      this.#abort(error);
    }
  }

  #emit(event: ServerEvent<Item>): void {
    this.#dashboard?.onEvent(event);
    tellEvent(this.#options.onEvent, event);
  }
}

/**
 * Opens what has a certificate. Of what is wrong with that, or with its key, Deno
 * doesn't say that it is theirs, and not always with a class.
 */
function withPem<T>(of: string, open: () => T): T {
  try {
    return open();
  } catch (cause) {
    const reason = reasonOf(cause);
    const isOfPem = cause instanceof Deno.errors.InvalidData ||
      /^(?:keys may|invalid peer certificate|unexpected error)/.test(reason);
    if (!isOfPem) throw cause;
    throw new Deno.errors.InvalidData(
      `Cannot use ${of} options: cert and key: ${reason}`,
      { cause },
    );
  }
}

/** Where threads find `work()`. */
function clientUrl(): string {
  // Not imported here. That it could be makes it a part of the program, for
  // `deno cache` and `deno compile`.
  void (() => import("./client.ts"));
  return new URL("./client.ts", import.meta.url).href;
}
