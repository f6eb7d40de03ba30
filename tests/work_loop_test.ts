/**
 * `work()` without the connection.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { setImmediate as turned } from "node:timers";
import { setImmediate } from "node:timers/promises";
import {
  type Client,
  connect,
  ConnectionLostError,
  type Handler,
  listen,
  type Server,
  type StandardSchemaV1,
  work,
} from "../mod.ts";
import { Outlet } from "../internal/channel.ts";
import type { Delivery, Item, Way, Worker } from "../internal/delivery.ts";
import { ItemKind } from "../internal/frame.ts";
import { Entry } from "../internal/in_flight.ts";
import { MapRun } from "../internal/map_run.ts";
import type { WorkSink } from "../internal/runner.ts";
import { Turns } from "../internal/turns.ts";
import type { WorkItem } from "../internal/work_items.ts";
import { WorkLoop } from "../internal/work_loop.ts";
import { until, within } from "./_support/within.ts";

/** A clock that goes when it is told to. */
class Clock implements Disposable {
  now = 0;
  readonly #real = performance.now;

  constructor() {
    performance.now = () => this.now;
  }

  [Symbol.dispose](): void {
    performance.now = this.#real;
  }
}

function items(from: number, count: number, value: unknown): WorkItem[] {
  return Array.from({ length: count }, (_, i) => {
    const delivery = from + i;
    return { delivery, id: delivery, attempt: 1, kind: ItemKind.VALUE, value };
  });
}

/** Where answers go: nowhere, but for what a test looks at. */
function sink(watched: Partial<WorkSink> = {}): WorkSink {
  return {
    scope: null,
    isBusy: () => false,
    result: () => {},
    done: () => {},
    error: () => {},
    value: () => undefined,
    onIdle: () => {},
    ...watched,
  };
}

Deno.test("WorkLoop: slow handlers behind quick ones don't keep the event loop", async () => {
  using clock = new Clock();
  const idle = Promise.withResolvers<void>();
  let slow = 0, settled = 0;
  const loop = new WorkLoop(
    (ms: number) => {
      clock.now += ms;
      if (ms > 0) slow++;
    },
    1,
    sink({
      result: () => void settled++,
      onIdle: () => slow > 0 && idle.resolve(),
    }),
  );
  for (const item of items(0, 1000, 0)) loop.push(item);
  loop.run();
  assertEquals(settled, 1000, "quick ones are done at once");
  for (const item of items(1000, 64, 1000)) loop.push(item);
  loop.run();
  assert(slow <= 9, `${slow} s without a turn of the event loop`);
  await within(idle.promise, 5000, "all are done");
  assertEquals(settled, 1064);
});

