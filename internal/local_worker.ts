/**
 * The inside of a thread of a local pool: loads the handler's module, and works
 * for the server over loopback as any worker does.
 *
 * @module
 */

import { cbor, type Codec } from "../codec.ts";
import type { CborOptions } from "./cbor_codec.ts";
import { INSTANCE } from "./client_handshake.ts";
import { type HandlerExports, importOwnHandler } from "./handler_module.ts";
import type { ConnectOptions, WorkOptions } from "./options.ts";
import { exitAtOnce, tellUncaught } from "./thread.ts";
import { type Thrown, toThrown } from "./thrown.ts";
import type { Transform } from "./transforms.ts";
import type { Handler } from "./work_loop.ts";

/** Where this module is, for the thread's first line of code. */
export const LOCAL_WORKER_MODULE: string = import.meta.url;

/** What a thread is started with. */
export interface LocalSetup {
  /** The handler's module. */
  readonly url: string;
  /** Where `client.ts` is: nothing here imports it by itself. */
  readonly clientUrl: string;
  /** Where the server is, and what it asks for, as far as it can be copied. */
  readonly connect: ConnectOptions;
  /** Items that are executed at once. */
  readonly concurrency: number;
  /** How to make the codec here; null: the module must export it. */
  readonly cbor: CborOptions | null;
  /** The names of the transforms: the module must export them, if any. */
  readonly transforms: readonly string[];
  /** How many items were begun: an Int32, shared with the pool. */
  readonly begun: SharedArrayBuffer;
  /** The thread's end of the line. */
  readonly port: MessagePort;
}

/** What a thread is told: to leave. */
export type ToLocal = "leave";

/** What a thread tells. */
export type FromLocal =
  /** The module is loaded. How the server will know the thread: in hex. */
  | { type: "ready"; instance: string }
  /** The server has no more work, or it was left. */
  | { type: "done" }
  /** It can't work, and starting it again is of no use. */
  | { type: "unusable"; error: Thrown }
  /** Nobody caught an error. */
  | { type: "crash"; error: Thrown };

/** As much of `client.ts` as is needed. */
interface ClientModule {
  work(
    options: ConnectOptions,
    handler: Handler<never, unknown>,
    workOptions: WorkOptions,
  ): Promise<void>;
}

/** Works until the server has no more work. */
export async function serve(setup: LocalSetup): Promise<void> {
  const { url, port, connect, concurrency } = setup;
  const send = (told: FromLocal) => port.postMessage(told);
  exitAtOnce();
  tellUncaught((error) => send({ type: "crash", error }));
  const leave = new AbortController();
  port.onmessage = () => leave.abort();
  try {
    const { handler, exports } = await importOwnHandler(url);
    const client: ClientModule = await import(setup.clientUrl);
    const begun = new Int32Array(setup.begun);
    send({ type: "ready", instance: INSTANCE.toHex() });
    await client.work(
      {
        ...connect,
        codec: codecOf(exports, setup),
        transforms: transformsOf(exports, setup),
      },
      (item, context) => {
        Atomics.add(begun, 0, 1);
        return handler(item, context);
      },
      { concurrency, signal: leave.signal },
    );
    send({ type: "done" });
  } catch (error) {
    send({ type: "unusable", error: toThrown(error) });
  }
}

function codecOf(
  exports: HandlerExports,
  setup: LocalSetup,
): Codec<unknown> {
  // Another codec's name is the handshake's matter.
  const codec = exports.codec as Codec<unknown> | undefined;
  if (codec !== undefined) return codec;
  if (setup.cbor !== null) return cbor(setup.cbor);
  throw new TypeError(
    `Cannot work locally: the server's codec can't be taken into threads, expected ${setup.url} to export it as "codec"`,
  );
}

function transformsOf(
  exports: HandlerExports,
  setup: LocalSetup,
): readonly Transform[] {
  const transforms = exports.transforms as readonly Transform[] | undefined;
  if (transforms !== undefined) return transforms;
  if (setup.transforms.length === 0) return [];
  throw new TypeError(
    `Cannot work locally: the server's transforms (${
      setup.transforms.join(", ")
    }) can't be taken into threads, expected ${setup.url} to export them as "transforms"`,
  );
}
