/**
 * The live page of a server, and what programs read of it: `/stats.json`,
 * `/events`, `/metrics` and `/healthz`.
 *
 * Once a second it looks at the server's figures and keeps a ring of samples;
 * nothing is done for a value. Everything here has a bound: samples, failures,
 * texts, streams of events.
 *
 * @module
 */

import { createHash, timingSafeEqual } from "node:crypto";
import { isLoopback } from "./bind.ts";
import {
  DASHBOARD_PAGE,
  DASHBOARD_SCRIPT,
  DASHBOARD_STYLE,
} from "./dashboard_page.ts";
import type { ServerEvent } from "./events.ts";
import { clip } from "./frame.ts";
import { METRICS_TYPE, renderMetrics, type ServerStats } from "./metrics.ts";
import { settledWithin } from "./promises.ts";
import { toError } from "./thrown.ts";

/** What a dashboard needs of its server. */
export interface DashboardHost {
  /** What the page is called: the channel's signature. */
  readonly title: string;
  /** Who doesn't know it gets no figures; null: everybody does. */
  readonly token: Uint8Array | null;
  /** Whether it is bound to loopback, and so must be asked for by such a name. */
  readonly isLoopback: boolean;
  /** The figures. */
  stats(): ServerStats;
  /** How far the server is. */
  phase(): ServerPhase;
  /** Starts the HTTP server; on the port that it had, if it had one. */
  serve(
    handler: (request: Request, info: Answering) => Response,
    signal: AbortSignal,
    port?: number,
  ): Deno.HttpServer<Deno.NetAddr>;
}

/** As much of `Deno.ServeHandlerInfo` as is used. */
export interface Answering {
  /** The answer has been sent; it rejects if that couldn't be. */
  readonly completed: Promise<void>;
}

/**
 * How far a server is.
 *
 * ```text
 *          all is settled: END         all workers have gone
 *   open ──────────────────────► ending ────────────────────► finished
 *    └─────────────────────────────┴────────────────────────► aborted
 * ```
 */
export type ServerPhase = "open" | "ending" | "finished" | "aborted";

/** A look at the figures, once a second. */
export interface DashboardSample {
  /** When, in ms since the epoch. */
  at: number;
  /** Items settled or failed a second, since the sample before. */
  rate: number;
  /**
   * From dispatch to result, in ms, estimated by Little's law over the last ten
   * seconds: mean in flight / rate. The time that an item waits at its worker
   * is in it; null: nothing was settled.
   */
  latencyMs: number | null;
  /** Items that waited. */
  pending: number;
  /** Items that workers held. */
  inFlight: number;
}

/** An item that failed. */
export interface DashboardFailure {
  /** When, in ms since the epoch. */
  at: number;
  /** The item's id. */
  id: number;
  /** How often it was delivered. */
  attempts: number;
  /** The error's name and message. */
  error: string;
}

/** Five minutes, a sample a second. */
const MAX_SAMPLES = 300;
/** Failures that are remembered. */
const MAX_FAILURES = 50;
/** Longest texts of them, in UTF-16 units. */
const MAX_TEXT = 2000;
/** Streams of events at once. */
const MAX_STREAMS = 64;
/** Samples that a latency is estimated from. */
const LATENCY_SAMPLES = 10;
const SAMPLE_MS = 1000;
/** How long answers under way may take at the end, in ms. */
const CLOSE_MS = 500;

const encoder = new TextEncoder();

/** Serves the page. */
export class Dashboard {
  readonly #host: DashboardHost;
  #http: Deno.HttpServer<Deno.NetAddr>;
  /** The HTTP server has ended by itself: no file could be opened, perhaps. */
  #isDown = false;
  readonly #startedAt = Date.now();
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #samples: DashboardSample[] = [];
  /** Oldest first. */
  readonly #failures: DashboardFailure[] = [];
  readonly #streams = new Set<ReadableStreamDefaultController<Uint8Array>>();
  #last: { at: number; count: number };
  /** Answers under way: each settles once it was sent, or couldn't be. */
  readonly #answers = new Set<Promise<void>>();
  #closing: Promise<void> | null = null;
  /** Of the HTTP server that there is: that of one that is down would throw. */
  #stop = new AbortController();

