import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  type Client,
  connect,
  ConnectionLostError,
  DrainTimeoutError,
  ItemFailure,
  ItemTimeoutError,
  listen,
  RemoteError,
  Server,
  type StandardSchemaV1,
  ValidationError,
  type ValidationIssue,
  work,
} from "../mod.ts";
import { SchemaQueue } from "../internal/schema.ts";
import { both, Kit, QUIET, range } from "./_support/channel_kit.ts";
import { Gate, moment, stateOf, until, within } from "./_support/within.ts";

type Result<T> = { value: T } | { issues: ValidationIssue[] };

/** A schema of a function that returns what comes out, or throws an issue. */
function schema<Input, Output>(
  parse: (value: Input) => Output | Promise<Output>,
): StandardSchemaV1<Input, Output> {
  const ok = (value: Output): Result<Output> => ({ value });
  const bad = (error: unknown): Result<Output> => {
    if (error instanceof Error) throw error;
    return { issues: [error as ValidationIssue] };
  };
  return {
    "~standard": {
      version: 1,
      vendor: "tests",
      validate(value) {
        try {
          const output = parse(value as Input);
          return output instanceof Promise ? output.then(ok, bad) : ok(output);
        } catch (error) {
          return bad(error);
        }
      },
    },
  };
}

/** A schema that takes its time. */
function gated(gate: Gate): StandardSchemaV1<number, number> {
  return schema(async (n: number) => {
    await gate.pass();
    return n;
  });
}

/** Takes even numbers, and gives ten times as much. */
const even = schema<number, number>((n) => {
  if (n % 2 === 0) return n * 10;
  throw { message: `${n} is odd`, path: ["items", 0, { key: "n" }] };
});

/** The same, later, and the later the smaller. */
const evenLater = schema<number, number>(async (n) => {
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, 10 - n)));
  if (n % 2 === 0) return n * 10;
  throw { message: `${n} is odd`, path: ["items", 0, { key: "n" }] };
});

function assertOdd(error: unknown): void {
  assertInstanceOf(error, ValidationError);
  assertEquals(error.path, "$.items[0].n");
  assertEquals(error.issues.length, 1);
  assertStringIncludes(error.message, "is odd");
}

