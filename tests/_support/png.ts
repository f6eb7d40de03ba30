import { crc32, inflateSync } from "node:zlib";
import { assertEquals } from "@std/assert";

/** A picture: three bytes a pixel, row by row. */
export interface Picture {
  width: number;
  height: number;
  pixels: Uint8Array;
}

/** Reads an RGB picture that isn't filtered, and holds it to the format. */
export function readPng(bytes: Uint8Array): Picture {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  assertEquals(
    new TextDecoder("latin1").decode(bytes.subarray(1, 8)),
    "PNG\r\n\x1a\n",
  );
  const data: Uint8Array[] = [];
  let width = 0;
  let height = 0;
  let last = "";
  for (let at = 8; at < bytes.length;) {
    const length = view.getUint32(at);
    const type = new TextDecoder().decode(bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    const checksum = view.getUint32(at + 8 + length);
    assertEquals(
      checksum,
      crc32(bytes.subarray(at + 4, at + 8 + length)),
      type,
    );
    if (last === "") assertEquals(type, "IHDR");
    if (type === "IHDR") {
      width = view.getUint32(at + 8);
      height = view.getUint32(at + 12);
      assertEquals([...body.subarray(8)], [8, 2, 0, 0, 0]);
    }
    if (type === "IDAT") data.push(body);
    last = type;
    at += length + 12;
  }
  assertEquals(last, "IEND");
  const lines = inflateSync(concat(data));
  assertEquals(lines.length, height * (width * 3 + 1));
  const rows = Array.from({ length: height }, (_, y) => {
    const row = lines.subarray(y * (width * 3 + 1), (y + 1) * (width * 3 + 1));
    assertEquals(row[0], 0, "unfiltered");
    return row.subarray(1);
  });
  return { width, height, pixels: concat(rows) };
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
