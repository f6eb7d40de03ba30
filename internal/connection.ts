/**
 * One framed duplex: bytes become frames and frames become bytes, many of them
 * to a write. It knows the shape of frames and nothing of what they mean.
 *
 * ```text
 *            schedule()      microtask, or          written, more came
 *   IDLE ───────────────► SCHEDULED ─────► WRITING ───────────────────┐
 *    ▲                        ▲  setImmediate │ written, nothing came │
 *    ├────────────────────────┼───────────────┘                       │
 *    │                        └── setImmediate ◄──────────────────────┘
 * ```
 *
 * The first value of an idle connection leaves at the end of the microtask, so
 * that serial traffic is fast; under load, which is when the last write was of
 * more than a few, the values of one turn of the event loop share a write, up to
 * a thousand of them or 64 KiB: both ends work at the same time then.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import {
  ByteWriter,
  enlarge,
  type Segment,
  SEGMENT_BYTES,
} from "./byte_writer.ts";
import { CborDecoder } from "./cbor_decoder.ts";
import { concat } from "./concat.ts";
import { ConnectionLostError, DecodeError, ProtocolError } from "./errors.ts";
import { frameName, FrameWriter } from "./frame.ts";
import { FrameDecoder, LONE_BYTES } from "./frame_decoder.ts";
import { settledWithin } from "./promises.ts";
import { afterTurn } from "./timer.ts";
import { type TransformChain, TransformError } from "./transforms.ts";
import { reasonOf } from "./thrown.ts";

/** What a connection needs of a socket: a `Deno.Conn`, or two ends in memory. */
export interface Duplex {
  /** Reads some bytes; null at the end. */
  read(p: Uint8Array): Promise<number | null>;
  /** Writes some bytes; returns how many. */
  write(p: Uint8Array): Promise<number>;
  /** Closes both directions. */
  close(): void;
  /** Tells the other end that nothing more is written. */
  closeWrite?(): Promise<void>;
}

/** Sets a socket's options, where it has any. */
export function tuneSocket(conn: Deno.Conn): void {
  const { setNoDelay, setKeepAlive } = conn as Partial<Deno.TcpConn>;
  try {
    setNoDelay?.call(conn, true);
    setKeepAlive?.call(conn, true);
  } catch {
    // The peer is gone already, which not every system takes: reading will tell.
  }
}

/** What a connection tells its owner. */
export interface ConnectionEvents {
  /**
   * A frame came; the reader stands behind its type. May throw ProtocolError or
   * DecodeError.
   */
  onFrame(type: number, reader: CborDecoder): void;
  /** All frames of one read were told. */
  onBatch(): void;
  /** Output is about to be written: the last chance to add to it. */
  onFlush(): void;
  /** Output that was over the high-water mark is below it again. */
  onDrain(): void;
  /** The peer broke the protocol; the owner says why and finishes. */
  onViolation(error: Error): void;
  /**
   * A transform can't make a frame of what this end says: the owner may say so
   * in a goodbye, and finishes. Left out: the connection ends.
   */
  onUntransformed?(error: TransformError): void;
  /** The connection has ended. Told once, and nothing after it. */
  onEnd(error: ConnectionLostError): void;
}

/** Output above this many bytes is written at once, and pushes back. */
const HIGH_WATER_BYTES = 64 * 1024;
/** The size of an output buffer that little is written to at a time. */
const SMALL_BUFFER_BYTES = 8 * 1024;
/** The size of one that much is: past the high-water mark with a value more. */
const LARGE_BUFFER_BYTES = HIGH_WATER_BYTES + SEGMENT_BYTES;
/** How many bytes of each size are kept for connections that will need them. */
const SPARE_BYTES = 16 * 1024 * 1024;
/** How long an ended connection waits for the peer to close, in ms. */
const LINGER_MS = 1000;
/** A timer that comes so much later tells that this end stood still, in ms. */
const LATE_MS = 100;
/** How much of a stranger it reads meanwhile, and drops, in bytes. */
const LINGER_BYTES = 1024 * 1024;
/** So many values are written at once: the peer has something to do meanwhile. */
const FULL_VALUES = 1024;
/** So many values in a write are serial traffic, not load. */
const SERIAL_VALUES = 2;

