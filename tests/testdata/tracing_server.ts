/**
 * A server for tests of tracing: takes items from standard input, a line of
 * JSON each, tells what becomes of them, and ends with it.
 */
import { listen, type WorkerInfo } from "../../mod.ts";

interface Settings {
  /** Whether each item is submitted in a span of its own, "request". */
  hasRequests?: boolean;
  /** Whether the server starts a thread that works. */
  isLocal?: boolean;
  /** Options of `listen()`. */
  options?: object;
}

interface Line {
  item: unknown;
  /** With `send()` instead of `submit()`. */
  isSent?: boolean;
  /** There is no item: those that were submitted are cancelled. */
  isCancel?: boolean;
}

const settings: Settings = JSON.parse(Deno.args[0] ?? "{}");
const { hasRequests = false, isLocal = false, options = {} } = settings;
const server = listen<unknown, unknown>({
  port: 0,
  onEvent: (event) => {
    if (event.type === "connected") greet(event.worker);
  },
  ...options,
  ...(isLocal
    ? {
      local: {
        module: new URL("./tracing_handler.ts", import.meta.url),
        count: 1,
      },
    }
    : {}),
});
console.log(`port ${(server.addr as Deno.NetAddr).port}`);
const reading = (async () => {
  for await (const value of server) console.log(`value ${value}`);
})();

/** Tells of a worker once it has asked for items: from then on it has its turn. */
async function greet({ id, name }: WorkerInfo): Promise<void> {
  while (server.workers.some((w) => w.id === id && w.state === "idle")) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  console.log(`connected ${name}`);
}

const cancel = new AbortController();

async function submit({ item }: Line): Promise<void> {
  try {
    const result = await server.submit(item, { signal: cancel.signal });
    console.log(`result ${result}`);
  } catch (error) {
    console.log(`failure ${(error as Error).message}`);
  }
}

function take(line: Line): unknown {
  if (line.isCancel) return cancel.abort();
  if (line.isSent) return server.send(line.item);
  if (!hasRequests) return submit(line);
  return Deno.telemetry.tracerProvider.getTracer("test")
    .startActiveSpan("request", async (span: { end(): void }) => {
      await submit(line);
      span.end();
    });
}

let text = "";
const decoder = new TextDecoder();
for await (const chunk of Deno.stdin.readable) {
  text += decoder.decode(chunk, { stream: true });
  const lines = text.split("\n");
  text = lines.pop()!;
  for (const line of lines) take(JSON.parse(line));
}
await server.close();
await reading;
