/**
 * Addresses to listen on: who can reach them, and whether that is allowed.
 *
 * @module
 */

import { InsecureBindError } from "./errors.ts";
import { kindOf } from "./options.ts";

/** Whether a host name, as in a URL too, is this machine's own. */
export function isLoopback(hostname: string): boolean {
  return /^localhost$/i.test(hostname) || hostname === "::1" ||
    hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname) ||
    /^::ffff:127\.\d+\.\d+\.\d+$/i.test(hostname) ||
    /^\[::ffff:7f[\da-f]{2}:[\da-f]{1,4}\]$/.test(hostname); // so in a URL
}

/**
 * Only loopback may be open to everybody who reaches it.
 *
 * @param hostname The address.
 * @param options What allows more.
 * @param of `isDashboard`: it is that of a dashboard, for the message.
 * @throws {InsecureBindError} If it isn't, and the options don't allow it.
 */
export function checkBind(
  hostname: string,
  options: { secret?: unknown; insecure?: boolean },
  of?: { isDashboard: boolean },
): void {
  if (options.secret !== undefined || options.insecure === true) return;
  if (!isLoopback(hostname)) throw new InsecureBindError(hostname, of);
}

/**
 * The same for a listener. TLS is for its certificate to say, and who may reach
 * a Unix socket for its file.
 *
 * @throws {InsecureBindError} If it isn't, and the options don't allow it.
 * @throws {TypeError} If it is none.
 */
export function checkListener(
  listener: Deno.Listener,
  options: { secret?: unknown; insecure?: boolean },
): void {
  if (typeof listener?.accept !== "function") {
    throw new TypeError(
      `Cannot make a server: expected a listener, got ${kindOf(listener)}`,
    );
  }
  const { addr } = listener;
  if (isTls(listener) || "path" in addr) return;
  checkBind("hostname" in addr ? addr.hostname : `vsock:${addr.cid}`, options);
}

/** Where this machine itself reaches a server that listens there. */
export function reachable(hostname: string): string {
  if (hostname === "0.0.0.0") return "127.0.0.1";
  return hostname === "::" ? "::1" : hostname;
}

/** Whether it is a listener of TLS: those have no class to ask for. */
export function isTls(listener: Deno.Listener): boolean {
  return listener.constructor.name === "TlsListener";
}
