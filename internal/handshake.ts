/**
 * The handshake (PROTOCOL.md section 3): what the two ends tell each other, and
 * whether they belong together. No I/O, no clock; randomness is passed in.
 *
 * @module
 */

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { ByteWriter } from "./byte_writer.ts";
import { CborEncoder } from "./cbor_encoder.ts";
import type { CborDecoder } from "./cbor_decoder.ts";
import { concat } from "./concat.ts";
import {
  HandshakeError,
  type HandshakeErrorCode,
  ProtocolError,
} from "./errors.ts";
import {
  clip,
  FrameType,
  FrameWriter,
  MAGIC,
  MAX_FRAME_BYTES,
  MAX_HANDSHAKE_BYTES,
  MAX_REASON,
  MIN_FRAME_BYTES,
  MIN_PLAIN_BYTES,
  PROTOCOL_VERSION,
  REJECT_CODES,
  saying,
} from "./frame.ts";
import {
  type ClientOptions,
  type CommonOptions,
  DEFAULTS,
  kindOf,
} from "./options.ts";
import { plainLimit } from "./transforms.ts";
import { reasonOf } from "./thrown.ts";

/** Bytes of a nonce, and of an instance id. */
export const NONCE_BYTES = 16;
/** Bytes of a proof, and of a digest. */
const DIGEST_BYTES = 32;
/** Names of workers are cut to this length, in UTF-16 units. */
const MAX_NAME = 200;

const encoder = new CborEncoder(4);

/** What both ends must agree on. */
export interface Terms {
  /** Tells channels apart. */
  signature: string;
  /** The codec's name. */
  codec: string;
  /** The transforms' names, in order. */
  transforms: readonly string[];
}

/** What HELLO says. */
export interface Hello extends Terms {
  /** The version of the protocol. */
  version: number;
  /** The largest frame that the client receives, in bytes. */
  maxFrameBytes: number;
  /** Fresh random bytes. */
  nonce: Uint8Array;
  /** The same for all connections of one process. */
  instance: Uint8Array;
  /** The worker's name, "" if it has none. */
  name: string;
  /** Whether the client has a secret and waits for a challenge. */
  auth: boolean;
  /** Whether it asks for the traces of items. */
  trace: boolean;
}

/** What WELCOME says. */
export interface Welcome extends Terms {
  /** The version of the protocol. */
  version: number;
  /** The largest frame that the server receives, in bytes. */
  maxFrameBytes: number;
  /** Fresh random bytes. */
  nonce: Uint8Array;
  /** Whether the server wants results of items that aren't calls. */
  results: boolean;
  /** Whether items come with their traces. */
  trace: boolean;
}

/** The terms that options make. */
export function termsOf(options: CommonOptions): Terms {
  const { signature = DEFAULTS.signature, codec, transforms = [] } = options;
  return {
    signature,
    codec: codec?.name ?? DEFAULTS.codec,
    transforms: transforms.map(({ name }) => name),
  };
}

/**
 * Whether all that an end has to say before it is trusted is as short as the
 * peer wants it (R3), and its transforms leave room in a frame: else no
 * handshake, or no value, could ever succeed.
 *
 * @throws {RangeError} If it isn't.
 */
export function checkHandshake(
  options: CommonOptions & Pick<ClientOptions, "name">,
  of: "server" | "client" | "connect",
): void {
  const { maxFrameBytes = DEFAULTS.maxFrameBytes, name = "" } = options;
  const hasSecret = options.secret !== undefined;
  const terms = termsOf(options);
  const frames = new FrameWriter(new ByteWriter());
  const nonce = new Uint8Array(NONCE_BYTES);
  const common = {
    ...terms,
    version: PROTOCOL_VERSION,
    maxFrameBytes,
    nonce,
    trace: true, // what is right without tracing must be so with it
  };
  const say = (type: number, bytes: number) => {
    frames.begin(type);
    frames.out.writeBytes(new Uint8Array(bytes));
    frames.close();
  };
  if (of === "server") {
    if (hasSecret) say(FrameType.CHALLENGE, NONCE_BYTES);
    writeWelcome(frames, { ...common, results: true });
  } else {
    writeHello(frames, { ...common, instance: nonce, name, auth: hasSecret });
  }
  if (hasSecret) say(FrameType.PROOF, DIGEST_BYTES);
  // What transforms make of it is for them to say: a little more, mostly.
  if (terms.transforms.length > 0) say(FrameType.CONFIRM, DIGEST_BYTES);
  const { length } = frames.out;
  if (length > MAX_HANDSHAKE_BYTES) {
    const parts = of === "server" ? "" : " and name";
    throw new RangeError(
      `Cannot use ${of} options: signature, codec, transforms${parts} make a handshake of ${length} bytes, limit is ${MAX_HANDSHAKE_BYTES}`,
    );
  }
  const { length: count } = terms.transforms;
  const room = plainLimit(maxFrameBytes, count);
  if (room < MIN_PLAIN_BYTES) {
    throw new RangeError(
      `Cannot use ${of} options: maxFrameBytes is ${maxFrameBytes}, expected more for ${count} transforms: ${room} bytes are left for values, ${MIN_PLAIN_BYTES} are the least`,
    );
  }
}

