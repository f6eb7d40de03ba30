/**
 * The server's spans: one for each item, from the moment it is taken until it
 * is settled, however often it is sent meanwhile.
 *
 * @module
 */

import type { ByteWriter } from "./byte_writer.ts";
import type { Item, ItemTracer, RedeliveryCause, Worker } from "./delivery.ts";
import { writeTrace } from "./trace_context.ts";
import {
  type Attributes,
  fail,
  type Span,
  SpanKind,
  type Tracing,
} from "./tracing.ts";

/** The span of an item. */
interface Open {
  readonly span: Span;
  /** Of its last dispatch; null: there was none. */
  last: Attributes | null;
}

/** The spans of items that aren't settled. */
export class ItemSpans implements ItemTracer {
  readonly #tracing: Tracing;
  /** Beside the items, which so have no field for what is mostly off. */
  readonly #spans = new Map<Item, Open>();

  constructor(tracing: Tracing) {
    this.#tracing = tracing;
  }

  /** Its parent is the span that is active where the item came from. */
  taken(entry: Item): void {
    const span = this.#tracing.start("distchan item", {
      kind: SpanKind.PRODUCER,
      attributes: { "distchan.item.id": entry.id },
    });
    this.#spans.set(entry, { span, last: null });
  }

  dispatched(entry: Item, worker: Worker): void {
    const open = this.#spans.get(entry);
    if (open === undefined) return;
    open.last = {
      "distchan.item.attempt": entry.attempts,
      ...workerAttributes(worker),
    };
    open.span.addEvent("dispatched", open.last);
  }

  returned(entry: Item, worker: Worker, cause: RedeliveryCause): void {
    this.#spans.get(entry)?.span.addEvent("redelivered", {
      "distchan.cause": cause,
      ...workerAttributes(worker),
    });
  }

  /** Its handler threw, and is to be tried again. */
  retried(entry: Item, error: Error, delayMs: number): void {
    this.#spans.get(entry)?.span.addEvent("retry", {
      "distchan.delay_ms": delayMs,
      "exception.type": error.name,
      "exception.message": error.message,
    });
  }

  settled(entry: Item, error: Error | null): void {
    const span = this.#take(entry);
    if (error !== null && span !== undefined) fail(span, error);
    span?.end();
  }

  cancelled(entry: Item): void {
    const span = this.#take(entry);
    span?.addEvent("cancelled");
    span?.end();
  }

  /** Writes the trace of an item, for a worker that has asked for it. */
  write(out: ByteWriter, entry: Item): void {
    writeTrace(out, this.#spans.get(entry)?.span.spanContext());
  }

  #take(entry: Item): Span | undefined {
    const open = this.#spans.get(entry);
    if (open === undefined) return undefined;
    this.#spans.delete(entry);
    const { span, last } = open;
    // Only now: Deno keeps what a key was set to before beside the new value.
    if (last !== null) span.setAttributes(last);
    return span;
  }
}

function workerAttributes(worker: Worker): Attributes {
  const { id, name } = worker.info;
  return name === ""
    ? { "distchan.worker.id": id }
    : { "distchan.worker.id": id, "distchan.worker.name": name };
}
