import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import mandelbrotRow from "../examples/mandelbrot/handler.ts";
import { connect } from "../mod.ts";
import { stdArgs } from "../tools/std.ts";
import {
  commandsIn,
  documentedCommand,
  freePort,
  portOf,
  sortedLines,
  startExample,
  success,
} from "./_support/examples.ts";
import { whyNoDenort } from "./_support/denort.ts";
import { Folder } from "./_support/folder.ts";
import { readPng } from "./_support/png.ts";
import { Process, ROOT } from "./_support/process.ts";
import { within } from "./_support/within.ts";

const SCRIPTS = ["capitalizer", "adder", "checksum", "mandelbrot"]
  .flatMap((name) => [`${name}/server.ts`, `${name}/worker.ts`])
  .concat("wordcount/server.ts", "wordcount/map_worker.ts")
  .concat("wordcount/reduce_worker.ts");

Deno.test("examples/README.md shows the commands that the scripts show", async () => {
  const shown = commandsIn(
    await Deno.readTextFile(`${ROOT}examples/README.md`),
  );
  for (const script of SCRIPTS) {
    const command = await documentedCommand(`examples/${script}`);
    assert(
      shown.some((other) => JSON.stringify(other) === JSON.stringify(command)),
      `examples/README.md lacks the command of ${script}`,
    );
  }
});

Deno.test("every example ends with status 2 on wrong arguments", async () => {
  for (const script of SCRIPTS) {
    await using wrong = await startExample(script, {
      dir: ROOT,
      args: ["--nonsense"],
    });
    const { code, stdout, stderr } = await wrong.exit;
    assertEquals({ code, stdout }, { code: 2, stdout: "" }, stderr);
    assertStringIncludes(stderr, "--nonsense");

    // The first of two folders alone would pass for both.
    await using two = await startExample(script, {
      dir: ROOT,
      args: [ROOT, ROOT],
    });
    assertEquals((await two.exit).code, 2, script);
  }
});

Deno.test("examples end with status 2 on numbers that are none", async () => {
  const wrong: [script: string, ...args: string[]][] = [
    ["adder/server.ts", "--port", "70000"],
    ["adder/server.ts", "--count", "many"],
    ["mandelbrot/server.ts", "--width", "1.5"],
    ["mandelbrot/server.ts", "--width", "0"],
    ["wordcount/server.ts", "--reducers", "0"],
    ["wordcount/server.ts", "--reduce-port", "99999"],
  ];
  for (const [script, name, value] of wrong) {
    await using example = await startExample(script, {
      dir: ROOT,
      args: [name!, value!],
    });
    const { code, stdout, stderr } = await example.exit;
    assertEquals({ code, stdout }, { code: 2, stdout: "" }, stderr);
    assertMatch(
      stderr,
      /^error: --\S+ takes a whole number from [01] to \d+, not/,
    );
  }
});

Deno.test("capitalizer prints every line capitalized, and nothing else", async () => {
  await using server = await startExample("capitalizer/server.ts", {
    stdin: "hello world\nстрока\n\nlast, without an end",
  });
  const port = await portOf(server);
  await using worker = await startExample("capitalizer/worker.ts", { port });
  assertEquals(
    sortedLines(await success(server)),
    ["", "HELLO WORLD", "LAST, WITHOUT AN END", "СТРОКА"],
  );
  assertEquals(await success(worker), "");
});

Deno.test("capitalizer shares 10,000 lines among workers that were there first", async () => {
  const port = freePort();
  const worker = () => startExample("capitalizer/worker.ts", { port });
  await using first = await worker();
  await using second = await worker();
  const lines = Array.from({ length: 10_000 }, (_, i) => `line ${i}`);
  await using server = await startExample("capitalizer/server.ts", {
    port,
    stdin: lines.join("\n"),
  });
  assertEquals(
    sortedLines(await success(server)),
    lines.map((line) => line.toUpperCase()).sort(),
  );
  // The other one may have come too late, and waits for a new server.
  await Promise.any([success(first), success(second)]);
});

