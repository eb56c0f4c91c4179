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

import type { Commands } from "../kernels/engine/commands.ts";
import { defineKernel, reads, readsAcross, readsOnce, writes } from "../kernels/engine/kernel.ts";
import { gatherRows, keepEntries, scatterRows, spreadEntries } from "../kernels/listed_rows.ts";
import { matmul } from "../kernels/matmul.ts";
import { columnSums, sum } from "../kernels/reduce.ts";
import { type Span, spans, type Tensor } from "../kernels/engine/tensor.ts";
import { totalWgsl } from "../kernels/engine/wgsl.ts";
import { topK } from "../kernels/top_k.ts";
import { decode, decodeBackward } from "../nn/decode.ts";
import {
  type AffineMaps,
  type EncoderInput,
  entriesEncoderBackward,
  latentBlocks,
  listedPreActivations,
} from "../nn/encode.ts";
import type { AuxK } from "../nn/loss_terms.ts";
import type { Gradients } from "../nn/parameters.ts";
import type { AuxSpace, Workspace } from "../nn/step_buffers.ts";
import { auxiliaryResiduals } from "./squared_error.ts";

/**
 * Selects each row's dead latents. Few dead latents are spread out and multiplied densely; only the selection of many is
 * listed by latent. Both give the same bits, since a product with zeros in it is that of the rest.
 */
export function auxKCodes(
  commands: Commands,
  model: AffineMaps,
  space: Workspace,
  aux: AuxSpace,
  { k_aux }: AuxK,
): void {
  const { input, tile, dead: { list, count }, n_rows } = space;
  const { d_sae } = model.cfg;
  const { entries: { codes, transposition }, dense, sparseCount } = aux;
  const { row_starts: starts, indices, values } = codes;
  const { most, count: denseCount } = dense;
  commands.run(auxiliaryStartsKernel, { n_rows, k_aux, most, count, starts, denseCount, sparseCount });
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
  });
  commands.onlyIf(sparseCount, () => transposition.record(commands, codes.sparse));
}

/** Every row has min(k_aux, n_dead) entries; either the dense products count the dead latents or the sparse ones do. */
const auxiliaryStartsKernel = defineKernel({
  name: "auxiliary_starts",
  dims: ["n_rows", "k_aux", "most"],
  bindings: {
    count: reads("u32", "1"),
    starts: writes("u32", "n_rows+1"),
    denseCount: writes("u32", "1"),
    sparseCount: writes("u32", "1"),
  },
  workgroup: 64,
  grid: ({ n_rows }) => Math.ceil((n_rows + 1) / 64),
  cost: ({ n_rows }) => ({ flops: 0, bytes: 4 * n_rows }),
  body: `
  let row = group * 64u + lane;
  if (row <= dims.n_rows) { starts[row] = row * min(dims.k_aux, count[0]); }
  if (row == 0u) {
    let dense = count[0] <= dims.most;
    denseCount[0] = select(0u, count[0], dense);
    sparseCount[0] = select(count[0], 0u, dense);
  }`,
});

/**
 * The loss of every row, and the gradients added to those of the main loss, after the residuals are known. Without dead
 * latents none of it runs, and the sums of the rows' losses keep what they had.
 */
export function auxKBackward(
  commands: Commands,
  model: AffineMaps,
  given: { readonly space: Workspace; readonly aux: AuxSpace; readonly cfg: AuxK; readonly gradients: Gradients },
): void {
  const { space: { input, n_rows, whole, rowSums, dead }, aux, cfg, gradients } = given;
  const { entries: { codes, transposition, grad_values }, spans: rowSpans } = aux;
  const { residual, variance, reconstruction, dense, sparseCount } = aux;
  const { alpha, include_b_dec, normalize } = cfg;
  const { d_model, d_sae } = model.cfg;
  const prefixes = { lengths: [d_sae], ends: whole };
  const shared = { codes, prefixes, transposition, grad_values, input, whole, gradients, accumulate: true };
  const anyway = (work: () => void) => commands.onlyIf(dead.count, work);
  const densely = (work: () => void) => commands.onlyIf(dense.count, work);
  const sparsely = (work: () => void) => commands.onlyIf(sparseCount, work);
  if (normalize) anyway(() => measureVariance(commands, aux, n_rows, d_model, rowSpans));
  densely(() => moveListedRows(commands, model, { aux, dead, gradients, move: gatherRows }));
  for (const span of rowSpans) {
    const { from, to } = span;
    sparsely(() => decode(commands, model, { codes, span, prefixes, x_hats: reconstruction.rows(0, to - from) }));
    densely(() => denseDecode(commands, { aux, dead, span }));
    anyway(() =>
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
      })
    );
    sparsely(() => {
      decodeBackward(commands, model, { ...shared, span, G: reconstruction });
      entriesEncoderBackward(commands, model, { ...shared, span });
    });
    densely(() => denseDecodeBackward(commands, { aux, dead, input, span }));
    if (include_b_dec) anyway(() => addBiasGradient(commands, reconstruction, to - from, gradients.b_dec));
  }
  densely(() => moveListedRows(commands, model, { aux, dead, gradients, move: scatterRows }));
}

