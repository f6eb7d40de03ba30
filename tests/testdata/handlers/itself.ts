// A program that is its own handler, and starts threads whoever loads it.
import { listen, work } from "../../../mod.ts";

const module = new URL(import.meta.url);
if (module.search === "?isolate") {
  await work({ port: 1, reconnect: false }, module, { isolate: true });
} else listen({ port: 0, local: { module, count: 1 } });

export default (n: number): number => n;
