/**
 * Gated: a gate decides whether a latent fires, and a magnitude that shares its direction says how strongly (Rajamanoharan
 * et al. 2024, arXiv 2404.16014). With h = x W_enc + b_enc, whose bias is the gate's,
 *
 * m = exp(r_mag) ∘ (h − b_enc) + b_mag and f = 1[h > 0] · max(m, 0).
 *
 * The codes have no gradient through the gate. The penalty and an auxiliary reconstruction (`objectives/gate.ts`) apply
 * to max(h, 0); only their ∂gate reaches b_enc. With ∂m = ∂f where h > 0 and m > 0, and 0 elsewhere:
 *
 * - ∂h = exp(r_mag) ∘ ∂m + ∂gate, of which only ∂gate counts for b_enc
 * - ∂b_mag = Σ_b ∂m and ∂r_mag = Σ_b exp(r_mag) ∘ ∂m ∘ (h − b_enc)
 *
 * @module
 */

import type { Commands } from "../../kernels/engine/commands.ts";
import { positiveMask } from "../../kernels/elementwise.ts";
import type { TensorRows } from "../../kernels/engine/tensor.ts";
import {
  defineKernel,
  reads,
  readsAcross,
  readsOften,
  readsOnce,
  updates,
  writes,
} from "../../kernels/engine/kernel.ts";
import { appendCodes, ENTRIES_OF_LATENT, entryStarts } from "../codes.ts";
import { type AffineMaps, eachTile } from "../encode.ts";
import { type Aux, auxField, type Sparsity, sparsityField } from "../loss_terms.ts";
import type { ParameterTensors } from "../parameters.ts";
import type { ActivationKind } from "./activation.ts";

/**
 * `f = 1[h > 0] · max(exp(r_mag) (h − b_enc) + b_mag, 0)`: a gate and a magnitude of one direction, of which the penalty
 * reaches the gate alone and shrinks no code (Rajamanoharan et al. 2024, arXiv 2404.16014).
 *
 * Training adds the auxiliary loss `mean((x − max(h, 0) W_dec − b_dec)²)`, in which the decoder is a constant.
 */
export interface Gated {
  /** Discriminator. */
  readonly key: "gated";
  /** Penalty on max(h, 0). */
  readonly sparsity: Sparsity;
  /** Auxiliary loss besides that of the gate. */
  readonly aux: Aux;
}

/** Gated. */
export const GATED: ActivationKind<Gated> = {
  key: "gated",
  fields: { sparsity: sparsityField({ key: "l1-sparsity", coeff: 4e-4 }), aux: auxField("no-aux") },
  formula: () => "f = max(exp(r_mag) (h − b_enc) + b_mag, 0) where h > 0, else 0",
  parameters: [
    { name: "r_mag", shape: "each latent", inFiles: "activation.r_mag", isTrained: true, initial: () => 0 },
    { name: "b_mag", shape: "each latent", inFiles: "activation.b_mag", isTrained: true, initial: () => 0 },
  ],
  countsInPreActs: false,

  encode(commands, model, _, { input, tile, codes }) {
    eachTile(commands, model, { input, tile, n_rows: codes.n_rows }, (h, span) => {
      const size = (span.to - span.from) * codes.d_sae;
      commands.run(gatedInPlaceKernel, { size, d_sae: codes.d_sae, ...magnitudes(model.parameters), x: h });
      appendCodes(commands, codes, h, span);
    });
  },

  // Before training the magnitude is the gate's pre-activation.
  inFloat64: (_, h_BS) => h_BS.map((h) => Math.max(h, 0)),

  training: {
    path: "elementwise",
    ofPreActs: {
      isGate: true,
      window: () => 0,

      look(commands, model, { h, f }) {
        gatedRows(commands, model, h, f);
        return { values: f, threshold: undefined };
      },

      ofEntries(commands, model, { codes, preActs }) {
        const { n_rows, d_sae, row_starts: starts, indices, values } = codes;
        const capacity = values.size;
        const sizes = { n_rows, d_sae, capacity };
        commands.run(gatedEntriesKernel, {
          ...sizes,
          starts,
          indices,
          preActs,
          ...magnitudes(model.parameters),
          values,
        });
      },

      ofTile: (commands, model, { h, f }) => gatedRows(commands, model, h, f),

      entriesBackward(commands, model, _, { entries, preActs: h, grad_gate, gradients }) {
        const { codes, transposition, grad_values: grad } = entries;
        const { starts, entries: list, capacity } = transposition.columns;
        positiveMask(commands, { grad, at: codes.values, size: capacity });
        const { b_enc, r_mag } = magnitudes(model.parameters);
        for (const first of entryStarts(codes)) {
          const shared = { first, d_sae: codes.d_sae, capacity, starts, entries: list, grad };
          commands.run(magnitudeEntriesBackwardKernel, {
            ...shared,
            h,
            b_enc,
            r_mag,
            ...magnitudeGradients(gradients),
          });
          commands.run(gateEntriesBackwardKernel, {
            ...shared,
            grad_gate: grad_gate!,
            grad_b_enc: gradients.b_enc,
          });
        }
      },
    },

    denseBackward(commands, model, _, { dense: h, grad_f, grad_gate, gradients, accumulate }) {
      const rows = h.to - h.from;
      const shared = {
        rows,
        d_sae: model.cfg.d_sae,
        accumulate: Number(accumulate),
        h,
        grad: grad_f.rows(0, rows),
      };
      commands.run(magnitudeBackwardKernel, {
        ...shared,
        ...magnitudes(model.parameters),
        ...magnitudeGradients(gradients),
      });
      commands.run(gateBackwardKernel, {
        ...shared,
        grad_gate: grad_gate!.rows(0, rows),
        grad_b_enc: gradients.b_enc,
      });
    },
  },
};

