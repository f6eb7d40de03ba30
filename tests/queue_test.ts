import { assertEquals } from "@std/assert";
import { Queue, SizedQueue } from "../internal/queue.ts";
import { seeded } from "./_support/rng.ts";

Deno.test("Queue gives values in the order in which they came", () => {
  const queue = new Queue<number>();
  for (let i = 0; i < 100; i++) queue.push(i);
  assertEquals(queue.length, 100);
  for (let i = 0; i < 100; i++) assertEquals(queue.shift(), i);
  assertEquals(queue.length, 0);
});

Deno.test("Queue that is empty gives undefined", () => {
  const queue = new Queue<number>();
  assertEquals(queue.shift(), undefined);
  assertEquals(queue.peek(), undefined);
  assertEquals([...queue], []);
});

Deno.test("Queue.peek() leaves the first value in place", () => {
  const queue = new Queue<number | undefined>();
  queue.push(undefined);
  queue.push(2);
  assertEquals(queue.peek(), undefined);
  assertEquals(queue.length, 2);
  queue.shift();
  assertEquals(queue.peek(), 2);
});

Deno.test("Queue.clear() takes everything out, and it goes on", () => {
  const queue = new Queue<number>();
  for (let i = 0; i < 50; i++) queue.push(i);
  queue.shift();
  queue.clear();
  assertEquals([queue.length, queue.shift()], [0, undefined]);
  queue.push(1);
  assertEquals([...queue], [1]);
});

Deno.test("Queue does what an array would, at random", () => {
  const rng = seeded("queue");
  const queue = new Queue<number>();
  let model: number[] = [];
  for (let step = 0; step < 50_000; step++) {
    const what = rng.float();
    // It grows for a while, then shrinks for a while.
    const growing = Math.floor(step / 3000) % 2 === 0;
    if (what < (growing ? 0.6 : 0.4)) {
      queue.push(step);
      model.push(step);
    } else if (what < 0.98) assertEquals(queue.shift(), model.shift());
    else if (what < 0.999) {
      assertEquals(queue.peek(), model[0]);
      assertEquals([...queue], model);
    } else if (rng.chance(0.2)) {
      queue.clear();
      model = [];
    }
    assertEquals(queue.length, model.length);
  }
  assertEquals([...queue], model);
});

Deno.test("SizedQueue does what an array would, at random", () => {
  const rng = seeded("sized queue");
  const queue = new SizedQueue<number, string>();
  const model: { value: number; bytes: number; from: string }[] = [];
  for (let step = 0; step < 5000; step++) {
    const growing = Math.floor(step / 300) % 2 === 0;
    if (rng.chance(growing ? 0.6 : 0.4)) {
      const bytes = rng.int(0, 100), from = `from ${rng.int(0, 3)}`;
      queue.push(step, bytes, from);
      model.push({ value: step, bytes, from });
    } else if (model.length > 0) {
      const { value, bytes, from } = model.shift()!;
      assertEquals([queue.firstBytes, queue.firstFrom], [bytes, from]);
      assertEquals(queue.shift(), value);
    }
    assertEquals(queue.length, model.length);
    assertEquals(queue.bytes, model.reduce((sum, { bytes }) => sum + bytes, 0));
    if (step % 100 > 0) continue;
    const origins = model.map(({ from, bytes }) => ({ from, bytes }));
    assertEquals(queue.origins, origins);
  }
  queue.clear();
  assertEquals([queue.length, queue.bytes, queue.origins], [0, 0, []]);
});
