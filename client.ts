/**
 * The end that does the work: {@linkcode work}, {@linkcode connect} and
 * {@linkcode Client}.
 *
 * @example A worker
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { work } from "@distchan/distchan/client";
 * import { listen } from "@distchan/distchan/server";
 *
 * await using server = listen<string, string>({ port: 0 });
 * const { port } = server.addr;
 *
 * work<string, string>({ port }, (word) => word.toUpperCase());
 *
 * assertEquals(await server.submit("hello"), "HELLO");
 * ```
 *
 * @module
 */

import { cbor } from "./codec.ts";
import { Answers } from "./internal/answers.ts";
import type { CborDecoder } from "./internal/cbor_decoder.ts";
import { Inlet } from "./internal/channel.ts";
import { ClientControl } from "./internal/client_control.ts";
import { ClientHandshake } from "./internal/client_handshake.ts";
import { ClientLife } from "./internal/client_life.ts";
import { ClientWatch } from "./internal/client_watch.ts";
import { Connection, type Duplex, tuneSocket } from "./internal/connection.ts";
import {
  ConnectionLostError,
  HandshakeError,
  ProtocolError,
} from "./internal/errors.ts";
import { type ClientEvent, tellEvent } from "./internal/events.ts";
import {
  frameName,
  FrameType,
  GOODBYE_CODES,
  MAX_HANDSHAKE_BYTES,
  MAX_REASON,
  saying,
} from "./internal/frame.ts";
import {
  checkHandler,
  FunctionSource,
  openHandler,
} from "./internal/handler_source.ts";
import {
  checkHandshake,
  overflowOf,
  termsOf,
  type Welcome,
} from "./internal/handshake.ts";
import { Intake } from "./internal/intake.ts";
import {
  type ClientOptions,
  type ConnectOptions,
  DEFAULTS,
  kindOf,
  resolveHeartbeat,
  secretBytes,
  type WorkOptions,
} from "./internal/options.ts";
import { PayloadCodec } from "./internal/payload.ts";
import { deferred, orAbort, rejected } from "./internal/promises.ts";
import { Reconnection } from "./internal/reconnection.ts";
import type { HandlerSource } from "./internal/runner.ts";
import { afterTurn, timerMs } from "./internal/timer.ts";
import { handshakeTls } from "./internal/tls_handshake.ts";
import { tracingOfProcess } from "./internal/tracing.ts";
import { TransformError } from "./internal/transforms.ts";
import { ownOptions } from "./internal/validate.ts";
import { ValueSender } from "./internal/value_sender.ts";
import type { Handler } from "./internal/work_loop.ts";
import { WorkSpans } from "./internal/work_spans.ts";
import { reasonOf } from "./internal/thrown.ts";

export {
  ConnectionLostError,
  DecodeError,
  EncodeError,
  FrameTooLargeError,
  HandshakeError,
  type HandshakeErrorCode,
  ProtocolError,
  ValidationError,
  type ValidationIssue,
} from "./internal/errors.ts";
export type { Codec } from "./codec.ts";
export type { ClientEvent } from "./internal/events.ts";
export type {
  ClientOptions,
  CommonOptions,
  ConnectOptions,
  HeartbeatOptions,
  ReconnectOptions,
  WorkOptions,
} from "./internal/options.ts";
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
export type { Handler, WorkContext } from "./internal/work_loop.ts";

/**
 * Connects to a server: one attempt.
 *
 * @typeParam Item What the server sends.
 * @typeParam Result What is sent back.
 * @param options Where to, and the options of the client.
 * @returns The client, once the handshake is done.
 * @throws {HandshakeError} If the two ends don't belong together.
 * @throws {Deno.errors.ConnectionRefused} If nobody listens there.
 * @throws {URIError} If `hostname` can't be the name of a host.
 * @throws {TypeError} If an option is unknown or of the wrong type, or
 * `tls.caCerts` can't be read.
 * @throws {RangeError} If an option is out of range.
 * @throws {unknown} The reason of `signal`, if it aborts.
 *
 * @example Read items, send values back
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { connect } from "@distchan/distchan/client";
 * import { listen } from "@distchan/distchan/server";
 *
 * const server = listen<string, string>({ port: 0 });
 * const { port } = server.addr;
 * server.send("hello");
 * server.end();
 *
 * const client = await connect<string, string>({ port });
 * for await (const word of client) client.send(word.toUpperCase());
 * await client.end();
 * await client.closed;
 *
 * assertEquals(await Array.fromAsync(server), ["HELLO"]);
 * ```
 */
