/**
 * Every rule of PROTOCOL.md section 9 is broken, by a peer that speaks frames
 * by hand. It is told why, its connection ends, and nothing else happens: the
 * other worker goes on, and no item is lost. The other way round a client ends
 * with an error that says what its server did.
 */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertLess,
  assertMatch,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  Client,
  type ClientOptions,
  ConnectionLostError,
  DecodeError,
  HandshakeError,
  ItemFailure,
  PoisonItemError,
  ProtocolError,
  Server,
  type ServerEvent,
  type ServerOptions,
  type Transform,
} from "../mod.ts";
import { cbor } from "../codec.ts";
import { both, listenOn, type Net } from "./_support/channel_kit.ts";
import { MemoryListener, memoryPair } from "./_support/memory_pair.ts";
import {
  concat,
  frame,
  framed,
  payload,
  readFrame,
  ScriptedPeer,
  sequence,
  T,
} from "./_support/scripted_peer.ts";
import { moment, until, within } from "./_support/within.ts";

/** The codes of REJECT, by name. */
const REJECT = {
  signature: 1,
  version: 2,
  codec: 3,
  transforms: 4,
  auth: 5,
  full: 6,
  timeout: 7,
  protocol: 8,
};
const GOODBYE_PROTOCOL = 2, GOODBYE_TRANSFORMS = 4;
const MIB = 1024 * 1024;

/** Bytes of nested arrays: a few bytes that cost a careless reader its stack. */
const BOMB = new Uint8Array(3000).fill(0x81);
/** What isn't CBOR at all. */
const GARBAGE = new Uint8Array(64).fill(0xff);

/** A transform whose output begins with a mark that its undoing asks for. */
const marked: Transform = {
  name: "marked",
  open: () => ({
    encode: (bytes) => concat([new Uint8Array([0x7f]), bytes]),
    decode: (bytes) => {
      if (bytes[0] !== 0x7f) throw new Error("the mark is missing");
      return bytes.slice(1);
    },
  }),
};

// --- A hostile worker against a server ---

interface Attack {
  /** The rule that is broken, and how. */
  name: string;
  /** What the server is like. */
  options?: ServerOptions<number, number>;
  /** As what the peer joins first; "raw": not even a HELLO. */
  as: "raw" | "work" | "stream" | "idle";
  /** Breaks the rule. */
  act(
    peer: ScriptedPeer,
    deliveries: number[],
    result: Uint8Array,
  ): Promise<unknown>;
  /** What the server answers: the frame's type, its code, its reason. */
  told: [type: number, code: number, reason: RegExp];
}

const rejected = (code: number, reason: RegExp): Attack["told"] => [
  T.REJECT,
  code,
  reason,
];
const dropped = (reason: RegExp, code = GOODBYE_PROTOCOL): Attack["told"] => [
  T.GOODBYE,
  code,
  reason,
];

const text = (value: string) => new TextEncoder().encode(value);
const zero = new Uint8Array(4);

/** The length of a frame that never comes. */
function announced(length: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, length);
  return bytes;
}

/** A HELLO with other fields. */
const hello = (peer: ScriptedPeer, fields: Record<string, unknown>) =>
  peer.say(T.HELLO, "distchan", 1, peer.hello(fields));

const PROTOCOL = REJECT.protocol;

