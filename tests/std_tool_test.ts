import * as stdAssert from "@std/assert";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as stdStreams from "@std/streams";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as ourAssert from "../tools/std_offline/assert.ts";
import * as ourStreams from "../tools/std_offline/streams.ts";
import { serveRegistry, type StdPackage } from "../tools/std.ts";

const STD_URL = new URL("../tools/std.ts", import.meta.url);
const STD_TOOL = fileURLToPath(STD_URL);

interface Folder extends AsyncDisposable {
  path: string;
}

/** A new folder with these files, gone at the end of the scope. */
async function folderOf(files: Record<string, unknown> = {}): Promise<Folder> {
  const path = await Deno.realPath(await Deno.makeTempDir());
  for (const [name, content] of Object.entries(files)) {
    await Deno.mkdir(dirname(join(path, name)), { recursive: true });
    await Deno.writeTextFile(
      join(path, name),
      typeof content === "string" ? content : JSON.stringify(content),
    );
  }
  return {
    path,
    [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }),
  };
}

/** Runs tools/std.ts; DISTCHAN_STD is unset unless `env` sets it. */
async function stdTool(
  args: string[],
  { env = {}, cwd }: { env?: Record<string, string>; cwd?: string } = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-config", STD_TOOL, ...args],
    env: { DISTCHAN_STD: "", INIT_CWD: "", NO_COLOR: "1", ...env },
    stdin: "null",
    ...(cwd === undefined ? {} : { cwd }),
  }).output();
  const decoder = new TextDecoder();
  return {
    code,
    stdout: decoder.decode(stdout).trim(),
    stderr: decoder.decode(stderr).trim(),
  };
}

/** The least that loads where the three packages and one of theirs should be. */
const FAKE_STD = {
  assert: 'export { from } from "@std/internal/from";',
  cbor: "export const cbor = true;",
  streams: "export const streams = true;",
};

function fakeCheckout(): Record<string, unknown> {
  const files: Record<string, unknown> = {
    "internal/deno.json": { version: "1.0.0", exports: { "./from": "./f.ts" } },
    "internal/f.ts": 'export const from = "the checkout";',
  };
  for (const [name, code] of Object.entries(FAKE_STD)) {
    files[`${name}/deno.json`] = {
      version: "9.9.9",
      exports: { ".": "./mod.ts" },
    };
    files[`${name}/mod.ts`] = code;
  }
  return files;
}

Deno.test("tools/std.ts resolves @std to the stand-ins if told to, here and in children", async () => {
  await using folder = await folderOf({
    "parent.ts": `
      import { assert } from "@std/assert";
      import { stdArgs } from ${JSON.stringify(STD_URL)};
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["run", ...stdArgs(), new URL("child.ts", import.meta.url).href],
      }).output();
      console.log(typeof assert, new TextDecoder().decode(stdout));`,
    "child.ts": `
      import * as cbor from "@std/cbor";
      console.log(Object.keys(cbor).join());`,
  });
  const { code, stdout, stderr } = await stdTool(
    [
      "run",
      "--no-prompt",
      "--allow-read",
      "--allow-env=DISTCHAN_STD_ARGS",
      "--allow-run=deno",
      join(folder.path, "parent.ts"),
    ],
    { env: { DISTCHAN_STD: "offline" } },
  );
  assertEquals({ code, stdout, stderr }, {
    code: 0,
    stdout: "function CborTag",
    stderr: "",
  });
});

Deno.test("tools/std.ts resolves @std to a checkout, with what its modules import", async () => {
  await using checkout = await folderOf(fakeCheckout());
  await using folder = await folderOf({
    "main.ts": 'import { from } from "@std/assert"; console.log(from);',
  });
  for (const mode of [checkout.path, "."]) {
    const { stdout, stderr } = await stdTool(
      ["run", join(folder.path, "main.ts")],
      { env: { DISTCHAN_STD: mode }, cwd: checkout.path },
    );
    assertEquals({ stdout, stderr }, { stdout: "the checkout", stderr: "" });
  }
});

