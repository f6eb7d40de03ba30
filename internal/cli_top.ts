/**
 * `distchan top`: a server's workers in a terminal, by the `/stats.json` of
 * its dashboard.
 *
 * @module
 */

import type { ServerStats, WorkerInfo } from "../mod.ts";
import {
  type Arguments,
  FatalError,
  formatAddress,
  parseAddress,
  readPem,
  readSecret,
  UsageError,
} from "./cli_arguments.ts";
import {
  excerpt,
  many,
  print,
  printable,
  printError,
  terminalSize,
} from "./cli_output.ts";
import { causesOf, reasonOf } from "./thrown.ts";

/** What `/stats.json` has. */
export interface Snapshot extends ServerStats {
  /** The last failures, newest first. */
  readonly failures?: readonly {
    readonly id: number;
    readonly error: string;
  }[];
}

const REQUEST_MS = 5000;
const MAX_MISSES = 10;
/** So much of why a server can't be read is shown, in UTF-16 units. */
const MAX_CAUSE = 500;
/** How many failures are shown. */
const FAILURES = 5;

/** Runs `distchan top`; resolves with its exit status. */
export async function top(args: Arguments): Promise<number> {
  const [where, ...more] = args.operands;
  if (where === undefined) {
    throw new UsageError(
      "which server? Give HOST:PORT of its dashboard, or its URL",
    );
  }
  if (more.length > 0) {
    throw new UsageError(`${1 + more.length} servers, expected one`);
  }
  const ca = await readPem(args, "ca", "certificate");
  const place = parsePlace(where, ca !== undefined);
  const intervalMs = args.ms("interval") ?? 1000;
  const secret = await readSecret(args);
  using client = ca === undefined ? null : trusting(ca);
  const look = () => fetchSnapshot(place, { secret, client });
  const first = await look();
  if (args.has("once") || !Deno.stdout.isTerminal()) {
    print(`${formatTable(first, 120).join("\n")}\n`);
    return 0;
  }
  return await new Screen(place.name, intervalMs, look).run(first);
}

function trusting(ca: string): Deno.HttpClient {
  try {
    return Deno.createHttpClient({ caCerts: [ca] });
  } catch (error) {
    throw new UsageError(`can't use --ca: ${reasonOf(error)}`);
  }
}

/** Where a dashboard is. */
interface Place {
  /** As it is shown. */
  readonly name: string;
  /** Its page. */
  readonly url: URL;
}

/** Reads HOST:PORT, or a URL: that of a proxy in front of it, perhaps. */
function parsePlace(text: string, isTls: boolean): Place {
  if (!text.includes("://")) {
    const name = formatAddress(parseAddress(text, "HOST:PORT", { minPort: 1 }));
    const url = URL.parse(`${isTls ? "https" : "http"}://${name}/`);
    if (url === null) throw noPlace(text);
    return { name, url };
  }
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) throw noPlace(text);
  if (isTls && url.protocol !== "https:") {
    throw new UsageError(`--ca is for https:, got ${text}`);
  }
  url.search = url.hash = "";
  // What is beside the page is relative to its folder.
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return { name: url.href.replace(/\/$/, ""), url };
}

function noPlace(text: string): UsageError {
  return new UsageError(
    `${text} is no address of a dashboard, expected HOST:PORT, or a URL with http: or https:`,
  );
}

/** The terminal, as long as it is ours. */
class Screen {
  readonly #where: string;
  readonly #intervalMs: number;
  readonly #look: () => Promise<Snapshot>;
  #hasQuit = false;
  /** Ends the wait for the next look. */
  #onQuit: (() => void) | null = null;
  #snapshot!: Snapshot;
  #before: { at: number; settled: number } | null = null;
  #rate = 0;
  #error = "";

  constructor(
    where: string,
    intervalMs: number,
    look: () => Promise<Snapshot>,
  ) {
    this.#where = where;
    this.#intervalMs = intervalMs;
    this.#look = look;
  }

  async run(first: Snapshot): Promise<number> {
    const quit = () => {
      this.#hasQuit = true;
      this.#onQuit?.();
    };
    const resized = () => this.#draw();
    Deno.addSignalListener("SIGINT", quit);
    Deno.addSignalListener("SIGTERM", quit);
    if (Deno.build.os !== "windows") {
      Deno.addSignalListener("SIGWINCH", resized);
    }
    const isRaw = Deno.stdin.isTerminal();
    if (isRaw) {
      Deno.stdin.setRaw(true);
      this.#readKeys(quit);
    }
    // The other screen, without a cursor. A line that is wider than it has
    // characters, with Chinese names for example, is cut off there, not wrapped.
    print("\x1b[?1049h\x1b[?25l\x1b[?7l");
    try {
      this.#take(first);
      return await this.#watch();
    } finally {
      print("\x1b[?7h\x1b[?25h\x1b[?1049l");
      if (isRaw) Deno.stdin.setRaw(false);
      if (this.#error !== "") printError(`distchan: ${this.#error}\n`);
    }
  }

  async #watch(): Promise<number> {
    let misses = 0;
    for (;;) {
      await this.#wait();
      if (this.#hasQuit) return 0;
      try {
        this.#error = "";
        this.#take(await this.#look());
        misses = 0;
      } catch (error) {
        this.#error = reasonOf(error);
        this.#draw();
        if (++misses >= MAX_MISSES) return 3;
      }
    }
  }

  /** No race with a promise that outlives it, which would remember each one. */
  #wait(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#hasQuit ? 0 : this.#intervalMs);
      this.#onQuit = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #readKeys(quit: () => void): Promise<void> {
    const keys = new Uint8Array(64);
    for (;;) {
      const count = await Deno.stdin.read(keys).catch(() => null);
      if (count === null) return;
      // q, Q, Ctrl-C, which isn't a signal here, and Ctrl-D
      if (keys.subarray(0, count).some((k) => [113, 81, 3, 4].includes(k))) {
        quit();
      }
    }
  }

