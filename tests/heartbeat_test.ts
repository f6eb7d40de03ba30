import {
  assert,
  assertEquals,
  assertFalse,
  assertLessOrEqual,
} from "@std/assert";
import { Heartbeat, tickMs, type Verdict } from "../internal/heartbeat.ts";
import { resolveHeartbeat } from "../internal/options.ts";
import { Watchdog } from "../internal/watchdog.ts";
import { moment } from "./_support/within.ts";

const OPTIONS = { intervalMs: 10, timeoutMs: 30, dropMs: 120 };

/** What happens to a peer that was heard at 0 and never again. */
function silence(
  heartbeat: Heartbeat,
  until: number,
  { from = 0, step = 1 } = {},
): [now: number, verdict: Verdict][] {
  const told: [number, Verdict][] = [];
  for (let now = from; now <= until; now += step) {
    const verdict = heartbeat.judge(0, now);
    if (verdict === "suspect") heartbeat.suspect = true;
    if (verdict === "ping" || verdict === "suspect") heartbeat.ping(now);
    if (verdict !== "fine") told.push([now, verdict]);
    if (verdict === "drop") break;
  }
  return told;
}

Deno.test("Heartbeat pings, suspects and drops a silent peer", () => {
  const told = silence(new Heartbeat(OPTIONS, 1), 1000);
  assertEquals(told[0], [10, "ping"]);
  assertEquals(told[1], [20, "ping"]);
  assertEquals(told[2], [30, "suspect"]);
  assertEquals(told.at(-1), [120, "drop"]);
  for (const [, verdict] of told.slice(3, -1)) assertEquals(verdict, "ping");
});

Deno.test("Heartbeat asks nobody who is heard", () => {
  const heartbeat = new Heartbeat(OPTIONS, 1);
  for (let now = 0; now < 1000; now += 5) {
    assertEquals(heartbeat.judge(now - 4, now), "fine");
  }
});

Deno.test("Heartbeat pings a peer who is heard, and was told nothing for long", () => {
  const heartbeat = new Heartbeat(OPTIONS, 1);
  assertEquals(heartbeat.judge(8, 9, 0), "fine");
  assertEquals(heartbeat.judge(9, 10, 0), "ping");
  heartbeat.ping(10);
  assertEquals(heartbeat.judge(19, 19, 0), "fine", "the ping waits to be sent");
  assertEquals(heartbeat.judge(20, 20, 0), "ping");
  heartbeat.ping(20);
  assertEquals(heartbeat.judge(30, 30, 21), "fine");
});

Deno.test("Heartbeat forgets silence when the peer is heard", () => {
  const heartbeat = new Heartbeat(OPTIONS, 1);
  silence(heartbeat, 29);
  assertEquals(heartbeat.judge(28, 31), "fine");
  assertEquals(heartbeat.judge(28, 38), "ping");
});

Deno.test("Heartbeat asks first after a pause of its own loop", () => {
  const heartbeat = new Heartbeat(OPTIONS, 1);
  // Nothing was judged for a long time: was it the peer, or was it us?
  assertEquals(heartbeat.judge(0, 5000), "ping");
  heartbeat.ping(5000);
  assertEquals(heartbeat.judge(0, 5001), "fine");
  assertEquals(heartbeat.judge(0, 5020), "suspect");
  heartbeat.suspect = true;
  assertEquals(heartbeat.judge(0, 5109), "ping");
  assertEquals(heartbeat.judge(0, 5110), "drop");
  assertEquals(heartbeat.judge(5111, 5112), "fine", "it was heard after all");
  heartbeat.suspect = false;
  assertEquals(heartbeat.judge(5111, 9000), "ping", "after the next pause too");
});

Deno.test("Heartbeat tells a suspect once, and drops it by its silence", () => {
  const heartbeat = new Heartbeat(OPTIONS, 1);
  const told = silence(heartbeat, 1000);
  assertEquals(told.filter(([, verdict]) => verdict === "suspect").length, 1);
});

Deno.test("Heartbeat spreads its pings, never beyond the interval", () => {
  const first = (random: number) =>
    silence(new Heartbeat(OPTIONS, random), 1000)[0]!;
  assertEquals(first(0), [8, "ping"]);
  assertEquals(first(0.5), [9, "ping"]);
  assertEquals(first(1), [10, "ping"]);
});