const attacks: Attack[] = [
  // R1 and R2, before the handshake and after it.
  {
    name: "R1 a length of 0 in place of HELLO",
    as: "raw",
    act: (peer) => peer.send(zero),
    told: rejected(PROTOCOL, /length is 0/),
  },
  {
    name: "R1 a length of 0",
    as: "work",
    act: (peer) => peer.send(zero),
    told: dropped(/length is 0/),
  },
  {
    name: "R2 an HTTP request",
    as: "raw",
    act: (peer) => peer.send(text("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")),
    told: rejected(PROTOCOL, /length is 1195725856, limit is 4096/),
  },
  {
    name: "R2 a TLS handshake",
    as: "raw",
    act: (peer) =>
      peer.send(new Uint8Array([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])),
    told: rejected(PROTOCOL, /limit is 4096/),
  },
  {
    name: "R2 the largest length there is, in place of HELLO",
    as: "raw",
    act: (peer) => peer.send(announced(0xffff_ffff)),
    told: rejected(PROTOCOL, /length is 4294967295, limit is 4096/),
  },
  {
    name: "R2 a HELLO of 4097 bytes",
    as: "raw",
    act: (peer) => peer.send(announced(4097)),
    told: rejected(PROTOCOL, /length is 4097, limit is 4096/),
  },
  {
    name: "R2 a frame above maxFrameBytes",
    as: "work",
    options: { maxFrameBytes: 64 * 1024 },
    act: (peer) => peer.send(announced(64 * 1024 + 1)),
    told: dropped(/length is 65537, limit is 65536/),
  },
  {
    name: "R2 the largest length there is",
    as: "stream",
    act: (peer) => peer.send(announced(0xffff_ffff)),
    told: dropped(/length is 4294967295, limit is 4194304/),
  },
  // R3
  {
    name: "R3 more than 4 KiB before the handshake is done",
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await hello(peer, { auth: true, name: "x".repeat(3000) });
      await peer.expect(T.CHALLENGE);
      await peer.send(announced(4000), new Uint8Array(1200));
    },
    told: rejected(PROTOCOL, /bytes came, limit is 4096/),
  },
  // R4: see also tests/transforms_test.ts.
  {
    name: "R4 a frame that the transforms can't undo",
    as: "raw",
    options: { transforms: [marked] },
    act: async (peer) => {
      await joinMarked(peer);
      await peer.send(frame(T.CREDIT, 1, 1, 1, 0)); // as it is
    },
    told: dropped(/the mark is missing/, GOODBYE_TRANSFORMS),
  },
  {
    name: "R4 a CONFIRM with another digest",
    as: "raw",
    options: { transforms: [marked] },
    act: async (peer) => {
      await hello(peer, { transforms: ["marked"] });
      await peer.expect(T.WELCOME);
      await peer.say(T.CONFIRM, new Uint8Array(33).fill(0x7f));
    },
    told: rejected(REJECT.transforms, /not undone/),
  },
  // R5
  ...[0, 7, 18, 99, 2 ** 40].map((type): Attack => ({
    name: `R5 a frame of type ${type}`,
    as: "work",
    act: (peer) => peer.say(type),
    told: dropped(
      new RegExp(`Cannot take frame of type ${type} from a worker`),
    ),
  })),
  ...([
    "WELCOME",
    "REJECT",
    "ITEM",
    "CANCEL",
    "END",
    "CHALLENGE",
    "PROOF",
  ] as const)
    .map((type): Attack => ({
      name: `R5 ${type} from a worker`,
      as: "idle",
      act: (peer) => peer.say(T[type]),
      told: dropped(new RegExp(`Cannot take ${type} from a worker`)),
    })),
  {
    name: "R5 a second HELLO",
    as: "work",
    act: (peer) => hello(peer, {}),
    told: dropped(/Cannot take HELLO/),
  },
  {
    name: "R5 a text in place of the type",
    as: "work",
    act: (peer) => peer.say("RESULT" as unknown as number),
    told: dropped(/expected an unsigned integer, got a text string/),
  },
  {
    name: "R5 garbage",
    as: "work",
    act: (peer) => peer.send(framed(GARBAGE)),
    told: dropped(/expected an unsigned integer/),
  },
  {
    name: "R5 garbage in place of HELLO",
    as: "raw",
    act: (peer) => peer.send(framed(GARBAGE)),
    told: rejected(PROTOCOL, /expected an unsigned integer/),
  },
  // R6
  {
    name: "R6 a HELLO cut short",
    as: "raw",
    act: (peer) => peer.send(framed(sequence(T.HELLO, "distchan", 1))),
    told: rejected(PROTOCOL, /ends too early/),
  },
  {
    name: "R6 a nested bomb as HELLO's map",
    as: "raw",
    act: (peer) =>
      peer.send(framed(concat([sequence(T.HELLO, "distchan", 1), BOMB]))),
    told: rejected(PROTOCOL, /nested too deep/),
  },
  {
    name: "R6 a RESULT without a payload",
    as: "work",
    act: (peer, [first]) => peer.say(T.RESULT, first),
    told: dropped(/ends too early/),
  },
  {
    name: "R6 a RESULT whose payload is longer than the frame",
    as: "work",
    act: (peer, [first]) =>
      peer.send(
        framed(concat([
          sequence(T.RESULT, first),
          new Uint8Array([0x5b, 0, 0, 0, 9, 0, 0, 0, 0]),
        ])),
      ),
    told: dropped(/ends too early/),
  },
  {
    name: "R6 a RESULT with a number as payload",
    as: "work",
    act: (peer, [first]) => peer.say(T.RESULT, first, 5),
    told: dropped(/expected a byte string, got an unsigned integer/),
  },
  {
    name: "R6 a payload of indefinite length",
    as: "work",
    act: (peer, [first]) =>
      peer.send(
        framed(concat([
          sequence(T.RESULT, first),
          new Uint8Array([0x5f, 0x41, 0, 0xff]),
        ])),
      ),
    told: dropped(/length is indefinite/),
  },
  {
    name: "R6 a negative delivery",
    as: "work",
    act: (peer) => peer.say(T.RESULT, -1, payload(1)),
    told: dropped(/expected an unsigned integer, got a negative integer/),
  },
  {
    name: "R6 a delivery past 2^53",
    as: "work",
    act: (peer) =>
      peer.send(
        framed(concat([
          sequence(T.DONE),
          new Uint8Array(9).fill(0xff).fill(0x1b, 0, 1),
        ])),
      ),
    told: dropped(/larger than 2\^53/),
  },
  {
    name: "R6 an ERROR whose name is a number",
    as: "work",
    act: (peer, [first]) => peer.say(T.ERROR, first, 1, "bad", null, null),
    told: dropped(/expected a text string/),
  },
  {
    name: "R6 an ERROR whose stack is a number",
    as: "work",
    act: (peer, [first]) => peer.say(T.ERROR, first, "E", "bad", null, 1),
    told: dropped(/null or a text as stack, got /),
  },
  {
    name: "R6 a nested bomb as an ERROR's cause",
    as: "work",
    act: (peer, [first]) =>
      peer.send(framed(concat([sequence(T.ERROR, first, "E", "bad"), BOMB]))),
    told: dropped(/nested too deep/),
  },
  {
    name: "R6 an ERROR whose text is no UTF-8",
    as: "work",
    act: (peer, [first]) =>
      peer.send(
        framed(
          concat([sequence(T.ERROR, first), new Uint8Array([0x61, 0xff])]),
        ),
      ),
    told: dropped(/not valid UTF-8/),
  },
  ...([
    ["CREDIT", [1, 1]],
    ["PING", []],
    ["PONG", []],
    ["VALUE", []],
    ["DONE", []],
    ["GOODBYE", [0]],
  ] as const).map(([type, fields]): Attack => ({
    name: `R6 a ${type} cut short`,
    as: "work",
    act: (peer) => peer.say(T[type], ...fields),
    told: dropped(new RegExp(`^Cannot read ${type}: .* ends too early`)),
  })),
  // R7
  {
    name: "R7 bytes behind HELLO",
    as: "raw",
    act: (peer) => peer.say(T.HELLO, "distchan", 1, peer.hello(), 0),
    told: rejected(PROTOCOL, /^Cannot read HELLO: .* 1 bytes follow/),
  },
  {
    name: "R7 bytes behind PROOF",
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await hello(peer, { auth: true });
      await peer.expect(T.CHALLENGE);
      await peer.say(T.PROOF, new Uint8Array(32), null);
    },
    told: rejected(PROTOCOL, /1 bytes follow/),
  },
  {
    name: "R7 bytes behind CONFIRM",
    as: "raw",
    options: { transforms: [marked] },
    act: async (peer) => {
      await hello(peer, { transforms: ["marked"] });
      await peer.expect(T.WELCOME);
      await peer.say(T.CONFIRM, new Uint8Array(33), null);
    },
    told: rejected(PROTOCOL, /1 bytes follow/),
  },
  ...([
    ["CREDIT", [1, 1, 64, 0, 0]],
    ["PING", [1, 1]],
    ["PONG", [1, 1]],
    ["GOODBYE", [0, "", ""]],
  ] as const).map(([type, fields]): Attack => ({
    name: `R7 bytes behind ${type}`,
    as: "work",
    act: (peer) => peer.say(T[type], ...fields),
    told: dropped(new RegExp(`^Cannot read ${type}: .* 1 bytes follow`)),
  })),
  {
    name: "R7 bytes behind ACK",
    as: "stream",
    act: (peer, [first]) => peer.say(T.ACK, first, first),
    told: dropped(/1 bytes follow/),
  },
  {
    name: "R7 bytes behind ERROR",
    as: "work",
    act: (peer, [first]) => peer.say(T.ERROR, first, "E", "bad", null, null, 1),
    told: dropped(/1 bytes follow/),
  },
  // R8
  {
    name: "R8 CREDIT in place of HELLO",
    as: "raw",
    act: (peer) => peer.say(T.CREDIT, 1, 1, 1, 0),
    told: rejected(PROTOCOL, /Expected HELLO, got CREDIT/),
  },
  {
    name: "R8 another protocol's magic",
    as: "raw",
    act: (peer) => peer.say(T.HELLO, "yamux", 1, peer.hello()),
    told: rejected(PROTOCOL, /expected "distchan", got "yamux"/),
  },
  {
    name: "R8 HELLO in place of PROOF",
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await hello(peer, { auth: true });
      await peer.expect(T.CHALLENGE);
      await hello(peer, { auth: true });
    },
    told: rejected(PROTOCOL, /Expected PROOF, got HELLO/),
  },
  // R9
  {
    name: "R9 version 2",
    as: "raw",
    act: (peer) => peer.say(T.HELLO, "distchan", 2, { other: "terms" }),
    told: rejected(REJECT.version, /speaks version 1 .* speaks 2/),
  },
  // R10
  ...([
    ["a nonce of 15 bytes", { nonce: new Uint8Array(15) }, /as nonce, got 15/],
    ["no nonce", { nonce: undefined }, /as nonce, got undefined/],
    ["a text as nonce", { nonce: "0123456789abcdef" }, /16 bytes as nonce/],
    ["no instance", { instance: undefined }, /16 bytes as instance/],
    ["a number as name", { name: 7 }, /a text as name/],
    ["a number as auth", { auth: 1 }, /a boolean as auth, got number/],
    ["null as trace", { trace: null }, /a boolean as trace, got null/],
    ["no codec", { codec: undefined }, /a text as codec/],
    ["no signature", { signature: undefined }, /a text as signature/],
    ["no transforms", { transforms: undefined }, /transforms, got undefined/],
    ["numbers as transforms", { transforms: [1] }, /a list of texts/],
    ["no maxFrameBytes", { maxFrameBytes: undefined }, /as maxFrameBytes/],
    ["a maxFrameBytes of 1023", { maxFrameBytes: 1023 }, /1024 to 4294967295/],
    ["a maxFrameBytes of 2^32", { maxFrameBytes: 2 ** 32 }, /got 4294967296/],
    ["a float as maxFrameBytes", { maxFrameBytes: 5000.5 }, /got 5000.5/],
  ] as const).map(([what, fields, reason]): Attack => ({
    name: `R10 HELLO with ${what}`,
    as: "raw",
    act: (peer) => hello(peer, fields),
    told: rejected(PROTOCOL, reason),
  })),
  ...([
    ["an array", "80", "a list"],
    ["null", "f6", "null"],
    ["a map with a number as key", "a10102", "other keys"],
    ["a date", "c100", "object"],
  ] as const).map(([what, map, got]): Attack => ({
    name: `R10 HELLO with ${what} in place of the map`,
    as: "raw",
    act: (peer) =>
      peer.send(
        framed(
          concat([sequence(T.HELLO, "distchan", 1), Uint8Array.fromHex(map)]),
        ),
      ),
    told: rejected(
      PROTOCOL,
      new RegExp(`expected a map with texts as keys, got ${got}$`),
    ),
  })),
  // R11
  {
    name: "R11 another signature",
    as: "raw",
    act: (peer) => hello(peer, { signature: "theirs", codec: "json" }),
    told: rejected(REJECT.signature, /"theirs".*"distchan"/),
  },
  {
    name: "R11 another codec",
    as: "raw",
    act: (peer) => hello(peer, { codec: "json", transforms: ["gzip"] }),
    told: rejected(REJECT.codec, /"json".*"cbor"/),
  },
  {
    name: "R11 another list of transforms",
    as: "raw",
    act: (peer) => hello(peer, { transforms: ["gzip"] }),
    told: rejected(REJECT.transforms, /\["gzip"\].*\[\]/),
  },
  // R12
  {
    name: "R12 a secret where the server has none",
    as: "raw",
    act: (peer) => hello(peer, { auth: true }),
    told: rejected(REJECT.auth, /the client has a secret/),
  },
  {
    name: "R12 no secret where the server has one",
    as: "raw",
    options: { secret: "s3cret" },
    act: (peer) => hello(peer, {}),
    told: rejected(REJECT.auth, /the server asks for a secret/),
  },
  ...([0, 31, 32, 33, 1000].map((length): Attack => ({
    name: `R12 a wrong proof of ${length} bytes`,
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await hello(peer, { auth: true });
      await peer.expect(T.CHALLENGE);
      await peer.say(T.PROOF, new Uint8Array(length));
    },
    told: rejected(REJECT.auth, /secret is not the server's/),
  }))),
  // R13
  {
    name: "R13 silence",
    as: "raw",
    options: { handshakeTimeoutMs: 50 },
    act: () => Promise.resolve(),
    told: rejected(REJECT.timeout, /not done within 50 ms/),
  },
  {
    name: "R13 a HELLO that comes byte by byte and never ends",
    as: "raw",
    options: { handshakeTimeoutMs: 100 },
    act: async (peer) => {
      const bytes = frame(T.HELLO, "distchan", 1, peer.hello());
      for (const byte of bytes.subarray(0, 40)) {
        if (!await peer.send(new Uint8Array([byte]))) break;
        await moment(5);
      }
    },
    told: rejected(REJECT.timeout, /not done within 100 ms/),
  },
  {
    name: "R13 no PROOF",
    as: "raw",
    options: { handshakeTimeoutMs: 500, secret: "s3cret" },
    act: async (peer) => {
      await hello(peer, { auth: true });
      await peer.expect(T.CHALLENGE);
    },
    told: rejected(REJECT.timeout, /not done within 500 ms/),
  },
  // R15
  ...([
    ["mode 2", [2, 1, 1, 0]],
    ["a concurrency of 0", [0, 0, 1, 0]],
    ["a concurrency of 2 in mode stream", [0, 2, 1, 0]],
    ["a concurrency of 4097", [1, 4097, 1, 0]],
    ["a window of 0", [0, 1, 0, 0]],
    ["a window of 2^32", [0, 1, 2 ** 32, 0]],
    ["an adaptive of 2", [0, 1, 1, 2]],
  ] as const).map(([what, fields]): Attack => ({
    name: `R15 CREDIT with ${what}`,
    as: "idle",
    act: (peer) => peer.say(T.CREDIT, ...fields),
    told: dropped(/Cannot take CREDIT: mode/),
  })),
  {
    name: "R15 a worker changes its mode",
    as: "work",
    act: (peer) => peer.say(T.CREDIT, 0, 1, 1, 0),
    told: dropped(/Cannot take CREDIT: mode 0/),
  },
  // R16
  {
    name: "R16 RESULT in mode stream",
    as: "stream",
    act: (peer, [first]) => peer.say(T.RESULT, first, payload(1)),
    told: dropped(/Cannot take RESULT: the worker is not in mode 1/),
  },
  {
    name: "R16 DONE in mode stream",
    as: "stream",
    act: (peer, [first]) => peer.say(T.DONE, first),
    told: dropped(/Cannot take DONE/),
  },
  {
    name: "R16 ACK in mode work",
    as: "work",
    act: (peer, [first]) => peer.say(T.ACK, first),
    told: dropped(/Cannot take ACK: the worker is not in mode 0/),
  },
  {
    name: "R16 ACK before CREDIT",
    as: "idle",
    act: (peer) => peer.say(T.ACK, 0),
    told: dropped(/Cannot take ACK/),
  },
  {
    name: "R16 LEAVE before CREDIT",
    as: "idle",
    act: (peer) => peer.say(T.LEAVE),
    told: dropped(/no CREDIT came before it/),
  },
  {
    name: "R16 RESULT before CREDIT",
    as: "idle",
    act: (peer) => peer.say(T.RESULT, 0, payload(1)),
    told: dropped(/Cannot take RESULT/),
  },
  // R17
  {
    name: "R17 a delivery is settled twice in one RESULT",
    as: "work",
    act: (peer, [first], result) =>
      peer.say(T.RESULT, first, result, first, payload(1)),
    told: dropped(/Cannot settle delivery \d+: it is not in flight here/),
  },
  {
    name: "R17 a delivery is settled by RESULT and ERROR",
    as: "work",
    act: async (peer, [first], result) => {
      await peer.say(T.RESULT, first, result);
      await peer.say(T.ERROR, first, "E", "bad", null, null);
    },
    told: dropped(/it is not in flight here/),
  },
  {
    name: "R17 a delivery is handed back twice",
    as: "stream",
    act: (peer, [first]) => peer.say(T.LEAVE, first, first),
    told: dropped(/it is not in flight here/),
  },
  ...([
    ["RESULT", [1000, payload(1)]],
    ["ERROR", [1000, "E", "bad", null, null]],
    ["DONE", [1000]],
    ["LEAVE", [1000]],
  ] as const).map(([type, fields]): Attack => ({
    name: `R17 ${type} for a delivery that was not sent`,
    as: "work",
    act: (peer) => peer.say(T[type], ...fields),
    told: dropped(/Cannot settle delivery 1000/),
  })),
  // R18
  {
    name: "R18 ACK beyond what was sent",
    as: "stream",
    act: (peer) => peer.say(T.ACK, 1000),
    told: dropped(/it names delivery 1000, \d+ were sent/),
  },
  // R19
  {
    name: "R19 more values than there is credit for",
    as: "idle",
    act: (peer) =>
      peer.say(T.VALUE, ...Array.from({ length: 4097 }, () => payload(0))),
    told: dropped(/Cannot take VALUE: there is no credit/),
  },
  {
    name: "R19 more bytes than there is credit for",
    as: "idle",
    act: (peer) =>
      // The first goes to the reader who waits. The second crosses the limit,
      // as it may; the third starts beyond it.
      peer.say(T.VALUE, payload(0), payload(new Uint8Array(MIB)), payload(0)),
    told: dropped(/Cannot take VALUE: there is no credit/),
  },
  // R20
  {
    name: "R20 a VALUE that isn't one",
    as: "idle",
    act: (peer) => peer.say(T.VALUE, GARBAGE),
    told: dropped(/^Cannot read VALUE: Cannot decode value/),
  },
  {
    name: "R20 a nested bomb as a VALUE",
    as: "stream",
    act: (peer) => peer.say(T.VALUE, BOMB),
    told: dropped(/nested too deep/),
  },
  // R21
  ...[["E"], ["E", "bad"], ["E", 5, null], "E", ["E", "bad", [1, 2, 3]]]
    .map((cause): Attack => ({
      name: `R21 ERROR with the cause ${JSON.stringify(cause)}`,
      as: "work",
      act: (peer, [first]) => peer.say(T.ERROR, first, "E", "bad", cause, null),
      told: dropped(/Cannot read ERROR: expected null or/),
    })),
];