export async function connect<Item, Result>(
  options: ConnectOptions<Item, Result>,
): Promise<Client<Item, Result>> {
  options = ownOptions(options, "connect");
  checkHandshake(options, "connect");
  return await attempt<Item, Result>(options);
}

/**
 * Works for a server until it has no more work, and reconnects when the
 * connection is lost. The server may be started later than its workers.
 *
 * @typeParam Item What the server sends.
 * @typeParam Result What comes back.
 * @param options Where to, and the options of the client.
 * @param handler Called with every item. What it returns is the item's result;
 * what it throws is the item's failure. A URL is that of a module whose default
 * export is the handler; with `isolate: true` it runs in threads of its own,
 * loaded in each of them. They have this process's permissions, and need
 * `--allow-read` of the module and of the local files that it imports; a binary
 * needs `deno compile --include handler.ts`. With a codec of one's own, the
 * module exports it as `codec`.
 * @param workOptions How to work.
 * @returns Resolves when the server has no more work, or a `signal`, that of
 * either options, has aborted and what was begun is finished. It rejects with a
 * {@linkcode HandshakeError} if the two ends don't belong together, with the
 * reason of `options.signal` if that aborts while there is no connection, and
 * with the last error when it gives up.
 * @throws {TypeError} If an option is unknown or of the wrong type, or the
 * handler's module can't be used.
 * @throws {RangeError} If an option is out of range.
 *
 * @example Four items at once
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { work } from "@distchan/distchan/client";
 * import { listen } from "@distchan/distchan/server";
 *
 * await using server = listen<number, number>({ port: 0 });
 * const { port } = server.addr;
 *
 * work<number, number>({ port }, async (n, { signal }) => {
 *   signal.throwIfAborted();
 *   return await Promise.resolve(n * 2);
 * }, { concurrency: 4 });
 *
 * assertEquals(await server.submit(21), 42);
 * ```
 *
 * @example A handler that burns the processor, in two isolates
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { work } from "@distchan/distchan/client";
 * import { listen } from "@distchan/distchan/server";
 *
 * await using server = listen<number, number>({ port: 0 });
 * const { port } = server.addr;
 *
 * // Yours: new URL("./handler.ts", import.meta.url)
 * const handler = new URL("data:text/javascript,export default (n) => n * 2");
 * work<number, number>({ port }, handler, { isolate: true, concurrency: 2 });
 *
 * assertEquals(await server.submit(21), 42);
 * ```
 */
export async function work<Item, Result>(
  options: ConnectOptions<Item, Result>,
  handler: Handler<Item, Result> | URL,
  workOptions: WorkOptions = {},
): Promise<void> {
  options = ownOptions(options, "connect");
  checkHandshake(options, "connect");
  workOptions = ownOptions(workOptions, "work");
  checkHandler(handler, workOptions);
  const { signal: leave } = workOptions;
  const signal = AbortSignal.any(
    [options.signal, leave].filter((s) => s !== undefined),
  );
  let source: HandlerSource;
  try {
    source = await openHandler(
      handler,
      { ...workOptions, signal },
      options.codec,
    );
  } catch (error) {
    if (leave?.aborted) return;
    throw error;
  }
  // Kept over reconnections, and gone when this function returns.
  await using _closing = { [Symbol.asyncDispose]: () => source.close() };
  const reconnection = new Reconnection(options.reconnect, {
    random: Math.random,
    now: performance.now(),
  });
  for (;;) {
    if (leave?.aborted) return;
    options.signal?.throwIfAborted();
    if (source.error !== null) throw source.error;
    try {
      const client = await attempt<Item, Result>({ ...options, signal });
      reconnection.opened(performance.now());
      try {
        // Either signal: a promise that neither ends would be silent for ever.
        const options = { ...workOptions, signal };
        return await workWith(client as Client, source, options);
      } finally {
        reconnection.lost(performance.now());
      }
    } catch (error) {
      if (leave?.aborted) return;
      options.signal?.throwIfAborted();
      if (source.error !== null) throw source.error;
      const delayMs = reconnection.next(error, performance.now());
      if (delayMs === null) throw error;
      tellEvent(options.onEvent, {
        type: "reconnecting",
        attempt: reconnection.attempts,
        delayMs,
        error: error as Error,
      });
      await reconnection.wait(delayMs, signal);
    }
  }
}

