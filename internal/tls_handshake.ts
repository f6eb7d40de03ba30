/**
 * The handshake of TLS with a server: only once it is done, or has failed, its
 * errors have names.
 *
 * @module
 */

import { HandshakeError } from "./errors.ts";
import { timerMs } from "./timer.ts";
import { reasonOf } from "./thrown.ts";

/** Options of {@linkcode handshakeTls}. */
export interface HandshakeTlsOptions {
  /** Ends it. */
  readonly signal: AbortSignal | undefined;
  /** How long it may take, in ms. */
  readonly timeoutMs: number;
}

/**
 * Waits for the handshake.
 *
 * @param conn The connection; closed if it fails.
 * @param options How long to wait.
 * @returns The connection.
 * @throws {HandshakeError} If it fails, or takes too long.
 */
export async function handshakeTls(
  conn: Deno.TlsConn,
  options: HandshakeTlsOptions,
): Promise<Deno.TlsConn> {
  const { signal, timeoutMs } = options;
  let isLate = false;
  // Closing it is what ends a handshake that hangs.
  const stop = () => {
    try {
      conn.close();
    } catch {
      // Closed already.
    }
  };
  const timer = setTimeout(() => {
    isLate = true;
    stop();
  }, timerMs(timeoutMs));
  signal?.addEventListener("abort", stop);
  try {
    signal?.throwIfAborted();
    await conn.handshake();
    // It may have come to its end and been closed in the same turn.
    if (isLate) throw new Error("it was closed");
    signal?.throwIfAborted();
    return conn;
  } catch (error) {
    stop();
    if (signal?.aborted) throw signal.reason;
    throw tlsError(error, isLate ? timeoutMs : null);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

function tlsError(cause: unknown, lateMs: number | null): HandshakeError {
  if (lateMs !== null) {
    return new HandshakeError(
      "timeout",
      `Handshake failed: TLS was not done within ${lateMs} ms`,
    );
  }
  const reason = reasonOf(cause);
  // Whom the certificate doesn't vouch for isn't the server that was meant.
  return reason.startsWith("invalid peer certificate")
    ? new HandshakeError(
      "auth",
      `Handshake failed: the server's certificate is not accepted: ${reason}`,
      { cause },
    )
    : new HandshakeError("protocol", `Handshake failed: TLS: ${reason}`, {
      cause,
    });
}
