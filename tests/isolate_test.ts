import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  cbor,
  CborTag,
  Client,
  type ClientEvent,
  type Codec,
  connect,
  ConnectionLostError,
  type ConnectOptions,
  ItemFailure,
  ItemTimeoutError,
  listen,
  type ListenOptions,
  PoisonItemError,
  type Server,
  work,
  type WorkOptions,
} from "../mod.ts";
import { ItemKind } from "../internal/frame.ts";
import { Isolate } from "../internal/isolate.ts";
import { PayloadCodec } from "../internal/payload.ts";
import { codec as json } from "./testdata/handlers/json.ts";
import { stdArgs } from "../tools/std.ts";
import { whyNoDenort } from "./_support/denort.ts";
import { freePort, success } from "./_support/examples.ts";
import { Folder } from "./_support/folder.ts";
import { Process, ROOT, startDeno } from "./_support/process.ts";
import { assertSame } from "./_support/same.ts";
import { moment, stateOf, until, within } from "./_support/within.ts";

function handler(name: string): URL {
  return new URL(`./testdata/handlers/${name}.ts`, import.meta.url);
}

/** A server, and a worker with isolates in this process. */
class Pair implements AsyncDisposable {
  readonly server: Server<unknown, unknown>;
  readonly port: number;
  readonly serverEvents: string[] = [];
  readonly clientEvents: ClientEvent[] = [];
  readonly #leave = new AbortController();
  readonly #works: Promise<void>[] = [];

  constructor(options: Omit<ListenOptions, "port"> = {}) {
    this.server = listen<unknown, unknown>({
      port: 0,
      onEvent: (event) => this.serverEvents.push(event.type),
      ...options,
    });
    this.port = (this.server.addr as Deno.NetAddr).port;
  }

  /** A worker with a handler of testdata/handlers in isolates. */
  work(
    name: string,
    options: WorkOptions & { connect?: Partial<ConnectOptions> } = {},
  ): Promise<void> {
    const { connect, ...workOptions } = options;
    const done = work(
      {
        port: this.port,
        reconnect: { minDelayMs: 1, maxDelayMs: 10 },
        onEvent: (event) => this.clientEvents.push(event),
        signal: this.#leave.signal,
        ...connect,
      },
      handler(name),
      { isolate: true, ...workOptions },
    );
    done.catch(() => {});
    this.#works.push(done);
    return done;
  }

  submit(item: unknown, ms = 20_000): Promise<unknown> {
    return within(this.server.submit(item), ms, `result of ${item}`);
  }

  /** The error of an item's handler. */
  async failure(item: unknown, ms?: number): Promise<Error> {
    const failure = await assertRejects(() => this.submit(item, ms));
    assertInstanceOf(failure, ItemFailure);
    return failure.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.abort();
    this.#leave.abort();
    await within(Promise.allSettled(this.#works), 20_000, "work() ends");
  }
}

/** Talks to the handler gate.ts. */
class Gates implements Disposable {
  readonly #channel = new BroadcastChannel("distchan gate");
  readonly #told: string[] = [];

  constructor() {
    this.#channel.onmessage = ({ data }) => this.#told.push(data);
  }

  async told(what: string): Promise<void> {
    await until(() => this.#told.includes(what), what, 10_000);
    this.#told.splice(this.#told.indexOf(what), 1);
  }

  open(name: string): void {
    this.#channel.postMessage(`open ${name}`);
  }

  [Symbol.dispose](): void {
    this.#channel.close();
  }
}

Deno.test("isolate: items get their results, and work() ends", async () => {
  await using pair = new Pair();
  const done = pair.work("double", { concurrency: 2 });
  const items = Array.from({ length: 500 }, (_, i) => i);
  assertEquals(
    await Array.fromAsync(pair.server.map(items)),
    items.map((n) => n * 2),
  );
  await pair.server.close();
  await within(done, 5000, "work() ends");
});

Deno.test("isolate: Client.work() takes a module too", async () => {
  await using pair = new Pair();
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: pair.port });
  await using client = new Client(conn);
  const done = client.work(handler("double"), { isolate: true });
  done.catch(() => {});
  assertEquals(await pair.submit(4), 8);
  await pair.server.close();
  await within(done, 5000, "work() ends");
});

Deno.test("isolate: an end that comes while Client.work() loads is an end", async () => {
  await using pair = new Pair();
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: pair.port });
  await using client = new Client(conn);
  await client.opened;
  const done = client.work(handler("double"), { isolate: true });
  done.catch(() => {});
  await within(pair.server.close(), 5000, "the server closes");
  await within(done, 5000, "work() ends");
});

