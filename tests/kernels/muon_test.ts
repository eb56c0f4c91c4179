/**
 * Muon against PyTorch's goldens and the float64 reference, over several steps.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { fill } from "../../kernels/elementwise.ts";
import { muon, MuonBuffers, muonMomentum, muonStep } from "../../kernels/muon.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import * as reference from "../reference/muon.ts";
import { loadGoldens } from "../support/goldens.ts";
import { check, type KernelCase, mutants, type Recording, TEXTURES, type Variant } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertBfloat16Close, assertExact, assertSameBits, assertTensorClose } from "../support/tolerance.ts";

const SHAPES = [[1, 1], [1, 6], [5, 1], [9, 9], [16, 33], [33, 17], [40, 65]] as const;

/** Row blocks of matrices that do not fit. */
const VARIANTS: readonly Variant[] = [{}, { ...TEXTURES, bindingLimit: 2 ** 16 }];

interface Run {
  readonly shape: readonly [rows: number, columns: number];
  readonly lrs: readonly number[];
  readonly start: Float32Array;
  /** One a step. */
  readonly gradients: readonly Float32Array[];
  readonly options?: Omit<reference.MuonStep, "lr">;
  readonly factor?: number;
  readonly halted?: number;
}

/** Records all steps; returns the parameter and the mean of its gradients. */
function record(gpu: Recording, given: Run): { readonly parameter: Tensor; readonly mean: Tensor } {
  const { shape: [rows, columns], lrs, start, gradients, options = reference.MUON, factor = 1, halted = 0 } = given;
  const parameter = gpu.f32(start, rows, columns);
  const mean = gpu.f32(new Float32Array(start.length), rows, columns);
  const buffers = new MuonBuffers(gpu.context, rows, columns);
  gpu.after(buffers);
  const verdict = { factor: gpu.f32([factor]), halted: gpu.u32([halted]) };
  const ratio = Math.sqrt(Math.max(1, rows / columns));
  lrs.forEach((lr, step) => {
    const grad = gpu.f32(gradients[step]!, rows, columns);
    muon(gpu.commands, { parameter, grad, mean, buffers, ...verdict, ...options, lr, ratio });
  });
  return { parameter, mean };
}

function compare(gpu: Recording, given: Run, what: string): void {
  const { shape: [rows, columns], lrs, start, gradients, options = reference.MUON, factor = 1 } = given;
  const matrix = (values: ArrayLike<number>) => ({ rows, columns, values: Float64Array.from(values) });
  const [parameter, mean] = [matrix(start), matrix(new Float64Array(start.length))];
  lrs.forEach((lr, step) => {
    const scaled = matrix(gradients[step]!);
    reference.muon(parameter, { ...scaled, values: scaled.values.map((g) => Math.fround(factor) * g) }, mean, {
      ...options,
      lr,
    });
  });
  const found = record(gpu, given);
  gpu.expect(found.parameter, (got) => assertTensorClose(got, parameter.values, `parameter, ${what}`));
  gpu.expect(found.mean, (got) => assertTensorClose(got, mean.values, `mean, ${what}`));
}

const ragged = (shapes: readonly (readonly [number, number])[]): KernelCase => (gpu) => {
  const random = new Random(1);
  for (const shape of shapes) {
    const size = shape[0] * shape[1];
    const gradients = [1, 2, 3].map(() => random.normal(size));
    // From zero the update is all there is, and nothing can hide behind the parameter's own size.
    compare(gpu, { shape, lrs: [1], start: new Float32Array(size), gradients }, `[${shape}] from zero`);
    const options = { momentum: 0.75, weight_decay: 0.5, nesterov: false };
    const start = random.normal(size);
    compare(gpu, { shape, lrs: [0, 0.1, 0.3], start, gradients, factor: 0.37 }, `[${shape}] with Nesterov`);
    compare(gpu, { shape, lrs: [0.2, 0.1], start, gradients, options }, `[${shape}] without Nesterov`);
  }
};

Deno.test("steps of any shape, with a factor on the gradient, in row blocks too", async () => {
  await check(ragged([...SHAPES, [300, 130]]), ...VARIANTS);
});

Deno.test("PyTorch's own steps, and within bfloat16 those that it rounds", async () => {
  await check((gpu) => {
    for (const golden of loadGoldens("muon")) {
      const { parameter, mean } = record(gpu, golden);
      gpu.expect(parameter, (got) => {
        assertTensorClose(got, golden.float64.end, golden.name);
        assertBfloat16Close(got, golden.bfloat16.end, golden.start, `${golden.name}, bfloat16`);
      });
      gpu.expect(mean, (got) => assertTensorClose(got, golden.float64.momentum_buffer, `${golden.name}, momentum`));
    }
  });
});