for (const attack of attacks) {
  both(`Server: ${attack.name}`, (net) => run(attack, net));
}

/** Items whose result is asked for while a worker misbehaves. */
const ITEMS = 6;

async function run(attack: Attack, net: Net): Promise<void> {
  const { as, act, told, options = {} } = attack;
  const events: ServerEvent<number>[] = [];
  const { listener, dial } = listenOn(net);
  const server = new Server<number, number>(listener, {
    ...options,
    onEvent: (event) => events.push(event),
  });
  const ours: ClientOptions = {
    ...(options.secret === undefined ? {} : { secret: options.secret }),
    ...(options.transforms === undefined
      ? {}
      : { transforms: options.transforms }),
  };
  const healthy = new Client<number, number>(await dial(), ours);
  const done = healthy.work((n) => -n * 2);
  await until(() => server.workers[0]?.state === "active", "a worker is there");

  // The hostile one, with its share of the items.
  await using peer = new ScriptedPeer(await dial());
  if (as !== "raw") await peer.handshake();
  if (as === "work") await peer.say(T.CREDIT, 1, 1, 64, 0);
  if (as === "stream") await peer.say(T.CREDIT, 0, 1, 64, 0);
  const isJoined = as === "work" || as === "stream";
  if (isJoined) {
    await until(() => server.workers[1]?.state === "active", "it has joined");
  }
  const wanted: number[] = [];
  const results: number[] = [];
  for (let n = 1; n <= ITEMS; n++) {
    wanted.push(-n * 2);
    server.send(n);
  }
  const reading = (async () => {
    for await (const result of server) results.push(result);
  })();
  reading.catch(() => {});
  const held: number[] = [];
  let result = payload(0);
  if (isJoined) {
    const { fields } = await peer.until(T.ITEM);
    const count = (fields.length - 3) / 2;
    for (let i = 0; i < count; i++) held.push(fields[2] as number + i);
    // What a true result of the first would be, for those that lie afterwards.
    result = payload(cbor<number>().decode(fields[4] as Uint8Array) * -2);
  }
  await act(peer, held, result);

  // It is told why, and its connection ends.
  const rest = await peer.rest();
  const last = rest.at(-1);
  assert(last !== undefined, "it was told nothing");
  assertEquals([last.type, last.fields[0]], told.slice(0, 2));
  assertMatch(last.fields[1] as string, told[2]);
  peer.close();
  const code = told[0] === T.REJECT
    ? Object.keys(REJECT)[told[1] - 1]
    : ["normal", "aborted", "protocol", "timeout", "transforms"][told[1]];
  const event = events.find((e) =>
    e.type === (told[0] === T.REJECT ? "rejected" : "disconnected")
  );
  assertEquals((event as { code?: string } | undefined)?.code, code);

  // The server goes on, and nothing is lost.
  assertEquals(server.workers.length, 1);
  assertEquals(await server.submit(100), -200);
  await server.end();
  await reading;
  assertEquals(results.filter((r) => r < 0).sort((a, b) => b - a), wanted);
  await done;
  await server.closed;
}

