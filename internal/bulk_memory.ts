/**
 * Byte strings come in memory of their own, which costs more than their bytes
 * where the allocator gives it back to the system after each, and where V8
 * collects its whole heap for every few hundred of them.
 *
 * @module
 */

/** From so many bytes on that can be noticed. */
const LONG_BYTES = 1024;
/** After so many bytes of them, more are expected. */
const BULK_BYTES = 64 * 1024 * 1024;
/** Just below the largest block that glibc learns from (32 MiB). */
const LESSON_BYTES = 32 * 1024 * 1024 - 64 * 1024;
/** What V8 is to find in its heap. */
const BALLAST_BYTES = 16 * 1024 * 1024;

let longBytes = 0;
/** Never garbage, and nothing in it that a collector would look at. */
let ballast: bigint | null = null;

/**
 * A byte string of so many bytes is about to be allocated. Where they add up to
 * 64 MiB, this process is told to expect more:
 *
 * - The memory of those that are gone is used again. glibc returns it to the
 *   system, which hands it out again page by page, up to six times as slowly as
 *   it is filled. That ends once a large block was freed: twice its size may
 *   then stay. Other allocators take no notice.
 * - V8's heap gets a ballast. V8 counts the bytes of an `ArrayBuffer` as if they
 *   were in its heap, until it finds that the buffer is garbage. It looks among
 *   the young ones every 32 MiB, and through its whole heap when heap and bytes
 *   have become some times what the heap was: for a heap of 7 MiB, that is
 *   after 40 MiB, and takes up to a third of a worker's time; for one of 23 MiB
 *   it comes after the young ones are gone, and hardly ever.
 *
 * @param size The byte string's size, in bytes.
 */
export function prepareBulkMemory(size: number): void {
  if (size < LONG_BYTES || ballast !== null) return;
  longBytes += size;
  if (longBytes < BULK_BYTES) return;
  // Nothing is ever written to it, so it costs no memory.
  new ArrayBuffer(LESSON_BYTES).transfer(0);
  ballast = 1n << BigInt(8 * BALLAST_BYTES);
}
