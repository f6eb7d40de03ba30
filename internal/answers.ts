/**
 * What a worker answers: RESULT, DONE or ERROR for a delivery (PROTOCOL.md
 * section 5).
 *
 * @module
 */

import type { ClientLife } from "./client_life.ts";
import type { Connection } from "./connection.ts";
import { FrameType, ItemKind, MAX_UINT_BYTES } from "./frame.ts";
import type { PayloadCodec } from "./payload.ts";
import { writeError } from "./remote_error.ts";
import { SchemaQueue, type StandardSchemaV1 } from "./schema.ts";
import { toError } from "./thrown.ts";
import type { WorkItem } from "./work_items.ts";
import type { WorkSpans } from "./work_spans.ts";

/** What answers need of their client. */
export interface AnswersOptions {
  /** How far it is. */
  life: ClientLife;
  /** The codec. */
  payloads: PayloadCodec;
  /** What results must pass; null: nothing. */
  schema: StandardSchemaV1 | null;
  /** The spans of executions; null: tracing is off. */
  spans: WorkSpans | null;
  /** An item failed. */
  onFailed(id: number, error: Error): void;
  /** An item was answered. */
  onAnswered(): void;
  /** A result that waited for its schema has been answered. */
  onChecked(): void;
}

/** Writes answers. */
export class Answers {
  /** Whether the server wants results of items that aren't calls. */
  wantsResults = true;
  /** Whether results are payloads already. */
  takesPayloads = false;
  /** Whether errors go with their stacks. */
  sendStacks = false;
  readonly #connection: Connection;
  readonly #options: AnswersOptions;
  readonly #life: ClientLife;
  readonly #results: SchemaQueue | null;
  readonly #openResult = (delivery: number) => {
    const { frames } = this.#connection;
    frames.open(FrameType.RESULT);
    frames.out.writeUint(delivery);
  };

  constructor(connection: Connection, options: AnswersOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#life = options.life;
    const { schema } = options;
    this.#results = schema === null ? null : new SchemaQueue(schema);
  }

  /** Results that wait for their schema. */
  get pending(): number {
    return this.#results?.pending ?? 0;
  }

  /** Whether an item's result is wanted at all. */
  wants(item: WorkItem): boolean {
    return this.wantsResults || item.kind === ItemKind.CALL;
  }

  /** An item has a result. */
  result(item: WorkItem, value: unknown): void {
    if (!this.#life.isOpen) return;
    if (!this.wants(item)) this.done(item);
    else if (this.#results !== null) this.#check(this.#results, item, value);
    else this.#write(item, value);
  }

  /** An item is done and has no result of its own. */
  done(item: WorkItem): void {
    if (!this.#life.isOpen) return;
    const connection = this.#connection;
    connection.prepare();
    const { frames } = connection;
    // A number more could be too much for the frame that is open.
    if (frames.size + MAX_UINT_BYTES > frames.limit) frames.close();
    frames.open(FrameType.DONE);
    connection.out.writeUint(item.delivery);
    this.#answered(item, null);
  }

  /** An item failed. */
  error(item: WorkItem, thrown: unknown): void {
    if (!this.#life.isOpen) return;
    const error = toError(thrown);
    this.#options.onFailed(item.id, error);
    const connection = this.#connection;
    connection.prepare();
    writeError(connection.frames, item.delivery, {
      thrown,
      sendStack: this.sendStacks,
    });
    this.#answered(item, error);
  }

  #check(results: SchemaQueue, item: WorkItem, value: unknown): void {
    if (this.takesPayloads) {
      try {
        value = this.#options.payloads.read(value as Uint8Array);
      } catch (error) {
        this.error(item, error);
        return;
      }
    }
    const told = results.check(value, (checked) => {
      if (!this.#life.isOpen) return;
      if (checked.error !== null) this.error(item, checked.error);
      else this.#write(item, checked.value);
    });
    told?.then(() => this.#options.onChecked());
  }

  #write(item: WorkItem, value: unknown): void {
    const connection = this.#connection;
    connection.prepare();
    try {
      this.#options.payloads.write(
        connection.frames,
        value,
        this.#openResult,
        item.delivery,
        this.takesPayloads && this.#results === null,
      );
    } catch (error) {
      this.error(item, error);
      return;
    }
    this.#answered(item, null);
  }

  #answered(item: WorkItem, error: Error | null): void {
    const { spans } = this.#options;
    if (spans !== null) spans.end(item.delivery, error);
    this.#connection.schedule();
    this.#options.onAnswered();
  }
}
