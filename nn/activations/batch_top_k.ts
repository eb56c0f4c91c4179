/**
 * BatchTopK: in training, f keeps the k · B largest of h of the whole batch, and ∂h = ∂f there and 0 elsewhere; negative ones
 * among them stay, or with `relu` become 0 and have no gradient. Otherwise f = h · 1[h > max(θ, 0)], row by row, with a θ
 * that training estimates.
 *
 * @module
 */

import { BatchTopK as BatchSelection, batchTopKRows } from "../../kernels/batch_top_k.ts";
import { zeroNegatives } from "../../kernels/elementwise.ts";
import type { Commands } from "../../kernels/engine/commands.ts";
import { defineKernel, reads, readsOften, writes } from "../../kernels/engine/kernel.ts";
import { spans } from "../../kernels/engine/tensor.ts";
import { leastWgsl } from "../../kernels/engine/wgsl.ts";
import type { Codes } from "../codes.ts";
import { type AffineMaps, preActivations } from "../encode.ts";
import { boolean, integer, number } from "../fields.ts";
import { type Aux, auxField, type Sparsity, sparsityField } from "../loss_terms.ts";
import type { ActivationKind, Encoding, Estimate, Selector } from "./activation.ts";
import { encodeAboveThreshold } from "./threshold.ts";
import { keepLargest } from "./top_k.ts";

/**
 * In training, the `top_k` · B largest pre-activations of the whole batch; otherwise all above a threshold that training
 * estimates (Bussmann et al. 2024).
 */
export interface BatchTopK {
  /** Discriminator. */
  readonly key: "batch-top-k";
  /** How many latents a row keeps on average. */
  readonly top_k: number;
  /** Whether negative ones among them become 0 in training, as most libraries have it; the Python package keeps them. */
  readonly relu: boolean;
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** How fast the threshold follows: θ ← (1 − momentum) θ + momentum · the smallest positive survivor. */
  readonly momentum: number;
  /** Whether the threshold's start at 0 is corrected for, as Adam's moments are; the Python package's is not. */
  readonly bias_correction: boolean;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/** BatchTopK. */
export const BATCH_TOP_K: ActivationKind<BatchTopK> = {
  key: "batch-top-k",
  fields: {
    top_k: integer({ least: 1, otherwise: 32, about: "How many latents a row keeps on average." }),
    relu: boolean({
      otherwise: false,
      about:
        "Whether negative ones among them become 0 in training, as most libraries have it; the Python package keeps them.",
    }),
    sparsity: sparsityField({ key: "no-sparsity" }),
    momentum: number({
      least: 0,
      most: 1,
      otherwise: 0.1,
      about: "How fast the threshold follows: θ ← (1 − momentum) θ + momentum · the smallest positive survivor.",
    }),
    bias_correction: boolean({
      otherwise: false,
      about: "Whether the threshold's start at 0 is corrected for, as Adam's moments are; the Python package's is not.",
    }),
    aux: auxField("auxk"),
  },
  check({ bias_correction, momentum }) {
    if (bias_correction && momentum === 0) {
      throw new RangeError("bias_correction needs a momentum above 0: with 0 the threshold stays where it starts");
    }
  },
  formula: (_, { threshold }) => `f = h where h > ${Number(Math.max(threshold?.[0] ?? 0, 0).toPrecision(7))}, else 0`,
  parameters: [
    { name: "threshold", shape: "one", inFiles: "activation.threshold", isTrained: false, initial: () => 0 },
  ],
  countsInPreActs: false,
  top_k: ({ top_k }) => top_k,
  encode: (commands, model, _, given) => encodeAboveThreshold(commands, model, given),

  inFloat64({ top_k, relu }, h_BS, { d_sae }) {
    const f_BS = h_BS.slice();
    keepLargest(f_BS, top_k * f_BS.length / d_sae);
    return relu ? f_BS.map((f) => Math.max(f, 0)) : f_BS;
  },

  training: {
    path: "selected",
    selector: (model, cfg, n_rows, k) => new RowsThatCompete(model, cfg, n_rows, k),
  },
};

/** Selects among all rows of a batch. */
class RowsThatCompete implements Selector {
  readonly tileRows: number;
  readonly keepsNegatives: boolean;
  readonly #model: AffineMaps;
  readonly #cfg: BatchTopK;
  readonly #selection: BatchSelection;

