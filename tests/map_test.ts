/** `map()`: items to results. Design sections 2 and 3. */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertLess,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { InFlight } from "../internal/in_flight.ts";
import { ItemFailure, RemoteError } from "../mod.ts";
import { both, Kit, QUIET, range } from "./_support/channel_kit.ts";
import { countListeners } from "./_support/listeners.ts";
import { Gate, moment, stateOf, until, within } from "./_support/within.ts";

/** A source that tells how far it was taken and whether it was closed. */
class Source implements Iterable<number> {
  taken = 0;
  closed = 0;
  readonly #count: number;

  constructor(count = Infinity) {
    this.#count = count;
  }

  *[Symbol.iterator](): IterableIterator<number> {
    try {
      while (this.taken < this.#count) yield this.taken++;
    } finally {
      this.closed++;
    }
  }

  async *slowly(): AsyncIterableIterator<number> {
    for (const n of this) yield await Promise.resolve(n);
  }
}

/** Settles out of order: every third item is late. */
async function jumble(n: number): Promise<number> {
  if (n % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  return n * 2;
}

both("map() yields results in the order of their items", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.workers(3, () => jumble, { concurrency: 4 });
  const results = await Array.fromAsync(kit.server.map(range(300)));
  assertEquals(results, range(300).map((n) => n * 2));
});

both(
  "map() takes a sync generator, an async one, a Set and a stream",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker(jumble, { concurrency: 4 });
    const sources = [
      new Source(20),
      new Source(20).slowly(),
      new Set(range(20)),
      ReadableStream.from(range(20)),
    ];
    for (const source of sources) {
      const results = await Array.fromAsync(kit.server.map(source));
      assertEquals(results, range(20).map((n) => n * 2));
    }
  },
);

both("map() of nothing ends, without a worker too", async (net) => {
  await using kit = new Kit<number, number>(net);
  assertEquals(await Array.fromAsync(kit.server.map([])), []);
  await kit.worker((n) => n);
  assertEquals(await Array.fromAsync(kit.server.map([])), []);
});

both("map() of a text takes its characters", async (net) => {
  await using kit = new Kit<string, string>(net);
  await kit.worker((character) => character.toUpperCase());
  const results = await Array.fromAsync(kit.server.map("añ😀"));
  assertEquals(results, ["A", "Ñ", "😀"]);
});

both("map() refuses what isn't iterable", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  for (const source of [undefined, null, 5, {}]) {
    assertThrows(() => server.map(source as unknown as number[]), TypeError);
  }
});

both("map({ ordered: false }) yields as results come", async (net) => {
  await using kit = new Kit<number, number>(net);
  const gate = new Gate();
  await kit.worker(async (n) => {
    if (n === 0) await gate.pass();
    return n;
  }, { concurrency: 2 });
  const results = kit.server.map(range(50), { ordered: false });
  const got: number[] = [];
  for await (const n of results) {
    got.push(n);
    if (got.length === 49) gate.open();
  }
  assertEquals(got, [...range(50).slice(1), 0]);
});

both("map(): a source whose next() gives no object has failed", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n * 2);
  for (const step of [5, null, undefined]) {
    let calls = 0;
    const source = {
      [Symbol.iterator]: () => ({
        next: () => calls++ === 0 ? { value: 1, done: false } : step,
      }),
    };
    const results = kit.server.map(source as unknown as Iterable<number>);
    assertEquals(await results.next(), { value: 2, done: false });
    await assertRejects(
      () => results.next(),
      TypeError,
      `returned ${step === null ? "null" : typeof step}, expected an object`,
    );
  }
});

both("map(): a source that throws null has failed too", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n * 2);
  const results = kit.server.map((function* () {
    yield 1;
    // deno-lint-ignore no-throw-literal
    throw null;
  })());
  assertEquals(await results.next(), { value: 2, done: false });
  assertEquals(await results.next().catch((e) => e), null);
  assertEquals(await results.next(), { value: undefined, done: true });
});

