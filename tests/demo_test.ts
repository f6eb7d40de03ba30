import {
  assertEquals,
  assertFalse,
  assertGreater,
  assertGreaterOrEqual,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { success } from "./_support/examples.ts";
import { Folder } from "./_support/folder.ts";
import { isAlive, Process, ROOT, startDeno } from "./_support/process.ts";

const RIGHT = "every file has exactly one right checksum";
const RIGHT_OF_REST =
  "every file that could be read, and wasn't changed, has exactly one right checksum";

/** Starts the demo as `deno task demo` does, without its first decisions. */
function startDemo(...args: string[]): Process {
  return startDeno([
    "--allow-read",
    "--allow-net=127.0.0.1",
    `--allow-run=${Deno.execPath()}`,
    "--allow-env=DISTCHAN_STD_ARGS",
    `${ROOT}examples/checksum/demo.ts`,
    ...args,
  ]);
}

/** The process ids of the workers, once all of them are there. */
async function workerPids(demo: Process): Promise<number[]> {
  const pids: number[] = [];
  for (let i = 1; i <= 4; i++) {
    const [, pid] = await demo.stdout.line(/^worker-\d: process (\d+)$/);
    pids.push(Number(pid));
  }
  return pids;
}

for (const files of [1, 2, 5, 300]) {
  Deno.test(`demo proves ${files} files, with a worker killed halfway`, async () => {
    await using folder = await Folder.make();
    for (let i = 0; i < files; i++) {
      await folder.write(`sub ${i % 7}/${i}`, `file ${i}\n`.repeat(i * 10));
    }
    await using demo = startDemo(folder.path);
    const pids = await workerPids(demo);
    const report = await success(demo);
    assertStringIncludes(report, RIGHT);
    assertStringIncludes(
      report,
      `proof: ${files} files, ${files} right, 0 wrong, 0 changed meanwhile, 0 unreadable\n`,
    );
    const [, after = "", held = ""] = report.match(
      /^killed: worker-\d, when (\d+) files were done and it held (\d+)$/m,
    ) ?? [];
    assertGreaterOrEqual(Number(after), Math.min(files / 2, files - 4), report);
    const [, redelivered = ""] = report.match(/^redelivered: (\d+)$/m) ?? [];
    if (Deno.build.os !== "windows") {
      assertGreater(Number(held), 0, report);
      assertGreater(Number(redelivered), 0, report);
    }
    const done = [...report.matchAll(/^worker-\d: (\d+) files, (.*)$/gm)];
    assertEquals(done.reduce((sum, [, n]) => sum + Number(n), 0), files);
    assertEquals(done.map(([, , end]) => end).sort(), [
      "ended with SIGKILL",
      "ended with status 0",
      "ended with status 0",
      "ended with status 0",
    ]);
    assertEquals(pids.filter(isAlive), []);
    assertFalse(report.includes("\r"), "no progress without a terminal");
  });
}

Deno.test("demo finds nothing wrong with an empty folder", async () => {
  await using folder = await Folder.make();
  await using demo = startDemo(folder.path);
  const report = await success(demo);
  assertStringIncludes(report, "proof: 0 files, 0 right, 0 wrong");
  assertFalse(report.includes("killed"), report);
});

Deno.test("demo takes hidden, odd and large files, and no links", async () => {
  await using folder = await Folder.make();
  await folder.write(".hidden/.file", "x");
  await folder.write("comma, space and ünïcödé", "y");
  await folder.write("large", new Uint8Array(9_000_000).fill(7));
  await Deno.symlink(ROOT, `${folder.path}/link`);
  await using demo = startDemo(folder.path);
  assertStringIncludes(await success(demo), "proof: 3 files, 3 right, 0 wrong");
});

Deno.test("demo passes over names that aren't UTF-8, and says so", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  await using folder = await Folder.make();
  await using shell = new Process("sh", ["-c", "echo x >$(printf '\\377')"], {
    cwd: folder.path,
  });
  await success(shell);
  await using demo = startDemo(folder.path);
  const { code, stdout, stderr } = await demo.exit;
  assertStringIncludes(stdout, "proof: 1 files, 0 right, 0 wrong", stderr);
  assertStringIncludes(stdout, "1 unreadable");
  assertStringIncludes(stdout, RIGHT_OF_REST);
  assertStringIncludes(stderr, 'unreadable: "\ufffd"');
  assertEquals(code, 0);
});

