/**
 * The server's side of the handshake (PROTOCOL.md section 3).
 *
 * ```text
 *   HELLO ──► (PROOF) ──► (CONFIRM) ──► done
 *     │          │            └── rejected
 *     └──────────┴──► (refusing, for a moment) ──► rejected
 * ```
 *
 * @module
 */

import type { CborDecoder } from "./cbor_decoder.ts";
import type { Connection } from "./connection.ts";
import { HandshakeError, ProtocolError } from "./errors.ts";
import { frameName, FrameType } from "./frame.ts";
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
import { openLimits, writeBytesFrame, writeFrame } from "./handshake_io.ts";
import { type Transform, TransformChain } from "./transforms.ts";

/** A client that doesn't have the secret is told so after this time, in ms. */
const AUTH_DELAY_MS = 100;

/** What a server has to say. */
export interface ServerHandshakeOptions {
  /** What both ends must agree on. */
  readonly terms: Terms;
  /** The transforms themselves. */
  readonly transforms: readonly Transform[];
  /** What both ends must know, if anything. */
  readonly secret: Uint8Array | null;
  /** The largest frame that is received, in bytes. */
  readonly maxFrameBytes: number;
  /** Whether results are wanted. */
  readonly keepsResults: boolean;
  /** Whether items have traces. */
  readonly hasTraces: boolean;
}

/** Told how a handshake ends; one of the two, once. */
export interface ServerHandshakeEvents {
  /** The two ends belong together. */
  onDone(hello: Hello): void;
  /** They don't, and the client was told. */
  onRejected(error: HandshakeError): void;
}

/** The server's side of one handshake. */
export class ServerHandshake {
  readonly #connection: Connection;
  readonly #options: ServerHandshakeOptions;
  readonly #events: ServerHandshakeEvents;
  readonly #nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  #next: number = FrameType.HELLO;
  #hello: Hello | null = null;
  /** What is proven: nothing without a secret or transforms. */
  #transcript: Transcript | null = null;
  #isOver = false;
  #refusal: {
    error: HandshakeError;
    timer: ReturnType<typeof setTimeout>;
    isOver: PromiseWithResolvers<void>;
  } | null = null;

  constructor(
    connection: Connection,
    options: ServerHandshakeOptions,
    events: ServerHandshakeEvents,
  ) {
    this.#connection = connection;
    this.#options = options;
    this.#events = events;
  }

  /** Whether it isn't over. */
  get isRunning(): boolean {
    return !this.#isOver;
  }

  /**
   * Takes a frame.
   *
   * @throws {ProtocolError} If it has no place here.
   */
  onFrame(type: number, reader: CborDecoder): void {
    if (this.#isOver) return;
    if (type !== this.#next) {
      throw new ProtocolError(
        `Expected ${frameName(this.#next)}, got ${frameName(type)}`,
      );
    }
    try {
      if (type === FrameType.HELLO) this.#onHello(reader);
      else if (type === FrameType.PROOF) this.#onProof(reader);
      else this.#onConfirm(reader);
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      if (error.code === "auth") this.#refuse(error);
      else this.reject(error);
    }
  }

  /** Refuses the client, says why, and closes. */
  reject(error: HandshakeError): void {
    if (this.#isOver) return;
    error = this.end() ?? error;
    const connection = this.#connection;
    connection.prepare();
    connection.frames.farewell(
      FrameType.REJECT,
      rejectCode(error.code),
      error.message,
    );
    connection.finish();
    this.#events.onRejected(error);
  }

  /** It is over, and nobody is told; returns why the client was to be refused. */
  end(): HandshakeError | null {
    this.#isOver = true;
    const refusal = this.#refusal;
    if (refusal === null) return null;
    this.#refusal = null;
    clearTimeout(refusal.timer);
    refusal.isOver.resolve();
    return refusal.error;
  }

  /** Guesses of a secret take their time, and tell nothing by it. */
  #refuse(error: HandshakeError): void {
    const timer = setTimeout(() => this.reject(error), AUTH_DELAY_MS);
    const isOver = Promise.withResolvers<void>();
    this.#refusal = { error, timer, isOver };
    // What follows would be answered at once if it broke a rule.
    this.#connection.hold(isOver.promise);
  }

  #onHello(reader: CborDecoder): void {
    const body = reader.copy();
    const hello = this.#hello = readHello(reader);
    reader.finish();
    const { terms, secret, transforms } = this.#options;
    checkTerms(hello, terms);
    if (hello.auth !== (secret !== null)) {
      throw new HandshakeError(
        "auth",
        hello.auth
          ? "Handshake failed: the client has a secret, the server has none"
          : "Handshake failed: the server asks for a secret, the client has none",
      );
    }
    if (secret !== null || transforms.length > 0) {
      this.#transcript = new Transcript(secret);
      this.#transcript.add(body);
    }
    if (secret === null) return this.#welcome(hello);
    this.#writeBytes(FrameType.CHALLENGE, this.#nonce);
    this.#next = FrameType.PROOF;
  }

  #onProof(reader: CborDecoder): void {
    const transcript = this.#transcript!;
    const body = reader.copy();
    const proof = reader.readBytes();
    reader.finish();
    if (!transcript.verify("client", proof)) {
      throw new HandshakeError(
        "auth",
        "Handshake failed: the client's secret is not the server's",
      );
    }
    transcript.add(body);
    this.#welcome(this.#hello!);
  }

  #welcome(hello: Hello): void {
    const { terms, maxFrameBytes, transforms } = this.#options;
    const { keepsResults, hasTraces } = this.#options;
    const transcript = this.#transcript;
    const body = writeFrame(this.#connection, (frames) =>
      writeWelcome(frames, {
        version: hello.version,
        ...terms,
        maxFrameBytes,
        nonce: this.#nonce,
        results: keepsResults,
        trace: hello.trace && hasTraces,
      }));
    transcript?.add(body);
    if (transcript?.hasSecret) {
      this.#writeBytes(FrameType.PROOF, transcript.proof("server"));
    }
    if (transforms.length > 0) this.#next = FrameType.CONFIRM;
    else this.#done(hello);
  }

  #onConfirm(reader: CborDecoder): void {
    const digest = reader.readBytes();
    reader.finish();
    this.#connection.hold(this.#confirm(digest, this.#hello!));
  }

  /** Whether what the client's transforms do is undone by those here. */
  async #confirm(digest: Uint8Array, hello: Hello): Promise<void> {
    const { transforms, maxFrameBytes } = this.#options;
    const connection = this.#connection, transcript = this.#transcript!;
    try {
      const chain = new TransformChain(transforms, {
        role: "server",
        sessionId: sessionId(hello.nonce, this.#nonce),
        maxBytes: maxFrameBytes,
      });
      const plain = await chain.decodeConfirm(digest);
      if (!transcript.confirms("client", plain)) {
        throw new Error(
          "the client's transforms are not undone by the server's, or the handshake was changed on the way",
        );
      }
      const answer = await chain.encode(transcript.digest("server"));
      if (this.#isOver) return;
      this.#writeBytes(FrameType.CONFIRM, answer);
      connection.useTransforms(chain, hello.maxFrameBytes);
      this.#done(hello);
    } catch (error) {
      this.reject(transformsError(error));
    }
  }

  #done(hello: Hello): void {
    this.#isOver = true;
    openLimits(this.#connection, this.#options, hello);
    this.#events.onDone(hello);
  }

  /** Writes a frame that has some bytes, and adds it to what is proven. */
  #writeBytes(type: number, bytes: Uint8Array): void {
    const body = writeBytesFrame(this.#connection, type, bytes);
    this.#transcript?.add(body);
  }
}
