/**
 * Runs a deno command with `@std` resolved, wherever it is run:
 *
 * ```sh
 * deno run -A tools/std.ts <subcommand> [arguments]
 * ```
 *
 * `DISTCHAN_STD=jsr|offline|DIR` says where `@std` comes from: JSR, the
 * stand-ins in `tools/std_offline/`, or a checkout of denoland/std. Without it
 * that is JSR, or what is cached of it, if it can be had; else the stand-ins,
 * and one line on stderr says so. What was decided goes down to the command's
 * own children as `DISTCHAN_STD`, so nothing is decided twice.
 *
 * Commands that run or check code get an `--import-map`. `doc`, `lint` and
 * `publish` take none, or judge types from files otherwise than types from
 * packages: for these a small JSR registry is served on 127.0.0.1 while they
 * run, with a cache of its own. Nothing is ever written into the repository.
 *
 * A first bare `--` is dropped, because `deno task NAME -- ARGS` hands it on;
 * and in `--allow-run`, `deno` means the very deno that runs this.
 *
 * @module
 */

import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import config from "../deno.json" with { type: "json" };
import offline from "./std_offline/import_map.json" with { type: "json" };

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const OFFLINE_MAP = fileURLToPath(
  new URL("./std_offline/import_map.json", import.meta.url),
);
const JSR_PROBE_MS = 3_000;
const JSR_LOAD_MS = 60_000;

const TAKES_IMPORT_MAP = new Set([
  "bench",
  "bundle",
  "cache",
  "check",
  "compile",
  "eval",
  "info",
  "run",
  "serve",
  "test",
]);
const TAKES_REGISTRY = new Set(["doc", "lint", "publish"]);

/** A package of `@std`, as a registry has it. */
export interface StdPackage {
  /** Its name, with the scope. */
  name: string;
  /** Its version. */
  version: string;
  /** The folder that its exports and files are relative to. */
  folder: string;
  /** As in its deno.json. */
  exports: Record<string, string>;
  /** Its files' paths, from `/`, with their text. */
  files: Map<string, string>;
}

/** Where `@std` comes from. */
export interface Std {
  /** What to set `DISTCHAN_STD` to, to get the same again. */
  mode: string;
  /** The arguments that resolve `@std` in `deno run` and its like. */
  args: string[];
  /** The packages themselves, where they are not JSR's. */
  packages: StdPackage[];
}

/**
 * The arguments with which this process's `@std` was resolved. A process that
 * starts another deno hands them on:
 *
 * ```ts ignore
 * new Deno.Command(Deno.execPath(), { args: ["run", ...stdArgs(), "worker.ts"] });
 * ```
 *
 * Needs `--allow-env=DISTCHAN_STD_ARGS` and nothing else.
 *
 * @returns The arguments; none if `tools/std.ts` did not start this process,
 * because then `@std` is resolved without its help.
 */
export function stdArgs(): string[] {
  return JSON.parse(Deno.env.get("DISTCHAN_STD_ARGS") ?? "[]");
}

/**
 * Decides where `@std` comes from, as the head of this file has it.
 *
 * @returns The decision, for {@linkcode runDeno}.
 * @throws {TypeError} If `DISTCHAN_STD` is none of "jsr", "offline" and a
 * checkout of denoland/std.
 */
export async function resolveStd(): Promise<Std> {
  const mode = Deno.env.get("DISTCHAN_STD") ?? "";
  if (mode === "jsr" || mode === "" && await canReachJsr()) {
    return { mode: "jsr", args: [], packages: [] };
  }
  if (mode === "") {
    console.error(
      "tools/std.ts: JSR is neither in reach nor in the cache, so @std is the" +
        " stand-ins in tools/std_offline/ (DISTCHAN_STD=jsr|offline|DIR" +
        " forces one)",
    );
  }
  if (mode === "offline" || mode === "") {
    const packages = Object.entries(offline.imports).map(readStandIn);
    const args = [`--import-map=${OFFLINE_MAP}`];
    return { mode: "offline", args, packages: await Promise.all(packages) };
  }
  // A relative path is meant from where `deno task` was called.
  const checkout = resolve(Deno.env.get("INIT_CWD") ?? ".", mode);
  const packages = await readCheckout(checkout);
  return { mode: checkout, args: [importMapArg(packages)], packages };
}

/**
 * Runs a deno command with `@std` resolved, hands the signals that reach this
 * process on to it, and waits for it.
 *
 * @param std Where `@std` comes from.
 * @param args The subcommand and its arguments.
 * @returns How the command ended.
 */
