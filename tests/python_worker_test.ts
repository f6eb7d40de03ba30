import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { ItemFailure, listen, RemoteError, type ServerEvent } from "../mod.ts";
import { Folder } from "./_support/folder.ts";
import { Process, ROOT } from "./_support/process.ts";
import { payload, ScriptedPeer, T } from "./_support/scripted_peer.ts";
import { moment, until } from "./_support/within.ts";
import {
  commandsIn,
  freePort,
  portOf,
  startExample,
} from "./_support/examples.ts";

const WORKER = `${ROOT}examples/python_worker/worker.py`;
const HANDLERS = `${ROOT}tests/_support/python_handlers.py`;

/** A Python that has cbor2; undefined where there is none. */
const python = await findPython();

async function findPython(): Promise<string | undefined> {
  // Debian's cbor2 is seen by Debian's Python, which need not be the first.
  for (const program of ["/usr/bin/python3", "python3"]) {
    try {
      const { success } = await new Deno.Command(program, {
        args: ["-c", "import cbor2, sys; sys.exit(sys.version_info < (3, 9))"],
        stdout: "null",
        stderr: "null",
      }).output();
      if (success) return program;
    } catch {
      // not there
    }
  }
  return undefined;
}

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({
    name: `python_worker ${name} (needs python3 with cbor2)`,
    ignore: python === undefined || Deno.build.os === "windows",
    fn,
  });
}

interface Options {
  args?: string[];
  secret?: string;
  env?: Record<string, string>;
}

/** Starts the worker with a function of tests/_support/python_handlers.py. */
function startPython(
  port: number,
  handler: string,
  { args = [], secret = "", env = {} }: Options = {},
): Process {
  return new Process(python!, [
    WORKER,
    `--port=${port}`,
    ...args,
    `${HANDLERS}:${handler}`,
  ], {
    env: { PYTHONDONTWRITEBYTECODE: "1", DISTCHAN_SECRET: secret, ...env },
  });
}

function portOfServer(server: { addr: Deno.Addr }): number {
  return (server.addr as Deno.NetAddr).port;
}

async function assertEndsWell(worker: Process): Promise<void> {
  const { code, signal, stdout, stderr } = await worker.exit;
  assertEquals(
    { code, signal, stdout },
    { code: 0, signal: null, stdout: "" },
    stderr,
  );
}

test("echoes values as they were", async () => {
  const server = listen<unknown, unknown>({ port: 0 });
  await using worker = startPython(portOfServer(server), "echo");
  const values: unknown[] = [
    null,
    undefined,
    true,
    false,
    0,
    -1,
    23,
    2 ** 31,
    -(2 ** 32),
    Number.MAX_SAFE_INTEGER,
    1.5,
    0.1,
    -0,
    1e300,
    NaN,
    Infinity,
    2n ** 60n,
    2n ** 64n,
    -(2n ** 100n),
    "",
    "ключ 👋",
    new Uint8Array([0, 255, 128]),
    new Uint8Array(100_000).fill(7),
    [],
    [1, [2, [3]]],
    {},
    { a: { b: { c: [1, "two", null] } }, ключ: undefined },
    { constructor: 1, toString: 2 },
    new Date(0),
    new Date("2026-11-24T12:34:56.789Z"),
    new Date("1950-01-02T03:04:05.678Z"),
    new Map<unknown, unknown>([[1, "one"], ["two", 2]]),
    new Set([1, "two"]),
    new Float64Array([1.5, -2]),
    /a+b/gi,
    new URL("https://example.com/x"),
  ];
  const results = await Array.fromAsync(server.map(values));
  assertEquals(results, values);
  assert(Object.is(results[values.indexOf(-0, 11)], -0));
  await server.close();
  await assertEndsWell(worker);
});

test("sees Python's own types", async () => {
  await using server = listen<unknown, string>({ port: 0 });
  await using _worker = startPython(portOfServer(server), "kind");
  const values: unknown[] = [
    null,
    true,
    1,
    1.5,
    5n,
    2n ** 80n,
    "s",
    new Uint8Array(1),
    [],
    {},
    new Date(),
    new Set([1]),
    undefined,
    new Map(),
  ];
  assertEquals(await Array.fromAsync(server.map(values)), [
    "NoneType",
    "bool",
    "int",
    "float",
    "int",
    "int",
    "str",
    "bytes",
    "list",
    "dict",
    "datetime",
    "set",
    "undefined",
    "CBORTag",
  ]);
});

