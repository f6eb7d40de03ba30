import { crc32 } from "node:zlib";

/**
 * Writes a picture as PNG (https://www.w3.org/TR/png-3/) while its rows come,
 * each with three bytes a pixel: RGB.
 */
export async function* png(
  width: number,
  height: number,
  rows: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  yield Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8); // bits a channel
  header.setUint8(9, 2); // RGB
  yield chunk("IHDR", new Uint8Array(header.buffer));

  const data = ReadableStream.from(unfiltered(rows))
    .pipeThrough(new CompressionStream("deflate"));
  for await (const part of data) yield chunk("IDAT", part);
  yield chunk("IEND", new Uint8Array());
}

/** Each row says first how its bytes are filtered: here, not at all. */
async function* unfiltered(
  rows: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for await (const row of rows) {
    const line = new Uint8Array(row.length + 1);
    line.set(row, 1);
    yield line;
  }
}

/** A length, a type, the data, and a checksum of the type and the data. */
function chunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  new TextEncoder().encodeInto(type, bytes.subarray(4));
  bytes.set(data, 8);
  view.setUint32(data.length + 8, crc32(bytes.subarray(4, data.length + 8)));
  return bytes;
}
