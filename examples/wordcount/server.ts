/**
 * Counts the words on standard input by two pools in a row: the map pool counts
 * in bundles of lines, the reduce pool adds up, each reducer its own words.
 *
 *     cat *.md | deno run --allow-net=127.0.0.1:5678,127.0.0.1:5679 examples/wordcount/server.ts
 *
 * The pools listen on `--port` and `--reduce-port`. `--reducers` is how many
 * reducers to wait for: one that came later would take over words that another
 * has counted a part of.
 */
import { TextLineStream } from "@std/streams";
import { listen } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import {
  announce,
  drainOnSignal,
  readArguments,
  wholeNumber,
} from "../args.ts";
import type { Count, Lines } from "./types.ts";

const { hostname, port, values } = readArguments(
  "reduce-port",
  "reducers",
);
const reducePort = wholeNumber(
  "--reduce-port",
  values["reduce-port"] ?? "5679",
  { max: 65535 },
);
const reducerCount = wholeNumber("--reducers", values.reducers ?? "1", {
  min: 1,
});

await using mappers = listen<Lines, Count>({ hostname, port });
await using reducers = listen<Count, Count>({
  hostname,
  port: reducePort,
  dispatch: { key: ({ word }) => word },
});
const stopped = drainOnSignal(mappers);
announce(mappers);
announce(reducers);
await reducers.ready(reducerCount, { signal: stopped })
  .catch(() => Deno.exit(130));

async function* bundles(): AsyncGenerator<Lines> {
  const lines = Deno.stdin.readable
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream());
  let bundle: Lines = [];
  for await (const line of lines) {
    if (bundle.push(line) < 100) continue;
    yield bundle;
    bundle = [];
  }
  yield bundle;
}

const text = ReadableStream.from(bundles());
const counts = text.pipeThrough(mappers).pipeThrough(reducers);
for await (const { word, count } of counts) console.log(`${count}\t${word}`);
