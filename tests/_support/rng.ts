/** A seeded source of randomness: the same seed, the same sequence (sfc32). */
export class Rng {
  /** What it was made from. */
  readonly seed: number;
  #a = 0;
  #b = 0;
  #c: number;
  #counter = 1;

  /** @param seed Any unsigned 32-bit integer. */
  constructor(seed: number) {
    this.seed = seed >>> 0;
    this.#c = this.seed;
    for (let i = 0; i < 12; i++) this.uint32();
  }

  /** An integer from 0 to 2^32 - 1. */
  uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21 | this.#c >>> 11) + sum) | 0;
    return sum >>> 0;
  }

  /** A number from 0, inclusive, to 1, exclusive. */
  float(): number {
    return (this.uint32() * 0x200000 + (this.uint32() >>> 11)) / 2 ** 53;
  }

  /** An integer from `min` to `max`, both included. */
  int(min: number, max: number): number {
    return min + Math.floor(this.float() * (max - min + 1));
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.float() < p;
  }

  /** One of the elements. */
  pick<T>(from: readonly T[]): T {
    return from[this.int(0, from.length - 1)]!;
  }

  /** Random bytes. */
  bytes(length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.uint32();
    return bytes;
  }

  /** Shuffles an array in place and returns it. */
  shuffle<T>(array: T[]): T[] {
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.int(0, i);
      [array[i], array[j]] = [array[j]!, array[i]!];
    }
    return array;
  }
}

/**
 * An {@linkcode Rng} for a test. Its seed is `DISTCHAN_SEED` if that is set,
 * else a new one, and is printed, so that a failure can be repeated.
 */
export function seeded(what: string): Rng {
  const given = Deno.permissions.querySync({
      name: "env",
      variable: "DISTCHAN_SEED",
    }).state === "granted"
    ? Deno.env.get("DISTCHAN_SEED")
    : undefined;
  const seed = given === undefined
    ? crypto.getRandomValues(new Uint32Array(1))[0]!
    : Number(given) >>> 0;
  console.log(`${what}: DISTCHAN_SEED=${seed}`);
  return new Rng(seed);
}
