/**
 * Adam against PyTorch's formula in float64, over several steps.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { adam, type AdamStep } from "../../kernels/adam.ts";
import { fill } from "../../kernels/elementwise.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { parallelRows, subtractParallelRows } from "../../kernels/unit_rows.ts";
import { check, type KernelCase, mutants, type Recording, TEXTURES, type Variant } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits, assertSumBound } from "../support/tolerance.ts";

const CONSTANTS: Omit<AdamStep, "step"> = { lr: 4e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8 };
/** Roundings of one step, the functions' of WGSL included. */
const ROUNDINGS = 24;

/** A number and the size of what went into it. */
interface Sum {
  readonly value: number;
  readonly size: number;
}

interface State {
  parameter: Sum;
  moment1: Sum;
  moment2: Sum;
}

/** `torch.optim.Adam` without weight decay, for one element. */
function update(
  { parameter, moment1, moment2 }: State,
  grad: number,
  { lr, beta1, beta2, eps, step }: AdamStep,
): State {
  // exp_avg.lerp_(grad, 1 - beta1); exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
  const m = moment1.value + (grad - moment1.value) * (1 - beta1);
  const v = moment2.value * beta2 + grad * grad * (1 - beta2);
  const denominator = Math.sqrt(v) / Math.sqrt(1 - beta2 ** step) + eps;
  const stepSize = lr / (1 - beta1 ** step);
  const size = moment1.size + (Math.abs(grad) + moment1.size) * (1 - beta1);
  return {
    parameter: {
      value: parameter.value - stepSize * m / denominator,
      size: parameter.size + stepSize * size / denominator,
    },
    moment1: { value: m, size },
    moment2: { value: v, size: v },
  };
}

interface Run {
  readonly shape: readonly number[];
  readonly steps: number;
  readonly factor?: number;
  readonly halted?: number;
  readonly start?: number;
  readonly make?: (length: number) => Float32Array;
}

function run(gpu: Recording, random: Random, given: Run): void {
  const { shape, steps, factor = 1, halted = 0, start = 0, make = (length) => random.normal(length) } = given;
  const size = shape.reduce((product, n) => product * n, 1);
  const parameter = random.normal(size);
  const moment1 = start > 0 ? random.normal(size, 0.1) : new Float32Array(size);
  const moment2 = start > 0 ? random.normal(size, 0.1).map((value) => value * value) : new Float32Array(size);
  const tensors = {
    parameter: gpu.f32(parameter, ...shape),
    moment1: gpu.f32(moment1, ...shape),
    moment2: gpu.f32(moment2, ...shape),
    factor: gpu.f32([factor]),
    halted: gpu.u32([halted]),
  };
  const exact = (value: number): Sum => ({ value, size: Math.abs(value) });
  const states = Array.from({ length: size }, (_, i): State => ({
    parameter: exact(parameter[i]!),
    moment1: exact(moment1[i]!),
    moment2: exact(moment2[i]!),
  }));
  for (let step = start + 1; step <= start + steps; step++) {
    const grad = make(size);
    adam(gpu.commands, { ...CONSTANTS, ...tensors, grad: gpu.f32(grad, ...shape), step });
    states.forEach((state, i) => {
      Object.assign(state, update(state, Math.fround(factor) * grad[i]!, { ...CONSTANTS, step }));
    });
  }
  const what = `[${shape}] after ${steps} steps from ${start}`;
  for (const name of ["moment1", "moment2", "parameter"] as const) {
    gpu.expect(tensors[name], (got) => {
      const want = states.map((state) => state[name].value);
      const sizes = states.map((state) => state[name].size);
      if (halted === 0) assertSumBound(got, want, sizes, ROUNDINGS * steps, `${name} ${what}`);
      else assertSameBits(got, { parameter, moment1, moment2 }[name], `${name} ${what}`);
    });
  }
}

/** Blocks of rows; a GPU's workgroups. */
const VARIANTS: readonly Variant[] = [{}, { ...TEXTURES, bindingLimit: 65_536 }, { lanes: 32 }];

const ragged: KernelCase = (gpu) => {
  const random = new Random(1);
  for (const shape of [[1], [2], [3], [5], [7, 3], [17], [64], [65], [255], [256], [257], [31, 33], [300, 100]]) {
    run(gpu, random, { shape, steps: 1 });
    run(gpu, random, { shape, steps: 2, start: 40, factor: 0.37 });
  }
};

Deno.test("a step of any shape is PyTorch's, with a factor on the gradient, in row blocks too", async () => {
  await check(ragged, ...VARIANTS);
});

Deno.test("ten steps are PyTorch's", async () => {
  await check((gpu) => run(gpu, new Random(2), { shape: [40, 25], steps: 10 }), ...VARIANTS);
});

