/**
 * Peers that speak frames by hand, so that they can say anything: what rules
 * forbid as well as what they ask for. They know the wire from PROTOCOL.md and
 * share with the library only the CBOR codec.
 *
 * @module
 */

import { AssertionError } from "@std/assert";
import { cbor } from "../../codec.ts";
import { CborDecoder } from "../../internal/cbor_decoder.ts";
import { hmac } from "./hmac.ts";
import { memoryPair } from "./memory_pair.ts";

/** The frame types of PROTOCOL.md section 4. */
export const T = {
  HELLO: 1,
  WELCOME: 2,
  REJECT: 3,
  CHALLENGE: 4,
  PROOF: 5,
  CONFIRM: 6,
  ITEM: 8,
  RESULT: 9,
  ERROR: 10,
  VALUE: 11,
  DONE: 12,
  ACK: 13,
  CREDIT: 14,
  CANCEL: 15,
  LEAVE: 16,
  END: 17,
  PING: 20,
  PONG: 21,
  GOODBYE: 22,
} as const;

/** How long a wait may take, in ms, unless told otherwise. */
const DEADLINE_MS = 10_000;

const codec = cbor();

/** A frame that came. */
export interface Frame {
  /** Its type. */
  type: number;
  /** The data items that follow the type. */
  fields: unknown[];
  /** Its body. */
  body: Uint8Array<ArrayBuffer>;
}

/** What a scripted peer says in its HELLO or WELCOME; undefined leaves it out. */
export type Fields = Record<string, unknown>;

/** Options of the scripted handshakes. */
export interface ScriptOptions {
  /** Replaces fields of HELLO or WELCOME. */
  fields?: Fields;
  /** What both ends know, if anything. */
  secret?: string;
}

/** Encodes values one after another: a CBOR sequence. */
export function sequence(...values: unknown[]): Uint8Array<ArrayBuffer> {
  return concat(values.map((value) => codec.encode(value)));
}

/** A value as the payload of an ITEM, RESULT or VALUE: a byte string. */
export function payload(value: unknown): Uint8Array {
  return codec.encode(value).slice();
}

/** A frame: its length, its type and what follows. */
export function frame(
  type: number,
  ...fields: unknown[]
): Uint8Array<ArrayBuffer> {
  return framed(sequence(type, ...fields));
}

/** A frame with any body. */
export function framed(body: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4 + body.length);
  new DataView(bytes.buffer).setUint32(0, body.length);
  bytes.set(body, 4);
  return bytes;
}