Deno.test("isolate: concurrency is the number of isolates, one item in each", async () => {
  await using pair = new Pair();
  pair.work("who", { concurrency: 3 });
  await pair.server.ready();
  const ids = await Promise.all(
    [300, 300, 300, 0, 0, 0].map((ms) => pair.submit(ms)),
  );
  assertEquals(new Set(ids.slice(0, 3)).size, 3);
  assertEquals(new Set(ids).size, 3);
});

Deno.test("isolate: values arrive whole, there and back", async () => {
  await using pair = new Pair();
  pair.work("whole");
  const values = [
    new URL("https://example.com/?q=1"),
    new CborTag(1234, "tagged"),
    new Map<unknown, unknown>([[1n, new Set([undefined])]]),
    new Date(1e12),
    /x/gi,
    new Uint8Array(200_000).fill(7),
    new Float32Array([1.5, -0]),
    new RangeError("an error", { cause: "its cause" }),
    12n,
    -0,
  ];
  const result = await pair.submit(values) as {
    classes: string[];
    values: unknown[];
  };
  assertEquals(result.classes, [
    "URL",
    "CborTag",
    "Map",
    "Date",
    "RegExp",
    "Uint8Array",
    "Float32Array",
    "RangeError",
    "BigInt",
    "Number",
  ]);
  assertInstanceOf(result.values[7], RangeError);
  values.splice(7, 1);
  result.values.splice(7, 1);
  assertSame(result.values, values);
});

Deno.test("isolate: the handler gets id, attempt and signal", async () => {
  await using pair = new Pair({ retry: { attempts: 2, backoffMs: 1 } });
  pair.work("context");
  assertEquals(await pair.submit(1), {
    id: 0,
    attempt: 2,
    aborted: false,
    self: true,
  });
});

Deno.test("isolate: heartbeats are answered while handlers burn the processor", async () => {
  await using pair = new Pair({
    heartbeat: { intervalMs: 100, timeoutMs: 500, dropMs: 1000 },
  });
  pair.work("who", { concurrency: 2 });
  await Promise.all([pair.submit(2500), pair.submit(2500)]);
  for (const type of ["suspect", "disconnected", "redelivered"]) {
    assert(!pair.serverEvents.includes(type), type);
  }
});

Deno.test("isolate: a timed-out handler that lets nothing else run is replaced", async () => {
  await using pair = new Pair({ itemTimeoutMs: 500 });
  pair.work("trouble", { cancelGraceMs: 200 });
  const first = await pair.submit("fine");
  assertInstanceOf(await pair.failure("loop for 3 s"), ItemTimeoutError);
  await until(
    () => pair.clientEvents.some((event) => event.type === "failed"),
    "the handler is terminated",
  );
  const event = pair.clientEvents.find((event) => event.type === "failed");
  assertStringIncludes(`${event?.error}`, "terminated");
  assertStringIncludes(`${event?.error}`, "blocks its thread");
  const second = await pair.submit("fine");
  assert(second !== first, "the isolate is another");
  assertEquals(await pair.submit("fine"), second);
});

// In a process of its own: the thread loops until that ends.
Deno.test("isolate: a handler that loops for ever holds up neither items nor the end", async () => {
  await using pair = new Pair({ itemTimeoutMs: 1000 });
  await using worker = startIsolates(pair.port, { cancelGraceMs: 100 });
  const first = await pair.submit("fine");
  assertInstanceOf(await pair.failure("loop"), ItemTimeoutError);
  await worker.stdout.line(/terminated/);
  assert(await pair.submit("fine") !== first, "the isolate is another");
  await pair.server.close();
  const { code, stderr } = await worker.exit;
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
});

