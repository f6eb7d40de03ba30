/**
 * Encryption of every frame.
 *
 * @module
 */

import {
  AES_GCM,
  SEALED_AES_GCM,
  type Transform,
  type TransformContext,
} from "./transforms.ts";

/** Bytes of a key. */
const KEY_BYTES = 32;
/** Bytes of a nonce: four of them are 0, eight are the frame's number. */
const NONCE_BYTES = 12;
/** The nonce under which a sealed key makes material: no frame has one so long. */
const SEALED_NONCE = "distchan aes-gcm";

/**
 * Encrypts and authenticates every frame with AES-256-GCM, for those who share
 * a key and don't want certificates.
 *
 * Each connection has its own key for each direction (HKDF-SHA-256 from the
 * key and the session id), and the number of the frame is its nonce: a frame
 * that was changed, left out, repeated, moved, sent back, or taken from another
 * connection ends its connection. Both ends prove in the handshake that they
 * have the key, and that nothing of the handshake was changed; if not,
 * {@linkcode HandshakeError} with the code `"transforms"`.
 *
 * Unlike TLS it has no forward secrecy: whoever gets the key can read what was
 * recorded before. The handshake itself, and sizes and times of frames, can be
 * seen by anyone on the way.
 *
 * A list of transforms takes it once: the same key would make the same key
 * stream again, and undo what the first did.
 *
 * @param key 32 random bytes, or a `CryptoKey`: one for HKDF that may derive,
 * or an AES key of 256 bits. One that isn't extractable must be for AES-GCM, may
 * encrypt, and be used for nothing else; it makes other keys than its bytes
 * would, so then both ends have one, or the handshake fails and says so.
 * @returns The transform.
 * @throws {TypeError} If the key is neither.
 * @throws {RangeError} If it isn't 32 bytes long.
 *
 * @example Encrypted both ways
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { aesGcm, listen, work } from "@distchan/distchan";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32)); // on both machines
 * const transforms = [aesGcm(key)];
 * await using server = listen<string, string>({ port: 0, transforms });
 * const { port } = server.addr;
 * work<string, string>({ port, transforms }, (word) => word.toUpperCase());
 *
 * assertEquals(await server.submit("hello"), "HELLO");
 * ```
 */
export function aesGcm(key: Uint8Array | CryptoKey): Transform {
  const material = keyMaterial(key);
  const name = isSealed(key) ? SEALED_AES_GCM : AES_GCM;
  return { name, open: (context) => open(material, context) };
}

function open(material: () => Promise<CryptoKey>, context: TransformContext) {
  const { role, sessionId } = context;
  const peer = role === "server" ? "client" : "server";
  // Derived when first used: of a handshake that fails, nothing goes on.
  const ours = once(() => derive(material, sessionId, role));
  const theirs = once(() => derive(material, sessionId, peer));
  let sent = 0, received = 0;
  return {
    async encode(bytes: Uint8Array): Promise<Uint8Array> {
      const iv = nonce(sent++);
      return new Uint8Array(
        await crypto.subtle.encrypt(
          { name: "AES-GCM", iv },
          await ours(),
          bytes as BufferSource,
        ),
      );
    },
    async decode(bytes: Uint8Array): Promise<Uint8Array> {
      const number = received++;
      const key = await theirs();
      try {
        return new Uint8Array(
          await crypto.subtle.decrypt(
            { name: "AES-GCM", iv: nonce(number) },
            key,
            bytes as BufferSource,
          ),
        );
      } catch (cause) {
        throw new Error(
          `frame ${number} is not authentic: it was changed, repeated or ` +
            "moved on the way, or the two ends have different keys",
          { cause },
        );
      }
    },
  };
}

/** The key of one connection and direction. */
async function derive(
  material: () => Promise<CryptoKey>,
  sessionId: Uint8Array,
  sender: "server" | "client",
): Promise<CryptoKey> {
  const hkdf = {
    name: "HKDF",
    hash: "SHA-256",
    salt: sessionId as BufferSource,
    info: new TextEncoder().encode(`distchan aes-256-gcm ${sender}`),
  };
  const usages: KeyUsage[] = ["encrypt", "decrypt"];
  const from = await material();
  // The same key either way: a user's own may allow only one of them.
  if (!from.usages.includes("deriveBits")) {
    const aes = { name: "AES-GCM", length: KEY_BYTES * 8 };
    return await crypto.subtle.deriveKey(hkdf, from, aes, false, usages);
  }
  const bits = await crypto.subtle.deriveBits(hkdf, from, KEY_BYTES * 8);
  return await crypto.subtle.importKey("raw", bits, "AES-GCM", false, usages);
}

function nonce(number: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(NONCE_BYTES);
  new DataView(bytes.buffer).setBigUint64(4, BigInt(number));
  return bytes;
}

/** Checks a key, and turns it into one for HKDF at its first use. */
function keyMaterial(key: Uint8Array | CryptoKey): () => Promise<CryptoKey> {
  if (key instanceof Uint8Array) {
    if (key.length !== KEY_BYTES) {
      throw new RangeError(
        `Cannot use key: it has ${key.length} bytes, expected ${KEY_BYTES}`,
      );
    }
    const bytes = new Uint8Array(key);
    return once(() => importMaterial(bytes));
  }
  if (!(key instanceof CryptoKey)) {
    throw new TypeError(
      `Cannot use key: it is ${typeof key}, expected ${KEY_BYTES} bytes or a CryptoKey`,
    );
  }
  const { name, length } = key.algorithm as AesKeyAlgorithm;
  // HKDF keys have no other usages than the two that derive.
  if (name === "HKDF") {
    return () => Promise.resolve(key);
  }
  if (isSealed(key)) return once(async () => importMaterial(await seal(key)));
  if (name.startsWith("AES-") && length === KEY_BYTES * 8 && key.extractable) {
    return once(async () =>
      importMaterial(await crypto.subtle.exportKey("raw", key))
    );
  }
  throw new TypeError(
    `Cannot use key: it is a CryptoKey for ${name}, expected one for HKDF, ` +
      `or an AES key of ${KEY_BYTES * 8} bits that is extractable, ` +
      `or for AES-GCM and may encrypt`,
  );
}

/** Whether a key can't be seen, but does encrypt. */
function isSealed(key: Uint8Array | CryptoKey): boolean {
  if (!(key instanceof CryptoKey) || key.extractable) return false;
  const { name, length } = key.algorithm as AesKeyAlgorithm;
  return name === "AES-GCM" && length === KEY_BYTES * 8 &&
    key.usages.includes("encrypt");
}

/** Of a key that can't be seen: what nobody can make without it. */
async function seal(key: CryptoKey): Promise<ArrayBuffer> {
  const algorithm = {
    name: "AES-GCM",
    iv: new TextEncoder().encode(SEALED_NONCE),
  };
  const zeros = new Uint8Array(KEY_BYTES);
  const sealed = await crypto.subtle.encrypt(algorithm, key, zeros);
  return sealed.slice(0, KEY_BYTES); // without the tag
}

function importMaterial(bytes: BufferSource): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", bytes, "HKDF", false, ["deriveBits"]);
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => made ??= make();
}
