/**
 * The server's end of one connection: the handshake, and then one worker.
 *
 * ```text
 *   HELLO ──► (PROOF) ──► (CONFIRM) ──► OPEN ──► GONE
 *     │          │            └───── rejected ─────┤
 *     └──────────┴──► (REFUSING) ────── rejected ──┘
 * ```
 *
 * @module
 */

import type { CborDecoder } from "./cbor_decoder.ts";
import { Connection, type Duplex } from "./connection.ts";
import {
  AdaptiveWindow,
  CreditGrant,
  CreditUse,
  MAX_WINDOW,
} from "./credit.ts";
import type { Delivery, Item, Worker } from "./delivery.ts";
import type { WorkerInfo } from "./dispatcher.ts";
import {
  ConnectionLostError,
  DecodeError,
  HandshakeError,
  type HandshakeErrorCode,
  ProtocolError,
  RemoteError,
} from "./errors.ts";
import {
  frameName,
  FrameState,
  FrameType,
  GOODBYE_CODES,
  type GoodbyeCode,
  ItemKind,
  MAX_HANDSHAKE_BYTES,
  Mode,
} from "./frame.ts";
import {
  checkTerms,
  type Hello,
  NONCE_BYTES,
  readHello,
  rejectCode,
  sessionId,
  type Terms,
  Transcript,
  transformsError,
  writeWelcome,
} from "./handshake.ts";
import { Heartbeat } from "./heartbeat.ts";
import { InFlight, SETTLED } from "./in_flight.ts";
import type { HeartbeatOptions } from "./options.ts";
import type { PayloadCodec } from "./payload.ts";
import {
  type Checked,
  type ItemSchema,
  SchemaQueue,
  type StandardSchemaV1,
} from "./schema.ts";
import {
  plainLimit,
  type Transform,
  TransformChain,
  TransformError,
} from "./transforms.ts";

/** What a link needs of its server. */
export interface LinkHost {
  /** What both ends must agree on. */
  readonly terms: Terms;
  /** The transforms themselves. */
  readonly transforms: readonly Transform[];
  /** What both ends must know, if anything. */
  readonly secret: Uint8Array | null;
  /** The codec. */
  readonly payloads: PayloadCodec;
  /** The largest frame that is received, in bytes. */
  readonly maxFrameBytes: number;
  /** Payload bytes that may be in flight at one worker. */
  readonly maxInFlightBytes: number;
  /** Whether results are wanted. */
  readonly keepsResults: boolean;
  /** When silence means what. */
  readonly heartbeat: Required<HeartbeatOptions>;
  /** What items have passed, and what came out of it; null: nothing. */
  readonly itemSchema: ItemSchema<Item> | null;
  /** What results must pass; null: nothing. */
  readonly resultSchema: StandardSchemaV1 | null;
  /** Where items come from. */
  readonly delivery: Delivery;
  /** Why there is no place for another worker, or null. */
  refusal(): HandshakeError | null;
  /** The handshake is done. */
  onOpen(link: WorkerLink): void;
  /** A handler failed. */
  onError(link: WorkerLink, entry: Item, error: RemoteError): void;
  /** A value came. */
  onValue(link: WorkerLink, value: unknown, bytes: number): void;
  /** A value didn't pass its schema. */
  onInvalidValue(link: WorkerLink, error: Error, bytes: number): void;
  /** The handshake failed. */
  onRejected(link: WorkerLink, code: HandshakeErrorCode, reason: string): void;
  /** A worker is no longer one; `code` is "normal" after a goodbye. */
  onGone(link: WorkerLink, code: string, reason: string): void;
  /** A suspect was heard. */
  onHeard(link: WorkerLink): void;
  /** The connection is closed. */
  onClosed(link: WorkerLink): void;
}

const AWAIT_HELLO = 0, AWAIT_PROOF = 1, AWAIT_CONFIRM = 2, REFUSING = 3;
const OPEN = 4, GONE = 5;

/** Whoever has not the secret is told so after this time, in ms. */
const AUTH_DELAY_MS = 100;

