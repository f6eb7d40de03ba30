import { createHmac } from "node:crypto";

/**
 * The proof of PROTOCOL.md section 3, written from the document and not from
 * the library.
 *
 * @param secret What both ends know.
 * @param role Whose proof it is.
 * @param bodies The bodies of the frames so far.
 */
export function hmac(
  secret: string,
  role: "client" | "server",
  bodies: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const hash = createHmac("sha256", secret);
  hash.update(new TextEncoder().encode(`distchan ${role}`));
  hash.update(new Uint8Array([0]));
  for (const body of bodies) {
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, body.length);
    hash.update(length);
    hash.update(body);
  }
  return new Uint8Array(hash.digest());
}
