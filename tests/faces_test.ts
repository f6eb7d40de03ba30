/**
 * The faces of each direction: design section 2, "Faces", and what `send()`
 * returns.
 */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { type Client, ConnectionLostError } from "../mod.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { stateOf, until, within } from "./_support/within.ts";

both("Server: the same stream and the same iterator again", async (net) => {
  await using kit = new Kit(net);
  await using other = new Kit(net);
  assertStrictEquals(kit.server.writable, kit.server.writable);
  assertStrictEquals(kit.server.readable, kit.server.readable);
  assertStrictEquals(
    other.server[Symbol.asyncIterator](),
    other.server[Symbol.asyncIterator](),
  );
});

both("Client: the same stream and the same iterator again", async (net) => {
  await using kit = new Kit(net);
  const client = await kit.client();
  assertStrictEquals(client.writable, client.writable);
  assertStrictEquals(client.readable, client.readable);
  const other = await kit.client();
  assertStrictEquals(
    other[Symbol.asyncIterator](),
    other[Symbol.asyncIterator](),
  );
});

both("Server.send() locks writable out, and only that", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  server.send(1);
  assertThrows(() => server.writable, TypeError);
  assertEquals(server.readable instanceof ReadableStream, true);
});

both("Server.end() locks writable out", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.server.end();
  assertThrows(() => kit.server.writable, TypeError);
});

both(
  "Server.writable locks send() and end() out, and only them",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    server.writable;
    assertThrows(() => server.send(1), TypeError);
    await assertRejects(() => server.end(), TypeError);
    server[Symbol.asyncIterator]();
  },
);

both("Server.readable locks iteration out", async (net) => {
  await using kit = new Kit<number, number>(net);
  kit.server.readable;
  assertThrows(() => kit.server[Symbol.asyncIterator](), TypeError);
});

both("Server iteration locks readable out", async (net) => {
  await using kit = new Kit<number, number>(net);
  kit.server[Symbol.asyncIterator]();
  assertThrows(() => kit.server.readable, TypeError);
});

both("Client: each direction is locked by its first use", async (net) => {
  await using kit = new Kit<number, number>(net);
  const sender = await kit.client();
  sender.send(1);
  assertThrows(() => sender.writable, TypeError);
  sender.readable;
  assertThrows(() => sender[Symbol.asyncIterator](), TypeError);
  const writer = await kit.client();
  writer.writable;
  assertThrows(() => writer.send(1), TypeError);
  await assertRejects(() => writer.end(), TypeError);
  writer[Symbol.asyncIterator]();
  assertThrows(() => writer.readable, TypeError);
});

both("Client.work() takes both directions", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { client } = await kit.worker((n) => n);
  assertThrows(() => client.readable, TypeError);
  assertThrows(() => client.writable, TypeError);
  assertThrows(() => client.send(1), TypeError);
  assertThrows(() => client[Symbol.asyncIterator](), TypeError);
  await assertRejects(() => client.work((n) => n), TypeError);
});

both("Client.work() needs both directions free", async (net) => {
  await using kit = new Kit<number, number>(net);
  const reader = await kit.client();
  reader.readable;
  await assertRejects(() => reader.work((n) => n), TypeError);
  const sender = await kit.client();
  sender.send(1);
  await assertRejects(() => sender.work((n) => n), TypeError);
});

both("submit(), map() and close() go beside every face", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const worker = await kit.worker((n) => n + 1);
  const writer = server.writable.getWriter();
  const reader = server.readable.getReader();
  assertEquals(await server.submit(1), 2);
  await writer.write(10);
  assertEquals(await Array.fromAsync(server.map([2, 3])), [3, 4]);
  assertEquals(await reader.read(), { value: 11, done: false });
  await server.close();
  assertEquals((await reader.read()).done, true);
  await worker.done;
});

both("send() with readable, and writable with iteration", async (net) => {
  await using one = new Kit<number, number>(net);
  await one.worker((n) => n + 1);
  one.server.send(1);
  one.server.end();
  assertEquals(await Array.fromAsync(one.server.readable), [2]);
  await using two = new Kit<number, number>(net);
  await two.worker((n) => n + 1);
  const writer = two.server.writable.getWriter();
  await writer.write(1);
  writer.close();
  assertEquals(await Array.fromAsync(two.server), [2]);
});

both("A server is a TransformStream's pair", async (net) => {
  await using kit = new Kit<string, string>(net);
  const worker = await kit.worker((s) => s.toUpperCase());
  const words = ReadableStream.from(["a", "b", "c"]);
  const results = await Array.fromAsync(words.pipeThrough(kit.server));
  assertEquals(results, ["A", "B", "C"]);
  await worker.done;
  await kit.server.closed;
});

