/**
 * Writes into a folder what `check_tensorboard.py` reads: the events of the tests, and the event file of a run that was
 * stopped and resumed, beside its `metrics.jsonl`.
 *
 * @module
 */
import { rowsOf } from "../../data/rows.ts";
import { runTraining } from "../../runner/run.ts";
import { completeRunConfig } from "../../runner/run_config.ts";
import { RunDirectory } from "../../runner/run_directory.ts";
import { Random } from "../support/random.ts";
import { writtenEvents } from "../support/tensorboard_events.ts";

const [out] = Deno.args as [string];
await Deno.mkdir(`${out}/golden`, { recursive: true });
await Deno.writeFile(`${out}/golden/events.out.tfevents.golden`, writtenEvents());

const D = 8;
const rows = rowsOf(new Random(1).normal(2000 * D), D);
const cfg = completeRunConfig({
  data: { path: "rows.f32", d_model: D, validation_share: 0.2 },
  sae: { d_sae: 64, activation: { key: "top-k", top_k: 4 } },
  train: { batch_size: 32, n_steps: 120, lr: 0.01, log_every: 5, checkpoint_every: 20 },
  log: { tensorboard: true, validation_every: 10 },
});

/** Trains from where the run is to its end, or until a step. */
async function trainUntil(start: "new" | "resume", step: number): Promise<void> {
  await using directory = await RunDirectory.open(`${out}/run`, { start });
  const aborter = new AbortController();
  await runTraining(cfg, rows, {
    directory,
    signal: aborter.signal,
    onProgress: (state) => {
      if (state.step === step) aborter.abort();
    },
  });
}

await trainUntil("new", 70);
// As if it had been killed after step 70 with its last checkpoint of step 60, in the middle of a record.
await Deno.copyFile(`${out}/run/training.previous.safetensors`, `${out}/run/training.safetensors`);
const events = `${out}/run/events.out.tfevents.saev`;
const { size } = await Deno.stat(events);
await Deno.truncate(events, size - 9);
await trainUntil("resume", Infinity);
