/**
 * `saev train --slurm`: writes the script of a job array, and submits it if asked.
 *
 * @module
 */

import { JOB_SCRIPT, quoted, RunDirectory, type RunStart, type SlurmPlan, slurmScript } from "../runner/mod.ts";
import { print, say } from "./command.ts";

/** What the array trains, and where. */
interface JobArray extends Pick<SlurmPlan, "slurm" | "groups" | "out" | "base"> {
  readonly start: RunStart;
  readonly configToml: string;
}

/** Writes the script into the folder of the sweep; submits it if asked. Returns the exit code. */
export async function writeJobArray(array: JobArray, submits: boolean): Promise<number> {
  const { slurm, groups, start, configToml } = array;
  const [out, base] = [array.out, array.base].map(fromRoot) as [string, string];
  const command = slurm.command ?? [Deno.execPath(), "run", "-A", mainModule()].map(quoted).join(" ");
  const text = slurmScript({ slurm, groups, out, base, command, config: `${out}/config.toml` });
  const script = `${out}/${JOB_SCRIPT}`;
  const n_runs = groups.flat().length;
  {
    await using directories = await RunDirectory.openSweep(array.out, n_runs, {
      start,
      configToml,
      hasJobScript: true,
      say,
    });
    await directories.whole.begin();
    await directories.whole.write(JOB_SCRIPT, text);
  }
  say(
    `${script}: ${groups.length} ${groups.length === 1 ? "task" : "tasks"} for ${n_runs} ${
      n_runs === 1 ? "run" : "runs"
    }`,
  );
  if (submits) await print(await submit(script));
  else say(`submit it with: sbatch ${quoted(script)}`);
  say(`then: saev collect ${quoted(array.out)}`);
  return 0;
}

/** Submits the script and returns the number of the job. */
async function submit(script: string): Promise<string> {
  const command = new Deno.Command("sbatch", { args: ["--parsable", script], stdout: "piped", stderr: "piped" });
  const { code, stdout, stderr } = await command.output().catch((cause: unknown) => {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new Error(
      `submitting ${script}: found no sbatch here; run sbatch ${quoted(script)} on a machine that has it`,
      {
        cause,
      },
    );
  });
  const [said, complaint] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim());
  if (code === 0) return said!.split(";")[0]!;
  throw new Error(`submitting ${script}: sbatch ended with ${code}: ${complaint}`);
}

/** The main module, as `deno run` takes it. */
function mainModule(): string {
  const { mainModule } = Deno;
  return mainModule.startsWith("file://") ? decodeURIComponent(new URL(mainModule).pathname) : mainModule;
}

/** An absolute path. */
function fromRoot(path: string): string {
  if (/^(?:https?|hf):/i.test(path)) return path;
  const parts: string[] = [];
  const whole = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
  for (const part of whole.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}
