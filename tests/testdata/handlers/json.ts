import type { Codec } from "../../../mod.ts";

export const codec: Codec<unknown> = {
  name: "json",
  encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
  decode: (payload) => JSON.parse(new TextDecoder().decode(payload)),
};

export default ({ n }: { n: number }): { n: number } => ({ n: n + 1 });
