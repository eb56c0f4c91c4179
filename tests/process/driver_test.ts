/** The parent program of the tasks: which driver it takes, what it tells, and how it runs the command. @module */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Outcome } from "../../tools/driver/programs.ts";
import { type Environment, findDriver, type Machine } from "../../tools/driver/software_drivers.ts";

const DRIVER = new URL("../../tools/driver/main.ts", import.meta.url).href;
const PROBE = new URL("../../tools/driver/adapter_probe.ts", import.meta.url).href;
const DONE: Outcome = { success: true, stdout: "", stderr: "" };
const FAILED: Outcome = { success: false, stdout: "", stderr: "E: no network\n" };

/** What a test says about a machine, and what was done to it. */
interface FakeMachine extends Machine, AsyncDisposable {
  readonly commands: string[];
  readonly said: string[];
}

/** A machine whose programs and adapter answer as the test says. */
async function fakeMachine(
  options: {
    isRoot?: boolean;
    adapter?: "right" | "slow" | "wrong" | "none";
    /** The driver that works, by the end of its registration's path. */
    working?: string;
    run?: (command: string, args: readonly string[], cwd: string) => Promise<Outcome> | Outcome;
  },
): Promise<FakeMachine> {
  const folder = await Deno.makeTempDir();
  const commands: string[] = [];
  const said: string[] = [];
  await Deno.mkdir(`${folder}/cache`);
  return {
    commands,
    said,
    isRoot: options.isRoot ?? false,
    cache: `${folder}/cache`,
    vulkanFolder: `${folder}/icd.d`,
    probe(env: Environment) {
      if (env.VK_DRIVER_FILES === undefined) return Promise.resolve(options.adapter ?? "none");
      return Promise.resolve(env.VK_DRIVER_FILES.endsWith(options.working ?? "nothing") ? "right" : "none");
    },
    async run(command, args, { cwd = folder } = {}) {
      const name = command === Deno.execPath() ? "deno" : command;
      commands.push(`${name} ${args.find((arg) => !arg.startsWith("-"))}`);
      return await options.run?.(name, args, cwd) ?? DONE;
    },
    say: (line) => said.push(line),
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}

/** Puts what Mesa's package would register into a folder. */
async function registerMesa(folder: string, library: string): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const registration = { file_format_version: "1.0.0", ICD: { api_version: "1.3.0", library_path: library } };
  await Deno.writeTextFile(`${folder}/lvp_icd.x86_64.json`, JSON.stringify(registration));
}

/** `apt-get` and `dpkg-deb` as an unprivileged user sees them on a bare machine. */
async function unpackingPrograms(command: string, args: readonly string[], cwd: string): Promise<Outcome> {
  if (command === "apt-get" && args[0] === "install") {
    return {
      ...DONE,
      stdout: "Inst libc6 [2.36] (2.37)\nInst libfoo (1 Debian [amd64])\nInst mesa-vulkan-drivers (2)\n",
    };
  }
  if (command === "apt-get" && args[0] === "download") {
    assertEquals(args.slice(-2), ["libfoo", "mesa-vulkan-drivers"]);
    for (const name of args.slice(-2)) await Deno.writeTextFile(`${cwd}/${name}.deb`, "");
  }
  if (command === "dpkg-deb" && args[1]!.endsWith("mesa-vulkan-drivers.deb")) {
    const root = args[2]!;
    await registerMesa(`${root}/usr/share/vulkan/icd.d`, "/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so");
    await Deno.mkdir(`${root}/usr/lib/x86_64-linux-gnu`, { recursive: true });
    await Deno.writeTextFile(`${root}/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so`, "");
  }
  return DONE;
}

Deno.test("driver: an adapter that computes needs nothing and nothing is said", async () => {
  await using machine = await fakeMachine({ isRoot: true, adapter: "right" });
  assertEquals(await findDriver(machine), {});
  assertEquals([machine.commands, machine.said], [[], []]);
});

Deno.test("driver: root installs Mesa by the package manager, without recommends", async () => {
  await using machine: FakeMachine = await fakeMachine({
    isRoot: true,
    working: "lvp_icd.x86_64.json",
    async run(_command, args) {
      if (args[0] !== "install") return DONE;
      assert(args.includes("--no-install-recommends"));
      assertEquals(args.at(-1), "mesa-vulkan-drivers");
      await registerMesa(machine.vulkanFolder, "libvulkan_lvp.so");
      return DONE;
    },
  });
  const env = await findDriver(machine);
  assertEquals(env.VK_DRIVER_FILES, `${machine.vulkanFolder}/lvp_icd.x86_64.json`);
  assertEquals(env.DENO_WEBGPU_BACKEND, "vulkan");
  assertEquals(machine.commands, ["apt-get undefined", "apt-get update", "apt-get install"]);
  assertEquals(machine.said.length, 1);
  assertMatch(machine.said[0]!, /^no GPU adapter found; installing Mesa/);
});

