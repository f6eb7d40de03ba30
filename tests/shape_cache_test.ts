import { assertEquals } from "@std/assert";
import { type Shape, ShapeCache } from "../internal/shape_cache.ts";

/** A short text string in CBOR. */
function encoded(key: string): Uint8Array {
  return Uint8Array.of(
    0x60 | key.length,
    ...new TextEncoder().encode(key),
  );
}

function learn(cache: ShapeCache, key: string): Shape | null {
  const bytes = encoded(key);
  return cache.learn(cache.root, key, bytes, 0, bytes.length);
}

Deno.test("ShapeCache.learn() learns few of many keys that are data, and goes on later", () => {
  const cache = new ShapeCache();
  const counts = [0, 0];
  for (const half of [0, 1]) {
    for (let i = 0; i < 17 * 1024; i++) {
      if (learn(cache, `${half} ${i}`) !== null) counts[half]!++;
    }
  }
  assertEquals(counts, [1024, 1024]);
});

Deno.test("ShapeCache.learn() forgets all when it learns again", () => {
  const cache = new ShapeCache();
  let last = learn(cache, "first")!;
  const bytes = encoded("next");
  for (let i = 1; i < 1024; i++) {
    last = cache.learn(last, "next", bytes, 0, bytes.length)!;
  }
  const first = encoded("first");
  const isKnown = () => cache.root.next(first, 0, first.length) !== null;
  for (let i = 1; i < 16 * 1024; i++) learn(cache, `strange ${i}`);
  assertEquals(isKnown(), true);
  learn(cache, "one more");
  assertEquals(isKnown(), false, "else memory would grow without end");
});

Deno.test("ShapeCache.learn() leaves what is known while it learns no more", () => {
  const cache = new ShapeCache();
  for (let i = 0; i < 1024 + 100; i++) learn(cache, `key ${i}`);
  const last = encoded("key 1023");
  assertEquals(cache.root.next(last, 0, last.length)?.key, "key 1023");
});

Deno.test("Shape.next() looks at 16 keys at most", () => {
  const cache = new ShapeCache();
  const isKnown = (key: string) => {
    const bytes = encoded(key);
    return cache.root.next(bytes, 0, bytes.length) !== null;
  };
  const keys = Array.from({ length: 17 }, (_, i) => `key ${i}`);
  for (const key of keys.slice(0, 16)) learn(cache, key);
  assertEquals(keys.filter(isKnown), keys.slice(0, 16));
  learn(cache, keys[16]!);
  assertEquals(keys.filter(isKnown), keys.slice(16));
});
