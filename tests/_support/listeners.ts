/** Counts the listeners that a signal gets from now on, and loses. */
export function countListeners(
  signal: AbortSignal,
): { added: number; removed: number } {
  const count = { added: 0, removed: 0 };
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: unknown[]) => {
    count.added++;
    return addEventListener.apply(signal, args as never);
  };
  signal.removeEventListener = (...args: unknown[]) => {
    count.removed++;
    return removeEventListener.apply(signal, args as never);
  };
  return count;
}