/**
 * What a peer may send in all before it is trusted (R3).
 *
 * @param bytes What came.
 * @returns Why the handshake can't go on; null: it can.
 */
export function overflowOf(bytes: number): ProtocolError | null {
  return bytes <= MAX_HANDSHAKE_BYTES ? null : new ProtocolError(
    `Cannot go on with the handshake: ${bytes} bytes came, limit is ${MAX_HANDSHAKE_BYTES}`,
  );
}

/** Writes HELLO. */
export function writeHello(frames: FrameWriter, hello: Hello): void {
  frames.begin(FrameType.HELLO);
  frames.out.writeText(MAGIC);
  frames.out.writeUint(hello.version);
  encoder.encode(frames.out, {
    signature: hello.signature,
    codec: hello.codec,
    transforms: hello.transforms,
    maxFrameBytes: hello.maxFrameBytes,
    nonce: hello.nonce,
    instance: hello.instance,
    name: clip(hello.name, MAX_NAME),
    auth: hello.auth,
    ...(hello.trace ? { trace: true } : {}),
  }, Infinity);
  frames.close();
}

/**
 * Reads HELLO, the reader standing behind the frame's type.
 *
 * @throws {ProtocolError} If it isn't one.
 * @throws {HandshakeError} If it is of another version.
 */
export function readHello(reader: CborDecoder): Hello {
  const magic = reader.readText();
  if (magic !== MAGIC) {
    throw new ProtocolError(
      `Cannot read HELLO: expected "${MAGIC}", got ${JSON.stringify(magic)}`,
    );
  }
  const version = reader.readUint();
  checkVersion(version);
  const map = readMap(reader, "HELLO");
  return {
    version,
    ...readTerms(map, "HELLO"),
    maxFrameBytes: readFrameLimit(map, "HELLO"),
    nonce: readNonce(map, "nonce", "HELLO"),
    instance: readNonce(map, "instance", "HELLO"),
    name: map["name"] === undefined
      ? ""
      : saying(text(map, "name", "HELLO"), MAX_NAME),
    auth: flag(map, "auth", "HELLO") ?? false,
    trace: flag(map, "trace", "HELLO") ?? false,
  };
}

/** Writes WELCOME. */
export function writeWelcome(frames: FrameWriter, welcome: Welcome): void {
  frames.begin(FrameType.WELCOME);
  frames.out.writeUint(welcome.version);
  encoder.encode(frames.out, {
    signature: welcome.signature,
    codec: welcome.codec,
    transforms: welcome.transforms,
    maxFrameBytes: welcome.maxFrameBytes,
    nonce: welcome.nonce,
    results: welcome.results,
    ...(welcome.trace ? { trace: true } : {}),
  }, Infinity);
  frames.close();
}

/** Reads WELCOME, the reader standing behind the frame's type. */
export function readWelcome(reader: CborDecoder): Welcome {
  const version = reader.readUint();
  checkVersion(version);
  const map = readMap(reader, "WELCOME");
  return {
    version,
    ...readTerms(map, "WELCOME"),
    maxFrameBytes: readFrameLimit(map, "WELCOME"),
    nonce: readNonce(map, "nonce", "WELCOME"),
    results: flag(map, "results", "WELCOME") ?? true,
    trace: flag(map, "trace", "WELCOME") ?? false,
  };
}

/**
 * Whether a client's terms are the server's.
 *
 * @throws {HandshakeError} If not; the message names both sides' values.
 */
export function checkTerms(client: Terms, server: Terms): void {
  for (const part of ["signature", "codec", "transforms"] as const) {
    const theirs = JSON.stringify(client[part]);
    const ours = JSON.stringify(server[part]);
    if (theirs !== ours) {
      throw new HandshakeError(
        part,
        `Handshake failed: the client's ${part} is ${theirs}, the server's is ${ours}`,
      );
    }
  }
}

/** Reads REJECT, the reader standing behind the frame's type. */
export function readReject(reader: CborDecoder): HandshakeError {
  const code = reader.readUint();
  const reason = saying(reader.readText(), MAX_REASON);
  reader.finish();
  return new HandshakeError(
    REJECT_CODES[code] ?? "protocol",
    reason,
  );
}

/** The number of a code in REJECT. */
export function rejectCode(code: HandshakeErrorCode): number {
  return REJECT_CODES.indexOf(code);
}

/** The session id: the two nonces, the client's first. */
export function sessionId(client: Uint8Array, server: Uint8Array): Uint8Array {
  return concat([client, server]);
}

/**
 * What was said in a handshake so far. A proof is an HMAC-SHA-256 over all of
 * it, so nothing of it can be changed on the way, or used again; a digest is a
 * SHA-256, which transforms carry.
 */
export class Transcript {
  readonly #secret: Uint8Array | null;
  readonly #bodies: Uint8Array[] = [];

