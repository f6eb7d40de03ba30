/** The server of distchan, through all of its faces. */
import { listen, type Server } from "../../mod.ts";
import {
  type Answer,
  cpuMicros,
  expected,
  heapAfterGc,
  type Item,
  makeItem,
  Meter,
  readConfig,
  sendOneWay,
  takeTrips,
  tell,
} from "../workload.ts";

/** Values that a source makes at a pull, and a writer when it is ready. */
const BURST = 64;

type Scenario = (server: Server<Item, Answer>) => Promise<void>;

const scenarios: Record<string, Scenario> = {
  roundtrip,
  map,
  streams,
  oneway,
  onewayStreams,
  bulk,
  serial,
  growth,
};

const config = readConfig();
async function roundtrip(server: Server<Item, Answer>): Promise<void> {
  const meter = new Meter(config);
  let sum = 0;
  const sending = send(server, () => meter.done);
  for await (const { answer } of server) {
    sum += answer;
    meter.add();
  }
  check(meter, sum, await sending);
}

async function map(server: Server<Item, Answer>): Promise<void> {
  const meter = new Meter(config);
  function* items(): Generator<Item> {
    for (let i = 0; !meter.done; i++) yield makeItem(i);
  }
  for await (const { answer } of server.map(items())) {
    if (answer !== expected(meter.count)) throw new Error("wrong answer");
    meter.add();
  }
  tell({ report: meter.report() });
}

async function streams(server: Server<Item, Answer>): Promise<void> {
  const meter = new Meter(config);
  const items = new Source(() => meter.done);
  let sum = 0;
  for await (const { answer } of items.stream.pipeThrough(server)) {
    sum += answer;
    meter.add();
  }
  check(meter, sum, items.count);
}

async function oneway(server: Server<Item, Answer>): Promise<void> {
  const report = await sendOneWay(config, (isOver) => send(server, isOver));
  tell({ report });
}

async function onewayStreams(server: Server<Item, Answer>): Promise<void> {
  const report = await sendOneWay(config, async (isOver) => {
    const writer = server.writable.getWriter();
    let i = 0;
    while ((i & 0xff) !== 0 || !isOver()) {
      await writer.ready;
      for (let k = 0; k < BURST; k++) writer.write(makeItem(i++));
    }
    await writer.close();
    return i;
  });
  tell({ report });
}

async function bulk(server: Server<Item, Answer>): Promise<void> {
  const bytes: unknown = new Uint8Array(config.bytes).fill(1);
  const report = await sendOneWay(config, async (isOver) => {
    let count = 0;
    for (; !isOver(); count++) {
      const room = server.send(bytes as Item);
      if (room !== undefined) await room;
    }
    await server.end();
    return count;
  });
  tell({ report });
}

async function serial(server: Server<Item, Answer>): Promise<void> {
  tell({ report: await takeTrips((i) => server.submit(makeItem(i))) });
}

/** Rounds of so many items: each must be as fast, and leave as little. */
async function growth(server: Server<Item, Answer>): Promise<void> {
  const results = server[Symbol.asyncIterator]();
  const rates: number[] = [], heapBytes: number[] = [];
  const fromCpu = cpuMicros();
  let total = 0;
  for (const [round, count] of config.counts.entries()) {
    tell({ phase: round });
    const from = performance.now();
    const sending = sendCount(server, count);
    for (let i = 0; i < count; i++) await results.next();
    await sending;
    rates.push(count / (performance.now() - from) * 1000);
    heapBytes.push(heapAfterGc());
    total += count;
  }
  const cpu = (cpuMicros() - fromCpu) / total;
  tell({ report: { rate: rates.at(-1), cpuMicros: cpu, rates, heapBytes } });
  await server.end();
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

async function sendCount(
  server: Server<Item, Answer>,
  count: number,
): Promise<void> {
  for (let i = 0; i < count; i++) {
    const room = server.send(makeItem(i));
    if (room !== undefined) await room;
  }
}

/** Items as a stream, made in bursts: the cheapest that a source can be. */
class Source {
  count = 0;
  readonly stream: ReadableStream<Item>;

  constructor(isOver: () => boolean) {
    this.stream = new ReadableStream({
      pull: (controller) => {
        for (let i = 0; i < BURST; i++) {
          controller.enqueue(makeItem(this.count++));
        }
        if (isOver()) controller.close();
      },
    });
  }
}

function check(meter: Meter, sum: number, sent: number): void {
  let total = 0;
  for (let i = 0; i < sent; i++) total += expected(i);
  if (meter.count !== sent || sum !== total) throw new Error("wrong answers");
  tell({ report: meter.report() });
}

const isOneWay = config.scenario.startsWith("oneway") ||
  config.scenario === "bulk";
const server = listen<Item, Answer>({
  port: 0,
  results: isOneWay ? "discard" : "keep",
});
tell({ port: (server.addr as Deno.NetAddr).port });
await server.ready(config.workers);
await scenarios[config.scenario]!(server);
await server.close();
