/**
 * A network in memory: connections and listeners that behave as Deno's do, but
 * open no socket, so that `new Server(listener)` and `new Client(conn)` run over
 * them.
 *
 * @module
 */

/** Options of {@linkcode memoryPair} and {@linkcode MemoryListener}. */
export interface MemoryOptions {
  /**
   * Bytes that one direction holds before a write waits.
   *
   * @default {64 * 1024}
   */
  bufferBytes?: number;
  /**
   * The most bytes that a read returns, told for each: 1 is byte by byte.
   *
   * @default {() => Infinity}
   */
  readBytes?: () => number;
}

/** Two ends of one connection. */
export function memoryPair(
  options: MemoryOptions = {},
): [MemoryConn, MemoryConn] {
  const there = new Pipe(options), back = new Pipe(options);
  const left = nextPort++, right = nextPort++;
  return [
    new MemoryConn(back, there, address(left), address(right)),
    new MemoryConn(there, back, address(right), address(left)),
  ];
}

/** Listens in memory. {@linkcode connect} is what `Deno.connect` is for TCP. */
export class MemoryListener implements Deno.Listener<MemoryConn> {
  readonly addr: Deno.NetAddr = address(nextPort++);
  readonly #options: MemoryOptions;
  readonly #waiting: MemoryConn[] = [];
  readonly #accepts: PromiseWithResolvers<MemoryConn>[] = [];
  #closed = false;

  /** @param options What its connections are like. */
  constructor(options: MemoryOptions = {}) {
    this.#options = options;
  }

