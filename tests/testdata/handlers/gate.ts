/**
 * Waits until the test opens the gate. Test and handler talk over a channel of
 * their own. A deaf one doesn't listen to its signal.
 */
import type { WorkContext } from "../../../mod.ts";

const id = crypto.randomUUID();

export default async function gate(
  name: string,
  { signal }: WorkContext,
): Promise<string> {
  using channel = disposable(new BroadcastChannel("distchan gate"));
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  channel.onmessage = ({ data }) => {
    if (data === `open ${name}`) resolve(id);
  };
  if (!name.startsWith("deaf")) {
    signal.addEventListener("abort", () => {
      channel.postMessage(`aborted ${name}: ${signal.reason.name}`);
      reject(signal.reason);
    });
  }
  channel.postMessage(`at ${name}`);
  return await promise;
}

function disposable(
  channel: BroadcastChannel,
): BroadcastChannel & Disposable {
  return Object.assign(channel, { [Symbol.dispose]: () => channel.close() });
}