/** Does the handshake with the transform `marked`. */
async function joinMarked(peer: ScriptedPeer): Promise<void> {
  const body = sequence(
    T.HELLO,
    "distchan",
    1,
    peer.hello({ transforms: ["marked"] }),
  );
  await peer.send(framed(body));
  const welcome = await peer.expect(T.WELCOME);
  const digest = await crypto.subtle.digest(
    "SHA-256",
    concat([
      text("distchan confirm client\0"),
      ...[body, welcome.body].flatMap((b) => [announced(b.length), b]),
    ]),
  );
  await peer.say(
    T.CONFIRM,
    concat([new Uint8Array([0x7f]), new Uint8Array(digest)]),
  );
  await peer.expect(T.CONFIRM);
  peer.undo = (body) => body.slice(1);
}

// --- A hostile server against a client ---

/** A transform that does nothing. */
const asItIs: Transform = {
  name: "as it is",
  open: () => ({ encode: (bytes) => bytes, decode: (bytes) => bytes }),
};

interface Ambush {
  /** The rule that is broken, and how. */
  name: string;
  options?: ClientOptions;
  /** What the server does first: nothing, its handshake, or that and CREDIT. */
  as: "raw" | "open" | "work" | "stream";
  act(peer: ScriptedPeer): Promise<unknown>;
  /** The error that the client ends with. */
  error: [
    type: typeof HandshakeError | typeof ConnectionLostError,
    code: string,
    reason: RegExp,
  ];
}

