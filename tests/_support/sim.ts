/**
 * Dispatch in simulated time: the real queues, strategies and windows, workers
 * that are objects, a clock that jumps, and a network that is a delay.
 *
 * @module
 */

import {
  Delivery,
  type DeliveryOptions,
  type Item,
  type Way,
  type Worker,
} from "../../internal/delivery.ts";
import {
  RoundRobin,
  type Strategy,
  type WorkerInfo,
} from "../../internal/dispatcher.ts";
import { ItemKind, Mode } from "../../internal/frame.ts";
import { InFlight } from "../../internal/in_flight.ts";
import { ItemWindow } from "../../internal/item_window.ts";
import { Queue } from "../../internal/queue.ts";

/** A clock that jumps from one event to the next. */
export class Clock {
  /** The time, in ms. */
  now = 1;
  #next = 0;
  readonly #events: { at: number; order: number; run: () => void }[] = [];

  /** Does something later. */
  after(ms: number, run: () => void): void {
    this.#events.push({ at: this.now + ms, order: this.#next++, run });
  }

  /** Lets time pass until nothing is left to do, or a time comes. */
  run(until: number = Infinity): void {
    for (;;) {
      let first = -1;
      for (let i = 0; i < this.#events.length; i++) {
        const a = this.#events[i]!, b = this.#events[first];
        if (
          b === undefined || a.at < b.at ||
          (a.at === b.at && a.order < b.order)
        ) first = i;
      }
      if (first < 0 || this.#events[first]!.at > until) {
        if (until !== Infinity) this.now = until;
        return;
      }
      const [event] = this.#events.splice(first, 1);
      this.now = event!.at;
      event!.run();
    }
  }
}

/** Options of {@linkcode SimWorker}. */
export interface SimWorkerOptions {
  /** How long an item takes here, in ms. */
  takes: (item: unknown) => number;
  /** @default {1} */
  concurrency?: number;
  /** The way there, and the way back, in ms. @default {0} */
  latencyMs?: number;
}

/** A worker in simulated time, with an adaptive window. */
export class SimWorker implements Worker {
  readonly hasMore = false;
  readonly inFlight: InFlight<Worker> = new InFlight();
  readonly mode: number = Mode.WORK;
  readonly concurrency: number;
  readonly instance: string;
  readonly isWorker = true;
  readonly isOpen = true;
  isSuspect = false;
  isAlone = false;
  isReserved = false;
  /** The window under test. */
  readonly window: ItemWindow = new ItemWindow(Infinity);
  /** What was executed here, in order. */
  readonly executed: unknown[] = [];
  /** The time that was spent idle, since the first item came, in ms. */
  idleMs = 0;
  /** Since when nothing runs; 0: something does. */
  idleSince: number;
  readonly id: number;
  readonly isExpected = false;
  readonly #sim: Sim;
  readonly #options: SimWorkerOptions;
  readonly #waiting: { delivery: number; item: unknown }[] = [];
  #running = 0;

  constructor(sim: Sim, id: number, options: SimWorkerOptions) {
    this.#sim = sim;
    this.#options = options;
    this.id = id;
    this.instance = `instance ${id}`;
    this.concurrency = options.concurrency ?? 1;
    this.window.measured(2 * (options.latencyMs ?? 0));
    const { concurrency } = this, { length } = sim.delivery.workers;
    this.window.grant({ concurrency, limit: 4096, isAdaptive: true }, length);
    this.idleSince = sim.clock.now;
  }

  get info(): WorkerInfo {
    return {
      id: this.id,
      name: "",
      addr: { transport: "tcp", hostname: "127.0.0.1", port: this.id },
      inFlight: this.inFlight.count,
      settled: this.executed.length,
      failed: 0,
      ratePerSecond: 0,
      rttMs: undefined,
      state: "active",
    };
  }

  get hasRoom(): boolean {
    return this.window.hasRoom(this.inFlight.count);
  }

  /** Items that are here and not begun. */
  get unbegun(): number {
    return this.#waiting.length;
  }

  deliver(entry: Item): boolean {
    const { clock } = this.#sim;
    if (this.inFlight.count === 0) this.window.adaptive!.busy(clock.now);
    const delivery = this.inFlight.next;
    entry.bytes = 1;
    entry.hold(this, delivery);
    this.inFlight.add(entry);
    this.window.sent(this.inFlight.count);
    clock.after(this.#options.latencyMs ?? 0, () => {
      this.#waiting.push({ delivery, item: entry.item });
      this.#run();
    });
    return true;
  }

  cancel(): void {}

  #run(): void {
    const { clock } = this.#sim;
    while (this.#waiting.length > 0 && this.#running < this.concurrency) {
      const { delivery, item } = this.#waiting.shift()!;
      if (this.#running++ === 0) {
        this.idleMs += clock.now - this.idleSince;
        this.idleSince = 0;
      }
      clock.after(this.#options.takes(item), () => {
        this.executed.push(item);
        if (--this.#running === 0) this.idleSince = clock.now;
        clock.after(
          this.#options.latencyMs ?? 0,
          () => this.#settled(delivery),
        );
        this.#run();
      });
    }
    this.#sim.onStep();
  }

  #settled(delivery: number): void {
    const { clock, delivery: queues } = this.#sim;
    const entry = this.inFlight.take(delivery) as Item;
    this.window.settled(1);
    queues.result(this, entry, entry.item, 0);
    this.window.endBatch(
      this.inFlight.count,
      clock.now,
      queues.workers.length,
    );
    queues.pump();
  }
}

/** A server in simulated time: one way in, whose results are always read. */
export class Sim {
  readonly clock: Clock = new Clock();
  readonly delivery: Delivery;
  readonly workers: SimWorker[] = [];
  /** Results, in the order in which they came. */
  readonly results: unknown[] = [];
  /** When the last one came. */
  endedAt = 0;
  /** Called at every step. */
  onStep: () => void = () => {};
  readonly #way: Way;

  constructor(options: { strategy?: Strategy<Worker> } = {}) {
    const { strategy = new RoundRobin<Worker>() } = options;
    this.delivery = new Delivery({
      strategy,
      maxDeliveries: 3,
      schema: null,
      tracer: null,
      events: {
        onRedelivered: () => {},
        onFailed: (failure) => {
          throw failure;
        },
        onDuplicate: () => {},
        onLetGo: () => {},
        onIdle: () => {},
      },
    } as DeliveryOptions);
    this.#way = {
      kind: ItemKind.CALL,
      queue: new Queue<Item>(),
      hasPlace: () => true,
      dispatched: () => {},
      result: (_entry, value) => {
        this.results.push(value);
        this.endedAt = this.clock.now;
      },
      done: () => {},
      failed: () => {},
      pumped: () => {},
    };
    this.delivery.addWay(this.#way);
  }

  /** Adds a worker. */
  worker(options: SimWorkerOptions): SimWorker {
    const worker = new SimWorker(this, this.workers.length, options);
    this.workers.push(worker);
    this.delivery.addWorker(worker);
    this.delivery.pump();
    return worker;
  }

  /** A worker dies. */
  kill(worker: SimWorker): void {
    this.delivery.removeWorker(worker, {
      worker: "",
      at: 0,
      reason: "died",
      instance: worker.instance,
    });
  }

  /** Takes an item. */
  offer(item: unknown): void {
    this.delivery.offer(item, this.#way, 0);
  }
}