both("A client's readable pipes through into its writable", async (net) => {
  await using kit = new Kit<string, string>(net);
  const client = await kit.client();
  const upper = new TransformStream<string, string>({
    transform: (s, controller) => controller.enqueue(s.toUpperCase()),
  });
  const piped = client.readable.pipeThrough(upper).pipeTo(client.writable);
  const words = ReadableStream.from(["a", "b", "c"]);
  const results = await Array.fromAsync(words.pipeThrough(kit.server));
  assertEquals(results, ["A", "B", "C"]);
  await piped;
  await client.closed;
  await kit.server.closed;
});

both("Server.send() tells whether there is room for another", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const client = await kit.client({ prefetch: 2 });
  const items = client[Symbol.asyncIterator]();
  await kit.active(1);
  assertEquals(server.send(1), undefined, "taken, and room for another");
  const second = server.send(2);
  assertEquals(second instanceof Promise, true, "taken too, but no room");
  assertEquals(await stateOf(second!), "pending");
  await items.next();
  await items.next(); // settles the first
  await within(second!, 1000, "room again");
  assertEquals(server.send(3) instanceof Promise, true);
});

both("Server.send() without a worker takes its item", async (net) => {
  await using kit = new Kit<number, number>(net);
  const room = kit.server.send(1);
  assertEquals(room instanceof Promise, true);
  assertEquals(await stateOf(room!), "pending");
  await kit.worker((n) => n + 1);
  await within(room!, 1000, "room");
  const results = kit.server[Symbol.asyncIterator]();
  assertEquals((await results.next()).value, 2);
});

both("A producer that awaits what send() returns is bounded", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  let sent = 0, most = 0;
  const producing = (async () => {
    for (; sent < 2000; sent++) {
      await server.send(sent);
      most = Math.max(most, server.stats().pending);
    }
    await server.end();
  })();
  const client = await kit.client({ prefetch: 10 });
  const got: number[] = [];
  for await (const n of client) got.push(n);
  await producing;
  assertEquals(got, range(2000));
  assertEquals(most <= 1, true, `${most} items waited`);
});

both("A client's send() is bounded by what the server reads", async (net) => {
  await using kit = new Kit<number, Uint8Array>(net);
  const client = await kit.client();
  const value = new Uint8Array(64 * 1024);
  let sent = 0;
  const producing = (async () => {
    for (; sent < 1000; sent++) await client.send(value);
    await client.end();
  })();
  let before = -1;
  await until(() => {
    const isStill = sent === before && sent > 0;
    before = sent;
    return isStill;
  }, "the producer waits");
  assertEquals(sent < 200, true, `${sent} values of 64 KiB were taken`);
  kit.server.end();
  let count = 0;
  for await (const _ of kit.server) count++;
  await producing;
  assertEquals(count, 1000);
});

both("Client.send() before the handshake is not lost", async (net) => {
  await using kit = new Kit<number, string>(net);
  const { Client } = await import("../mod.ts");
  const client = new Client<number, string>(await kit.dial());
  client.send("early");
  const ended = client.end();
  assertEquals(await Array.fromAsync(kit.server.map([])), []);
  const results = kit.server[Symbol.asyncIterator]();
  assertEquals((await results.next()).value, "early");
  await ended;
  await client.closed;
});

both(
  "Everything may be ignored: nothing is an unhandled rejection",
  async (net) => {
    const seen: unknown[] = [];
    const onUnhandled = (event: PromiseRejectionEvent) => {
      event.preventDefault();
      seen.push(event.reason);
    };
    addEventListener("unhandledrejection", onUnhandled);
    try {
      {
        await using kit = new Kit<unknown, unknown>(net);
        const { server } = kit;
        const client = await kit.client();
        void server.closed;
        void client.closed;
        void client.opened;
        server.send(1); // a promise: no room
        server.send(() => {}); // can't be encoded
        client.send(() => {});
        kit.crash(client);
        await until(() => server.workers.length === 0, "the client is lost");
        client.send(1); // after the connection was lost
        await server.abort(new Error("stop"));
        server.send(2); // after the end
        await stateOf(new Promise(() => {}));
      }
      const { Client } = await import("../mod.ts");
      await using kit = new Kit<unknown, unknown>(net, { signature: "one" });
      const client = new Client(await kit.dial(), { signature: "two" });
      await stateOf(new Promise(() => {}));
      await client.abort();
    } finally {
      removeEventListener("unhandledrejection", onUnhandled);
    }
    assertEquals(seen, []);
  },
);

