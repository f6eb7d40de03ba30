/**
 * The reading side of a client: items come in as far as credit goes, wait for a
 * reader or a runner, and are settled, or handed back to the server.
 *
 * ```text
 *              its schema          outlet: settled when the reader asks on
 *   ITEM ──►───┴──────────┴──►──┬─────────────────────────────► ACK
 *                               └─ runner: settled when it is answered
 *   leaving: what isn't begun goes back ──────────────────────► LEAVE
 * ```
 *
 * @module
 */

import type { Answers } from "./answers.ts";
import type { CborDecoder } from "./cbor_decoder.ts";
import { Outlet } from "./channel.ts";
import type { ClientControl } from "./client_control.ts";
import type { ClientLife } from "./client_life.ts";
import type { Connection } from "./connection.ts";
import { MAX_WINDOW } from "./credit.ts";
import { ProtocolError } from "./errors.ts";
import {
  FrameType,
  ItemKind,
  MAX_UINT_BYTES,
  MIN_PLAIN_BYTES,
  Mode,
} from "./frame.ts";
import { DEFAULTS } from "./options.ts";
import type { PayloadCodec } from "./payload.ts";
import type { Runner } from "./runner.ts";
import { SchemaQueue, type StandardSchemaV1 } from "./schema.ts";
import { readTrace } from "./trace_context.ts";
import type { WorkItem } from "./work_items.ts";

/** Deliveries in a LEAVE: it is to fit into the smallest frame there may be. */
const MAX_NAMED = Math.floor((MIN_PLAIN_BYTES - 1) / MAX_UINT_BYTES);

/** What an intake needs of its client. */
export interface IntakeOptions {
  /** How far it is. */
  readonly life: ClientLife;
  /** The codec. */
  readonly payloads: PayloadCodec;
  /** What items must pass; undefined: nothing. */
  readonly schema: StandardSchemaV1 | undefined;
  /** How many items may be here. */
  readonly prefetch: number | "auto";
  /** Where credit goes, and what is handed back. */
  readonly control: ClientControl;
  /** Where failures go of items that can't be read. */
  readonly answers: Answers;
  /** The reader has settled all that it was handed, up to a delivery. */
  onSettled(delivery: number): void;
  /** Nothing more may be read: perhaps all is done. */
  onDone(): void;
}

/** How `work()` takes items. */
export interface IntakeWork {
  /** Items that run at once. */
  readonly concurrency: number;
  /** Whether the runner takes payloads, not values. */
  readonly takesPayloads: boolean;
}

/** Takes items in. */
export class Intake<Item> {
  /** Where a reader takes them out. */
  readonly outlet: Outlet<Item, number>;
  /** Whether `work()` was called; its handler may not be loaded yet. */
  isWork = false;
  /** Whether items come with their traces. */
  hasTraces = false;
  readonly #connection: Connection;
  readonly #options: IntakeOptions;
  readonly #life: ClientLife;
  readonly #payloads: PayloadCodec;
  readonly #items: SchemaQueue | null;
  #runner: Runner | null = null;
  #concurrency = 1;
  #takesPayloads = false;
  /** Whether all that came before END is read. */
  #isAtEnd = false;
  /** Whether reading has ended before that, and the rest goes back. */
  #isLeaving = false;
  #hasEnd = false;
  #nextDelivery = 0;
  /** Items that are here and aren't settled, and how many there may be. */
  #held = 0;
  #window = 0;
  /** Those of them that were handed to the reader since the last ACK. */
  #handedSince = 0;
  /** The last delivery that the reader was handed. */
  #handed = -1;
  /** Deliveries up to here are settled by the reader. */
  #settled = -1;

