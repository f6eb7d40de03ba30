import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { parseAddress } from "../internal/cli_arguments.ts";
import {
  formatResult,
  print,
  printable,
  printError,
} from "../internal/cli_output.ts";
import { Console } from "../internal/cli_progress.ts";
import { Reporter } from "../internal/cli_reporter.ts";
import { stdArgs } from "../tools/std.ts";
import {
  addressOf,
  HANDLERS,
  runCli,
  runHere,
  seq,
  startCli,
} from "./_support/cli.ts";
import { Authority } from "./_support/certificates.ts";
import { Folder } from "./_support/folder.ts";
import { ROOT } from "./_support/process.ts";
import { until } from "./_support/within.ts";

const UPPER = `${HANDLERS}upper.ts`;
const HALF = `${HANDLERS}half.ts`;
const MOODY = `${HANDLERS}moody.ts`;

Deno.test("map prints the results of a module, and nothing else", async () => {
  const { code, lines, stderr } = await runCli(["map", "--local=2", UPPER], {
    stdin: "b\na\nc",
  });
  assertEquals([code, lines.toSorted(), stderr], [0, ["A", "B", "C"], ""]);
});

Deno.test("map -k keeps the order", async () => {
  const { code, stdout } = await runCli(["map", "-k", "--local", "2", UPPER], {
    stdin: seq(1, 5000),
  });
  assertEquals([code, stdout], [0, seq(1, 5000)]);
});

Deno.test("map --input - is standard input", async () => {
  const { code, stdout } = await runCli(
    ["map", "-i", "-", "--local=1", UPPER],
    {
      stdin: "a\n",
    },
  );
  assertEquals([code, stdout], [0, "A\n"]);
});

Deno.test("map --input reads a file; an empty one has no results", async () => {
  await using folder = await Folder.make();
  await folder.write("items", "");
  const { code, stdout, stderr } = await runCli(
    ["map", "--input", `${folder.path}/items`, "--local", "1", "--", "false"],
  );
  assertEquals([code, stdout, stderr], [0, "", ""]);
});

Deno.test("map --format=null has \\0 at the ends of items and results", async () => {
  const { code, stdout } = await runCli(
    ["map", "-k", "--format=null", "--local=1", UPPER],
    { stdin: "a\nb\0c" },
  );
  assertEquals([code, stdout], [0, "A\nB\0C\0"]);
});

Deno.test("formatResult() has bytes as they are, whatever holds them", () => {
  const bytes = Uint8Array.of(0, 255);
  assertEquals(formatResult(bytes, "lines"), bytes);
  assertEquals(formatResult(bytes.buffer, "lines"), bytes);
  assertEquals(formatResult(bytes.buffer, "jsonl"), '"AP8="');
});