/**
 * After reading so many bytes, a frame counting as some more, the event loop
 * goes round: bytes that wait are read at once otherwise, and next to a peer
 * that sends without end nobody else has a turn.
 */
const WORK_A_TURN = 1024 * 1024, FRAME_WORK = 256;
/**
 * After so many turns it waits for a timer, if there are others. An event loop
 * that always has something to do looks at other sockets rarely (with tokio,
 * each 61st time).
 */
const TURNS_A_PAUSE = 16;

const EMPTY = new Uint8Array(0);

/** Output buffers that no connection uses now: idle ones hold none. */
const smallBuffers: Uint8Array<ArrayBuffer>[] = [];
const largeBuffers: Uint8Array<ArrayBuffer>[] = [];

function takeBuffer(isLarge: boolean): Uint8Array<ArrayBuffer> {
  return isLarge
    ? largeBuffers.pop() ?? new Uint8Array(LARGE_BUFFER_BYTES)
    : smallBuffers.pop() ?? new Uint8Array(SMALL_BUFFER_BYTES);
}

function giveBuffer(buffer: Uint8Array<ArrayBuffer>): void {
  const { length } = buffer;
  const spare = length === SMALL_BUFFER_BYTES
    ? smallBuffers
    : length === LARGE_BUFFER_BYTES
    ? largeBuffers
    : null; // It grew, or there was none.
  if (spare !== null && spare.length * length < SPARE_BYTES) spare.push(buffer);
}

/** A small buffer that is full makes place for a large one. */
function larger(
  bytes: Uint8Array<ArrayBuffer>,
  used: number,
  needed: number,
): Uint8Array<ArrayBuffer> {
  if (needed > LARGE_BUFFER_BYTES || bytes.length >= LARGE_BUFFER_BYTES) {
    return enlarge(bytes, used, needed);
  }
  const large = takeBuffer(true);
  large.set(bytes.subarray(0, used));
  giveBuffer(bytes);
  return large;
}

/** One framed duplex. */
export class Connection {
  /** What is to be written. Call {@linkcode schedule} after writing to it. */
  readonly out: ByteWriter = new ByteWriter(0, larger);
  /** Writes frames to {@linkcode out}. */
  readonly frames: FrameWriter = new FrameWriter(this.out);
  /** When the peer was last heard, by `performance.now()`. */
  heardAt: number = performance.now();
  /**
   * Whether this end doesn't listen now, since what it has read waits for a
   * promise: the peer's silence means nothing then.
   */
  isDeaf = false;
  /** When something was last said to the peer, by `performance.now()`. */
  saidAt: number = performance.now();
  /** Since when a write waits for the peer, by `performance.now()`; 0: none. */
  writingSince = 0;
  /** Since when the rest of a frame is missing, likewise; 0: none. */
  partialSince = 0;
  /** Bytes read so far. */
  bytesIn = 0;
  /** Bytes written so far. */
  bytesOut = 0;
  readonly #duplex: Duplex;
  readonly #events: ConnectionEvents;
  readonly #isCrowded: () => boolean;
  readonly #decoder: FrameDecoder;
  /** No tags: whoever is there may not even know the secret. */
  readonly #reader = new CborDecoder({ hasTags: false });
  readonly #kick = () => this.flush();
  #transforms: TransformChain | null = null;
  #plainBytes = 0;
  /** The largest frame that the peer receives, transformed, in bytes. */
  #wireLimit = 0;
  #held: Promise<void> | null = null;
  /** Who waits for the output to be written. */
  #room: PromiseWithResolvers<void> | null = null;
  /** What was read in this turn, and the turns since the last pause. */
  #work = 0;
  #turns = 0;
  /** What reading waits for. */
  #pause: { forget: () => void; wake: () => void } | null = null;
  #state: "idle" | "scheduled" | "writing" = "idle";
  #blocked = false;
  /** Whether the last write was of few values. */
  #isSerial = true;
  /** Whether the last write was too much for a small buffer. */
  #isLarge = false;
  /** Values since the last write. */
  #values = 0;
  /** Something came up since the flush, perhaps only due at the next one. */
  #due = false;
  #finishing = false;
  /**
   * Why nothing can be written any more. What the peer has sent before may be
   * its goodbye, so that is still read.
   */
  #broken: ConnectionLostError | null = null;
  /** Whether the peer has done its handshake. */
  #isKnown = false;
  /** Bytes read since. */
  #dropped = 0;
  #reading: Promise<void> | null = null;
  #writing: Promise<void> | null = null;
  #ended = false;
  #lingerTimer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param duplex The socket, which belongs to the connection from now on.
   * @param options Whom to tell, the largest frame that is received, and
   * whether there are others that this one must leave turns to; without it this
   * is the only one.
   */
  constructor(
    duplex: Duplex,
    options: {
      events: ConnectionEvents;
      limit: number;
      isCrowded?: () => boolean;
    },
  ) {
    this.#duplex = duplex;
    this.#isCrowded = options.isCrowded ?? (() => false);
    this.#events = options.events;
    this.#decoder = options.isCrowded === undefined
      ? new FrameDecoder(options.limit, LONE_BYTES)
      : new FrameDecoder(options.limit);
  }

