import { assertEquals, assertStrictEquals } from "@std/assert";
import { Deaths } from "../internal/deaths.ts";
import { Entry, SETTLED, type Way } from "../internal/in_flight.ts";

const blame = (instance: string) => ({
  worker: instance,
  at: 1,
  reason: "reset",
  instance,
});

Deno.test("Deaths.tidy() forgets what is settled, and nothing else", () => {
  const deaths = new Deaths();
  const [done, waiting, other] = [0, 1, 2].map((id) =>
    new Entry<unknown>(id, null, {} as Way<unknown>, 0)
  ) as [Entry<unknown>, Entry<unknown>, Entry<unknown>];
  deaths.blame([done, waiting], blame("a"));
  deaths.blame([other], blame("b"));
  done.state = other.state = SETTLED;
  deaths.tidy();
  assertEquals(deaths.of("a"), [waiting]);
  assertEquals(deaths.of("b"), []);
  deaths.takeBack("a");
  assertEquals(waiting.blames, null);
});

Deno.test("Deaths.blame() looks at no other's items: thousands may die at once", () => {
  const deaths = new Deaths();
  const entry = new Entry<unknown>(0, null, {} as Way<unknown>, 0);
  let looks = 0;
  Object.defineProperty(entry, "state", { get: () => looks++ });
  for (const instance of ["a", "b", "c"]) {
    deaths.blame([entry], blame(instance));
  }
  assertEquals(looks, 0);
  deaths.takeBack("b");
  assertEquals(entry.blames?.map(({ instance }) => instance), ["a", "c"]);
});

Deno.test("Deaths.blame() copies nothing: a process may lose thousands of connections", () => {
  const deaths = new Deaths();
  const [first, second] = [0, 1].map((id) =>
    new Entry<unknown>(id, null, {} as Way<unknown>, 0)
  ) as [Entry<unknown>, Entry<unknown>];
  const entries = [first];
  deaths.blame(entries, blame("a"));
  const remembered = deaths.of("a");
  deaths.blame([second], blame("a"));
  assertStrictEquals(deaths.of("a"), remembered);
  assertEquals(remembered, [first, second]);
  assertEquals(entries, [first], "the caller's own");
});

Deno.test("Deaths remembers the last 1,024 processes that died, and no more", () => {
  const deaths = new Deaths();
  const entry = new Entry<unknown>(0, null, {} as Way<unknown>, 0);
  for (let i = 0; i < 1024; i++) deaths.blame([entry], blame(`${i}`));
  deaths.blame([entry], blame("0")); // the oldest no longer
  deaths.blame([entry], blame("another"));
  assertEquals(deaths.of("0"), [entry, entry]);
  assertEquals(deaths.of("1"), []);
  assertEquals(deaths.of("2"), [entry]);
  deaths.takeBack("1");
  assertEquals(entry.blames?.length, 1026, "what is forgotten stays");
});
