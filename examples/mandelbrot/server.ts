/**
 * The Mandelbrot server: has the rows of a picture computed, and puts them
 * together in their order, as a PNG file.
 *
 *     deno run --allow-net=127.0.0.1:5678 --allow-write=mandelbrot.png examples/mandelbrot/server.ts mandelbrot.png
 *
 * `--width` is in pixels; the height is two thirds of it.
 */
import { listen } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import {
  announce,
  drainOnSignal,
  readArguments,
  usageError,
  wholeNumber,
} from "../args.ts";
import { ProgressLine } from "../progress.ts";
import { png } from "./png.ts";
import type { Pixels, Row } from "./types.ts";

const { hostname, port, values, positionals } = readArguments("width");
const width = wholeNumber("--width", values.width ?? "3000", {
  min: 1,
  max: 60_000,
});
const height = Math.ceil(width * 2 / 3);
const [path] = positionals;
if (path === undefined) usageError("which file is the picture to go into?");

await using server = listen<Row, Pixels>({ hostname, port });
const stopped = drainOnSignal(server);
announce(server);
using progress = new ProgressLine();

function* rows(): Generator<Row> {
  for (let y = 0; y < height; y++) yield { y, width, height };
}

async function* inOrder(): AsyncGenerator<Pixels> {
  let done = 0;
  // As pipeThrough(server) does, but in the order of the rows.
  for await (const pixels of server.map(rows())) {
    yield pixels;
    progress.show(++done, height, "rows");
  }
}

try {
  const picture = ReadableStream.from(png(width, height, inOrder()));
  // Not before it is whole: there is never half a picture.
  await Deno.writeFile(path, await new Response(picture).bytes());
} catch (error) {
  if (!stopped.aborted) throw error;
}
