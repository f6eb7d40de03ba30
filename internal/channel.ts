/**
 * The two faces of each direction: a WHATWG stream to compose with, and
 * `send()` or iteration to be fast. This file makes all the streams of values.
 *
 * @module
 */

import { rejected } from "./promises.ts";
import { Queue, SizedQueue } from "./queue.ts";
import { Turns } from "./turns.ts";

/** Where the values of an {@linkcode Outlet} come from. */
export interface OutletSource<From> {
  /** The reader has chosen a face: values may come. */
  onTaken?(): void;
  /** The reader asks for the next value. */
  onAsk?(): void;
  /** A value was handed to the reader. */
  onRead(bytes: number, from: From): void;
  /** The reader has reached the end. */
  onReachedEnd?(): void;
  /** The reader wants no more; what it didn't read. */
  onCancel(reason: unknown, unread: { from: From; bytes: number }[]): void;
}

/** Options of {@linkcode Outlet}. */
export interface OutletOptions {
  /** What the direction is called in messages, such as `server.readable`. */
  name: string;
  /** Values that the stream takes at a pull at most; 1: every read is counted. */
  burst: number;
}

interface Waiter<T> {
  resolve(result: IteratorResult<T, undefined>): void;
  reject(error: unknown): void;
}

/**
 * How far an outlet is.
 *
 * ```text
 *          end()            the reader has read the rest
 *   open ────────► ending ──────────────────────────────► ended
 *    ├───────────────┼────── the reader wants no more ─────▲
 *    └───────────────┴──► failed
 * ```
 */
type OutletState = "open" | "ending" | "ended" | "failed";

/** Bytes of payload after which a stream takes no more at a pull. */
const BURST_BYTES = 64 * 1024;
/** Values that are read, or written, before the clock is looked at. */
const MAX_READS = 64, MAX_WRITES = 64;
/** Within half as many microtasks a stream hands on what waits in it. */
const STREAM_TICKS = 16;

/** Values on their way out to the user. */
export class Outlet<T, From = null> {
  readonly #source: OutletSource<From>;
  readonly #options: OutletOptions;
  readonly #unread = new SizedQueue<T, From>();
  /** Who waits for a value, or, if some are here, for a turn. */
  readonly #waiters = new Queue<Waiter<T>>();
  readonly #turns = new Turns(MAX_READS);
  #face: "readable" | "iteration" | "work()" | null = null;
  #state: OutletState = "open";
  #error: unknown;
  #stream: ReadableStream<T> | null = null;
  #controller: ReadableStreamDefaultController<T> | null = null;
  #pulled: (() => void) | null = null;
  #filling = false;
  /** Values that are handed out at a pull: as many as its reader is quick. */
  #burst = 1;
  #iterator: AsyncIterableIterator<T, undefined> | null = null;

  constructor(source: OutletSource<From>, options: OutletOptions) {
    this.#source = source;
    this.#options = options;
  }

  /** Values that weren't read. */
  get length(): number {
    return this.#unread.length;
  }

  /** Bytes of payload of the values that weren't read. */
  get bytes(): number {
    return this.#unread.bytes;
  }

  /** Whether a face was chosen. */
  get isTaken(): boolean {
    return this.#face !== null;
  }

  /** Whether no more values are accepted. */
  get isClosed(): boolean {
    return this.#state !== "open";
  }

