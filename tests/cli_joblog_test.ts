import {
  assert,
  assertEquals,
  assertFalse,
  assertGreater,
  assertLess,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { UsageError } from "../internal/cli_arguments.ts";
import { formatEntry, Joblog } from "../internal/cli_joblog.ts";
import { excerpt, printable } from "../internal/cli_output.ts";
import { stdArgs } from "../tools/std.ts";
import { HANDLERS, hasProgram, runCli, seq, startCli } from "./_support/cli.ts";
import { Folder } from "./_support/folder.ts";
import { Process, ROOT } from "./_support/process.ts";
import { seeded } from "./_support/rng.ts";
import { within } from "./_support/within.ts";

const RESUME = { resume: true, resumeFailed: false };
const failure = { name: "Error", message: "no", attempts: 2 };

interface Entry {
  seq: number;
  ok: boolean;
  result?: unknown;
  error?: typeof failure;
}

async function entriesOf(path: string): Promise<Entry[]> {
  const text = await Deno.readTextFile(path);
  assert(text === "" || text.endsWith("\n"), "the last line is whole");
  return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
}

/** A joblog of three items, the second failed. */
async function threeEntries(): Promise<string> {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  {
    using log = await Joblog.open(path, { ...RESUME, resume: false });
    await log.write(formatEntry({ seq: 1, text: "a" }, { result: "A" }));
    await log.write(
      formatEntry({ seq: 2, text: "b" }, { failure }) +
        formatEntry({ seq: 3, text: "c" }, { result: undefined }),
    );
  }
  return await Deno.readTextFile(path);
}

Deno.test("Joblog knows what is settled", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  await folder.write("log", await threeEntries());
  for (const resumeFailed of [false, true]) {
    using log = await Joblog.open(path, { resume: true, resumeFailed });
    assertEquals(
      ["a", "b", "c", "d"].map((text, i) => log.has({ seq: i + 1, text })),
      [true, !resumeFailed, true, false],
    );
    assertEquals(log.failedBefore, resumeFailed ? 0 : 1);
  }
  const entries = await entriesOf(path);
  assertEquals(entries.map(({ ok }) => ok), [true, false, true]);
  assertEquals(entries.map(({ result }) => result), ["A", undefined, null]);
  assertEquals(entries[1]!.error, failure);
});

Deno.test("Joblog knows what is settled where another tool wrote its entries anew", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const lines = (await threeEntries()).split("\n").slice(0, -1);
  for (const space of [", ", ",\t"]) {
    const again = lines.map((line) => line.replaceAll('",', `"${space}`));
    await folder.write("log", again.join("\r\n") + "\n");
    using log = await Joblog.open(path, RESUME);
    assertEquals(
      ["a", "b", "c", "d"].map((text, i) => log.has({ seq: i + 1, text })),
      [true, true, true, false],
    );
    assertEquals(log.failedBefore, 1);
  }
});

Deno.test("Joblog cuts off a last line that has a hole in it", async () => {
  await using folder = await Folder.make();
  const whole = await threeEntries();
  const entry = formatEntry({ seq: 4, text: "d" }, { result: "x".repeat(99) });
  await folder.write("log", whole + entry.replace(/x{9}/, "\0".repeat(9)));
  using log = await Joblog.open(`${folder.path}/log`, RESUME);
  assertEquals(log.has({ seq: 4, text: "d" }), false);
  assertEquals(await Deno.readTextFile(`${folder.path}/log`), whole);
});

Deno.test("Joblog takes the last entry of an item", async () => {
  await using folder = await Folder.make();
  await folder.write(
    "log",
    await threeEntries() +
      formatEntry({ seq: 2, text: "b" }, { result: "at last" }),
  );
  using log = await Joblog.open(`${folder.path}/log`, RESUME);
  assertEquals(log.failedBefore, 0);
});

