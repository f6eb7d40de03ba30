/** The server of distchan, through all of its faces. */
import { listen, type Server } from "../../mod.ts";
import {
  type Answer,
  expected,
  type Item,
  makeItem,
  Meter,
  readConfig,
  sendMs,
  tell,
} from "../workload.ts";

const config = readConfig();
const server = listen<Item, Answer>({
  port: 0,
  results: config.scenario.startsWith("oneway") ? "discard" : "keep",
});
tell({ port: (server.addr as Deno.NetAddr).port });
await server.ready(config.workers * config.connections);

switch (config.scenario) {
  case "roundtrip":
    await roundTrip();
    break;
  case "oneway": {
    const until = performance.now() + sendMs(config);
    await send(server, () => performance.now() >= until);
    break;
  }
  default:
    throw new TypeError(`Unknown scenario: ${config.scenario}`);
}
await server.closed;

async function roundTrip(): Promise<void> {
  const meter = new Meter(config);
  let sum = 0;
  const sending = send(server, () => meter.done);
  for await (const { answer } of server) {
    sum += answer;
    meter.add();
  }
  check(meter, sum, await sending);
}

async function send(
  server: Server<Item, Answer>,
  isOver: () => boolean,
): Promise<number> {
  let i = 0;
  while ((i & 0xff) !== 0 || !isOver()) {
    const room = server.send(makeItem(i++));
    if (room !== undefined) await room;
  }
  await server.end();
  return i;
}

function check(meter: Meter, sum: number, sent: number): void {
  let total = 0;
  for (let i = 0; i < sent; i++) total += expected(i);
  if (meter.count !== sent || sum !== total) throw new Error("wrong answers");
  tell({ report: meter.report() });
}
