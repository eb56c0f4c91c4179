/** Probes of a latent and a class: against the Python package's, scikit-learn's precision, and float64. @module */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { coverage, fitProbes, type LabelledCodes, type Probes, purityAt, scoreProbes } from "../../eval/mod.ts";
import { openSource } from "../../io/files.ts";
import { openScipyCsr } from "../../io/scipy_csr.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { averagePrecision, optimalLoss, probeLoss } from "../reference/probes.ts";
import { csrOf } from "../support/csr.ts";
import { freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import {
  assertExact,
  assertProbeBetween,
  assertProbeOptimal,
  assertScalarClose,
  assertTensorClose,
} from "../support/tolerance.ts";

const GOLDENS = new URL("../goldens/probe1d/", import.meta.url);

/** What `expected.json` has, as far as it is asked for. */
interface Expected {
  readonly shape: { readonly n_latents: number; readonly n_classes: number };
  readonly upstream: Readonly<Record<"train_loss" | "test_loss", number[][]>>;
  readonly float64_optimum: { readonly train_loss: number[][] };
  readonly best_latent_per_class: { readonly optimum: number[] };
  readonly average_precision: { readonly latent: number; readonly scikit_learn_ties_grouped: number }[];
  readonly coverage: Readonly<Record<string, number>>;
  readonly precision: number[];
  readonly recall: number[];
  readonly f1: number[];
  readonly probe_r: { readonly entropy: Readonly<Record<"train" | "test", number[]>> };
  readonly purity_at_16: { readonly latent: number; readonly true: number | null }[];
  readonly purity_at_64: { readonly latent: number; readonly true: number | null }[];
}

const EXPECTED: Expected = JSON.parse(await Deno.readTextFile(new URL("expected.json", GOLDENS)));

async function golden(split: "train" | "test"): Promise<LabelledCodes> {
  const codes = await openScipyCsr(await openSource(new URL(`${split}/token_acts.npz`, GOLDENS)));
  return { codes, labels: Uint16Array.from(await Deno.readFile(new URL(`${split}/labels.bin`, GOLDENS))) };
}

/** [rows, latents] in memory. */
async function denseOf({ codes }: LabelledCodes): Promise<Float32Array> {
  const dense = new Float32Array(codes.shape[0] * codes.shape[1]);
  let row = 0;
  for await (const { row_starts, indices, values } of codes.rows()) {
    for (let i = 0; i + 1 < row_starts.length; i++, row++) {
      for (let at = row_starts[i]!; at < row_starts[i + 1]!; at++) {
        dense[row * codes.shape[1] + indices[at]!] = values[at]!;
      }
    }
  }
  return dense;
}

/** The activations of a latent. */
function columnOf(dense: ArrayLike<number>, n_latents: number, latent: number): number[] {
  return Array.from({ length: dense.length / n_latents }, (_, row) => dense[row * n_latents + latent]!);
}

/** The losses and counts that probes claim are those of their own parameters. */
async function assertMeasures(probes: Probes, rows: LabelledCodes, measures: Probes["train"]): Promise<void> {
  const { n_latents, n_classes, weights, biases } = probes;
  const dense = await denseOf(rows);
  const labels = Array.from(rows.labels);
  for (let latent = 0; latent < n_latents; latent++) {
    const x = columnOf(dense, n_latents, latent);
    for (let c = 0; c < n_classes; c++) {
      const at = latent * n_classes + c;
      const [b, w] = [biases[at]!, weights[at]!];
      const y = labels.map((label) => label === c);
      assertProbeOptimal([measures.loss[at]!], [probeLoss({ x, y }, b, w)], `latent ${latent}, class ${c}`);
      const called = x.map((value) => Math.fround(b + w * value) > 0);
      const count = (is: (i: number) => boolean) => x.filter((_, i) => is(i)).length;
      assertExact(
        [measures.tp, measures.fp, measures.tn, measures.fn].map((counts) => counts[at]!),
        [
          count((i) => called[i]! && y[i]!),
          count((i) => called[i]! && !y[i]!),
          count((i) => !called[i]! && !y[i]!),
          count((i) => !called[i]! && y[i]!),
        ],
        `counts of latent ${latent}, class ${c}`,
      );
    }
  }
}

Deno.test("probes of the goldens reach the optimum, where the Python package stops before it too", async () => {
  const device = await sharedDevice();
  const [train, test] = [await golden("train"), await golden("test")];
  const probes = await fitProbes(train, { device });
  const { upstream, float64_optimum: { train_loss: optima }, shape } = EXPECTED;
  assertEquals([probes.n_latents, probes.n_classes, probes.n_unfinished], [shape.n_latents, shape.n_classes, 0]);
  const optimum = optima.flat();
  assertProbeBetween(probes.train.loss, optimum, upstream.train_loss.flat());
  assertProbeOptimal(probes.train.loss, optimum);
  assertEquals([...probes.best], EXPECTED.best_latent_per_class.optimum);
  await assertMeasures(probes, train, probes.train);

  const scores = await scoreProbes(probes, test, { device });
  await assertMeasures(probes, test, scores.measures);
  const precisions = EXPECTED.average_precision;
  assertEquals(precisions.map(({ latent }) => latent), [...probes.best]);
  assertTensorClose(scores.ap, precisions.map(({ scikit_learn_ties_grouped: ap }) => ap), "average precision");
  for (const [threshold, share] of Object.entries(EXPECTED.coverage)) {
    assertEquals(coverage(scores.ap, Number(threshold)), share);
  }
  assertTensorClose(scores.precision, EXPECTED.precision, "precision");
  assertTensorClose(scores.recall, EXPECTED.recall, "recall");
  assertTensorClose(scores.f1, EXPECTED.f1, "f1");
  for (const [k, purities] of [[16, EXPECTED.purity_at_16], [64, EXPECTED.purity_at_64]] as const) {
    // Of equal activations at the cut, those of the first rows are taken, there as here.
    const found = purities.map(({ latent }) => purityAt(scores.top, latent, k));
    assertTensorClose(
      found.map((value) => Number.isNaN(value) ? -1 : value),
      purities.map(({ true: value }) => value ?? -1),
    );
  }
  const { entropy } = EXPECTED.probe_r;
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const probeR = (losses: number[][], split: "train" | "test") =>
    1 - mean(Array.from(probes.best, (latent, c) => losses[latent]![c]!)) / mean(entropy[split]);
  const { loss } = scores.measures;
  const rows = Array.from({ length: shape.n_latents }, (_, latent) => [...loss.slice(latent * 5, latent * 5 + 5)]);
  assertScalarClose(scores.probe_r, probeR(rows, "test"), "probe R");
  const ofTrain = (await scoreProbes(probes, train, { device })).probe_r;
  assertScalarClose(ofTrain, probeR(optima, "train"), "probe R where the probes were fitted");
});

/** Latents that are hard: dense and far from zero, of large and small numbers, separating, negative, constant, one spike. */
function hard(n_rows: number): LabelledCodes & { readonly dense: Float32Array } {
  const random = new Random(7);
  const labels = Uint16Array.from({ length: n_rows }, (_, i) => i % 10 === 0 ? 2 : random.integer(0, 1));
  const noise = random.normal(n_rows);
  const latents: ((row: number) => number)[] = [
    (row) => 100 + noise[row]! + labels[row]!,
    (row) => row % 3 === 0 ? 1e4 * Math.abs(noise[row]!) : 0,
    (row) => row % 3 === 0 ? 1e-4 * Math.abs(noise[row]!) : 0,
    (row) => labels[row] === 1 ? 0.5 + Math.abs(noise[row]!) : 0,
    (row) => labels[row] === 1 ? 0 : 2,
    (row) => row % 2 === 0 ? noise[row]! - labels[row]! : 0,
    () => 3,
    (row) => row === 5 ? 1000 : row % 4 === 0 ? Math.abs(noise[row]!) : 0,
  ];
  const dense = Float32Array.from(
    { length: n_rows * latents.length },
    (_, i) => latents[i % latents.length]!(Math.floor(i / latents.length)),
  );
  return { codes: csrOf(dense, latents.length), labels, dense };
}

Deno.test("hard latents reach the optimum of float64", async () => {
  const rows = hard(900);
  const probes = await fitProbes(rows, { device: await sharedDevice() });
  const want: number[] = [];
  for (let latent = 0; latent < probes.n_latents; latent++) {
    const x = columnOf(rows.dense, probes.n_latents, latent);
    for (let c = 0; c < 3; c++) want.push(optimalLoss({ x, y: Array.from(rows.labels, (label) => label === c) }, 1e-8));
  }
  assertProbeOptimal(probes.train.loss, want);
  await assertMeasures(probes, rows, probes.train);
});

Deno.test("average precision is that of float64, with ties, either sign, and silent rows between", async () => {
  const random = new Random(9);
  const n_rows = 240;
  const dense = Float32Array.from({ length: n_rows * 6 }, () => random.integer(0, 2) * random.integer(-3, 3) / 2);
  const rows = { codes: csrOf(dense, 6), labels: Uint16Array.from({ length: n_rows }, () => random.integer(0, 3)) };
  const probes = await fitProbes(rows, { device: await sharedDevice() });
  // Each latent for each class, as if it were the best.
  for (let latent = 0; latent < 6; latent++) {
    const { ap } = await scoreProbes({ ...probes, best: new Uint32Array(4).fill(latent) }, rows, {
      device: await sharedDevice(),
    });
    const x = columnOf(dense, 6, latent);
    const want = Array.from({ length: 4 }, (_, c) => {
      const w = probes.weights[latent * 4 + c]!;
      return averagePrecision(x.map((value) => w * value), Array.from(rows.labels, (label) => label === c));
    });
    assertTensorClose(ap, want, `latent ${latent}`);
  }
});

Deno.test("entries beyond a binding and a loop, and latents beyond a block, are fitted all the same", async () => {
  const n_rows = 140_000;
  const random = new Random(11);
  const labels = Uint16Array.from({ length: n_rows }, () => random.integer(0, 1));
  const noise = random.normal(n_rows);
  const dense = Float32Array.from({ length: 2 * n_rows }, (_, i) => {
    const row = Math.floor(i / 2);
    return i % 2 === 0 ? 1 + Math.abs(noise[row]! + labels[row]!) : row % 100 === 0 ? 1 + labels[row]! : 0;
  });
  const rows = { codes: csrOf(dense, 2), labels };
  // 300,000 bytes hold 74,000 entries of the 140,000.
  const probes = await fitProbes(rows, { device: await freshDevice({ bindingLimit: 300_000 }) });
  const want: number[] = [];
  for (let latent = 0; latent < 2; latent++) {
    const x = columnOf(dense, 2, latent);
    for (let c = 0; c < 2; c++) want.push(optimalLoss({ x, y: Array.from(labels, (label) => label === c) }, 1e-8));
  }
  assertProbeOptimal(probes.train.loss, want);
  const { tp, fp, tn, fn } = probes.train;
  for (let at = 0; at < 4; at++) assertEquals(tp[at]! + fp[at]! + tn[at]! + fn[at]!, n_rows);

  const few = hard(120);
  const whole = await fitProbes(few, { device: await sharedDevice() });
  // One latent of three classes at a time.
  const apart = await fitProbes(few, { device: await freshDevice({ bindingLimit: 1024 }) });
  assertProbeOptimal(apart.train.loss, whole.train.loss);
});

Deno.test("classes without rows, and latents that never fire, are what they are", async () => {
  const device = await sharedDevice();
  const dense = Float32Array.from({ length: 60 * 3 }, (_, i) => i % 3 === 0 ? 0 : (i * 7) % 5);
  const labels = Uint16Array.from({ length: 60 }, (_, row) => row % 2);
  const rows = { codes: csrOf(dense, 3), labels };
  const probes = await fitProbes(rows, { device, n_classes: 3 });
  assertEquals([...probes.weights.subarray(0, 3)], [0, 0, 0]);
  assert(probes.biases[0] === 0 && probes.biases[2]! < -18, "the log-odds of the classes");
  const { ap, top, recall, mean_ap } = await scoreProbes(probes, rows, { device });
  assertEquals([ap[2], recall[2]], [0, 0]);
  assertScalarClose(mean_ap, (ap[0]! + ap[1]!) / 3);
  assertEquals([top.k, top.counts[0], purityAt(top, 0)], [60, 0, NaN]);
  assertThrows(() => purityAt(top, 0, 61), RangeError, "purity takes k from 1 to the 60 rows");

  await assertRejects(
    () => fitProbes({ ...rows, labels: labels.slice(1) }, { device }),
    ShapeError,
    "probing codes: found 59 labels for 60 rows; expected one for each",
  );
  await assertRejects(
    () => fitProbes(rows, { device, n_classes: 1 }),
    RangeError,
    "probing codes: row 1 has the label 1; expected 0 to 0",
  );
  await assertRejects(() => fitProbes(rows, { device, ridge: 0 }), RangeError, "ridge must be a positive number");
  await assertRejects(() => fitProbes(rows, { device, max_iter: 0 }), RangeError, "max_iter must be an integer");
  await assertRejects(
    () => scoreProbes(probes, { codes: csrOf(dense, 2), labels: new Uint16Array(90) }, { device }),
    ShapeError,
    "scoring probes of 3 latents: codes has codes of 2",
  );
  const { n_unfinished } = await fitProbes(hard(120), { device, max_iter: 1 });
  assert(n_unfinished > 10, `${n_unfinished} probes are not fitted after a step`);
  await assertRejects(
    () => fitProbes(rows, { device, signal: AbortSignal.abort(new Error("stopped")) }),
    Error,
    "stopped",
  );
});
