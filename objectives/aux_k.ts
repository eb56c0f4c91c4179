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
import { type Span, spans, Tensor } from "../kernels/engine/tensor.ts";
import { totalWgsl } from "../kernels/engine/wgsl.ts";
import { topK } from "../kernels/top_k.ts";
import { Codes, EntryBuffers } from "../nn/codes.ts";
import { decode, decodeBackward } from "../nn/decode.ts";
import {
  type AffineMaps,
  type EncoderInput,
  entriesEncoderBackward,
  latentBlocks,
  listedPreActivations,
  rowsAtOnce,
} from "../nn/encode.ts";
import type { AuxK } from "../nn/loss_terms.ts";
import type { Gradients } from "../nn/parameters.ts";
import type { StepBuffers } from "../nn/step_buffers.ts";
import type { DeadLatents } from "./dead_latents.ts";
import { TOTALS } from "./loss_record.ts";
import type { AuxTerm, Conditional, Step, TrainingStep } from "./loss_term.ts";
import { auxiliaryResiduals } from "./squared_error.ts";

/**
 * Dense products over the dead latents are faster while there are at most this many times the latents that a row
 * selects: a multiply-add of a dense product costs a small fraction of one of a sparse product.
 */
const DENSE_AUX = 4;

/** The most rows of the dense codes of dead latents: more would not make the products faster. */
const MAX_AUX_ROWS = 1024;

/**
 * The dead latents' codes and rows of parameters, packed: `most` columns or rows, of which the first `count[0]` are
 * valid.
 */
interface DenseAux {
  /** The most dead latents that are multiplied densely. */
  readonly most: number;
  /** [1], the number of dead latents; 0 where there are more than `most`. */
  readonly count: Tensor<"u32">;
  /** [rows of a span, most], the codes. */
  readonly codes: Tensor;
  /** [rows of a span, most], their gradient. */
  readonly grad: Tensor;
  /** [most, D], rows of W_dec. */
  readonly W_dec: Tensor;
  /** [most, D] or [most, 1], rows of the gradients. */
  readonly gradients: Readonly<Record<"W_dec" | "W_enc" | "b_enc", Tensor>>;
}

/**
 * AuxK. If few latents are dead, their codes are written out and multiplied densely; if many are, the selected entries
 * are listed by latent. Both give the same bits, since zeros add nothing to a sum.
 */
export class AuxKLoss implements AuxTerm {
  readonly total = "aux";
  /** Buffers of dense products over the dead latents. */
  readonly dense: DenseAux;
  /** The dead latents' codes. */
  readonly #entries: EntryBuffers;
  /** [B, D], what the reconstruction missed. */
  readonly #residual: Tensor;
  /** [D], its sum over the batch; [B], a row's squared distance from its mean; [1], 1 over the mean of those, or 1. */
  readonly #variance: { readonly sums: Tensor; readonly squares: Tensor; readonly inverse: Tensor };
  /** [rows of a span, 1, D], the dead latents' reconstruction of the residual, then its gradient. */
  readonly #reconstruction: Tensor;
  /** [1], the number of dead latents; 0 where dense products handle them. */
  readonly #sparseCount: Tensor<"u32">;
  /** [B], a row's squared error. */
  readonly #rows: Tensor;
  /** Rows that are processed together. */
  readonly #spans: readonly Span[];
  readonly #cfg: AuxK;
  readonly #dead: DeadLatents;
  readonly #owned: DisposableStack;

