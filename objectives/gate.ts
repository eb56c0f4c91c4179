/**
 * The auxiliary reconstruction of a gate: `mean((x̂ − x)²)` with x̂ = max(h, 0) W_dec + b_dec and the decoder as a constant
 * (Rajamanoharan et al. 2024, arXiv 2404.16014).
 *
 * It teaches a gate to open where the input needs its latent: with G = 2 (x̂ − x) / (B D), ∂gate = G W_decᵀ where h >
 * 0. No gradient reaches W_dec; b_dec gets one only through an encoder that subtracts it.
 *
 * @module
 */

import type { DeviceContext } from "../kernels/engine/device.ts";
import { type Span, Tensor } from "../kernels/engine/tensor.ts";
import { aboveThreshold } from "../kernels/elementwise.ts";
import { sum } from "../kernels/reduce.ts";
import { codesBackward, decode, decodeDense, denseCodesBackward } from "../nn/decode.ts";
import type { StepBuffers } from "../nn/step_buffers.ts";
import { TOTALS } from "./loss_record.ts";
import type { AuxTerm, CodeGradients, TrainingStep } from "./loss_term.ts";
import { auxiliaryResiduals } from "./squared_error.ts";

/** The reconstruction by the gates. It writes their gradient, to which the penalty then adds. */
export class GateLoss implements AuxTerm {
  readonly total = "gate";
  /** [rows of a span, 1, D], x̂ without its bias, then G. */
  readonly #reconstruction: Tensor;
  /** [B], a row's squared error. */
  readonly #rows: Tensor;
  /** [1] each: 1, since this loss is neither conditional nor normalised, and 0, which gates must exceed. */
  readonly #always: Tensor<"u32">;
  readonly #one: Tensor;
  readonly #zero: Tensor;
  readonly #owned: DisposableStack;

  /** For the batches of `buffers`. */
  constructor(context: DeviceContext, { n_rows, x_hats: { shape } }: StepBuffers) {
    using stack = new DisposableStack();
    const make = (shape: number[], label: string) => stack.use(new Tensor(context, "f32", shape, label));
    this.#reconstruction = make([shape[0]!, 1, shape[2]!], "reconstruction by gates");
    this.#rows = make([n_rows], "squared error by gates a row");
    this.#always = stack.use(Tensor.from(context, Uint32Array.of(1), [1], "always"));
    this.#one = stack.use(Tensor.from(context, Float32Array.of(1), [1], "no variance"));
    this.#zero = make([1], "where gates open");
    this.#owned = stack.move();
  }

  readonly onCodes: CodeGradients = {
    entries: (step) => {
      const { commands, model, buffers: { spans, whole, f_x } } = step;
      const { codes, transposition, grad_values } = f_x.gate!.entries;
      const prefixes = { lengths: [model.cfg.d_sae], ends: whole };
      for (const span of spans) {
        const x_hats = this.#reconstruction.rows(0, span.to - span.from);
        decode(commands, model, { codes, span, prefixes, x_hats });
        const G = this.#toResiduals(step, span);
        codesBackward(commands, model, { codes, span, prefixes, G, transposition, grad_values });
      }
    },
    dense: (step, { dense, span }) => {
      const { commands, model, buffers: { whole, f_x } } = step;
      const { d_sae } = model.cfg;
      const prefixes = { lengths: [d_sae], ends: whole };
      // The codes of the tile are no longer needed.
      const f = dense.codeRows(span);
      const size = (span.to - span.from) * d_sae;
      aboveThreshold(commands, { x: dense.denseRows(span), size, threshold: this.#zero, thresholds: 1, to: f });
      decodeDense(commands, model, { f, prefixes, x_hats: this.#reconstruction });
      const G = this.#toResiduals(step, span);
      denseCodesBackward(commands, model, { f, prefixes, G, grad_f: f_x.gate!.grad });
    },
  };

  sum({ commands, buffers: { n_rows } }: TrainingStep, totals: Tensor): void {
    sum(commands, { x: this.#rows, size: n_rows, into: totals, results: totals.size, at: TOTALS.gate });
  }

  weight({ model, buffers: { n_rows } }: TrainingStep): number {
    return 1 / (n_rows * model.cfg.d_model);
  }

  #toResiduals({ commands, model, buffers: { input, n_rows } }: TrainingStep, { from, to }: Span): Tensor {
    auxiliaryResiduals(commands, {
      residual: input.x_BD.rows(from, to),
      reconstruction: this.#reconstruction.rows(0, to - from),
      b_dec: model.parameters.b_dec,
      include_b_dec: true,
      count: this.#always,
      inverse: this.#one,
      squares: this.#rows,
      alpha: 1,
      rows: to - from,
      firstRow: from,
      n_rows,
      d_model: model.cfg.d_model,
    });
    return this.#reconstruction;
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