const failed = (code: string, reason: RegExp): Ambush["error"] => [
  HandshakeError,
  code,
  reason,
];
const lost = (reason: RegExp, code = "protocol"): Ambush["error"] => [
  ConnectionLostError,
  code,
  reason,
];

/** Reads HELLO and answers with a WELCOME of other fields. */
async function answer(
  peer: ScriptedPeer,
  fields: Record<string, unknown>,
  ...behind: unknown[]
): Promise<void> {
  await peer.expect(T.HELLO);
  await peer.say(T.WELCOME, 1, peer.welcome(fields), ...behind);
}

const ambushes: Ambush[] = [
  {
    name: "R1 a length of 0 in the handshake",
    as: "raw",
    act: (peer) => peer.send(zero),
    error: failed("protocol", /length is 0/),
  },
  {
    name: "R1 a length of 0",
    as: "open",
    act: (peer) => peer.send(zero),
    error: lost(/length is 0/),
  },
  {
    name: "R2 an HTTP server",
    as: "raw",
    act: (peer) => peer.send(text("HTTP/1.1 400 Bad Request\r\n\r\n")),
    error: failed("protocol", /length is 1213486160, limit is 4096/),
  },
  {
    name: "R2 an SSH server",
    as: "raw",
    act: (peer) => peer.send(text("SSH-2.0-OpenSSH_9.9\r\n")),
    error: failed("protocol", /limit is 4096/),
  },
  {
    name: "R2 a frame above maxFrameBytes",
    as: "work",
    options: { maxFrameBytes: 4096 },
    act: (peer) => peer.send(announced(4097)),
    error: lost(/length is 4097, limit is 4096/),
  },
  {
    name: "R3 more than 4 KiB before the handshake is done",
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await peer.expect(T.HELLO);
      await peer.say(T.CHALLENGE, peer.nonce);
      await peer.send(announced(4096), new Uint8Array(4090));
    },
    error: failed("protocol", /bytes came, limit is 4096/),
  },
  {
    name: "R4 a CONFIRM with another digest",
    as: "raw",
    options: { transforms: [marked] },
    act: async (peer) => {
      await answer(peer, { transforms: ["marked"] });
      await peer.expect(T.CONFIRM);
      peer.undo = (body) => body.slice(1);
      await peer.say(T.CONFIRM, new Uint8Array(33).fill(0x7f));
    },
    error: failed("transforms", /not undone/),
  },
  ...([0, 18, 99].map((type): Ambush => ({
    name: `R5 a frame of type ${type}`,
    as: "open",
    act: (peer) => peer.say(type),
    error: lost(new RegExp(`Cannot take frame of type ${type} from a server`)),
  }))),
  ...([
    "HELLO",
    "WELCOME",
    "REJECT",
    "RESULT",
    "VALUE",
    "ACK",
    "LEAVE",
  ] as const)
    .map((type): Ambush => ({
      name: `R5 ${type} from a server`,
      as: "work",
      act: (peer) => peer.say(T[type]),
      error: lost(new RegExp(`Cannot take ${type} from a server`)),
    })),
  {
    name: "R5 ITEM before WELCOME",
    as: "raw",
    act: (peer) => peer.say(T.ITEM, 1, 0, 0, 0, payload(1)),
    error: failed("protocol", /Cannot take ITEM in the handshake/),
  },
  {
    name: "R5 garbage in the handshake",
    as: "raw",
    act: (peer) => peer.send(framed(GARBAGE)),
    error: failed("protocol", /expected an unsigned integer/),
  },
  {
    name: "R6 a WELCOME cut short",
    as: "raw",
    act: async (peer) => {
      await peer.expect(T.HELLO);
      await peer.say(T.WELCOME, 1);
    },
    error: failed("protocol", /ends too early/),
  },
  {
    name: "R6 a REJECT cut short",
    as: "raw",
    act: (peer) => peer.say(T.REJECT, 1),
    error: failed("protocol", /ends too early/),
  },
  ...([
    ["ITEM", [1, 0, 0]],
    ["ITEM", [1, 0, 0, 0]],
    ["CREDIT", [1]],
    ["CANCEL", []],
    ["PING", []],
    ["PONG", []],
    ["GOODBYE", [1]],
  ] as const).map(([type, fields]): Ambush => ({
    name: `R6 ${type} cut short after ${fields.length} fields`,
    as: "work",
    act: (peer) => peer.say(T[type], ...fields),
    error: lost(new RegExp(`Cannot read ${type}: .* ends too early`)),
  })),
  {
    name: "R6 a CHALLENGE of 15 bytes",
    as: "raw",
    options: { secret: "s3cret" },
    act: (peer) => peer.say(T.CHALLENGE, peer.nonce.slice(1)),
    error: failed("protocol", /16 bytes as nonce, got /),
  },
  {
    name: "R6 an ITEM whose payload is a text",
    as: "work",
    act: (peer) => peer.say(T.ITEM, 1, 0, 0, 0, "1"),
    error: lost(/expected a byte string, got a text string/),
  },
  {
    name: "R7 bytes behind WELCOME",
    as: "raw",
    act: (peer) => answer(peer, {}, null),
    error: failed("protocol", /1 bytes follow/),
  },
  {
    name: "R7 bytes behind CHALLENGE",
    as: "raw",
    options: { secret: "s3cret" },
    act: (peer) => peer.say(T.CHALLENGE, peer.nonce, null),
    error: failed("protocol", /1 bytes follow/),
  },
  {
    name: "R7 bytes behind PROOF",
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await peer.say(T.CHALLENGE, peer.nonce);
      await peer.say(T.WELCOME, 1, peer.welcome());
      await peer.say(T.PROOF, new Uint8Array(32), null);
    },
    error: failed("protocol", /1 bytes follow/),
  },
  {
    name: "R7 bytes behind CONFIRM",
    as: "raw",
    options: { transforms: [asItIs] },
    act: async (peer) => {
      await answer(peer, { transforms: ["as it is"] });
      await peer.expect(T.CONFIRM);
      await peer.say(T.CONFIRM, new Uint8Array(32), null);
    },
    error: failed("protocol", /1 bytes follow/),
  },
  {
    name: "R7 bytes behind REJECT",
    as: "raw",
    act: (peer) => peer.say(T.REJECT, 1, "no", null),
    error: failed("protocol", /1 bytes follow/),
  },
  ...([
    ["CREDIT", [1, 1, 1]],
    ["END", [0]],
    ["PING", [1, 1]],
    ["PONG", [1, 1]],
    ["GOODBYE", [0, "", 0]],
  ] as const).map(([type, fields]): Ambush => ({
    name: `R7 bytes behind ${type}`,
    as: "work",
    act: (peer) => peer.say(T[type], ...fields),
    error: lost(/1 bytes follow/),
  })),
  {
    name: "R9 version 2",
    as: "raw",
    act: (peer) => peer.say(T.WELCOME, 2, {}),
    error: failed("version", /speaks version 1 .* speaks 2/),
  },
  ...([
    ["a nonce of 17 bytes", { nonce: new Uint8Array(17) }, /16 bytes as nonce/],
    ["no codec", { codec: undefined }, /a text as codec/],
    ["a maxFrameBytes of 10", { maxFrameBytes: 10 }, /1024 to 4294967295/],
    ["a text as transforms", { transforms: "gzip" }, /transforms, got string/],
    ["a number as results", { results: 0 }, /a boolean as results/],
    ["a text as trace", { trace: "yes" }, /a boolean as trace/],
    ["traces unasked", { trace: true }, /which HELLO didn't ask for/],
  ] as const).map(([what, fields, reason]): Ambush => ({
    name: `R10 WELCOME with ${what}`,
    as: "raw",
    act: (peer) => answer(peer, fields),
    error: failed("protocol", reason),
  })),
  ...([
    ["signature", { signature: "theirs" }],
    ["codec", { codec: "json" }],
    ["transforms", { transforms: ["gzip"] }],
  ] as const).map(([code, fields]): Ambush => ({
    name: `R11 WELCOME with another ${code}`,
    as: "raw",
    act: (peer) => answer(peer, fields),
    error: failed(code, new RegExp(`the client's ${code} is`)),
  })),
  {
    name: "R12 a CHALLENGE for a client without a secret",
    as: "raw",
    act: (peer) => peer.say(T.CHALLENGE, peer.nonce),
    error: failed("auth", /the client has none/),
  },
  {
    name: "R12 a WELCOME without CHALLENGE for a client with a secret",
    as: "raw",
    options: { secret: "s3cret" },
    act: (peer) => answer(peer, {}),
    error: failed("auth", /the server asks for none/),
  },
  {
    name: "R12 a wrong proof",
    as: "raw",
    options: { secret: "s3cret" },
    act: (peer) => peer.greet({ secret: "other" }),
    error: failed("auth", /the server's secret is not the client's/),
  },
  {
    name: "R13 silence",
    as: "raw",
    options: { handshakeTimeoutMs: 50 },
    act: () => Promise.resolve(),
    error: failed("timeout", /not done within 50 ms/),
  },
  {
    name: "R14 a second CHALLENGE",
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await peer.say(T.CHALLENGE, peer.nonce);
      await peer.say(T.CHALLENGE, peer.nonce);
    },
    error: failed("protocol", /Cannot take CHALLENGE in the handshake/),
  },
  {
    name: "R14 a second WELCOME in place of PROOF",
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await peer.say(T.CHALLENGE, peer.nonce);
      await peer.say(T.WELCOME, 1, peer.welcome());
      await peer.say(T.WELCOME, 1, peer.welcome());
    },
    error: failed("protocol", /Cannot take WELCOME in the handshake/),
  },
  {
    name: "R14 another nonce in WELCOME than in CHALLENGE",
    as: "raw",
    options: { secret: "s3cret" },
    act: async (peer) => {
      await peer.say(T.CHALLENGE, peer.nonce.map((byte) => byte ^ 1));
      await peer.say(T.WELCOME, 1, peer.welcome());
    },
    error: failed("protocol", /its nonce isn't the CHALLENGE's/),
  },
  {
    name: "R14 PROOF before WELCOME",
    as: "raw",
    options: { secret: "s3cret" },
    act: (peer) => peer.say(T.PROOF, new Uint8Array(32)),
    error: failed("protocol", /Cannot take PROOF in the handshake/),
  },
  {
    name: "R14 a second PROOF",
    as: "raw",
    options: { secret: "s3cret", transforms: [asItIs] },
    act: async (peer) => {
      const fields = { transforms: ["as it is"] };
      await peer.greet({ secret: "s3cret", fields });
      await peer.say(T.PROOF, new Uint8Array(32));
    },
    error: failed("protocol", /Cannot take PROOF in the handshake/),
  },
  {
    name: "R14 CONFIRM before WELCOME",
    as: "raw",
    options: { transforms: [asItIs] },
    act: (peer) => peer.say(T.CONFIRM, new Uint8Array(32)),
    error: failed("protocol", /Cannot take CONFIRM in the handshake/),
  },
  {
    name: "R22 a delivery number is left out",
    as: "work",
    act: (peer) => peer.say(T.ITEM, 1, 0, 1, 0, payload(1)),
    error: lost(/Cannot take ITEM: kind 0, delivery 1, expected 0/),
  },
  {
    name: "R22 a delivery number comes twice",
    as: "stream",
    act: async (peer) => {
      await peer.say(T.ITEM, 1, 0, 0, 0, payload(1));
      await peer.say(T.ITEM, 1, 0, 0, 0, payload(1));
    },
    error: lost(/delivery 0, expected 1/),
  },
  {
    name: "R22 an item of kind 2",
    as: "work",
    act: (peer) => peer.say(T.ITEM, 1, 2, 0, 0, payload(1)),
    error: lost(/Cannot take ITEM: kind 2/),
  },
  {
    name: "R23 ITEM before CREDIT",
    as: "open",
    act: (peer) => peer.say(T.ITEM, 1, 0, 0, 0, payload(1)),
    error: lost(/1 are unsettled, the window is 0/),
  },
  {
    name: "R23 an item more than the window, in mode stream",
    as: "stream",
    options: { prefetch: 3 },
    act: (peer) => peer.say(T.ITEM, 1, 0, 0, ...items(4)),
    error: lost(/4 are unsettled, the window is 3/),
  },
  {
    name: "R23 an item more than the window, in mode work",
    as: "work",
    options: { prefetch: 2 },
    act: (peer) => peer.say(T.ITEM, 1, 0, 0, ...items(3)),
    error: lost(/3 are unsettled, the window is 2/),
  },
  {
    name: "R23 an item more than the window, of which none can be read",
    as: "work",
    options: { prefetch: 2 },
    act: (peer) => {
      const bad = new Uint8Array([0xff]);
      return peer.say(T.ITEM, 1, 0, 0, 0, bad, 1, bad, 2, bad);
    },
    error: lost(/3 are unsettled, the window is 2/),
  },
  {
    name: "R24 an ITEM after END",
    as: "work",
    act: (peer) =>
      peer.send(frame(T.END), frame(T.ITEM, 1, 0, 0, 0, payload(1))),
    error: lost(/END came before it/),
  },
  {
    name: "R24 a second END",
    as: "work",
    act: async (peer) => {
      await peer.say(T.END);
      await peer.say(T.END);
    },
    error: lost(/it came before/),
  },
  // No rules, but ends that are none.
  {
    name: "the end of the stream in the handshake",
    as: "raw",
    act: (peer) => Promise.resolve(peer.close()),
    error: failed("protocol", /Handshake failed/),
  },
  {
    name: "the end of the stream without a goodbye",
    as: "work",
    act: (peer) => peer.conn.closeWrite(),
    error: lost(/without a goodbye/, "eof"),
  },
  {
    name: "the end of the stream after END",
    as: "work",
    act: async (peer) => {
      await peer.say(T.END);
      await peer.expect(T.GOODBYE);
      await peer.conn.closeWrite();
    },
    error: lost(/without a goodbye/, "eof"),
  },
  {
    name: "the end of the stream in the middle of a frame",
    as: "work",
    act: async (peer) => {
      await peer.send(frame(T.ITEM, 1, 0, 0, 0, payload(1)).subarray(0, 9));
      await peer.conn.closeWrite();
    },
    error: lost(/in the middle of a frame/, "eof"),
  },
  {
    name: "a GOODBYE(normal) that answers none",
    as: "work",
    act: (peer) => peer.say(T.GOODBYE, 0, "enough"),
    error: lost(/enough/, "normal"),
  },
  {
    name: "a GOODBYE with a code that isn't known",
    as: "work",
    act: (peer) => peer.say(T.GOODBYE, 77, "why not"),
    error: lost(/why not/, "protocol"),
  },
];

