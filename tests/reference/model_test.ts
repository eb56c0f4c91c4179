/**
 * The reference against values worked out by hand: selection and its ties, prefixes, both encoders, unit rows, metrics.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { completeConfig } from "../../nn/config.ts";
import { assertFloat64Close } from "../support/tolerance.ts";
import { largestCosines, metrics, monosemanticity } from "./metrics.ts";
import { activate, decode, encode, largest, select, standardise, unstandardise } from "./model.ts";
import { countSinceActive, dead } from "./objective.ts";
import { clip, initBDec, learningRate, normalizeRows, removeParallel, warmup } from "./training.ts";

Deno.test("largest: by value, then by lowest index", () => {
  assertEquals(largest([1, 5, 3, 4], 2), [1, 3]);
  assertEquals(largest([2, 2, 2, 2], 3), [0, 1, 2]);
  assertEquals(largest([-3, -1, -2], 2), [1, 2]);
  assertEquals(largest([1, 7], 5), [0, 1]);
  assertEquals(largest([Infinity, -Infinity, Infinity, 0], 3), [0, 2, 3]);
});

Deno.test("largest: −0 and +0 are a tie", () => {
  assertEquals(largest([-0, 0, -0], 1), [0]);
  assertEquals(largest([-1, -0, 0], 1), [1]);
});

Deno.test("largest: only the eligible, and never NaN", () => {
  assertEquals(largest([9, 1, 2, 3], 2, [0, 1, 1, 1]), [2, 3]);
  assertEquals(largest([9, 1], 2, [0, 0]), []);
  assertThrows(() => largest([1, NaN], 1), RangeError, "[1] is NaN");
});

Deno.test("activations: what is kept, and +0 elsewhere", () => {
  const h_BS = Float64Array.of(-1, 2, 0, -3, -2, -5);
  const relu = completeConfig({ activation: { key: "relu" } }).activation;
  const topK = completeConfig({ activation: { key: "top-k", top_k: 2 } }).activation;
  assertEquals([...activate(h_BS, select(relu, h_BS, 3))], [0, 2, 0, 0, 0, 0]);
  assertEquals([...activate(h_BS, select(topK, h_BS, 3))], [0, 2, 0, -3, -2, 0]);
});

Deno.test("encode: b_dec is subtracted where the configuration says so", () => {
  const p = {
    W_enc: Float64Array.of(1, 2, 3, 4, 5, 6),
    b_enc: Float64Array.of(10, 20, 30),
    W_dec: new Float64Array(6),
    b_dec: Float64Array.of(1, -1),
  };
  const x_BD = Float64Array.of(2, 3);
  const cfg = completeConfig({ d_model: 2, d_sae: 3 });
  assertEquals([...encode(cfg, p, x_BD)], [2 + 12 + 10, 4 + 15 + 20, 6 + 18 + 30]);
  assertEquals([...encode({ ...cfg, subtract_b_dec: true }, p, x_BD)], [1 + 16 + 10, 2 + 20 + 20, 3 + 24 + 30]);
});

Deno.test("decode: prefixes sum up, the bias once", () => {
  const W_dec_SD = Float64Array.of(1, 0, 0, 1, 2, 2);
  const x_hats_BPD = decode(Float64Array.of(3, 4, 5), W_dec_SD, Float64Array.of(100, 200), [1, 3]);
  assertEquals([...x_hats_BPD], [103, 200, 113, 214]);
});

Deno.test("dead latents: any code that is not 0 wakes, and the threshold itself is dead", () => {
  const f_BS = Float64Array.of(0, -1, 0, 0, 0, 0);
  const counters_S = countSinceActive([8, 8, 7], f_BS);
  assertEquals([...counters_S], [10, 0, 9]);
  assertEquals([...dead(counters_S, 10)], [1, 0, 0]);
});

Deno.test("unit rows: a zero row stays zero", () => {
  const W_dec_SD = Float64Array.of(3, 4, 0, 0);
  normalizeRows(W_dec_SD, 2);
  assertEquals([...W_dec_SD], [0.6, 0.8, 0, 0]);
});

Deno.test("parallel part: divided by the square of the row, zero rows untouched", () => {
  const grad_W_dec_SD = Float64Array.of(1, 1, 7, 8);
  removeParallel(grad_W_dec_SD, Float64Array.of(2, 0, 0, 0), 2);
  assertEquals([...grad_W_dec_SD], [0, 1, 7, 8]);
});

Deno.test("clip: the norm over all parameters, and never upwards", () => {
  const gradients = () => ({
    W_enc: Float64Array.of(2),
    b_enc: Float64Array.of(4),
    W_dec: Float64Array.of(5),
    b_dec: Float64Array.of(6),
  });
  const small = gradients();
  assertEquals(clip(small, 100), 9);
  assertEquals(small, gradients());
  const large = gradients();
  assertEquals(clip(large, 3), 9);
  assertFloat64Close(large.b_dec, [6 * 3 / (9 + 1e-6)]);
});

Deno.test("learning rate: 0 at the first step, with or without a warm-up", () => {
  assertEquals([0, 1, 2].map((step) => learningRate((k) => warmup(0, 1, 0, k), step)), [0, 1, 1]);
  assertEquals([0, 1, 2].map((step) => learningRate((k) => warmup(0, 1, 2, k), step)), [0, 0.5, 1]);
});

Deno.test("initBDec: the mean row", () => {
  const p = { W_enc: new Float64Array(2), b_enc: new Float64Array(1), W_dec: new Float64Array(2) };
  assertEquals([...initBDec({ ...p, b_dec: Float64Array.of(9, 9) }, Float64Array.of(1, 2, 3, 6)).b_dec], [2, 4]);
});

Deno.test("standardisation: there and back", () => {
  const mean_D = [1, 10];
  const standard = standardise([3, 14, -1, 6], mean_D, 2);
  assertEquals([...standard], [1, 2, -1, -2]);
  assertEquals([...unstandardise(standard, mean_D, 2)], [3, 14, -1, 6]);
});

Deno.test("metrics: the mean has an nmse of 1, the truth of 0", () => {
  const x_ND = Float64Array.of(1, 0, 3, 4);
  const f_NS = Float64Array.of(1, 0, 0, -2, 0, 0);
  const { cosine, norm_ratio: ratio, ...atMean } = metrics(x_ND, Float64Array.of(2, 2, 2, 2), f_NS, 2);
  assertEquals(atMean, {
    n_rows: 2,
    mse: (1 + 4 + 1 + 4) / 4,
    nmse: 1,
    explained_variance: 0,
    reconstruction_bias: (8 + 8) / (2 + 14),
    l0: 1,
    l1: 1.5,
    n_dead: 2,
    dead_fraction: 2 / 3,
    n_almost_dead: 2,
    n_dense: 1,
    density: Float64Array.of(1, 0, 0),
    histogram: new Array<number>(32).fill(0).with(31, 1),
  });
  const length = Math.sqrt(8);
  assertFloat64Close([cosine, ratio], [(2 / length + 14 / length / 5) / 2, (length + length / 5) / 2]);
  const perfect = metrics(x_ND, x_ND, f_NS, 2);
  assertEquals([perfect.nmse, perfect.explained_variance, perfect.norm_ratio, perfect.reconstruction_bias], [
    0,
    1,
    1,
    1,
  ]);
});

Deno.test("monosemanticity: rows that are alike, opposite, at right angles, and no pair at all", () => {
  const embeddings_NE = Float64Array.of(3, 0, 5, 0, 0, 2, -1, 0);
  const f_NS = Float64Array.of(
    ...[1, 1, 0, 0, 7, 1, -1],
    ...[4, 0, 0, 0, 7, 1, 0],
    ...[0, 0, 2, 0, 7, 1, -1],
    ...[0, 3, 0, 9, 7, 2, -1],
  );
  assertEquals(monosemanticity(f_NS, embeddings_NE, 7), Float64Array.of(1, -1, NaN, NaN, NaN, NaN, NaN));
  // a = 1, ½, ½ with the cosines 1, 0 and 0.
  assertEquals(monosemanticity(Float64Array.of(2, 1, 1, 0), embeddings_NE, 1), Float64Array.of(0.5 / 1.25));
  // The same, the least being 5; a row without an embedding says nothing.
  const more = Float64Array.of(...embeddings_NE, 0, 0);
  assertEquals(monosemanticity(Float64Array.of(7, 6, 6, 5, -9), more, 1), Float64Array.of(0.5 / 1.25));
});

Deno.test("cosines: of the nearest other row, either way", () => {
  const W_dec_SD = Float64Array.of(2, 0, 0, 3, -4, 0, 0, 0, 3, 4);
  assertEquals(largestCosines(W_dec_SD, 2), Float64Array.of(1, 0.8, 1, 0, 0.8));
});
