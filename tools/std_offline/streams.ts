/**
 * Stand-in for the parts of `@std/streams` that this project uses, for places
 * where JSR can't be reached.
 *
 * @module
 */

/**
 * Reads a stream of bytes to its end.
 *
 * @param stream The stream to read.
 * @returns All its bytes, in one array.
 */
export function toBytes(
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array> {
  return new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>)
    .bytes();
}

/**
 * Reads a stream of bytes to its end.
 *
 * @param readableStream The stream to read.
 * @returns All its bytes, in one buffer.
 */
export async function toArrayBuffer(
  readableStream: ReadableStream<Uint8Array>,
): Promise<ArrayBuffer> {
  return (await toBytes(readableStream)).buffer as ArrayBuffer;
}

/**
 * Reads a stream of strings, or of UTF-8, to its end.
 *
 * @param stream The stream to read.
 * @returns All its text.
 */
export async function toText(
  stream: ReadableStream<string> | ReadableStream<Uint8Array>,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream as ReadableStream<string | Uint8Array>) {
    text += typeof chunk === "string"
      ? chunk
      : decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * Cuts text into lines at `\n` and `\r\n`. A last line without an end counts
 * as a line.
 */
export class TextLineStream extends TransformStream<string, string> {
  /** Makes a stream. */
  constructor() {
    let rest = "";
    super({
      transform(chunk, controller) {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) {
          controller.enqueue(line.endsWith("\r") ? line.slice(0, -1) : line);
        }
      },
      flush(controller) {
        if (rest !== "") controller.enqueue(rest);
      },
    });
  }
}
