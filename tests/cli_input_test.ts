import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { FatalError, UsageError } from "../internal/cli_arguments.ts";
import { countItems, type Format, ItemSource } from "../internal/cli_input.ts";
import { Folder } from "./_support/folder.ts";
import { Rng } from "./_support/rng.ts";
import { runWithGc } from "./_support/process.ts";
import { stateOf, within } from "./_support/within.ts";

const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;

/** How a text comes: whole, byte by byte, at random. */
function splits(bytes: Uint8Array): Uint8Array[][] {
  const rng = new Rng(seed);
  const random: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + rng.int(1, 7);
    random.push(bytes.subarray(at, end));
    at = end;
  }
  return [[bytes], [...bytes].map((byte) => Uint8Array.of(byte)), random];
}

interface Read {
  items: unknown[];
  unreadable: string[];
}

async function readAll(
  chunks: Uint8Array[],
  format: Format,
  settled: readonly number[] = [],
): Promise<Read> {
  const unreadable: string[] = [];
  const source = new ItemSource(ReadableStream.from(chunks), {
    format,
    isSettled: ({ seq }) => settled.includes(seq),
    onUnreadable: ({ seq }, { name }) => {
      unreadable.push(`${seq} ${name}`);
      return undefined;
    },
  });
  const items: unknown[] = [];
  for await (const item of source) items.push(item);
  assertEquals(source.hasEnded, true);
  assertEquals(source.taken.size, items.length);
  return { items, unreadable };
}

const CASES: [string, Format, string | Uint8Array, Read][] = [
  ["nothing", "lines", "", { items: [], unreadable: [] }],
  ["a last line without an end", "lines", "a\nb", {
    items: ["a", "b"],
    unreadable: [],
  }],
  ["empty lines, \\r\\n and text beyond ASCII", "lines", "\nö\r\n\n€𝒳\n", {
    items: ["", "ö", "", "€𝒳"],
    unreadable: [],
  }],
  ["a byte order mark", "lines", "\ufeffa\n", {
    items: ["\ufeffa"],
    unreadable: [],
  }],
  ["line ends between \\0", "null", "a\nb\r\0\0c\r", {
    items: ["a\nb\r", "", "c\r"],
    unreadable: [],
  }],
  ["JSON", "jsonl", '{"a":[1]}\n\n"x"\nnull\n', {
    items: [{ a: [1] }, "x", null],
    unreadable: [],
  }],
  ["JSON with a byte order mark", "jsonl", '\ufeff{"a":1}\r\n2\r\n', {
    items: [{ a: 1 }, 2],
    unreadable: [],
  }],
  ["JSON that is none", "jsonl", '1\n{"a"\n2\n', {
    items: [1, 2],
    unreadable: ["2 SyntaxError"],
  }],
  [
    "bytes that aren't UTF-8",
    "lines",
    Uint8Array.of(0x61, 10, 0xff, 10, 0x62, 10),
    { items: ["a", "b"], unreadable: ["2 TypeError"] },
  ],
  [
    "an empty item in front of bytes that aren't UTF-8",
    "lines",
    Uint8Array.of(10, 0xff, 10),
    { items: [""], unreadable: ["2 TypeError"] },
  ],
  [
    "an empty item behind bytes that aren't UTF-8",
    "lines",
    Uint8Array.of(0xff, 10, 10),
    { items: [""], unreadable: ["1 TypeError"] },
  ],
];

for (const [name, format, input, expected] of CASES) {
  Deno.test(`ItemSource reads ${name} (${format})`, async () => {
    const bytes = typeof input === "string"
      ? new TextEncoder().encode(input)
      : input;
    for (const chunks of splits(bytes)) {
      assertEquals(await readAll(chunks, format), expected, `seed ${seed}`);
    }
  });
}

Deno.test("ItemSource passes over what is settled, and keeps the numbers", async () => {
  const bytes = new TextEncoder().encode("a\nb\nc\nd\n");
  const source = new ItemSource(ReadableStream.from([bytes]), {
    format: "lines",
    isSettled: ({ seq }) => seq === 1 || seq === 3,
    onUnreadable: () => undefined,
  });
  assertEquals(await Array.fromAsync(source), ["b", "d"]);
  assertEquals([source.read, source.skipped], [4, 2]);
  assertEquals([...source.taken], [
    [0, { seq: 2, text: "b" }],
    [1, { seq: 4, text: "d" }],
  ]);
});

