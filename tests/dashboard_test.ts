/**
 * The live page over HTTP: what each address answers, who may ask, and that
 * nothing of it is left behind. `dashboard_browser_test.ts` looks at it.
 */
import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  Dashboard,
  type DashboardHost,
  latency,
} from "../internal/dashboard.ts";
import {
  InsecureBindError,
  listen,
  type ListenOptions,
  type Server,
  work,
} from "../mod.ts";
import { runWithGc } from "./_support/process.ts";
import { Gate, moment, until, within } from "./_support/within.ts";

type Numbers = Server<number, number>;

function open(options: Partial<ListenOptions<number, number>> = {}): Numbers {
  return listen<number, number>({
    port: 0,
    dashboard: { port: 0 },
    onFailure: () => {},
    ...options,
  });
}

/** The address of a page; a wildcard address is asked at loopback. */
function urlOf(server: Numbers, path: string): string {
  return `http://127.0.0.1:${server.dashboardAddr!.port}${path}`;
}

function portOf(server: Numbers): number {
  return (server.addr as Deno.NetAddr).port;
}

/** Status and text of an answer. */
async function get(
  server: Numbers,
  path: string,
  init: RequestInit = {},
): Promise<{ status: number; text: string; headers: Headers }> {
  const response = await fetch(urlOf(server, path), init);
  const { status, headers } = response;
  return { status, text: await response.text(), headers };
}

/** Events as they come; the stream must end by itself, or be cancelled. */
async function* events(
  body: ReadableStream<Uint8Array>,
): AsyncGenerator<{ name: string; data: unknown }> {
  let text = "";
  const chunks = body.pipeThrough(
    new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>,
  );
  for await (const chunk of chunks) {
    text += chunk;
    for (let end; (end = text.indexOf("\n\n")) >= 0;) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7) ??
        "message";
      const data = lines.find((line) => line.startsWith("data: "))!.slice(6);
      yield { name, data: JSON.parse(data) };
    }
  }
}