  #take(snapshot: Snapshot): void {
    const at = performance.now();
    const settled = snapshot.settled + snapshot.failed;
    if (this.#before !== null) {
      const seconds = (at - this.#before.at) / 1000;
      this.#rate = Math.max(0, settled - this.#before.settled) / seconds;
    }
    this.#before = { at, settled };
    this.#snapshot = snapshot;
    this.#draw();
  }

  #draw(): void {
    const { columns, rows } = terminalSize();
    const lines = [
      `distchan ${this.#where}   ${this.#rate.toFixed(1)}/s   q: quit`,
      ...(this.#error === "" ? [] : [`! ${excerpt(this.#error, columns - 2)}`]),
      ...formatTable(this.#snapshot, columns),
    ].slice(0, rows - 1);
    print(
      `\x1b[H${
        lines.map((line) => `${line.slice(0, columns)}\x1b[K`).join("\r\n")
      }\r\n\x1b[J`,
    );
  }
}

/** The table, as lines no wider than `width`. */
export function formatTable(snapshot: Snapshot, width: number): string[] {
  const { pending, inFlight, settled, failed, redelivered, failures = [] } =
    snapshot;
  const workers = [...snapshot.workers]
    .sort((a, b) => b.ratePerSecond - a.ratePerSecond || a.id - b.id);
  const head = [
    "NAME",
    "STATE",
    "RATE",
    "IN FLIGHT",
    "SETTLED",
    "FAILED",
    "RTT",
  ];
  const rows = [head, ...workers.map(row)];
  const widths = head.map((_, i) => Math.max(...rows.map((r) => r[i]!.length)));
  return [
    `${many(workers.length, "worker")}   ` +
    `${pending} pending   ${inFlight} in flight   ` +
    `${settled} settled   ${failed} failed   ${redelivered} redelivered`,
    "",
    ...rows.map((cells) =>
      cells.map((cell, i) =>
        i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)
      ).join("  ").trimEnd()
    ),
    ...(failures.length === 0 ? [] : ["", "FAILURES"]),
    ...failures.slice(0, FAILURES).map(({ id, error }) => `${id}: ${error}`),
  ].map((line) => line === "" ? "" : cut(line, width));
}

function row(worker: WorkerInfo): string[] {
  const { id, name, state, ratePerSecond, inFlight, settled, failed, rttMs } =
    worker;
  return [
    excerpt(name === "" ? `worker ${id}` : name, 30),
    state,
    `${ratePerSecond.toFixed(1)}/s`,
    String(inFlight),
    String(settled),
    String(failed),
    // JSON has no undefined.
    typeof rttMs === "number" ? `${rttMs.toFixed(1)} ms` : "",
  ];
}

/** Keeps runs of spaces, which are columns. */
function cut(line: string, width: number): string {
  const safe = printable(line).replaceAll(/[\t\n]/g, "\ufffd");
  return safe.length <= width ? safe : `${safe.slice(0, width - 1)}…`;
}

async function fetchSnapshot(
  { name: where, url }: Place,
  { secret, client }: {
    secret: string | undefined;
    client: Deno.HttpClient | null;
  },
): Promise<Snapshot> {
  let response: Response;
  let body: unknown;
  try {
    const ask = (headers: Record<string, string>) =>
      fetch(new URL("stats.json", url), {
        headers,
        signal: AbortSignal.timeout(REQUEST_MS),
        ...(client === null ? {} : { client }),
      });
    response = await ask({});
    // Only who asks for it is told the secret: not a server on loopback, nor
    // one of TLS that http: was written for, and all who are on the way there.
    if (response.status === 401 && secret !== undefined) {
      await response.body?.cancel();
      response = await ask({ authorization: `Bearer ${toToken(secret)}` });
    }
    if (response.ok) body = await response.json().catch(notJson);
    else if (response.status === 403) body = await response.text();
    else await response.body?.cancel();
  } catch (error) {
    const reason = reasonOf(error), cause = causesOf(error);
    throw new FatalError(
      `can't read ${where}: ${
        cause === "" ? reason : `${reason}: ${excerpt(cause, MAX_CAUSE)}`
      }`,
    );
  }
  // No secret helps here: one on loopback wants another name of its proxy.
  if (response.status === 403) {
    throw new FatalError(
      `${where} refused, status 403: ${excerpt(body as string, MAX_CAUSE)}`,
    );
  }
  if (response.status === 401) {
    throw new FatalError(
      `${where} wants ${
        secret === undefined ? "its server's" : "another"
      } secret: --secret-file or DISTCHAN_SECRET`,
    );
  }
  if (!response.ok || !isSnapshot(body)) {
    throw new FatalError(
      `${where} is no dashboard: /stats.json has ${
        response.ok ? "no figures" : `status ${response.status}`
      }`,
    );
  }
  return body;
}

/** Some other page: what that is isn't told by where its JSON is wrong. */
function notJson(error: unknown): undefined {
  if (!(error instanceof SyntaxError)) throw error;
}

/** A secret as a header can have it: a dashboard takes it in hex, too. */
function toToken(secret: string): string {
  return /^[\x21-\x7e]+$/.test(secret)
    ? secret
    : new TextEncoder().encode(secret).toHex();
}

/** Whatever can be shown is one: fields may come and go with versions. */
function isSnapshot(body: unknown): body is Snapshot {
  try {
    formatTable(body as Snapshot, 80);
    return typeof (body as Snapshot).settled === "number";
  } catch {
    return false;
  }
}
