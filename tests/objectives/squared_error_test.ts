/**
 * The squared error element by element: upstream's numbers, where they are numbers, and no NaN or overflow elsewhere.
 *
 * @module
 */

import { assert, assertThrows } from "@std/assert";
import { contextOf } from "../../kernels/engine/device.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { meanSquaredErr } from "../../objectives/squared_error.ts";
import { squaredError, squaredErrorOverNorm } from "../reference/objective.ts";
import { loadSquaredErrorGoldens } from "../support/goldens.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertTensorClose } from "../support/tolerance.ts";

for (const golden of loadSquaredErrorGoldens()) {
  Deno.test(`mean_squared_err: ${golden.name}`, async () => {
    const { d_model } = golden;
    assertTensorClose(await errorsOf(golden.x_hat, golden.x, d_model, false), golden.mse, "mse");
    assertTensorClose(await errorsOf(golden.x_hat, golden.x, d_model, false), golden.reference, "reference");
    assertTensorClose(await errorsOf(golden.x_hat, golden.x, d_model, true), golden.mse_norm, "mse_norm");
    assertTensorClose(await errorsOf(golden.x_hat, golden.x, d_model, true), golden.reference_norm, "reference_norm");
  });
}

Deno.test("every size of number, as the reference", async () => {
  for (const scale of [1e-9, 1, 1e9]) {
    const random = new Random(1);
    const [x, x_hat] = [random.normal(11 * 70, scale), random.normal(11 * 70, scale)];
    const exact = [Float64Array.from(x_hat), Float64Array.from(x)] as const;
    assertTensorClose(await errorsOf(x_hat, x, 70, false), squaredError(...exact), `mse at ${scale}`);
    assertTensorClose(await errorsOf(x_hat, x, 70, true), squaredErrorOverNorm(...exact, 70), `norm at ${scale}`);
  }
});

Deno.test("all-zero inputs are no NaN, huge ones no overflow on the way", async () => {
  assertExact(await errorsOf(Float32Array.of(1, 0), new Float32Array(2), 2, false), [1, 0]);
  const huge = await errorsOf(Float32Array.of(1), Float32Array.of(3e28), 1, true);
  assertTensorClose(huge, [3e28]);
});

Deno.test("refused: shapes that differ", async () => {
  const context = contextOf(await sharedDevice());
  using x = Tensor.from(context, new Float32Array(6), [2, 3], "x");
  using x_hat = Tensor.from(context, new Float32Array(6), [3, 2], "x_hat");
  assertThrows(() => meanSquaredErr(x_hat, x), ShapeError, "[3,2] and [2,3]");
});

async function errorsOf(x_hat: Float32Array, x: Float32Array, d_model: number, norm: boolean): Promise<Float32Array> {
  const context = contextOf(await sharedDevice());
  const shape = [x.length / d_model, d_model];
  using left = Tensor.from(context, x_hat, shape, "x_hat");
  using right = Tensor.from(context, x, shape, "x");
  using errors = meanSquaredErr(left, right, { norm });
  const values = await errors.read();
  assert(values.length === x.length);
  return values;
}
