/**
 * Tracing: where it is on, a span for each item on the server and one for each
 * execution on the worker, in one trace; where it is off, nothing.
 */
import {
  assert,
  assertEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { Client, Server } from "../mod.ts";
import { ByteWriter } from "../internal/byte_writer.ts";
import { CborDecoder } from "../internal/cbor_decoder.ts";
import { DecodeError, ProtocolError } from "../internal/errors.ts";
import { findLongString, LONG_BYTES } from "../internal/long_string.ts";
import {
  readTrace,
  type TraceContext,
  writeTrace,
} from "../internal/trace_context.ts";
import {
  fail,
  openTracing,
  RemoteSpan,
  type Span,
  type Telemetry,
  Tracing,
} from "../internal/tracing.ts";
import {
  type CollectedSpan,
  Collector,
  OtlpKind,
} from "./_support/collector.ts";
import { golden } from "./_support/golden.ts";
import { MemoryListener } from "./_support/memory_pair.ts";
import { type Exit, type Process, startDeno } from "./_support/process.ts";
import { seeded } from "./_support/rng.ts";
import {
  concat,
  payload,
  ScriptedPeer,
  sequence,
  T,
} from "./_support/scripted_peer.ts";
import { within } from "./_support/within.ts";

const TRACE: TraceContext = {
  traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
  spanId: "00f067aa0ba902b7",
  traceFlags: 1,
};

// --- The context alone ---

function written(context: TraceContext | undefined): Uint8Array {
  const out = new ByteWriter();
  writeTrace(out, context);
  return out.toBytes();
}

function read(bytes: Uint8Array): TraceContext | undefined {
  const reader = new CborDecoder();
  reader.set(bytes);
  const context = readTrace(reader);
  reader.finish();
  return context;
}

/** A trace as an end may send it that makes mistakes. */
function trace(of: Uint8Array): TraceContext | undefined {
  return read(sequence(of));
}

Deno.test("readTrace() reads what writeTrace() writes", () => {
  const rng = seeded("traces");
  for (let i = 0; i < 100; i++) {
    const context = {
      traceId: rng.bytes(16).toHex(),
      spanId: rng.bytes(8).toHex(),
      traceFlags: rng.int(0, 255),
    };
    assertEquals(read(written(context)), context);
  }
  assertEquals(read(written(undefined)), undefined);
});

Deno.test("readTrace() takes ids that are all zero as no trace", () => {
  const bytes = Uint8Array.fromHex(TRACE.traceId + TRACE.spanId + "01");
  assertEquals(trace(bytes), TRACE);
  assertEquals(trace(bytes.slice().fill(0, 0, 16)), undefined);
  assertEquals(trace(bytes.slice().fill(0, 16, 24)), undefined);
  assertEquals(trace(bytes.fill(0)), undefined);
});

Deno.test("readTrace() refuses any other length, and what isn't bytes", () => {
  for (const length of [1, 24, 26, 29, 55, 4096]) {
    assertThrows(
      () => trace(new Uint8Array(length).fill(1)),
      ProtocolError,
      `its trace is ${length} bytes, expected 25 or none`,
    );
  }
  for (const other of [null, 0, "00-4bf9", [TRACE], TRACE, undefined]) {
    assertThrows(() => read(sequence(other)), DecodeError);
  }
  // Bytes that aren't there, and a length that isn't told.
  assertThrows(() => read(written(TRACE).subarray(0, 20)), DecodeError);
  assertThrows(
    () => read(Uint8Array.fromHex("5bffffffffffffffff")),
    DecodeError,
  );
  assertThrows(() => read(Uint8Array.fromHex("5f4101ff")), DecodeError);
});

Deno.test("findLongString() finds a payload behind its trace", () => {
  const size = 2 * LONG_BYTES;
  const head = concat([
    sequence(T.ITEM, 1, 0, 0, 7),
    written(TRACE),
    Uint8Array.fromHex("5a" + size.toString(16).padStart(8, "0")),
  ]);
  const bytes = concat([head, new Uint8Array(1000)]);
  const options = { start: 0, end: bytes.length, length: head.length + size };
  assertEquals(
    findLongString(bytes, { ...options, inside: false }),
    { at: head.length, size },
  );
});

Deno.test("openTracing(): only where Deno's own provider is registered", () => {
  const telemetry = {
    tracerProvider: { getTracer: () => ({}) },
    contextManager: {},
  } as unknown as Telemetry;
  const api = (trace: unknown) => ({
    [Symbol.for("opentelemetry.js.api.1")]: { trace },
  });
  assert(openTracing(api(telemetry.tracerProvider), telemetry) !== null);
  assertEquals(openTracing({}, telemetry), null);
  assertEquals(openTracing(api(undefined), telemetry), null);
  assertEquals(openTracing(api({}), telemetry), null, "another SDK's");
  assertEquals(openTracing(api(undefined), undefined), null);
});

Deno.test("Tracing.start(): below the active span, one elsewhere, or none", () => {
  const started: unknown[] = [];
  const tracing = new Tracing({
    tracerProvider: {
      getTracer: () => ({
        startSpan: (name: string, options: object, context?: unknown) =>
          started.push([name, options, context]),
      }),
    },
    contextManager: {
      active: () => ({
        setValue: (_key: symbol, span: Span) => span.spanContext(),
      }),
    },
  } as unknown as Telemetry);
  const options = { kind: 3, attributes: { a: 1 } };
  tracing.start("x", options);
  tracing.start("x", { ...options, parent: TRACE });
  tracing.start("x", { ...options, parent: null });
  assertEquals(started, [
    ["x", options, undefined],
    ["x", options, { ...TRACE, isRemote: true }],
    ["x", { ...options, root: true }, undefined],
  ]);
});

Deno.test("RemoteSpan has what handlers may ask of an active span", () => {
  const span = new RemoteSpan(TRACE);
  assertEquals(span.spanContext(), { ...TRACE, isRemote: true });
  assertEquals(span.isRecording(), false);
  assertEquals(span.setAttribute().setAttributes().addEvent(), span);
  assertEquals(span.addLink().addLinks().setStatus().updateName(), span);
  assertEquals([span.recordException(), span.end()], [undefined, undefined]);
});

// --- Off, as it is in this process ---

Deno.test("fail(): an error whose stack can't be read fails its span alone", () => {
  const told: unknown[] = [];
  const span = {
    recordException: (error: unknown) => told.push(error),
    setStatus: (status: unknown) => told.push(status),
  } as unknown as Span;
  const error = new RangeError("no");
  Object.defineProperty(error, "stack", {
    get() {
      throw new TypeError("nor this");
    },
  });
  fail(span, error);
  assertEquals(told, [
    { name: "RangeError", message: "no" },
    { code: 2, message: "no" },
  ]);
});

Deno.test("Tracing that is off: a client asks for no traces", async () => {
  const [peer, conn] = ScriptedPeer.pair();
  await using _ = peer;
  const client = new Client(conn, { name: "w1" });
  const { body } = await peer.expect(T.HELLO);
  assertEquals(body.length, golden("HELLO").length - 4);
  const [, , hello] = peer.frames[0]!.fields as [string, number, object];
  assertEquals(Object.keys(hello), [
    "signature",
    "codec",
    "transforms",
    "maxFrameBytes",
    "nonce",
    "instance",
    "name",
    "auth",
  ]);
  await client.abort();
});

Deno.test("Tracing that is off: a server gives none, whoever asks", async () => {
  const listener = new MemoryListener();
  const server = new Server<string, string>(listener);
  await using peer = new ScriptedPeer(listener.connect());
  const welcome = await peer.handshake({ fields: { trace: true } });
  assertEquals(Object.keys(welcome), [
    "signature",
    "codec",
    "transforms",
    "maxFrameBytes",
    "nonce",
    "results",
  ]);
  await peer.say(T.CREDIT, 1, 1, 16, 0);
  const result = server.submit("hello");
  const { fields } = await peer.until(T.ITEM);
  assertEquals(fields, [1, 1, 0, 0, payload("hello")]);
  await peer.say(T.RESULT, 0, payload("HELLO"));
  assertEquals(await result, "HELLO");
  peer.close();
  await server.abort();
});

Deno.test("Tracing that is off: a server that sends traces all the same breaks the protocol", async () => {
  const [peer, conn] = ScriptedPeer.pair();
  await using _ = peer;
  const client = new Client<string, string>(conn);
  const done = client.work((word) => word.toUpperCase());
  done.catch(() => {});
  await peer.greet();
  await peer.until(T.CREDIT);
  const bytes = Uint8Array.fromHex(TRACE.traceId + TRACE.spanId + "01");
  await peer.say(T.ITEM, 1, 1, 0, 0, bytes, payload("hello"));
  const { fields: [code] } = await peer.until(T.GOODBYE);
  assertEquals(code, 2);
  peer.close();
  await client.closed.catch(() => {});
});

// --- On, in processes of their own ---

interface Settings {
  hasRequests?: boolean;
  isLocal?: boolean;
  options?: object;
}

/** A server process, whose standard input ends it. */
async function startServer(
  env: Record<string, string>,
  settings: Settings = {},
): Promise<{ server: Process; port: number }> {
  // No --allow-env: whether tracing is on is found out without it.
  const server = startDeno([
    "--allow-net=127.0.0.1",
    ...(settings.isLocal ? ["--allow-read"] : []),
    "--no-check",
    "tests/testdata/tracing_server.ts",
    JSON.stringify(settings),
  ], { env, stdin: "open" });
  const [, port] = await server.stdout.line(/^port (\d+)$/);
  return { server, port: Number(port) };
}

function startWorker(
  env: Record<string, string>,
  port: number,
  options: { name?: string; isolate?: boolean } = {},
): Process {
  const { name = "w1", isolate = false } = options;
  return startDeno([
    "--allow-net=127.0.0.1",
    ...(isolate ? ["--allow-read"] : []),
    "--no-check",
    "tests/testdata/tracing_worker.ts",
    JSON.stringify({ connect: { port, name }, options: { isolate } }),
  ], { env });
}

/** Gives a server an item. */
function give(server: Process, line: object): Promise<void> {
  return server.write(JSON.stringify(line) + "\n");
}

/** Ends a server, and with it its workers: all their spans have come then. */
async function end(server: Process, ...workers: Process[]): Promise<void> {
  await server.closeStdin();
  for (const { exit } of [server, ...workers]) {
    const { code, stderr }: Exit = await exit;
    assertEquals([code, stderr], [0, ""]);
  }
}

function names({ events }: CollectedSpan): string[] {
  return events.map((event) => event.name);
}

function assertChild(child: CollectedSpan, parent: CollectedSpan): void {
  assertEquals(
    [child.traceId, child.parentSpanId],
    [parent.traceId, parent.spanId],
  );
}

Deno.test("Tracing: the caller's span, the server's and the worker's are one trace", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(collector.env("server"), {
    hasRequests: true,
  });
  await using _server = server;
  await using worker = startWorker(collector.env("worker"), port);
  await give(server, { item: { act: "attempt" } });
  await server.stdout.line(/^result 1$/);
  await end(server, worker);

  const request = await collector.span("server", "request");
  const item = await collector.span("server", "distchan item");
  const work = await collector.span("worker", "distchan work");
  assertChild(item, request);
  assertChild(work, item);
  assertEquals([item.kind, work.kind], [OtlpKind.PRODUCER, OtlpKind.CONSUMER]);
  assertEquals([item.status, work.status], [0, 0]);
  const attempt = {
    "distchan.item.attempt": 1,
    "distchan.worker.id": 0,
    "distchan.worker.name": "w1",
  };
  assertEquals(item.attributes, { "distchan.item.id": 0, ...attempt });
  assertEquals(item.events, [{ name: "dispatched", attributes: attempt }]);
  assertEquals(work.attributes, {
    "distchan.item.id": 0,
    "distchan.item.attempt": 1,
  });
  assertEquals(work.events, []);
  assertEquals(collector.spans.length, 3, "nothing else is told");
});