Deno.test("map --format=jsonl has JSON on both sides", async () => {
  const { code, lines, stderr } = await runCli(
    ["map", "-kf", "jsonl", "--local=1", MOODY],
    { stdin: '{"a":[1]}\n"object"\n{\n"nothing"\n"x\\ny"\n' },
  );
  assertEquals(code, 1);
  assertEquals(lines, [
    '{"a":[1]}',
    '{"n":"1","map":{"a":[1,2]}}',
    "null",
    '"x\\ny"',
  ]);
  assertMatch(stderr, /^distchan: item 3 \(\{\) failed: .*JSON.*\n$/);
});

Deno.test("map tells failures on standard error, with status 1 at the end", async () => {
  const { code, lines, stderr } = await runCli([
    "map",
    "-k",
    "--local=1",
    MOODY,
  ], {
    stdin: "a\nthrow\nnothing\nobject\nsecret\n",
    env: { DISTCHAN_SECRET: "not for handlers" },
  });
  assertEquals(code, 1);
  assertEquals(lines, ["a", '{"n":"1","map":{"a":[1,2]}}', "none"]);
  assertEquals(stderr, "distchan: item 2 (throw) failed: not that one\n");
});

Deno.test("map tells what is behind a failure, in the joblog as well", async () => {
  await using folder = await Folder.make();
  const log = `${folder.path}/log`;
  const { code, stderr } = await runCli(
    ["map", "--local=1", "--joblog", log, MOODY],
    { stdin: "caused\n" },
  );
  assertEquals(code, 1);
  assertEquals(
    stderr,
    "distchan: item 1 (caused) failed: fetch failed: no route: refused\n",
  );
  const { error } = JSON.parse(await Deno.readTextFile(log));
  assertEquals(error, {
    name: "TypeError",
    message: "fetch failed",
    cause: "no route: refused",
    attempts: 1,
  });
});

Deno.test("map tells a failure so that it looks like no other, terminal or not", async () => {
  const said = "a\\033[2Jb\\rc\\ndistchan: d";
  const { stderr } = await runCli(
    ["map", "--local=1", "--", "sh", "-c", `printf '${said}' >&2; exit 1`],
    { stdin: "x\n" },
  );
  assertStringIncludes(
    stderr,
    "exit status 1: a\ufffd[2Jb\ufffdc\n  distchan: d\n",
  );
});

Deno.test("printable() leaves out colors, and shows other escapes", () => {
  assertEquals(
    printable("at \x1b[0m\x1b[36mfile:///a.ts\x1b[0m:\x1b[33m1\x1b[0m"),
    "at file:///a.ts:1",
  );
  assertEquals(printable("\x1b[2J\x07"), "\ufffd[2J\ufffd");
  assertEquals(printable("\u202e0 failed\u2066"), "\ufffd0 failed\ufffd");
});

Deno.test("map --retries tries again what failed", async () => {
  const { code, lines, stderr } = await runCli(
    ["map", "--local=1", "--retries=1", MOODY],
    { stdin: "twice\n" },
  );
  assertEquals([code, lines, stderr], [0, ["twice"], ""]);
});

Deno.test("map --timeout ends a handler that never returns", async () => {
  const { code, lines, stderr } = await runCli(
    ["map", "--local=1", "--timeout=0.5", MOODY],
    { stdin: "spin\na\n" },
  );
  assertEquals([code, lines], [1, ["a"]]);
  assertStringIncludes(stderr, "item 1 (spin) failed: ");
  assertStringIncludes(stderr, "500 ms");
});

Deno.test("map starts local workers again that an item ends", async () => {
  const { code, lines, stderr } = await runCli(["map", "--local=1", MOODY], {
    stdin: "exit\na\n",
  });
  assertEquals([code, lines], [1, ["a"]]);
  assertStringIncludes(stderr, "item 1 (exit) failed: Item is poison");
  assertMatch(stderr, /^distchan: local-1 crashed: Error: .* exit code 7$/m);
});

Deno.test("map runs a command for every item, without a shell", async () => {
  const nasty = ["$(exit 3)", "a  b", "'\"`;|&", "-n", "{}", "$HOME", "\\n"];
  const { code, lines, stderr } = await runCli(
    ["map", "-k", "--local=2", "--", "printf", "<%s>[%s]", "{}", "x{}{}"],
    { stdin: nasty.join("\n") },
  );
  assertEquals([code, stderr], [0, ""]);
  assertEquals(lines, nasty.map((item) => `<${item}>[x${item}${item}]`));
});

Deno.test("map gives a command without {} the item on standard input", async () => {
  const { lines } = await runCli(["map", "-k", "--local=1", "--", "wc", "-c"], {
    stdin: "abc\n\n",
  });
  assertEquals(lines.map((line) => line.trim()), ["3", "0"]);
});

Deno.test("map fails an item with its command's status and standard error", async () => {
  const { code, lines, stderr } = await runCli(
    ["map", "-k", "--local=1", "--", "sh", "-c"].concat(
      'case $0 in 2) echo out; echo "bad $0" >&2; exit 4;; 3) kill -9 $$;; 4) exit 5;; esac; echo ok',
      "{}",
    ),
    { stdin: seq(1, 5) },
  );
  assertEquals([code, lines], [1, ["ok", "ok"]]);
  assertEquals(stderr.split("\n"), [
    "distchan: item 2 (2) failed: exit status 4: bad 2",
    "distchan: item 3 (3) failed: ended by SIGKILL",
    "distchan: item 4 (4) failed: exit status 5",
    "",
  ]);
});

Deno.test("map --listen: workers join and die meanwhile, nothing is lost", async () => {
  await using map = startCli(["map", "--listen=:0"], { stdin: seq(1, 150) });
  const address = await addressOf(map);
  const work = ["work", `--connect=${address}`, "--give-up=20"];
  await using lost = startCli([...work, HALF]); // it can't do all of it
  await lost.stderr.line(/^connected to /);
  await map.stdout.line(/^5$/);
  lost.signal("SIGKILL");
  await using other = startCli([...work, "-j", "8", "--", "echo", "{}"]);
  const { code, stdout, stderr } = await map.exit;
  assertEquals(code, 0, stderr);
  const results = stdout.split("\n").slice(0, -1).map(Number);
  assertEquals(
    results.toSorted((a, b) => a - b),
    Array.from({ length: 150 }, (_, i) => i + 1),
  );
  const { code: workCode, stderr: told } = await other.exit;
  assertEquals(workCode, 0, told);
  assertStringIncludes(told, "done: the server has no more work");
});

Deno.test("map drains at the first SIGINT; --resume does the rest", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const begun = `${folder.path}/begun`, go = `${folder.path}/go`;
  const command =
    `if test $0 -ge 20; then : > ${begun}; until test -e ${go}; do sleep 0.05; done; fi; echo $0`;
  const args = (...more: string[]) =>
    ["map", "--local=2", "--joblog", path, ...more, "--", "sh", "-c"]
      .concat(command, "{}");
  await using map = startCli(args(), { stdin: "open" });
  await map.write(seq(1, 120)); // and no end
  await until(() => folder.has("begun"), "20 has begun", 20_000);
  map.signal("SIGINT");
  await map.stderr.line(/^stopping: /);
  await folder.write("go", ""); // what is under way can be finished
  const { code, stdout, stderr } = await map.exit;
  assertEquals(code, 130, stderr);
  // How many more the input has isn't known: it was never read to its end.
  assertMatch(
    stderr,
    /^stopped with \d+ items? settled, others not; --resume goes on$/m,
  );
  const first = stdout.split("\n").slice(0, -1);
  assert(first.some((n) => Number(n) >= 20), "what was begun is finished");
  const log = await Deno.readTextFile(path);
  assertEquals(
    log.split("\n").slice(0, -1).map((line) => JSON.parse(line).result).sort(),
    first.toSorted(),
  );
  assertGreater(120, first.length);
  const rest = await runCli(args("--resume"), { stdin: seq(1, 120) });
  assertEquals(rest.code, 0, rest.stderr);
  assertEquals(
    [...first, ...rest.lines].map(Number).toSorted((a, b) => a - b),
    Array.from({ length: 120 }, (_, i) => i + 1),
  );
});

