/**
 * Delivery with workers that are plain objects: no connection, no clock.
 */
import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertLess,
  assertLessOrEqual,
} from "@std/assert";
import { Outlet } from "../internal/channel.ts";
import { shareOf } from "../internal/credit.ts";
import {
  Delivery,
  type Item,
  type RedeliveryCause,
  type Way,
  type Worker,
} from "../internal/delivery.ts";
import {
  ByKey,
  Custom,
  LeastLoaded,
  RoundRobin,
  type Strategy,
  type WorkerInfo,
} from "../internal/dispatcher.ts";
import { ItemFailure, PoisonItemError } from "../internal/errors.ts";
import { ItemKind, Mode } from "../internal/frame.ts";
import { InFlight, SETTLED, WAITING } from "../internal/in_flight.ts";
import { Queue } from "../internal/queue.ts";
import { ItemSchema } from "../internal/schema.ts";
import { ChannelWay, SubmitWay } from "../internal/ways.ts";
import { type Rng, seeded } from "./_support/rng.ts";

/** The worker's part, by hand. */
class FakeWorker implements Worker {
  readonly id: number = 0;
  hasMore = false;
  readonly inFlight: InFlight<Worker> = new InFlight();
  mode: number = Mode.WORK;
  concurrency = 1;
  instance: string;
  readonly isWorker = true;
  isOpen = true;
  isSuspect = false;
  isAlone = false;
  isReserved = false;
  window = 4;
  /** The items that it was given, by delivery number. */
  readonly given: Item[] = [];
  /** The deliveries that it was told to cancel. */
  readonly cancelled: number[] = [];
  /** What it can't take. */
  refuses: (entry: Item) => Error | false | null = () => null;
  /** What the item's getters do. */
  whileWritten: (entry: Item) => void = () => {};
  readonly name: string;
  readonly isExpected = false;

  constructor(name: string, options: Partial<FakeWorker> = {}) {
    this.name = this.instance = name;
    Object.assign(this, options);
  }

  get info(): WorkerInfo {
    return { name: this.name } as WorkerInfo;
  }

  get hasRoom(): boolean {
    return this.inFlight.count < this.window && !this.isFull;
  }

  /** The last item's bytes didn't fit. */
  isFull = false;

  deliver(entry: Item): boolean {
    const refusal = this.refuses(entry);
    if (refusal === false) {
      this.isFull = true;
      return false;
    }
    if (refusal !== null) throw refusal;
    assertFalse(entry.isAt(this), "it was given to one who still holds it");
    assert(entry.state === WAITING, "only what waits is delivered");
    if (entry.blames !== null) {
      assertEquals(
        this.inFlight.count,
        0,
        "a blamed item goes to who has none",
      );
    }
    assertFalse(this.isAlone, "who is alone gets nothing else");
    this.whileWritten(entry);
    entry.hold(this, this.inFlight.next);
    this.inFlight.add(entry);
    this.given.push(entry);
    this.hasMore = this.hasRoom;
    return true;
  }

  cancel(delivery: number): void {
    this.cancelled.push(delivery);
  }

  /** What it holds, by the items themselves. */
  get holds(): unknown[] {
    return [...this.inFlight.entries()].map(([, entry]) => entry.item);
  }

  /** Takes a delivery out: it is about to be settled. */
  take(delivery: number = this.first): Item {
    this.isFull = false;
    const entry = this.inFlight.take(delivery);
    assert(entry !== null, `${this.name} doesn't hold delivery ${delivery}`);
    return entry as Item;
  }

  get first(): number {
    for (const [delivery] of this.inFlight.entries()) return delivery;
    throw new Error(`${this.name} holds nothing`);
  }
}

/** A way in, by hand. */
class FakeWay implements Way {
  readonly queue: Queue<Item> = new Queue();
  readonly kind: number;
  places = Infinity;
  taken = 0;
  pumps = 0;
  readonly results: [item: unknown, value: unknown][] = [];
  readonly dones: unknown[] = [];
  readonly failures: ItemFailure[] = [];
  readonly onDispatched: ((entry: Item) => void)[] = [];

  constructor(kind: number = ItemKind.VALUE) {
    this.kind = kind;
  }

  hasPlace(): boolean {
    return this.taken < this.places;
  }

  dispatched(entry: Item): void {
    this.taken++;
    for (const listener of this.onDispatched) listener(entry);
  }

  result(entry: Item, value: unknown): void {
    this.results.push([entry.item, value]);
  }

  done(entry: Item): void {
    this.dones.push(entry.item);
  }

  failed(_entry: Item, error: Error): void {
    assertInstanceOf(error, ItemFailure);
    this.failures.push(error);
  }

  pumped(): void {
    this.pumps++;
  }
}

/** A delivery with its workers and ways, and what it told. */
class Scene {
  readonly told: [worker: string, ids: readonly number[], RedeliveryCause][] =
    [];
  readonly duplicates: number[] = [];
  readonly failures: ItemFailure[] = [];
  readonly letGo: unknown[] = [];
  idles = 0;
  readonly delivery: Delivery;
  readonly way = new FakeWay();

  constructor(
    {
      maxDeliveries = 3,
      strategy = new RoundRobin<Worker>() as Strategy<Worker>,
      schema = null as ItemSchema<Item> | null,
    } = {},
  ) {
    this.delivery = new Delivery({
      strategy,
      maxDeliveries,
      schema,
      tracer: null,
      events: {
        onRedelivered: (worker, ids, cause) =>
          this.told.push([worker.info.name, ids, cause]),
        onFailed: (failure) => this.failures.push(failure),
        onDuplicate: (_worker, id) => this.duplicates.push(id),
        onLetGo: (entry) => this.letGo.push(entry.item),
        onIdle: () => this.idles++,
      },
    });
    this.delivery.addWay(this.way);
  }

  worker(name: string, options: Partial<FakeWorker> = {}): FakeWorker {
    const worker = new FakeWorker(name, options);
    this.delivery.addWorker(worker);
    this.delivery.pump();
    return worker;
  }

  send(...items: unknown[]): Item[] {
    return items.map((item) => this.delivery.offer(item, this.way, 0));
  }

  /** A worker settles its oldest item, or the one of a delivery. */
  result(worker: FakeWorker, value: unknown = null, number?: number): void {
    this.delivery.result(worker, worker.take(number), value, 1);
    this.delivery.pump();
  }

  error(worker: FakeWorker, error: Error, number?: number): void {
    this.delivery.error(worker, worker.take(number), error);
    this.delivery.pump();
  }

  /** A worker's connection is lost. */
  lose(worker: FakeWorker): void {
    this.delivery.removeWorker(worker, {
      worker: worker.name,
      at: 1,
      instance: worker.instance,
      reason: "reset",
    });
  }

  /** Time goes by: what may be poison has its last try. */
  rest(): void {
    for (const now of [0, 500]) this.delivery.check(now);
  }

  /** A worker has said goodbye. */
  leave(worker: FakeWorker): void {
    this.delivery.removeWorker(worker, null);
  }

  handBack(worker: FakeWorker, ...numbers: number[]): void {
    worker.isOpen = false;
    this.delivery.handBack(worker, numbers.map((n) => worker.take(n)));
    this.delivery.pump();
  }

  suspect(worker: FakeWorker): void {
    worker.isSuspect = true;
    worker.isOpen = false;
    this.delivery.suspect(worker);
  }

  trust(worker: FakeWorker): void {
    worker.isSuspect = false;
    worker.isOpen = true;
    this.delivery.trust(worker);
  }
}

const range = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => from + i);

Deno.test("Delivery.offer() dispatches at once when there is room", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 2 });
  const [first, second, third] = scene.send("x", "y", "z");
  assertEquals(a.holds, ["x", "y"]);
  assertEquals([first!.id, second!.id, third!.id], [0, 1, 2]);
  assertEquals([first!.attempts, third!.attempts], [1, 0]);
  const { alive, waiting } = scene.delivery;
  assertEquals([alive, waiting], [3, 1]);
  scene.result(a);
  assertEquals(a.holds, ["y", "z"]);
});

/** Round robin that counts how often it is asked. */
function counted(): Strategy<Worker> & { asked: number } {
  const robin = new RoundRobin<Worker>();
  return {
    asked: 0,
    pick(workers, item, hasRoom) {
      this.asked++;
      return robin.pick(workers, item, hasRoom);
    },
    refresh: () => robin.refresh(),
  };
}