for (const [name, numbers] of [["", even], [", async", evenLater]] as const) {
  both(`itemSchema of a server: submit() and map()${name}`, async (net) => {
    await using kit = new Kit<number, number>(net, { itemSchema: numbers });
    await kit.worker((n) => n + 1);
    assertEquals(await kit.server.submit(4), 41);
    const failure = await assertRejects(
      () => kit.server.submit(3),
      ItemFailure,
    ) as ItemFailure<number>;
    assertEquals(failure.item, 3);
    assertEquals(failure.attempts, 0);
    assertOdd(failure.cause);
    const failures: number[] = [];
    const results = await Array.fromAsync(kit.server.map(range(8), {
      onFailure: ({ item, error }) => {
        assertOdd(error);
        failures.push(item);
      },
    }));
    assertEquals(results, [1, 21, 41, 61]);
    assertEquals(failures.sort(), [1, 3, 5, 7]);
    const settled = await Array.fromAsync(
      kit.server.map([2, 3], { settled: true }),
    );
    assertEquals(settled[0], { index: 0, item: 2, result: 21 });
    assertOdd(settled[1]!.failure!.error);
  });

  both(`itemSchema of a server: send() and writable${name}`, async (net) => {
    for (const face of ["send", "writable"]) {
      const failures: ItemFailure<number>[] = [];
      await using kit = new Kit<number, number>(net, {
        itemSchema: numbers,
        onFailure: (failure) => void failures.push(failure),
      });
      const { server } = kit;
      await kit.worker((n) => n);
      if (face === "send") {
        for (const n of range(12)) server.send(n);
        server.end();
      } else {
        ReadableStream.from(range(12)).pipeTo(server.writable);
      }
      assertEquals(await Array.fromAsync(server), [0, 20, 40, 60, 80, 100]);
      assertEquals(failures.map((f) => f.item).sort((a, b) => a - b), [
        1,
        3,
        5,
        7,
        9,
        11,
      ]);
      for (const { error } of failures) assertOdd(error);
    }
  });

  both(
    `itemSchema of a server: without onFailure the channel fails${name}`,
    async (net) => {
      await using kit = new Kit<number, number>(net, { itemSchema: numbers });
      kit.server.send(1);
      const failure = await assertRejects(
        () => Array.fromAsync(kit.server),
        ItemFailure,
      );
      assertOdd(failure.cause);
    },
  );

  both(`resultSchema of a server: results${name}`, async (net) => {
    await using kit = new Kit<number, number>(net, { resultSchema: numbers });
    await kit.worker((n) => n, { concurrency: 4 });
    const results = await Array.fromAsync(
      kit.server.map(range(40), { onFailure: ({ cause }) => assertOdd(cause) }),
    );
    assertEquals(results, range(20).map((n) => n * 20));
    const failure = await assertRejects(
      () => kit.server.submit(7),
      ItemFailure,
    );
    assertOdd(failure.cause);
    assertEquals(kit.server.stats().failed, 21);
    assertEquals(kit.server.workers[0]!.failed, 21);
  });

  both(
    `resultSchema of a server: values keep their order${name}`,
    async (net) => {
      const failures: ItemFailure<number>[] = [];
      await using kit = new Kit<number, number>(net, {
        resultSchema: numbers,
        onFailure: (failure) => void failures.push(failure),
      });
      const { server } = kit;
      const client = await kit.client();
      server.send(5);
      server.end();
      for await (const n of client) {
        for (let i = 0; i < n; i++) client.send(i);
      }
      client.end();
      assertEquals(await Array.fromAsync(server), [0, 20, 40]);
      assertEquals(failures.length, 2);
      for (const { item, error } of failures) {
        assertEquals(item, 5);
        assertOdd(error);
      }
    },
  );

  both(
    `itemSchema of a worker: a bad item is answered with its failure${name}`,
    async (net) => {
      await using kit = new Kit<number, number>(net);
      await kit.worker((n) => n + 1, { client: { itemSchema: numbers } });
      const results = await Array.fromAsync(
        kit.server.map(range(20), { onFailure() {} }),
      );
      assertEquals(results, range(10).map((n) => n * 20 + 1));
      const failure = await assertRejects(
        () => kit.server.submit(1),
        ItemFailure,
      );
      assertInstanceOf(failure.error, RemoteError);
      assertEquals(failure.error.name, "ValidationError");
      assertStringIncludes(failure.error.message, "$.items[0].n: 1 is odd");
    },
  );

  both(
    `itemSchema of a reader: bad items don't come out${name}`,
    async (net) => {
      const failures: number[] = [];
      await using kit = new Kit<number, number>(net, {
        onFailure: ({ item }) => void failures.push(item),
      });
      const { server } = kit;
      const client = await kit.client({ itemSchema: numbers });
      for (const n of range(12)) server.send(n);
      server.end();
      assertEquals(await Array.fromAsync(client), [0, 20, 40, 60, 80, 100]);
      assertEquals(failures, [1, 3, 5, 7, 9, 11]);
      await server.closed;
    },
  );

  both(
    `resultSchema of a worker: a bad result is its item's failure${name}`,
    async (net) => {
      await using kit = new Kit<number, number>(net);
      await kit.worker((n) => n, { client: { resultSchema: numbers } });
      const results = await Array.fromAsync(
        kit.server.map(range(20), { onFailure() {} }),
      );
      assertEquals(results, range(10).map((n) => n * 20));
      const failure = await assertRejects(
        () => kit.server.submit(1),
        ItemFailure,
      );
      assertEquals(failure.error.name, "ValidationError");
      kit.server.end();
      await kit.server.closed;
    },
  );

  both(
    `resultSchema of a worker: every yielded value is checked${name}`,
    async (net) => {
      await using kit = new Kit<number, number>(net, { onFailure() {} });
      await kit.worker(async function* (n) {
        for (let i = 0; i < n; i++) yield await Promise.resolve(i * 2);
      }, { client: { resultSchema: numbers } });
      kit.server.send(4);
      kit.server.end();
      assertEquals(await Array.fromAsync(kit.server), [0, 20, 40, 60]);
    },
  );

  both(
    `resultSchema of a client: send() rejects, in order${name}`,
    async (net) => {
      await using kit = new Kit<number, number>(net);
      const client = await kit.client({ resultSchema: numbers });
      const sent = range(8).map((n) => client.send(n));
      for (const [n, promise] of sent.entries()) {
        if (n % 2 === 1) {
          assertOdd(await assertRejects(() => promise!, ValidationError));
        } else await promise;
      }
      client.end();
      kit.server.end();
      assertEquals(await Array.fromAsync(kit.server), [0, 20, 40, 60]);
      await client.closed;
    },
  );

  both(
    `resultSchema of a client: a write that fails ends the stream${name}`,
    async (net) => {
      await using kit = new Kit<number, number>(net);
      const client = await kit.client({ resultSchema: numbers });
      const writer = client.writable.getWriter();
      writer.closed.catch(() => {});
      await writer.write(2);
      const results = kit.server[Symbol.asyncIterator]();
      assertEquals((await results.next()).value, 20);
      assertOdd(await assertRejects(() => writer.write(3), ValidationError));
      await assertRejects(() => writer.write(4));
    },
  );
}

