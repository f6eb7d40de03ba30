import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { terminalSize } from "../internal/cli_output.ts";
import { Console, formatBar } from "../internal/cli_progress.ts";
import { formatTable, type Snapshot } from "../internal/cli_top.ts";
import { stdArgs } from "../tools/std.ts";
import { HANDLERS, hasProgram, runCli, runHere } from "./_support/cli.ts";
import { Authority } from "./_support/certificates.ts";
import { Folder } from "./_support/folder.ts";
import { ROOT } from "./_support/process.ts";
import { until } from "./_support/within.ts";

const addr: Deno.Addr = {
  transport: "tcp",
  hostname: "127.0.0.1",
  port: 1,
};

const SNAPSHOT: Snapshot = {
  pending: 3,
  inFlight: 12,
  settled: 1000,
  failed: 1,
  redelivered: 2,
  duplicates: 0,
  unread: 0,
  bytesIn: 0,
  bytesOut: 0,
  workers: [
    {
      id: 0,
      name: "slow",
      addr,
      inFlight: 2,
      settled: 100,
      failed: 1,
      ratePerSecond: 1.25,
      rttMs: undefined,
      state: "suspect",
    },
    {
      id: 1,
      name: "evil\x1b[2J",
      addr,
      inFlight: 10,
      settled: 900,
      failed: 0,
      ratePerSecond: 250,
      rttMs: 0.5,
      state: "active",
    },
  ],
  failures: [{ id: 7, error: "no\nway\u202e" }],
};

Deno.test("formatTable() has the fastest worker first, and no escapes", () => {
  assertEquals(formatTable(SNAPSHOT, 100), [
    "2 workers   3 pending   12 in flight   1000 settled   1 failed   2 redelivered",
    "",
    "NAME      STATE       RATE  IN FLIGHT  SETTLED  FAILED     RTT",
    "evil\ufffd[2J  active   250.0/s         10      900       0  0.5 ms",
    "slow      suspect    1.3/s          2      100       1",
    "",
    "FAILURES",
    "7: no\ufffdway\ufffd",
  ]);
  const [alone] = formatTable({ ...SNAPSHOT, workers: [] }, 100);
  assertMatch(alone!, /^0 workers /);
  const workers = SNAPSHOT.workers.slice(1);
  assertMatch(formatTable({ ...SNAPSHOT, workers }, 100)[0]!, /^1 worker /);
  for (const line of formatTable(SNAPSHOT, 40)) {
    assertEquals(line.length <= 40, true, line);
  }
});

Deno.test("top prints the table once where there is no terminal", async () => {
  let authorization: string | null = null, asks = true;
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => {
      authorization = request.headers.get("authorization");
      if (asks && authorization === null) {
        return new Response("who are you?", { status: 401 });
      }
      return new URL(request.url).pathname === "/stats.json"
        ? Response.json(SNAPSHOT)
        : new Response(null, { status: 404 });
    },
  );
  for (
    const [secret, token] of [
      ["s3cret", "s3cret"],
      ["gehe\u00efm", "67656865c3af6d"], // in hex: a header is ASCII
    ] as const
  ) {
    const { code, lines, stderr } = await runCli(
      ["top", `:${server.addr.port}`],
      { env: { DISTCHAN_SECRET: secret } },
    );
    assertEquals(code, 0, stderr);
    assertEquals(lines, formatTable(SNAPSHOT, 120));
    assertEquals(authorization, `Bearer ${token}`);
  }
  asks = false;
  const { lines } = await runCli(
    ["top", `:${server.addr.port}`],
    { env: { DISTCHAN_SECRET: "s3cret" } },
  );
  assertEquals(lines, formatTable(SNAPSHOT, 120));
  assertEquals(authorization, null, "who doesn't ask isn't told");
});

Deno.test({
  name: "all that is printed has its error: a disk may be full",
  ignore: Deno.build.os !== "linux",
  async fn() {
    for (const args of [["help"], ["map", "--local=1", "--", "echo", "{}"]]) {
      const command = new Deno.Command("sh", {
        args: ["-c", 'echo a | "$0" "$@" > /dev/full', Deno.execPath()].concat(
          ["run", "-qA", "--no-check", ...stdArgs(), `${ROOT}cli.ts`],
          args,
        ),
        stderr: "piped",
      });
      const { code, stderr } = await command.output();
      assertStringIncludes(
        new TextDecoder().decode(stderr),
        "distchan: can't write standard output: No space left on device",
      );
      assertEquals(code, 3);
    }
  },
});

