/**
 * AuxK: dead latents reconstruct what the live ones missed (Gao et al. 2024, appendix A.2).
 *
 * With the residual e = x − x̂ as a constant and h of the dead latents only, each row keeps its min(k_aux, n_dead) largest
 * pre-activations z (no ReLU), ê = z W_dec, and the loss is `alpha · mean((ê − e)²)` over rows and dimensions.
 * The gradient reaches W_enc, b_enc and W_dec of the selected dead latents and nothing else. With `include_b_dec`, as the
 * Python package has it, ê = z W_dec + b_dec and the gradient reaches b_dec too. With `normalize` the loss is divided by the
 * residual's variance, `mean((e − mean_b e)²)`, a constant too; a residual that does not vary has no loss.
 *
 * @module
 */

import type { Commands } from "../kernels/commands.ts";
import { defineKernel, reads, writes } from "../kernels/kernel.ts";
import { columnSums, sum } from "../kernels/reduce.ts";
import { spans, type Tensor } from "../kernels/tensor.ts";
import { totalWgsl } from "../kernels/wgsl.ts";
import { topK } from "../kernels/top_k.ts";
import { selectionBackward } from "../nn/activation.ts";
import type { AuxK } from "../nn/config.ts";
import { decode, decodeBackward } from "../nn/decode.ts";
import { listedPreActivations, type Model } from "../nn/encode.ts";
import type { Gradients } from "../nn/parameters.ts";
import type { AuxSpace, Workspace } from "../nn/workspace.ts";
import { auxiliaryResiduals } from "./squared_error.ts";

/** Selects each row's dead latents, and lists the selection by latent. */
export function auxKCodes(commands: Commands, model: Model, space: Workspace, aux: AuxSpace, { k_aux }: AuxK): void {
  const { input, tile, dead: { list, count }, n_rows } = space;
  const { d_sae } = model.cfg;
  const { codes } = aux;
  const { row_starts: starts, indices, values } = codes;
  commands.run(auxiliaryStartsKernel, { n_rows, k_aux, count, starts });
  commands.onlyIf(count, () => {
    for (const span of spans(n_rows, tile.rows)) {
      const rows = span.to - span.from;
      listedPreActivations(commands, model, { input, span, tile: tile.h, list, count });
      topK(commands, {
        values: tile.h.rows(0, rows),
        rows,
        stride: d_sae,
        n: d_sae,
        k: k_aux,
        firstRow: span.from,
        starts,
        allRows: n_rows,
        capacity: values.size,
        indices,
        selected: values,
        listed: { names: list, count, size: d_sae },
      });
    }
    aux.transposition.record(commands, codes.sparse);
  });
}

/** Every row has min(k_aux, n_dead) entries. */
const auxiliaryStartsKernel = defineKernel({
  name: "auxiliary_starts",
  dims: ["n_rows", "k_aux"],
  bindings: { count: reads("u32", "1"), starts: writes("u32", "n_rows+1") },
  workgroup: 64,
  grid: ({ n_rows }) => Math.ceil((n_rows + 1) / 64),
  cost: ({ n_rows }) => ({ flops: 0, bytes: 4 * n_rows }),
  body: `
  let row = group * 64u + lane;
  if (row <= dims.n_rows) { starts[row] = row * min(dims.k_aux, count[0]); }`,
});

/**
 * The loss of every row, and the gradients added to those of the main loss, after the residuals are known. Without dead
 * latents none of it runs, and the sums of the rows' losses keep what they had.
 */
export function auxKBackward(commands: Commands, model: Model, given: AuxKBackward): void {
  commands.onlyIf(given.space.dead.count, () => backward(commands, model, given));
}

interface AuxKBackward {
  readonly space: Workspace;
  readonly aux: AuxSpace;
  readonly cfg: AuxK;
  readonly gradients: Gradients;
}