/** Parallel parts taken away on the way, and before; both must end with the same bits. */
const withoutParallel: KernelCase = (gpu) => {
  const random = new Random(5);
  for (const [rows, columns] of [[1, 1], [5, 3], [33, 8], [300, 100], [70, 130]] as const) {
    const size = rows * columns;
    const [values, grads] = [random.normal(size), random.normal(size)];
    // A row of zeros has no parallel part.
    values.fill(0, 0, columns);
    const ends = [true, false].map((isFused) => {
      const make = (data: Float32Array) => gpu.f32(data, rows, columns);
      const [parameter, grad, moment1, moment2] = [make(values), make(grads), make(grads), make(grads.map(Math.abs))];
      const shared = { grad, matrix: parameter, parallel: gpu.out(rows) };
      parallelRows(gpu.commands, { ...shared, squares: gpu.out(rows) });
      if (!isFused) subtractParallelRows(gpu.commands, shared);
      const parallel = isFused ? shared.parallel : undefined;
      const state = { parameter, moment1, moment2, factor: gpu.f32([0.7]), halted: gpu.u32([0]) };
      adam(gpu.commands, { ...CONSTANTS, ...state, grad, parallel, step: 3 });
      return [parameter, moment1, moment2] as const;
    });
    const [fused, apart] = ends as [typeof ends[0], typeof ends[0]];
    fused.forEach((tensor, at) => {
      let bits: Float32Array;
      gpu.expect(tensor, (got) => bits = got);
      gpu.expect(apart[at]!, (got) => assertSameBits(bits, got, `result ${at} of [${rows}, ${columns}]`));
    });
  }
};

Deno.test("what is parallel to a row is taken from its gradient on the way, with the bits of two passes", async () => {
  await check(withoutParallel, ...VARIANTS);
});

const extreme: KernelCase = (gpu) => {
  const random = new Random(3);
  // Where the gradient is tiny, eps decides.
  run(gpu, random, { shape: [300], steps: 3, make: (length) => random.normal(length, 1e-9) });
  run(gpu, random, { shape: [300], steps: 3, make: (length) => random.normal(length, 1e12) });
};

Deno.test("tiny and huge gradients", async () => {
  await check(extreme);
});

const still: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const size of [9, 12]) {
    const parameter = random.normal(size);
    const zeros = () => gpu.f32(new Float32Array(size));
    const tensor = gpu.f32(parameter);
    adam(gpu.commands, {
      ...CONSTANTS,
      parameter: tensor,
      grad: zeros(),
      moment1: zeros(),
      moment2: zeros(),
      factor: gpu.f32([1]),
      halted: gpu.u32([0]),
      step: 1,
    });
    gpu.expect(tensor, (got) => assertExact(got, parameter, "without a gradient"));
  }
};

Deno.test("without a gradient nothing moves, and nothing is divided by zero", async () => {
  await check(still);
});

const halted: KernelCase = (gpu) => {
  const random = new Random(5);
  for (const halted of [1, 7]) {
    run(gpu, random, { shape: [130], steps: 2, start: 3, halted });
    run(gpu, random, {
      shape: [131],
      steps: 2,
      start: 3,
      halted,
      make: (length) => new Float32Array(length).fill(NaN),
    });
  }
};

Deno.test("a halted run keeps parameters and moments, whatever the gradient", async () => {
  await check(halted);
});

Deno.test("more elements than one dimension of workgroups has invocations for", async () => {
  const size = 65_536 * 256 + 3;
  await check((gpu) => {
    const zeros = () => gpu.own(new Tensor(gpu.context, "f32", [size], "zeros"));
    const [parameter, grad] = [zeros(), zeros()];
    fill(gpu.commands, grad, size, 0x3f800000);
    adam(gpu.commands, {
      ...CONSTANTS,
      eps: 0,
      lr: 1,
      parameter,
      grad,
      moment1: zeros(),
      moment2: zeros(),
      factor: gpu.f32([1]),
      halted: gpu.u32([0]),
      step: 1,
    });
    // Every element does the same.
    gpu.expect(parameter, (got) => {
      assertSumBound(got.subarray(0, 1), [-1], 1, ROUNDINGS);
      assertEquals(got.findIndex((value) => value !== got[0]), -1, "elements that differ from the first");
    });
  });
});

Deno.test("mutants of Adam are found", async () => {
  await mutants("adam_without_parallel", [
    ["let i = group * loads + c", "let i = c"],
    ["parallel_part == 0.0", "parallel_part != 0.0"],
    ["clip * removed", "clip * whole"],
  ], withoutParallel);
  await mutants("adam_without_parallel", [["parallel[dims.firstRow + group]", "parallel[group]"]], withoutParallel, {
    bindingLimit: 65_536,
  });
  await mutants("adam", [
    ["clip * grad[i]", "grad[i]"],
    ["min((group + 1u) * 256u, ", "max((group + 1u) * 256u, "],
    ["step_size * (m /", "step_size * (quantizeToF16(m) /"],
  ], ragged);
  await mutants("adam", [["/ root_correction + eps)", "/ root_correction)"]], extreme);
  await mutants("adam", [["if (halted[0] != 0u) { return; }", "if (halted[0] == 1u) { return; }"]], halted);
});
