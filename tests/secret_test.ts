import { Buffer } from "node:buffer";
import {
  assert,
  assertEquals,
  assertGreaterOrEqual,
  assertRejects,
} from "@std/assert";
import { Client, connect, HandshakeError, listen, work } from "../mod.ts";
import { both, Kit } from "./_support/channel_kit.ts";
import { relay } from "./_support/relay.ts";
import {
  concat,
  frame,
  framed,
  ScriptedPeer,
  T,
} from "./_support/scripted_peer.ts";
import { TcpProxy } from "./_support/tcp_proxy.ts";
import { until, within } from "./_support/within.ts";

const secret = "open sesame";

async function assertAuth(client: Client): Promise<void> {
  const error = await assertRejects(() => client.opened, HandshakeError);
  assertEquals(error.code, "auth");
}

both("secret: as text and as bytes it is the same", async (net) => {
  await using kit = new Kit<number, number>(net, { secret });
  await kit.worker((n) => n + 1, {
    client: { secret: new TextEncoder().encode(secret) },
  });
  assertEquals(await kit.server.submit(1), 2);
});

both(
  "secret: another one, or none at one end, is refused on both ends",
  async (net) => {
    const cases = [
      { server: { secret }, client: { secret: "open barley" } },
      { server: { secret }, client: { secret: `${secret} ` } },
      { server: { secret }, client: {} },
      { server: {}, client: { secret } },
    ];
    for (const options of cases) {
      await using kit = new Kit(net, options.server);
      const startedAt = performance.now();
      await assertAuth(new Client(await kit.dial(), options.client));
      const ms = performance.now() - startedAt;
      assertGreaterOrEqual(ms, 95, "the answer to a guess takes its time");
      const { code } = await kit.event("rejected");
      assertEquals(code, "auth");
      assertEquals(kit.server.workers.length, 0);
    }
  },
);

Deno.test("secret: who breaks a rule behind a guess is answered no sooner", async () => {
  await using server = listen({ port: 0, secret });
  await using peer = await ScriptedPeer.connect(server.addr.port);
  const hello = peer.hello({ auth: true });
  await peer.say(T.HELLO, "distchan", 1, hello);
  await peer.expect(T.CHALLENGE);
  const startedAt = performance.now();
  const guess = frame(T.PROOF, new Uint8Array(32));
  await peer.send(guess, new Uint8Array(4));
  const [code] = (await peer.expect(T.REJECT)).fields;
  assertEquals(code, 5);
  assertGreaterOrEqual(performance.now() - startedAt, 95);
  assertEquals(await peer.rest(), []);
});

both(
  "secret: who is to be refused, and is dropped before, is told why",
  async (net) => {
    await using kit = new Kit(net, { secret });
    await using peer = new ScriptedPeer(await kit.dial());
    await peer.say(T.HELLO, "distchan", 1, peer.hello({ auth: true }));
    await peer.expect(T.CHALLENGE);
    const before = kit.server.stats().bytesIn;
    await peer.say(T.PROOF, new Uint8Array(32));
    await until(() => kit.server.stats().bytesIn > before, "the guess is read");
    const aborted = kit.server.abort();
    assertEquals((await peer.expect(T.REJECT)).fields[0], 5);
    peer.close();
    await aborted; // and no timer is left
    assertEquals((await kit.event("rejected")).code, "auth");
  },
);

both("secret: it may be wiped once it is handed over", async (net) => {
  const mine = () => new TextEncoder().encode(secret);
  for (const wiped of [mine(), Buffer.from(secret)]) {
    await using kit = new Kit<number, number>(net, { secret: wiped });
    wiped.fill(0);
    const zeros = new Uint8Array(wiped.length);
    await assertAuth(new Client(await kit.dial(), { secret: zeros }));
    const own = mine();
    const client = new Client<number, number>(await kit.dial(), {
      secret: own,
    });
    own.fill(0);
    client.work((n) => n + 1);
    assertEquals(await kit.server.submit(1), 2);
    await kit.server.close();
  }
});

Deno.test("secret: connect() and work() keep their own, over reconnections too", async () => {
  await using server = listen<number, number>({ port: 0, secret });
  const { port } = server.addr as Deno.NetAddr;
  const own = new TextEncoder().encode(secret);
  const connecting = connect({ port, secret: own });
  own.fill(0);
  await (await connecting).abort();

  await using proxy = new TcpProxy(port);
  const bytes = new TextEncoder().encode(secret);
  work<number, number>({
    port: proxy.port,
    secret: bytes,
    reconnect: { minDelayMs: 1 },
  }, (n) => n + 1).catch(() => {});
  bytes.fill(0);
  assertEquals(await server.submit(1), 2);
  proxy.cut();
  assertEquals(await server.submit(2), 3);
  await server.close();
});