  /** Starts to read. */
  start(): void {
    this.#reading = this.#read();
  }

  /** Whether the connection has ended or is about to: nothing is sent. */
  get ended(): boolean {
    return this.#ended || this.#finishing || this.#broken !== null;
  }

  /** Whether so much output waits for the peer that no more should be made. */
  get busy(): boolean {
    const out = this.out;
    if (out.length + out.segmentBytes < HIGH_WATER_BYTES) return false;
    return this.#blocked = true;
  }

  /** What has waited for the peer longest, in words, and how long, in ms. */
  stall(now: number): { what: string; ms: number } {
    const writingMs = this.writingSince > 0 ? now - this.writingSince : 0;
    const partialMs = this.partialSince > 0 ? now - this.partialSince : 0;
    return writingMs > partialMs
      ? { what: "nothing that was sent was read", ms: writingMs }
      : { what: "a frame was begun and not finished", ms: partialMs };
  }

  /** This end stood still for so long, in ms: what waits has that much more. */
  excuse(ms: number): void {
    if (this.writingSince > 0) this.writingSince += ms;
    if (this.partialSince > 0) this.partialSince += ms;
  }

  /** The handshake is done: the largest frame that is received, in bytes. */
  set receiveLimit(limit: number) {
    this.#decoder.limit = limit;
    this.#isKnown = true;
  }