Deno.test("driver: an adapter that computes nonsense is not taken for one", async () => {
  await using machine = await fakeMachine({ adapter: "wrong", working: "lvp_icd.x86_64.json" });
  await registerMesa(machine.vulkanFolder, "libvulkan_lvp.so");
  assertEquals((await findDriver(machine)).VK_DRIVER_FILES, `${machine.vulkanFolder}/lvp_icd.x86_64.json`);
  assertEquals(machine.commands, []);
  assertMatch(machine.said.join("\n"), /^the GPU adapter computes wrong results; using Mesa/);
});

Deno.test("driver: Mesa for Vulkan takes the place of slow software, which is kept where that cannot be had", async () => {
  await using machine = await fakeMachine({ adapter: "slow", working: "lvp_icd.x86_64.json" });
  await registerMesa(machine.vulkanFolder, "libvulkan_lvp.so");
  assertEquals((await findDriver(machine)).VK_DRIVER_FILES, `${machine.vulkanFolder}/lvp_icd.x86_64.json`);
  assertMatch(machine.said.join("\n"), /^the GPU adapter is slow software; using Mesa/);
  await using bare = await fakeMachine({ adapter: "slow", working: "vk_swiftshader_icd.json", run: () => FAILED });
  await Deno.mkdir(`${bare.cache}/swiftshader-153.0.0`);
  await Deno.writeTextFile(`${bare.cache}/swiftshader-153.0.0/vk_swiftshader_icd.json`, "{}");
  assertEquals(await findDriver(bare), {});
  assertMatch(bare.said.at(-1)!, /^the GPU adapter is slow software; .*continuing with it$/);
});

Deno.test("driver: without root the packages are unpacked, once, and registered where they lie", async () => {
  await using machine = await fakeMachine({ working: "/mesa/lvp_icd.json", run: unpackingPrograms });
  const env = await findDriver(machine);
  const folder = `${machine.cache}/mesa`;
  const libraries = `${folder}/unpacked/usr/lib/x86_64-linux-gnu`;
  assertStringIncludes(env.LD_LIBRARY_PATH!, `${libraries}:${folder}/unpacked/lib/x86_64-linux-gnu`);
  assertEquals(JSON.parse(await Deno.readTextFile(env.VK_DRIVER_FILES!)).ICD, {
    api_version: "1.3.0",
    library_path: `${libraries}/libvulkan_lvp.so`,
  });
  assertMatch(machine.said.join("\n"), /^no GPU adapter found; installing Mesa needs root; unpacking .*without root/);
  const count = machine.commands.length;
  assertEquals(await findDriver(machine), env);
  assertEquals(machine.commands.length, count);
  assertMatch(machine.said.at(-1)!, /; using unpacked Mesa/);
});

Deno.test("driver: the last resort is SwiftShader, and a file of other contents is refused", async () => {
  await using machine = await fakeMachine({
    async run(command, _args, cwd) {
      if (command !== "deno") return FAILED;
      await Deno.mkdir(`${cwd}/node_modules/@sparticuz/chromium/bin`, { recursive: true });
      await Deno.writeTextFile(`${cwd}/node_modules/@sparticuz/chromium/bin/swiftshader.tar.br`, "not it");
      return DONE;
    },
  });
  assertEquals(await findDriver(machine), {});
  assertStringIncludes(machine.said.at(-1)!, "swiftshader.tar.br has SHA-256");
  assertMatch(machine.said.at(-1)!, /continuing without$/);
  assertEquals(await Array.fromAsync(Deno.readDir(machine.cache)), []);
});

Deno.test("driver: a SwiftShader in the cache is used, and the command is told", async () => {
  await using machine = await fakeMachine({ working: "vk_swiftshader_icd.json" });
  await Deno.mkdir(`${machine.cache}/swiftshader-153.0.0`);
  await Deno.writeTextFile(`${machine.cache}/swiftshader-153.0.0/vk_swiftshader_icd.json`, "{}");
  const env = await findDriver(machine);
  assertEquals(env.SAEV_SOFTWARE_DRIVER, "swiftshader");
  assertMatch(machine.said.join("\n"), /using SwiftShader/);
});

Deno.test("driver: when nothing can be had, the reasons are told and the command runs all the same", async () => {
  await using machine = await fakeMachine({
    isRoot: true,
    run: (_command, args) => args[0] === "--version" ? DONE : FAILED,
  });
  assertEquals(await findDriver(machine), {});
  assertMatch(
    machine.said.at(-1)!,
    /Mesa could not be installed \(apt-get install: E: no network\).*continuing without$/,
  );
});

