/** A worker of the hand-written peers. */
import { answer, type Item, Meter, readConfig, tell } from "../workload.ts";
import { JsonChannel } from "./json_channel.ts";
import { NaiveChannel } from "./naive_channel.ts";

const config = readConfig();
const { batch, isNaive, port } = config;
const meter = new Meter(config);
const conn = await Deno.connect({ hostname: "127.0.0.1", port });
const channel = isNaive ? new NaiveChannel(conn) : new JsonChannel(conn);
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