Deno.test("Tracing: failures are told, at each attempt", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(collector.env("server"), {
    options: { retry: { attempts: 2, backoffMs: 1 } },
  });
  await using _server = server;
  await using worker = startWorker(collector.env("worker"), port);
  await give(server, { item: { act: "throw" } });
  await server.stdout.line(/^failure .*Cannot do it/);
  await end(server, worker);

  const item = await collector.span("server", "distchan item");
  assertEquals(names(item), [
    "dispatched",
    "retry",
    "dispatched",
    "exception",
  ]);
  for (const event of [item.events[1]!, item.events[3]!]) {
    assertEquals(event.attributes["exception.type"], "RangeError");
    assertEquals(event.attributes["exception.message"], "Cannot do it");
  }
  assertEquals([item.status, item.message], [2, "Cannot do it"]);
  assertEquals(item.attributes, {
    "distchan.item.id": 0,
    "distchan.item.attempt": 2,
    "distchan.worker.id": 0,
    "distchan.worker.name": "w1",
  });
  for (const attempt of [1, 2]) {
    const work = await collector.span(
      "worker",
      "distchan work",
      (span) => span.attributes["distchan.item.attempt"] === attempt,
    );
    assertChild(work, item);
    assertEquals([work.status, work.message], [2, "Cannot do it"]);
    assertEquals(names(work), ["exception"]);
  }
  assertEquals(collector.spans.length, 3);
});

