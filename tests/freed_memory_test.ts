/** Memory that long byte strings leave is used again. */

import { assertLess } from "@std/assert";

/**
 * Copies 1 MiB eight times and frees all eight, as a collection does, a hundred
 * times; prints the page faults of the second half.
 */
const PROGRAM = `
const { keepFreedMemory } = await import(Deno.args[0]);
if (Deno.args[1] === "kept") keepFreedMemory(1 << 20);
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

async function pageFaults(how: "kept" | "returned"): Promise<number> {
  const module = new URL("../internal/freed_memory.ts", import.meta.url).href;
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-config", PROGRAM, module, how],
    stderr: "inherit",
  }).output();
  return Number(new TextDecoder().decode(stdout));
}

const isGlibc = Deno.build.target.endsWith("linux-gnu");
if (!isGlibc) {
  console.log("freed_memory_test: skipped, only glibc needs to be told");
}

Deno.test({
  name: "keepFreedMemory() spares most page faults of long byte strings",
  ignore: !isGlibc,
  fn: async () => {
    const [kept, returned] = [
      await pageFaults("kept"),
      await pageFaults("returned"),
    ];
    assertLess(kept, returned / 2, `${kept} of ${returned} page faults`);
  },
});
