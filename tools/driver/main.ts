/**
 * Runs a command with a working WebGPU adapter: `deno run -A tools/driver/main.ts [--task] <command> [arguments]`.
 *
 * Where the machine has none, or a slow one, it gets a software driver first (see {@link findDriver}). This is a parent process
 * because a driver cannot be changed within a process once a request has failed. A user who sets `DENO_WEBGPU_BACKEND`
 * has chosen: then nothing is looked for or installed.
 *
 * A Deno command is sent SIGTERM when this process has ended, however it was killed. With `--task`, so it is when this
 * process's own parent has ended, which is `deno task` then.
 *
 * @module
 */
import { IGNORES_HANGUP } from "../../cli/hangup.ts";
import { whenParentEnds } from "./parent.ts";
import { runProgram } from "./programs.ts";
import { type Environment, findDriver, type Machine } from "./software_drivers.ts";
import { openUserCache } from "./user_cache.ts";

const PARENT = new URL("./parent.ts", import.meta.url).href;
const PROBE = new URL("./adapter_probe.ts", import.meta.url).href;
const PROBE_SECONDS = 60;

/** Vulkan loaders complain on stderr without this folder; it must belong to the user alone. */
async function runtimeFolder(cache: string): Promise<Environment> {
  if (Deno.build.os !== "linux" || Deno.env.get("XDG_RUNTIME_DIR")) return {};
  await Deno.mkdir(`${cache}/runtime`, { recursive: true, mode: 0o700 });
  return { XDG_RUNTIME_DIR: `${cache}/runtime` };
}

/** This machine. */
function thisMachine(cache: string, runtime: Environment): Machine {
  return {
    isRoot: Deno.build.os !== "windows" && Deno.uid() === 0,
    cache,
    vulkanFolder: "/usr/share/vulkan/icd.d",
    run: runProgram,
    async probe(env) {
      const { code, success } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--quiet", "--no-config", "--no-lock", PROBE],
        env: { ...runtime, ...env },
        stdin: "null",
        stdout: "null",
        stderr: "null",
        signal: AbortSignal.timeout(PROBE_SECONDS * 1000),
      }).output();
      if (success) return "right";
      return code === 1 ? "none" : code === 3 ? "slow" : "wrong";
    },
    say: (line) => console.error(`driver: ${line}`),
  };
}

/** The subcommands of Deno that run programs. */
const RUNS = ["run", "test", "bench", "eval"];

/** The arguments of Deno for a command that ends when this process has ended. */
function endingWithThis([subcommand = "", ...args]: readonly string[]): string[] {
  return [subcommand, ...RUNS.includes(subcommand) ? [`--preload=${PARENT}?id=${Deno.pid}`] : [], ...args];
}

/** Runs the command to its end, passing signals on, and returns its exit code. */
async function runCommand([command, ...args]: readonly [string, ...string[]], options: {
  readonly env: Environment;
  /** The process whose end ends the command too, if there is one. */
  readonly task: number | undefined;
}): Promise<number> {
  const isDeno = command === "deno";
  const child = new Deno.Command(isDeno ? Deno.execPath() : command, {
    args: isDeno ? endingWithThis(args) : args,
    env: options.env,
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn();
  const pass = (signal: Deno.Signal) => () => {
    try {
      child.kill(signal);
    } catch (error) {
      // It has ended in the meantime.
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  };
  // A terminal sends Ctrl-C to the child as well; a second copy from here would read as "stop at once".
  const onTerminal = [Deno.stdin, Deno.stdout, Deno.stderr].some((stream) => stream.isTerminal());
  Deno.addSignalListener("SIGINT", onTerminal ? () => {} : pass("SIGINT"));
  if (Deno.build.os !== "windows") {
    Deno.addSignalListener("SIGTERM", pass("SIGTERM"));
    Deno.addSignalListener("SIGHUP", onTerminal || IGNORES_HANGUP ? () => {} : pass("SIGHUP"));
  }
  if (options.task !== undefined) whenParentEnds(options.task, pass("SIGTERM"));
  return (await child.status).code;
}

if (import.meta.main) {
  const task = Deno.args[0] === "--task" ? Deno.ppid : undefined;
  const [command, ...args] = Deno.args.slice(task === undefined ? 0 : 1);
  if (command === undefined) {
    console.error("usage: deno run -A tools/driver/main.ts [--task] <command> [arguments]");
    Deno.exit(2);
  }
  const cache = await openUserCache();
  const runtime = await runtimeFolder(cache);
  const isChosen = Deno.env.get("DENO_WEBGPU_BACKEND") !== undefined;
  const env = isChosen ? {} : await findDriver(thisMachine(cache, runtime));
  Deno.exit(await runCommand([command, ...args], { env: { ...runtime, ...env }, task }));
}