Deno.test("Delivery.offer() asks for no worker behind an item that waits", () => {
  const strategy = counted();
  const scene = new Scene({ strategy });
  const a = scene.worker("a", { window: 1 });
  scene.send(...range(0, 100));
  assertLess(strategy.asked, 5);
  while (scene.delivery.alive > 0) scene.result(a);
  assertEquals(a.given.map((e) => e.item), range(0, 100));
});

Deno.test("Delivery.pump() asks once where no worker has room for many ways", () => {
  const strategy = counted();
  const scene = new Scene({ strategy });
  const a = scene.worker("a", { window: 1 });
  const ways = range(0, 100).map(() => new FakeWay(ItemKind.CALL));
  for (const way of ways) {
    scene.delivery.addWay(way);
    scene.delivery.offer(0, way, 0);
    scene.delivery.offer(1, way, 0);
  }
  // The first was sent at once, and was nobody's turn.
  for (let i = 0; i <= ways.length; i++) {
    strategy.asked = 0;
    scene.result(a);
    assertLessOrEqual(strategy.asked, 2);
  }
  assertEquals(
    ways.map(({ results }) => results.length),
    ways.map((_, i) => i === 0 ? 2 : 1),
    "each has its turn",
  );
});

Deno.test("Delivery.unfinished() of a way looks through no other way's queue", () => {
  let looks = 0;
  class LookedQueue extends Queue<Item> {
    override [Symbol.iterator](): Generator<Item, void> {
      looks++;
      return super[Symbol.iterator]();
    }
  }
  class Backlog extends FakeWay {
    override readonly queue: Queue<Item> = new LookedQueue();
  }
  const scene = new Scene();
  const backlog = new Backlog();
  scene.delivery.addWay(backlog);
  const a = scene.worker("a", { window: 2 });
  scene.send("x", "y", "z");
  for (const n of range(0, 10)) scene.delivery.offer(n, backlog, 0);
  scene.lose(a);
  const items = (of?: Way) =>
    scene.delivery.unfinished(of).map(({ item }) => item);
  assertEquals(items(scene.way), ["x", "y", "z"]);
  assertEquals(looks, 0);
  assertEquals(items(), ["x", "y", "z", ...range(0, 10)]);
  assertEquals(looks, 1);
});

Deno.test("Delivery asks few of many workers that are all busy, whoever gets room or is lost", () => {
  const strategies: Strategy<Worker>[] = [
    new RoundRobin(),
    new LeastLoaded(),
    new Custom({ pick: () => 0 }),
  ];
  for (const strategy of strategies) {
    const scene = new Scene({ strategy });
    const { delivery } = scene;
    let asked = 0;
    const workers = range(0, 200).map((id) => {
      const worker = scene.worker(`${id}`, { id, window: 1 });
      Object.defineProperty(worker, "isOpen", { get: () => (asked++, true) });
      return worker;
    });
    for (const n of range(0, 600)) scene.send(n);
    asked = 0;
    for (const worker of workers) {
      delivery.result(worker, worker.take(), null, 1);
      delivery.pump(worker);
      assertEquals(worker.holds.length, 1, `worker ${worker.id} gets another`);
    }
    for (const worker of workers.slice(0, 100)) scene.leave(worker);
    assertLess(asked, 5 * workers.length);
    assertEquals(delivery.waiting, 300);
  }
});

Deno.test("Delivery keeps order to a worker, across queue and fast path", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 3 });
  for (const n of range(0, 100)) {
    scene.send(n);
    if (n % 3 === 2) scene.result(a);
  }
  while (scene.delivery.alive > 0) scene.result(a);
  assertEquals(a.given.map((e) => e.item), range(0, 100));
});

Deno.test("Delivery settles an item with its result, once", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  scene.send("x");
  scene.result(a, "X");
  assertEquals(scene.way.results, [["x", "X"]]);
  const { settled, alive, waiting } = scene.delivery;
  assertEquals([settled, alive, waiting, scene.idles], [1, 0, 0, 1]);
});

Deno.test("Delivery.done() settles without a result, error() with a failure", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  scene.send("x", "y");
  scene.delivery.done(a, a.take());
  scene.error(a, new RangeError("bad"));
  assertEquals(scene.way.dones, ["x"]);
  const [failure] = scene.way.failures;
  assertEquals(
    [failure!.item, failure!.id, failure!.attempts, failure!.error.message],
    ["y", 1, 1, "bad"],
  );
  assert(failure!.cause === failure!.error);
  assertEquals(scene.failures, scene.way.failures);
  assertEquals([scene.delivery.settled, scene.delivery.failed], [1, 1]);
});

Deno.test("Delivery: what can't be sent fails by itself", () => {
  const scene = new Scene();
  const refuses = (entry: Item) =>
    entry.item === "bad" ? new TypeError("can't be sent") : null;
  const a = scene.worker("a", { refuses });
  scene.worker("b", { refuses });
  const [, bad] = scene.send("x", "bad", "y");
  assertEquals(a.holds, ["x", "y"], "item k goes to worker k mod n, even so");
  assertEquals(bad!.state, SETTLED);
  assertEquals(scene.way.failures.map((f) => f.error.message), [
    "can't be sent",
  ]);
  assertEquals([scene.delivery.alive, scene.delivery.waiting], [2, 0]);
  assertEquals(scene.way.taken, 3, "its place was taken, and is given back");
});

Deno.test("Delivery: an item whose bytes don't fit goes to another, or waits", () => {
  const scene = new Scene();
  const large = (entry: Item) => entry.item === "large" ? false : null;
  const a = scene.worker("a", { refuses: large });
  const b = scene.worker("b");
  scene.send("large", "small");
  assertEquals([a.holds, b.holds], [[], ["large", "small"]]);
  b.refuses = large;
  scene.send("large");
  assertEquals(scene.delivery.waiting, 1);
  b.refuses = () => null;
  scene.result(b);
  assertEquals(b.holds, ["small", "large"]);
});

Deno.test("Delivery redelivers a lost worker's items first, in the order of their ids", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 4 });
  scene.send(...range(0, 8)); // 0 to 3 there, 4 to 7 queued
  scene.result(a, null, 2); // then 4 is there, too
  scene.lose(a);
  assertEquals(scene.told, [["a", [0, 1, 3, 4], "lost"]]);
  assertEquals(scene.delivery.redelivered, 4);
  const b = scene.worker("b", { window: 100 });
  // 0 was being executed: it goes alone.
  assertEquals(b.holds, [0]);
  scene.result(b);
  assertEquals(b.holds, [1, 3, 4, 5, 6, 7]);
  assertEquals(b.given.map((e) => e.attempts), [2, 2, 2, 2, 1, 1, 1]);
});

Deno.test("Delivery merges what several lost workers held by id", () => {
  const scene = new Scene();
  const [a, b, c] = ["a", "b", "c"].map((n) =>
    scene.worker(n, { concurrency: 0 })
  );
  scene.send(...range(0, 12));
  for (const worker of [b!, a!, c!]) scene.lose(worker);
  const d = scene.worker("d", { window: 100 });
  assertEquals(d.holds, range(0, 12));
});

Deno.test("Delivery: what leaves goes first as well, and costs no attempt", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 3 });
  scene.send(...range(0, 5));
  scene.handBack(a, 1, 2);
  assertEquals(scene.told, [["a", [1, 2], "left"]]);
  const b = scene.worker("b", { window: 10 });
  assertEquals(b.holds, [1, 2, 3, 4]);
  assertEquals(b.given[0]!.attempts, 1);
  scene.leave(a); // with item 0 unsettled
  assertEquals(b.holds, [1, 2, 3, 4, 0]);
  assertEquals(b.given.at(-1)!.blames, null);
});

Deno.test("Delivery.handBack() costs no attempt, also where the item waits or is at another", () => {
  const scene = new Scene();
  const slow = scene.worker("slow", { window: 2 });
  const [waits, copied] = scene.send("waits", "copied");
  scene.suspect(slow);
  slow.inFlight.take(0);
  scene.delivery.handBack(slow, [waits!]);
  assertEquals([waits!.attempts, scene.delivery.waiting], [0, 2]);
  const other = scene.worker("other");
  assertEquals(other.given.map((e) => e.attempts), [1, 2]);
  scene.handBack(slow, 1);
  assertEquals(copied!.attempts, 1);
  assertEquals(other.holds, ["waits", "copied"]);
});

