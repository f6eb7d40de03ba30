/**
 * The capitalizer's worker: start as many as you like, before the server or
 * after it, on this machine or (with `--host`) on others.
 *
 *     deno run --allow-net=127.0.0.1:5678 examples/capitalizer/worker.ts
 */
import { work } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { readArguments, stopSignal } from "../args.ts";
import type { Capitalized, Line } from "./types.ts";

const { hostname, port } = readArguments();

// The hard part:
const capitalize = (line: Line): Capitalized => line.toUpperCase();

await work<Line, Capitalized>({ hostname, port }, capitalize, {
  signal: stopSignal(),
});
