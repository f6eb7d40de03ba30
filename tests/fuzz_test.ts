/**
 * The short, fixed part of `deno task fuzz`: the whole corpus, and the same few
 * hundred changed inputs every time.
 *
 * @module
 */

import { assertEquals, assertGreater, assertRejects } from "@std/assert";
import { corpusOf, Finding, fuzz } from "../tools/fuzz.ts";
import { type Target, TARGETS } from "../tools/fuzz_targets.ts";

const COUNTS: Record<string, number> = {
  server: 150,
  client: 300,
  transforms: 500,
};

for (const target of TARGETS) {
  Deno.test(`fuzz: ${target.name}`, async () => {
    assertGreater(corpusOf(target).length, 0, "there is no corpus");
    const count = COUNTS[target.name] ?? 3000;
    const { inputs } = await fuzz(target, { seed: 5, count });
    assertGreater(inputs, count);
  });
}

function targetOf(run: Target["run"]): Target {
  return {
    name: "a test's own",
    framesFrom: -1,
    seeds: () => [new Uint8Array([1, 2, 3])],
    run,
  };
}

Deno.test("fuzz() tells of an input that breaks a rule", async () => {
  const target = targetOf((input) => {
    if (input[0] === 7) throw new TypeError("seven");
    return "fine";
  });
  const finding = await assertRejects(
    () => fuzz(target, { seed: 1, count: 100_000 }),
    Finding,
    "seven",
  );
  assertEquals(finding.input[0], 7);
});

Deno.test("fuzz() tells of memory that grows", async () => {
  const kept: Uint8Array[] = [];
  const target = targetOf(() => {
    if (kept.length < 8) kept.push(new Uint8Array(64 << 20).fill(1));
    return "fine";
  });
  await assertRejects(
    () => fuzz(target, { seed: 1, count: 1000 }),
    Finding,
    "memory grew by",
  );
});

Deno.test("fuzz() tells of an error that nobody caught", async () => {
  const target = targetOf(async (input) => {
    if (input[0] === 7) Promise.reject(new TypeError("seven"));
    await new Promise((resolve) => setTimeout(resolve));
    return "fine";
  });
  await assertRejects(
    () => fuzz(target, { seed: 1, count: 100_000 }),
    Finding,
    "seven",
  );
});

Deno.test("fuzz() tries the same inputs for the same seed", async () => {
  const runs = await Promise.all([1, 1, 2].map(async (seed) => {
    const inputs: string[] = [];
    await fuzz(
      targetOf((input) => String(inputs.push(input.toHex()) % 7)),
      { seed, count: 100 },
    );
    return inputs.join();
  }));
  assertEquals(runs[0], runs[1]);
  assertEquals(runs[0] === runs[2], false);
});