Deno.test("Delivery: an item takes one place, however often it is handed back", () => {
  const scene = new Scene();
  scene.way.places = 2;
  for (let i = 0; i < 10; i++) {
    const worker = scene.worker(`w${i}`, { window: 1 });
    if (i === 0) scene.send("x", "y", "z");
    assertEquals(worker.holds, ["x"]);
    scene.handBack(worker, worker.first);
    scene.leave(worker);
  }
  assertEquals(scene.way.taken, 1);
  const last = scene.worker("last", { window: 10 });
  assertEquals(last.holds, ["x", "y"], "z has no place");
});

Deno.test("Delivery: redelivered items need no new place", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 10, concurrency: 0 });
  scene.send(...range(0, 4));
  scene.way.places = 4;
  scene.send(4);
  scene.lose(a);
  const b = scene.worker("b", { window: 10 });
  assertEquals(b.holds, range(0, 4));
});

// --- Blame ---

Deno.test("Delivery blames the oldest concurrency items of a lost worker", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 6, concurrency: 2 });
  const items = scene.send(...range(0, 6));
  scene.result(a); // 1 and 2 are being executed now
  scene.lose(a);
  assertEquals(
    items.map((e) => e.blames?.length ?? 0),
    [0, 1, 1, 0, 0, 0],
  );
  assertEquals(items[1]!.blames, [
    { worker: "a", at: 1, reason: "reset", instance: "a" },
  ]);
});

Deno.test("Delivery delivers a blamed item alone", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 1 });
  scene.send("x");
  scene.lose(a);
  const b = scene.worker("b", { window: 10 });
  scene.send(...range(0, 5));
  assertEquals(b.holds, ["x"], "nothing else while it holds it");
  assert(b.isAlone);
  scene.result(b);
  assertFalse(b.isAlone);
  assertEquals(b.holds, range(0, 5));
});

Deno.test("Delivery gives a blamed item to who holds nothing, and sees that one will", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 1 });
  scene.send("x");
  const b = scene.worker("b", { window: 2 });
  const c = scene.worker("c", { window: 3 });
  scene.send(...range(0, 20));
  scene.lose(a);
  // Both are kept busy; one of them gets nothing new until it holds nothing.
  for (let i = 0; i < 6; i++) {
    for (const worker of [b, c]) {
      if (worker.inFlight.count > 0) scene.result(worker);
    }
    if (b.isAlone || c.isAlone) break;
  }
  assert(b.isAlone || c.isAlone, "it got its turn");
  assertEquals((b.isAlone ? b : c).holds, ["x"]);
});

Deno.test("Delivery reserves no worker that is alone with another blamed item", () => {
  const scene = new Scene();
  const dying = scene.worker("dying", { window: 2, concurrency: 2 });
  scene.send("x", "y");
  const busy = scene.worker("busy", { window: 3 });
  scene.send(1, 2, 3);
  const alone = scene.worker("alone");
  scene.lose(dying);
  assertEquals(alone.holds, ["x"]);
  scene.send(4, 5, 6);
  for (let i = 0; i < 3; i++) scene.result(busy);
  assertEquals([alone.holds, busy.holds], [["x"], ["y"]]);
});

Deno.test("Delivery: a worker that is never empty doesn't keep a blamed item waiting", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 1 });
  scene.send("x");
  const slow = scene.worker("slow", { window: 1 });
  const b = scene.worker("b", { window: 4 });
  const c = scene.worker("c", { window: 4 });
  scene.send(...range(0, 5000));
  scene.lose(a);
  // The slow one holds the fewest, and for ever. It has its time.
  const settle = () => {
    for (const worker of [b, c]) {
      if (worker.inFlight.count > 0) scene.result(worker);
    }
  };
  for (let now = 0; now < 5000; now += 250) {
    scene.delivery.check(now);
    settle();
    assert(b.inFlight.count + c.inFlight.count > 6, "it alone is waited for");
  }
  scene.delivery.check(5000);
  for (let i = 0; i < 4; i++) settle();
  assertEquals(slow.inFlight.count, 1);
  assertEquals((b.isAlone ? b : c).holds, ["x"]);
});

Deno.test("Delivery: at maxDeliveries blames an item is poison", () => {
  const scene = new Scene({ maxDeliveries: 3 });
  const [x] = scene.send("x");
  for (const name of ["a", "b", "c"]) {
    assertEquals(scene.way.failures, []);
    const worker = scene.worker(name);
    scene.rest();
    assertEquals(worker.holds, ["x"]);
    scene.lose(worker);
  }
  const [failure] = scene.way.failures;
  assertEquals(failure!.attempts, 3);
  assertInstanceOf(failure!.error, PoisonItemError);
  assertEquals(failure!.error.attempts, [
    { worker: "a", at: 1, reason: "reset" },
    { worker: "b", at: 1, reason: "reset" },
    { worker: "c", at: 1, reason: "reset" },
  ]);
  assertEquals(x!.state, SETTLED);
  assertEquals(scene.worker("d").holds, []);
  assertEquals([scene.delivery.alive, scene.delivery.waiting], [0, 0]);
});

Deno.test("Delivery: before the death that would be its verdict an item rests", () => {
  const scene = new Scene({ maxDeliveries: 4 });
  const [x] = scene.send("x");
  for (const name of ["a", "b"]) {
    const worker = scene.worker(name);
    assertEquals(worker.holds, ["x"], "at once");
    scene.lose(worker);
  }
  const c = scene.worker("c");
  assertEquals(c.holds, ["x"], "that one can't be the last");
  scene.lose(c);
  assertEquals(scene.told, ["a", "b", "c"].map((name) => [name, [0], "lost"]));
  const d = scene.worker("d", { window: 2 });
  scene.send("y");
  for (const now of [7000, 7499]) {
    scene.delivery.check(now);
    assertEquals([d.holds, scene.delivery.due], [["y"], 0]);
  }
  scene.delivery.check(7500);
  assertEquals(d.holds, ["y"], "and then alone");
  scene.result(d);
  assertEquals(d.holds, ["x"]);
  scene.result(d);
  assertEquals([x!.state, scene.delivery.alive], [SETTLED, 0]);
  assertEquals(scene.way.failures, []);
});

Deno.test("Delivery: an item rests no longer than until one of its dead comes back", () => {
  const scene = new Scene();
  const [x] = scene.send("x");
  for (const instance of ["one", "two"]) {
    scene.lose(scene.worker(instance, { instance }));
  }
  const other = scene.worker("other", { instance: "three" });
  assertEquals(other.holds, []);
  const back = scene.worker("two again", { instance: "two" });
  const holder = back.isAlone ? back : other;
  assertEquals([holder.holds, holder.isAlone], [["x"], true]);
  assertEquals(x!.blames!.map(({ instance }) => instance), ["one"]);
  scene.result(holder);
  scene.rest(); // nothing of it is left
  assertEquals(scene.delivery.alive, 0);
});

Deno.test("Delivery.addWorker() sends nothing before its owner has told of the worker", async () => {
  const scene = new Scene();
  scene.send("x");
  for (const name of ["a", "b"]) scene.lose(scene.worker(name));
  const c = scene.worker("c");
  scene.delivery.addWorker(new FakeWorker("b", { isOpen: false }));
  assertEquals([c.holds, scene.delivery.due], [[], 1]);
  await null;
  assertEquals(c.holds, ["x"]);
});

Deno.test("Delivery: an item rests, too, that waits since its worker was suspect", () => {
  const scene = new Scene();
  scene.send("x");
  scene.lose(scene.worker("a"));
  const b = scene.worker("b");
  scene.suspect(b);
  scene.lose(b);
  const c = scene.worker("c");
  assertEquals([c.holds, scene.delivery.due], [[], 0]);
  scene.rest();
  assertEquals(c.holds, ["x"]);
  scene.result(c);
  assertEquals([scene.delivery.alive, scene.delivery.waiting], [0, 0]);
});

Deno.test("Delivery: an item doesn't rest where its latest blame stays", () => {
  const scene = new Scene();
  scene.send("x");
  scene.lose(scene.worker("a"));
  const b = scene.worker("b");
  scene.delivery.removeWorker(b, {
    worker: "b",
    at: 1,
    instance: null,
    reason: "protocol",
  });
  assertEquals(scene.worker("c").holds, ["x"]);
});

Deno.test("Delivery: an item doesn't rest that a worker has", () => {
  const scene = new Scene();
  scene.send("x");
  scene.lose(scene.worker("a"));
  const b = scene.worker("b");
  scene.suspect(b);
  const c = scene.worker("c");
  assertEquals(c.holds, ["x"]);
  scene.lose(b);
  assertEquals(scene.delivery.due, 0);
  scene.result(c);
  assertEquals([scene.delivery.alive, scene.delivery.due], [0, 0]);
});