/** Prometheus text format, strictly: a TYPE before samples, no sample twice. */
function parseMetrics(text: string): Map<string, number> {
  assert(text.endsWith("\n"));
  const samples = new Map<string, number>();
  let family = "", type = "", helped = "";
  for (const line of text.slice(0, -1).split("\n")) {
    const help = line.match(/^# HELP ([a-z_]+) (\S.*)$/);
    if (help) {
      helped = help[1]!;
      continue;
    }
    const head = line.match(/^# TYPE ([a-z_]+) (gauge|counter)$/);
    if (head) {
      [family, type] = [head[1]!, head[2]!];
      assertEquals(helped, family, "HELP comes before TYPE");
      assertEquals(family.endsWith("_total"), type === "counter", family);
      continue;
    }
    const sample = line.match(
      /^([a-z_]+)((?:\{[a-z]+="(?:[^"\\\n]|\\[\\n"])*"(?:,[a-z]+="(?:[^"\\\n]|\\[\\n"])*")*\})?) (-?\d+(?:\.\d+)?(?:e[+-]\d+)?)$/,
    );
    assert(sample, `a sample: ${line}`);
    assertEquals(sample[1], family);
    const key = sample[1]! + sample[2]!;
    assert(!samples.has(key), `once: ${key}`);
    samples.set(key, Number(sample[3]));
  }
  return samples;
}

/** Runs a body against a server that is gone afterwards. */
function withServer(
  name: string,
  body: (server: Numbers) => Promise<void>,
  options: Partial<ListenOptions<number, number>> = {},
): void {
  Deno.test(name, async () => {
    const server = open(options);
    try {
      await within(body(server), 20_000, name);
    } finally {
      await within(server.abort(), 5000, "the server is closed");
    }
  });
}

withServer("/ is one page with nothing from elsewhere", async (server) => {
  const { status, text, headers } = await get(server, "/");
  assertEquals(status, 200);
  assertEquals(headers.get("content-type"), "text/html; charset=utf-8");
  assert(text.startsWith("<!doctype html>"));
  const urls = text.match(/(?:https?:)?\/\/[\w.-]+\.\w+/g);
  assertEquals(urls, null);
  const csp = headers.get("content-security-policy")!;
  assertStringIncludes(csp, "default-src 'none'");
  assertStringIncludes(csp, "connect-src 'self'");
  assert(!csp.includes("unsafe"));
  assertEquals(headers.get("x-content-type-options"), "nosniff");
  for (const [, attribute] of text.matchAll(/<[^>]* (style|on\w+)=/g)) {
    throw new Error(`the policy forbids it: ${attribute}`);
  }
});

/** A dashboard without a server of its own. */
function onItsOwn(
  host: Pick<DashboardHost, "phase" | "stats"> & Partial<DashboardHost>,
): Dashboard {
  return new Dashboard({
    title: "x",
    token: null,
    isLoopback: true,
    serve: (handler, signal) =>
      Deno.serve({
        hostname: "127.0.0.1",
        port: 0,
        signal,
        onListen: () => {},
      }, handler),
    ...host,
  });
}

/** Fifty failures of 2 MB each, and how much of them is kept, in MiB. */
const FAILURES = `
const { Dashboard } = await import(Deno.args[0]);
const dashboard = new Dashboard({
  title: "",
  token: null,
  isLoopback: true,
  stats: () => ({ settled: 0, failed: 0, pending: 0, inFlight: 0, workers: [] }),
  phase: () => "open",
  serve: (handler, signal) =>
    Deno.serve({ hostname: "127.0.0.1", port: 0, signal, onListen() {} }, handler),
});
const bytes = new Uint8Array(2_000_000).fill(120);
for (let id = 0; id < 50; id++) {
  const error = new RangeError(new TextDecoder().decode(bytes));
  dashboard.onEvent({ type: "failed", failure: { id, attempts: 1, error } });
}
await new Promise((resolve) => setTimeout(resolve, 0));
globalThis.gc();
console.log(Math.round(Deno.memoryUsage().heapUsed / 1024 ** 2));
await dashboard.close();
`;

Deno.test("a dashboard keeps no more of long errors than it shows", async () => {
  const kept = Number(await runWithGc(FAILURES, "internal/dashboard.ts"));
  assertGreater(kept, 0);
  assertLess(kept, 50);
});

withServer("/stats.json is stats(), and the last failures", async (server) => {
  const worker = work<number, number>(
    { port: portOf(server), name: "w1" },
    (n) => {
      if (n < 0) throw new RangeError(`<img src=x> ${n}`);
      return n;
    },
  );
  assertEquals(await server.submit(1), 1);
  for (let n = 1; n <= 60; n++) await server.submit(-n).catch(() => {});
  const { text, headers } = await get(server, "/stats.json");
  assertEquals(headers.get("content-type"), "application/json; charset=utf-8");
  const snapshot = JSON.parse(text);
  assertEquals(snapshot.phase, "open");
  assertEquals(snapshot.title, "distchan");
  assertEquals(snapshot.settled, 1);
  assertEquals(snapshot.failed, 60);
  assertEquals(snapshot.workers[0].name, "w1");
  assertEquals(snapshot.workers[0].state, "active");
  assertEquals(snapshot.failures.length, 50);
  assertEquals(snapshot.failures[0].error, "RangeError: <img src=x> -60");
  assertEquals(snapshot.failures[49].error, "RangeError: <img src=x> -11");
  assertEquals(snapshot.failures[0].attempts, 1);
  await server.close();
  await worker;
});

withServer("a failure's text is clipped", async (server) => {
  const worker = work<number, number>({ port: portOf(server) }, () => {
    throw new Error("x".repeat(9000));
  });
  await assertRejects(() => server.submit(1));
  const { text } = await get(server, "/stats.json");
  assert(text.length < 4000, `${text.length}`);
  await server.close();
  await worker;
});

withServer("/events sends history, then a look a second", async (server) => {
  const response = await fetch(urlOf(server, "/events"));
  assertEquals(response.headers.get("x-accel-buffering"), "no");
  assertEquals(response.headers.get("content-type"), "text/event-stream");
  const stream = events(response.body!);
  assertEquals(await stream.next(), {
    done: false,
    value: { name: "history", data: [] },
  });
  const names: string[] = [];
  for (let i = 0; i < 3; i++) {
    const { value } = await stream.next();
    names.push(value!.name);
    const { sample, pending } = value!.data as {
      sample: { rate: number; latencyMs: null } | null;
      pending: number;
    };
    assertEquals(pending, 0);
    if (i === 0) assertEquals(sample, null, "it comes at once");
    else assertEquals(sample!.latencyMs, null);
  }
  assertEquals(names, ["message", "message", "message"]);
  await stream.return(undefined);
  const again = await fetch(urlOf(server, "/events"));
  const later = events(again.body!);
  const { value } = await later.next();
  assert((value!.data as unknown[]).length >= 2);
  await later.return(undefined);
});

withServer(
  "a sample's rate is what was settled since the one before, a second",
  async (server) => {
    const worker = work<number, number>({ port: portOf(server) }, (n) => n);
    const settle100 = () =>
      Promise.all(Array.from({ length: 100 }, (_, n) => server.submit(n)));
    await settle100();
    const { body } = await fetch(urlOf(server, "/events"));
    let settled = 0, last = NaN;
    for await (const { name, data } of events(body!)) {
      const { sample } = data as {
        sample: { at: number; rate: number; latencyMs: number | null } | null;
      };
      if (name !== "message" || sample === null) continue;
      if (Number.isNaN(last)) await settle100();
      else settled += sample.rate * (sample.at - last) / 1000;
      last = sample.at;
      if (sample.rate > 0) assertEquals(typeof sample.latencyMs, "number");
      if (settled > 90) break;
    }
    assertLess(settled, 110);
    await server.close();
    await worker;
  },
);

withServer("/events ends with the server, and says how", async (server) => {
  const response = await fetch(urlOf(server, "/events"));
  const all = Array.fromAsync(events(response.body!));
  await server.close();
  const last = (await all).slice(-2);
  assertEquals(last[0]!.name, "message");
  assertEquals((last[0]!.data as { phase: string }).phase, "finished");
  assertEquals(last[1], { name: "end", data: { phase: "finished" } });
  await assertRejects(() => fetch(urlOf(server, "/")));
});

withServer("/events has no place for too many", async (server) => {
  const bodies: ReadableStream[] = [];
  for (let i = 0; i < 64; i++) {
    const { status, body } = await fetch(urlOf(server, "/events"));
    assertEquals(status, 200);
    bodies.push(body!);
  }
  assertEquals((await get(server, "/events")).status, 503);
  await bodies.pop()!.cancel();
  let status = 503;
  while (status === 503) {
    const response = await fetch(urlOf(server, "/events"));
    status = response.status;
    if (status === 503) await response.body?.cancel();
    else bodies.push(response.body!);
  }
  for (const body of bodies) await body.cancel();
});

withServer("/metrics is Prometheus text", async (server) => {
  const name = 'a"b\\c\nd} 1';
  const gate = new Gate();
  const worker = work<number, number>(
    { port: portOf(server), name, prefetch: 1 },
    async (n) => {
      if (n < 0) throw new Error("no");
      if (n > 1) await gate.pass();
      return n;
    },
  );
  await server.submit(1);
  await server.submit(-1).catch(() => {});
  const held = [2, 3, 4].map((n) => server.submit(n));
  await until(() => server.stats().inFlight === 1, "an item is held");
  const { text, headers } = await get(server, "/metrics");
  assertEquals(
    headers.get("content-type"),
    "text/plain; version=0.0.4; charset=utf-8",
  );
  const metrics = parseMetrics(text);
  const labels = `{worker="0",name="a\\"b\\\\c\\nd} 1"}`;
  assertEquals(metrics.get("distchan_queue_depth"), 2);
  assertEquals(metrics.get("distchan_in_flight"), 1);
  assertEquals(metrics.get("distchan_settled_total"), 1);
  assertEquals(metrics.get("distchan_failed_total"), 1);
  assertEquals(metrics.get("distchan_redelivered_total"), 0);
  assertEquals(metrics.get("distchan_duplicates_total"), 0);
  assertEquals(metrics.get('distchan_workers{state="active"}'), 1);
  assertEquals(metrics.get('distchan_workers{state="suspect"}'), 0);
  assertEquals(metrics.get(`distchan_worker_in_flight${labels}`), 1);
  assertEquals(metrics.get(`distchan_worker_failed_total${labels}`), 1);
  assert(metrics.get("distchan_received_bytes_total")! > 0);
  assert(metrics.get("distchan_sent_bytes_total")! > 0);
  gate.open();
  assertEquals(await Promise.all(held), [2, 3, 4]);
  await server.close();
  await worker;
});

withServer("/healthz is 200 while the server is open", async (server) => {
  const { status, text } = await get(server, "/healthz");
  assertEquals([status, text], [200, "open\n"]);
});

withServer("other paths and methods are refused", async (server) => {
  assertEquals((await get(server, "/etc/passwd")).status, 404);
  const post = await get(server, "/", { method: "POST", body: "x" });
  assertEquals(post.status, 405);
  assertEquals(post.headers.get("allow"), "GET, HEAD");
  // Without a body there is no stream either: any number of them has a place.
  for (let i = 0; i <= 64; i++) {
    const { status, headers } = await get(server, "/events", {
      method: "HEAD",
    });
    assertEquals([status, headers.get("x-accel-buffering")], [200, "no"]);
  }
});

withServer("a name that is made to point here is refused", async (server) => {
  const { port } = server.dashboardAddr!;
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  const request = "GET /stats.json HTTP/1.1\r\nHost: evil.example\r\n" +
    "Connection: close\r\n\r\n";
  await conn.write(new TextEncoder().encode(request));
  const text = await new Response(conn.readable).text();
  assert(text.startsWith("HTTP/1.1 403"), text);
});

Deno.test("a dashboard off loopback needs the secret", async () => {
  const secret = "pässword+ /";
  const dashboard = { port: 0, hostname: "0.0.0.0" };
  assertThrows(() => open({ dashboard }), InsecureBindError);
  const server = open({ dashboard, secret });
  try {
    for (const path of ["/stats.json", "/metrics", "/events", "/nothing"]) {
      const { status, headers } = await get(server, path);
      assertEquals(status, 401, path);
      assertEquals(headers.get("www-authenticate"), 'Bearer realm="distchan"');
    }
    for (const path of ["/", "/healthz"]) {
      assertEquals((await get(server, path)).status, 200, path);
    }
    const hex = new TextEncoder().encode(secret).toHex();
    const status = async (path: string, bearer?: string) =>
      (await get(server, path, {
        headers: bearer === undefined ? {} : { authorization: bearer },
      })).status;
    assertEquals(await status("/metrics", `Bearer ${hex}`), 200);
    assertEquals(await status("/metrics", `bearer ${hex.toUpperCase()}`), 200);
    assertEquals(await status("/metrics", `Bearer ${hex}0`), 401);
    assertEquals(await status("/metrics", `Basic ${hex}`), 401);
    assertEquals(await status("/metrics", "Bearer "), 401);
    assertEquals(await status(`/metrics?token=${hex}`), 200);
    const token = encodeURIComponent(secret);
    assertEquals(await status(`/stats.json?token=${token}`), 200);
    assertEquals(await status("/stats.json?token="), 401);
    const plain = open({ dashboard, secret: "plain" });
    const { status: plainStatus } = await get(plain, "/stats.json", {
      headers: { authorization: "Bearer plain" },
    });
    assertEquals(plainStatus, 200);
    await plain.close();
  } finally {
    await server.close();
  }
  const insecure = open({ dashboard, insecure: true });
  assertEquals((await get(insecure, "/stats.json")).status, 200);
  await insecure.close();
});

Deno.test("a dashboard's port that is taken throws, and nothing listens", () => {
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr as Deno.NetAddr;
  assertThrows(() => open({ dashboard: { port } }), Deno.errors.AddrInUse);
  taken.close();
});

Deno.test("options of the dashboard are checked", () => {
  const bad = (dashboard: unknown) =>
    assertThrows(() => open({ dashboard: dashboard as { port: 0 } }));
  bad({});
  bad(8080);
  bad({ port: 70_000 });
  bad({ port: 0, path: "/" });
  bad({ port: 0, cert: "PEM" });
});

Deno.test("a dashboard closes though somebody asks half a question", async () => {
  const server = open();
  const { port } = server.dashboardAddr!;
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  await conn.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHo"));
  assertEquals((await get(server, "/healthz")).status, 200);
  await within(server.close(), 5000, "the server is closed");
  conn.close();
});

Deno.test("a dashboard closes though somebody has sent half a body", async () => {
  const server = open();
  const { port } = server.dashboardAddr!;
  const conns: Deno.Conn[] = [];
  for (const method of ["GET", "POST"]) {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    conns.push(conn);
    await conn.write(
      new TextEncoder().encode(
        `${method} /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n` +
          "Content-Length: 100\r\n\r\nhalf",
      ),
    );
    const bytes = new Uint8Array(1024);
    assertGreater(await conn.read(bytes), 0, "it is answered");
  }
  await within(server.close(), 5000, "the server is closed");
  for (const conn of conns) conn.close();
});

Deno.test("a dashboard closes though somebody doesn't read", async () => {
  // More than sockets keep.
  const big = "x".repeat(20_000_000);
  const dashboard = onItsOwn({
    title: big,
    phase: () => "finished",
    stats: () => listening.stats(),
  });
  const listening = listen({ port: 0 });
  const { port } = dashboard.addr;
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  await conn.write(
    new TextEncoder().encode("GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
  );
  assertGreater(await conn.read(new Uint8Array(1024)), 0, "it is answered");
  await within(dashboard.close(), 5000, "the dashboard is closed");
  conn.close();
  await listening.close();
});

withServer("/events takes no body, which would be kept", async (server) => {
  const { port } = server.dashboardAddr!;
  for (const length of ["Content-Length: 4", "Transfer-Encoding: chunked"]) {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    await conn.write(
      new TextEncoder().encode(
        `GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n${length}\r\n\r\n`,
      ),
    );
    const bytes = new Uint8Array(1024);
    const count = await conn.read(bytes);
    const answer = new TextDecoder().decode(bytes.subarray(0, count!));
    assertStringIncludes(answer, "HTTP/1.1 400");
    conn.close();
  }
});

Deno.test("/healthz is 503 once the server is aborted", async () => {
  const dashboard = onItsOwn({
    phase: () => "aborted",
    stats: () => {
      throw new Error("nobody asks");
    },
  });
  const { port } = dashboard.addr;
  const response = await fetch(`http://127.0.0.1:${port}/healthz`);
  assertEquals(response.status, 503);
  assertEquals(await response.text(), "aborted\n");
  await dashboard.close();
});

Deno.test("no dashboard, no address", async () => {
  const server = listen({ port: 0 });
  assertEquals(server.dashboardAddr, undefined);
  await server.close();
});

Deno.test("latency() is Little's law", () => {
  const sample = { at: 0, pending: 0, latencyMs: null };
  assertEquals(latency([]), null);
  assertEquals(latency([{ ...sample, rate: 0, inFlight: 4 }]), null);
  // 100 items a second, 8 in flight on average: 80 ms each.
  assertEquals(
    latency([
      { ...sample, rate: 50, inFlight: 6 },
      { ...sample, rate: 150, inFlight: 10 },
    ]),
    80,
  );
});

Deno.test("a dashboard whose HTTP server ends by itself comes back, on its port", async () => {
  let isDown = false;
  const ports: (number | undefined)[] = [];
  const fails = Promise.withResolvers<void>();
  const dashboard = onItsOwn({
    phase: () => "open",
    stats: () => listening.stats(),
    serve: (handler, signal, port) => {
      ports.push(port);
      if (ports.length === 2) throw new Error("not yet");
      const http = Deno.serve({
        hostname: "127.0.0.1",
        port: port ?? 0,
        signal,
        onListen: () => {},
      }, handler);
      if (ports.length > 1) return http;
      // As it does when no file can be opened.
      return Object.assign(http, {
        finished: fails.promise.then(async () => {
          await http.shutdown();
          isDown = true;
          throw new Error("Too many open files");
        }),
      });
    },
  });
  const listening = listen({ port: 0 });
  const { port } = dashboard.addr;
  fails.resolve();
  await until(() => isDown && ports.length === 3, "it listens again");
  assertEquals(ports, [undefined, port, port]);
  const response = await fetch(`http://127.0.0.1:${port}/healthz`);
  assertEquals([response.status, await response.text()], [200, "open\n"]);
  await dashboard.close();
  await listening.close();
});

Deno.test("a dashboard whose HTTP server has ended by itself closes", async () => {
  let http: Deno.HttpServer<Deno.NetAddr>;
  const dashboard = onItsOwn({
    phase: () => "open",
    stats: () => listening.stats(),
    serve: (handler, signal) =>
      http = Deno.serve({
        hostname: "127.0.0.1",
        port: 0,
        signal,
        onListen: () => {},
      }, handler),
  });
  const listening = listen({ port: 0 });
  await http!.shutdown();
  await dashboard.close();
  await moment(10); // what the signal of a server that is down throws comes late
  await listening.close();
});

withServer(
  "a Host that makes no URL is a bad request, and nothing else",
  async (server) => {
    const { port } = server.dashboardAddr!;
    for (const host of ["[", "a b", "localhost:99999"]) {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port });
      await conn.write(
        new TextEncoder().encode(
          `GET /stats.json HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
        ),
      );
      const answer = await new Response(conn.readable).text();
      assertStringIncludes(answer, "HTTP/1.1 400");
    }
  },
);
