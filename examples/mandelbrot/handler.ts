/**
 * Computes one row of the Mandelbrot set: nothing but arithmetic, so that a row
 * is the same on every machine.
 */
import type { Pixels, Row } from "./types.ts";

const MAX_ITERATIONS = 1000;

/** The handler: `work()` takes the default export of a module. */
export default function row({ y, width, height }: Row): Pixels {
  const pixels = new Uint8Array(width * 3);
  const scale = 3 / width; // from -2.25 to 0.75
  for (let x = 0; x < width; x++) {
    const n = iterations((x - 0.75 * width) * scale, (y - height / 2) * scale);
    pixels.set(colour(n), x * 3);
  }
  return pixels;
}

/** How many steps the point takes to escape, or the most there are. */
function iterations(re: number, im: number): number {
  let n = 0;
  for (let a = 0, b = 0; n < MAX_ITERATIONS && a * a + b * b <= 4; n++) {
    [a, b] = [a * a - b * b + re, 2 * a * b + im];
  }
  return n;
}

function colour(n: number): [red: number, green: number, blue: number] {
  if (n === MAX_ITERATIONS) return [0, 0, 0];
  return [
    Math.min(255, n * 4),
    Math.min(255, n * 9),
    Math.min(255, 64 + n * 15),
  ];
}
