import type { WorkContext } from "../../../mod.ts";

export default function context(_: unknown, context: WorkContext): unknown {
  const { id, attempt, signal } = context;
  if (attempt === 1) throw new Error("once more");
  return {
    id,
    attempt,
    aborted: signal.aborted,
    self: self === globalThis,
  };
}