function backward(commands: Commands, model: Model, given: AuxKBackward): void {
  const { space: { input, n_rows, spans: rowSpans, whole, rowSums, dead }, aux, cfg, gradients } = given;
  const { codes, transposition, grad_values, residual, variance, reconstruction } = aux;
  const { alpha, include_b_dec, normalize } = cfg;
  const { d_model, d_sae } = model.cfg;
  if (normalize) measureVariance(commands, aux, n_rows, d_model, rowSpans);
  const prefixes = { lengths: [d_sae], ends: whole };
  const shared = { codes, prefixes, transposition, grad_values, input, whole, gradients, accumulate: true };
  for (const span of rowSpans) {
    const { from, to } = span;
    decode(commands, model, { codes, span, prefixes, x_hats: reconstruction.rows(0, to - from) });
    auxiliaryResiduals(commands, {
      residual: residual.rows(from, to),
      reconstruction: reconstruction.rows(0, to - from),
      b_dec: model.parameters.b_dec,
      include_b_dec,
      count: dead.count,
      inverse: variance.inverse,
      squares: rowSums.aux,
      alpha,
      rows: to - from,
      firstRow: from,
      n_rows,
      d_model,
    });
    decodeBackward(commands, model, { ...shared, span, G: reconstruction });
    selectionBackward(commands, model, { ...shared, span });
    if (include_b_dec) addBiasGradient(commands, reconstruction, to - from, gradients.b_dec);
  }
}

/** inverse[0] = 1 / mean((e − mean_b e)²), or 0 where e does not vary: two passes, so that nothing cancels. */
function measureVariance(
  commands: Commands,
  { residual, variance: { sums, squares, inverse } }: AuxSpace,
  n_rows: number,
  d_model: number,
  rowSpans: Workspace["spans"],
): void {
  for (const { from, to } of rowSpans) {
    columnSums(commands, {
      x: residual.rows(from, to),
      rows: to - from,
      stride: d_model,
      offset: 0,
      columns: d_model,
      result: sums,
      accumulate: from > 0,
    });
  }
  for (const { from, to } of rowSpans) {
    commands.run(rowDistancesKernel, {
      rows: to - from,
      first_row: from,
      n_rows,
      d_model,
      x: residual.rows(from, to),
      sums,
      squares,
    });
  }
  sum(commands, { x: squares, size: n_rows, into: inverse, results: 1, at: 0 });
  commands.run(inverseKernel, { terms: n_rows * d_model, inverse });
}

const rowDistancesKernel = defineKernel({
  name: "row_distances",
  dims: ["rows", "first_row", "n_rows", "d_model"],
  bindings: {
    x: reads("f32", "rows d_model"),
    sums: reads("f32", "d_model"),
    squares: writes("f32", "n_rows"),
  },
  workgroup: 32,
  grid: ({ rows }) => rows,
  cost: ({ rows, d_model }) => ({ flops: 4 * rows * d_model, bytes: 4 * rows * d_model }),
  declarations: totalWgsl(32),
  body: `
  var square = 0.0;
  for (var d = lane; d < dims.d_model; d += 32u) {
    let distance = x[group * dims.d_model + d] - sums[d] / f32(dims.n_rows);
    square = fma(distance, distance, square);
  }
  let sum = total(lane, square);
  if (lane == 0u) { squares[dims.first_row + group] = sum; }`,
});

const inverseKernel = defineKernel({
  name: "inverse_mean",
  scalars: ["terms"],
  dims: [],
  bindings: { inverse: writes("f32", "1") },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 1, bytes: 8 }),
  body: `inverse[0] = select(0.0, dims.terms / inverse[0], inverse[0] > 0.0);`,
});

function addBiasGradient(commands: Commands, G: Tensor, rows: number, grad_b_dec: Tensor): void {
  const columns = grad_b_dec.size;
  columnSums(commands, {
    x: G.rows(0, rows),
    rows,
    stride: columns,
    offset: 0,
    columns,
    result: grad_b_dec,
    accumulate: true,
  });
}
