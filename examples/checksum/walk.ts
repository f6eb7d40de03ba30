import { usageError } from "../args.ts";
import type { FileRef } from "./types.ts";

/** The folder named on the command line; without a real one, wrong usage. */
export async function folderArgument(
  path: string | undefined,
): Promise<string> {
  if (path === undefined) usageError("which folder? Give it as the argument");
  try {
    if ((await Deno.stat(path)).isDirectory) return path;
  } catch (error) {
    usageError(`can't read the folder ${path}: ${errorMessage(error)}`);
  }
  usageError(`${path} is not a folder`);
}

/** What there is to say of anything that was thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Yields every regular file below `root`, hidden ones included, as it is found:
 * what is in memory is one folder's listing and the folders still to see.
 * Symbolic links are not followed. A folder that can't be read is handed to
 * `onSkip`, and the walk goes on.
 */
export async function* walk(
  root: string,
  onSkip: (path: string, error: unknown) => void,
): AsyncGenerator<FileRef> {
  let id = 0;
  const folders = [""];
  for (let folder; (folder = folders.pop()) !== undefined;) {
    try {
      for await (const entry of Deno.readDir(`${root}/${folder}`)) {
        const path = folder + entry.name;
        if (entry.isDirectory) folders.push(`${path}/`);
        else if (entry.isFile) yield { id: id++, path };
      }
    } catch (error) {
      onSkip(folder, error);
    }
  }
}