Deno.test("map waits for commands at the first SIGINT, and ends them at the second", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  await using map = startCli(
    ["map", "--local=2", "--joblog", path, "--", "sh", "-c"].concat(
      `if test $0 = 3; then : > ${folder.path}/begun; exec sleep 100; fi; echo $0`,
      "{}",
    ),
    { stdin: "1\n2\n3\n" },
  );
  for (const _ of [1, 2]) await map.stdout.line(/^[12]$/);
  await until(() => folder.has("begun"), "3 has begun", 20_000);
  map.signal("SIGINT");
  await map.stderr.line(/^stopping: /);
  map.signal("SIGINT");
  const { code, stdout } = await map.exit;
  assertEquals(code, 130);
  assertEquals(stdout.split("\n").toSorted(), ["", "1", "2"]);
  assertEquals((await Deno.readTextFile(path)).split("\n").length, 3);
});

Deno.test("map counts no command as failed that the same SIGTERM ended", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  // As `timeout` and systemd do it, and the command is the first to end.
  await using map = startCli(
    ["map", "--local=1", "--joblog", path, "--", "sh", "-c"].concat(
      "test $0 = 1 && exit; (sleep 0.05; kill -TERM $PPID) > /dev/null 2>&1 & kill -TERM $$",
      "{}",
    ),
    { stdin: "1\n2\n3\n" },
  );
  const { code, stderr } = await map.exit;
  assertEquals(code, 143, stderr);
  assertMatch(await Deno.readTextFile(path), /^\{"seq":1,.*\}\n$/);
});

