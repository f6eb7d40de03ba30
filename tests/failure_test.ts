/** Failures are per item: design section 3, "Failures". */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  cbor,
  type Codec,
  DecodeError,
  EncodeError,
  ItemFailure,
  RemoteError,
  type StandardSchemaV1,
} from "../mod.ts";
import { both, Kit, range } from "./_support/channel_kit.ts";
import { moment, until, within } from "./_support/within.ts";

both(
  "regular expressions are limited in each frame, not in a connection",
  async (net) => {
    await using kit = new Kit<RegExp, RegExp>(net);
    const { server } = kit;
    const costly = range(3).map((i) =>
      new RegExp(`${"\\p{L}".repeat(600)}${i}`, "u")
    );
    await kit.worker((item) => item);
    for (const item of costly) assertEquals(await server.submit(item), item);
    const client = await kit.client();
    for (const value of costly) {
      client.send(value);
      const { value: read } = await server[Symbol.asyncIterator]().next();
      assertEquals(read, value);
    }
    client.end();
  },
);

both(
  "onFailure is told of each failed item, and the channel goes on",
  async (net) => {
    const failures: ItemFailure<number>[] = [];
    await using kit = new Kit<number, number>(net, {
      onFailure: (failure) => failures.push(failure),
    });
    await kit.worker((n) => {
      if (n === 2) throw new Error("two");
      return n;
    });
    const results = await Array.fromAsync(
      ReadableStream.from(range(5)).pipeThrough(kit.server),
    );
    assertEquals(results, [0, 1, 3, 4]);
    assertEquals(failures.length, 1);
    assertInstanceOf(failures[0], ItemFailure);
    assertEquals(failures[0]!.item, 2);
    assertInstanceOf(failures[0]!.error, RemoteError);
    await kit.server.closed;
  },
);

/** Refuses all, a microtask later. */
const refusing: StandardSchemaV1<unknown> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: () => Promise.resolve({ issues: [{ message: "as it is to" }] }),
  },
};
for (
  const [what, options] of [
    ["fail at once", {}],
    ["an async schema refuses", { itemSchema: refusing }],
  ] as const
) {
  for (const face of ["send()", "writable"]) {
    both(
      `Whoever sends items that ${what}, through ${face}, lets go of the event loop`,
      async (net) => {
        await using kit = new Kit<unknown, number>(net, {
          ...options,
          onFailure: () => {},
        });
        const { server } = kit;
        await kit.worker(() => 0);
        const writer = face === "send()" ? null : server.writable.getWriter();
        const send = (item: unknown) =>
          writer === null ? server.send(item) : writer.write(item);
        let hasFired = false, sent = 0;
        setTimeout(() => hasFired = true, 0);
        for (; !hasFired && sent < 50_000; sent++) await send(() => {});
        assert(hasFired, `a timer waits for ${sent} items`);
        await server.close();
      },
    );
  }
}

both("Without onFailure both sides error with the failure", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const { done } = await kit.worker((n) => {
    if (n === 1) throw new Error("one");
    return n;
  });
  const writer = server.writable.getWriter();
  const reader = server.readable.getReader();
  await writer.write(0);
  assertEquals((await reader.read()).value, 0);
  await writer.write(1);
  const failure = await assertRejects(() => reader.read(), ItemFailure);
  assertEquals(failure.item, 1);
  assertStrictEquals(await writer.closed.catch((e) => e), failure);
  assertStrictEquals(await writer.write(2).catch((e) => e), failure);
  assertStrictEquals(await server.closed.catch((e) => e), failure);
  await assertRejects(() => done);
});

both("Without onFailure iteration and send() fail with it too", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  await kit.worker(() => {
    throw new Error("always");
  });
  server.send(1);
  const failure = await assertRejects(async () => {
    for await (const _ of server);
  }, ItemFailure);
  assertStrictEquals(await server.send(2)!.catch((e) => e), failure);
});