Deno.test("top ends with 141 when nobody reads its output", async () => {
  const isUnread = Promise.withResolvers<void>();
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async () => {
      await isUnread.promise;
      return Response.json(SNAPSHOT);
    },
  );
  const top = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-qA",
      "--no-check",
      ...stdArgs(),
      `${ROOT}cli.ts`,
      "top",
      `:${server.addr.port}`,
    ],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  await top.stdout.cancel();
  isUnread.resolve();
  const [{ code }, stderr] = await Promise.all([top.status, top.stderr.text()]);
  assertEquals([code, stderr], [141, ""]);
});

Deno.test("top takes the URL of a proxy, and trusts --ca", async () => {
  await using folder = await Folder.make();
  const authority = await Authority.create("A test's authority");
  const { cert, key } = await authority.issue();
  const ca = await folder.write("ca.pem", authority.cert);
  const seen: string[] = [];
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, cert, key, onListen() {} },
    (request) => {
      seen.push(new URL(request.url).pathname);
      return Response.json(SNAPSHOT);
    },
  );
  const { port } = server.addr;
  const [root, path, address, stranger] = await Promise.all([
    runCli(["top", `--ca=${ca}`, `https://localhost:${port}`]),
    runCli(["top", `--ca=${ca}`, `https://localhost:${port}/pool?x#y`]),
    runCli(["top", `--ca=${ca}`, `:${port}`]),
    runCli(["top", `https://localhost:${port}/`]),
  ]);
  for (const { code, lines, stderr } of [root, path, address]) {
    assertEquals(code, 0, stderr);
    assertEquals(lines, formatTable(SNAPSHOT, 120));
  }
  assertEquals(seen.toSorted(), [
    "/pool/stats.json",
    "/stats.json",
    "/stats.json",
  ]);
  assertEquals(stranger.code, 3);
  assertStringIncludes(
    stranger.stderr,
    `can't read https://localhost:${port}: `,
  );
});

Deno.test("top refuses what is no URL of a dashboard", async () => {
  await using folder = await Folder.make();
  const ca = await folder.write("ca.pem", "no certificate");
  const { cert } = await Authority.create("A test's authority");
  const good = await folder.write("good.pem", cert);
  const torn = await folder.write("torn.pem", cert.slice(0, 100));
  for (
    const [args, reason] of [
      [[], "which server?"],
      [[":1", ":2"], "2 servers, expected one"],
      [["ftp://localhost"], "ftp://localhost is no address"],
      [["https://"], "https:// is no address"],
      [["a b:5"], "a b:5 is no address"],
      [[`--ca=${good}`, "http://localhost"], "--ca is for https:"],
      [[`--ca=${ca}`, ":1"], "ca.pem has no certificate, expected PEM"],
      [["--ca=/no/such/file", ":1"], "can't read --ca"],
      [[`--ca=${torn}`, ":1"], "can't use --ca: "],
    ] as const
  ) {
    const { code, stderr } = await runHere(["top", ...args]);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, reason);
  }
});

Deno.test("top says what is no dashboard", async () => {
  let answer: string;
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response(answer),
  );
  for (
    answer of [
      "<!doctype html>",
      "",
      "{}",
      "null",
      '{ "settled": 1, "workers": [{ "id": 1 }] }',
      '{ "settled": 1, "workers": [], "pending": { "toString": 1 } }',
    ]
  ) {
    const other = await runHere(["top", `:${server.addr.port}`]);
    assertEquals(other.code, 3);
    assertStringIncludes(
      other.stderr,
      "is no dashboard: /stats.json has no figures",
    );
  }
  const nobody = await runHere(["top", ":1"]);
  assertEquals(nobody.code, 3);
  assertStringIncludes(nobody.stderr, "can't read 127.0.0.1:1");
});

Deno.test("top says why nobody can be read", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const { code, stderr } = await runHere(["top", `:${port}`]);
  assertEquals(code, 3);
  // What fetch() itself throws says nothing: its cause does.
  assertMatch(stderr, /can't read 127\.0\.0\.1:\d+: .*refused/);
});

