import { assertEquals } from "@std/assert";
import { Readiness } from "../internal/readiness.ts";
import { Gate, stateOf, within } from "./_support/within.ts";

Deno.test("Readiness leaves no listener at a signal", async () => {
  const { signal } = new AbortController();
  const listeners = new Set<unknown>();
  Object.assign(signal, {
    addEventListener: (_type: string, listener: unknown) =>
      listeners.add(listener),
    removeEventListener: (_type: string, listener: unknown) =>
      listeners.delete(listener),
  });
  let isThere = false;
  const readiness = new Readiness({
    hasWorkers: () => isThere,
    haveAsked: () => true,
  });
  const ready = readiness.wait(1, signal);
  assertEquals(listeners.size, 1);
  isThere = true;
  readiness.check();
  await ready;
  assertEquals(listeners.size, 0);
});

Deno.test("Readiness: who comes in place of one that left has its own time to ask", async () => {
  const late = new Gate();
  let isThere = true;
  const readiness = new Readiness({
    hasWorkers() {
      if (!isThere) late.open();
      return isThere;
    },
    haveAsked: () => false,
  });
  const ready = readiness.wait(1, undefined);
  isThere = false;
  await within(late.pass(), 5000, "the first one's time is over");
  isThere = true;
  readiness.check();
  assertEquals(await stateOf(ready), "pending");
  await within(ready, 5000, "it counts all the same");
});