  /** @param host Its server. */
  constructor(host: DashboardHost) {
    this.#host = host;
    this.#last = { at: performance.now(), count: 0 };
    this.#http = this.#serve();
    this.#timer = setInterval(() => this.#tick(), SAMPLE_MS);
  }

  /** Where it listens. */
  get addr(): Deno.NetAddr {
    return this.#http.addr;
  }

  /** Remembers what is shown of it. */
  onEvent(event: ServerEvent): void {
    if (event.type !== "failed") return;
    const { id, attempts } = event.failure;
    const { name, message } = toError(event.failure.error);
    this.#failures.push({
      at: Date.now(),
      id,
      attempts,
      // Not just a part of it, which would keep the whole in memory.
      error: clip(`${name}: ${message}`, MAX_TEXT),
    });
    if (this.#failures.length > MAX_FAILURES) this.#failures.shift();
  }

  /** Ends it. Resolves when nothing is left of it. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  #serve(port?: number): Deno.HttpServer<Deno.NetAddr> {
    this.#stop = new AbortController();
    const http = this.#host.serve(
      (request, info) => {
        this.#follow(info.completed);
        return this.#handle(request);
      },
      this.#stop.signal,
      port,
    );
    http.finished.catch(() => {}).then(() => this.#isDown = true);
    return http;
  }

  #follow(completed: Promise<void>): void {
    const answer = completed.catch(() => {})
      .then(() => void this.#answers.delete(answer));
    this.#answers.add(answer);
  }

  async #close(): Promise<void> {
    clearInterval(this.#timer);
    this.#broadcast();
    for (const stream of this.#streams) {
      stream.enqueue(event("end", { phase: this.#host.phase() }));
      stream.close();
    }
    this.#streams.clear();
    // A client that doesn't read isn't waited for; nor is one that has sent half
    // a request, as it would be by Deno's shutdown(): once that is called nothing
    // ends the wait, and the signal throws where nobody can catch it.
    await settledWithin(Promise.all(this.#answers), CLOSE_MS);
    if (!this.#isDown) this.#stop.abort();
    await this.#http.finished.catch(() => {});
  }

  #tick(): void {
    if (this.#isDown) this.#restart();
    const now = performance.now();
    const { settled, failed, pending, inFlight } = this.#host.stats();
    const count = settled + failed;
    const rate = (count - this.#last.count) * 1000 / (now - this.#last.at);
    this.#last = { at: now, count };
    const sample: DashboardSample = {
      at: Date.now(),
      rate,
      latencyMs: null,
      pending,
      inFlight,
    };
    this.#samples.push(sample);
    if (this.#samples.length > MAX_SAMPLES) this.#samples.shift();
    sample.latencyMs = latency(this.#samples.slice(-LATENCY_SAMPLES));
    this.#broadcast();
  }

  #restart(): void {
    try {
      this.#http = this.#serve(this.addr.port);
      this.#isDown = false;
    } catch {
      // At the next tick, perhaps.
    }
  }

  #broadcast(): void {
    if (this.#streams.size === 0) return;
    const bytes = event("message", this.#snapshot());
    for (const stream of this.#streams) {
      // A client that doesn't read misses seconds, and memory stays as it is.
      if (stream.desiredSize! > 0) stream.enqueue(bytes);
    }
  }

  #snapshot(): Record<string, unknown> {
    const { title } = this.#host;
    return {
      ...this.#host.stats(),
      at: Date.now(),
      upMs: Date.now() - this.#startedAt,
      title,
      phase: this.#host.phase(),
      sample: this.#samples.at(-1) ?? null,
      failures: this.#failures.toReversed(),
    };
  }

  #handle(request: Request): Response {
    if (request.method !== "GET" && request.method !== "HEAD") {
      return text(405, "only GET", { allow: "GET, HEAD" });
    }
    const url = URL.parse(request.url);
    if (url === null) return text(400, "its Host makes no URL");
    if (url.pathname === "/healthz") {
      const phase = this.#host.phase();
      return text(phase === "aborted" ? 503 : 200, phase);
    }
    // A page elsewhere whose name is made to point here must not read it.
    if (
      this.#host.isLoopback && this.#host.token === null &&
      !isLoopback(url.hostname)
    ) return text(403, `ask for it as ${this.addr.hostname}`);
    if (url.pathname === "/") return page();
    if (!this.#isAllowed(request, url)) {
      return text(
        401,
        "it needs the secret: Authorization: Bearer, or ?token=",
        {
          "www-authenticate": 'Bearer realm="distchan"',
        },
      );
    }
    switch (url.pathname) {
      case "/events":
        return this.#events(request);
      case "/stats.json":
        return respond(
          JSON.stringify(this.#snapshot()),
          "application/json; charset=utf-8",
        );
      case "/metrics":
        return respond(renderMetrics(this.#host.stats()), METRICS_TYPE);
    }
    return text(404, "there are /, /events, /stats.json, /metrics, /healthz");
  }

  #events(request: Request): Response {
    // As long as it is answered, Deno keeps in memory what comes of a body.
    if (hasBody(request)) return text(400, "a question has no body");
    if (this.#streams.size >= MAX_STREAMS || this.#closing !== null) {
      return text(503, "too many look at it, or it is at its end");
    }
    let controller: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start: (own) => {
        controller = own;
        own.enqueue(event("history", this.#samples));
        own.enqueue(event("message", this.#snapshot()));
        this.#streams.add(own);
      },
      cancel: () => {
        this.#streams.delete(controller);
      },
    }, { highWaterMark: 8 });
    return respond(body, "text/event-stream", {
      // nginx would collect some seconds of them.
      headers: { "x-accel-buffering": "no" },
    });
  }

  #isAllowed(request: Request, url: URL): boolean {
    const { token } = this.#host;
    if (token === null) return true;
    const bearer = request.headers.get("authorization")
      ?.match(/^bearer +(.+)$/i)?.[1];
    const given = bearer ?? url.searchParams.get("token");
    return given !== null && isToken(given, token);
  }
}

function hasBody({ headers }: Request): boolean {
  return headers.has("transfer-encoding") ||
    (headers.get("content-length") ?? "0") !== "0";
}

/** The secret itself, or its bytes in hex: not every secret is text. */
function isToken(given: string, token: Uint8Array): boolean {
  const isText = isSame(encoder.encode(given), token);
  const isHex = isSame(
    encoder.encode(given.toLowerCase()),
    encoder.encode(token.toHex()),
  );
  return isText || isHex;
}

