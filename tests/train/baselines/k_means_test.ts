/** k-means as a model: clusters that are there are found, and what Lloyd's algorithm promises. @module */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { rowsOf } from "../../../data/mod.ts";
import { encodeRows, evaluate } from "../../../eval/mod.ts";
import { dumpBytes, load } from "../../../io/checkpoints/checkpoint.ts";
import { fitKMeans, type KMeansOptions } from "../../../train/mod.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { Random } from "../../support/random.ts";
import { assertAtLeast, assertKMeans, assertScalarClose, assertTensorClose } from "../../support/tolerance.ts";

const D = 6;

/** Rows around `clusters` centres, far from zero, and the cluster of each. */
function blobs(n_rows: number, clusters: number, spread: number): { x: Float32Array; of: number[] } {
  const random = new Random(4);
  const centres = random.normal(clusters * D, 10);
  const noise = random.normal(n_rows * D, spread);
  const of = Array.from({ length: n_rows }, () => random.integer(0, clusters - 1));
  const x = noise.map((value, at) => 20 + value + centres[of[Math.floor(at / D)]! * D + at % D]!);
  return { x, of };
}

async function fit(x: Float32Array, options: Partial<KMeansOptions> & { n_clusters: number }) {
  return await fitKMeans(rowsOf(x, D), { device: await sharedDevice(), ...options });
}

Deno.test("clusters that are apart are found, and rows are reconstructed as their means", async () => {
  const { x, of } = blobs(700, 12, 0.5);
  const { sae: model, errors, counts } = await fit(x, { n_clusters: 12, batch_size: 100 });
  using sae = model;
  assertEquals([...counts].sort(), Array.from({ length: 12 }, (_, c) => of.filter((k) => k === c).length).sort());
  const { W_dec, b_dec } = await sae.readParameters();
  const latents: number[] = [];
  for await (const { latents: [latent], values } of encodeRows(sae, rowsOf(x, D))) {
    latents.push(latent!);
    assertKMeans(values[0]!, 1, "the code of a row");
  }
  assertEquals(new Set(latents.map((latent, row) => `${latent} ${of[row]}`)).size, 12, "a latent for each cluster");
  for (let latent = 0; latent < 12; latent++) {
    const rows = latents.flatMap((found, row) => found === latent ? [row] : []);
    const mean = Array.from({ length: D }, (_, d) => rows.reduce((sum, row) => sum + x[row * D + d]!, 0) / rows.length);
    assertTensorClose(
      Array.from({ length: D }, (_, d) => W_dec[latent * D + d]! + b_dec[d]!),
      mean,
      `latent ${latent}`,
    );
  }
  const metrics = await evaluate(sae, rowsOf(x, D));
  assertEquals(metrics.l0, 1);
  assertKMeans(metrics.mse, errors.at(-1)! / x.length, "the error that it claims");
});

Deno.test("no pass makes the error larger, and the same seed gives the same bits, whatever the batches", async () => {
  const x = new Random(5).normal(900 * D);
  const options = { n_clusters: 40, tolerance: 0, max_iter: 12 };
  const fitted = await fit(x, { ...options, seed: 3 });
  using sae = fitted.sae;
  for (const [pass, error] of fitted.errors.entries()) {
    if (pass > 0) assertAtLeast([fitted.errors[pass - 1]!], error, error, `pass ${pass}`);
  }
  assert(fitted.errors.length > 3);
  for (const [seed, batch_size, isSame] of [[3, 77, true], [4, 900, false]] as const) {
    using other = (await fit(x, { ...options, seed, batch_size })).sae;
    const [ours, theirs] = [await sae.readParameters(), await other.readParameters()];
    if (isSame) assertEquals(theirs, ours);
    else assertNotEquals(theirs.W_dec, ours.W_dec);
  }
  using again = await load(await dumpBytes(sae), { device: await sharedDevice() });
  assertEquals(await again.readParameters(), await sae.readParameters());
});

Deno.test("more clusters than k-means++ chooses are added, and make the error smaller", async () => {
  const x = new Random(6).normal(1500 * D);
  const { sae: model, errors, counts } = await fit(x, { n_clusters: 1500, max_iter: 3 });
  using sae = model;
  assertEquals([sae.cfg.d_sae, counts.length], [1500, 1500]);
  const alive = counts.filter((count) => count > 0).length;
  assert(alive > 1400, `${alive} of 1500 centroids have rows`);
  const { sae: few, errors: before } = await fit(x, { n_clusters: 1000, max_iter: 3 });
  using _ = few;
  assert(errors.at(-1)! < before.at(-1)!, "more centroids are better");
});

Deno.test("rows that are the same, and one cluster, are no exception; what cannot be is refused", async () => {
  const same = Float32Array.from({ length: 20 * D }, (_, at) => Math.floor(at / D) % 2);
  const { sae: model, errors, counts } = await fit(same, { n_clusters: 5 });
  using sae = model;
  assertEquals([errors.at(-1), [...counts].filter((count) => count > 0).sort()], [0, [10, 10]]);
  assertEquals((await evaluate(sae, rowsOf(same, D))).n_dead, 3);
  const { sae: one, errors: whole } = await fit(same, { n_clusters: 1 });
  using _ = one;
  assertScalarClose(whole.at(-1)!, 20 * D / 4);

  await assertRejects(() => fit(same, { n_clusters: 21 }), RangeError, "found 20 rows for 21 clusters");
  await assertRejects(() => fit(same, { n_clusters: 0 }), RangeError, "n_clusters must be an integer of at least 1");
  await assertRejects(() => fit(same, { n_clusters: 2, tolerance: 1 }), RangeError, "tolerance must be from 0");
  await assertRejects(() => fit(same.with(7, NaN), { n_clusters: 2 }), RangeError, "is not finite");
  await assertRejects(
    () => fit(same, { n_clusters: 2, signal: AbortSignal.abort(new Error("stopped")) }),
    Error,
    "stopped",
  );
});