Deno.test("top says that an answer was broken off", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const asked = listener.accept().then(async (conn) => {
    await conn.read(new Uint8Array(4096));
    const head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    await conn.write(new TextEncoder().encode(`${head}{`));
    conn.close();
  });
  const { code, stderr } = await runHere(["top", `:${listener.addr.port}`]);
  await asked;
  assertEquals(code, 3);
  assertMatch(stderr, /^distchan: can't read 127\.0\.0\.1:\d+: /);
});

Deno.test("top says whose secret is wanted", async () => {
  await using folder = await Folder.make();
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response(null, { status: 401 }),
  );
  const where = `127.0.0.1:${server.addr.port}`;
  const secret = await folder.write("secret", "s3cret");
  for (
    const [args, whose] of [
      [[], "its server's"],
      [["--secret-file", secret], "another"],
    ] as const
  ) {
    assertEquals(await runHere(["top", where, ...args]), {
      code: 3,
      stderr:
        `distchan: ${where} wants ${whose} secret: --secret-file or DISTCHAN_SECRET`,
    });
  }
});

Deno.test("top says why it is refused, where no secret helps", async () => {
  // As a dashboard on loopback answers a proxy that asks by another name.
  await using proxy = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("ask for it as 127.0.0.1\n", { status: 403 }),
  );
  const { code, stderr } = await runHere(["top", `:${proxy.addr.port}`]);
  assertEquals([code, stderr], [
    3,
    `distchan: 127.0.0.1:${proxy.addr.port} refused, status 403: ask for it as 127.0.0.1`,
  ]);
});

Deno.test("formatBar() fits the terminal", () => {
  const progress = {
    done: 500,
    skipped: 20,
    total: 1040,
    failed: 3,
    workers: 2,
    isStopping: false,
  };
  assertEquals(
    formatBar(progress, 10, 80),
    " 50 % " + "█".repeat(13) + "░".repeat(13) +
      "  520/1040  10/s  ETA 0:52  2 workers  3 failed",
  );
  assertEquals(
    formatBar({ ...progress, total: NaN, workers: 0, failed: 0 }, 1.5, 80),
    "520 done  1.5/s  no workers",
  );
  assertStringIncludes(
    formatBar({ ...progress, done: 57, skipped: 0, total: 100 }, 10, 80),
    " 57 % ",
  );
  assertStringIncludes(
    formatBar({ ...progress, isStopping: true }, 0.01, 80),
    "stopping",
  );
  assertMatch(formatBar(progress, 0.02, 80), /ETA 7:13:20/);
  assertEquals(formatBar(progress, 0, 80).includes("ETA"), false);
  for (
    const [done, total, percent] of [
      [999, 1000, " 99 % "], // not before all is done
      [0, 0, "100 % "],
      [1100, 1000, "100 % "], // the file has grown since it was counted
    ] as const
  ) {
    const bar = formatBar({ ...progress, done, skipped: 0, total }, 10, 80);
    assertEquals(bar.slice(0, 6), percent);
  }
  for (let width = 20; width < 120; width++) {
    assertEquals(formatBar(progress, 10, width).length < width, true);
  }
});

Deno.test("terminalSize() is 80 × 24 where a terminal doesn't know it", () => {
  const { consoleSize } = Deno;
  try {
    // As behind a serial line, or `script` without a terminal.
    Deno.consoleSize = () => ({ columns: 0, rows: 0 });
    assertEquals(terminalSize(), { columns: 80, rows: 24 });
    Deno.consoleSize = () => {
      throw new Error("no terminal");
    };
    assertEquals(terminalSize(), { columns: 80, rows: 24 });
    Deno.consoleSize = () => ({ columns: 100, rows: 20 });
    assertEquals(terminalSize(), { columns: 100, rows: 20 });
  } finally {
    Deno.consoleSize = consoleSize;
  }
});