Deno.test("tools/std.ts refuses what is no checkout", async () => {
  await using folder = await folderOf();
  const { code, stderr } = await stdTool(["run", "main.ts"], {
    env: { DISTCHAN_STD: folder.path },
  });
  assertEquals(code, 2);
  assertStringIncludes(stderr, `Cannot use DISTCHAN_STD=${folder.path}`);
});

Deno.test("tools/std.ts takes JSR, then its cache, then the stand-ins with a line that says so", async () => {
  await using folder = await folderOf({
    "deno.json": { imports: { "@std/assert": "jsr:@std/assert@^1.0.19" } },
    "main.ts": `
      import * as std from "@std/assert";
      console.log("from" in std ? std.from : "stand-ins");`,
  });
  await using cache = await folderOf();
  await using empty = await folderOf();
  const versions = { assert: "1.0.19", cbor: "0.1.9", streams: "1.1.2" };
  const packages = Object.entries(versions).map(
    ([name, version]): StdPackage => ({
      name: `@std/${name}`,
      version,
      folder: "",
      exports: { ".": "./mod.ts" },
      files: new Map([["/mod.ts", 'export const from = "JSR";']]),
    }),
  );
  const registry = serveRegistry(packages);
  const JSR_URL = `http://127.0.0.1:${registry.addr.port}/`;
  const main = join(folder.path, "main.ts");
  const fromJsr = await stdTool(["run", main], {
    env: { JSR_URL, DENO_DIR: cache.path },
  });
  await registry.shutdown();
  assertEquals(fromJsr, { code: 0, stdout: "JSR", stderr: "" });

  const fromCache = await stdTool(["run", main], {
    env: { JSR_URL, DENO_DIR: cache.path },
  });
  assertEquals(fromCache, { code: 0, stdout: "JSR", stderr: "" });

  const fromNowhere = await stdTool(["run", main], {
    env: { JSR_URL, DENO_DIR: empty.path },
  });
  assertEquals(fromNowhere.stdout, "stand-ins");
  assertEquals(fromNowhere.stderr.split("\n").length, 1);
  assertStringIncludes(fromNowhere.stderr, "the stand-ins");
});

Deno.test("tools/std.ts does not wait for a JSR that never answers", async () => {
  await using folder = await folderOf({
    "main.ts": 'import "@std/assert"; console.log("ran");',
  });
  await using empty = await folderOf();
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = silent.accept();
  const { stdout, stderr } = await stdTool(
    ["run", join(folder.path, "main.ts")],
    {
      env: {
        JSR_URL: `http://127.0.0.1:${silent.addr.port}/`,
        DENO_DIR: empty.path,
      },
    },
  );
  (await accepted).close();
  assertEquals(stdout, "ran");
  assertStringIncludes(stderr, "the stand-ins");
});

Deno.test("tools/std.ts hands on arguments and the exit status, and drops a first --", async () => {
  await using folder = await folderOf({
    "main.ts": 'console.log(Deno.args.join(" ")); Deno.exit(7);',
  });
  const { code, stdout } = await stdTool(
    ["run", join(folder.path, "main.ts"), "--", "DIR", "--", "--flag"],
    { env: { DISTCHAN_STD: "offline" } },
  );
  assertEquals({ code, stdout }, { code: 7, stdout: "DIR -- --flag" });
});

Deno.test("tools/std.ts leaves a script the -- behind its own arguments", async () => {
  await using folder = await folderOf({
    "main.ts": 'console.log(Deno.args.join(" "));',
  });
  const { stdout } = await stdTool(
    ["run", "-A", join(folder.path, "main.ts"), "map", "-k", "--", "echo"],
    { env: { DISTCHAN_STD: "offline" } },
  );
  assertEquals(stdout, "map -k -- echo");
});