  /** Opens a connection; its other end is accepted here. */
  connect(): MemoryConn {
    if (this.#closed) {
      throw new Deno.errors.ConnectionRefused("Connection refused");
    }
    const [near, far] = memoryPair(this.#options);
    const accept = this.#accepts.shift();
    if (accept === undefined) this.#waiting.push(far);
    else accept.resolve(far);
    return near;
  }

  /** The next `accept()` fails, once, as it does without file descriptors. */
  failAccept(error: Error): void {
    this.#accepts.shift()?.reject(error);
  }

  accept(): Promise<MemoryConn> {
    if (this.#closed) return Promise.reject(badResource());
    const conn = this.#waiting.shift();
    if (conn !== undefined) return Promise.resolve(conn);
    const accept = Promise.withResolvers<MemoryConn>();
    this.#accepts.push(accept);
    return accept.promise;
  }

  close(): void {
    if (this.#closed) throw badResource();
    this.#closed = true;
    for (const accept of this.#accepts.splice(0)) accept.reject(badResource());
    for (const conn of this.#waiting.splice(0)) conn.reset();
  }

  async *[Symbol.asyncIterator](): AsyncIterableIterator<MemoryConn> {
    while (!this.#closed) yield await this.accept();
  }

  ref(): void {}

  unref(): void {}

  [Symbol.dispose](): void {
    if (!this.#closed) this.close();
  }
}

/** One end of a connection. */
export class MemoryConn implements Deno.Conn<Deno.NetAddr> {
  readonly localAddr: Deno.NetAddr;
  readonly remoteAddr: Deno.NetAddr;
  readonly #in: Pipe;
  readonly #out: Pipe;
  #closed = false;

  constructor(
    input: Pipe,
    output: Pipe,
    localAddr: Deno.NetAddr,
    remoteAddr: Deno.NetAddr,
  ) {
    this.#in = input;
    this.#out = output;
    this.localAddr = localAddr;
    this.remoteAddr = remoteAddr;
  }

  read(p: Uint8Array): Promise<number | null> {
    if (this.#closed) return Promise.reject(badResource());
    return this.#in.read(p);
  }

  write(p: Uint8Array): Promise<number> {
    if (this.#closed) return Promise.reject(badResource());
    return this.#out.write(p);
  }

  closeWrite(): Promise<void> {
    if (this.#closed) return Promise.reject(badResource());
    this.#out.end();
    return Promise.resolve();
  }

  close(): void {
    if (this.#closed) throw badResource();
    this.#closed = true;
    this.#out.end();
    this.#in.abandon(
      new Deno.errors.Interrupted("operation canceled"),
      new Deno.errors.BrokenPipe("Broken pipe"),
    );
    this.#out.interrupt(new Deno.errors.Interrupted("operation canceled"));
  }

  /** Ends the connection as a crash does: nothing more arrives on either side. */
  reset(): void {
    this.#closed = true;
    const error = () =>
      new Deno.errors.ConnectionReset("Connection reset by peer");
    this.#in.abandon(error(), error());
    this.#out.abandon(error(), error());
  }

  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return new ReadableStream({
      pull: async (controller) => {
        const buffer = new Uint8Array(16 * 1024);
        const count = await this.read(buffer);
        if (count === null) controller.close();
        else controller.enqueue(buffer.subarray(0, count));
      },
    });
  }

  get writable(): WritableStream<Uint8Array<ArrayBufferLike>> {
    return new WritableStream({
      write: async (chunk) => {
        for (let at = 0; at < chunk.length;) {
          at += await this.write(chunk.subarray(at));
        }
      },
      close: () => this.closeWrite(),
    });
  }

  ref(): void {}

  unref(): void {}

  [Symbol.dispose](): void {
    if (!this.#closed) this.close();
  }
}

/** One direction of a connection: a bounded buffer. */
class Pipe {
  readonly #buffer: Uint8Array<ArrayBuffer>;
  readonly #readBytes: () => number;
  #start = 0;
  #held = 0;
  #ended = false;
  #readError: Error | null = null;
  #writeError: Error | null = null;
  #changed = Promise.withResolvers<void>();

  constructor(options: MemoryOptions) {
    this.#buffer = new Uint8Array(options.bufferBytes ?? 64 * 1024);
    this.#readBytes = options.readBytes ?? (() => Infinity);
  }

  async read(p: Uint8Array): Promise<number | null> {
    for (;;) {
      if (this.#readError !== null) throw this.#readError;
      if (this.#held > 0) break;
      if (this.#ended) return null;
      await this.#changed.promise;
    }
    const count = Math.min(
      p.length,
      this.#held,
      this.#buffer.length - this.#start,
      Math.max(1, this.#readBytes()),
    );
    p.set(this.#buffer.subarray(this.#start, this.#start + count));
    this.#start = (this.#start + count) % this.#buffer.length;
    this.#held -= count;
    this.#change();
    return count;
  }

  async write(p: Uint8Array): Promise<number> {
    if (p.length === 0) return 0;
    for (;;) {
      if (this.#writeError !== null) throw this.#writeError;
      if (this.#ended) throw new Deno.errors.BrokenPipe("Broken pipe");
      if (this.#held < this.#buffer.length) break;
      await this.#changed.promise;
    }
    const at = (this.#start + this.#held) % this.#buffer.length;
    const count = Math.min(
      p.length,
      this.#buffer.length - this.#held,
      this.#buffer.length - at,
    );
    this.#buffer.set(p.subarray(0, count), at);
    this.#held += count;
    this.#change();
    return count;
  }

  /** Nothing more is written. */
  end(): void {
    this.#ended = true;
    this.#change();
  }

  /** Writes that wait fail. */
  interrupt(error: Error): void {
    this.#writeError ??= error;
    this.#change();
  }

  /** Nobody reads any more: both ends fail. */
  abandon(readError: Error, writeError: Error): void {
    this.#readError ??= readError;
    this.#writeError ??= writeError;
    this.#held = 0;
    this.#change();
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

let nextPort = 1;

function address(port: number): Deno.NetAddr {
  return { transport: "tcp", hostname: "127.0.0.1", port };
}

function badResource(): Error {
  return new Deno.errors.BadResource("Bad resource ID");
}
