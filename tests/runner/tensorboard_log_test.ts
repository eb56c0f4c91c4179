/** The event file of a run: what is in it, how it is continued, and that a run writes it. @module */
import { assertEquals } from "@std/assert";
import { rowsOf } from "../../data/rows.ts";
import { densityHistogram, type Metrics } from "../../eval/metrics.ts";
import { eventRecord, wholeRecords } from "../../io/tensorboard.ts";
import { lossAt, lossColumnNames, type TrainLoss } from "../../objectives/loss_record.ts";
import { completeRunConfig } from "../../runner/run_config.ts";
import { RunDirectory } from "../../runner/run_directory.ts";
import { EVENTS } from "../../runner/run_files.ts";
import { runTraining } from "../../runner/run.ts";
import { densityEvent, TensorBoardLog } from "../../runner/tensorboard_log.ts";
import { Random } from "../support/random.ts";

const NAMES = lossColumnNames([]);

/** Losses that tell their step. */
function losses(...steps: readonly number[]): TrainLoss[] {
  const columns = new Map(NAMES.map((name, i) => [name, Float32Array.from(steps, (step) => 100 * i + step)]));
  return steps.map((_, i) => lossAt(columns, i));
}

/** What is written of a step. */
function scalars(step: number): Record<string, number> {
  const tags = NAMES.map((name) =>
    name.startsWith("grad_norms.") ? name.replace("grad_norms.", "gradients/") : `train/${name}`
  );
  return { ...Object.fromEntries(tags.map((tag, i) => [tag, 100 * i + step])), "train/lr": (step - 1) / 8 };
}

function metrics(density: readonly number[], nmse: number): Metrics {
  const rest = { l0: 2, dead_fraction: 0.5, n_dense: 1, cosine: 0.75 } as Metrics;
  return { ...rest, nmse, density: Float64Array.from(density), density_histogram: densityHistogram(density) };
}

async function inFolder(work: (path: string, directory: RunDirectory) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await using directory = await RunDirectory.open(path);
    await work(path, directory);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

const joined = (...records: readonly Uint8Array[]) => Uint8Array.from(records.flatMap((record) => [...record]));

Deno.test("reports and validations are events, and a resumed file declares steps void that are made again", async () => {
  await inFolder(async (path, directory) => {
    let seconds = 100;
    const options = { rate: (step: number) => step / 8, wallTime: () => seconds++ };
    const log = await TensorBoardLog.open(directory, { step: 0, ...options });
    await log.append(2, losses(1, 2));
    await log.append(2, []);
    const measured = metrics([0, 0.1, 1, 0], NaN);
    await log.appendMetrics(2, "validation", measured);
    const written = joined(
      eventRecord({ wallTime: 100, step: 0 }, { fileVersion: true }),
      eventRecord({ wallTime: 101, step: 2 }, { scalars: scalars(2), histograms: {} }),
      eventRecord({ wallTime: 102, step: 2 }, {
        scalars: {
          "validation/l0": 2,
          "validation/dead_fraction": 0.5,
          "validation/n_dense": 1,
          "validation/cosine": 0.75,
        },
        histograms: { "validation/log10_density": densityEvent(measured)! },
      }),
    );
    assertEquals(await Deno.readFile(`${path}/${EVENTS}`), written);

    // A process was killed while it wrote.
    await directory.append(EVENTS, eventRecord({ wallTime: 0, step: 9 }, { scalars: { a: 1 } }).subarray(0, 20));
    const resumed = await TensorBoardLog.open(directory, { step: 1, ...options });
    await resumed.append(2, losses(2));
    assertEquals(
      await Deno.readFile(`${path}/${EVENTS}`),
      joined(
        written,
        eventRecord({ wallTime: 103, step: 2 }, { restart: true }),
        eventRecord({ wallTime: 104, step: 2 }, { scalars: scalars(2), histograms: {} }),
      ),
    );
    // A run that is begun anew begins its file anew.
    await TensorBoardLog.open(directory, { step: 0, ...options });
    assertEquals(
      await Deno.readFile(`${path}/${EVENTS}`),
      eventRecord({ wallTime: 105, step: 0 }, { fileVersion: true }),
    );
  });
});

Deno.test("a file that is not there when a run is resumed is begun", async () => {
  await inFolder(async (path, directory) => {
    await TensorBoardLog.open(directory, { step: 7, rate: () => 0, wallTime: () => 1 });
    const version = eventRecord({ wallTime: 1, step: 0 }, { fileVersion: true });
    assertEquals(await Deno.readFile(`${path}/${EVENTS}`), version);
  });
});

Deno.test("the histogram has every latent that is active, in bins from the first that is not empty to the last", () => {
  const { min, max, num, sum, sumSquares, bucketLimit, bucket } = densityEvent(metrics([0, 0.01, 0.012, 1, 0.5], 1))!;
  assertEquals([min, max, num], [-2, 0, 4]);
  const logs = [0.01, 0.012, 1, 0.5].map(Math.log10);
  assertEquals([sum, sumSquares], [logs.reduce((a, b) => a + b, 0), logs.reduce((a, b) => a + b ** 2, 0)]);
  assertEquals(bucketLimit, [-1.75, -1.5, -1.25, -1, -0.75, -0.5, -0.25, 0]);
  assertEquals(bucket, [2, 0, 0, 0, 0, 0, 1, 1]);
  assertEquals(densityEvent(metrics([0, 0], 1)), undefined);
});

Deno.test("a run writes events where its configuration says so, and its model does not depend on it", async () => {
  const rows = rowsOf(new Random(1).normal(400 * 4), 4);
  const trained = async (tensorboard: boolean) => {
    let model = new Uint8Array();
    let events: Uint8Array | null = null;
    await inFolder(async (path, directory) => {
      const cfg = completeRunConfig({
        data: { path: "rows.f32", d_model: 4, validation_share: 0.1 },
        sae: { d_sae: 8, activation: { key: "top-k", top_k: 2 } },
        train: { batch_size: 30, n_steps: 12, log_every: 4 },
        log: { tensorboard, validation_every: tensorboard ? 5 : 0 },
      });
      await runTraining(cfg, rows, { directory });
      model = await Deno.readFile(`${path}/sae.pt`);
      events = await Deno.readFile(`${path}/${EVENTS}`).catch(() => null);
    });
    return { model, events: events as Uint8Array | null };
  };
  const [without, { model, events }] = [await trained(false), await trained(true)];
  assertEquals(without.events, null);
  assertEquals(model, without.model);
  // Each tag of a report stands three times, and that of a validation once: at step 8, the first multiple of 4 from 5 on.
  const text = new TextDecoder("latin1").decode(events!);
  const count = (tag: string) => text.split(tag).length - 1;
  assertEquals(["train/loss", "gradients/W_enc", "validation/nmse", "evaluation/nmse"].map(count), [3, 3, 1, 1]);
  assertEquals(["validation/log10_density", "evaluation/log10_density"].map(count), [1, 1]);
  assertEquals(await wholeRecords(ReadableStream.from([events!])), events!.length);
});