both("A failing pipe through the server ends with the failure", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => {
    if (n === 3) throw new Error("three");
    return n;
  });
  let cancelled: unknown;
  const source = new ReadableStream<number>({
    pull: (controller) => controller.enqueue(3),
    cancel: (reason) => {
      cancelled = reason;
    },
  });
  const failure = await assertRejects(
    () => Array.fromAsync(source.pipeThrough(kit.server)),
    ItemFailure,
  );
  await until(() => cancelled !== undefined, "the source is cancelled");
  assertStrictEquals(cancelled, failure);
});

both(
  "writable: an item that can't be encoded fails alone, worker or not",
  async (net) => {
    const failures: ItemFailure[] = [];
    await using kit = new Kit<unknown, unknown>(net, {
      onFailure: (failure) => failures.push(failure),
    });
    const { server } = kit;
    const writer = server.writable.getWriter();
    await kit.workers(2, () => (value) => value);
    const values = [1, () => {}, 2, Symbol("x"), 3, "\ud800", 4];
    for (const value of values) await writer.write(value);
    writer.close();
    assertEquals(await Array.fromAsync(server.readable), [1, 2, 3, 4]);
    assertEquals(failures.map(({ item }) => item), [
      values[1],
      values[3],
      values[5],
    ]);
    for (const { error } of failures) assertInstanceOf(error, EncodeError);
  },
);

both("send() never throws for a failure of its item", async (net) => {
  const failures: ItemFailure[] = [];
  await using kit = new Kit<unknown, unknown>(net, {
    onFailure: (failure) => failures.push(failure),
    maxFrameBytes: 4096,
  });
  await kit.worker((value) => value, { client: { maxFrameBytes: 2048 } });
  await kit.server.send(() => {});
  await kit.server.send("x".repeat(3000));
  await kit.server.send(1);
  kit.server.end();
  assertEquals(await Array.fromAsync(kit.server), [1]);
  assertEquals(failures.map(({ error }) => error.name), [
    "EncodeError",
    "FrameTooLargeError",
  ]);
});

both(
  "Without onFailure an unencodable item ends the channel loudly",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net);
    await kit.worker((value) => value);
    const writer = kit.server.writable.getWriter();
    const failure = await assertRejects(
      () => writer.write(() => {}),
      ItemFailure,
    );
    assertInstanceOf(failure.error, EncodeError);
    assertStrictEquals(
      await kit.server.readable.getReader().read().catch((e) => e),
      failure,
    );
  },
);

both(
  "An onFailure that throws ends the channel with that error",
  async (net) => {
    const error = new Error("mine");
    await using kit = new Kit<number, number>(net, {
      onFailure: () => {
        throw error;
      },
    });
    await kit.worker(() => {
      throw new Error("always");
    });
    kit.server.send(1);
    assertStrictEquals(
      await kit.server[Symbol.asyncIterator]().next().catch((e) => e),
      error,
    );
  },
);

both(
  "A result that can't be encoded fails its item, and the worker goes on",
  async (net) => {
    const failures: ItemFailure[] = [];
    await using kit = new Kit<number, unknown>(net, {
      onFailure: (failure) => failures.push(failure),
    });
    await kit.worker((n) => n === 1 ? Symbol("no") : n);
    const results = await Array.fromAsync(
      ReadableStream.from(range(4)).pipeThrough(kit.server),
    );
    assertEquals(results, [0, 2, 3]);
    assertEquals(failures.map(({ item }) => item), [1]);
    assertEquals(failures[0]!.error.name, "EncodeError");
  },
);

both(
  "Client.send() of what can't be encoded rejects, and the client goes on",
  async (net) => {
    await using kit = new Kit<number, unknown>(net);
    const client = await kit.client();
    await assertRejects(async () => await client.send(() => {}), EncodeError);
    client.send("fine");
    await client.end();
    await client.closed;
    const { value } = await kit.server[Symbol.asyncIterator]().next();
    assertEquals(value, "fine");
  },
);

