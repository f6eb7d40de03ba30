/**
 * The yardstick: what one writes by hand, in Deno, when speed is all. A 4-byte
 * length and JSON; writes coalesced in two swapped buffers; many frames a read.
 * There are no guarantees: no credit, no acknowledgements, no redelivery, no
 * limits.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { setImmediate } from "node:timers";

/** Output above this many bytes pushes back. */
const HIGH_WATER_BYTES = 64 * 1024;
const BUFFER_BYTES = 256 * 1024;

const encoder = new TextEncoder();

/** What `toString("utf8", start, end)` comes down to, without its detours. */
interface Utf8Slice {
  utf8Slice(start: number, end: number): string;
}

/** One connection of a peer that is compared with. */
export interface Channel {
  /** Sends a value; a promise if there is no room for another. */
  send(value: unknown): Promise<void> | undefined;
  /**
   * Hands every value that comes to a function, until the peer closes. If it
   * returns a promise, nothing more is read before that resolves.
   */
  receive(
    onValue: (value: unknown) => Promise<void> | undefined,
  ): Promise<void>;
  /** Writes what is left and closes the way out. */
  end(): Promise<void>;
  /** Closes. */
  close(): void;
}

/** One connection. */
export class JsonChannel implements Channel {
  readonly #conn: Deno.TcpConn;
  #out = new Uint8Array(BUFFER_BYTES);
  #spare = new Uint8Array(BUFFER_BYTES);
  #length = 0;
  #scheduled = false;
  #writing = false;
  #room: PromiseWithResolvers<void> | null = null;
  readonly #kick = () => {
    this.#scheduled = false;
    if (!this.#writing) this.#write();
  };

  /** @param conn The connection. */
  constructor(conn: Deno.TcpConn) {
    conn.setNoDelay(true);
    this.#conn = conn;
  }

  /** Sends a value; a promise if there is no room for another. */
  send(value: unknown): Promise<void> | undefined {
    const text = JSON.stringify(value);
    const needed = this.#length + 4 + text.length * 3;
    if (needed > this.#out.length) this.#grow(needed);
    const out = this.#out, at = this.#length;
    const { written } = encoder.encodeInto(text, out.subarray(at + 4));
    out[at] = written >>> 24;
    out[at + 1] = written >>> 16;
    out[at + 2] = written >>> 8;
    out[at + 3] = written;
    this.#length = at + 4 + written;
    if (!this.#scheduled && !this.#writing) {
      this.#scheduled = true;
      setImmediate(this.#kick);
    }
    if (this.#length < HIGH_WATER_BYTES) return undefined;
    if (!this.#writing) {
      this.#write();
      if (this.#length < HIGH_WATER_BYTES) return undefined;
    }
    return (this.#room ??= Promise.withResolvers<void>()).promise;
  }

  /**
   * Hands every value that comes to a function, until the peer closes. If it
   * returns a promise, nothing more is read before that resolves.
   */
  async receive(
    onValue: (value: unknown) => Promise<void> | undefined,
  ): Promise<void> {
    let bytes = new Uint8Array(BUFFER_BYTES);
    let text = utf8(bytes);
    let low = 0, high = 0;
    for (;;) {
      if (low === high) low = high = 0;
      else if (bytes.length - high < 16 * 1024) {
        if (high - low > bytes.length / 2) {
          const larger = new Uint8Array(bytes.length * 2);
          larger.set(bytes.subarray(low, high));
          bytes = larger;
          text = utf8(bytes);
        } else bytes.copyWithin(0, low, high);
        high -= low;
        low = 0;
      }
      const count = await this.#conn.read(bytes.subarray(high));
      if (count === null) return;
      high += count;
      while (high - low >= 4) {
        const end = low + 4 +
          (bytes[low]! << 24 | bytes[low + 1]! << 16 | bytes[low + 2]! << 8 |
            bytes[low + 3]!);
        if (end > high) break;
        const room = onValue(JSON.parse(text.utf8Slice(low + 4, end)));
        low = end;
        if (room !== undefined) await room;
      }
    }
  }

  /** Writes what is left and closes the way out. */
  async end(): Promise<void> {
    while (this.#writing || this.#length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
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

  #grow(needed: number): void {
    const larger = new Uint8Array(Math.max(needed, this.#out.length * 2));
    larger.set(this.#out.subarray(0, this.#length));
    this.#out = larger;
  }

  async #write(): Promise<void> {
    this.#writing = true;
    while (this.#length > 0) {
      const bytes = this.#out, length = this.#length;
      this.#out = this.#spare;
      this.#spare = bytes;
      this.#length = 0;
      this.#room?.resolve();
      this.#room = null;
      let done = 0;
      while (done < length) {
        done += await this.#conn.write(bytes.subarray(done, length));
      }
    }
    this.#writing = false;
  }
}

function utf8(bytes: Uint8Array<ArrayBuffer>): Utf8Slice {
  return Buffer.from(bytes.buffer) as unknown as Utf8Slice;
}