both(
  "itemSchema, async: the write of an item that fails is refused with it",
  async (net) => {
    const gate = new Gate();
    const never = schema<number, number>(async () => {
      await gate.pass();
      throw { message: "no" };
    });
    await using kit = new Kit<number, number>(net, { itemSchema: never });
    await kit.worker((n) => n);
    const writer = kit.server.writable.getWriter();
    writer.closed.catch(() => {});
    const written = writer.write(1);
    await until(() => gate.passing > 0, "the schema runs");
    gate.open();
    await assertRejects(() => written, ItemFailure);
  },
);

both("an item that expires in its schema holds up nobody", async (net) => {
  const slow = schema<string, string>((text) =>
    text === "slow" ? new Promise(() => {}) : text
  );
  await using kit = new Kit<string, string>(net, { itemSchema: slow });
  await kit.worker((text) => text);
  await kit.server.submit("first");
  const expired = kit.server.submit("slow", { timeoutMs: 20 }).catch((e) => e);
  const behind = kit.server.submit("behind");
  assertInstanceOf(await expired, ItemFailure);
  // Nothing else happens that would let it go: no heartbeat for 10 s.
  assertEquals(await within(behind, 2000, "it goes"), "behind");
});

both(
  "maxQueued doesn't count what an async schema refused behind an item that waits",
  async (net) => {
    const refused: number[] = [];
    const positive = schema<number, number>(async (n) => {
      await null;
      if (n < 0) throw { message: "negative" };
      return n;
    });
    await using kit = new Kit<number, number>(net, {
      maxQueued: 2,
      itemSchema: positive,
      onFailure: ({ item }) => refused.push(item),
    });
    const { server } = kit;
    server.send(1);
    // More than may wait, one after the other.
    for (const n of [-1, -2, -3]) {
      server.send(n);
      await until(() => refused.includes(n), "it is refused");
    }
    server.send(2);
    await assertRejects(
      async () => await server.send(3),
      RangeError,
      "2 items",
    );
    await kit.worker((n) => n);
    await server.end();
    assertEquals(await Array.fromAsync(server), [1, 2]);
  },
);