let called = 0;
/** Slow handlers, by when they keep the event loop. */
const SLOW: Record<string, (keep: () => void) => unknown> = {
  "slow handlers": (keep) => keep(),
  "slow async handlers": (keep) => Promise.resolve(keep()),
  "slow handlers that wait first": (keep) => Promise.resolve().then(keep),
  "slow handlers of which some wait for long": (keep) =>
    (called++ % 2 === 0 ? setImmediate() : Promise.resolve()).then(keep),
  "slow generators that wait first": async function* (keep) {
    await null;
    yield keep();
  },
};
for (const [what, handler] of Object.entries(SLOW)) {
  Deno.test(`WorkLoop: ${what} have a turn of the event loop between any two`, async () => {
    using clock = new Clock();
    const idle = Promise.withResolvers<void>();
    const turns = new Set<number>();
    let turn = 0;
    const loop = new WorkLoop(
      (ms: number) =>
        handler(() => {
          turns.add(turn);
          clock.now += ms;
          turned(() => turn++);
        }),
      1,
      sink({
        onIdle: () => idle.resolve(),
      }),
    );
    for (const item of items(0, 10, 20)) loop.push(item);
    loop.run();
    await within(idle.promise, 5000, "all are done");
    assertEquals(turns.size, 10);
    loop.close();
  });

  Deno.test(`WorkLoop: results of ${what} leave before the next begins`, async () => {
    using clock = new Clock();
    const idle = Promise.withResolvers<void>();
    const told: string[] = [];
    // As a connection under load does it.
    const leave = () => void turned(() => told.push("left"));
    const loop = new WorkLoop(
      (ms: number) =>
        handler(() => {
          told.push("kept");
          clock.now += ms;
        }),
      1,
      sink({
        result: leave,
        done: leave,
        onIdle: () => idle.resolve(),
      }),
    );
    for (const item of items(0, 5, 20)) loop.push(item);
    loop.run();
    await within(idle.promise, 5000, "all are done");
    await until(() => told.length === 10, "all have left");
    assertEquals(told, Array(5).fill(["kept", "left"]).flat());
    loop.close();
  });

  Deno.test(`WorkLoop: what comes behind ${what} waits for the turn, too`, async () => {
    using clock = new Clock();
    const begun: number[] = [];
    let turn = 0;
    const loop = new WorkLoop(
      (ms: number) =>
        handler(() => {
          begun.push(turn);
          clock.now += ms;
          turned(() => turn++);
        }),
      1,
      sink(),
    );
    for (const item of items(0, 3, 20)) {
      loop.push(item); // nothing else waits
      loop.run();
      // It is read before the event loop has had a turn.
      for (let n = 0; n < 10; n++) await null;
    }
    await until(() => begun.length === 3 && loop.isIdle, "all are done");
    assertEquals(begun, [0, 1, 2]);
    loop.close();
  });
}

Deno.test("WorkLoop: each value of a slow generator leaves before the next", async () => {
  using clock = new Clock();
  const idle = Promise.withResolvers<void>();
  const told: string[] = [];
  const loop = new WorkLoop(
    async function* (ms: number) {
      for (let n = 0; n < 4; n++) {
        told.push("kept");
        clock.now += ms;
        yield n;
      }
    },
    1,
    sink({
      value: () => void turned(() => told.push("left")),
      onIdle: () => idle.resolve(),
    }),
  );
  loop.push(items(0, 1, 20)[0]!);
  loop.run();
  await within(idle.promise, 5000, "it is done");
  assertEquals(told, Array(4).fill(["kept", "left"]).flat());
  loop.close();
});

Deno.test("WorkLoop begins nothing that couldn't be answered yet", () => {
  const begun: number[] = [];
  let isBusy = true;
  const loop = new WorkLoop(
    (n: number) => void begun.push(n),
    2,
    sink({
      isBusy: () => isBusy,
      result: () => isBusy = begun.length === 2,
    }),
  );
  for (const n of [1, 2, 3]) for (const item of items(n, 1, n)) loop.push(item);
  loop.run();
  assertEquals(begun, []);
  isBusy = false;
  loop.goOn();
  assertEquals(begun, [1, 2], "the second answer was too much");
  isBusy = false;
  loop.goOn();
  assertEquals(begun, [1, 2, 3]);
});

Deno.test("WorkLoop: a handler that lets it go on is at its end before the next begins", () => {
  const told: string[] = [];
  const loop = new WorkLoop(
    (n: number) => {
      told.push(`begin ${n}`);
      loop.run(); // as more items, or room for answers, would
      loop.goOn();
      told.push(`end ${n}`);
    },
    1,
    sink({ onIdle: () => told.push("idle") }),
  );
  for (const n of [1, 2]) for (const item of items(n, 1, n)) loop.push(item);
  loop.run();
  assertEquals(told, ["begin 1", "end 1", "begin 2", "end 2", "idle"]);
});

Deno.test("WorkLoop.cancel(): who asks for its signal later sees it aborted", () => {
  let signal: (() => AbortSignal) | undefined;
  const loop = new WorkLoop(
    (_item, context) => {
      signal = () => context.signal;
      return new Promise(() => {});
    },
    1,
    sink(),
  );
  loop.push(items(0, 1, null)[0]!);
  loop.run();
  loop.cancel(0);
  assertEquals(signal!().reason.name, "AbortError");
});

