import { assertEquals } from "@std/assert";
import { ConnectionLostError, HandshakeError } from "../internal/errors.ts";
import { Reconnection } from "../internal/reconnection.ts";
import { within } from "./_support/within.ts";

const lost = new ConnectionLostError("reset", "connection reset");
const rim = { random: () => 1, now: 0 };
const options = { minDelayMs: 100, maxDelayMs: 1000 };

Deno.test("Reconnection.next() grows while each connection is lost at once", () => {
  const reconnection = new Reconnection(options, rim);
  const delays = Array.from({ length: 6 }, (_, i) => {
    const now = i * 10_000;
    reconnection.opened(now);
    reconnection.lost(now + 1);
    return reconnection.next(lost, now + 1);
  });
  assertEquals(delays, [100, 200, 400, 800, 1000, 1000]);
  assertEquals(reconnection.attempts, 6);
});

Deno.test("Reconnection.next() begins again after a connection that lasted", () => {
  const reconnection = new Reconnection(options, rim);
  for (let i = 0; i < 3; i++) reconnection.next(lost, 0);
  reconnection.opened(0);
  reconnection.lost(800);
  assertEquals(reconnection.attempts, 0);
  assertEquals(reconnection.next(lost, 800), 100);
});

Deno.test("Reconnection.next() gives up after maxAttempts without a handshake", () => {
  const reconnection = new Reconnection({ ...options, maxAttempts: 2 }, rim);
  assertEquals(reconnection.next(lost, 0), 100);
  reconnection.opened(0);
  reconnection.lost(1);
  assertEquals(reconnection.next(lost, 1), 200, "a loss is no failed attempt");
  assertEquals(reconnection.next(lost, 2), 400);
  assertEquals(reconnection.next(lost, 3), null);
});

Deno.test("Reconnection.next() gives up after maxElapsedMs without a connection", () => {
  const options = { minDelayMs: 100, maxElapsedMs: 1000 };
  const reconnection = new Reconnection(options, { random: () => 1, now: 50 });
  assertEquals(reconnection.next(lost, 950), 100);
  assertEquals(reconnection.next(lost, 951), null);
  reconnection.opened(2000);
  reconnection.lost(60_000); // from here on
  assertEquals(reconnection.next(lost, 60_900), 100);
  assertEquals(reconnection.next(lost, 60_901), null);
});

Deno.test("Reconnection.next() gives up at once where nothing can heal", () => {
  const errors = [
    new HandshakeError("signature", "another"),
    new ConnectionLostError("transforms", "broken"),
    new TypeError("no such thing"),
    new URIError("invalid host"),
  ];
  for (const error of errors) {
    assertEquals(new Reconnection(options, rim).next(error, 0), null);
  }
  assertEquals(new Reconnection(false, rim).next(lost, 0), null);
});

Deno.test("Reconnection.next() believes a refused secret the second time", () => {
  const reconnection = new Reconnection(options, rim);
  const refused = new HandshakeError("auth", "wrong secret");
  const full = new HandshakeError("full", "come again later");
  assertEquals(reconnection.next(full, 0), 100);
  assertEquals(reconnection.next(refused, 0), 200);
  assertEquals(reconnection.next(refused, 0), null);
  reconnection.opened(0);
  assertEquals(reconnection.next(refused, 0), 400);
});

Deno.test("Reconnection.wait() ends at once if nobody wants it any more", async () => {
  const reconnection = new Reconnection(undefined, rim);
  const over = new AbortController();
  const waits = [
    reconnection.wait(60_000, AbortSignal.abort()),
    reconnection.wait(60_000, over.signal),
  ];
  over.abort();
  await within(Promise.all(waits), 5000, "both have ended");
});

Deno.test("Reconnection.wait() waits for its time", async () => {
  const reconnection = new Reconnection(undefined, rim);
  const { signal } = new AbortController();
  const ended: number[] = [];
  const waits = [30, 0].map((ms) =>
    reconnection.wait(ms, signal).then(() => ended.push(ms))
  );
  await within(Promise.all(waits), 5000, "both have ended");
  assertEquals(ended, [0, 30]);
});

Deno.test("Reconnection.next() gives up at once where a permission is missing", () => {
  const reconnection = new Reconnection(options, rim);
  const error = new Deno.errors.NotCapable("Requires net access");
  assertEquals(reconnection.next(error, 0), null);
});

Deno.test("Reconnection.next() tries again after a TypeError that is the system's", () => {
  const reconnection = new Reconnection(options, rim);
  const error = new TypeError("Invalid argument (os error 22)");
  assertEquals(
    reconnection.next(Object.assign(error, { code: "EINVAL" }), 0),
    100,
  );
});