both("schemas may throw anything, at once and later", async (net) => {
  const bare = () => Object.create(null);
  for (const isLater of [false, true]) {
    const itemSchema: StandardSchemaV1<number, number> = {
      "~standard": {
        version: 1,
        vendor: "tests",
        validate() {
          if (isLater) return Promise.reject(bare());
          throw bare();
        },
      },
    };
    await using kit = new Kit<number, number>(net, { itemSchema });
    await kit.worker((n) => n);
    const failure = await within(
      assertRejects(() => kit.server.submit(1), ItemFailure),
      1000,
      "it is settled",
    );
    assertInstanceOf(failure.cause, ValidationError);
    assertStringIncludes(failure.cause.message, "the schema failed");
  }
});

both("itemSchema: what comes out of it is what is sent again", async (net) => {
  let checks = 0;
  const counting = schema<number, string>((n) => `${n}:${++checks}`);
  await using kit = new Kit<number, string>(net, { itemSchema: counting });
  const gate = new Gate();
  const first = await kit.client();
  first.work(async (text) => {
    await gate.pass();
    return String(text);
  }).catch(() => {});
  await kit.active(1);
  const result = kit.server.submit(7);
  await until(() => gate.passing > 0, "the first worker has it");
  await first.abort();
  await kit.worker((text) => text as unknown as string);
  assertEquals(await result, "7:1");
  gate.open();
});

both(
  "itemSchema, async: of a map() it looks at many at once, within the window",
  async (net) => {
    let checking = 0, most = 0;
    const together = Promise.withResolvers<void>();
    const itemSchema = schema<number, number>(async (n) => {
      most = Math.max(most, ++checking);
      if (checking === 10) together.resolve();
      await together.promise;
      await moment();
      checking--;
      return n;
    });
    await using kit = new Kit<number, number>(net, { itemSchema });
    await kit.worker((n) => n);
    const results = kit.server.map(range(100), { window: 10 });
    const all = Array.fromAsync(results);
    assertEquals(await within(all, 5000, "all come"), range(100));
    assertEquals(most, 10);
  },
);

both(
  "itemSchema, async: what comes first goes first, and the rest waits",
  async (net) => {
    const gate = new Gate();
    const slow = schema<number, number>(async (n) => {
      if (n === 0) await gate.pass();
      return n;
    });
    await using kit = new Kit<number, number>(net, { itemSchema: slow });
    const seen: number[] = [];
    await kit.worker((n) => {
      seen.push(n);
      return n;
    });
    const { server } = kit;
    const room = server.send(0);
    assert(room instanceof Promise);
    for (const n of [1, 2, 3]) server.send(n);
    const ended = server.end();
    await moment();
    assertEquals(seen, []);
    assertEquals(await stateOf(room), "pending");
    assertEquals(await stateOf(ended), "pending");
    gate.open();
    await ended;
    assertEquals(await Array.fromAsync(server), [0, 1, 2, 3]);
    assertEquals(seen, [0, 1, 2, 3]);
  },
);

both(
  "itemSchema, async: an item that is cancelled meanwhile is gone",
  async (net) => {
    const gate = new Gate();
    const slow = schema<number, number>(async (n) => {
      if (n === 0) await gate.pass();
      return n;
    });
    await using kit = new Kit<number, number>(net, { itemSchema: slow });
    const seen: number[] = [];
    await kit.worker((n) => seen.push(n));
    const controller = new AbortController();
    const first = kit.server.submit(0, { signal: controller.signal });
    await until(() => gate.passing > 0, "the schema runs");
    controller.abort(new Error("never mind"));
    await assertRejects(() => first, Error, "never mind");
    gate.open();
    await kit.server.submit(1);
    assertEquals(seen, [1]);
    await kit.server.close();
  },
);

both(
  "itemSchema of a worker, async: what is being checked when it leaves goes back",
  async (net) => {
    const checking = new Gate(), working = new Gate();
    const slow = schema<number, number>(async (n) => {
      if (n === 1) await checking.pass();
      return n;
    });
    await using kit = new Kit<number, string>(net);
    const leave = new AbortController();
    const leaver = await kit.worker(async () => {
      await working.pass();
      return "leaver";
    }, {
      concurrency: 2,
      signal: leave.signal,
      client: { itemSchema: slow, prefetch: 2 },
    });
    const first = kit.server.submit(0);
    await until(() => working.passing > 0, "the first item is begun");
    const second = kit.server.submit(1);
    await until(() => checking.passing > 0, "the second is being checked");
    leave.abort();
    await kit.worker(() => "other");
    checking.open();
    assertEquals(await second, "other");
    working.open();
    assertEquals(await first, "leaver");
    await leaver.done;
  },
);