Deno.test("capitalizer ends at once when there is nothing to do", async () => {
  await using server = await startExample("capitalizer/server.ts");
  assertEquals(await success(server), "");
});

Deno.test("capitalizer's server drains on SIGTERM, with its input still open", async () => {
  await using server = await startExample("capitalizer/server.ts", {
    stdin: "open",
  });
  const port = await portOf(server);
  await using worker = await startExample("capitalizer/worker.ts", { port });
  await server.write("one\ntwo\n");
  await server.stdout.line(/^TWO$/);
  server.signal("SIGTERM");
  const { code, stdout } = await server.exit;
  assertEquals(sortedLines(stdout), ["ONE", "TWO"]);
  assertEquals(code, 130); // so that nobody takes it for all
  await success(worker);
});

Deno.test("capitalizer's worker leaves on SIGTERM, and another goes on", async () => {
  await using server = await startExample("capitalizer/server.ts", {
    stdin: "open",
  });
  const port = await portOf(server);
  await using first = await startExample("capitalizer/worker.ts", { port });
  await server.write("one\n");
  await server.stdout.line(/^ONE$/);
  first.signal("SIGTERM");
  await success(first);
  await server.write("two\n");
  await using second = await startExample("capitalizer/worker.ts", { port });
  await server.closeStdin();
  assertEquals(await success(server), "ONE\nTWO\n");
  await success(second);
});