Deno.test("Tracing: an isolate that ends itself leaves its span behind", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(collector.env("server"));
  await using _server = server;
  await using worker = startWorker(collector.env("worker"), port, {
    isolate: true,
  });
  await give(server, { item: { act: "exit" } });
  await server.stdout.line(/^failure .*exit code 3/);
  await end(server, worker);

  const item = await collector.span("server", "distchan item");
  const work = await collector.span("worker", "distchan work");
  assertChild(work, item);
  assertEquals([item.status, work.status], [2, 2]);
  assertStringIncludes(work.message, "exit code 3");
});

Deno.test("Tracing: a worker that loses its server ends its spans", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(collector.env("server"));
  await using _server = server;
  await using worker = startWorker(collector.env("worker"), port);
  await give(server, { item: { act: "hang" } });
  await worker.stdout.line(/^hanging$/);
  server.signal("SIGKILL");
  const work = await collector.span("worker", "distchan work");
  assertEquals(work.status, 2);
  assertEquals(
    work.events[0]!.attributes["exception.type"],
    "ConnectionLostError",
  );
});

Deno.test("Tracing: an item that is cancelled is no failure of the server's", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(collector.env("server"));
  await using _server = server;
  await using worker = startWorker(collector.env("worker"), port);
  await give(server, { item: { act: "hang" } });
  await worker.stdout.line(/^hanging$/);
  await give(server, { isCancel: true });
  await server.stdout.line(/^failure /);
  await end(server, worker);

  const item = await collector.span("server", "distchan item");
  const work = await collector.span("worker", "distchan work");
  assertChild(work, item);
  assertEquals(names(item), ["dispatched", "cancelled"]);
  assertEquals([item.status, work.status], [0, 2]);
  assertEquals(work.events[0]!.attributes["exception.type"], "AbortError");
});