for (const end of ["its time", "a suspect that is heard"] as const) {
  Deno.test(`Delivery: a rest that ${end} has ended doesn't end a retry's wait`, () => {
    const scene = new Scene();
    const [x] = scene.send("x");
    scene.lose(scene.worker("a"));
    const b = scene.worker("b");
    if (end !== "its time") scene.suspect(b);
    const c = scene.worker("c");
    scene.lose(end === "its time" ? b : c);
    const last = end === "its time" ? c : b;
    if (end === "its time") scene.rest();
    else scene.trust(b);
    assertEquals(last.holds, ["x"]);
    assert(scene.delivery.hold(last, last.take()));
    for (const now of [1000, 1500, 2000]) {
      scene.delivery.check(now);
      assertEquals(last.holds, []);
    }
    scene.delivery.requeue([x!]);
    assertEquals(last.holds, ["x"]);
  });
}

Deno.test("Delivery: an item that isn't wanted any more rests no longer", () => {
  const scene = new Scene();
  const [x] = scene.send("x");
  for (const name of ["a", "b"]) scene.lose(scene.worker(name));
  const c = scene.worker("c");
  scene.delivery.discard(x!);
  scene.rest();
  assertEquals([c.holds, scene.delivery.waiting, scene.idles], [[], 0, 1]);
});

Deno.test("Delivery: bystanders of a poison item are blamed once at most", () => {
  const scene = new Scene({ maxDeliveries: 2 });
  let next = scene.worker("w0", { window: 8, concurrency: 4 });
  scene.send("poison", ...range(1, 8));
  for (let i = 1; scene.delivery.alive > 0; i++) {
    assertLess(i, 20);
    if (next.holds.includes("poison")) {
      scene.lose(next);
      next = scene.worker(`w${i}`, { window: 8, concurrency: 4 });
    } else scene.result(next);
  }
  assertEquals(scene.way.failures.map((f) => f.item), ["poison"]);
  assertEquals(scene.way.results.length, 7);
});

Deno.test("Delivery blames nobody for a goodbye", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  const [x] = scene.send("x");
  scene.leave(a);
  assertEquals(x!.blames, null);
  assertEquals(scene.told, [["a", [0], "left"]]);
});

Deno.test("Delivery takes blame back when the same process comes again", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 3, instance: "one" });
  const [x] = scene.send(...range(0, 3));
  scene.lose(a);
  assertEquals(x!.blames?.length, 1);
  const again = scene.worker("a again", { window: 3, instance: "one" });
  assertEquals(x!.blames, null);
  assertEquals(again.holds, [0, 1, 2]);
  assertFalse(again.isAlone);
});

Deno.test("Delivery takes back no other process's blame", () => {
  const scene = new Scene({ maxDeliveries: 5 });
  const [x] = scene.send("x");
  for (const instance of ["one", "two"]) {
    scene.lose(scene.worker(instance, { instance }));
  }
  assertEquals(x!.blames?.map((b) => b.instance), ["one", "two"]);
  scene.worker("back", { instance: "one", isOpen: false });
  assertEquals(x!.blames?.map((b) => b.instance), ["two"]);
});

Deno.test("Delivery: a worker isn't alone for ever when blame is taken back", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 1, instance: "one" });
  scene.send("x");
  scene.lose(a);
  const b = scene.worker("b", { window: 4 });
  assert(b.isAlone);
  scene.worker("a again", { instance: "one", isOpen: false });
  scene.send("y");
  scene.result(b); // x, which nobody is blamed for any more
  assertEquals(b.holds, ["y"]);
});

Deno.test("Delivery blames nobody a second time who had company", () => {
  const scene = new Scene({ maxDeliveries: 2 });
  const a = scene.worker("a");
  const [x] = scene.send("x");
  scene.suspect(a);
  const b = scene.worker("b", { concurrency: 2 });
  scene.send("y");
  assertEquals(b.holds, ["x", "y"]);
  scene.lose(a);
  assertEquals(x!.blames?.length, 1);
  scene.lose(b); // with y beside it: it may have been y
  assertEquals(scene.failures, []);
  assertEquals(x!.blames?.length, 1);
  const c = scene.worker("c");
  assertEquals([c.holds, c.isAlone], [["x"], true]);
  scene.lose(c);
  assertEquals(scene.failures.map(({ item }) => item), ["x"]);
});

Deno.test("Delivery asks few workers, however many blamed items wait", () => {
  let asked = 0;
  const strategy = new RoundRobin<Worker>();
  const counting: Strategy<Worker> = {
    pick: (...args) => (asked++, strategy.pick(...args)),
    refresh: () => strategy.refresh(),
  };
  const scene = new Scene({ strategy: counting });
  const a = scene.worker("a", { window: 1000, concurrency: 1000 });
  scene.send(...range(0, 1000));
  scene.lose(a);
  const b = scene.worker("b");
  asked = 0;
  for (let i = 0; i < 1000; i++) scene.result(b);
  assert(asked < 5000, `asked ${asked} times`);
  assertEquals(scene.delivery.alive, 0);
});

/** Items go to the worker that they name. */
const byName: Strategy<Worker> = {
  byItem: true,
  pick: (workers, item, hasRoom) =>
    workers.find((w) => w.info.name === (item as string)[0] && hasRoom(w)) ??
      null,
};

Deno.test("Delivery by key: who waits for none of what goes again isn't offered all of it", () => {
  let asked = 0;
  const counting: Strategy<Worker> = {
    ...byName,
    pick: (...args) => (asked++, byName.pick(...args)),
  };
  const scene = new Scene({ strategy: counting });
  const options = { window: 1001, concurrency: 0 };
  const first = scene.worker("b", options);
  const a = scene.worker("a", { window: 2 });
  scene.send(...range(0, 1000).map((n) => `b${n}`), "a1");
  scene.lose(first);
  const b = scene.worker("b", { window: 1 });
  asked = 0;
  for (let i = 0; i < 500; i++) scene.result(b);
  assert(asked < 5000, `asked ${asked} times`);
  // What comes back to it goes to it at once.
  const held = a.take();
  scene.delivery.hold(a, held);
  scene.delivery.requeue([held]);
  assertEquals(a.holds, ["a1"]);
  scene.result(a);
  const c = scene.worker("c", options);
  scene.send("c1");
  scene.result(b);
  assertEquals([b.holds, c.holds], [["b501"], ["c1"]]);
  scene.result(c);
  for (let i = 0; i < 499; i++) scene.result(b);
  assertEquals(scene.delivery.alive, 0);
});

Deno.test("Delivery by key: whether what goes again is a worker's takes no look at all others", () => {
  const strategy = new ByKey<Worker>((item: string) => item);
  const scene = new Scene({ strategy });
  const { delivery } = scene;
  const info = { name: "", state: "active" } as WorkerInfo;
  let looks = 0;
  const join = (id: number, window: number): FakeWorker => {
    const worker = scene.worker(`${id}`, { window });
    Object.defineProperties(worker, {
      id: { get: () => (looks++, id) },
      info: { value: info },
    });
    return worker;
  };
  const first = join(0, 1000);
  scene.send(...range(0, 1000).map((n) => `key ${n}`));
  const workers = range(1, 201).map((id) => join(id, 1));
  scene.leave(first);
  looks = 0;
  for (const worker of workers) {
    if (worker.inFlight.count === 0) continue;
    delivery.result(worker, worker.take(), null, 1);
    delivery.pump(worker);
  }
  assertLess(looks, 200 * 4000);
  while (delivery.alive > 0) {
    for (const worker of workers) {
      if (worker.inFlight.count > 0) scene.result(worker);
    }
  }
});

Deno.test("Delivery by key: what is another's by now goes to it after a while", () => {
  let name = "b";
  const scene = new Scene({
    strategy: {
      byItem: true,
      pick: (workers, _item, hasRoom) =>
        workers.find((w) => w.info.name === name && hasRoom(w)) ?? null,
    },
  });
  const first = scene.worker("b", { window: 3, concurrency: 0 });
  const a = scene.worker("a", { window: 3 });
  scene.send(1, 2, 3);
  scene.lose(first);
  scene.delivery.pump();
  name = "a";
  scene.delivery.check(1000);
  assertEquals(a.holds, [1, 2, 3]);
});

Deno.test("Delivery by key: what comes back is offered to who waited for none of the rest", () => {
  const scene = new Scene({ strategy: byName });
  const lose = [
    scene.worker("a", { concurrency: 0 }),
    scene.worker("b", { concurrency: 0 }),
  ];
  scene.send("a1", "b1");
  scene.worker("a", { window: 0 });
  const b = scene.worker("b");
  for (const worker of lose) scene.lose(worker);
  assertEquals(b.holds, ["b1"]);
});

