/** The server of the hand-written peers. */
import {
  type Answer,
  expected,
  makeItem,
  Meter,
  readConfig,
  sendOneWay,
  tell,
} from "../workload.ts";
import { type Channel, JsonChannel } from "./json_channel.ts";
import { NaiveChannel } from "./naive_channel.ts";

const config = readConfig();
const { batch, isNaive } = config;
const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
tell({ port: listener.addr.port });
const channels: Channel[] = [];
for (let i = 0; i < config.workers; i++) {
  const conn = await listener.accept();
  channels.push(isNaive ? new NaiveChannel(conn) : new JsonChannel(conn));
}
listener.close();

if (config.scenario === "oneway") {
  tell({ report: await sendOneWay(config, send) });
} else {
  const meter = new Meter(config);
  let sum = 0;
  const onAnswer = (value: unknown) => {
    sum += (value as Answer).answer;
    meter.add();
    return undefined;
  };
  const onAnswers = (values: unknown) => {
    for (const { answer } of values as Answer[]) sum += answer;
    meter.add(batch);
    return undefined;
  };
  const received = channels.map((channel) =>
    channel.receive(batch === 1 ? onAnswer : onAnswers)
  );
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
  for (let turn = 0; (i & 0xff) !== 0 || !isOver(); turn++) {
    const channel = channels[turn % channels.length]!;
    const room = channel.send(
      batch === 1
        ? makeItem(i++)
        : Array.from({ length: batch }, () => makeItem(i++)),
    );
    if (room !== undefined) await room;
  }
  await Promise.all(channels.map((channel) => channel.end()));
  return i;
}
