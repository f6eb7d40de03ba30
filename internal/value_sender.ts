/**
 * A client's values on their way to the server: they wait for credit and for
 * room in the output, and acknowledgements stay behind the values that were
 * sent before them.
 *
 * @module
 */

import type { ClientLife } from "./client_life.ts";
import type { Connection } from "./connection.ts";
import { CreditUse } from "./credit.ts";
import { FrameType } from "./frame.ts";
import type { PayloadCodec } from "./payload.ts";
import { deferred, rejected } from "./promises.ts";
import { Queue } from "./queue.ts";
import { type Checked, runSchema, type StandardSchemaV1 } from "./schema.ts";

/** What waits. */
type Outgoing =
  | {
    /** The value; null: its schema hasn't made up its mind. */
    checked: Checked | null;
    left: PromiseWithResolvers<void>;
  }
  | { ack: number };

/** What a sender needs of its client. */
export interface ValueSenderOptions {
  /** How far it is. */
  life: ClientLife;
  /** The codec. */
  payloads: PayloadCodec;
  /** What values must pass; null: nothing. */
  schema: StandardSchemaV1 | null;
  /** A value can't be sent. */
  onFailed(error: Error): void;
  /** All values before an acknowledgement have left. */
  onAck(delivery: number): void;
  /** Nothing waits any more. */
  onEmpty(): void;
}

/** Sends values. */
export class ValueSender {
  /** Whether values are payloads already. */
  takesPayloads = false;
  readonly #connection: Connection;
  readonly #options: ValueSenderOptions;
  readonly #life: ClientLife;
  readonly #outgoing = new Queue<Outgoing>();
  readonly #credit = new CreditUse();
  readonly #open = () => this.#connection.frames.open(FrameType.VALUE);
  #room: PromiseWithResolvers<void> | null = null;
  #end: PromiseWithResolvers<void> | null = null;

  constructor(connection: Connection, options: ValueSenderOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#life = options.life;
  }

  /** Whether `end()` was called. */
  get isEnded(): boolean {
    return this.#end !== null;
  }

  /** Whether nothing waits. */
  get isEmpty(): boolean {
    return this.#outgoing.length === 0;
  }

  /** The connection is lost, and what waits with it. */
  fail(error: unknown): void {
    this.#room?.reject(error);
    this.#end?.reject(error);
    for (const outgoing of this.#outgoing) {
      if ("left" in outgoing) outgoing.left.reject(error);
    }
    this.#outgoing.clear();
  }

  /** A credit came. */
  grant(values: number, bytes: number): void {
    this.#credit.grant(values, bytes);
    this.drain();
  }

  /** Takes a value; a promise if there is no room for another. */
  send(value: unknown): Promise<void> | undefined {
    if (this.#life.error !== null) return rejected(this.#life.error);
    const { schema } = this.#options;
    if (schema !== null) {
      const checked = this.#check(schema, value);
      if (checked instanceof Promise) return this.#queue(checked);
      if (checked.error !== null) return this.#refuse(checked.error);
      value = checked.value;
    }
    if (this.#outgoing.length > 0 || !this.#hasCredit) {
      return this.#queue({ value, error: null });
    }
    try {
      this.#write(value);
    } catch (error) {
      return this.#refuse(error);
    }
    // A getter of the value may have aborted the client, or ended its values.
    if (this.#life.error !== null) return rejected(this.#life.error);
    if (this.#hasRoom) return undefined;
    return (this.#room ??= deferred<void>()).promise;
  }

  /** Takes a value; a promise until it has left. It throws for a bad value. */
  write(value: unknown): Promise<void> | undefined {
    if (this.#life.error !== null) return rejected(this.#life.error);
    const { schema } = this.#options;
    if (schema !== null) {
      const checked = this.#check(schema, value);
      if (checked instanceof Promise) return this.#queue(checked);
      if (checked.error !== null) throw checked.error;
      value = checked.value;
    }
    if (
      this.#outgoing.length > 0 || !this.#hasCredit || this.#connection.busy
    ) return this.#queue({ value, error: null });
    this.#write(value);
    return undefined;
  }

  /** A schema checks values: a payload is read for it. */
  #check(
    schema: StandardSchemaV1,
    value: unknown,
  ): Checked | Promise<Checked> {
    try {
      if (this.takesPayloads) {
        value = this.#options.payloads.read(value as Uint8Array);
      }
    } catch (error) {
      return { error: error as Error };
    }
    return runSchema(schema, value);
  }

  /** Acknowledges a delivery, behind the values that were sent before. */
  ack(delivery: number): void {
    if (this.#outgoing.length > 0) this.#outgoing.push({ ack: delivery });
    else this.#options.onAck(delivery);
  }

  /** No more values. Resolves once all have left. */
  end(): Promise<void> {
    if (this.#life.error !== null) return rejected(this.#life.error);
    if (this.#end === null) {
      this.#end = deferred<void>();
      if (this.isEmpty) this.#resolve();
    }
    return this.#end.promise;
  }

  /** There is credit, or the output has room again. */
  drain(): void {
    const outgoing = this.#outgoing;
    while (outgoing.length > 0) {
      const next = outgoing.peek()!;
      if ("ack" in next) {
        outgoing.shift();
        this.#options.onAck(next.ack);
        continue;
      }
      const { checked, left } = next;
      if (checked === null || !this.#hasCredit || this.#connection.busy) break;
      outgoing.shift();
      try {
        if (checked.error !== null) throw checked.error;
        this.#write(checked.value);
        left.resolve();
      } catch (error) {
        this.#options.onFailed(error as Error);
        left.reject(error);
      }
    }
    if (outgoing.length > 0) return;
    this.#resolve();
    this.#options.onEmpty();
  }

  /** Nothing waits: what that means for whoever sends. */
  #resolve(): void {
    this.#end?.resolve();
    if (!this.#hasRoom) return;
    this.#room?.resolve();
    this.#room = null;
  }

  get #hasCredit(): boolean {
    return this.#life.isOpen && this.#credit.open;
  }

  /** Whether the last value has nothing to wait for: a next one may come. */
  get #hasRoom(): boolean {
    // After the end there is none.
    return this.#end !== null || (this.#hasCredit && !this.#connection.busy);
  }

  /** A value takes its place in the queue, and leaves it once it has passed. */
  #queue(checked: Checked | Promise<Checked>): Promise<void> {
    // A schema of the value may have aborted the client.
    if (this.#life.error !== null) return rejected(this.#life.error);
    const left = deferred<void>();
    if (!(checked instanceof Promise)) this.#outgoing.push({ checked, left });
    else {
      const outgoing: Outgoing = { checked: null, left };
      this.#outgoing.push(outgoing);
      checked.then((checked) => {
        outgoing.checked = checked;
        if (this.#life.isOpen) this.drain();
      });
    }
    return left.promise;
  }

  #refuse(error: unknown): Promise<never> {
    this.#options.onFailed(error as Error);
    return rejected(error);
  }

  #write(value: unknown): void {
    const connection = this.#connection;
    connection.prepare();
    this.#credit.sent(
      this.#options.payloads.write(
        connection.frames,
        value,
        this.#open,
        undefined,
        this.takesPayloads && this.#options.schema === null,
      ),
    );
    connection.schedule();
  }
}
