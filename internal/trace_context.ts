/**
 * W3C trace context on the wire: what joins a worker's span to the server's
 * (PROTOCOL.md section 5, Traces). Pure: whether tracing is on is the matter of
 * tracing.ts.
 *
 * @module
 */

import type { ByteWriter } from "./byte_writer.ts";
import type { CborDecoder } from "./cbor_decoder.ts";
import { ProtocolError } from "./errors.ts";

/** Where a span belongs: what W3C's `traceparent` says, version 00. */
export interface TraceContext {
  /** The trace: 32 hexadecimal digits, not all zero. */
  readonly traceId: string;
  /** The span: 16 hexadecimal digits, not all zero. */
  readonly spanId: string;
  /** Bit 0: the span is sampled. */
  readonly traceFlags: number;
}

const TRACE_ID_BYTES = 16, SPAN_ID_BYTES = 8;
/** Bytes of a context on the wire: the two ids and the flags. */
const CONTEXT_BYTES = TRACE_ID_BYTES + SPAN_ID_BYTES + 1;
const NONE = new Uint8Array(0);

/** Writes the trace of an item; undefined: it has none. */
export function writeTrace(
  out: ByteWriter,
  context: TraceContext | undefined,
): void {
  if (context === undefined) return out.writeBytes(NONE);
  const bytes = new Uint8Array(CONTEXT_BYTES);
  bytes.setFromHex(context.traceId + context.spanId);
  bytes[CONTEXT_BYTES - 1] = context.traceFlags;
  out.writeBytes(bytes);
}

/**
 * Reads the trace of an item. Undefined if it has none, or one whose ids are
 * all zero: W3C has those ignored.
 *
 * @throws {ProtocolError} If it is of another length than it can be.
 */
export function readTrace(reader: CborDecoder): TraceContext | undefined {
  reader.readBytesRange();
  const { bytes, rangeStart, rangeEnd, rangeSize: length } = reader;
  if (length === 0) return undefined;
  if (length !== CONTEXT_BYTES) {
    throw new ProtocolError(
      `Cannot take ITEM: its trace is ${length} bytes, expected ${CONTEXT_BYTES} or none`,
    );
  }
  const middle = rangeStart + TRACE_ID_BYTES;
  const traceId = bytes.subarray(rangeStart, middle).toHex();
  const spanId = bytes.subarray(middle, middle + SPAN_ID_BYTES).toHex();
  if (/^0*$/.test(traceId) || /^0*$/.test(spanId)) return undefined;
  return { traceId, spanId, traceFlags: bytes[rangeEnd - 1]! };
}