Deno.test("Joblog tells items apart that are far from each other", async () => {
  await using folder = await Folder.make();
  const some = [1, 65_535, 65_536, 131_072, 2 ** 40, 999_999_999_999_999];
  const entries = some.map((seq, i) =>
    formatEntry({ seq, text: `${seq}` }, i === 2 ? { failure } : { result: i })
  );
  await folder.write("log", entries.join(""));
  using log = await Joblog.open(`${folder.path}/log`, RESUME);
  for (const seq of some) {
    assert(log.has({ seq, text: `${seq}` }), `${seq}`);
    if (seq !== 65_535) assertFalse(log.has({ seq: seq + 1, text: "" }));
    assertThrows(() => log.has({ seq, text: "another" }), UsageError);
  }
  assertEquals(log.failedBefore, 1);
});

Deno.test("Joblog cuts off a torn last line, wherever it is torn", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const text = await threeEntries();
  const whole = text.slice(0, text.lastIndexOf("\n", text.length - 2) + 1);
  for (let length = whole.length; length < text.length; length += 9) {
    await folder.write("log", text.slice(0, length));
    {
      using log = await Joblog.open(path, RESUME);
      assertEquals(log.has({ seq: 3, text: "c" }), false);
      await log.write(formatEntry({ seq: 3, text: "c" }, { result: "C" }));
    }
    assertEquals((await entriesOf(path)).map(({ seq }) => seq), [1, 2, 3]);
  }
  // What a power cut may leave.
  for (const junk of ["\0\0\0\0", "\0\0\n", text.slice(-20, -5) + "\n"]) {
    await folder.write("log", whole + junk);
    (await Joblog.open(path, RESUME))[Symbol.dispose]();
    assertEquals(await Deno.readTextFile(path), whole);
  }
});

Deno.test("Joblog refuses what isn't its own", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const text = await threeEntries();
  const open = (resume = true) =>
    Joblog.open(path, { resume, resumeFailed: false });
  for (
    const [content, reason] of [
      ["important\nnotes\n", "isn't a joblog"],
      ["one line of notes\n", "isn't a joblog"],
      ["notes without an end", "isn't a joblog"],
      [text.replaceAll(/"seq":(\d)/g, '"seq":"$1"'), "isn't a joblog"],
      [`${text}what?\n${text}`, "line 4 of"],
    ] as const
  ) {
    await folder.write("log", content);
    await assertRejects(() => open(), UsageError, reason);
    assertEquals(await Deno.readTextFile(path), content);
  }
  await folder.write("log", text);
  await assertRejects(() => open(false), UsageError, "--resume goes on");
  using log = await open();
  const { message: why } = await assertRejects(() => open(), UsageError);
  assertEquals(why, `the joblog ${path} is in use by another process`);
  let message = "";
  try {
    log.has({ seq: 2, text: "another" });
  } catch (error) {
    message = (error as Error).message;
  }
  assertStringIncludes(message, "item 2 isn't the one in the joblog");
});

Deno.test("Joblog looks through a long line once", async () => {
  await using folder = await Folder.make();
  const path = await folder.write("log", '{"a": "');
  const size = 4 * 1024 * 1024; // in many parts
  await Deno.truncate(path, size);
  const { split } = String.prototype;
  let looked = 0;
  String.prototype.split = function (this: string, ...args: unknown[]) {
    looked += this.length;
    return Reflect.apply(split, this, args);
  };
  try {
    await assertRejects(
      () => Joblog.open(path, RESUME),
      UsageError,
      "isn't a joblog",
    );
  } finally {
    String.prototype.split = split;
  }
  assertLess(looked, 2 * size);
});

