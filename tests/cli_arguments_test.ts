import {
  assertEquals,
  assertFalse,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import config from "../deno.json" with { type: "json" };
import {
  Arguments,
  parseAddress,
  UsageError,
} from "../internal/cli_arguments.ts";
import { completions, type Shell } from "../internal/cli_completions.ts";
import { commandHelp, generalHelp } from "../internal/cli_help.ts";
import { COMMANDS, SHELLS, STATUSES } from "../internal/cli_spec.ts";
import { hasProgram, runCli, runHere } from "./_support/cli.ts";
import { Folder } from "./_support/folder.ts";

const MAP = COMMANDS.find(({ name }) => name === "map")!;

Deno.test("parseAddress() takes :PORT for this machine", () => {
  for (
    const [text, hostname, port] of [
      [":5678", "127.0.0.1", 5678],
      ["5678", "127.0.0.1", 5678],
      ["example.com:0", "example.com", 0],
      ["0.0.0.0:65535", "0.0.0.0", 65535],
      ["[::1]:80", "::1", 80],
    ] as const
  ) assertEquals(parseAddress(text, "x"), { hostname, port });
  for (const text of ["", ":", "host", "host:", ":65536", "::1:80", "a b:x"]) {
    assertThrows(() => parseAddress(text, "--listen"), UsageError, "--listen");
  }
});

Deno.test("Arguments reads options wherever they stand, up to --", () => {
  const args = new Arguments(MAP, [
    "-kf",
    "jsonl",
    "mod.ts",
    "--local=3",
    "--retries",
    "2",
    "--timeout=.5",
    "--",
    "cmd",
    "-k",
    "--",
    "{}",
  ]);
  assertEquals(args.operands, ["mod.ts"]);
  assertEquals(args.command, ["cmd", "-k", "--", "{}"]);
  assertEquals(args.has("keep-order"), true);
  assertEquals(args.text("format"), "jsonl");
  assertEquals(args.count("local", 3, 3), 3);
  assertEquals(args.ms("timeout"), 500);
  assertEquals(args.ms("joblog"), undefined);
  assertEquals(new Arguments(MAP, []).command, null);
});

Deno.test("the help names every command, option and exit status", () => {
  const general = generalHelp();
  for (const { name, summary } of COMMANDS) {
    assertStringIncludes(general, `  ${name}`);
    assertStringIncludes(general, summary);
  }
  for (const [status] of STATUSES) {
    assertMatch(general, new RegExp(`^ +${status} `, "m"));
  }
  for (const spec of COMMANDS) {
    const help = commandHelp(spec);
    for (const { name, value } of spec.options) {
      assertStringIncludes(help, `--${name}${value ? ` ${value}` : ""}`);
    }
    for (const line of help.split("\n")) {
      const isExample = spec.examples.includes(line.trim());
      assertFalse(line.length > 79 && !isExample, line);
    }
  }
});

Deno.test("commandHelp() breaks lines at 79 columns, and its columns stay in line", () => {
  const words = (count: number) => Array(count).fill("word").join(" ");
  const help = commandHelp({
    name: "x",
    usage: ["distchan x", "distchan x FILE"],
    summary: "does x",
    details: [words(17), "more"],
    options: [
      { name: "all", short: "a", help: "all of it" },
      { name: "size", value: "N", help: words(13) },
    ],
    operands: "none",
    examples: ["distchan x --all"],
  });
  assertEquals(words(16).length, 79);
  assertEquals(help.split("\n"), [
    "distchan x: does x",
    "",
    "Usage: distchan x",
    "       distchan x FILE",
    "",
    words(16),
    "word",
    "",
    "more",
    "",
    "Options:",
    "  -a, --all     all of it",
    `      --size N  ${words(12)}`,
    "                word",
    "",
    "Examples:",
    "  distchan x --all",
    "",
  ]);
});

Deno.test("distchan --help and --version print to standard output", async () => {
  const [help, version, none, unknown] = await Promise.all([
    runCli(["map", "--help"]),
    runCli(["--version"]),
    runCli([]),
    runCli(["frobnicate"]),
  ]);
  assertEquals([help.code, help.stdout, help.stderr], [
    0,
    commandHelp(MAP),
    "",
  ]);
  assertEquals(version.stdout, `distchan ${config.version}\n`);
  assertEquals([none.code, none.stdout, none.stderr], [2, "", generalHelp()]);
  assertEquals([unknown.code, unknown.stdout], [2, ""]);
  assertStringIncludes(unknown.stderr, "there is no command frobnicate");
});

for (const shell of SHELLS) {
  Deno.test({
    name:
      `completions ${shell} prints a script that ${shell} can read (needs it)`,
    ignore: !hasProgram(shell),
    async fn() {
      await using folder = await Folder.make();
      await folder.write("script", completions(shell));
      const { success, stderr } = await new Deno.Command(shell, {
        args: ["-n", `${folder.path}/script`],
      }).output();
      assertEquals([success, new TextDecoder().decode(stderr)], [true, ""]);
    },
  });

  Deno.test(`completions ${shell} has every command and option`, () => {
    const script = completions(shell as Shell);
    for (const { name, options } of COMMANDS) {
      assertStringIncludes(script, name);
      for (const option of options) {
        const flag = shell === "fish"
          ? ` -l ${option.name}`
          : `--${option.name}`;
        assertStringIncludes(script, flag);
      }
    }
  });
}

/** What bash offers behind some words. */
async function bashOffers(...words: string[]): Promise<string[]> {
  await using folder = await Folder.make();
  await folder.write("script", completions("bash"));
  await folder.write("module.ts", "");
  await folder.write("two words.ts", "");
  const { stdout } = await new Deno.Command("bash", {
    args: [
      "-c",
      'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _distchan; printf "%s\\n" "${COMPREPLY[@]}"',
      "bash",
      "distchan",
      ...words,
    ],
    cwd: folder.path,
  }).output();
  return new TextDecoder().decode(stdout).trim().split("\n").toSorted();
}

Deno.test({
  name:
    "completions bash offers commands, options, values and files (needs bash)",
  ignore: !hasProgram("bash"),
  async fn() {
    assertEquals(await bashOffers("ma"), ["map"]);
    assertEquals(await bashOffers("map", "--resu"), [
      "--resume",
      "--resume-failed",
    ]);
    assertEquals(await bashOffers("map", "--format", ""), [
      "jsonl",
      "lines",
      "null",
    ]);
    // As bash takes --format= and --format=j apart.
    assertEquals(await bashOffers("map", "--format", "="), [
      "jsonl",
      "lines",
      "null",
    ]);
    assertEquals(await bashOffers("map", "--format", "=", "j"), ["jsonl"]);
    assertEquals(await bashOffers("work", "--name", "=", "mod"), [""]);
    assertEquals(await bashOffers("work", "mod"), ["module.ts"]);
    assertEquals(await bashOffers("completions", "f"), ["fish"]);
    assertEquals(await bashOffers("map", "--", "mod"), ["module.ts"]);
    for (const before of [["work"], ["map", "--input"], ["map", "--"]]) {
      assertEquals(await bashOffers(...before, "two"), ["two words.ts"]);
    }
  },
});

Deno.test({
  name: "completions zsh leaves a command behind -- to zsh (needs zsh)",
  ignore: !hasProgram("zsh"),
  async fn() {
    await using folder = await Folder.make();
    await folder.write("script", completions("zsh"));
    const { stdout } = await new Deno.Command("zsh", {
      args: [
        "-f",
        "-c",
        `compdef() { }
        _arguments() { print "options of $words" }
        _normal() { print "$CURRENT of $words, sh is $commands[sh]" }
        source ./script
        words=(distchan map --local 2 -- grep x) CURRENT=7 _distchan
        words=(distchan map square.ts --re) CURRENT=4 _distchan`,
      ],
      cwd: folder.path,
    }).output();
    assertMatch(
      new TextDecoder().decode(stdout),
      /^2 of grep x, sh is \/.*\noptions of map square.ts --re\n$/,
    );
  },
});

Deno.test("completions and help say what they don't take", async () => {
  for (
    const [args, reason] of [
      [["completions"], "which shell? Give one of bash, zsh, fish"],
      [["completions", "ksh"], '"ksh" is none of bash, zsh, fish'],
      [["completions", "bash", "zsh"], 'unexpected "zsh" behind bash'],
      [["help", "map", "work"], 'unexpected "work" behind map'],
    ] as const
  ) {
    const { code, stderr } = await runHere(args);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, reason);
  }
});
