/**
 * The adder's worker, written with channels instead of `work()`: it reads
 * questions from one end and writes answers into the other. Connects once, so
 * the server has to be there.
 *
 *     deno run --allow-net=127.0.0.1:5678 examples/adder/worker.ts
 *
 * Ctrl-C simply ends it: the questions it held go to another worker.
 */
import { connect } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { readArguments } from "../args.ts";
import type { Answer, Question } from "./types.ts";

const { hostname, port } = readArguments();
const client = await connect<Question, Answer>({ hostname, port });

for await (const { id, a, b } of client) {
  // Asking for the next question settles this one, so its answer goes first.
  await client.send({ id, answer: a + b });
}
await client.end();
await client.closed; // every answer is at the server