export async function runDeno(
  std: Std,
  args: string[],
): Promise<Deno.CommandStatus> {
  const [subcommand = "", ...rest] = args;
  if (subcommand === "publish" && std.mode !== "jsr" && !isDryRun(rest)) {
    throw new TypeError(
      `Cannot publish: @std is ${std.mode}, expected DISTCHAN_STD=jsr or --dry-run`,
    );
  }
  const env: Record<string, string> = {
    DISTCHAN_STD: std.mode,
    DISTCHAN_STD_ARGS: JSON.stringify(std.args),
  };
  if (TAKES_IMPORT_MAP.has(subcommand)) {
    return await spawn([subcommand, ...std.args, ...rest], env);
  }
  if (std.mode === "jsr" || !TAKES_REGISTRY.has(subcommand)) {
    return await spawn(args, env);
  }
  // A cache of its own: what this registry serves is not to stay in the real
  // one under an address that means something else tomorrow.
  const cache = await Deno.makeTempDir({ prefix: "distchan_std_" });
  const registry = serveRegistry(std.packages);
  try {
    env["DENO_DIR"] = cache;
    env["JSR_URL"] = `http://127.0.0.1:${registry.addr.port}/`;
    await loadStd({ env }); // now, so that the command doesn't report downloads
    return await spawn(args, env);
  } finally {
    await registry.shutdown();
    await Deno.remove(cache, { recursive: true });
  }
}

async function spawn(
  args: string[],
  env: Record<string, string>,
): Promise<Deno.CommandStatus> {
  const child = new Deno.Command(Deno.execPath(), { args, env }).spawn();
  const removers = forwardedSignals().map((signal) => {
    const forward = () => {
      // A terminal sends SIGINT to the child as well: once is enough, because
      // many programs take the second one for "at once".
      if (signal === "SIGINT" && Deno.stdin.isTerminal()) return;
      try {
        child.kill(signal);
      } catch {
        // It ended by itself in the meantime.
      }
    };
    Deno.addSignalListener(signal, forward);
    return () => Deno.removeSignalListener(signal, forward);
  });
  try {
    return await child.status;
  } finally {
    for (const remove of removers) remove();
  }
}

function forwardedSignals(): Deno.Signal[] {
  return Deno.build.os === "windows"
    ? ["SIGINT", "SIGBREAK"]
    : ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"];
}

/** Ends this process the way another one ended. */
function exitLike(status: Deno.CommandStatus): never {
  if (status.signal !== null && Deno.build.os !== "windows") {
    Deno.kill(Deno.pid, status.signal);
  }
  Deno.exit(status.code);
}

function isDryRun(args: string[]): boolean {
  return args.includes("--dry-run");
}

/** Whether JSR's packages are in the cache, or can be put there now. */
async function canReachJsr(): Promise<boolean> {
  if (await loadStd({ cachedOnly: true })) return true;
  // Deno itself waits for minutes on a network that swallows packets.
  const base = Deno.env.get("JSR_URL") ?? "https://jsr.io/";
  try {
    const response = await fetch(new URL("@std/assert/meta.json", base), {
      signal: AbortSignal.timeout(JSR_PROBE_MS),
    });
    await response.body?.cancel();
    return response.ok && await loadStd();
  } catch {
    return false;
  }
}

/** Loads the packages from JSR into the cache; false if that can't be done. */
async function loadStd(
  { cachedOnly = false, env = {} }: {
    cachedOnly?: boolean;
    env?: Record<string, string>;
  } = {},
): Promise<boolean> {
  const code = Object.values(config.imports)
    .map((specifier) => `import ${JSON.stringify(specifier)};`).join("");
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-config", "--no-prompt", "--quiet"]
      .concat(cachedOnly ? "--cached-only" : [])
      .concat(`data:text/typescript,${encodeURIComponent(code)}`),
    env,
    stdin: "null",
    stdout: "null",
    stderr: "null",
    signal: AbortSignal.timeout(JSR_LOAD_MS),
  }).output();
  return success;
}

async function readStandIn(
  [name, path]: [string, string],
): Promise<StdPackage> {
  const folder = join(ROOT, "tools/std_offline");
  const specifier = Object.entries(config.imports)
    .find(([key]) => key === name)?.[1] ?? "";
  const text = await Deno.readTextFile(join(folder, path));
  return {
    name,
    version: specifier.slice(specifier.lastIndexOf("@") + 1).replace("^", ""),
    folder,
    exports: { ".": path },
    files: new Map([[path.slice(1), text]]),
  };
}

/** Reads our packages, and those that they import, from a checkout. */
async function readCheckout(checkout: string): Promise<StdPackage[]> {
  const packages = new Map<string, StdPackage>();
  const names = Object.keys(config.imports);
  for (const name of names) { // grows meanwhile
    if (packages.has(name)) continue;
    const folder = join(checkout, name.slice(5).replaceAll("-", "_"));
    let described: { version: string; exports: Record<string, string> };
    try {
      described = JSON.parse(
        await Deno.readTextFile(join(folder, "deno.json")),
      );
    } catch (cause) {
      throw new TypeError(
        `Cannot use DISTCHAN_STD=${checkout}: expected "jsr", "offline" or a` +
          ` checkout of denoland/std, but ${join(folder, "deno.json")} can't` +
          ` be read`,
        { cause },
      );
    }
    const { version, exports } = described;
    const files = await readFiles(folder);
    packages.set(name, { name, version, folder, exports, files });
    for (const text of files.values()) {
      for (const [, imported = ""] of text.matchAll(STD_IMPORT)) {
        names.push(imported);
      }
    }
  }
  return packages.values().toArray();
}