both("map() starts with the first next(), and not before", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n);
  const source = new Source(3);
  const results = kit.server.map(source);
  await moment();
  assertEquals(source.taken, 0);
  assertEquals(await Array.fromAsync(results), range(3));
});

both(
  "map(): the window counts from the oldest that isn't yielded",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const gate = new Gate();
    let done = 0;
    await kit.worker(async (n) => {
      if (n === 0) await gate.pass();
      done++;
      return n;
    }, { concurrency: 2, client: { prefetch: 100 } });
    const source = new Source(1000);
    const results = kit.server.map(source, { window: 10 });
    const first = results.next();
    await until(() => done === 9, "nine are done behind the first");
    await moment();
    assertEquals(done, 9);
    assertEquals(source.taken, 10);
    assertEquals(await stateOf(first), "pending");
    gate.open();
    assertEquals((await first).value, 0);
    assertEquals(await Array.fromAsync(results), range(1000).slice(1));
  },
);

both(
  "map() keeps the order of as many results as its window has",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    for (const late of [0, 5, 21, 700]) {
      const gate = new Gate();
      let done = 0;
      const { client } = await kit.worker(async (n) => {
        if (n === late) await gate.pass();
        done++;
        return n;
      }, { concurrency: 2 });
      const results = kit.server.map(range(1500), { window: 1000 });
      const all = Array.fromAsync(results);
      await until(
        () => done === Math.min(1499, late + 999),
        "all are done in the window behind the late one",
      );
      gate.open();
      assertEquals(await all, range(1500));
      await client.close();
    }
  },
);

both("map(): a consumer that stops reading stops the source", async (net) => {
  for (const ordered of [true, false]) {
    await using kit = new Kit<number, number>(net);
    await kit.workers(2, () => (n) => n);
    const source = new Source();
    const results = kit.server.map(source, { window: 20, ordered });
    for (let i = 0; i < 5; i++) await results.next();
    await moment();
    assert(source.taken <= 26, `${source.taken} were taken, 5 were yielded`);
    await results.return!();
  }
});

both("map(): leaving the loop closes the source and cancels", async (net) => {
  for (const ordered of [true, false]) {
    await using kit = new Kit<number, number>(net);
    let aborted = 0;
    await kit.worker((n, { signal }) => {
      if (n < 3) return n;
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          aborted++;
          reject(signal.reason);
        });
      });
    }, { concurrency: 4 });
    const source = new Source();
    for await (const n of kit.server.map(source, { ordered })) {
      if (n === 2) break;
    }
    assertEquals(source.closed, 1);
    await until(
      () => kit.server.stats().inFlight + kit.server.stats().pending === 0,
      "nothing is left",
    );
    await until(() => aborted > 0, "handlers are told");
    await until(() => kit.server.workers[0]!.inFlight === 0, "slots are free");
    assertEquals(await kit.server.submit(1), 1);
  }
});

both("map(): leaving the loop closes an async source", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n);
  const source = new Source();
  for await (const n of kit.server.map(source.slowly())) if (n === 5) break;
  assertEquals(source.closed, 1);
});

both("map(): a source that stops it itself is closed", async (net) => {
  for (const how of ["signal", "abort()", "close()"]) {
    await using kit = new Kit<number, number>(net);
    await kit.worker((n) => n);
    const controller = new AbortController();
    const { signal } = controller;
    const source = new Source();
    const stopping = function* () {
      for (const n of source) {
        if (n === 2) {
          if (how === "signal") controller.abort(new Error("mine"));
          else if (how === "abort()") kit.server.abort(new Error("mine"));
          else kit.server.close().catch(() => {});
        }
        yield n;
      }
    };
    const results = kit.server.map(stopping(), { signal });
    await assertRejects(() => Array.fromAsync(results));
    await until(() => source.closed === 1, `the source is closed by ${how}`);
    assertEquals(source.taken, 3);
  }
});