Deno.test("map ends with 143 at SIGTERM, and at once without workers", async () => {
  await using map = startCli(["map", "--listen=:0"], { stdin: "a\n" });
  await addressOf(map);
  map.signal("SIGTERM");
  const { code, stderr } = await map.exit;
  assertEquals(code, 143);
  assertMatch(stderr, /^stopped with 0 items settled, (1|others) not/m);
});

Deno.test("map tells of no connection that its own end has refused", async () => {
  await using map = startCli(["map", "--listen=:0"], { stdin: "a\n" });
  const { hostname, port } = parseAddress(await addressOf(map), "--listen");
  using _conn = await Deno.connect({ hostname, port });
  map.signal("SIGTERM");
  const { code, stderr } = await map.exit;
  assertEquals(code, 143);
  assertMatch(stderr, /^stopping: .*\nstopped with .*$/m);
});

Deno.test("map ends with 141 when nobody reads its output", async () => {
  const { code, stdout } = await runPiped(UPPER);
  assertEquals([code, stdout], ["141", "1\n2"]);
});

/** `map` whose output goes to `head -2`, and its status. */
async function runPiped(
  handler: string,
): Promise<{ code: string; stdout: string }> {
  await using folder = await Folder.make();
  await folder.write("items", seq(1, 200_000));
  const { stdout } = await new Deno.Command("sh", {
    args: [
      "-c",
      '{ "$@"; echo $? > "$0"; } | head -2',
      `${folder.path}/status`,
      Deno.execPath(),
      "run",
      "-qA",
      "--no-check",
      ...stdArgs(),
      `${ROOT}cli.ts`,
      "map",
      "-k",
      "--local=1",
      `--input=${folder.path}/items`,
      handler,
    ],
  }).output();
  const status = await Deno.readTextFile(`${folder.path}/status`);
  return {
    code: status.trim(),
    stdout: new TextDecoder().decode(stdout).trim(),
  };
}

Deno.test("map --dashboard has the page, and what top reads", async () => {
  await using map = startCli(
    ["map", "--listen=:0", "--dashboard=:0", "--local=1", UPPER],
    { stdin: "open" },
  );
  await addressOf(map);
  const [, url = ""] = await map.stderr.line(/^dashboard on (.*)$/);
  await map.write("a\n");
  await map.stdout.line(/^A$/);
  const health = await fetch(`${url}healthz`);
  assertEquals([health.status, await health.text()], [200, "open\n"]);
  const top = await runCli(["top", new URL(url).host]);
  assertEquals(top.code, 0, top.stderr);
  assertMatch(top.stdout, /^1 worker .* 1 settled /);
  assertMatch(top.stdout, /^local-1 +active /m);
  await map.closeStdin();
  assertEquals((await map.exit).code, 0);
});

