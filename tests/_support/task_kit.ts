/**
 * What tests of tasks share: scripted workers at a kit's server.
 *
 * @module
 */

import type { Kit } from "./channel_kit.ts";
import { payload, ScriptedPeer, T } from "./scripted_peer.ts";
import { until } from "./within.ts";

/** Short times, for tests that wait for silence. */
export const QUICK = { intervalMs: 40, timeoutMs: 120, dropMs: 480 };

/** Silence is suspect soon, and forgiven for long. */
export const PATIENT = { intervalMs: 40, timeoutMs: 120, dropMs: 60_000 };

/** Options of {@linkcode scripted}. */
export interface ScriptedWorkerOptions {
  /** @default {"work"} */
  mode?: "work" | "stream";
  /** @default {64} */
  window?: number;
  /** @default {1} */
  concurrency?: number;
  /** What the server calls it. @default {"scripted"} */
  name?: string;
  /** The process that it says it is. @default {one of its own} */
  instance?: Uint8Array;
}

/** A worker that is a script, and that the server may give items. */
export async function scripted<Item, Result>(
  kit: Kit<Item, Result>,
  options: ScriptedWorkerOptions = {},
): Promise<ScriptedPeer> {
  const { mode = "work", name, instance, ...rest } = options;
  const peer = new ScriptedPeer(await kit.dial());
  const actives = kit.actives;
  await peer.join(mode, {
    ...rest,
    fields: {
      ...(name === undefined ? {} : { name }),
      ...(instance === undefined ? {} : { instance }),
    },
  });
  await until(() => kit.actives > actives, "the scripted worker is active");
  return peer;
}

/** The items of an ITEM frame: the numbers of their deliveries, and ids. */
export function itemsOf(fields: readonly unknown[]): {
  delivery: number;
  id: number;
  attempt: number;
}[] {
  const [attempt, , first, ...rest] = fields as number[];
  const items = [];
  for (let i = 0; i < rest.length; i += 2) {
    items.push({
      delivery: first! + i / 2,
      id: rest[i]!,
      attempt: attempt!,
    });
  }
  return items;
}

/** Takes so many items at a scripted worker. */
export async function takeItems(
  peer: ScriptedPeer,
  count: number,
): Promise<{ delivery: number; id: number; attempt: number }[]> {
  const items = [];
  while (items.length < count) {
    items.push(...itemsOf((await peer.until(T.ITEM)).fields));
  }
  return items;
}

/** Answers an item. */
export function answer(
  peer: ScriptedPeer,
  delivery: number,
  value: unknown,
): Promise<boolean> {
  return peer.say(T.RESULT, delivery, payload(value));
}

/** Reads, and answers PINGs, until the connection ends; returns when it has. */
export async function listenOnly(peer: ScriptedPeer): Promise<void> {
  while (await peer.next(60_000) !== null);
}