Deno.test("Joblog refuses a pipe, which has no end to be read to", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/pipe`;
  const { success } = await new Deno.Command("mkfifo", { args: [path] })
    .output();
  assertEquals(success, true);
  await assertRejects(
    () => within(Joblog.open(path, RESUME), 5000, "it is told"),
    UsageError,
    "isn't a regular file",
  );
});

Deno.test("Joblog says so where a file system has no locks", async () => {
  await using folder = await Folder.make();
  const { tryLock } = Deno.FsFile.prototype;
  Deno.FsFile.prototype.tryLock = () =>
    Promise.reject(new Deno.errors.NotSupported("no locks (os error 95)"));
  try {
    await assertRejects(
      () => Joblog.open(`${folder.path}/log`, RESUME),
      UsageError,
      "/log: no locks (os error 95)",
    );
  } finally {
    Deno.FsFile.prototype.tryLock = tryLock;
  }
});

Deno.test("map --resume after a SIGKILL does exactly what isn't in the joblog", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const items = 120;
  await folder.write("items", seq(1, items));
  const args = ["map", "--local", "2", "--joblog", path, "--input"]
    .concat(`${folder.path}/items`);
  const all = `${HANDLERS}slow.ts`;
  let reported: string[];
  {
    // However late the signal is, it isn't done by then.
    await using killed = startCli([...args, `${HANDLERS}half.ts`]);
    for (let n = 0; n < 40; n++) await killed.stdout.line(/^\d+$/);
    killed.signal("SIGKILL");
    const { stdout, signal } = await killed.exit;
    assertEquals(signal, "SIGKILL");
    reported = stdout.split("\n").slice(0, -1);
  }
  // What is torn, if anything is, is the last line.
  const before = (await Deno.readTextFile(path)).split("\n").slice(0, -1)
    .map((line) => JSON.parse(line) as Entry);
  const logged = new Set(before.map(({ seq }) => String(seq)));
  for (const line of reported) assert(logged.has(line), `${line} is on disk`);
  assertGreater(items, before.length);

  const resumed = await runCli([...args, "--resume", all]);
  assertEquals(resumed.code, 0, resumed.stderr);
  assertEquals(resumed.lines.length, items - before.length);
  for (const line of resumed.lines) assert(!logged.has(line), line);
  const entries = await entriesOf(path);
  assertEquals(
    entries.map(({ seq }) => seq).toSorted((a, b) => a - b),
    Array.from({ length: items }, (_, i) => i + 1),
  );

  const again = await runCli([...args, "--resume", all]);
  assertEquals([again.code, again.stdout], [0, ""]);
  assertEquals((await entriesOf(path)).length, items);
});

Deno.test({
  name:
    "map --resume prints all that a full disk has kept from being printed (needs sh)",
  ignore: !hasProgram("sh"),
  async fn() {
    await using folder = await Folder.make();
    const path = `${folder.path}/log`;
    const items = 2_000;
    await folder.write("items", seq(1, items));
    const args = ["map", "--local", "1", "--joblog", path, "--input"]
      .concat(`${folder.path}/items`, `${HANDLERS}upper.ts`);
    // A file that may not grow any more is as good as a full disk: this one
    // ends in the middle of an entry, and of a batch.
    const limited = 'trap "" XFSZ; ulimit -f 100; exec "$0" "$@"';
    const deno = ["run", "-qA", "--no-check", ...stdArgs(), `${ROOT}cli.ts`];
    await using full = new Process(
      "sh",
      ["-c", limited, Deno.execPath(), ...deno, ...args],
    );
    const { code, stdout, stderr } = await full.exit;
    assertEquals(code, 3);
    assertStringIncludes(stderr, `distchan: can't write the joblog ${path}: `);

    const resumed = await runCli([...args, "--resume"]);
    assertEquals(resumed.code, 0, resumed.stderr);
    assertEquals((await entriesOf(path)).length, items);
    const printed = stdout.split("\n").slice(0, -1).concat(resumed.lines);
    assertEquals(
      printed.map(Number).toSorted((a, b) => a - b),
      Array.from({ length: items }, (_, i) => i + 1),
    );
  },
});

Deno.test("map --resume-failed does again what failed, and only that", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const flag = `${folder.path}/flag`;
  const run = (...more: string[]) =>
    runCli(
      ["map", "--local", "1", "--joblog", path, ...more, "--", "sh", "-c"]
        .concat(`test $0 != 2 || test -e ${flag} && echo done $0`, "{}"),
      { stdin: seq(1, 3) },
    );
  const first = await run();
  assertEquals(first.code, 1);
  assertEquals(first.lines, ["done 1", "done 3"]);
  const second = await run("--resume");
  assertEquals([second.code, second.stdout], [1, ""], "one has failed");
  assertStringIncludes(
    second.stderr,
    "items that failed in earlier runs: 1 (--resume-failed does them again)",
  );
  await folder.write("flag", "");
  const third = await run("--resume-failed");
  assertEquals([third.code, third.lines], [0, ["done 2"]]);
  assertEquals((await entriesOf(path)).map(({ seq }) => seq), [1, 2, 3, 2]);
});