for (const ambush of ambushes) {
  both(`Client: ${ambush.name}`, (net) => spring(ambush, net));
}

for (const [name, code] of Object.entries(REJECT)) {
  both(
    `Client: REJECT(${name}) becomes a HandshakeError of that code`,
    (net) =>
      spring({
        name,
        as: "raw",
        act: (peer) => peer.say(T.REJECT, code, `because of ${name}`),
        error: failed(name, new RegExp(`because of ${name}`)),
      }, net),
  );
}

async function spring(ambush: Ambush, net: Net): Promise<void> {
  const { name, as, act, error: [type, code, reason], options = {} } = ambush;
  // Violations are told, but not in the handshake.
  const isTold = type === ConnectionLostError && /^R\d/.test(name);
  const { listener, dial } = listenOn(net);
  const [conn, accepted] = await Promise.all([dial(), listener.accept()]);
  listener.close();
  await using peer = new ScriptedPeer(accepted);
  const client = new Client<number, number>(conn, options);
  // Whatever the client is used for ends with the same error.
  const never = Promise.withResolvers<never>();
  const uses: Promise<unknown>[] = [client.closed];
  if (as === "stream") {
    const items = client[Symbol.asyncIterator]();
    uses.push((async () => {
      for (;;) if ((await items.next()).done) break;
    })());
  } else if (as !== "open") {
    uses.push(client.work(() => never.promise));
  }
  for (const use of uses) use.catch(() => {});
  if (as !== "raw") await peer.greet();
  if (as === "work" || as === "stream") await peer.expect(T.CREDIT);
  if (as === "open") await client.opened;
  await act(peer);
  const rest = peer.isClosed ? [] : await peer.rest();
  peer.close();
  if (type === HandshakeError) uses.push(client.opened);
  for (const use of uses) {
    const error = await use.then(() => "nothing", (error) => error);
    assertInstanceOf(error, type);
    assertEquals(error.code, code);
    assertMatch(error.message, reason);
    if (isTold) assertInstanceOf(error.cause, ProtocolError);
  }
  if (isTold) {
    const last = rest.at(-1);
    assertEquals([last?.type, last?.fields[0]], [T.GOODBYE, GOODBYE_PROTOCOL]);
    assertMatch(last?.fields[1] as string, reason);
  }
}

