/**
 * CBOR to JavaScript values, read in place. What each item becomes is the table
 * of PROTOCOL.md section 8.
 *
 * No code of a caller runs while a value is decoded, so a decoder is never
 * entered twice.
 *
 * @module
 */

import { CborReader, INDEFINITE } from "./cbor_reader.ts";
import { quote } from "./cbor_text.ts";
import { CborSimple, isSimple } from "./cbor_simple.ts";
import type { Aside } from "./long_string.ts";
import { MAX_SHAPE_KEYS, ShapeCache } from "./shape_cache.ts";
import { decodeTagged } from "./cbor_tagged.ts";
import { COLLIDING, isLong, KeyBuckets } from "./key_buckets.ts";

/** Arrays of more items than this grow while they are read. */
const MAX_AHEAD = 1 << 16;

/** Options of {@linkcode CborDecoder}. */
export interface CborDecoderOptions {
  /** How deep arrays, maps and tags may nest. @default {64} */
  maxDepth?: number;
  /** Whether tags stand for something; if not, each is a `CborTag`. @default {true} */
  hasTags?: boolean;
}

/** Reads CBOR data items, one after another. */
export class CborDecoder extends CborReader {
  readonly #maxDepth: number;
  /** How many items the bytes can still hold: each takes one at least. */
  #budget = 0;
  readonly #shapes = new ShapeCache();

  /** @param options The options. */
  constructor({ maxDepth = 64, hasTags = true }: CborDecoderOptions = {}) {
    super();
    this.#maxDepth = maxDepth;
    this.hasTags = hasTags;
  }

  /**
   * Reads a data item of any kind.
   *
   * @throws {DecodeError} If there is none, or a malformed one.
   */
  readValue(): unknown {
    this.#budget = this.end - this.pos;
    try {
      return this.value(0);
    } catch (error) {
      // A limit on depth that is larger than the stack.
      if (error instanceof RangeError) {
        this.fail(`it is too large: ${error.message}`, this.pos, error);
      }
      throw error;
    }
  }

  /** Reads one data item that takes the whole range. */
  decode(
    bytes: Uint8Array,
    start: number,
    end: number,
    aside: Aside | null = null,
  ): unknown {
    this.set(bytes, start, end);
    this.aside = aside;
    const value = this.readValue();
    this.aside = null;
    if (this.pos !== end) {
      this.fail(`${end - this.pos} bytes follow the value`, this.pos);
    }
    return value;
  }

  /** Reads any data item that is inside of `depth` others. */
  value(depth: number): unknown {
    const at = this.pos;
    if (at >= this.end) this.truncated();
    const byte = this.bytes[at]!;
    this.pos = at + 1;
    const info = byte & 31;
    switch (byte >> 5) {
      case 0:
        return info < 24 ? info : this.integer(info, false);
      case 1:
        return info < 24 ? -1 - info : this.integer(info, true);
      case 2:
        return this.byteString(info);
      case 3:
        return this.text(info, at);
      case 4:
        return this.#array(info, depth, at);
      case 5:
        return this.#map(info, depth, at);
      case 6:
        return decodeTagged(this, info, depth);
      default:
        return this.#simple(info, at);
    }
  }

  /** Fails if an item at this depth is nested too deep. */
  enter(depth: number, at: number): void {
    if (depth >= this.#maxDepth) {
      this.fail(`nested too deep: the limit is ${this.#maxDepth}`, at);
    }
  }

  /** The number of items, which the bytes that are left must be enough for. */
  count(info: number, size: number): number {
    const at = this.pos - 1;
    const count = this.argument(info);
    this.#budget -= count * size;
    if (this.#budget < 0 || count * size > this.end - this.pos) {
      this.fail(
        `length is ${count}, more than the bytes that are left can hold`,
        at,
      );
    }
    return count;
  }