Deno.test({
  name: "tools/std.ts hands on signals",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using folder = await folderOf({
      "main.ts": `
        Deno.addSignalListener("SIGTERM", () => Deno.exit(9));
        console.log("ready");
        setInterval(() => {}, 1000);`,
    });
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-config", STD_TOOL, "run"]
        .concat(join(folder.path, "main.ts")),
      env: { DISTCHAN_STD: "offline" },
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    child.kill("SIGTERM");
    assertEquals((await child.status).code, 9);
    while (!(await reader.read()).done);
  },
});

Deno.test("tools/std.ts judges documentation and slow types as JSR does, and leaves nothing behind", async () => {
  await using checkout = await folderOf(fakeCheckout());
  await using temp = await folderOf();
  const manifest = {
    name: "@distchan/example",
    version: "0.0.0",
    license: "MIT",
    exports: "./mod.ts",
    imports: { "@std/cbor": "jsr:@std/cbor@^9.9.9" },
  };
  const good = `
    /**
     * A module.
     *
     * @module
     */
    import { cbor } from "@std/cbor";

    /** A function. */
    export function get(): boolean {
      return cbor;
    }\n`;
  await using fine = await folderOf({ "deno.json": manifest, "mod.ts": good });
  await using slow = await folderOf({
    "deno.json": manifest,
    "mod.ts": good.replace(": boolean", "").replace("/** A function. */", ""),
  });
  const env = { DISTCHAN_STD: checkout.path, TMPDIR: temp.path };
  const doc = ["doc", "--lint", "mod.ts"];
  const publish = ["publish", "--dry-run", "--allow-dirty"];

  for (const args of [doc, publish, ["lint"]]) {
    const { code, stderr } = await stdTool(args, { env, cwd: fine.path });
    assertEquals(code, 0, stderr);
  }
  const undocumented = await stdTool(doc, { env, cwd: slow.path });
  assertEquals(undocumented.code, 1);
  assertStringIncludes(undocumented.stderr, "missing-jsdoc");
  const slowTypes = await stdTool(publish, { env, cwd: slow.path });
  assertEquals(slowTypes.code, 1);
  assertStringIncludes(slowTypes.stderr, "missing-explicit-return-type");
  const wet = await stdTool(["publish"], { env, cwd: fine.path });
  assertEquals(wet.code, 2);
  assertStringIncludes(wet.stderr, "Cannot publish");

  assertEquals(await Array.fromAsync(Deno.readDir(temp.path)), []);
  const left = await Array.fromAsync(Deno.readDir(fine.path));
  assertEquals(left.map(({ name }) => name).sort(), ["deno.json", "mod.ts"]);
});

class Point {
  #x: number;
  constructor(x: number) {
    this.#x = x;
  }
  get x(): number {
    return this.#x;
  }
}

function cycle(last: number): unknown[] {
  const list: unknown[] = [1];
  list.push(list, last);
  return list;
}

