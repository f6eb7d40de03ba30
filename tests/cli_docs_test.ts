import { assertEquals } from "@std/assert";
import { COMMANDS, STATUSES } from "../internal/cli_spec.ts";
import { stdArgs } from "../tools/std.ts";
import { hasProgram } from "./_support/cli.ts";
import { Folder } from "./_support/folder.ts";
import { Process, ROOT } from "./_support/process.ts";

const PAGE = await Deno.readTextFile(`${ROOT}docs/cli.md`);

/** What is between `<!-- tested … -->` and `<!-- /tested -->`. */
function testedParts(): string[][] {
  return [...PAGE.matchAll(/<!-- tested.*?-->(.*?)<!-- \/tested -->/gs)]
    .map(([, part = ""]) =>
      [...part.matchAll(/```sh\n(.*?)```/gs)].map(([, code = ""]) => code)
    );
}

Deno.test({
  name: "docs/cli.md: its commands print what it says (needs bash and od)",
  ignore: !hasProgram("bash") || !hasProgram("od"),
  async fn() {
    await using folder = await Folder.make();
    const command = [Deno.execPath(), "run", "-qA", "--no-check", ...stdArgs()]
      .concat(`${ROOT}cli.ts`).map((arg) => `'${arg}'`).join(" ");
    await folder.write("bin/distchan", `#!/bin/sh\nexec ${command} "$@"\n`);
    await Deno.chmod(`${folder.path}/bin/distchan`, 0o755);
    using free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = free.addr;
    free.close();
    for (const blocks of testedParts()) {
      const script = blocks.join("\n").replaceAll("5678", String(port));
      // What a comment behind a command says is what it prints.
      const expected = [
        ...script.matchAll(/^(?:tail|sort|wc|wait).*? # (\S.*)$/gm),
      ]
        .map(([, text = ""]) => text);
      await using bash = new Process("bash", ["-euc", script], {
        cwd: folder.path,
        env: { PATH: `${folder.path}/bin:${Deno.env.get("PATH")}` },
        deadlineMs: 120_000,
      });
      const { code, stdout, stderr } = await bash.exit;
      assertEquals(code, 0, stderr);
      assertEquals(
        stdout.trim().split("\n").map((line) => line.trim()),
        expected.length ? expected : [""],
      );
    }
  },
});

Deno.test("docs/cli.md has every option and exit status", () => {
  for (const { name, options } of COMMANDS) {
    if (!["map", "work", "top"].includes(name)) continue;
    const start = PAGE.indexOf(`## \`distchan ${name}\``);
    const section = PAGE.slice(start, PAGE.indexOf("\n## ", start));
    for (const option of options) {
      if (option.name === "help") continue;
      assertEquals(section.includes(`--${option.name}`), true, option.name);
    }
  }
  for (const [status] of STATUSES) {
    assertEquals(PAGE.includes(`\n| ${status} `), true, String(status));
  }
});