both("secret: it never leaves its end", async (net) => {
  await using kit = new Kit<string, string>(net, { secret });
  const way = relay(await kit.dial());
  const client = new Client<string, string>(way.conn, { secret });
  const done = client.work((text) => text + "!");
  assertEquals(await kit.server.submit("in the clear"), "in the clear!");
  await kit.server.close();
  await done;
  await way.done;
  const all = [...way.seen["to server"], ...way.seen["to client"]];
  const text = new TextDecoder("latin1").decode(concat(all));
  assert(!text.includes("sesame"));
  assert(text.includes("in the clear"), "a secret doesn't encrypt");
});

both(
  "secret: nothing of the handshake can be changed on the way",
  async (net) => {
    const changes: [string, "to server" | "to client", number, string][] = [
      ["HELLO", "to server", 0, "worker-one"],
      ["CHALLENGE", "to client", 0, ""],
      ["PROOF of the client", "to server", 1, ""],
      ["WELCOME", "to client", 1, "results"],
      ["PROOF of the server", "to client", 2, ""],
    ];
    for (const [what, direction, index, text] of changes) {
      await using kit = new Kit(net, { secret });
      let isChanged = false;
      const way = relay(await kit.dial(), (body, to, i) => {
        if (to === direction && i === index) {
          isChanged = true;
          // A byte of the text, or the last: in a nonce or a proof.
          const at = text === ""
            ? body.length - 1
            : new TextDecoder("latin1").decode(body).indexOf(text);
          body[at]! ^= 1;
        }
        return [body];
      });
      await assertAuth(new Client(way.conn, { secret, name: "worker-one" }));
      assert(isChanged, what);
      await way.done;
    }
  },
);

both("secret: a proof that was heard is worth nothing later", async (net) => {
  await using kit = new Kit(net, { secret });
  const way = relay(await kit.dial());
  const client = new Client(way.conn, { secret });
  await client.opened;
  const [hello, proof] = way.seen["to server"];
  const again = new ScriptedPeer(await kit.dial());
  await using _ = again;
  await again.send(framed(hello!));
  await again.expect(T.CHALLENGE);
  await again.send(framed(proof!));
  const reject = await again.expect(T.REJECT);
  assertEquals(reject.fields[0], 5);
  assertEquals(kit.server.workers.length, 1);
  await client.abort();
  await way.done;
});

both(
  "secret: what a server said once convinces no client later",
  async (net) => {
    await using kit = new Kit(net, { secret });
    const way = relay(await kit.dial());
    const client = new Client(way.conn, { secret });
    await client.opened;
    await client.abort();
    await way.done;
    // CHALLENGE, WELCOME and PROOF, as a client of before took them.
    const [challenge, welcome, proof] = way.seen["to client"];
    const [server, conn] = ScriptedPeer.pair();
    await using _ = server;
    const later = new Client(conn, { secret });
    await server.expect(T.HELLO);
    await server.send(framed(challenge!));
    await server.expect(T.PROOF);
    await server.send(framed(welcome!), framed(proof!));
    await assertAuth(later);
  },
);

both(
  "secret: what a client sends behind a wrong proof is not looked at",
  async (net) => {
    await using kit = new Kit(net, { secret });
    await using peer = new ScriptedPeer(await kit.dial());
    await peer.say(T.HELLO, "distchan", 1, { ...peer.hello(), auth: true });
    await peer.expect(T.CHALLENGE);
    await peer.say(T.PROOF, new Uint8Array(32));
    await peer.say(T.PROOF, new Uint8Array(32));
    await peer.say(T.CREDIT, 1, 1, 10, 0);
    const frames = await peer.rest();
    assertEquals(frames.map(({ type, fields }) => [type, fields[0]]), [
      [T.REJECT, 5],
    ]);
    assertEquals(
      kit.events.filter((event) => event.type === "rejected").length,
      1,
    );
  },
);

both("secret: close() doesn't wait for the answer to a guess", async (net) => {
  await using kit = new Kit(net, { secret });
  const client = new Client(await kit.dial(), {});
  await kit.server.close();
  await assertRejects(() => client.opened, HandshakeError);
});

Deno.test("secret: work() gives up when it is refused twice", async () => {
  const attempts: string[] = [];
  await using server = listen({
    port: 0,
    secret,
    onEvent: (event) => attempts.push(event.type),
  });
  const { port } = server.addr as Deno.NetAddr;
  const error = await assertRejects(
    () =>
      within(
        work({ port, reconnect: { minDelayMs: 1 } }, (x) => x),
        5000,
        "work() gives up",
      ),
    HandshakeError,
  );
  assertEquals(error.code, "auth");
  assertEquals(attempts, ["rejected", "rejected"]);
});