both(
  "Client.send() of what is too large rejects, and the client goes on",
  async (net) => {
    await using kit = new Kit<number, unknown>(net, { maxFrameBytes: 2048 });
    const client = await kit.client();
    await assertRejects(async () => await client.send("x".repeat(3000)));
    client.send("fine");
    await client.end();
    await client.closed;
    const { value } = await kit.server[Symbol.asyncIterator]().next();
    assertEquals(value, "fine");
  },
);

both("Client.writable errors with what can't be encoded", async (net) => {
  await using kit = new Kit<number, unknown>(net);
  const client = await kit.client();
  const writer = client.writable.getWriter();
  await assertRejects(() => writer.write(() => {}), EncodeError);
  await assertRejects(() => client.closed);
  await until(() => kit.server.workers.length === 0, "the client is gone");
});

/** A codec with gaps: it can't do some strings in one direction or the other. */
const gaps: Codec<unknown> = {
  name: "gaps",
  encode(value) {
    if (value === "no encode") throw new Error("gap");
    return cbor().encode(value);
  },
  decode(payload) {
    const value = cbor().decode(payload);
    if (value === "no decode") throw new Error("gap");
    return value;
  },
};

both("A codec of one's own is used by both ends", async (net) => {
  const json: Codec<unknown> = {
    name: "json",
    encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
    decode: (payload) => JSON.parse(new TextDecoder().decode(payload)),
  };
  await using kit = new Kit<unknown, unknown>(net, { codec: json });
  await kit.worker((value) => value, { client: { codec: json } });
  const values = [1, "a", { b: [null, true] }, "x".repeat(100_000)];
  assertEquals(await Array.fromAsync(kit.server.map(values)), values);
});

both(
  "A codec that fails is the item's failure, at each of its four places",
  async (net) => {
    await using kit = new Kit<string, string>(net, { codec: gaps });
    await kit.worker((s) => s.startsWith("return ") ? s.slice(7) : s, {
      client: { codec: gaps },
    });
    const errors: Error[] = [];
    for (
      const item of [
        "no encode",
        "no decode",
        "return no encode",
        "return no decode",
      ]
    ) {
      const failure = await assertRejects(
        () => kit.server.submit(item),
        ItemFailure,
      );
      errors.push(failure.error);
    }
    assertEquals(errors.map(({ name }) => name), [
      "EncodeError",
      "DecodeError",
      "EncodeError",
      "DecodeError",
    ]);
    assertInstanceOf(errors[3], DecodeError);
    assertEquals(await kit.server.submit("fine"), "fine");
    assertEquals(kit.server.workers.length, 1, "nobody was dropped for it");
  },
);

both(
  "An item that a reader can't decode fails; the next is read",
  async (net) => {
    const failures: ItemFailure[] = [];
    await using kit = new Kit<string, string>(net, {
      codec: gaps,
      onFailure: (failure) => failures.push(failure),
    });
    const client = await kit.client({ codec: gaps });
    const items = client[Symbol.asyncIterator]();
    for (const s of ["a", "no decode", "b"]) kit.server.send(s);
    assertEquals((await items.next()).value, "a");
    assertEquals((await items.next()).value, "b");
    await until(() => failures.length === 1, "the failure is told");
    assertEquals(failures[0]!.item, "no decode");
    kit.server.end();
    assertEquals((await items.next()).done, true);
  },
);