both(
  "itemSchema of a worker, async: one that never settles holds up no goodbye for ever",
  async (net) => {
    const never = new Gate();
    await using kit = new Kit<number, number>(net);
    const leave = new AbortController();
    const leaver = await kit.worker((n) => n, {
      signal: leave.signal,
      client: {
        itemSchema: gated(never),
        heartbeat: { intervalMs: 20, timeoutMs: 50, dropMs: 100 },
      },
    });
    const result = kit.server.submit(1);
    await until(() => never.passing > 0, "the item is being checked");
    leave.abort();
    const error = await assertRejects(
      () => within(leaver.done, 5000, "it leaves"),
      ConnectionLostError,
    );
    assertEquals(error.code, "timeout");
    await kit.worker((n) => n + 1);
    assertEquals(await result, 2);
  },
);

both(
  "resultSchema, async: results that came before a death count",
  async (net) => {
    const gate = new Gate();
    const slow = gated(gate);
    await using kit = new Kit<number, number>(net, { resultSchema: slow });
    let runs = 0;
    const { client } = await kit.worker((n) => {
      runs++;
      return n;
    });
    const result = kit.server.submit(7);
    await until(() => gate.passing > 0, "the schema runs");
    await client.abort();
    gate.open();
    assertEquals(await result, 7);
    await kit.event("disconnected");
    assertEquals(runs, 1);
    await kit.server.close();
  },
);

both(
  "resultSchema, async, of a worker: it leaves once what is being checked is answered",
  async (net) => {
    const gate = new Gate();
    const resultSchema = gated(gate);
    await using kit = new Kit<number, number>(net);
    const leave = new AbortController();
    const { done } = await kit.worker((n) => n, {
      signal: leave.signal,
      client: { resultSchema },
    });
    const result = kit.server.submit(7);
    await until(() => gate.passing > 0, "the schema runs");
    leave.abort();
    await until(
      () => kit.server.workers[0]?.state !== "active",
      "the server knows that it leaves",
    );
    assertEquals(await stateOf(done), "pending");
    gate.open();
    assertEquals(await within(result, 5000, "its result"), 7);
    await done;
  },
);

Deno.test("SchemaQueue tells values in order though only some take their time", async () => {
  const gate = new Gate();
  const queue = new SchemaQueue(
    schema<number, number>((n) => n === 1 ? gate.pass().then(() => n) : n),
  );
  const told: unknown[] = [];
  const [first, , last] = [0, 1, 2].map((n) =>
    queue.check(
      n,
      (checked) => told.push((checked as { value: number }).value),
    )
  );
  assertEquals([told, first], [[0], null]);
  gate.open();
  await last;
  assertEquals([told, queue.pending], [[0, 1, 2], 0]);
});

both(
  "resultSchema of a server: values that don't pass take no room from others",
  async (net) => {
    const resultSchema = schema<number, number>((n) => {
      if (n < 0) return n;
      throw { message: "it isn't negative" };
    });
    let failures = 0;
    const onFailure = () => void failures++;
    await using kit = new Kit<number, number>(net, { resultSchema, onFailure });
    const client = await kit.client();
    const results = kit.server[Symbol.asyncIterator]();
    // More than may be unread at once.
    for (const n of range(5000)) await client.send(n);
    await client.send(-1);
    assertEquals((await results.next()).value, -1);
    assertEquals(failures, 5000);
  },
);