both(
  "Client: a handler under way is told that the server broke a rule",
  async (net) => {
    const { listener, dial } = listenOn(net);
    const [conn, accepted] = await Promise.all([dial(), listener.accept()]);
    listener.close();
    await using peer = new ScriptedPeer(accepted);
    const client = new Client<number, number>(conn);
    const begun = Promise.withResolvers<AbortSignal>();
    const done = client.work((_, { signal }) => {
      begun.resolve(signal);
      return new Promise(() => {});
    });
    await peer.greet();
    await peer.expect(T.CREDIT);
    await peer.say(T.ITEM, 1, 0, 0, 0, payload(1));
    const signal = await begun.promise;
    await peer.say(T.RESULT, 0, payload(1));
    const error = await assertRejects(() => done, ConnectionLostError);
    assertStrictEquals(signal.reason, error);
  },
);

both("Client: R23 holds for one that leaves, too", async (net) => {
  const { listener, dial } = listenOn(net);
  const [conn, accepted] = await Promise.all([dial(), listener.accept()]);
  listener.close();
  await using peer = new ScriptedPeer(accepted);
  const client = new Client<number, number>(conn, { prefetch: 3 });
  const leave = new AbortController();
  const never = Promise.withResolvers<never>();
  const done = client.work(() => never.promise, { signal: leave.signal });
  await peer.greet();
  await peer.expect(T.CREDIT);
  await peer.say(T.ITEM, 1, 0, 0, ...items(3));
  await peer.say(T.PING, 1);
  await peer.until(T.PONG);
  leave.abort();
  assertEquals((await peer.until(T.LEAVE)).fields, [1, 2]);
  // What was on its way goes back, as much as there may be.
  for (const first of [3, 5]) {
    await peer.say(T.ITEM, 1, 0, first, ...items(2));
    assertEquals((await peer.until(T.LEAVE)).fields, [first, first + 1]);
  }
  await peer.say(T.ITEM, 1, 0, 7, ...items(3));
  const error = await assertRejects(() => done, ConnectionLostError);
  assertMatch(error.message, /4 are unsettled, the window is 3/);
});

function items(count: number): unknown[] {
  return Array.from({ length: count }, (_, i) => [i, payload(i)]).flat();
}

// --- What costs nobody but its own item ---

Deno.test("Server: a RESULT that isn't a value fails its item and no more", async () => {
  const listener = new MemoryListener();
  await using server = new Server<number, number>(listener);
  await using peer = new ScriptedPeer(listener.connect());
  await peer.join("work");
  for (const bad of [GARBAGE, BOMB, new Uint8Array(0)]) {
    const result = server.submit(1);
    const { fields } = await peer.until(T.ITEM);
    await peer.say(T.RESULT, fields[2], bad);
    const error = await result.catch((error) => error);
    assertInstanceOf(error, ItemFailure);
    assertInstanceOf(error.error, DecodeError);
  }
  const result = server.submit(1);
  const { fields } = await peer.until(T.ITEM);
  await peer.say(T.RESULT, fields[2], payload(2));
  assertEquals(await result, 2);
  peer.close();
  await server.abort();
});

Deno.test("Client: an ITEM that isn't a value is answered with ERROR, and no more", async () => {
  for (const as of ["work", "stream"]) {
    const [peer, conn] = ScriptedPeer.pair();
    await using _ = peer;
    const client = new Client<number, number>(conn, { prefetch: 2 });
    const seen: number[] = [];
    const use = as === "work"
      ? client.work((n) => (seen.push(n), n))
      : (async () => {
        for await (const n of client) seen.push(n);
      })();
    await peer.greet();
    await peer.expect(T.CREDIT);
    for (const [i, bad] of [GARBAGE, BOMB, new Uint8Array(0)].entries()) {
      await peer.say(T.ITEM, 1, 0, i, i, bad);
      const { fields } = await peer.expect(T.ERROR);
      assertEquals(fields.slice(0, 2), [i, "DecodeError"]);
    }
    await peer.say(T.ITEM, 1, 0, 3, 3, payload(7));
    await peer.until(as === "work" ? T.RESULT : T.ACK);
    assertEquals(seen, [7]);
    await peer.say(T.END);
    await peer.until(T.GOODBYE);
    await peer.say(T.GOODBYE, 0, "");
    await use;
    await client.closed;
  }
});