Deno.test("Joblog keeps a byte order mark that an editor has put before it", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const text = `\ufeff${await threeEntries()}`;
  await folder.write("log", text + '{"seq":');
  for (let i = 0; i < 2; i++) {
    using _log = await Joblog.open(path, { resume: true, resumeFailed: false });
  }
  assertEquals(await Deno.readFile(path), new TextEncoder().encode(text));
});

Deno.test("Joblog cuts off a torn last line behind one that isn't UTF-8", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const [before, behind] = (await threeEntries()).split('"a"');
  const encoder = new TextEncoder();
  const bytes = [`${before}"`, "a", `"${behind}{"seq":4,"at`].map((text) =>
    text === "a" ? new Uint8Array([0xff, 0xfe]) : encoder.encode(text)
  );
  await Deno.writeFile(path, await new Blob(bytes).bytes());
  {
    using log = await Joblog.open(path, RESUME);
    await log.write(formatEntry({ seq: 4, text: "d" }, { result: "D" }));
  }
  const entries = await entriesOf(path);
  assertEquals(entries.map(({ seq }) => seq), [1, 2, 3, 4]);
});

Deno.test("Joblog cuts off a torn last line of a file that is read in parts", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/log`;
  const text = "x".repeat(200);
  const whole = Array.from(
    { length: 3000 },
    (_, i) => formatEntry({ seq: i + 1, text }, { result: i }),
  ).join("");
  assertGreater(whole.length, 512 * 1024);
  await folder.write("log", `${whole}{"seq":3001,"at`);
  {
    using log = await Joblog.open(path, RESUME);
    assertEquals([3000, 3001].map((seq) => log.has({ seq, text })), [
      true,
      false,
    ]);
  }
  assertEquals(await Deno.readTextFile(path), whole);
});

Deno.test("Joblog begins anew where its first line is torn", async () => {
  await using folder = await Folder.make();
  const path = await folder.write("log", '{"seq":1,"at');
  {
    using _log = await Joblog.open(path, RESUME);
  }
  assertEquals(await Deno.readTextFile(path), "");
});

Deno.test("Joblog with one entry is resumed only where that is said", async () => {
  await using folder = await Folder.make();
  const entry = formatEntry({ seq: 1, text: "a" }, { result: "A" });
  const path = await folder.write("log", entry);
  await assertRejects(
    () => Joblog.open(path, { ...RESUME, resume: false }),
    UsageError,
    "has 1 item already",
  );
  using log = await Joblog.open(path, RESUME);
  assert(log.has({ seq: 1, text: "a" }));
  assertFalse(log.has({ seq: 100_000, text: "a" }), "far behind the entry");
});

Deno.test("formatEntry() quotes 200 characters of an item", () => {
  for (const length of [200, 201]) {
    const text = "x".repeat(length);
    const { item } = JSON.parse(formatEntry({ seq: 1, text }, { result: 1 }));
    assertEquals(item, length === 200 ? text : `${"x".repeat(199)}…`);
  }
});

Deno.test("excerpt() of a long text is what all of it would give", () => {
  const parts = ["a", " ", "\t\n", " ".repeat(300), "\x1b[31m", "ö", "𝒳", "\0"];
  const rng = seeded("excerpt");
  for (let round = 0; round < 200; round++) {
    const text = Array.from(
      { length: rng.int(0, 200) },
      () => parts[rng.int(0, parts.length - 1)]!,
    ).join("");
    const line = printable(text.replaceAll(/\s+/g, " ").trim());
    for (const length of [1, 10, 60]) {
      assertEquals(
        excerpt(text, length),
        line.length <= length ? line : `${line.slice(0, length - 1)}…`,
      );
    }
  }
});
