/**
 * Nothing is lost with a worker, and what a plain reader has settled: design
 * section 3, "Items" and "Nothing is lost with a worker".
 */
import { assertEquals, assertRejects } from "@std/assert";
import { Client } from "../mod.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { payload, ScriptedPeer, T } from "./_support/scripted_peer.ts";
import {
  forever,
  Gate,
  moment,
  stateOf,
  until,
  within,
} from "./_support/within.ts";

both(
  "Server redelivers what a lost worker held, in id order, to the front",
  async (net) => {
    await using kit = new Kit<number, number>(net, { onFailure: () => {} });
    const { server } = kit;
    const first = await kit.worker(forever, {
      concurrency: 4,
      client: { prefetch: 4 },
    });
    for (const n of range(8)) server.send(n); // 0 to 3 there, 4 to 7 queued
    await until(() => server.stats().inFlight === 4, "four items in flight");
    await first.client.abort();
    const seen: number[] = [];
    await kit.worker((n) => (seen.push(n), n));
    for await (const _ of server) if (seen.length === 8) break;
    assertEquals(seen, range(8));
    assertEquals(server.stats().redelivered, 4);
  },
);

both("Server says what was redelivered, from whom and why", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const { client } = await kit.worker(forever, { client: { name: "one" } });
  server.send(7);
  await until(() => server.stats().inFlight === 1, "the item is in flight");
  await client.abort();
  const event = await kit.event("redelivered");
  assertEquals(event.ids, [0]);
  assertEquals(event.worker.name, "one");
});

both(
  "Client.readable: an item is settled when the next is asked for",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const client = await kit.client();
    const reader = client.readable.getReader();
    await kit.active(1);
    for (const n of range(10)) server.send(n);
    for (const n of range(4)) assertEquals((await reader.read()).value, n);
    await until(() => server.stats().settled === 3, "three items are settled");
    await moment();
    assertEquals(server.stats().settled, 3, "the fourth is being worked on");
    await client.abort();
    const other = await kit.client();
    const rest: number[] = [];
    for await (const n of other) {
      rest.push(n);
      if (rest.length === 7) break;
    }
    assertEquals(rest, [3, 4, 5, 6, 7, 8, 9]);
  },
);

both(
  "Client iteration: an item is settled when the next is asked for",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const client = await kit.client();
    const iterator = client[Symbol.asyncIterator]();
    await kit.active(1);
    for (const n of range(10)) server.send(n);
    for (const n of range(4)) assertEquals((await iterator.next()).value, n);
    await until(() => server.stats().settled === 3, "three items are settled");
    await moment();
    assertEquals(server.stats().settled, 3, "the fourth is being worked on");
    await client.abort();
    const other = await kit.client();
    const rest: number[] = [];
    for await (const n of other) {
      rest.push(n);
      if (rest.length === 7) break;
    }
    assertEquals(rest, [3, 4, 5, 6, 7, 8, 9]);
  },
);

both(
  "Client.readable: a lone read() doesn't settle what it returns",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    const client = await kit.client();
    const reader = client.readable.getReader();
    const reading = reader.read(); // asked for before there is anything
    await kit.active(1);
    kit.server.send("only");
    assertEquals((await reading).value, "only");
    await moment();
    assertEquals(kit.server.stats().settled, 0);
    assertEquals(kit.server.stats().inFlight, 1);
    await client.abort();
    const other = (await kit.client())[Symbol.asyncIterator]();
    assertEquals((await other.next()).value, "only");
  },
);

both(
  "Client: take, send, ask again never loses an item's value",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const got: number[] = [];
    const reading = (async () => {
      for await (const n of server) got.push(n);
    })();
    server.send(1);
    server.send(2);
    const client = await kit.client();
    const items = client[Symbol.asyncIterator]();
    client.send((await items.next()).value! * 10);
    await items.next(); // settles 1; 2 isn't answered
    await until(() => server.stats().settled === 1, "the first is settled");
    assertEquals(got, [10], "a value comes before its item is settled");
    await client.abort();
    const other = await kit.client();
    server.end();
    for await (const n of other) other.send(n * 10);
    await other.end();
    await reading;
    assertEquals(got, [10, 20]);
  },
);