both(
  "Server.send(): a promise that waits for room resolves with the end",
  async (net) => {
    await using kit = new Kit<number, number>(net, { results: "discard" });
    const { server } = kit;
    const room = server.send(1);
    assert(room !== undefined, "there is no worker yet");
    const ended = server.end();
    const client = await kit.client({ prefetch: 1 });
    assertEquals(await Array.fromAsync(client), [1]);
    await within(ended, 2000, "end()");
    await within(room, 2000, "send()");
  },
);

both(
  "Client.send(): a promise that waits for room resolves with the end",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client();
    // The window of values is 4096.
    let room: Promise<void> | undefined;
    for (let sent = 0; room === undefined && sent < 10_000; sent++) {
      room = client.send(sent);
    }
    assert(room !== undefined, "nobody reads");
    const ended = client.end();
    await within(ended, 2000, "end()");
    await within(room, 2000, "send()");
  },
);

/** A client that may send; it has sent a 0. */
async function clientWithCredit<Item>(
  kit: Kit<Item, unknown>,
): Promise<Client<Item, unknown>> {
  const client = await kit.client();
  await until(() => client.send(0) === undefined, "there is credit");
  return client;
}

both(
  "Client: what a getter of a value asks for leaves before what comes later",
  async (net) => {
    await using kit = new Kit<number, unknown>(net, { results: "discard" });
    const client = await clientWithCredit(kit);
    let items: AsyncIterableIterator<number> | undefined;
    client.send({
      get begins() {
        items = client[Symbol.asyncIterator](); // CREDIT
        return 1;
      },
    });
    await items!.return!(); // LEAVE
    await client.end();
    await within(client.closed, 2000, "an end in order");
  },
);

both(
  "Client.send() is settled if a getter of its value aborts the client",
  async (net) => {
    await using kit = new Kit<number, unknown>(net, { results: "discard" });
    const client = await clientWithCredit(kit);
    const room = client.send({
      get aborts() {
        client.abort(new Error("enough"));
        return 1;
      },
    });
    await assertRejects(
      () => within(Promise.resolve(room), 1000, "send()"),
      ConnectionLostError,
    );
  },
);

both(
  "Client.send() is settled if a getter of its value ends the values",
  async (net) => {
    await using kit = new Kit<number, unknown>(net);
    const client = await clientWithCredit(kit);
    // The window of values is 4096.
    for (let sent = 1; sent < 4095; sent++) {
      const room = client.send(sent);
      if (room !== undefined) await within(room, 2000, "room");
    }
    const room = client.send({
      get ends() {
        client.end();
        return 1;
      },
    });
    await within(Promise.resolve(room), 1000, "send()");
  },
);

both(
  "Server.send(): a getter of the item may leave the loop over results",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net);
    const { server } = kit;
    const { done } = await kit.worker((_, { signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
      })
    );
    const results = server[Symbol.asyncIterator]();
    const room = server.send({
      get leaves() {
        results.return!();
        return 1;
      },
    });
    await within(done, 2000, "the worker ends");
    await assertRejects(() => Promise.resolve(room), DOMException);
  },
);

both(
  "Server.send(): what a getter of the item ends has taken the item",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net, { results: "discard" });
    const { server } = kit;
    const { done } = await kit.worker((item) => item, {
      client: { prefetch: 1 },
    });
    const room = server.send({
      get ends() {
        server.end();
        return 1;
      },
    });
    await Promise.resolve(room);
    await within(done, 2000, "the worker ends");
    assertEquals(server.stats().settled, 1);
  },
);

both("Client: whoever asks ahead settles what it was handed", async (net) => {
  for (const face of ["readable", "iteration"] as const) {
    await using kit = new Kit<number, number>(net);
    const client = await kit.client({ prefetch: 1 });
    const reader = face === "readable"
      ? client.readable.getReader()
      : client[Symbol.asyncIterator]();
    const next = () => "read" in reader ? reader.read() : reader.next();
    const reads = range(4).map(next);
    await kit.active(1);
    for (const n of range(3)) kit.server.send(n);
    const first = await within(Promise.all(reads.slice(0, 3)), 2000, face);
    assertEquals(first.map(({ value }) => value), [0, 1, 2]);
    await kit.server.end();
    assertEquals((await reads[3]!).done, true);
    await kit.server.closed;
    assertEquals(kit.server.stats().settled, 3);
  }
});