both("map(): an error in the loop closes the source", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n);
  const source = new Source();
  await assertRejects(
    async () => {
      for await (const _ of kit.server.map(source)) throw new Error("mine");
    },
    Error,
    "mine",
  );
  assertEquals(source.closed, 1);
});

both(
  "map() throws a failure at its position, and closes the source",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker(async (n) => {
      if (n === 5) throw new RangeError("five");
      for (let i = n % 3; i < 3; i++) await Promise.resolve();
      return n * 2;
    }, { concurrency: 8 });
    const source = new Source();
    const got: number[] = [];
    const failure = await assertRejects(async () => {
      for await (const n of kit.server.map(source)) got.push(n);
    }, ItemFailure);
    assertEquals(got, range(5).map((n) => n * 2));
    assertEquals(failure.item, 5);
    assertInstanceOf(failure.cause, RemoteError);
    assertEquals((failure.cause as Error).name, "RangeError");
    await until(() => source.closed === 1, "the source is closed");
    assertEquals(kit.server.workers.length, 1);
    assertEquals(await kit.server.submit(1), 2, "the server goes on");
    await until(
      () => kit.server.workers[0]!.inFlight === 0,
      "what was cancelled is answered",
    );
  },
);

both("map({ ordered: false }) throws a failure too", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => {
    if (n === 3) throw new Error("three");
    return n;
  });
  const got: number[] = [];
  await assertRejects(async () => {
    const results = kit.server.map(range(10), { ordered: false });
    for await (const n of results) got.push(n);
  }, ItemFailure);
  assertEquals(got, [0, 1, 2]);
});

both("map(): after its error the iterator is done", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(() => {
    throw new Error("always");
  });
  const results = kit.server.map(range(3));
  await assertRejects(() => results.next(), ItemFailure);
  assertEquals((await results.next()).done, true);
});

both("map({ onFailure }) skips failures and goes on, in order", async (net) => {
  for (const ordered of [true, false]) {
    await using kit = new Kit<number, number>(net);
    await kit.worker((n) => {
      if (n % 4 === 1) throw new Error(`no ${n}`);
      return n;
    });
    const failed: unknown[] = [];
    const results = await Array.fromAsync(kit.server.map(range(40), {
      ordered,
      onFailure: (failure) => failed.push(failure.item),
    }));
    assertEquals(results, range(40).filter((n) => n % 4 !== 1));
    assertEquals(failed, range(40).filter((n) => n % 4 === 1));
  }
});

both(
  "map({ onFailure }) ends behind failures that nobody waited for",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker((n) => {
      if (n > 0) throw new Error(`not ${n}`);
      return n;
    });
    const failed: unknown[] = [];
    const results = kit.server.map([0, 1, 2], {
      onFailure: (failure) => failed.push(failure.item),
    });
    assertEquals(await results.next(), { value: 0, done: false });
    await until(() => failed.length === 2, "the rest has failed");
    const last = within(results.next(), 5000, "it ends");
    assertEquals(await last, { value: undefined, done: true });
  },
);

both("map({ onFailure }) ends with what onFailure throws", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => {
    if (n === 1) throw new Error("one");
    return n;
  });
  const error = new Error("that is too much");
  const source = new Source();
  const caught = await (async () => {
    const onFailure = () => {
      throw error;
    };
    for await (const n of kit.server.map(source, { onFailure })) {
      assertEquals(n, 0);
    }
  })().catch((e) => e);
  assertStrictEquals(caught, error);
  assertEquals(source.closed, 1);
});

both(
  "map() takes nothing more of its source once an item has failed",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const gate = new Gate();
    await kit.worker(async (n) => {
      if (n === 0) await gate.pass();
      if (n === 1) throw new Error("one");
      return n;
    }, { concurrency: 2 });
    const source = new Source(1000);
    const results = kit.server.map(source);
    const first = results.next();
    await kit.event("failed");
    const { taken } = source;
    await until(() => {
      const { pending, inFlight } = kit.server.stats();
      return pending === 0 && inFlight === 1;
    }, "what was taken is settled, but the first");
    gate.open();
    assertEquals((await first).value, 0);
    await assertRejects(() => results.next(), ItemFailure);
    assertEquals(source.taken, taken);
  },
);

