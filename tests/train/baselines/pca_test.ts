/** PCA as a model: its components, its variance, and what a checkpoint keeps of it. @module */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { rowsOf } from "../../../data/mod.ts";
import { evaluate } from "../../../eval/mod.ts";
import { dump, load } from "../../../io/checkpoints/checkpoint.ts";
import { fitPca } from "../../../train/mod.ts";
import { symmetricEigen } from "../../../train/baselines/eigen.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { Random } from "../../support/random.ts";
import { assertScalarClose, assertTensorClose } from "../../support/tolerance.ts";

const [N, D] = [500, 9];

/** Rows of different variances in turned directions, far from zero. */
function data(seed: number, far: number): Float32Array {
  const random = new Random(seed);
  const [turn, noise] = [random.normal(D * D), random.normal(N * D)];
  return Float32Array.from({ length: N * D }, (_, at) => {
    const [row, column] = [Math.floor(at / D), at % D];
    let x = far * (column + 1);
    for (let d = 0; d < D; d++) x += noise[row * D + d]! * turn[d * D + column]! * 2 ** (1 - d);
    return x;
  });
}

for (const far of [0, 50]) {
  Deno.test(`components are those of float64, rows ${far} from zero`, async () => {
    const x = data(1, far);
    const mean = Array.from({ length: D }, (_, d) => {
      let sum = 0;
      for (let row = 0; row < N; row++) sum += x[row * D + d]!;
      return sum / N;
    });
    const covariance = Float64Array.from({ length: D * D }, (_, at) => {
      const [a, b] = [Math.floor(at / D), at % D];
      let sum = 0;
      for (let row = 0; row < N; row++) sum += (x[row * D + a]! - mean[a]!) * (x[row * D + b]! - mean[b]!);
      return sum / N;
    });
    const want = symmetricEigen(covariance, D).slice(0, 3);
    const seen: number[] = [];
    const { sae: model, variances, explained_variance } = await fitPca(rowsOf(x, D), {
      n_components: 3,
      batch_size: 64,
      device: await sharedDevice(),
      onProgress: (done) => seen.push(done),
    });
    using sae = model;
    assertTensorClose(variances, want.map(({ value }) => value), "variances");
    const { W_enc, W_dec, b_dec } = await sae.readParameters();
    for (const [s, { vector }] of want.entries()) {
      assertTensorClose(W_dec.subarray(s * D, (s + 1) * D), vector, `component ${s}`);
      assertTensorClose(Array.from({ length: D }, (_, d) => W_enc[d * 3 + s]!), vector, `encoder of component ${s}`);
    }
    assertTensorClose(b_dec, mean, "mean");
    assertEquals([seen.at(0), seen.at(-1)], [64, N]);
    const metrics = await evaluate(sae, rowsOf(x, D));
    assertEquals(metrics.l0, 3);
    // Codes of both signs, all of them kept.
    assertScalarClose(metrics.explained_variance, explained_variance, "explained variance");
  });
}

Deno.test("a checkpoint keeps it, in the Python package's schema, and all components leave no error", async () => {
  const x = data(2, 3);
  const { sae: model } = await fitPca(rowsOf(x, D), { n_components: D, device: await sharedDevice() });
  using sae = model;
  const path = await Deno.makeTempFile();
  try {
    assertEquals(await dump(path, sae), { folded: [] });
    assertEquals(JSON.parse((await Deno.readTextFile(path)).split("\n")[0]!).schema, 5);
    using again = await load(path, { device: await sharedDevice() });
    const { nmse, l0 } = await evaluate(again, rowsOf(x, D));
    assert(nmse < 1e-10, `${nmse}`);
    assertEquals(l0, D);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("what cannot be fitted is refused", async () => {
  const device = await sharedDevice();
  for (const n_components of [0, D + 1, 1.5]) {
    await assertRejects(
      () => fitPca(rowsOf(data(1, 0), D), { n_components, device }),
      RangeError,
      "n_components must be an integer from 1 to d_model 9",
    );
  }
  await assertRejects(() => fitPca(rowsOf(new Float32Array(), D), { n_components: 1, device }), RangeError, "no rows");
  await assertRejects(
    () => fitPca(rowsOf(data(1, 0).with(100 * D, NaN), D), { n_components: 1, device, batch_size: 64 }),
    RangeError,
    "one of the rows 64 to 128 is not finite",
  );
  await assertRejects(
    () => fitPca(rowsOf(data(1, 0), D), { n_components: 1, device, signal: AbortSignal.abort(new Error("stopped")) }),
    Error,
    "stopped",
  );
  // Rows that do not vary have directions, and no variance in them.
  const still = await fitPca(rowsOf(new Float32Array(40 * D).fill(2), D), { n_components: 2, device });
  using _ = still.sae;
  assertEquals([[...still.variances], still.explained_variance], [[0, 0], NaN]);
});
