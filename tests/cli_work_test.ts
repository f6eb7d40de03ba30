import {
  assertEquals,
  assertGreater,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { CommandRunner } from "../internal/cli_command.ts";
import { type ItemFailure, listen, work as connectAndWork } from "../mod.ts";
import { HANDLERS, runCli, runHere, startCli } from "./_support/cli.ts";
import { Folder } from "./_support/folder.ts";
import { isAlive, Process, ROOT } from "./_support/process.ts";
import { stdArgs } from "../tools/std.ts";
import { ScriptedPeer, T } from "./_support/scripted_peer.ts";
import { moment, until, within } from "./_support/within.ts";

const MAX = 1000;

function run(
  command: string[],
  item: unknown,
  signal = new AbortController().signal,
): Promise<unknown> {
  const { handler } = new CommandRunner(command, MAX);
  return handler(item, { id: 0, attempt: 1, signal }) as Promise<unknown>;
}

Deno.test("CommandRunner: what a command prints is the result", async () => {
  assertEquals(await run(["echo", "{}"], "a"), "a");
  assertEquals(await run(["printf", "a\n\n"], ""), "a\n");
  // As programs print it on Windows.
  assertEquals(await run(["printf", "a\r\nb\r\n"], ""), "a\r\nb");
  assertEquals(await run(["printf", "\r\n"], ""), "");
  assertEquals(await run(["printf", "\r"], ""), "\r");
  assertEquals(await run(["true"], "a"), undefined);
  assertEquals(await run(["echo"], "a"), "");
  assertEquals(
    await run(["printf", "\\377\\n"], "a"),
    Uint8Array.of(0xff),
  );
  assertEquals(await run(["echo", "{}"], { a: [1n] }), '{"a":["1"]}');
  assertEquals(await run(["cat"], "x".repeat(MAX)), "x".repeat(MAX));
  // It doesn't read what it is given.
  assertEquals(await run(["true"], "x".repeat(1_000_000)), undefined);
});

Deno.test("CommandRunner: what a command leaves behind may hold its input", async () => {
  const script = "exec 3<&0; sleep 60 > /dev/null 2>&1 & echo $!";
  const pid = await within(
    run(["sh", "-c", script], "x".repeat(1_000_000)),
    20_000,
    "the command has ended",
  );
  Deno.kill(Number(pid), "SIGKILL");
  await until(() => !isAlive(Number(pid)), "it has let go of its input");
  await moment(); // and what was to be written to it fails
});

Deno.test("CommandRunner: {} is never more than one argument, nor a shell's", async () => {
  const item = "$& $1 `id` 'a' \"b\" ; rm {} \n -rf";
  assertEquals(
    await run(["printf", "%s|", "{}", "a{}b{}"], item),
    `${item}|a${item}b${item}|`,
  );
  await assertRejects(() => run(["echo", "{}"], "a\0b"), TypeError, "NUL");
});

Deno.test("CommandRunner: a status other than 0 is a failure, with the end of standard error", async () => {
  await assertRejects(
    () => run(["sh", "-c", "echo why >&2; exit 3"], ""),
    Error,
    "exit status 3: why",
  );
  const error = await assertRejects(
    () =>
      run(["sh", "-c", "yes no | head -n 9999 >&2; echo last >&2; exit 1"], ""),
    Error,
  );
  assertEquals(error.name, "CommandError");
  assertMatch(error.message, /no\nlast$/);
  assertGreater(9000, error.message.length);
});

Deno.test("CommandRunner: a command that prints too much is ended", async () => {
  await assertRejects(
    () => run(["yes"], ""),
    RangeError,
    "more than 1000 bytes",
  );
  assertEquals(
    await run(["printf", "%1001s\\n", "a"], "").catch(String),
    "RangeError: The command printed more than 1000 bytes: --max-output allows more",
  );
});

Deno.test({
  name: "CommandRunner: a cancelled command is ended, with all that came of it",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using folder = await Folder.make();
    const pids = `${folder.path}/pids`;
    const controller = new AbortController();
    const running = run(
      [
        "sh",
        "-c",
        `sleep 60 & echo $! $$ > ${pids}.new; mv ${pids}.new ${pids}; wait`,
      ],
      "",
      controller.signal,
    );
    let text = "";
    await until(() => {
      try {
        text = Deno.readTextFileSync(pids);
      } catch {
        // Not yet.
      }
      return text !== "";
    }, "the command has begun");
    controller.abort();
    await assertRejects(() => running, DOMException);
    const [sleep = 0] = text.trim().split(" ").map(Number);
    // Whoever adopts it may take a moment, so that a zombie may stay.
    await until(() => hasGone(sleep), "sleep is gone");
  },
});