/** Pairs to compare: [name, one, other, equal]. */
const EQUALITY: [string, unknown, unknown, boolean][] = [
  ["0 and -0", 0, -0, true],
  ["NaN", NaN, NaN, true],
  ["NaN in arrays", [NaN, -0], [NaN, 0], true],
  ["number and bigint", 1, 1n, false],
  ["number and string", 1, "1", false],
  ["null and undefined", null, undefined, false],
  ["bytes", Uint8Array.of(1, 2), Uint8Array.of(1, 2), true],
  ["other bytes", Uint8Array.of(1, 2), Uint8Array.of(1, 3), false],
  ["bytes and array", Uint8Array.of(1), [1], false],
  ["typed arrays", Float64Array.of(NaN, 0), Float64Array.of(NaN, -0), true],
  ["typed arrays' kind", Uint8Array.of(1), Int8Array.of(1), false],
  ["big typed arrays", BigInt64Array.of(1n), BigInt64Array.of(2n), false],
  ["buffers", Uint8Array.of(1).buffer, Uint8Array.of(1).buffer, true],
  ["other buffers", Uint8Array.of(1).buffer, Uint8Array.of(2).buffer, false],
  ["dates", new Date(5), new Date(5), true],
  ["other dates", new Date(5), new Date(6), false],
  ["invalid dates", new Date(NaN), new Date(NaN), true],
  ["patterns", /a/g, /a/g, true],
  ["other flags", /a/g, /a/, false],
  ["URLs", new URL("https://a/"), new URL("https://a/"), true],
  ["other URLs", new URL("https://a/"), new URL("https://b/"), false],
  ["maps", new Map([[1, { a: 1 }]]), new Map([[1, { a: 1 }]]), true],
  ["other maps", new Map([[1, { a: 1 }]]), new Map([[1, { a: 2 }]]), false],
  ["maps' order", new Map([[1, 2], [3, 4]]), new Map([[3, 4], [1, 2]]), true],
  ["maps with object keys", new Map([[[1], 2]]), new Map([[[1], 2]]), true],
  ["sets", new Set([1, 2]), new Set([2, 1]), true],
  ["sets of objects", new Set([[1], [2]]), new Set([[2], [1]]), true],
  ["other sets", new Set([[1], [2]]), new Set([[1], [3]]), false],
  ["set and map", new Set(), new Map(), false],
  ["nested", { a: [{ b: new Set([1]) }] }, { a: [{ b: new Set([1]) }] }, true],
  ["a key more", { a: 1 }, { a: 1, b: undefined }, false],
  ["another key", { a: undefined }, { b: undefined }, false],
  ["symbol keys", { [Symbol.iterator]: 1 }, { [Symbol.iterator]: 2 }, false],
  [
    "no prototype",
    Object.assign(Object.create(null), { a: 1 }),
    { a: 1 },
    true,
  ],
  ["class and object", new Point(1), {}, false],
  ["getters", new Point(1), new Point(1), true],
  ["other getters", new Point(1), new Point(2), false],
  ["holes", [, 1], [undefined, 1], false],
  ["lengths", [1], [1, undefined], false],
  ["errors", new Error("a"), new Error("b"), false],
  ["errors' classes", new Error("a"), new TypeError("a"), false],
  ["functions", () => 1, () => 1, false],
  ["cycles", cycle(1), cycle(1), true],
  ["other cycles", cycle(1), cycle(2), false],
];

function passes(assertion: () => void): boolean {
  try {
    assertion();
    return true;
  } catch (error) {
    assert((error as Error).name === "AssertionError", String(error));
    return false;
  }
}

Deno.test("the stand-in's assertEquals() agrees with that of @std", () => {
  for (const [name, one, other, equal] of EQUALITY) {
    for (const { assertEquals, assertNotEquals } of [ourAssert, stdAssert]) {
      for (const [a, b] of [[one, other], [other, one]]) {
        assert(passes(() => assertEquals(a, b)) === equal, name);
        assert(passes(() => assertNotEquals(a, b)) === !equal, `not: ${name}`);
      }
    }
  }
});