  constructor(model: AffineMaps, cfg: BatchTopK, n_rows: number, k: number) {
    const { cfg: { d_sae }, context } = model;
    const most = n_rows * Math.min(k, d_sae);
    this.tileRows = batchTopKRows(n_rows, d_sae, most);
    this.keepsNegatives = !cfg.relu;
    this.#model = model;
    this.#cfg = cfg;
    this.#selection = new BatchSelection(context, n_rows, d_sae, most);
  }

  select(
    commands: Commands,
    { input, tile, codes, k, estimate }: Encoding & { readonly k: number; readonly estimate: Estimate | undefined },
  ): void {
    const model = this.#model;
    const { n_rows, d_sae, row_starts: starts, indices, values: selected } = codes;
    const { h: values, maxima } = tile;
    this.#selection.select(commands, {
      k: n_rows * Math.min(k, d_sae),
      capacity: selected.size,
      starts,
      indices,
      selected,
      forEach(use) {
        for (const span of spans(n_rows, tile.rows)) {
          preActivations(commands, model, { input, span, tile: values, maxima });
          use({ values, maxima: maxima!, ...span });
        }
      },
    });
    if (!this.keepsNegatives) zeroNegatives(commands, { x: selected, size: selected.size });
    if (estimate) updateThreshold(commands, model, this.#cfg, { ...estimate, codes });
  }

  [Symbol.dispose](): void {
    this.#selection[Symbol.dispose]();
  }
}

/**
 * θ ← (1 − m) θ + m · min{f > 0}, over the codes of a training batch; without a positive code, once the state has been
 * halted, or where x is not finite, θ stays.
 *
 * m is the momentum; with `bias_correction` it is m / (1 − (1 − m)ᵗ) at the t-th update, so that θ is a weighted mean
 * of all values so far. The state keeps the denominator itself, since 1 − (1 − m) is not m in float32. (Upstream starts
 * at 0 without correcting for it, and raises an error where no code is positive.)
 */
export function updateThreshold(
  commands: Commands,
  { threshold }: Pick<AffineMaps, "threshold">,
  { bias_correction, momentum }: BatchTopK,
  given: Estimate & { readonly codes: Codes },
): void {
  const { codes: { n_rows, row_starts, values }, largest, halted, seen } = given;
  commands.run(thresholdKernel, {
    n_rows,
    capacity: values.size,
    bias_correction: Number(bias_correction),
    momentum,
    row_starts,
    values,
    largest,
    halted,
    seen,
    threshold,
  });
}

const THRESHOLD_THREADS = 256;

/** The bits of positive numbers have the order of the numbers. */
const thresholdKernel = defineKernel({
  name: "update_threshold",
  dims: ["n_rows", "capacity", "bias_correction"],
  scalars: ["momentum"],
  bindings: {
    row_starts: reads("u32", "n_rows+1"),
    values: readsOften("f32", "capacity"),
    largest: reads("u32", "1"),
    halted: reads("u32", "1"),
    seen: writes("f32", "1"),
    threshold: writes("f32", "1"),
  },
  workgroup: THRESHOLD_THREADS,
  grid: () => 1,
  cost: ({ capacity }) => ({ flops: 0, bytes: 4 * capacity }),
  declarations: `${leastWgsl(THRESHOLD_THREADS)}
const NONE = 0x7f800000u;
fn positive_bits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(NONE, bits, bits > 0u && bits < NONE);
}`,
  body: `
  let end = row_starts[dims.n_rows];
  var mine = NONE;
  for (var i = lane; i < end; i += ${4 * THRESHOLD_THREADS}u) {
    mine = min(mine, positive_bits(values[i]));
    ${
    [1, 2, 3].map((part) =>
      `let i${part} = i + ${part * THRESHOLD_THREADS}u;
    if (i${part} < end) { mine = min(mine, positive_bits(values[i${part}])); }`
    ).join("\n    ")
  }
  }
  let found = least(lane, mine);
  if (lane == 0u && found != NONE && largest[0] < NONE && halted[0] == 0u) {
    seen[0] += dims.momentum * (1.0 - seen[0]);
    var share = dims.momentum;
    if (dims.bias_correction == 1u) { share /= seen[0]; }
    threshold[0] = (1.0 - share) * threshold[0] + share * bitcast<f32>(found);
  }`,
});