test("works for submit(), map() and send(), and ends in order", async () => {
  const server = listen<number, number>({ port: 0 });
  await using worker = startPython(portOfServer(server), "square");
  assertEquals(await server.submit(7), 49);
  const numbers = Array.from({ length: 5000 }, (_, i) => i);
  const squares = numbers.map((n) => n * n);
  assertEquals(await Array.fromAsync(server.map(numbers)), squares);
  const sending = (async () => {
    for (const n of numbers) await server.send(n);
    await server.end();
  })();
  assertEquals(await Array.fromAsync(server), squares); // one worker: in order
  await sending;
  await server.closed;
  await assertEndsWell(worker);
});

test("says DONE where results aren't wanted", async () => {
  const server = listen<number, number>({ port: 0, results: "discard" });
  await using worker = startPython(portOfServer(server), "square");
  for (let n = 0; n < 100; n++) await server.send(n);
  assertEquals(await server.submit(5), 25); // a call has its result all the same
  await server.close();
  await assertEndsWell(worker);
});

test("takes undefined in WELCOME as left out, and cuts its name", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using worker = startPython(listener.addr.port, "square", {
    args: [`--name=${"é".repeat(5000)}`],
  });
  await using server = new ScriptedPeer(await listener.accept());
  const { fields } = await server.expect(T.HELLO);
  assertEquals((fields[2] as { name: string }).name, "é".repeat(200));
  const welcome = { ...server.welcome({}), results: undefined };
  await server.say(T.WELCOME, 1, welcome);
  await server.until(T.CREDIT);
  await server.say(T.ITEM, 1, 0, 0, 0, payload(5));
  assertEquals((await server.until(T.RESULT)).fields, [0, payload(25)]);
  await server.say(T.END);
  await server.until(T.GOODBYE);
  await server.say(T.GOODBYE, 0, "");
  await assertEndsWell(worker);
});

test("tells what a handler raised, with its cause", async () => {
  await using server = listen<string, undefined>({ port: 0 });
  await using _worker = startPython(portOfServer(server), "fail");
  assertEquals(await server.submit("12"), undefined);
  const { error } = await assertRejects(
    () => server.submit("x"),
    ItemFailure,
  ) as ItemFailure<string>;
  assertInstanceOf(error, RemoteError);
  assertEquals([error.name, error.message], ["RuntimeError", "no number: x"]);
  assertInstanceOf(error.cause, Error);
  assertEquals(error.cause.name, "ValueError");
});

test("fails an item whose result can't be sent, and goes on", async () => {
  await using server = listen<string, unknown>({
    port: 0,
    maxFrameBytes: 4096,
  });
  await using _worker = startPython(portOfServer(server), "odd");
  for (const item of ["function", "huge", "angry"]) {
    const failure = await assertRejects(() => server.submit(item), ItemFailure);
    assertInstanceOf(failure.error, RemoteError);
  }
  assertEquals(await server.submit("fine"), "fine");
});

test("killed in the middle: another does its items", async () => {
  const server = listen<number, number>({ port: 0 });
  const port = portOfServer(server);
  await using first = startPython(port, "slow");
  const long = server.submit(60);
  await first.stderr.line(/^begun/);
  first.signal("SIGKILL");
  await using second = startPython(port, "square");
  assertEquals(await long, 3600); // the second one's answer
  await server.close();
  await assertEndsWell(second);
});

test("counts attempts, and knows an item by its id", async () => {
  await using server = listen<string, [string, number, number, number]>({
    port: 0,
  });
  await using worker = startPython(portOfServer(server), "attempts");
  assertEquals(await server.submit("a"), ["a", 0, 1, worker.pid]);
  assertEquals(await server.submit("b"), ["b", 1, 1, worker.pid]);
});