  #array(info: number, depth: number, at: number): unknown[] {
    this.enter(depth, at);
    if (info === INDEFINITE) {
      const result: unknown[] = [];
      while (!this.atBreak()) result.push(this.value(depth + 1));
      return result;
    }
    const count = this.count(info, 1);
    // One allocation is much faster, but what isn't there yet is not trusted
    // with more than this.
    const result: unknown[] = new Array(Math.min(count, MAX_AHEAD));
    for (let i = 0; i < result.length; i++) {
      const value = this.smallUint();
      result[i] = value < 0 ? this.value(depth + 1) : value;
    }
    while (result.length < count) result.push(this.value(depth + 1));
    return result;
  }

  #map(
    info: number,
    depth: number,
    at: number,
  ): Record<string, unknown> | Map<unknown, unknown> {
    this.enter(depth, at);
    const result: Record<string, unknown> = {};
    const count = info === INDEFINITE ? Infinity : this.count(info, 2);
    let shape = count <= MAX_SHAPE_KEYS ? this.#shapes.root : null;
    let buckets: KeyBuckets | null = null;
    for (let i = 0; i < count; i++) {
      if (count === Infinity && this.atBreak()) break;
      const keyAt = this.pos;
      if (shape !== null) {
        const next = shape.next(this.bytes, keyAt, this.end);
        if (next !== null) {
          shape = next;
          this.pos = keyAt + next.size;
          const value = this.value(depth + 1);
          if (next.inherited) define(result, next.key, value);
          else if (depth > 0 || i >= OWN_SITES) result[next.key] = value;
          else put(result, next.key, value, i);
          continue;
        }
      }
      if (keyAt < this.end && this.bytes[keyAt]! >> 5 !== 3) {
        // Not an object then: an object's keys are text.
        return this.#entries(result, count, depth);
      }
      const key = this.readText();
      if (isLong(key) && !(buckets ??= new KeyBuckets()).accepts(key)) {
        this.fail(COLLIDING, keyAt);
      }
      if (Object.hasOwn(result, key)) {
        this.fail(`key ${quote(key)} is there twice`, keyAt);
      }
      if (shape !== null) {
        shape = this.#shapes.learn(shape, key, this.bytes, keyAt, this.pos);
      }
      const value = this.value(depth + 1);
      if (key in Object.prototype) define(result, key, value);
      else result[key] = value;
    }
    return result;
  }

  /** Reads a map's other entries, until there are `count`, or a break comes. */
  #entries(
    texts: Record<string, unknown>,
    count: number,
    depth: number,
  ): Map<unknown, unknown> {
    const result = new Map<unknown, unknown>();
    const seen = new Set<string>();
    const buckets = new KeyBuckets();
    for (const [key, value] of Object.entries(texts)) {
      if (!buckets.accepts(key)) this.fail(COLLIDING, this.pos);
      result.set(key, value);
    }
    while (result.size < count) {
      if (count === Infinity && this.atBreak()) break;
      const keyAt = this.pos;
      const key = this.value(depth + 1);
      // Arrays and the like: the same if their bytes are.
      const isObject = typeof key === "object" && key !== null;
      const content = isObject ? this.#content(keyAt) : key;
      if (!buckets.accepts(content)) this.fail(COLLIDING, keyAt);
      let twice = result.has(key);
      if (isObject) {
        twice = seen.has(content as string);
        seen.add(content as string);
      }
      if (twice) this.fail("a key is there twice", keyAt);
      result.set(key, this.value(depth + 1));
    }
    return result;
  }

  /** The bytes from a position on, with what is aside, as text. */
  #content(start: number): string {
    const { bytes, pos, aside } = this;
    const text = (part: Uint8Array) => new TextDecoder("latin1").decode(part);
    if (aside === null || aside.at <= start || aside.at > pos) {
      return text(bytes.subarray(start, pos));
    }
    return text(bytes.subarray(start, aside.at)) + text(aside.bytes) +
      text(bytes.subarray(aside.at, pos));
  }

  #simple(info: number, at: number): unknown {
    switch (info) {
      case 20:
        return false;
      case 21:
        return true;
      case 22:
        return null;
      case 23:
        return undefined;
      case 24: {
        const value = this.argument(24);
        // What fits into one byte must be there; 24 is in the test vectors.
        if (value < 24 || !isSimple(value)) {
          this.fail(`simple value ${value} in two bytes`, at);
        }
        return new CborSimple(value);
      }
      case 25:
        return this.float(2);
      case 26:
        return this.float(4);
      case 27:
        return this.float(8);
      case INDEFINITE:
        return this.fail("a break is outside of any item", at);
      default:
        if (info > 27) {
          this.fail(`additional information ${info} is reserved`, at);
        }
        return new CborSimple(info);
    }
  }
}

/** The first so many keys of a value are stored at places of their own. */
const OWN_SITES = 8;

/**
 * Stores the `i`th property of an object. The values of a channel mostly have
 * the same keys: where a place sees only one of them, its inline cache knows it.
 */
function put(
  object: Record<string, unknown>,
  key: string,
  value: unknown,
  i: number,
): void {
  switch (i) {
    case 0:
      object[key] = value;
      break;
    case 1:
      object[key] = value;
      break;
    case 2:
      object[key] = value;
      break;
    case 3:
      object[key] = value;
      break;
    case 4:
      object[key] = value;
      break;
    case 5:
      object[key] = value;
      break;
    case 6:
      object[key] = value;
      break;
    default:
      object[key] = value;
  }
}

/** Adds an own property whatever its name, never a prototype. */
function define(
  object: Record<string, unknown>,
  key: string,
  value: unknown,
): void {
  Object.defineProperty(object, key, {
    value,
    configurable: true,
    enumerable: true,
    writable: true,
  });
}
