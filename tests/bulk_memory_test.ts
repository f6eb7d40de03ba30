/** Long byte strings cost little more than their bytes. */

import { assert, assertEquals, assertLess } from "@std/assert";

/**
 * Copies 1 MiB eight times and frees all eight, as a collection does, a hundred
 * times; prints the page faults of the second half.
 */
const FAULTS = `
const faults = () =>
  Number(Deno.readTextFileSync("/proc/self/stat").split(") ")[1].split(" ")[7]);
const source = new Uint8Array(1 << 20).fill(1);
let from = 0;
for (let i = 0; i < 100; i++) {
  if (i === 50) from = faults();
  const copies = Array.from({ length: 8 }, () => new Uint8Array(source));
  for (const { buffer } of copies) buffer.transfer(0);
}
console.log(faults() - from);
`;

/** Copies 64 KiB forty thousand times, and keeps the last 8 MiB. */
const GARBAGE = `
const source = new Uint8Array(1 << 16).fill(1);
const kept = [];
for (let i = 0; i < 40_000; i++) {
  kept[i % 128] = new Uint8Array(source);
  if (i % 16 === 0) await new Promise(setImmediate);
}
`;

/** Prints how often the heap grows by 16 MiB: by 63 MiB, one more, 64 more. */
const HEAP = `
const grown = (bytes) => {
  const before = Deno.memoryUsage().heapUsed;
  for (let i = 0; i < bytes; i += 1 << 16) prepareBulkMemory(1 << 16);
  return Math.round((Deno.memoryUsage().heapUsed - before) / 2 ** 24) + 0;
};
console.log(grown(63 << 20), grown(1 << 20), grown(64 << 20));
`;

/** Prints how often the heap grows by 16 MiB while 64 MiB are encoded. */
const ENCODED = `
const { ByteWriter } = await import(
  ${JSON.stringify(new URL("../internal/byte_writer.ts", import.meta.url))}
);
const out = new ByteWriter();
out.writeBytes(new Uint8Array(1 << 20));
const before = Deno.memoryUsage().heapUsed;
for (let i = 0; i < 64; i++) out.toBytes();
console.log(Math.round((Deno.memoryUsage().heapUsed - before) / 2 ** 24) + 0);
`;

/**
 * What a process of its own prints that was told, or not. With `--expose-gc` V8
 * looks at its whole heap before that, and sees how small it is: by itself it
 * does so sooner or later, or never.
 */
async function run(
  program: string,
  { told, flags = [] }: { told: boolean; flags?: string[] },
): Promise<string> {
  const module = new URL("../internal/bulk_memory.ts", import.meta.url).href;
  const head = `
const { prepareBulkMemory } = await import(${JSON.stringify(module)});
globalThis.gc?.();
if (${told}) prepareBulkMemory(64 << 20);
`;
  const { stdout, success } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-config", ...flags, head + program],
    stderr: "inherit",
  }).output();
  assert(success);
  return new TextDecoder().decode(stdout);
}

const isGlibc = Deno.build.target.endsWith("linux-gnu");
if (!isGlibc) {
  console.log("bulk_memory_test: one is skipped, only glibc needs to be told");
}

Deno.test({
  name: "prepareBulkMemory() spares most page faults of long byte strings",
  ignore: !isGlibc,
  fn: async () => {
    const kept = Number(await run(FAULTS, { told: true }));
    const returned = Number(await run(FAULTS, { told: false }));
    assertLess(kept, returned / 2, `${kept} of ${returned} page faults`);
  },
});

Deno.test("prepareBulkMemory() spares most collections of the whole heap", async () => {
  const collections = async (told: boolean) =>
    (await run(GARBAGE, {
      told,
      flags: ["--v8-flags=--trace-gc,--expose-gc"],
    })).split("Mark-Compact").length - 1;
  let few = 0, many = 0;
  // Threads collect, too, and when is a matter of chance.
  for (let i = 0; i < 5; i++) {
    few += await collections(true);
    many += await collections(false);
  }
  assertLess(few, many / 2, `${few} of ${many} collections`);
});

Deno.test("prepareBulkMemory() takes its memory once, at 64 MiB of byte strings", async () => {
  assertEquals(await run(HEAP, { told: false }), "0 1 0\n");
});

Deno.test("ByteWriter.toBytes() prepares memory for what is long", async () => {
  assertEquals(await run(ENCODED, { told: false }), "1\n");
});