both(
  "Client.abort() hands back what wasn't settled, the current item too",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const client = await kit.client();
    const items = client[Symbol.asyncIterator]();
    for (const n of range(5)) server.send(n);
    await items.next();
    await items.next(); // 0 is settled, 1 is not
    await client.abort();
    const rest: number[] = [];
    for await (const n of await kit.client()) {
      rest.push(n);
      if (rest.length === 4) break;
    }
    assertEquals(rest, [1, 2, 3, 4]);
  },
);

both(
  "Leaving the loop hands back what wasn't settled, and says goodbye",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const client = await kit.client();
    for (const n of range(5)) server.send(n);
    for await (const n of client) if (n === 1) break;
    await client.closed;
    const rest: number[] = [];
    for await (const n of await kit.client()) {
      rest.push(n);
      if (rest.length === 4) break;
    }
    assertEquals(rest, [1, 2, 3, 4]);
  },
);

both(
  "Leaving with two items asked for at once hands back both",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const first = await kit.client({ prefetch: 4 });
    for (const n of range(4)) kit.server.send(n);
    await first.send(7); // its writing face is taken: it stays
    const items = first[Symbol.asyncIterator]();
    const [a, b] = await Promise.all([items.next(), items.next()]);
    assertEquals([a.value, b.value], [0, 1]);
    await items.return!();
    const again: number[] = [];
    kit.server.end();
    const reading = (async () => {
      for await (const n of await kit.client()) again.push(n);
    })();
    await within(reading, 2000, "nothing is held for good");
    assertEquals(again.slice(-3), [1, 2, 3]);
    await first.end();
    await kit.server.close();
  },
);

both(
  "Cancelling client.readable hands back what wasn't settled",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const client = await kit.client();
    const reader = client.readable.getReader();
    for (const n of range(5)) server.send(n);
    await reader.read();
    await reader.read();
    await reader.cancel();
    await client.closed;
    const rest: number[] = [];
    for await (const n of await kit.client()) {
      rest.push(n);
      if (rest.length === 4) break;
    }
    assertEquals(rest, [1, 2, 3, 4]);
  },
);

both(
  "Client.close() settles what was read and hands back the rest",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const client = await kit.client();
    const items = client[Symbol.asyncIterator]();
    for (const n of range(5)) server.send(n);
    await items.next();
    await items.next();
    client.send(100);
    await client.close();
    assertEquals(server.stats().settled, 2);
    assertEquals((await server[Symbol.asyncIterator]().next()).value, 100);
    const rest: number[] = [];
    for await (const n of await kit.client()) {
      rest.push(n);
      if (rest.length === 3) break;
    }
    assertEquals(rest, [2, 3, 4]);
  },
);

both("Client.close() hands back at once, though values wait", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const client = await kit.client();
  const items = client[Symbol.asyncIterator]();
  for (const n of range(3)) server.send(n);
  await items.next();
  for (const n of range(5000)) client.send(n); // more than may be unread
  const closed = client.close();
  const others = (await kit.client())[Symbol.asyncIterator]();
  assertEquals((await others.next()).value, 1);
  assertEquals((await others.next()).value, 2);
  assertEquals(await stateOf(closed), "pending");
});

both("Client.close() settles what readable gave out too", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const client = await kit.client();
  const reader = client.readable.getReader();
  for (const n of range(5)) server.send(n);
  await reader.read();
  await reader.read();
  await client.close();
  assertEquals(server.stats().settled, 2);
  assertEquals((await reader.read()).done, true);
});