Deno.test("the stand-in's other assertions agree with those of @std", async () => {
  const boom = () => {
    throw new RangeError("limit is 5");
  };
  const late = (error: unknown) => () => Promise.reject(error);
  type Assertions = typeof ourAssert | typeof stdAssert;
  const cases: [boolean, (std: Assertions) => unknown][] = [
    [true, (std) => std.assert(1)],
    [false, (std) => std.assert("")],
    [true, (std) => std.assertFalse(0)],
    [false, (std) => std.assertFalse([])],
    [true, (std) => std.assertExists(0)],
    [false, (std) => std.assertExists(null)],
    [true, (std) => std.assertStrictEquals(NaN, NaN)],
    [false, (std) => std.assertStrictEquals(0, -0)],
    [false, (std) => std.assertStrictEquals([], [])],
    [true, (std) => std.assertInstanceOf(new RangeError(), Error)],
    [false, (std) => std.assertInstanceOf(new Error(), RangeError)],
    [true, (std) => std.assertAlmostEquals(1, 1 + 1e-9)],
    [false, (std) => std.assertAlmostEquals(1, 1.1)],
    [true, (std) => std.assertAlmostEquals(1, 1.1, 0.2)],
    [true, (std) => std.assertGreater(2, 1)],
    [false, (std) => std.assertGreater(1, 1)],
    [true, (std) => std.assertGreaterOrEqual(1, 1)],
    [false, (std) => std.assertGreaterOrEqual(NaN, 1)],
    [true, (std) => std.assertLess(1, 2)],
    [false, (std) => std.assertLess(1, 1)],
    [true, (std) => std.assertLessOrEqual(1, 1)],
    [false, (std) => std.assertLessOrEqual(2, 1)],
    [true, (std) => std.assertStringIncludes("abc", "b")],
    [false, (std) => std.assertStringIncludes("abc", "d")],
    [true, (std) => std.assertMatch("abc", /b/)],
    [false, (std) => std.assertMatch("abc", /d/)],
    [true, (std) => std.assertArrayIncludes([[1], 2, NaN], [NaN, [1]])],
    [false, (std) => std.assertArrayIncludes([1], [1, 2])],
    [
      true,
      (std) =>
        std.assertObjectMatch({ a: 1, b: { c: 2, d: 3 } }, { b: { c: 2 } }),
    ],
    [true, (std) => std.assertObjectMatch({ a: [1, 2] }, { a: [1] })],
    [false, (std) => std.assertObjectMatch({ a: [1] }, { a: [1, 2] })],
    [
      true,
      (std) =>
        std.assertObjectMatch({ a: new RangeError("x") }, {
          a: { message: "x" },
        }),
    ],
    [false, (std) => std.assertObjectMatch({ a: 1 }, { a: 2 })],
    [false, (std) => std.assertObjectMatch({ a: 1 }, { b: undefined })],
    [false, (std) => std.fail("no")],
    [false, (std) => std.unreachable()],
    [true, (std) => std.assertThrows(boom)],
    [true, (std) => std.assertThrows(boom, Error, "is 5")],
    [true, (std) => std.assertThrows(boom, "a message")],
    [false, (std) => std.assertThrows(boom, TypeError)],
    [false, (std) => std.assertThrows(boom, RangeError, "is 6")],
    [false, (std) => std.assertThrows(() => {})],
    [true, (std) => std.assertRejects(late(new RangeError("is 5")))],
    [
      true,
      (std) => std.assertRejects(late(new RangeError("is 5")), RangeError, "5"),
    ],
    [true, (std) => std.assertRejects(late("no error"))],
    [false, (std) => std.assertRejects(late("no error"), Error)],
    [false, (std) => std.assertRejects(late(new RangeError()), TypeError)],
    [false, (std) => std.assertRejects(() => Promise.resolve())],
    [false, (std) => std.assertRejects(boom)],
  ];
  for (const std of [ourAssert, stdAssert]) {
    for (const [expected, run] of cases) {
      let passed = true;
      try {
        await run(std);
      } catch (error) {
        assert(error instanceof std.AssertionError, String(error));
        passed = false;
      }
      assert(passed === expected, `expected ${expected}: ${run}`);
    }
    const error: RangeError = std.assertThrows(boom, RangeError);
    assert(error.message === "limit is 5");
  }
});

Deno.test("the stand-in's streams agree with those of @std", async () => {
  const texts = ["ab\n", "", "c\r", "\nd\n\n", "\r", "e", "ü♥"];
  const stream = () => ReadableStream.from(texts);
  const bytes = () => stream().pipeThrough(new TextEncoderStream());
  const read = async (std: typeof ourStreams | typeof stdStreams) => [
    await Array.fromAsync(stream().pipeThrough(new std.TextLineStream())),
    await std.toText(stream()),
    await std.toText(bytes()),
    await std.toBytes(bytes()),
    await std.toArrayBuffer(bytes()),
  ];
  const ours = await read(ourStreams);
  assertEquals(ours[0], ["ab", "c", "d", "", "\reü♥"]);
  assertEquals(ours, await read(stdStreams));
});
