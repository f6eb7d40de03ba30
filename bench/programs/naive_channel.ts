/**
 * The naive port: what distchan in Deno looks like at a first try. `@std/cbor`,
 * a 4-byte length, one write a value, and streams from end to end.
 *
 * @module
 */

import { stdCbor } from "../../tests/_support/real_std.ts";
import type { Channel } from "./json_channel.ts";

/** One connection. */
export class NaiveChannel implements Channel {
  readonly #conn: Deno.TcpConn;
  readonly #values: ReadableStream<unknown>;
  readonly #writer: WritableStreamDefaultWriter<unknown>;

  /** @param conn The connection. */
  constructor(conn: Deno.TcpConn) {
    if (stdCbor === undefined) throw new Error("@std/cbor is a stand-in");
    const { encodeCbor, decodeCbor } = stdCbor;
    conn.setNoDelay(true);
    this.#conn = conn;
    this.#values = chunksOf(conn).pipeThrough(splitFrames()).pipeThrough(
      new TransformStream<Uint8Array, unknown>({
        transform: (bytes, controller) => controller.enqueue(decodeCbor(bytes)),
      }),
    );
    this.#writer = new WritableStream<unknown>({
      async write(value) {
        const bytes = encodeCbor(value);
        const frame = new Uint8Array(4 + bytes.length);
        new DataView(frame.buffer).setUint32(0, bytes.length);
        frame.set(bytes, 4);
        let done = 0;
        while (done < frame.length) {
          done += await conn.write(frame.subarray(done));
        }
      },
    }).getWriter();
  }

  /** Sends a value. */
  send(value: unknown): Promise<void> {
    return this.#writer.write(value);
  }

  /** Hands every value that comes to a function, until the peer closes. */
  async receive(
    onValue: (value: unknown) => Promise<void> | undefined,
  ): Promise<void> {
    for await (const value of this.#values) await onValue(value);
  }

  /** Writes what is left and closes the way out. */
  async end(): Promise<void> {
    await this.#writer.close();
    await this.#conn.closeWrite().catch(() => {});
  }

  /** Closes. */
  close(): void {
    try {
      this.#conn.close();
    } catch {
      // Closed already.
    }
  }
}

/** Not conn.readable: that closes the way out with the way in. */
function chunksOf(conn: Deno.TcpConn): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      const bytes = new Uint8Array(64 * 1024);
      const count = await conn.read(bytes);
      if (count === null) controller.close();
      else controller.enqueue(bytes.subarray(0, count));
    },
  });
}

function splitFrames(): TransformStream<Uint8Array, Uint8Array> {
  let rest = new Uint8Array();
  return new TransformStream({
    transform(chunk, controller) {
      const all = new Uint8Array(rest.length + chunk.length);
      all.set(rest);
      all.set(chunk, rest.length);
      const view = new DataView(all.buffer);
      let at = 0;
      while (all.length - at >= 4) {
        const end = at + 4 + view.getUint32(at);
        if (end > all.length) break;
        controller.enqueue(all.subarray(at + 4, end));
        at = end;
      }
      rest = all.slice(at);
    },
  });
}
