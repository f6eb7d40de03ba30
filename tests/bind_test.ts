import { assertEquals } from "@std/assert";
import { isLoopback, reachable } from "../internal/bind.ts";

Deno.test("isLoopback() knows this machine's own addresses, and no others", () => {
  for (
    const hostname of [
      "localhost",
      "LOCALHOST",
      "127.0.0.1",
      "127.255.0.9",
      "::1",
      "[::1]",
      "::ffff:127.0.0.1",
      "::FFFF:127.0.0.1",
      new URL("http://[::ffff:127.0.0.1]").hostname,
    ]
  ) assertEquals(isLoopback(hostname), true, hostname);
  for (
    const hostname of [
      "",
      "0.0.0.0",
      "::",
      "::ffff:0.0.0.0",
      "::ffff:10.127.0.0",
      new URL("http://[::ffff:10.127.0.0]").hostname,
      "10.0.0.1",
      "127.0.0.1.example.com",
      "localhost.example.com",
      "1127.0.0.1",
    ]
  ) assertEquals(isLoopback(hostname), false, hostname);
});

Deno.test("reachable() is loopback for a server that listens everywhere", () => {
  assertEquals(reachable("0.0.0.0"), "127.0.0.1");
  assertEquals(reachable("::"), "::1");
  assertEquals(reachable("192.0.2.1"), "192.0.2.1");
});