Deno.test("Delivery by key: a way whose worker is full holds up no other", () => {
  const scene = new Scene({ strategy: byName });
  const [a, b] = ["a", "b"].map((name) => scene.worker(name, { window: 1 }));
  for (const [name, worker] of [["a", a!], ["b", b!]] as const) {
    const way = new FakeWay(ItemKind.CALL);
    scene.delivery.addWay(way);
    for (let n = 1; n <= 9; n++) scene.delivery.offer(`${name}${n}`, way, n);
    assertEquals(worker.holds, [`${name}1`]);
  }
  for (let n = 2; n <= 9; n++) {
    scene.result(b!);
    assertEquals(b!.holds, [`b${n}`], "whoever's turn it is");
  }
});

Deno.test("Delivery by key reserves the worker of each blamed item", () => {
  const scene = new Scene({ strategy: byName });
  const first = ["a", "b"].map((name) => scene.worker(name));
  scene.send("a1", "b1");
  const [a, b] = ["a", "b"].map((name) => new FakeWorker(name)) as [
    FakeWorker,
    FakeWorker,
  ];
  for (const worker of [a, b]) scene.delivery.addWorker(worker);
  for (const worker of first) worker.isOpen = false;
  scene.send("a2", "b2");
  assertEquals([a.holds, b.holds], [["a2"], ["b2"]]);
  for (const worker of first) scene.lose(worker);
  assertEquals([a.isReserved, b.isReserved], [true, true]);
  scene.send("a3", "b3");
  scene.result(b);
  assertEquals([a.holds, b.holds], [["a2"], ["b1"]]);
  scene.result(b);
  assertFalse(b.isReserved);
  scene.result(a);
  scene.result(a);
  assertEquals([a.holds, b.holds], [["a3"], ["b3"]]);
});

for (const how of ["is cancelled", "stays where it was"]) {
  Deno.test(`Delivery by key: who is reserved gets others' items if the blamed one ${how}`, async () => {
    const scene = new Scene({ strategy: byName });
    const dying = scene.worker("a");
    const [blamed] = scene.send("a1") as [Item];
    const holder = scene.worker("a");
    scene.lose(dying);
    assertEquals(holder.holds, ["a1"]);
    const reserved = scene.worker("a", { window: 2, instance: "another" });
    scene.send("a2");
    scene.suspect(holder);
    assert(reserved.isReserved);
    scene.send("a3");
    assertEquals(reserved.holds, ["a2"], "it gets nothing new");
    if (how === "is cancelled") {
      scene.delivery.discard(blamed);
      await Promise.resolve(); // the end of this turn
    } else scene.trust(holder);
    assertEquals(reserved.holds, ["a2", "a3"]);
  });
}

Deno.test("Delivery: a blamed call that nobody can take holds up no other blamed item", () => {
  const scene = new Scene();
  const calls = new FakeWay(ItemKind.CALL);
  scene.delivery.addWay(calls);
  const worker = scene.worker("worker", { window: 1 });
  scene.delivery.offer("call", calls, 0);
  const reader = scene.worker("reader", { mode: Mode.STREAM, window: 2 });
  const dying = scene.worker("dying", { mode: Mode.STREAM, window: 1 });
  scene.send("r1", "x", "r2");
  assertEquals([reader.holds, dying.holds], [["r1", "r2"], ["x"]]);
  scene.lose(worker);
  scene.lose(dying);
  assertEquals(reader.isReserved, true);
  scene.send("r3", "r4");
  scene.result(reader);
  scene.result(reader);
  assertEquals(reader.holds, ["x"]);
});

Deno.test("Delivery: who is reserved no more gets what was passed over, before what is new", () => {
  const scene = new Scene();
  const dying = scene.worker("dying", { window: 2 });
  scene.send("blamed", "returned");
  const a = scene.worker("a", { window: 2 });
  const b = scene.worker("b", { window: 2 });
  scene.send(1, 2, 3, 4);
  scene.lose(dying);
  const [reserved, other] = a.isReserved ? [a, b] : [b, a];
  scene.result(reserved);
  scene.send("new");
  scene.delivery.result(other, other.take(), null, 1);
  scene.result(other);
  assertEquals(other.holds, ["blamed"]);
  assertFalse(reserved.isReserved);
  assertEquals(reserved.holds.at(-1), "returned");
});

Deno.test("Delivery: of many busy workers, who has settled an item gets what comes next at once", () => {
  const scene = new Scene();
  const { delivery } = scene;
  const [first, second, third] = range(0, 70).map((id) =>
    scene.worker(`${id}`, { id, window: 1 })
  ) as [FakeWorker, FakeWorker, FakeWorker];
  scene.send(...range(0, 71));
  delivery.result(first, first.take(), null, 1);
  delivery.pump(first);
  assertEquals(first.holds, [70]);
  // Before they are pumped: that comes when all of a read was looked at.
  delivery.result(second, second.take(), null, 1);
  scene.send("after a result");
  assertEquals(second.holds, ["after a result"]);
  assert(delivery.hold(third, third.take()), "to be tried again");
  scene.send("after an error");
  assertEquals(third.holds, ["after an error"]);
});

for (const how of ["is cancelled", "stays where it was"]) {
  Deno.test(`Delivery: among many, who is reserved gets others' items if the blamed one ${how}`, async () => {
    const scene = new Scene();
    const { delivery } = scene;
    const dying = scene.worker("dying", { window: 1 });
    const [blamed] = scene.send("blamed") as [Item];
    const holder = scene.worker("holder", { id: 1, window: 3 });
    scene.lose(dying);
    assertEquals(holder.holds, ["blamed"]);
    const reserved = scene.worker("reserved", { id: 2, window: 2 });
    for (const id of range(3, 73)) scene.worker(`${id}`, { id, window: 3 });
    scene.send(...range(0, 2 + 70 * 3));
    scene.suspect(holder);
    assert(reserved.isReserved, "it holds the fewest");
    scene.result(reserved);
    scene.send("new");
    assertEquals(reserved.holds.length, 1, "it gets nothing new");
    if (how === "is cancelled") {
      delivery.discard(blamed);
      await Promise.resolve(); // the end of this turn
    } else scene.trust(holder);
    assertEquals(reserved.holds.at(-1), "new");
  });
}

Deno.test("Delivery: a blamed item gets to who is busy, past all who hang", () => {
  const scene = new Scene();
  const dying = scene.worker("dying", { window: 1 });
  const [blamed] = scene.send("blamed");
  for (const name of ["a", "b", "c"]) scene.worker(name, { window: 1 });
  const busy = scene.worker("busy", { window: 4 });
  scene.send(...range(0, 7));
  scene.lose(dying);
  for (let now = 0; blamed!.attempts < 2; now += 1000) {
    assert(now < 60_000, "it waits for ever");
    scene.delivery.check(now);
    if (busy.inFlight.count > 0) scene.result(busy);
    scene.send(now);
  }
  assertEquals(busy.holds, ["blamed"]);
});

Deno.test("Delivery.offer(): what a strategy, a getter or a schema sends goes behind the item that it is asked about", () => {
  for (const who of ["strategy", "getter", "schema"]) {
    let isSent = false;
    const send = (from: string, item: unknown) => {
      if (who !== from || item !== 2 || isSent) return;
      isSent = true;
      scene.send("own", "own too");
    };
    const robin = new RoundRobin<Worker>();
    const scene: Scene = new Scene({
      strategy: {
        pick(workers, item, hasRoom) {
          send("strategy", item);
          return robin.pick(workers, item, hasRoom);
        },
        refresh: () => robin.refresh(),
      },
      schema: new ItemSchema<Item>({
        "~standard": {
          version: 1,
          vendor: "test",
          validate: (value) => {
            send("schema", value);
            return { value };
          },
        },
      }),
    });
    const a = scene.worker("a", { window: 2 });
    a.refuses = ({ item }) => {
      send("getter", item);
      // Its bytes don't fit beside another's.
      return item === 2 && a.inFlight.count > 0 ? false : null;
    };
    if (who !== "getter") scene.send(0);
    scene.send(1, 2, 3);
    while (scene.delivery.alive > 0) scene.result(a);
    assertEquals(
      a.given.slice(-5).map(({ item }) => item),
      [1, 2, "own", "own too", 3],
      who,
    );
  }
});

