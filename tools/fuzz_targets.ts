/**
 * What is fuzzed: the decoders, the handshake, and both ends of a connection in
 * every state, each with the rules that must hold whatever comes.
 *
 * @module
 */

import { gzipSync } from "node:zlib";
import {
  aesGcm,
  cbor,
  Client,
  DecodeError,
  gzip,
  HandshakeError,
  ItemFailure,
  ProtocolError,
  Server,
} from "../mod.ts";
import type { ClientOptions } from "../internal/options.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import { FrameDecoder } from "../internal/frame_decoder.ts";
import {
  checkTerms,
  readHello,
  readReject,
  readWelcome,
} from "../internal/handshake.ts";
import { TransformChain, TransformError } from "../internal/transforms.ts";
import { goldenBlocks } from "../tests/_support/golden.ts";
import { MemoryListener } from "../tests/_support/memory_pair.ts";
import { randomValue } from "../tests/_support/random_value.ts";
import { Rng } from "../tests/_support/rng.ts";
import {
  concat,
  ScriptedPeer,
  T,
  typeName,
} from "../tests/_support/scripted_peer.ts";
import { within } from "../tests/_support/within.ts";
import { CLIENT_STATES, SERVER_STATES, type State } from "./fuzz_states.ts";
import vectors from "../tests/testdata/rfc8949_appendix_a.json" with {
  type: "json",
};

type Bytes = Uint8Array<ArrayBuffer>;

/** Something that takes any bytes. */
export interface Target {
  /** Its name. */
  name: string;
  /** Where the frames of its inputs begin; -1: they aren't frames. */
  framesFrom: number;
  /** Inputs to start from. */
  seeds(): Bytes[];
  /**
   * Runs an input.
   *
   * @returns What became of it, in few words: inputs with an outcome that is
   * new join the corpus.
   * @throws {Error} If a rule is broken.
   */
  run(input: Bytes): string | Promise<string>;
}

/** No single input may take so long, in ms. */
const DEADLINE_MS = 8000;
/** Nor keep a decoder busy for so long. */
const DECODE_MS = 1000;

/** What a decoder may throw, as an outcome; everything else is a finding. */
function refusal(error: unknown): string {
  if (
    error instanceof DecodeError || error instanceof ProtocolError ||
    error instanceof HandshakeError
  ) return `${error.name}: ${plain(error.message)}`;
  throw error;
}

/** A text without what makes each one different. */
function plain(text: string): string {
  return text.replaceAll(/"(?:[^"\\]|\\.)*"?/g, '"…"').replaceAll(/\d+/g, "#")
    .replaceAll(/#(, #)+/g, "#").replaceAll(/[^ -~…]/g, "?").slice(0, 120);
}

const codec: Target = {
  name: "codec",
  framesFrom: -1,
  seeds() {
    const rng = new Rng(1);
    const seeds = vectors.map(({ hex }) => Uint8Array.fromHex(hex));
    for (let i = 0; i < 40; i++) {
      seeds.push(cbor().encode(randomValue(rng)).slice());
    }
    return seeds;
  },
  run(input) {
    const from = performance.now();
    let value: unknown, refused: unknown;
    try {
      value = cbor().decode(input);
    } catch (error) {
      refused = error;
    }
    const ms = performance.now() - from;
    if (ms > DECODE_MS) throw new Error(`decoding took ${Math.round(ms)} ms`);
    if (refused !== undefined) return refusal(refused);
    // What could be read can be written, and reads the same again.
    const bytes = cbor().encode(value).slice();
    const again = cbor().encode(cbor().decode(bytes)).slice();
    if (bytes.toHex() !== again.toHex()) {
      throw new Error(
        `Written again it is another: ${bytes.toHex()}, ${again.toHex()}`,
      );
    }
    return `a ${Object.prototype.toString.call(value).slice(8, -1)}`;
  },
};

const frames: Target = {
  name: "frames",
  framesFrom: 1,
  seeds: () => [
    concat([Uint8Array.of(255), ...goldenBlocks().map((b) => b.bytes)]),
    ...goldenBlocks().map(({ bytes }) => concat([Uint8Array.of(9), bytes])),
  ],
  run(input) {
    const limit = (input[0] ?? 0) * 16;
    const bytes = input.subarray(1);
    const whole = cut(bytes, limit, () => bytes.length);
    const rng = new Rng(bytes.length);
    for (const size of [() => 1, () => rng.int(1, 100)]) {
      const other = cut(bytes, limit, size);
      if (other !== whole) {
        throw new Error(`Split it reads as ${other}, whole as ${whole}`);
      }
    }
    const [found, ...end] = whole.split(" ");
    const count = Math.min(8, found === "" ? 0 : found!.split(",").length);
    return `${count} frames ${plain(end.join(" "))}`;
  },
};

/** What may come of a frame that transforms undo, in bytes. */
const UNDONE_BYTES = 64 * 1024;
const KEY = new Uint8Array(32).fill(1);

