/**
 * The codec against `JSON` with `TextEncoder` and `TextDecoder`, and against
 * the real `@std/cbor` where it can be had:
 *
 * ```sh
 * deno task bench:codec
 * ```
 *
 * "cbor, in place" is what a connection does: it encodes into its output buffer
 * and decodes from its input buffer.
 *
 * @module
 */

import { cbor } from "../codec.ts";
import { ByteWriter } from "../internal/byte_writer.ts";
import { CborCodec } from "../internal/cbor_codec.ts";
import { stdCbor } from "../tests/_support/real_std.ts";

/** A value of each kind, and how JSON has to carry it. */
const values: [name: string, value: unknown, asJson?: (v: never) => unknown][] =
  [
    ["item", { id: crypto.randomUUID(), a: 12345, b: 67890 }],
    ["nested object", {
      id: crypto.randomUUID(),
      name: "some name here",
      count: 42,
      ratio: 0.75,
      active: true,
      tags: ["alpha", "beta", "gamma"],
      owner: { first: "Ada", last: "Lovelace", age: 36 },
      created: 1_700_000_000_000,
      note: null,
      matrix: [[1, 2], [3, 4]],
    }],
    ["1000 integers", Array.from({ length: 1000 }, (_, i) => i * 37)],
    ["1 KiB text", "The quick brown fox jumps. ".repeat(40).slice(0, 1024)],
    [
      "64 KiB bytes",
      new Uint8Array(64 * 1024).map((_, i) => i),
      // JSON has no bytes: Base64 is the best that it can do.
      (bytes: Uint8Array) => bytes.toBase64(),
    ],
  ];

const codec = cbor();
const inPlace = new CborCodec();
const encoder = new TextEncoder();
const decoder = new TextDecoder();

for (const [name, value, asJson] of values) {
  const toJson = asJson as ((value: unknown) => unknown) | undefined;
  const out = new ByteWriter(128 * 1024);
  const encode = `encode ${name}`;
  Deno.bench("JSON", { group: encode, baseline: true }, () => {
    encoder.encode(JSON.stringify(toJson ? toJson(value) : value));
  });
  Deno.bench("cbor", { group: encode }, () => {
    codec.encode(value);
  });
  Deno.bench("cbor, in place", { group: encode }, () => {
    out.reset();
    inPlace.encodeInto(out, value);
  });
  if (stdCbor !== undefined) {
    const { encodeCbor } = stdCbor;
    Deno.bench("@std/cbor", { group: encode }, () => {
      encodeCbor(value);
    });
  }

  const decode = `decode ${name}`;
  const json = encoder.encode(JSON.stringify(toJson ? toJson(value) : value));
  const payload = codec.encode(value);
  Deno.bench("JSON", { group: decode, baseline: true }, () => {
    const decoded = JSON.parse(decoder.decode(json));
    if (toJson) Uint8Array.fromBase64(decoded);
  });
  Deno.bench("cbor", { group: decode }, () => {
    codec.decode(payload);
  });
  Deno.bench("cbor, in place", { group: decode }, () => {
    inPlace.decodeFrom(payload, 0, payload.length);
  });
  if (stdCbor !== undefined) {
    const { decodeCbor } = stdCbor;
    Deno.bench("@std/cbor", { group: decode }, () => {
      decodeCbor(payload);
    });
  }
}
