/**
 * A certificate authority of a test's own, so that no key and no certificate
 * lies in the repository or runs out: X.509 v3, ECDSA with P-256 and SHA-256.
 *
 * @module
 */

/** A certificate and its private key, as PEM. */
export interface Certificate {
  cert: string;
  key: string;
}

const ECDSA = { name: "ECDSA", namedCurve: "P-256" };
const ECDSA_WITH_SHA256 = sequence(oid(1, 2, 840, 10045, 4, 3, 2));

/** Signs certificates. */
export class Authority {
  /** Its own certificate, as PEM. */
  readonly cert: string;
  readonly #name: Uint8Array;
  readonly #keys: CryptoKeyPair;

  private constructor(cert: string, name: Uint8Array, keys: CryptoKeyPair) {
    this.cert = cert;
    this.#name = name;
    this.#keys = keys;
  }

  /** Makes one. */
  static async create(commonName: string): Promise<Authority> {
    const keys = await makeKeys();
    const name = nameOf(commonName);
    const isAuthority = extension(
      oid(2, 5, 29, 19),
      sequence(tlv(0x01, Uint8Array.of(0xff))),
    );
    const cert = await certificate({
      issuer: name,
      subject: name,
      keys,
      signer: keys,
      extensions: [isAuthority],
    });
    return new Authority(cert, name, keys);
  }

  /** A certificate for a server on this machine, by its name and its address. */
  async issue(hostname: string = "localhost"): Promise<Certificate> {
    const keys = await makeKeys();
    const names = sequence(
      tlv(0x82, new TextEncoder().encode(hostname)),
      tlv(0x87, Uint8Array.of(127, 0, 0, 1)),
    );
    const cert = await certificate({
      issuer: this.#name,
      subject: nameOf(hostname),
      keys,
      signer: this.#keys,
      extensions: [extension(oid(2, 5, 29, 17), names)],
    });
    const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
    return { cert, key: pem("PRIVATE KEY", new Uint8Array(pkcs8)) };
  }
}

async function makeKeys(): Promise<CryptoKeyPair> {
  return await crypto.subtle.generateKey(ECDSA, true, ["sign", "verify"]);
}

async function certificate(
  options: {
    issuer: Uint8Array;
    subject: Uint8Array;
    keys: CryptoKeyPair;
    signer: CryptoKeyPair;
    extensions: Uint8Array[];
  },
): Promise<string> {
  const { issuer, subject, keys, signer, extensions } = options;
  const now = Date.now(), day = 24 * 3600 * 1000;
  const spki = await crypto.subtle.exportKey("spki", keys.publicKey);
  const body = sequence(
    tlv(0xa0, integer(Uint8Array.of(2))), // version 3
    integer(crypto.getRandomValues(new Uint8Array(16))),
    ECDSA_WITH_SHA256,
    issuer,
    sequence(time(now - day), time(now + day)),
    subject,
    new Uint8Array(spki),
    tlv(0xa3, sequence(...extensions)),
  );
  const signature = new Uint8Array(
    await crypto.subtle.sign(
      { name: "ECDSA", hash: "SHA-256" },
      signer.privateKey,
      body,
    ),
  );
  const half = signature.length / 2;
  const signed = sequence(
    integer(signature.subarray(0, half)),
    integer(signature.subarray(half)),
  );
  return pem(
    "CERTIFICATE",
    sequence(
      body,
      ECDSA_WITH_SHA256,
      tlv(0x03, Uint8Array.of(0, ...signed)),
    ),
  );
}

function nameOf(commonName: string): Uint8Array {
  const value = tlv(0x0c, new TextEncoder().encode(commonName));
  return sequence(tlv(0x31, sequence(oid(2, 5, 4, 3), value)));
}

function extension(id: Uint8Array, value: Uint8Array): Uint8Array {
  return sequence(id, tlv(0x04, value));
}

function time(ms: number): Uint8Array {
  const text = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, "");
  return tlv(0x18, new TextEncoder().encode(text));
}

function oid(first: number, second: number, ...rest: number[]): Uint8Array {
  const bytes = [first * 40 + second];
  for (const part of rest) {
    const groups = [part & 0x7f];
    for (let left = part >> 7; left > 0; left >>= 7) {
      groups.unshift(left & 0x7f | 0x80);
    }
    bytes.push(...groups);
  }
  return tlv(0x06, Uint8Array.from(bytes));
}

/** An unsigned integer. */
function integer(bytes: Uint8Array): Uint8Array {
  let from = 0;
  while (from < bytes.length - 1 && bytes[from] === 0) from++;
  const digits = bytes.subarray(from);
  return tlv(0x02, digits[0]! >= 0x80 ? Uint8Array.of(0, ...digits) : digits);
}

function sequence(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return tlv(0x30, Uint8Array.from(parts.flatMap((part) => [...part])));
}

/** DER: a tag, a length, a value. */
function tlv(tag: number, value: Uint8Array): Uint8Array<ArrayBuffer> {
  const { length } = value;
  const head = length < 0x80
    ? [tag, length]
    : length < 0x100
    ? [tag, 0x81, length]
    : [tag, 0x82, length >> 8, length & 0xff];
  return Uint8Array.of(...head, ...value);
}

function pem(label: string, bytes: Uint8Array): string {
  const lines = bytes.toBase64().match(/.{1,64}/g)!;
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""]
    .join("\n");
}