Deno.test("isolate: a cancelled handler that doesn't listen is replaced", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  pair.work("gate", { cancelGraceMs: 100 });
  const a = pair.submit("a");
  await gates.told("at a");
  gates.open("a");
  const cancel = new AbortController();
  const deaf = pair.server.submit("deaf", { signal: cancel.signal });
  await gates.told("at deaf");
  cancel.abort();
  await assertRejects(() => deaf, DOMException);
  const b = pair.submit("b");
  await gates.told("at b");
  gates.open("b");
  assert(await b !== await a, "the isolate is another");
  const error = pair.clientEvents.find((event) => event.type === "failed");
  assertStringIncludes(`${error?.error}`, "terminated");
  assert(!`${error?.error}`.includes("blocks its thread"));
});

Deno.test("isolate: a cancelled handler that listens keeps its isolate", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  pair.work("gate");
  const a = pair.submit("a");
  await gates.told("at a");
  gates.open("a");
  const cancel = new AbortController();
  const item = pair.server.submit("item", { signal: cancel.signal });
  await gates.told("at item");
  cancel.abort();
  await assertRejects(() => item, DOMException);
  await gates.told("aborted item: AbortError");
  const b = pair.submit("b");
  await gates.told("at b");
  gates.open("b");
  assertEquals(await b, await a);
});

Deno.test("isolate: an item that waits can be cancelled", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  pair.work("gate", { connect: { prefetch: 8 } });
  const a = pair.submit("a");
  await gates.told("at a");
  const cancel = new AbortController();
  const b = pair.server.submit("b", { signal: cancel.signal });
  const c = pair.submit("c");
  await until(() => pair.server.stats().inFlight === 3, "all are there");
  cancel.abort();
  await assertRejects(() => b, DOMException);
  const held = () => pair.server.workers[0]!.inFlight;
  await until(() => held() === 2, "it is answered, and leaves its slot");
  gates.open("a");
  await a;
  await gates.told("at c");
  gates.open("c");
  await c;
});

for (
  const [what, name, message] of [
    ["throw", "RangeError", "thrown"],
    ["throw text", "Error", "just text"],
    ["throw later", "RangeError", "thrown later"],
    ["reject and return", "RangeError", "rejected"],
    ["Deno.exit", "Error", "exit code 7"],
    ["process.exit", "Error", "exit code 8"],
    ["self.close", "Error", "exit code 0"],
    ["function", "EncodeError", "$.fn"],
  ] as const
) {
  Deno.test(`isolate: "${what}" is the failure of its item alone`, async () => {
    await using pair = new Pair();
    pair.work("trouble");
    const failing = pair.failure(what);
    const next = pair.submit("fine");
    const error = await failing;
    assertEquals(error.name, name);
    assertStringIncludes(error.message, message);
    await next;
    assert(!pair.serverEvents.includes("disconnected"));
  });
}

Deno.test("isolate: nothing is printed when handlers crash", async () => {
  await using pair = new Pair();
  await using worker = startIsolates(pair.port);
  for (const what of ["throw later", "reject and return", "Deno.exit"]) {
    await pair.failure(what);
  }
  await pair.server.close();
  const { code, stderr } = await worker.exit;
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
});

Deno.test("isolate: a crash with no item in it is told, and healed", async () => {
  await using pair = new Pair();
  pair.work("trouble");
  const first = await pair.submit("throw after");
  await until(
    () => pair.clientEvents.some((event) => event.type === "failed"),
    "the crash is told",
  );
  const event = pair.clientEvents.find((event) => event.type === "failed");
  assertEquals(event?.id, undefined);
  assertEquals(event?.error.message, "thrown after");
  assert(await pair.submit("fine") !== first, "the isolate is another");
});

Deno.test("isolate: causes cross, stacks only with sendStacks", async () => {
  for (const sendStacks of [false, true]) {
    await using pair = new Pair();
    pair.work("trouble", { sendStacks });
    const error = await pair.failure("throw");
    assertInstanceOf(error.cause, Error);
    assertEquals(error.cause.name, "TypeError");
    assertEquals(error.cause.message, "the cause");
    assertEquals(error.stack?.includes("handlers/trouble.ts"), sendStacks);
  }
});

