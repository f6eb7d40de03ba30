/**
 * The rim to OpenTelemetry as Deno has it (`OTEL_DENO=true`): spans, and which
 * of them is the active one. Where it is off there is no {@linkcode Tracing},
 * and whoever asks for one gets null, once.
 *
 * `Deno.telemetry` is of the shape of `@opentelemetry/api`, untyped; as much of
 * it as is used here is typed below.
 *
 * @module
 */

import { toThrown } from "./thrown.ts";
import type { TraceContext } from "./trace_context.ts";

/** The kinds of spans that there are here, by OpenTelemetry's numbers. */
export const SpanKind = { PRODUCER: 3, CONSUMER: 4 } as const;

/** OpenTelemetry's number of the status "error". */
const STATUS_ERROR = 2;

/** What a span, or an event of it, is told about. */
export type Attributes = Record<string, string | number | boolean>;

/** A span, as far as it is used here. */
export interface Span {
  /** Where it belongs. */
  spanContext(): TraceContext;
  /** Adds attributes. */
  setAttributes(attributes: Attributes): unknown;
  /** Something happened. */
  addEvent(name: string, attributes?: Attributes): unknown;
  /** An error happened. */
  recordException(
    error: { name: string; message: string; stack?: string },
  ): void;
  /** How it went. */
  setStatus(status: { code: number; message?: string }): unknown;
  /** It is over, and goes to the exporter. */
  end(): void;
}

interface Context {
  setValue(key: symbol, value: unknown): Context;
}

interface SpanOptions {
  kind: number;
  attributes: Attributes;
  root?: boolean;
}

interface Tracer {
  startSpan(name: string, options: SpanOptions, context?: Context): Span;
}

interface ContextManager {
  active(): Context;
  with<T>(context: Context, call: () => T): T;
}

/** As much of `Deno.telemetry` as is used. */
export interface Telemetry {
  /** Makes tracers. */
  tracerProvider: { getTracer(name: string): Tracer };
  /** Knows what is active. */
  contextManager: ContextManager;
}

/** The place of the active span in a context, by `@opentelemetry/api`. */
const SPAN_KEY = Symbol.for("OpenTelemetry Context Key SPAN");
/** Where `@opentelemetry/api` looks for who is registered with it. */
const API_KEY = Symbol.for("opentelemetry.js.api.1");

/** Options of {@linkcode Tracing.start}. */
export interface StartOptions {
  /** `SpanKind`. */
  readonly kind: number;
  /** What is known of it. */
  readonly attributes: Attributes;
  /** Its parent; null: none. The active span by default. */
  readonly parent?: TraceContext | null;
}

/** Tracing that is on. */
export class Tracing {
  readonly #tracer: Tracer;
  readonly #contexts: ContextManager;

  /** @param telemetry Where spans go. */
  constructor(telemetry: Telemetry) {
    this.#tracer = telemetry.tracerProvider.getTracer("distchan");
    this.#contexts = telemetry.contextManager;
  }

  /** Starts a span. */
  start(name: string, options: StartOptions): Span {
    const { kind, attributes, parent } = options;
    if (parent === undefined) {
      return this.#tracer.startSpan(name, { kind, attributes });
    }
    if (parent === null) {
      return this.#tracer.startSpan(name, { kind, attributes, root: true });
    }
    return this.#tracer.startSpan(
      name,
      { kind, attributes },
      this.#contexts.active().setValue(SPAN_KEY, new RemoteSpan(parent)),
    );
  }

  /** Calls a function, and all that it awaits, with a span as the active one. */
  with<T>(span: Span, call: () => T): T {
    const context = this.#contexts.active().setValue(SPAN_KEY, span);
    return this.#contexts.with(context, call);
  }
}

/** A span that failed. */
export function fail(span: Span, error: Error): void {
  // A getter of the error's may throw, which is nobody else's matter.
  const { name, message, stack } = toThrown(error, { depth: 0 });
  span.recordException(
    stack !== undefined ? { name, message, stack } : { name, message },
  );
  span.setStatus({ code: STATUS_ERROR, message });
}

/**
 * A span of another process or thread: others can be its children, and what it
 * is told here is lost. It has all that a span of `@opentelemetry/api` has, for
 * handlers that ask for the active one.
 */
export class RemoteSpan implements Span {
  readonly #context: TraceContext & { readonly isRemote: true };

  /** @param context Where it belongs. */
  constructor(context: TraceContext) {
    this.#context = { ...context, isRemote: true };
  }

  spanContext(): TraceContext & { readonly isRemote: true } {
    return this.#context;
  }

  isRecording(): boolean {
    return false;
  }

  setAttribute(): this {
    return this;
  }

  setAttributes(): this {
    return this;
  }

  addEvent(): this {
    return this;
  }

  addLink(): this {
    return this;
  }

  addLinks(): this {
    return this;
  }

  setStatus(): this {
    return this;
  }

  updateName(): this {
    return this;
  }

  recordException(): void {}

  end(): void {}
}

/**
 * Tracing, if it is on; else null.
 *
 * The environment says so (`OTEL_DENO`, `OTEL_DENO_TRACING`,
 * `OTEL_SDK_DISABLED`), but to read it takes a permission. Deno has registered
 * its provider with `@opentelemetry/api` if and only if it is to be used, which
 * anybody may see.
 */
export function openTracing(
  scope: object = globalThis,
  telemetry: Telemetry | undefined = (Deno as { telemetry?: Telemetry })
    .telemetry,
): Tracing | null {
  if (telemetry === undefined) return null;
  const api = (scope as Record<symbol, { trace?: unknown } | undefined>)[
    API_KEY
  ];
  return api?.trace === telemetry.tracerProvider
    ? new Tracing(telemetry)
    : null;
}

let tracing: Tracing | null | undefined;

/** This process's tracing, null if it is off: that can't change. */
export function tracingOfProcess(): Tracing | null {
  if (tracing === undefined) tracing = openTracing();
  return tracing;
}
