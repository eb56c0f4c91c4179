/**
 * Steering against float64: the formula, latents that did not fire, the error that stays, and what it refuses.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import type { ActivationOptions, SparseAutoencoderOptions } from "../../mod.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { intervene, type LatentChange } from "../../nn/intervene.ts";
import { completeConfig } from "../../nn/config.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { decode, narrow, unstandardise, widen } from "../reference/model.ts";
import { randomParameters } from "../reference/problems.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertTensorClose } from "../support/tolerance.ts";

const [B, D, S] = [9, 12, 37];
const X_BD = new Random(4).normal(B * D);
const CHANGES: readonly LatentChange[] = [
  { latent: 30, set: 2.5 },
  { latent: 3, scale: -1.5 },
  { latent: 11, ablate: true },
  { latent: 0, set: 0 },
  { latent: 36, scale: 3 },
];

const changedTo = (change: LatentChange, f: number): number =>
  "set" in change ? change.set : "scale" in change ? change.scale * f : 0;

async function steersAsInFloat64(sae: SparseAutoencoder): Promise<void> {
  using codes = sae.encode(X_BD);
  using f_BS = codes.dense();
  const before = Float64Array.from(await f_BS.read());
  const after = before.slice();
  for (let b = 0; b < B; b++) {
    for (const change of CHANGES) after[b * S + change.latent] = changedTo(change, before[b * S + change.latent]!);
  }
  const mean_D = sae.input.mean ?? new Float32Array(D);
  const p = widen(await sae.readParameters());
  const reconstruct = (f: Float64Array) => unstandardise(decode(f, p.W_dec, p.b_dec, [S]), mean_D, sae.input.scale);
  const [x_hat, steered] = [reconstruct(before), reconstruct(after)];
  const want = Float64Array.from(X_BD, (x, i) => x + steered[i]! - x_hat[i]!);
  using got = intervene(sae, X_BD, CHANGES);
  assertTensorClose(await got.read(), want, `steered ${sae.cfg.activation.key}`);
}

const ACTIVATIONS: readonly ActivationOptions[] = [
  { key: "relu" },
  { key: "top-k", top_k: 6 },
  { key: "batch-top-k", top_k: 6 },
  { key: "jump-relu" },
  { key: "gated" },
];

for (const activation of ACTIVATIONS) {
  Deno.test(`x + decode(f′) − decode(f), as in float64: ${activation.key}`, async () => {
    const options: SparseAutoencoderOptions = { d_model: D, d_sae: S, activation, normalize_w_dec: false };
    const device = await sharedDevice();
    const input = { mean: new Random(5).normal(D), scale: 1.75 };
    const own = activation.key === "gated" ? { r_mag: new Float32Array(S), b_mag: new Float32Array(S) } : {};
    const threshold = activation.key === "jump-relu"
      ? { threshold: new Float32Array(S).fill(0.25) }
      : activation.key === "batch-top-k"
      ? { threshold: Float32Array.of(0.25) }
      : {};
    const parameters = { ...narrow(randomParameters(new Random(6), { D, S })), ...own, ...threshold };
    for (const opening of [{}, { input }, { weights: "f16" }] as const) {
      using sae = await SparseAutoencoder.fromParameters(completeConfig(options), parameters, { device, ...opening });
      await steersAsInFloat64(sae);
    }
  });
}

Deno.test("what does not fire and is not set stays as it was, and the caller's rows are not touched", async () => {
  using sae = await SparseAutoencoder.create({ d_model: D, d_sae: S, activation: { key: "top-k", top_k: 3 } }, {
    device: await sharedDevice(),
  });
  using codes = sae.encode(X_BD);
  using dense = codes.dense();
  const f_BS = await dense.read();
  const silent = Array.from({ length: S }, (_, s) => s).filter((s) => !f_BS.some((f, i) => i % S === s && f !== 0));
  using x = Tensor.from(sae.context, X_BD, [B, D], "x");
  using steered = intervene(sae, x, silent.map((latent) => ({ latent, scale: 7 })));
  assertExact(await steered.read(), X_BD);
  using moved = intervene(sae, x, [{ latent: silent[0]!, set: 1 }]);
  const W_dec_SD = await sae.parameters.W_dec.read();
  const direction = W_dec_SD.subarray(silent[0]! * D, silent[0]! * D + D);
  assertTensorClose(
    await moved.read(),
    Float64Array.from(X_BD, (value, i) => value + direction[i % D]!),
    "one row more",
  );
  assertExact(await x.read(), X_BD);
});

Deno.test("changes that say nothing, too much, or name no latent are refused", async () => {
  using sae = await SparseAutoencoder.create({ d_model: D, d_sae: S, activation: { key: "top-k", top_k: 3 } }, {
    device: await sharedDevice(),
  });
  const steer = (changes: unknown) => () => intervene(sae, X_BD, changes as LatentChange[]);
  const cases: [unknown, new (message: string) => Error, string][] = [
    [undefined, TypeError, "changes must be an array, found undefined"],
    [[], RangeError, "changes must list one latent or more, found none"],
    [[{ latent: 37, set: 1 }], RangeError, "there is no latent 37; expected an integer from 0 to 36"],
    [[{ latent: 1.5, set: 1 }], RangeError, "there is no latent 1.5"],
    [[{ latent: 2 }], TypeError, "the change of latent 2 must have one of set, scale and ablate: true"],
    [[{ latent: 2, set: 1, scale: 2 }], TypeError, "must have one of set, scale and ablate: true"],
    [[{ latent: 2, ablate: false }], TypeError, "must have one of set, scale and ablate: true"],
    [[{ latent: 2, set: NaN }], RangeError, "the change of latent 2 must be a finite float32, found NaN"],
    [[{ latent: 2, scale: 1e39 }], RangeError, "must be a finite float32, found 1e+39"],
    [[{ latent: 2, sett: 1 }], TypeError, 'a change has no option "sett"; did you mean set?'],
    [[{ latent: 2, set: 1 }, { latent: 2, ablate: true }], RangeError, "each latent once, found latent 2 twice"],
  ];
  for (const [changes, type, message] of cases) assertThrows(steer(changes), type, message);
  assertThrows(() => intervene(sae, X_BD.subarray(1), [{ latent: 2, set: 1 }]), ShapeError, "rows of d_model 12");
});
