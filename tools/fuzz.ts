/**
 * Feeds changed inputs to everything that reads what others send:
 *
 * ```sh
 * deno task fuzz --minutes 10                  # each target in turn
 * deno task fuzz --minutes 1 --target server --seed 7
 * deno task fuzz --save                        # new outcomes join the corpus
 * ```
 *
 * It starts from `tests/testdata/corpus/` and from the bytes of PROTOCOL.md; an
 * input whose outcome wasn't seen before is changed further. A finding, which is
 * anything that breaks a rule of its target, an error that nobody caught, or
 * memory that grows, is printed with its input, and ends the run with status 1.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { Rng } from "../tests/_support/rng.ts";
import { mutate, mutateFrames } from "./fuzz_mutate.ts";
import { type Target, TARGETS } from "./fuzz_targets.ts";

type Bytes = Uint8Array<ArrayBuffer>;

const CORPUS = new URL("../tests/testdata/corpus/", import.meta.url);
/** Memory may grow by so much over a run, in bytes ... */
const MAX_GROWTH_BYTES = 300 * 1024 * 1024;
/**
 * ... or, where the collector can be asked, what is alive then by so much: the
 * rest is what it let lie, and what malloc keeps ...
 */
const MAX_ALIVE_BYTES = 64 * 1024 * 1024;
/** ... and between two looks by no more than this. */
const MAX_JUMP_BYTES = 200 * 1024 * 1024;
/** Inputs of a corpus, and the largest of them in bytes. */
const MAX_CORPUS = 160, MAX_SAVED_BYTES = 200;
/** Inputs that are kept to be changed further. */
const MAX_KEPT = 2000;

/** Tells of memory that grows over a run, or at once. */
class MemoryWatch {
  readonly #collect = (globalThis as { gc?: () => void }).gc;
  readonly #before = Deno.memoryUsage().rss;
  readonly #aliveBefore = this.#alive();
  #last = this.#before;

  /** What is wrong; null: nothing. */
  look(): string | null {
    const { rss } = Deno.memoryUsage();
    const jump = rss - this.#last, growth = rss - this.#before;
    this.#last = rss;
    if (jump > MAX_JUMP_BYTES) return `memory grew by ${jump} bytes at once`;
    if (growth <= MAX_GROWTH_BYTES) return null;
    const alive = this.#alive() - this.#aliveBefore;
    return this.#collect !== undefined && alive <= MAX_ALIVE_BYTES
      ? null
      : `memory grew by ${growth} bytes, ${alive} of them are alive`;
  }

  #alive(): number {
    this.#collect?.();
    const { heapUsed, external } = Deno.memoryUsage();
    return heapUsed + external;
  }
}

/** An input that broke a rule. */
export class Finding extends Error {
  /** The input. */
  readonly input: Bytes;

  /**
   * @param target Its target.
   * @param input The input.
   * @param cause What went wrong.
   */
  constructor(target: Target, input: Bytes, cause: unknown) {
    const reason = cause instanceof Error ? cause.stack : String(cause);
    super(`${target.name}: input ${input.toHex()}: ${reason}`, { cause });
    this.name = "Finding";
    this.input = input;
  }
}

/** Options of {@linkcode fuzz}. */
export interface FuzzOptions {
  /** What the sequence of inputs depends on. */
  seed: number;
  /** How long to go on, in ms. */
  ms?: number;
  /** How many changed inputs to try. */
  count?: number;
  /** Told of a changed input whose outcome is new. */
  onNew?: (input: Bytes, outcome: string) => void;
}

/** What came of {@linkcode fuzz}. */
export interface FuzzReport {
  /** Inputs tried. */
  inputs: number;
  /** Outcomes seen. */
  outcomes: number;
}

