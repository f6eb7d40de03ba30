/**
 * The adder's server: sends pairs of numbers, checks each sum that comes back,
 * and prints it. Pairs come from standard input, two numbers a line, or are
 * made up with `--count`.
 *
 *     printf '1 2\n3 4\n' | deno run --allow-net=127.0.0.1:5678 examples/adder/server.ts
 *     deno run --allow-net=127.0.0.1:5678 examples/adder/server.ts --count 1000
 *
 * Status 1 means that a line wasn't two numbers, or that a sum was wrong.
 */
import { TextLineStream } from "@std/streams";
import { listen } from "../../mod.ts"; // yours: "jsr:@distchan/distchan"
import {
  announce,
  drainOnSignal,
  readArguments,
  wholeNumber,
} from "../args.ts";
import type { Answer, Question } from "./types.ts";

const { hostname, port, values } = readArguments("count");
const count = values.count && wholeNumber("--count", values.count);
await using server = listen<Question, Answer>({ hostname, port });
const stopped = drainOnSignal(server);
announce(server);

/** The questions that have no answer yet. */
const open = new Map<number, Question>();

async function* questions(): AsyncGenerator<Question> {
  let id = 0;
  for await (const [a, b] of count ? madeUp(count) : typed()) {
    const question = { id: id++, a, b };
    open.set(question.id, question);
    yield question;
  }
}

function* madeUp(count: number): Generator<[number, number]> {
  for (let i = 0; i < count; i++) yield [i, i * i];
}

async function* typed(): AsyncGenerator<[number, number]> {
  const lines = Deno.stdin.readable
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new TextLineStream());
  for await (const line of lines) {
    const [a = NaN, b = NaN, ...more] = line.trim().split(/\s+/).map(Number);
    if (Number.isFinite(a + b) && more.length === 0) yield [a, b];
    else fail(`not two numbers: ${line}`);
  }
}

function fail(message: string): void {
  console.error(message);
  Deno.exitCode = 1;
}

const answers = ReadableStream.from(questions()).pipeThrough(server);
for await (const { id, answer } of answers) {
  // When a worker dies, the next one may give its last answer once more. The
  // id tells: the question isn't open any longer.
  const question = open.get(id);
  if (question === undefined) continue;
  open.delete(id);
  const { a, b } = question;
  console.log(`${a} + ${b} = ${answer}`);
  if (answer !== a + b) fail(`wrong: ${a} + ${b} is not ${answer}`);
}
if (open.size > 0 && !stopped.aborted) fail(`${open.size} without an answer`);