Deno.test("WorkLoop: a handler's signal is the same each time it is asked for", () => {
  const signals: AbortSignal[] = [];
  const loop = new WorkLoop(
    (_item, context) => {
      signals.push(context.signal, context.signal);
      return new Promise(() => {});
    },
    1,
    sink(),
  );
  loop.push(items(0, 1, null)[0]!);
  loop.run();
  loop.cancel(0);
  assertEquals(signals.map(({ aborted }) => aborted), [true, true]);
});

Deno.test("WorkLoop.abort() leaves the signal of an item that is settled alone", () => {
  for (const throws of [false, true]) {
    let signal: AbortSignal | undefined;
    const loop = new WorkLoop(
      (_item, context) => {
        signal = context.signal;
        if (throws) throw new Error("not this one");
      },
      1,
      sink(),
    );
    loop.push(items(0, 1, null)[0]!);
    loop.run();
    loop.abort(new Error("the connection is lost"));
    assertEquals(signal!.aborted, false, throws ? "it threw" : "it returned");
  }
});

Deno.test("WorkLoop.cancel(): a generator whose values have no room is done", async () => {
  const { promise: left, resolve: leave } = Promise.withResolvers<void>();
  const { promise: failed, resolve: fail } = Promise.withResolvers<unknown>();
  async function* values() {
    try {
      yield await Promise.resolve(1);
    } finally {
      leave();
    }
  }
  const asked = Promise.withResolvers<void>();
  const loop = new WorkLoop(
    values,
    1,
    sink({
      error: (_item, error) => fail(error),
      value: () => {
        asked.resolve();
        return new Promise(() => {});
      },
    }),
  );
  loop.push(items(0, 1, null)[0]!);
  loop.run();
  await within(asked.promise, 5000, "its first value");
  loop.cancel(0);
  await within(left, 5000, "it leaves the generator");
  const error = await within(failed, 5000, "it fails") as Error;
  assertEquals(error.name, "AbortError");
});

Deno.test("WorkLoop.cancel() of the last item that waits leaves it idle", () => {
  const told: string[] = [];
  const loop = new WorkLoop(
    () => {},
    1,
    sink({
      isBusy: () => true,
      error: (item) => told.push(`error ${item.delivery}`),
      onIdle: () => told.push("idle"),
    }),
  );
  for (const item of items(0, 2, null)) loop.push(item);
  loop.run();
  loop.cancel(1);
  assertEquals(told, ["error 1"]);
  loop.cancel(0);
  assertEquals(told, ["error 1", "error 0", "idle"]);
});

Deno.test("Turns: whoever waits between steps needs no turn", async () => {
  using clock = new Clock();
  const turns = new Turns(64);
  for (let n = 0; n < 100; n++) {
    clock.now += 100;
    assertEquals(turns.isDue(), false);
    await setImmediate();
  }
  // Whoever doesn't, does.
  clock.now += 100;
  assertEquals(turns.isDue(), false);
  clock.now += 100;
  assertEquals(turns.isDue(), true);
  await new Promise<void>((resolve) => turns.next(resolve));
  clock.now += 100;
  assertEquals(turns.isDue(), true);
});

/** Keeps the event loop for so long, in ms. */
function burn(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

/** What passes, and says so a microtask later. */
const later: StandardSchemaV1<number> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) => Promise.resolve({ value: value as number }),
  },
};

const HANDLERS: Record<string, [Handler<number, number>, object?]> = {
  "slow handlers": [(n) => (burn(5), n)],
  "slow async handlers": [async (n) => (burn(5), await n)],
  "slow handlers with an async schema": [
    (n) => (burn(2), n),
    { resultSchema: later },
  ],
};
for (const [what, [handler, options]] of Object.entries(HANDLERS)) {
  Deno.test(`work(): sockets are read and written while ${what} go on`, async () => {
    await using server = listen<number, number>({ port: 0 });
    const { port } = server.addr as Deno.NetAddr;
    let begun = 0;
    const done = work<number, number>(
      { port, prefetch: 400, ...options },
      (n, context) => {
        begun++;
        return handler(n, context);
      },
    );
    await server.ready();
    const results = Array.from({ length: 200 }, (_, n) => server.submit(n));
    await results[0];
    assert(begun < 150, `the first result after ${begun} items`);
    await Promise.all(results);
    await server.close();
    await done;
  });
}

