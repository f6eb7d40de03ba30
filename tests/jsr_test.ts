/**
 * This library as its users have it: from JSR, here a small one on 127.0.0.1,
 * or bundled into one file with a program.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Worker } from "node:worker_threads";
import config from "../deno.json" with { type: "json" };
import { bootstrapOf } from "../internal/thread.ts";
import { resolveStd, serveRegistry } from "../tools/std.ts";
import { Folder } from "./_support/folder.ts";
import { Process, ROOT } from "./_support/process.ts";
import { within } from "./_support/within.ts";

const HANDLER = "export default (n: number): number => n * n;\n";

/** What JSR would have of this library; `deno publish` says what is in it. */
async function published(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const name of config.publish.include) {
    const path = `${ROOT}${name}`;
    const { isDirectory } = await Deno.stat(path);
    const paths = isDirectory
      ? (await Array.fromAsync(Deno.readDir(path))).map((entry) =>
        `${name}/${entry.name}`
      )
      : [name];
    for (const path of paths) {
      files.set(`/${path}`, await Deno.readTextFile(`${ROOT}${path}`));
    }
  }
  return files;
}

const std = await resolveStd();
const isServed = std.packages.length > 0;
if (!isServed) console.log("No JSR is played: @std is that of the real one");

/** A folder, and deno with a cache of its own and our JSR. */
async function newUser() {
  const registry = serveRegistry([...std.packages, {
    name: config.name,
    version: config.version,
    folder: ROOT,
    exports: config.exports,
    files: await published(),
  }]);
  const folder = await Folder.make();
  const env = {
    JSR_URL: `http://127.0.0.1:${registry.addr.port}/`,
    DENO_DIR: `${folder.path}/.deno`,
    NO_COLOR: "1",
  };
  return {
    write: (name: string, text: string) => folder.write(name, text),
    async deno(...args: string[]) {
      await using process = new Process(Deno.execPath(), args, {
        cwd: folder.path,
        env,
      });
      return await process.exit;
    },
    async [Symbol.asyncDispose]() {
      await registry.shutdown();
      await folder[Symbol.asyncDispose]();
    },
  };
}

Deno.test({
  name: "JSR: what `deno cache` loads of ./server is enough for its threads",
  ignore: !isServed,
  async fn() {
    await using user = await newUser();
    await user.write("handler.ts", HANDLER);
    await user.write(
      "main.ts",
      `import { listen } from "jsr:@distchan/distchan/server";
      const module = new URL("./handler.ts", import.meta.url);
      await using server = listen<number, number>({
        port: 0,
        local: { module, count: 1 },
      });
      console.log(await server.submit(3));
      `,
    );
    const cached = await user.deno("cache", "main.ts");
    assertEquals(cached.code, 0, cached.stderr);
    const { stdout, stderr } = await user.deno(
      ...["run", "--quiet", "--no-prompt", "--cached-only"],
      ...["--allow-net=127.0.0.1", "--allow-read=.", "main.ts"],
    );
    assertEquals([stdout, stderr], ["9\n", ""]);
  },
});

Deno.test({
  name: "JSR: threads run under `deno test`, in a folder with a package.json",
  ignore: !isServed,
  async fn() {
    await using user = await newUser();
    await user.write("package.json", "{}");
    await user.write("handler.ts", HANDLER);
    await user.write(
      "main_test.ts",
      `import { listen, work } from "jsr:@distchan/distchan";
      const module = new URL("./handler.ts", import.meta.url);
      Deno.test("local", async () => {
        await using server = listen<number, number>({
          port: 0,
          local: { module, count: 1 },
        });
        if (await server.submit(3) !== 9) throw new Error();
      });
      Deno.test("isolate", async () => {
        await using server = listen<number, number>({ port: 0 });
        work(server.loopback(), module, { isolate: true });
        if (await server.submit(3) !== 9) throw new Error();
      });
      `,
    );
    const { code, stdout, stderr } = await user.deno(
      ...["test", "--allow-net=127.0.0.1", "--allow-read=.", "main_test.ts"],
    );
    assertEquals(code, 0, stdout + stderr);
    assertStringIncludes(stdout, "2 passed");
    // Of the program alone: not of threads, each with all of the library.
    assertEquals(stderr.match(/^Check .*$/gm), ["Check main_test.ts"]);
  },
});

// `deno bundle` itself needs npm. In its one file every module has its URL.
Deno.test("bootstrapOf() starts no thread of a program that is bundled with the library", async () => {
  const bundle = import.meta.resolve("../internal/thread.ts");
  const { port1, port2 } = new MessageChannel();
  const told = Promise.withResolvers<{ type: string; error: Error }>();
  port1.onmessage = ({ data }) => told.resolve(data);
  const thread = new Worker(bootstrapOf(bundle, "a thread"), {
    workerData: { port: port2 },
    // deno-lint-ignore no-explicit-any
    transferList: [port2 as any],
  });
  const { type, error } = await within(told.promise, 20_000, "it says why");
  await thread.terminate();
  port1.close();
  assertEquals([type, error.name], ["unusable", "TypeError"]);
  assertMatch(error.message, /^Cannot start a thread: .*use deno compile/);
});
