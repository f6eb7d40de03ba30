/**
 * The checksum server: SHA-256 of every file below a folder, printed as
 * sha256sum does, so that `sha256sum --check` reads it. Sends paths; the
 * workers read the files.
 *
 *     deno run --allow-net=127.0.0.1:5678 --allow-read=DIR examples/checksum/server.ts DIR
 *
 * Status 1 means that something couldn't be read; stderr says what.
 */
import { listen } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { announce, drainOnSignal, readArguments } from "../args.ts";
import type { Checksum, FileRef } from "./types.ts";
import { errorMessage, folderArgument, walk } from "./walk.ts";

const { hostname, port, positionals } = readArguments();
const root = await folderArgument(positionals[0]);

function fail(path: string, error: unknown): void {
  console.error(`${path}: ${errorMessage(error)}`);
  Deno.exitCode = 1;
}

await using server = listen<FileRef, Checksum>({
  hostname,
  port,
  // Without it, the first file that a worker can't read would end it all.
  onFailure: ({ item, error }) => fail(item.path, error),
});
drainOnSignal(server);
announce(server);

const files = ReadableStream.from(walk(root, fail));
for await (const { path, sha256 } of files.pipeThrough(server)) {
  console.log(sumLine(sha256, path));
}

/** One line as sha256sum writes it, a name with a line break or `\` escaped. */
function sumLine(sha256: string, path: string): string {
  const escaped = path.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r");
  return `${escaped === path ? "" : "\\"}${sha256}  ${escaped}`;
}
