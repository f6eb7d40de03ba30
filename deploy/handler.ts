/**
 * What the deployed workers do with an item: yours goes here.
 *
 * @module
 */

/** Capitalizes a text. */
export default function handler(text: string): string {
  return text.toUpperCase();
}
