/**
 * The capitalizer's server: takes lines from standard input, has them
 * capitalized by however many workers there are, and prints them as they come.
 *
 *     printf 'hello\nworld\n' | deno run --allow-net=127.0.0.1:5678 examples/capitalizer/server.ts
 *
 * Nothing is taken from standard input while no worker has room for it.
 */
import { TextLineStream } from "@std/streams";
import { listen } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { announce, drainOnSignal, readArguments } from "../args.ts";
import type { Capitalized, Line } from "./types.ts";

const { hostname, port } = readArguments();
await using server = listen<Line, Capitalized>({ hostname, port });
drainOnSignal(server);
announce(server);

const lines = Deno.stdin.readable
  .pipeThrough(new TextDecoderStream())
  .pipeThrough(new TextLineStream());

// The whole pool of workers is one TransformStream.
for await (const line of lines.pipeThrough(server)) console.log(line);
