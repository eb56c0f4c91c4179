/**
 * Attacks on runs as processes: kills, signals, closed pipes, full disks, vanishing data, two processes in one folder.
 * Whatever happened, the run that is resumed must come to the bytes of one that was never stopped.
 *
 * `deno run -A tests/process/attack.ts [SEED]`; the seed decides when what happens, 1 if left out. A line a case, and the
 * last is `N passed, N failed`.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { littleEndianBytes } from "../../io/numbers.ts";
import { Random } from "../support/random.ts";

const ROOT = new URL("../../", import.meta.url);
const DENO = ["run", "--quiet", "-A", "--config", new URL("deno.json", ROOT).pathname];
const CLI = new URL("cli/mod.ts", ROOT).href;
const DRIVER = new URL("tools/driver/main.ts", ROOT).href;

const KILLS = 20;
const [ROWS, D] = [3000, 16];

/** Long enough to be hit anywhere, with a checkpoint at almost every moment, and rows that are read again and again. */
const RUN = `
data = { path = "a.f32", d_model = ${D}, buffer_rows = 1024 }
sae = { d_sae = 32, activation = { key = "top-k", top_k = 2 } }
train = { batch_size = 50, n_steps = 400, lr = 1e-3, n_lr_warmup = 50, log_every = 5, checkpoint_every = 10, seed = SEED }
`;

/** Numbers with some structure. */
function rows(): Float32Array {
  const random = new Random(1);
  const directions = random.normal(16 * D);
  return Float32Array.from({ length: ROWS * D }, (_, i) => {
    const row = new Random(Math.floor(i / D));
    return row.unit() * directions[row.integer(0, 15) * D + i % D]!;
  });
}

/** A run that a test does something to. */
class Run {
  readonly #child: Deno.ChildProcess;
  readonly #stderr: ReadableStreamDefaultReader<string>;
  /** What it has said so far. */
  said = "";