/** The magnitude's inputs besides h. */
function magnitudes({ b_enc, own }: ParameterTensors) {
  return { b_enc, r_mag: own.get("r_mag")!, b_mag: own.get("b_mag")! };
}

function magnitudeGradients({ own }: ParameterTensors) {
  return { grad_r_mag: own.get("r_mag")!, grad_b_mag: own.get("b_mag")! };
}

/** f [rows, S] of h. */
function gatedRows(commands: Commands, { cfg: { d_sae }, parameters }: AffineMaps, h: TensorRows, f: TensorRows): void {
  commands.run(gatedKernel, { size: (h.to - h.from) * d_sae, d_sae, ...magnitudes(parameters), x: h, f });
}

/** WGSL: whether a gate is open, and whether a magnitude is positive; NaN counts as both, so that it propagates. */
const GATE_WGSL = `
fn is_open(h: f32) -> bool { return h > 0.0 || (bitcast<u32>(h) & 0x7fffffffu) > 0x7f800000u; }`;
const GATED_WGSL = `${GATE_WGSL}
fn gated(h: f32, b: f32, r: f32, b_mag: f32) -> f32 {
  let m = fma(exp(r), h - b, b_mag);
  return select(0.0, m, is_open(h) && !(m <= 0.0));
}`;

/** What both kernels over rows share. */
const overRows = {
  dims: ["size", "d_sae"],
  workgroup: 64,
  grid: ({ size }: { readonly size: number }) => Math.ceil(size / 256),
  cost: ({ size }: { readonly size: number }) => ({ flops: 4 * size, bytes: 8 * size }),
  declarations: GATED_WGSL,
} as const;
const ofLatents = {
  b_enc: readsAcross("f32", "d_sae", "size"),
  r_mag: readsAcross("f32", "d_sae", "size"),
  b_mag: readsAcross("f32", "d_sae", "size"),
} as const;

/** WGSL: f of every element of `from`, in `to`. */
const everyCode = (from: string, to: string): string => `
  let end = min((group + 1u) * 256u, dims.size);
  for (var i = group * 256u + lane; i < end; i += 64u) {
    let s = i % dims.d_sae;
    ${to}[i] = gated(${from}[i], b_enc[s], r_mag[s], b_mag[s]);
  }`;

const gatedKernel = defineKernel({
  name: "gated_codes",
  ...overRows,
  bindings: { x: readsOnce("f32", "size"), ...ofLatents, f: writes("f32", "size") },
  body: everyCode("x", "f"),
});

const gatedInPlaceKernel = defineKernel({
  name: "gated_codes_in_place",
  ...overRows,
  bindings: { x: updates("f32", "size"), ...ofLatents },
  body: everyCode("old_x", "x"),
});

/** f of each entry from its h. */
const gatedEntriesKernel = defineKernel({
  name: "gated_entries",
  dims: ["n_rows", "d_sae", "capacity"],
  bindings: {
    starts: reads("u32", "n_rows+1"),
    indices: readsOften("u32", "capacity"),
    preActs: readsOften("f32", "capacity"),
    b_enc: readsAcross("f32", "d_sae", "capacity"),
    r_mag: readsAcross("f32", "d_sae", "capacity"),
    b_mag: readsAcross("f32", "d_sae", "capacity"),
    values: writes("f32", "capacity"),
  },
  workgroup: 64,
  grid: ({ capacity }) => Math.ceil(capacity / 64),
  cost: ({ capacity }) => ({ flops: 4 * capacity, bytes: 24 * capacity }),
  declarations: GATED_WGSL,
  body: `
  let entry = group * 64u + lane;
  if (entry >= starts[dims.n_rows]) { return; }
  let s = indices[entry];
  values[entry] = gated(preActs[entry], b_enc[s], r_mag[s], b_mag[s]);`,
});

/** WGSL: the values that all elements of latent s share. */
const MAGNITUDE = `
  let bias = b_enc[s];
  let factor = exp(r_mag[s]);
  var by_r = 0.0;
  var by_b = 0.0;`;

/** WGSL: takes ∂m of element \`i\`, and leaves the codes' part of ∂h in the gradient. */
const magnitude = (i: string): string => `
    let by_u = by_m * factor;
    by_b += by_m;
    by_r = fma(by_u, u, by_r);
    grad[${i}] = by_u;`;

