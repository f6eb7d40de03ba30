/** Works with handlers/trouble.ts in an isolate; prints what failed. */
import { work } from "../../mod.ts";

const [port, options] = Deno.args as [string, string];
await work(
  {
    port: Number(port),
    onEvent: (event) => {
      if (event.type === "failed") console.log(event.error.message);
    },
  },
  new URL("./handlers/trouble.ts", import.meta.url),
  { isolate: true, ...JSON.parse(options) },
);