  /** For the batches of `buffers`. */
  constructor(model: AffineMaps, cfg: AuxK, { n_rows, x_hats }: StepBuffers, dead: DeadLatents) {
    const { cfg: { d_model, d_sae }, context } = model;
    using stack = new DisposableStack();
    const make = <T extends "f32" | "u32">(type: T, shape: number[], label: string): Tensor<T> =>
      stack.use(new Tensor(context, type, shape, label));
    const k = Math.min(cfg.k_aux, d_sae);
    const most = 4 * Math.ceil(Math.min(DENSE_AUX * k, d_sae) / 4);
    const rows = Math.min(x_hats.shape[0]!, MAX_AUX_ROWS, rowsAtOnce(model, n_rows, most * 4, "dead codes"));
    const codes = new Codes(context, n_rows, d_sae, n_rows * k, "auxiliary f_x");
    this.#entries = stack.use(new EntryBuffers(context, codes, "auxiliary f_x", { training: true }));
    this.#residual = make("f32", [n_rows, d_model], "residual");
    this.#variance = {
      sums: make("f32", [d_model], "summed residual"),
      squares: make("f32", [n_rows], "squared distance from the mean residual"),
      inverse: make("f32", [1], "inverse variance of the residual"),
    };
    this.#variance.inverse.write(Float32Array.of(1));
    this.#reconstruction = make("f32", [rows, 1, d_model], "auxiliary reconstruction");
    this.#sparseCount = make("u32", [1], "dead latents of sparse products");
    this.#rows = make("f32", [n_rows], "auxiliary error a row");
    this.dense = {
      most,
      count: make("u32", [1], "dead latents of dense products"),
      codes: make("f32", [rows, most], "dense auxiliary f_x"),
      grad: make("f32", [rows, most], "grad of dense auxiliary f_x"),
      W_dec: make("f32", [most, d_model], "W_dec of dead latents"),
      gradients: {
        W_dec: make("f32", [most, d_model], "grad_W_dec of dead latents"),
        W_enc: make("f32", [most, d_model], "grad_W_enc of dead latents"),
        b_enc: make("f32", [most, 1], "grad_b_enc of dead latents"),
      },
    };
    this.#spans = [...spans(n_rows, rows)];
    this.#cfg = cfg;
    this.#dead = dead;
    this.#owned = stack.move();
  }

  residual({ training }: Step): Tensor | undefined {
    return training?.canBeDead ? this.#residual : undefined;
  }

  /** Selects each row's dead latents. */
  *afterDead({ commands, model, buffers: { input, tile, n_rows }, training }: TrainingStep): Generator<Conditional> {
    if (!training.canBeDead) return;
    const { list, count } = this.#dead;
    const { d_sae } = model.cfg;
    const { codes, transposition } = this.#entries;
    const { row_starts: starts, indices, values } = codes;
    const { most, count: denseCount } = this.dense;
    const [{ k_aux }, sparseCount] = [this.#cfg, this.#sparseCount];
    commands.run(auxiliaryStartsKernel, { n_rows, k_aux, most, count, starts, denseCount, sparseCount });
    yield {
      onlyIf: count,
      work() {
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
      },
    };
    yield { onlyIf: sparseCount, work: () => transposition.transpose(commands, codes.sparse) };
  }

  /**
   * Computes the loss of every row and adds its gradients to those of the main loss, after the residuals are known.
   * Without dead latents none of it runs, and the rows' losses keep their old values.
   */
  *last({ commands, model, buffers: { input, n_rows, whole }, training }: TrainingStep): Generator<Conditional> {
    if (!training.canBeDead) return;
    const { state: { gradients } } = training;
    const { codes, transposition, grad_values } = this.#entries;
    const { alpha, include_b_dec, normalize } = this.#cfg;
    const { d_model, d_sae } = model.cfg;
    const [dead, reconstruction] = [this.#dead, this.#reconstruction];
    const prefixes = { lengths: [d_sae], ends: whole };
    const shared = { codes, prefixes, transposition, grad_values, input, whole, gradients, accumulate: true };
    const anyway = (work: () => void) => ({ onlyIf: dead.count, work });
    const densely = (work: () => void) => ({ onlyIf: this.dense.count, work });
    const sparsely = (work: () => void) => ({ onlyIf: this.#sparseCount, work });
    if (normalize) yield anyway(() => this.#measureVariance(commands, n_rows, d_model));
    yield densely(() => this.#moveListedRows(commands, model, gradients, gatherRows));
    for (const span of this.#spans) {
      const { from, to } = span;
      const x_hats = reconstruction.rows(0, to - from);
      yield sparsely(() => decode(commands, model, { codes, span, prefixes, x_hats }));
      yield densely(() => this.#denseDecode(commands, span));
      yield anyway(() =>
        auxiliaryResiduals(commands, {
          residual: this.#residual.rows(from, to),
          reconstruction: x_hats,
          b_dec: model.parameters.b_dec,
          include_b_dec,
          count: dead.count,
          inverse: this.#variance.inverse,
          squares: this.#rows,
          alpha,
          rows: to - from,
          firstRow: from,
          n_rows,
          d_model,
        })
      );
      yield sparsely(() => {
        decodeBackward(commands, model, { ...shared, span, G: reconstruction });
        entriesEncoderBackward(commands, model, { ...shared, span });
      });
      yield densely(() => this.#denseDecodeBackward(commands, input, span));
      if (include_b_dec) yield anyway(() => addBiasGradient(commands, reconstruction, to - from, gradients.b_dec));
    }
    yield densely(() => this.#moveListedRows(commands, model, gradients, scatterRows));
  }

  sum({ commands, buffers: { n_rows }, training }: TrainingStep, totals: Tensor): void {
    if (!training.canBeDead) return;
    sum(commands, { x: this.#rows, size: n_rows, into: totals, results: totals.size, at: TOTALS.aux });
  }

  weight({ model, buffers: { n_rows } }: TrainingStep): number {
    return this.#cfg.alpha / (n_rows * model.cfg.d_model);
  }

  /** Gathers or scatters the rows of parameters and gradients that belong to dead latents. */
  #moveListedRows(commands: Commands, model: AffineMaps, gradients: Gradients, move: typeof gatherRows): void {
    const { dense: { most, count, W_dec, gradients: packed } } = this;
    const { list } = this.#dead;
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
  #denseDecode(commands: Commands, { from, to }: Span): void {
    const { most, count, codes, W_dec } = this.dense;
    const rows = to - from;
    spreadEntries(commands, { ...this.#selected(from, rows), dense: codes.rows(0, rows) });
    matmul(commands, {
      layout: "nn",
      M: rows,
      N: W_dec.rowSize,
      K: most,
      a: { in: codes.rows(0, rows) },
      b: { in: W_dec },
      c: { in: this.#reconstruction.rows(0, rows) },
      limit: { size: "K", by: count },
    });
  }

  /** From G = ∂loss/∂ê of some rows: grad_z = G W_decᵀ where selected, grad_W_dec += zᵀ G, grad_W_enc += grad_zᵀ x, grad_b_enc += Σ grad_z. */
  #denseDecodeBackward(commands: Commands, input: EncoderInput, { from, to }: Span): void {
    const { most, count, codes, grad, W_dec, gradients } = this.dense;
    const rows = to - from;
    const columns = W_dec.rowSize;
    const grad_z = grad.rows(0, rows);
    const G = { in: this.#reconstruction.rows(0, rows) };
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
    keepEntries(commands, { ...this.#selected(from, rows), dense: grad_z });
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

  /** The selected entries of some rows, and their places among the dead latents. */
  #selected(firstRow: number, rows: number) {
    const { most: stride, count } = this.dense;
    const { places } = this.#dead;
    return { sparse: this.#entries.codes.sparse, firstRow, rows, places, placesSize: places.size, count, stride };
  }

  /** inverse[0] = 1 / mean((e − mean_b e)²), or 0 where e does not vary: two passes, so that nothing cancels. */
  #measureVariance(commands: Commands, n_rows: number, d_model: number): void {
    const { sums, squares, inverse } = this.#variance;
    for (const { from, to } of this.#spans) {
      columnSums(commands, {
        x: this.#residual.rows(from, to),
        rows: to - from,
        stride: d_model,
        offset: 0,
        columns: d_model,
        result: sums,
        accumulate: from > 0,
      });
    }
    for (const { from, to } of this.#spans) {
      commands.run(rowDistancesKernel, {
        rows: to - from,
        first_row: from,
        n_rows,
        d_model,
        x: this.#residual.rows(from, to),
        sums,
        squares,
      });
    }
    sum(commands, { x: squares, size: n_rows, into: inverse, results: 1, at: 0 });
    commands.run(inverseKernel, { terms: n_rows * d_model, inverse });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/**
 * Every row has min(k_aux, n_dead) entries; the number of dead latents goes to either the dense or the sparse products.
 */
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
