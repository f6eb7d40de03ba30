/**
 * One framed duplex: bytes become frames and frames become bytes, many of them
 * to a write. It knows the shape of frames and nothing of what they mean.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { ByteWriter, type Segment } from "./byte_writer.ts";
import { CborDecoder } from "./cbor_decoder.ts";
import { concat } from "./concat.ts";
import { ConnectionLostError, DecodeError, ProtocolError } from "./errors.ts";
import { frameName, FrameWriter } from "./frame.ts";
import { FrameDecoder, LONE_BYTES } from "./frame_decoder.ts";
import {
  enlargeBuffer,
  giveBuffer,
  HIGH_WATER_BYTES,
  needsLarge,
  takeBuffer,
} from "./output_buffers.ts";
import { settledWithin } from "./promises.ts";
import { reasonOf } from "./thrown.ts";
import { TransformedFrames } from "./transformed_frames.ts";
import { type TransformChain, TransformError } from "./transforms.ts";
import { FRAME_BYTES, TurnBudget } from "./turn_budget.ts";

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

/** How long an ended connection waits for the peer to close, in ms. */
const LINGER_MS = 1000;
/** And for a known one that doesn't read the rest of the output, in ms. */
const UNREAD_MS = 3000;
/** And for a known one that reads it slowly, in ms. */
const SLOW_MS = 30_000;
/** A timer that comes so much later tells that this end stood still, in ms. */
const LATE_MS = 100;
/** How much it reads then, and drops, if there was no handshake, in bytes. */
const LINGER_BYTES = 1024 * 1024;
/**
 * With so many values a write begins at once: the peer is to have something to
 * do while this end makes the next.
 */
const FULL_VALUES = 1024;
/** A write of so many values at most is serial traffic, not load. */
const SERIAL_VALUES = 2;

const EMPTY = new Uint8Array(0);

/**
 * How far a connection is.
 *
 * ```text
 *            finish()              written, and the peer has closed
 *   open ──────────────► finishing ────────────────────────────────► ended
 *    │ a write failed                              its input ended     ▲
 *    ├──────────────────► broken ──────────────────────────────────────┤
 *    └───── its input ended, or end(), which also those two come to ───┘
 * ```
 *
 * What the peer of a broken one has sent before may be its goodbye, so that is
 * still read.
 */
type Life = "open" | "finishing" | "broken" | "ended";

/**
 * What becomes of the output.
 *
 * ```text
 *            schedule()      microtask, or          written, more came
 *   idle ───────────────► scheduled ─────► writing ───────────────────┐
 *    ▲                        ▲  setImmediate │ written, nothing came │
 *    ├────────────────────────┼───────────────┘                       │
 *    │                        └── setImmediate ◄──────────────────────┘
 * ```
 *
 * The first value of an idle connection leaves at the end of the microtask, so
 * that serial traffic is fast; under load, which is when the last write was of
 * more than a few, the values of one turn of the event loop share a write, up to
 * a thousand of them or 64 KiB: both ends work at the same time then.
 */
type Output = "idle" | "scheduled" | "writing";

