/**
 * Laws that hold for every model and batch, as properties of the reference.
 *
 * @module
 */

import fc from "fast-check";
import { Random } from "../support/random.ts";
import { assertAtLeast, assertExact, assertFloat64Close, assertVanishes } from "../support/tolerance.ts";
import { decode, parameterNames, type Parameters } from "./model.ts";
import { decide, forward, lossAndGradients, squaredError } from "./objective.ts";
import { everyProblem, type Example, PROBLEMS } from "./problems.ts";
import { removeParallel } from "./training.ts";

const anyExample = fc.record({
  sizes: fc.record({
    B: fc.integer({ min: 1, max: 6 }),
    D: fc.integer({ min: 1, max: 7 }),
    S: fc.integer({ min: 9, max: 17 }),
  }),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
  which: fc.integer({ min: 0, max: PROBLEMS - 1 }),
}).map(({ sizes, seed, which }): Example => everyProblem(sizes, seed)[which]!);

const RUNS = { numRuns: 60, seed: 20250617 };

Deno.test("Matryoshka with one prefix is plain squared error", () => {
  fc.assert(
    fc.property(anyExample, ({ problem, p }) => {
      const one = { ...problem, prefixes: [problem.cfg.d_sae] };
      const { record } = lossAndGradients(one, p);
      const x_hat_BD = decode(record.f_BS, p.W_dec, p.b_dec, one.prefixes);
      const errors = squaredError(x_hat_BD, problem.x_BD);
      assertFloat64Close([record.loss.mse], [errors.reduce((sum, e) => sum + e, 0) / errors.length], "mse");
    }),
    RUNS,
  );
});

Deno.test("a batch stacked on itself keeps loss and gradients", () => {
  fc.assert(
    fc.property(anyExample, ({ problem, p }) => {
      const once = lossAndGradients(problem, p);
      const twice = lossAndGradients({ ...problem, x_BD: Float64Array.of(...problem.x_BD, ...problem.x_BD) }, p);
      for (const name of ["loss", "mse", "sparsity", "l0", "l1", "aux"] as const) {
        assertFloat64Close([twice.record.loss[name]], [once.record.loss[name]], name);
      }
      for (const name of parameterNames(p)) assertFloat64Close(twice.gradients[name]!, once.gradients[name]!, name);
    }),
    RUNS,
  );
});

Deno.test("an auxiliary loss with nothing dead is 0 and has no gradient", () => {
  fc.assert(
    fc.property(anyExample, ({ problem, p }) => {
      const alive = { ...problem, dead_S: new Uint8Array(problem.cfg.d_sae) };
      const cfg = { ...problem.cfg, activation: { ...problem.cfg.activation, aux: { key: "no-aux" } as const } };
      const withAux = lossAndGradients(alive, p);
      const without = lossAndGradients({ ...alive, cfg }, p);
      assertExact([withAux.record.loss.aux], [0], "aux");
      for (const name of parameterNames(p)) assertExact(withAux.gradients[name]!, without.gradients[name]!, name);
    }),
    RUNS,
  );
});

Deno.test("an auxiliary loss reaches dead latents only", () => {
  fc.assert(
    fc.property(anyExample, ({ problem, p }) => {
      const cfg = { ...problem.cfg, activation: { ...problem.cfg.activation, aux: { key: "no-aux" } as const } };
      const { gradients } = lossAndGradients(problem, p);
      const { gradients: without } = lossAndGradients({ ...problem, cfg }, p);
      const { d_model: D, d_sae: S } = problem.cfg;
      for (let s = 0; s < S; s++) {
        if (problem.dead_S[s]) continue;
        assertExact([gradients.b_enc[s]!], [without.b_enc[s]!], `b_enc[${s}]`);
        assertExact([gradients.threshold?.[s] ?? 0], [without.threshold?.[s] ?? 0], `threshold[${s}]`);
        assertExact(
          gradients.W_dec.subarray(s * D, s * D + D),
          without.W_dec.subarray(s * D, s * D + D),
          `W_dec[${s}]`,
        );
      }
      const { aux } = problem.cfg.activation;
      const reaches = aux.key === "auxk" ? aux.include_b_dec : aux.key === "pre-act" && cfg.subtract_b_dec;
      if (!reaches) assertExact(gradients.b_dec, without.b_dec, "b_dec");
    }),
    RUNS,
  );
});

