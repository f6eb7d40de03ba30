import { assertEquals, assertStringIncludes } from "@std/assert";
import { Authority } from "./_support/certificates.ts";
import { addressOf, HANDLERS } from "./_support/cli.ts";
import { freePort } from "./_support/examples.ts";
import { Folder } from "./_support/folder.ts";
import { type ProcessOptions, ROOT, startDeno } from "./_support/process.ts";

// The examples, each with the permissions of its own command, are in
// examples_test.ts.

Deno.test("permissions: --allow-net=HOST:PORT is enough for all there is, at both ends", async () => {
  const port = freePort();
  const authority = await Authority.create("distchan test authority");
  const net = `--allow-net=127.0.0.1:${port}`;
  const start = (script: string, settings: unknown) =>
    startDeno([net, `tests/testdata/${script}`], {
      stdin: JSON.stringify(settings),
    });
  await using server = start("permissions_server.ts", {
    port,
    ...await authority.issue(),
  });
  await server.stdout.line(/^ready$/);
  await using worker = start("permissions_worker.ts", {
    port,
    caCerts: [authority.cert],
  });
  const [served, worked] = await Promise.all([server.exit, worker.exit]);
  assertEquals(served.stderr, "");
  assertEquals(worked.stderr, "");
  assertEquals(served.stdout, "ready\n[ 1, 4, 9 ]\n");
  assertEquals(worked.stdout, "done\n");
});

/** What threads import of the library; from JSR they need no leave to. */
const LIBRARY = ["client.ts", "codec.ts", "internal", "tools/std_offline"]
  .map((path) => `${ROOT}${path}`);
const std = Deno.env.get("DISTCHAN_STD") ?? "";
if (std.includes("/")) LIBRARY.push(std); // a checkout

Deno.test("permissions: a handler by its URL needs to be read, with all that it imports", async () => {
  const folder = `${ROOT}tests/testdata/permissions/`;
  const files = [`${folder}handler.ts`, `${folder}square.ts`];
  for (
    const [how, library] of [
      ["module", []],
      ["isolate", LIBRARY],
      ["local", LIBRARY],
    ] as const
  ) {
    const run = (read: readonly string[]) => {
      const port = freePort();
      return startDeno([
        `--allow-net=127.0.0.1:${port}`,
        `--allow-read=${read.join()}`,
        "tests/testdata/permissions/main.ts",
      ], { stdin: JSON.stringify({ how, port }) });
    };
    await using enough = run([...files, ...library]);
    const { stdout, stderr } = await enough.exit;
    assertEquals([stdout, stderr], ["9\n", ""], how);
    for (const file of files) {
      const others = files.filter((other) => other !== file);
      await using less = run([...others, ...library]);
      const { stdout, code } = await less.exit;
      assertEquals([stdout, code], [`needs ${file}\n`, 1], how);
    }
  }
});

Deno.test("permissions: a local pool beside TLS needs loopback", async () => {
  const port = freePort();
  const authority = await Authority.create("distchan test authority");
  const folder = `${ROOT}tests/testdata/permissions/`;
  const read = [`${folder}handler.ts`, `${folder}square.ts`, ...LIBRARY];
  const run = (net: string) =>
    startDeno([
      `--allow-net=${net}`,
      `--allow-read=${read.join()}`,
      "tests/testdata/permissions/main.ts",
    ], { stdin: JSON.stringify({ how: "local", port, ...certificate }) });
  const certificate = await authority.issue();
  await using enough = run("127.0.0.1");
  const { stdout, stderr } = await enough.exit;
  assertEquals([stdout, stderr], ["9\n", ""]);
  await using less = run(`127.0.0.1:${port}`);
  assertStringIncludes((await less.exit).stderr, "NotCapable");
});

Deno.test("permissions: a local pool of a server on all addresses needs loopback", async () => {
  const port = freePort();
  const folder = `${ROOT}tests/testdata/permissions/`;
  const read = [`${folder}handler.ts`, `${folder}square.ts`, ...LIBRARY];
  const settings = { how: "local", port, hostname: "0.0.0.0", secret: "s" };
  const run = (net: string) =>
    startDeno([
      `--allow-net=${net}`,
      `--allow-read=${read.join()}`,
      "tests/testdata/permissions/main.ts",
    ], { stdin: JSON.stringify(settings) });
  await using enough = run(`0.0.0.0:${port},127.0.0.1:${port}`);
  const { stdout, stderr } = await enough.exit;
  assertEquals([stdout, stderr], ["9\n", ""]);
  await using less = run(`0.0.0.0:${port}`);
  assertStringIncludes((await less.exit).stderr, "NotCapable");
});

