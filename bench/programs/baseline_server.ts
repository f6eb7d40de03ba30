/** The server of the hand-written peer. */
import {
  expected,
  makeItem,
  Meter,
  readConfig,
  sendMs,
  tell,
} from "../workload.ts";
import type { Answer } from "../workload.ts";
import { JsonChannel } from "./json_channel.ts";

const config = readConfig();
const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
tell({ port: listener.addr.port });
const channels: JsonChannel[] = [];
for (let i = 0; i < config.workers * config.connections; i++) {
  channels.push(new JsonChannel(await listener.accept()));
}
listener.close();

if (config.scenario === "oneway") {
  const until = performance.now() + sendMs(config);
  await send(() => performance.now() >= until);
} else {
  const meter = new Meter(config);
  let sum = 0;
  const onValue = (value: unknown) => {
    sum += (value as Answer).answer;
    meter.add();
    return undefined;
  };
  const received = channels.map((channel) => channel.receive(onValue));
  const sent = await send(() => meter.done);
  await Promise.all(received);
  let total = 0;
  for (let i = 0; i < sent; i++) total += expected(i);
  if (meter.count !== sent || sum !== total) throw new Error("wrong answers");
  tell({ report: meter.report() });
}
for (const channel of channels) channel.close();

async function send(isOver: () => boolean): Promise<number> {
  let i = 0;
  while ((i & 0xff) !== 0 || !isOver()) {
    const room = channels[i % channels.length]!.send(makeItem(i++));
    if (room !== undefined) await room;
  }
  await Promise.all(channels.map((channel) => channel.end()));
  return i;
}
