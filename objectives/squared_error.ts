/**
 * The squared error, computed without overflow, and the summed residuals from which its gradient is computed.
 *
 * Errors are divided by a power of two near `u = max |x|` over the whole batch before they are squared, as upstream
 * divides by u itself: `mean((x̂/u − x/u)²) · u · u`. u is at least 2⁻⁴⁰, so that an all-zero x does not give 0/0.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { type Bindable, Commands } from "../kernels/engine/commands.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { ShapeError } from "../kernels/engine/errors.ts";
import {
  defineKernel,
  type Kernel,
  reads,
  readsAcross,
  readsOften,
  readsOnce,
  updates,
  writes,
} from "../kernels/engine/kernel.ts";
import { chunksOf, maxAbsBits, SCALE_WGSL, sum } from "../kernels/reduce.ts";
import { dot, perRowLayout, type RowLayout, rowTotal } from "../kernels/row_layout.ts";
import { type Span, Tensor } from "../kernels/engine/tensor.ts";
import { totalWgsl } from "../kernels/engine/wgsl.ts";
import { decode, decodeDense } from "../nn/decode.ts";
import type { DenseStep } from "../nn/step_codes.ts";
import { TOTALS } from "./loss_record.ts";
import type { Step } from "./loss_term.ts";

const THREADS = 32;

const TOTAL_WGSL = totalWgsl(THREADS);

/** The squared error of the reconstructions. */
export class SquaredError implements Disposable {
  /** [B], each row's squared error divided by u². */
  readonly #rows: Tensor;
  readonly #totals: Tensor;

  /** For batches of `n_rows`; the sum over a batch goes to `totals`. */
  constructor(context: DeviceContext, n_rows: number, totals: Tensor) {
    this.#rows = new Tensor(context, "f32", [n_rows], "squared error a row");
    this.#totals = totals;
  }

  /** Decodes some rows from their entries and turns x̂ into G [≥ rows, P, D]; stores the rows' squared errors. */
  entries(step: Step, span: Span, residual: Tensor | undefined): Tensor {
    const { commands, model, prefixes, buffers: { f_x: { entries: { codes } }, x_hats } } = step;
    decode(commands, model, { codes, span, prefixes, x_hats: x_hats.rows(0, span.to - span.from) });
    return this.#toResiduals(step, span, residual);
  }

  /** The same from the dense codes of one tile. */
  dense(step: Step, dense: DenseStep, span: Span, residual: Tensor | undefined): Tensor {
    const { commands, model, prefixes, buffers: { input, x_hats } } = step;
    dense.encodeAgain(commands, model, input, span);
    decodeDense(commands, model, { f: dense.codeRows(span), prefixes, x_hats });
    return this.#toResiduals(step, span, residual);
  }

