/**
 * How workers on the server's own machine reach it.
 *
 * Where the server speaks TLS they need none: for them it then listens on a
 * port of 127.0.0.1 as well, a door that lets in who knows a random secret.
 *
 * @module
 */

import { isTls, reachable } from "./bind.ts";
import { defined } from "./defined.ts";
import type { ConnectOptions } from "./options.ts";

/** What is needed of the server. */
export interface LoopbackHost {
  /** Where workers elsewhere connect. */
  readonly listener: Deno.Listener;
  /** What the server asks for. */
  readonly options: Pick<
    ConnectOptions,
    "codec" | "transforms" | "signature" | "secret"
  >;
  /** Listens on 127.0.0.1 too, for who knows the secret; returns where. */
  openDoor(secret: Uint8Array): Deno.NetAddr;
}

/** Knows what a worker on this machine connects with. */
export class Loopback {
  readonly #host: LoopbackHost;
  #door: { readonly addr: Deno.NetAddr; readonly secret: Uint8Array } | null =
    null;

  /** @param host The server. */
  constructor(host: LoopbackHost) {
    this.#host = host;
  }

  /**
   * What it connects with. With TLS the first call opens the door.
   *
   * @throws {TypeError} If the server doesn't listen on TCP.
   */
  connectOptions(): ConnectOptions {
    const { listener, options } = this.#host;
    const { codec, transforms, signature, secret } = options;
    const { addr } = listener;
    if (!("hostname" in addr)) {
      throw new TypeError(
        `Cannot connect over loopback: the server listens on ${addr.transport}, expected TCP`,
      );
    }
    const door = isTls(listener) ? this.#door ??= this.#openDoor() : null;
    return defined<ConnectOptions>({
      hostname: reachable((door?.addr ?? addr).hostname),
      port: (door?.addr ?? addr).port,
      secret: door?.secret ?? secret,
      signature,
      codec,
      transforms,
    });
  }

  #openDoor(): { addr: Deno.NetAddr; secret: Uint8Array } {
    const secret = crypto.getRandomValues(new Uint8Array(32));
    return { addr: this.#host.openDoor(secret), secret };
  }
}
