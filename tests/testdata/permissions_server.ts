/**
 * A server with everything switched on. Its settings come as JSON from its
 * standard input, so that it may read no file and no environment.
 *
 * @module
 */

import { aesGcm, gzip, listen } from "../../mod.ts";
import { itemSchema, resultSchema } from "./permissions_schema.ts";

const { port, cert, key } = JSON.parse(
  await new Response(Deno.stdin.readable).text(),
);
const server = listen({
  port,
  cert,
  key,
  itemSchema,
  resultSchema,
  secret: "open sesame",
  transforms: [gzip(), aesGcm(new Uint8Array(32))],
});
console.log("ready");
console.log(await Array.fromAsync(server.map([1, 2, 3])));
await server.close();
