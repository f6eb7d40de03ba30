/**
 * Long byte strings come in memory of their own, which costs more than their
 * bytes where the allocator gives it back to the system after each.
 *
 * @module
 */

/** From so many bytes on it is worth it. */
const LONG_BYTES = 16 * 1024;
/** Just below the largest block that glibc learns from (32 MiB). */
const LESSON_BYTES = 32 * 1024 * 1024 - 64 * 1024;

let isKept = false;

/**
 * A byte string of so many bytes is about to be allocated. From the first long
 * one on, what is freed is used again by this process: glibc returns freed
 * memory to the system, which hands it out again page by page, up to six times
 * as slowly as it is filled. That ends once a large block was freed: twice its
 * size may then stay. Other allocators take no notice.
 *
 * @param size The byte string's size, in bytes.
 */
export function keepFreedMemory(size: number): void {
  if (isKept || size < LONG_BYTES) return;
  isKept = true;
  // Nothing is ever written to it, so it costs no memory.
  new ArrayBuffer(LESSON_BYTES).transfer(0);
}
