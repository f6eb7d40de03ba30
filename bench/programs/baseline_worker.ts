/** A worker of the hand-written peer. */
import { answer, type Item, Meter, readConfig, tell } from "../workload.ts";
import { JsonChannel } from "./json_channel.ts";

const config = readConfig();
const { batch } = config;
const meter = new Meter(config);
const channel = new JsonChannel(
  await Deno.connect({ hostname: "127.0.0.1", port: config.port }),
);
await channel.receive(
  config.scenario === "oneway"
    ? () => {
      meter.add(batch);
      return undefined;
    }
    : batch === 1
    ? (item) => {
      meter.add();
      return channel.send(answer(item as Item));
    }
    : (items) => {
      meter.add(batch);
      return channel.send((items as Item[]).map(answer));
    },
);
await channel.end();
channel.close();
tell({ report: meter.report() });