const magnitudeBackwardKernel = defineKernel({
  name: "magnitude_backward",
  dims: ["rows", "d_sae", "accumulate"],
  bindings: {
    h: readsOnce("f32", "rows d_sae"),
    b_enc: reads("f32", "d_sae"),
    r_mag: reads("f32", "d_sae"),
    b_mag: reads("f32", "d_sae"),
    grad: updates("f32", "rows d_sae"),
    grad_r_mag: writes("f32", "d_sae"),
    grad_b_mag: writes("f32", "d_sae"),
  },
  workgroup: 32,
  grid: ({ d_sae }) => Math.ceil(d_sae / 32),
  cost: ({ rows, d_sae }) => ({ flops: 7 * rows * d_sae, bytes: 12 * rows * d_sae }),
  declarations: GATE_WGSL,
  body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  ${MAGNITUDE}
  if (dims.accumulate == 1u) {
    by_r = grad_r_mag[s];
    by_b = grad_b_mag[s];
  }
  for (var row = 0u; row < dims.rows; row += 1u) {
    let i = row * dims.d_sae + s;
    let u = h[i] - bias;
    let is_code = is_open(h[i]) && !(fma(factor, u, b_mag[s]) <= 0.0);
    let by_m = select(0.0, old_grad[i], is_code);${magnitude("i")}
  }
  grad_r_mag[s] = by_r;
  grad_b_mag[s] = by_b;`,
});

const gateBackwardKernel = defineKernel({
  name: "gate_backward",
  dims: ["rows", "d_sae", "accumulate"],
  bindings: {
    h: readsOnce("f32", "rows d_sae"),
    grad_gate: readsOnce("f32", "rows d_sae"),
    grad: updates("f32", "rows d_sae"),
    grad_b_enc: writes("f32", "d_sae"),
  },
  workgroup: 32,
  grid: ({ d_sae }) => Math.ceil(d_sae / 32),
  cost: ({ rows, d_sae }) => ({ flops: 2 * rows * d_sae, bytes: 16 * rows * d_sae }),
  declarations: GATE_WGSL,
  body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  var sum = 0.0;
  if (dims.accumulate == 1u) { sum = grad_b_enc[s]; }
  for (var row = 0u; row < dims.rows; row += 1u) {
    let i = row * dims.d_sae + s;
    let by_gate = select(0.0, grad_gate[i], is_open(h[i]));
    sum += by_gate;
    grad[i] = old_grad[i] + by_gate;
  }
  grad_b_enc[s] = sum;`,
});

/** What both backward kernels over the entries of every latent share. */
const entriesOfLatents = {
  dims: ["first", "d_sae", "capacity"],
  workgroup: 32,
  grid: ({ d_sae }: { readonly d_sae: number }) => Math.ceil(d_sae / 32),
} as const;

const magnitudeEntriesBackwardKernel = defineKernel({
  name: "magnitude_entries_backward",
  ...entriesOfLatents,
  bindings: {
    starts: reads("u32", "d_sae+1"),
    entries: readsOften("u32", "capacity"),
    h: readsOften("f32", "capacity"),
    b_enc: reads("f32", "d_sae"),
    r_mag: reads("f32", "d_sae"),
    grad: updates("f32", "capacity"),
    grad_r_mag: writes("f32", "d_sae"),
    grad_b_mag: writes("f32", "d_sae"),
  },
  cost: ({ capacity }) => ({ flops: 5 * capacity, bytes: 16 * capacity }),
  body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  ${ENTRIES_OF_LATENT}
  ${MAGNITUDE}
  if (dims.first > 0u) {
    by_r = grad_r_mag[s];
    by_b = grad_b_mag[s];
  }
  for (; at < end; at += 1u) {
    let e = entries[at];
    let u = h[e] - bias;
    let by_m = old_grad[e];${magnitude("e")}
  }
  grad_r_mag[s] = by_r;
  grad_b_mag[s] = by_b;`,
});

/** The gates of entries are open. */
const gateEntriesBackwardKernel = defineKernel({
  name: "gate_entries_backward",
  ...entriesOfLatents,
  bindings: {
    starts: reads("u32", "d_sae+1"),
    entries: readsOften("u32", "capacity"),
    grad_gate: readsOften("f32", "capacity"),
    grad: updates("f32", "capacity"),
    grad_b_enc: writes("f32", "d_sae"),
  },
  cost: ({ capacity }) => ({ flops: 2 * capacity, bytes: 16 * capacity }),
  body: `
  let s = group * 32u + lane;
  if (s >= dims.d_sae) { return; }
  ${ENTRIES_OF_LATENT}
  var sum = 0.0;
  if (dims.first > 0u) { sum = grad_b_enc[s]; }
  for (; at < end; at += 1u) {
    let e = entries[at];
    sum += grad_gate[e];
    grad[e] = old_grad[e] + grad_gate[e];
  }
  grad_b_enc[s] = sum;`,
});
