import { assert, assertEquals, assertFalse } from "@std/assert";
import { Reservation } from "../internal/reservation.ts";

/** A worker that holds items, the oldest first. */
class Holder {
  readonly name: string;
  isReserved = false;
  items: string[];

  constructor(name: string, ...items: string[]) {
    this.name = name;
    this.items = items;
  }

  get inFlight() {
    const { items } = this;
    return {
      count: items.length,
      oldest: (count: number) => items.slice(0, count),
    };
  }
}

const all = () => true;

Deno.test("Reservation chooses the one that holds the fewest, of those that may be", () => {
  const a = new Holder("a", "1", "2"), b = new Holder("b", "3");
  const c = new Holder("c");
  const reservation = new Reservation<Holder>();
  assertEquals(reservation.worker, null);
  reservation.choose([a, b, c], all);
  assertEquals(reservation.worker, c);
  reservation.choose([a, b, c], (worker) => worker !== c);
  assertEquals(reservation.worker, b);
  assertEquals([a, b, c].map((w) => w.isReserved), [false, true, false]);
  reservation.choose([a, b, c], () => false);
  assertEquals(reservation.worker, null);
});

Deno.test("Reservation gives up who settles nothing for 5 s, at the next round for 10 s", () => {
  const a = new Holder("a", "1"), b = new Holder("b", "2", "3");
  const reservation = new Reservation<Holder>();
  assertFalse(reservation.look(0), "nobody is reserved");
  reservation.choose([a, b], all);
  assertFalse(reservation.look(1000));
  assertFalse(reservation.look(5999));
  assert(reservation.look(6000));
  assertEquals(reservation.worker, null);
  reservation.choose([a, b], all);
  assertEquals(reservation.worker, b, "not the same again");
  assertFalse(reservation.look(6000));
  assertFalse(reservation.look(10_999));
  assert(reservation.look(11_000));
  reservation.choose([a, b], all);
  assertEquals(reservation.worker, a, "though it was given up before");
  assertFalse(reservation.look(11_000));
  assertFalse(reservation.look(20_999));
  assert(reservation.look(21_000));
  reservation.choose([a, b], all);
  assertEquals(reservation.worker, b);
});

Deno.test("Reservation comes to who is busy, past all who hang", () => {
  const hung = ["1", "2", "3"].map((item) => new Holder(item, item));
  const busy = new Holder("busy", "4", "5", "6", "7");
  const reservation = new Reservation<Holder>();
  let now = 0;
  while (reservation.worker !== busy) {
    reservation.choose([...hung, busy], all);
    if (reservation.look(now += 1000)) continue;
    assert(now < 60_000);
  }
});

Deno.test("Reservation waits for who goes on to settle, however long it takes", () => {
  const a = new Holder("a", "1", "2", "3");
  const reservation = new Reservation<Holder>();
  reservation.choose([a], all);
  for (let now = 0; a.items.length > 0; now += 4000) {
    assertFalse(reservation.look(now));
    a.items.shift();
  }
  assertEquals(reservation.worker, a);
});

Deno.test("Reservation takes the only one there is, again and again", () => {
  const a = new Holder("a", "1");
  const reservation = new Reservation<Holder>();
  reservation.choose([a], all);
  reservation.look(0);
  assert(reservation.look(5000));
  reservation.choose([a], all);
  assertEquals(reservation.worker, a);
});

Deno.test("Reservation.release() forgets who was given up, and its patience", () => {
  const a = new Holder("a", "1"), b = new Holder("b", "2", "3");
  const reservation = new Reservation<Holder>();
  reservation.choose([a, b], all);
  reservation.look(0);
  assert(reservation.look(5000));
  reservation.choose([a, b], all);
  reservation.look(5000);
  assert(reservation.look(10_000), "both are given up");
  reservation.choose([a, b], all);
  assertEquals(reservation.worker, a, "which would now have 10 s");
  reservation.look(10_000);
  reservation.release();
  reservation.choose([a, b], all);
  assertEquals(reservation.worker, a);
  assertFalse(reservation.look(15_000), "its time begins again");
  assertFalse(reservation.look(19_999));
  assert(reservation.look(20_000));
});