Deno.test("Tracing: an item goes on in its span when its worker is killed", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(collector.env("server"));
  await using _server = server;
  await using first = startWorker(collector.env("first"), port, {
    name: "first",
  });
  await give(server, { item: { act: "hang" } });
  await first.stdout.line(/^hanging$/);
  first.signal("SIGKILL");
  await first.exit;
  await using second = startWorker(collector.env("second"), port, {
    name: "second",
  });
  await server.stdout.line(/^result 2$/);
  await end(server, second);

  const item = await collector.span("server", "distchan item");
  assertEquals(names(item), ["dispatched", "redelivered", "dispatched"]);
  assertEquals(item.events[1]!.attributes, {
    "distchan.cause": "lost",
    "distchan.worker.id": 0,
    "distchan.worker.name": "first",
  });
  assertEquals(item.status, 0);
  assertEquals(item.attributes["distchan.item.attempt"], 2);
  assertEquals(item.attributes["distchan.worker.name"], "second");
  const work = await collector.span("second", "distchan work");
  assertChild(work, item);
  assertEquals(work.attributes["distchan.item.attempt"], 2);
  assertEquals(collector.spans.length, 2, "the killed one could tell nothing");
});

for (const where of ["event loop", "isolate", "local thread"] as const) {
  Deno.test(`Tracing: fetch() in a handler joins the trace, in the ${where}`, async () => {
    await using collector = new Collector();
    const isLocal = where === "local thread";
    const { server, port } = await startServer(collector.env("server"), {
      isLocal,
    });
    await using _server = server;
    const workers: Process[] = [];
    if (!isLocal) {
      workers.push(
        startWorker(collector.env("worker"), port, {
          isolate: where === "isolate",
        }),
      );
    }
    await using _worker = workers[0] ?? null;
    const service = isLocal ? "server" : "worker";
    const url = collector.pageUrl;
    await give(server, { item: { act: "fetch", url } });
    await server.stdout.line(/^result page$/);
    await give(server, { item: { act: "generate", url }, isSent: true });
    await server.stdout.line(/^value page$/);
    await end(server, ...workers);

    for (const id of [0, 1]) {
      const isOf = (span: CollectedSpan) =>
        span.attributes["distchan.item.id"] === id;
      const item = await collector.span("server", "distchan item", isOf);
      const work = await collector.span(service, "distchan work", isOf);
      const fetched = await collector.span(
        service,
        "GET",
        (span) => span.traceId === item.traceId,
      );
      assertChild(work, item);
      assertChild(fetched, work);
      assertEquals(
        collector.traceparents[id],
        `00-${item.traceId}-${fetched.spanId}-01`,
      );
    }
    assertEquals(collector.spans.length, 6);
  });
}

