import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { timerMs } from "../internal/timer.ts";
import { DrainTimeoutError } from "../mod.ts";
import { both, Kit } from "./_support/channel_kit.ts";
import { Gate, moment, stateOf, until } from "./_support/within.ts";

/** More than a timer can wait: it would fire at once. */
const LONG_MS = 2 ** 31;

Deno.test("timerMs() keeps to what a timer can wait", () => {
  assertEquals(timerMs(5), 5);
  assertEquals(timerMs(2 ** 31 - 1), 2 ** 31 - 1);
  assertEquals(timerMs(LONG_MS), 2 ** 31 - 1);
  assertEquals(timerMs(Infinity), 2 ** 31 - 1);
});

both("submit() with a timeoutMs past 2^31 waits", async (net) => {
  await using kit = new Kit<number, number>(net);
  const gate = new Gate();
  await kit.worker(async (n) => {
    await gate.pass();
    return n;
  });
  const result = kit.server.submit(1, { timeoutMs: LONG_MS });
  await until(() => gate.passing === 1, "the handler runs");
  await moment(20);
  gate.open();
  assertEquals(await result, 1);
});

both("close() with a drainMs past 2^31 waits", async (net) => {
  await using kit = new Kit<number, number>(net);
  const gate = new Gate();
  await kit.worker(async (n) => {
    await gate.pass();
    return n;
  });
  const result = kit.server.submit(1);
  await until(() => gate.passing === 1, "the handler runs");
  const closed = kit.server.close({ drainMs: LONG_MS });
  await moment(20);
  assertEquals(await stateOf(closed), "pending");
  gate.open();
  await closed;
  assertEquals(await result, 1);
});

both("retry waits though backoffMs has doubled past 2^31", async (net) => {
  await using kit = new Kit<number, number>(net, {
    retry: { attempts: 100, backoffMs: LONG_MS },
  });
  let calls = 0;
  await kit.worker(() => {
    calls++;
    throw new Error("no");
  });
  const result = kit.server.submit(1).catch((error) => error);
  await kit.event("retry");
  await moment(20);
  assertEquals(calls, 1);
  await assertRejects(
    () => kit.server.close({ drainMs: 1 }),
    DrainTimeoutError,
  );
  assertInstanceOf(await result, DrainTimeoutError);
});