test("answers PINGs while its handler computes", async () => {
  const events: ServerEvent[] = [];
  await using server = listen<number, number>({
    port: 0,
    heartbeat: { intervalMs: 300, timeoutMs: 1500, dropMs: 3000 },
    onEvent: (event) => events.push(event),
  });
  await using _worker = startPython(portOfServer(server), "slow");
  assertEquals(await server.submit(3.5), 3.5);
  assertEquals(
    events.filter(({ type }) => type === "suspect" || type === "disconnected"),
    [],
  );
});

test("says that it is there while a long frame comes", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using _worker = startPython(listener.addr.port, "echo", {
    env: { PING_SECONDS: "0.2" },
  });
  await using server = new ScriptedPeer(await listener.accept());
  server.answersPings = false;
  await server.greet();
  await server.until(T.CREDIT);
  await server.send(new Uint8Array([0, 1, 0, 0, T.ITEM]));
  let isAsked = false;
  const asked = server.until(T.PING, 5000).then(({ fields }) => {
    isAsked = true;
    assert(fields[0] !== 0, "PONG alone has the token 0");
  });
  const trickle = async () => {
    while (!isAsked) {
      await server.send(new Uint8Array(1));
      await moment(5);
    }
  };
  await Promise.all([asked, trickle()]);
});

test("is told what nobody waits for any more", async () => {
  await using server = listen<number, number>({ port: 0 });
  await using worker = startPython(portOfServer(server), "slow");
  const abort = new AbortController();
  const items = [60, 61].map((seconds) =>
    server.submit(seconds, { signal: abort.signal })
  );
  const failed = items.map((item) => assertRejects(() => item));
  await worker.stderr.line(/^begun 0/);
  abort.abort();
  await Promise.all(failed);
  await worker.stderr.line(/^cancelled/);
  assertEquals(await server.submit(0), 0); // 61 was not begun
});

test("ends with a server that didn't wait for what it cancelled", async () => {
  const server = listen<string, string>({
    port: 0,
    heartbeat: { intervalMs: 50, timeoutMs: 200, dropMs: 10_000 },
  });
  await using folder = await Folder.make();
  const go = `${folder.path}/go`;
  await using worker = startPython(portOfServer(server), "wait", {
    args: ["--give-up=0"],
  });
  const abort = new AbortController();
  const item = server.submit(go, { signal: abort.signal });
  await worker.stderr.line(/^begun 0/);
  abort.abort();
  await assertRejects(() => item);
  await server.close();
  await folder.write("go", "");
  await assertEndsWell(worker);
});

test("at SIGTERM finishes what it began, and hands back the rest", async () => {
  const server = listen<string | number, string | number>({ port: 0 });
  const port = portOfServer(server);
  await using folder = await Folder.make();
  const go = `${folder.path}/go`;
  await using first = startPython(port, "wait");
  const begun = server.submit(go);
  const rest = [2, 3].map((n) => server.submit(n));
  await first.stderr.line(/^begun 0/);
  first.signal("SIGTERM");
  await until(() => server.workers[0]?.state === "leaving", "it leaves");
  await folder.write("go", "");
  assertEquals(await begun, go);
  await assertEndsWell(first);
  await using second = startPython(port, "square");
  assertEquals(await Promise.all(rest), [4, 9]);
  await server.close();
  await assertEndsWell(second);
});

test("hands back in frames that a server with small ones takes", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using folder = await Folder.make();
  const go = `${folder.path}/go`;
  await using worker = startPython(listener.addr.port, "wait");
  await using server = new ScriptedPeer(await listener.accept());
  await server.greet({ fields: { maxFrameBytes: 1024 } });
  await server.until(T.CREDIT);
  const rest = Array.from({ length: 1000 }, (_, n) => n + 1);
  const items = [0, ...rest].flatMap((n) => [n, payload(go)]);
  await server.say(T.ITEM, 1, 0, 0, ...items);
  await worker.stderr.line(/^begun 0/);
  worker.signal("SIGTERM");
  const named: number[] = [];
  while (named.length < rest.length) {
    const { fields, body } = await server.until(T.LEAVE);
    assert(body.length <= 1024, `a LEAVE of ${body.length} bytes`);
    named.push(...fields as number[]);
  }
  // In any order: two threads of the worker may hand back at once.
  assertEquals(named.sort((a, b) => a - b), rest);
  await folder.write("go", "");
  await server.until(T.GOODBYE);
  await server.say(T.GOODBYE, 0, "");
  await assertEndsWell(worker);
});