Deno.test("Delivery.offer(): what a schema sends is sent at once, also where it refuses the item", () => {
  const scene: Scene = new Scene({
    schema: new ItemSchema<Item>({
      "~standard": {
        version: 1,
        vendor: "test",
        validate: (value) => {
          if (value !== 1) return { value };
          scene.send("own");
          return { issues: [{ message: "no" }] };
        },
      },
    }),
  });
  const a = scene.worker("a");
  scene.send(1);
  assertEquals(scene.way.failures.length, 1);
  assertEquals(a.holds, ["own"]);
});

Deno.test("Delivery: a way whose first item is with its schema holds up no other", () => {
  const scene = new Scene({
    schema: new ItemSchema<Item>({
      "~standard": {
        version: 1,
        vendor: "test",
        validate: (value) =>
          value === "slow" ? new Promise(() => {}) : { value },
      },
    }),
  });
  const a = scene.worker("a", { window: 1 });
  const [slow, quick] = [1, 2].map(() => new FakeWay(ItemKind.CALL));
  for (const way of [slow!, quick!]) scene.delivery.addWay(way);
  scene.delivery.offer("slow", slow!, 0);
  for (let n = 1; n <= 9; n++) scene.delivery.offer(n, quick!, n);
  for (let n = 2; n <= 9; n++) {
    scene.result(a);
    assertEquals(a.holds, [n], "whoever's turn it is");
  }
});

Deno.test("Delivery: who cancels an item while it picks has it never sent", () => {
  let item: Item | undefined;
  const strategy: Strategy<Worker> = {
    pick: (workers) => {
      scene.delivery.discard(item!);
      return workers[0]!;
    },
  };
  const scene = new Scene({ strategy });
  let sent = 0;
  scene.worker("a", { refuses: () => (sent++, null) });
  scene.delivery.offer("x", scene.way, 0, (entry) => item = entry);
  assertEquals([item!.state, sent, scene.failures], [SETTLED, 0, []]);
});

Deno.test("Delivery: a suspect that is trusted again keeps an item that waited for its retry", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  scene.send("x");
  scene.suspect(a);
  const b = scene.worker("b");
  assertEquals(b.holds, ["x"]);
  // b's handler fails; a, which nobody trusts, holds its copy.
  assert(scene.delivery.hold(b, b.take()));
  scene.trust(a);
  assertEquals([scene.delivery.waiting, scene.delivery.due], [0, 0]);
  assertEquals(scene.letGo, ["x"]);
});

Deno.test("Delivery: an item of one that was suspect waits for its retry, whatever else waits", () => {
  const scene = new Scene();
  const b = scene.worker("b", { window: 4 });
  scene.send(0, 1, 2, 3);
  const a = scene.worker("a", { window: 1 });
  const [last] = scene.send(4);
  scene.suspect(a);
  scene.suspect(b);
  scene.trust(a);
  assertEquals(a.holds, [4]);
  assert(scene.delivery.hold(a, a.take()));
  scene.delivery.pump();
  assertEquals(a.holds, [0]);
  const c = scene.worker("c", { window: 10 });
  assertEquals(c.holds, [1, 2, 3]);
  scene.delivery.requeue([last!]);
  assertEquals(c.holds, [1, 2, 3, 4]);
});

Deno.test("Delivery: what a failed item held up goes without another event", async () => {
  const ends = [
    ({ delivery }: Scene, item: Item) => delivery.discard(item),
    ({ delivery }: Scene, item: Item) => delivery.fail(item, new Error("no")),
  ];
  for (const end of ends) {
    const scene = new Scene({ strategy: byName });
    const [head] = scene.send("a1", "b1");
    const b = scene.worker("b");
    assertEquals(b.holds, [], "its way is in order");
    end(scene, head!);
    await Promise.resolve();
    assertEquals(b.holds, ["b1"]);
  }
});

// --- Suspicion ---

Deno.test("Delivery gives a suspect's items to others; the first result wins", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 2 });
  scene.send("x", "y");
  scene.suspect(a);
  assertEquals(scene.told, [["a", [0, 1], "suspect"]]);
  const b = scene.worker("b");
  assertEquals(b.holds, ["x", "y"]);
  scene.result(b, "by b");
  assertEquals(a.cancelled, [0]);
  scene.result(a, "by a", 1);
  assertEquals(b.cancelled, [1]);
  assertEquals(scene.way.results, [["x", "by b"], ["y", "by a"]]);
  // The late answers are dropped and counted.
  scene.result(a, "late", 0);
  scene.result(b, "late", 1);
  assertEquals(scene.way.results.length, 2);
  assertEquals(scene.duplicates, [0, 1]);
  assertEquals(scene.delivery.duplicates, 2);
  assertEquals(scene.delivery.settled, 2);
});

Deno.test("Delivery cancels an item at a suspect that holds it, if it can't be sent again", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  scene.send("x");
  scene.suspect(a);
  scene.worker("b", { refuses: () => new Error("it was changed meanwhile") });
  assertEquals(scene.way.failures.map((f) => f.item), ["x"]);
  assertEquals(a.cancelled, [0]);
  assertEquals([scene.delivery.alive, scene.delivery.waiting], [0, 0]);
  assertEquals(scene.way.taken, 1);
});

Deno.test("Delivery: a suspect that is heard keeps what nobody took", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 4, concurrency: 0 });
  scene.send(...range(0, 4));
  scene.suspect(a);
  const b = scene.worker("b", { window: 1 });
  assertEquals(b.holds, [0]);
  assertEquals(scene.delivery.waiting, 3);
  scene.trust(a);
  assertEquals(scene.delivery.waiting, 0);
  scene.result(b);
  assertEquals(b.holds, [], "1 to 3 left the queue");
  for (let i = 1; i < 4; i++) scene.result(a, null, i);
  assertEquals(scene.way.results.length, 4);
});

Deno.test("Delivery never gives an item to a suspect that holds it", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  scene.send("x");
  scene.suspect(a);
  a.isOpen = true; // even so
  scene.delivery.pump();
  assertEquals(a.given.length, 1);
});

Deno.test("Delivery: a copy's loss costs nothing while another is trusted", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  scene.send("x");
  scene.suspect(a);
  const b = scene.worker("b");
  scene.lose(a);
  assertEquals(scene.delivery.waiting, 0);
  assertEquals(b.holds, ["x"]);
  scene.result(b, "X");
  assertEquals(scene.way.results, [["x", "X"]]);
});

Deno.test("Delivery: the loss of the trusted copy puts the item back", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  scene.send("x");
  scene.suspect(a);
  const b = scene.worker("b");
  scene.lose(b);
  assertEquals(scene.delivery.waiting, 1);
  const c = scene.worker("c");
  assertEquals(c.holds, ["x"]);
});

// --- Cancel, fail, retry ---

Deno.test("Delivery.discard() cancels an item where it is, and tells nobody else", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 1 });
  const [x, y] = scene.send("x", "y");
  scene.delivery.discard(y!); // in the queue
  scene.delivery.discard(x!); // at the worker
  scene.delivery.discard(x!);
  assertEquals(a.cancelled, [0]);
  assertEquals([scene.delivery.alive, scene.delivery.waiting], [0, 0]);
  scene.send("z");
  assertEquals(a.holds, ["x"], "its slot is taken until it answers");
  scene.error(a, new Error("cancelled"));
  assertEquals(a.holds, ["z"]);
  assertEquals(scene.duplicates, [], "an error is how it answers");
  assertEquals(scene.way.results, []);
  assertEquals(scene.way.failures, []);
});

Deno.test("Delivery.fail() settles an item with a failure, wherever it is", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 1 });
  const [x, y] = scene.send("x", "y");
  scene.delivery.fail(x!, new Error("too late"));
  scene.delivery.fail(y!, new Error("too late"));
  scene.delivery.fail(y!, new Error("again"));
  assertEquals(scene.way.failures.map((f) => [f.item, f.attempts]), [
    ["x", 1],
    ["y", 0],
  ]);
  assertEquals(a.cancelled, [0]);
  assertEquals(scene.idles, 1);
});

Deno.test("Delivery.hold() keeps an item apart until requeue()", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 2 });
  const [x] = scene.send("x", "y", "z");
  assert(scene.delivery.hold(a, a.take()));
  scene.delivery.pump();
  assertEquals(a.holds, ["y", "z"]);
  assertEquals([scene.delivery.alive, scene.delivery.waiting], [3, 1]);
  assertEquals(scene.delivery.due, 0, "it waits for its time");
  assertEquals(scene.delivery.unfinished().map((e) => e.item), ["x", "y", "z"]);
  scene.delivery.requeue([x!]);
  scene.delivery.requeue([x!]);
  scene.result(a);
  assertEquals(a.holds, ["z", "x"]);
  assertEquals(x!.attempts, 2);
});