both(
  "resultSchema, async, of a worker: no more items are begun than may run at once",
  async (net) => {
    const gate = new Gate();
    const resultSchema = gated(gate);
    await using kit = new Kit<number, number>(net);
    let begun = 0;
    await kit.worker((n) => {
      begun++;
      return n;
    }, { concurrency: 2, client: { prefetch: 10, resultSchema } });
    const results = range(10).map((n) => kit.server.submit(n));
    await until(() => gate.passing >= 2, "the schema runs");
    await until(() => kit.server.stats().inFlight === 10, "all are there");
    assertEquals([begun, gate.passing], [2, 2]);
    gate.open();
    assertEquals(await Promise.all(results), range(10));
  },
);

both(
  "resultSchema, async: what is being checked is unfinished",
  async (net) => {
    const gate = new Gate();
    const slow = gated(gate);
    await using kit = new Kit<number, number>(net, { resultSchema: slow });
    await kit.worker((n) => n);
    const result = assertRejects(() => kit.server.submit(7), DrainTimeoutError);
    await until(() => gate.passing > 0, "the schema runs");
    const error = await assertRejects(
      () => kit.server.close({ drainMs: 50 }),
      DrainTimeoutError,
    );
    assertEquals(error.unfinished, [{ id: 0, item: 7 }]);
    await result;
    gate.open();
  },
);

both("a schema that fails fails the item and nothing else", async (net) => {
  const broken = [
    schema<number, number>(() => {
      throw new Error("oh no");
    }),
    schema<number, number>(() => Promise.reject(new Error("oh no"))),
  ];
  for (const itemSchema of broken) {
    await using kit = new Kit<number, number>(net, { itemSchema });
    const failure = await assertRejects(
      () => kit.server.submit(1),
      ItemFailure,
    );
    assertInstanceOf(failure.error, ValidationError);
    assertStringIncludes(failure.error.message, "the schema failed: oh no");
    assertInstanceOf(failure.error.cause, Error);
  }
});

Deno.test("a schema that returns neither a value nor issues fails the item", async () => {
  for (const result of [true, {}, 7, Promise.resolve(true), null, undefined]) {
    const itemSchema = schema<number, number>((n) => n);
    const validate = () => result as never;
    await using server = listen<number, number>({
      port: 0,
      itemSchema: { "~standard": { ...itemSchema["~standard"], validate } },
    });
    const failure = await assertRejects(() => server.submit(1), ItemFailure);
    assertInstanceOf(failure.error, ValidationError);
    assertStringIncludes(failure.error.message, "the schema failed: ");
  }
});

Deno.test("schemas are checked at construction", () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  for (const bad of [1, {}, { "~standard": { version: 2, validate() {} } }]) {
    assertThrows(
      () => new Server(listener, { itemSchema: bad as never }),
      TypeError,
      "a Standard Schema v1",
    );
  }
  listener.close();
});

Deno.test("a schema may be a function", async () => {
  const callable = Object.assign(() => {}, even);
  await using server = listen({ port: 0, itemSchema: callable });
  await assertRejects(() => server.submit(1), ItemFailure);
});

Deno.test("types are inferred from schemas", async () => {
  const itemSchema = schema<{ n: number }, Map<string, number>>(({ n }) =>
    new Map([["n", n]])
  );
  const resultSchema = schema<string, URL>((text) => new URL(text));
  await using server = listen({ itemSchema, resultSchema, port: 0 });
  const typed: Server<{ n: number }, URL> = server;
  const { port } = typed.addr as Deno.NetAddr;
  const workerItem = schema<unknown, Map<string, number>>((item) =>
    item as Map<string, number>
  );
  const workerResult = schema<string, string>((text) => text);
  const done = work(
    { port, itemSchema: workerItem, resultSchema: workerResult },
    (item) => `http://localhost/${item.get("n")!.toFixed()}`,
  );
  const result: URL = await server.submit({ n: 3 });
  assertEquals(result.href, "http://localhost/3");
  // @ts-expect-error an item has another type
  server.submit("text").catch(() => {});
  const client = await connect({ port, itemSchema: workerItem });
  const typedClient: Client<Map<string, number>, unknown> = client;
  await typedClient.close();
  await server.close();
  await done;
});