/** A target's corpus: an input a line, in hex; `#` begins a comment. */
export function corpusOf(target: Target): Bytes[] {
  const inputs: Bytes[] = [];
  for (const line of readCorpus(target).split("\n")) {
    const hex = line.replace(/#.*/, "").trim();
    if (hex !== "") inputs.push(Uint8Array.fromHex(hex));
  }
  return inputs;
}

function readCorpus(target: Target): string {
  try {
    return Deno.readTextFileSync(new URL(`${target.name}.hex`, CORPUS));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

/**
 * Fuzzes a target.
 *
 * @throws {Finding} At the first input that breaks a rule.
 */
export async function fuzz(
  target: Target,
  options: FuzzOptions,
): Promise<FuzzReport> {
  const { seed, ms = Infinity, count = Infinity, onNew } = options;
  const rng = new Rng(seed);
  const until = performance.now() + ms;
  const outcomes = new Set<string>();
  const kept: Bytes[] = [];
  let inputs = 0;
  let uncaught: unknown;
  const onUncaught = (event: Event) => {
    event.preventDefault();
    uncaught = event instanceof ErrorEvent
      ? event.error
      : (event as PromiseRejectionEvent).reason;
  };
  const attempt = async (input: Bytes, isChanged: boolean) => {
    inputs++;
    let outcome: string;
    try {
      outcome = await target.run(input);
      if (uncaught !== undefined) throw uncaught;
    } catch (error) {
      throw new Finding(target, input, error);
    }
    if (outcomes.has(outcome)) return;
    outcomes.add(outcome);
    if (kept.length < MAX_KEPT) kept.push(input);
    if (isChanged) onNew?.(input, outcome);
  };
  addEventListener("unhandledrejection", onUncaught);
  addEventListener("error", onUncaught);
  try {
    const start = [...target.seeds(), ...corpusOf(target)];
    for (const input of start) await attempt(input, false);
    const memory = new MemoryWatch();
    for (let i = 0; i < count && performance.now() < until; i++) {
      const from = rng.pick(rng.chance(0.2) ? start : kept);
      const input = target.framesFrom < 0
        ? mutate(from, kept, rng)
        : mutateFrames(from, kept, { rng, from: target.framesFrom });
      await attempt(input, true);
      if (i % 64 !== 63) continue;
      await new Promise((resolve) => setTimeout(resolve));
      const growth = memory.look();
      if (growth !== null) throw new Finding(target, input, growth);
    }
    // What nobody caught shows a turn later.
    await new Promise((resolve) => setTimeout(resolve));
    if (uncaught !== undefined) {
      throw new Finding(target, new Uint8Array(0), uncaught);
    }
  } finally {
    removeEventListener("unhandledrejection", onUncaught);
    removeEventListener("error", onUncaught);
  }
  return { inputs, outcomes: outcomes.size };
}

/** Adds inputs to a target's corpus, the short ones, as far as there is room. */
async function save(
  target: Target,
  found: readonly { input: Bytes; outcome: string }[],
): Promise<void> {
  const room = MAX_CORPUS - corpusOf(target).length;
  const lines = found.filter(({ input }) => input.length <= MAX_SAVED_BYTES)
    .slice(0, Math.max(0, room))
    .map(({ input, outcome }) => `${input.toHex()} # ${outcome}\n`);
  await Deno.mkdir(CORPUS, { recursive: true });
  await Deno.writeTextFile(
    new URL(`${target.name}.hex`, CORPUS),
    readCorpus(target) + lines.join(""),
  );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      minutes: { type: "string", default: "1" },
      target: { type: "string" },
      seed: { type: "string" },
      save: { type: "boolean", default: false },
    },
  });
  const targets = TARGETS.filter(({ name }) =>
    name === (values.target ?? name)
  );
  const ms = Number(values.minutes) * 60_000;
  const seed = values.seed === undefined
    ? crypto.getRandomValues(new Uint32Array(1))[0]!
    : Number(values.seed);
  if (targets.length === 0 || !(ms > 0) || !(seed >= 0)) {
    throw new TypeError(
      `Cannot fuzz: expected --minutes N, --seed N and --target ${
        TARGETS.map((t) => t.name).join("|")
      }`,
    );
  }
  for (const target of targets) {
    console.log(`${target.name}: --seed ${seed}`);
    const found: { input: Bytes; outcome: string }[] = [];
    const startedAt = performance.now();
    const { inputs, outcomes } = await fuzz(target, {
      seed,
      ms,
      onNew: (input, outcome) => void found.push({ input, outcome }),
    });
    if (values.save) await save(target, found);
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    console.log(
      `${target.name}: ${inputs} inputs in ${seconds} s, ${outcomes} outcomes, no finding`,
    );
  }
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Finding ? error.message : error);
    Deno.exit(1);
  }
}
