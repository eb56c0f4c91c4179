/**
 * The script of a Slurm job array: one task for each group of runs that share a stream of rows. It is plain text for
 * `sbatch`, and shows what another scheduler has to run.
 *
 * @module
 */

import { adapterName, isSoftware } from "../kernels/engine/device.ts";
import { DeviceError } from "../kernels/engine/errors.ts";
import { defaultDevice } from "../kernels/engine/self_check.ts";
import { VERSION } from "../io/checkpoints/saev_schemas.ts";
import { printable } from "./terminal.ts";
import type { SlurmConfig } from "./config_sections.ts";

/** Input of {@link slurmScript}. */
export interface SlurmPlan {
  /** `[slurm]` */
  readonly slurm: SlurmConfig;
  /** The absolute path of the sweep's folder. */
  readonly out: string;
  /** The absolute path of its configuration. */
  readonly config: string;
  /** The folder to which relative paths in the configuration refer. */
  readonly base: string;
  /** The command for saev, as words of a shell. */
  readonly command: string;
  /** The groups in order, with each run's name and changes. */
  readonly groups: readonly (readonly { readonly name: string; readonly about: string }[])[];
}

/**
 * The name of the adapter that a task will train on.
 *
 * @throws {DeviceError} if there is no adapter, or a software adapter that is not allowed.
 */
export async function taskAdapter(
  { allow_software: allowsSoftware }: Pick<SlurmConfig, "allow_software">,
): Promise<string> {
  const device = await defaultDevice();
  const name = adapterName(device);
  if (!isSoftware(device) || allowsSoftware) return name;
  throw new DeviceError(
    `the adapter is ${name}, which computes on the CPU; a task of a sweep expects a GPU. See that the machine has one ` +
      "and its Vulkan driver, or set slurm.allow_software = true",
  );
}

/** Seconds before the time limit at which a task writes a checkpoint; at most a quarter of the limit. */
const WARNING_SECONDS = 300;
/** Largest number of runs of a task that are listed. */
const MOST_LISTED = 8;

/**
 * The text of the script.
 *
 * @throws {RangeError} for a path that a `#SBATCH` line cannot hold.
 */
export function slurmScript({ slurm, out, config, base, command, groups }: SlurmPlan): string {
  const n_runs = groups.flat().length;
  const { account, partition, time, memory, cpus, gpus, tasks_at_once: atOnce } = slurm;
  const warning = Math.min(WARNING_SECONDS, Math.floor(secondsOf(time) / 4));
  const given = (option: string, value: string | number | null) => value === null ? [] : [`--${option}=${value}`];
  const options = [
    `--job-name=saev-${out.slice(out.lastIndexOf("/") + 1).replaceAll(/[^\w.-]/g, "-")}`,
    `--array=0-${groups.length - 1}${atOnce === null ? "" : `%${atOnce}`}`,
    ...given("account", account),
    ...given("partition", partition),
    ...given("time", time),
    ...given("mem", memory),
    ...given("cpus-per-task", cpus),
    ...gpus === 0 ? [] : [`--gres=gpu:${gpus}`],
    "--requeue",
    `--signal=B:USR1@${warning}`,
    "--open-mode=append",
    `--output=${inDirective(`${out}/`)}slurm-%A_%a.log`,
    ...slurm.options,
  ];
  const call = [
    `train ${quoted(config)}`,
    `--relative-to ${quoted(base)}`,
    `--out ${quoted(out)}`,
    `--resume=auto`,
    ...slurm.stage ? [`--stage "$stage"`] : [],
    `--task "$SLURM_ARRAY_TASK_ID"`,
  ];
  const stage = `# The rows are copied to the machine's own disk and read there.
stage="\${TMPDIR:-/tmp}/saev-$SLURM_JOB_ID"
trap 'rm -rf "$stage"' EXIT

`;
  return `#!/bin/bash
# ${count(n_runs, "run")} in ${
    count(groups.length, "group")
  }, written by saev ${VERSION}. A task of this array trains one
# group, whose runs share one stream of rows.
#
${groups.map((group, i) => `#   task ${i}: ${listed(group)}\n`).join("")}#
# Submit it with sbatch. A task that is killed, preempted or out of time continues from its last checkpoint when it is
# queued again. ${"`"}saev collect${"`"} says what is there and what is missing.
# Another scheduler runs the command below, with the number of a group in place of $SLURM_ARRAY_TASK_ID.
${options.map((option) => `#SBATCH ${option}\n`).join("")}
set -u
echo "task $SLURM_ARRAY_TASK_ID of job \${SLURM_ARRAY_JOB_ID}, start \${SLURM_RESTART_COUNT:-0}, on $(hostname): $(date -u +%FT%TZ)"

${slurm.setup === "" ? "" : `${slurm.setup.trimEnd()}\n\n`}${
    slurm.stage ? stage : ""
  }# ${warning} seconds before its time is up the task gets USR1: training writes a checkpoint, and the task is queued again.
requeue=no
trap 'requeue=yes; kill -TERM "$saev"' USR1
trap 'kill -TERM "$saev"' TERM

${command} ${call.join(" \\\n  ")} &
saev=$!
wait "$saev"; code=$?
# A signal ends wait before training has ended.
while kill -0 "$saev" 2>/dev/null; do wait "$saev"; code=$?; done
echo "ended with $code: $(date -u +%FT%TZ)"
if [ "$requeue" = yes ] && [ "$code" = 143 ]; then
  # $SLURM_JOB_ID may be that of the whole array.
  scontrol requeue "\${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
`;
}

/** Seconds of a time in Slurm's spelling: minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s; `null` means no limit. */
function secondsOf(time: string | null): number {
  if (time === null) return Infinity;
  const [days, rest] = time.includes("-") ? time.split("-") : [null, time];
  const parts = rest!.split(":").map(Number);
  const [h = 0, m = 0, s = 0] = days !== null || parts.length === 3 ? parts : [0, ...parts];
  return ((Number(days ?? 0) * 24 + h) * 60 + m) * 60 + s;
}

function count(n: number, what: string): string {
  return `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
}

function listed(group: SlurmPlan["groups"][number]): string {
  const shown = group.slice(0, MOST_LISTED).map(({ name, about }) => `${name}${about === "" ? "" : ` (${about})`}`);
  const more = group.length > MOST_LISTED ? `; ${group.length - MOST_LISTED} more` : "";
  return printable(`${group.length === 1 ? "run" : "runs"} ${shown.join("; ")}${more}`);
}

/** Text as one word of a shell. */
export function quoted(text: string): string {
  return /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A path in a `#SBATCH` line, where `%` and `\` mean something and spaces end it. */
function inDirective(path: string): string {
  if (/[\s"'\\]/.test(path)) {
    throw new RangeError(`--slurm: Slurm takes no path with spaces, quotes or \\ for its log; found ${path}`);
  }
  return path.replaceAll("%", "%%");
}
