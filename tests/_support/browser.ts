/**
 * A real browser for tests: Debian's Chromium without a window, driven over the
 * DevTools protocol by a WebSocket.
 *
 * @module
 */

import { Folder } from "./folder.ts";
import { Process } from "./process.ts";
import { within } from "./within.ts";

/** Where Chromium is, or undefined: its tests are skipped by name. */
export const chromium: string | undefined = find();

function find(): string | undefined {
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    const path = `/usr/bin/${name}`;
    try {
      if (Deno.statSync(path).isFile) return path;
    } catch {
      // Not this one.
    }
  }
  return undefined;
}

/** What a call of the protocol answers. */
type Answer = Record<string, unknown>;

/** A browser with one page. */
export class Browser implements AsyncDisposable {
  readonly #process: Process;
  readonly #folder: Folder;
  readonly #socket: WebSocket;
  readonly #calls = new Map<number, PromiseWithResolvers<Answer>>();
  /** What the page complained of. */
  readonly complaints: string[] = [];
  #session: string | undefined;
  #nextId = 1;

  private constructor(process: Process, folder: Folder, socket: WebSocket) {
    this.#process = process;
    this.#folder = folder;
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#on(JSON.parse(data));
  }

  /** Starts one. */
  static async start(): Promise<Browser> {
    const folder = await Folder.make();
    const process = new Process(chromium!, [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--disable-dev-shm-usage",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--hide-scrollbars",
      "--remote-debugging-port=0",
      `--user-data-dir=${folder.path}`,
      "about:blank",
    ], { deadlineMs: 90_000 });
    try {
      const [, url] = await process.stderr.line(
        /DevTools listening on (ws:.*)/,
      );
      const socket = new WebSocket(url!);
      await within(
        new Promise((resolve, reject) => {
          socket.onopen = resolve;
          socket.onerror = () => reject(new Error("no DevTools"));
        }),
        10_000,
        "DevTools are there",
      );
      const browser = new Browser(process, folder, socket);
      await browser.#attach();
      return browser;
    } catch (error) {
      await process[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Calls a method of the DevTools protocol. */
  call(method: string, params: Answer = {}): Promise<Answer> {
    const id = this.#nextId++;
    const answer = Promise.withResolvers<Answer>();
    this.#calls.set(id, answer);
    const sessionId = this.#session;
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    return within(answer.promise, 15_000, method);
  }

  /** Goes to a page. */
  async go(url: string): Promise<void> {
    await this.call("Page.navigate", { url });
  }

  /** What an expression in the page is, or what it resolves to. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.call("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    }) as { result: { value: T }; exceptionDetails?: unknown };
    if (exceptionDetails !== undefined) {
      throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    }
    return result.value;
  }

  /** Waits until an expression in the page is true. */
  async sees(expression: string, ms = 15_000): Promise<void> {
    const deadline = performance.now() + ms;
    for (;;) {
      // Between two pages there is nothing to be asked.
      const seen = await this.evaluate<boolean>(`Boolean(${expression})`)
        .catch(() => false);
      if (seen) return;
      if (performance.now() > deadline) {
        const text = await this.evaluate("document.body.innerText");
        throw new Error(`Not within ${ms} ms: ${expression}\n${text}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** The page as a picture. */
  async screenshot(
    size: { width: number; height: number; mobile?: boolean; dark?: boolean },
  ): Promise<Uint8Array> {
    const { width, height, mobile = false, dark = false } = size;
    await this.call("Emulation.setEmulatedMedia", {
      features: [{
        name: "prefers-color-scheme",
        value: dark ? "dark" : "light",
      }],
    });
    await this.call("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      mobile,
      deviceScaleFactor: mobile ? 2 : 1,
    });
    await this.evaluate("new Promise((done) => requestAnimationFrame(done))");
    const { data } = await this.call("Page.captureScreenshot", {
      format: "png",
    });
    return Uint8Array.fromBase64(data as string);
  }

  async #attach(): Promise<void> {
    const { targetInfos } = await this.call("Target.getTargets") as {
      targetInfos: { type: string; targetId: string }[];
    };
    const { targetId } = targetInfos.find(({ type }) => type === "page")!;
    const { sessionId } = await this.call("Target.attachToTarget", {
      targetId,
      flatten: true,
    });
    this.#session = sessionId as string;
    await this.call("Page.enable");
    await this.call("Runtime.enable");
    await this.call("Log.enable");
  }

  #on(
    told: {
      id?: number;
      result?: Answer;
      error?: { message: string };
      method?: string;
      params?: Answer;
    },
  ): void {
    const { id, result, error, method, params } = told;
    if (
      method === "Runtime.exceptionThrown" || method === "Log.entryAdded" ||
      method === "Page.javascriptDialogOpening"
    ) this.complaints.push(JSON.stringify(params));
    if (id === undefined) return;
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error === undefined) call?.resolve(result!);
    else call?.reject(new Error(error.message));
  }

  /** Ends it, and what it wrote. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#socket.onclose = resolve);
    this.#session = undefined;
    await this.call("Browser.close").catch(() => {});
    await within(closed, 5000, "DevTools are closed").catch(() => {});
    this.#socket.close();
    await within(this.#process.exit, 5000, "the browser ends").catch(() => {});
    await this.#process[Symbol.asyncDispose]();
    await this.#folder[Symbol.asyncDispose]();
  }
}