/**
 * The first byte says what the rest is: below 128 a body for gzip to undo, else
 * what `aesGcm` seals, of which a byte is changed if that byte is odd.
 */
const transforms: Target = {
  name: "transforms",
  framesFrom: -1,
  seeds: () =>
    ["", "text", "text".repeat(1000), "\0".repeat(1 << 20)].flatMap((text) => [
      concat([Uint8Array.of(0), new Uint8Array(gzipSync(text))]),
      concat([Uint8Array.of(254), utf8(text.slice(0, 100))]),
      concat([Uint8Array.of(255), utf8(text.slice(0, 100))]),
    ]),
  run: (input) => within(transform(input), DEADLINE_MS, "transforms"),
};

function utf8(text: string): Bytes {
  return new TextEncoder().encode(text);
}

async function transform(input: Bytes): Promise<string> {
  const [kind = 0] = input, body = input.subarray(1);
  const isGzip = kind < 128, isChanged = !isGzip && kind % 2 === 1;
  const [client, server] = (["client", "server"] as const).map((role) =>
    new TransformChain([isGzip ? gzip() : aesGcm(KEY)], {
      role,
      sessionId: new Uint8Array(32),
      maxBytes: UNDONE_BYTES,
    })
  ) as [TransformChain, TransformChain];
  const sealed = isGzip ? body : (await client.encode(body)).slice();
  if (isChanged) sealed[kind * body.length % sealed.length]! ^= kind;
  let undone: Uint8Array;
  try {
    undone = await server.decode(sealed);
  } catch (error) {
    if (!(error instanceof TransformError)) throw error;
    if (isGzip || isChanged) return plain(error.message);
    throw new Error("What was sealed can't be undone", { cause: error });
  }
  if (isChanged) throw new Error("What was changed was undone");
  if (undone.length > UNDONE_BYTES) {
    throw new Error(`${undone.length} bytes came, limit is ${UNDONE_BYTES}`);
  }
  const again = isGzip
    ? await server.decode(await client.encode(undone))
    : body;
  if (undone.toHex() !== again.toHex()) {
    throw new Error(`Done again it is another: ${again.toHex()}`);
  }
  return `${isGzip ? "gzip" : "aesGcm"} ${Math.min(99, undone.length)} bytes`;
}

/** The frames that a decoder finds, and how it ends, as text. */
function cut(bytes: Uint8Array, limit: number, size: () => number): string {
  const decoder = new FrameDecoder(limit);
  const found: string[] = [];
  try {
    for (let at = 0; at < bytes.length;) {
      const space = decoder.space();
      if (space.length === 0) throw new Error("there is no space to read into");
      const part = bytes.subarray(at, at + Math.min(size(), space.length));
      space.set(part);
      decoder.advance(part.length);
      at += part.length;
      while (decoder.next()) {
        const length = decoder.end - decoder.start;
        if (length > limit || decoder.end > decoder.bytes.length) {
          throw new Error(`a frame of ${length} bytes, limit is ${limit}`);
        }
        found.push(decoder.bytes.slice(decoder.start, decoder.end).toHex());
      }
      const room = Math.max(256 * 1024, 2 * limit);
      if (decoder.bytes.length > room) {
        throw new Error(`${decoder.bytes.length} bytes for ${bytes.length}`);
      }
    }
    return `${found.join()} ${decoder.partial ? "and a part" : "and no more"}`;
  } catch (error) {
    return `${found.join()} ${refusal(error)}`;
  }
}

const handshake: Target = {
  name: "handshake",
  framesFrom: -1,
  seeds: () =>
    goldenBlocks().filter(({ name }) =>
      /^(HELLO|WELCOME|REJECT|aes [12])/.test(name)
    ).map(({ bytes }) => bytes.slice(4)),
  run(input) {
    const reader = new CborDecoder();
    const terms = { signature: "distchan", codec: "cbor", transforms: [] };
    try {
      reader.set(input, 0, input.length);
      switch (reader.readUint()) {
        case T.HELLO: {
          const hello = readHello(reader);
          reader.finish();
          checkTerms(hello, terms);
          return `HELLO ${hello.auth} ${hello.name.length > 0}`;
        }
        case T.WELCOME: {
          const welcome = readWelcome(reader);
          reader.finish();
          checkTerms(terms, welcome);
          return `WELCOME ${welcome.results}`;
        }
        default:
          return `REJECT ${readReject(reader).code}`;
      }
    } catch (error) {
      return refusal(error);
    }
  },
};

/** Seeds of all states: the number of the state, then its frames. */
function stateSeeds(states: readonly State[], modes = 1): Bytes[] {
  return states.flatMap(({ seeds }, i) =>
    seeds.flatMap((frames) =>
      Array.from(
        { length: modes },
        (_, mode) =>
          concat([Uint8Array.of(i + states.length * mode), ...frames]),
      )
    )
  );
}

