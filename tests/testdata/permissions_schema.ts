import type { StandardSchemaV1 } from "../../mod.ts";

const numbers: StandardSchemaV1<number> = {
  "~standard": {
    version: 1,
    vendor: "tests",
    validate: async (value) =>
      await Promise.resolve(
        typeof value === "number"
          ? { value }
          : { issues: [{ message: "not a number" }] },
      ),
  },
};

/** What the server sends. */
export const itemSchema: StandardSchemaV1<number> = numbers;
/** What comes back. */
export const resultSchema: StandardSchemaV1<number> = numbers;