both(
  "maps beside each other take 64 items ahead at most, whatever their window",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const sources = [new Source(1000), new Source(1000)];
    for (const source of sources) {
      kit.server.map(source, { window: 1000 }).next().catch(() => {});
    }
    // Nobody is there to take them.
    await until(
      () => sources.every(({ taken }) => taken >= 64),
      "items wait for their turn",
    );
    assertEquals(sources.map(({ taken }) => taken), [64, 64]);
  },
);

both("map({ settled: true }) yields an outcome for every item", async (net) => {
  await using kit = new Kit<number, string>(net);
  await kit.worker((n) => {
    if (n === 1) throw new Error("one");
    return `${n}`;
  });
  const outcomes = await Array.fromAsync(
    kit.server.map([0, 1, 2], { settled: true }),
  );
  assertEquals(outcomes[0], { index: 0, item: 0, result: "0" });
  assertEquals(outcomes[2], { index: 2, item: 2, result: "2" });
  const { index, item, failure } = outcomes[1]!;
  assertEquals([index, item], [1, 1]);
  assertInstanceOf(failure, ItemFailure);
  assertEquals("result" in outcomes[1]!, false);
  assertEquals("failure" in outcomes[0]!, false);
});

both(
  "map({ settled: true, ordered: false }) tells each item's index",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker(jumble, { concurrency: 5 });
    const outcomes = await Array.fromAsync(
      kit.server.map(range(30).map((n) => n + 100), {
        settled: true,
        ordered: false,
      }),
    );
    outcomes.sort((a, b) => a.index - b.index);
    assertEquals(
      outcomes.map(({ index, item, result }) => [index, item, result]),
      range(30).map((n) => [n, n + 100, (n + 100) * 2]),
    );
  },
);

both(
  "map(): a source that throws ends it with that error, after what it gave",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker(jumble, { concurrency: 3 });
    const error = new Error("the source broke");
    const sources: (Iterable<number> | AsyncIterable<number>)[] = [
      (function* () {
        yield* range(7);
        throw error;
      })(),
      (async function* () {
        for (const n of range(7)) yield await Promise.resolve(n);
        throw error;
      })(),
      ReadableStream.from((function* () {
        yield* range(7);
        throw error;
      })()),
    ];
    for (const source of sources) {
      const got: number[] = [];
      const caught = await (async () => {
        for await (const n of kit.server.map(source)) got.push(n);
      })().catch((e) => e);
      assertStrictEquals(caught, error);
      assertEquals(got, range(7).map((n) => n * 2));
    }
    assertEquals(await kit.server.submit(1), 2, "the server goes on");
  },
);

both("map(): who has left is told no error any more", async (net) => {
  await using kit = new Kit<number, number>(net);
  const threw = new Gate();
  await kit.worker((n, { signal }) =>
    n === 0 ? n : new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
    })
  );
  const results = kit.server.map(function* () {
    yield 0;
    yield 1;
    threw.open();
    throw new Error("the source broke");
  }());
  assertEquals(await results.next(), { value: 0, done: false });
  await threw.pass();
  await results.return!();
  assertEquals(await results.next(), { value: undefined, done: true });
});

both("map(): a source that has thrown isn't closed as well", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(() => new Promise<never>(() => {}));
  const threw = Promise.withResolvers<void>();
  let calls = 0, closed = 0;
  const results = kit.server.map({
    [Symbol.asyncIterator]: () => ({
      next: () => {
        if (calls++ === 0) return Promise.resolve({ value: 1, done: false });
        threw.resolve();
        return Promise.reject(new Error("the source broke"));
      },
      return: () => {
        closed++;
        return Promise.resolve({ value: undefined, done: true });
      },
    }),
  });
  const first = results.next();
  await threw.promise;
  await moment(0);
  await results.return!();
  // Whoever stops a map wants to hear nothing of it any more.
  await first.catch(() => {});
  assertEquals(closed, 0);
});

