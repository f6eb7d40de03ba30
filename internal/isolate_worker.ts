/**
 * The inside of an isolate: loads the handler's module, and executes one item
 * after another. Payloads come in and go out as bytes; values exist only here.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { cbor, type Codec } from "../codec.ts";
import type { CborOptions } from "./cbor_codec.ts";
import { type HandlerExports, importOwnHandler } from "./handler_module.ts";
import { PayloadCodec } from "./payload.ts";
import { exitAtOnce, tellUncaught } from "./thread.ts";
import { fromThrown, type Thrown, toThrown } from "./thrown.ts";
import { tracingOfProcess } from "./tracing.ts";
import { RemoteScope } from "./work_spans.ts";
import type { WorkItem } from "./work_items.ts";
import { type Handler, WorkLoop } from "./work_loop.ts";

/** Where this module is, for the isolate's first line of code. */
export const ISOLATE_MODULE: string = import.meta.url;

/** What an isolate is started with. */
export interface IsolateSetup {
  /** The handler's module. */
  readonly url: string;
  /** The name of the connection's codec. */
  readonly codec: string;
  /** How to make it here; null: the module must export it. */
  readonly cbor: CborOptions | null;
  /** The isolate's end of the line. */
  readonly port: MessagePort;
}

/** What an isolate is told. */
export type ToIsolate =
  | {
    type: "item";
    /** The item, with its payload as its value. */
    item: WorkItem;
    /** Whether its result is wanted. */
    wantsResult: boolean;
    /** How long a value may become, in bytes; 0: as long as it is. */
    valueLimit: number;
  }
  /** The item isn't needed any more; why, unless it was cancelled. */
  | { type: "abort"; reason: Thrown | null }
  /** There is room for another value, or the last one failed. */
  | { type: "room"; error: Thrown | null };

/** What an isolate tells. */
export type FromIsolate =
  /** The module is loaded. */
  | { type: "ready" }
  /** The module can't be used. */
  | { type: "unusable"; error: Thrown }
  /** The item has a result; null: it is done and has none. */
  | { type: "result"; payload: Uint8Array<ArrayBuffer> | null }
  /** The item failed. */
  | { type: "error"; error: Thrown }
  /** The handler yields a value, and waits for room. */
  | { type: "value"; payload: Uint8Array<ArrayBuffer> }
  /** The abort has arrived: the event loop here isn't blocked. */
  | { type: "aborting" }
  /** Nobody caught an error. */
  | { type: "crash"; error: Thrown };

/** Executes items until the isolate is terminated. */
export async function serve(setup: IsolateSetup): Promise<void> {
  const { port } = setup;
  const send = (told: FromIsolate, transfer: Transferable[] = []) =>
    port.postMessage(told, transfer);
  exitAtOnce();
  tellUncaught((error) => send({ type: "crash", error }));
  try {
    const { handler, codec } = await load(setup);
    const inside = new Inside(handler, new PayloadCodec(codec), send);
    port.onmessage = ({ data }: MessageEvent<ToIsolate>) => inside.take(data);
    send({ type: "ready" });
  } catch (error) {
    send({ type: "unusable", error: toThrown(error) });
  }
}

/** Executes one item at a time. */
class Inside {
  readonly #loop: WorkLoop;
  readonly #codec: PayloadCodec;
  readonly #send: (told: FromIsolate, transfer?: Transferable[]) => void;
  #item: WorkItem | null = null;
  #wantsResult = true;
  #valueLimit = 0;
  #room: PromiseWithResolvers<void> | null = null;

  constructor(
    handler: Handler<never, unknown>,
    codec: PayloadCodec,
    send: (told: FromIsolate, transfer?: Transferable[]) => void,
  ) {
    this.#codec = codec;
    this.#send = send;
    const tracing = tracingOfProcess();
    this.#loop = new WorkLoop(handler, 1, {
      scope: tracing === null ? null : new RemoteScope(tracing),
      isBusy: () => false,
      result: (_item, value) => this.#result(value),
      done: () => this.#settle({ type: "result", payload: null }),
      error: (_item, error) => this.#fail(error),
      value: (value) => this.#value(value),
      onIdle: () => {},
    });
  }

  take(told: ToIsolate): void {
    if (told.type === "item") {
      this.#wantsResult = told.wantsResult;
      this.#valueLimit = told.valueLimit;
      this.#begin(told.item);
    } else if (told.type === "abort") {
      this.#send({ type: "aborting" });
      if (this.#item === null) return;
      if (told.reason === null) this.#loop.cancel(this.#item.delivery);
      else this.#loop.abort(fromThrown(told.reason));
    } else if (told.error === null) this.#room?.resolve();
    else this.#room?.reject(fromThrown(told.error));
  }

  #begin(item: WorkItem): void {
    this.#item = item;
    const payload = item.value as Uint8Array;
    let value: unknown;
    try {
      value = this.#codec.read(payload);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#loop.push({ ...item, value });
    this.#loop.run();
  }

  #result(value: unknown): void {
    if (!this.#wantsResult) {
      this.#settle({ type: "result", payload: null });
      return;
    }
    let payload: Uint8Array<ArrayBuffer>;
    try {
      payload = this.#codec.encode(value, this.#valueLimit);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#settle({ type: "result", payload }, [payload.buffer]);
  }

  #fail(error: unknown): void {
    this.#settle({ type: "error", error: toThrown(error) });
  }

  #settle(told: FromIsolate, transfer?: Transferable[]): void {
    // One turn later: a promise of this item that nobody caught is told first,
    // and so isn't the next item's fault.
    setImmediate(() => {
      this.#item = null;
      this.#send(told, transfer);
    });
  }

  #value(value: unknown): Promise<void> {
    const payload = this.#codec.encode(value, this.#valueLimit);
    this.#room = Promise.withResolvers();
    this.#send({ type: "value", payload }, [payload.buffer]);
    return this.#room.promise;
  }
}

/** Loads the handler's module; throws what the caller of `work()` will see. */
async function load(
  setup: IsolateSetup,
): Promise<{ handler: Handler<never, unknown>; codec: Codec<unknown> }> {
  const { url } = setup;
  const module = await importOwnHandler(url);
  return { handler: module.handler, codec: codecOf(module.exports, setup) };
}

function codecOf(
  exports: HandlerExports,
  setup: IsolateSetup,
): Codec<unknown> {
  const { url, codec: expected } = setup;
  const codec = exports.codec as Codec<unknown> | undefined;
  if (codec === undefined) {
    if (setup.cbor !== null) return cbor(setup.cbor);
    throw new TypeError(
      `Cannot work in isolates: the connection's codec "${expected}" can't be taken into them, expected ${url} to export it as "codec"`,
    );
  }
  if (
    typeof codec?.name !== "string" || typeof codec.encode !== "function" ||
    typeof codec.decode !== "function"
  ) {
    throw new TypeError(
      `Cannot work in isolates: the export "codec" of ${url} is no codec, expected { name, encode(value), decode(payload) }`,
    );
  }
  if (codec.name !== expected) {
    throw new TypeError(
      `Cannot work in isolates: the codec of ${url} is "${codec.name}", the connection's is "${expected}"`,
    );
  }
  return codec;
}