Deno.test("isolate: a result that is too large is its item's failure", async () => {
  await using pair = new Pair({ maxFrameBytes: 10_000 });
  pair.work("trouble");
  assertStringIncludes((await pair.failure("large")).message, "limit");
  // Nobody could wait for the end of this one.
  const { message } = await pair.failure("endless");
  assertStringIncludes(message, "its frame is more than ");
  await pair.submit("fine");
});

Deno.test("isolate: results that aren't wanted aren't encoded", async () => {
  const failures: Error[] = [];
  await using pair = new Pair({
    results: "discard",
    onFailure: (failure) => failures.push(failure),
  });
  pair.work("trouble");
  pair.server.send("function");
  await pair.server.close();
  assertEquals(failures, []);
});

Deno.test("isolate: an async generator yields values, each with credit", async () => {
  await using pair = new Pair();
  pair.work("count");
  const results = pair.server[Symbol.asyncIterator]();
  pair.server.send(3000);
  for (let i = 0; i < 3000; i++) {
    const { value } = await within(results.next(), 10_000, `value ${i}`);
    assertEquals(value, i);
  }
  await pair.server.end();
  assert((await results.next()).done);
  await pair.server.closed;
});

Deno.test("isolate: room for a cancelled item's value is none for the next item", async () => {
  const settled: string[] = [];
  const freed = [Promise.withResolvers<void>()];
  const isolate = new Isolate({
    url: handler("count").href,
    codec: "cbor",
    cbor: {},
  }, {
    graceMs: 20_000,
    events: {
      onFree: () => freed.at(-1)!.resolve(),
      onGone: (_, error) => freed.at(-1)!.reject(error),
      onUnusable: (_, error) => freed.at(-1)!.reject(error),
    },
  });
  const payloads = new PayloadCodec(cbor());
  /** Executes an item up to its first value, for which there is no room. */
  const execute = async (delivery: number) => {
    const first = Promise.withResolvers<void>();
    const room = Promise.withResolvers<void>();
    let values = 0;
    freed.push(Promise.withResolvers());
    isolate.execute({
      item: {
        delivery,
        id: delivery,
        attempt: 1,
        kind: ItemKind.VALUE,
        value: payloads.encode(10),
      },
      wantsResult: false,
      valueLimit: 0,
      onResult: () => settled.push(`${delivery}: result`),
      onError: ({ name }) => settled.push(`${delivery}: ${name}`),
      onValue: () => {
        values++;
        first.resolve();
        return room.promise;
      },
    });
    await within(first.promise, 10_000, "a value");
    return { room, values: () => values };
  };
  try {
    await within(freed[0]!.promise, 10_000, "the isolate");
    const cancelled = await execute(0);
    isolate.abort(null);
    await within(freed.at(-1)!.promise, 10_000, "the end of the first");
    const next = await execute(1);
    cancelled.room.resolve();
    await moment(0); // whoever waited for it has been told
    isolate.abort(null); // it would arrive behind the room
    await within(freed.at(-1)!.promise, 10_000, "the end of the second");
    assertEquals(next.values(), 1);
    assertEquals(settled, ["0: AbortError", "1: AbortError"]);
  } finally {
    isolate.terminate();
  }
});

Deno.test("isolate: a generator is the failure of an item of submit()", async () => {
  await using pair = new Pair();
  pair.work("count");
  const error = await pair.failure(3);
  assertEquals(error.name, "TypeError");
  assertStringIncludes(error.message, "generator");
});

Deno.test("isolate: a yielded value that can't be encoded is its item's failure", async () => {
  const failures: ItemFailure[] = [];
  await using pair = new Pair({ onFailure: (f) => failures.push(f) });
  pair.work("yield_bad");
  pair.server.send(1);
  await pair.server.close();
  assertEquals(failures.map((f) => f.error.name), ["EncodeError"]);
});

