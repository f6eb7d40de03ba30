/**
 * What the regular expressions of a frame may cost in all: V8 takes more time
 * and memory for some than their bytes would suggest.
 *
 * @module
 */

/**
 * What the regular expressions of a frame may have in all, those of one kind
 * counted once: escapes for many characters, which V8 makes lists of when it
 * reads them. Those for sequences of characters are long.
 */
const MAX_ESCAPES = 1024, ESCAPES_A_SEQUENCE = 32;
const ESCAPES = /\\[pPwWdDsS]/g, CLASSES = /\[/g;
const SEQUENCES = /\\p\{(?:RGI_|Basic_Emoji|Emoji_Keycap)/g;

/**
 * What the references to groups by name of a frame's regular expressions may
 * stand for in all. Many groups may have one name: V8 makes a list of them for
 * each reference, of gigabytes for a hundred thousand bytes.
 */
const MAX_REFERENCES = 1 << 20;
const GROUPS = /\(\?<(?![=!])/g, REFERENCES = /\\k</g;

/**
 * How many pairs V8 may compare in all when it reads a frame's regular
 * expressions: of groups, by their names, and with the flag `v` of characters in
 * one class. With `i` as well, so many take a fifth of a second.
 */
const MAX_PAIRS = 1 << 22;

/** Counts what the regular expressions of a frame cost. */
export class RegExpLimits {
  #escapes = 0;
  #references = 0;
  #pairs = 0;
  /** Those that were counted and are right: V8 knows what it has read. */
  readonly #counted = new Set<string>();

  /** Counts one, before V8 reads it; returns why it is refused, if it is. */
  count(source: string, flags: string): string | null {
    const pattern = `${flags}/${source}`;
    if (this.#counted.has(pattern)) return null;
    const count = (what: RegExp) => source.match(what)?.length ?? 0;
    const groups = count(GROUPS);
    const classes = flags.includes("v") ? count(CLASSES) : 0;
    this.#references += groups * count(REFERENCES);
    if (this.#references > MAX_REFERENCES) {
      return `regular expressions have more than ${MAX_REFERENCES} pairs of a named group and a reference to one`;
    }
    this.#pairs += groups ** 2 + (classes > 0 ? pairsInClasses(source) : 0);
    if (this.#pairs > MAX_PAIRS) {
      return `regular expressions have more than ${MAX_PAIRS} pairs of named groups, or of characters with the flag v`;
    }
    if (/[uv]/.test(flags)) {
      this.#escapes += count(ESCAPES);
      if (flags.includes("v")) {
        this.#escapes += classes + count(SEQUENCES) * ESCAPES_A_SEQUENCE;
      }
      if (this.#escapes > MAX_ESCAPES) {
        return `regular expressions with the flags u and v have more than ${MAX_ESCAPES} escapes for classes of characters`;
      }
    }
    this.#counted.add(pattern);
    return null;
  }

  /** One isn't right: V8 forgets it, and would read it once more. */
  forget(source: string, flags: string): void {
    this.#counted.delete(`${flags}/${source}`);
  }
}

/** Whether an expression can be slow to read: others need no count. */
export function isSlow(source: string, flags: string): boolean {
  return /[uv]/.test(flags) || source.includes("(?<");
}

/** Pairs of characters in one class; those of classes in it are its own. */
function pairsInClasses(source: string): number {
  let pairs = 0, depth = 0, from = 0;
  for (let i = 0; i < source.length; i++) {
    const character = source[i];
    if (character === "\\") i++;
    else if (character === "[") {
      if (depth++ === 0) from = i;
    } else if (character === "]" && depth > 0 && --depth === 0) {
      pairs += (i + 1 - from) ** 2;
    }
  }
  // V8 reads one without an end, too, before it finds that.
  return depth > 0 ? pairs + (source.length - from) ** 2 : pairs;
}
