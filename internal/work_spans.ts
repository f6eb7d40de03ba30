/**
 * The worker's spans: one for each execution of an item, a child of the
 * server's, and the active one while the handler runs. What the handler does,
 * `fetch()` above all, so belongs to the trace.
 *
 * @module
 */

import type { TraceContext } from "./trace_context.ts";
import {
  fail,
  RemoteSpan,
  type Span,
  SpanKind,
  type Tracing,
} from "./tracing.ts";
import type { WorkItem } from "./work_items.ts";
import type { HandlerScope } from "./runner.ts";

/** The spans of what a connection's runner has begun. */
export class WorkSpans implements HandlerScope {
  readonly #tracing: Tracing;
  /** By delivery: no two of a connection are the same. */
  readonly #spans = new Map<number, Span>();

  constructor(tracing: Tracing) {
    this.#tracing = tracing;
  }

  run<T>(item: WorkItem, call: () => T): T {
    // A generator is called first, and iterated over then.
    const span = this.#spans.get(item.delivery) ?? this.#begin(item);
    return this.#tracing.with(span, call);
  }

  /** Begins an item that an isolate executes, which joins the span by this. */
  beginElsewhere(item: WorkItem): WorkItem {
    // A span can't be posted, nor all that its context may have.
    const { traceId, spanId, traceFlags } = this.#begin(item).spanContext();
    const trace: TraceContext = { traceId, spanId, traceFlags };
    return { ...item, trace };
  }

  /** An item is answered. */
  end(delivery: number, error: Error | null): void {
    const span = this.#spans.get(delivery);
    if (span === undefined) return; // never begun
    this.#spans.delete(delivery);
    if (error !== null) fail(span, error);
    span.end();
  }

  /** The connection is over: nothing will be answered any more. */
  stop(error: Error): void {
    for (const delivery of [...this.#spans.keys()]) this.end(delivery, error);
  }

  #begin(item: WorkItem): Span {
    const span = this.#tracing.start("distchan work", {
      kind: SpanKind.CONSUMER,
      attributes: {
        "distchan.item.id": item.id,
        "distchan.item.attempt": item.attempt,
      },
      // Without one it begins a trace: what is active here isn't its matter.
      parent: item.trace ?? null,
    });
    this.#spans.set(item.delivery, span);
    return span;
  }
}

/** Inside of an isolate: the span is outside, where it survives a crash. */
export class RemoteScope implements HandlerScope {
  readonly #tracing: Tracing;

  constructor(tracing: Tracing) {
    this.#tracing = tracing;
  }

  run<T>(item: WorkItem, call: () => T): T {
    return item.trace === undefined
      ? call()
      : this.#tracing.with(new RemoteSpan(item.trace), call);
  }
}
