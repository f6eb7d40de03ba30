import { assertEquals } from "@std/assert";
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