Deno.test("Delivery.requeue() of an item that was cancelled does nothing", () => {
  const scene = new Scene();
  const a = scene.worker("a");
  const [x] = scene.send("x");
  scene.delivery.hold(a, a.take());
  scene.delivery.discard(x!);
  scene.delivery.requeue([x!]);
  assertEquals(a.given.length, 1);
  assertEquals([scene.delivery.alive, scene.delivery.waiting], [0, 0]);
});

// --- Ways ---

Deno.test("Delivery.excess counts what is beyond a share, whatever others hold", () => {
  const scene = new Scene();
  const [a] = ["a", "b"].map((name) => scene.worker(name));
  a!.inFlight.count = shareOf(2) + 5;
  assertEquals(scene.delivery.excess, 5);
});

Deno.test("Delivery serves ways in turn", () => {
  const scene = new Scene();
  const other = new FakeWay(ItemKind.CALL), third = new FakeWay(ItemKind.CALL);
  scene.delivery.addWay(other);
  scene.delivery.addWay(third);
  scene.send("a0", "a1", "a2", "a3");
  for (const item of ["b0", "b1"]) scene.delivery.offer(item, other, 0);
  for (const item of ["c0", "c1", "c2"]) scene.delivery.offer(item, third, 0);
  const { given } = scene.worker("w", { window: 100 });
  const order = given.map((e) => e.item as string);
  assertEquals(order.length, 9);
  // Each way in order, and none twice before another that waits is served.
  for (const way of ["a", "b", "c"]) {
    const own = order.filter((item) => item.startsWith(way));
    assertEquals(own, own.toSorted());
  }
  assertEquals(new Set(order.slice(0, 3).map((item) => item[0])).size, 3);
  assertEquals(new Set(order.slice(3, 6).map((item) => item[0])).size, 3);
});

Deno.test("Delivery wakes the way last that has just taken all the room", () => {
  const scene = new Scene();
  const { delivery } = scene;
  const a = scene.worker("a", { window: 4 });
  class Greedy extends FakeWay {
    override pumped(): void {
      while (delivery.hasRoom(this)) delivery.offer(0, this, 0);
    }
  }
  const ways = range(0, 3).map(() => new Greedy(ItemKind.CALL));
  for (const way of ways) delivery.addWay(way);
  for (let batch = 0; batch < 6; batch++) {
    while (a.inFlight.count > 0) delivery.result(a, a.take(), null, 1);
    delivery.pump();
  }
  assertEquals(ways.map(({ taken }) => taken), [8, 8, 8]);
});

Deno.test("Delivery: a way without places never holds up another", () => {
  const scene = new Scene();
  const other = new FakeWay();
  scene.delivery.addWay(other);
  const a = scene.worker("a", { window: 10 });
  scene.way.places = 1;
  scene.send("a0", "a1", "a2");
  for (const item of ["b0", "b1"]) scene.delivery.offer(item, other, 0);
  assertEquals(a.holds, ["a0", "b0", "b1"]);
  assertFalse(scene.delivery.hasRoom(scene.way));
  assert(scene.delivery.hasRoom(other));
  scene.way.places = 3;
  scene.delivery.pump();
  assertEquals(a.holds, ["a0", "b0", "b1", "a1", "a2"]);
});

Deno.test("Delivery gives calls to workers in work() only, and holds up no values", () => {
  const scene = new Scene();
  const calls = new FakeWay(ItemKind.CALL);
  scene.delivery.addWay(calls);
  const reader = scene.worker("reader", { mode: Mode.STREAM, window: 10 });
  scene.delivery.offer("call", calls, 0);
  scene.send("value");
  assertEquals(reader.holds, ["value"]);
  assertFalse(scene.delivery.hasRoom(calls));
  const worker = scene.worker("worker");
  assertEquals(worker.holds, ["call"]);
});

Deno.test("Delivery: a redelivered call holds up no redelivered value", () => {
  const scene = new Scene();
  const calls = new FakeWay(ItemKind.CALL);
  scene.delivery.addWay(calls);
  const a = scene.worker("a", { window: 10, concurrency: 0 });
  scene.delivery.offer("call", calls, 0);
  scene.send("value");
  scene.lose(a);
  const reader = scene.worker("reader", { mode: Mode.STREAM });
  assertEquals(reader.holds, ["value"]);
});

Deno.test("Delivery takes items that are offered while it dispatches", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 100 });
  scene.way.onDispatched.push((entry) => {
    if ((entry.item as number) < 10) scene.send((entry.item as number) + 1);
  });
  scene.send(0);
  assertEquals(a.holds, range(0, 11));
});

Deno.test("Delivery tells ways that they were served", () => {
  const scene = new Scene();
  const { pumps } = scene.way;
  scene.delivery.pump();
  assertEquals(scene.way.pumps, pumps + 1);
  scene.delivery.removeWay(scene.way);
  scene.delivery.pump();
  assertEquals(scene.way.pumps, pumps + 1);
});

Deno.test("Delivery: an item whose strategy throws fails by itself", () => {
  const robin = new RoundRobin<Worker>();
  const scene = new Scene({
    strategy: {
      byItem: true,
      pick(workers, item, hasRoom) {
        // deno-lint-ignore no-throw-literal
        if (item === "bad") throw "a text";
        return robin.pick(workers, item, hasRoom);
      },
    },
  });
  const a = scene.worker("a");
  scene.send("bad", "good");
  assertEquals(a.holds, ["good"]);
  assertEquals(scene.way.failures.map((f) => f.error.message), ["a text"]);
});

Deno.test("Delivery.unfinished() is everything that isn't settled, by id", () => {
  const scene = new Scene();
  const a = scene.worker("a", { window: 2, concurrency: 0 });
  const b = scene.worker("b", { window: 2 });
  scene.send(...range(0, 6));
  scene.delivery.hold(b, b.take());
  scene.lose(a);
  scene.result(b);
  assertEquals(
    scene.delivery.unfinished().map((e) => e.id),
    scene.delivery.unfinished().map((e) => e.id).toSorted((x, y) => x - y),
  );
  assertEquals(scene.delivery.unfinished().length, 5);
  assertEquals(scene.delivery.alive, 5);
});

// --- Everything at once ---

/** Whether a worker could be given an item that waits. */
function isFree(worker: FakeWorker, entry: Item): boolean {
  return worker.isOpen && worker.hasRoom && !worker.isAlone &&
    !entry.isAt(worker) &&
    (entry.way.kind !== ItemKind.CALL || worker.mode === Mode.WORK) &&
    (entry.blames === null ? !worker.isReserved : worker.inFlight.count === 0);
}

