import { assertEquals } from "@std/assert";
import { MAX_FEW, Vacancies } from "../internal/vacancies.ts";

const ids = (few: readonly { id: number }[] | null) =>
  few?.map(({ id }) => id) ?? null;

Deno.test("Vacancies: once nobody has room, those are known that get it, in order", () => {
  const vacancies = new Vacancies<{ id: number }>(2);
  const workers = Array.from({ length: 100 }, (_, id) => ({ id }));
  vacancies.reset(workers.length);
  assertEquals(vacancies.of(0), null);
  vacancies.none(0);
  assertEquals([vacancies.of(0), vacancies.of(1)], [[], null]);
  for (const id of [7, 3, 9, 3, 5]) vacancies.add(workers[id]!);
  assertEquals([ids(vacancies.of(0)), vacancies.of(1)], [[3, 5, 7, 9], null]);
  vacancies.remove(workers[7]!, 99);
  assertEquals(ids(vacancies.of(0)), [3, 5, 9]);
  vacancies.remove(workers[3]!, 98);
  assertEquals(ids(vacancies.of(0)), [5, 9]);
  vacancies.none(0);
  assertEquals(vacancies.of(0), []);
  for (const worker of workers.slice(0, MAX_FEW)) vacancies.add(worker);
  assertEquals(vacancies.of(0)?.length, MAX_FEW);
  vacancies.add(workers[50]!);
  assertEquals(vacancies.of(0), null, "too many to be told");
});

Deno.test("Vacancies: where workers are few, all of them are asked", () => {
  const vacancies = new Vacancies<{ id: number }>(1);
  vacancies.reset(64);
  vacancies.none(0);
  assertEquals(vacancies.of(0), null);
  vacancies.reset(65);
  vacancies.none(0);
  assertEquals(vacancies.of(0), []);
  vacancies.remove({ id: 1 }, 64);
  assertEquals(vacancies.of(0), null);
});
