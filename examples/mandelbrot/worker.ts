/**
 * The Mandelbrot worker: computes rows, one after the other. Start one for each
 * core.
 *
 *     deno run --allow-net=127.0.0.1:5678 examples/mandelbrot/worker.ts
 */
import { work } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { readArguments, stopSignal } from "../args.ts";
import row from "./handler.ts";
import type { Pixels, Row } from "./types.ts";

const { hostname, port } = readArguments();
await work<Row, Pixels>({ hostname, port }, row, { signal: stopSignal() });