both(
  "map() throws a failure that is before the end of its source",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const gate = new Gate();
    await kit.worker(async (n) => {
      await gate.pass();
      if (n === 2) throw new RangeError("two");
      return n;
    }, { concurrency: 3 });
    const broken = function* () {
      yield* [1, 2, 3];
      throw new Error("the source broke");
    };
    for (const isClosed of [false, true]) {
      const results = kit.server.map(isClosed ? [1, 2, 3] : broken());
      const first = results.next();
      await until(
        () => kit.server.stats().inFlight === 3,
        "the source has ended, and nothing is settled",
      );
      const closing = isClosed ? kit.server.close() : null;
      gate.open();
      assertEquals((await first).value, 1);
      const failure = await assertRejects(() => results.next(), ItemFailure);
      assertEquals(failure.item, 2);
      assertEquals((await results.next()).done, true);
      await closing;
    }
  },
);

both(
  "map({ signal }) throws the signal's reason and closes the source",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker((n) => n < 5 ? n : new Promise<never>(() => {}));
    const controller = new AbortController();
    const reason = new Error("enough");
    const source = new Source();
    const got: number[] = [];
    const caught = await (async () => {
      const { signal } = controller;
      for await (const n of kit.server.map(source, { signal })) {
        got.push(n);
        if (n === 4) setTimeout(() => controller.abort(reason));
      }
    })().catch((e) => e);
    assertStrictEquals(caught, reason);
    assertEquals(got, range(5));
    await until(() => source.closed === 1, "the source is closed");
  },
);

both("map({ signal }) listens no longer than it runs", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n);
  const { signal } = new AbortController();
  const listeners = countListeners(signal);
  const results = kit.server.map(range(3), { signal });
  assertEquals(listeners, { added: 1, removed: 0 });
  assertEquals(await Array.fromAsync(results), range(3));
  assertEquals(listeners, { added: 1, removed: 1 });
});

both(
  "map({ signal }): a signal that is aborted already takes nothing",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker((n) => n);
    const source = new Source(3);
    const reason = new Error("no");
    const results = kit.server.map(source, {
      signal: AbortSignal.abort(reason),
    });
    assertStrictEquals(await results.next().catch((e) => e), reason);
    assertEquals(source.taken, 0);
  },
);

both(
  "Several maps at once, and send() and submit() beside them",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await kit.workers(2, () => jumble, { concurrency: 3 });
    const [a, b, c] = await Promise.all([
      Array.fromAsync(server.map(range(100))),
      Array.fromAsync(server.map(range(100).map((n) => n + 1000))),
      Promise.all(range(50).map((n) => server.submit(n + 2000))),
      (async () => {
        for (const n of range(50)) await server.send(n + 3000);
      })(),
    ]);
    assertEquals(a, range(100).map((n) => n * 2));
    assertEquals(b, range(100).map((n) => (n + 1000) * 2));
    assertEquals(c, range(50).map((n) => (n + 2000) * 2));
    server.end();
    const sent = await Array.fromAsync(server);
    assertEquals(
      sent.toSorted((a, b) => a - b),
      range(50).map((n) => (n + 3000) * 2),
      "only what was sent comes out of the channel",
    );
  },
);

both("A map that isn't read never holds up another", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n);
  const idle = kit.server.map(new Source(), { window: 5 });
  await idle.next();
  const results = await Array.fromAsync(kit.server.map(range(100)));
  assertEquals(results, range(100));
  await idle.return!();
});

both(
  "map() waits for workers in work(), and says that it is stalled",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const reader = await kit.client();
    reader.readable;
    const results = Array.fromAsync(kit.server.map(range(10)));
    const event = await kit.event("stalled");
    assertEquals(event.reason, "no-work-mode");
    assertEquals(await stateOf(results), "pending");
    await kit.worker((n) => n);
    assertEquals(await results, range(10));
  },
);