Deno.test("beside type arguments a schema may take more, as one that coerces does", async () => {
  const coerced = schema<unknown, number>(Number);
  await using server = listen<number, number>({
    port: 0,
    itemSchema: coerced,
  });
  const { port } = server.addr;
  const done = work<number, number>(
    { port, resultSchema: coerced },
    (n) => n + 1,
  );
  assertEquals(await server.submit(1), 2);
  const dates = schema<Date, Date>((date) => date);
  // @ts-expect-error it takes no numbers
  assertThrows(() => listen<number, number>({ port: -1, itemSchema: dates }));
  await server.close();
  await done;
});

for (const [name, numbers] of [["", even], [", async", evenLater]] as const) {
  Deno.test(`schemas of a worker with isolates: they check values, not payloads${name}`, async () => {
    await using server = listen<number, number>({ port: 0, onFailure() {} });
    const { port } = server.addr as Deno.NetAddr;
    const handler = new URL("./testdata/handlers/double.ts", import.meta.url);
    const done = work<number, number>(
      { port, itemSchema: numbers, resultSchema: numbers },
      handler,
      { isolate: true },
    );
    // Ten times, doubled, ten times.
    assertEquals(await server.submit(4), 800);
    const failure = await assertRejects(() => server.submit(3), ItemFailure);
    assertEquals(failure.error.name, "ValidationError");
    await server.close();
    await done;
  });
}

both(
  "Client.send() is settled if its schema aborts the client",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    for (const isLater of [false, true]) {
      const client = await kit.client({
        resultSchema: schema<number, number>((n) => {
          client.abort(new Error("enough"));
          return isLater ? Promise.resolve(n) : n;
        }),
      });
      const room = client.send(1);
      await assertRejects(
        () => within(Promise.resolve(room), 1000, "send()"),
        ConnectionLostError,
      );
    }
  },
);

for (const side of ["server", "worker"] as const) {
  both(
    `A schema slower than dropMs is nobody's silence: ${side}`,
    async (net) => {
      const heartbeat = { intervalMs: 20, timeoutMs: 100, dropMs: 200 };
      let running = 0;
      const slow = schema<number, number>(async (n) => {
        running++;
        await new Promise((resolve) => setTimeout(resolve, 500));
        return n;
      });
      const told: string[] = [];
      await using kit = new Kit<number, number>(net, {
        heartbeat,
        ...(side === "server" ? { resultSchema: slow } : {}),
      });
      await kit.worker((n) => n + 1, {
        client: {
          heartbeat,
          onEvent: ({ type }) => told.push(type),
          ...(side === "worker" ? { itemSchema: slow } : {}),
        },
      });
      const results = await Promise.all(
        [1, 2].map((n) => kit.server.submit(n)),
      );
      assertEquals([results, running], [[2, 3], 2]);
      assertEquals(told, ["connected"]);
      const { server } = kit;
      assertEquals([server.stats().redelivered, server.workers.length], [0, 1]);
      assertEquals(kit.events.filter(({ type }) => type === "suspect"), []);
    },
  );
}

both("A result that waits for a slow schema hasn't timed out", async (net) => {
  const slow = schema<number, number>(async (n) => {
    await new Promise((resolve) => setTimeout(resolve, 250));
    return n;
  });
  await using kit = new Kit<number, number>(net, {
    resultSchema: slow,
    itemTimeoutMs: 200,
  });
  await kit.worker(async (n) => (await moment(10 * n), n), { concurrency: 4 });
  const results = range(4).map((n) => kit.server.submit(n));
  assertEquals(await Promise.all(results), range(4));
});

