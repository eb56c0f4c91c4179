/**
 * Muon's reference against PyTorch's own code, and what its iteration does to singular values.
 *
 * @module
 */

import { loadGoldens } from "../support/goldens.ts";
import { assertBfloat16Close, assertFloat64Close, assertTensorClose } from "../support/tolerance.ts";
import { muon, newtonSchulz, transpose } from "./muon.ts";

for (const golden of loadGoldens("muon")) {
  Deno.test(`Muon, ${golden.name}: PyTorch's steps, and within bfloat16 those that it rounds`, () => {
    const { shape: [rows, columns], options, lrs, start, gradients } = golden;
    const matrix = (values: ArrayLike<number>) => ({ rows, columns, values: Float64Array.from(values) });
    const [parameter, mean] = [matrix(start), matrix(new Float64Array(start.length))];
    lrs.forEach((lr, step) => muon(parameter, matrix(gradients[step]!), mean, { ...options, lr }));
    assertTensorClose(parameter.values, golden.float64.end, "parameter");
    assertTensorClose(mean.values, golden.float64.momentum_buffer, "momentum");
    assertBfloat16Close(parameter.values, golden.bfloat16.end, start, "parameter, in bfloat16");
    assertTensorClose(mean.values, golden.bfloat16.momentum_buffer, "momentum, which has no bfloat16");
  });
}

Deno.test("Newton and Schulz: singular values go through the quintic, vectors stay", () => {
  const [a, b, c] = [3.4445, -4.775, 2.0315] as const;
  const sigmas = [0.9, 0.3, 0.01];
  // Orthonormal rows and columns from two rotations.
  const [u, v] = [rotation(0.7), rotation(-1.9)];
  const compose = (values: readonly number[]) =>
    Float64Array.from({ length: 9 }, (_, i) => {
      const [row, column] = [Math.floor(i / 3), i % 3];
      return values.reduce((sum, sigma, k) => sum + u[row * 3 + k]! * sigma * v[column * 3 + k]!, 0);
    });
  const through = (sigma: number): number => a * sigma + b * sigma ** 3 + c * sigma ** 5;
  const x = { rows: 3, columns: 3, values: compose(sigmas) };
  for (const steps of [0, 1, 2, 5]) {
    const wanted = sigmas.map((sigma) => {
      for (let step = 0; step < steps; step++) sigma = through(sigma);
      return sigma;
    });
    const found = newtonSchulz(x, steps, [a, b, c]);
    assertFloat64Close(found.values, compose(wanted), `${steps} steps`);
    assertFloat64Close(transpose(newtonSchulz(transpose(x), steps, [a, b, c])).values, found.values, "transposed");
  }
});

/** A rotation of space by some angle about each of two axes, [3, 3]. */
function rotation(angle: number): number[] {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const one = [cos, -sin, 0, sin, cos, 0, 0, 0, 1];
  const other = [1, 0, 0, 0, cos, -sin, 0, sin, cos];
  return one.map((_, i) => {
    let sum = 0;
    for (let k = 0; k < 3; k++) sum += one[Math.floor(i / 3) * 3 + k]! * other[k * 3 + i % 3]!;
    return sum;
  });
}
