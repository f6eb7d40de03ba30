/**
 * Both ends in one process, with a handler that is given as a URL. Its settings
 * come as JSON from its standard input, so that it may read no more files than
 * it has to.
 *
 * @module
 */

import { listen, work } from "../../../mod.ts";

const { how, port, ...tls } = JSON.parse(
  await new Response(Deno.stdin.readable).text(),
);
const module = new URL("./handler.ts", import.meta.url);
const server = listen<number, number>({
  port,
  ...tls,
  ...(how === "local" ? { local: { module, count: 1 } } : {}),
});
const working = how === "local"
  ? server.closed
  : work<number, number>({ port }, module, { isolate: how === "isolate" });
try {
  console.log(await Promise.race([server.submit(3), working]));
  await server.close();
  await working;
} catch (error) {
  const [, file] = (error as Error).message
    .match(/^Cannot load the handler .* read access to "(.*?)"/) ?? [];
  if (file === undefined) throw error;
  console.log(`needs ${file}`);
  Deno.exit(1);
}