test("connects again when its server comes back", async () => {
  const first = listen<number, number>({ port: 0 });
  const port = portOfServer(first);
  await using worker = startPython(port, "square");
  assertEquals(await first.submit(2), 4);
  await first.abort("gone").catch(() => {});
  await worker.stderr.line(/^lost: /);
  const second = listen<number, number>({ port });
  assertEquals(await second.submit(3), 9);
  await second.close();
  await assertEndsWell(worker);
});

test("with the right secret works", async () => {
  const secret = "s3cret, ключ";
  const server = listen<number, number>({ port: 0, secret });
  await using worker = startPython(portOfServer(server), "square", { secret });
  assertEquals(await server.submit(4), 16);
  await server.close();
  await assertEndsWell(worker);
});

for (
  const [what, ours, theirs] of [
    ["another secret", "right", "wrong"],
    ["no secret at a server that has one", "right", undefined],
    ["a secret at a server that has none", undefined, "right"],
  ] as const
) {
  test(`with ${what} is refused, and says so`, async () => {
    const events: ServerEvent[] = [];
    await using server = listen<number, number>({
      port: 0,
      ...(ours === undefined ? {} : { secret: ours }),
      onEvent: (event) => events.push(event),
    });
    await using worker = startPython(
      portOfServer(server),
      "square",
      theirs === undefined ? {} : { secret: theirs },
    );
    const { code, stderr } = await worker.exit;
    assertEquals(code, 1, stderr);
    assert(/^error: auth: /m.test(stderr), stderr);
    assert(events.some(({ type }) => type === "rejected"));
    assertEquals(server.workers.length, 0);
  });
}

test("with another signature is refused at once", async () => {
  await using server = listen<number, number>({ port: 0, signature: "a" });
  await using worker = startPython(portOfServer(server), "square", {
    args: ["--signature=b"],
  });
  const { code, stderr } = await worker.exit;
  assertEquals(code, 1);
  assert(/^error: signature: .*"a".*"b"|"b".*"a"/m.test(stderr), stderr);
});

test("gives up when there is no server", async () => {
  const port = freePort();
  await using worker = startPython(port, "square", { args: ["--give-up=0.3"] });
  const { code, stderr } = await worker.exit;
  assertEquals(code, 1, stderr);
});

test("says which file or function isn't there, as wrong usage", async () => {
  for (
    const [handler, reason] of [
      ["nope.py:square", "there is no file nope.py"],
      [`${HANDLERS}:nope`, "has no function nope"],
      [HANDLERS, "not FILE.py:FUNCTION"],
    ] as const
  ) {
    await using worker = new Process(python!, [WORKER, handler], {
      env: { PYTHONDONTWRITEBYTECODE: "1" },
    });
    const { code, stderr } = await worker.exit;
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, reason);
  }
});

test("takes part in the capitalizer, beside a worker of Deno", async () => {
  const lines = Array.from({ length: 200 }, (_, i) => `line ${i}`);
  await using server = await startExample("capitalizer/server.ts", {
    stdin: lines.join("\n"),
  });
  const port = await portOf(server);
  await using worker = new Process(python!, [WORKER, `--port=${port}`], {
    env: { PYTHONDONTWRITEBYTECODE: "1" },
  });
  await using other = await startExample("capitalizer/worker.ts", { port });
  const { code, stdout } = await server.exit;
  assertEquals(code, 0);
  assertEquals(
    stdout.trimEnd().split("\n").sort(),
    lines.map((line) => line.toUpperCase()).sort(),
  );
  await Promise.any([worker.exit, other.exit]);
});

Deno.test("examples/README.md tells how to start the Python worker", async () => {
  const text = await Deno.readTextFile(`${ROOT}examples/README.md`);
  const section = text.split("## python_worker\n")[1]?.split("\n## ")[0] ?? "";
  assertEquals(
    commandsIn(section).map(({ script }) => script),
    ["examples/capitalizer/server.ts"],
  );
  for (const [, file] of section.matchAll(/python3 (\S+\.py)/g)) {
    assert((await Deno.stat(ROOT + file)).isFile);
  }
  assert(/python3 examples\/python_worker\/worker\.py/.test(section));
});
