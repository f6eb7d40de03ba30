/**
 * A worker of the map pool: counts the words in some lines.
 *
 *     deno run --allow-net=127.0.0.1:5678 examples/wordcount/map_worker.ts
 *
 * A generator gives several values for one item. Should this worker die in the
 * middle of them, the next one gives all of them again, and those words count
 * twice: where that matters, return one array for the item instead.
 */
import { work } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { readArguments, stopSignal } from "../args.ts";
import type { Count, Lines } from "./types.ts";

const { hostname, port } = readArguments();

async function* count(lines: Lines): AsyncGenerator<Count> {
  const counts = new Map<string, number>();
  for (const [word] of lines.join("\n").matchAll(/[\p{L}\p{N}]+/gu)) {
    const key = word.toLowerCase();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  for (const [word, count] of counts) yield { word, count };
}

await work<Lines, Count>({ hostname, port }, count, { signal: stopSignal() });
