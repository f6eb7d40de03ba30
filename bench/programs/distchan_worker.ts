/** A worker of distchan, through all of its faces. */
import { type Client, connect } from "../../mod.ts";
import {
  type Answer,
  answer,
  type Item,
  Meter,
  readConfig,
  tell,
} from "../workload.ts";

type Scenario = (client: Client<Item, Answer>) => Promise<void>;

const scenarios: Record<string, Scenario> = {
  roundtrip: work,
  map: work,
  serial: work,
  growth: work,
  streams,
  oneway: iterate,
  bulk: iterate,
  onewayStreams: read,
};

const config = readConfig();
const { port, prefetch } = config;
const meter = new Meter(config, config.scenario === "bulk" ? 16 : 256);
await Promise.all(
  Array.from({ length: config.workersAProcess }, async () => {
    const client = await connect<Item, Answer>({ port, prefetch });
    await scenarios[config.scenario]!(client);
    await client.closed;
  }),
);
tell({ report: meter.report() });

async function work(client: Client<Item, Answer>): Promise<void> {
  await client.work((item) => {
    meter.add();
    return answer(item);
  });
}

async function streams(client: Client<Item, Answer>): Promise<void> {
  const writer = client.writable.getWriter();
  for await (const item of client.readable) {
    meter.add();
    await writer.write(answer(item));
  }
  await writer.close();
}

async function iterate(client: Client<Item, Answer>): Promise<void> {
  for await (const _ of client) meter.add();
}

async function read(client: Client<Item, Answer>): Promise<void> {
  for await (const _ of client.readable) meter.add();
}