  /**
   * @param connection Where items come from.
   * @param options The codec, and whom to tell.
   */
  constructor(connection: Connection, options: IntakeOptions) {
    this.#connection = connection;
    this.#options = options;
    const { life, payloads, schema } = options;
    this.#life = life;
    this.#payloads = payloads;
    this.#items = schema === undefined ? null : new SchemaQueue(schema);
    this.outlet = new Outlet<Item, number>({
      onTaken: () => this.grant(),
      onAsk: () => this.#settleHanded(),
      onRead: (_bytes, delivery) => {
        this.#handed = delivery;
        this.#handedSince++;
      },
      onReachedEnd: () => this.#done(),
      onCancel: (_reason, unread) => {
        this.#leaveUnread(unread.map(({ from }) => from));
        options.onDone();
      },
    }, { name: "client.readable", burst: 1 });
  }

  /** What executes items; null: nobody, or the handler isn't loaded yet. */
  get runner(): Runner | null {
    return this.#runner;
  }

  /** Whether nothing more is read; what a runner has may not be done yet. */
  get isDone(): boolean {
    return this.#isAtEnd || this.#isLeaving;
  }

  /** Whether END came. */
  get hasEnd(): boolean {
    return this.#hasEnd;
  }

  /** A runner executes the items. */
  work(runner: Runner, { concurrency, takesPayloads }: IntakeWork): void {
    this.#concurrency = concurrency;
    this.#takesPayloads = takesPayloads;
    this.#runner = runner;
    this.grant();
  }