/** A script's first argument is the file for the pid of what it starts. */
async function pidIn(path: string): Promise<number> {
  let text = "";
  await until(() => {
    try {
      text = Deno.readTextFileSync(path);
    } catch {
      // Not yet.
    }
    return text.endsWith("\n");
  }, "the command has begun");
  return Number(text);
}

const hasGone = (pid: number): boolean =>
  !isAlive(pid) || Deno.build.os === "linux" && stateOf(pid) === "Z";

Deno.test({
  name: "CommandRunner: a cancelled command is asked to end before it has to",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using folder = await Folder.make();
    const path = `${folder.path}/pid`;
    const script =
      'trap "echo in order > $0.end; exit" TERM; echo $$ > "$0"; ' +
      "while :; do sleep 0.1; done";
    const controller = new AbortController();
    const running = run(["sh", "-c", script, path], "", controller.signal);
    await pidIn(path);
    controller.abort();
    await assertRejects(() => running, DOMException);
    assertEquals(await Deno.readTextFile(`${path}.end`), "in order\n");
  },
});

Deno.test({
  name: "CommandRunner: who outlives the command doesn't hold up its end",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using folder = await Folder.make();
    const path = `${folder.path}/pid`;
    const controller = new AbortController();
    const running = run(
      ["sh", "-c", 'sleep 60 & echo $! > "$0"', path],
      "",
      controller.signal,
    );
    const pid = await pidIn(path);
    try {
      assertEquals(await Promise.race([running, moment(300)]), undefined);
      controller.abort();
      await assertRejects(() => running, DOMException);
      assertEquals(hasGone(pid), false);
    } finally {
      Deno.kill(pid, "SIGKILL");
    }
  },
});

Deno.test({
  name: "CommandRunner: what a thread of the command started is ended, too",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using folder = await Folder.make();
    const path = `${folder.path}/pid`;
    const thread = `
      const child = new Deno.Command("sleep", { args: ["60"] }).spawn();
      Deno.writeTextFileSync(${JSON.stringify(path)}, child.pid + "\\n");
    `;
    const main = `new Worker(${
      JSON.stringify(`data:text/javascript,${encodeURIComponent(thread)}`)
    }, { type: "module" }); setTimeout(() => 0, 60_000);`;
    const controller = new AbortController();
    const running = run(
      [Deno.execPath(), "eval", main],
      "",
      controller.signal,
    );
    const pid = await pidIn(path);
    controller.abort();
    await assertRejects(() => running, DOMException);
    await until(() => hasGone(pid), "sleep is gone");
  },
});

