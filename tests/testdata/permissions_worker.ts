/**
 * The worker of `permissions_server.ts`.
 *
 * @module
 */

import { aesGcm, gzip, work } from "../../mod.ts";
import { itemSchema, resultSchema } from "./permissions_schema.ts";

const { port, caCerts } = JSON.parse(
  await new Response(Deno.stdin.readable).text(),
);
await work({
  port,
  tls: { caCerts },
  itemSchema,
  resultSchema,
  secret: "open sesame",
  transforms: [gzip(), aesGcm(new Uint8Array(32))],
}, (n) => n * n);
console.log("done");
