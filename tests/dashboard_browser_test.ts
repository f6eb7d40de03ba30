/**
 * The live page in a real browser: figures that move, a worker that is killed,
 * texts that would like to be HTML, and nothing that the browser complains of.
 * With `DISTCHAN_SCREENSHOTS` set, its pictures go to docs/.
 */
import { assert, assertEquals } from "@std/assert";
import { listen, type Server } from "../mod.ts";
import { Browser, chromium } from "./_support/browser.ts";
import { type Process, ROOT, startDeno } from "./_support/process.ts";
import { still, until, within } from "./_support/within.ts";

// With a line separator, which JSON has as it is, and "." in a pattern isn't.
const HOSTILE =
  '<img src=x onerror="globalThis.pwned = 1"><script>\u2028pwned=1';
const MOD = new URL("../mod.ts", import.meta.url).href;
const WORKER = `
  const { work } = await import(${JSON.stringify(MOD)});
  const [port, name, ms] = Deno.args;
  await work({ port: Number(port), name, secret: "s3cret", signature: "thumbnails" }, async (n) => {
    await new Promise((done) => setTimeout(done, Number(ms) * (1 + Math.sin(n / 300) / 2)));
    if (n % 997 === 500) throw new RangeError("cannot resize picture " + n + ": ${
  HOSTILE.replaceAll('"', '\\"').replaceAll("</", "<\\/")
}");
    return n;
  }, { concurrency: 4 });
`;

function startWorker(port: number, name: string, ms: number): Process {
  const code = "data:text/javascript," + encodeURIComponent(WORKER);
  return startDeno(["-A", "--no-check", code, String(port), name, `${ms}`], {
    deadlineMs: 110_000,
  });
}

async function feed(server: Server<number, number>): Promise<void> {
  for (let n = 0;; n++) {
    try {
      await server.send(n);
    } catch {
      return; // aborted: the test is over
    }
  }
}

Deno.test({
  name: "The live page, while a worker is killed (needs Chromium)",
  ignore: chromium === undefined,
  fn: () => within(look(), 110_000, "the page"),
});

