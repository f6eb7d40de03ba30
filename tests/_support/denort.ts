import { Folder } from "./folder.ts";
import { Process } from "./process.ts";

/**
 * `deno compile` appends the script to a runtime, denort, which it downloads
 * where it has none yet: tells why that can't be done here. With `DENORT_BIN`
 * it takes that file, and nothing is an excuse.
 */
export async function whyNoDenort(): Promise<string | undefined> {
  if (Deno.env.has("DENORT_BIN")) return undefined;
  await using folder = await Folder.make();
  await folder.write("empty.ts", "");
  await using compiler = new Process(Deno.execPath(), [
    "compile",
    `--output=${folder.path}/empty`,
    `${folder.path}/empty.ts`,
  ], { deadlineMs: 120_000 });
  try {
    const { code, stderr } = await compiler.exit;
    if (code === 0) return undefined;
    return stderr.match(/error sending request.*/)?.[0] ?? stderr;
  } catch {
    return "its download takes too long";
  }
}