/** Byte arrays, one behind the other. */
export function concat(
  parts: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The name of a frame type. */
export function typeName(type: number): string {
  return Object.entries(T).find(([, value]) => value === type)?.[0] ??
    `type ${type}`;
}

/** Either end of a connection, by hand. */
export class ScriptedPeer implements AsyncDisposable {
  /** The connection. */
  readonly conn: Deno.Conn;
  /** Whether PINGs are answered, and otherwise passed over, by the waits. */
  answersPings = true;
  /** Undoes the transforms of frames that come, if there are any. */
  undo: (body: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer> = (body) =>
    body;
  /** The session's nonce of this end. */
  readonly nonce: Uint8Array = new Uint8Array(16).fill(0xa5);
  /** Every frame that came, PINGs included. */
  readonly frames: Frame[] = [];
  readonly #decoder = new CborDecoder();
  #buffer: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  /** Whether the other end has closed, so far as was read. */
  #hasEnded = false;
  #closed = false;

  /** @param conn The connection; it belongs to the peer from now on. */
  constructor(conn: Deno.Conn) {
    this.conn = conn;
  }

  /** Connects to a port on this machine. */
  static async connect(port: number): Promise<ScriptedPeer> {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    conn.setNoDelay(true);
    return new ScriptedPeer(conn);
  }

  /** A peer in memory, and the other end of its connection. */
  static pair(): [ScriptedPeer, Deno.Conn] {
    const [near, far] = memoryPair();
    return [new ScriptedPeer(near), far];
  }

  /** Sends bytes as they are. False if the other end is gone. */
  async send(...parts: Uint8Array[]): Promise<boolean> {
    const bytes = concat(parts);
    try {
      for (let at = 0; at < bytes.length;) {
        at += await this.conn.write(bytes.subarray(at));
      }
      return true;
    } catch (error) {
      if (!isGone(error)) throw error;
      return false;
    }
  }

  /** Sends a frame. False if the other end is gone. */
  say(type: number, ...fields: unknown[]): Promise<boolean> {
    return this.send(frame(type, ...fields));
  }

  /**
   * The next frame; null at the end of the connection.
   *
   * @param deadlineMs How long it may take, in ms.
   */
  async next(deadlineMs: number = DEADLINE_MS): Promise<Frame | null> {
    const deadline = performance.now() + deadlineMs;
    for (;;) {
      const next = this.#take();
      if (next !== null) {
        this.frames.push(next);
        if (next.type !== T.PING || !this.answersPings) return next;
        await this.say(T.PONG, next.fields[0]);
        continue;
      }
      if (this.#hasEnded) return null;
      await this.#read(deadline - performance.now());
    }
  }

  /**
   * The next frame of a type; others are passed over.
   *
   * @throws {AssertionError} If the connection ends, or time does, before it.
   */
  async until(type: number, deadlineMs?: number): Promise<Frame> {
    const from = this.frames.length;
    for (;;) {
      const next = await this.next(deadlineMs);
      if (next === null) {
        throw new AssertionError(
          `Expected ${typeName(type)}, got the end of the connection after ${
            this.#seen(from)
          }`,
        );
      }
      if (next.type === type) return next;
    }
  }

  /** The next frame, which must be of a type. */
  async expect(type: number, deadlineMs?: number): Promise<Frame> {
    const next = await this.next(deadlineMs);
    if (next === null || next.type !== type) {
      throw new AssertionError(
        `Expected ${typeName(type)}, got ${
          next === null
            ? "the end of the connection"
            : `${typeName(next.type)} ${Deno.inspect(next.fields)}`
        }`,
      );
    }
    return next;
  }

  /** Reads until the other end closes; returns the frames that came. */
  async rest(deadlineMs: number = DEADLINE_MS): Promise<Frame[]> {
    const frames: Frame[] = [];
    const deadline = performance.now() + deadlineMs;
    for (;;) {
      const next = await this.next(deadline - performance.now());
      if (next === null) return frames;
      frames.push(next);
    }
  }

  // --- As a worker ---

  /** HELLO's fields. */
  hello(fields: Fields = {}): Fields {
    return defined({
      signature: "distchan",
      codec: "cbor",
      transforms: [],
      maxFrameBytes: 4 * 1024 * 1024,
      nonce: this.nonce,
      instance: this.instance,
      name: "scripted",
      auth: false,
      ...fields,
    });
  }

  /** The instance id that {@linkcode hello} says: one's own, for each peer. */
  readonly instance: Uint8Array = crypto.getRandomValues(new Uint8Array(16));

  /** Does a worker's handshake; returns the fields of WELCOME. */
  async handshake(options: ScriptOptions = {}): Promise<Fields> {
    const { secret, fields = {} } = options;
    const hello = sequence(
      T.HELLO,
      "distchan",
      1,
      this.hello({ auth: secret !== undefined, ...fields }),
    );
    await this.send(framed(hello));
    const said = [hello];
    if (secret !== undefined) {
      said.push((await this.expect(T.CHALLENGE)).body);
      const proof = sequence(T.PROOF, hmac(secret, "client", said));
      said.push(proof);
      await this.send(framed(proof));
    }
    const welcome = await this.expect(T.WELCOME);
    said.push(welcome.body);
    if (secret !== undefined) {
      const [proof] = (await this.expect(T.PROOF)).fields;
      const expected = hmac(secret, "server", said);
      if (codec.encode(proof).toHex() !== codec.encode(expected).toHex()) {
        throw new AssertionError("The server's proof is wrong");
      }
    }
    return welcome.fields[1] as Fields;
  }

  /** Does the handshake, and asks for items. */
  async join(
    mode: "stream" | "work",
    options: ScriptOptions & { window?: number; concurrency?: number } = {},
  ): Promise<void> {
    await this.handshake(options);
    await this.say(
      T.CREDIT,
      mode === "work" ? 1 : 0,
      options.concurrency ?? 1,
      options.window ?? 64,
      0,
    );
  }

  // --- As a server ---

  /** WELCOME's fields. */
  welcome(fields: Fields = {}): Fields {
    return defined({
      signature: "distchan",
      codec: "cbor",
      transforms: [],
      maxFrameBytes: 4 * 1024 * 1024,
      nonce: this.nonce,
      results: true,
      ...fields,
    });
  }

  /** Does a server's handshake; returns the fields of HELLO. */
  async greet(options: ScriptOptions = {}): Promise<Fields> {
    const { secret, fields = {} } = options;
    const hello = await this.expect(T.HELLO);
    const said = [hello.body];
    if (secret !== undefined) {
      const challenge = sequence(T.CHALLENGE, this.nonce);
      await this.send(framed(challenge));
      const proof = await this.expect(T.PROOF);
      said.push(challenge, proof.body);
    }
    const welcome = sequence(T.WELCOME, 1, this.welcome(fields));
    said.push(welcome);
    await this.send(framed(welcome));
    if (secret !== undefined) {
      await this.say(T.PROOF, hmac(secret, "server", said));
    }
    return hello.fields[2] as Fields;
  }

  // --- Ending ---

  /** Whether this end was closed. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** Closes the connection without a goodbye. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.conn.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return this.#reading;
  }

  #reading: Promise<void> = Promise.resolve();

  async #read(deadlineMs: number): Promise<void> {
    const buffer = new Uint8Array(64 * 1024);
    const timeout = Promise.withResolvers<"late">();
    const timer = setTimeout(timeout.resolve, Math.max(0, deadlineMs), "late");
    const read = this.conn.read(buffer);
    this.#reading = read.then(() => {}, () => {});
    try {
      const count = await Promise.race([read, timeout.promise]);
      if (count === "late") {
        this.close();
        throw new AssertionError(
          `Nothing came in time; came so far: ${this.#seen(0)}`,
        );
      }
      if (count === null) this.#hasEnded = true;
      else this.#buffer = concat([this.#buffer, buffer.subarray(0, count)]);
    } catch (error) {
      if (!isGone(error)) throw error;
      this.#hasEnded = true;
    } finally {
      clearTimeout(timer);
    }
  }

  #take(): Frame | null {
    const buffer = this.#buffer;
    if (buffer.length < 4) return null;
    const length = new DataView(buffer.buffer).getUint32(0);
    if (buffer.length < 4 + length) return null;
    const body = buffer.slice(4, 4 + length);
    this.#buffer = buffer.slice(4 + length);
    return readFrame(this.undo(body), this.#decoder);
  }

  #seen(from: number): string {
    return this.frames.slice(from).map((f) =>
      `${typeName(f.type)} ${Deno.inspect(f.fields, { compact: true })}`
    ).join(", ") || "nothing";
  }
}

/** Reads the body of a frame. */
export function readFrame(
  body: Uint8Array<ArrayBuffer>,
  decoder: CborDecoder = new CborDecoder(),
): Frame {
  decoder.set(body);
  const items: unknown[] = [];
  while (!decoder.done) items.push(decoder.readValue());
  const [type, ...fields] = items;
  return { type: type as number, fields, body };
}

function defined(fields: Fields): Fields {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  );
}

function isGone(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionReset ||
    error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.ConnectionAborted ||
    error instanceof Deno.errors.NotConnected;
}
