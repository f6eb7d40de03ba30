import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { stdArgs } from "../tools/std.ts";
import { Process, ROOT, startDeno } from "./_support/process.ts";
import { freePort, success } from "./_support/examples.ts";

const SECRET = "deploy s3cret";
const DEPLOY = `${ROOT}deploy/`;
const FLAGS = ["--allow-net", "--allow-env=DISTCHAN_SECRET"];
const NO_PORTS = ["--port=0", "--http-port=0", "--dashboard-port=0"];

const python = await canRun("/usr/bin/python3", ["-c", "import yaml"]);
const systemd = await canRun("systemd-analyze", ["--version"]);

async function canRun(program: string, args: string[]): Promise<boolean> {
  try {
    const command = new Deno.Command(program, {
      args,
      stdout: "null",
      stderr: "null",
    });
    return (await command.output()).success;
  } catch {
    return false;
  }
}

function read(name: string): Promise<string> {
  return Deno.readTextFile(DEPLOY + name);
}

/** The documents of a YAML file. */
async function yaml(name: string): Promise<Json[]> {
  await using reader = new Process("/usr/bin/python3", [
    "-c",
    "import json, sys, yaml\n" +
    "print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))",
    DEPLOY + name,
  ]);
  return JSON.parse(await success(reader));
}

// deno-lint-ignore no-explicit-any
type Json = any;

function yamlTest(name: string, fn: () => Promise<void>): void {
  const ignore = !python;
  Deno.test({ name: `${name} (needs python3 with yaml)`, ignore, fn });
}

/**
 * Starts a script of deploy/, by default with the permissions that it is
 * compiled with.
 */
function start(
  script: string,
  args: readonly string[],
  flags: readonly string[] = FLAGS,
): Process {
  return startDeno([...flags, DEPLOY + script, ...args], {
    env: { DISTCHAN_SECRET: SECRET },
  });
}

interface Ports {
  workers: string;
  dashboard: string;
  http: string;
}

async function portsOf(server: Process): Promise<Ports> {
  const port = async (pattern: RegExp) =>
    (await server.stderr.line(pattern))[1]!;
  return {
    workers: await port(/^listening on .*:(\d+)$/),
    dashboard: await port(/^dashboard on port (\d+)$/),
    http: await port(/^http on port (\d+)$/),
  };
}

async function post(port: string, body: BodyInit): Promise<string> {
  const url = `http://127.0.0.1:${port}/`;
  return await (await fetch(url, { method: "POST", body })).text();
}