async function look(): Promise<void> {
  const screenshots = Deno.env.has("DISTCHAN_SCREENSHOTS");
  const server = listen<number, number>({
    port: 0,
    secret: "s3cret",
    signature: "thumbnails",
    results: "discard",
    dashboard: { port: 0, hostname: "0.0.0.0" },
    onFailure: () => {},
  });
  const { port } = server.addr as Deno.NetAddr;
  const url = `http://127.0.0.1:${server.dashboardAddr!.port}/`;
  await using stack = new AsyncDisposableStack();
  stack.defer(() => server.abort());
  const [first, ...others] = [
    startWorker(port, "berlin-1", 4),
    startWorker(port, "berlin-2", 4),
    startWorker(port, HOSTILE, 9),
  ] as const;
  for (const worker of [first, ...others]) stack.use(worker);
  const browser = stack.use(await Browser.start());

  // Without the secret there are no figures.
  await browser.go(url);
  await browser.sees("document.activeElement.id === 'token'");
  assertEquals(await browser.evaluate("live.hidden"), true);
  const enter = async (secret: string) => {
    await browser.evaluate(`document.getElementById("token").value = "";
      document.getElementById("token").focus()`);
    await browser.call("Input.insertText", { text: secret });
    for (const type of ["keyDown", "keyUp"]) {
      await browser.call("Input.dispatchKeyEvent", {
        type,
        key: "Enter",
        text: type === "keyDown" ? "\r" : "",
        windowsVirtualKeyCode: 13,
      });
    }
  };
  await enter("wrong");
  await browser.sees(
    `document.getElementById("login-error").textContent !== ""`,
  );
  await enter("s3cret");
  await browser.sees("!live.hidden");
  // The two refusals are in the log, and nothing else may be.
  const refused = browser.complaints.splice(0);
  assert(refused.every((text) => text.includes("401")), refused.join("\n"));

  await server.ready(3);
  const feeding = feed(server);
  const row = (name: string) =>
    `[...document.querySelectorAll("#workers th")].some((th) => th.textContent === ${
      JSON.stringify(name)
    })`;
  for (const name of ["berlin-1", "berlin-2", HOSTILE]) {
    await browser.sees(row(name));
  }
  const summary = `document.getElementById("summary").textContent`;
  await browser.sees(`${summary}.startsWith("3 workers connected")`);
  await browser.sees(
    `/L/.test(document.getElementById("rate-curve").getAttribute("d"))`,
  );
  await browser.sees(
    `/s$/.test(document.getElementById("time-now").textContent)`,
  );
  await browser.sees(
    `document.querySelectorAll("#failures li").length > 0`,
    30_000,
  );
  assertEquals(await browser.evaluate("globalThis.pwned === undefined"), true);
  assertEquals(
    await browser.evaluate("document.querySelectorAll('img').length"),
    0,
  );

  // What a screen reader is told: a table with headers, plots with names.
  assertEquals(
    await browser.evaluate(
      `[...document.querySelectorAll("thead th")].every((th) => th.scope === "col")`,
    ),
    true,
  );
  const { nodes } = await browser.call("Accessibility.getFullAXTree") as {
    nodes: { role?: { value: string }; name?: { value: string } }[];
  };
  const names = (role: string) =>
    nodes.filter((node) => node.role?.value === role)
      .map((node) => node.name?.value);
  assertEquals(names("image").length, 2);
  assert(names("rowheader").includes("berlin-1"));
  assert(names("table").some((name) => name?.startsWith("Workers")));

  // The phone shows no wider page than itself.
  const phone = { width: 390, height: 844, mobile: true };
  if (screenshots) {
    await new Promise((resolve) => setTimeout(resolve, 25_000));
  }
  const pictures = {
    light: await browser.screenshot({ width: 1100, height: 960 }),
    dark: await browser.screenshot({ width: 1100, height: 960, dark: true }),
    phone: await browser.screenshot({ ...phone, dark: false }),
  };
  assertEquals(
    await browser.evaluate("document.documentElement.scrollWidth <= 390"),
    true,
  );
  for (const [name, png] of Object.entries(pictures)) {
    assert(png.length > 10_000, name);
    if (screenshots) await Deno.writeFile(`${ROOT}docs/page-${name}.png`, png);
  }

  if (Deno.build.os !== "windows") {
    // So that it surely dies with work in its hands.
    first.signal("SIGSTOP");
    const held = () =>
      server.workers.find(({ name }) => name === "berlin-1")?.inFlight ?? 0;
    await until(() => held() > 0, "it is given items");
    await still(held, "it holds what it has");
  }
  first.signal("SIGKILL");
  await browser.sees(`!${row("berlin-1")}`);
  await browser.sees(`${summary}.startsWith("2 workers connected")`);
  await until(() => server.stats().redelivered > 0, "items are redelivered");
  await browser.sees(
    `document.getElementById("redelivered").textContent !== "0"`,
  );

  await server.abort();
  await feeding;
  await browser.sees(
    `document.getElementById("phase").textContent === "aborted"`,
  );
  assertEquals(browser.complaints, []);
}

Deno.test({
  name:
    "The live page behind a proxy, in a folder, whose server is away for a while (needs Chromium)",
  ignore: chromium === undefined,
  fn: () => within(comeBack(), 60_000, "the page is back"),
});

async function comeBack(): Promise<void> {
  await using server = listen({ port: 0, dashboard: { port: 0 } });
  const { port } = server.dashboardAddr!;
  // Figures that a page asks for while there is no server behind the proxy.
  const searches = new Set<string>();
  let refused = 0, streams = new AbortController(), isAway = false;
  await using proxy = Deno.serve({
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
  }, async (request) => {
    const { pathname: path, search } = new URL(request.url);
    const pathname = path.replace(/^\/pool\//, "/");
    if (pathname === path) return new Response("Not Found", { status: 404 });
    if (pathname !== "/") searches.add(search);
    if (!isAway) {
      const { signal } = streams;
      const { body, headers } = await fetch(
        `http://127.0.0.1:${port}${pathname}`,
      );
      const passing = new TransformStream({
        start(passing) {
          // The server may have gone while it was asked.
          if (signal.aborted) passing.terminate();
          signal.addEventListener("abort", () => passing.terminate());
        },
      });
      return new Response(body!.pipeThrough(passing), { headers });
    }
    if (pathname === "/stats.json") refused++;
    return new Response("Bad Gateway", { status: 502 });
  });
  await using browser = await Browser.start();
  const phase = `document.getElementById("phase").textContent`;
  await browser.go(`http://127.0.0.1:${proxy.addr.port}/pool/?token=s3cret`);
  await browser.sees(`${phase} === "live"`);
  isAway = true;
  streams.abort();
  await until(() => refused > 0, "it has asked", 20_000);
  streams = new AbortController();
  isAway = false;
  await browser.sees(`${phase} === "live"`);
  assertEquals([...searches], [""], "a proxy logs no secret");
  // What stays open would keep the proxy.
  streams.abort();
}