Deno.test("without its parallel part, a gradient never shrinks or grows its row", () => {
  fc.assert(
    fc.property(anyExample, ({ problem, p }) => {
      const { gradients } = lossAndGradients(problem, p);
      const before_SD = gradients.W_dec.slice();
      const D = problem.cfg.d_model;
      removeParallel(gradients.W_dec, p.W_dec, D);
      assertVanishes(rowProducts(gradients.W_dec, p.W_dec, D), rowSizes(before_SD, p.W_dec, D), "⟨grad, row⟩");
      const lost = rowProducts(before_SD, before_SD, D).map((square, s) =>
        square - rowProducts(gradients.W_dec, gradients.W_dec, D)[s]!
      );
      assertAtLeast(lost, 0, rowProducts(before_SD, before_SD, D), "‖grad‖² lost");
    }),
    RUNS,
  );
});

Deno.test("permuted latents: the same codes permuted, the same reconstruction, loss and gradients", () => {
  fc.assert(
    fc.property(anyExample, fc.integer({ min: 0, max: 2 ** 31 }), ({ problem, p }, seed) => {
      const { d_model: D, d_sae: S } = problem.cfg;
      const order = new Random(seed).permutation(S);
      const one = { ...problem, prefixes: [S] };
      const permuted = { ...one, dead_S: Uint8Array.from(order, (s) => problem.dead_S[s]!) };
      const before = lossAndGradients(one, p);
      const after = lossAndGradients(permuted, permuteLatents(p, order, D));
      assertFloat64Close(after.record.x_hats_BPD, before.record.x_hats_BPD, "x_hat");
      assertFloat64Close([after.record.loss.loss], [before.record.loss.loss], "loss");
      const wanted = permuteLatents(before.gradients, order, D);
      for (const name of parameterNames(p)) assertFloat64Close(after.gradients[name]!, wanted[name]!, name);
    }),
    RUNS,
  );
});

Deno.test("summed residual blocks are the sum of separate decodes", () => {
  fc.assert(
    fc.property(anyExample, ({ problem, p }) => {
      const cfg = { ...problem.cfg, activation: { ...problem.cfg.activation, aux: { key: "no-aux" } as const } };
      const { decisions, record } = lossAndGradients({ ...problem, cfg }, p);
      const { d_sae: S } = cfg;
      const separate = problem.prefixes.map((length) => {
        const truncated = { ...decisions, mask_BS: decisions.mask_BS.map((kept, i) => i % S < length ? kept : 0) };
        return forward({ ...problem, cfg, prefixes: [S] }, p, truncated).loss.mse;
      });
      const mean = separate.reduce((sum, mse) => sum + mse, 0) / separate.length;
      assertFloat64Close([record.loss.mse], [mean], "mse");
    }),
    RUNS,
  );
});

Deno.test("the decisions of a step do not depend on its prefixes", () => {
  fc.assert(
    fc.property(anyExample, ({ problem, p }) => {
      const wanted = decide({ ...problem, prefixes: [problem.cfg.d_sae] }, p);
      const got = decide(problem, p);
      assertExact(got.mask_BS, wanted.mask_BS, "mask");
      assertExact(got.auxMask_BS, wanted.auxMask_BS, "mask of the auxiliary loss");
      assertExact(got.residual_BD, wanted.residual_BD, "residual");
    }),
    RUNS,
  );
});

function permuteLatents(p: Parameters, order: Uint32Array, D: number): Parameters {
  const S = order.length;
  return {
    W_enc: p.W_enc.map((_, i) => p.W_enc[i - i % S + order[i % S]!]!),
    b_enc: p.b_enc.map((_, s) => p.b_enc[order[s]!]!),
    W_dec: p.W_dec.map((_, i) => p.W_dec[order[Math.floor(i / D)]! * D + i % D]!),
    b_dec: p.b_dec.slice(),
    ...p.threshold && { threshold: p.threshold.map((_, s) => p.threshold![order[s]!]!) },
  };
}

function rowProducts(a_SD: Float64Array, b_SD: Float64Array, D: number): Float64Array {
  const products_S = new Float64Array(a_SD.length / D);
  for (let i = 0; i < a_SD.length; i++) products_S[Math.floor(i / D)]! += a_SD[i]! * b_SD[i]!;
  return products_S;
}

function rowSizes(a_SD: Float64Array, b_SD: Float64Array, D: number): Float64Array {
  return rowProducts(a_SD, a_SD, D).map((square, s) => Math.sqrt(square * rowProducts(b_SD, b_SD, D)[s]!));
}