function stateOf(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/stat`).split(" ")[2]!;
  } catch {
    return "Z";
  }
}

Deno.test("work runs a module in isolates with -j, and ends with the server", async () => {
  await using server = listen<string, string>({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  await using work = startCli(
    ["work", `--connect=:${port}`, "-j2", "--name=me", `${HANDLERS}moody.ts`],
  );
  assertEquals(await server.submit("a"), "a");
  const error = await assertRejects(() =>
    server.submit("throw")
  ) as ItemFailure;
  assertEquals(error.error.message, "not that one");
  assertEquals(server.workers.map(({ name }) => name), ["me"]);
  await server.close();
  const { code, stdout, stderr } = await work.exit;
  assertEquals([code, stdout], [0, ""]);
  assertEquals(stderr.split("\n"), [
    `connected to 127.0.0.1:${port}`,
    "done: the server has no more work",
    "",
  ]);
});

Deno.test({
  name: "work goes on where standard error can't be written (needs /dev/full)",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using server = listen<string, string>({ port: 0 });
    const { port } = server.addr as Deno.NetAddr;
    await using work = new Process("sh", [
      "-c",
      'exec "$0" "$@" 2>/dev/full',
      Deno.execPath(),
      ...["run", "-qA", "--no-check", ...stdArgs(), `${ROOT}cli.ts`],
      ...["work", `--connect=:${port}`, `${HANDLERS}upper.ts`],
    ]);
    void work.exit.then(() => server.abort()); // nobody else does it
    assertEquals(await server.submit("a"), "A");
    await server.close();
    assertEquals((await work.exit).code, 0);
  },
});

Deno.test("work leaves at the first SIGINT: what is begun is finished", async () => {
  await using server = listen<string, string>({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  await using folder = await Folder.make();
  const begun = `${folder.path}/begun`, go = `${folder.path}/go`;
  await using work = startCli(
    ["work", `--connect=:${port}`, "--", "sh", "-c"].concat(
      `: > ${begun}; until test -e ${go}; do sleep 0.05; done; echo $0`,
      "{}",
    ),
  );
  const result = server.submit("a");
  const other = server.submit("b").catch(() => "nobody");
  await until(() => folder.has("begun"), "the command has begun", 20_000);
  work.signal("SIGINT");
  await work.stderr.line(/^leaving: /);
  await folder.write("go", "");
  assertEquals(await result, "a");
  const { code, stderr } = await work.exit;
  assertEquals(code, 0, stderr);
  await server.abort();
  assertEquals(await other, "nobody");
});

Deno.test("work ends at once at the second SIGINT: its command too, and the item goes to others", async () => {
  await using server = listen<string, string>({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  await using folder = await Folder.make();
  const begun = `${folder.path}/begun`;
  await using work = startCli(
    ["work", `--connect=:${port}`, "--", "sh", "-c"].concat(
      `echo $$ > ${begun}.part; mv ${begun}.part ${begun}; exec sleep 100`,
      "{}",
    ),
  );
  const result = server.submit("a");
  const pid = () => Number(Deno.readTextFileSync(begun));
  await until(
    () => {
      try {
        return pid() > 0;
      } catch {
        return false;
      }
    },
    "the command has begun",
    20_000,
  );
  work.signal("SIGINT");
  await work.stderr.line(/^leaving: /);
  work.signal("SIGINT");
  const { code, stderr } = await work.exit;
  assertEquals(code, 130, stderr);
  await until(
    () => hasGone(pid()),
    "the command has ended",
    20_000,
  );
  const other = connectAndWork<string, string>({ port }, (item) => `${item}!`);
  assertEquals(await result, "a!");
  await server.close();
  await other;
});

Deno.test("work --give-up ends without a server", async () => {
  using nobody = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = nobody.addr; // accepts, and never says a word
  const { code, stderr } = await runCli(
    ["work", `--connect=:${port}`, "--give-up=0.5", "-q", "--", "true"],
  );
  assertEquals(code, 3);
  assertMatch(
    stderr,
    /^distchan: gave up after 0\.5 s without 127\.0\.0\.1:\d+/,
  );
});

Deno.test("work --give-up counts from the loss of the server", async () => {
  const server = listen<string, string>({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  await using work = startCli(
    ["work", `--connect=:${port}`, "--give-up=2", "--", "echo", "{}"],
  );
  assertEquals(await server.submit("a"), "a");
  await server.abort();
  const { code, stderr } = await work.exit;
  assertEquals(code, 3);
  assertStringIncludes(stderr, `lost 127.0.0.1:${port} (aborted)`);
  assertStringIncludes(stderr, "gave up after 2 s");
});

Deno.test("work --give-up doesn't count while the module is loaded", async () => {
  await using server = listen<string, string>({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  await using folder = await Folder.make();
  const module = await folder.write(
    "late.ts",
    "await new Promise((resolve) => setTimeout(resolve, 1500));\n" +
      "export default (item: string) => item + '!';\n",
  );
  for (const jobs of [[], ["--jobs=2"]]) {
    await using work = startCli(
      ["work", `--connect=:${port}`, "--give-up=1", ...jobs, module],
    );
    void work.exit.then(({ code, stderr }) => {
      if (code !== 0) void server.abort(new Error(stderr)); // nobody else does it
    });
    assertEquals(await server.submit("a"), "a!");
    work.signal("SIGTERM");
    assertEquals((await work.exit).code, 0);
  }
});

Deno.test({
  name: "work --give-up leaves no command behind, also one that won't end",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using folder = await Folder.make();
    const path = `${folder.path}/pid`;
    const server = listen<string, string>({ port: 0 });
    const { port } = server.addr as Deno.NetAddr;
    await using work = startCli([
      ...["work", `--connect=:${port}`, "--give-up=2", "--", "sh", "-c"],
      'trap "" TERM; echo $$ > "$0"; while :; do sleep 0.1; done',
      path,
      "{}",
    ]);
    const result = server.submit("a").catch(() => {});
    const pid = await pidIn(path);
    await server.abort();
    await result;
    const { code, stderr } = await work.exit;
    assertEquals(code, 3, stderr);
    assertEquals(hasGone(pid), true);
  },
});

Deno.test("work refuses command lines that make no sense", async () => {
  const notPem = `${HANDLERS}upper.ts`;
  for (
    const [args, reason] of [
      [["x.ts"], "which server?"],
      [["--connect=:1"], "what is to be run?"],
      [["--connect=:0", "x.ts"], '--connect is ":0", expected HOST:PORT'],
      [
        ["--connect=:1", "--give-up=0", "x.ts"],
        'expected seconds above 0, up to 2000000, or "never"',
      ],
      [
        ["--connect=:1", `--ca=${notPem}`, "x.ts"],
        "has no certificate, expected PEM",
      ],
    ] as const
  ) {
    const { code, stderr } = await runHere(["work", ...args]);
    assertEquals(code, 2);
    assertStringIncludes(stderr, reason);
  }
});

Deno.test("work refuses what only Deno knows to be no host, or no certificate", async () => {
  const upper = `${HANDLERS}upper.ts`;
  const host = await runHere(["work", "--connect=a/b:1", upper]);
  assertEquals(host.code, 2);
  assertStringIncludes(host.stderr, "can't connect to a/b:1: invalid host");
  await using folder = await Folder.make();
  const pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  await folder.write("ca.pem", pem);
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const ca = await runHere(
    ["work", `--connect=:${port}`, `--ca=${folder.path}/ca.pem`, upper],
  );
  assertEquals(ca.code, 2);
  assertStringIncludes(ca.stderr, "tls: invalid peer certificate");
});

/** What `work` says to a server by hand. */
async function workAt(serve: (listener: Deno.Listener) => Promise<void>) {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = serve(listener);
  const { port } = listener.addr;
  const run = await runHere(
    ["work", "--connect", `:${port}`, `${HANDLERS}upper.ts`],
  );
  await serving;
  return run;
}

Deno.test("work shows what a server says without its escapes, on one line", async () => {
  const { code, stderr } = await workAt(async (listener) => {
    await using peer = new ScriptedPeer(await listener.accept());
    await peer.expect(T.HELLO);
    await peer.say(T.REJECT, 1, "no\x1b]52;c;eA==\x07\ndistchan: done");
  });
  assertEquals(code, 3);
  const line = stderr.split("\n").find((line) => line.includes("refused"))!;
  assertStringIncludes(line, "no\ufffd]52;c;eA==\ufffd distchan: done");
});

Deno.test("work tells once why it waits, and of a loss only what it had", async () => {
  const { code, stderr } = await workAt(async (listener) => {
    const alert = Uint8Array.of(0x15, 3, 3, 0, 2, 2, 50); // that of TLS
    for (let i = 0; i < 3; i++) {
      await using peer = new ScriptedPeer(await listener.accept());
      await peer.expect(T.HELLO);
      await peer.send(alert);
    }
    await using peer = new ScriptedPeer(await listener.accept());
    await peer.expect(T.HELLO);
    await peer.say(T.REJECT, 1, "no");
  });
  assertEquals(code, 3);
  const [waiting, refused, ...more] = stderr.split("\n");
  assertMatch(waiting!, /^waiting for .*speak TLS$/);
  assertMatch(refused!, /refused/);
  assertEquals(more, []);
});

Deno.test("work --give-up tells of no loss in the middle of a handshake", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const accepted = listener.accept();
  const { code, stderr } = await runHere(
    ["work", `--connect=:${port}`, "--give-up=1", `${HANDLERS}upper.ts`],
  );
  (await accepted).close();
  listener.close();
  assertEquals(code, 3);
  const [waiting, gaveUp, ...more] = stderr.split("\n");
  assertMatch(waiting!, /^waiting for .*Handshake failed/);
  assertStringIncludes(
    gaveUp!,
    `distchan: gave up after 1 s without 127.0.0.1:${port}: Handshake failed`,
  );
  assertEquals(more, []);
});
