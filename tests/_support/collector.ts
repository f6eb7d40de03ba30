/**
 * Where traced processes send their spans: OTLP over HTTP, as JSON. Beside it
 * there is a page for handlers to fetch, which notes whose trace asked for it.
 *
 * @module
 */

import { within } from "./within.ts";

/** How long a span may take to come, in ms. */
const DEADLINE_MS = 30_000;

/** The kinds of spans, as OTLP numbers them. */
export const OtlpKind = { CLIENT: 3, PRODUCER: 4, CONSUMER: 5 } as const;

/** A span that came. */
export interface CollectedSpan {
  /** The process that it is from. */
  service: string;
  name: string;
  kind: number;
  traceId: string;
  spanId: string;
  /** "" if it has no parent. */
  parentSpanId: string;
  /** 0: nothing was said; 2: an error. */
  status: number;
  /** What the status says. */
  message: string;
  attributes: Record<string, unknown>;
  events: { name: string; attributes: Record<string, unknown> }[];
}

/** A collector of spans, and the page. */
export class Collector implements AsyncDisposable {
  /** All spans so far, in the order in which they came. */
  readonly spans: CollectedSpan[] = [];
  /** The header `traceparent` of every request for the page. */
  readonly traceparents: (string | null)[] = [];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  #more = Promise.withResolvers<void>();

  constructor() {
    this.#server = Deno.serve({
      hostname: "127.0.0.1",
      port: 0,
      onListen: () => {},
    }, (request) => this.#answer(request));
  }

  /** The page. */
  get pageUrl(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/page`;
  }

  /**
   * The environment that makes a process send its spans here.
   *
   * @param service What it is called.
   * @param more Added to it.
   */
  env(
    service: string,
    more: Record<string, string> = {},
  ): Record<string, string> {
    return {
      OTEL_DENO: "true",
      OTEL_DENO_CONSOLE: "ignore",
      OTEL_DENO_METRICS: "false",
      OTEL_SERVICE_NAME: service,
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${this.#server.addr.port}`,
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_BSP_SCHEDULE_DELAY: "20",
      ...more,
    };
  }

  /** Waits for a span of a service. */
  span(
    service: string,
    name: string,
    matches: (span: CollectedSpan) => boolean = () => true,
  ): Promise<CollectedSpan> {
    const found = async () => {
      for (;;) {
        const span = this.spans.find((s) =>
          s.service === service && s.name === name && matches(s)
        );
        if (span !== undefined) return span;
        await this.#more.promise;
      }
    };
    return within(found(), DEADLINE_MS, `a span "${name}" of ${service}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/page") {
      this.traceparents.push(request.headers.get("traceparent"));
      return new Response("page");
    }
    const body = await request.json();
    if (pathname === "/v1/traces") {
      this.spans.push(...spansOf(body));
      this.#more.resolve();
      this.#more = Promise.withResolvers();
    }
    return Response.json({});
  }
}

interface OtlpAttribute {
  key: string;
  value: Record<string, unknown>;
}

interface OtlpSpan {
  name: string;
  kind: number;
  traceId: string;
  spanId: string;
  parentSpanId: string;
  status: { code?: number; message?: string };
  attributes: OtlpAttribute[];
  events: { name: string; attributes: OtlpAttribute[] }[];
}

interface OtlpTraces {
  resourceSpans: {
    resource: { attributes: OtlpAttribute[] };
    scopeSpans: { spans: OtlpSpan[] }[];
  }[];
}

function spansOf({ resourceSpans }: OtlpTraces): CollectedSpan[] {
  return resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const service = attributesOf(resource.attributes)["service.name"];
    return scopeSpans.flatMap(({ spans }) => spans).map((span) => ({
      service: String(service),
      name: span.name,
      kind: span.kind,
      traceId: span.traceId,
      spanId: span.spanId,
      parentSpanId: span.parentSpanId,
      status: span.status.code ?? 0,
      message: span.status.message ?? "",
      attributes: attributesOf(span.attributes),
      events: span.events.map(({ name, attributes }) => ({
        name,
        attributes: attributesOf(attributes),
      })),
    }));
  });
}

/** 64-bit integers are text in JSON. No key may be there twice: a list then. */
function attributesOf(
  attributes: OtlpAttribute[],
): Record<string, unknown> {
  const all: Record<string, unknown> = {};
  for (const { key, value } of attributes) {
    const [[type, of]] = Object.entries(value) as [[string, unknown]];
    const one = type === "intValue" ? Number(of) : of;
    all[key] = key in all ? [all[key], one].flat() : one;
  }
  return all;
}