Deno.test("map(): sockets are read and written while a slow source goes on", async () => {
  await using server = listen<number, number>({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  const done = work<number, number>({ port, prefetch: 4096 }, (n) => n);
  await until(() => server.workers[0]?.state === "active", "it takes items");
  let taken = 0;
  function* source() {
    while (taken < 200) {
      burn(10);
      yield taken++;
    }
  }
  for await (const _ of server.map(source())) break;
  assert(taken < 60, `the first result after ${taken} items`);
  await server.close();
  await done;
});

Deno.test("server.writable: sockets are read and written while a slow source goes on", async () => {
  await using server = listen<number, number>({ port: 0 });
  const { port } = server.addr;
  const done = work<number, number>({ port, prefetch: 4096 }, (n) => n);
  await until(() => server.workers[0]?.state === "active", "it takes items");
  let taken = 0;
  async function* source() {
    while (taken < 200) {
      burn(10);
      yield taken++;
    }
  }
  const results = ReadableStream.from(source()).pipeThrough(server);
  for await (const _ of results) break;
  assert(taken < 60, `the first result after ${taken} items`);
  await done;
});

Deno.test("work(): sockets are read and written while a slow generator goes on", async () => {
  await using server = listen<number, number>({ port: 0 });
  const { port } = server.addr;
  let yielded = 0;
  const done = work<number, number>({ port }, async function* () {
    while (yielded < 200) {
      burn(10);
      yield yielded++;
    }
  });
  server.send(0);
  server.end();
  for await (const _ of server) break;
  assert(yielded < 60, `the first value after ${yielded}`);
  await done;
});

/** Ways to read 200 values that are all here. */
const READERS: Record<string, (kit: ReaderKit) => AsyncIterable<number>> = {
  "server[Symbol.asyncIterator]()": ({ server }) => server,
  "server.readable": ({ server }) => server.readable,
  "server.map()": ({ server }) => server.map(numbers(200)),
  "server.map({ ordered: false })": ({ server }) =>
    server.map(numbers(200), { ordered: false }),
  "client[Symbol.asyncIterator]()": ({ client }) => client,
  "client.readable": ({ client }) => client.readable,
};
interface ReaderKit {
  server: Server<number, number>;
  client: Client<number, number>;
}
for (const [what, read] of Object.entries(READERS)) {
  Deno.test(`${what}: the event loop has its turns while a slow reader goes on`, async () => {
    const server = listen<number, number>({ port: 0 });
    const { port } = server.addr;
    const client = await connect<number, number>({ port, prefetch: 200 });
    const isServer = what.startsWith("server");
    const done = isServer ? client.work((n) => n) : client.closed;
    done.catch(() => {});
    const values = read({ server, client })[Symbol.asyncIterator]();
    if (!what.includes("map")) { for (const n of numbers(200)) server.send(n); }
    await values.next();
    // All the others are here, or in the socket's buffers.
    await until(() => {
      const [worker] = server.workers;
      return isServer ? worker!.settled === 200 : worker!.inFlight === 200;
    }, "the values");
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    let first = 0;
    for (let n = 1; n < 150; n++) {
      assertEquals((await values.next()).value, n);
      burn(2);
      if (turns === 0) first = n;
    }
    clearInterval(timer);
    assert(first < 40, `${first} values without a turn`);
    assert(turns >= 3, `${turns} turns in 300 ms`);
    await server.abort();
    await done.catch(() => {});
  });
}

Deno.test("server.readable: a slow reader leaves the event loop its turns from the first value on", async () => {
  for (const behind of [0, 40]) {
    using clock = new Clock();
    const outlet = anOutlet(64);
    const reader = outlet.readable.getReader();
    let turns = 0;
    const read = async (ms: number) => {
      assertEquals((await reader.read()).done, false);
      clock.now += ms;
    };
    // One at a time: nobody can tell from them how quick the reader is.
    for (let n = 0; n < behind; n++) {
      const done = read(1000);
      await Promise.resolve();
      outlet.push(n, 1, null);
      await done;
    }
    for (let n = 0; n < 64; n++) outlet.push(n, 1, null);
    const timer = setInterval(() => turns++, 0);
    for (let n = 0; n < 16; n++) await read(1000);
    clearInterval(timer);
    assert(turns > 8, `${turns} turns in 16 s`);
    await reader.cancel();
  }
});

/** Readers of values that come together, and how they come. */
const AFTER_A_WAIT: Record<string, () => AfterAWait> = {
  "iteration": () => {
    const outlet = anOutlet();
    return { values: outlet.iterate(), push: (n) => outlet.push(n, 1, null) };
  },
  "a stream": () => {
    const outlet = anOutlet();
    const values = outlet.readable[Symbol.asyncIterator]();
    return { values, push: (n) => outlet.push(n, 1, null) };
  },
  "map()": () => {
    const entries: Item[] = [];
    const offer = (item: unknown, way: Way, index: number) => {
      entries.push(new Entry<Worker>(index, item, way, index));
      return entries.at(-1);
    };
    const delivery = {
      offer,
      pump: () => {},
      unfinished: () => [],
      discardAll: () => {},
    };
    const run: MapRun = new MapRun(numbers(8), {}, {
      delivery: delivery as unknown as Delivery,
      maxBufferedBytes: Infinity,
      onMapStart: () => {},
      onMapEnd: () => {},
    });
    return { values: run, push: (n) => run.result(entries[n]!, n, 1) };
  },
};
interface AfterAWait {
  values: AsyncIterator<unknown>;
  push(n: number): void;
}
for (const [what, begin] of Object.entries(AFTER_A_WAIT)) {
  Deno.test(`${what}: what comes together after a wait is read without another turn`, async () => {
    using clock = new Clock();
    const { values, push } = begin();
    const first = values.next();
    await microtasks();
    clock.now += 1000;
    for (const n of numbers(3)) push(n);
    assertEquals((await first).value, 0);
    const read: unknown[] = [];
    values.next().then(({ value }) => read.push(value));
    values.next().then(({ value }) => read.push(value));
    await microtasks();
    assertEquals(read, [1, 2]);
    await values.return!();
  });

  if (what === "a stream") continue; // has a queue of its own for who asks
  Deno.test(`${what}: who asks behind one who waits for a turn is served behind it`, async () => {
    using clock = new Clock();
    const { values, push } = begin();
    const reads = [values.next()];
    await microtasks();
    for (const n of numbers(8)) push(n);
    await reads[0];
    for (let n = 1; n < 8; n++) {
      if (n <= 3) clock.now += 1000; // the reader was slow, and is quick now
      reads.push(values.next());
    }
    const served: unknown[] = [];
    for (const read of reads) read.then(({ value }) => served.push(value));
    const results = await Promise.all(reads);
    assertEquals(results.map(({ value }) => value), numbers(8));
    assertEquals(served, numbers(8), "in this order");
    await values.return!();
  });
}

function anOutlet(burst = 1): Outlet<number> {
  return new Outlet<number>(
    { onRead: () => {}, onCancel: () => {} },
    { name: "values", burst },
  );
}

async function microtasks(): Promise<void> {
  for (let i = 0; i < 50; i++) await null;
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n);
}

Deno.test("Client.work(): a handler that aborts its client at once sees its signal aborted", async () => {
  await using server = listen<number, number>({ port: 0 });
  const { port } = server.addr as Deno.NetAddr;
  const client = await connect<number, number>({ port });
  const seen = Promise.withResolvers<boolean[]>();
  const done = client.work(async (n, { signal }) => {
    const before = signal.aborted;
    void client.abort(new Error("enough"));
    seen.resolve([before, signal.aborted]);
    return await n;
  });
  done.catch(() => {});
  server.submit(1).catch(() => {});
  assertEquals(await within(seen.promise, 5000, "it is called"), [false, true]);
  await assertRejects(() => done, ConnectionLostError, "enough");
  await server.abort();
});
