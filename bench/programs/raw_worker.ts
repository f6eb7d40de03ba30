/**
 * The reading end of raw bytes: into one reused buffer, or each value into a
 * new one, as whoever keeps values has to.
 */
import { Meter, readConfig, tell } from "../workload.ts";

const config = readConfig();
const conn = await Deno.connect({ hostname: "127.0.0.1", port: config.port });
conn.setNoDelay(true);

if (config.scenario === "serial") {
  const bytes = new Uint8Array(1024);
  for (;;) {
    const count = await conn.read(bytes);
    if (count === null) break;
    await conn.write(bytes.subarray(0, count));
  }
} else {
  let bytes = new Uint8Array(config.bytes);
  let done = 0;
  const meter = new Meter(config, 16 * config.bytes);
  for (;;) {
    const count = await conn.read(done === 0 ? bytes : bytes.subarray(done));
    if (count === null) break;
    meter.add(count);
    if (!config.isFresh || (done += count) < bytes.length) continue;
    bytes = new Uint8Array(config.bytes);
    done = 0;
  }
  const { rate, cpuMicros } = meter.report();
  tell({
    report: {
      rate: rate / config.bytes,
      cpuMicros: cpuMicros * config.bytes,
    },
  });
}
conn.close();
