/** A worker of distchan, through all of its faces. */
import { connect } from "../../mod.ts";
import {
  type Answer,
  answer,
  type Item,
  Meter,
  readConfig,
  tell,
} from "../workload.ts";

const config = readConfig();
const { port } = config;
const meter = new Meter(config);
await Promise.all(Array.from({ length: config.connections }, run));
tell({ report: meter.report() });

async function run(): Promise<void> {
  const client = await connect<Item, Answer>({ port });
  switch (config.scenario) {
    case "roundtrip":
      await client.work((item) => {
        meter.add();
        return answer(item);
      });
      break;
    case "oneway":
      for await (const _ of client) meter.add();
      break;
    default:
      throw new TypeError(`Unknown scenario: ${config.scenario}`);
  }
  await client.closed;
}