Deno.test("Tracing: workers that trace and workers that don't work side by side", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(collector.env("server"));
  await using _server = server;
  await using plain = startWorker({}, port, { name: "plain" });
  await using traced = startWorker(collector.env("traced"), port, {
    name: "traced",
  });
  for (const _ of [plain, traced]) await server.stdout.line(/^connected /);
  for (const _ of [0, 1, 2, 3]) {
    await give(server, { item: { act: "attempt" } });
    await server.stdout.line(/^result 1$/);
  }
  await end(server, plain, traced);

  const by = { plain: 0, traced: 0 };
  for (const id of [0, 1, 2, 3]) {
    const isOf = (span: CollectedSpan) =>
      span.attributes["distchan.item.id"] === id;
    const item = await collector.span("server", "distchan item", isOf);
    const worker = item.attributes["distchan.worker.name"] as keyof typeof by;
    by[worker]++;
    if (worker === "plain") continue;
    assertChild(await collector.span("traced", "distchan work", isOf), item);
  }
  assertEquals(by, { plain: 2, traced: 2 });
  assertEquals(collector.spans.length, 6);
});

Deno.test("Tracing: a worker whose server doesn't trace begins a trace", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer({});
  await using _server = server;
  await using worker = startWorker(collector.env("worker"), port);
  await give(server, { item: { act: "fetch", url: collector.pageUrl } });
  await server.stdout.line(/^result page$/);
  await end(server, worker);
  const work = await collector.span("worker", "distchan work");
  assertEquals(work.parentSpanId, "");
  assertChild(await collector.span("worker", "GET"), work);
  assertEquals(collector.spans.length, 2);
});

Deno.test("Tracing: OTEL_DENO_TRACING=false switches it off", async () => {
  await using collector = new Collector();
  const off = { OTEL_DENO_TRACING: "false" };
  const { server, port } = await startServer(collector.env("server", off));
  await using _server = server;
  await using worker = startWorker(collector.env("worker", off), port);
  await give(server, { item: { act: "attempt" } });
  await server.stdout.line(/^result 1$/);
  await end(server, worker);
  assertEquals(collector.spans, []);
});

Deno.test("Tracing: a span that isn't sampled says so to the worker", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(
    collector.env("server", { OTEL_TRACES_SAMPLER: "always_off" }),
  );
  await using _server = server;
  await using peer = await ScriptedPeer.connect(port);
  await peer.join("work", { fields: { trace: true } });
  await give(server, { item: { act: "attempt" } });
  const { fields } = await peer.until(T.ITEM);
  assertEquals((fields[4] as Uint8Array).length, 25);
  assertEquals((fields[4] as Uint8Array)[24], 0);
  peer.close();
  await using worker = startWorker(
    collector.env("worker", { OTEL_TRACES_SAMPLER: "parentbased_always_on" }),
    port,
  );
  await server.stdout.line(/^result 2$/);
  await end(server, worker);
  assertEquals(collector.spans, []);
});

