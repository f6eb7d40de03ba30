/**
 * The client's side of the handshake (PROTOCOL.md section 3).
 *
 * ```text
 *   HELLO ──► (CHALLENGE, PROOF) ──► WELCOME ──► (PROOF) ──► (CONFIRM) ──► done
 *     └────────────────┴────── REJECT, or failed ──┴─────────────┘
 * ```
 *
 * @module
 */

import type { CborDecoder } from "./cbor_decoder.ts";
import type { Connection } from "./connection.ts";
import { HandshakeError, ProtocolError } from "./errors.ts";
import { frameName, FrameType, PROTOCOL_VERSION } from "./frame.ts";
import {
  checkTerms,
  isEqual,
  NONCE_BYTES,
  readReject,
  readWelcome,
  sessionId,
  type Terms,
  Transcript,
  transformsError,
  type Welcome,
  writeHello,
} from "./handshake.ts";
import { openLimits, writeBytesFrame, writeFrame } from "./handshake_io.ts";
import { type Transform, TransformChain } from "./transforms.ts";

/** The same for all connections of this process: see PROTOCOL.md section 3. */
export const INSTANCE: Uint8Array<ArrayBuffer> = crypto.getRandomValues(
  new Uint8Array(NONCE_BYTES),
);

/** What a client has to say. */
export interface ClientHandshakeOptions {
  /** What both ends must agree on. */
  terms: Terms;
  /** The transforms themselves. */
  transforms: readonly Transform[];
  /** What both ends must know, if anything. */
  secret: Uint8Array | null;
  /** The largest frame that is received, in bytes. */
  maxFrameBytes: number;
  /** What the server shows as the worker's name. */
  name: string;
  /** Whether to ask for the traces of items. */
  trace: boolean;
  /** The two ends belong together. */
  onDone(welcome: Welcome): void;
  /**
   * They don't.
   *
   * @param error Why.
   * @param isHeard Whether the server has done its part, and is to be told.
   */
  onFailed(error: HandshakeError, isHeard: boolean): void;
}

/** The client's side of one handshake. */
export class ClientHandshake {
  readonly #connection: Connection;
  readonly #options: ClientHandshakeOptions;
  readonly #nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  /** What is proven: nothing without a secret or transforms. */
  readonly #transcript: Transcript | null;
  #isOver = false;
  /** The server's nonce, as CHALLENGE has it. */
  #challenge: Uint8Array | null = null;
  #welcome: Welcome | null = null;
  /** The transforms, while the server has yet to confirm them. */
  #chain: TransformChain | null = null;

  constructor(connection: Connection, options: ClientHandshakeOptions) {
    this.#connection = connection;
    this.#options = options;
    const { secret, transforms } = options;
    this.#transcript = secret !== null || transforms.length > 0
      ? new Transcript(secret)
      : null;
  }

  /** Says HELLO. */
  start(): void {
    const { terms, maxFrameBytes, secret, name, trace } = this.#options;
    const body = writeFrame(this.#connection, (frames) =>
      writeHello(frames, {
        ...terms,
        version: PROTOCOL_VERSION,
        maxFrameBytes,
        nonce: this.#nonce,
        instance: INSTANCE,
        name,
        auth: secret !== null,
        trace,
      }));
    this.#transcript?.add(body);
  }

  /** Nothing more is told. */
  stop(): void {
    this.#isOver = true;
  }

  /**
   * Takes a frame.
   *
   * @throws {ProtocolError} If it has no place here.
   */
  onFrame(type: number, reader: CborDecoder): void {
    try {
      this.#onFrame(type, reader);
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      this.#fail(error, false);
    }
  }

