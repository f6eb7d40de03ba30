/** What workers do in tests of tracing. */
import type { WorkContext } from "../../mod.ts";

export type TracedItem =
  /** The result is the attempt. */
  | { act: "attempt" }
  /** The handler throws. */
  | { act: "throw" }
  /** The thread, or the process, ends. */
  | { act: "exit" }
  /** At the first attempt it tells so, and goes on until it is stopped. */
  | { act: "hang" }
  /** A page is fetched: the result is its text. */
  | { act: "fetch"; url: string }
  /** The same, with the text as a value. */
  | { act: "generate"; url: string };

export default function handle(
  item: TracedItem,
  { attempt, signal }: WorkContext,
): unknown {
  switch (item.act) {
    case "attempt":
      return attempt;
    case "throw":
      throw new RangeError("Cannot do it");
    case "exit":
      return Deno.exit(3);
    case "hang":
      if (attempt > 1) return attempt;
      console.log("hanging");
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
      });
    case "fetch":
      return fetchText(item.url);
    case "generate":
      return (async function* () {
        yield await fetchText(item.url);
      })();
  }
}

async function fetchText(url: string): Promise<string> {
  await Promise.resolve(); // the span is still the active one behind it
  return await (await fetch(url)).text();
}