Deno.test("map and work take the secret from a variable or a file", async () => {
  await using folder = await Folder.make();
  await folder.write("secret", "\ufeffs3cret\r\n"); // as on Windows
  await folder.write("wrong", "guess\n");
  await using map = startCli(["map", "--listen=0.0.0.0:0"], {
    stdin: "a\n",
    env: { DISTCHAN_SECRET: "s3cret" },
  });
  const port = (await addressOf(map)).split(":").at(-1);
  const work = (file: string) =>
    runCli(["work", `--connect=:${port}`, "--secret-file"].concat(
      `${folder.path}/${file}`,
      ["--", "sh", "-c", "echo $0 ${DISTCHAN_SECRET-none}", "{}"],
    ));
  const wrong = await work("wrong");
  assertEquals(wrong.code, 3);
  assertStringIncludes(wrong.stderr, "refused: ");
  const right = await work("secret");
  assertEquals(right.code, 0, right.stderr);
  const { code, stdout, stderr } = await map.exit;
  assertEquals([code, stdout], [0, "a none\n"]);
  assertMatch(stderr, /^distchan: rejected a connection from .* \(auth\): /m);
});

Deno.test("a secret that isn't text is refused, and not shown", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/secret`;
  await Deno.writeFile(path, Uint8Array.of(0x73, 0x33, 0x63, 0x72, 0xff));
  const expected = "isn't UTF-8, expected text: random bytes in hex or Base64";
  const file = await runHere(["work", "--connect=:1", "--secret-file", path]);
  assertEquals(file, {
    code: 2,
    stderr: `distchan: --secret-file ${expected}`,
  });
  // U+FFFD is as good as any other character.
  await Deno.writeTextFile(path, "s3cr\ufffd");
  const good = await runHere(["work", "--connect=:1", "--secret-file", path]);
  assertStringIncludes(good.stderr, "what is to be run?");
});

Deno.test({
  name: "a secret in a variable that isn't text is refused, and not shown",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const { code, stderr } = await new Deno.Command("sh", {
      args: [
        ...["-c", 'DISTCHAN_SECRET=$(printf "s3cr\\377") exec "$0" "$@"'],
        ...[Deno.execPath(), "run", "-qA", "--no-check", ...stdArgs()],
        ...[`${ROOT}cli.ts`, "work", "--connect=:1"],
      ],
      stderr: "piped",
    }).output();
    assertEquals(
      new TextDecoder().decode(stderr),
      "distchan: DISTCHAN_SECRET isn't UTF-8, expected text: random bytes in hex or Base64\n",
    );
    assertEquals(code, 2);
  },
});

Deno.test("map and work speak TLS, with a certificate of one's own", async () => {
  await using folder = await Folder.make();
  const authority = await Authority.create("distchan test authority");
  const { cert, key } = await authority.issue();
  await folder.write("ca.pem", authority.cert);
  await folder.write("cert.pem", cert);
  await folder.write("key.pem", key);
  const path = (name: string) => `${folder.path}/${name}.pem`;
  await using map = startCli(
    ["map", "--listen=0.0.0.0:0", `--cert=${path("cert")}`]
      .concat(`--key=${path("key")}`),
    { stdin: "a\n" },
  );
  const port = (await addressOf(map)).split(":").at(-1);
  const work = (...options: string[]) =>
    runCli(["work", `--connect=:${port}`, ...options, "--", "echo", "{}"]);
  const stranger = await work("--tls");
  assertEquals(stranger.code, 3);
  assertStringIncludes(stranger.stderr, "certificate");
  assertEquals((await work(`--ca=${path("ca")}`)).code, 0);
  const { code, stdout } = await map.exit;
  assertEquals([code, stdout], [0, "a\n"]);
});

Deno.test("map --local works beside TLS and a secret, whatever the certificate says", async () => {
  await using folder = await Folder.make();
  const authority = await Authority.create("distchan test authority");
  const { cert, key } = await authority.issue("pool.example.org");
  const options = [
    "--listen=0.0.0.0:0",
    `--cert=${await folder.write("cert.pem", cert)}`,
    `--key=${await folder.write("key.pem", key)}`,
    `--secret-file=${await folder.write("secret", "s3cret")}`,
    "--local=2",
  ];
  for (
    const [how, items, expected] of [
      [[UPPER], "a\nb\n", ["A", "B"]],
      [["--isolate", UPPER], "a\nb\n", ["A", "B"]],
      [["--", "echo", "<{}>"], "a\nb\n", ["<a>", "<b>"]],
    ] as const
  ) {
    const { code, lines, stderr } = await runCli(
      ["map", "-kq", ...options, ...how],
      { stdin: items },
    );
    assertEquals([code, lines, stderr], [0, [...expected], ""]);
  }
});

Deno.test("map --dashboard has TLS where other machines can see it", async () => {
  await using folder = await Folder.make();
  const authority = await Authority.create("distchan test authority");
  const { cert, key } = await authority.issue();
  const ca = await folder.write("ca.pem", authority.cert);
  const tls = [
    `--cert=${await folder.write("cert.pem", cert)}`,
    `--key=${await folder.write("key.pem", key)}`,
  ];
  for (const hostname of ["127.0.0.1", "0.0.0.0"]) {
    await using map = startCli(
      ["map", "--listen=:0", `--dashboard=${hostname}:0`, ...tls],
      { stdin: "open", env: { DISTCHAN_SECRET: "s3cret" } },
    );
    const [, url = ""] = await map.stderr.line(/^dashboard on (.*)$/);
    const { protocol, port } = new URL(url);
    const isLocal = hostname === "127.0.0.1";
    assertEquals(protocol, isLocal ? "http:" : "https:");
    const top = await runCli(
      isLocal ? ["top", url] : ["top", `--ca=${ca}`, `:${port}`],
      { env: { DISTCHAN_SECRET: "s3cret" } },
    );
    assertEquals(top.code, 0, top.stderr);
    await map.closeStdin();
    assertEquals((await map.exit).code, 0);
  }
});

Deno.test("map refuses command lines that make no sense", async () => {
  await using folder = await Folder.make();
  const authority = await Authority.create("A test's authority");
  const cert = await folder.write("cert.pem", authority.cert);
  const { key } = await authority.issue();
  const anothers = await folder.write("key.pem", key);
  const empty = await folder.write("empty", "\n");
  for (
    const [args, reason] of [
      [[], "who is to do the work?"],
      [["--listen=0.0.0.0:0"], "open to other machines"],
      [["--dashboard=0.0.0.0:0", UPPER], "DISTCHAN_SECRET), or --insecure"],
      [["--listen=nowhere"], "expected HOST:PORT"],
      [["--local=2"], "--local needs"],
      [["--local=x", UPPER], "expected a whole number"],
      [["--local=1.5", UPPER], "expected a whole number"],
      [["--local=1025", UPPER], "expected a whole number from 0 to 1024"],
      [["--max-output=0", UPPER], "expected a whole number from 1 to"],
      [["--local"], "--local needs a value: N"],
      [["-k=1", UPPER], "no option -="],
      [["--keep-order=no", UPPER], "--keep-order takes no value"],
      [["--format=xml", UPPER], "expected lines, jsonl, null"],
      [["--resume", UPPER], "--resume needs the --joblog"],
      [["--resume-failed", UPPER], "--resume-failed needs the --joblog"],
      [["--local=0", UPPER], "--local is 0 and there is no --listen"],
      [["--isolate", "--", "echo"], "--isolate is for workers"],
      [["--timeout=-1", UPPER], "expected seconds above 0"],
      [["--timeout=0", UPPER], "expected seconds above 0"],
      [["--timeout=1e3", UPPER], "expected seconds above 0"],
      [["--timeout=2000001", UPPER], "above 0, up to 2000000; see"],
      [["--timeout=never", UPPER], "expected seconds above 0"],
      [["--frobnicate", UPPER], "there is no option --frobnicate"],
      [[UPPER, "--", "echo"], "expected one of them"],
      [[UPPER, MOODY], "2 modules"],
      [["--"], "which command?"],
      [["http://["], "http://[ is no URL of a module"],
      [["--", "{}"], "can't be the command itself"],
      [
        ["--", "no-such-program", "{}"],
        "there is no command no-such-program",
      ],
      [["--", folder.path], `there is no command ${folder.path}`],
      [["--", empty], `there is no command ${empty}`], // nobody may run it
      [["--input=/no/such/file", UPPER], "can't read --input"],
      [["--input=.", UPPER], "can't read --input .: it is a directory"],
      [["--secret-file=/no/such/file", UPPER], "can't read --secret-file"],
      [[`--secret-file=${empty}`, UPPER], "--secret-file is empty"],
      [["--cert=/no/such/file", UPPER], "can't read --cert"],
      [[`--cert=${UPPER}`, UPPER], "upper.ts has no certificate, expected PEM"],
      [
        [`--key=${UPPER}`, UPPER],
        "private key, expected PEM without a passphrase",
      ],
      [[`--cert=${cert}`, UPPER], "expected both, or none"],
      [[`--cert=${cert}`, `--key=${anothers}`, UPPER], "cert and key: keys"],
    ] as const
  ) {
    const { code, stderr } = await runHere(["map", ...args]);
    assertEquals(code, 2, args.join(" "));
    assertStringIncludes(stderr, reason);
  }
});

Deno.test("map refuses a module that can't be used", async () => {
  const runs = await Promise.all(
    ["no_function.ts", "not_there.ts"].map((module) =>
      runCli(["map", "--local=2", `${HANDLERS}${module}`], { stdin: "a\n" })
    ),
  );
  for (const { code, stderr } of runs) {
    assertEquals(code, 2);
    assertMatch(stderr, /^distchan: Cannot load the handler .*\n$/);
  }
});

Deno.test("map can't listen where somebody does", async () => {
  using other = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { code, stderr } = await runCli(
    ["map", `--listen=:${other.addr.port}`],
  );
  assertEquals(code, 3);
  assert(stderr.startsWith("distchan: can't listen on 127.0.0.1:"), stderr);
});

Deno.test("printError() waits where its pipe is full and non-blocking, and for nobody who isn't there", () => {
  const { writeSync } = Deno.stderr;
  let text = "", calls = 0, isThere = true;
  Deno.stderr.writeSync = (bytes) => {
    if (!isThere) throw new Deno.errors.BrokenPipe("nobody reads it");
    if (++calls % 2 === 1) throw new Deno.errors.WouldBlock("it is full");
    const part = bytes.subarray(0, 7);
    text += new TextDecoder().decode(part);
    return part.length;
  };
  try {
    printError("distchan: item 1 (a) failed\n");
    isThere = false;
    printError("nor this\n");
  } finally {
    Deno.stderr.writeSync = writeSync;
  }
  assertEquals(text, "distchan: item 1 (a) failed\n");
});

Deno.test("Reporter waits where standard output is full and non-blocking, as print() does", async () => {
  const { write, writeSync } = Deno.stdout;
  let text = "", calls = 0;
  Deno.stdout.writeSync = (bytes) => {
    if (++calls % 2 === 1) throw new Deno.errors.WouldBlock("it is full");
    const part = bytes.subarray(0, 7);
    text += new TextDecoder().decode(part);
    return part.length;
  };
  Deno.stdout.write = (bytes) => {
    try {
      return Promise.resolve(Deno.stdout.writeSync(bytes));
    } catch (error) {
      return Promise.reject(error);
    }
  };
  try {
    print("a table\n");
    using console = new Console(() => {
      throw new Error("there is no bar");
    }, true);
    const reporter = new Reporter({ joblog: null, format: "lines", console });
    reporter.add({ seq: 1, text: "a" }, { result: "the first result" });
    reporter.add({ seq: 2, text: "b" }, { result: "the second" });
    await reporter.finish();
  } finally {
    Deno.stdout.write = write;
    Deno.stdout.writeSync = writeSync;
  }
  assertEquals(text, "a table\nthe first result\nthe second\n");
});
