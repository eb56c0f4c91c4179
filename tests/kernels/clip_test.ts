/**
 * The factor that clips gradients by their norm.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { clipFactor } from "../../kernels/clip.ts";
import { Commands } from "../../kernels/engine/commands.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { caseContext, check, type KernelCase, mutants, type Recording } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertUlps } from "../support/tolerance.ts";

function clip(gpu: Recording, squares: ArrayLike<number>, most: number, judge: (norm: number, factor: number) => void) {
  const [norm, factor] = [gpu.out(1), gpu.out(1)];
  clipFactor(gpu.commands, { squares: gpu.f32(squares), norm, factor, most });
  let found: number;
  gpu.expect(norm, (got) => found = got[0]!);
  gpu.expect(factor, (got) => judge(found, got[0]!));
}

/** The norm is a square, so that nothing is rounded but the factor. */
const factors: KernelCase = (gpu) => {
  for (const [most, norm] of [[1, 5], [5, 5], [0.25, 13], [100, 5], [0, 5], [3, 0]] as const) {
    const squares = [norm * norm - 1, 1, 0].map((value) => Math.max(0, value));
    clip(gpu, norm === 0 ? [0, 0, 0] : squares, most, (found, factor) => {
      assertExact([found], [norm], "norm");
      // torch.nn.utils.clip_grad_norm_: the sum is rounded, then the quotient.
      assertUlps([factor], [Math.min(1, most / (norm + 1e-6))], 2, 2.5, `factor of ${norm} to ${most}`);
    });
  }
};

Deno.test("the norm is brought down to the limit, and never up", async () => {
  await check(factors);
});

const unlimited: KernelCase = (gpu) => {
  clip(gpu, [9, 16, 1e30], Infinity, (_, factor) => assertEquals(factor, 1));
  clip(gpu, [NaN, 1], Infinity, (norm, factor) => assertEquals([norm, factor], [NaN, 1]));
  clip(gpu, [Infinity], Infinity, (norm) => assertEquals(norm, Infinity));
};

Deno.test("without a limit the factor is 1, and the norm still tells of NaN and infinity", async () => {
  await check(unlimited);
});

const sizes: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const size of [1, 2, 3, 7, 64, 100, 65_000]) {
    const squares = random.integers(size, 0, 9);
    const want = Math.sqrt(squares.reduce((sum, value) => sum + value, 0));
    clip(gpu, squares, 1, (norm) => assertUlps([norm], [want], 1, 4, `norm of ${size}`));
  }
};

Deno.test("the norm is of all squares, and of too many it is refused", async () => {
  await check(sizes);
  const context = await caseContext();
  using squares = new Tensor(context, "f32", [65_001], "squares");
  using one = new Tensor(context, "f32", [1], "one");
  const given = { squares, norm: one, factor: one, most: 1 };
  assertThrows(() => clipFactor(new Commands(context), given), RangeError, "65001");
});

Deno.test("mutants of the clipping are found", async () => {
  await mutants("clip_factor", [
    ["i < dims.size", "i + 1u < dims.size"],
    ["min(1.0, ", "max(0.0, "],
    ["factor[0] = 1.0;", ""],
    ["+ 1e-6", "+ 1e-3"],
  ], (gpu) => {
    factors(gpu);
    unlimited(gpu);
    sizes(gpu);
  });
});
