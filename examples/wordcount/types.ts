/** What the map pool takes: some lines of text. */
export type Lines = string[];

/**
 * What the map pool makes of it, and what the reduce pool takes and gives: a
 * word, and how often it occurs.
 */
export interface Count {
  /** The word, in lower case. */
  word: string;
  /** How often it occurs in these lines, or in the end: in all of them. */
  count: number;
}