both(
  "onEvent tells of failures; one that throws breaks nothing",
  async (net) => {
    const seen: unknown[] = [];
    const onError = (event: ErrorEvent) => {
      event.preventDefault();
      seen.push(event.error);
    };
    addEventListener("error", onError);
    try {
      const error = new Error("mine");
      await using kit = new Kit<number, number>(net, {
        onFailure: () => {},
        onEvent: (event) => {
          if (event.type === "failed") throw error;
        },
      });
      await kit.worker((n) => {
        if (n === 0) throw new Error("zero");
        return n;
      });
      kit.server.send(0);
      kit.server.send(1);
      await kit.server.end();
      assertEquals(await Array.fromAsync(kit.server), [1]);
      await moment();
      assertEquals(seen, [error], "it is reported as uncaught, not swallowed");
      assert(kit.events.some(({ type }) => type === "failed"));
    } finally {
      removeEventListener("error", onError);
    }
  },
);

both(
  "A getter of an error's cause may close the client, or throw",
  async (net) => {
    await using kit = new Kit<string, string>(net);
    class Odd extends Error {
      override get cause(): unknown {
        if (this.message === "throws") throw new Error("no cause");
        client.close();
        return "closed";
      }
    }
    const { client, done } = await kit.worker((item) => {
      throw new Odd(item);
    });
    await assertRejects(
      () => within(kit.server.submit("throws"), 2000, "an answer"),
      ItemFailure,
      "throws",
    );
    const { error } = await assertRejects(
      () => within(kit.server.submit("closes"), 2000, "an answer"),
      ItemFailure,
      "closes",
    );
    assertEquals((error.cause as Error).message, "closed");
    await within(done, 2000, "an end in order");
  },
);

both(
  "A key that throws what has no text is its item's failure",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      dispatch: {
        key: (n) => {
          if (n === 1) throw Object.create(null);
          return "";
        },
      },
    });
    await kit.worker((n) => n);
    await assertRejects(
      () => within(kit.server.submit(1), 2000, "it is told"),
      ItemFailure,
    );
    assertEquals(await within(kit.server.submit(2), 2000, "the next"), 2);
  },
);

both(
  "A result is adopted as await does it, whatever its then() does",
  async (net) => {
    type Then = (
      resolve: (value: unknown) => void,
      reject: (error: unknown) => void,
    ) => void;
    const thenables: Record<
      string,
      [then: Then | PropertyDescriptor, ends: string]
    > = {
      "resolves": [(resolve) => resolve(1), "1"],
      "resolves later, with another one": [
        (resolve) => setTimeout(() => resolve(Promise.resolve(2)), 1),
        "2",
      ],
      "resolves twice": [(resolve) => (resolve(3), resolve(4)), "3"],
      "resolves, then rejects": [
        (resolve, reject) => (resolve(5), reject(6)),
        "5",
      ],
      "rejects": [(_, reject) => reject(new Error("rejected")), "rejected"],
      "throws": [() => {
        throw new Error("thrown");
      }, "thrown"],
      "can't be read": [{
        get() {
          throw new Error("unreadable");
        },
      }, "unreadable"],
    };
    await using kit = new Kit<string, unknown>(net);
    let calls = 0;
    await kit.worker((name) => {
      calls++;
      const [then] = thenables[name]!;
      return Object.defineProperty(
        {},
        "then",
        typeof then === "function" ? { value: then } : then,
      );
    });
    for (const [name, [, end]] of Object.entries(thenables)) {
      const outcome = await kit.server.submit(name).then(
        String,
        (failure: ItemFailure) => failure.error.message,
      );
      assertEquals(outcome, end, name);
    }
    assertEquals(calls, Object.keys(thenables).length, "each ran once");
    assertEquals(kit.server.workers.length, 1);
  },
);