  constructor(command: string, args: readonly string[], cwd: string) {
    this.#child = new Deno.Command(command, { args: [...args], cwd, stdin: "null", stdout: "null", stderr: "piped" })
      .spawn();
    this.#stderr = this.#child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Waits until it says something. */
  async says(wanted: string): Promise<void> {
    while (!this.said.includes(wanted)) {
      const { value, done } = await this.#stderr.read();
      assert(!done, `it ended without "${wanted}": ${this.said}`);
      this.said += value;
    }
  }

  /** Reads no more of what it says. */
  async closeStderr(): Promise<void> {
    await this.#stderr.cancel();
  }

  /** Sends it a signal, if it has not ended. */
  kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  /** Waits for its end, and that of everything that has its stderr. */
  async ended(): Promise<Deno.CommandStatus> {
    for (let read = await this.#stderr.read(); !read.done; read = await this.#stderr.read()) this.said += read.value;
    return await this.#child.status;
  }
}

/** Trains in a folder of the attack's. */
function train(config: string, ...args: string[]): Run {
  return new Run(Deno.execPath(), [...DENO, CLI, "train", `${config}.toml`, ...args], folder);
}

async function sleep(milliseconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** What must be equal: the model, the state, and the numbers of every step but the seconds. */
async function outcome(out: string): Promise<string> {
  const parts: string[] = [];
  for (const name of ["sae.pt", "training.safetensors"]) {
    const bytes = await Deno.readFile(`${folder}/${out}/${name}`);
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    parts.push(`${name} ${hash.toHex()}`);
  }
  const { losses, metrics } = JSON.parse(await Deno.readTextFile(`${folder}/${out}/metrics.json`));
  const steps = await Deno.readTextFile(`${folder}/${out}/metrics.jsonl`);
  return [...parts, JSON.stringify({ losses, metrics }), steps.replaceAll(/,"seconds":[^,}]+/g, "")].join("\n");
}

/** Resumes a run to its end, where it must be what it is when nothing happens. */
async function checkResumed(config: string, out: string): Promise<void> {
  const run = train(config, "--out", out, "--resume=auto");
  assertEquals((await run.ended()).code, 0, run.said);
  assertEquals(await outcome(out), expected.get(config), `${out} is another run now`);
}

/** The step that a resumed run says it begins at. */
function resumedAt(said: string): string {
  return /([\d,]+) of them done/.exec(said)?.[1] ?? "0";
}

const seed = Number(Deno.args[0] ?? 1);
const random = new Random(seed);
const folder = await Deno.makeTempDir({ prefix: "attack-" });
const expected = new Map<string, string>();
let [passed, failed] = [0, 0];

/** One case; a line of what it did. */
async function attack(name: string, work: () => Promise<string>): Promise<void> {
  const began = performance.now();
  try {
    const what = await work();
    passed++;
    console.log(`ok      ${name}: ${what} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}: ${String(error).replaceAll(/\s*\n\s*/g, " | ")}`);
  }
}

function end(): never {
  console.log(`${passed} passed, ${failed} failed`);
  Deno.exit(failed === 0 ? 0 : 1);
}

await Deno.writeFile(`${folder}/a.f32`, littleEndianBytes(rows()));
for (const [name, number] of [["first", 1], ["second", 2]] as const) {
  await Deno.writeTextFile(`${folder}/${name}.toml`, RUN.replace("SEED", String(number)));
}
await Deno.writeTextFile(`${folder}/sweep.toml`, RUN.replace("SEED", "[1, 2]"));

for (const config of ["first", "second"]) {
  await attack(`nothing, ${config}`, async () => {
    const run = train(config, "--out", config);
    assertEquals((await run.ended()).code, 0, run.said);
    expected.set(config, await outcome(config));
    return "reached its end";
  });
}
if (failed > 0) end();

let out = 0;
for (let kill = 0; kill < KILLS; kill++) {
  await attack(`kill -9, ${kill}`, async () => {
    const name = `killed-${out}`;
    const run = train("first", "--out", name, "--resume=auto");
    // One in five while it begins, half of them after some steps.
    const when = random.unit();
    if (when > 0.2) await run.says("steps of");
    if (when > 0.5) await run.says("step ");
    const delay = random.integer(0, 800);
    await sleep(delay);
    run.kill("SIGKILL");
    const { code, signal } = await run.ended();
    assert(code === 0 || signal === "SIGKILL", run.said);
    const what = run.said.includes("steps of")
      ? `began at ${resumedAt(run.said)}, killed ${delay} ms later`
      : `killed after ${delay} ms, as it began`;
    if (code !== 0 && kill < KILLS - 1) return what;
    // It was at its end before that, or it is the last: a new run.
    out++;
    await checkResumed("first", name);
    return `${what}, and came to the same bytes`;
  });
}

for (const [i, delay] of [0, 0, random.integer(1, 60), random.integer(60, 300), random.integer(300, 900)].entries()) {
  await attack("kill -9 after --overwrite", async () => {
    const name = `overwritten-${i}`;
    const old = train("first", "--out", name);
    assertEquals((await old.ended()).code, 0, old.said);
    const run = train("second", "--out", name, "--overwrite");
    if (delay > 0) await run.says("steps of");
    await sleep(delay === 0 ? random.integer(100, 400) : delay);
    run.kill("SIGKILL");
    await run.ended();
    // The new run, or the old one if it was not touched yet: never one with the other's files.
    const again = train("second", "--out", name, "--resume=auto");
    const { code } = await again.ended();
    if (code !== 0) {
      await checkResumed("first", name);
      return `${delay} ms: the old run was still whole`;
    }
    assertEquals(await outcome(name), expected.get("second"), "a mixture of two runs");
    return `${delay} ms: resumed at ${resumedAt(again.said)}`;
  });
}

for (const [signal, number] of [["SIGINT", 2], ["SIGTERM", 15], ["SIGHUP", 1], ["SIGTERM", 15]] as const) {
  await attack(signal, async () => {
    const name = `${signal}-${out++}`;
    const run = train("first", "--out", name);
    await run.says("steps of");
    const delay = random.integer(0, 600);
    await sleep(delay);
    run.kill(signal);
    const { code } = await run.ended();
    assertEquals(code, 128 + number, run.said);
    assertStringIncludes(run.said, "use --resume to continue");
    await checkResumed("first", name);
    return `after ${delay} ms, and came to the same bytes`;
  });
}

await attack("a sweep, SIGTERM", async () => {
  const run = train("sweep", "--out", "sweep");
  await run.says("steps of");
  await sleep(random.integer(0, 900));
  run.kill("SIGTERM");
  assertEquals((await run.ended()).code, 143, run.said);
  const again = train("sweep", "--out", "sweep", "--resume=auto");
  assertEquals((await again.ended()).code, 0, again.said);
  assertEquals(await outcome("sweep/0"), expected.get("first"));
  assertEquals(await outcome("sweep/1"), expected.get("second"));
  return "both runs came to the same bytes";
});

await attack("a closed stderr", async () => {
  const run = train("first", "--out", "unheard");
  await run.says("\n");
  await run.closeStderr();
  assertEquals((await run.ended()).code, 0);
  assertEquals(await outcome("unheard"), expected.get("first"));
  return "reached its end, with the same bytes";
});

await attack("a closed stdout", async () => {
  const words = [Deno.execPath(), ...DENO, CLI, "evaluate", "first/sae.pt", "a.f32", "--json"];
  const script = `exec 3>&1; { "$0" "$@"; echo $? >&3; } | :`;
  const { stdout } = await new Deno.Command("sh", { args: ["-c", script, ...words], cwd: folder }).output();
  assertEquals(new TextDecoder().decode(stdout), "141\n");
  return "ended with 141";
});

await attack("two processes in one folder", async () => {
  const runs = [1, 2].map(() => train("first", "--out", "shared"));
  const codes = (await Promise.all(runs.map((run) => run.ended()))).map(({ code }) => code);
  assertEquals(codes.toSorted(), [0, 1], runs.map(({ said }) => said).join("\n---\n"));
  const { said } = runs[codes.indexOf(1)]!;
  assertStringIncludes(said, "error: shared ");
  assertEquals(await outcome("shared"), expected.get("first"));
  return "one trained, the other was refused";
});

for (const share of [0.5, 0.8]) {
  await attack("a full disk", async () => {
    // The state grows with the losses of its steps. Bash counts blocks of 1024 bytes.
    const { size } = await Deno.stat(`${folder}/first/training.safetensors`);
    const blocks = Math.floor(share * size / 1024);
    const name = `full-${share}`;
    const limited = [Deno.execPath(), ...DENO, CLI, "train", "first.toml", "--out", name];
    const run = new Run("bash", ["-c", `ulimit -f ${blocks}; exec "$0" "$@"`, ...limited], folder);
    assertEquals((await run.ended()).code, 1, run.said);
    const said = run.said.slice(run.said.lastIndexOf("\nerror: ") + 1);
    assert(
      /^error: writing full-\S+: .*; (?:the file|it) needs [\d,]+ (?:more )?bytes.*; .*use --resume to continue\n$/
        .test(said),
      said,
    );
    await checkResumed("first", name);
    return `files of at most ${blocks} KiB: ${said.trim()}`;
  });
}

await attack("data that change under a run", async () => {
  const whole = await Deno.readFile(`${folder}/a.f32`);
  const run = train("first", "--out", "cut");
  await run.says("step ");
  await Deno.truncate(`${folder}/a.f32`, whole.length / 2);
  const { code } = await run.ended();
  await Deno.writeFile(`${folder}/a.f32`, whole);
  assertEquals(code, 1, run.said);
  assert(
    /\nerror: reading .*a\.f32.*; cut holds the state of step \d+; .*\n$/.test(run.said),
    run.said,
  );
  await checkResumed("first", "cut");
  return run.said.trim().split("\n").at(-1)!;
});

await attack("a flipped bit in the state", async () => {
  const run = train("first", "--out", "flipped");
  await run.says("step 40/");
  run.kill("SIGTERM");
  await run.ended();
  const path = `${folder}/flipped/training.safetensors`;
  const bytes = await Deno.readFile(path);
  const at = random.integer(8, bytes.length - 1);
  bytes[at]! ^= 1 << random.integer(0, 7);
  await Deno.writeFile(path, bytes);
  const refused = train("first", "--out", "flipped", "--resume=auto");
  assertEquals((await refused.ended()).code, 1, refused.said);
  assertStringIncludes(refused.said, "--resume=previous");
  const previous = train("first", "--out", "flipped", "--resume=previous");
  assertEquals((await previous.ended()).code, 0, previous.said);
  assertEquals(await outcome("flipped"), expected.get("first"));
  return `byte ${at}: refused, and from the state before it came to the same bytes`;
});

await attack("kill -9 of the parent", async () => {
  const args = [...DENO, DRIVER, "--task", "deno", ...DENO, CLI, "train", "first.toml", "--out", "orphan"];
  const run = new Run(Deno.execPath(), args, folder);
  await run.says("step ");
  run.kill("SIGKILL");
  // Its stderr is at its end when the child is.
  await run.ended();
  assertStringIncludes(run.said, "SIGTERM: stopping");
  assertStringIncludes(run.said, "use --resume to continue");
  await checkResumed("first", "orphan");
  return "the child ended with a checkpoint";
});

await Deno.remove(folder, { recursive: true });
end();