/** The program itself with a command, in this process's environment with changes; `undefined` removes a variable. */
function drive(args: string[], changes: Record<string, string | undefined> = {}): Deno.ChildProcess {
  const env: Environment = {};
  for (const [name, value] of Object.entries({ ...Deno.env.toObject(), ...changes })) {
    if (value !== undefined) env[name] = value;
  }
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", DRIVER, ...args],
    env,
    clearEnv: true,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Its exit code and what it printed. */
async function outcome(child: Deno.ChildProcess): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await child.output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

Deno.test("driver process: the exit code, arguments and output are the command's", async () => {
  const program = "console.log(Deno.args.join()); console.error('to stderr'); Deno.exit(7)";
  const { code, stdout, stderr } = await outcome(
    drive(["deno", "eval", "--quiet", program, "a b", "--flag"], { DENO_WEBGPU_BACKEND: "none" }),
  );
  assertEquals([code, stdout.trim(), stderr.trim()], [7, "a b,--flag", "to stderr"]);
});

Deno.test("driver process: a command that a signal killed gives 128 and the signal", async () => {
  const program = "Deno.kill(Deno.pid, 'SIGKILL'); await new Promise((done) => setTimeout(done, 60_000))";
  const { code } = await outcome(drive(["deno", "eval", program], { DENO_WEBGPU_BACKEND: "none" }));
  assertEquals(code, 137);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`driver process: ${signal} reaches the command`, async () => {
    const program = `Deno.addSignalListener("${signal}", () => Deno.exit(42));
      setTimeout(() => {}, 60_000);
      console.log("ready");`;
    const child = drive(["deno", "eval", "--quiet", program], { DENO_WEBGPU_BACKEND: "none" });
    const reader = child.stdout.getReader();
    await reader.read();
    reader.releaseLock();
    child.kill(signal);
    assertEquals((await outcome(child)).code, 42);
  });
}

Deno.test("driver process: the command ends as by SIGTERM when the driver is killed, or the task that started it", async () => {
  const program = `Deno.addSignalListener("SIGTERM", () => { console.log("SIGTERM"); Deno.exit(143); });
    setTimeout(() => {}, 60_000);
    console.log("ready");`;
  const task = `await new Deno.Command(Deno.execPath(), { args: ${
    JSON.stringify(["run", "-A", "--quiet", DRIVER, "--task", "deno", "eval", "--quiet", program])
  } }).spawn().status;`;
  const env = { ...Deno.env.toObject(), DENO_WEBGPU_BACKEND: "none" };
  for (
    const parent of [
      drive(["deno", "eval", "--quiet", program], { DENO_WEBGPU_BACKEND: "none" }),
      new Deno.Command(Deno.execPath(), { args: ["eval", task], env, stdout: "piped", stderr: "piped" }).spawn(),
    ]
  ) {
    const stdout = parent.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await stdout.read()).value, "ready\n");
    parent.kill("SIGKILL");
    // The command has the other end of this pipe: it is at its end when the command is.
    assertEquals((await stdout.read()).value, "SIGTERM\n");
    assertEquals((await stdout.read()).done, true);
    await parent.status;
    await parent.stderr.cancel();
  }
});

Deno.test("driver process: an adapter present means no installation, no message and the same environment", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/apt-get`, `#!/bin/sh\necho "$@" >> ${folder}/called\n`, { mode: 0o755 });
    const program = "console.log(JSON.stringify(Deno.env.toObject()))";
    const { code, stdout, stderr } = await outcome(drive(["deno", "eval", program], {
      PATH: `${folder}:${Deno.env.get("PATH")}`,
      HOME: folder,
      XDG_CACHE_HOME: undefined,
      XDG_RUNTIME_DIR: undefined,
      DENO_WEBGPU_BACKEND: undefined,
    }));
    assertEquals([code, stderr], [0, ""]);
    const env = JSON.parse(stdout);
    assertEquals(env.XDG_RUNTIME_DIR, `${folder}/.cache/saev-nn/runtime`);
    assertEquals((await Deno.stat(env.XDG_RUNTIME_DIR)).mode! & 0o777, 0o700);
    assertEquals(env.DENO_WEBGPU_BACKEND, undefined);
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).some(({ name }) => name === "called"), false);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("driver process: a user who names a backend has chosen, and no driver is installed", async () => {
  const program = "console.log(await navigator.gpu.requestAdapter())";
  const { code, stdout, stderr } = await outcome(drive(["deno", "eval", program], { DENO_WEBGPU_BACKEND: "none" }));
  assertEquals([code, stdout.trim(), stderr], [0, "null", ""]);
});

Deno.test("driver process: without a command it says how it is used", async () => {
  const { code, stderr } = await outcome(drive([]));
  assertEquals(code, 2);
  assertStringIncludes(stderr, "usage:");
});

Deno.test("adapter probe: right on this machine, none when the backend is", async () => {
  const codes: number[] = [];
  for (const env of [{}, { DENO_WEBGPU_BACKEND: "none" }]) {
    const args = ["run", "--quiet", "--no-config", "--no-lock", PROBE];
    codes.push((await new Deno.Command(Deno.execPath(), { args, env, stderr: "null" }).output()).code);
  }
  assertEquals(codes, [0, 1]);
});
