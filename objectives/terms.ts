/**
 * The terms of a model's loss.
 *
 * @module
 */

import { Tensor } from "../kernels/engine/tensor.ts";
import type { Aux } from "../nn/loss_terms.ts";
import type { Model } from "../nn/model.ts";
import type { StepBuffers } from "../nn/step_buffers.ts";
import { AuxKLoss } from "./aux_k.ts";
import { DeadLatents } from "./dead_latents.ts";
import { GateLoss } from "./gate.ts";
import { N_TOTALS } from "./loss_record.ts";
import type { AuxTerm, LossTerm } from "./loss_term.ts";
import { PreActLoss } from "./pre_act.ts";
import { Penalty } from "./sparsity.ts";
import { SquaredError } from "./squared_error.ts";

/** The terms of a model's loss, with their buffers for batches of one size. */
export class LossTerms implements Disposable {
  readonly squaredError: SquaredError;
  readonly penalty: Penalty;
  readonly dead: DeadLatents;
  /** In training. */
  readonly aux: readonly AuxTerm[];
  /** [N_TOTALS], sums over the batch. */
  readonly totals: Tensor;
  /** The terms that read codes, in order. */
  readonly all: readonly LossTerm[];
  readonly #owned: DisposableStack;

  /** Beside `buffers`. */
  constructor(model: Model, buffers: StepBuffers) {
    const { context, cfg: { d_sae, activation: { aux, sparsity } } } = model;
    const { n_rows, use: { training } } = buffers;
    using stack = new DisposableStack();
    this.totals = stack.use(new Tensor(context, "f32", [N_TOTALS], "sums over the batch"));
    this.squaredError = stack.use(new SquaredError(context, n_rows, this.totals));
    this.penalty = stack.use(new Penalty(context, sparsity, buffers, this.totals));
    this.dead = stack.use(new DeadLatents(context, d_sae));
    const auxiliary = training ? auxTerms(model, aux, buffers, this.dead).map((term) => stack.use(term)) : [];
    // The term that writes the gates' gradient comes before those that add to it.
    const gates = training && buffers.f_x.gate ? [stack.use(new GateLoss(context, buffers))] : [];
    this.aux = [...gates, ...auxiliary];
    this.all = [...gates, this.penalty, this.dead, ...auxiliary];
    this.#owned = stack.move();
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** The term of a configured auxiliary loss, if there is one. */
function auxTerms(model: Model, aux: Aux, buffers: StepBuffers, dead: DeadLatents): AuxTerm[] {
  switch (aux.key) {
    case "no-aux":
      return [];
    case "auxk":
      return [new AuxKLoss(model, aux, buffers, dead)];
    case "pre-act":
      return [new PreActLoss(model.context, aux, buffers.n_rows, dead)];
  }
}
