/**
 * What a run ran on.
 *
 * @module
 */

import os from "node:os";
import { fileURLToPath } from "node:url";

/** The machine, the versions and the day, as a list in Markdown. */
export async function describeMachine(): Promise<string[]> {
  const cpus = os.cpus();
  const { deno, v8 } = Deno.version;
  return [
    `${cpus.length} × ${cpus[0]?.model.trim() ?? "unknown processor"}, ${
      (os.totalmem() / 2 ** 30).toFixed(0)
    } GiB`,
    `${os.type()} ${os.release()}, ${Deno.build.target}`,
    `Deno ${deno}, V8 ${v8}`,
    `distchan at ${await revision()}`,
    new Date().toISOString().slice(0, 10),
  ];
}

/** How busy the machine is: processes that want a processor, by minutes. */
export function load(): string {
  return Deno.loadavg().map((value) => value.toFixed(2)).join(" ");
}

async function revision(): Promise<string> {
  const git = async (...args: string[]) => {
    const { success, stdout } = await new Deno.Command("git", {
      args,
      cwd: fileURLToPath(new URL("../", import.meta.url)),
      stderr: "null",
    }).output();
    return success ? new TextDecoder().decode(stdout).trim() : "";
  };
  const commit = await git("rev-parse", "--short", "HEAD");
  if (commit === "") return "an unknown commit";
  const changes = await git("status", "--porcelain", "*.ts");
  return changes === "" ? commit : `${commit}, with changes`;
}
