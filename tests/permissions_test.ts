import { assertEquals, assertStringIncludes } from "@std/assert";
import { Authority } from "./_support/certificates.ts";
import { startDeno } from "./_support/process.ts";

// The examples, each with the permissions of its own command, are in
// examples_test.ts.

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

Deno.test("permissions: --allow-net=HOST:PORT is enough for all there is, at both ends", async () => {
  const port = freePort();
  const authority = await Authority.create("distchan test authority");
  const net = `--allow-net=127.0.0.1:${port}`;
  const start = (script: string, settings: unknown) =>
    startDeno([net, `tests/testdata/${script}`], {
      stdin: JSON.stringify(settings),
    });
  await using server = start("permissions_server.ts", {
    port,
    ...await authority.issue(),
  });
  await server.stdout.line(/^ready$/);
  await using worker = start("permissions_worker.ts", {
    port,
    caCerts: [authority.cert],
  });
  const [served, worked] = await Promise.all([server.exit, worker.exit]);
  assertEquals(served.stderr, "");
  assertEquals(worked.stderr, "");
  assertEquals(served.stdout, "ready\n[ 1, 4, 9 ]\n");
  assertEquals(worked.stdout, "done\n");
});

Deno.test("permissions: importing the library asks for none", async () => {
  await using process = startDeno(["mod.ts"]);
  assertEquals(await process.exit, {
    code: 0,
    signal: null,
    stdout: "",
    stderr: "",
  });
});

Deno.test("permissions: another port isn't allowed", async () => {
  const port = freePort();
  await using process = startDeno([
    `--allow-net=127.0.0.1:${port === 65535 ? 1024 : port + 1}`,
    "tests/testdata/permissions_worker.ts",
  ], { stdin: JSON.stringify({ port }) });
  const { code, stderr } = await process.exit;
  assertEquals(code, 1);
  assertStringIncludes(stderr, "NotCapable");
});
