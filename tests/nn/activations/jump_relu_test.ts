/**
 * A JumpReLU's straight-through estimator against what it estimates: for pre-activations z ~ N(0, 1), its mean over z is in
 * closed form the derivative of the loss smoothed over the bandwidth (Rajamanoharan et al. 2024, section 4).
 *
 * Of the penalty λ E[1(z > θ)], smoothed: −λ (Φ(θ + ε/2) − Φ(θ − ε/2)) / ε. Of the error E[(z − w f)²] with f = z 1(z > θ):
 * −(2 w θ / ε) (w ∫_θ^{θ+ε/2} z φ − ∫_{θ−ε/2}^{θ+ε/2} z φ), and ∫_a^b z φ = φ(a) − φ(b).
 *
 * @module
 */

import { SparseAutoencoder } from "../../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../../nn/state.ts";
import { getObjective } from "../../../objectives/objective.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { assertQuadratureClose } from "../../support/tolerance.ts";

const THRESHOLDS = [0.05, 0.3, 1, 1.5, 2.2];
const [N, S] = [32768, THRESHOLDS.length];

/** φ on a fine grid, and its integral from the left. */
const STEP = 2 ** -13;
const density = (z: number) => Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
const GRID = Array.from({ length: 16 / STEP + 1 }, (_, i) => i * STEP - 8);
const INTEGRAL = new Float64Array(GRID.length);
for (let i = 1; i < GRID.length; i++) {
  const [a, b] = [GRID[i - 1]!, GRID[i]!];
  INTEGRAL[i] = INTEGRAL[i - 1]! + STEP / 6 * (density(a) + 4 * density((a + b) / 2) + density(b));
}
/** Φ, linear between the points of the grid. */
function cumulative(z: number): number {
  const at = (z + 8) / STEP;
  const below = Math.floor(at);
  return INTEGRAL[below]! + (at - below) * (INTEGRAL[below + 1]! - INTEGRAL[below]!);
}

/** The middles of N equally likely intervals: a sum over them is an integral over N(0, 1). */
function quantiles(): Float32Array {
  let at = 0;
  return Float32Array.from({ length: N }, (_, i) => {
    const share = (i + 0.5) / N;
    while (INTEGRAL[at + 1]! < share) at++;
    return GRID[at]! + STEP * (share - INTEGRAL[at]!) / (INTEGRAL[at + 1]! - INTEGRAL[at]!);
  });
}

/** grad_threshold of S latents that each see and reconstruct, with the weight `w`, their own copy of z. */
async function gradient(w: number, coeff: number, bandwidth: number): Promise<Float32Array> {
  const diagonal = (value: number) => {
    const matrix = new Float32Array(S * S);
    for (let s = 0; s < S; s++) matrix[s * S + s] = value;
    return matrix;
  };
  using sae = await SparseAutoencoder.fromParameters(
    { d_model: S, d_sae: S, activation: { key: "jump-relu", bandwidth, sparsity: { key: "l0-sparsity", coeff } } },
    {
      W_enc: diagonal(1),
      b_enc: new Float32Array(S),
      W_dec: diagonal(w),
      b_dec: new Float32Array(S),
      threshold: Float32Array.from(THRESHOLDS),
    },
    { device: await sharedDevice() },
  );
  using state = new TrainState(sae);
  const z = quantiles();
  const x = Float32Array.from({ length: N * S }, (_, i) => z[Math.floor(i / S)]!);
  const { loss, gradients } = getObjective({ key: "vanilla" }).lossAndGradients(sae, x, { state });
  using _ = loss;
  return await gradients.threshold!.read();
}

for (const bandwidth of [0.05, 0.5]) {
  Deno.test(`the penalty's estimator is the derivative of the smoothed penalty: bandwidth ${bandwidth}`, async () => {
    const coeff = 0.7;
    const got = await gradient(0, coeff, bandwidth);
    const want = THRESHOLDS.map((theta) =>
      -coeff / bandwidth * (cumulative(theta + bandwidth / 2) - cumulative(theta - bandwidth / 2))
    );
    // The indicator of the window goes up once and down once.
    const variation = THRESHOLDS.map(() => 2 * coeff / bandwidth);
    assertQuadratureClose(got, want, { points: N, variation, absMean: want.map(Math.abs) }, "grad_threshold");
  });

  Deno.test(`the error's estimator is the derivative of the smoothed error: bandwidth ${bandwidth}`, async () => {
    for (const w of [0.4, 1, 1.7]) {
      const got = await gradient(w, 0, bandwidth);
      const half = bandwidth / 2;
      const shares = THRESHOLDS.map((theta) => ({
        share: 2 * w * theta / bandwidth / S,
        active: w * (density(theta) - density(theta + half)),
        all: density(theta - half) - density(theta + half),
      }));
      const want = shares.map(({ share, active, all }) => share * (all - active));
      const absMean = shares.map(({ share, active, all }) => share * (all + active));
      // z goes up and down with the window, w z at its middle and end.
      const variation = shares.map(({ share }, s) => share * 2 * (1 + w) * (THRESHOLDS[s]! + half));
      assertQuadratureClose(got, want, { points: N, variation, absMean }, `grad_threshold, w ${w}`);
    }
  });
}