// --- Limits ---

/** A peer on a connection that holds little, so that what isn't read shows. */
function tightListener(): { listener: MemoryListener; dial(): ScriptedPeer } {
  const listener = new MemoryListener({ bufferBytes: 256 });
  return { listener, dial: () => new ScriptedPeer(listener.connect()) };
}

Deno.test("Server: a flood of PINGs whose PONGs nobody reads costs no memory", async () => {
  const { listener, dial } = tightListener();
  await using server = new Server<number, number>(listener);
  await using peer = dial();
  await peer.handshake();
  const count = 200_000;
  const pings = concat(
    Array.from({ length: 1000 }, () => frame(T.PING, 2 ** 32)),
  );
  const before = Deno.memoryUsage().rss;
  for (let i = 0; i < count; i += 1000) await peer.send(pings);
  await peer.say(T.PING, 7);
  assertLess(Deno.memoryUsage().rss - before, 64 * MIB);
  let pongs = 0;
  for (;;) {
    const { fields } = await peer.until(T.PONG);
    pongs++;
    if (fields[0] === 7) break;
  }
  assertLess(pongs, count / 10);
  peer.close();
  await server.abort();
});

Deno.test("Client: a flood of PINGs whose PONGs nobody reads costs no memory", async () => {
  const [near, far] = memoryPair({ bufferBytes: 256 });
  await using peer = new ScriptedPeer(near);
  const client = new Client(far);
  await peer.greet();
  await client.opened;
  const pings = concat(
    Array.from({ length: 1000 }, () => frame(T.PING, 2 ** 32)),
  );
  for (let i = 0; i < 100; i++) await peer.send(pings);
  await peer.say(T.PING, 7);
  let pongs = 0;
  while ((await peer.until(T.PONG)).fields[0] !== 7) pongs++;
  assertLess(pongs, 10_000);
  peer.close();
  await client.closed.catch(() => {});
});

Deno.test("Server: an item over which the same worker breaks the protocol is poison in the end", async () => {
  const listener = new MemoryListener();
  await using server = new Server<number, number>(listener);
  const instance = new Uint8Array(16).fill(7);
  const ways: [string, (peer: ScriptedPeer) => Promise<unknown>][] = [
    ["it does", (peer) => peer.say(T.RESULT, "not a number")],
    ["it says that the server does", (peer) => peer.say(T.GOODBYE, 2, "no!")],
  ];
  for (const [what, answer] of ways) {
    const failure = server.submit(1).catch((error) => error);
    for (let i = 0; i < 3; i++) {
      await using peer = new ScriptedPeer(listener.connect());
      await peer.join("work", { fields: { instance } });
      await peer.until(T.ITEM);
      await answer(peer);
      await peer.rest();
    }
    const error = await within(failure, 10_000, what);
    assertInstanceOf(error, ItemFailure, what);
    assertInstanceOf(error.error, PoisonItemError, what);
    assertEquals(error.error.attempts.length, 3, what);
  }
});

Deno.test("Server: a worker that settles what it never read is given no more", async () => {
  const { listener, dial } = tightListener();
  await using server = new Server<string, never>(listener, {
    results: "discard",
  });
  await using peer = dial();
  await peer.join("work", { window: 1 });
  const item = "x".repeat(10_000);
  for (let i = 0; i < 100; i++) server.send(item);
  // It guesses the numbers of its deliveries, and reads none of them.
  for (let delivery = 0;; delivery++) {
    const { inFlight, settled } = server.stats();
    if (inFlight === 0) {
      await moment();
      if (server.stats().inFlight === 0) {
        assertLess(settled, 20);
        break;
      }
    }
    await peer.say(T.DONE, delivery);
    await until(
      () => server.stats().settled > delivery || server.workers.length === 0,
      "it is settled",
    );
  }
  assertEquals(server.workers.length, 1);
  peer.close();
  await server.abort();
});

Deno.test("Server: maxConnections refuses the one too many, and says so", async () => {
  const listener = new MemoryListener();
  const server = new Server<number, number>(listener, { maxConnections: 2 });
  const healthy = new Client<number, number>(listener.connect());
  const done = healthy.work((n) => n + 1);
  await server.ready();
  await using second = new ScriptedPeer(listener.connect());
  await second.handshake();
  await using third = new ScriptedPeer(listener.connect());
  const [reject] = await third.rest();
  assertEquals([reject?.type, reject?.fields[0]], [T.REJECT, REJECT.full]);
  assertMatch(reject?.fields[1] as string, /maxConnections is reached/);
  third.close();
  const refused = new Client(listener.connect());
  const error = await refused.opened.catch((error) => error);
  assertInstanceOf(error, HandshakeError);
  assertEquals(error.code, "full");
  assertEquals(await server.submit(1), 2);
  // A place that is free again is taken.
  second.close();
  await until(() => server.workers.length === 1, "the second is gone");
  await moment(10);
  await using fourth = new ScriptedPeer(listener.connect());
  await fourth.handshake();
  fourth.close();
  await refused.closed.catch(() => {});
  await server.close();
  await done;
});

Deno.test("Server: maxHandshakes drops the oldest that isn't done", async () => {
  const listener = new MemoryListener();
  const server = new Server<number, number>(listener, { maxHandshakes: 2 });
  const healthy = new Client<number, number>(listener.connect());
  const done = healthy.work((n) => n + 1);
  await server.ready();
  await using first = new ScriptedPeer(listener.connect());
  await using second = new ScriptedPeer(listener.connect());
  await using third = new ScriptedPeer(listener.connect());
  const [reject] = await first.rest();
  assertEquals([reject?.type, reject?.fields[0]], [T.REJECT, REJECT.full]);
  assertMatch(reject?.fields[1] as string, /maxHandshakes is reached/);
  await second.handshake();
  await third.handshake();
  await until(() => server.workers.length === 3, "two more workers");
  assertEquals(await server.submit(1), 2);
  for (const peer of [first, second, third]) peer.close();
  await server.close();
  await done;
});

Deno.test("Server: the memory of a frame follows what came of it", async () => {
  const listener = new MemoryListener();
  const limit = 1024 * MIB;
  await using server = new Server<number, number>(listener, {
    maxFrameBytes: limit,
    maxInFlightBytes: limit,
  });
  const peers: ScriptedPeer[] = [];
  const before = Deno.memoryUsage();
  for (let i = 0; i < 50; i++) {
    const peer = new ScriptedPeer(listener.connect());
    await peer.handshake();
    await peer.send(announced(limit), new Uint8Array(2000));
    peers.push(peer);
  }
  await until(() => server.stats().bytesIn > 50 * 2000, "all is read");
  const after = Deno.memoryUsage();
  assertLess(after.rss - before.rss, 100 * MIB);
  assertLess(after.external - before.external, 50 * MIB);
  for (const peer of peers) peer.close();
  await server.abort();
});

Deno.test("readFrame() of the scripted peer reads what frame() writes", () => {
  const { type, fields } = readFrame(frame(T.ERROR, 1, "E", null).slice(4));
  assertEquals([type, ...fields], [T.ERROR, 1, "E", null]);
});