Deno.test("isolate: leaving finishes what is begun and hands back the rest", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  const leave = new AbortController();
  const done = pair.work("gate", {
    signal: leave.signal,
    connect: { prefetch: 8 },
  });
  const a = pair.submit("a"), b = pair.submit("b");
  await gates.told("at a");
  await until(() => pair.server.stats().inFlight === 2, "both are there");
  leave.abort();
  await until(() => pair.server.stats().inFlight === 1, "b went back");
  gates.open("a");
  await a;
  await within(done, 5000, "work() ends");
  pair.work("gate");
  await gates.told("at b");
  gates.open("b");
  await b;
});

Deno.test("isolate: a signal that aborts while the module loads ends work()", async () => {
  const leave = new AbortController();
  const done = work({ port: freePort() }, handler("double"), {
    isolate: true,
    signal: leave.signal,
  });
  leave.abort();
  await within(done, 5000, "work() ends");
});

for (const isolate of [true, false]) {
  const where = isolate ? "isolate: " : "";
  Deno.test(`${where}a module that is never loaded holds up no end of work()`, async () => {
    await using pair = new Pair();
    // Here it is loaded at the end, which the sanitizers want.
    const gate = Promise.withResolvers<void>();
    Object.assign(globalThis, { distchanGate: gate.promise });
    const never = new URL(
      "data:text/javascript,await (globalThis.distchanGate ?? new Promise(() => {}));export default () => {}",
    );
    const leave = new AbortController();
    const { signal } = leave;
    const left = work({ port: pair.port }, never, { isolate, signal });
    const clients = await Promise.all(Array.from({ length: 2 }, async () => {
      const conn = await Deno.connect({ port: pair.port });
      return new Client(conn);
    }));
    const [leaving, lost] = clients.map((client, at) =>
      client.work(never, { isolate, ...(at === 0 ? { signal } : {}) })
    );
    lost!.catch(() => {});
    await pair.server.ready(2);
    leave.abort();
    await within(left, 5000, "the function work() ends");
    await within(leaving!, 5000, "Client.work() ends");
    const late = await connect({ port: pair.port });
    await within(late.work(never, { isolate, signal }), 5000, "that too");
    void pair.server.abort();
    await assertRejects(
      () => within(lost!, 5000, "Client.work() rejects"),
      ConnectionLostError,
    );
    gate.resolve();
  });
}

Deno.test("isolate: a lost connection aborts the handler", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: pair.port });
  await using client = new Client(conn);
  const done = client.work(handler("gate"), { isolate: true });
  done.catch(() => {});
  const lost = pair.server.submit("lost").catch(() => {});
  await gates.told("at lost");
  conn.close();
  await gates.told("aborted lost: ConnectionLostError");
  await assertRejects(
    () => within(done, 5000, "work() rejects"),
    ConnectionLostError,
  );
  await pair.server.abort();
  await lost;
});

Deno.test("isolate: isolates stay warm over a reconnection", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  const { port } = pair;
  pair.work("gate");
  const a = pair.submit("a");
  await gates.told("at a");
  gates.open("a");
  const id = await a;
  const lost = pair.server.submit("b").catch(() => {});
  await gates.told("at b");
  await pair.server.abort();
  await lost;
  await gates.told("aborted b: AbortError");
  await using again = listen<unknown, unknown>({ port });
  const c = again.submit("c");
  await gates.told("at c");
  gates.open("c");
  assertEquals(await c, id);
  await again.close();
});

Deno.test("isolate: a handler of a lost connection isn't among those of the next", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  pair.work("gate", { cancelGraceMs: 60_000 });
  let { server } = pair;
  /** Submits an item, and loses the connection that it is executed for. */
  const lose = async (name: string) => {
    const lost = server.submit(name).catch(() => {});
    await gates.told(`at ${name}`);
    await server.abort();
    await lost;
    server = listen<unknown, unknown>({ port: pair.port });
  };
  const result = async (name: string) => {
    const result = server.submit(name);
    await gates.told(`at ${name}`);
    gates.open(name);
    return await result;
  };
  await lose("deaf 1");
  await lose("deaf 2");
  // For a third there would be no bound: one of the two has to end.
  const third = server.submit("a");
  const begun = gates.told("at a");
  await moment(500);
  assertEquals(await stateOf(begun), "pending");
  gates.open("deaf 1");
  await begun;
  gates.open("a");
  const id = await third;
  const { terminate } = Isolate.prototype;
  let terminated = 0;
  Isolate.prototype.terminate = function () {
    terminated++;
    terminate.call(this);
  };
  try {
    gates.open("deaf 2");
    await until(() => terminated === 1, "nobody needs it any more");
  } finally {
    Isolate.prototype.terminate = terminate;
  }
  assertEquals(await result("b"), id);
  await server.close();
});