Deno.test("capitalizer loses no line when a worker is killed", async () => {
  const lines = Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`);
  await using server = await startExample("capitalizer/server.ts", {
    stdin: "open",
  });
  const port = await portOf(server);
  await using killed = await startExample("capitalizer/worker.ts", { port });
  const written = server.write(lines.join(""));
  await server.stdout.line(/^LINE/);
  killed.signal("SIGKILL");
  await killed.exit;
  await using worker = await startExample("capitalizer/worker.ts", { port });
  await written;
  await server.closeStdin();
  assertEquals(
    sortedLines(await success(server)),
    sortedLines(lines.join("").toUpperCase()),
  );
  await success(worker);
});

Deno.test("adder adds the pairs on its standard input", async () => {
  await using server = await startExample("adder/server.ts", {
    stdin: "1 2\n-3\t4.5\n  1e300 1e300\n",
  });
  const port = await portOf(server);
  await using worker = await startExample("adder/worker.ts", { port });
  assertEquals(sortedLines(await success(server)), [
    "-3 + 4.5 = 1.5",
    "1 + 2 = 3",
    "1e+300 + 1e+300 = 2e+300",
  ]);
  assertEquals(await success(worker), "");
});

Deno.test("adder passes over a line that isn't two numbers, with status 1", async () => {
  await using server = await startExample("adder/server.ts", {
    stdin: "1 2\n3\n4 five\n6 7 8\n",
  });
  const port = await portOf(server);
  await using worker = await startExample("adder/worker.ts", { port });
  const { code, stdout, stderr } = await server.exit;
  assertEquals({ code, stdout }, { code: 1, stdout: "1 + 2 = 3\n" }, stderr);
  assertStringIncludes(stderr, "not two numbers: 4 five");
  await success(worker);
});

Deno.test("adder makes pairs up with --count", async () => {
  await using server = await startExample("adder/server.ts", {
    args: ["--count=1000"],
  });
  const port = await portOf(server);
  await using worker = await startExample("adder/worker.ts", { port });
  assertEquals(
    sortedLines(await success(server)),
    Array.from({ length: 1000 }, (_, i) => `${i} + ${i * i} = ${i + i * i}`)
      .sort(),
  );
  await success(worker);
});

Deno.test("adder has each sum once when a worker is killed", async () => {
  const numbers = Array.from({ length: 20_000 }, (_, i) => i);
  await using server = await startExample("adder/server.ts", { stdin: "open" });
  const port = await portOf(server);
  await using killed = await startExample("adder/worker.ts", { port });
  const written = server.write(numbers.map((n) => `${n} ${n}\n`).join(""));
  await server.stdout.line(/ = /);
  killed.signal("SIGKILL");
  await killed.exit;
  await using worker = await startExample("adder/worker.ts", { port });
  await written;
  await server.closeStdin();
  assertEquals(
    sortedLines(await success(server)),
    numbers.map((n) => `${n} + ${n} = ${2 * n}`).sort(),
  );
  await success(worker);
});

Deno.test("checksum prints the sums of all files below a folder", async () => {
  await using folder = await Folder.make();
  await Promise.all([
    folder.write("empty", ""),
    folder.write(".hidden/deep/er/file", "x"),
    folder.write("a name with  spaces, a comma and ünïcödé", "y"),
    folder.write("big", "0123456789abcdef".repeat(100_000)),
  ]);
  await Deno.symlink(ROOT, `${folder.path}/link`);
  await using server = await startExample("checksum/server.ts", {
    dir: ".",
    cwd: folder.path,
  });
  const port = await portOf(server);
  await using worker = await startExample("checksum/worker.ts", {
    port,
    dir: ".",
    cwd: folder.path,
  });
  assertEquals(
    sortedLines(await success(server)),
    (await folder.sums()).map(([name, sum]) => `${sum}  ${name}`).sort(),
  );
  await success(worker);
});

Deno.test("checksum escapes names as sha256sum does", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using folder = await Folder.make();
  await folder.write("two\nlines\\", "x");
  await using server = await startExample("checksum/server.ts", {
    dir: folder.path,
  });
  const port = await portOf(server);
  await using worker = await startExample("checksum/worker.ts", {
    port,
    dir: folder.path,
  });
  const [[, sum] = []] = await folder.sums();
  assertEquals(await success(server), `\\${sum}  two\\nlines\\\\\n`);
  await success(worker);
});

Deno.test("checksum goes on after a file that the worker can't read, with status 1", async () => {
  await using folder = await Folder.make();
  await folder.write("here", "x");
  await using elsewhere = await Folder.make();
  await using server = await startExample("checksum/server.ts", {
    dir: folder.path,
  });
  const port = await portOf(server);
  await using worker = await startExample("checksum/worker.ts", {
    port,
    dir: elsewhere.path,
  });
  const { code, stdout, stderr } = await server.exit;
  assertEquals({ code, stdout }, { code: 1, stdout: "" }, stderr);
  assertStringIncludes(stderr, "here: No such file or directory");
  await success(worker);
});

Deno.test("checksum ends with status 2 on a folder that isn't there", async () => {
  for (const script of ["checksum/server.ts", "checksum/worker.ts"]) {
    const dir = `${ROOT}no such folder`;
    await using process = await startExample(script, { dir });
    const { code, stdout, stderr } = await process.exit;
    assertEquals({ code, stdout }, { code: 2, stdout: "" }, stderr);
    assertStringIncludes(stderr, dir);
  }
});

Deno.test("checksum's worker gives up when no server comes", async () => {
  await using folder = await Folder.make();
  await using worker = await startExample("checksum/worker.ts", {
    port: freePort(),
    dir: folder.path,
    args: ["--give-up=1"],
  });
  const { code, stderr } = await worker.exit;
  assertEquals(code, 1, stderr);
});

Deno.test("wordcount counts as one process does, by two pools in a row", async () => {
  const files = ["README.md", "CONTRIBUTING.md", "server.ts", "client.ts"];
  const texts = files.map((file) => Deno.readTextFile(ROOT + file));
  const text = (await Promise.all(texts)).join("\n");
  await using server = await startExample("wordcount/server.ts", {
    stdin: text,
    args: ["--reduce-port=0", "--reducers=2"],
  });
  const port = await portOf(server);
  const secondPort = await portOf(server);
  const mapper = () => startExample("wordcount/map_worker.ts", { port });
  const reducer = () =>
    startExample("wordcount/reduce_worker.ts", {
      port: secondPort,
      secondPort,
    });
  await using mapper1 = await mapper();
  await using mapper2 = await mapper();
  await using reducer1 = await reducer();
  await using reducer2 = await reducer();
  const counts = new Map<string, number>();
  for (const [word] of text.toLowerCase().matchAll(/[\p{L}\p{N}]+/gu)) {
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  assertEquals(
    sortedLines(await success(server)),
    [...counts].map(([word, count]) => `${count}\t${word}`).sort(),
  );
  await Promise.any([success(mapper1), success(mapper2)]); // see above
  await success(reducer1);
  await success(reducer2);
});

Deno.test("mandelbrot writes the picture that one process computes", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/mandelbrot.png`;
  await using server = await startExample("mandelbrot/server.ts", {
    cwd: folder.path,
    args: ["--width=120"],
  });
  const port = await portOf(server);
  await using worker = await startExample("mandelbrot/worker.ts", { port });
  await Promise.all([success(server), success(worker)]);
  const { width, height, pixels } = readPng(await Deno.readFile(path));
  assertEquals([width, height], [120, 80]);
  for (let y = 0; y < height; y++) {
    assertEquals(
      pixels.subarray(y * width * 3, (y + 1) * width * 3),
      mandelbrotRow({ y, width, height }),
      `row ${y}`,
    );
  }
});