  /** Lets the server send items, once somebody takes them. */
  grant(): void {
    // Who leaves before it has asked for anything asks for nothing.
    if (!this.#life.isOpen || this.#isLeaving) return;
    const isWork = this.#runner !== null;
    // Items of work() wait until its handler is loaded.
    if (!isWork && (this.isWork || !this.outlet.isTaken)) return;
    const { prefetch, control } = this.#options;
    const isAuto = prefetch === "auto";
    this.#window = !isAuto
      ? prefetch
      : isWork
      ? MAX_WINDOW
      : DEFAULTS.streamPrefetch;
    control.uints(FrameType.CREDIT, [
      isWork ? Mode.WORK : Mode.STREAM,
      isWork ? this.#concurrency : 1,
      this.#window,
      isAuto && isWork ? 1 : 0,
    ]);
  }

  /** ITEM came. */
  onItem(reader: CborDecoder): void {
    const attempt = reader.readUint();
    const kind = reader.readUint();
    let delivery = reader.readUint();
    if (kind > ItemKind.CALL || delivery !== this.#nextDelivery) {
      throw new ProtocolError(
        `Cannot take ITEM: kind ${kind}, delivery ${delivery}, expected ${this.#nextDelivery}`,
      );
    }
    this.#payloads.beginFrame();
    const handedBack: number[] = [];
    /** When the first of them was answered at once, if any was. */
    let answeredAt: number | null = null;
    // Of what is answered below the server knew nothing when it sent this.
    let unsettled = this.#held;
    do {
      const id = reader.readUint();
      const trace = this.hasTraces ? readTrace(reader) : undefined;
      reader.readBytesRange();
      this.#held++;
      if (++unsettled > this.#window || this.#hasEnd) {
        throw new ProtocolError(
          this.#hasEnd
            ? "Cannot take ITEM: END came before it"
            : `Cannot take ITEM: ${unsettled} are unsettled, the window is ${this.#window}`,
        );
      }
      const current = delivery++;
      if (this.#isLeaving || !this.#life.isOpen) {
        if (this.#life.isOpen) handedBack.push(current);
        answeredAt ??= performance.now();
        continue;
      }
      const bytes = reader.rangeSize;
      let value: unknown;
      try {
        value = this.#takesPayloads && this.#items === null
          ? reader.rangeBytes()
          : this.#payloads.readFrom(reader);
      } catch (error) {
        const item = { delivery: current, id, attempt, kind, value };
        answeredAt ??= performance.now();
        this.#options.answers.error(item, error);
        continue;
      }
      if (this.#runner === null && this.#items === null) {
        this.outlet.push(value as Item, bytes, current);
        continue;
      }
      const plain = { delivery: current, id, attempt, kind, value };
      const item = trace === undefined ? plain : { ...plain, trace };
      if (this.#items !== null) {
        answeredAt ??= performance.now(); // perhaps
        this.#check(this.#items, item, bytes);
      } else this.#push(item, bytes);
    } while (!reader.done);
    this.#nextDelivery = delivery;
    if (handedBack.length > 0) this.#handBack(handedBack);
    if (answeredAt !== null) this.#connection.holdUntilRoom(answeredAt);
  }

  /** END came: there are no more items. */
  onEnd(): void {
    if (this.#hasEnd) {
      throw new ProtocolError("Cannot take END: it came before");
    }
    this.#hasEnd = true;
    const isRead = !this.isWork && this.outlet.isTaken;
    this.outlet.end(this.#handed === this.#settled);
    if (!isRead) this.#done();
  }

  /**
   * CANCEL came: an item isn't needed any more. A reader has it, or will: to
   * take it back would leave a hole in what it reads.
   */
  cancel(delivery: number): void {
    this.#runner?.cancel(delivery);
  }

  /** An item was answered. */
  answered(): void {
    this.#held--;
  }

  /** `work()` ends early: what isn't begun goes back, the rest is finished. */
  leave(): void {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    this.#handBack(this.#runner!.takeWaiting().map((i) => i.delivery));
    this.#options.onDone();
  }

  /** A reader ends early: what it was handed is settled, the rest goes back. */
  close(): void {
    if (this.#isLeaving) return;
    if (!this.outlet.isLeftOver) this.#settleHanded();
    // Not with the goodbye, for which values may wait.
    this.#leaveUnread(this.outlet.close(this.#handed === this.#settled));
  }

  /** Everything that runs is told to stop, and what waits is dropped. */
  abortRunner(reason: unknown): void {
    this.#runner?.takeWaiting();
    this.#runner?.abort(reason);
  }

  /** The reader asks for the next item: those that it was handed are settled. */
  #settleHanded(): void {
    if (this.#handed <= this.#settled) return;
    this.#settled = this.#handed;
    this.#held -= this.#handedSince;
    this.#handedSince = 0;
    this.#options.onSettled(this.#settled);
  }

  #push(item: WorkItem, bytes: number): void {
    if (this.#runner !== null) this.#runner.push(item);
    else this.outlet.push(item.value as Item, bytes, item.delivery);
  }

  /** Nothing more is read before it is known whether an item passes. */
  #check(items: SchemaQueue, item: WorkItem, bytes: number): void {
    const { answers } = this.#options;
    const told = items.check(item.value, (checked) => {
      if (!this.#life.isOpen) return;
      if (this.#isLeaving) this.#handBack([item.delivery]);
      else if (checked.error !== null) answers.error(item, checked.error);
      else this.#pushChecked(item, checked.value, bytes);
    });
    if (told !== null) this.#connection.hold(told);
  }

  #pushChecked(item: WorkItem, value: unknown, bytes: number): void {
    try {
      if (this.#takesPayloads) value = this.#payloads.encode(value);
    } catch (error) {
      this.#options.answers.error(item, error);
      return;
    }
    this.#push({ ...item, value }, bytes);
  }

  /** The reader reads no more: what it has not settled goes back. */
  #leaveUnread(unread: number[]): void {
    this.#isLeaving = true;
    // The last one alone: between it and what is settled there is only what an
    // ERROR has answered.
    if (this.#handed > this.#settled) unread.unshift(this.#handed);
    this.#handBack(unread);
  }

  #handBack(deliveries: readonly number[]): void {
    // Who has asked for nothing has nothing to hand back, and may not say so.
    if (!this.#life.isOpen || this.#window === 0) return;
    const { control } = this.#options;
    this.#held -= deliveries.length;
    let at = 0;
    do { // at least one, though it names nothing
      control.uints(FrameType.LEAVE, deliveries.slice(at, at + MAX_NAMED));
      at += MAX_NAMED;
    } while (at < deliveries.length);
  }

  #done(): void {
    this.#isAtEnd = true;
    this.#options.onDone();
  }
}
