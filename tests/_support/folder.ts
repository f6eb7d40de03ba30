import { createHash } from "node:crypto";

/** A folder of the test's own, removed at its end. */
export class Folder implements AsyncDisposable {
  /** Where it is. */
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Makes an empty one. */
  static async make(): Promise<Folder> {
    const path = await Deno.makeTempDir({ prefix: "distchan_test_" });
    return new Folder(await Deno.realPath(path));
  }

  /** Writes a file, and the folders above it; returns its path. */
  async write(name: string, data: string | Uint8Array): Promise<string> {
    const path = `${this.path}/${name}`;
    await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await (typeof data === "string"
      ? Deno.writeTextFile(path, data)
      : Deno.writeFile(path, data));
    return path;
  }

  /** Whether a file is there. */
  async has(name: string): Promise<boolean> {
    try {
      return (await Deno.stat(`${this.path}/${name}`)).isFile;
    } catch {
      return false;
    }
  }

  /**
   * Makes `count` files that are long to read and take no room: what is done
   * with all of them takes its time.
   */
  async writeSparse(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      using file = await Deno.create(`${this.path}/${i}`);
      await file.truncate(20_000_000);
    }
  }

  /** SHA-256 of each file in it, by name. */
  async sums(below = ""): Promise<[name: string, sha256: string][]> {
    const sums: [string, string][] = [];
    for await (const entry of Deno.readDir(`${this.path}/${below}`)) {
      const name = below + entry.name;
      if (entry.isDirectory) sums.push(...await this.sums(`${name}/`));
      if (!entry.isFile) continue;
      const data = await Deno.readFile(`${this.path}/${name}`);
      sums.push([name, createHash("sha256").update(data).digest("hex")]);
    }
    return sums;
  }

  /** Removes it with all that is in it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}
