/**
 * Every option: what it takes, what it refuses, and how it says so.
 */
import {
  assert,
  assertEquals,
  assertFalse,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { DEFAULTS, secretBytes } from "../internal/options.ts";
import { ownOptions, validate } from "../internal/validate.ts";
import {
  Client,
  connect,
  type ConnectOptions,
  gzip,
  HandshakeError,
  ItemFailure,
  listen,
  type MapOptions,
  Server,
  type ServerOptions,
  work,
  type WorkOptions,
} from "../mod.ts";
import { MemoryListener } from "./_support/memory_pair.ts";
import { TcpProxy } from "./_support/tcp_proxy.ts";
import { Gate, moment, until } from "./_support/within.ts";

type Of = Parameters<typeof validate>[1];

/** What an option takes, what is out of its range, and what isn't its type. */
interface Case {
  of: Of[];
  good: unknown[];
  range?: unknown[];
  type: unknown[];
}

const BOTH: Of[] = ["server", "listen", "client", "connect"];
const SERVERS: Of[] = ["server", "listen"];
const CLIENTS: Of[] = ["client", "connect"];

const codec = { name: "x", encode: () => new Uint8Array(), decode: () => 1 };
const transform = { name: "x", open: () => codec };
const even = {
  "~standard": {
    version: 1 as const,
    vendor: "x",
    validate: (value: unknown) =>
      value as number % 2 === 0
        ? { value: value as number }
        : { issues: [{ message: "odd" }] },
  },
};
const schema = { "~standard": { version: 1, vendor: "x", validate: () => 1 } };
const { signal } = new AbortController();
const noop = () => {};
const url = new URL("data:text/javascript,export default (n) => n");

const notText = [1, null, {}, [], true];
const notNumber = ["1", null, {}, 1n, true];
const notFunction = [1, "f", {}, null];
const notBoolean = [1, "true", null];
const notSignal = [{}, "signal", null, { aborted: false }];
const time = {
  good: [1, 0.5, 1e12, Infinity],
  range: [0, -1, NaN, -Infinity],
  type: notNumber,
};
const timeFrom0 = { ...time, good: [0, ...time.good], range: [-1, NaN] };
const count = (from: number) => ({
  good: [from, from + 1, 2 ** 53 - 1, Infinity],
  range: [from - 1, from + 0.5, -1, NaN, 2 ** 53],
  type: notNumber,
});

const CASES: Record<string, Case> = {
  signature: { of: BOTH, good: ["", "x"], type: notText },
  secret: {
    of: BOTH,
    good: ["s", new Uint8Array(1)],
    range: ["", new Uint8Array(0)],
    type: [1, null, [1, 2], new ArrayBuffer(4)],
  },
  codec: {
    of: BOTH,
    good: [codec],
    type: [null, "cbor", {}, { ...codec, name: 1 }, { ...codec, decode: 1 }],
  },
  transforms: {
    of: BOTH,
    good: [[], [transform, transform]],
    type: [transform, "gzip", ["gzip"], [null], [{ name: "x" }], null],
  },
  itemSchema: {
    of: BOTH,
    good: [schema, Object.assign(noop, schema)],
    type: [{}, null, "x", noop.bind(null), { "~standard": { version: 2 } }],
  },
  resultSchema: { of: BOTH, good: [schema], type: [{}, null] },
  maxFrameBytes: {
    of: CLIENTS,
    good: [1024, 4 * 1024 * 1024, 0xffff_ffff],
    range: [1023, 0, -1, 1024.5, 2 ** 32, Infinity, NaN],
    type: notNumber,
  },
  handshakeTimeoutMs: { of: BOTH, ...time },
  heartbeat: {
    of: BOTH,
    good: [
      {},
      { intervalMs: 1 },
      { timeoutMs: 1 },
      { dropMs: 30_000 },
      { intervalMs: 1, timeoutMs: 2, dropMs: 3 },
      { intervalMs: 5, timeoutMs: 5, dropMs: 5 },
    ],
    range: [
      { intervalMs: 0 },
      { timeoutMs: NaN },
      { intervalMs: 3, timeoutMs: 2 },
      { timeoutMs: 3, dropMs: 2 },
      { dropMs: 29_999 },
    ],
    type: [null, 1, { intervalMs: "1" }, { interval: 1 }],
  },
  onEvent: { of: BOTH, good: [noop], type: notFunction },
  dispatch: {
    of: SERVERS,
    good: [
      "round-robin",
      "least-loaded",
      { key: () => "k" },
      { pick: () => 0 },
    ],
    type: ["fastest", 1, null, {}, { key: "id" }, noop],
  },
  results: {
    of: SERVERS,
    good: ["keep", "discard"],
    range: ["drop"],
    type: [true, null],
  },
  maxInFlightBytes: {
    of: SERVERS,
    good: [4 * 1024 * 1024, Infinity],
    range: [4 * 1024 * 1024 - 1, 1024, 0, NaN],
    type: notNumber,
  },
  maxBufferedBytes: { of: SERVERS, ...count(1) },
  maxQueued: { of: SERVERS, ...count(0) },
  maxConnections: { of: SERVERS, ...count(1) },
  maxHandshakes: { of: SERVERS, ...count(1) },
  maxDeliveries: { of: SERVERS, ...count(2) },
  itemTimeoutMs: { of: SERVERS, ...time },
  retry: {
    of: SERVERS,
    good: [{ attempts: 1 }, { attempts: Infinity, backoffMs: 0 }],
    range: [{ attempts: 0 }, { attempts: 3, backoffMs: -1 }],
    type: [3, null, { attempts: "3" }, { times: 3 }],
  },
  onFailure: { of: [...SERVERS, "map"], good: [noop], type: notFunction },
  insecure: { of: SERVERS, good: [true, false], type: notBoolean },
  dashboard: {
    of: SERVERS,
    good: [
      { port: 0 },
      { port: 65535, hostname: "::1" },
      { port: 0, cert: "-----BEGIN C", key: "-----BEGIN K" },
      { port: 0, hostname: undefined, cert: undefined, key: undefined },
    ],
    range: [{ port: -1 }, { port: 65536 }, { port: 1.5 }],
    type: [
      8080,
      ":8080",
      true,
      null,
      {},
      [],
      { port: "8080" },
      { hostname: "::1" },
      { port: 0, hostname: 1 },
      { port: 0, path: "/" },
      { port: 0, cert: "c" },
      { port: 0, key: "k" },
      { port: 0, cert: 1, key: "k" },
      { port: 0, cert: "c.pem", key: "-----BEGIN K" },
      { port: 0, secret: "s" },
    ],
  },
  local: {
    of: ["listen"],
    good: [
      { module: url },
      { module: url, count: 1, concurrency: 4096, name: "" },
      { module: url, count: 1024, concurrency: undefined },
    ],
    range: [
      { module: url, count: 0 },
      { module: url, count: 1025 },
      { module: url, count: 0.5 },
      { module: url, concurrency: 0 },
      { module: url, concurrency: 4097 },
    ],
    type: [
      4,
      url,
      "./handler.ts",
      null,
      {},
      { count: 1 },
      { module: "./handler.ts" },
      { module: () => 1 },
      { module: url, count: "2" },
      { module: url, name: 1 },
      { module: url, isolate: true },
      { module: url, hostname: "localhost" },
    ],
  },
  count: {
    of: ["spawn"],
    good: [1, 1024],
    range: [0, 1025, 1.5, Infinity],
    type: notNumber,
  },
  hostname: {
    of: ["listen", "connect"],
    good: ["localhost"],
    type: ["", ...notText],
  },
  port: {
    of: ["listen", "connect"],
    good: [1, 65535],
    range: [-1, 65536, 1.5, NaN],
    type: notNumber,
  },
  cert: { of: ["listen"], good: [], type: notText },
  key: { of: ["listen"], good: [], type: notText },
  prefetch: {
    of: CLIENTS,
    good: ["auto", 1, 1_000_000],
    range: [0, 1_000_001, 1.5, Infinity],
    type: ["all", null],
  },
  name: { of: [...CLIENTS, "spawn"], good: ["", "x"], type: notText },
  tls: {
    of: ["connect"],
    good: [true, false, {}],
    type: [1, null, "yes", { ca: [] }, { caCerts: ["not PEM"] }],
  },
  signal: {
    of: ["connect", "work", "submit", "map", "ready"],
    good: [signal],
    type: notSignal,
  },
  reconnect: {
    of: ["connect"],
    good: [
      false,
      {},
      { minDelayMs: 1, maxDelayMs: 2, maxAttempts: Infinity, maxElapsedMs: 1 },
    ],
    range: [{ minDelayMs: 0 }, { maxAttempts: 0 }],
    type: [true, null, { delay: 1 }],
  },
  concurrency: {
    of: ["work", "spawn"],
    good: [1, 4096],
    range: [0, 4097, 1.5, Infinity],
    type: notNumber,
  },
  isolate: { of: ["work"], good: [true, false], type: notBoolean },
  cancelGraceMs: { of: ["work"], ...time },
  sendStacks: { of: ["work"], good: [true, false], type: notBoolean },
  timeoutMs: { of: ["submit"], ...time },
  ordered: { of: ["map"], good: [true, false], type: notBoolean },
  window: {
    of: ["map"],
    good: [1, 1_000_000],
    range: [0, 1_000_001, Infinity],
    type: notNumber,
  },
  settled: { of: ["map"], good: [true, false], type: notBoolean },
  drainMs: { of: ["close"], ...timeFrom0 },
};

function check(of: Of, name: string, value: unknown): void {
  const more = of === "listen" || of === "connect" ? { port: 1 } : {};
  validate({ ...more, [name]: value }, of);
}

Deno.test("Port 0 is any that is free for listen(), and none for connect()", () => {
  validate({ port: 0 }, "listen");
  const error = assertThrows(
    () => validate({ port: 0 }, "connect"),
    RangeError,
  );
  assertEquals(
    error.message,
    "Cannot use connect options: port is 0, expected an integer from 1 to 65535",
  );
});

for (const [name, { of, good, range = [], type }] of Object.entries(CASES)) {
  Deno.test(`validate() knows the option ${name}`, () => {
    for (const whose of of) {
      // Without a port there is nowhere to go: see below.
      const leftOut = name === "port" ? [] : [undefined];
      for (const value of [...good, ...leftOut]) check(whose, name, value);
      for (const value of range) {
        const error = assertThrows(
          () => check(whose, name, value),
          RangeError,
        );
        assertStringIncludes(error.message, "Cannot use ");
        assertStringIncludes(error.message, " options: ");
        assertStringIncludes(error.message, "expected");
      }
      for (const value of type) {
        const error = assertThrows(
          () => check(whose, name, value),
          TypeError,
        );
        assert(error.constructor === TypeError, Deno.inspect(value));
        assertStringIncludes(error.message, name.slice(0, 4));
      }
    }
  });
}

Deno.test("validate() refuses options that it doesn't know, by name", () => {
  for (
    const whose of [
      ...BOTH,
      "spawn",
      "work",
      "submit",
      "map",
      "ready",
      "close",
    ] as const
  ) {
    for (const name of ["toString", "__proto__", ""]) {
      assertThrows(
        () =>
          validate(
            Object.fromEntries([["port", 1], [name, undefined]].slice(
              whose === "listen" || whose === "connect" ? 0 : 1,
            )),
            whose,
          ),
        TypeError,
        `Cannot use ${whose} options: "${name}" is unknown, expected`,
      );
    }
  }
});

Deno.test("README names every option", () => {
  const readme = Deno.readTextFileSync(
    new URL("../README.md", import.meta.url),
  );
  const [, options = ""] = readme.split(/^## Options$/m);
  const [section = ""] = options.split(/^## Values$/m);
  const named = new Set(
    [...section.matchAll(/`[^`]+`/g)].flatMap(([code]) => code.match(/\w+/g)!),
  );
  for (
    const whose of [
      ...BOTH,
      "spawn",
      "work",
      "submit",
      "map",
      "ready",
      "close",
      "gzip",
    ] as const
  ) {
    const { message } = assertThrows(
      () => validate({ "?": 1 }, whose),
      TypeError,
      "is unknown, expected ",
    );
    for (const name of message.split(", expected ")[1]!.split(", ")) {
      assert(named.has(name), `${whose}: ${name} is not in README's Options`);
    }
  }
});

Deno.test("validate() refuses what isn't an object", () => {
  for (const options of [null, undefined, 1, "x", () => {}]) {
    assertThrows(
      () => validate(options, "server"),
      TypeError,
      "expected an object",
    );
  }
  const { signal } = new AbortController();
  assertThrows(() => validate([], "map"), TypeError, "got an array");
  assertThrows(() => validate(signal, "ready"), TypeError, "an AbortSignal");
});

Deno.test("validate() asks for the number of attempts of retry", () => {
  for (const retry of [{}, { backoffMs: 1 }, { attempts: undefined }]) {
    assertThrows(
      () => validate({ retry }, "server"),
      TypeError,
      "Cannot use retry options: expected a number of attempts",
    );
  }
});

Deno.test("validate() says what was given and what was expected", () => {
  assertThrows(
    () => validate({ maxFrameBytes: 10 }, "client"),
    RangeError,
    "Cannot use client options: maxFrameBytes is 10, expected an integer from 1024 to 4294967295",
  );
  assertThrows(
    () => validate({ results: "drop" }, "server"),
    RangeError,
    'results is "drop", expected "keep" or "discard"',
  );
  assertThrows(
    () => validate({ window: 5n }, "map"),
    TypeError,
    "window is 5n, expected a number",
  );
  assertThrows(
    () => validate({ onEvent: [] }, "server"),
    TypeError,
    "onEvent is an array, expected a function",
  );
  assertThrows(
    () => validate({ maxQueued: () => 1 }, "server"),
    TypeError,
    "maxQueued is a function, expected a number",
  );
  assertThrows(
    () => validate({ heartbeat: { interval: 1 } }, "server"),
    TypeError,
    '"interval" is unknown, expected intervalMs, timeoutMs, dropMs',
  );
  const first = { name: "one", open: () => {} };
  assertThrows(
    () => validate({ transforms: [first, "gzip"] }, "client"),
    TypeError,
    'transforms[1] is "gzip", expected a Transform: { name, open(context) }',
  );
  assertThrows(
    () => validate({ prefetch: "all" }, "client"),
    TypeError,
    'prefetch is "all", expected a number, or "auto"',
  );
  assertThrows(
    () => validate({ port: 1, reconnect: true }, "connect"),
    TypeError,
    "reconnect is true, expected false, or an object",
  );
});

Deno.test("validate() says what it expected inside of dashboard and local", () => {
  const cases: [Record<string, unknown>, string][] = [
    [
      { dashboard: 8080 },
      "Cannot use listen options: dashboard is 8080, expected an object",
    ],
    [{ dashboard: {} }, "Cannot use dashboard options: expected a port"],
    [
      { dashboard: { port: 8080, path: "/" } },
      'Cannot use dashboard options: "path" is unknown, expected port, hostname, cert, key',
    ],
    [
      { dashboard: { port: "8080" } },
      'Cannot use dashboard options: port is "8080", expected a number',
    ],
    [
      { dashboard: { port: 1, cert: "PEM" } },
      "Cannot use dashboard options: expected both cert and key, or none, got cert alone",
    ],
    [
      { local: url },
      "Cannot use local options: expected a module, as a URL",
    ],
    [
      { local: { module: "./handler.ts" } },
      'Cannot use local options: module is "./handler.ts", expected a URL',
    ],
    [
      { local: { module: url, cores: 2 } },
      'Cannot use local options: "cores" is unknown, expected count, concurrency, name, module',
    ],
  ];
  for (const [options, message] of cases) {
    const given = { port: 0, ...options };
    // Nothing is opened: a listener that stayed open would fail this test.
    const error = assertThrows(() => listen(given), TypeError);
    assertEquals(error.message, message);
  }
});

Deno.test("validate() asks for room for one frame in flight", () => {
  for (const whose of ["server", "listen"] as const) {
    const port = whose === "listen" ? { port: 0 } : {};
    assertThrows(
      () => validate({ ...port, maxFrameBytes: 9 * 1024 * 1024 }, whose),
      RangeError,
      "maxInFlightBytes is 8388608, expected at least maxFrameBytes, 9437184",
    );
    validate(
      { ...port, maxFrameBytes: 1 << 20, maxInFlightBytes: 1 << 20 },
      whose,
    );
  }
});

Deno.test("validate() asks for a port, and for cert and key together", () => {
  for (const whose of ["listen", "connect"] as const) {
    for (const options of [{}, { port: undefined }]) {
      assertThrows(
        () => validate(options, whose),
        TypeError,
        "expected a port",
      );
    }
    validate({ port: 1 }, whose);
  }
  for (const half of [{ cert: "c" }, { key: "k" }]) {
    assertThrows(
      () => validate({ port: 0, ...half }, "listen"),
      TypeError,
      "expected both cert and key",
    );
  }
  const cert = "-----BEGIN C", key = "-----BEGIN K";
  validate({ port: 0, cert, key }, "listen");
  for (const path of [{ cert: "c.pem" }, { key: "k.pem" }]) {
    const error = assertThrows(
      () => validate({ port: 0, cert, key, ...path }, "listen"),
      TypeError,
      `expected ${Object.keys(path)[0]} as PEM`,
    );
    assert(!error.message.includes(".pem"), "a key is a secret");
  }
});

Deno.test("Options are checked at construction, before anything is opened", async () => {
  const bad = { unknown: 1 } as Record<string, unknown>;
  const listener = new MemoryListener();
  assertThrows(() => new Server(listener, bad), TypeError, "unknown");
  assertThrows(
    () => new Client(listener.connect(), bad),
    TypeError,
    "unknown",
  );
  listener.close();
  assertThrows(() => listen({ port: 0, ...bad }), TypeError, "unknown");
  for (const start of [connect, work]) {
    const error = await start({ port: 1, ...bad }, () => {}).catch((e) => e);
    assert(error instanceof TypeError);
  }
  const error = await work({ port: 1 }, 5 as unknown as () => void)
    .catch((e) => e);
  assert(error instanceof TypeError);
  assertStringIncludes(error.message, "handler");
});

Deno.test("secretBytes() takes text as UTF-8, and bytes as they are", () => {
  assertEquals(secretBytes(undefined), null);
  assertEquals(secretBytes("é"), new Uint8Array([0xc3, 0xa9]));
  assertEquals(secretBytes(new Uint8Array([1])), new Uint8Array([1]));
});

const ROOT = new URL("../", import.meta.url);

/** A default, however it is written: "5,000", "8 MiB", "8 * 1024 * 1024". */
function toValue(text: string): string {
  const factors = text.replaceAll("`", "").replaceAll(/(?<=\d)[,_](?=\d)/g, "")
    .replace(" MiB", " * 1048576").split(" * ").map(Number);
  const product = factors.reduce((a, b) => a * b);
  return Number.isNaN(product) ? text.replaceAll(/[`"]/g, "") : String(product);
}

/** The defaults that the documentation of the options has, by their names. */
async function documentedDefaults(): Promise<[name: string, value: string][]> {
  const text = await Deno.readTextFile(new URL("internal/options.ts", ROOT));
  return [...text.matchAll(/@default \{(.*)\}\n +\*\/\n +(\w+)\?/g)]
    .map(([, value = "", name = ""]) => [name, toValue(value)]);
}

Deno.test("every option that may be left out says its default", async () => {
  for (const file of ["options", "gzip", "cbor_codec"]) {
    const text = await Deno.readTextFile(
      new URL(`internal/${file}.ts`, ROOT),
    );
    const interfaces = text.matchAll(
      /^export interface (\w+Options)\b[^]*?^\}/gm,
    );
    for (const [body, name] of interfaces) {
      const optional = body.match(/^ {2}\w+\?:/gm) ?? [];
      const said = body.match(/^ {3}\* @default \{.+\}$/gm) ?? [];
      assertEquals(said.length, optional.length, name);
    }
  }
});

Deno.test("README.md has the defaults that options have", async () => {
  const text = await Deno.readTextFile(new URL("README.md", ROOT));
  const section = text.slice(
    text.indexOf("\n## Options"),
    text.indexOf("\n## Values"),
  );
  // `| \`name\`, \`name\` | default, default |`, and in text `name` [default].
  const said: [name: string, value: string][] = [];
  for (
    const [, names = "", value = ""] of section.matchAll(
      /^\| (`\S+`) +\| (.*?) +\|/gm,
    )
  ) {
    said.push([names.replaceAll("`", ""), toValue(value)]);
  }
  for (
    const [, name = "", value = ""] of section.matchAll(
      /`(?:.*, )?(\w+)(?: \})?`\s\[(.*?)\]/g,
    )
  ) {
    said.push([name, toValue(value)]);
  }
  const defaults = await documentedDefaults();
  defaults.push(["drainMs", String(DEFAULTS.drainMs)]); // close() has it in line
  for (const [name, value] of said) {
    const own = defaults.filter(([of]) => of === name);
    // `heartbeat` is an object, whose fields have theirs.
    if (own.length === 0 || name === "heartbeat") continue;
    if (["on", "none", "all cores"].includes(value)) continue;
    assert(
      own.some(([, its]) => its === value),
      `${name}: ${value}, not ${own}`,
    );
  }
  assert(said.length > 40);
});

Deno.test("DEFAULTS are what the documentation of the options says", async () => {
  const defaults = await documentedDefaults();
  for (const [name, value] of Object.entries(DEFAULTS)) {
    const own = defaults.filter(([of]) => of === name);
    if (name === "codec" || own.length === 0) continue; // or no option
    assertEquals(own, own.map(() => [name, toValue(String(value))]));
  }
});

Deno.test("ownOptions() copies what is inside of options, and what a class gives it", () => {
  const caCerts = ["-----BEGIN CERTIFICATE-----"];
  const module = new URL("file:///handler.ts");
  for (
    const [of, inside] of [
      ["connect", { secret: Uint8Array.of(1) }],
      ["connect", { transforms: [gzip()] }],
      ["connect", { heartbeat: { timeoutMs: 20_000 } }],
      ["connect", { reconnect: { minDelayMs: 1 } }],
      ["connect", { tls: { caCerts } }],
      ["listen", { retry: { attempts: 1 } }],
      ["listen", { dashboard: { port: 0 } }],
      ["listen", { local: { module } }],
    ] as [of: "connect" | "listen", inside: object][]
  ) {
    const [[name, value]] = Object.entries(inside) as [[string, object]];
    const own = (value: unknown) =>
      Object(ownOptions({ port: 1, [name]: value }, of))[name];
    assertEquals(own(value), value);
    assertFalse(own(value) === value, name);
    if (Array.isArray(value) || value instanceof Uint8Array) continue;
    assertEquals(own(Object.create(value)), value);
  }
  const { tls } = ownOptions({ port: 1, tls: { caCerts } }, "connect");
  assertFalse(tls.caCerts === caCerts);
});

Deno.test("what becomes of options once they are handed over is nothing to the server", async () => {
  const retry = { attempts: 2, backoffMs: 1 };
  const options: ServerOptions<number, number> = { retry, resultSchema: even };
  const listener = new MemoryListener();
  await using server = new Server<number, number>(listener, options);
  options.resultSchema = schema as never;
  retry.attempts = 1;
  let calls = 0;
  const client = new Client<number, number>(listener.connect());
  const done = client.work((n) =>
    ++calls === 1 ? Promise.reject(new Error("again")) : n
  );
  assertEquals(await server.submit(2), 2);
  assertEquals(calls, 2);
  await assertRejects(() => server.submit(3), ItemFailure);
  await server.close();
  await done;
});

Deno.test("what becomes of options once they are handed over is nothing to map()", async () => {
  await using server = listen<number, number>({ port: 0 });
  const { port } = server.addr;
  work<number, number>({ port }, (n) => n + 1).catch(() => {});
  const controller = new AbortController();
  const options: MapOptions<number> & { settled: true } = {
    settled: true,
    signal: controller.signal,
  };
  const results = server.map([1, 2], options);
  delete options.signal;
  (options as MapOptions).settled = false;
  assertEquals((await results.next()).value, { index: 0, item: 1, result: 2 });
  controller.abort(new Error("mine"));
  await assertRejects(() => results.next(), Error, "mine");
});

Deno.test("what becomes of options once they are handed over is nothing to work()", async () => {
  const names: string[] = [];
  await using server = listen<number, number>({
    port: 0,
    onEvent(event) {
      if (event.type === "connected") names.push(event.worker.name);
    },
  });
  const { port } = server.addr as Deno.NetAddr;
  await using proxy = new TcpProxy(port);
  const options: ConnectOptions<number, number> = {
    port: proxy.port,
    name: "first",
    reconnect: { minDelayMs: 1 },
  };
  const workOptions: WorkOptions = { concurrency: 1 };
  const gate = new Gate();
  const done = work<number, number>(options, async (n) => {
    await gate.pass();
    return n;
  }, workOptions);
  options.name = "second";
  options.reconnect = false;
  workOptions.concurrency = 3;
  await server.ready(1);
  proxy.cut();
  await until(() => names.length === 2, "it is there again");
  const results = [1, 2, 3, 4].map((n) => server.submit(n));
  await until(() => gate.passing === 1, "one is executed");
  await moment();
  assertEquals(gate.passing, 1);
  assertEquals(server.stats().inFlight, 2); // a window of concurrency + 1
  gate.open();
  assertEquals(await Promise.all(results), [1, 2, 3, 4]);
  assertEquals(names, ["first", "first"]);
  await server.close();
  await done;
});

Deno.test("options that a class gives are options: a secret is never dropped", async () => {
  class Config {
    #secret = "s3cret";
    port = 0;
    get secret(): string {
      return this.#secret;
    }
  }
  class Wrong extends Config {
    get maxQueued(): number {
      return -1;
    }
  }
  assertThrows(() => listen(new Wrong()), RangeError, "maxQueued");
  await using server = listen<number, number>(new Config());
  const { port } = server.addr as Deno.NetAddr;
  await assertRejects(() => connect({ port }), HandshakeError, "secret");
  const own = Object.assign(new Config(), { port });
  const client = await connect<number, number>(own);
  client.work((n) => n + 1).catch(() => {});
  assertEquals(await server.submit(1), 2);
});

Deno.test("what a class gives options inside of options, or those of a call, counts too", async () => {
  const withGetters = (values: Record<string, unknown>): never =>
    Object.create(values) as never;
  await using server = listen<number, number>({
    port: 0,
    retry: withGetters({ attempts: 2, backoffMs: 0 }),
    heartbeat: withGetters({ timeoutMs: 20_000 }),
  });
  let tries = 0;
  const { port } = server.addr;
  const working = work<number, number>({ port }, (n) => {
    if (tries++ === 0) throw new Error("once");
    return n;
  });
  assertEquals(await server.submit(1), 1);
  const wrong = withGetters({
    timeoutMs: "1",
    concurrency: "1",
    window: "1",
    drainMs: "1",
  });
  await assertRejects(() => server.submit(1, wrong), TypeError, "timeoutMs");
  await assertRejects(() => server.close(wrong), TypeError, "drainMs");
  assertThrows(() => server.map([1], wrong), TypeError, "window");
  await assertRejects(
    () => work({ port }, (n) => n, wrong),
    TypeError,
    "concurrency",
  );
  assertThrows(
    () => listen({ port: 0, heartbeat: wrong }),
    TypeError,
    "timeoutMs",
  );
  await server.close();
  await working;
});

Deno.test("what a class gives the options of work(), or local, is used", async () => {
  class Four {
    get concurrency(): number {
      return 4;
    }
  }
  const gate = new Gate();
  const handler = async (n: number) => (await gate.pass(), n);
  await using server = listen<number, number>({ port: 0 });
  const { port } = server.addr;
  const client = await connect<number, number>({ port });
  Object.assign(globalThis, { distchanFour: handler });
  const module = new URL("data:text/javascript,export default distchanFour");
  for (
    const done of [
      work<number, number>({ port }, handler, new Four()),
      client.work(module, new Four()),
    ]
  ) done.catch(() => {});
  await server.ready(2);
  const results = Array.from({ length: 9 }, (_, n) => server.submit(n));
  await until(() => gate.passing === 8, "four each are executed");
  gate.open();
  await Promise.all(results);
  await assertRejects(
    () => client.work(handler, Object.create({ isolate: true })),
    TypeError,
    "isolates",
  );
  class Local {
    module = new URL("data:text/javascript,export default (n) => n");
    get count(): number {
      return 1;
    }
    get name(): string {
      return "named";
    }
  }
  await using own = listen<number, number>({ port: 0, local: new Local() });
  await own.ready();
  assertEquals(own.workers.map(({ name }) => name), ["named-1"]);
});

Deno.test("a list is no options, and text must be well-formed", async () => {
  const none = [] as never;
  assertThrows(() => listen({ port: 0, heartbeat: none }), TypeError, "array");
  await assertRejects(() => connect({ port: 1, tls: none }), TypeError, "tls");
  await assertRejects(() => connect(none), TypeError, "got an array");
  for (
    const [option, shown] of [
      ["signature", '"a\\ud800"'],
      ["secret", "text of 2 characters"],
    ] as const
  ) {
    assertThrows(
      () => listen({ port: 0, [option]: "a\ud800" }),
      RangeError,
      `${option} is ${shown}, expected text without lone surrogates`,
    );
  }
  const name = "\udc00";
  const options = { port: 0, codec: { ...codec, name } };
  assertThrows(() => listen(options), TypeError, "codec is");
  const transforms = [{ name, open: gzip().open }];
  assertThrows(
    () => listen({ port: 0, transforms }),
    TypeError,
    "transforms[0]",
  );
});

Deno.test("no option's error quotes a secret, or a private key that is in the wrong place", () => {
  const key =
    "-----BEGIN PRIVATE KEY-----\nTOPS3CRET\n-----END PRIVATE KEY-----";
  for (
    const [options, expected] of [
      [{ tls: { caCerts: [key] } }, "caCerts[0] is text of 63 characters"],
      [{ tls: { caCerts: key } }, "caCerts is text of"],
      [{ tls: key }, "tls is text of"],
      [{ secret: 1234567 }, "secret is a number, expected a string"],
      [{ secret: 1234567n }, "secret is a bigint, expected a string"],
    ] as const
  ) {
    const error = assertThrows(
      () => validate({ port: 1, ...options }, "connect"),
      TypeError,
      expected,
    );
    assert(!/S3CRET|1234567/.test(error.message), error.message);
  }
});