Deno.test("ItemSource.stop() ends a wait for more input", async () => {
  const source = new ItemSource(
    new ReadableStream({
      start: (controller) =>
        controller.enqueue(new TextEncoder().encode("a\n")),
    }),
    { format: "lines", isSettled: () => false, onUnreadable: () => undefined },
  );
  assertEquals((await source.next()).value, "a");
  const waiting = source.next();
  source.stop();
  assertEquals((await waiting).done, true);
  assertEquals(source.hasEnded, false);
});

Deno.test("ItemSource reads no more once its loop is left", async () => {
  const bytes = new TextEncoder().encode("a\nb\n");
  const cancelled = Promise.withResolvers<void>();
  const source = new ItemSource(
    new ReadableStream({
      pull: (controller) => controller.enqueue(bytes),
      cancel: () => cancelled.resolve(),
    }),
    { format: "lines", isSettled: () => false, onUnreadable: () => undefined },
  );
  for await (const item of source) {
    assertEquals(item, "a");
    break;
  }
  await within(cancelled.promise, 5000, "nothing more is read");
  assertEquals(await source.next(), { done: true, value: undefined });
});

Deno.test("ItemSource refuses what never ends a line", async () => {
  const chunk = new Uint8Array(16 * 1024 * 1024).fill(0x61);
  await assertRejects(
    () => readAll([chunk, chunk, chunk, chunk, chunk], "lines"),
    UsageError,
    "longer than",
  );
});

Deno.test("ItemSource says that it is the input that can't be read", async () => {
  const source = new ItemSource(
    new ReadableStream({
      pull: () => Promise.reject(new Error("Is a directory (os error 21)")),
    }),
    { format: "lines", isSettled: () => false, onUnreadable: () => undefined },
  );
  await assertRejects(
    () => source.next(),
    FatalError,
    "can't read the input: Is a directory",
  );
});

Deno.test("ItemSource waits for whoever is told of what can't be read", async () => {
  const told = Promise.withResolvers<void>(),
    room = Promise.withResolvers<void>();
  const source = new ItemSource(
    ReadableStream.from([new TextEncoder().encode("{\n1\n")]),
    {
      format: "jsonl",
      isSettled: () => false,
      onUnreadable: () => {
        told.resolve();
        return room.promise;
      },
    },
  );
  const next = source.next();
  await told.promise;
  assertEquals(await stateOf(next), "pending");
  room.resolve();
  assertEquals(await next, { done: false, value: 1 });
});

Deno.test("countItems() stops when it isn't wanted any more", async () => {
  await using folder = await Folder.make();
  await folder.write("input", "a\nb\n");
  const path = `${folder.path}/input`;
  assertEquals(await countItems(path, "lines", AbortSignal.abort()), NaN);
});

Deno.test("countItems() leaves a pipe alone", async () => {
  await using folder = await Folder.make();
  const path = `${folder.path}/pipe`;
  const { success } = await new Deno.Command("mkfifo", { args: [path] })
    .output();
  assertEquals(success, true);
  // Whoever opens one waits for its other end.
  const counted = countItems(path, "lines", new AbortController().signal);
  assertEquals(await within(counted, 5000, "it is told"), NaN);
});

Deno.test("countItems() counts as ItemSource reads", async () => {
  await using folder = await Folder.make();
  const { signal } = new AbortController();
  for (const text of ["", "a", "a\n", "a\nb", "\n\n", "a\0b\0c"]) {
    await folder.write("input", text);
    for (const format of ["lines", "null"] as const) {
      const { items } = await readAll(
        [new TextEncoder().encode(text)],
        format,
      );
      assertEquals(
        await countItems(`${folder.path}/input`, format, signal),
        items.length,
        JSON.stringify([text, format]),
      );
    }
  }
});

/** Reads a hundred chunks, and prints how many of them are kept in memory. */
const KEPT = `
const { ItemSource } = await import(Deno.args[0]);
const chunks = [];
let left = 100;
const stream = new ReadableStream({
  pull(controller) {
    if (left-- === 0) return controller.close();
    const chunk = new TextEncoder().encode("item\\n");
    chunks.push(new WeakRef(chunk));
    controller.enqueue(chunk);
  },
});
const source = new ItemSource(stream, {
  format: "lines",
  isSettled: () => true,
  onUnreadable: () => undefined,
});
await source.next();
await new Promise((resolve) => setTimeout(resolve, 0));
globalThis.gc();
console.log(source.read, chunks.filter((chunk) => chunk.deref()).length);
`;

Deno.test("ItemSource keeps nothing of what it has cut", async () => {
  const printed = await runWithGc(KEPT, "internal/cli_input.ts");
  const [read, kept] = printed.split(" ");
  assertEquals(read, "100");
  assertLess(Number(kept), 5);
});