/** An import of code, not of an example in a comment. */
const STD_IMPORT = /^(?:import|export|\}).*"(@std\/[^/"]+)/gm;

async function readFiles(
  folder: string,
  at = "",
): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for await (const { name, isDirectory } of Deno.readDir(join(folder, at))) {
    const path = `${at}/${name}`;
    if (isDirectory) {
      for (const entry of await readFiles(folder, path)) files.set(...entry);
    } else if (name.endsWith(".ts") && !name.endsWith("_test.ts")) {
      files.set(path, await Deno.readTextFile(join(folder, path)));
    }
  }
  return files;
}

function importMapArg(packages: StdPackage[]): string {
  const imports: Record<string, string> = {};
  for (const { name, folder, exports } of packages) {
    for (const [subpath, path] of Object.entries(exports)) {
      const url = pathToFileURL(join(folder, path)).href;
      imports[name + subpath.slice(1)] = url;
    }
  }
  const json = JSON.stringify({ imports });
  return `--import-map=data:application/json,${encodeURIComponent(json)}`;
}

/**
 * Serves packages as JSR does (https://jsr.io/docs/api), on 127.0.0.1.
 *
 * @param packages The packages, and all that they import.
 * @returns The server; its address is what `JSR_URL` is to be set to.
 */
export function serveRegistry(
  packages: StdPackage[],
): Deno.HttpServer<Deno.NetAddr> {
  const versions = new Map(
    packages.map(({ name, version }) => [name, version] as const),
  );
  // In what JSR serves, imports of other packages have versions.
  const publish = (text: string) =>
    text.replace(
      /"(@std\/[^/"]+)((?:\/[^"]*)?)"/g,
      (all, name: string, subpath: string) =>
        versions.has(name)
          ? `"jsr:${name}@${versions.get(name)}${subpath}"`
          : all,
    );
  return Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      const { pathname } = new URL(request.url);
      for (const { name, version, exports, files } of packages) {
        if (pathname === `/${name}/meta.json`) {
          return Response.json({
            latest: version,
            versions: { [version]: {} },
          });
        }
        if (pathname === `/${name}/${version}_meta.json`) {
          const manifest: Record<string, unknown> = {};
          for (const [path, text] of files) {
            manifest[path] = await describe(publish(text));
          }
          return Response.json({ exports, manifest });
        }
        const folder = `/${name}/${version}`;
        const text = files.get(pathname.slice(folder.length));
        if (pathname.startsWith(`${folder}/`) && text !== undefined) {
          return new Response(publish(text), {
            headers: { "content-type": "application/typescript" },
          });
        }
      }
      return new Response("Not found", { status: 404 });
    },
  );
}

async function describe(
  text: string,
): Promise<{ size: number; checksum: string }> {
  const bytes = new TextEncoder().encode(text);
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return {
    size: bytes.length,
    checksum: `sha256-${new Uint8Array(digest).toHex()}`,
  };
}

async function main(): Promise<never> {
  const args = withoutTaskDashes(Deno.args);
  if (args.length === 0) {
    console.error("Usage: deno run -A tools/std.ts <subcommand> [arguments]");
    Deno.exit(2);
  }
  let status: Deno.CommandStatus;
  try {
    status = await runDeno(await resolveStd(), args.map(withThisDeno));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    console.error(`tools/std.ts: ${error.message}`);
    Deno.exit(2);
  }
  exitLike(status);
}

/**
 * Without the `--` of `deno task NAME -- ARGUMENTS`. One that stands behind a
 * script's own arguments is the script's: `run cli.ts map --local 2 -- echo`.
 */
function withoutTaskDashes(args: readonly string[]): string[] {
  const dashes = args.indexOf("--");
  const script = args.findIndex((arg, i) => i > 0 && !arg.startsWith("-"));
  const isOwn = args[0] === "run" && script > 0 && dashes > script + 1;
  return dashes < 0 || isOwn ? [...args] : args.toSpliced(dashes, 1);
}

function withThisDeno(arg: string): string {
  const flag = "--allow-run=";
  if (!arg.startsWith(flag)) return arg;
  const programs = arg.slice(flag.length).split(",")
    .map((program) => program === "deno" ? Deno.execPath() : program);
  return flag + programs.join(",");
}

if (import.meta.main) await main();