Deno.test("every example's server ends at once when stopped without a worker", {
  ignore: Deno.build.os === "windows",
}, async () => {
  for (const script of SCRIPTS.filter((name) => name.endsWith("/server.ts"))) {
    await using folder = await Folder.make();
    await folder.write("file", "x");
    await using server = await startExample(script, {
      cwd: folder.path,
      dir: folder.path,
      stdin: "1 2\n",
      args: script.startsWith("wordcount") ? ["--reduce-port=0"] : [],
    });
    await portOf(server);
    server.signal("SIGTERM");
    const { code, stdout, stderr } = await server.exit;
    assertEquals({ code, stdout }, { code: 130, stdout: "" }, stderr);
    assertEquals((await folder.sums()).map(([name]) => name), ["file"]);
  }
});

Deno.test(
  "a server that is stopped together with its last worker doesn't wait",
  {
    ignore: Deno.build.os === "windows",
  },
  async () => {
    await using server = await startExample("adder/server.ts", {
      args: ["--count=100000000"],
    });
    const port = await portOf(server);
    const worker = await connect({ port });
    await worker[Symbol.asyncIterator]().next(); // items are out, and stay out
    server.signal("SIGINT");
    await server.stderr.line(/^stopping: waiting for the results/);
    await worker.abort();
    const { code, stderr } = await within(server.exit, 8000, "it has ended");
    assertStringIncludes(stderr, "no worker is left");
    assertEquals(code, 130, stderr);
  },
);

const noDenort = await whyNoDenort();
if (noDenort) console.log(`No worker is compiled: ${noDenort}`);

for (const name of ["capitalizer", "adder", "checksum", "mandelbrot"]) {
  Deno.test(`${name}'s worker runs as a binary (needs denort)`, {
    ignore: noDenort !== undefined,
  }, async () => {
    await using folder = await Folder.make();
    await folder.write("file", "x");
    await using server = await startExample(`${name}/server.ts`, {
      cwd: folder.path,
      dir: folder.path,
      stdin: "1 2\n",
    });
    const port = await portOf(server);
    const { flags, script } = await documentedCommand(
      `examples/${name}/worker.ts`,
    );
    if (name === "mandelbrot") {
      flags.push("--include=examples/mandelbrot/handler.ts");
    }
    await using out = await Folder.make();
    const binary = `${out.path}/worker`;
    await using compiler = new Process(Deno.execPath(), [
      "compile",
      "--no-check",
      ...stdArgs(),
      ...flags.map((flag) =>
        flag.replace("127.0.0.1:5678", `127.0.0.1:${port}`)
          .replace("DIR", folder.path)
      ),
      `--output=${binary}`,
      ROOT + script,
    ]);
    await success(compiler);
    await using worker = new Process(binary, [
      `--port=${port}`,
      ...(name === "checksum" ? [folder.path] : []),
    ]);
    await Promise.all([success(server), success(worker)]);
  });
}