const server: Target = {
  name: "server",
  framesFrom: 1,
  seeds: () => stateSeeds(SERVER_STATES),
  run: (input) => within(runServer(input), DEADLINE_MS, "the server goes on"),
};

/** Whatever one connection says: every item settles, and the server ends. */
async function runServer(input: Bytes): Promise<string> {
  const state = SERVER_STATES[(input[0] ?? 0) % SERVER_STATES.length]!;
  const { options = {}, isEnded = false } = state;
  const told: string[] = [];
  const listener = new MemoryListener();
  const server = new Server<unknown, unknown>(listener, {
    ...options,
    maxFrameBytes: 16 * 1024,
    maxDeliveries: Infinity,
    onFailure: () => {},
    onEvent: (event) => {
      if (event.type === "rejected" || event.type === "disconnected") {
        told.push(`${event.type} ${event.code} ${plain(event.reason)}`);
      }
    },
  });
  const calls: Promise<unknown>[] = [];
  if (!isEnded) {
    server.send("one");
    server.send({ two: 2 });
    for (const item of [3, "four"]) {
      calls.push(
        server.submit(item).catch((error) => {
          if (!(error instanceof ItemFailure)) throw error;
        }),
      );
    }
  }
  const read = Array.fromAsync(server);
  read.catch(() => {});
  const peer = new ScriptedPeer(listener.connect());
  await state.reach(peer);
  if (isEnded) {
    server.end();
    await peer.until(T.END);
  }
  const from = peer.frames.length;
  if (await peer.send(input.subarray(1))) await peer.conn.closeWrite();
  const answers = (await peer.rest()).length;
  const types = peer.frames.slice(from, from + answers).map((f) => f.type);
  peer.close();

  // One that has ended is over with its last worker.
  const working = isEnded ? null : workAt(listener, options);
  await working?.opened;
  await Promise.all(calls);
  await server.close({ drainMs: DEADLINE_MS });
  await working?.done;
  await read;
  const { pending, inFlight } = server.stats();
  if (pending !== 0 || inFlight !== 0) {
    throw new Error(`${pending} items wait, ${inFlight} are in flight`);
  }
  return `${state.name}: ${told[0]} ${
    [...new Set(types)].map(typeName).join(" ")
  }`;
}

function workAt(
  listener: MemoryListener,
  options: ClientOptions,
): { opened: Promise<void>; done: Promise<void> } {
  const worker = new Client<unknown, unknown>(listener.connect(), options);
  return { opened: worker.opened, done: worker.work((item) => item) };
}

const CLIENT_MODES = ["iterate", "readable", "work", "work async", "send"];

const client: Target = {
  name: "client",
  framesFrom: 1,
  seeds: () => stateSeeds(CLIENT_STATES, CLIENT_MODES.length),
  run: (input) => within(runClient(input), DEADLINE_MS, "the client ends"),
};

/** Whatever the server says: every promise of the client settles. */
async function runClient(input: Bytes): Promise<string> {
  const number = input[0] ?? 0;
  const state = CLIENT_STATES[number % CLIENT_STATES.length]!;
  const mode = CLIENT_MODES[
    Math.floor(number / CLIENT_STATES.length) % CLIENT_MODES.length
  ]!;
  const [peer, conn] = ScriptedPeer.pair();
  const client = new Client<unknown, unknown>(conn, {
    ...state.options,
    maxFrameBytes: 16 * 1024,
  });
  const used = use(client, mode).then(() => "fine", describe);
  await state.reach(peer);
  const from = peer.frames.length;
  if (await peer.send(input.subarray(1))) await peer.conn.closeWrite();
  const answers = (await peer.rest()).length;
  peer.close();
  const types = peer.frames.slice(from, from + answers).map((f) => f.type);
  const opened = await client.opened.then(() => "opened", describe);
  const closed = await client.closed.then(() => "closed", describe);
  const outcome = await used;
  return `${state.name}, ${mode}: ${opened} ${closed} ${outcome} ${
    [...new Set(types)].map(typeName).join(" ")
  }`;
}

async function use(client: Client, mode: string): Promise<void> {
  switch (mode) {
    case "iterate":
      for await (const item of client) await client.send(item);
      await client.end();
      break;
    case "readable":
      await client.readable.pipeTo(client.writable);
      break;
    case "work":
      await client.work((item) => item);
      break;
    case "work async":
      await client.work(async (item, { signal }) => {
        await Promise.resolve();
        signal.throwIfAborted();
        return item;
      }, { concurrency: 3 });
      break;
    default:
      for (let i = 0; i < 5; i++) await client.send(i);
      await client.end();
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) throw new Error(`${error} was thrown`);
  const { code = "" } = error as { code?: string };
  return `${error.name} ${code} ${plain(error.message)}`;
}

/** All that is fuzzed. */
export const TARGETS: readonly Target[] = [
  codec,
  frames,
  transforms,
  handshake,
  server,
  client,
];