/** One framed duplex. */
export class Connection {
  /** What is to be written. Call {@linkcode schedule} after writing to it. */
  readonly out: ByteWriter = new ByteWriter(0, enlargeBuffer);
  /** Writes frames to {@linkcode out}. */
  readonly frames: FrameWriter = new FrameWriter(this.out);
  /** When the peer was last heard, by `performance.now()`. */
  heardAt: number = performance.now();
  /**
   * Whether this end doesn't listen now, since what it has read waits for a
   * promise: the peer's silence means nothing then.
   */
  isDeaf = false;
  /** Whether the rest of what it has read waits for its turn. */
  isMidway = false;
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
  /** What it may read in a turn. */
  readonly #budget: TurnBudget;
  readonly #decoder: FrameDecoder;
  /** No tags: whoever is there may not even know the secret. */
  readonly #reader = new CborDecoder({ hasTags: false });
  readonly #kick = () => this.flush();
  #transforms: TransformedFrames | null = null;
  #held: Promise<void> | null = null;
  /** Who waits for the output to be written. */
  #room: PromiseWithResolvers<void> | null = null;
  #life: Life = "open";
  /** Why nothing can be written any more. */
  #loss: ConnectionLostError | undefined;
  #output: Output = "idle";
  /** Whether somebody was told that there is no room in the output. */
  #blocked = false;
  /** Whether the last write was of few values. */
  #isSerial = true;
  /** Whether the last write was too much for a small buffer. */
  #isLarge = false;
  /** Values since the last write. */
  #values = 0;
  /** Whether there must be another write behind the one that is under way. */
  #due = false;
  /** Whether the peer has done its handshake. */
  #isKnown = false;
  /** Whether nobody wants to wait for a peer that is slow to read. */
  #isHurried = false;
  /** Bytes that were read, and dropped, since this end began to finish. */
  #dropped = 0;
  #reading: Promise<void> | null = null;
  #writing: Promise<void> | null = null;
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
    this.#budget = new TurnBudget(this.#isCrowded);
    this.#events = options.events;
    this.#decoder = options.isCrowded === undefined
      ? new FrameDecoder(options.limit, LONE_BYTES)
      : new FrameDecoder(options.limit);
  }

  /** Starts to read. */
  start(): void {
    this.#reading = this.#read();
  }

  /** Whether more can be said: it is neither over nor about to be. */
  get isOpen(): boolean {
    return this.#life === "open";
  }

  get #isFinishing(): boolean {
    return this.#life === "finishing";
  }

  get #isOver(): boolean {
    return this.#life === "ended";
  }

  /** Whether its owner is told what comes. */
  get #isTelling(): boolean {
    return this.#life === "open" || this.#life === "broken";
  }

  /**
   * Whether so much output waits for the peer that no more should be made. Who
   * is told so hears `onDrain` later.
   */
  get busy(): boolean {
    const { out } = this;
    if (out.length + out.segmentBytes < HIGH_WATER_BYTES) return false;
    return this.#blocked = true;
  }

  get #outputBytes(): number {
    return this.out.length + this.out.segmentBytes;
  }

  /** What has waited for the peer longest, in words, and how long, in ms. */
  stall(now: number): { what: string; ms: number } {
    const writingMs = this.writingSince > 0 ? now - this.writingSince : 0;
    const partialMs = this.partialSince > 0 ? now - this.partialSince : 0;
    return writingMs > partialMs
      ? { what: "nothing that was sent was read", ms: writingMs }
      : { what: "a frame was begun and not finished", ms: partialMs };
  }

  /** This end stood still for so long, in ms: the peer gets that much more. */
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
    this.#transforms = new TransformedFrames(transforms, {
      limit: wireLimit,
      plainBytes: this.out.length,
      isCrowded: this.#isCrowded,
      write: (bytes) => this.#writeAll(bytes),
    });
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
   * are answered at once, whose sender may never read. To answer costs more time
   * than the few bytes that ask for it.
   *
   * @param begun When the answers to the frame were begun, as `performance.now()`.
   */
  holdUntilRoom(begun: number): void {
    this.#budget.spendTime(performance.now() - begun);
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
    if (this.#output === "idle") {
      this.#output = "scheduled";
      if (this.#isSerial) queueMicrotask(this.#kick);
      else setImmediate(this.#kick);
    } else if (this.#output === "scheduled") {
      if (
        this.#values >= FULL_VALUES || this.#outputBytes >= HIGH_WATER_BYTES
      ) this.flush();
    } else this.#due = true;
  }

  /**
   * Sees to it that `onFlush` is told, and what it adds gets written, once in
   * this turn of the event loop: for what can wait for company.
   */
  scheduleLater(): void {
    if (this.#output === "idle") {
      this.#output = "scheduled";
      setImmediate(this.#kick);
    } else if (this.#output === "writing") this.#due = true;
  }

  /** Writes what is in the output now, unless a value is only half in it. */
  flush(): void {
    if (this.#output !== "scheduled" || this.#isOver || this.out.busy) return;
    this.#output = "writing";
    this.#writing = this.#write();
  }

  /**
   * Writes what is in the output, tells the peer that this was all, waits a
   * moment for it to close, and ends; at once if nothing can be written.
   */
  finish(): void {
    if (this.#life === "broken") return this.end(this.#loss);
    if (this.#life !== "open") return;
    this.#life = "finishing";
    this.frames.close();
    this.#linger();
    if (this.#output === "idle") {
      this.#output = "writing";
      this.#writing = this.#write();
    } else if (this.#output === "scheduled") this.flush();
  }

  /**
   * Waits for the peer; once again if this end stood still meanwhile, and longer
   * for one that reads the rest of the output: the last frame is behind it.
   */
  #linger(until = performance.now() + SLOW_MS, isAgain = false): void {
    const due = performance.now() + LINGER_MS;
    this.#lingerTimer = setTimeout(() => {
      const now = performance.now();
      const isLate = now - due > LATE_MS;
      const isRead = this.#isKnown && !this.#isHurried && now < until &&
        this.#isFinishing && this.#output === "writing" &&
        now - Math.max(this.writingSince, this.saidAt) < UNREAD_MS;
      if (isRead) this.#linger(until);
      else if (isLate && !isAgain) this.#linger(until, true);
      else this.end(this.#loss);
    }, LINGER_MS);
  }

  /** Once it finishes, a peer that reads slowly isn't waited for any longer. */
  hurry(): void {
    this.#isHurried = true;
  }

  /** Ends now. */
  end(error?: ConnectionLostError): void {
    if (this.#life === "ended") return;
    this.#life = "ended";
    clearTimeout(this.#lingerTimer);
    this.#room?.resolve();
    this.#budget.hurry();
    this.#transforms?.hurry();
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
        if (!this.#isFinishing) this.#events.onFlush();
        this.frames.close();
        if (this.#outputBytes === 0) {
          this.#rest();
          if (this.#isFinishing) await this.#duplex.closeWrite?.();
          return;
        }
        this.#isSerial = this.#values <= SERIAL_VALUES;
        this.#values = 0;
        const { length, segments } = this.out;
        this.#isLarge = needsLarge(length);
        const bytes = this.#takeOutput();
        if (this.#transforms === null && segments.length === 0) {
          // Most writes, with no promise but the socket's.
          this.writingSince = performance.now();
          const done = await this.#duplex.write(bytes.subarray(0, length));
          this.saidAt = this.writingSince;
          this.writingSince = 0;
          if (done < length) await this.#writeAll(bytes.subarray(done, length));
          this.bytesOut += length;
        } else {
          const parts = partsOf(bytes.subarray(0, length), segments);
          this.bytesOut += await this.#writeParts(parts);
        }
        giveBuffer(bytes);
        if (this.#isOver) return;
        if (this.#isFinishing) continue;
        if (this.#outputBytes >= HIGH_WATER_BYTES) continue;
        if (this.#isSerial && this.#outputBytes === 0 && !this.#due) {
          this.#rest();
          return;
        }
        this.#output = "scheduled";
        setImmediate(this.#kick);
        return;
      }
    } catch (error) {
      const isTransforms = error instanceof TransformError;
      if (isTransforms && this.isOpen) await this.#untransformed(error);
      else if (isTransforms || error instanceof TypeError || !this.isOpen) {
        this.#lost(error);
      } else {
        this.writingSince = 0;
        this.#room?.resolve();
        this.#loss = lossOf(error);
        this.#life = "broken";
        this.#linger();
      }
    }
  }

  /** There is nothing to write. */
  #rest(): void {
    this.#output = "idle";
    giveBuffer(this.out.swap(EMPTY));
  }

  /** Takes the buffer with what is there now; what comes up gets another. */
  #takeOutput(): Uint8Array<ArrayBuffer> {
    const bytes = this.out.swap(EMPTY);
    if (this.#blocked) {
      this.#blocked = false;
      // Not here: whoever is told may be the one who called flush().
      queueMicrotask(() => this.#hasRoom());
    }
    return bytes;
  }

  /** Writes what goes through transforms, or is sent from where it is. */
  async #writeParts(parts: Iterable<Uint8Array>): Promise<number> {
    if (this.#transforms !== null) {
      return await this.#transforms.write(concat([...parts]));
    }
    let sent = 0;
    for (const part of parts) {
      await this.#writeAll(part);
      sent += part.length;
    }
    return sent;
  }

  #hasRoom(): void {
    this.#room?.resolve();
    this.#room = null;
    if (this.isOpen) this.#events.onDrain();
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return; // a long byte string came last
    for (let done = 0; done < bytes.length;) {
      this.writingSince = performance.now();
      done += await this.#duplex.write(
        done === 0 ? bytes : bytes.subarray(done),
      );
    }
    this.saidAt = this.writingSince;
    this.writingSince = 0;
  }

  /** A transform can't make a frame: nothing behind it can be sent either. */
  async #untransformed(error: TransformError): Promise<void> {
    const { onUntransformed } = this.#events;
    if (onUntransformed === undefined) return this.#lost(error);
    // What was written meanwhile: an ACK or DONE may tell of what is lost.
    this.frames.restore(0, 0);
    onUntransformed(error);
    // The goodbye; if it fails too, that's all.
    if (!this.#isOver) await this.#write();
  }

  async #read(): Promise<void> {
    const decoder = this.#decoder, reader = this.#reader;
    try {
      for (;;) {
        if (this.#budget.isSpent) {
          await this.#budget.nextTurn();
          if (this.#isOver) return;
        }
        const count = await this.#duplex.read(decoder.space());
        if (this.#isOver) return;
        if (count === null) break;
        this.heardAt = performance.now();
        this.#budget.spend(count);
        if (this.#isFinishing) {
          this.#dropped += count;
          if (this.#isKnown || this.#dropped <= LINGER_BYTES) continue;
          break;
        }
        this.bytesIn += count;
        decoder.advance(count);
        while (decoder.next()) {
          this.partialSince = 0;
          // What a transform makes of one frame may be worth a turn by itself.
          if (this.#budget.isSpent) {
            this.isMidway = true;
            await this.#budget.nextTurn();
            this.isMidway = false;
            if (!this.#isTelling) break;
            // The rest was here meanwhile. This end isn't deaf: with a busy peer
            // timers fire in such turns alone, and no item would time out.
            this.heardAt = performance.now();
          }
          this.#budget.spend(FRAME_BYTES);
          if (this.#transforms === null) {
            reader.set(decoder.bytes, decoder.start, decoder.end);
            reader.aside = decoder.aside;
          } else {
            await this.#readTransformed(this.#transforms);
            if (!this.#isTelling) break;
          }
          this.#tell(reader);
          if (this.#held !== null) {
            const held = this.#held;
            this.#held = null;
            await this.#deafUntil(held);
          }
          if (!this.#isTelling) break;
        }
        // What was read isn't kept in memory until more comes.
        reader.aside = null;
        if (this.#isOver) return;
        if (!decoder.partial) this.partialSince = 0;
        else if (this.partialSince === 0) this.partialSince = this.heardAt;
        if (!this.#isFinishing) this.#events.onBatch();
      }
      // The peer may have closed its own side alone.
      if (this.#isFinishing) await this.#writing;
      this.#endOfInput();
    } catch (error) {
      if (this.isOpen && error instanceof ProtocolError) {
        this.#events.onViolation(error);
        if (!this.#isOver) await this.#read(); // until the peer has closed
        return;
      }
      this.#lost(error);
    }
  }

  #endOfInput(): void {
    if (this.#isFinishing) return this.end();
    const what = this.#decoder.partial
      ? "in the middle of a frame"
      : "without a goodbye";
    this.end(
      this.#loss ??
        new ConnectionLostError("eof", `the peer's output ended ${what}`),
    );
  }

  /** Undoes the transforms of the frame that is here, and hands it on. */
  async #readTransformed(transforms: TransformedFrames): Promise<void> {
    const { bytes, start, end } = this.#decoder;
    const begun = performance.now();
    const plain = await this.#deafUntil(
      transforms.decode(bytes.slice(start, end)),
    );
    this.#budget.spend(plain.length);
    this.#budget.spendTime(this.heardAt - begun);
    this.#reader.set(plain, 0, plain.length);
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

  #lost(error: unknown): void {
    this.end(this.#loss ?? lossOf(error));
  }
}

function lossOf(error: unknown): ConnectionLostError {
  const code = error instanceof TransformError ? "transforms" : "reset";
  return new ConnectionLostError(code, reasonOf(error), { cause: error });
}

/** What was written, in order: long byte strings from where they are. */
function* partsOf(
  bytes: Uint8Array,
  segments: readonly Segment[],
): IterableIterator<Uint8Array> {
  let from = 0;
  for (const segment of segments) {
    yield bytes.subarray(from, segment.at);
    yield segmentBytes(segment);
    from = segment.at;
  }
  yield from === 0 ? bytes : bytes.subarray(from);
}

/** A buffer that was transferred away is empty now: its frame can't be sent. */
function segmentBytes({ bytes, size }: Segment): Uint8Array {
  if (bytes.length === size) return bytes;
  throw new TypeError(
    `Cannot send value: ${size} of its bytes were transferred away before it was settled`,
  );
}