Deno.test("deploy/server.ts answers by its workers, and both end in order at SIGTERM", async () => {
  await using server = start("server.ts", ["--host=0.0.0.0", ...NO_PORTS]);
  const ports = await portsOf(server);
  await using first = start("worker.ts", [`--port=${ports.workers}`]);
  assertEquals(await post(ports.http, "hello"), "HELLO");

  const dashboard = `http://127.0.0.1:${ports.dashboard}`;
  const health = await fetch(`${dashboard}/healthz`);
  assertEquals(health.status, 200);
  await health.body?.cancel();
  const stranger = await fetch(`${dashboard}/metrics`);
  assertEquals(stranger.status, 401);
  await stranger.body?.cancel();
  const metrics = await fetch(`${dashboard}/metrics`, {
    headers: { authorization: `Bearer ${SECRET}` },
  });
  const autoscaler = await read("kubernetes/autoscaler.yaml");
  const [, metric] = autoscaler.match(/name: (distchan_\w+)/)!;
  assertMatch(await metrics.text(), new RegExp(`^${metric} \\d+$`, "m"));

  const large = new Uint8Array(4 * 1024 * 1024 + 1);
  assertMatch(await post(ports.http, large), /^an item has at most 4194304/);
  const binary = Uint8Array.of(0x61, 0xff);
  assertMatch(await post(ports.http, binary), /^the item .* isn't UTF-8/);

  first.signal("SIGTERM");
  await success(first);
  const waiting = post(ports.http, "no worker is there");
  await using second = start("worker.ts", [`--port=${ports.workers}`]);
  assertEquals(await waiting, "NO WORKER IS THERE");
  server.signal("SIGTERM");
  await success(server);
  await success(second); // the server's end is its own
});

Deno.test("deploy/server.ts answers all that was asked whole at SIGTERM, and waits for no half", async () => {
  await using server = start("server.ts", NO_PORTS);
  const { workers, http } = await portsOf(server);
  const HEAD = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n";
  using half = await Raw.connect(http);
  await half.write(`${HEAD}half`);
  using late = await Raw.connect(http);
  await late.write(`${HEAD}hello`);
  using unread = await Raw.connect(http); // answered, but it has half a body
  await unread.write(`${HEAD.replace("POST", "PUT")}half`);
  assertStringIncludes(await unread.read(), " 405 ");
  using gone = await Raw.connect(http);
  await gone.write(`${HEAD}gone`);
  gone[Symbol.dispose]();
  using whole = await Raw.connect(http);
  await whole.write(`${HEAD}helloworld`);
  server.signal("SIGTERM");
  await late.write("world");

  await using worker = start("worker.ts", [`--port=${workers}`]);
  for (const client of [whole, late]) {
    assertMatch(await client.read(), / 200 [^]*HELLOWORLD$/);
  }
  assertStringIncludes(await half.read(), " 400 ");
  await success(server);
  await success(worker);
  // A client that goes away is no error: only ports and Deno's own line.
  const { stderr } = await server.exit;
  const rest = stderr.split("\n").filter((line) => !/ on |^$/.test(line));
  assertEquals(rest, []);
});

/** A client that sends what it is told. */
class Raw implements Disposable {
  readonly #conn: Deno.TcpConn;
  #open = true;

  static async connect(port: string): Promise<Raw> {
    return new Raw(await Deno.connect({ port: Number(port) }));
  }

  constructor(conn: Deno.TcpConn) {
    this.#conn = conn;
  }

  async write(text: string): Promise<void> {
    await this.#conn.write(new TextEncoder().encode(text));
  }

  /** What comes first, or nothing at the end. */
  async read(): Promise<string> {
    const bytes = new Uint8Array(4096);
    const count = await this.#conn.read(bytes) ?? 0;
    return new TextDecoder().decode(bytes.subarray(0, count));
  }

  [Symbol.dispose](): void {
    if (this.#open) this.#conn.close();
    this.#open = false;
  }
}

Deno.test("deploy/worker.ts says why it does nothing", async () => {
  await using worker = start("worker.ts", [`--port=${freePort()}`]);
  await worker.stderr.line(/^reconnecting: .*refused/i);
  worker.signal("SIGTERM");
  await success(worker);
});

Deno.test("deploy's programs want a secret", async () => {
  for (const script of ["server.ts", "worker.ts"]) {
    await using none = startDeno([...FLAGS, DEPLOY + script], {
      env: { DISTCHAN_SECRET: "" },
    });
    const { code, stderr } = await none.exit;
    assertEquals(code, 2);
    assertStringIncludes(stderr, "DISTCHAN_SECRET");
  }
});

Deno.test({
  name: "deploy's programs refuse a secret that isn't text, and don't show it",
  ignore: Deno.build.os !== "linux",
  async fn() {
    for (const script of ["server.ts", "worker.ts"]) {
      const { code, stderr } = await new Deno.Command("sh", {
        args: [
          ...["-c", 'DISTCHAN_SECRET=$(printf "s3cr\\377") exec "$0" "$@"'],
          ...[Deno.execPath(), "run", "-q", "--no-check", ...stdArgs()],
          ...[...FLAGS, DEPLOY + script],
        ],
        stderr: "piped",
      }).output();
      assertEquals(
        new TextDecoder().decode(stderr),
        "error: DISTCHAN_SECRET isn't UTF-8\n",
      );
      assertEquals(code, 2);
    }
  },
});

Deno.test("deploy's YAML closes no list at the place of its key, which strict parsers refuse", async () => {
  for (
    const name of [
      "kubernetes/server.yaml",
      "kubernetes/worker.yaml",
      "kubernetes/autoscaler.yaml",
      "docker-compose.yml",
      "README.md",
    ]
  ) assertEquals((await read(name)).match(/^ *[\]}].*/gm), null, name);
});