/** Standard error is a terminal, as far as a console knows. */
class FakeTerminal implements Disposable {
  /** What was written to it. */
  text = "";
  /** The time, in ms. */
  now = 0;
  /** Draws the bar, when it is time to. */
  tick = (): void => {};
  readonly #stderr = {
    isTerminal: Deno.stderr.isTerminal,
    writeSync: Deno.stderr.writeSync,
  };
  readonly #setInterval = globalThis.setInterval;
  readonly #now = performance.now;
  readonly progress = {
    done: 0,
    skipped: 0,
    total: 1,
    failed: 0,
    workers: 1,
    isStopping: false,
  };

  constructor() {
    Deno.stderr.isTerminal = () => true;
    Deno.stderr.writeSync = (bytes) => {
      this.text += new TextDecoder().decode(bytes);
      return bytes.length;
    };
    Object.assign(globalThis, {
      setInterval: (draw: () => void) => void (this.tick = draw),
    });
    performance.now = () => this.now;
  }

  [Symbol.dispose](): void {
    Object.assign(Deno.stderr, this.#stderr);
    Object.assign(globalThis, { setInterval: this.#setInterval });
    performance.now = this.#now;
  }
}

Deno.test("Console.print() wipes what the terminal still shows", () => {
  using terminal = new FakeTerminal();
  using console = new Console(() => terminal.progress, false);
  console.clear();
  assertEquals(terminal.text, "", "there was nothing to wipe");
  // A bar may be there whose wiping was dropped, or the "^C" of a Ctrl-C.
  console.print("stopping");
  assertEquals(terminal.text, "\r\x1b[Kstopping\n");
});

Deno.test("Console shows the rate of the last five seconds, and is wiped at its end", () => {
  using terminal = new FakeTerminal();
  {
    using _ = new Console(() => terminal.progress, false);
    for (
      const [now, done, rate] of [
        [1000, 10, " 0.0/s "],
        [2000, 30, " 20/s "],
        [7000, 35, " 1.0/s "],
      ] as const
    ) {
      terminal.now = now;
      terminal.progress.done = done;
      terminal.text = "";
      terminal.tick();
      assertStringIncludes(terminal.text, rate);
    }
    terminal.text = "";
  }
  assertEquals(terminal.text, "\r\x1b[K");
});

Deno.test("Console.pause() leaves the terminal to others, however long they write", () => {
  using terminal = new FakeTerminal();
  using console = new Console(() => terminal.progress, false);
  terminal.tick();
  assertMatch(terminal.text, /░/);
  {
    using _ = console.pause();
    assertEquals(terminal.text.slice(-4), "\r\x1b[K", "wiped");
    terminal.text = "";
    terminal.tick();
    assertEquals(terminal.text, "", "not drawn");
  }
  terminal.tick();
  assertMatch(terminal.text, /░/);
});

/** A terminal of its own, with `distchan` in it. */
class Tmux implements AsyncDisposable {
  readonly #socket: string;

  constructor(folder: Folder) {
    this.#socket = `${folder.path}/tmux`;
  }

  async start(...args: string[]): Promise<void> {
    const command = [
      Deno.execPath(),
      "run",
      "-qA",
      "--no-check",
      ...stdArgs(),
      `${ROOT}cli.ts`,
      ...args,
    ].map((arg) => `'${arg.replaceAll("'", "'\\''")}'`).join(" ");
    await this.tmux(
      "-f",
      "/dev/null",
      "new-session",
      "-d",
      "-x100",
      "-y20",
      `${command}; echo "status $?"; cat`,
    );
  }

  async tmux(...args: string[]): Promise<string> {
    const { stdout, stderr, success } = await new Deno.Command("tmux", {
      args: ["-S", this.#socket, ...args],
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout);
  }

  /** Waits until the screen shows something. */
  async shows(pattern: RegExp): Promise<string> {
    const deadline = performance.now() + 20_000;
    for (;;) {
      const screen = await this.tmux("capture-pane", "-p");
      if (pattern.test(screen)) return screen;
      if (performance.now() > deadline) {
        throw new Error(`Not on the screen: ${pattern}\n${screen}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tmux("kill-server").catch(() => {});
  }
}

Deno.test({
  name:
    "map on a terminal has a bar, drains at Ctrl-C, and wipes it (needs tmux)",
  ignore: !hasProgram("tmux"),
  async fn() {
    await using folder = await Folder.make();
    await folder.write("items", "a\n".repeat(5000));
    await using terminal = new Tmux(folder);
    await terminal.start(
      "map",
      "--local=2",
      `--input=${folder.path}/items`,
      `--joblog=${folder.path}/log`,
      `${HANDLERS}slow.ts`,
    );
    await terminal.shows(
      /^ +\d+ % [█░]+ {2}\d+\/5000 {2}[\d.]+\/s {2}ETA [\d:]+ {2}2 workers$/m,
    );
    await terminal.tmux("send-keys", "C-c");
    const screen = await terminal.shows(/^status 130$/m);
    assertMatch(screen, /^stopped with \d+ items? settled, /m);
    // The results of what was under way may have moved it off the screen.
    const all = await terminal.tmux("capture-pane", "-p", "-S", "-");
    assertMatch(all, /^stopping: waiting for what is under way/m);
    // What wiped a bar just before the "^C" may have been dropped with it.
    const others = screen.split("\n").filter((line) => !line.includes("^C"));
    assertEquals(/█|░/.test(others.join()), false, screen);
  },
});

Deno.test({
  name:
    "map on a terminal counts no command that Ctrl-C ended as failed (needs tmux)",
  ignore: !hasProgram("tmux"),
  async fn() {
    await using folder = await Folder.make();
    await folder.write("items", "1\n2\n3\n");
    await using terminal = new Tmux(folder);
    await terminal.start(
      "map",
      "--local=2",
      `--input=${folder.path}/items`,
      `--joblog=${folder.path}/log`,
      "--",
      "sh",
      "-c",
      "test $0 = 1 && exit; echo begun; exec sleep 60",
      "{}",
    );
    await terminal.shows(/ 1\/3 /);
    await terminal.tmux("send-keys", "C-c");
    await terminal.shows(/^status 130$/m);
    const log = await Deno.readTextFile(`${folder.path}/log`);
    assertMatch(log, /^\{"seq":1,.*\}\n$/);
  },
});

Deno.test({
  name: "top on a terminal draws the table until q (needs tmux)",
  ignore: !hasProgram("tmux"),
  async fn() {
    await using folder = await Folder.make();
    let settled = 1000;
    await using server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      () =>
        ++settled === 1003
          ? new Response(null, { status: 503 })
          : Response.json({ ...SNAPSHOT, settled }),
    );
    await using terminal = new Tmux(folder);
    await terminal.start("top", "-d0.1", `:${server.addr.port}`);
    // At most ten looks a second, and each of them finds one more.
    await terminal.shows(/^distchan 127\.0\.0\.1:\d+ {3}(10|[1-9])\.\d\/s /);
    await until(() => settled > 1005, "it goes on past an answer that is none");
    await terminal.shows(/^slow +suspect/m);
    await terminal.tmux("send-keys", "q");
    const screen = await terminal.shows(/^status 0$/m);
    assertEquals(screen.includes("suspect"), false, "the other screen is gone");
  },
});

Deno.test({
  name: "top on a terminal ends without its server, and says why (needs tmux)",
  ignore: !hasProgram("tmux"),
  async fn() {
    await using folder = await Folder.make();
    const server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      () => Response.json(SNAPSHOT),
    );
    await using terminal = new Tmux(folder);
    await terminal.start("top", "-d0.1", `:${server.addr.port}`);
    await terminal.shows(/^slow +suspect/m);
    await server.shutdown();
    const screen = await terminal.shows(/^status 3$/m);
    assertMatch(screen, /^distchan: can't read 127\.0\.0\.1:\d+: /m);
  },
});

Deno.test({
  name: "top on a terminal wraps no line that is wider than long (needs tmux)",
  ignore: !hasProgram("tmux"),
  async fn() {
    await using folder = await Folder.make();
    const [worker] = SNAPSHOT.workers;
    const name = "\u6f22".repeat(30); // two columns each
    const workers = Array.from({ length: 20 }, () => ({ ...worker, name }));
    let looks = 0;
    await using server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      () => {
        looks++;
        return Response.json({ ...SNAPSHOT, workers });
      },
    );
    await using terminal = new Tmux(folder);
    await terminal.start("top", "-d60", `:${server.addr.port}`);
    const screen = await terminal.shows(/suspect/);
    assertMatch(screen, /^distchan 127/, "nothing has scrolled");
    assertEquals(looks, 1, "the next is in a minute");
    await terminal.tmux("send-keys", "q");
    await terminal.shows(/^status 0$/m);
  },
});
