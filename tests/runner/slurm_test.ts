/** The script of a job array: its text, that bash takes it, and what it does on the signals that Slurm sends. @module */
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { assertSnapshot } from "@std/testing/snapshot";
import { DeviceError } from "../../kernels/engine/errors.ts";
import { defaultDevice } from "../../kernels/engine/self_check.ts";
import { isSoftware } from "../../kernels/engine/device.ts";
import { VERSION } from "../../io/checkpoints/saev_schemas.ts";
import { completeSlurm } from "../../runner/run_config.ts";
import { quoted, type SlurmPlan, slurmScript, taskAdapter } from "../../runner/slurm.ts";

function plan(slurm: object, more: Partial<SlurmPlan> = {}): SlurmPlan {
  return {
    slurm: completeSlurm({ slurm }),
    out: "/shared/runs/sweep",
    config: "/shared/runs/sweep/config.toml",
    base: "/home/me/my project",
    command: "deno run -A jsr:@saev/nn/cli",
    groups: [
      [{ name: "0", about: 'train.lr 0.001, objective.key "vanilla"' }, { name: "2", about: "train.lr\n0.01" }],
      [{ name: "1", about: "" }],
    ],
    ...more,
  };
}

const FULL = {
  account: "vision",
  partition: "gpu",
  time: "1-12",
  memory: "32G",
  cpus: 4,
  gpus: 2,
  tasks_at_once: 3,
  options: ["--qos=low", "--constraint=a100"],
  setup: "module load deno\nmodule load vulkan\n",
};

Deno.test("the script, with every field and with none", async (t) => {
  for (const slurm of [FULL, { gpus: 0, stage: false }]) {
    await assertSnapshot(t, slurmScript(plan(slurm)).replace(`saev ${VERSION}`, "saev VERSION"));
  }
});

Deno.test("a task has time to write its checkpoint, whatever its limit", () => {
  const warning = (time: string) => /USR1@(\d+)/.exec(slurmScript(plan({ time })))![1];
  const times = ["60", "4:00", "0:08:00", "00:00:40", "1-0", "0-1:0", "0-0:2:0"];
  assertEquals(times.map(warning), ["300", "60", "120", "10", "300", "300", "30"]);
});

Deno.test("what no #SBATCH line can hold is refused, and everything else is one word of the shell", async () => {
  assertThrows(
    () => slurmScript(plan({}, { out: "/my runs" })),
    RangeError,
    "spaces, quotes or \\ for its log; found /my",
  );
  assertStringIncludes(slurmScript(plan({}, { out: "/a%b" })), "--output=/a%%b/slurm-%A_%a.log");
  for (
    const [field, value] of [["account", "a\n#SBATCH --x"], ["partition", "a b"], ["time", "1h"], ["memory", "a lot"]]
  ) {
    assertThrows(() => completeSlurm({ slurm: { [field!]: value } }), TypeError, `slurm.${field} must be`);
  }
  assertThrows(
    () => completeSlurm({ slurm: { options: ["-a\nrm"] } }),
    TypeError,
    "slurm.options must be a list of strings",
  );
  assertThrows(() => completeSlurm({ slurm: { mem: "1G" } }), TypeError, "unknown field slurm.mem");
  for (const text of ["plain/path.toml", 'it\'s $HOME `x` "y"\nz', ""]) {
    const { stdout } = await new Deno.Command("bash", { args: ["-c", `printf %s ${quoted(text)}`] }).output();
    assertEquals(new TextDecoder().decode(stdout), text);
  }
});

/** Runs the script with a program in place of saev, and one in place of scontrol that says what it is called with. */
async function runScript(saev: string, act: (kill: (signal: Deno.Signal) => void) => void) {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/scontrol`, '#!/bin/sh\necho "scontrol $*"\n', { mode: 0o755 });
    await Deno.writeTextFile(`${folder}/saev`, `#!/bin/bash\n${saev}\n`, { mode: 0o755 });
    await Deno.writeTextFile(`${folder}/script`, slurmScript(plan({}, { command: `${folder}/saev` })));
    const child = new Deno.Command("bash", {
      args: [`${folder}/script`],
      env: {
        PATH: `${folder}:${Deno.env.get("PATH")}`,
        TMPDIR: folder,
        SLURM_ARRAY_TASK_ID: "1",
        SLURM_ARRAY_JOB_ID: "7",
        SLURM_JOB_ID: "8",
      },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    let text = "";
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += part;
      if (text.includes("ready\n") && !text.includes("signalled")) {
        text += "signalled\n";
        act((signal) => child.kill(signal));
      }
    }
    await child.stderr.cancel();
    const left = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
    return { text, code: (await child.status).code, left: left.toSorted() };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Stays until it gets SIGTERM. */
const WAITING = `trap 'echo "checkpoint of $*"; exit 143' TERM
mkdir -p "$TMPDIR/saev-8"; echo ready; while :; do sleep 0.05; done`;

Deno.test("a task that is warned of its end writes a checkpoint and is queued again, and its copy of the rows is removed", async () => {
  const warned = await runScript(WAITING, (kill) => kill("SIGUSR1"));
  assertStringIncludes(warned.text, "\nscontrol requeue 7_1\n");
  assertStringIncludes(warned.text, "--task 1\n");
  assertEquals([warned.code, warned.left], [143, ["saev", "scontrol", "script"]]);
});

Deno.test("a task that is cancelled writes a checkpoint and is not queued again; others end as saev does", async () => {
  const cancelled = await runScript(WAITING, (kill) => kill("SIGTERM"));
  assertStringIncludes(cancelled.text, "checkpoint of train");
  assertEquals([cancelled.code, cancelled.text.includes("scontrol")], [143, false]);
  for (const code of [0, 1]) {
    const ended = await runScript(`echo ready; exit ${code}`, () => {});
    assertEquals([ended.code, ended.text.includes("scontrol")], [code, false]);
    assertStringIncludes(ended.text, `ended with ${code}: `);
  }
});

Deno.test("a task refuses software, unless it may train on it", async () => {
  const device = await defaultDevice();
  const name = await taskAdapter({ allow_software: true });
  if (!isSoftware(device)) assertEquals(await taskAdapter({ allow_software: false }), name);
  else {await assertRejects(
      () => taskAdapter({ allow_software: false }),
      DeviceError,
      `the adapter is ${name}, which computes on the CPU`,
    );}
});
