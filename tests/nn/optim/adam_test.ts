/**
 * The update of the parameters: the norm over all gradients, clipping and Adam, against the goldens and the reference.
 *
 * @module
 */

import { Commands } from "../../../kernels/engine/commands.ts";
import { subtractParallelRows } from "../../../kernels/unit_rows.ts";
import { GradientNorm, updateParameters } from "../../../nn/optim/adam.ts";
import { SparseAutoencoder } from "../../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../../nn/state.ts";
import { narrow, PARAMETER_NAMES, widen } from "../../reference/model.ts";
import { randomParameters } from "../../reference/problems.ts";
import { adam, clip, initialState } from "../../reference/training.ts";
import { loadMatryoshkaGoldens } from "../../support/goldens.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { Random } from "../../support/random.ts";
import {
  assertExact,
  assertRunParameter,
  assertSameBits,
  assertScalarClose,
  assertTensorClose,
} from "../../support/tolerance.ts";

/** Nothing parallel is removed from gradients that are made up. */
const SIZES = { d_model: 12, d_sae: 37, remove_parallel_grads: false };

for (const golden of loadMatryoshkaGoldens()) {
  Deno.test(`matryoshka: removal of the parallel part, norm and clipped gradients, ${golden.name}, prefixes ${golden.prefixes}`, async () => {
    using sae = await SparseAutoencoder.fromParameters(golden.cfg, golden.params, { device: await sharedDevice() });
    using state = new TrainState(sae);
    using norm = new GradientNorm(sae);
    const unclipped = { ...golden.grads, W_dec: golden.grad_W_dec_without_parallel };
    state.gradients.write(golden.grads);
    const commands = new Commands(sae.context);
    norm.measure(commands, sae, state.gradients, 0.05);
    const { parallel } = norm;
    subtractParallelRows(commands, { grad: state.gradients.W_dec, matrix: sae.parameters.W_dec, parallel: parallel! });
    commands.submit();
    assertScalarClose((await norm.norm.read())[0]!, golden.grad_norm_before_clip, "grad_norm");
    const [factor = NaN] = await norm.factor.read();
    assertTensorClose(await state.gradients.W_dec.read(), unclipped.W_dec, "grad_W_dec without the parallel part");
    for (const name of PARAMETER_NAMES) {
      const clipped = unclipped[name].map((g) => g * factor);
      assertTensorClose(clipped, golden["grads_after_clip_0.05"][name], `clipped grad_${name}`);
    }
  });
}

Deno.test("gradients below the limit, or without one, are not clipped", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  using state = new TrainState(sae);
  using norm = new GradientNorm(sae);
  state.gradients.write(narrow(randomParameters(new Random(1), { D: 12, S: 37 })));
  for (const most of [1000, Infinity]) {
    const commands = new Commands(sae.context);
    norm.measure(commands, sae, state.gradients, most);
    commands.submit();
    assertExact(await norm.factor.read(), [1], `factor for a limit of ${most}`);
  }
});

for (const grad_clip of [0.5, false] as const) {
  Deno.test(`Adam: parameters and moments after some updates, clipped to ${grad_clip}`, async () => {
    const random = new Random(2);
    const start = narrow(randomParameters(random, { D: 12, S: 37 }));
    using sae = await SparseAutoencoder.fromParameters(SIZES, start, { device: await sharedDevice() });
    using state = new TrainState(sae);
    using norm = new GradientNorm(sae);
    const p = widen(start);
    const wanted = initialState(p);
    for (const lr of [0, 1e-2, 3e-3, 1e-3]) {
      const gradients = narrow(randomParameters(random, { D: 12, S: 37 }));
      state.gradients.write(gradients);
      const commands = new Commands(sae.context);
      norm.measure(commands, sae, state.gradients, grad_clip || Infinity);
      updateParameters(commands, sae, { state, norm, lr });
      commands.submit();
      state.step++;

      const exact = widen(gradients);
      clip(exact, grad_clip);
      wanted.step++;
      adam(p, exact, wanted, lr);
    }
    const [found, data] = [await sae.readParameters(), await state.read()];
    for (const name of PARAMETER_NAMES) {
      assertRunParameter(found[name], p[name], name);
      assertTensorClose(data.moment1[name], wanted.m[name], `first moment of ${name}`);
      assertTensorClose(data.moment2[name], wanted.v[name], `second moment of ${name}`);
    }
  });
}

Deno.test("a halted state updates nothing", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  using state = new TrainState(sae);
  using norm = new GradientNorm(sae);
  const before = await sae.readParameters();
  state.gradients.write(narrow(randomParameters(new Random(3), { D: 12, S: 37 })));
  state.halted.write(Uint32Array.of(1));
  const commands = new Commands(sae.context);
  norm.measure(commands, sae, state.gradients, 1);
  updateParameters(commands, sae, { state, norm, lr: 0.1 });
  commands.submit();
  const [after, { moment1 }] = [await sae.readParameters(), await state.read()];
  for (const name of PARAMETER_NAMES) {
    assertSameBits(after[name], before[name], name);
    assertExact(moment1[name], new Float32Array(moment1[name].length), `first moment of ${name}`);
  }
});
