/** Does what it is told, and that is no good. */
import process from "node:process";
import { setImmediate } from "node:timers";

const id = crypto.randomUUID();

export default async function trouble(what: string): Promise<unknown> {
  switch (what) {
    case "loop":
      for (;;);
    case "loop for 3 s":
      for (const until = performance.now() + 3000; performance.now() < until;);
      break;
    case "throw":
      throw new RangeError("thrown", { cause: new TypeError("the cause") });
    case "throw text":
      // deno-lint-ignore no-throw-literal
      throw "just text";
    case "throw later":
      setTimeout(() => {
        throw new RangeError("thrown later");
      }, 0);
      return await new Promise(() => {});
    case "reject and return":
      Promise.reject(new RangeError("rejected"));
      return "returned";
    case "throw after":
      // The result leaves a turn later: this comes behind it.
      setImmediate(() =>
        setTimeout(() => {
          throw new RangeError("thrown after");
        }, 0)
      );
      return id;
    case "Deno.exit":
      Deno.exit(7);
      break;
    case "process.exit":
      process.exit(8);
      break;
    case "self.close":
      self.close();
      return await new Promise(() => {});
    case "function":
      return { fn() {} };
    case "large":
      return new Uint8Array(100_000);
    case "endless": {
      let twice: unknown = 1;
      for (let i = 0; i < 40; i++) twice = [twice, twice];
      return twice;
    }
    case "memory": {
      const hoard = [];
      for (;;) hoard.push(new Array(1_000_000).fill(Math.random()));
    }
  }
  return id;
}
