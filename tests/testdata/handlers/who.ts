/** Keeps its isolate busy for so many ms; tells which isolate it is. */
const id = crypto.randomUUID();

export default function who(busyMs: number): string {
  const until = performance.now() + busyMs;
  while (performance.now() < until);
  return id;
}