  #onFrame(type: number, reader: CborDecoder): void {
    const hasSecret = this.#transcript?.hasSecret ?? false;
    if (type === FrameType.REJECT) throw readReject(reader);
    if (type === FrameType.CHALLENGE && this.#challenge === null) {
      this.#onChallenge(reader);
    } else if (type === FrameType.WELCOME && this.#welcome === null) {
      this.#onWelcome(reader);
    } else if (
      type === FrameType.PROOF && this.#welcome !== null &&
      this.#chain === null && hasSecret
    ) this.#onProof(reader, this.#welcome);
    else if (type === FrameType.CONFIRM && this.#chain !== null) {
      const digest = reader.readBytes();
      reader.finish();
      this.#connection.hold(this.#confirm(this.#chain, digest));
    } else {
      throw new ProtocolError(
        `Cannot take ${frameName(type)} in the handshake`,
      );
    }
  }

  #onChallenge(reader: CborDecoder): void {
    const transcript = this.#transcript;
    transcript?.add(reader.copy());
    const challenge = reader.readBytes();
    reader.finish();
    if (challenge.length !== NONCE_BYTES) {
      throw new ProtocolError(
        `Cannot read CHALLENGE: expected ${NONCE_BYTES} bytes as nonce, got ${challenge.length}`,
      );
    }
    this.#challenge = challenge;
    if (!transcript?.hasSecret) {
      throw new HandshakeError(
        "auth",
        "Handshake failed: the server asks for a secret, the client has none",
      );
    }
    const proof = transcript.proof("client");
    transcript.add(writeBytesFrame(this.#connection, FrameType.PROOF, proof));
  }

  #onWelcome(reader: CborDecoder): void {
    const transcript = this.#transcript;
    transcript?.add(reader.copy());
    const welcome = readWelcome(reader);
    reader.finish();
    checkTerms(this.#options.terms, welcome);
    if (welcome.trace && !this.#options.trace) {
      throw new ProtocolError(
        "Cannot take WELCOME: it has trace, which HELLO didn't ask for",
      );
    }
    if (transcript?.hasSecret && this.#challenge === null) {
      throw new HandshakeError(
        "auth",
        "Handshake failed: the client has a secret, the server asks for none",
      );
    }
    if (
      this.#challenge !== null && !isEqual(this.#challenge, welcome.nonce)
    ) {
      throw new ProtocolError(
        "Cannot take WELCOME: its nonce isn't the CHALLENGE's",
      );
    }
    this.#welcome = welcome;
    if (!transcript?.hasSecret) this.#agree(welcome);
  }

  #onProof(reader: CborDecoder, welcome: Welcome): void {
    const transcript = this.#transcript!;
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
    this.#agree(welcome);
  }

  /** All is agreed; transforms are tried before they are trusted. */
  #agree(welcome: Welcome): void {
    if (this.#options.transforms.length === 0) this.#done(welcome);
    else this.#connection.hold(this.#sayConfirm(welcome));
  }

  async #sayConfirm(welcome: Welcome): Promise<void> {
    const { transforms, maxFrameBytes } = this.#options;
    try {
      const chain = new TransformChain(transforms, {
        role: "client",
        sessionId: sessionId(this.#nonce, welcome.nonce),
        maxBytes: maxFrameBytes,
      });
      const digest = await chain.encode(this.#transcript!.digest("client"));
      if (this.#isOver) return;
      this.#chain = chain;
      writeBytesFrame(this.#connection, FrameType.CONFIRM, digest);
    } catch (error) {
      this.#fail(transformsError(error), false);
    }
  }

  /** Whether what the server's transforms do is undone by those here. */
  async #confirm(chain: TransformChain, digest: Uint8Array): Promise<void> {
    const welcome = this.#welcome!;
    let plain: Uint8Array = new Uint8Array(0), cause: unknown;
    try {
      plain = await chain.decodeConfirm(digest);
    } catch (error) {
      cause = error;
    }
    if (this.#isOver) return;
    // The server has tried this direction, and switched to it.
    this.#connection.useTransforms(chain, welcome.maxFrameBytes);
    this.#chain = null;
    if (this.#transcript!.confirms("server", plain)) {
      this.#done(welcome);
      return;
    }
    const error = cause ?? new Error(
      "the server's transforms are not undone by the client's, or the handshake was changed on the way",
    );
    this.#fail(transformsError(error), true);
  }

  #done(welcome: Welcome): void {
    this.#isOver = true;
    openLimits(this.#connection, this.#options, welcome);
    this.#options.onDone(welcome);
  }

  #fail(error: HandshakeError, isHeard: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#options.onFailed(error, isHeard);
  }
}
