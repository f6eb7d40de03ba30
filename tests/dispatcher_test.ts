import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertThrows,
} from "@std/assert";
import {
  ByKey,
  Custom,
  LeastLoaded,
  RoundRobin,
  type Strategy,
  type WorkerInfo,
} from "../internal/dispatcher.ts";
import { seeded } from "./_support/rng.ts";

interface Worker {
  id: number;
  inFlight: { count: number };
  info: WorkerInfo;
  isExpected: boolean;
}

function worker(
  id: number,
  info: Partial<WorkerInfo> = {},
  isExpected = false,
): Worker {
  return {
    id,
    inFlight: { count: info.inFlight ?? 0 },
    isExpected,
    info: {
      id,
      name: `w${id}`,
      addr: { transport: "tcp", hostname: "127.0.0.1", port: id },
      inFlight: 0,
      settled: 0,
      failed: 0,
      ratePerSecond: 0,
      rttMs: undefined,
      state: "active",
      ...info,
    },
  };
}

const workers = (count: number) =>
  Array.from({ length: count }, (_, id) => worker(id));
const all = () => true;
const none = () => false;

function picks(
  strategy: Strategy<Worker>,
  from: readonly Worker[],
  count: number,
  hasRoom: (worker: Worker) => boolean = all,
): (number | undefined)[] {
  return Array.from(
    { length: count },
    (_, i) => strategy.pick(from, i, hasRoom)?.info.id,
  );
}

Deno.test("RoundRobin gives item k to worker k mod n", () => {
  assertEquals(
    picks(new RoundRobin<Worker>(), workers(3), 7),
    [0, 1, 2, 0, 1, 2, 0],
  );
});

Deno.test("RoundRobin passes over who has no room, and keeps its turn", () => {
  const strategy = new RoundRobin<Worker>();
  const three = workers(3);
  assertEquals(picks(strategy, three, 1), [0]);
  assertEquals(picks(strategy, three, 3, (w) => w.info.id !== 1), [2, 0, 2]);
  strategy.refresh();
  assertEquals(picks(strategy, three, 2), [0, 1]);
  assertEquals(picks(strategy, three, 2, none), [undefined, undefined]);
  strategy.refresh();
  assertEquals(picks(strategy, three, 1), [2], "who got none costs no turn");
});

Deno.test("Every strategy picks the same of the few that alone have room", () => {
  const rng = seeded("few");
  const made: (() => Strategy<Worker>)[] = [
    () => new RoundRobin(),
    () => new LeastLoaded(),
    () => new Custom({ pick: (free) => free.length >> 1 }),
    () => new ByKey((item) => String(item)),
  ];
  for (const make of made) {
    const plain = make(), knowing = make();
    const pool = Array.from({ length: 20 }, (_, id) => worker(id));
    for (let round = 0; round < 200; round++) {
      const few = pool.filter(() => rng.chance(0.2));
      const hasRoom = (worker: Worker) =>
        few.includes(worker) && worker.info.id % 5 !== round % 5;
      plain.refresh?.();
      knowing.refresh?.();
      const known = rng.chance(0.7) ? few : null;
      assertEquals(
        knowing.pick(pool, round, hasRoom, known)?.info.id,
        plain.pick(pool, round, hasRoom)?.info.id,
      );
    }
  }
});

Deno.test("RoundRobin doesn't ask those again who had no room, until it is refreshed", () => {
  const strategy = new RoundRobin<Worker>();
  const many = workers(100);
  const rng = seeded("round robin");
  for (let round = 0; round < 50; round++) {
    strategy.refresh();
    const rooms = many.map(() => rng.int(0, 20) - 18);
    let asked = 0;
    // What a strategy without a memory does.
    const plain: number[] = [];
    let turn = picks(strategy, many, 1)[0]!;
    const left = [...rooms];
    for (let tried = 0; tried < 100;) {
      turn = (turn + 1) % 100;
      if (left[turn]! > 0) {
        plain.push(turn);
        left[turn]!--;
        tried = 0;
      } else tried++;
    }
    const got = picks(strategy, many, plain.length + 3, (worker) => {
      asked++;
      return rooms[worker.info.id]!-- > 0;
    });
    assertEquals(got, [...plain, undefined, undefined, undefined]);
    assert(asked <= plain.length + 200, `${asked} asked for ${plain.length}`);
  }
});

Deno.test("RoundRobin goes on when workers come and go", () => {
  const strategy = new RoundRobin<Worker>();
  assertEquals(picks(strategy, workers(5), 5), [0, 1, 2, 3, 4]);
  assertEquals(picks(strategy, workers(2), 3), [0, 1, 0]);
  assertEquals(picks(strategy, workers(3), 3), [1, 2, 0]);
  assertEquals(picks(strategy, [], 1), [undefined]);
});

Deno.test("LeastLoaded takes the one that holds the fewest, the first of several", () => {
  const least = new LeastLoaded<Worker>();
  const of = (...counts: number[]) =>
    least.pick(
      counts.map((inFlight, id) => worker(id, { inFlight })),
      null,
      ({ id }) => id < 3,
    )?.id;
  assertEquals(of(3, 1, 2), 1);
  assertEquals(of(2, 1, 1), 1);
  assertEquals(of(0, 0, 0), 0);
  assertEquals(of(7), 0);
  assertEquals(of(2, 3, 2, 1, 0), 0, "those without room hold fewer");
  assertEquals(least.pick(workers(3), null, none), null);
});