Deno.test("Heartbeat.pong() measures the answer to the last ping alone", () => {
  const heartbeat = new Heartbeat(OPTIONS, 1);
  assertFalse(heartbeat.isAsking);
  const first = heartbeat.ping(100);
  assertEquals(heartbeat.pong(first, 103), 3);
  const second = heartbeat.ping(200);
  assert(first !== second);
  assertEquals(heartbeat.pong(first, 201), undefined);
  assertEquals(heartbeat.pong(999, 201), undefined);
  assert(heartbeat.isAsking);
  assertEquals(heartbeat.pong(second, 207), 7);
  assertFalse(heartbeat.isAsking);
});

Deno.test("tickMs() is a fraction of the shortest time that counts", () => {
  assertEquals(tickMs(5000, 10_000), 250);
  assertEquals(tickMs(100, undefined, 10_000), 25);
  assertEquals(tickMs(1), 5);
  assertEquals(tickMs(undefined), 250);
  for (const ms of [20, 50, 400, 100_000]) assertLessOrEqual(tickMs(ms), ms);
});

Deno.test("resolveHeartbeat() has defaults that fit what is given", () => {
  assertEquals(resolveHeartbeat(), {
    intervalMs: 10_000,
    timeoutMs: 30_000,
    dropMs: 120_000,
  });
  assertEquals(resolveHeartbeat({ timeoutMs: 300 }), {
    intervalMs: 100,
    timeoutMs: 300,
    dropMs: 1200,
  });
  assertEquals(resolveHeartbeat({ intervalMs: 20_000 }), {
    intervalMs: 20_000,
    timeoutMs: 60_000,
    dropMs: 240_000,
  });
  assertEquals(resolveHeartbeat({ dropMs: 40_000 }).timeoutMs, 30_000);
});

Deno.test("Heartbeat judges nobody while its own end doesn't listen, and says something", () => {
  const heartbeat = new Heartbeat(OPTIONS, 1);
  silence(heartbeat, 19);
  assertEquals(heartbeat.judge(null, 1000), "ping");
  heartbeat.ping(1000);
  assertEquals(heartbeat.judge(null, 1009), "fine");
  assertEquals(heartbeat.judge(null, 1010), "ping");
  heartbeat.ping(1010);
  for (let now = 1020; now <= 2000; now += 10) { // far past dropMs
    assertEquals(heartbeat.judge(null, now), "ping");
    heartbeat.ping(now);
  }
  // It listens again: silence counts from here.
  assertEquals(heartbeat.judge(2001, 2002), "fine");
  assertEquals(heartbeat.judge(2001, 2011), "ping");
  heartbeat.ping(2011);
  assertEquals(heartbeat.judge(2001, 2021), "ping");
  heartbeat.ping(2021);
  assertEquals(heartbeat.judge(2001, 2031), "suspect");
});

Deno.test("Heartbeat drops who doesn't read, or finish a frame, as late as who is silent", () => {
  const heartbeat = new Heartbeat(OPTIONS, 1);
  const after = (ms: number, now = 1000) =>
    heartbeat.judgePeer({
      heardAt: 1000,
      isDeaf: false,
      saidAt: 1000,
      stall: () => ({ what: "nothing that was sent was read", ms }),
    }, now);
  assertEquals(after(119).verdict, "fine");
  assertEquals(after(120), {
    verdict: "drop",
    reason: "nothing that was sent was read for 120 ms",
  });
  heartbeat.judge(1000, 1000);
  heartbeat.ping(1000);
  assertEquals(after(0, 1120), {
    verdict: "drop",
    reason: "nothing was heard for 120 ms",
  });
});

Deno.test("Watchdog.stop() after a pause, before the look that is due then", async () => {
  let looks = 0;
  const watchdog = new Watchdog(5, {
    excuse: () => looks++,
    check: () => looks++,
  });
  watchdog.start();
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(() => { // due right behind the tick, and before what that sets
    watchdog.stop();
    resolve();
  }, 6);
  const until = performance.now() + 200;
  while (performance.now() < until);
  await promise;
  await moment(20);
  assertEquals(looks, 0);
});
