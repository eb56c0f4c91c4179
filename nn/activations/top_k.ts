/**
 * TopK: f keeps the k largest of each row of h, of equal ones the first; ∂h = ∂f there and 0 elsewhere. Negative ones among
 * them stay, or with `relu` become 0 and have no gradient.
 *
 * @module
 */

import { zeroNegatives } from "../../kernels/elementwise.ts";
import type { Commands } from "../../kernels/engine/commands.ts";
import { topK } from "../../kernels/top_k.ts";
import { type AffineMaps, eachTile } from "../encode.ts";
import { boolean, integer } from "../fields.ts";
import { type Aux, auxField, type Sparsity, sparsityField } from "../loss_terms.ts";
import type { ActivationKind, Encoding } from "./activation.ts";

/** The `top_k` largest pre-activations of each row; ties go to the lowest index. */
export interface TopK {
  /** Discriminator. */
  readonly key: "top-k";
  /** How many latents a row keeps; more than `d_sae` keeps all. */
  readonly top_k: number;
  /** Whether negative ones among them become 0, as most libraries have it; the Python package keeps them. */
  readonly relu: boolean;
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/** TopK. */
export const TOP_K: ActivationKind<TopK> = {
  key: "top-k",
  fields: {
    top_k: integer({ least: 1, otherwise: 32, about: "How many latents a row keeps; more than `d_sae` keeps all." }),
    relu: boolean({
      otherwise: false,
      about: "Whether negative ones among them become 0, as most libraries have it; the Python package keeps them.",
    }),
    sparsity: sparsityField({ key: "no-sparsity" }),
    aux: auxField("auxk"),
  },
  formula: ({ top_k, relu }) => `f = the ${top_k} largest of h${relu ? ", negative ones as 0" : ""}`,
  parameters: [],
  countsInPreActs: false,
  top_k: ({ top_k }) => top_k,
  entriesPerRow: ({ top_k }, d_sae) => Math.min(top_k, d_sae),
  encode: (commands, model, cfg, given) => encodeTopK(commands, model, cfg, { ...given, k: cfg.top_k }),

  inFloat64({ top_k, relu }, h_BS, { d_sae }) {
    const f_BS = h_BS.slice();
    for (let start = 0; start < f_BS.length; start += d_sae) {
      keepLargest(f_BS.subarray(start, start + d_sae), top_k);
    }
    return relu ? f_BS.map((f) => Math.max(f, 0)) : f_BS;
  },

  training: {
    path: "selected",
    selector: (model, cfg, n_rows) => ({
      tileRows: n_rows,
      keepsNegatives: !cfg.relu,
      select(commands, given) {
        const { codes, k } = given;
        codes.makeUniform(Math.min(k, codes.d_sae));
        encodeTopK(commands, model, cfg, given);
      },
      [Symbol.dispose]() {},
    }),
  },
};

/** f_x of the whole batch, with `k` entries a row. */
function encodeTopK(
  commands: Commands,
  model: AffineMaps,
  { relu }: TopK,
  { input, tile, codes, k }: Encoding & { readonly k: number },
): void {
  const { d_sae } = model.cfg;
  const { n_rows, row_starts: starts, indices, values } = codes;
  const { maxima } = tile;
  eachTile(commands, model, { input, tile, n_rows }, (h, { from, to }) => {
    topK(commands, {
      allRows: n_rows,
      starts,
      capacity: values.size,
      indices,
      values: h,
      rows: to - from,
      stride: d_sae,
      n: d_sae,
      k,
      firstRow: from,
      selected: values,
      ...maxima && { maxima },
    });
  });
  if (relu) zeroNegatives(commands, { x: values, size: values.size });
}

/** Keeps the k largest values, the first of equal ones, and sets the others to 0. */
export function keepLargest(values: Float64Array, k: number): void {
  if (k >= values.length) return;
  const least = values.slice().sort()[values.length - k]!;
  let n_equal = k;
  for (const value of values) if (value > least) n_equal--;
  values.forEach((value, i) => {
    if (value > least || (value === least && n_equal-- > 0)) return;
    values[i] = 0;
  });
}