  /** @param secret What both ends know, if anything. */
  constructor(secret: Uint8Array | null) {
    this.#secret = secret;
  }

  /** Whether there is a secret, so that proofs are asked for. */
  get hasSecret(): boolean {
    return this.#secret !== null;
  }

  /** Adds the body of a frame. */
  add(body: Uint8Array): void {
    this.#bodies.push(body);
  }

  /** The proof that `role` knows the secret. */
  proof(role: "client" | "server"): Uint8Array {
    const hmac = createHmac("sha256", this.#secret!);
    hmac.update(`${MAGIC} ${role}\0`);
    for (const part of this.#parts()) hmac.update(part);
    return new Uint8Array(hmac.digest());
  }

  /** Whether a proof is the one that `role` must give. Takes constant time. */
  verify(role: "client" | "server", proof: Uint8Array): boolean {
    return isEqual(this.proof(role), proof);
  }

  /** What `role` sends through its transforms. */
  digest(role: "client" | "server"): Uint8Array {
    const hash = createHash("sha256");
    hash.update(`${MAGIC} confirm ${role}\0`);
    for (const part of this.#parts()) hash.update(part);
    return new Uint8Array(hash.digest());
  }

  /** Whether a digest is what `role` must have sent. */
  confirms(role: "client" | "server", digest: Uint8Array): boolean {
    return isEqual(this.digest(role), digest);
  }

  *#parts(): IterableIterator<Uint8Array> {
    for (const body of this.#bodies) {
      const length = new Uint8Array(4);
      new DataView(length.buffer).setUint32(0, body.length);
      yield length;
      yield body;
    }
  }
}

/** The handshake fails because of the transforms: their keys, perhaps. */
export function transformsError(error: unknown): HandshakeError {
  const reason = reasonOf(error);
  return new HandshakeError("transforms", `Handshake failed: ${reason}`, {
    cause: error,
  });
}

/** Whether bytes are the same, in a time that tells nothing of them. */
export function isEqual(expected: Uint8Array, given: Uint8Array): boolean {
  return given.length === expected.length && timingSafeEqual(given, expected);
}

function checkVersion(version: number): void {
  if (version !== PROTOCOL_VERSION) {
    throw new HandshakeError(
      "version",
      `Handshake failed: this end speaks version ${PROTOCOL_VERSION} of the protocol, the peer speaks ${version}`,
    );
  }
}

type Fields = Record<string, unknown>;

function readMap(reader: CborDecoder, frame: string): Fields {
  const map = reader.readValue();
  // A Map has keys that aren't texts.
  const isMap = typeof map === "object" && map !== null &&
    Object.getPrototypeOf(map) === Object.prototype;
  if (!isMap) {
    throw new ProtocolError(
      `Cannot read ${frame}: expected a map with texts as keys, got ${
        Array.isArray(map)
          ? "a list"
          : map instanceof Map
          ? "other keys"
          : kindOf(map)
      }`,
    );
  }
  return map as Fields;
}

function readTerms(map: Fields, frame: string): Terms {
  const transforms = map["transforms"];
  if (
    !Array.isArray(transforms) || transforms.some((t) => typeof t !== "string")
  ) {
    throw new ProtocolError(
      `Cannot read ${frame}: expected a list of texts as transforms, got ${
        Array.isArray(transforms) ? "other elements" : kindOf(transforms)
      }`,
    );
  }
  return {
    signature: text(map, "signature", frame),
    codec: text(map, "codec", frame),
    transforms,
  };
}

function text(map: Fields, key: string, frame: string): string {
  const value = map[key];
  if (typeof value !== "string") {
    throw new ProtocolError(
      `Cannot read ${frame}: expected a text as ${key}, got ${kindOf(value)}`,
    );
  }
  return value;
}

/** A boolean that may be left out. */
function flag(map: Fields, key: string, frame: string): boolean | undefined {
  const value = map[key];
  if (value !== undefined && typeof value !== "boolean") {
    throw new ProtocolError(
      `Cannot read ${frame}: expected a boolean as ${key}, got ${
        kindOf(value)
      }`,
    );
  }
  return value;
}

function readFrameLimit(map: Fields, frame: string): number {
  const value = map["maxFrameBytes"];
  if (
    typeof value !== "number" || !Number.isInteger(value) ||
    value < MIN_FRAME_BYTES || value > MAX_FRAME_BYTES
  ) {
    throw new ProtocolError(
      `Cannot read ${frame}: expected an integer from ${MIN_FRAME_BYTES} to ${MAX_FRAME_BYTES} as maxFrameBytes, got ${
        typeof value === "number" ? value : kindOf(value)
      }`,
    );
  }
  return value;
}

function readNonce(map: Fields, key: string, frame: string): Uint8Array {
  const value = map[key];
  if (!(value instanceof Uint8Array) || value.length !== NONCE_BYTES) {
    throw new ProtocolError(
      `Cannot read ${frame}: expected ${NONCE_BYTES} bytes as ${key}, got ${
        value instanceof Uint8Array ? value.length : kindOf(value)
      }`,
    );
  }
  return value;
}