Deno.test("permissions: importing the library asks for none", async () => {
  await using process = startDeno(["mod.ts"]);
  assertEquals(await process.exit, {
    code: 0,
    signal: null,
    stdout: "",
    stderr: "",
  });
});

Deno.test("permissions: another port isn't allowed", async () => {
  const port = freePort();
  await using process = startDeno([
    `--allow-net=127.0.0.1:${port === 65535 ? 1024 : port + 1}`,
    "tests/testdata/permissions_worker.ts",
  ], { stdin: JSON.stringify({ port }) });
  const { code, stderr } = await process.exit;
  assertEquals(code, 1);
  assertStringIncludes(stderr, "NotCapable");
});

const UPPER = `${HANDLERS}upper.ts`;
const LOCAL = "--allow-net=127.0.0.1";

/** Starts the command line with permissions of its own. */
function cli(
  permissions: readonly string[],
  args: readonly string[],
  options: ProcessOptions,
) {
  return startDeno([...permissions, `${ROOT}cli.ts`, ...args], options);
}

Deno.test("permissions: the table of docs/cli.md is enough for map", async () => {
  await using folder = await Folder.make();
  await folder.write("items", "a\nb\n");
  await folder.write("secret", "a secret of this test");
  const [items, joblog, secret] = ["items", "joblog", "secret"].map((name) =>
    `${folder.path}/${name}`
  ) as [string, string, string];
  const module = [UPPER, ...LIBRARY];
  const read = (...files: string[]) => `--allow-read=${files.join()}`;
  const map = ["map", "-k", "--local=1"];
  const cases: [string, string[], string[], ProcessOptions][] = [
    ["a module", [read(...module)], [...map, UPPER], { stdin: "a\nb\n" }],
    [
      "--input",
      [read(items, ...module)],
      [...map, "--input", items, UPPER],
      {},
    ],
    [
      "--joblog",
      [read(joblog, ...module), `--allow-write=${joblog}`],
      [...map, "--joblog", joblog, UPPER],
      { stdin: "a\nb\n" },
    ],
    [
      "--secret-file",
      [read(secret, ...module)],
      [...map, "--secret-file", secret, UPPER],
      { stdin: "a\nb\n" },
    ],
    [
      "DISTCHAN_SECRET",
      [read(...module), "--allow-env=DISTCHAN_SECRET"],
      [...map, UPPER],
      { stdin: "a\nb\n", env: { DISTCHAN_SECRET: "a secret of this test" } },
    ],
    [
      "a command",
      ["--allow-run=echo"],
      [...map, "--", "echo", "{}"],
      { stdin: "A\nB\n" },
    ],
  ];
  for (const [what, permissions, args, options] of cases) {
    await using process = cli([LOCAL, ...permissions], args, options);
    const { code, stdout, stderr } = await process.exit;
    assertEquals([code, stdout, stderr], [0, "A\nB\n", ""], what);
  }
});

Deno.test("permissions: --allow-run=COMMAND is enough to end it", async () => {
  await using process = cli(
    [LOCAL, "--allow-run=yes"],
    ["map", "--local=1", "--max-output=1000", "--", "yes", "{}"],
    { stdin: "a\n" },
  );
  const { code, stderr } = await process.exit;
  assertEquals(code, 1);
  assertStringIncludes(stderr, "printed more than 1000 bytes");
});

Deno.test("permissions: the table of docs/cli.md is enough for work, and its port for map", async () => {
  const port = freePort();
  const net = `--allow-net=127.0.0.1:${port}`;
  await using map = cli([net], ["map", "-k", `--listen=127.0.0.1:${port}`], {
    stdin: "a\nb\n",
  });
  const address = await addressOf(map);
  await using worker = cli([net, `--allow-read=${UPPER}`], [
    "work",
    `--connect=${address}`,
    UPPER,
  ], {});
  const [mapped, worked] = await Promise.all([map.exit, worker.exit]);
  assertEquals([mapped.code, mapped.stdout], [0, "A\nB\n"]);
  assertEquals([worked.code, worked.stdout], [0, ""], worked.stderr);
});