/** `Client.work()`, with a handler that outlives the connection. */
let workWith: (
  client: Client,
  source: HandlerSource,
  options: WorkOptions,
) => Promise<void>;

/**
 * The end of one connection that does the work. Items come out of it; values
 * that are written to it arrive at the server.
 *
 * @typeParam Item What the server sends.
 * @typeParam Result What is sent back.
 *
 * @example A client on a connection of one's own
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { Client } from "@distchan/distchan/client";
 * import { listen } from "@distchan/distchan/server";
 *
 * await using server = listen<number, number>({ port: 0 });
 * const { port } = server.addr;
 *
 * const conn = await Deno.connect({ hostname: "127.0.0.1", port });
 * const client = new Client<number, number>(conn);
 * client.work((n) => n + 1);
 *
 * assertEquals(await server.submit(1), 2);
 * ```
 */
export class Client<Item = unknown, Result = unknown>
  implements AsyncDisposable, AsyncIterable<Item> {
  readonly #options: ClientOptions;
  readonly #life = new ClientLife();
  readonly #connection: Connection;
  readonly #control: ClientControl;
  readonly #handshake: ClientHandshake;
  readonly #values: ValueSender;
  readonly #watch: ClientWatch;
  readonly #payloads: PayloadCodec;
  readonly #opened = deferred<void>();
  readonly #closed = deferred<void>();
  readonly #ended = deferred<void>();
  readonly #intake: Intake<Item>;
  readonly #inlet: Inlet<Result>;
  readonly #answers: Answers;
  /** Null: tracing is off. */
  readonly #spans: WorkSpans | null;
  /**
   * Whether the server's system may keep back what it sends until this end
   * answers: of a TLS connection Deno 2.9.6 writes each record by itself, and
   * lets nobody set TCP_NODELAY on one that was accepted.
   */
  readonly #isTls: boolean;
  /** Calls off the look whether all is done; null: none is due. */
  #forgetFinish: (() => void) | null = null;

  /**
   * Makes a client of a connection.
   *
   * @param conn The connection: TCP, TLS or anything alike. It belongs to the
   * client from now on, and the handshake begins.
   * @param options The options.
   * @throws {TypeError} If an option is unknown or of the wrong type.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(conn: Deno.Conn, options: ClientOptions<Item, Result> = {}) {
    options = ownOptions(options, "client");
    checkHandshake(options, "client");
    if (typeof conn?.read !== "function") {
      throw new TypeError(
        `Cannot make a client: expected a connection, got ${kindOf(conn)}`,
      );
    }
    this.#options = options;
    this.#payloads = new PayloadCodec(options.codec ?? cbor());
    tuneSocket(conn);
    this.#isTls = "handshake" in conn;
    this.#connection = this.#makeConnection(conn as Duplex);
    this.#control = new ClientControl(this.#connection);
    const tracing = tracingOfProcess();
    this.#spans = tracing === null ? null : new WorkSpans(tracing);
    this.#handshake = this.#makeHandshake();
    this.#values = this.#makeValues();
    this.#answers = this.#makeAnswers();
    this.#intake = this.#makeIntake();
    this.#inlet = new Inlet<Result>({
      send: (value) => this.#refusal() ?? this.#values.send(value),
      write: (value) => this.#write(value),
      end: () => this.#endValues(),
      onAbort: (reason) => void this.abort(reason),
    }, "client.writable");
    this.#watch = this.#makeWatch();
    this.#watch.start();
    this.#handshake.start();
    this.#connection.start();
  }

  /**
   * Resolves when the handshake is done. It rejects with a
   * {@linkcode HandshakeError} if it fails, and with a
   * {@linkcode ConnectionLostError} if this client was aborted meanwhile.
   * Ignoring it is allowed.
   */
  get opened(): Promise<void> {
    return this.#opened.promise;
  }

  /**
   * Work in. An item is settled when the reader asks for the next one: so it is
   * not lost if this process dies before that. Its other face is iteration.
   *
   * @throws {TypeError} If iteration or `work()` was used before.
   */
  get readable(): ReadableStream<Item> {
    return this.#intake.outlet.readable;
  }

  /**
   * Values back: they come out of the server's `readable`. Its other face is
   * {@linkcode Client.send}.
   *
   * @throws {TypeError} If `send()`, `end()` or `work()` was used before.
   */
  get writable(): WritableStream<Result> {
    return this.#inlet.writable;
  }

  /**
   * Sends a value back: the fast way.
   *
   * @param value The value. Long bytes in it are sent from where they are: don't
   * change them any more.
   * @returns `undefined`: taken, and there is room for another. A promise:
   * taken too, but wait for it before the next. It rejects with an
   * {@linkcode EncodeError}, a {@linkcode FrameTooLargeError} or a
   * {@linkcode ValidationError} if the value can't be sent, and the client goes
   * on; with a TypeError after the end, and with a
   * {@linkcode ConnectionLostError} if the connection is lost. Ignoring that is
   * allowed: `closed` tells whether all has arrived.
   * @throws {TypeError} If `writable` or `work()` was used before.
   */
  send(value: Result): Promise<void> | undefined {
    return this.#inlet.send(value);
  }

  /**
   * No more values: what `writable.close()` is for those who use `send()`. A
   * client that has sent any is to call it, or `close()`, behind its last item:
   * until then `closed` waits, and so does the end of the server.
   *
   * @returns Resolves when all values have left. `closed` tells that they have
   * arrived. It rejects with a {@linkcode ConnectionLostError} if the connection
   * is lost before.
   * @throws {TypeError} If `writable` or `work()` was used before.
   */
  end(): Promise<void> {
    return this.#inlet.end();
  }

  /**
   * Iterates over items: the fast way. An item is settled when the next one is
   * asked for; leaving the loop hands back the one that was being done, and all
   * that weren't read.
   *
   * @throws {TypeError} If `readable` or `work()` was used before.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Item, undefined> {
    return this.#intake.outlet.iterate();
  }

  /**
   * Calls a handler with every item, and sends back what it returns.
   *
   * @param handler The handler, or the URL of its module. What it throws is the
   * item's failure.
   * @param options How to work.
   * @returns Resolves when the server has no more work, or `signal` has aborted
   * and what was begun is finished; rejects if the connection is lost, with
   * `isolate` once its isolates have ended, and with a TypeError if the module
   * can't be used, which aborts the client.
   * @throws {TypeError} If another face was used before, or an option is unknown
   * or of the wrong type.
   * @throws {RangeError} If an option is out of range.
   */
  async work(
    handler: Handler<Item, Result> | URL,
    options: WorkOptions = {},
  ): Promise<void> {
    options = ownOptions(options, "work");
    checkHandler(handler, options);
    this.#takeForWork();
    const source = typeof handler === "function"
      ? new FunctionSource(handler as Handler<never, unknown>, options)
      : await this.#load(handler, options);
    if (source === null) return await this.#closed.promise;
    try {
      await this.#work(source, options);
    } finally {
      await source.close();
    }
  }

  /** Null: all was over, or was left, before it was loaded, if it ever would be. */
  async #load(
    handler: URL,
    options: WorkOptions,
  ): Promise<HandlerSource | null> {
    const { signal: leave } = options;
    const over = new AbortController(), { signal } = over;
    const stop = () => over.abort();
    this.#closed.promise.then(stop, stop);
    const close = () => void this.close();
    if (leave?.aborted) close();
    else leave?.addEventListener("abort", close);
    try {
      const { codec } = this.#options;
      return await openHandler(handler, { ...options, signal }, codec);
    } catch (error) {
      if (signal.aborted) return null;
      // It is of no use to anybody: the server needn't wait for it.
      void this.abort(error);
      throw error;
    } finally {
      leave?.removeEventListener("abort", close);
    }
  }

  static {
    workWith = (client, source, options) => {
      client.#takeForWork();
      return client.#work(source, options);
    };
  }

  #takeForWork(): void {
    // Both ways, or none: the second of these must not be the one that throws.
    if (this.#inlet.isTaken) this.#inlet.takeForWork();
    this.#intake.outlet.takeForWork();
    this.#inlet.takeForWork();
    this.#intake.isWork = true;
  }

  async #work(source: HandlerSource, options: WorkOptions): Promise<void> {
    const { concurrency = DEFAULTS.concurrency, signal } = options;
    const { takesPayloads } = source;
    this.#answers.sendStacks = options.sendStacks ?? false;
    this.#values.takesPayloads = takesPayloads;
    this.#answers.takesPayloads = takesPayloads;
    const spans = this.#spans;
    const runner = source.runner({
      scope: spans,
      // What couldn't be answered any more isn't begun, nor what may be about to
      // be cancelled.
      isBusy: () =>
        !this.#connection.isOpen || this.#connection.isMidway ||
        this.#connection.busy ||
        this.#answers.pending >= concurrency,
      result: (item, value) => this.#answers.result(item, value),
      done: (item) => this.#answers.done(item),
      error: (item, error) => this.#answers.error(item, error),
      value: (value) => this.#values.send(value),
      onIdle: () => this.#finishSoon(),
      // A schema may make something short of what is long.
      valueLimit: () =>
        this.#options.resultSchema === undefined
          ? this.#connection.frames.limit
          : 0,
      wantsResult: (item) => this.#answers.wants(item),
      forIsolate: (item) => spans === null ? item : spans.beginElsewhere(item),
      onCrash: (error) => this.#emit({ type: "failed", id: undefined, error }),
      onUnusable: (error) => void this.abort(error),
    });
    this.#intake.work(runner, { concurrency, takesPayloads });
    this.#finishSoon();
    const leave = () => this.#intake.leave();
    if (signal?.aborted) leave();
    else signal?.addEventListener("abort", leave);
    try {
      await this.#closed.promise;
    } catch (error) {
      throw source.error ?? error;
    } finally {
      signal?.removeEventListener("abort", leave);
      runner.close();
      spans?.stop(
        this.#life.error ??
          new DOMException("The server has finished", "AbortError"),
      );
    }
  }

  /**
   * Closes in order: what was read is settled, what was written arrives, what
   * wasn't read goes back to the server.
   *
   * @returns Resolves when all that was written is at the server; rejects if the
   * connection is lost before.
   */
  close(): Promise<void> {
    if (this.#intake.runner !== null) this.#intake.leave();
    else {
      this.#intake.close();
      const finish = () => {
        this.#endValues();
        this.#finishSoon();
      };
      const isDry = this.#inlet.finish(
        new TypeError("Cannot write: the client is closed"),
      );
      if (isDry === undefined) finish();
      else isDry.then(finish);
    }
    return this.#closed.promise;
  }

  /**
   * Stops now. What wasn't settled goes back to the server.
   *
   * @param reason Why.
   * @returns Resolves when the connection is closed.
   */
  async abort(
    reason: unknown = new DOMException("The client was aborted", "AbortError"),
  ): Promise<void> {
    const text = reasonOf(reason);
    const error = new ConnectionLostError("aborted", text, { cause: reason });
    const wasHandshake = this.#life.phase === "handshake";
    this.#lose(error);
    if (wasHandshake) this.#connection.end();
    else this.#control.breakOff("aborted", text);
    await this.#ended.promise;
  }

  /**
   * Resolves when all that was written is at the server and both ends have said
   * goodbye (distchan's `Done()`); rejects with a
   * {@linkcode ConnectionLostError} otherwise. Ignoring it is allowed.
   */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Closes in order, as {@linkcode Client.close} does, if it still can. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#life.phase === "lost") await this.#ended.promise;
    else await this.close();
  }

  // --- What it is made of ---

  #makeConnection(conn: Duplex): Connection {
    return new Connection(conn, {
      limit: MAX_HANDSHAKE_BYTES,
      events: {
        onFrame: (type, reader) => this.#onFrame(type, reader),
        onBatch: () => this.#onBatch(),
        onFlush: () => this.#control.onFlush(),
        onDrain: () => this.#onRoom(),
        onViolation: (error) => this.#onViolation(error),
        onUntransformed: (error) => this.#onUntransformed(error),
        onEnd: (error) => this.#onEnd(error),
      },
    });
  }

  #makeHandshake(): ClientHandshake {
    const options = this.#options;
    return new ClientHandshake(this.#connection, {
      terms: termsOf(options),
      transforms: options.transforms ?? [],
      secret: secretBytes(options.secret),
      maxFrameBytes: options.maxFrameBytes ?? DEFAULTS.maxFrameBytes,
      name: options.name ?? "",
      trace: this.#spans !== null,
      onDone: (welcome) => this.#onWelcome(welcome),
      onFailed: (error, isHeard) => this.#onRefused(error, isHeard),
    });
  }

  #makeValues(): ValueSender {
    return new ValueSender(this.#connection, {
      life: this.#life,
      payloads: this.#payloads,
      schema: this.#options.resultSchema ?? null,
      onFailed: (error) => this.#emit({ type: "failed", id: undefined, error }),
      // Many asks of a turn share an acknowledgement, until nothing is here.
      onAck: (delivery) =>
        this.#control.ack(delivery, this.#intake.outlet.length > 0),
      onEmpty: () => this.#finishSoon(),
    });
  }

  #makeAnswers(): Answers {
    return new Answers(this.#connection, {
      life: this.#life,
      payloads: this.#payloads,
      schema: this.#options.resultSchema ?? null,
      spans: this.#spans,
      onFailed: (id, error) => this.#emit({ type: "failed", id, error }),
      onAnswered: () => this.#intake.answered(),
      onChecked: () => {
        this.#intake.runner?.goOn();
        this.#finishSoon();
      },
    });
  }

  #makeIntake(): Intake<Item> {
    return new Intake(this.#connection, {
      life: this.#life,
      payloads: this.#payloads,
      schema: this.#options.itemSchema,
      prefetch: this.#options.prefetch ?? "auto",
      control: this.#control,
      answers: this.#answers,
      onSettled: (delivery) => this.#values.ack(delivery),
      onDone: () => this.#finishSoon(),
    });
  }

  #makeWatch(): ClientWatch {
    const { handshakeTimeoutMs, heartbeat } = this.#options;
    return new ClientWatch({
      connection: this.#connection,
      control: this.#control,
      life: this.#life,
      handshakeTimeoutMs: handshakeTimeoutMs ?? DEFAULTS.handshakeTimeoutMs,
      heartbeat: resolveHeartbeat(heartbeat),
      onTimeout: (error) => {
        this.#lose(error);
        this.#connection.end();
      },
      onEvent: (event) => this.#emit(event),
    });
  }

  // --- The handshake ---

  #onWelcome(welcome: Welcome): void {
    this.#answers.wantsResults = welcome.results;
    this.#intake.hasTraces = welcome.trace && this.#spans !== null;
    this.#life.phase = "open";
    this.#connection.readAside(this.#payloads.long);
    this.#opened.resolve();
    this.#emit({ type: "connected" });
    this.#intake.grant();
    this.#onRoom();
    this.#finishSoon();
  }

  #onRefused(error: HandshakeError, isHeard: boolean): void {
    this.#lose(error);
    if (isHeard) this.#control.breakOff("transforms", error.message);
    else this.#connection.end();
  }

  // --- What the server sends ---

  #onFrame(type: number, reader: CborDecoder): void {
    if (this.#life.phase === "handshake") {
      return this.#handshake.onFrame(type, reader);
    }
    switch (type) {
      case FrameType.ITEM:
        return this.#intake.onItem(reader);
      case FrameType.CREDIT: {
        const values = reader.readUint(), bytes = reader.readUint();
        reader.finish();
        return this.#values.grant(values, bytes);
      }
      case FrameType.CANCEL: {
        const begun = performance.now();
        do {
          this.#intake.cancel(reader.readUint());
        } while (!reader.done);
        // What waited was answered.
        return this.#connection.holdUntilRoom(begun);
      }
      case FrameType.END:
        reader.finish();
        return this.#intake.onEnd();
      case FrameType.PING:
        this.#control.pong(reader.readUint());
        return reader.finish();
      case FrameType.PONG:
        reader.readUint();
        return reader.finish();
      case FrameType.GOODBYE:
        return this.#onGoodbye(reader);
      default:
        throw new ProtocolError(
          `Cannot take ${frameName(type)} from a server`,
        );
    }
  }

  #onGoodbye(reader: CborDecoder): void {
    const code = GOODBYE_CODES[reader.readUint()] ?? "protocol";
    const reason = saying(reader.readText(), MAX_REASON);
    reader.finish();
    // A suspect isn't waited for: END and the server's goodbye come at once.
    const isOver = this.#intake.hasEnd && this.#intake.isWork;
    if (code === "normal" && (this.#life.phase === "goodbye" || isOver)) {
      this.#life.phase = "closed";
      this.#forgetFinish?.();
      this.#intake.abortRunner(
        new DOMException("The server has finished", "AbortError"),
      );
      this.#connection.end();
      this.#emit({ type: "disconnected", code, reason });
      this.#closed.resolve();
      return;
    }
    this.#lose(new ConnectionLostError(code, reason));
    this.#connection.end();
  }

  #onBatch(): void {
    if (this.#life.phase === "handshake") {
      const overflow = overflowOf(this.#connection.bytesIn);
      if (overflow !== null) return this.#onViolation(overflow);
    } else if (
      this.#isTls && this.#life.isOpen &&
      this.#connection.partialSince === this.#connection.heardAt
    ) {
      // The rest of a frame may wait until what came of it is acknowledged,
      // which this end's system puts off for 40 ms if it has nothing to send.
      this.#control.nudge();
    }
    this.#intake.runner?.run();
  }

  #onViolation(error: Error): void {
    if (this.#life.phase === "handshake") {
      this.#lose(
        new HandshakeError("protocol", `Handshake failed: ${error.message}`, {
          cause: error,
        }),
      );
      this.#connection.end();
      return;
    }
    const code = error instanceof TransformError ? "transforms" : "protocol";
    this.#lose(new ConnectionLostError(code, error.message, { cause: error }));
    this.#control.breakOff(code, error.message);
  }

  /**
   * So that the server knows what its items ran into: it would take an end
   * without a word for a cut of the network, and never blame them.
   */
  #onUntransformed(error: TransformError): void {
    const { message } = error;
    this.#lose(
      new ConnectionLostError("transforms", message, { cause: error }),
    );
    this.#control.cutOff(message);
  }

  #onEnd(error: ConnectionLostError): void {
    this.#watch.stop();
    this.#ended.resolve();
    this.#lose(
      this.#life.phase === "handshake"
        ? new HandshakeError(
          "protocol",
          `Handshake failed: ${error.reason}`,
          { cause: error },
        )
        : error,
    );
    if (this.#life.error !== null) this.#closed.reject(this.#life.error);
  }

  /** The connection is over, and not in order: unless it was over before. */
  #lose(error: Error): void {
    if (this.#life.phase === "closed" || this.#life.phase === "lost") return;
    this.#life.phase = "lost";
    this.#life.error = error;
    this.#handshake.stop();
    this.#watch.stop();
    this.#forgetFinish?.();
    this.#opened.reject(error);
    this.#intake.outlet.fail(error);
    this.#inlet.fail(error);
    this.#values.fail(error);
    this.#intake.abortRunner(error);
    this.#emit({
      type: "disconnected",
      code: error instanceof ConnectionLostError ? error.code : "handshake",
      reason: error.message,
    });
  }

  // --- Writing ---

  #write(value: Result): Promise<void> | undefined {
    const refused = this.#refusal();
    if (refused !== null) return refused;
    try {
      return this.#values.write(value)?.catch((e) => this.#failWrite(e));
    } catch (error) {
      return this.#failWrite(error);
    }
  }

  /** A stream whose write failed is over, and so is the client: never silence. */
  #failWrite(error: unknown): Promise<never> {
    this.abort(error);
    return rejected(error);
  }

  #refusal(): Promise<void> | null {
    const { phase, error } = this.#life;
    if (error !== null) return rejected(error);
    const { isEnded } = this.#values;
    if (!isEnded && phase !== "closed" && phase !== "goodbye") return null;
    const why = isEnded
      ? "end() or close() was called"
      : "the client has said goodbye; a writer that is needed after the last item must be taken before it";
    return rejected(new TypeError(`Cannot send: ${why}`));
  }

  #endValues(): Promise<void> {
    const end = this.#values.end();
    this.#finishSoon();
    return end;
  }

  /** The output has room again. */
  #onRoom(): void {
    this.#values.drain();
    this.#intake.runner?.run();
  }

  // --- Ending ---

  /** Whether nothing more is read: also if this client has only written. */
  get #isReadingDone(): boolean {
    const { isDone, isWork, outlet } = this.#intake;
    return isDone || (this.#values.isEnded && !outlet.isTaken && !isWork);
  }

  /** Looks, a moment later, whether all is done. */
  #finishSoon(): void {
    if (this.#forgetFinish !== null || !this.#life.isOpen) return;
    if (!this.#isReadingDone) return;
    // The code behind the reader's loop runs first: it may still write.
    this.#forgetFinish = afterTurn(() => {
      this.#forgetFinish = null;
      this.#finishNow();
    });
  }

  #finishNow(): void {
    if (!this.#life.isOpen || !this.#isReadingDone) return;
    const { runner } = this.#intake;
    if (runner !== null) {
      if (!runner.isIdle || this.#answers.pending > 0) return;
    } else if (this.#inlet.isTaken && !this.#values.isEnded) return;
    if (!this.#values.isEmpty) return;
    this.#life.phase = "goodbye";
    this.#intake.outlet.end(); // whoever begins to read now is at the end
    this.#control.goodbye();
  }

  #emit(event: ClientEvent): void {
    tellEvent(this.#options.onEvent, event);
  }
}

async function attempt<Item, Result>(
  options: ConnectOptions<Item, Result>,
): Promise<Client<Item, Result>> {
  const {
    hostname: _,
    port: __,
    tls = false,
    signal,
    reconnect: ___,
    ...clientOptions
  } = options;
  signal?.throwIfAborted();
  const connecting = dial(options);
  const tcp = await orAbort(connecting, signal, (conn) => conn.close());
  const conn = tls === false ? tcp : await startTls(tcp, options);
  const client = new Client<Item, Result>(conn, clientOptions);
  await orAbort(client.opened, signal, () => {}, () => client.abort());
  return client;
}

async function dial(options: ConnectOptions): Promise<Deno.TcpConn> {
  const {
    hostname = DEFAULTS.hostname,
    port,
    signal,
    handshakeTimeoutMs = DEFAULTS.handshakeTimeoutMs,
  } = options;
  const late = new AbortController();
  const error = new HandshakeError(
    "timeout",
    `Handshake failed: ${hostname}:${port} didn't answer within ${handshakeTimeoutMs} ms`,
  );
  // Where a network drops what it can't deliver, a system tries for minutes.
  const timer = setTimeout(
    () => late.abort(error),
    timerMs(handshakeTimeoutMs),
  );
  try {
    const either = AbortSignal.any(
      signal === undefined ? [late.signal] : [late.signal, signal],
    );
    // By it Deno 2.9.6 throws away, open, a connection that is just there.
    either.throwIfAborted = () => {};
    return await Deno.connect({ hostname, port, signal: either });
  } catch (reason) {
    throw late.signal.aborted ? error : reason;
  } finally {
    clearTimeout(timer);
  }
}

/** TLS on a connection, its handshake included. */
async function startTls(
  tcp: Deno.TcpConn,
  options: ConnectOptions,
): Promise<Deno.Conn> {
  const {
    hostname = DEFAULTS.hostname,
    tls,
    signal,
    handshakeTimeoutMs = DEFAULTS.handshakeTimeoutMs,
  } = options;
  const caCerts = typeof tls === "object" ? tls.caCerts : undefined;
  tuneSocket(tcp); // what it becomes has no such options
  let conn: Deno.TlsConn;
  try {
    conn = await Deno.startTls(
      tcp,
      caCerts === undefined ? { hostname } : { hostname, caCerts },
    );
  } catch (cause) {
    try {
      tcp.close();
    } catch {
      // It belonged to TLS already, which has closed it.
    }
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    // What the system says: the connection is gone already.
    if (cause instanceof Error && "code" in cause) throw cause;
    // Nothing was sent yet: no other attempt would do better.
    const reason = reasonOf(cause);
    throw new TypeError(`Cannot use connect options: tls: ${reason}`, {
      cause,
    });
  }
  return await handshakeTls(conn, { signal, timeoutMs: handshakeTimeoutMs });
}