Deno.test("isolate: one that ended before its connection did isn't left over", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  pair.work("gate", { cancelGraceMs: 10 });
  const cancel = new AbortController();
  const { terminate } = Isolate.prototype;
  const ended = Promise.withResolvers<void>();
  Isolate.prototype.terminate = function () {
    terminate.call(this);
    ended.resolve();
  };
  try {
    const lost = pair.server.submit("deaf", { signal: cancel.signal });
    lost.catch(() => {});
    await gates.told("at deaf");
    cancel.abort();
    await ended.promise;
  } finally {
    Isolate.prototype.terminate = terminate;
  }
  // Before another is loaded in its place.
  await pair.server.abort();
  const server = listen<unknown, unknown>({ port: pair.port });
  const results = [server.submit("a"), server.submit("b")];
  await gates.told("at a");
  const both = gates.told("at b");
  await moment(500);
  assertEquals(await stateOf(both), "pending", "concurrency is 1");
  gates.open("a");
  await both;
  gates.open("b");
  await Promise.all(results);
  await server.close();
});

Deno.test("isolate: a handler that outlasts its connection has its grace and no more", async () => {
  using gates = new Gates();
  await using pair = new Pair();
  const done = pair.work("gate", {
    cancelGraceMs: 200,
    connect: { reconnect: false },
  });
  const lost = pair.server.submit("deaf").catch(() => {});
  await gates.told("at deaf");
  await pair.server.abort();
  await lost;
  await assertRejects(
    () => within(done, 5000, "work() ends"),
    ConnectionLostError,
  );
});

Deno.test("isolate: a custom codec is the one that the module exports", async () => {
  await using pair = new Pair({ codec: json });
  pair.work("json", { connect: { codec: json } });
  assertEquals(await pair.submit({ n: 1 }), { n: 2 });
});

Deno.test("isolate: a codec that can't read a result is its item's failure", async () => {
  const resultSchema = {
    "~standard": {
      version: 1 as const,
      vendor: "tests",
      validate: (value: unknown) => ({ value }),
    },
  };
  const writeOnly: Codec<unknown> = {
    ...json,
    decode: () => {
      throw new Error("not here");
    },
  };
  await using pair = new Pair({ codec: json });
  pair.work("json", { connect: { codec: writeOnly, resultSchema } });
  const { error } = await assertRejects(
    () => pair.submit({ n: 1 }),
    ItemFailure,
  );
  assertStringIncludes(error.message, 'codec "json" failed: not here');
  assertEquals(pair.server.workers.length, 1);
});

/** What work() says when it can't begin; nobody listens on its port. */
async function refusal(
  name: string,
  options: Partial<ConnectOptions> = {},
): Promise<string> {
  const error = await assertRejects(
    () =>
      within(
        work({ port: freePort(), ...options }, handler(name), {
          isolate: true,
          concurrency: 2,
        }),
        10_000,
        "work() rejects",
      ),
    TypeError,
  );
  return error.message;
}

Deno.test("isolate: a module that can't be used rejects work(), and says why", async () => {
  assertStringIncludes(await refusal("missing"), "missing.ts");
  assertStringIncludes(await refusal("no_default"), "default export");
  assertStringIncludes(await refusal("throws"), "thrown at import");
  assertStringIncludes(await refusal("exits"), "exit code 9");
});

Deno.test("isolate: a codec that doesn't fit rejects work(), and says why", async () => {
  assertStringIncludes(await refusal("no_codec"), "is no codec");
  assertStringIncludes(await refusal("json"), '"json"');
  assertStringIncludes(await refusal("json"), '"cbor"');
  const codec: Codec<unknown> = { ...json, name: "my-json" };
  assertStringIncludes(await refusal("double", { codec }), "my-json");
  assertStringIncludes(await refusal("double", { codec }), "export");
});