/** Random events, until all is settled; what must hold is checked throughout. */
function storm(rng: Rng, crowd = 0): void {
  const scene = new Scene({ maxDeliveries: 100 });
  const { delivery } = scene;
  const calls = new FakeWay(ItemKind.CALL);
  delivery.addWay(calls);
  const workers: FakeWorker[] = [];
  let items = 0, joined = 0;
  const expected = new Set<unknown>();
  const join = (instance = `i${joined}`) => {
    workers.push(
      scene.worker(`w${joined++}`, {
        window: crowd > 0 ? 1 : rng.int(1, 12),
        concurrency: rng.int(1, 4),
        mode: rng.chance(0.7) ? Mode.WORK : Mode.STREAM,
        instance,
      }),
    );
  };
  const gone = (worker: FakeWorker) =>
    workers.splice(workers.indexOf(worker), 1);
  const settle = (worker: FakeWorker) => {
    const held = [...worker.inFlight.entries()];
    if (held.length === 0) return;
    const [number, entry] = rng.pick(held);
    const taken = worker.take(number);
    const what = rng.float();
    if (what < 0.8) delivery.result(worker, taken, entry.id, 1);
    else if (what < 0.9) delivery.done(worker, taken);
    else if (what < 0.95) delivery.error(worker, taken, new Error("no"));
    else if (delivery.hold(worker, taken)) delivery.requeue([taken]);
    delivery.pump(worker);
  };
  while (joined < crowd) join();
  // More than all can take for long: few ever have room.
  for (; items < 5 * crowd; items++) {
    expected.add(items);
    delivery.offer(items, rng.chance(0.5) ? scene.way : calls, 0);
  }
  const STEPS = 2000;
  for (let step = 0; delivery.alive > 0 || step < STEPS; step++) {
    assertLess(step, STEPS * 20, "it never ends");
    const what = rng.float();
    const worker = workers.length > 0 ? rng.pick(workers) : undefined;
    if (step < STEPS && what < 0.3) {
      const way = rng.chance(0.5) ? scene.way : calls;
      const item = items++;
      expected.add(item);
      const entry = delivery.offer(item, way, 0);
      if (rng.chance(0.02)) {
        delivery.discard(entry);
        delivery.pump(null); // or at the end of this turn
        expected.delete(item);
      }
    } else if (worker === undefined) join();
    else if (what < 0.85) settle(worker);
    else if (what < 0.88) join();
    else if (what < 0.9) {
      scene.lose(gone(worker)[0]!);
      if (rng.chance(0.5)) join(worker.instance);
    } else if (what < 0.92) {
      const held = [...worker.inFlight.entries()].map(([number]) => number);
      scene.handBack(worker, ...held.filter(() => rng.chance(0.5)));
      if (rng.chance(0.7)) scene.leave(gone(worker)[0]!);
      else if (!worker.isSuspect) {
        worker.isOpen = true;
        delivery.pump(worker);
      }
    } else if (what < 0.96) {
      if (worker.isSuspect) scene.trust(worker);
      else scene.suspect(worker);
    } else if (rng.chance(0.5)) delivery.pump(null);
    else delivery.pump();
    // What must hold at any time.
    const unfinished = delivery.unfinished();
    assertEquals(unfinished.length, delivery.alive);
    assertEquals(
      unfinished.filter((e) => e.state === WAITING).length,
      delivery.waiting,
    );
    const waiting = unfinished.filter((e) => e.state === WAITING);
    for (const entry of waiting) {
      const free = workers.find((worker) => isFree(worker, entry));
      assert(!free, `${free?.name} could take item ${entry.id}`);
    }
    if (workers.some((worker) => worker.isReserved)) {
      assert(waiting.some((e) => e.blames !== null), "for a blamed item");
    }
    for (const worker of workers) {
      assertLessOrEqual(worker.inFlight.count, worker.window);
      if (worker.isAlone) assertEquals(worker.inFlight.count, 1);
      for (const [number, entry] of worker.inFlight.entries()) {
        assert(entry.isAt(worker), `${worker.name} holds delivery ${number}`);
      }
    }
  }
  // Every item has had exactly one outcome.
  const outcomes = [scene.way, calls].flatMap((way) => [
    ...way.results.map(([item]) => item),
    ...way.dones,
    ...way.failures.map((f) => f.item),
  ]);
  assertEquals(new Set(outcomes).size, outcomes.length);
  for (const item of expected) assert(outcomes.includes(item), `item ${item}`);
  assertEquals(outcomes.length, expected.size);
}

Deno.test("Delivery: nothing is lost or doubled, whatever happens to workers", () => {
  const rng = seeded("storm");
  for (let round = 0; round < 20; round++) storm(rng);
  for (let round = 0; round < 5; round++) storm(rng, 100);
});

Deno.test("Delivery cancels a copy by its own number, if its item is cancelled while it is written", () => {
  const scene = new Scene();
  const other = scene.worker("other");
  scene.send("before");
  scene.result(other); // delivery 0
  const silent = scene.worker("silent");
  const [item] = scene.send("item");
  assertEquals(silent.holds, ["item"]);
  other.whileWritten = (entry) => scene.delivery.discard(entry);
  scene.suspect(silent);
  assertEquals(item!.state, SETTLED);
  assertEquals([silent.cancelled, other.cancelled], [[0], [1]]);
});

Deno.test("ChannelWay.send() waits for a place, however much room a worker has", () => {
  const scene = new Scene();
  const { delivery } = scene;
  const worker = scene.worker("a", { window: Infinity });
  const outlet = new Outlet<unknown, unknown>({
    onRead: () => {},
    onCancel: () => {},
  }, { name: "results", burst: 1 });
  const way = new ChannelWay({
    delivery,
    maxQueued: Infinity,
    onChannelFailure: () => {},
    onBroken: () => {},
  }, { outlet, maxBufferedBytes: Infinity, isMute: () => false });
  delivery.addWay(way);
  delivery.places = 2;
  assertEquals(way.send("one"), undefined);
  assertInstanceOf(way.send("two"), Promise);
  assertEquals(worker.given.length, 2, "both were taken, and have all places");
  assert(worker.hasMore, "it isn't the worker that is full");
});

Deno.test("SubmitWay.submit() looks through a long queue rarely, also past maxQueued", async () => {
  const { delivery } = new Scene();
  const maxQueued = 200;
  const way = new SubmitWay({
    delivery,
    maxQueued,
    onChannelFailure: () => {},
    onBroken: () => {},
  });
  delivery.addWay(way);
  const { queue } = way;
  let looks = 0;
  const iterate = queue[Symbol.iterator].bind(queue);
  queue[Symbol.iterator] = function* () {
    for (const entry of iterate()) {
      looks++;
      yield entry;
    }
  };
  const submit = (n: number) => {
    const controller = new AbortController(), { signal } = controller;
    const result = way.submit(n, { signal });
    return { controller, result: result.catch((error) => error) };
  };
  const waiting = range(0, maxQueued).map(submit);
  for (const n of range(0, 5 * maxQueued)) {
    const late = submit(n); // there is no room for it, before one gives up
    assertInstanceOf(await late.result, RangeError);
    const at = n * 7 % maxQueued;
    waiting[at]!.controller.abort();
    waiting[at] = submit(n);
  }
  assertLessOrEqual(looks, 2 * 5 * maxQueued, "twice for each that gave up");
  assertLessOrEqual(queue.length, 2 * maxQueued + 1);
  assertEquals(delivery.alive, maxQueued);
});

Deno.test("Delivery.isContended() looks at few ways, however many have nothing that waits", () => {
  const { delivery } = new Scene();
  let looks = 0;
  const ways = range(0, 200).map(() => {
    const way = new FakeWay(ItemKind.CALL), { queue } = way;
    Object.defineProperty(way, "queue", { get: () => (looks++, queue) });
    delivery.addWay(way);
    return way;
  });
  assertFalse(delivery.isContended(ways[0]!), "nothing waits");
  const busy = ways.slice(100);
  for (const way of busy) delivery.offer("item", way, 0);
  looks = 0;
  for (const way of busy) assert(delivery.isContended(way));
  assertLess(looks, 3 * ways.length);
  const [first, ...others] = busy;
  for (const way of others) {
    delivery.discard(way.queue.shift()!);
    delivery.removeWay(way);
  }
  assertFalse(delivery.isContended(first!), "the only one with items");
  assert(delivery.isContended(ways[0]!));
});

Deno.test("ChannelWay.send() goes on when another way's item begins to wait", async () => {
  const scene = new Scene();
  const { delivery } = scene;
  const worker = scene.worker("a", { window: 1 });
  const way = new ChannelWay({
    delivery,
    maxQueued: Infinity,
    onChannelFailure: () => {},
    onBroken: () => {},
  }, { outlet: null, maxBufferedBytes: Infinity, isMute: () => false });
  delivery.addWay(way);
  const calls = new FakeWay(ItemKind.CALL);
  delivery.addWay(calls);
  const room = way.send("value");
  assertInstanceOf(room, Promise);
  delivery.offer("call", calls, 0);
  await room;
  way.send("next");
  scene.result(worker);
  scene.result(worker);
  assertEquals(worker.given.map(({ item }) => item).toSorted(), [
    "call",
    "next",
    "value",
  ]);
});

Deno.test("Delivery asks no worker again for what queues up behind others", () => {
  let picks = 0;
  const strategy = new RoundRobin<Worker>();
  const scene = new Scene({
    strategy: {
      pick: (...args) => {
        picks++;
        return strategy.pick(...args);
      },
      refresh: () => strategy.refresh(),
    },
  });
  const worker = scene.worker("a", { window: 1 });
  const ways = Array.from({ length: 10 }, () => new FakeWay());
  for (const way of ways) scene.delivery.addWay(way);
  scene.send("first");
  picks = 0;
  for (const n of range(0, 20)) {
    for (const way of ways) scene.delivery.offer(n, way, n);
  }
  assertEquals(picks, 10, "once for each that is the first of its way");
  for (const _ of range(0, 201)) scene.result(worker);
  assertEquals(worker.given.length, 201);
  for (const way of ways) {
    assertEquals(way.results.map(([n]) => n), range(0, 20));
  }
});
