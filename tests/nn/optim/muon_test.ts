/**
 * Muon on a model: matrices against the reference with the shapes of files, biases still with Adam.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import { Commands } from "../../../kernels/engine/commands.ts";
import { GradientNorm, updateParameters } from "../../../nn/optim/adam.ts";
import { Muon, type MuonOptions } from "../../../nn/optim/muon.ts";
import { SparseAutoencoder } from "../../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../../nn/state.ts";
import { narrow, PARAMETER_NAMES, widen } from "../../reference/model.ts";
import { MUON } from "../../reference/muon.ts";
import { randomParameters } from "../../reference/problems.ts";
import { clip, initialState, updateWithMuon } from "../../reference/training.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { Random } from "../../support/random.ts";
import { assertExact, assertSameBits, assertTensorClose } from "../../support/tolerance.ts";

const OTHERS = { momentum: 0.8, weight_decay: 0.3, nesterov: false } as const;

for (const { D, S } of [{ D: 12, S: 37 }, { D: 30, S: 7 }]) {
  for (const [what, options] of [["by default", {}], ["with everything else", OTHERS]] as const) {
    Deno.test(`Muon ${what}: some updates of a model with d_model ${D} and d_sae ${S}`, async () => {
      const random = new Random(1);
      const start = narrow(randomParameters(random, { D, S }));
      const device = await sharedDevice();
      const cfg = { d_model: D, d_sae: S, remove_parallel_grads: false };
      using sae = await SparseAutoencoder.fromParameters(cfg, start, { device });
      using state = new TrainState(sae, { optimizer: "muon" });
      using norm = new GradientNorm(sae);
      using muon = new Muon(sae, { key: "muon", ...options });
      const p = widen(start);
      const wanted = initialState(p);
      for (const lr of [0, 0.3, 0.1]) {
        const gradients = narrow(randomParameters(random, { D, S }));
        state.gradients.write(gradients);
        const commands = new Commands(sae.context);
        norm.measure(commands, sae, state.gradients, 0.5);
        updateParameters(commands, sae, { state, norm, lr, muon });
        commands.submit();
        state.step++;

        const exact = widen(gradients);
        clip(exact, 0.5);
        wanted.step++;
        updateWithMuon(p, exact, wanted, { ...MUON, ...options, lr });
      }
      const [found, { moment1, moment2 }] = [await sae.readParameters(), await state.read()];
      for (const name of PARAMETER_NAMES) {
        assertTensorClose(found[name], p[name], name);
        assertTensorClose(moment1[name], wanted.m[name], `first moment of ${name}`);
      }
      for (const name of ["b_enc", "b_dec"] as const) {
        assertTensorClose(moment2[name], wanted.v[name], `second moment of ${name}`);
      }
    });
  }
}

Deno.test("Muon: a halted state updates nothing", async () => {
  using sae = await SparseAutoencoder.create({ d_model: 12, d_sae: 37 }, { device: await sharedDevice() });
  using state = new TrainState(sae, { optimizer: "muon" });
  using norm = new GradientNorm(sae);
  using muon = new Muon(sae, { key: "muon" });
  const before = await sae.readParameters();
  state.gradients.write(narrow(randomParameters(new Random(3), { D: 12, S: 37 })));
  state.halted.write(Uint32Array.of(1));
  const commands = new Commands(sae.context);
  norm.measure(commands, sae, state.gradients, 1);
  updateParameters(commands, sae, { state, norm, lr: 0.1, muon });
  commands.submit();
  const [after, { moment1 }] = [await sae.readParameters(), await state.read()];
  for (const name of PARAMETER_NAMES) {
    assertSameBits(after[name], before[name], name);
    assertExact(moment1[name], new Float32Array(moment1[name].length), `first moment of ${name}`);
  }
});

Deno.test("Muon: constants that make no sense are refused", async () => {
  using sae = await SparseAutoencoder.create({ d_model: 4, d_sae: 6 }, { device: await sharedDevice() });
  const wrong: readonly (readonly [options: object, error: new (message: string) => Error, message: string])[] = [
    [{ momentum: 1 }, RangeError, "momentum must be in [0, 1), found 1"],
    [{ momentum: -0.1 }, RangeError, "found -0.1"],
    [{ momentum: NaN }, RangeError, "found NaN"],
    [{ weight_decay: -1 }, RangeError, "weight_decay must be a finite number of at least 0, found -1"],
    [{ weight_decay: Infinity }, RangeError, "found Infinity"],
    [{ nesterov: 1 }, TypeError, "nesterov must be true or false, found 1"],
    [{ decay: 1 }, TypeError, 'no field "decay"; it has key, momentum, weight_decay, nesterov'],
  ];
  for (const [options, error, message] of wrong) {
    assertThrows(() => new Muon(sae, { key: "muon", ...options } as MuonOptions), error, message);
  }
});
