/**
 * The blocks of README.md and docs/ that `deno test --doc` passes over, because
 * they are files (`ts ignore`, with the file's name in their first line): each
 * is written into a folder and run as its own command has it, on a port that is
 * free, with the library from here.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { freePort } from "./_support/examples.ts";
import { Folder } from "./_support/folder.ts";
import { type Process, ROOT, startDeno } from "./_support/process.ts";

const LIBRARY = JSON.stringify(new URL("../mod.ts", import.meta.url).href);

const guides: string[] = [];
for await (const { name } of Deno.readDir(`${ROOT}docs`)) {
  if (name.endsWith(".md")) guides.push(`docs/${name}`);
}

/** The blocks of such pages, in their order; a name is what begins each. */
const NAMES: Record<string, string[]> = {
  "README.md": [
    "server.ts",
    "capitalize.ts",
    "worker.ts",
    "main.ts",
    "handler.ts",
    "worker.ts",
  ],
  "docs/fleet.md": ["worker.ts"],
  "docs/from_web_workers.md": ["old_worker.ts", "handler.ts"],
};

async function blocksOf(page: string): Promise<string[]> {
  const text = await Deno.readTextFile(ROOT + page);
  return [...text.matchAll(/^```ts ignore\n(.*?)^```$/gms)]
    .map(([, code]) => code!);
}

Deno.test("README.md and docs/ have no other block that isn't run", async () => {
  for (const page of ["README.md", ...guides]) {
    const names = (await blocksOf(page)).map((code) =>
      /^\/\/ (.*?)(?::|$)/m.exec(code)?.[1]
    );
    assertEquals(names, NAMES[page] ?? [], page);
    const text = await Deno.readTextFile(ROOT + page);
    for (const [, language = ""] of text.matchAll(/^```(\S+ .+)$/gm)) {
      assertEquals(language, "ts ignore", page);
    }
  }
});

/** A folder with files, and a port for what they say. */
class Snippets implements AsyncDisposable {
  readonly #folder: Folder;
  readonly #port = freePort();

  private constructor(folder: Folder) {
    this.#folder = folder;
  }

  static async write(files: Record<string, string>): Promise<Snippets> {
    const snippets = new Snippets(await Folder.make());
    for (const [name, code] of Object.entries(files)) {
      await snippets.#folder.write(name, snippets.#here(code));
    }
    return snippets;
  }

  /** Runs a file by the command in its first line. */
  async start(name: string): Promise<Process> {
    const code = await Deno.readTextFile(`${this.#folder.path}/${name}`);
    const flags = new RegExp(`deno run (.*) ${name}$`, "m").exec(code)?.[1];
    assert(flags !== undefined, `${name} has no command`);
    // From JSR threads may import the library; on disk it is to be allowed.
    const library = [ROOT, Deno.env.get("DISTCHAN_STD") ?? ""]
      .filter((path) => path.includes("/"));
    return startDeno([
      ...flags.split(" ").map((flag) =>
        flag === "--allow-read=." ? `${flag},${library}` : flag
      ),
      name,
    ], { cwd: this.#folder.path });
  }

  #here(code: string): string {
    return code.replaceAll('"jsr:@distchan/distchan"', LIBRARY)
      .replaceAll("5678", String(this.#port));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#folder[Symbol.asyncDispose]();
  }
}

/** Waits for processes that end by themselves; what the first one printed. */
async function outputOf(...processes: Process[]): Promise<string> {
  const exits = await Promise.all(processes.map(({ exit }) => exit));
  for (const { code, stderr } of exits) assertEquals([code, stderr], [0, ""]);
  return exits[0]!.stdout;
}

Deno.test("README.md: the first example, the local pool and the isolates run as they stand", async () => {
  const [server, capitalize, worker, main, row, isolates] = await blocksOf(
    "README.md",
  );
  {
    await using files = await Snippets.write({
      "server.ts": server!,
      "capitalize.ts": capitalize!,
      "main.ts": main!,
    });
    await using alone = await files.start("server.ts");
    assertEquals(await outputOf(alone), "HELLO WORLD\n");
    await using mapped = await files.start("main.ts");
    assertEquals(await outputOf(mapped), "HELLO\nWORLD\n");
  }
  {
    const waiting = server!.replace(/^ {2}local: .*\n/m, "");
    assert(waiting.length < server!.length, "server.ts has a line `local`");
    await using files = await Snippets.write({
      "server.ts": waiting,
      "capitalize.ts": capitalize!,
      "worker.ts": worker!,
    });
    // The worker first: it "may start before the server".
    await using working = await files.start("worker.ts");
    await using serving = await files.start("server.ts");
    assertEquals(await outputOf(serving, working), "HELLO WORLD\n");
  }
  await using files = await Snippets.write({
    "handler.ts": row!,
    "worker.ts": isolates!,
    "server.ts": `// deno run --allow-net server.ts
      import { listen } from "jsr:@distchan/distchan";
      await using server = listen<number, Uint8Array>({ port: 5678 });
      const rows = await Array.fromAsync(server.map([0, 255]));
      console.log(rows.map((row) => row.slice(0, 2).join()).join(" "));`,
  });
  await using serving = await files.start("server.ts");
  await using working = await files.start("worker.ts");
  assertEquals(await outputOf(serving, working), "0,1 255,254\n");
});

Deno.test("docs/fleet.md: the worker of the second terminal runs as it stands", async () => {
  const [worker] = await blocksOf("docs/fleet.md");
  await using files = await Snippets.write({
    "handler.ts": "export default (n: number) => n * n;\n",
    "worker.ts": worker!,
    "server.ts": `// deno run --allow-net server.ts
      import { listen } from "jsr:@distchan/distchan";
      await using server = listen<number, number>({ port: 5678 });
      console.log(await Array.fromAsync(server.map([1, 2, 3])));`,
  });
  await using server = await files.start("server.ts");
  await using working = await files.start("worker.ts");
  assertEquals(await outputOf(server, working), "[ 1, 4, 9 ]\n");
});

Deno.test("docs/from_web_workers.md: before and after answer the same", async () => {
  const [before, after] = await blocksOf("docs/from_web_workers.md");
  await using files = await Snippets.write({
    "old_worker.ts": before!,
    "handler.ts": after!,
    "main.ts": `// deno run --allow-read=. main.ts
      import handler from "./handler.ts";
      const url = new URL("./old_worker.ts", import.meta.url);
      const worker = new Worker(url, { type: "module" });
      worker.onmessage = ({ data }) => {
        console.log(data, handler(12));
        worker.terminate();
      };
      worker.postMessage(12);`,
  });
  await using process = await files.start("main.ts");
  assertEquals(await outputOf(process), "144 144\n");
});