Deno.test("Tracing: a server sends traces to a worker that asks, and to no other", async () => {
  await using collector = new Collector();
  const { server, port } = await startServer(collector.env("server"));
  await using _server = server;
  await using asking = await ScriptedPeer.connect(port);
  const welcome = await asking.handshake({ fields: { trace: true } });
  assertEquals(welcome["trace"], true);
  await asking.say(T.CREDIT, 1, 1, 1, 0);
  await give(server, { item: "one" });
  const { fields: [attempt, kind, delivery, id, bytes, item] } = await asking
    .until(T.ITEM);
  assertEquals([attempt, kind, delivery, id, item], [
    1,
    1,
    0,
    0,
    payload("one"),
  ]);
  for (const trace of [undefined, false]) {
    await using other = await ScriptedPeer.connect(port);
    assertEquals(
      (await other.handshake({ fields: { trace } }))["trace"],
      undefined,
    );
  }
  await using silent = await ScriptedPeer.connect(port);
  await silent.join("work");
  await give(server, { item: "two" });
  assertEquals((await silent.until(T.ITEM)).fields, [
    1,
    1,
    0,
    1,
    payload("two"),
  ]);
  for (const peer of [asking, silent]) {
    await peer.say(T.RESULT, 0, payload("done"));
    await server.stdout.line(/^result done$/);
  }
  const span = await collector.span(
    "server",
    "distchan item",
    ({ attributes }) => attributes["distchan.item.id"] === 0,
  );
  assertEquals(
    (bytes as Uint8Array).toHex(),
    span.traceId + span.spanId + "01",
  );
});

Deno.test("Tracing: what a worker does with traces that are right, and wrong", async () => {
  await using collector = new Collector();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using _worker = startWorker(
    collector.env("worker"),
    listener.addr.port,
  );
  let peer = await accept(listener);
  const bytes = Uint8Array.fromHex(TRACE.traceId + TRACE.spanId + "01");
  const item = payload({ act: "attempt" });
  // All zero, none, and one: the last is the server's.
  await peer.say(T.ITEM, 1, 1, 0, 7, new Uint8Array(25), item);
  await peer.say(T.ITEM, 2, 1, 1, 8, bytes.subarray(0, 0), item);
  await peer.say(T.ITEM, 3, 1, 2, 9, bytes, item);
  for (const id of [7, 8, 9]) {
    const work = await collector.span(
      "worker",
      "distchan work",
      ({ attributes }) => attributes["distchan.item.id"] === id,
    );
    assertEquals(work.parentSpanId, id === 9 ? TRACE.spanId : "");
    assertEquals(work.traceId === TRACE.traceId, id === 9);
  }
  const wrong = [bytes.subarray(1), new Uint8Array(26), "text", null];
  let delivery = 3;
  for (const trace of wrong) {
    await peer.say(T.ITEM, 1, 1, delivery, 10, trace, item);
    const { fields: [code, reason] } = await peer.until(T.GOODBYE);
    assertEquals(code, 2, `${reason}`);
    await peer[Symbol.asyncDispose]();
    // That was the connection's end, and no more: the worker comes again.
    peer = await accept(listener);
    await peer.say(T.ITEM, 1, 1, 0, 11, bytes, item);
    await peer.until(T.RESULT);
    delivery = 1;
  }
  await peer[Symbol.asyncDispose]();
});

/** A worker that asks for traces, and is told that it gets them. */
async function accept(listener: Deno.Listener): Promise<ScriptedPeer> {
  const peer = new ScriptedPeer(
    await within(listener.accept(), 30_000, "a worker"),
  );
  const hello = await peer.greet({ fields: { trace: true } });
  assertEquals(hello["trace"], true);
  await peer.until(T.CREDIT);
  return peer;
}
