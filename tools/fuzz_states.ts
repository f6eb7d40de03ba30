/**
 * The states of a connection that are fuzzed, at either end: how each is
 * reached, and what may come in it.
 *
 * @module
 */

import { gzipSync } from "node:zlib";
import { gzip, type StandardSchemaV1, type Transform } from "../mod.ts";
import { Transcript } from "../internal/handshake.ts";
import type { ClientOptions } from "../internal/options.ts";
import { goldenBlocks } from "../tests/_support/golden.ts";
import {
  frame,
  framed,
  payload,
  type ScriptedPeer,
  sequence,
  T,
} from "../tests/_support/scripted_peer.ts";

type Bytes = Uint8Array<ArrayBuffer>;

const SECRET = "fuzz";

/** Bytes that stay as they are: for the states that transforms bring. */
const same: Transform = {
  name: "same",
  open: () => ({ encode: (bytes) => bytes, decode: (bytes) => bytes }),
};

/** What a server receives is inflated; what it sends stays as it is. */
const inflate: Transform = {
  name: "inflate",
  open(context) {
    const { encode, decode } = gzip().open(context);
    return context.role === "server"
      ? { encode: (bytes) => bytes, decode }
      : { encode, decode: (bytes) => bytes };
  },
};

/** A schema that takes its time, and anything but null. */
const picky: StandardSchemaV1 = {
  "~standard": {
    version: 1,
    vendor: "fuzz",
    validate: async (value) => {
      await Promise.resolve();
      return value === null ? { issues: [{ message: "null" }] } : { value };
    },
  },
};

/** A frame whose body is compressed. */
function deflated(frame: Bytes): Bytes {
  return framed(new Uint8Array(gzipSync(frame.subarray(4))));
}

/** Shakes hands with a server, as far as CONFIRM; returns what goes into it. */
async function confirmation(
  peer: ScriptedPeer,
  transform: string,
): Promise<Uint8Array> {
  const fields = { transforms: [transform] };
  const hello = peer.hello(fields);
  await peer.handshake({ fields });
  const transcript = new Transcript(null);
  transcript.add(sequence(T.HELLO, "distchan", 1, hello));
  transcript.add(peer.frames.at(-1)!.body);
  return transcript.digest("client");
}

/** A state of a connection: how it is reached, and what may come in it. */
export interface State {
  /** Its name. */
  name: string;
  /** Options of both ends. */
  options?: Pick<
    ClientOptions,
    "secret" | "transforms" | "itemSchema" | "resultSchema"
  >;
  /** Whether the server has no items, and then says END. */
  isEnded?: boolean;
  /** Brings the other end of the connection there. */
  reach(peer: ScriptedPeer): Promise<void>;
  /** Frames that are right, or nearly. */
  seeds: Bytes[][];
}

const PROOF = frame(T.PROOF, new Uint8Array(32));
const GOODBYE = frame(T.GOODBYE, 0, "");
const helloFrames = goldenBlocks().filter(({ name }) =>
  /^HELLO|^(secret|aes) \d worker/.test(name)
).map(({ bytes }) => bytes);

/** The states of the server's end. */
export const SERVER_STATES: readonly State[] = [
  {
    name: "accepted",
    reach: () => Promise.resolve(),
    seeds: helloFrames.map((hello) => [hello, frame(T.CREDIT, 1, 1, 4, 0)]),
  },
  {
    name: "accepted, secret",
    options: { secret: SECRET },
    reach: () => Promise.resolve(),
    seeds: helloFrames.map((hello) => [hello, PROOF]),
  },
  {
    name: "challenged",
    options: { secret: SECRET },
    async reach(peer) {
      await peer.say(T.HELLO, "distchan", 1, peer.hello({ auth: true }));
      await peer.expect(T.CHALLENGE);
    },
    seeds: [[PROOF], [GOODBYE], helloFrames],
  },
  {
    name: "to confirm",
    options: { transforms: [same] },
    async reach(peer) {
      await peer.handshake({ fields: { transforms: ["same"] } });
    },
    seeds: [[frame(T.CONFIRM, new Uint8Array(32))], [PROOF]],
  },
  {
    name: "transformed",
    options: { transforms: [same] },
    async reach(peer) {
      await peer.say(T.CONFIRM, await confirmation(peer, "same"));
      await peer.expect(T.CONFIRM);
    },
    seeds: [[frame(T.PING, 1), frame(T.CREDIT, 1, 1, 4, 0)]],
  },
  {
    name: "inflated",
    options: { transforms: [inflate] },
    async reach(peer) {
      const digest = await confirmation(peer, "inflate");
      await peer.say(T.CONFIRM, new Uint8Array(gzipSync(digest)));
      await peer.expect(T.CONFIRM);
    },
    seeds: [
      [
        frame(T.CREDIT, 1, 1, 4, 0),
        frame(T.RESULT, 0, payload("a"), 1, payload("b".repeat(5000))),
      ].map(deflated),
      [deflated(frame(T.VALUE, payload(new Uint8Array(1 << 20))))],
    ],
  },
  {
    name: "open",
    reach: async (peer) => void await peer.handshake(),
    seeds: [
      [frame(T.CREDIT, 1, 2, 8, 1), frame(T.RESULT, 0, payload("early"))],
      [frame(T.CREDIT, 0, 1, 8, 0), frame(T.ACK, 0)],
      [frame(T.VALUE, payload(1), payload([2])), frame(T.PING, 7), GOODBYE],
      [frame(T.PONG, 1), frame(T.LEAVE)],
    ],
  },
  {
    name: "work",
    async reach(peer) {
      await peer.join("work", { window: 8 });
      await peer.until(T.ITEM);
    },
    seeds: [
      [
        frame(T.RESULT, 0, payload("a"), 1, payload({ b: [1, 2.5, null] })),
        frame(T.DONE, 2),
        frame(T.ERROR, 3, "TypeError", "no", ["E", "why", null], null),
        GOODBYE,
      ],
      [frame(T.LEAVE, 1, 2), frame(T.RESULT, 0, payload(1)), GOODBYE],
      [frame(T.VALUE, payload("v")), frame(T.DONE, 0), frame(T.LEAVE)],
      [frame(T.GOODBYE, 1, "aborted"), frame(T.RESULT, 0, payload(1))],
      [frame(T.CREDIT, 1, 3, 2, 0), frame(T.PING, 9), frame(T.PONG, 1)],
      [frame(T.ERROR, 0, "E", "m", null, "stack\n at x")],
    ],
  },
  {
    name: "work, schemas",
    options: { itemSchema: picky, resultSchema: picky },
    async reach(peer) {
      await peer.join("work", { window: 8 });
      await peer.until(T.ITEM);
    },
    seeds: [
      [frame(T.RESULT, 0, payload("a"), 1, payload(null)), frame(T.DONE, 2)],
      [frame(T.VALUE, payload(null), payload(1)), frame(T.LEAVE, 1), GOODBYE],
    ],
  },
  {
    name: "ended",
    isEnded: true,
    async reach(peer) {
      await peer.join("work", { window: 8 });
    },
    seeds: [
      [frame(T.VALUE, payload("late")), frame(T.PING, 1), GOODBYE],
      [frame(T.CREDIT, 1, 2, 9, 1), frame(T.LEAVE), frame(T.GOODBYE, 1, "no")],
    ],
  },
  {
    name: "stream",
    async reach(peer) {
      await peer.join("stream", { window: 8 });
      await peer.until(T.ITEM);
    },
    seeds: [
      [frame(T.VALUE, payload("v"), payload("w")), frame(T.ACK, 1), GOODBYE],
      [frame(T.ACK, 0), frame(T.ERROR, 1, "E", "m", null, null)],
      [frame(T.LEAVE, 0, 1), GOODBYE],
    ],
  },
];

