/** The writing end of raw bytes: what a socket can do at most in Deno. */
import { readConfig, sendOneWay, takeTrips, tell } from "../workload.ts";

/** What an item is on the wire, about. */
const PING_BYTES = 64;

const config = readConfig();
const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
tell({ port: listener.addr.port });
const conn = await listener.accept();
conn.setNoDelay(true);
listener.close();

if (config.scenario === "serial") {
  const ping = new Uint8Array(PING_BYTES), pong = new Uint8Array(PING_BYTES);
  const report = await takeTrips(async () => {
    await conn.write(ping);
    await conn.read(pong);
  });
  tell({ report });
} else {
  const bytes = new Uint8Array(config.bytes).fill(1);
  const report = await sendOneWay(config, async (isOver) => {
    let count = 0;
    for (; !isOver(); count++) {
      let done = await conn.write(bytes);
      while (done < bytes.length) {
        done += await conn.write(bytes.subarray(done));
      }
    }
    return count;
  });
  tell({ report });
}
conn.close();