/** Values that a worker may have sent and nobody has read. */
const VALUE_WINDOW = 1024;
/** Payload bytes of them. */
const VALUE_WINDOW_BYTES = 1024 * 1024;
/** The rate of a worker is measured over so long, in ms. */
const SAMPLE_MS = 1000;

/** The server's end of one connection. */
export class WorkerLink implements Worker {
  /** Unique on the server, in the order of the handshakes; -1 before. */
  id = -1;
  /** The peer's address. */
  readonly addr: Deno.Addr;
  /** When it was accepted, by `performance.now()`. */
  readonly openedAt: number = performance.now();
  readonly inFlight: InFlight<Worker> = new InFlight();
  mode: number = Mode.STREAM;
  concurrency = 1;
  instance = "";
  isAlone = false;
  /** The connection. */
  readonly connection: Connection;
  /** Judges its silence. */
  readonly heartbeat: Heartbeat;
  /** The worker's name. */
  name = "";
  /** Whether it takes no more items. */
  isLeaving = false;
  readonly #host: LinkHost;
  readonly #undo = new FrameState();
  /** The item that is being written. */
  #entry: Item | null = null;
  readonly #openItem = () => {
    const { frames } = this.connection, entry = this.#entry!;
    frames.openItem(entry.attempts + 1, entry.way.kind, this.inFlight.next);
    frames.out.writeUint(entry.id);
  };
  #state: number = AWAIT_HELLO;
  #hello: Hello | null = null;
  #nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  #transcript: Transcript | null = null;
  #refusal:
    | { error: HandshakeError; timer: ReturnType<typeof setTimeout> }
    | null = null;
  #granted = false;
  #window = 0;
  #adaptive: AdaptiveWindow | null = null;
  #full = false;
  #settledInBatch = 0;
  #settled = 0;
  #failed = 0;
  #sampled = 0;
  #sampledAt = 0;
  #rate = -1;
  #rttMs: number | undefined;
  #pong = -1;
  #ended = false;
  #results: SchemaQueue | null = null;
  readonly #grant = new CreditGrant(VALUE_WINDOW, VALUE_WINDOW_BYTES);
  readonly #use = new CreditUse();
  readonly #info: { -readonly [K in keyof WorkerInfo]: WorkerInfo[K] };

  /**
   * @param duplex The socket.
   * @param addr The peer's address.
   * @param host The server.
   */
  constructor(duplex: Duplex, addr: Deno.Addr, host: LinkHost) {
    this.addr = addr;
    this.#host = host;
    if (host.resultSchema !== null) {
      this.#results = new SchemaQueue(host.resultSchema);
    }
    this.heartbeat = new Heartbeat(host.heartbeat, Math.random());
    this.#info = {
      id: -1,
      name: "",
      addr,
      inFlight: 0,
      settled: 0,
      failed: 0,
      ratePerSecond: 0,
      rttMs: undefined,
      state: "idle",
    };
    this.connection = new Connection(duplex, {
      limit: MAX_HANDSHAKE_BYTES,
      events: {
        onFrame: (type, reader) => this.#onFrame(type, reader),
        onBatch: () => this.#onBatch(),
        onFlush: () => this.#onFlush(),
        onDrain: () => this.#host.delivery.pump(),
        onViolation: (error) => this.#onViolation(error),
        onEnd: (error) => this.#onEnd(error),
      },
    });
  }

  /** Whether the handshake is done and the worker is still one. */
  get isWorker(): boolean {
    return this.#state === OPEN;
  }

  /** Whether the handshake isn't done. */
  get isHandshaking(): boolean {
    return this.#state < OPEN;
  }

  get isSuspect(): boolean {
    return this.heartbeat.suspect;
  }

  get isOpen(): boolean {
    return this.#state === OPEN && this.#granted && !this.isLeaving &&
      !this.heartbeat.suspect && !this.#ended;
  }

  get hasRoom(): boolean {
    const { count } = this.inFlight;
    // Also for an idle one: who answers what it never read gets no more.
    if (this.connection.busy) return false;
    return count === 0 || (count < this.#window && !this.#full);
  }

  /** What others may know of it; the same object every time. */
  get info(): WorkerInfo {
    const info = this.#info;
    info.id = this.id;
    info.name = this.name;
    info.inFlight = this.inFlight.count;
    info.settled = this.#settled;
    info.failed = this.#failed;
    info.ratePerSecond = this.#rate >= 0
      ? this.#rate
      : this.#rateSince(performance.now());
    info.rttMs = this.#rttMs;
    info.state = this.isSuspect
      ? "suspect"
      : this.isLeaving
      ? "leaving"
      : this.#granted
      ? "active"
      : "idle";
    return info;
  }

  /** Measures its rate, once a second; to be called from time to time. */
  sample(now: number): void {
    if (now - this.#sampledAt < SAMPLE_MS) return;
    this.#rate = this.#rateSince(now);
    this.#sampled = this.#settled + this.#failed;
    this.#sampledAt = now;
  }

  #rateSince(now: number): number {
    const count = this.#settled + this.#failed - this.#sampled;
    return count === 0 ? 0 : count * 1000 / Math.max(1, now - this.#sampledAt);
  }

  /** What it is called in messages. */
  get label(): string {
    if (this.name !== "") return this.name;
    const { addr } = this;
    return "hostname" in addr
      ? `${addr.hostname}:${addr.port}`
      : `worker ${this.id}`;
  }

  deliver(entry: Item): boolean {
    const { connection, inFlight } = this;
    const { frames } = connection;
    connection.prepare();
    this.#entry = entry;
    if (inFlight.count > 0) frames.save(this.#undo);
    const { payloads, itemSchema } = this.#host;
    const bytes = payloads.write(
      frames,
      itemSchema === null ? entry.item : itemSchema.output(entry),
      this.#openItem,
    );
    if (inFlight.count === 0) {
      this.#adaptive?.busy(performance.now());
    } else if (inFlight.bytes + bytes > this.#host.maxInFlightBytes) {
      frames.restore(this.#undo);
      this.#full = true;
      return false;
    }
    entry.bytes = bytes;
    entry.hold(this, inFlight.next);
    inFlight.add(entry);
    connection.schedule();
    return true;
  }

  cancel(delivery: number): void {
    if (this.#state !== OPEN) return;
    this.#send(FrameType.CANCEL, [delivery]);
  }

  /** Asks for a sign of life. */
  ping(now: number): void {
    this.#send(FrameType.PING, [this.heartbeat.ping(now)]);
  }

  /** Tells it that no more items come. */
  end(): void {
    if (this.#ended || this.#state !== OPEN) return;
    this.#ended = true;
    this.#send(FrameType.END, []);
  }

  /** Says goodbye and closes. */
  goodbye(code: GoodbyeCode, reason: string): void {
    if (this.isHandshaking) {
      this.reject(new HandshakeError("full", reason));
      return;
    }
    const wasOpen = this.#state === OPEN;
    this.#state = GONE;
    if (!this.connection.ended) {
      this.connection.prepare();
      this.connection.frames.farewell(
        FrameType.GOODBYE,
        GOODBYE_CODES.indexOf(code),
        reason,
      );
      this.connection.finish();
    }
    if (wasOpen) this.#host.onGone(this, code, reason);
  }

  /** Gives it up: it is silent, so there is nobody to say goodbye to. */
  drop(reason: string): void {
    this.connection.end(new ConnectionLostError("timeout", reason));
  }

  /** Refuses the handshake and closes. */
  reject(error: HandshakeError): void {
    if (!this.isHandshaking) return;
    this.#state = GONE;
    error = this.#takeRefusal() ?? error;
    this.connection.prepare();
    this.connection.frames.farewell(
      FrameType.REJECT,
      rejectCode(error.code),
      error.message,
    );
    this.connection.finish();
    this.#host.onRejected(this, error.code, error.message);
  }

  /** A value of this worker was read: it may send others. */
  valueRead(bytes: number): void {
    this.#grant.take(bytes);
    if (this.#grant.due) this.grantValues();
  }

  /** Lets the worker send values. */
  grantValues(): void {
    if (this.#state !== OPEN) return;
    this.#grant.renew();
    this.#use.grant(this.#grant.values, this.#grant.bytes);
    this.#send(FrameType.CREDIT, [this.#grant.values, this.#grant.bytes]);
  }

  #send(type: number, values: readonly number[]): void {
    const { connection } = this;
    if (connection.ended) return;
    connection.prepare();
    connection.frames.uints(type, values);
    connection.schedule();
  }

  #onFrame(type: number, reader: CborDecoder): void {
    if (this.#state === OPEN) this.#onOpenFrame(type, reader);
    else if (this.#state !== GONE) {
      try {
        if (this.#state === AWAIT_HELLO) this.#onHello(type, reader);
        else if (this.#state === AWAIT_PROOF) this.#onProof(type, reader);
        else if (this.#state === AWAIT_CONFIRM) this.#onConfirm(type, reader);
      } catch (error) {
        if (!(error instanceof HandshakeError)) throw error;
        if (error.code === "auth") this.#refuse(error);
        else this.reject(error);
      }
    }
  }

  /** Guesses of a secret take their time, and tell nothing by it. */
  #refuse(error: HandshakeError): void {
    this.#state = REFUSING;
    const timer = setTimeout(() => this.reject(error), AUTH_DELAY_MS);
    this.#refusal = { error, timer };
  }

  #takeRefusal(): HandshakeError | null {
    const refusal = this.#refusal;
    if (refusal === null) return null;
    this.#refusal = null;
    clearTimeout(refusal.timer);
    return refusal.error;
  }

  #onHello(type: number, reader: CborDecoder): void {
    expectFrame(type, FrameType.HELLO);
    const body = reader.copy();
    const hello = this.#hello = readHello(reader);
    reader.finish();
    const host = this.#host;
    checkTerms(hello, host.terms);
    const refusal = host.refusal();
    if (refusal !== null) throw refusal;
    if (host.secret === null) {
      if (hello.auth) {
        throw new HandshakeError(
          "auth",
          "Handshake failed: the client has a secret, the server has none",
        );
      }
      if (host.transforms.length > 0) {
        this.#transcript = new Transcript(null);
        this.#transcript.add(body);
      }
      this.#welcome();
      return;
    }
    if (!hello.auth) {
      throw new HandshakeError(
        "auth",
        "Handshake failed: the server asks for a secret, the client has none",
      );
    }
    this.#transcript = new Transcript(host.secret);
    this.#transcript.add(body);
    this.#write(() => {
      const { frames } = this.connection;
      frames.begin(FrameType.CHALLENGE);
      frames.out.writeBytes(this.#nonce);
    });
    this.#state = AWAIT_PROOF;
  }

  #onProof(type: number, reader: CborDecoder): void {
    expectFrame(type, FrameType.PROOF);
    const body = reader.copy();
    const proof = reader.readBytes();
    reader.finish();
    if (!this.#transcript!.verify("client", proof)) {
      throw new HandshakeError(
        "auth",
        "Handshake failed: the client's secret is not the server's",
      );
    }
    this.#transcript!.add(body);
    this.#welcome();
  }

  #welcome(): void {
    const host = this.#host, { connection } = this, hello = this.#hello!;
    this.#write(() =>
      writeWelcome(connection.frames, {
        version: hello.version,
        ...host.terms,
        maxFrameBytes: host.maxFrameBytes,
        nonce: this.#nonce,
        results: host.keepsResults,
      })
    );
    if (this.#transcript?.hasSecret) {
      this.#write(() => {
        connection.frames.begin(FrameType.PROOF);
        connection.frames.out.writeBytes(this.#transcript!.proof("server"));
      });
    }
    if (host.transforms.length > 0) this.#state = AWAIT_CONFIRM;
    else this.#open();
  }

  #onConfirm(type: number, reader: CborDecoder): void {
    expectFrame(type, FrameType.CONFIRM);
    const digest = reader.readBytes();
    reader.finish();
    this.connection.hold(this.#confirm(digest));
  }

  /** Whether what the client's transforms do is undone by those here. */
  async #confirm(digest: Uint8Array): Promise<void> {
    const { connection } = this, hello = this.#hello!, host = this.#host;
    try {
      const chain = new TransformChain(host.transforms, {
        role: "server",
        sessionId: sessionId(hello.nonce, this.#nonce),
        maxBytes: host.maxFrameBytes,
      });
      const transcript = this.#transcript!;
      const plain = await chain.decode(digest);
      if (!transcript.confirms("client", plain)) {
        throw new Error(
          "the client's transforms are not undone by the server's, or the handshake was changed on the way",
        );
      }
      const answer = await chain.encode(transcript.digest("server"));
      if (this.#state !== AWAIT_CONFIRM) return;
      connection.prepare();
      connection.frames.begin(FrameType.CONFIRM);
      connection.frames.out.writeBytes(answer);
      connection.frames.close();
      connection.schedule();
      connection.useTransforms(chain, hello.maxFrameBytes);
      this.#open();
    } catch (error) {
      this.reject(transformsError(error));
    }
  }

  #open(): void {
    const host = this.#host, { connection } = this, hello = this.#hello!;
    connection.receiveLimit = host.maxFrameBytes;
    connection.frames.limit = plainLimit(
      hello.maxFrameBytes,
      host.transforms.length,
    );
    this.name = hello.name;
    this.instance = hello.instance.toHex();
    this.#hello = this.#transcript = null;
    this.#state = OPEN;
    this.#sampledAt = performance.now();
    this.ping(this.#sampledAt);
    host.onOpen(this);
  }

  /** Writes a frame of the handshake, and adds it to what is proven. */
  #write(write: () => void): void {
    const { connection } = this;
    connection.prepare();
    connection.frames.close();
    const start = connection.out.length + 4;
    write();
    connection.frames.close();
    this.#transcript?.add(
      connection.out.bytes.slice(start, connection.out.length),
    );
    connection.schedule();
  }

  #onOpenFrame(type: number, reader: CborDecoder): void {
    switch (type) {
      case FrameType.RESULT:
        return this.#onResult(reader);
      case FrameType.ACK:
        return this.#onAck(reader);
      case FrameType.VALUE:
        return this.#onValue(reader);
      case FrameType.DONE:
        return this.#onDone(reader);
      case FrameType.ERROR:
        return this.#onError(reader);
      case FrameType.CREDIT:
        return this.#onCredit(reader);
      case FrameType.LEAVE:
        return this.#onLeave(reader);
      case FrameType.PING:
        this.#pong = reader.readUint();
        reader.finish();
        this.connection.prepare();
        return this.connection.schedule();
      case FrameType.PONG:
        return this.#onPong(reader);
      case FrameType.GOODBYE:
        return this.#onGoodbye(reader);
      default:
        throw new ProtocolError(
          `Cannot take ${frameName(type)} from a worker in this state`,
        );
    }
  }

  #onResult(reader: CborDecoder): void {
    this.#expectMode(Mode.WORK, "RESULT");
    const { delivery, payloads } = this.#host;
    do {
      const number = reader.readUint();
      reader.readBytesRange();
      const { rangeStart, rangeEnd } = reader;
      const entry = this.#take(number);
      let value: unknown;
      if (entry.state !== SETTLED) {
        try {
          value = payloads.read(reader.bytes, rangeStart, rangeEnd);
        } catch (error) {
          if (!(error instanceof DecodeError)) throw error;
          this.#failed++;
          delivery.error(this, entry, error);
          continue;
        }
        if (this.#results !== null) {
          this.#checkResult(entry, value, rangeEnd - rangeStart);
          continue;
        }
      }
      this.#settled++;
      delivery.result(this, entry, value, rangeEnd - rangeStart);
    } while (!reader.done);
  }

  #checkResult(entry: Item, value: unknown, bytes: number): void {
    const { delivery } = this.#host;
    this.#check(value, (checked) => {
      if (checked.error === null) {
        this.#settled++;
        delivery.result(this, entry, checked.value, bytes);
      } else {
        this.#failed++;
        delivery.error(this, entry, checked.error);
      }
    });
  }

  /** Nothing more is read before it is known whether a value passes. */
  #check(value: unknown, tell: (checked: Checked) => void): void {
    const results = this.#results!, { pending } = results;
    results.check(value, (checked) => {
      tell(checked);
      if (this.#state === GONE) this.#host.delivery.pump();
    });
    if (results.pending > pending) this.connection.hold(results.last);
  }

  #onDone(reader: CborDecoder): void {
    this.#expectMode(Mode.WORK, "DONE");
    do {
      const entry = this.#take(reader.readUint());
      if (
        this.#results !== null && entry.way.kind === ItemKind.CALL &&
        entry.state !== SETTLED
      ) {
        this.#checkResult(entry, undefined, 0);
        continue;
      }
      this.#settled++;
      this.#host.delivery.done(this, entry);
    } while (!reader.done);
  }

  #onAck(reader: CborDecoder): void {
    this.#expectMode(Mode.STREAM, "ACK");
    const upTo = reader.readUint();
    reader.finish();
    const { inFlight } = this;
    if (upTo >= inFlight.next) {
      throw new ProtocolError(
        `Cannot take ACK: it names delivery ${upTo}, ${inFlight.next} were sent`,
      );
    }
    for (;;) {
      const entry = inFlight.takeUpTo(upTo);
      if (entry === null) break;
      this.#settledInBatch++;
      this.#settled++;
      this.#host.delivery.done(this, entry);
    }
    this.#full = false;
  }

  #onValue(reader: CborDecoder): void {
    const { payloads } = this.#host;
    do {
      reader.readBytesRange();
      const { rangeStart, rangeEnd } = reader;
      if (!this.#use.open) {
        throw new ProtocolError("Cannot take VALUE: there is no credit for it");
      }
      const bytes = rangeEnd - rangeStart;
      this.#use.sent(bytes);
      const value = payloads.read(reader.bytes, rangeStart, rangeEnd);
      if (this.#results === null || !this.#host.keepsResults) {
        this.#host.onValue(this, value, bytes);
        continue;
      }
      this.#check(value, (checked) => {
        if (checked.error === null) {
          this.#host.onValue(this, checked.value, bytes);
        } else this.#host.onInvalidValue(this, checked.error, bytes);
      });
    } while (!reader.done);
  }

  #onError(reader: CborDecoder): void {
    const number = reader.readUint();
    const error = readRemoteError(reader);
    reader.finish();
    const entry = this.#take(number);
    this.#failed++;
    this.#host.onError(this, entry, error);
  }

  #onCredit(reader: CborDecoder): void {
    const mode = reader.readUint();
    const concurrency = reader.readUint();
    const window = reader.readUint();
    const adaptive = reader.readUint();
    reader.finish();
    if (
      mode > 1 || adaptive > 1 || concurrency < 1 || concurrency > 4096 ||
      window < 1 || window > 0xffff_ffff ||
      (this.#granted && mode !== this.mode)
    ) {
      throw new ProtocolError(
        `Cannot take CREDIT: mode ${mode}, concurrency ${concurrency}, window ${window}, adaptive ${adaptive}`,
      );
    }
    this.mode = mode;
    this.concurrency = concurrency;
    this.#adaptive = adaptive === 1
      ? new AdaptiveWindow(concurrency, Math.min(window, MAX_WINDOW))
      : null;
    this.#window = this.#adaptive?.size ?? window;
    this.#granted = true;
  }

  #onLeave(reader: CborDecoder): void {
    const entries: Item[] = [];
    try {
      while (!reader.done) entries.push(this.#take(reader.readUint()));
    } finally {
      // Also if one of the numbers was wrong: what was taken isn't lost.
      this.isLeaving = true;
      this.#host.delivery.handBack(this, entries);
    }
  }

  #onPong(reader: CborDecoder): void {
    const now = performance.now();
    const rtt = this.heartbeat.pong(reader.readUint(), now);
    reader.finish();
    if (rtt === undefined) return;
    this.#rttMs = rtt;
    if (this.#adaptive !== null) {
      const { rttMs } = this.#adaptive;
      this.#adaptive.rttMs = rttMs === 0 ? rtt : Math.min(rttMs, rtt);
    }
  }

  #onGoodbye(reader: CborDecoder): void {
    const code = GOODBYE_CODES[reader.readUint()] ?? "protocol";
    const reason = reader.readText();
    reader.finish();
    if (code === "normal") {
      const held: Item[] = [];
      for (const [delivery] of [...this.inFlight.entries()]) {
        held.push(this.inFlight.take(delivery)!);
      }
      this.isLeaving = true;
      this.#host.delivery.handBack(this, held);
      this.goodbye("normal", "");
      return;
    }
    this.#state = GONE;
    this.connection.finish();
    this.#host.onGone(this, code, reason);
  }

  #take(number: number): Item {
    const entry = this.inFlight.take(number);
    if (entry === null) {
      throw new ProtocolError(
        `Cannot settle delivery ${number}: it is not in flight here`,
      );
    }
    this.#settledInBatch++;
    this.#full = false;
    return entry as Item;
  }

  #expectMode(mode: number, frame: string): void {
    if (this.#granted && this.mode === mode) return;
    throw new ProtocolError(
      `Cannot take ${frame}: the worker is not in mode ${mode}`,
    );
  }

  #onBatch(): void {
    if (this.#state < OPEN) {
      if (this.connection.bytesIn > MAX_HANDSHAKE_BYTES) {
        this.#onViolation(
          new ProtocolError(
            `Cannot go on with the handshake: ${this.connection.bytesIn} bytes came, limit is ${MAX_HANDSHAKE_BYTES}`,
          ),
        );
      }
      return;
    }
    if (this.heartbeat.suspect) this.#host.onHeard(this);
    if (this.#settledInBatch > 0) {
      if (this.#adaptive !== null) {
        this.#adaptive.settled(
          this.#settledInBatch,
          this.inFlight.count,
          this.connection.heardAt,
        );
        this.#window = this.#adaptive.size;
      }
      this.#settledInBatch = 0;
    }
    this.#host.delivery.pump();
  }

  #onFlush(): void {
    if (this.#pong < 0) return;
    // The last of several: an answer a flush, however many are asked for.
    this.connection.prepare();
    this.connection.frames.uints(FrameType.PONG, [this.#pong]);
    this.#pong = -1;
  }

  #onViolation(error: Error): void {
    if (this.isHandshaking) {
      this.reject(new HandshakeError("protocol", error.message));
    } else {
      this.goodbye(
        error instanceof TransformError ? "transforms" : "protocol",
        error.message,
      );
    }
  }

  #onEnd(error: ConnectionLostError): void {
    const state = this.#state;
    this.#state = GONE;
    if (state === OPEN) this.#host.onGone(this, error.code, error.reason);
    else if (state < OPEN) {
      const refusal = this.#takeRefusal();
      this.#host.onRejected(
        this,
        refusal?.code ?? "protocol",
        refusal?.message ?? error.reason,
      );
    }
    this.#host.onClosed(this);
  }
}

function expectFrame(type: number, expected: number): void {
  if (type !== expected) {
    throw new ProtocolError(
      `Expected ${frameName(expected)}, got ${frameName(type)}`,
    );
  }
}

/** Reads the end of ERROR (PROTOCOL.md section 5): name, message, cause, stack. */
function readRemoteError(reader: CborDecoder): RemoteError {
  const name = reader.readText();
  const message = reader.readText();
  const cause = remoteCause(reader.readValue());
  const stack = reader.readValue();
  return new RemoteError(name, message, {
    ...(cause === undefined ? {} : { cause }),
    ...(typeof stack === "string" ? { stack } : {}),
  });
}

function remoteCause(value: unknown): RemoteError | undefined {
  if (value === null) return undefined;
  if (Array.isArray(value)) {
    const [name, message, cause] = value;
    if (
      value.length === 3 && typeof name === "string" &&
      typeof message === "string"
    ) {
      const inner = remoteCause(cause);
      return new RemoteError(
        name,
        message,
        inner === undefined ? {} : { cause: inner },
      );
    }
  }
  throw new ProtocolError(
    "Cannot read ERROR: expected null or [name, message, cause] as cause",
  );
}
