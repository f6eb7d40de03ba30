// What can become of an item.
const tried = new Set<unknown>();

export default (item: string): unknown => {
  if (item === "throw") throw new RangeError("not that one");
  if (item === "caused") {
    const cause = new Error("no route", { cause: new Error("refused") });
    throw new TypeError("fetch failed", { cause });
  }
  if (item === "spin") for (;;);
  if (item === "exit") Deno.exit(7);
  if (item === "secret") return Deno.env.get("DISTCHAN_SECRET") ?? "none";
  if (item === "twice" && !tried.has(item)) {
    tried.add(item);
    throw new Error("once more, please");
  }
  if (item === "nothing") return undefined;
  if (item === "object") return { n: 1n, map: new Map([["a", [1, 2]]]) };
  return item;
};
