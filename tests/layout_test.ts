/**
 * The layout that CONTRIBUTING.md describes: who may import whom, and who
 * touches the network.
 */
import { assert, assertEquals } from "@std/assert";
import { Folder } from "./_support/folder.ts";

const ROOT = new URL("../", import.meta.url);
const STD = new URL("tools/std_offline/import_map.json", ROOT).href;
const PUBLIC = ["mod.ts", "server.ts", "client.ts", "codec.ts", "cli.ts"];
const INTERNAL = [...Deno.readDirSync(new URL("internal/", ROOT))]
  .map(({ name }) => `internal/${name}`)
  .filter((path) => path.endsWith(".ts"));
/** Source files by their paths, comments left out. */
const FILES = new Map(
  [...PUBLIC, ...INTERNAL].map((path) => [path, codeOf(path)]),
);

function codeOf(path: string): string {
  return Deno.readTextFileSync(new URL(path, ROOT))
    .replaceAll(/\/\*[^]*?\*\//g, "")
    .replaceAll(/^\s*\/\/.*$/gm, "");
}

/** What a file imports, types too. */
function importsOf(path: string): string[] {
  const code = FILES.get(path)!;
  return [...code.matchAll(/^(?:import|export|\}) .*?\bfrom "([^"]+)";/gm)]
    .map(([, specifier = ""]) =>
      specifier.startsWith(".")
        ? new URL(specifier, new URL(path, ROOT)).href.slice(ROOT.href.length)
        : specifier
    );
}

function isCli(path: string): boolean {
  return path === "cli.ts" || path.startsWith("internal/cli_");
}

Deno.test("Layout: imports make no circle", () => {
  const done = new Set<string>();
  const visit = (path: string, way: string[]) => {
    assert(!way.includes(path), `a circle: ${[...way, path].join(" → ")}`);
    if (done.has(path) || !FILES.has(path)) return;
    for (const next of importsOf(path)) visit(next, [...way, path]);
    done.add(path);
  };
  for (const path of FILES.keys()) visit(path, []);
  assertEquals(done.size, FILES.size);
});

Deno.test("Layout: internal/README.md has every file, and imports go down its layers", () => {
  const page = Deno.readTextFileSync(new URL("internal/README.md", ROOT));
  const layers = page.split("\n## ").slice(1).map((layer) =>
    [...layer.matchAll(/^\| `(\w+)` /gm)].map(([, name]) =>
      `internal/${name}.ts`
    )
  );
  assertEquals(layers.flat().sort(), [...INTERNAL].sort());
  layers.forEach((layer, depth) => {
    const above = layers.slice(0, depth).flat();
    for (const path of layer) {
      const wrong = importsOf(path).filter((other) => above.includes(other));
      assertEquals(wrong, [], `${path} imports from above`);
    }
  });
});

Deno.test("Layout: internal/ imports neither server.ts nor client.ts", () => {
  for (const path of INTERNAL) {
    for (const imported of importsOf(path)) {
      if (!PUBLIC.includes(imported)) continue;
      const allowed = isCli(path) ? ["mod.ts"] : ["codec.ts"];
      assert(allowed.includes(imported), `${path} imports ${imported}`);
    }
  }
});

Deno.test("Layout: only the command line imports its own files", () => {
  for (const path of FILES.keys()) {
    if (isCli(path)) continue;
    const wrong = importsOf(path).filter(isCli);
    assertEquals(wrong, [], path);
  }
  assertEquals(
    importsOf("cli.ts").filter((path) =>
      ["server.ts", "client.ts"].includes(path)
    ),
    [],
  );
});

Deno.test("Layout: only server.ts and client.ts open the network", () => {
  for (const [path, code] of FILES) {
    if (path === "server.ts" || path === "client.ts") continue;
    const [call] = code.match(
      /\bDeno\.(listen|connect|startTls|serve|upgradeWebSocket)\w*/,
    ) ?? [];
    assertEquals(call, undefined, path);
    assert(!/"node:(net|tls|https?|dgram)"/.test(code), path);
  }
});

Deno.test("Layout: nothing is imported but @std and node:", () => {
  for (const path of FILES.keys()) {
    for (const imported of importsOf(path)) {
      assert(
        FILES.has(imported) || imported.startsWith("node:") ||
          imported === "@std/cbor" || imported === "@std/streams",
        `${path} imports ${imported}`,
      );
    }
  }
});

Deno.test("Layout: the logic of the protocol knows no clock, chance or network", () => {
  const pure = ["frame", "frame_decoder", "credit", "item_window", "in_flight"]
    .concat("dispatcher", "handshake", "heartbeat", "backoff", "delivery")
    .concat("placement", "reservation", "reorder_window");
  for (const name of pure) {
    const code = FILES.get(`internal/${name}.ts`);
    assert(code !== undefined, name);
    const [found] = code.match(
      /\b(performance\.now|Date\.now|Math\.random|getRandomValues|setTimeout|setInterval|await)\b/,
    ) ?? [];
    assertEquals(found, undefined, name);
  }
});

Deno.test("Layout: only channel.ts makes the streams of values", () => {
  for (const [path, code] of FILES) {
    // The page's events are bytes of an HTTP response.
    if (["internal/channel.ts", "internal/dashboard.ts"].includes(path)) {
      continue;
    }
    assert(!/new (Readable|Writable|Transform)Stream\b/.test(code), path);
  }
});

Deno.test("Every export says its type: a project with isolatedDeclarations may import a checkout", async () => {
  await using folder = await Folder.make();
  await folder.write(
    "deno.json",
    '{ "compilerOptions": { "isolatedDeclarations": true } }',
  );
  const modules = PUBLIC.map((path) => `import "${new URL(path, ROOT)}";\n`);
  const main = await folder.write("main.ts", modules.join(""));
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    cwd: folder.path,
    args: ["check", "--quiet", "--import-map", STD, main],
    stdout: "null",
  }).output();
  assert(success, new TextDecoder().decode(stderr));
});