const exact: KernelCase = (gpu) => {
  const random = new Random(2);
  for (const shape of [[3, 5], [4, 8], [257, 1]] as const) {
    const size = shape[0] * shape[1];
    const [first, second] = [random.integers(size), random.integers(size)];
    const options = { momentum: 0.5, weight_decay: 0.5, nesterov: true };
    const start = random.integers(size);
    const { parameter, mean } = record(gpu, {
      shape,
      lrs: [0, 0],
      start,
      gradients: [first, second],
      options,
      factor: 2,
    });
    gpu.expect(mean, (got) => assertExact(got, first.map((g, i) => g / 2 + second[i]!), "mean"));
    gpu.expect(parameter, (got) => assertExact(got, start, "a rate of 0 moves nothing"));
  }
};

Deno.test("means of small integers are exact, and a rate of 0 moves nothing", async () => {
  await check(exact);
});

const still: KernelCase = (gpu) => {
  for (const shape of [[3, 3], [4, 6]] as const) {
    const start = new Random(3).integers(shape[0] * shape[1]);
    const gradients = [new Float32Array(start.length)];
    const { parameter } = record(gpu, {
      shape,
      lrs: [0.5],
      start,
      gradients,
      options: { ...reference.MUON, weight_decay: 1 },
    });
    gpu.expect(parameter, (got) => assertExact(got, start.map((p) => p / 2), "without a gradient"));
  }
};

Deno.test("without a gradient only the decay moves, and nothing is divided by zero", async () => {
  await check(still);
});

const halted: KernelCase = (gpu) => {
  const random = new Random(4);
  for (const halted of [1, 7]) {
    for (const shape of [[13, 3], [12, 4]] as const) {
      const start = random.normal(shape[0] * shape[1]);
      for (const grad of [random.normal(start.length), new Float32Array(start.length).fill(NaN)]) {
        const { parameter, mean } = record(gpu, { shape, lrs: [0.5, 0.5], start, gradients: [grad, grad], halted });
        gpu.expect(parameter, (got) => assertSameBits(got, start, "parameter"));
        gpu.expect(mean, (got) => assertExact(got, new Float32Array(start.length), "mean"));
      }
    }
  }
};

Deno.test("a halted run keeps parameter and mean, whatever the gradient", async () => {
  await check(halted);
});

Deno.test("more elements than one dimension of workgroups has invocations for", async () => {
  const size = 65_536 * 256 + 3;
  await check((gpu) => {
    const make = () => gpu.own(new Tensor(gpu.context, "f32", [size], "elements"));
    const [grad, mean, x] = [make(), make(), make()];
    const verdict = { factor: gpu.f32([1]), halted: gpu.u32([0]) };
    fill(gpu.commands, grad, size, 0x3f800000);
    muonMomentum(gpu.commands, { grad, mean, x, ...verdict, momentum: 0.5, nesterov: true });
    muonStep(gpu.commands, { parameter: grad, update: x, ...verdict, lr: 1, ratio: 2, weight_decay: 0.5 });
    // m = 1/2, x = 3/4, and 1 becomes 1/2 − 2 · 3/4.
    gpu.expect(mean, (got) => assertEquals(got.findIndex((value) => value !== 0.5), -1, "means"));
    gpu.expect(grad, (got) => assertEquals(got.findIndex((value) => value !== -1), -1, "parameters"));
  });
});

Deno.test("mutants of Muon are found", async () => {
  const few = ragged([[33, 17], [40, 65]]);
  await mutants("muon_momentum", [
    ["factor[0] * grad[i]", "grad[i]"],
    ["min((group + 1u) * 256u, ", "max((group + 1u) * 256u, "],
    ["dims.nesterov == 1u", "dims.nesterov == 0u"],
    ["mean[i] = m;", "mean[i] = quantizeToF16(m);"],
  ], few);
  await mutants("muon_momentum", [["if (halted[0] != 0u) { return; }", "if (halted[0] == 1u) { return; }"]], halted);
  await mutants("muon_step", [
    ["min((group + 1u) * 256u, ", "max((group + 1u) * 256u, "],
    ["dims.keep * parameter[i]", "parameter[i]"],
    ["update[i],", "quantizeToF16(update[i]),"],
  ], few);
  await mutants("muon_step", [["if (halted[0] != 0u) { return; }", "if (halted[0] == 1u) { return; }"]], halted);
});