  /** Long byte strings are read into allocations of their own from now on. */
  readAside(long: "payloads" | "values"): void {
    if (this.#transforms === null) this.#decoder.long = long;
  }

  /**
   * Applies transforms to every frame from here on, in both directions; what
   * is in the output already leaves as it is.
   *
   * @param transforms The transforms.
   * @param wireLimit The largest frame that the peer receives, in bytes.
   */
  useTransforms(transforms: TransformChain, wireLimit: number): void {
    this.frames.close();
    this.#plainBytes = this.out.length;
    this.#transforms = transforms;
    this.#wireLimit = wireLimit;
  }

  /**
   * Tells no further frame before a promise has settled. To be called while a
   * frame is told; the promise must not reject.
   */
  hold(until: Promise<void>): void {
    this.#held = until;
  }

  /**
   * The same until the output has room again, if it has none: for frames that
   * are answered at once, whose sender may never read.
   */
  holdUntilRoom(): void {
    if (!this.busy) return;
    const { promise } = this.#room ??= Promise.withResolvers();
    this.#held = this.#held === null ? promise : this.#held.then(() => promise);
  }

  /** Gives the output a buffer if it has none. Call before writing to it. */
  prepare(): void {
    if (this.out.bytes.length === 0) {
      this.out.swap(takeBuffer(this.#isLarge));
    }
  }

  /** Sees to it that what is in the output gets written soon. */
  schedule(): void {
    this.#values++;
    if (this.#state === "idle") {
      this.#state = "scheduled";
      if (this.#isSerial) queueMicrotask(this.#kick);
      else setImmediate(this.#kick);
    } else if (this.#state === "scheduled") {
      const out = this.out;
      if (
        this.#values >= FULL_VALUES ||
        out.length + out.segmentBytes >= HIGH_WATER_BYTES
      ) this.flush();
    } else this.#due = true;
  }

  /**
   * Sees to it that `onFlush` is told, and what it adds gets written, once in
   * this turn of the event loop: for what can wait for company.
   */
  scheduleLater(): void {
    if (this.#state === "idle") {
      this.#state = "scheduled";
      setImmediate(this.#kick);
    } else if (this.#state === "writing") this.#due = true;
  }

  /** Writes what is in the output now, unless a value is only half in it. */
  flush(): void {
    if (this.#state !== "scheduled" || this.#ended || this.out.busy) return;
    this.#state = "writing";
    this.#writing = this.#write();
  }

  /**
   * Writes what is in the output, tells the peer that this was all, waits a
   * moment for it to close, and ends; at once if nothing can be written.
   */
  finish(): void {
    if (this.#ended || this.#finishing) return;
    if (this.#broken !== null) return this.end(this.#broken);
    this.#finishing = true;
    this.frames.close();
    this.#linger();
    if (this.#state === "idle") {
      this.#state = "writing";
      this.#writing = this.#write();
    } else if (this.#state === "scheduled") this.flush();
  }

  /** Waits for the peer; once again if this end stood still meanwhile. */
  #linger(isAgain = false): void {
    const due = performance.now() + LINGER_MS;
    this.#lingerTimer = setTimeout(() => {
      const isLate = performance.now() - due > LATE_MS;
      if (isLate && !isAgain) this.#linger(true);
      else this.end(this.#broken ?? undefined);
    }, LINGER_MS);
  }

  /** Ends now. */
  end(error?: ConnectionLostError): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#lingerTimer);
    this.#room?.resolve();
    if (this.#pause !== null) {
      this.#pause.forget();
      this.#pause.wake();
    }
    try {
      this.#duplex.close();
    } catch {
      // Closed already: that is what we want.
    }
    this.out.swap(EMPTY);
    const lost = error ??
      new ConnectionLostError("closed", "this end closed it");
    if (this.#transforms === null) this.#events.onEnd(lost);
    else {
      // Not before the transforms are done with what they have; but one that
      // never is holds up nobody's end for ever.
      const done = Promise.all([this.#reading, this.#writing]);
      settledWithin(done, LINGER_MS).then(() => this.#events.onEnd(lost));
    }
  }

  async #write(): Promise<void> {
    try {
      for (;;) {
        this.#due = false;
        if (!this.#finishing) this.#events.onFlush();
        const { out } = this;
        this.frames.close();
        const size = out.length + out.segmentBytes;
        if (size === 0) {
          this.#state = "idle";
          giveBuffer(out.swap(EMPTY));
          if (this.#finishing) await this.#duplex.closeWrite?.();
          return;
        }
        const { length, segments } = out;
        this.#isSerial = this.#values <= SERIAL_VALUES;
        this.#values = 0;
        const bytes = out.swap(EMPTY);
        this.#isLarge = length > SMALL_BUFFER_BYTES / 2;
        if (this.#blocked) {
          this.#blocked = false;
          // Not here: whoever is told may be the one who called flush().
          queueMicrotask(() => {
            this.#room?.resolve();
            this.#room = null;
            if (!this.ended) this.#events.onDrain();
          });
        }
        let sent = size;
        if (this.#transforms !== null) {
          sent = await this.#writeTransformed(bytes, length, segments);
        } else if (segments.length === 0) {
          this.writingSince = performance.now();
          let done = 0;
          while (done < length) {
            done += await this.#duplex.write(bytes.subarray(done, length));
            if (done < length) this.writingSince = performance.now();
          }
        } else {
          let from = 0;
          for (const segment of segments) {
            await this.#writeAll(bytes.subarray(from, segment.at));
            await this.#writeAll(segmentBytes(segment));
            from = segment.at;
          }
          await this.#writeAll(bytes.subarray(from, length));
        }
        this.saidAt = this.writingSince;
        this.writingSince = 0;
        this.bytesOut += sent;
        giveBuffer(bytes);
        if (this.#ended) return;
        if (this.#finishing) continue;
        if (out.length + out.segmentBytes >= HIGH_WATER_BYTES) continue;
        if (this.#isSerial && out.length === 0 && !this.#due) {
          this.#state = "idle";
          giveBuffer(out.swap(EMPTY));
          return;
        }
        this.#state = "scheduled";
        setImmediate(this.#kick);
        return;
      }
    } catch (error) {
      const isTransforms = error instanceof TransformError;
      if (isTransforms && !this.ended) {
        const { onUntransformed } = this.#events;
        if (onUntransformed === undefined) return this.#lost(error);
        // What was written meanwhile: an ACK or DONE may tell of what is lost.
        this.frames.restore(0, 0);
        onUntransformed(error);
        // The goodbye; if it fails too, that's all.
        if (!this.#ended) await this.#write();
        return;
      }
      const isOwn = isTransforms || error instanceof TypeError;
      if (isOwn || this.ended) return this.#lost(error);
      this.writingSince = 0;
      this.#room?.resolve();
      this.#broken = lossOf(error);
      this.#linger();
    }
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    this.writingSince = performance.now();
    let done = 0;
    while (done < bytes.length) {
      done += await this.#duplex.write(
        done === 0 ? bytes : bytes.subarray(done),
      );
      this.writingSince = performance.now();
    }
  }

  /** The slow way: every frame is taken out and passed through transforms. */
  async #writeTransformed(
    bytes: Uint8Array,
    length: number,
    segments: readonly Segment[],
  ): Promise<number> {
    const parts: Uint8Array[] = [];
    let from = 0;
    for (const segment of segments) {
      parts.push(bytes.subarray(from, segment.at), segmentBytes(segment));
      from = segment.at;
    }
    parts.push(bytes.subarray(from, length));
    const plain = concat(parts);
    const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
    let at = this.#plainBytes;
    this.#plainBytes = 0;
    let ready = at > 0 ? [plain.subarray(0, at)] : [];
    let size = at, sent = 0;
    while (at < plain.length) {
      const end = at + 4 + view.getUint32(at);
      this.writingSince = 0; // it isn't the peer that takes its time
      // Copies: a transform may keep what it is handed, and use the buffer of
      // what it returns again.
      let body;
      try {
        body = await this.#transforms!.encode(plain.slice(at + 4, end));
        if (body.length === 0) throw nothingLeft("send");
        if (body.length > this.#wireLimit) {
          throw new TransformError(
            `Cannot send frame: transforms made ${body.length} bytes of ${
              end - at - 4
            }, limit is ${this.#wireLimit}`,
          );
        }
      } catch (error) {
        // A transform may have numbered those before it.
        if (size > 0 && !this.#ended) await this.#writeAll(concat(ready));
        throw error;
      }
      const frame = new Uint8Array(4 + body.length);
      new DataView(frame.buffer).setUint32(0, body.length);
      frame.set(body, 4);
      ready.push(frame);
      size += frame.length;
      at = end;
      if (size < HIGH_WATER_BYTES && at < plain.length) continue;
      await this.#writeAll(concat(ready));
      ready = [];
      sent += size;
      size = 0;
    }
    if (size > 0) await this.#writeAll(concat(ready));
    return sent + size;
  }

  async #read(): Promise<void> {
    const decoder = this.#decoder, reader = this.#reader;
    try {
      for (;;) {
        if (this.#work >= WORK_A_TURN) {
          await this.#nextTurn();
          if (this.#ended) return;
        }
        const count = await this.#duplex.read(decoder.space());
        if (this.#ended) return;
        if (count === null) break;
        this.heardAt = performance.now();
        this.#work += count;
        if (this.#finishing) {
          this.#dropped += count;
          if (this.#isKnown || this.#dropped <= LINGER_BYTES) continue;
          break;
        }
        this.bytesIn += count;
        decoder.advance(count);
        while (decoder.next()) {
          this.partialSince = 0;
          // What a transform makes of one frame may be worth a turn by itself.
          if (this.#work >= WORK_A_TURN) {
            await this.#nextTurn();
            if (this.#ended || this.#finishing) break;
          }
          this.#work += FRAME_WORK;
          if (this.#transforms === null) {
            reader.set(decoder.bytes, decoder.start, decoder.end);
            reader.aside = decoder.aside;
          } else {
            const plain = await this.#deafUntil(
              this.#transforms.decode(
                decoder.bytes.slice(decoder.start, decoder.end),
              ),
            );
            if (this.#ended || this.#finishing) break;
            if (plain.length === 0) throw nothingLeft("take");
            reader.set(plain, 0, plain.length);
            this.#work += plain.length;
          }
          this.#tell(reader);
          if (this.#held !== null) {
            const held = this.#held;
            this.#held = null;
            await this.#deafUntil(held);
          }
          if (this.#ended || this.#finishing) break;
        }
        // What was read isn't kept in memory until more comes.
        reader.aside = null;
        if (this.#ended) return;
        if (!decoder.partial) this.partialSince = 0;
        else if (this.partialSince === 0) this.partialSince = this.heardAt;
        if (!this.#finishing) this.#events.onBatch();
      }
      if (this.#finishing) {
        await this.#writing; // the peer may have closed its own side alone
        this.end();
      } else {
        const what = decoder.partial
          ? "in the middle of a frame"
          : "without a goodbye";
        this.end(
          this.#broken ??
            new ConnectionLostError("eof", `the peer's output ended ${what}`),
        );
      }
    } catch (error) {
      if (!this.ended && error instanceof ProtocolError) {
        this.#events.onViolation(error);
        if (!this.#ended) await this.#read(); // until the peer has closed
        return;
      }
      this.#lost(error);
    }
  }

  /** Tells of a frame; what can't be decoded in it breaks R5, R6, R7 or R20. */
  #tell(reader: CborDecoder): void {
    let type: number | null = null;
    try {
      type = reader.readUint();
      this.#events.onFrame(type, reader);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      const frame = type === null ? "frame" : frameName(type);
      throw new ProtocolError(`Cannot read ${frame}: ${error.message}`, {
        cause: error,
      });
    }
  }

  async #deafUntil<T>(done: Promise<T>): Promise<T> {
    this.isDeaf = true;
    try {
      return await done;
    } finally {
      this.isDeaf = false;
      this.heardAt = performance.now();
    }
  }

  async #nextTurn(): Promise<void> {
    this.#turns += Math.floor(this.#work / WORK_A_TURN);
    this.#work = 0;
    const isPause = this.#turns >= TURNS_A_PAUSE && this.#isCrowded();
    if (this.#turns >= TURNS_A_PAUSE) this.#turns = 0;
    await new Promise<void>((wake) => {
      if (isPause) this.#pause = { forget: afterTurn(wake), wake };
      else setImmediate(wake);
    });
    this.#pause = null;
  }

  #lost(error: unknown): void {
    if (!this.#ended) this.end(this.#broken ?? lossOf(error));
  }
}

function lossOf(error: unknown): ConnectionLostError {
  const code = error instanceof TransformError ? "transforms" : "reset";
  return new ConnectionLostError(code, reasonOf(error), { cause: error });
}

/** A frame has at least its type (PROTOCOL.md R1). */
function nothingLeft(step: string): TransformError {
  return new TransformError(
    `Cannot ${step} frame: no bytes come out of its transforms`,
  );
}

/** A buffer that was transferred away is empty now: its frame can't be sent. */
function segmentBytes({ bytes, size }: Segment): Uint8Array {
  if (bytes.length === size) return bytes;
  throw new TypeError(
    `Cannot send value: ${size} of its bytes were transferred away before it was settled`,
  );
}