Deno.test("demo calls no file wrong that changes meanwhile", async () => {
  await using folder = await Folder.make();
  const names = Array.from({ length: 200 }, (_, i) => `${i}`);
  for (const name of names) await folder.write(name, name);
  await using demo = startDemo(folder.path);
  let running = true;
  demo.exit.finally(() => running = false).catch(() => {});
  for (let i = 0; running; i++) {
    const name = names[i % names.length]!;
    await folder.write(name, `${i}`);
    if (i % 3 === 0) await Deno.remove(`${folder.path}/${name}`);
  }
  assertStringIncludes(await success(demo), "has exactly one right checksum");
});

Deno.test("demo drains on SIGTERM, ends its workers and has status 130", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using folder = await Folder.make();
  await folder.writeSparse(1000);
  await using demo = startDemo(folder.path);
  const pids = await workerPids(demo);
  demo.signal("SIGTERM");
  const { code, stdout, stderr } = await demo.exit;
  assertEquals(code, 130, stderr);
  assertMatch(stderr, /^interrupted after \d+ of 1000 files$/m);
  assertFalse(stdout.includes("FAILED"), stdout);
  assertEquals(pids.filter(isAlive), []);
});

Deno.test("demo fails when no worker is left", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using folder = await Folder.make();
  await folder.writeSparse(1000);
  await using demo = startDemo(folder.path);
  for (const pid of await workerPids(demo)) Deno.kill(pid, "SIGKILL");
  const { code, stderr } = await demo.exit;
  assertEquals(code, 1, stderr);
  assertStringIncludes(stderr, "error: every worker has gone");
});

Deno.test("demo has status 2 for a folder that isn't there, and for wrong arguments", async () => {
  for (
    const [args, message] of [
      [[`${ROOT}nowhere`], `${ROOT}nowhere`],
      [[`${ROOT}deno.json`], "is not a folder"],
      [["--nonsense"], "--nonsense"],
      [[".", "."], "one folder at a time"],
    ] as const
  ) {
    await using demo = startDemo(...args);
    const { code, stdout, stderr } = await demo.exit;
    assertEquals({ code, stdout }, { code: 2, stdout: "" }, stderr);
    assertStringIncludes(stderr, message);
  }
});

Deno.test("demo runs as deno task demo -- DIR", async () => {
  await using folder = await Folder.make();
  await folder.write("file", "x");
  await using demo = new Process(
    Deno.execPath(),
    ["task", "demo", "--", folder.path],
    { cwd: `${ROOT}examples` },
  );
  assertStringIncludes(await success(demo), RIGHT);
});

const script = await new Deno.Command("script", { args: ["--version"] })
  .output().then(({ success }) => success, () => false);

Deno.test(
  "demo shows its progress on a terminal (needs script, of util-linux)",
  {
    ignore: !script,
  },
  async () => {
    await using folder = await Folder.make();
    for (let i = 0; i < 20; i++) await folder.write(`${i}`, `${i}`);
    await using demo = new Process("script", [
      "--quiet",
      "--return",
      "--command",
      `'${Deno.execPath()}' task demo -- '${folder.path}'`,
      "/dev/null",
    ]);
    const screen = await success(demo);
    assertMatch(screen, /\r█{20} 100 % {2}20\/20 files {2}\d+\/s/);
    assertStringIncludes(screen, RIGHT);
  },
);