both("map() goes on when its worker is lost", async (net) => {
  await using kit = new Kit<number, number>(net, { maxDeliveries: 100 });
  const results = Array.fromAsync(kit.server.map(range(200)));
  for (let i = 0; i < 5; i++) {
    let done = 0;
    const stuck = Promise.withResolvers<void>();
    const { client } = await kit.worker((n) => {
      if (++done <= 20) return n * 2;
      stuck.resolve();
      return new Promise<never>(() => {});
    }, { concurrency: 2 });
    await stuck.promise;
    kit.crash(client);
  }
  await kit.worker((n) => n * 2);
  assertEquals(await results, range(200).map((n) => n * 2));
});

both("end(): a running map() holds the end open", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const worker = await kit.worker((n) => n);
  const results = server.map(range(100), { window: 5 });
  assertEquals((await results.next()).value, 0);
  await server.end();
  assertEquals(await stateOf(server.closed), "pending");
  assertEquals(await Array.fromAsync(results), range(100).slice(1));
  await server.closed;
  await worker.done;
});

both(
  "map() whose last result was read holds up no end, though nobody asks on",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await kit.worker((n) => n);
    const results = server.map(range(3));
    assertEquals((await results.next()).value, 0);
    await until(() => server.stats().settled === 3, "all results are here");
    assertEquals((await results.next()).value, 1);
    assertEquals((await results.next()).value, 2);
    server.end();
    await within(server.closed, 1000, "the server's end");
    assertEquals(await results.next(), { value: undefined, done: true });
  },
);

both(
  "map() throws what its source has thrown behind the last result",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const { server } = kit;
    await kit.worker((n) => n);
    const reason = new Error("torn");
    function* torn() {
      yield* range(2);
      throw reason;
    }
    const results = server.map(torn());
    assertEquals((await results.next()).value, 0);
    await until(() => server.stats().settled === 2, "all results are here");
    assertEquals((await results.next()).value, 1);
    assertStrictEquals(await assertRejects(() => results.next()), reason);
  },
);

both(
  "map() throws what ended the server, not that it was closing",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker(() => new Promise<number>(() => {}));
    const reason = new Error("enough");
    const results = kit.server.map(range(3));
    const next = results.next();
    kit.server.close().catch(() => {});
    kit.server.abort(reason);
    assertStrictEquals(await assertRejects(() => next), reason);
    assertEquals(await results.next(), { done: true, value: undefined });
  },
);

both("map() after the end throws a TypeError", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.server.end();
  await assertRejects(() => kit.server.map([1]).next(), TypeError);
});

both("close() stops a running map(): what it took is finished", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  await kit.worker((n) => n);
  const source = new Source();
  const results = server.map(source, { window: 10 });
  assertEquals((await results.next()).value, 0);
  await moment();
  const closing = server.close();
  const got: number[] = [];
  await assertRejects(async () => {
    for await (const n of results) got.push(n);
  }, TypeError);
  assertEquals(got, range(source.taken).slice(1));
  assertEquals(source.closed, 1);
  await closing;
});

both("close() is no error for a map() whose source has ended", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const gate = new Gate();
  await kit.worker(async (n) => {
    await gate.pass();
    return n;
  }, { concurrency: 3 });
  const source = new Source(3);
  const results = Array.fromAsync(server.map(source));
  await until(() => source.closed === 1, "the source has ended");
  const closing = server.close();
  gate.open();
  assertEquals(await results, [0, 1, 2]);
  await closing;
});

both("abort(r): a running map() throws r", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(() => new Promise<never>(() => {}));
  const source = new Source();
  const next = kit.server.map(source).next().catch((e) => e);
  await until(() => source.taken > 0, "the source is taken from");
  const reason = new Error("stop");
  await kit.server.abort(reason);
  assertStrictEquals(await next, reason);
  await until(() => source.closed === 1, "the source is closed");
});