/** An error whose name can be read twice. */
class Fickle extends Error {
  #reads = 0;
  override get name(): string {
    if (++this.#reads > 2) throw new Error("not again");
    return "Fickle";
  }
}

both("What is thrown and is no Error is shown without stacks", async (net) => {
  await using kit = new Kit<number, number>(net);
  const thrown = [
    { code: 7, inner: new Error("inner") },
    Object.assign(new Error("message"), { name: undefined }),
    Object.assign(new Error("message"), { name: 5 }),
    new Fickle("message"),
  ];
  await kit.worker((n) => {
    throw thrown[n];
  });
  const expected = ["code: 7", "message", "message", "message"];
  for (const [n, words] of expected.entries()) {
    const { error } = await assertRejects(
      () => kit.server.submit(n),
      ItemFailure,
    );
    assert(error.message.includes(words), error.message);
    assert(!/file:|\bat /.test(error.message), error.message);
  }
});

for (const maxFrameBytes of [1024, 100 * 1024, 128 * 1024, 256 * 1024]) {
  both(
    `An error with long texts and causes keeps to a limit of ${maxFrameBytes} bytes`,
    async (net) => {
      const lost: string[] = [];
      await using kit = new Kit<number, number>(net, {
        maxFrameBytes,
        onEvent(event) {
          if (event.type === "disconnected") lost.push(event.reason);
        },
      });
      let error: Error | undefined;
      for (let i = 0; i < 9; i++) {
        error = new Error(
          "語".repeat(10_000),
          error === undefined ? undefined : { cause: error },
        );
      }
      await kit.worker(() => {
        throw error;
      }, { sendStacks: true });
      const failure = await assertRejects(
        () => kit.server.submit(1),
        ItemFailure,
      );
      assertInstanceOf(failure.error, RemoteError);
      assertEquals(lost, []);
    },
  );
}

both("A stack is made only where it is sent", async (net) => {
  await using kit = new Kit<boolean, number>(net);
  let asked = 0;
  const handler = () => {
    const error = new Error("no", { cause: new Error("why") });
    for (const each of [error, error.cause]) {
      Object.defineProperty(each, "stack", {
        get: () => `${++asked}th stack`,
      });
    }
    throw error;
  };
  const { client } = await kit.worker(handler);
  const failure = await assertRejects(
    () => kit.server.submit(true),
    ItemFailure,
  );
  assertEquals([failure.error.message, asked], ["no", 0]);
  await client.close();
  await kit.worker(handler, { sendStacks: true });
  const { error } = await assertRejects(
    () => kit.server.submit(true),
    ItemFailure,
  );
  assertEquals(error.stack?.includes("1th stack"), true);
});

both("An error's texts are cut off where they are too long", async (net) => {
  await using kit = new Kit<number, number>(net);
  const long = (name: string, options?: ErrorOptions) =>
    Object.defineProperties(new Error("m".repeat(20_000), options), {
      name: { value: name.repeat(20_000) },
      stack: { value: "s".repeat(20_000) },
    });
  await kit.worker(() => {
    throw long("n", { cause: long("c") });
  }, { sendStacks: true });
  const { error } = await assertRejects(
    () => kit.server.submit(1),
    ItemFailure,
  );
  assertEquals(error.name, "n".repeat(199) + "…");
  assertEquals(error.message, "m".repeat(9999) + "…");
  assertEquals(error.stack, "s".repeat(9999) + "…");
  const cause = error.cause as Error;
  assertEquals(cause.name, "c".repeat(199) + "…");
  assertEquals(cause.message, "m".repeat(9999) + "…");
});

both("An error is sent with eight causes at most", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(() => {
    let error = new Error("0");
    for (let i = 1; i <= 9; i++) error = new Error(`${i}`, { cause: error });
    throw error;
  });
  const { error } = await assertRejects(
    () => kit.server.submit(1),
    ItemFailure,
  );
  const causes: string[] = [];
  for (let at = error.cause; at instanceof Error; at = at.cause) {
    causes.push(at.message);
  }
  assertEquals(causes, ["8", "7", "6", "5", "4", "3", "2", "1"]);
});

both("An error without a stack is sent without one", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(() => {
    throw Object.assign(new Error("no"), { stack: undefined });
  }, { sendStacks: true });
  const { error } = await assertRejects(
    () => kit.server.submit(1),
    ItemFailure,
  );
  assertInstanceOf(error, RemoteError);
  assertEquals(error.message, "no");
});