  /** Sums the errors of all rows. */
  sum({ commands, buffers: { n_rows } }: Step): void {
    const totals = this.#totals;
    sum(commands, { x: this.#rows, size: n_rows, into: totals, results: totals.size, at: TOTALS.squares });
  }

  #toResiduals(step: Step, { from, to }: Span, residual: Tensor | undefined): Tensor {
    const { commands, model, prefixes, buffers: { x_hats, input, largest, n_rows } } = step;
    residuals(commands, {
      x: input.x_BD.rows(from, to),
      x_hats: x_hats.rows(0, to - from),
      b_dec: model.parameters.b_dec,
      largest: largest.bits,
      squares: this.#rows,
      ...residual && { residual: residual.rows(from, to) },
      rows: to - from,
      firstRow: from,
      n_rows,
      d_model: model.cfg.d_model,
      n_prefixes: prefixes.lengths.length,
    });
    return x_hats;
  }

  [Symbol.dispose](): void {
    this.#rows[Symbol.dispose]();
  }
}

/** Arguments of {@link residuals}. */
export interface ResidualsArguments {
  /** [rows, D] */
  readonly x: Bindable;
  /** [rows, P, D], reconstructions without bias; becomes the summed residual blocks. */
  readonly x_hats: Bindable;
  /** [D] */
  readonly b_dec: Bindable;
  /** [1], the largest |x| of the batch, as bits. */
  readonly largest: Bindable;
  /** [B], which gets each row's squared error divided by u². */
  readonly squares: Bindable;
  /** [B, D], which gets x − x̂ of the last prefix; not computed if left out. */
  readonly residual?: Bindable;
  /** Rows of this call. */
  readonly rows: number;
  /** First of them in `squares`. */
  readonly firstRow: number;
  /** B */
  readonly n_rows: number;
  /** D */
  readonly d_model: number;
  /** P */
  readonly n_prefixes: number;
}

/**
 * squares[b] = Σ_p ‖x̂_p + b_dec − x‖² / u², and x̂ becomes G[b, p] = Σ_{q ≥ p} 2 (x̂_q + b_dec − x) / (B P D), the
 * gradient of the mean squared error over rows, prefixes and dimensions, summed from the last prefix down.
 */
export function residuals(commands: Commands, given: ResidualsArguments): void {
  const { x, x_hats, b_dec, largest, squares, residual, rows, firstRow, n_rows, d_model, n_prefixes } = given;
  const { context } = commands;
  const shared = {
    rows,
    first_row: firstRow,
    n_rows,
    d_model,
    n_prefixes,
    weight: 2 / (n_rows * n_prefixes * d_model),
    x,
    x_hats,
    b_dec,
    largest,
    squares,
  };
  if (residual) commands.run(keepingResidualsKernel(d_model, context), { ...shared, residual });
  else commands.run(residualsKernel(d_model, context), shared);
}

/** What all declarations share: one turn reads 32 elements of a row, in loads of four or one. */
const rowKernel = (layout: RowLayout) => ({
  declarations: SCALE_WGSL + rowTotal(layout, THREADS / layout.scalars).declarations,
  directives: rowTotal(layout, THREADS / layout.scalars).directives ?? "",
  workgroup: THREADS / layout.scalars,
  grid: ({ rows }: { readonly rows: number }) => rows,
});

const dims = ["rows", "first_row", "n_rows", "d_model", "n_prefixes"] as const;
const bindings = ({ element }: RowLayout) => ({
  x: readsOnce(element, "rows d_model"),
  x_hats: updates(element, "rows n_prefixes d_model"),
  b_dec: readsAcross(element, "d_model", "rows d_model"),
  largest: reads("u32", "1"),
  squares: writes("f32", "n_rows"),
});
/**
 * The most loads that an invocation makes in a turn: several neighbours of every prefix, so that not every turn touches
 * another page of memory.
 */
const AT_ONCE = 4;

/** One kernel for each layout and each number of loads a turn. */
const perLayoutAndLoads = <B extends string>(
  declare: (layout: RowLayout, atOnce: number) => Kernel<(typeof dims)[number], "weight", B>,
) => {
  const kernels = Array.from({ length: AT_ONCE }, (_, index) => perRowLayout((layout) => declare(layout, index + 1)));
  return (columns: number, context: DeviceContext) =>
    kernels[Math.min(Math.ceil(columns / THREADS), AT_ONCE) - 1]!(columns, context);
};

const body = (layout: RowLayout, atOnce: number, keep: (at: string, error: string) => string) => {
  const lanes = THREADS / layout.scalars;
  const each = (statement: (c: number, place: string) => string) =>
    Array.from({ length: atOnce }, (_, c) => statement(c, `first + ${c * lanes}u`)).join("\n    ");
  // Columns past the end of a row are computed but neither stored nor counted.
  return `
  let inverse = inverse_scale_of(largest[0]);
  let loads = dims.d_model / ${layout.scalars}u;
  var square = 0.0;
  for (var first = lane; first < loads; first += ${atOnce * lanes}u) {
    ${each((c, place) => `let target${c} = x[group * loads + ${place}]; let bias${c} = b_dec[${place}];`)}
    ${each((c) => `var summed${c} = ${layout.element}(0.0); var last${c} = ${layout.element}(0.0);`)}
    for (var p = dims.n_prefixes; p > 0u; p -= 1u) {
      let at = (group * dims.n_prefixes + p - 1u) * loads;
      ${
    each((c, place) =>
      `let error${c} = (old_x_hats[at + ${place}] + bias${c}) - target${c};
      last${c} = select(last${c}, error${c}, p == dims.n_prefixes);
      summed${c} = fma(${layout.element}(dims.weight), error${c}, summed${c});
      let scaled${c} = error${c} * inverse;
      if (${place} < loads) {
        square = ${dot(layout, `scaled${c}`, `scaled${c}`, "square")};
        x_hats[at + ${place}] = summed${c};
      }`
    )
  }
    }
    ${each((c, place) => `if (${place} < loads) { ${keep(`group * loads + ${place}`, `last${c}`)} }`)}
  }
  let sum = total(lane, square);
  if (lane == 0u) { squares[dims.first_row + group] = sum; }`;
};
const cost = (
  { rows, d_model, n_prefixes }: { readonly rows: number; readonly d_model: number; readonly n_prefixes: number },
) => ({
  flops: 6 * rows * n_prefixes * d_model,
  bytes: 4 * rows * d_model * (1 + 2 * n_prefixes),
});

const residualsKernel = perLayoutAndLoads((layout, atOnce) =>
  defineKernel({
    name: "residuals",
    dims,
    scalars: ["weight"],
    bindings: bindings(layout),
    ...rowKernel(layout),
    cost,
    body: body(layout, atOnce, () => ""),
  })
);

const keepingResidualsKernel = perLayoutAndLoads((layout, atOnce) =>
  defineKernel({
    name: "keeping_residuals",
    dims,
    scalars: ["weight"],
    bindings: { ...bindings(layout), residual: writes(layout.element, "rows d_model") },
    ...rowKernel(layout),
    cost,
    body: body(layout, atOnce, (at, error) => `residual[${at}] = -${error};`),
  })
);

/** Arguments of {@link auxiliaryResiduals}. */
export interface AuxiliaryResidualsArguments {
  /** [rows, D], the target of the reconstruction, a constant. */
  readonly residual: Bindable;
  /** [rows, 1, D], the reconstruction; becomes its gradient. */
  readonly reconstruction: Bindable;
  /** [D] */
  readonly b_dec: Bindable;
  /** Whether to add b_dec to the reconstruction. */
  readonly include_b_dec: boolean;
  /** [1], the number of latents that take part; if 0, loss and gradient are 0. */
  readonly count: Bindable;
  /** [1], a factor of the loss. */
  readonly inverse: Bindable;
  /** [B], which gets each row's squared error. */
  readonly squares: Bindable;
  /** Weight of the loss. */
  readonly alpha: number;
  /** Rows of this call. */
  readonly rows: number;
  /** First of them in `squares`. */
  readonly firstRow: number;
  /** B */
  readonly n_rows: number;
  /** D */
  readonly d_model: number;
}

/** squares[b] = ‖ê (+ b_dec) − e‖² · inverse, and ê becomes 2 α (ê (+ b_dec) − e) / (B D) · inverse. */
export function auxiliaryResiduals(commands: Commands, given: AuxiliaryResidualsArguments): void {
  const { residual, reconstruction, b_dec, include_b_dec, count, inverse, squares, alpha } = given;
  const { rows, firstRow, n_rows, d_model } = given;
  commands.run(auxiliaryResidualsKernel(d_model, commands.context), {
    rows,
    first_row: firstRow,
    n_rows,
    d_model,
    bias_weight: Number(include_b_dec),
    weight: 2 * alpha / (n_rows * d_model),
    residual,
    reconstruction,
    b_dec,
    count,
    inverse,
    squares,
  });
}

const auxiliaryResidualsKernel = perRowLayout((layout) =>
  defineKernel({
    name: "auxiliary_residuals",
    dims: ["rows", "first_row", "n_rows", "d_model"],
    scalars: ["bias_weight", "weight"],
    bindings: {
      residual: readsOnce(layout.element, "rows d_model"),
      reconstruction: updates(layout.element, "rows d_model"),
      b_dec: readsAcross(layout.element, "d_model", "rows d_model"),
      count: reads("u32", "1"),
      inverse: reads("f32", "1"),
      squares: writes("f32", "n_rows"),
    },
    ...rowKernel(layout),
    cost: ({ rows, d_model }) => ({ flops: 6 * rows * d_model, bytes: 12 * rows * d_model }),
    body: `
  let loads = dims.d_model / ${layout.scalars}u;
  let any = count[0] > 0u;
  let factor = inverse[0];
  var square = 0.0;
  for (var d = lane; d < loads; d += ${THREADS / layout.scalars}u) {
    let at = group * loads + d;
    var error = ${layout.element}(0.0);
    if (any) { error = fma(${layout.element}(dims.bias_weight), b_dec[d], old_reconstruction[at]) - residual[at]; }
    square = ${dot(layout, "error", "error", "square")};
    reconstruction[at] = factor * (dims.weight * error);
  }
  let sum = total(lane, square);
  if (lane == 0u) { squares[dims.first_row + group] = sum * factor; }`,
  })
);

/**
 * (x̂ − x)² element by element, as upstream's `mean_squared_err`; with `norm`, divided by the norm of x's row: `(x̂ −
 * x)² / (‖x‖₂ + 1e-12 u)`. A new tensor of the same shape.
 *
 * Unlike in upstream's April 2025 version, an all-zero x does not give NaN.
 *
 * @throws {ShapeError} if the shapes differ.
 * @throws {TypeError} for an unknown option.
 */
export function meanSquaredErr(x_hat: Tensor, x: Tensor, options: { readonly norm?: boolean } = {}): Tensor {
  checkOptions("meanSquaredErr", options, { norm: true });
  const { norm = false } = options;
  if (x.shape.join() !== x_hat.shape.join()) {
    throw new ShapeError(`the squared error takes equal shapes, found [${x_hat.shape}] and [${x.shape}]`);
  }
  const { context } = x;
  const columns = x.shape.at(-1) ?? 1;
  const rows = x.size / columns;
  using made = new DisposableStack();
  const errors = made.use(new Tensor(context, "f32", x.shape, "squared error"));
  using partials = new Tensor(context, "u32", [chunksOf(x.size)], "partial maxima");
  using largest = new Tensor(context, "u32", [1], "largest |x|");
  const commands = new Commands(context);
  maxAbsBits(commands, x, partials, largest);
  commands.run(squaredErrorKernel, { rows, columns, norm: Number(norm), x, x_hat, largest, errors });
  commands.submit();
  made.move();
  return errors;
}

const squaredErrorKernel = defineKernel({
  name: "squared_error",
  dims: ["rows", "columns", "norm"],
  bindings: {
    x: readsOften("f32", "rows columns"),
    x_hat: readsOnce("f32", "rows columns"),
    largest: reads("u32", "1"),
    errors: writes("f32", "rows columns"),
  },
  workgroup: THREADS,
  grid: ({ rows }) => rows,
  cost: ({ rows, columns }) => ({ flops: 5 * rows * columns, bytes: 12 * rows * columns }),
  declarations: SCALE_WGSL + TOTAL_WGSL,
  body: `
  let first = group * dims.columns;
  let scale = scale_of(largest[0]);
  let inverse = inverse_scale_of(largest[0]);
  var square = 0.0;
  for (var c = lane; c < dims.columns; c += ${THREADS}u) {
    square = fma(x[first + c] * inverse, x[first + c] * inverse, square);
  }
  let length = sqrt(total(lane, square)) + 1e-12;
  for (var c = lane; c < dims.columns; c += ${THREADS}u) {
    let error = x_hat[first + c] * inverse - x[first + c] * inverse;
    let plain = error * error * scale * scale;
    errors[first + c] = select(plain, (error * error / length) * scale, dims.norm == 1u);
  }`,
});
