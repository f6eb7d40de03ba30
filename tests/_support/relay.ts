/**
 * Somebody on the way: passes frames on between a client and a server, and may
 * change, drop, repeat or move them.
 *
 * @module
 */

import { framed } from "./scripted_peer.ts";
import { memoryPair } from "./memory_pair.ts";

/** Which way a frame goes. */
export type Direction = "to server" | "to client";

/** What becomes of a frame: the bodies that are passed on instead of it. */
export type Meddle = (
  body: Uint8Array<ArrayBuffer>,
  direction: Direction,
  index: number,
) => readonly Uint8Array[];

/** A connection with somebody on it. */
export interface Relay {
  /** The client's end. */
  readonly conn: Deno.Conn;
  /** All frames' bodies that came, before anything was done to them. */
  readonly seen: Record<Direction, Uint8Array<ArrayBuffer>[]>;
  /** Passes a frame on that nobody sent. */
  inject(direction: Direction, body: Uint8Array): Promise<void>;
  /** Resolves when both directions have ended. */
  readonly done: Promise<void>;
}

/**
 * Puts somebody on a connection.
 *
 * @param far A connection to the server.
 * @param meddle What to do with each frame; by default it is passed on.
 */
export function relay(
  far: Deno.Conn,
  meddle: Meddle = (body) => [body],
): Relay {
  const [conn, near] = memoryPair();
  const seen: Relay["seen"] = { "to server": [], "to client": [] };
  const pass = async (direction: Direction) => {
    const [from, to] = direction === "to server" ? [near, far] : [far, near];
    let held: Uint8Array<ArrayBuffer> = new Uint8Array(0);
    const chunk = new Uint8Array(16 * 1024);
    try {
      for (;;) {
        const count = await from.read(chunk);
        if (count === null) break;
        const bytes = new Uint8Array(held.length + count);
        bytes.set(held);
        bytes.set(chunk.subarray(0, count), held.length);
        held = bytes;
        while (held.length >= 4) {
          const length = new DataView(held.buffer, held.byteOffset)
            .getUint32(0);
          if (held.length < 4 + length) break;
          const body = held.slice(4, 4 + length);
          held = held.slice(4 + length);
          const index = seen[direction].push(body) - 1;
          for (const other of meddle(body.slice(), direction, index)) {
            await writeAll(to, framed(other));
          }
        }
      }
      await to.closeWrite();
    } catch {
      // One end is gone; the other learns of it.
      for (const end of [near, far]) close(end);
    }
  };
  return {
    conn,
    seen,
    inject: (direction, body) =>
      writeAll(direction === "to server" ? far : near, framed(body)),
    done: Promise.all([pass("to server"), pass("to client")]).then(() => {
      for (const end of [near, far]) close(end);
    }),
  };
}

async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    at += await conn.write(bytes.subarray(at));
  }
}

function close(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch {
    // Closed already.
  }
}
