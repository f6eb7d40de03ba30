/**
 * This library as its users have it: from JSR, here a small one on 127.0.0.1,
 * or bundled into one file with a program.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { resolveStd, serveRegistry, stdArgs } from "../tools/std.ts";
import { Folder } from "./_support/folder.ts";
import { Process, ROOT } from "./_support/process.ts";

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

Deno.test("A program that is bundled with the library says that it can't start threads", async () => {
  await using folder = await Folder.make();
  await folder.write("handler.ts", HANDLER);
  const start = {
    local: "server.spawn(module, { count: 1 });",
    isolate: "await work(server.loopback(), module, { isolate: true });",
  };
  for (const [how, code] of Object.entries(start)) {
    const main = await folder.write(
      `${how}.ts`,
      `import { listen, work } from ${JSON.stringify(`${ROOT}mod.ts`)};
      console.log("begins");
      const module = new URL("./handler.ts", import.meta.url);
      const server = listen<number, number>({ port: 0 });
      ${code}
      await server.closed;
      `,
    );
    const output = `${folder.path}/${how}.js`;
    const std = stdArgs().length > 0
      ? stdArgs()
      : [`--config=${ROOT}deno.json`];
    const run = async (...args: string[]) => {
      await using process = new Process(Deno.execPath(), args, {
        cwd: folder.path,
      });
      return await process.exit;
    };
    const bundled = await run("bundle", "-q", ...std, "-o", output, main);
    assertEquals(bundled.code, 0, bundled.stderr);
    const { stdout, stderr } = await run("run", "-A", output);
    assertEquals(stdout, "begins\n", how);
    assertMatch(stderr, /TypeError: Cannot start .*: use deno compile/);
  }
});
