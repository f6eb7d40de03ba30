/**
 * The hour that docs/cli.md has for newcomers, as it is written: install, map,
 * a second machine's worker that joins in mid-run, the page, Ctrl-C, --resume.
 * Nothing is lost, and nothing done twice. Only addresses and ports are others,
 * and what is installed is this repository's.
 */
import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { dirname } from "node:path";
import { stdArgs } from "../tools/std.ts";
import { hasNetns, Netns } from "./chaos/netns.ts";
import { hasProgram } from "./_support/cli.ts";
import { Folder } from "./_support/folder.ts";
import { Process, ROOT } from "./_support/process.ts";
import { until } from "./_support/within.ts";

const PAGE = await Deno.readTextFile(`${ROOT}docs/cli.md`);
const INSTALL =
  "deno install --global -A --name distchan jsr:@distchan/distchan/cli";
const ITEMS = 1000;

const hasShell = ["bash", "od", "seq", "sort"].every(hasProgram);
const hasMachines = hasShell && await hasNetns();
if (!hasMachines) {
  console.log(
    "No second machine: network namespaces take root and `ip netns`. The worker that joins is on this machine instead",
  );
}

/** The commands behind `<!-- the hour: PART -->`. */
function commandsOf(part: string): string {
  const [, commands = ""] =
    PAGE.match(`<!-- the hour: ${part} -->\\s+\`\`\`sh\\n([^]*?)\`\`\``) ?? [];
  assert(commands !== "", `docs/cli.md has no part ${part} of the hour`);
  return commands;
}

function freePorts(): [string, string] {
  using one = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  using other = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return [String(one.addr.port), String(other.addr.port)];
}

/** Runs the hour, the worker that joins being in `netns`, if there is one. */
async function runHour(netns: Netns | null): Promise<void> {
  await using here = await Folder.make();
  await using there = await Folder.make();
  const [port, dashboardPort] = freePorts();
  const dashboard = `http://127.0.0.1:${dashboardPort}/`;
  const env = {
    DENO_INSTALL_ROOT: `${here.path}/deno`,
    PATH: [
      `${here.path}/deno/bin`,
      dirname(Deno.execPath()),
      Deno.env.get("PATH"),
    ].join(":"),
  };
  const bash = (script: string, cwd: string, inside: string[] = []) => {
    const command = [
      ...inside,
      "bash",
      "-euc",
      script.replaceAll("5678", port).replaceAll("8080", dashboardPort)
        .replace("192.0.2.1", netns?.host ?? "127.0.0.1"),
    ];
    return new Process(command[0]!, command.slice(1), { cwd, env });
  };
  const run = async (script: string) => {
    await using process = bash(script, here.path);
    const { code, stdout, stderr } = await process.exit;
    assertEquals(code, 0, stderr);
    return stdout.trim().split("\n").map((line) => line.trim());
  };

  const std = stdArgs().length > 0 ? stdArgs() : [`--config=${ROOT}deno.json`];
  const source = [...std, `${ROOT}cli.ts`].map((arg) => `'${arg}'`).join(" ");
  await run(
    commandsOf("install").replace("jsr:@distchan/distchan/cli", source),
  );
  await run(commandsOf("begin"));
  for (const name of ["secret.txt", "slowly.ts"]) {
    await Deno.copyFile(`${here.path}/${name}`, `${there.path}/${name}`);
  }

  // In the background, as on a terminal: with signals, and a pid.
  await using map = bash(
    `set -m; ${commandsOf("map").trim()} & echo "pid $!"; wait $!`,
    here.path,
  );
  const [, pid] = await map.stdout.line(/^pid (\d+)$/);
  await map.stderr.line(/^dashboard on /);
  const settled = async () => {
    const response = await fetch(`${dashboard}stats.json`);
    const { settled, workers } = await response.json();
    return { settled, workers } as {
      settled: number;
      workers: { name: string; addr: Deno.NetAddr; settled: number }[];
    };
  };
  await until(
    async () => (await settled()).settled >= 50,
    "50 are settled",
    20_000,
  );
  await using worker = bash(
    commandsOf("work"),
    there.path,
    netns === null ? [] : ["ip", "netns", "exec", netns.name],
  );
  const elsewhere = async () =>
    (await settled()).workers.find(({ name }) => !name.startsWith("local-"));
  await until(
    async () => ((await elsewhere())?.settled ?? 0) >= 20,
    "the one elsewhere has settled 20",
    20_000,
  );
  if (netns !== null) {
    // It has come over the cable.
    const prefix = netns.host.slice(0, netns.host.lastIndexOf("."));
    assertStringIncludes((await elsewhere())!.addr.hostname, prefix);
  }

  for (
    const [path, expected] of [
      ["", /<title>.*distchan/],
      ["metrics", /^distchan_queue_depth /m],
      ["healthz", /^open\n$/],
    ] as const
  ) {
    const response = await fetch(dashboard + path);
    assertEquals(response.status, 200);
    assertMatch(await response.text(), expected);
  }

  Deno.kill(Number(pid), "SIGINT");
  const { code, stderr } = await map.exit;
  assertEquals(code, 130, stderr);
  assertStringIncludes(stderr, "--resume goes on");
  const ended = await worker.exit;
  assertEquals(ended.code, 0, ended.stderr);
  assertStringIncludes(ended.stderr, "done: the server has no more work");
  const before = await joblogOf(here);
  assertGreater(before.length, 50);
  assertGreater(ITEMS, before.length);

  const counts = await run(commandsOf("resume"));
  assertEquals(counts, ["1000", "1000", "1000"]);
  const log = await joblogOf(here);
  // What was there is as it was, and each item is there once.
  assertEquals(log.slice(0, before.length), before);
  const seqs = log.map(({ seq }) => seq).toSorted((a, b) => a - b);
  assertEquals(seqs, Array.from({ length: ITEMS }, (_, i) => i + 1));
  for (const { seq, ok, result } of log) {
    assertEquals([ok, result], [true, `done ${seq}`]);
  }
}

async function joblogOf(
  folder: Folder,
): Promise<{ seq: number; ok: boolean; result: string }[]> {
  const text = await Deno.readTextFile(`${folder.path}/log.jsonl`);
  return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
}

Deno.test("README has the command to install that docs/cli.md has", async () => {
  assertEquals(commandsOf("install"), `${INSTALL}\n`);
  const readme = await Deno.readTextFile(`${ROOT}README.md`);
  assertStringIncludes(readme, `\n${INSTALL}\n`);
});

Deno.test({
  name:
    "A newcomer's hour, with a second machine: nothing is lost or done twice (network namespace)",
  ignore: !hasMachines,
  async fn() {
    await using netns = await Netns.make();
    assert(netns !== null);
    await runHour(netns);
  },
});

Deno.test({
  name: "A newcomer's hour on one machine: nothing is lost or done twice",
  ignore: !hasShell || hasMachines,
  fn: () => runHour(null),
});
