/**
 * A worker of the reduce pool: adds up the counts of its words, and gives the
 * totals at the end. All counts of a word come here, because the server
 * dispatches by key.
 *
 *     deno run --allow-net=127.0.0.1:5679 examples/wordcount/reduce_worker.ts --port 5679
 *
 * What it has counted is in its memory alone: if it dies, that is lost.
 */
import { connect } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import { readArguments } from "../args.ts";
import type { Count } from "./types.ts";

const { hostname, port } = readArguments();
const client = await connect<Count, Count>({ hostname, port });
// Taken before the end of the counts: a client that has never touched its
// writable says goodbye there.
const writer = client.writable.getWriter();

const totals = new Map<string, number>();
for await (const { word, count } of client) {
  totals.set(word, (totals.get(word) ?? 0) + count);
}
for (const [word, count] of totals) await writer.write({ word, count });
await writer.close();
await client.closed;
