/**
 * The checksum worker: SHA-256 of the files that the server names. It reads
 * them itself, so it needs the same folder: on one machine that is given, on
 * several it is a shared file system.
 *
 *     deno run --allow-net=127.0.0.1:5678 --allow-read=DIR examples/checksum/worker.ts DIR
 *
 * Deno holds it to DIR, whatever path a server may send.
 */
import { createHash } from "node:crypto";
import { work } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { readArguments, stopSignal, wholeNumber } from "../args.ts";
import type { Checksum, FileRef } from "./types.ts";
import { folderArgument } from "./walk.ts";

const { hostname, port, values, positionals } = readArguments(
  "name",
  "give-up",
);
const root = await folderArgument(positionals[0]);
const name = values.name ?? `worker ${Deno.pid}`;
// Seconds without a server after which to end; without it, never.
const giveUp = values["give-up"];
const maxElapsedMs = giveUp === undefined
  ? Infinity
  : wholeNumber("--give-up", giveUp) * 1000;

async function checksum({ id, path }: FileRef): Promise<Checksum> {
  using file = await Deno.open(`${root}/${path}`);
  // By chunks: crypto.subtle.digest() would need the whole file in memory.
  const hash = createHash("sha256");
  for await (const chunk of file.readable) hash.update(chunk);
  return { id, path, sha256: hash.digest("hex"), worker: name };
}

await work<FileRef, Checksum>(
  { hostname, port, name, reconnect: { maxElapsedMs } },
  checksum,
  { concurrency: 4, signal: stopSignal() }, // one reads while another computes
);