for (const waits of [false, true]) {
  const when = waits ? ", though values wait" : "";
  both(
    `Client.close() hands back what waits in readable${when}`,
    async (net) => {
      await using kit = new Kit<number, Uint8Array>(net);
      const { server } = kit;
      const client = await kit.client();
      const reader = client.readable.getReader();
      server.send(0);
      await reader.read();
      const asked = reader.read();
      await until(() => server.stats().settled === 1, "the first is settled");
      reader.releaseLock(); // tired of waiting
      await assertRejects(() => asked, TypeError);
      server.send(1);
      server.send(2);
      await moment(50);
      // The second must wait until the first is read: so does the goodbye.
      if (waits) {
        for (const _ of range(2)) client.send(new Uint8Array(1 << 20));
      }
      const closed = client.close();
      if (!waits) await closed;
      const others = (await kit.client())[Symbol.asyncIterator]();
      assertEquals((await others.next()).value, 1);
      assertEquals(server.stats().settled, 1);
      assertEquals((await others.next()).value, 2);
    },
  );
}

both(
  "work() runs an item again elsewhere, and one result arrives",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const gate = new Gate();
    const doomed = await kit.worker(async (n) => (await gate.pass(), -n), {
      concurrency: 3,
    });
    const results = range(3).map((n) => server.submit(n + 1));
    await until(() => gate.passing === 3, "three are executed");
    await doomed.client.abort();
    gate.open();
    const attempts: number[] = [];
    await kit.worker((n, { attempt }) => (attempts.push(attempt), n * 10));
    assertEquals(await Promise.all(results), [10, 20, 30]);
    assertEquals(attempts, [2, 2, 2]);
  },
);

both(
  "Leaving by signal hands back what isn't begun, uncounted",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    const gate = new Gate();
    const leave = new AbortController();
    const leaver = await kit.worker(
      async (n) => (await gate.pass(), n * 10),
      { client: { prefetch: 4 }, signal: leave.signal },
    );
    const results = range(4).map((n) => server.submit(n));
    await until(() => gate.passing === 1, "the first is executed");
    leave.abort();
    const attempts: number[] = [];
    const stays = await kit.worker((n, { attempt }) => {
      attempts.push(attempt);
      return n * 100;
    });
    assertEquals(await Promise.all(results.slice(1)), [100, 200, 300]);
    assertEquals(attempts, [1, 1, 1], "a delivery that wasn't begun is none");
    gate.open();
    assertEquals(await results[0], 0 * 10);
    await leaver.done;
    assertEquals(server.workers.length, 1);
    await server.close();
    await stays.done;
  },
);

both("A late result of a lost worker's item is not doubled", async (net) => {
  await using kit = new Kit<number, number>(net, { maxDeliveries: 10 });
  const { server } = kit;
  const got: number[] = [];
  const reading = (async () => {
    for await (const n of server) got.push(n);
  })();
  for (const n of range(50)) server.send(n);
  for (let i = 0; i < 4; i++) {
    let done = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const { client } = await kit.worker((n) => {
      if (++done <= 5) return n;
      resolve();
      return forever();
    });
    await promise;
    await client.abort();
  }
  await kit.worker((n) => n);
  await server.end();
  await reading;
  assertEquals(got.toSorted((a, b) => a - b), range(50));
  assertEquals(server.stats().settled, 50);
});

Deno.test("Leaving by signal hands back at once what comes after it", async () => {
  const [server, conn] = ScriptedPeer.pair();
  await using _ = server;
  const client = new Client<number, number>(conn, { prefetch: 4 });
  await server.greet();
  const gate = new Gate();
  const leave = new AbortController();
  const done = client.work(async (n) => (await gate.pass(), n * 10), {
    signal: leave.signal,
  });
  await server.until(T.CREDIT);
  await server.say(T.ITEM, 1, 1, 0, 0, payload(1));
  await until(() => gate.passing === 1, "it is executed");
  leave.abort();
  assertEquals((await server.until(T.LEAVE)).fields, []);
  // These were under way: nobody waits for them until the first is done.
  await server.say(T.ITEM, 1, 1, 1, 1, payload(2), 2, payload(3));
  assertEquals((await server.until(T.LEAVE)).fields, [1, 2]);
  gate.open();
  const { fields } = await server.until(T.RESULT);
  assertEquals(fields, [0, payload(10)]);
  await server.until(T.GOODBYE);
  await server.say(T.GOODBYE, 0, "");
  await done;
});
