/**
 * Evaluation against the reference's metrics, on any batching of the same rows.
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { evaluate } from "../../train/evaluate.ts";
import { metrics } from "../reference/metrics.ts";
import { narrow } from "../reference/model.ts";
import { randomParameters } from "../reference/problems.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertFloat64Close } from "../support/tolerance.ts";

const SIZES = { d_model: 12, d_sae: 37 };

Deno.test("metrics are those of the codes and reconstructions, however the rows are batched", async () => {
  const random = new Random(1);
  const x = random.normal(30 * 12, 3).map((value) => value + 100);
  for (const activation of [{ key: "relu" }, { key: "top-k", top_k: 4 }] as const) {
    const p = narrow(randomParameters(random, { D: 12, S: 37 }));
    const input = { mean: new Float32Array(12).fill(100), scale: 3 };
    const options = { ...SIZES, activation };
    using sae = await SparseAutoencoder.fromParameters(options, p, { device: await sharedDevice(), input });
    using output = sae.forward(x);
    using f_NS = output.f_x.dense();
    const [x_hat, f] = [await output.x_hat.read(), await f_NS.read()];
    const wanted = metrics(Float64Array.from(x), Float64Array.from(x_hat), Float64Array.from(f), 12);
    for (const batches of [[x], [x.subarray(0, 7 * 12), x.subarray(7 * 12, 8 * 12), x.subarray(8 * 12)]]) {
      const found = await evaluate(sae, batches);
      assertEquals([found.n_rows, found.n_dead], [30, wanted.n_dead]);
      for (const name of ["mse", "nmse", "l0", "l1", "dead_fraction"] as const) {
        assertFloat64Close([found[name]], [wanted[name]], name);
      }
      assertFloat64Close(found.density, wanted.density, "density");
    }
  }
});

Deno.test("data that do not vary have no nmse", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  const { nmse, mse } = await evaluate(sae, [new Float32Array(24).fill(1)]);
  assertExact([nmse], [NaN]);
  assertEquals(Number.isFinite(mse), true);
});

Deno.test("refused: no rows at all", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  await assertRejects(() => evaluate(sae, []), RangeError, "at least one row");
});
