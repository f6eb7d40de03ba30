import { assert, assertGreater } from "@std/assert";

Deno.test("SECURITY.md: every claim has a test", async () => {
  const root = new URL("../", import.meta.url);
  const text = await Deno.readTextFile(new URL("SECURITY.md", root));
  const table = text.slice(text.indexOf("## Claims and tests"));
  const rows = [...table.matchAll(/\]\((\S+_test\.ts)\): `([^`]+)`/g)];
  assertGreater(rows.length, 30);
  for (const [, path, name] of rows) {
    const source = await Deno.readTextFile(new URL(path!, root));
    assert(source.includes(name!), `${path} has no test "${name}"`);
  }
});