both(
  "abort(): of many running map()s, none looks for what is its own",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    await kit.worker(() => new Promise<never>(() => {}));
    const nexts = range(100).map(() =>
      kit.server.map([1]).next().catch((error) => error)
    );
    await until(() => {
      const { pending, inFlight } = kit.server.stats();
      return pending + inFlight === 100;
    }, "all are taken");
    const reason = new Error("stop");
    const { entries } = InFlight.prototype;
    let looks = 0;
    InFlight.prototype.entries = function () {
      looks++;
      return entries.call(this);
    };
    try {
      await kit.server.abort(reason);
      for (const next of nexts) assertStrictEquals(await next, reason);
    } finally {
      InFlight.prototype.entries = entries;
    }
    assertLess(looks, 20);
  },
);

both("map(): next() may be called ahead", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker(jumble, { concurrency: 3 });
  const results = kit.server.map(range(5));
  const steps = await Promise.all(range(7).map(() => results.next()));
  assertEquals(steps.map(({ value }) => value), [
    ...[0, 2, 4, 6, 8],
    ...[undefined, undefined],
  ]);
});

/** Gives two items, and then waits until it is released. */
async function* waiting(
  released: Promise<void>,
): AsyncIterableIterator<number> {
  yield 1;
  yield 2;
  await released;
}

both("map(): leaving is not held up by a source that waits", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n);
  const { promise, resolve } = Promise.withResolvers<void>();
  for await (const n of kit.server.map(waiting(promise))) if (n === 2) break;
  resolve();
});

both("close() is not held up by a map() whose source waits", async (net) => {
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n);
  const { promise, resolve } = Promise.withResolvers<void>();
  const results = kit.server.map(waiting(promise));
  await results.next();
  await results.next();
  const third = results.next().catch((e) => e);
  await kit.server.close();
  assertInstanceOf(await third, TypeError);
  resolve();
});

// That no timer is left is seen by the sanitizers: nobody waits for this source.
both("map() that is stopped leaves a source that waits alone", async (net) => {
  const never = new Promise<void>(() => {});
  await using kit = new Kit<number, number>(net);
  await kit.worker((n) => n);
  const ways = [
    new AbortController(),
    { signal: new AbortController().signal, abort: () => kit.server.close() },
  ];
  for (const way of ways) {
    const { signal } = way;
    const results = kit.server.map(waiting(never), { signal });
    await results.next();
    await results.next();
    const third = results.next().catch((e) => e);
    await way.abort();
    assertInstanceOf(await third, Error);
  }
});

both(
  "map() goes on when results past maxBufferedBytes are read",
  async (net) => {
    // Nothing but the reader's reads is to wake anybody.
    await using kit = new Kit<number, Uint8Array>(net, {
      heartbeat: QUIET,
      maxBufferedBytes: 100_000,
    });
    const { server } = kit;
    await kit.worker(() => new Uint8Array(50_000), {
      client: { heartbeat: QUIET, prefetch: 2 },
    });
    for (const ordered of [true, false]) {
      const results = server.map(range(20), { ordered });
      let count = 0;
      await results.next();
      await until(() => {
        const { pending, inFlight } = server.stats();
        return pending > 0 && inFlight === 0;
      }, "an item waits for its place, and no worker has one");
      const reading = (async () => {
        for await (const _ of results) count++;
      })();
      await within(reading, 5000, "the rest is read");
      assertEquals(count, 19);
    }
  },
);

both(
  "map(): a getter of an item may abort it, and nothing stays under way",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net);
    const { server } = kit;
    await kit.worker((_, { signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
      })
    );
    const { signal, item } = aborting();
    await assertRejects(
      () => Array.fromAsync(server.map([item], { signal })),
      DOMException,
    );
    await server.close({ drainMs: 2000 });
  },
);

both(
  "map(): a schema may abort it while there is no worker",
  async (net) => {
    const { signal, item } = aborting();
    await using kit = new Kit<unknown, unknown>(net, {
      itemSchema: {
        "~standard": {
          version: 1,
          vendor: "test",
          validate: () => ({ value: item.aborts }),
        },
      },
    });
    await assertRejects(
      () => Array.fromAsync(kit.server.map([1], { signal })),
      DOMException,
    );
    await kit.server.close({ drainMs: 2000 });
  },
);

