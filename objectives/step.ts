/**
 * One step in the order of the data: codes and their measurements, dead latents, reconstructions, and the gradients
 * from last to first. The loss terms are in files of their own; this file has their order, and what the GPU may skip.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import type { Tensor } from "../kernels/engine/tensor.ts";
import { maxAbsBits } from "../kernels/reduce.ts";
import { rowSquares } from "../kernels/unit_rows.ts";
import { biasBackward, decodeBackward, decodeDenseBackward } from "../nn/decode.ts";
import { centringBackward, denseEncoderBackward, entriesEncoderBackward } from "../nn/encode.ts";
import { freeL0, isOnL0 } from "../nn/loss_terms.ts";
import { topK } from "../nn/model.ts";
import type { DenseStep } from "../nn/step_codes.ts";
import { type LossSlot, writeLossRecord } from "./loss_record.ts";
import type { Conditional, Step, TrainingStep } from "./loss_term.ts";
import type { LossTerms } from "./terms.ts";

/** Records the loss of x [B, D] and, in training, all its gradients and the dead latents. */
export function recordStep(step: Step, terms: LossTerms, x: Tensor, into: LossSlot): void {
  recordCodes(step, terms, x);
  if (isTraining(step)) {
    recordDead(step, terms);
    recordBackward(step, terms);
  } else {
    sparseOrDense(step, {
      entries: () => step.buffers.spans.forEach((span) => terms.squaredError.entries(step, span, undefined)),
      dense: (dense) => dense.tiles.forEach((span) => terms.squaredError.dense(step, dense, span, undefined)),
    });
  }
  terms.squaredError.sum(step);
  const auxWeights = { aux: 0, gate: 0 };
  for (const term of terms.aux) {
    if (!isTraining(step)) continue;
    term.sum(step, terms.totals);
    auxWeights[term.total] = term.weight(step);
  }
  const { model, buffers: { n_rows, largest }, prefixes: { lengths }, sparsity } = step;
  writeLossRecord(step.commands, {
    into,
    totals: terms.totals,
    penalty: {
      total: terms.penalty.total(sparsity),
      target_l0: freeL0(sparsity),
      weight: terms.penalty.weight,
    },
    n_rows,
    n_squares: n_rows * lengths.length * model.cfg.d_model,
    largest: largest.bits,
    auxWeights,
    training: isTraining(step),
    n_dead: terms.dead.count,
  });
}

/** Codes and their measurements, the largest |x|, and the penalty's weight. */
function recordCodes(step: Step, { all }: LossTerms, x: Tensor): void {
  const { commands, model, buffers, prefixes, schedule, training } = step;
  const { input, f_x, ends, largest, squares } = buffers;
  ends.write(Uint32Array.from(prefixes.lengths));
  input.prepare(commands, model, x);
  maxAbsBits(commands, input.x_BD, largest.partials, largest.bits);
  if (all.some((term) => term.readsNorms?.(step))) rowSquares(commands, model.parameters.W_dec, squares);
  if (isTraining(step)) { for (const term of all) term.beforeCodes?.(step); }
  f_x.encode(commands, model, {
    input,
    k: schedule.top_k ?? topK(model),
    estimate: training && {
      largest: largest.bits,
      halted: training.state.halted,
      seen: training.state.thresholdSeen,
    },
    look: (codes, span, penalised) => all.forEach((term) => term.look?.dense(step, codes, span, penalised)),
  });
  if (f_x.dense) commands.onlyIf(f_x.dense.isSparse, () => f_x.finishEntries(commands, model));
  else for (const term of all) term.look?.entries(step);
  for (const term of all) term.afterCodes?.(step);
}

/** Finds out which latents are dead, and lets terms select among them. */
function recordDead(step: TrainingStep, { dead, all }: LossTerms): void {
  const { commands, buffers: { f_x: { entries: { codes, transposition }, dense } } } = step;
  const byLatent = () => transposition.transpose(commands, codes.sparse);
  if (dense) commands.onlyIf(dense.isSparse, byLatent);
  else byLatent();
  dead.update(step);
  for (const term of all) conditionally(commands, term.afterDead?.(step));
}

/** Reconstructions, residuals, and the gradients from last to first. */
function recordBackward(step: TrainingStep, { squaredError, penalty: { slope }, all }: LossTerms): void {
  const { commands, model, buffers, prefixes, sparsity, training: { state: { gradients } } } = step;
  const { input, f_x, whole, tile: { h: grad } } = buffers;
  const { entries: { codes, transposition, grad_values } } = f_x;
  const sums = f_x.gate?.sums;
  const residual = all.map((term) => term.residual?.(step)).find((wanted) => wanted !== undefined);
  const ofActivation = { slope, onL0: isOnL0(sparsity), gradients };
  sparseOrDense(step, {
    entries() {
      for (const span of buffers.spans) {
        const G = squaredError.entries(step, span, residual);
        const given = { span, prefixes, gradients, accumulate: span.from > 0, G };
        biasBackward(commands, given);
        decodeBackward(commands, model, { ...given, codes, transposition, grad_values });
      }
      for (const term of all) term.onCodes?.entries(step);
      f_x.entriesBackward(commands, model, ofActivation);
      for (const term of all) term.onPreActs?.entries(step);
      for (const span of buffers.spans) {
        const given = { input, span, whole, gradients, accumulate: span.from > 0 };
        entriesEncoderBackward(commands, model, { ...given, sums, transposition, grad_values });
      }
    },
    dense(dense) {
      for (const span of dense.tiles) {
        const G = squaredError.dense(step, dense, span, residual);
        const given = { span, prefixes, gradients, accumulate: span.from > 0, G };
        biasBackward(commands, given);
        decodeDenseBackward(commands, model, { ...given, f: dense.codeRows(span), grad_f: grad });
        const tile = { dense, span, grad, accumulate: span.from > 0 };
        for (const term of all) term.onCodes?.dense(step, tile);
        dense.denseBackward(commands, model, { ...given, ...ofActivation, grad_f: grad });
        for (const term of all) term.onPreActs?.dense(step, tile);
        denseEncoderBackward(commands, model, { ...given, sums, input, grad_h: grad });
      }
    },
  });
  for (const term of all) term.afterEncoder?.(step);
  centringBackward(commands, model, { gradients, sums });
  for (const term of all) conditionally(commands, term.last?.(step));
}

function isTraining(step: Step): step is TrainingStep {
  return step.training !== undefined;
}

/** Records the sparse form of some work, or both forms, of which the GPU does one. */
function sparseOrDense(
  { commands, buffers: { f_x } }: Step,
  { entries, dense }: { readonly entries: () => void; readonly dense: (codes: DenseStep) => void },
): void {
  const half = f_x.dense;
  if (!half) return entries();
  commands.onlyIf(half.isSparse, entries);
  commands.onlyIf(half.isDense, () => dense(half));
}

function conditionally(commands: Commands, parts: Iterable<Conditional> = []): void {
  for (const { onlyIf, work } of parts) commands.onlyIf(onlyIf, work);
}
