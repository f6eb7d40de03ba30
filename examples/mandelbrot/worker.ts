/**
 * The Mandelbrot worker: computes rows on all cores. Each core has an isolate
 * that runs handler.ts, so that the worker itself stays free to answer the
 * server, however long a row takes.
 *
 *     deno run --allow-net=127.0.0.1:5678 --allow-read=. examples/mandelbrot/worker.ts
 *
 * It reads the modules that run in isolates, and only those. In a binary the
 * handler has to be included, because nothing imports it:
 *
 *     deno compile --allow-net=127.0.0.1:5678 --allow-read=. --include examples/mandelbrot/handler.ts --output mandelbrot-worker examples/mandelbrot/worker.ts
 */
import { work } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { readArguments, stopSignal } from "../args.ts";
import type { Pixels, Row } from "./types.ts";

const { hostname, port } = readArguments();
const handler = new URL("./handler.ts", import.meta.url);

await work<Row, Pixels>({ hostname, port }, handler, {
  isolate: true,
  concurrency: navigator.hardwareConcurrency,
  signal: stopSignal(),
});