both(
  "itemTimeoutMs: other items' results that wait for a slow schema are no new start",
  async (net) => {
    const slow = schema<number, number>(async (n) => (await moment(20), n));
    await using kit = new Kit<number, number>(net, {
      resultSchema: slow,
      itemTimeoutMs: 300,
      heartbeat: { ...QUIET, intervalMs: 40 }, // a look every 10 ms
    });
    const { server } = kit;
    const hang = (signal: AbortSignal) =>
      new Promise<number>((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason))
      );
    await kit.worker(
      async (n, { signal }) =>
        n < 0 ? await hang(signal) : (await moment(30), n),
      { concurrency: 2 },
    );
    let hasFailed = false;
    const failure = server.submit(-1).catch((error) => {
      hasFailed = true;
      return error;
    });
    const start = performance.now();
    for (let n = 0; !hasFailed && performance.now() - start < 10_000; n++) {
      await server.submit(n).catch(() => {}); // a busy machine may be late
    }
    assert(hasFailed, "it timed out while others were settled");
    assertInstanceOf((await failure).error, ItemTimeoutError);
  },
);

both(
  "itemTimeoutMs: an item times out where others' results always wait for a schema",
  async (net) => {
    // So long that they don't all come at once, and the worker gets others.
    const result = new Uint8Array(50_000);
    const slow = schema<unknown, unknown>(async (v) => (await moment(1), v));
    await using kit = new Kit<number, unknown>(net, {
      resultSchema: slow,
      itemTimeoutMs: 200,
    });
    const { server } = kit;
    await kit.worker(
      (n) => n < 0 ? new Promise(() => {}) : Promise.resolve(result),
      { concurrency: 4 },
    );
    const failed = server.submit(-1).catch((failure) => failure.error);
    let isOver = false;
    const others = (async () => {
      const numbers = function* () {
        for (let n = 0; !isOver; n++) yield n;
      };
      for await (
        const { failure } of server.map(numbers(), { settled: true })
      ) {
        assertEquals(failure, undefined); // none of those that wait
      }
    })();
    try {
      const error = await within(failed, 3000, "it times out");
      assertInstanceOf(error, ItemTimeoutError);
    } finally {
      isOver = true;
      await others;
    }
  },
);

both(
  "resultSchema of a client: values keep their order though only some take their time",
  async (net) => {
    const gate = new Gate();
    const resultSchema = schema<number, number>((n) =>
      n === 0 ? gate.pass().then(() => n) : n
    );
    await using kit = new Kit<number, number>(net);
    const client = await kit.client({ resultSchema });
    for (const n of range(3)) client.send(n);
    gate.open();
    await client.close();
    kit.server.end();
    assertEquals(await Array.fromAsync(kit.server), [0, 1, 2]);
  },
);

both("Values that nobody will read aren't checked", async (net) => {
  let checked = 0;
  const counting = schema<number, number>((n) => (checked++, n));
  await using kit = new Kit<number, number>(net, { resultSchema: counting });
  const { server } = kit;
  const gate = new Gate();
  const worker = await kit.worker(async function* (n) {
    yield n;
    await gate.pass();
    for (let i = 0; i < 100; i++) yield i;
  });
  server.send(1);
  for await (const _ of server) break;
  assertEquals(checked, 1);
  gate.open();
  await worker.done;
  await server.closed;
  assertEquals(checked, 1);
});

both(
  "itemSchema of the client: who leaves behind a refused item breaks nothing",
  async (net) => {
    for (const face of ["iteration", "readable"] as const) {
      const failures: unknown[] = [];
      await using kit = new Kit<number, number>(net, {
        onFailure: ({ item }) => failures.push(item),
      });
      const client = await kit.client({
        itemSchema: {
          "~standard": {
            version: 1,
            vendor: "test",
            validate: (value: unknown) =>
              value === 1 ? { issues: [{ message: "no" }] } : { value },
          },
        },
      });
      for (const n of range(4)) kit.server.send(n);
      const items = face === "readable" ? client.readable : client;
      const read: unknown[] = [];
      for await (const item of items) {
        read.push(item);
        if (item === 2) break;
      }
      assertEquals(read, [0, 2]);
      await within(client.closed, 5000, "an end in order");
      assertEquals(failures, [1]);
      assertEquals(kit.server.stats().pending, 2);
      await kit.server.abort();
    }
  },
);
