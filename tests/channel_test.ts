/**
 * The two faces of a direction, without a server or a client.
 */
import {
  assert,
  assertEquals,
  assertFalse,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { Inlet, type InletSink, Outlet } from "../internal/channel.ts";
import { deferred, rejected } from "../internal/promises.ts";
import { moment, stateOf } from "./_support/within.ts";

/** An outlet, and all that it told its source. */
function outletOf(burst = 1) {
  const told = {
    taken: 0,
    asked: 0,
    read: [] as [bytes: number, from: string][],
    reachedEnd: 0,
    cancelled: [] as [reason: unknown, unread: string[]][],
  };
  const outlet = new Outlet<number, string>({
    onTaken: () => told.taken++,
    onAsk: () => told.asked++,
    onRead: (bytes, from) => told.read.push([bytes, from]),
    onReachedEnd: () => told.reachedEnd++,
    onCancel: (reason, unread) =>
      told.cancelled.push([reason, unread.map(({ from }) => from)]),
  }, { name: "client.readable", burst });
  const push = (...values: number[]) => {
    for (const value of values) outlet.push(value, value, `from ${value}`);
  };
  return { outlet, told, push };
}

Deno.test("Outlet.iterate() gives values in order, and then the end", async () => {
  const { outlet, told, push } = outletOf();
  push(1, 2);
  const items = outlet.iterate();
  assertEquals(told.taken, 1);
  assertEquals(await items.next(), { value: 1, done: false });
  const second = items.next(), third = items.next(), end = items.next();
  push(3);
  outlet.end();
  push(4); // after the end: dropped
  assertEquals(await second, { value: 2, done: false });
  assertEquals(await third, { value: 3, done: false });
  assertEquals(await end, { value: undefined, done: true });
  assertEquals(await items.next(), { value: undefined, done: true });
  assertEquals(told.read, [[1, "from 1"], [2, "from 2"], [3, "from 3"]]);
  // The third has asked for what follows before it got its own.
  assertEquals([told.asked, told.reachedEnd], [6, 1]);
});

Deno.test("Outlet: a read is told before the next is asked for", async () => {
  const { outlet, told, push } = outletOf();
  push(1, 2, 3);
  const items = outlet.iterate();
  for (let n = 1; n <= 3; n++) {
    await items.next();
    assertEquals([told.asked, told.read.length], [n, n]);
  }
});

Deno.test("Outlet counts what wasn't read", async () => {
  const { outlet, push } = outletOf();
  push(10, 20);
  assertEquals([outlet.length, outlet.bytes], [2, 30]);
  await outlet.iterate().next();
  assertEquals([outlet.length, outlet.bytes], [1, 20]);
  outlet.close();
  assertEquals([outlet.length, outlet.bytes], [0, 0]);
});

Deno.test("Outlet.readable with a burst of 1 reads one at a time, when asked", async () => {
  const { outlet, told, push } = outletOf(1);
  push(1, 2, 3);
  const reader = outlet.readable.getReader();
  await moment(5);
  assertEquals(told.read.length, 0, "nothing is read ahead");
  for (let n = 1; n <= 3; n++) {
    assertEquals((await reader.read()).value, n);
    await moment(1);
    assertEquals([told.asked, told.read.length], [n, n]);
  }
  const next = reader.read();
  outlet.end();
  assert((await next).done);
  assertEquals(told.reachedEnd, 1);
});

Deno.test("Outlet.readable with a burst takes several at a pull", async () => {
  const { outlet, told, push } = outletOf(64);
  push(...Array.from({ length: 200 }, () => 1));
  const reader = outlet.readable.getReader();
  for (let i = 0; i < 200; i++) assertEquals((await reader.read()).value, 1);
  assertEquals(told.read.length, 200);
  assert(told.asked <= 30, `${told.asked} pulls`);
});

Deno.test("Outlet.readable with a burst takes no more than so many bytes at a pull", async () => {
  const { outlet, told, push } = outletOf(64);
  push(...Array.from({ length: 100 }, () => 100_000));
  const reader = outlet.readable.getReader();
  // A burst is short at first: it has to grow before there is anything to bound.
  for (let reads = 1; reads <= 30; reads++) {
    await reader.read();
    const ahead = told.read.length - reads;
    assert(ahead <= 2, `${ahead} were taken ahead after ${reads} reads`);
  }
});

for (const face of ["readable", "iterate"] as const) {
  const read = (outlet: Outlet<number, string>) =>
    face === "iterate"
      ? outlet.iterate()
      : outlet.readable.values() as AsyncIterableIterator<number, undefined>;

  Deno.test(`Outlet.fail() drops what wasn't read and rejects whoever waits (${face})`, async () => {
    const { outlet, told, push } = outletOf();
    const items = read(outlet);
    const waits = items.next();
    push(1);
    assertEquals((await waits).value, 1);
    push(2);
    outlet.fail(new Error("lost"));
    outlet.fail(new Error("again"));
    await assertRejects(() => items.next(), Error, "lost");
    push(3);
    assertEquals([outlet.length, outlet.bytes], [0, 0]);
    assert(outlet.isClosed);
    assertEquals(told.reachedEnd, 0);
  });

  Deno.test(`Outlet.fail() reaches a reader who comes late (${face})`, async () => {
    const { outlet } = outletOf();
    outlet.fail(new Error("lost"));
    await assertRejects(() => read(outlet).next(), Error, "lost");
  });

  Deno.test(`Outlet.end() reaches a reader who comes late (${face})`, async () => {
    const { outlet, told, push } = outletOf();
    push(1);
    outlet.end();
    assertEquals(await Array.fromAsync(read(outlet)), [1]);
    assertEquals(told.reachedEnd, 1);
  });

  Deno.test(`Outlet.fail() after the end was read changes nothing (${face})`, async () => {
    const { outlet } = outletOf();
    outlet.end();
    const items = read(outlet);
    assert((await items.next()).done);
    outlet.fail(new Error("late"));
    assert((await items.next()).done);
  });

  Deno.test(`Outlet: leaving tells where what wasn't read came from (${face})`, async () => {
    const { outlet, told, push } = outletOf();
    push(1, 2, 3);
    for await (const value of read(outlet)) {
      assertEquals(value, 1);
      break;
    }
    assertEquals(told.cancelled, [[undefined, ["from 2", "from 3"]]]);
    assertEquals(told.reachedEnd, 0);
    push(4);
    assertEquals(outlet.length, 0);
    outlet.end();
    outlet.fail(new Error("late"));
  });

  Deno.test(`Outlet.close() takes back what wasn't read (${face})`, async () => {
    const { outlet, told, push } = outletOf();
    const items = read(outlet);
    push(1, 2);
    outlet.close();
    assert((await items.next()).done);
    assertEquals(told.read, []);
    assertEquals(told.reachedEnd, 1);
  });
}

Deno.test("Outlet.readable.cancel() tells the reason, and a pending read ends", async () => {
  const { outlet, told } = outletOf();
  const reader = outlet.readable.getReader();
  const waits = reader.read();
  await moment(1);
  await reader.cancel("enough");
  assert((await waits).done);
  assertEquals(told.cancelled, [["enough", []]]);
});

Deno.test("Outlet.readable: whoever is told of a read may end the stream", async () => {
  const error = new Error("enough");
  for (const isLate of [false, true]) {
    for (const ends of ["fail", "cancel"] as const) {
      const outlet = new Outlet<number, null>({
        onRead: (bytes) => {
          if (bytes !== 2) return;
          if (ends === "fail") outlet.fail(error);
          else reader.cancel(error);
        },
        onCancel: () => {},
      }, { name: "server.readable", burst: 64 });
      const push = () => {
        for (const n of [1, 2, 3]) outlet.push(n, n, null);
      };
      if (!isLate) push();
      const reader = outlet.readable.getReader();
      if (isLate) {
        await moment(1); // it is pulled, and waits
        push();
      }
      const read = async () => {
        const values: number[] = [];
        for (;;) {
          const { value, done } = await reader.read();
          if (done) return values;
          values.push(value);
        }
      };
      if (ends === "fail") await assertRejects(read, Error, "enough");
      else assert((await read()).length < 3);
    }
  }
});

Deno.test("Outlet: leaving at the end, or after a failure, cancels nothing", async () => {
  const ended = outletOf();
  ended.outlet.end();
  const items = ended.outlet.iterate();
  await items.next();
  await items.return!();
  assertEquals(ended.told.cancelled, []);
  const failed = outletOf();
  failed.outlet.fail(new Error("lost"));
  await failed.outlet.iterate().return!();
  assertEquals(failed.told.cancelled, []);
});

Deno.test("Outlet.close() after a failure leaves it failed", async () => {
  const { outlet } = outletOf();
  outlet.fail(new Error("lost"));
  assertEquals(outlet.close(), []);
  await assertRejects(() => outlet.iterate().next(), Error, "lost");
});

/** Asks so often for one of five, slowly, and lets the event loop have no turn. */
async function readSlowly(
  asks: number,
  { isEnded = false, later = [] }: { isEnded?: boolean; later?: number[] },
) {
  const { now } = performance;
  let time = 0;
  performance.now = () => time;
  try {
    const { outlet, told, push } = outletOf();
    push(1, 2, 3, 4, 5);
    if (isEnded) outlet.end();
    const items = outlet.iterate();
    const reads = [];
    for (let i = 0; i < asks; i++) {
      reads.push(items.next());
      time += 1000;
    }
    assert(told.read.length < 5, "it waits for a turn");
    push(...later);
    const values = (await Promise.all(reads)).map(({ value }) => value);
    return { values, told };
  } finally {
    performance.now = now;
  }
}

Deno.test("Outlet: who asks for more than there is, and waits for a turn, is told the end", async () => {
  const { values, told } = await readSlowly(7, { isEnded: true });
  assertEquals(values, [1, 2, 3, 4, 5, undefined, undefined]);
  assertEquals(told.reachedEnd, 1);
});

Deno.test("Outlet: what comes while whoever asks waits for a turn comes last", async () => {
  const { values } = await readSlowly(6, { later: [6] });
  assertEquals(values, [1, 2, 3, 4, 5, 6]);
});

Deno.test("Outlet: several reads at once are served in order", async () => {
  const { outlet, push } = outletOf();
  const items = outlet.iterate();
  const reads = [items.next(), items.next(), items.next()];
  push(1, 2, 3);
  assertEquals((await Promise.all(reads)).map((r) => r.value), [1, 2, 3]);
});

Deno.test("Outlet: a face is chosen for good, and its twin throws", () => {
  const uses: Record<string, (outlet: Outlet<number, string>) => unknown> = {
    "readable": (outlet) => outlet.readable,
    "iteration": (outlet) => outlet.iterate(),
    "work()": (outlet) => outlet.takeForWork(),
  };
  for (const [first, use] of Object.entries(uses)) {
    const { outlet, told } = outletOf();
    assertFalse(outlet.isTaken);
    const face = use(outlet);
    assert(outlet.isTaken);
    for (const [second, other] of Object.entries(uses)) {
      if (first === second && first !== "work()") {
        assert(other(outlet) === face, "the same one again");
      } else {
        assertThrows(
          () => other(outlet),
          TypeError,
          `Cannot use ${second}: client.readable is in use through ${first} already`,
        );
      }
    }
    assertEquals(told.taken, first === "work()" ? 0 : 1);
    if (first !== "work()") outlet.end();
  }
});

// --- In ---

function inletOf(sink: Partial<InletSink<number>> = {}) {
  const told = {
    sent: [] as number[],
    written: [] as number[],
    ended: 0,
    aborted: [] as unknown[],
  };
  const inlet = new Inlet<number>({
    send(value) {
      told.sent.push(value);
      return undefined;
    },
    write(value) {
      told.written.push(value);
      return undefined;
    },
    end() {
      told.ended++;
      return Promise.resolve();
    },
    onAbort: (reason) => told.aborted.push(reason),
    ...sink,
  }, "server.writable");
  return { inlet, told };
}

Deno.test("Inlet.send() hands values to the sink, and back what it says", () => {
  const room = Promise.resolve();
  const { inlet } = inletOf({
    send: (value) => value === 2 ? room : undefined,
  });
  assertEquals(inlet.send(1), undefined);
  assert(inlet.send(2) === room);
});

Deno.test("Inlet.end() ends, as writable.close() does", async () => {
  const sent = inletOf();
  sent.inlet.send(1);
  await sent.inlet.end();
  assertEquals([sent.told.sent, sent.told.ended], [[1], 1]);
  const written = inletOf();
  const writer = written.inlet.writable.getWriter();
  writer.write(1);
  await writer.close();
  assertEquals([written.told.written, written.told.ended], [[1], 1]);
});

Deno.test("Inlet.writable has a high-water mark of 1 and waits for the sink", async () => {
  const rooms = [deferred<void>(), deferred<void>()];
  let writes = 0;
  const { inlet } = inletOf({ write: () => rooms[writes++]!.promise });
  const writer = inlet.writable.getWriter();
  assertEquals(writer.desiredSize, 1);
  const first = writer.write(1);
  assertEquals(writer.desiredSize, 0);
  const second = writer.write(2);
  assertEquals(await stateOf(first), "pending");
  assertEquals(writes, 1, "one at a time");
  assertEquals(await stateOf(writer.ready), "pending");
  rooms[0]!.resolve();
  await first;
  rooms[1]!.resolve();
  await second;
  await writer.ready;
  assertEquals(writes, 2);
});

Deno.test("Inlet.writable tells the sink of abort(), with the reason", async () => {
  const { inlet, told } = inletOf();
  const writer = inlet.writable.getWriter();
  await writer.abort("enough");
  assertEquals(told.aborted, ["enough"]);
  await assertRejects(() => writer.write(1));
});

Deno.test("Inlet.fail() errors the stream, also one that is made later", async () => {
  const early = inletOf();
  const writer = early.inlet.writable.getWriter();
  early.inlet.fail(new Error("lost"));
  early.inlet.fail(new Error("again"));
  await assertRejects(() => writer.write(1), Error, "lost");
  await assertRejects(() => writer.closed, Error, "lost");
  const late = inletOf();
  late.inlet.fail(new Error("lost"));
  const other = late.inlet.writable.getWriter();
  await assertRejects(() => other.write(1), Error, "lost");
  await other.closed.catch(() => {});
});

Deno.test("Inlet: a face is chosen for good, and its twin throws", async () => {
  const uses: Record<string, (inlet: Inlet<number>) => unknown> = {
    "writable": (inlet) => inlet.writable,
    "send()": (inlet) => inlet.send(1),
    "work()": (inlet) => inlet.takeForWork(),
  };
  for (const [first, use] of Object.entries(uses)) {
    const { inlet } = inletOf();
    assertFalse(inlet.isTaken);
    use(inlet);
    assert(inlet.isTaken);
    const message = (face: string) =>
      `Cannot use ${face}: server.writable is in use through ${first} already`;
    for (const [second, other] of Object.entries(uses)) {
      if (first === second && first !== "work()") other(inlet);
      else assertThrows(() => other(inlet), TypeError, message(second));
    }
    if (first !== "send()") {
      inlet.end(); // ignored: that is allowed
      await moment(1);
      await assertRejects(() => inlet.end(), TypeError, message("send()"));
    }
  }
});

Deno.test("deferred() and rejected() may be ignored", async () => {
  deferred<void>().reject(new Error("ignored"));
  rejected(new Error("ignored"));
  await moment(5);
  await assertRejects(() => rejected(new Error("seen")), Error, "seen");
});
