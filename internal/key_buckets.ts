/**
 * A limit on keys that collide. V8 hashes numbers, bigints and text that is a
 * number without a seed: a peer can choose those of a set or a map so that all
 * fall into one bucket, and each takes a walk past all the others then. So do
 * long texts of one length, which is all that V8 hashes of them. Of a bigint it
 * hashes the last 64 bits, but compares all with others of its length.
 *
 * This adds up these walks, by V8's own hash: some thousands of keys may be in
 * one bucket.
 *
 * @module
 */

/** What is wrong with keys that {@linkcode KeyBuckets} doesn't accept. */
export const COLLIDING = "too many members of a set, or keys of a map, collide";

/** Buckets that are told apart. */
const BUCKETS = 1 << 14;
/** So few keys aren't counted, or so few steps past them. */
const FREE_KEYS = 1024;
/** How many times as many as the average a bucket may have. */
const MAX_EXCESS = 8;
/** So many keys may be walked past, in all: about 0.1 s. */
const MAX_STEPS = 1 << 25;
/** Text that V8 hashes as the number that it is. */
const INDEX = /^(?:0|[1-9]\d{0,9})$/;
const MAX_INDEX = 2 ** 32 - 2;
/** Text of more UTF-16 units than these is hashed as its length. */
const MAX_HASHED_LENGTH = 16383;
/** So much of such a text is compared in the time of a step. */
const LENGTH_A_STEP = 32;
/** Bigints from here on, or from minus this on down, take more than a step. */
const LONG_BIGINT = 1n << 256n;
/** So many of V8's digits, of 64 bits, are compared in the time of a step. */
const DIGITS_A_STEP = 4;

const double = new Float64Array(1);
const halves = new Uint32Array(double.buffer);
/** Which half of a double has its sign. */
const HIGH = new Uint8Array(new Float64Array([-0]).buffer)[7] === 0 ? 0 : 1;

/** The keys of one set or map, while it is read. */
export class KeyBuckets {
  #count = 0;
  /** The steps that it takes to walk past each once. */
  #size = 0;
  #steps = 0;
  #counts: Uint32Array | null = null;
  /** The same of long bigints, by their lengths too. */
  #longCounts: Uint32Array | null = null;
  /** How many long texts of each length there are. */
  #lengths: Map<number, number> | null = null;

  /** Counts a key; false if there are far too many like it. */
  accepts(key: unknown): boolean {
    if (isLong(key)) return this.#acceptsLong(key.length);
    const digits = longDigits(key);
    const size = Math.max(1, digits / DIGITS_A_STEP);
    this.#count++;
    this.#size += size;
    if (this.#size <= FREE_KEYS) return true;
    const hash = hashOf(key);
    if (hash === undefined) return true;
    this.#counts ??= new Uint32Array(BUCKETS);
    this.#walk(this.#counts, hash, 1);
    if (digits > 0) {
      // Past those of another length that was all.
      this.#longCounts ??= new Uint32Array(BUCKETS);
      this.#walk(this.#longCounts, hash + digits, size - 1);
    }
    return this.#steps <= MAX_STEPS;
  }

  #walk(counts: Uint32Array, hash: number, size: number): void {
    const before = counts[hash & (BUCKETS - 1)]!++;
    const excess = before - MAX_EXCESS * this.#count / BUCKETS;
    if (excess > 0) this.#steps += excess * size;
  }

  #acceptsLong(length: number): boolean {
    const lengths = this.#lengths ??= new Map();
    const before = lengths.get(length) ?? 0;
    lengths.set(length, before + 1);
    this.#steps += before * length / LENGTH_A_STEP;
    return this.#steps <= MAX_STEPS;
  }
}

/** Whether all that V8 hashes of a key is its length. */
export function isLong(key: unknown): key is string {
  return typeof key === "string" && key.length > MAX_HASHED_LENGTH;
}

/** How many digits V8 has for a long bigint; 0: it is none. */
function longDigits(key: unknown): number {
  return typeof key === "bigint" && (key >= LONG_BIGINT || key <= -LONG_BIGINT)
    ? Math.ceil(key.toString(16).length / 16)
    : 0;
}

/** What V8 makes of a key, as far as anybody can know it. */
function hashOf(key: unknown): number | undefined {
  if (typeof key === "string") {
    if (key.length > 10 || !INDEX.test(key)) return undefined;
    const index = Number(key);
    return index <= MAX_INDEX ? index : undefined;
  }
  if (typeof key === "bigint") {
    const digit = BigInt.asUintN(64, key < 0n ? -key : key);
    return longHash(Number(digit >> 32n), Number(BigInt.asUintN(32, digit)));
  }
  if (typeof key !== "number") return undefined;
  if ((key | 0) === key) return hash(key);
  double[0] = key;
  return longHash(halves[HIGH]!, halves[1 - HIGH]!);
}

/** V8's `ComputeUnseededHash()`. */
function hash(key: number): number {
  key = (~key + (key << 15)) | 0;
  key ^= key >>> 12;
  key = (key + (key << 2)) | 0;
  key ^= key >>> 4;
  key = Math.imul(key, 2057);
  return key ^ (key >>> 16);
}

/** V8's `ComputeLongHash()`, of 64 bits in two halves; its last 32 bits. */
function longHash(high: number, low: number): number {
  // ~key + (key << 18)
  let sum = (~low >>> 0) + ((low << 18) >>> 0);
  high = (~high + ((high << 18) | (low >>> 14)) + carry(sum)) | 0;
  low = sum | 0;
  // key ^ (key >>> 31)
  low ^= (high << 1) | (low >>> 31);
  high ^= high >>> 31;
  // key * 21
  sum = (low >>> 0) * 21;
  high = (Math.imul(high, 21) + carry(sum)) | 0;
  low = sum | 0;
  // key ^ (key >>> 11)
  low ^= (high << 21) | (low >>> 11);
  high ^= high >>> 11;
  // key + (key << 6)
  sum = (low >>> 0) + ((low << 6) >>> 0);
  high = (high + ((high << 6) | (low >>> 26)) + carry(sum)) | 0;
  low = sum | 0;
  // key ^ (key >>> 22)
  return low ^ ((high << 10) | (low >>> 22));
}

function carry(sum: number): number {
  return Math.floor(sum / 0x1_0000_0000);
}
