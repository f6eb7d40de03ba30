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
 * const { port } = server.addr as Deno.NetAddr;
 *
 * work<string, string>({ port }, (word) => word.toUpperCase());
 *
 * assertEquals(await server.submit("hello"), "HELLO");
 * ```
 *
 * @module
 */

import { cbor } from "./codec.ts";
import { Backoff } from "./internal/backoff.ts";
import type { CborDecoder } from "./internal/cbor_decoder.ts";
import { deferred, Inlet, Outlet, rejected } from "./internal/channel.ts";
import { Connection, type Duplex } from "./internal/connection.ts";
import { CreditUse, MAX_WINDOW } from "./internal/credit.ts";
import {
  ConnectionLostError,
  HandshakeError,
  ProtocolError,
} from "./internal/errors.ts";
import type { ClientEvent } from "./internal/events.ts";
import {
  clip,
  frameName,
  FrameType,
  GOODBYE_CODES,
  type GoodbyeCode,
  ItemKind,
  MAX_HANDSHAKE_BYTES,
  Mode,
  PROTOCOL_VERSION,
} from "./internal/frame.ts";
import {
  checkTerms,
  type Hello,
  NONCE_BYTES,
  readReject,
  readWelcome,
  sessionId,
  type Terms,
  Transcript,
  transformsError,
  type Welcome,
  writeHello,
} from "./internal/handshake.ts";
import {
  FunctionSource,
  type HandlerSource,
  openModule,
} from "./internal/handler_source.ts";
import { Heartbeat, LATE_MS, tickMs } from "./internal/heartbeat.ts";
import {
  type ClientOptions,
  type ConnectOptions,
  DEFAULTS,
  type HeartbeatOptions,
  resolveHeartbeat,
  secretBytes,
  validate,
  type WorkOptions,
} from "./internal/options.ts";
import { PayloadCodec } from "./internal/payload.ts";
import { Queue } from "./internal/queue.ts";
import { timerMs } from "./internal/timer.ts";
import { type Checked, runSchema, SchemaQueue } from "./internal/schema.ts";
import { toError } from "./internal/thrown.ts";
import {
  plainLimit,
  type Transform,
  TransformChain,
  TransformError,
} from "./internal/transforms.ts";
import type { Handler, Runner, WorkItem } from "./internal/work_loop.ts";

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

/** The same for all connections of this process: see PROTOCOL.md section 3. */
const INSTANCE = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));

/** Longest texts of an error that are sent, in UTF-16 units. */
const MAX_NAME = 200, MAX_MESSAGE = 10_000, MAX_STACK = 10_000;
/** How many causes of an error are sent. */
const MAX_CAUSES = 8;

/** A value, or an acknowledgement behind values, that waits for credit. */
type Outgoing<Result> =
  | {
    value: Result;
    left: PromiseWithResolvers<void> | null;
    /** What became of it; undefined: its schema hasn't made up its mind. */
    checked?: Checked | undefined;
  }
  | { ack: number };

/**
 * Connects to a server: one attempt.
 *
 * @typeParam Item What the server sends.
 * @typeParam Result What is sent back.
 * @param options Where to, and the options of the client.
 * @returns The client, once the handshake is done.
 * @throws {HandshakeError} If the two ends don't belong together.
 * @throws {Deno.errors.ConnectionRefused} If nobody listens there.
 * @throws {TypeError} If an option is unknown or of the wrong type.
 * @throws {RangeError} If an option is out of range.
 *
 * @example Read items, send values back
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { connect } from "@distchan/distchan/client";
 * import { listen } from "@distchan/distchan/server";
 *
 * const server = listen<string, string>({ port: 0 });
 * const { port } = server.addr as Deno.NetAddr;
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
  validate(options, "connect");
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
 * @returns Resolves when the server has no more work, or `signal` has aborted
 * and what was begun is finished. It rejects with a {@linkcode HandshakeError}
 * if the two ends don't belong together, and with the last error when it gives
 * up.
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
 * const { port } = server.addr as Deno.NetAddr;
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
 * const { port } = server.addr as Deno.NetAddr;
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
  validate(options, "connect");
  checkHandler(handler, workOptions, options);
  const { reconnect = {} } = options;
  const settings = reconnect === false ? null : reconnect;
  const {
    minDelayMs = 100,
    maxDelayMs = 10_000,
    maxAttempts = Infinity,
    maxElapsedMs = Infinity,
  } = settings ?? {};
  const backoff = new Backoff(minDelayMs, maxDelayMs, Math.random);
  const signals = [options.signal, workOptions.signal].filter((s) =>
    s !== undefined
  );
  const signal = AbortSignal.any(signals);
  let source: HandlerSource;
  try {
    source = await openSource(handler, { ...workOptions, signal }, options);
  } catch (error) {
    if (workOptions.signal?.aborted) return;
    throw error;
  }
  // Kept over reconnections, and gone when this function returns.
  await using _closing = { [Symbol.asyncDispose]: () => source.close() };
  let lostAt = performance.now();
  let failures = 0;
  let authFailures = 0;
  for (;;) {
    if (workOptions.signal?.aborted) return;
    options.signal?.throwIfAborted();
    if (source.error !== null) throw source.error;
    try {
      failures++;
      const client = await attempt<Item, Result>({ ...options, signal });
      failures = 0;
      backoff.reset();
      authFailures = 0;
      try {
        return await workWith(client as Client, source, workOptions);
      } finally {
        lostAt = performance.now();
      }
    } catch (error) {
      if (workOptions.signal?.aborted) return;
      options.signal?.throwIfAborted();
      if (source.error !== null) throw source.error;
      if (error instanceof HandshakeError && error.code === "auth") {
        authFailures++;
      }
      if (settings === null || !canHeal(error, authFailures)) throw error;
      const delayMs = backoff.next();
      if (
        failures >= maxAttempts ||
        performance.now() - lostAt + delayMs > maxElapsedMs
      ) throw error;
      tell(options.onEvent, {
        type: "reconnecting",
        attempt: backoff.attempts,
        delayMs,
        error: error as Error,
      });
      await delay(delayMs, signal);
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
 * const { port } = server.addr as Deno.NetAddr;
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
  readonly #connection: Connection;
  readonly #payloads: PayloadCodec;
  readonly #terms: Terms;
  readonly #transforms: readonly Transform[];
  readonly #maxFrameBytes: number;
  readonly #heartbeatOptions: Required<HeartbeatOptions>;
  readonly #heartbeat: Heartbeat;
  readonly #nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  readonly #opened = deferred<void>();
  readonly #closed = deferred<void>();
  readonly #ended = deferred<void>();
  readonly #outlet: Outlet<Item, number>;
  readonly #inlet: Inlet<Result>;
  readonly #outgoing = new Queue<Outgoing<Result>>();
  readonly #credit = new CreditUse();
  readonly #items: SchemaQueue | null;
  readonly #results: SchemaQueue | null;
  readonly #openValue = () => this.#connection.frames.open(FrameType.VALUE);
  readonly #openResult = () => {
    const { frames } = this.#connection;
    frames.open(FrameType.RESULT);
    frames.out.writeUint(this.#answered);
  };
  #phase: "handshake" | "open" | "goodbye" | "closed" | "lost" = "handshake";
  #error: Error | null = null;
  /** Whether the connection is closed. */
  #hasEnded = false;
  #transcript: Transcript | null = null;
  /** The transforms, while the server has yet to confirm them. */
  #chain: TransformChain | null = null;
  #welcome: Welcome | null = null;
  #wantsResults = true;
  #room: PromiseWithResolvers<void> | null = null;
  #inletEnd: PromiseWithResolvers<void> | null = null;
  #readingDone = false;
  #leaving = false;
  #nextDelivery = 0;
  /** Items that are here and aren't settled, and how many there may be. */
  #held = 0;
  #window = 0;
  /** Those of them that were handed to the reader since the last ACK. */
  #handedSince = 0;
  #challenged = false;
  #noMore = false;
  /** The last delivery that the reader was handed. */
  #handed = -1;
  /** Deliveries up to here may be acknowledged, and were. */
  #ackTo = -1;
  #acked = -1;
  /** The delivery that a result is being written for. */
  #answered = 0;
  #runner: Runner | null = null;
  /** Whether `work()` was called; its handler may not be loaded yet. */
  #isWork = false;
  /** Whether the runner takes and gives payloads, not values. */
  #takesPayloads = false;
  #workOptions: WorkOptions = {};
  #concurrency = 1;
  #pong = -1;
  #timer: ReturnType<typeof setInterval> | undefined;
  #finishTimer: ReturnType<typeof setTimeout> | undefined;
  #openedAt: number = performance.now();
  #tickedAt: number = this.#openedAt;
  #lateTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #tickMs: number;

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
    validate(options, "client");
    this.#options = options;
    const codec = options.codec ?? cbor();
    this.#payloads = new PayloadCodec(codec);
    this.#transforms = options.transforms ?? [];
    this.#terms = {
      signature: options.signature ?? DEFAULTS.signature,
      codec: codec.name,
      transforms: this.#transforms.map((transform) => transform.name),
    };
    this.#maxFrameBytes = options.maxFrameBytes ?? DEFAULTS.maxFrameBytes;
    const { itemSchema, resultSchema } = options;
    this.#items = itemSchema === undefined ? null : new SchemaQueue(itemSchema);
    this.#results = resultSchema === undefined
      ? null
      : new SchemaQueue(resultSchema);
    this.#heartbeatOptions = resolveHeartbeat(options.heartbeat);
    this.#heartbeat = new Heartbeat(this.#heartbeatOptions, Math.random());
    if ("setNoDelay" in conn) (conn as Deno.TcpConn).setNoDelay(true);
    this.#connection = new Connection(conn as Duplex, {
      limit: MAX_HANDSHAKE_BYTES,
      events: {
        onFrame: (type, reader) => this.#onFrame(type, reader),
        onBatch: () => this.#onBatch(),
        onFlush: () => this.#onFlush(),
        onDrain: () => this.#onRoom(),
        onViolation: (error) => this.#onViolation(error),
        onEnd: (error) => this.#onEnd(error),
      },
    });
    this.#outlet = new Outlet<Item, number>({
      onTaken: () => this.#grant(),
      onAsk: () => this.#onAsk(),
      onRead: (_bytes, delivery) => {
        this.#handed = delivery;
        this.#handedSince++;
      },
      onReachedEnd: () => {
        this.#readingDone = true;
        this.#finishSoon();
      },
      onCancel: (_reason, unread) => this.#onCancel(unread),
    }, { name: "client.readable", burst: 1 });
    this.#inlet = new Inlet<Result>({
      onTaken: () => {},
      send: (value) => this.#send(value),
      write: (value) => this.#write(value),
      end: () => this.#endValues(),
      onAbort: (reason) => void this.abort(reason),
    }, "client.writable");
    this.#tickMs = tickMs(
      options.handshakeTimeoutMs ?? DEFAULTS.handshakeTimeoutMs,
      this.#heartbeatOptions.intervalMs,
    );
    this.#timer = setInterval(() => this.#tick(), this.#tickMs);
    this.#sayHello();
    this.#connection.start();
  }

  /**
   * Resolves when the handshake is done; rejects with a
   * {@linkcode HandshakeError} if it fails. Ignoring it is allowed.
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
    return this.#outlet.readable;
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
   * @param value The value.
   * @returns `undefined`: taken, and there is room for another. A promise:
   * taken too, but wait for it before the next. It rejects if the value can't
   * be sent, and the client goes on.
   * @throws {TypeError} If `writable` or `work()` was used before.
   */
  send(value: Result): Promise<void> | undefined {
    return this.#inlet.send(value);
  }

  /**
   * No more values: what `writable.close()` is for those who use `send()`.
   *
   * @returns Resolves when all values have left. `closed` tells that they have
   * arrived.
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
    return this.#outlet.iterate();
  }

  /**
   * Calls a handler with every item, and sends back what it returns.
   *
   * @param handler The handler, or the URL of its module. What it throws is the
   * item's failure.
   * @param options How to work.
   * @returns Resolves when the server has no more work, or `signal` has aborted
   * and what was begun is finished; rejects if the connection is lost.
   * @throws {TypeError} If another face was used before.
   */
  async work(
    handler: Handler<Item, Result> | URL,
    options: WorkOptions = {},
  ): Promise<void> {
    checkHandler(handler, options, this.#options);
    this.#takeForWork();
    // Leaving begins with a runner: loading isn't interrupted for it.
    const { signal: _, ...staying } = options;
    const source = typeof handler === "function"
      ? new FunctionSource(handler as Handler<never, unknown>, options)
      : await openSource(handler, staying, this.#options);
    try {
      await this.#work(source, options);
    } finally {
      await source.close();
    }
  }

  static {
    workWith = (client, source, options) => {
      client.#takeForWork();
      return client.#work(source, options);
    };
  }

  #takeForWork(): void {
    this.#outlet.takeForWork();
    this.#inlet.takeForWork();
    this.#isWork = true;
  }

  async #work(source: HandlerSource, options: WorkOptions): Promise<void> {
    const { concurrency = 1, signal } = options;
    this.#workOptions = options;
    this.#concurrency = concurrency;
    this.#takesPayloads = source.takesPayloads;
    this.#runner = source.runner({
      isBusy: () => this.#connection.busy || this.#isChecking,
      result: (item, value) => this.#answer(item, value),
      done: (item) => this.#answerDone(item),
      error: (item, error) => this.#answerError(item, error),
      value: (value) => this.#sendNow(value as Result),
      onIdle: () => this.#finishSoon(),
      wantsResult: (item) => this.#wantsResults || item.kind === ItemKind.CALL,
      onCrash: (error) => this.#emit({ type: "failed", id: undefined, error }),
      onUnusable: (error) => void this.abort(error),
    });
    this.#grant();
    this.#finishSoon();
    const leave = () => this.#leave();
    if (signal?.aborted) leave();
    else signal?.addEventListener("abort", leave);
    try {
      await this.#closed.promise;
    } catch (error) {
      throw source.error ?? error;
    } finally {
      signal?.removeEventListener("abort", leave);
      this.#runner.close();
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
    if (this.#runner !== null) this.#leave();
    else {
      this.#settleHanded();
      this.#leaving = true;
      this.#readingDone = true;
      this.#outlet.close();
      this.#endValues();
      this.#inlet.fail(new TypeError("Cannot write: the client is closed"));
      this.#finishSoon();
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
    const text = reason instanceof Error ? reason.message : String(reason);
    const error = new ConnectionLostError("aborted", text, { cause: reason });
    const wasHandshake = this.#phase === "handshake";
    this.#lose(error);
    if (wasHandshake) this.#connection.end();
    else this.#goodbye("aborted", text);
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
    if (this.#phase === "lost") await this.#ended.promise;
    else await this.close();
  }

  // --- The handshake ---

  #sayHello(): void {
    const secret = secretBytes(this.#options.secret);
    if (secret !== null || this.#transforms.length > 0) {
      this.#transcript = new Transcript(secret);
    }
    const hello: Hello = {
      ...this.#terms,
      version: PROTOCOL_VERSION,
      maxFrameBytes: this.#maxFrameBytes,
      nonce: this.#nonce,
      instance: INSTANCE,
      name: clip(this.#options.name ?? "", 200),
      auth: secret !== null,
    };
    const connection = this.#connection;
    connection.prepare();
    writeHello(connection.frames, hello);
    this.#transcript?.add(connection.out.bytes.slice(4, connection.out.length));
    connection.schedule();
  }

  #onHandshakeFrame(type: number, reader: CborDecoder): void {
    const transcript = this.#transcript;
    if (type === FrameType.REJECT) {
      const error = readReject(reader);
      this.#lose(error);
      this.#connection.end();
    } else if (type === FrameType.CHALLENGE && !this.#challenged) {
      this.#challenged = true;
      transcript?.add(reader.copy());
      reader.readBytes();
      reader.finish();
      if (!transcript?.hasSecret) {
        throw new HandshakeError(
          "auth",
          "Handshake failed: the server asks for a secret, the client has none",
        );
      }
      const { frames, out } = this.#connection;
      this.#connection.prepare();
      const start = out.length + 4;
      frames.begin(FrameType.PROOF);
      out.writeBytes(transcript.proof("client"));
      frames.close();
      transcript.add(out.bytes.slice(start, out.length));
      this.#connection.schedule();
    } else if (type === FrameType.WELCOME && this.#welcome === null) {
      transcript?.add(reader.copy());
      const welcome = readWelcome(reader);
      reader.finish();
      checkTerms(this.#terms, welcome);
      if (transcript?.hasSecret && !this.#challenged) {
        throw new HandshakeError(
          "auth",
          "Handshake failed: the client has a secret, the server asks for none",
        );
      }
      this.#welcome = welcome;
      if (!transcript?.hasSecret) this.#agree(welcome);
    } else if (
      type === FrameType.PROOF && this.#welcome !== null &&
      this.#chain === null && transcript?.hasSecret
    ) {
      const body = reader.copy();
      const proof = reader.readBytes();
      reader.finish();
      if (!transcript.verify("server", proof)) {
        throw new HandshakeError(
          "auth",
          "Handshake failed: the server's secret is not the client's",
        );
      }
      transcript.add(body);
      this.#agree(this.#welcome);
    } else if (type === FrameType.CONFIRM && this.#chain !== null) {
      const digest = reader.readBytes();
      reader.finish();
      this.#connection.hold(this.#confirm(this.#chain, digest));
    } else {
      throw new ProtocolError(
        `Cannot take ${frameName(type)} in the handshake`,
      );
    }
  }

  /** All is agreed; transforms are tried before they are trusted. */
  #agree(welcome: Welcome): void {
    if (this.#transforms.length === 0) this.#open(welcome);
    else this.#connection.hold(this.#sayConfirm(welcome));
  }

  async #sayConfirm(welcome: Welcome): Promise<void> {
    try {
      const chain = new TransformChain(this.#transforms, {
        role: "client",
        sessionId: sessionId(this.#nonce, welcome.nonce),
        maxBytes: this.#maxFrameBytes,
      });
      const digest = await chain.encode(this.#transcript!.digest("client"));
      if (this.#phase !== "handshake") return;
      this.#chain = chain;
      const connection = this.#connection;
      connection.prepare();
      connection.frames.begin(FrameType.CONFIRM);
      connection.frames.out.writeBytes(digest);
      connection.frames.close();
      connection.schedule();
    } catch (error) {
      this.#lose(transformsError(error));
      this.#connection.end();
    }
  }

  /** Whether what the server's transforms do is undone by those here. */
  async #confirm(chain: TransformChain, digest: Uint8Array): Promise<void> {
    const welcome = this.#welcome!, transcript = this.#transcript!;
    let plain: Uint8Array = new Uint8Array(0), cause: unknown;
    try {
      plain = await chain.decode(digest);
    } catch (error) {
      cause = error;
    }
    if (this.#phase !== "handshake") return;
    // The server has tried this direction, and switched to it.
    this.#connection.useTransforms(chain, welcome.maxFrameBytes);
    this.#chain = null;
    if (transcript.confirms("server", plain)) return this.#open(welcome);
    const error = transformsError(
      cause ??
        new Error(
          "the server's transforms are not undone by the client's, or the handshake was changed on the way",
        ),
    );
    this.#lose(error);
    this.#goodbye("transforms", error.message);
  }

  #open(welcome: Welcome): void {
    const connection = this.#connection;
    connection.receiveLimit = this.#maxFrameBytes;
    connection.frames.limit = plainLimit(
      welcome.maxFrameBytes,
      this.#transforms.length,
    );
    this.#wantsResults = welcome.results;
    this.#transcript = null;
    this.#phase = "open";
    this.#opened.resolve();
    this.#emit({ type: "connected" });
    this.#grant();
    this.#onRoom();
    this.#finishSoon();
  }

  // --- What the server sends ---

  #onFrame(type: number, reader: CborDecoder): void {
    if (this.#phase === "handshake") {
      try {
        this.#onHandshakeFrame(type, reader);
      } catch (error) {
        if (!(error instanceof HandshakeError)) throw error;
        this.#lose(error);
        this.#connection.end();
      }
      return;
    }
    switch (type) {
      case FrameType.ITEM:
        return this.#onItem(reader);
      case FrameType.CREDIT: {
        const values = reader.readUint();
        this.#credit.grant(values, reader.readUint());
        reader.finish();
        return this.#onRoom();
      }
      case FrameType.CANCEL: {
        do {
          this.#cancel(reader.readUint());
        } while (!reader.done);
        return;
      }
      case FrameType.END:
        reader.finish();
        return this.#onNoMore();
      case FrameType.PING:
        this.#pong = reader.readUint();
        reader.finish();
        this.#connection.prepare();
        return this.#connection.schedule();
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

  #onItem(reader: CborDecoder): void {
    const attempt = reader.readUint();
    const kind = reader.readUint();
    let delivery = reader.readUint();
    if (kind > ItemKind.CALL || delivery !== this.#nextDelivery) {
      throw new ProtocolError(
        `Cannot take ITEM: kind ${kind}, delivery ${delivery}, expected ${this.#nextDelivery}`,
      );
    }
    do {
      const id = reader.readUint();
      reader.readBytesRange();
      const { bytes, rangeStart, rangeEnd } = reader;
      if (++this.#held > this.#window && !this.#leaving || this.#noMore) {
        throw new ProtocolError(
          this.#noMore
            ? "Cannot take ITEM: END came before it"
            : `Cannot take ITEM: ${this.#held} are unsettled, the window is ${this.#window}`,
        );
      }
      this.#takeItem(
        { delivery, id, attempt, kind, value: undefined },
        bytes,
        rangeStart,
        rangeEnd,
      );
      delivery++;
    } while (!reader.done);
    this.#nextDelivery = delivery;
  }

  #takeItem(
    item: { -readonly [K in keyof WorkItem]: WorkItem[K] },
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    if (this.#leaving || this.#phase !== "open") {
      if (this.#phase === "open") this.#handBack([item.delivery]);
      return;
    }
    try {
      item.value = this.#takesPayloads
        ? bytes.slice(start, end)
        : this.#payloads.read(bytes, start, end);
    } catch (error) {
      this.#answerError(item, error);
      return;
    }
    if (this.#items !== null) this.#checkItem(item, end - start);
    else this.#pushItem(item, end - start);
  }

  #pushItem(item: WorkItem, bytes: number): void {
    if (this.#runner !== null) this.#runner.push(item);
    else this.#outlet.push(item.value as Item, bytes, item.delivery);
  }

  /** Nothing more is read before it is known whether an item passes. */
  #checkItem(item: WorkItem, bytes: number): void {
    const items = this.#items!, { pending } = items;
    items.check(item.value, (checked) => {
      if (this.#phase !== "open") return;
      if (this.#leaving) this.#handBack([item.delivery]);
      else if (checked.error !== null) this.#answerError(item, checked.error);
      else this.#pushItem({ ...item, value: checked.value }, bytes);
    });
    if (items.pending > pending) this.#connection.hold(items.last);
  }

  #onNoMore(): void {
    this.#noMore = true;
    const isRead = !this.#isWork && this.#outlet.isTaken;
    this.#outlet.end();
    if (isRead) return;
    this.#readingDone = true;
    this.#finishSoon();
  }

  #cancel(delivery: number): void {
    if (this.#runner !== null) this.#runner.cancel(delivery);
    // A reader has it, or will: taking it back would be a hole in what it reads.
  }

  #onGoodbye(reader: CborDecoder): void {
    const code = GOODBYE_CODES[reader.readUint()] ?? "protocol";
    const reason = reader.readText();
    reader.finish();
    if (code === "normal" && this.#phase === "goodbye") {
      this.#phase = "closed";
      this.#connection.end();
      this.#emit({ type: "disconnected", code, reason });
      this.#closed.resolve();
      return;
    }
    this.#lose(new ConnectionLostError(code, reason));
    this.#connection.end();
  }

  #onBatch(): void {
    if (
      this.#phase === "handshake" &&
      this.#connection.bytesIn > MAX_HANDSHAKE_BYTES
    ) {
      this.#onViolation(
        new ProtocolError(
          `Cannot go on with the handshake: ${this.#connection.bytesIn} bytes came, limit is ${MAX_HANDSHAKE_BYTES}`,
        ),
      );
      return;
    }
    this.#runner?.run();
  }

  #onViolation(error: Error): void {
    if (this.#phase === "handshake") {
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
    this.#goodbye(code, error.message);
  }

  #onEnd(error: ConnectionLostError): void {
    clearInterval(this.#timer);
    clearTimeout(this.#lateTimer);
    this.#hasEnded = true;
    this.#ended.resolve();
    if (this.#phase === "closed") return;
    if (this.#phase === "lost") return this.#closed.reject(this.#error);
    this.#lose(
      this.#phase === "handshake"
        ? new HandshakeError(
          "protocol",
          `Handshake failed: ${error.reason}`,
          { cause: error },
        )
        : error,
    );
  }

  /** The connection is over, and not in order. */
  #lose(error: Error): void {
    if (this.#phase === "closed" || this.#phase === "lost") return;
    this.#phase = "lost";
    this.#error = error;
    clearInterval(this.#timer);
    clearTimeout(this.#lateTimer);
    clearTimeout(this.#finishTimer);
    this.#opened.reject(error);
    this.#outlet.fail(error);
    this.#inlet.fail(error);
    this.#room?.reject(error);
    this.#inletEnd?.reject(error);
    for (const outgoing of this.#outgoing) {
      if ("value" in outgoing) outgoing.left?.reject(error);
    }
    this.#outgoing.clear();
    this.#runner?.takeWaiting();
    this.#runner?.abort(error);
    this.#emit({
      type: "disconnected",
      code: error instanceof ConnectionLostError ? error.code : "handshake",
      reason: error.message,
    });
    if (this.#hasEnded) this.#closed.reject(error);
  }

  // --- Reading ---

  /** Lets the server send items, once somebody takes them. */
  #grant(): void {
    if (this.#phase !== "open") return;
    const isWork = this.#runner !== null;
    // Items of work() wait until its handler is loaded.
    if (!isWork && (this.#isWork || !this.#outlet.isTaken)) return;
    const { prefetch = "auto" } = this.#options;
    const isAuto = prefetch === "auto";
    this.#window = !isAuto
      ? prefetch
      : isWork
      ? MAX_WINDOW
      : DEFAULTS.streamPrefetch;
    this.#uints(FrameType.CREDIT, [
      isWork ? Mode.WORK : Mode.STREAM,
      isWork ? this.#concurrency : 1,
      this.#window,
      isAuto && isWork ? 1 : 0,
    ]);
    if (this.#leaving) this.#handBack([]);
  }

  /** The reader asks for the next item: the one it was handed is settled. */
  #onAsk(): void {
    if (this.#handed > this.#ackTo) this.#settleHanded();
  }

  #settleHanded(): void {
    if (this.#handed <= this.#ackTo) return;
    this.#ackTo = this.#handed;
    this.#held -= this.#handedSince;
    this.#handedSince = 0;
    if (this.#outgoing.length > 0) {
      // Not before the values that were sent before it.
      this.#outgoing.push({ ack: this.#ackTo });
    } else this.#ack(this.#ackTo);
  }

  #ack(delivery: number): void {
    this.#acked = delivery;
    this.#isAckDue = true;
    // Many asks of a turn share an acknowledgement, until nothing is here.
    if (this.#outlet.length > 0) this.#connection.scheduleLater();
    else this.#connection.schedule();
  }

  #isAckDue = false;

  /** The reader wants no more: what it has not settled goes back. */
  #onCancel(unread: number[]): void {
    if (this.#handed > this.#ackTo) unread.unshift(this.#handed);
    this.#leaving = true;
    this.#readingDone = true;
    if (this.#phase === "open") this.#handBack(unread);
    this.#finishSoon();
  }

  #handBack(deliveries: readonly number[]): void {
    this.#uints(FrameType.LEAVE, deliveries);
  }

  /** `work()` ends early: what isn't begun goes back, the rest is finished. */
  #leave(): void {
    if (this.#leaving) return;
    this.#leaving = true;
    this.#readingDone = true;
    if (this.#phase === "open") {
      this.#handBack(this.#runner!.takeWaiting().map((i) => i.delivery));
    }
    this.#finishSoon();
  }

  // --- Writing ---

  #send(value: Result): Promise<void> | undefined {
    const refused = this.#refusal();
    if (refused !== null) return refused;
    return this.#sendNow(value);
  }

  #sendNow(value: Result): Promise<void> | undefined {
    if (this.#phase === "lost") return rejected(this.#error);
    if (this.#results !== null) {
      const checked = runSchema(this.#options.resultSchema!, value);
      if (checked instanceof Promise) return this.#queueChecked(checked);
      if (checked.error !== null) return this.#refuseValue(checked.error);
      value = checked.value as Result;
    }
    if (this.#outgoing.length > 0 || !this.#hasCredit) {
      const left = deferred<void>();
      this.#outgoing.push({ value, left });
      return left.promise;
    }
    try {
      this.#writeValue(value);
    } catch (error) {
      return this.#refuseValue(error);
    }
    if (this.#hasCredit && !this.#connection.busy) return undefined;
    return (this.#room ??= deferred<void>()).promise;
  }

  #refuseValue(error: unknown): Promise<never> {
    this.#emit({ type: "failed", id: undefined, error: error as Error });
    return rejected(error);
  }

  /** A value takes its place in the queue, and leaves it once it has passed. */
  #queueChecked(checked: Promise<Checked>): Promise<void> {
    const left = deferred<void>();
    const outgoing: Outgoing<Result> = {
      value: undefined as Result,
      left,
      checked: undefined,
    };
    this.#outgoing.push(outgoing);
    checked.then((checked) => {
      outgoing.checked = checked;
      if (checked.error === null) outgoing.value = checked.value as Result;
      if (this.#phase === "open") this.#onRoom();
    });
    return left.promise;
  }

  #write(value: Result): Promise<void> | undefined {
    const refused = this.#refusal();
    if (refused !== null) return refused;
    if (this.#results !== null) {
      const checked = runSchema(this.#options.resultSchema!, value);
      if (checked instanceof Promise) {
        return this.#queueChecked(checked).catch((e) => this.#failWrite(e));
      }
      if (checked.error !== null) return this.#failWrite(checked.error);
      value = checked.value as Result;
    }
    if (
      this.#outgoing.length > 0 || !this.#hasCredit || this.#connection.busy
    ) {
      const left = deferred<void>();
      this.#outgoing.push({ value, left });
      return left.promise.catch((error) => this.#failWrite(error));
    }
    try {
      this.#writeValue(value);
    } catch (error) {
      return this.#failWrite(error);
    }
    return undefined;
  }

  /** A stream whose write failed is over, and so is the client: never silence. */
  #failWrite(error: unknown): Promise<never> {
    this.abort(error);
    return rejected(error);
  }

  #refusal(): Promise<void> | null {
    if (this.#phase === "lost") return rejected(this.#error);
    if (
      this.#inletEnd === null && this.#phase !== "closed" &&
      this.#phase !== "goodbye"
    ) {
      return null;
    }
    return rejected(
      new TypeError(
        "Cannot send: the client has said goodbye; a writer that is needed after the last item must be taken before it",
      ),
    );
  }

  get #hasCredit(): boolean {
    return this.#phase === "open" && this.#credit.open;
  }

  #writeValue(value: Result): void {
    const connection = this.#connection;
    connection.prepare();
    this.#credit.sent(
      this.#payloads.write(
        connection.frames,
        value,
        this.#openValue,
        this.#takesPayloads,
      ),
    );
    connection.schedule();
  }

  #endValues(): Promise<void> {
    if (this.#phase === "lost") return rejected(this.#error);
    if (this.#inletEnd === null) {
      this.#inletEnd = deferred<void>();
      if (this.#outgoing.length === 0) this.#inletEnd.resolve();
      if (!this.#outlet.isTaken && this.#runner === null) {
        // A client that only writes.
        this.#readingDone = true;
      }
      this.#finishSoon();
    }
    return this.#inletEnd.promise;
  }

  /** There is credit, or the output has room again. */
  #onRoom(): void {
    const outgoing = this.#outgoing;
    while (outgoing.length > 0) {
      const next = outgoing.peek()!;
      if ("ack" in next) {
        outgoing.shift();
        this.#ack(next.ack);
        continue;
      }
      if (!this.#hasCredit || this.#connection.busy) break;
      if ("checked" in next && next.checked === undefined) break;
      outgoing.shift();
      try {
        if (next.checked?.error) throw next.checked.error;
        this.#writeValue(next.value);
        next.left?.resolve();
      } catch (error) {
        this.#emit({ type: "failed", id: undefined, error: error as Error });
        next.left?.reject(error);
      }
    }
    if (outgoing.length === 0) {
      this.#inletEnd?.resolve();
      if (this.#room !== null && this.#hasCredit && !this.#connection.busy) {
        this.#room.resolve();
        this.#room = null;
      }
      this.#finishSoon();
    }
    this.#runner?.run();
  }

  #answer(item: WorkItem, value: unknown): void {
    if (this.#phase !== "open") return;
    if (!this.#wantsResults && item.kind === ItemKind.VALUE) {
      this.#answerDone(item);
    } else if (this.#results !== null) this.#checkAnswer(item, value);
    else this.#writeAnswer(item, value);
  }

  #checkAnswer(item: WorkItem, value: unknown): void {
    const results = this.#results!, { pending } = results;
    results.check(value, (checked) => {
      if (this.#phase !== "open") return;
      if (checked.error !== null) this.#answerError(item, checked.error);
      else this.#writeAnswer(item, checked.value);
    });
    if (results.pending === pending) return;
    results.last.then(() => {
      this.#runner!.run();
      this.#finishSoon();
    });
  }

  /** Whether as many results as items at once wait for their schema. */
  get #isChecking(): boolean {
    return this.#results !== null &&
      this.#results.pending >= this.#concurrency;
  }

  #writeAnswer(item: WorkItem, value: unknown): void {
    const connection = this.#connection;
    connection.prepare();
    this.#answered = item.delivery;
    try {
      this.#payloads.write(
        connection.frames,
        value,
        this.#openResult,
        this.#takesPayloads,
      );
    } catch (error) {
      this.#answerError(item, error);
      return;
    }
    this.#held--;
    connection.schedule();
  }

  #answerDone(item: WorkItem): void {
    if (this.#phase !== "open") return;
    this.#held--;
    const connection = this.#connection;
    connection.prepare();
    connection.frames.open(FrameType.DONE);
    connection.out.writeUint(item.delivery);
    connection.schedule();
  }

  #answerError(item: WorkItem, error: unknown): void {
    if (this.#phase !== "open") return;
    this.#held--;
    this.#emit({ type: "failed", id: item.id, error: toError(error) });
    const connection = this.#connection;
    const { frames } = connection;
    connection.prepare();
    const { name, message, stack } = toError(error);
    // A small limit of the peer's leaves less room for words.
    const share = frames.limit > 100_000 ? Infinity : frames.limit / 32;
    frames.begin(FrameType.ERROR);
    frames.out.writeUint(item.delivery);
    frames.out.writeText(clip(name, Math.min(MAX_NAME, share)));
    frames.out.writeText(clip(message, Math.min(MAX_MESSAGE, share * 2)));
    writeCause(
      connection,
      error instanceof Error ? error.cause : undefined,
      share === Infinity ? MAX_CAUSES : 1,
      Math.min(MAX_MESSAGE, share),
    );
    if (this.#workOptions.sendStacks && stack !== undefined) {
      frames.out.writeText(clip(stack, Math.min(MAX_STACK, share * 2)));
    } else frames.out.bytes[frames.out.length++] = 0xf6;
    frames.close();
    connection.schedule();
  }

  #uints(type: number, values: readonly number[]): void {
    const connection = this.#connection;
    if (connection.ended) return;
    connection.prepare();
    connection.frames.uints(type, values);
    connection.schedule();
  }

  #onFlush(): void {
    const { frames } = this.#connection;
    if (this.#isAckDue) {
      this.#isAckDue = false;
      this.#connection.prepare();
      frames.uints(FrameType.ACK, [this.#acked]);
    }
    if (this.#pong >= 0) {
      this.#connection.prepare();
      frames.uints(FrameType.PONG, [this.#pong]);
      this.#pong = -1;
    }
  }

  // --- Ending ---

  /** Looks, a moment later, whether all is done. */
  #finishSoon(): void {
    if (this.#finishTimer !== undefined || this.#phase !== "open") return;
    if (!this.#readingDone) return;
    // The code behind the reader's loop runs first: it may still write.
    this.#finishTimer = setTimeout(() => {
      this.#finishTimer = undefined;
      this.#finishNow();
    }, 0);
  }

  #finishNow(): void {
    if (this.#phase !== "open" || !this.#readingDone) return;
    if (this.#runner !== null) {
      if (!this.#runner.isIdle || this.#results?.pending) return;
    } else if (this.#inlet.isTaken && this.#inletEnd === null) return;
    if (this.#outgoing.length > 0) return;
    this.#phase = "goodbye";
    const connection = this.#connection;
    connection.prepare();
    this.#onFlush();
    connection.frames.farewell(FrameType.GOODBYE, 0, "");
    connection.schedule();
  }

  #goodbye(code: GoodbyeCode, reason: string): void {
    const connection = this.#connection;
    if (connection.ended) return;
    connection.prepare();
    this.#onFlush();
    connection.frames.farewell(
      FrameType.GOODBYE,
      GOODBYE_CODES.indexOf(code),
      reason,
    );
    connection.finish();
  }

  #tick(): void {
    const now = performance.now();
    const lateMs = now - this.#tickedAt - this.#tickMs;
    this.#tickedAt = now;
    if (lateMs <= LATE_MS) return this.#check(now);
    // After a pause of this process, what the server sent is read first.
    clearTimeout(this.#lateTimer);
    this.#lateTimer = setTimeout(() => {
      this.#connection.excuse(lateMs);
      this.#check(performance.now());
    }, 0);
  }

  #check(now: number): void {
    if (this.#phase === "closed" || this.#phase === "lost") return;
    const connection = this.#connection, heartbeat = this.#heartbeat;
    if (this.#phase === "handshake") {
      const { handshakeTimeoutMs = DEFAULTS.handshakeTimeoutMs } =
        this.#options;
      if (now - this.#openedAt < handshakeTimeoutMs) return;
      this.#lose(
        new HandshakeError(
          "timeout",
          `Handshake failed: it was not done within ${handshakeTimeoutMs} ms`,
        ),
      );
      connection.end();
      return;
    }
    const { dropMs, timeoutMs } = this.#heartbeatOptions;
    if (heartbeat.suspect && now - connection.heardAt < timeoutMs) {
      heartbeat.suspect = false;
      this.#emit({ type: "recovered" });
    }
    const stalledMs = connection.stalledMs(now);
    const verdict = stalledMs >= dropMs
      ? "drop"
      : heartbeat.judge(connection.heardAt, now);
    if (verdict === "drop") {
      connection.end(
        new ConnectionLostError(
          "timeout",
          stalledMs >= dropMs
            ? `a frame was begun and not finished for ${
              Math.round(stalledMs)
            } ms`
            : `nothing was heard for ${
              Math.round(now - connection.heardAt)
            } ms`,
        ),
      );
    } else if (verdict !== "fine") {
      if (verdict === "suspect") {
        heartbeat.suspect = true;
        this.#emit({ type: "suspect" });
      }
      if (this.#phase === "open") {
        this.#uints(FrameType.PING, [heartbeat.ping(now)]);
      }
    }
  }

  #emit(event: ClientEvent): void {
    tell(this.#options.onEvent, event);
  }
}

function tell(
  onEvent: ((event: ClientEvent) => void) | undefined,
  event: ClientEvent,
): void {
  try {
    onEvent?.(event);
  } catch (error) {
    // The caller's own: it must not break what happens here.
    reportError(error);
  }
}

function checkHandler(
  handler: unknown,
  workOptions: WorkOptions,
  { itemSchema, resultSchema }: ClientOptions,
): void {
  validate(workOptions, "work");
  const isFunction = typeof handler === "function";
  if (!isFunction && !(handler instanceof URL)) {
    throw new TypeError(
      `Cannot work: handler is ${typeof handler}, expected a function or the URL of a module`,
    );
  }
  if (!workOptions.isolate) return;
  if (isFunction) {
    throw new TypeError(
      'Cannot work in isolates: handler is a function, expected the URL of a module: new URL("./handler.ts", import.meta.url)',
    );
  }
  if (itemSchema !== undefined || resultSchema !== undefined) {
    throw new TypeError(
      "Cannot work in isolates: itemSchema and resultSchema can't be taken into them, expected the handler to check",
    );
  }
}

function openSource<Item, Result>(
  handler: Handler<Item, Result> | URL,
  workOptions: WorkOptions,
  options: ClientOptions,
): Promise<HandlerSource> {
  return typeof handler === "function"
    ? Promise.resolve(
      new FunctionSource(handler as Handler<never, unknown>, workOptions),
    )
    : openModule(handler, workOptions, options.codec ?? cbor());
}

async function attempt<Item, Result>(
  options: ConnectOptions<Item, Result>,
): Promise<Client<Item, Result>> {
  const {
    hostname = DEFAULTS.hostname,
    port,
    tls = false,
    signal,
    reconnect: _,
    ...clientOptions
  } = options;
  signal?.throwIfAborted();
  const connecting = dial(hostname, port);
  const tcp = await orAbort(connecting, signal, (conn) => conn.close());
  const conn = tls === false ? tcp : await startTls(tcp, options);
  const client = new Client<Item, Result>(conn, clientOptions);
  await orAbort(client.opened, signal, () => {}, () => client.abort());
  return client;
}

async function dial(hostname: string, port: number): Promise<Deno.TcpConn> {
  const conn = await Deno.connect({ hostname, port });
  conn.setNoDelay(true);
  conn.setKeepAlive(true);
  return conn;
}

/** TLS on a connection, its handshake included: only then errors have names. */
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
  const conn = await Deno.startTls(
    tcp,
    caCerts === undefined ? { hostname } : { hostname, caCerts },
  );
  let isLate = false;
  // Closing it is what ends a handshake that hangs.
  const stop = () => {
    try {
      conn.close();
    } catch {
      // Closed already.
    }
  };
  const timer = setTimeout(() => {
    isLate = true;
    stop();
  }, Math.min(handshakeTimeoutMs, 0x7fff_ffff));
  signal?.addEventListener("abort", stop);
  try {
    signal?.throwIfAborted();
    await conn.handshake();
    return conn;
  } catch (error) {
    stop();
    if (signal?.aborted) throw signal.reason;
    throw tlsError(error, isLate ? handshakeTimeoutMs : null);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

function tlsError(cause: unknown, lateMs: number | null): HandshakeError {
  if (lateMs !== null) {
    return new HandshakeError(
      "timeout",
      `Handshake failed: TLS was not done within ${lateMs} ms`,
    );
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  // Whom the certificate doesn't vouch for isn't the server that was meant.
  return reason.startsWith("invalid peer certificate")
    ? new HandshakeError(
      "auth",
      `Handshake failed: the server's certificate is not accepted: ${reason}`,
      { cause },
    )
    : new HandshakeError("protocol", `Handshake failed: TLS: ${reason}`, {
      cause,
    });
}

/** Waits for a promise or a signal; what comes too late is disposed of. */
async function orAbort<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
  dispose: (value: T) => void,
  onAbort: () => unknown = () => {},
): Promise<T> {
  if (signal === undefined) return await promise;
  const aborted = deferred<never>();
  const listener = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", listener);
  try {
    return await Promise.race([promise, aborted.promise]);
  } catch (error) {
    if (signal.aborted) {
      promise.then(dispose, () => {});
      await onAbort();
    }
    throw error;
  } finally {
    signal.removeEventListener("abort", listener);
  }
}

/** Errors after which trying again is of no use. */
function canHeal(error: unknown, authFailures: number): boolean {
  if (error instanceof TypeError || error instanceof RangeError) return false;
  if (!(error instanceof HandshakeError)) return true;
  if (error.code === "auth") return authFailures < 2;
  return error.code === "full" || error.code === "timeout" ||
    error.code === "protocol";
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
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

/** Writes the cause of an error: null, or [name, message, cause]. */
function writeCause(
  connection: Connection,
  cause: unknown,
  depth: number,
  length: number,
): void {
  const { out } = connection;
  out.reserve(1);
  if (cause === undefined || depth === 0) {
    out.bytes[out.length++] = 0xf6;
    out.reserve(1);
    return;
  }
  const error = toError(cause);
  out.writeHead(4, 3);
  out.writeText(clip(error.name, Math.min(MAX_NAME, length)));
  out.writeText(clip(error.message, length));
  writeCause(
    connection,
    cause instanceof Error ? cause.cause : undefined,
    depth - 1,
    length,
  );
}