/** The rows of parameters and gradients that belong to dead latents, brought together or brought back. */
function moveListedRows(
  commands: Commands,
  model: AffineMaps,
  given: {
    readonly aux: AuxSpace;
    readonly dead: Workspace["dead"];
    readonly gradients: Gradients;
    readonly move: typeof gatherRows;
  },
): void {
  const { aux: { dense: { most, count, W_dec, gradients: packed } }, dead: { list }, gradients, move } = given;
  const shared = { list, listSize: list.size, count, most };
  for (const block of latentBlocks(model)) {
    const rows = (matrix: Tensor) => ({ ...shared, ...block, matrix: matrix.rows(block.from, block.to) });
    const columns = model.cfg.d_model;
    if (move === gatherRows) move(commands, { ...rows(model.parameters.W_dec), columns, packed: W_dec });
    move(commands, { ...rows(gradients.W_dec), columns, packed: packed.W_dec });
    move(commands, { ...rows(gradients.W_enc), columns, packed: packed.W_enc });
    move(commands, { ...rows(gradients.b_enc), columns: 1, packed: packed.b_enc });
  }
}

/** ê of some rows from the dead latents' dense codes z [rows, n_dead]: z W_dec. */
function denseDecode(
  commands: Commands,
  { aux, dead, span: { from, to } }: { readonly aux: AuxSpace; readonly dead: Workspace["dead"]; readonly span: Span },
): void {
  const { dense: { most, count, codes, W_dec }, reconstruction } = aux;
  const rows = to - from;
  spreadEntries(commands, { ...entriesOf(aux, dead, from, rows), dense: codes.rows(0, rows) });
  matmul(commands, {
    layout: "nn",
    M: rows,
    N: W_dec.rowSize,
    K: most,
    a: { in: codes.rows(0, rows) },
    b: { in: W_dec },
    c: { in: reconstruction.rows(0, rows) },
    limit: { size: "K", by: count },
  });
}

/** From G = ∂loss/∂ê of some rows: grad_z = G W_decᵀ where selected, grad_W_dec += zᵀ G, grad_W_enc += grad_zᵀ x, grad_b_enc += Σ grad_z. */
function denseDecodeBackward(
  commands: Commands,
  { aux, dead, input, span: { from, to } }: {
    readonly aux: AuxSpace;
    readonly dead: Workspace["dead"];
    readonly input: EncoderInput;
    readonly span: Span;
  },
): void {
  const { dense: { most, count, codes, grad, W_dec, gradients }, reconstruction } = aux;
  const rows = to - from;
  const columns = W_dec.rowSize;
  const grad_z = grad.rows(0, rows);
  const G = { in: reconstruction.rows(0, rows) };
  const x = { in: input.centred_BD.rows(from, to) };
  matmul(commands, {
    layout: "nt",
    M: rows,
    N: most,
    K: columns,
    a: G,
    b: { in: W_dec },
    c: { in: grad_z },
    limit: { size: "N", by: count },
  });
  keepEntries(commands, { ...entriesOf(aux, dead, from, rows), dense: grad_z });
  const shared = {
    layout: "tn",
    M: most,
    N: columns,
    K: rows,
    accumulate: true,
    limit: { size: "M", by: count },
  } as const;
  matmul(commands, { ...shared, a: { in: codes.rows(0, rows) }, b: G, c: { in: gradients.W_dec } });
  matmul(commands, { ...shared, a: { in: grad_z }, b: x, c: { in: gradients.W_enc } });
  columnSums(commands, {
    x: grad_z,
    rows,
    stride: most,
    offset: 0,
    columns: most,
    result: gradients.b_enc,
    accumulate: true,
    count,
  });
}

/** The selected entries of some rows, and where they go among the dead latents. */
function entriesOf(
  { entries: { codes }, dense }: AuxSpace,
  { places }: Workspace["dead"],
  firstRow: number,
  rows: number,
) {
  const { most: stride, count } = dense;
  return {
    sparse: codes.sparse,
    firstRow,
    rows,
    places,
    placesSize: places.size,
    count,
    stride,
  };
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
    x: readsOnce("f32", "rows d_model"),
    sums: readsAcross("f32", "d_model", "rows d_model"),
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