const welcomeFrames = goldenBlocks().filter(({ name }) =>
  /^(WELCOME|REJECT)|^(secret|aes) \d server/.test(name)
).map(({ bytes }) => bytes);

function item(first: number, kind: number, ...values: unknown[]): Bytes {
  const fields = values.flatMap((value, i) => [first + i, payload(value)]);
  return frame(T.ITEM, 1, kind, first, ...fields);
}

/** The states of the client's end. */
export const CLIENT_STATES: readonly State[] = [
  {
    name: "connected",
    reach: async (peer) => void await peer.expect(T.HELLO),
    seeds: welcomeFrames.map((f) => [f, item(0, 0, 1), GOODBYE]),
  },
  {
    name: "connected, secret",
    options: { secret: SECRET },
    reach: async (peer) => void await peer.expect(T.HELLO),
    seeds: [welcomeFrames, ...welcomeFrames.map((f) => [f, PROOF])],
  },
  {
    name: "proven",
    options: { secret: SECRET },
    async reach(peer) {
      await peer.expect(T.HELLO);
      await peer.say(T.CHALLENGE, peer.nonce);
      await peer.expect(T.PROOF);
    },
    seeds: welcomeFrames.map((f) => [f, PROOF]),
  },
  {
    name: "to confirm",
    options: { transforms: [same] },
    async reach(peer) {
      await peer.expect(T.HELLO);
      await peer.say(T.WELCOME, 1, peer.welcome({ transforms: ["same"] }));
      await peer.expect(T.CONFIRM);
    },
    seeds: [[frame(T.CONFIRM, new Uint8Array(32))], welcomeFrames],
  },
  {
    name: "transformed",
    options: { transforms: [same] },
    async reach(peer) {
      const { body } = await peer.expect(T.HELLO);
      const welcome = peer.welcome({ transforms: ["same"] });
      await peer.say(T.WELCOME, 1, welcome);
      await peer.expect(T.CONFIRM);
      const transcript = new Transcript(null);
      transcript.add(body);
      transcript.add(sequence(T.WELCOME, 1, welcome));
      await peer.say(T.CONFIRM, transcript.digest("server"));
    },
    seeds: [
      [item(0, 0, 1), frame(T.END), GOODBYE],
      [item(0, 1, [3]), frame(T.GOODBYE, 7, "transforms")],
    ],
  },
  {
    name: "open, schema",
    options: { itemSchema: picky },
    reach: async (peer) => void await peer.greet(),
    seeds: [[item(0, 0, 1, null, "two"), frame(T.END), GOODBYE]],
  },
  {
    name: "open",
    reach: async (peer) => void await peer.greet(),
    seeds: [
      [item(0, 0, 1, "two"), item(2, 1, [3]), frame(T.CREDIT, 9, 999)],
      [item(0, 0, 1), frame(T.CANCEL, 0), frame(T.END), GOODBYE],
      [frame(T.PING, 3), frame(T.PONG, 1), frame(T.END), GOODBYE],
      [frame(T.CREDIT, 100, 100_000), frame(T.GOODBYE, 1, "stop")],
      [frame(T.GOODBYE, 2, "protocol"), item(0, 0, 1)],
      [item(0, 1, { a: [1, 2, { b: null }] }, "x", -1, 2.5), frame(T.END)],
    ],
  },
];