/** An item that aborts a signal when it is read. */
function aborting(): { signal: AbortSignal; item: { aborts: number } } {
  const controller = new AbortController();
  const item = {
    get aborts() {
      controller.abort();
      return 1;
    },
  };
  return { signal: controller.signal, item };
}

both(
  "map(): items that fail at once leave turns to everybody else",
  async (net) => {
    await using kit = new Kit<unknown, unknown>(net);
    await kit.worker((n) => n);
    for (const isAsync of [false, true]) {
      const source = new Source(100_000);
      const bad = function* () {
        for (const _ of source) yield () => {}; // can't be encoded
      };
      const badLater = async function* () {
        yield* bad();
      };
      const stop = new AbortController();
      let failures = 0;
      const results = kit.server.map(isAsync ? badLater() : bad(), {
        signal: stop.signal,
        onFailure: () => failures++,
      });
      setTimeout(() => stop.abort(), 1);
      await assertRejects(() => results.next(), DOMException);
      assert(failures > 0);
      assertEquals(source.closed, 1);
    }
  },
);

both(
  "map(): a first item that comes late with nobody there is stalled too",
  async (net) => {
    await using kit = new Kit<number, number>(net);
    const gate = new Gate();
    const late = async function* () {
      await gate.pass();
      yield 1;
    };
    const first = kit.server.map(late()).next();
    await moment(300); // several looks at deadlines: there are none
    gate.open();
    assertEquals((await kit.event("stalled")).reason, "no-workers");
    await kit.worker((n) => n + 1);
    assertEquals((await first).value, 2);
  },
);

both(
  "map(): next() called ahead keeps the order, whatever fails at once in between",
  async (net) => {
    for (const ahead of [2, 5]) {
      await using kit = new Kit<unknown, unknown>(net, {
        maxBufferedBytes: 1000,
      });
      const gate = new Gate(), isLate = new Gate();
      await kit.worker(async (n) => {
        if (n === 0) await gate.pass();
        return n === 1 ? "x".repeat(5000) : n;
      }, { concurrency: 4 });
      const source = async function* (): AsyncGenerator<unknown> {
        yield* [0, 1];
        await isLate.pass();
        yield () => {}; // can't be encoded
        yield 3;
      };
      const results = kit.server.map(source(), { settled: true, window: 8 });
      const first = Array.from({ length: ahead }, () => results.next());
      await until(() => kit.server.stats().settled === 1, "the second is done");
      isLate.open();
      await until(() => kit.server.stats().pending === 1, "the third waits");
      gate.open();
      const indices = (await within(Promise.all(first), 5000, "all"))
        .flatMap((r) => r.done ? [] : [(r.value as { index: number }).index]);
      for await (
        const { index } of results as AsyncIterable<{ index: number }>
      ) {
        indices.push(index);
      }
      assertEquals(indices, range(4));
      assertEquals(
        kit.events.filter(({ type }) => type === "disconnected"),
        [],
      );
    }
  },
);

both(
  "map(): a first next() that comes late with nobody there is stalled too",
  async (net) => {
    await using kit = new Kit<number, number>(net, {
      heartbeat: { intervalMs: 20, timeoutMs: 1000 },
    });
    const results = kit.server.map([1]);
    await moment(200); // several looks of the watch
    const first = results.next();
    assertEquals((await kit.event("stalled")).reason, "no-workers");
    await kit.worker((n) => n);
    assertEquals((await first).value, 1);
    await results.return!();
  },
);

both("map() that nobody iterates costs next to nothing", async (net) => {
  await using kit = new Kit<number, number>(net);
  const { server } = kit;
  const before = Deno.memoryUsage().heapUsed;
  for (const n of range(2000)) server.map([n]);
  const bytes = (Deno.memoryUsage().heapUsed - before) / 2000;
  assert(bytes < 20_000, `${bytes} bytes each`);
});
