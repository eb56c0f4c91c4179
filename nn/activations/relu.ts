/**
 * ReLU: `f = max(h, 0)`, and ∂h = ∂f where f > 0 and 0 elsewhere.
 *
 * @module
 */

import { positiveMask } from "../../kernels/elementwise.ts";
import { appendCodes } from "../codes.ts";
import { eachTile } from "../encode.ts";
import { type Aux, auxField, type Sparsity, sparsityField } from "../loss_terms.ts";
import type { ActivationKind } from "./activation.ts";

/** `f = max(h, 0)`. */
export interface Relu {
  /** Discriminator. */
  readonly key: "relu";
  /** Penalty on the codes. */
  readonly sparsity: Sparsity;
  /** Auxiliary loss. */
  readonly aux: Aux;
}

/** ReLU. */
export const RELU: ActivationKind<Relu> = {
  key: "relu",
  fields: { sparsity: sparsityField({ key: "l1-sparsity", coeff: 4e-4 }), aux: auxField("no-aux") },
  formula: () => "f = max(h, 0)",
  parameters: [],
  countsInPreActs: false,

  encode(commands, model, _, { input, tile, codes }) {
    eachTile(commands, model, { input, tile, n_rows: codes.n_rows, relu: true }, (f, span) => {
      appendCodes(commands, codes, f, span);
    });
  },

  inFloat64: (_, h_BS) => h_BS.map((h) => Math.max(h, 0)),

  training: {
    path: "elementwise",
    // The entries of a ReLU are all above 0: their ∂h is ∂f.
    denseBackward(commands, { cfg: { d_sae } }, _, { dense: f, grad_f }) {
      const rows = f.to - f.from;
      positiveMask(commands, { grad: grad_f.rows(0, rows), at: f, size: rows * d_sae });
    },
  },
};
