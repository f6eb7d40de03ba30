/**
 * The server's end of one connection: the handshake, and then one worker.
 *
 * @module
 */

import type { CborDecoder } from "./cbor_decoder.ts";
import { Connection, type Duplex } from "./connection.ts";
import { Control } from "./control.ts";
import { CreditGrant, CreditUse } from "./credit.ts";
import type { Delivery, Item, Worker } from "./delivery.ts";
import type { WorkerInfo } from "./dispatcher.ts";
import {
  type ConnectionLostError,
  DecodeError,
  HandshakeError,
  type HandshakeErrorCode,
  ProtocolError,
  type RemoteError,
} from "./errors.ts";
import {
  frameName,
  FrameType,
  GOODBYE_CODES,
  type GoodbyeCode,
  ItemKind,
  MAX_CONCURRENCY,
  MAX_HANDSHAKE_BYTES,
  MAX_REASON,
  Mode,
  saying,
} from "./frame.ts";
import { type Hello, overflowOf } from "./handshake.ts";
import { Heartbeat } from "./heartbeat.ts";
import { InFlight, SETTLED } from "./in_flight.ts";
import type { ItemSpans } from "./item_spans.ts";
import { ItemWindow } from "./item_window.ts";
import type { HeartbeatOptions } from "./options.ts";
import type { PayloadCodec } from "./payload.ts";
import { readError } from "./remote_error.ts";
import {
  type Checked,
  type ItemSchema,
  SchemaQueue,
  type StandardSchemaV1,
} from "./schema.ts";
import {
  ServerHandshake,
  type ServerHandshakeOptions,
} from "./server_handshake.ts";
import { TransformError } from "./transforms.ts";

/** What a link needs of its server. */
export interface LinkHost extends ServerHandshakeOptions {
  /** The codec. */
  readonly payloads: PayloadCodec;
  /** Payload bytes that may be in flight at one worker. */
  readonly maxInFlightBytes: number;
  /** When silence means what. */
  readonly heartbeat: Required<HeartbeatOptions>;
  /** What items have passed, and what came out of it; null: nothing. */
  readonly itemSchema: ItemSchema<Item> | null;
  /** What results must pass; null: nothing. */
  readonly resultSchema: StandardSchemaV1 | null;
  /** Where items come from. */
  readonly delivery: Delivery;
  /** The spans of items; null: tracing is off. */
  readonly spans: ItemSpans | null;
  /** Whether there are other connections. */
  isCrowded(): boolean;
  /** The handshake is done. */
  onOpen(link: WorkerLink): void;
  /** It has asked for its first items. */
  onAsked(link: WorkerLink): void;
  /** A handler failed. */
  onError(link: WorkerLink, entry: Item, error: RemoteError): void;
  /** Whether anybody will read values. */
  wantsValues(): boolean;
  /** A value came. */
  onValue(link: WorkerLink, value: unknown, bytes: number): void;
  /** A value didn't pass its schema. */
  onInvalidValue(link: WorkerLink, error: Error, bytes: number): void;
  /** The handshake failed. */
  onRejected(link: WorkerLink, code: HandshakeErrorCode, reason: string): void;
  /** A worker is no longer one; `code` is "normal" after a goodbye. */
  onGone(link: WorkerLink, code: string, reason: string): void;
  /** A suspect was heard, or has let go. */
  onHeard(link: WorkerLink): void;
  /** The connection is closed. */
  onClosed(link: WorkerLink): void;
}

/** Values that a worker may have sent and nobody has read. */
const VALUE_WINDOW = 4096;
/** Payload bytes of them. */
const VALUE_WINDOW_BYTES = 1024 * 1024;
/** The rate of a worker is measured over so long, in ms. */
const SAMPLE_MS = 1000;

/**
 * Whether a worker takes items. The end of its connection changes nothing: who
 * was leaving isn't blamed then.
 *
 * ```text
 *         CREDIT             LEAVE, or GOODBYE(normal)
 *   idle ────────► active ─────────────────────────────► leaving
 *     └────────────── GOODBYE(normal) ──────────────────────▲
 * ```
 */
type Stage = "idle" | "active" | "leaving";

