/** A worker of the hand-written peer. */
import { answer, type Item, Meter, readConfig, tell } from "../workload.ts";
import { JsonChannel } from "./json_channel.ts";

const config = readConfig();
const meter = new Meter(config);
const isOneWay = config.scenario === "oneway";
await Promise.all(Array.from({ length: config.connections }, run));
tell({ report: meter.report() });

async function run(): Promise<void> {
  const channel = new JsonChannel(
    await Deno.connect({ hostname: "127.0.0.1", port: config.port }),
  );
  await channel.receive((item) => {
    meter.add();
    return isOneWay ? undefined : channel.send(answer(item as Item));
  });
  await channel.end();
  channel.close();
}