Deno.test("isolate: the module of Client.work() can't be used: it rejects", async () => {
  await using pair = new Pair();
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: pair.port });
  await using client = new Client(conn);
  await assertRejects(
    () => client.work(handler("throws"), { isolate: true }),
    TypeError,
    "thrown at import",
  );
});

Deno.test("why a module can't be loaded is said behind a part of its URL", async () => {
  const source = `throw new Error("the reason"); // ${"long ".repeat(5000)}`;
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`);
  const server = listen({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  for (const isolate of [false, true]) {
    const { message } = await assertRejects(
      () => work({ port }, url, { isolate }),
      TypeError,
    );
    assert(message.length < 1000, `${message.length} UTF-16 units`);
    assertStringIncludes(message, "Cannot load the handler data:text");
    assertStringIncludes(message, "the reason");
  }
  server.spawn(url);
  const { message } = await assertRejects(() => server.closed, TypeError);
  assert(message.endsWith("the reason"), message);
});

Deno.test("a module that starts threads of itself in each is told so", async () => {
  const module = handler("itself");
  const server = listen({ port: 0, local: { module, count: 1 } });
  const { port } = server.addr as Deno.NetAddr;
  const error = await assertRejects(() => server.closed, TypeError);
  assertStringIncludes(error.message, "in a thread of the same module");
  module.search = "?isolate";
  await assertRejects(
    () => work({ port }, module, { isolate: true }),
    TypeError,
    "in a thread of the same module",
  );
});

Deno.test("isolate: a function can't be taken into one", async () => {
  const port = freePort();
  await assertRejects(
    () => work({ port }, () => {}, { isolate: true }),
    TypeError,
    "module",
  );
});

Deno.test("work() runs a module's default export in this event loop without isolate", async () => {
  await using pair = new Pair();
  pair.work("double", { isolate: false });
  assertEquals(await pair.submit(21), 42);
  await assertRejects(
    () => work({ port: freePort() }, handler("no_default")),
    TypeError,
    "default export",
  );
});

Deno.test("isolate: one that is out of memory takes its process, and the item is poison", async () => {
  await using pair = new Pair({ maxDeliveries: 2 });
  const flags = ["--v8-flags=--max-old-space-size=64"];
  await using first = startIsolates(pair.port, { flags });
  const poison = pair.failure("memory", 60_000);
  await first.exit;
  await using second = startIsolates(pair.port, { flags });
  assertInstanceOf(await poison, PoisonItemError);
  await second.exit;
  await using _third = startIsolates(pair.port, { flags });
  await pair.submit("fine");
  await pair.server.close();
});

const noDenort = await whyNoDenort();
if (noDenort) console.log(`No isolate is compiled: ${noDenort}`);

Deno.test("isolate: a binary includes the handler (needs denort)", {
  ignore: noDenort !== undefined,
}, async () => {
  await using pair = new Pair();
  await using folder = await Folder.make();
  const binary = `${folder.path}/worker`;
  await using compiler = new Process(Deno.execPath(), [
    "compile",
    "--no-check",
    ...stdArgs(),
    `--allow-net=127.0.0.1:${pair.port}`,
    `--include=${ROOT}tests/testdata/handlers/trouble.ts`,
    `--output=${binary}`,
    `${ROOT}tests/testdata/isolate_worker.ts`,
  ]);
  await success(compiler);
  await using worker = new Process(binary, [`${pair.port}`, "{}"]);
  await pair.submit("fine");
  await pair.failure("Deno.exit");
  await pair.submit("fine");
  await pair.server.close();
  await success(worker);
});

/** A process that works with trouble.ts in an isolate; it prints failures. */
function startIsolates(
  port: number,
  options: { cancelGraceMs?: number; flags?: string[] } = {},
): Process {
  const { flags = [], ...workOptions } = options;
  return startDeno([
    "-A",
    "--no-check",
    ...flags,
    `${ROOT}tests/testdata/isolate_worker.ts`,
    `${port}`,
    JSON.stringify(workOptions),
  ]);
}