  get #isOver(): boolean {
    return this.#state === "ended" || this.#state === "failed";
  }

  /**
   * Whether a value that was handed to the stream is still in it: whoever had
   * asked for it has let go of the stream.
   */
  get isLeftOver(): boolean {
    return (this.#controller?.desiredSize ?? 0) < 0;
  }

  /** Adds a value. */
  push(value: T, bytes: number, from: From): void {
    if (this.#state !== "open") return;
    if (this.#unread.length === 0 && this.#waiters.length > 0) {
      this.#turns.begin();
      this.#hand(value, bytes, from);
      return;
    }
    this.#unread.push(value, bytes, from);
    if (this.#pulled !== null && !this.#filling) {
      this.#filling = true;
      // Now, not at the pull: while the reader waited, it kept nobody waiting.
      this.#turns.begin();
      queueMicrotask(() => this.#refill());
    }
  }

  /**
   * No more values: the reader gets those that are here, then the end.
   *
   * @param isIdle Whether the reader has nothing in its hands. Then it is at the
   * end although nobody asks: whoever waits for that may never ask.
   */
  end(isIdle = false): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    if (this.#unread.length === 0) this.#atEnd(isIdle);
  }

  /** Nothing is left: whoever asks, or need not, is at the end. */
  #atEnd(isIdle: boolean): void {
    this.#endWaiters();
    if (this.#pulled !== null) this.#refill();
    else if (isIdle && this.#iterator !== null) this.#reachEnd();
    else if (isIdle && this.#controller !== null && !this.isLeftOver) {
      this.#fill(this.#controller);
    }
  }

  /** An error at once; what wasn't read is dropped. */
  fail(error: unknown): void {
    if (this.#isOver) return;
    this.#state = "failed";
    this.#error = error;
    this.#unread.clear();
    for (;;) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) break;
      waiter.reject(error);
    }
    this.#controller?.error(error);
    this.#pulled?.();
    this.#pulled = null;
    this.#turns.hurry();
  }

  /** Lets `work()` take the direction. */
  takeForWork(): void {
    this.#choose("work()");
  }

  /**
   * No more values, and what wasn't read is taken back: where it came from.
   *
   * @param isIdle As of {@linkcode end}.
   */
  close(isIdle = false): From[] {
    if (this.#isOver) return [];
    const unread = this.#unread.origins.map(({ from }) => from);
    this.#unread.clear();
    this.#state = "ending";
    this.#atEnd(isIdle);
    this.#turns.hurry();
    return unread;
  }

  /** The stream. */
  get readable(): ReadableStream<T> {
    if (this.#stream !== null) return this.#stream;
    this.#choose("readable");
    const counted = this.#options.burst === 1;
    this.#stream = new ReadableStream<T>({
      start: (controller) => {
        this.#controller = controller;
        if (this.#state === "failed") controller.error(this.#error);
        else if (this.#unread.length === 0) this.#fill(controller);
      },
      pull: (controller) => this.#pull(controller),
      cancel: (reason) => this.#cancel(reason),
    }, { highWaterMark: counted ? 0 : 1 });
    this.#source.onTaken?.();
    return this.#stream;
  }

  /** The iterator: always the same one. */
  iterate(): AsyncIterableIterator<T, undefined> {
    if (this.#iterator !== null) return this.#iterator;
    this.#choose("iteration");
    const iterator: AsyncIterableIterator<T, undefined> = {
      next: () => this.#next(),
      // ReadableStream.from() gives why its stream was cancelled.
      return: (reason?: unknown) => {
        this.#cancel(reason);
        return Promise.resolve({ value: undefined, done: true });
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    this.#iterator = iterator;
    this.#source.onTaken?.();
    return iterator;
  }

  #choose(face: "readable" | "iteration" | "work()"): void {
    if (this.#face !== null) {
      throw new TypeError(
        `Cannot use ${face}: ${this.#options.name} is in use through ${this.#face} already`,
      );
    }
    this.#face = face;
  }

  #next(): Promise<IteratorResult<T, undefined>> {
    this.#source.onAsk?.();
    if (this.#unread.length > 0) {
      if (this.#waiters.length === 0) {
        if (!this.#turns.isDue()) {
          const { firstBytes: bytes, firstFrom: from } = this.#unread;
          const value = this.#unread.shift();
          this.#source.onRead(bytes, from);
          return Promise.resolve({ value, done: false });
        }
        this.#turns.next(() => this.#handOut());
      }
    } else if (this.#state === "failed") return Promise.reject(this.#error);
    else if (this.#state !== "open") {
      this.#reachEnd();
      return Promise.resolve({ value: undefined, done: true });
    }
    return new Promise((resolve, reject) =>
      this.#waiters.push({ resolve, reject })
    );
  }

  /** The turn has come for which those wait who ask. */
  #handOut(): void {
    while (this.#unread.length > 0 && this.#waiters.length > 0) {
      const { firstBytes: bytes, firstFrom: from } = this.#unread;
      this.#hand(this.#unread.shift(), bytes, from);
    }
    if (this.#state === "ending" && this.#unread.length === 0) {
      this.#endWaiters();
    }
  }

  /** Hands a value to whoever waits longest. */
  #hand(value: T, bytes: number, from: From): void {
    const waiter = this.#waiters.shift()!;
    this.#source.onRead(bytes, from);
    // Whoever called next() ahead has asked for the next one already.
    if (this.#waiters.length > 0) this.#source.onAsk?.();
    waiter.resolve({ value, done: false });
  }

  #endWaiters(): void {
    for (;;) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) break;
      this.#reachEnd();
      waiter.resolve({ value: undefined, done: true });
    }
  }

  #pull(
    controller: ReadableStreamDefaultController<T>,
  ): Promise<void> | undefined {
    this.#source.onAsk?.();
    const isHere = this.#unread.length > 0;
    if (isHere && this.#turns.isDue(this.#burst)) {
      // The slower the reader, the fewer are handed out without a turn.
      this.#burst = Math.max(1, this.#burst >> 1);
      this.#turns.next(() => this.#refill());
    } else {
      // Whoever has read all that was here has not shown how quick it is.
      if (isHere) {
        this.#burst = Math.min(this.#options.burst, this.#burst * 2);
      }
      if (this.#fill(controller)) return;
    }
    return new Promise((resolve) => this.#pulled = resolve);
  }

  /** True if the pull is over. */
  #fill(controller: ReadableStreamDefaultController<T>): boolean {
    let count = 0;
    const enough = this.bytes - BURST_BYTES;
    while (
      count < this.#burst && this.#unread.length > 0 &&
      (count === 0 || this.bytes > enough)
    ) {
      const { firstBytes: bytes, firstFrom: from } = this.#unread;
      controller.enqueue(this.#unread.shift());
      count++;
      // Last: whoever is told may end the stream, or let it fail.
      this.#source.onRead(bytes, from);
    }
    if (count > 0) return true;
    if (this.#state === "open") return false;
    if (this.#state === "ending") {
      this.#reachEnd();
      controller.close();
    }
    return true;
  }

  #refill(): void {
    this.#filling = false;
    const pulled = this.#pulled;
    if (pulled === null || !this.#fill(this.#controller!)) return;
    this.#pulled = null;
    pulled();
  }

  #reachEnd(): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#source.onReachedEnd?.();
  }

  #cancel(reason: unknown): void {
    if (this.#isOver) return;
    this.#state = "ended";
    const unread = this.#unread.origins;
    this.#unread.clear();
    this.#endWaiters();
    this.#pulled?.();
    this.#pulled = null;
    this.#turns.hurry();
    this.#source.onCancel(reason, unread);
  }
}

/** Where the values of an {@linkcode Inlet} go. */
export interface InletSink<T> {
  /** Takes a value; a promise if there is no room for another. */
  send(value: T): Promise<void> | undefined;
  /** Takes a value; a promise until it has left. */
  write(value: T): Promise<void> | undefined;
  /** No more values. */
  end(): Promise<void>;
  /** The writer gave up. */
  onAbort(reason: unknown): void;
}

/** Values on their way in from the user. */
export class Inlet<T> {
  readonly #sink: InletSink<T>;
  readonly #name: string;
  #face: "writable" | "send()" | "work()" | null = null;
  #stream: WritableStream<T> | null = null;
  #controller: WritableStreamDefaultController | null = null;
  readonly #turns = new Turns(MAX_WRITES);
  /** Values that were written, and those of them that the stream gave. */
  #written = 0;
  #taken = 0;
  /** What the last of these waits for. */
  #left: Promise<void> | undefined;
  /** Values above this number were written too late. */
  #last = Infinity;
  #end: { reason: unknown; isDry: Promise<void> | undefined } | null = null;
  #error: { reason: unknown } | null = null;

  /**
   * @param sink Where values go.
   * @param name What the direction is called in messages, such as
   * `server.writable`.
   */
  constructor(sink: InletSink<T>, name: string) {
    this.#sink = sink;
    this.#name = name;
  }

  /** Whether a face was chosen. */
  get isTaken(): boolean {
    return this.#face !== null;
  }

  /** The fast way. */
  send(value: T): Promise<void> | undefined {
    if (this.#face !== "send()") this.#choose("send()");
    return this.#sink.send(value);
  }

  /** No more values. */
  end(): Promise<void> {
    try {
      this.#choose("send()");
    } catch (error) {
      return rejected(error);
    }
    return this.#sink.end();
  }

  /** Lets `work()` take the direction. */
  takeForWork(): void {
    if (this.#face !== null) this.#conflict("work()");
    this.#face = "work()";
  }

  /** The stream. */
  get writable(): WritableStream<T> {
    if (this.#stream !== null) return this.#stream;
    this.#choose("writable");
    this.#stream = new WritableStream<T>({
      start: (controller) => {
        this.#controller = controller;
        // At once: the stream's own abort waits for a write that is under way,
        // and that may wait for a worker. But not within abort() itself.
        const { signal } = controller;
        signal.addEventListener(
          "abort",
          () => queueMicrotask(() => this.#sink.onAbort(signal.reason)),
        );
        if (this.#error !== null) controller.error(this.#error.reason);
      },
      write: (value) => this.#write(value),
      close: () => this.#sink.end(),
    }, {
      highWaterMark: 1,
      size: () => {
        this.#written++;
        return 1;
      },
    });
    return this.#stream;
  }

  /**
   * No more values: what was written is still taken, the stream's own `close()`
   * too, what is written from now on is refused. Then the stream errors.
   *
   * @returns A promise of that; undefined where there is no stream.
   */
  finish(reason: unknown): Promise<void> | undefined {
    if (this.#end !== null) return this.#end.isDry;
    this.#last = this.#written;
    this.#end = { reason, isDry: undefined };
    if (this.#stream === null) this.fail(reason);
    else if (this.#error === null) this.#end.isDry = this.#dry(reason);
    return this.#end.isDry;
  }

  /** The stream errors. */
  fail(reason: unknown): void {
    if (this.#error !== null) return;
    this.#error = { reason };
    this.#controller?.error(reason);
  }

  #write(value: T): Promise<void> | undefined {
    if (++this.#taken > this.#last) return rejected(this.#end!.reason);
    return this.#left = this.#take(value);
  }

  /** Where there is always room, whoever writes would never wait for anything. */
  #take(value: T): Promise<void> | undefined {
    const left = this.#sink.write(value);
    if (left !== undefined || !this.#turns.isDue()) return left;
    return new Promise((resolve) => this.#turns.next(resolve));
  }

  /** Nobody is told what waits in a stream, nor that it is to be closed. */
  async #dry(reason: unknown): Promise<void> {
    await null; // called in a write, perhaps: what that waits for comes first
    for (let taken = -1; taken !== this.#taken;) {
      taken = this.#taken;
      await this.#left?.catch(() => {});
      for (let i = 0; i < STREAM_TICKS; i++) await null;
    }
    this.fail(reason);
  }

  #choose(face: "writable" | "send()"): void {
    if (this.#face === face) return;
    if (this.#face !== null) this.#conflict(face);
    this.#face = face;
  }

  #conflict(face: string): never {
    throw new TypeError(
      `Cannot use ${face}: ${this.#name} is in use through ${this.#face} already`,
    );
  }
}