Deno.test("Custom shows the dispatcher only who has room, and the item", () => {
  const seen: unknown[] = [];
  const strategy = new Custom<Worker>({
    pick(free, item) {
      seen.push([free.map((info) => info.id), item]);
      return free.length - 1;
    },
  });
  const picked = strategy.pick(workers(4), "x", (w) => w.info.id % 2 === 1);
  assertEquals(picked?.info.id, 3);
  assertEquals(seen, [[[1, 3], "x"]]);
  assertEquals(strategy.pick(workers(4), "y", none), null);
  assertEquals(seen.length, 1, "it isn't asked when nobody has room");
});

Deno.test("Custom refuses an index that is none", () => {
  for (const index of [-1, 2, 0.5, NaN, "0x", undefined]) {
    const strategy = new Custom<Worker>({ pick: () => index as number });
    assertThrows(
      () => strategy.pick(workers(2), 1, all),
      RangeError,
      `pick() returned ${index}, expected an index below 2`,
    );
  }
});

Deno.test("Custom lets what the dispatcher throws through", () => {
  const strategy = new Custom<Worker>({
    pick() {
      throw new TypeError("of one's own");
    },
  });
  assertThrows(
    () => strategy.pick(workers(1), 1, all),
    TypeError,
    "of one's own",
  );
});

const byKey = () => new ByKey<Worker>((item: string) => item);

Deno.test("ByKey gives all items of a key to one worker", () => {
  const strategy = byKey();
  const five = workers(5);
  for (let key = 0; key < 100; key++) {
    const first = strategy.pick(five, `key ${key}`, all);
    for (let i = 0; i < 5; i++) {
      assertEquals(strategy.pick(five, `key ${key}`, all), first);
      assertEquals(strategy.pick(five.toReversed(), `key ${key}`, all), first);
    }
  }
});

Deno.test("ByKey spreads keys over all workers", () => {
  const strategy = byKey();
  const counts = new Map<number, number>();
  for (let key = 0; key < 10_000; key++) {
    const { id } = strategy.pick(workers(8), `k${key}`, all)!.info;
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  assertEquals(counts.size, 8);
  for (const count of counts.values()) {
    assertGreater(count, 10_000 / 8 * 0.7);
    assertLess(count, 10_000 / 8 * 1.3);
  }
});

Deno.test("ByKey moves only the keys of a worker that goes, or comes", () => {
  const strategy = byKey();
  const before = workers(6), after = before.filter((w) => w.info.id !== 2);
  let moved = 0;
  for (let key = 0; key < 1000; key++) {
    const was = strategy.pick(before, `k${key}`, all)!.info.id;
    const is = strategy.pick(after, `k${key}`, all)!.info.id;
    if (was === 2) moved++;
    else assertEquals(is, was);
  }
  assertGreater(moved, 100);
});

Deno.test("ByKey lets an item wait for its worker, and passes over who is no more", () => {
  const strategy = byKey();
  const three = workers(3);
  const chosen = strategy.pick(three, "k", all)!;
  assertEquals(strategy.pick(three, "k", (w) => w !== chosen), null);
  for (const state of ["idle", "suspect", "leaving"] as const) {
    const others = three.map((w) =>
      w === chosen ? worker(w.info.id, { state }) : w
    );
    const next = strategy.pick(others, "k", all);
    assert(next !== null && next.info.id !== chosen.info.id, state);
  }
  assertEquals(strategy.pick([], "k", all), null);
});

Deno.test("ByKey lets an item wait for a worker that is about to ask for items", () => {
  const strategy = byKey();
  const two = workers(2);
  const chosen = strategy.pick(two, "k", all)!;
  for (const state of ["idle", "suspect", "leaving"] as const) {
    const coming = two.map((w) =>
      w === chosen ? worker(w.info.id, { state }, true) : w
    );
    const isOpen = (w: Worker) => w.info.state === "active";
    assertEquals(
      strategy.pick(coming, "k", isOpen)?.info.id,
      state === "idle" ? undefined : 1 - chosen.info.id,
      state,
    );
  }
});

Deno.test("ByKey takes any key as text", () => {
  const strategy = new ByKey<Worker>((item) => item as string);
  for (const key of [1, null, undefined, "", "\ud800"]) {
    assert(strategy.pick(workers(3), key, all) !== null);
  }
  const bad = new ByKey<Worker>(() => {
    throw new TypeError("no key");
  });
  assertThrows(() => bad.pick(workers(1), 1, all), TypeError, "no key");
});

Deno.test("ByKey and LeastLoaded look closely at few of many workers", () => {
  let looks = 0;
  const many = workers(1000).map((w, i): Worker => ({
    ...w,
    inFlight: { count: 1 + i % 10 },
    get info() {
      looks++;
      return w.info;
    },
  }));
  const byKey = new ByKey<Worker>((item) => String(item));
  for (let i = 0; i < 100; i++) byKey.pick(many, i, all);
  assertLess(looks / 100, 20);
  looks = 0;
  const least = new LeastLoaded<Worker>();
  assertEquals(least.pick(many, 0, (w) => looks++ >= 0 && w.id > 0)?.id, 10);
  assertLess(looks, 20);
});
