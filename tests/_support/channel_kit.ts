/**
 * A server and its clients for tests of behaviour, over TCP or over pairs in
 * memory: one body, run over both.
 *
 * @module
 */

import {
  Client,
  type ClientOptions,
  type Handler,
  type HeartbeatOptions,
  Server,
  type ServerEvent,
  type ServerOptions,
  type WorkOptions,
} from "../../mod.ts";
import { MemoryConn, MemoryListener } from "./memory_pair.ts";
import { until, within } from "./within.ts";

/** What carries the connections. */
export type Net = "tcp" | "memory";

/** A heartbeat that wakes nobody, where something else has to. */
export const QUIET: Required<HeartbeatOptions> = {
  intervalMs: 60_000,
  timeoutMs: 60_000,
  dropMs: 60_000,
};

/** A listener, and how to connect to it. */
export interface Listening {
  listener: Deno.Listener;
  dial(): Promise<Deno.Conn>;
}

/** Where to listen, and how to connect there. */
export function listenOn(net: Net): Listening {
  if (net === "memory") {
    const listener = new MemoryListener();
    return { listener, dial: () => Promise.resolve(listener.connect()) };
  }
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  return {
    listener,
    dial: async () => {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port });
      conn.setNoDelay(true);
      return conn;
    },
  };
}

/** A client in `work()`. */
export interface KitWorker<Item, Result> {
  client: Client<Item, Result>;
  /** What `work()` returned. */
  done: Promise<void>;
}

/** A server and its clients. Disposing of it leaves none behind. */
export class Kit<Item = unknown, Result = unknown> implements AsyncDisposable {
  readonly server: Server<Item, Result>;
  /** Everything that the server told so far. */
  readonly events: ServerEvent<Item>[] = [];
  readonly #dial: () => Promise<Deno.Conn>;
  readonly #clients = new Map<Client<Item, Result>, Deno.Conn>();
  readonly #dones: Promise<void>[] = [];
  readonly #watchers = new Set<() => void>();

  /**
   * @param net What carries the connections.
   * @param options The server's.
   */
  constructor(net: Net, options: ServerOptions<Item, Result> = {}) {
    const { listener, dial } = listenOn(net);
    this.#dial = dial;
    this.server = new Server<Item, Result>(listener, {
      ...options,
      onEvent: (event) => {
        this.events.push(event);
        options.onEvent?.(event);
        for (const watcher of [...this.#watchers]) watcher();
      },
    });
  }

  /** A connection to the server that says nothing. */
  async dial(): Promise<Deno.Conn> {
    return await this.#dial();
  }

  /** A client whose handshake is done. */
  async client(options: ClientOptions = {}): Promise<Client<Item, Result>> {
    const conn = await this.#dial();
    const client = new Client<Item, Result>(conn, options);
    this.#clients.set(client, conn);
    await within(client.opened, 20_000, "handshake");
    return client;
  }

  /** A client in `work()` that the server may give items. */
  async worker(
    handler: Handler<Item, Result>,
    options: WorkOptions & { client?: ClientOptions } = {},
  ): Promise<KitWorker<Item, Result>> {
    const { client: clientOptions, ...workOptions } = options;
    const ids = new Set(this.server.workers.map(({ id }) => id));
    const client = await this.client(clientOptions);
    const done = client.work(handler, workOptions);
    let isOver = false; // it may have come and gone before anybody looked
    done.then(() => isOver = true, () => {});
    this.#dones.push(done);
    await until(
      () =>
        isOver ||
        this.server.workers.some((w) => !ids.has(w.id) && w.state === "active"),
      "a worker asks for items",
    );
    return { client, done };
  }

  /** Several clients in `work()`. */
  async workers(
    count: number,
    handler: (index: number) => Handler<Item, Result>,
    options: WorkOptions & { client?: ClientOptions } = {},
  ): Promise<KitWorker<Item, Result>[]> {
    const workers: KitWorker<Item, Result>[] = [];
    for (let i = 0; i < count; i++) {
      workers.push(await this.worker(handler(i), options));
    }
    return workers;
  }

  /** Ends a client's connection as the death of its process does. */
  crash(client: Client<Item, Result>): void {
    const conn = this.#clients.get(client)!;
    if (conn instanceof MemoryConn) conn.reset();
    else conn.close();
  }

  /** Workers that may be given items. */
  get actives(): number {
    return this.server.workers.filter((w) => w.state === "active").length;
  }

  /** Waits until so many workers may be given items. */
  async active(count: number): Promise<void> {
    await until(() => this.actives >= count, `${count} workers ask for items`);
  }

  /** An event of a type: one that was told already, or the next. */
  async event<T extends ServerEvent["type"]>(
    type: T,
    ms = 20_000,
  ): Promise<Extract<ServerEvent<Item>, { type: T }>> {
    const { promise, resolve } = Promise.withResolvers<ServerEvent<Item>>();
    const look = () => {
      const event = this.events.find((event) => event.type === type);
      if (event !== undefined) resolve(event);
    };
    this.#watchers.add(look);
    look();
    try {
      const event = await within(promise, ms, `event "${type}"`);
      return event as Extract<ServerEvent<Item>, { type: T }>;
    } finally {
      this.#watchers.delete(look);
    }
  }

  /** Aborts what is left, and waits until it is closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    await within(
      Promise.allSettled([
        this.server.abort(),
        ...[...this.#clients.keys()].map((client) => client.abort()),
        ...this.#dones,
      ]),
      10_000,
      "everything is closed",
    );
  }
}

/** One test over TCP, and one over memory. */
export function both(
  name: string,
  body: (net: Net) => Promise<void>,
): void {
  for (const net of ["memory", "tcp"] as const) {
    Deno.test(`${name} (${net})`, () => within(body(net), 20_000, name));
  }
}

/** Numbers from 0 on. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