/** Takes the same time, whatever they are. */
function isSame(a: Uint8Array, b: Uint8Array): boolean {
  const hash = (bytes: Uint8Array) =>
    createHash("sha256").update(bytes).digest();
  return timingSafeEqual(hash(a), hash(b));
}

/** Little's law: what is in a system on average = rate × time in it. */
export function latency(samples: readonly DashboardSample[]): number | null {
  let rate = 0, inFlight = 0;
  for (const sample of samples) {
    rate += sample.rate;
    inFlight += sample.inFlight;
  }
  return rate > 0 ? inFlight * 1000 / rate : null;
}

function event(name: string, data: unknown): Uint8Array {
  const head = name === "message" ? "" : `event: ${name}\n`;
  return encoder.encode(`${head}data: ${JSON.stringify(data)}\n\n`);
}

function text(
  status: number,
  line: string,
  headers: Record<string, string> = {},
): Response {
  return respond(`${line}\n`, "text/plain; charset=utf-8", { status, headers });
}

function respond(
  body: BodyInit,
  type: string,
  init: { status?: number; headers?: Record<string, string> } = {},
): Response {
  return new Response(body, {
    status: init.status ?? 200,
    headers: {
      "content-type": type,
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cross-origin-resource-policy": "same-origin",
      "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
      ...init.headers,
    },
  });
}

/** The page has no figures in it: who has no token may see it. */
function page(): Response {
  return respond(DASHBOARD_PAGE, "text/html; charset=utf-8", {
    headers: { "content-security-policy": CSP },
  });
}

const CSP = [
  "default-src 'none'",
  `style-src ${hashSource(DASHBOARD_STYLE)}`,
  `script-src ${hashSource(DASHBOARD_SCRIPT)}`,
  "connect-src 'self'",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

function hashSource(text: string): string {
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}
