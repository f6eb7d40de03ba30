/**
 * Machines of one's own: network namespaces, each joined to this one by a cable
 * that can be pulled. It takes root and `ip netns`.
 *
 * @module
 */

async function ip(...args: string[]): Promise<boolean> {
  const { success } = await new Deno.Command("ip", {
    args,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).output();
  return success;
}

/** Whether namespaces can be made here. */
export async function hasNetns(): Promise<boolean> {
  const name = `dcprobe${Deno.pid}`;
  try {
    if (!await ip("netns", "add", name)) return false;
    return await ip("netns", "del", name);
  } catch {
    return false;
  }
}

let next = 0;

/** A network namespace. */
export class Netns implements AsyncDisposable {
  /** Its name. */
  readonly name: string;
  /** The address of this side, as seen from there. */
  readonly host: string;
  readonly #cable: string;

  private constructor(name: string, host: string, cable: string) {
    this.name = name;
    this.host = host;
    this.#cable = cable;
  }

  /** Makes one; null if that isn't possible here. */
  static async make(): Promise<Netns | null> {
    const index = next++ % 60;
    const name = `dc${Deno.pid}n${index}`;
    const cable = `dc${Deno.pid % 100_000}v${index}`;
    const subnet = `10.211.${Deno.pid % 250}.${index * 4}`.split(".").map(
      Number,
    );
    const host = [...subnet.slice(0, 3), subnet[3]! + 1].join(".");
    const there = [...subnet.slice(0, 3), subnet[3]! + 2].join(".");
    const netns = new Netns(name, host, cable);
    const inside = ["netns", "exec", name, "ip"];
    const steps = [
      ["netns", "add", name],
      ["link", "add", cable, "type", "veth", "peer", "eth0", "netns", name],
      ["addr", "add", `${host}/30`, "dev", cable],
      ["link", "set", cable, "up"],
      [...inside, "addr", "add", `${there}/30`, "dev", "eth0"],
      [...inside, "link", "set", "eth0", "up"],
      [...inside, "link", "set", "lo", "up"],
    ];
    for (const step of steps) {
      if (await ip(...step)) continue;
      await netns[Symbol.asyncDispose]();
      return null;
    }
    return netns;
  }

  /** Pulls the cable, or plugs it in again. */
  async plug(isIn: boolean): Promise<void> {
    await ip("link", "set", this.#cable, isIn ? "up" : "down");
  }

  /** Removes it, and the cable with it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await ip("netns", "del", this.name);
    await ip("link", "del", this.#cable);
  }
}