yamlTest(
  "deploy/kubernetes: names, ports, probes and labels belong together",
  async () => {
    const [server, service] = await yaml("kubernetes/server.yaml");
    const [worker] = await yaml("kubernetes/worker.yaml");
    const [autoscaler] = await yaml("kubernetes/autoscaler.yaml");

    for (const deployment of [server, worker]) {
      assertEquals(deployment.kind, "Deployment");
      const { selector, template } = deployment.spec;
      assertEquals(selector.matchLabels, template.metadata.labels);
      const { spec } = template;
      assertEquals(spec.securityContext.runAsNonRoot, true);
      const [container] = spec.containers;
      assertEquals(container.securityContext.allowPrivilegeEscalation, false);
      assertEquals(container.securityContext.readOnlyRootFilesystem, true);
      assertEquals(
        container.env.find(({ name }: Json) => name === "DISTCHAN_SECRET")
          .valueFrom.secretKeyRef,
        { name: "distchan", key: "secret" },
      );
    }
    const [container] = server.spec.template.spec.containers;
    const named = Object.fromEntries(
      container.ports.map(({ name, containerPort }: Json) => [
        name,
        containerPort,
      ]),
    );
    const args = readFlags(container.args);
    assertEquals(named, {
      workers: Number(args["--port"]),
      http: Number(args["--http-port"]),
      dashboard: Number(args["--dashboard-port"]),
    });
    for (const probe of ["readinessProbe", "livenessProbe"]) {
      assertEquals(container[probe].httpGet, {
        path: "/healthz",
        port: "dashboard",
      });
    }
    assertEquals(server.spec.replicas, 1);
    assertEquals(server.spec.strategy, { type: "Recreate" });

    assertEquals(service.spec.selector, server.spec.selector.matchLabels);
    for (const { name, port, targetPort } of service.spec.ports) {
      assertEquals({ targetPort, port }, {
        targetPort: name,
        port: named[name],
      });
    }

    const workerSpec = worker.spec.template.spec;
    const own = readFlags(workerSpec.containers[0].args);
    assertEquals(own["--host"], service.metadata.name);
    assertEquals(Number(own["--port"]), named["workers"]);
    assert(workerSpec.terminationGracePeriodSeconds >= 300);
    assertEquals(worker.spec.replicas, undefined); // the autoscaler's

    assertEquals(autoscaler.kind, "HorizontalPodAutoscaler");
    assertEquals(autoscaler.spec.scaleTargetRef, {
      apiVersion: worker.apiVersion,
      kind: worker.kind,
      name: worker.metadata.name,
    });
    const { describedObject } = autoscaler.spec.metrics[0].object;
    assertEquals(describedObject.name, service.metadata.name);
  },
);

yamlTest(
  "deploy/kubernetes and docker-compose.yml start the programs as they are",
  async () => {
    const [deployment] = await yaml("kubernetes/server.yaml");
    const { args } = deployment.spec.template.spec.containers[0];
    await using server = start("server.ts", [...args, ...NO_PORTS]);
    const { workers, http } = await portsOf(server);

    const here = ["--host=127.0.0.1", `--port=${workers}`];
    const [pod] = await yaml("kubernetes/worker.yaml");
    const [compose] = await yaml("docker-compose.yml");
    for (
      const args of [
        pod.spec.template.spec.containers[0].args,
        compose.services.worker.command,
      ]
    ) {
      await using worker = start("worker.ts", [...args, ...here]);
      assertEquals(await post(http, "hello"), "HELLO");
      worker.signal("SIGTERM");
      await success(worker);
    }
  },
);

yamlTest(
  "deploy/docker-compose.yml builds the images, and scales the worker",
  async () => {
    const [{ services }] = await yaml("docker-compose.yml");
    const dockerfile = await read("Dockerfile");
    for (const name of ["server", "worker"]) {
      const { build, environment, read_only } = services[name];
      assertEquals(build, {
        context: "..",
        dockerfile: "deploy/Dockerfile",
        target: name,
      });
      assertMatch(dockerfile, new RegExp(`^FROM \\S+ AS ${name}$`, "m"));
      assertEquals(Object.keys(environment), ["DISTCHAN_SECRET"]);
      assertEquals(read_only, true);
    }
    // Neither a name nor a port of this machine, so there may be many.
    assertEquals(services.worker.container_name, undefined);
    assertEquals(services.worker.ports, undefined);
    const flags = readFlags(services.worker.command);
    assertEquals(flags["--host"], "server");
    for (const port of services.server.ports) {
      assertMatch(port, /^127\.0\.0\.1:/);
    }
  },
);

Deno.test("deploy/Dockerfile compiles what is there, for an unprivileged user", async () => {
  const dockerfile = (await read("Dockerfile")).replaceAll(/\\\n\s*/g, "");
  const [, version] = dockerfile.match(/FROM denoland\/deno:(\S+) AS build/)!;
  assertStringIncludes(
    await Deno.readTextFile(`${ROOT}.ci/run`),
    `deno@${version} `,
  );
  const compiled = new Set<string>();
  const pattern = /deno compile (.*?) --output (\/out\/\S+) (\S+)/g;
  for (const [, flags, output, script] of dockerfile.matchAll(pattern)) {
    assertEquals(flags!.trim().split(/ +/), FLAGS);
    assert((await Deno.stat(ROOT + script)).isFile);
    compiled.add(output!);
  }
  const copied = dockerfile.matchAll(/^COPY --from=build (\S+) (\S+)$/gm);
  for (const [, from, to] of copied) {
    assert(compiled.delete(from!), from);
    assertStringIncludes(dockerfile, `ENTRYPOINT ["${to}"`);
  }
  assertEquals(compiled.size, 0);
  assertEquals(dockerfile.match(/^USER 65532:65532$/gm)?.length, 2);
});

