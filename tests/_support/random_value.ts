import { CborSimple, CborTag, type CborType } from "../../codec.ts";
import type { Rng } from "./rng.ts";

const KEYS = [
  "id",
  "a",
  "",
  "a b",
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "0",
  "1",
  "4294967295",
  "ключ",
  "🙂",
  "length",
  "a-rather-long-key-that-no-cache-is-going-to-keep",
];

const VIEWS = [
  Uint8Array,
  Uint8ClampedArray,
  Int8Array,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  BigUint64Array,
  BigInt64Array,
  Float16Array,
  Float32Array,
  Float64Array,
];

/** A random value of any type that the codec keeps, nested up to `depth`. */
export function randomValue(rng: Rng, depth = 4): unknown {
  if (depth === 0 || rng.chance(0.3)) return randomScalar(rng);
  const length = rng.int(0, rng.chance(0.1) ? 40 : 5);
  const next = () => randomValue(rng, depth - 1);
  switch (rng.int(0, 7)) {
    case 0:
      return Array.from({ length }, next);
    case 1:
      return new Set(Array.from({ length }, next));
    case 2:
      return new Map(Array.from({ length }, () => [next(), next()]));
    case 3:
      return randomObject(rng, length, Object.create(null), next);
    case 4:
      return new CborTag(
        // Not one of the tags that the codec gives a meaning.
        rng.pick([6, 23, 24, 1000, 55799, 70000, 2 ** 40, 2n ** 64n - 1n]),
        next() as CborType,
      );
    case 5:
      return randomError(rng, next);
    default:
      return randomObject(rng, length, {}, next);
  }
}

/** Random text, well-formed. */
function randomText(rng: Rng): string {
  const length = rng.pick([0, 1, 5, 23, 24, 36, 63, 64, 65, 255, 256, 300]);
  const alphabet = rng.pick(["abcxyz \0\x7f", "äé߀", "a€🙂", "\ufffd\ufeffa"]);
  const letters = [...alphabet];
  return Array.from({ length }, () => rng.pick(letters)).join("");
}

function randomObject(
  rng: Rng,
  length: number,
  object: object,
  next: () => unknown,
): object {
  for (let i = 0; i < length; i++) {
    Object.defineProperty(object, rng.chance(0.7) ? rng.pick(KEYS) : `k${i}`, {
      value: next(),
      configurable: true,
      enumerable: true,
      writable: true,
    });
  }
  return object;
}

function randomError(rng: Rng, next: () => unknown): Error {
  const options = rng.chance(0.5) ? { cause: next() } : undefined;
  const message = randomText(rng);
  if (rng.chance(0.2)) return new AggregateError([next()], message, options);
  const error = new (rng.pick([Error, TypeError, RangeError, URIError]))(
    message,
    options,
  );
  if (rng.chance(0.3)) {
    Object.defineProperty(error, "name", {
      value: "OwnError",
      configurable: true,
      writable: true,
    });
  }
  return error;
}

function randomScalar(rng: Rng): unknown {
  switch (rng.int(0, 13)) {
    case 0:
      return rng.pick([null, undefined, true, false]);
    case 1:
      return rng.pick([NaN, -0, Infinity, -Infinity, 1.5, 1e300, 5e-324]);
    case 2:
      return rng.int(-30, 300);
    case 3:
      return (rng.chance(0.5) ? 1 : -1) * (2 ** rng.int(0, 53) - rng.int(0, 1));
    case 4:
      return rng.float() * 10 ** rng.int(-300, 300);
    case 5:
      return Math.fround(rng.float());
    case 6:
      return BigInt(rng.pick([0, 1, -1, 255, -256])) *
        2n ** BigInt(rng.int(0, 130));
    case 7:
      return rng.bytes(rng.pick([0, 1, 23, 24, 300]));
    case 8: {
      const View = rng.pick(VIEWS);
      return new View(
        rng.bytes(View.BYTES_PER_ELEMENT * rng.int(0, 9)).buffer,
      );
    }
    case 9:
      return new Date(
        rng.pick([1e3, 1e12, 8.64e15]) * (rng.float() * 2 - 1),
      );
    case 10:
      return rng.pick([/a/, /[^/]+\/\n/dgimsuy, new RegExp(""), /\p{L}/v]);
    case 11:
      return rng.pick([
        new URL("https://user@example.com:8080/a?b=c#d"),
        rng.bytes(rng.int(0, 20)).buffer,
        new CborSimple(rng.pick([0, 19, 24, 32, 255])),
      ]);
    default:
      return randomText(rng);
  }
}