/** The server's end of one connection. */
export class WorkerLink implements Worker {
  /** Unique on the server, in the order of the handshakes; -1 before. */
  id = -1;
  /** The peer's address. */
  readonly addr: Deno.Addr;
  isExpected = false;
  /** When it was accepted, by `performance.now()`, or later: see `excuse`. */
  openedAt: number = performance.now();
  readonly inFlight: InFlight<Worker> = new InFlight();
  mode: number = Mode.STREAM;
  concurrency = 1;
  instance = "";
  isAlone = false;
  isReserved = false;
  hasMore = false;
  /** The connection. */
  readonly connection: Connection;
  /** Judges its silence. */
  readonly heartbeat: Heartbeat;
  /** The worker's name. */
  name = "";
  readonly #host: LinkHost;
  readonly #control: Control;
  readonly #handshake: ServerHandshake;
  readonly #openItem = (entry: Item) => {
    const { frames } = this.connection;
    this.#outLength = frames.out.length;
    this.#outSegments = frames.out.segments.length;
    frames.openItem(entry.attempts + 1, entry.way.kind, this.inFlight.next);
    frames.out.writeUint(entry.id);
    if (this.#spans !== null) this.#spans.write(frames.out, entry);
  };
  /** The output before the item: its codec may have written control frames. */
  #outLength = 0;
  #outSegments = 0;
  /** Where the traces are that the worker has asked for. */
  #spans: ItemSpans | null = null;
  #isWorker = false;
  #stage: Stage = "idle";
  /** Whether its first credit came in the batch that is being read. */
  #hasJustAsked = false;
  /** Whether it was told that no more items come. */
  #hasEnd = false;
  /** The items that it may hold. */
  readonly #window: ItemWindow;
  /** What it holds on to, and since when; see {@linkcode getsStuck}. */
  #stuck: { item: Item; at: number } | null = null;
  #isStuck = false;
  /** Until when all that it has answered was told, in ms; see there. */
  #heardUntil = 0;
  /** The same once it has answered as many as it had been sent at that time. */
  #unheard: { at: number; sent: number } | null = null;
  #settled = 0;
  #failed = 0;
  #sampled = 0;
  #sampledAt = 0;
  #rate = -1;
  readonly #results: SchemaQueue | null;
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
    this.#results = host.resultSchema === null
      ? null
      : new SchemaQueue(host.resultSchema);
    this.#window = new ItemWindow(host.maxInFlightBytes);
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
      isCrowded: () => host.isCrowded(),
      events: {
        onFrame: (type, reader) => this.#onFrame(type, reader),
        onBatch: () => this.#onBatch(),
        onFlush: () => this.#control.onFlush(),
        onDrain: () => this.#host.delivery.pump(this),
        onViolation: (error) => this.#onViolation(error),
        onEnd: (error) => this.#onEnd(error),
      },
    });
    this.#control = new Control(this.connection);
    this.#handshake = new ServerHandshake(this.connection, host, {
      onDone: (hello) => this.#onHello(hello),
      onRejected: (error) => this.#onRejected(error.code, error.message),
    });
  }

  /** Whether the handshake is done and the worker is still one. */
  get isWorker(): boolean {
    return this.#isWorker;
  }

  /** Whether the handshake isn't done. */
  get isHandshaking(): boolean {
    return this.#handshake.isRunning;
  }

  /** Whether it takes no more items, of its own accord. */
  get isLeaving(): boolean {
    return this.#stage === "leaving";
  }

  get isSuspect(): boolean {
    return this.heartbeat.suspect || this.#isStuck;
  }

  /** Whether it may send no value before others are read. */
  get isMute(): boolean {
    return !this.#use.open;
  }

  /**
   * Whether it begins to be stuck: it has held on to items that nobody needs
   * for so long, and what is behind them would never be begun.
   *
   * @param now The time, in ms.
   */
  getsStuck(now: number): boolean {
    const item = this.#obstacle, last = this.#stuck;
    if (item === null || this.isSuspect || this.connection.isDeaf) {
      this.#stuck = null;
    } else if (last?.item !== item) this.#stuck = { item, at: now };
    else if (now - last.at >= this.#host.heartbeat.timeoutMs) {
      return this.#isStuck = true;
    }
    return false;
  }

  /**
   * Until when all that it had answered by then has been told. While this end is
   * deaf that was read, perhaps, and not told yet: it is no more than what the
   * worker held, and comes in its order.
   *
   * @param now The time, in ms.
   */
  heardUntil(now: number): number {
    const { inFlight } = this, sent = inFlight.next;
    const last = this.#unheard;
    if (!this.connection.isDeaf) {
      this.#heardUntil = now;
      this.#unheard = null;
    } else if (last === null || sent - inFlight.count >= last.sent) {
      if (last !== null) this.#heardUntil = last.at;
      this.#unheard = { at: now, sent };
    }
    return this.#heardUntil;
  }

  /**
   * The oldest item that it holds, if nothing that it executes is needed any
   * more and it can't begin anything else, or has nothing else to begin, or is to
   * be empty for a blamed item, which would wait for ever.
   */
  get #obstacle(): Item | null {
    const { concurrency, inFlight } = this, { count } = inFlight;
    const isFull = count >= Math.min(concurrency, this.#window.size) ||
      this.isAlone || this.isReserved || this.#hasEnd;
    if (count === 0 || !isFull) return null;
    const executed = inFlight.oldest(concurrency);
    return executed.every(({ state }) => state === SETTLED)
      ? executed[0]!
      : null;
  }

  get isOpen(): boolean {
    return this.#isWorker && this.#stage === "active" && !this.isSuspect &&
      !this.#hasEnd && this.connection.isOpen;
  }

  get hasRoom(): boolean {
    // Also for an idle one: who answers what it never read gets no more.
    return !this.connection.busy && this.#window.hasRoom(this.inFlight.count);
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
    info.rttMs = this.#window.rttMs;
    info.state = this.isSuspect ? "suspect" : this.#stage;
    return info;
  }

  /**
   * Measures its rate, once a second; to be called from time to time. Of one
   * that is busy and seems far, the round trip too: where all start at once,
   * what it was at first says how busy they were. And of one that has become
   * slow, since the way to it may have changed.
   */
  sample(now: number): void {
    if (now - this.#sampledAt < SAMPLE_MS) return;
    this.#rate = this.#rateSince(now);
    const isDue = this.#window.adaptive?.sampled(this.#rate) ?? false;
    if (isDue && !this.heartbeat.isAsking) this.ping(now);
    this.#sampled = this.#settled + this.#failed;
    this.#sampledAt = now;
  }

  #rateSince(now: number): number {
    const count = this.#settled + this.#failed - this.#sampled;
    return count * 1000 / Math.max(SAMPLE_MS, now - this.#sampledAt);
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
    const window = this.#window;
    connection.prepare();
    const { payloads, itemSchema } = this.#host;
    const bytes = payloads.write(
      frames,
      itemSchema === null ? entry.item : itemSchema.output(entry),
      this.#openItem,
      entry,
    );
    if (inFlight.count === 0) {
      window.adaptive?.busy(performance.now());
    } else if (!window.fits(inFlight.bytes + bytes)) {
      frames.restore(this.#outLength, this.#outSegments);
      return false;
    }
    // The same for every copy: InFlight takes off what it has added.
    if (!entry.isHeld) entry.bytes = bytes;
    entry.hold(this, inFlight.next);
    inFlight.add(entry);
    window.sent(inFlight.count);
    connection.schedule();
    this.hasMore = !window.isSated && !connection.busy;
    return true;
  }

  cancel(delivery: number): void {
    if (!this.#isWorker) return;
    this.#control.uints(FrameType.CANCEL, [delivery]);
  }

  /** Asks for a sign of life. */
  ping(now: number): void {
    this.#control.uints(FrameType.PING, [this.heartbeat.ping(now)]);
  }

  /** Tells it that no more items come. */
  end(): void {
    if (this.#hasEnd || !this.#isWorker) return;
    this.#hasEnd = true;
    this.#control.uints(FrameType.END, []);
  }

  /** Says goodbye and closes. */
  goodbye(code: GoodbyeCode, reason: string): void {
    if (this.isHandshaking) {
      this.reject(new HandshakeError("full", reason));
      return;
    }
    const wasWorker = this.#isWorker;
    this.#isWorker = false;
    this.#control.finish(code, reason);
    if (wasWorker) this.#gone(code, reason);
  }

  /** Refuses the handshake, if it isn't done, and closes. */
  reject(error: HandshakeError): void {
    this.#handshake.reject(error);
  }

  /** A value of this worker was read: it may send others. */
  valueRead(bytes: number): void {
    this.#grant.take(bytes);
    if (this.#grant.due) this.grantValues();
  }

  /** Lets the worker send values. */
  grantValues(): void {
    if (!this.#isWorker) return;
    this.#grant.renew();
    this.#use.grant(this.#grant.values, this.#grant.bytes);
    this.#control.uints(FrameType.CREDIT, [
      this.#grant.values,
      this.#grant.bytes,
    ]);
  }

  #onFrame(type: number, reader: CborDecoder): void {
    if (this.#isWorker) this.#onOpenFrame(type, reader);
    else this.#handshake.onFrame(type, reader);
  }

  #onHello(hello: Hello): void {
    this.name = hello.name;
    this.instance = hello.instance.toHex();
    if (hello.trace) this.#spans = this.#host.spans;
    this.#isWorker = this.isExpected = true;
    this.connection.readAside(this.#host.payloads.long);
    this.#sampledAt = performance.now();
    this.ping(this.#sampledAt);
    this.#host.onOpen(this);
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
        this.#control.pong(reader.readUint());
        return reader.finish();
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
    payloads.beginFrame();
    do {
      const number = reader.readUint();
      reader.readBytesRange();
      const bytes = reader.rangeSize;
      const entry = this.#take(number);
      let value: unknown;
      if (entry.state !== SETTLED) {
        try {
          value = payloads.readFrom(reader);
        } catch (error) {
          if (!(error instanceof DecodeError)) throw error;
          this.#count(entry, true);
          delivery.error(this, entry, error);
          continue;
        }
        if (this.#results !== null) {
          this.#checkResult(entry, value, bytes);
          continue;
        }
      }
      this.#count(entry);
      delivery.result(this, entry, value, bytes);
    } while (!reader.done);
  }

  #checkResult(entry: Item, value: unknown, bytes: number): void {
    const { delivery } = this.#host;
    delivery.checking.add(entry);
    this.#check(value, (checked) => {
      delivery.checking.delete(entry);
      if (checked.error === null) {
        this.#count(entry);
        delivery.result(this, entry, checked.value, bytes);
      } else {
        this.#count(entry, true);
        delivery.error(this, entry, checked.error);
      }
    });
  }

  /** Nothing more is read before it is known whether a value passes. */
  #check(value: unknown, tell: (checked: Checked) => void): void {
    const told = this.#results!.check(value, (checked) => {
      tell(checked);
      if (!this.#isWorker) this.#host.delivery.pump();
    });
    if (told !== null) this.connection.hold(told);
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
      this.#count(entry);
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
    let count = 0;
    for (;;) {
      const entry = inFlight.takeUpTo(upTo);
      if (entry === null) break;
      count++;
      this.#count(entry);
      this.#host.delivery.done(this, entry);
    }
    this.#window.settled(count);
  }

  #onValue(reader: CborDecoder): void {
    const { payloads } = this.#host;
    payloads.beginFrame();
    do {
      reader.readBytesRange();
      if (!this.#use.open) {
        throw new ProtocolError("Cannot take VALUE: there is no credit for it");
      }
      const bytes = reader.rangeSize;
      this.#use.sent(bytes);
      const value = payloads.readFrom(reader);
      if (this.#results === null || !this.#host.wantsValues()) {
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
    const error = readError(reader);
    const entry = this.#take(number);
    this.#count(entry, true);
    this.#host.onError(this, entry, error);
  }

  #onCredit(reader: CborDecoder): void {
    const mode = reader.readUint();
    const concurrency = reader.readUint();
    const window = reader.readUint();
    const adaptive = reader.readUint();
    reader.finish();
    if (
      mode > 1 || adaptive > 1 || concurrency < 1 ||
      concurrency > MAX_CONCURRENCY ||
      (mode === Mode.STREAM && concurrency !== 1) ||
      window < 1 || window > 0xffff_ffff ||
      (this.#stage !== "idle" && mode !== this.mode)
    ) {
      throw new ProtocolError(
        `Cannot take CREDIT: mode ${mode}, concurrency ${concurrency}, window ${window}, adaptive ${adaptive}`,
      );
    }
    this.mode = mode;
    this.concurrency = concurrency;
    this.#window.grant(
      { concurrency, limit: window, isAdaptive: adaptive === 1 },
      this.#host.delivery.workers.length,
    );
    this.isExpected = false;
    if (this.#stage !== "idle") return;
    this.#stage = "active";
    this.#hasJustAsked = true;
    this.#host.onAsked(this);
  }

  #onLeave(reader: CborDecoder): void {
    if (this.#stage === "idle") {
      throw new ProtocolError("Cannot take LEAVE: no CREDIT came before it");
    }
    const entries: Item[] = [];
    try {
      while (!reader.done) entries.push(this.#take(reader.readUint()));
    } finally {
      // Also if one of the numbers was wrong: what was taken isn't lost.
      this.#stage = "leaving";
      this.#host.delivery.handBack(this, entries);
    }
  }

  #onPong(reader: CborDecoder): void {
    const now = performance.now();
    const rtt = this.heartbeat.pong(reader.readUint(), now);
    reader.finish();
    if (rtt !== undefined) this.#window.measured(rtt);
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
      this.#stage = "leaving";
      this.#host.delivery.handBack(this, held);
      this.goodbye("normal", "");
      return;
    }
    this.#isWorker = false;
    this.connection.finish();
    this.#gone(code, reason);
  }

  /** What comes too late, or answers a CANCEL, has settled nothing. */
  #count({ state }: Item, isError = false): void {
    if (state === SETTLED) return;
    if (isError) this.#failed++;
    else this.#settled++;
  }

  #take(number: number): Item {
    const entry = this.inFlight.take(number);
    if (entry === null) {
      throw new ProtocolError(
        `Cannot settle delivery ${number}: it is not in flight here`,
      );
    }
    this.#window.settled(1);
    return entry;
  }

  #expectMode(mode: number, frame: string): void {
    if (this.#stage !== "idle" && this.mode === mode) return;
    throw new ProtocolError(
      `Cannot take ${frame}: the worker is not in mode ${mode}`,
    );
  }

  #onBatch(): void {
    if (this.isHandshaking) {
      const overflow = overflowOf(this.connection.bytesIn);
      if (overflow !== null) this.#onViolation(overflow);
      return;
    }
    if (this.isSuspect) this.#heard();
    const { delivery } = this.#host;
    this.#window.endBatch(
      this.inFlight.count,
      this.connection.heardAt,
      delivery.workers.length,
    );
    if (!this.#hasJustAsked) return delivery.pump(this);
    this.#hasJustAsked = false;
    // Others may have asked in the same turn: what waits is for all of them.
    queueMicrotask(() => delivery.pump());
  }

  #heard(): void {
    this.heartbeat.suspect = false;
    if (this.#obstacle === null) this.#isStuck = false;
    if (!this.#isStuck) this.#host.onHeard(this);
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

  /** It is kept with each item that is blamed for it; a codec may quote much. */
  #gone(code: string, reason: string): void {
    this.#host.onGone(this, code, saying(reason, MAX_REASON));
  }

  /** What anybody may have said is quoted no longer than on the wire. */
  #onRejected(code: HandshakeErrorCode, reason: string): void {
    this.#host.onRejected(this, code, saying(reason, MAX_REASON));
  }

  #onEnd(error: ConnectionLostError): void {
    if (this.#isWorker) {
      this.#isWorker = false;
      this.#gone(error.code, error.reason);
    } else if (this.isHandshaking) {
      const refusal = this.#handshake.end();
      this.#onRejected(
        refusal?.code ?? "protocol",
        refusal?.message ?? error.reason,
      );
    }
    this.#host.onClosed(this);
  }
}