Deno.test("deploy/Dockerfile.dockerignore lets in all that is compiled", async () => {
  const allowed = (await read("Dockerfile.dockerignore")).split("\n")
    .filter((line) => line.startsWith("!"))
    .map((line) =>
      new RegExp(
        `^${line.slice(1).replaceAll(".", "\\.").replace("*", "[^/]*")}(/|$)`,
      )
    );
  for (const script of ["server.ts", "worker.ts"]) {
    await using info = new Process(Deno.execPath(), [
      "info",
      "--json",
      ...stdArgs(),
      DEPLOY + script,
    ]);
    const { modules } = JSON.parse(await success(info));
    const root = new URL("../", import.meta.url).href;
    for (const { specifier } of modules) {
      if (!specifier.startsWith(root)) continue;
      const path = specifier.slice(root.length);
      if (path.startsWith("tools/std_offline/")) continue; // JSR's there
      assert(allowed.some((pattern) => pattern.test(path)), path);
    }
  }
});

Deno.test("deploy/systemd drains, restarts, and has flags that exist", async () => {
  for (const [unit, script] of UNITS) {
    const text = await read(`systemd/${unit}`);
    const [, binary, args] = text.match(/^ExecStart=(\S+) (.*)$/m)!;
    assertEquals(binary, `/usr/local/bin/distchan-${script}`);
    assertMatch(text, /^Restart=always$/m);
    // In [Unit], and so that it doesn't give up.
    assertMatch(text, /^StartLimitIntervalSec=0\n[^]*\[Service\]/m);
    assertMatch(text, /^DynamicUser=yes$/m);
    assertMatch(text, /^TimeoutStopSec=\d+$/m);
    const source = await read(`${script}.ts`);
    const [, own] = source.match(/readArguments\(([^)]*)\)/)!;
    const known = ["host", "port", ...JSON.parse(`[${own}]`)];
    for (const flag of Object.keys(readFlags(args!.split(" ")))) {
      assert(known.includes(flag.slice(2)), `${unit}: ${flag}`);
    }
  }
});

Deno.test({
  name: "deploy/systemd is taken by systemd-analyze (needs systemd)",
  ignore: !systemd,
  async fn() {
    const folder = await Deno.makeTempDir();
    try {
      const files: string[] = [];
      for (const [unit] of UNITS) {
        // It wants the program to be there.
        const text = (await read(`systemd/${unit}`))
          .replace(/^ExecStart=\S+/m, `ExecStart=${Deno.execPath()}`);
        files.push(`${folder}/${unit}`);
        await Deno.writeTextFile(files.at(-1)!, text);
      }
      await using verify = new Process("systemd-analyze", ["verify", ...files]);
      const { code, stderr } = await verify.exit;
      const ours = stderr.split("\n").filter((line) => /distchan/.test(line));
      assertEquals({ code, ours }, { code: 0, ours: [] });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test("deploy/README.md names files that are there", async () => {
  const text = await read("README.md");
  const named = [...text.matchAll(/\bdeploy\/[\w/.-]+[\w]/g)];
  assert(named.length > 10);
  for (const [path] of named) await Deno.stat(ROOT + path);
  for (
    const [, flags] of text.matchAll(
      /deno compile (.*?) --output \S+ deploy\//g,
    )
  ) {
    assertEquals(flags!.split(" "), FLAGS);
  }
});

Deno.test("deploy/README.md runs both on one machine with its permissions", async () => {
  const commands = [
    ...(await read("README.md")).matchAll(/deno run (.*?) deploy\/(\S+)/g),
  ];
  const [forServer, forWorker] = commands.map(([, flags]) => flags!.split(" "));
  assertEquals(commands.map(([, , script]) => script), [
    "server.ts",
    "worker.ts",
  ]);
  await using server = start("server.ts", NO_PORTS, forServer);
  const { workers, http } = await portsOf(server);
  const narrow = forWorker!.map((flag) => flag.replace("5678", `${workers}`));
  await using worker = start("worker.ts", [`--port=${workers}`], narrow);
  assertEquals(await post(http, "hello"), "HELLO");
  worker.signal("SIGTERM");
  await success(worker);
});

const UNITS = [
  ["distchan-server.service", "server"],
  ["distchan-worker@.service", "worker"],
] as const;

/** Flags and their values. */
function readFlags(args: readonly string[]): Record<string, string> {
  const flags: Record<string, string> = {};
  for (let i = 0; i < args.length; i += 2) {
    assertMatch(args[i]!, /^--[a-z-]+$/);
    flags[args[i]!] = args[i + 1]!;
  }
  return flags;
}
