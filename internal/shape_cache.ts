/**
 * The keys of objects that came before, in their order. Most objects have the
 * keys of an earlier one: these needn't be decoded, nor checked for duplicates,
 * again.
 *
 * @module
 */

/** More keys than this, and the map is no object of a few known kinds. */
export const MAX_SHAPE_KEYS = 32;

/** Longer keys, in bytes with their head, aren't kept. */
const MAX_KEY_BYTES = 24;
/** So many different keys may follow one. */
const MAX_CHILDREN = 16;
/** So many shapes are known at most, so that no peer can fill memory. */
const MAX_SHAPES = 1024;
/**
 * After so many keys that were in none of these, all are forgotten. Where keys
 * are data, ids or words, learning each would cost more than it ever saves.
 */
const MAX_STRANGE = 16 * MAX_SHAPES;

/** A key, after the keys that lead to it. On a path no key is there twice. */
export class Shape {
  /** The key. */
  readonly key: string;
  /** Whether an object has such a property without owning it. */
  readonly inherited: boolean;
  /** The key's size, with its head, in bytes. */
  readonly size: number;
  readonly #bytes: Uint8Array;
  #child: Shape | null = null;
  #sibling: Shape | null = null;
  #children = 0;

  /**
   * @param key The key.
   * @param bytes How it is encoded, with its head.
   */
  constructor(key: string, bytes: Uint8Array) {
    // As a property's name, text is compared by identity.
    this.key = Object.keys({ [key]: 0 })[0]!;
    this.inherited = key in Object.prototype;
    this.size = bytes.length;
    this.#bytes = bytes;
  }

  /** The shape that the key at a position leads to, or null if it is new. */
  next(bytes: Uint8Array, at: number, end: number): Shape | null {
    for (let shape = this.#child; shape !== null; shape = shape.#sibling) {
      const { size } = shape;
      const own = shape.#bytes;
      if (size > end - at) continue;
      let i = 0;
      while (i < size && own[i] === bytes[at + i]) i++;
      if (i === size) return shape;
    }
    return null;
  }

  /** Adds a shape for a key after this one. */
  add(shape: Shape): void {
    if (this.#children === MAX_CHILDREN) {
      this.#child = null;
      this.#children = 0;
    }
    shape.#sibling = this.#child;
    this.#child = shape;
    this.#children++;
  }
}

/** The shapes that one decoder knows. */
export class ShapeCache {
  /** The shape of an object without keys. */
  root: Shape = new Shape("", new Uint8Array(0));
  #count = 0;
  /** Keys that came since as many shapes are known as may be. */
  #strange = 0;

  /**
   * Learns the key in a range of bytes. Returns its shape, or null if it isn't
   * kept.
   */
  learn(
    after: Shape,
    key: string,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): Shape | null {
    // Only with the shortest head: what is longer isn't met again.
    if (
      end - start > MAX_KEY_BYTES || bytes[start] !== (0x60 | end - start - 1)
    ) return null;
    if (this.#count >= MAX_SHAPES) {
      if (++this.#strange < MAX_STRANGE) return null;
      this.root = new Shape("", new Uint8Array(0));
      this.#count = this.#strange = 0;
      return null;
    }
    this.#count++;
    const shape = new Shape(key, bytes.slice(start, end));
    after.add(shape);
    return shape;
  }
}
