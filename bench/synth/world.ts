/**
 * A world whose features are known: how often each fires, what it depends on, and how strongly it fires.
 *
 * Features f = 0 … F − 1 are sorted by how often they fire. A row b of data is x_b = bias + Σ_f a_bf direction_f, and
 * a_bf is made in three steps:
 *
 * 1. f is proposed if a normal variable exceeds t_f: z_bf = Σ_r ε_br factor_fr + σ_f η_bf > t_f, with ε and η standard
 * normal and σ_f² = 1 − ‖factor_f‖². So z is standard normal, features correlate by a matrix of low rank, and f is
 * proposed with the probability Φ(−t_f) for any correlations.
 * 2. A proposed feature gets the strength max(mean_f + spread_f · normal, 0).
 * 3. Down the trees of the hierarchy: a child whose parent is off goes off; of the children that stay on, one drawn
 * uniformly remains; its strength is multiplied by that of its parent over the parent's mean.
 *
 * Source: SynthSAEBench (Chanin and Garriga-Alonso 2026, arXiv 2602.14687).
 *
 * @module
 */

import { RandomStream } from "../../kernels/mod.ts";

/** The configuration of a world. */
export interface WorldConfig {
  /** F. */
  readonly n_features: number;
  /** D. */
  readonly d_model: number;
  /** The i-th most frequent feature fires with a probability linear in i^−exponent, from `most` down to `least`. */
  readonly frequency: { readonly exponent: number; readonly most: number; readonly least: number };
  /** Complete trees, whose nodes are the most frequent features: all roots, then all their children, and so on. */
  readonly hierarchy: { readonly roots: number; readonly branching: number; readonly depth: number };
  /** factor_fr ~ N(0, scale²). */
  readonly correlation: { readonly rank: number; readonly scale: number };
  /** mean_f changes linearly from `first` to `last`; spread_f ~ |N(spread, spread²)|. */
  readonly strength: { readonly first: number; readonly last: number; readonly spread: number };
  /** ‖bias‖. */
  readonly bias: number;
  /** Steps of Adam, and their rate, that make the directions more orthogonal than random ones. */
  readonly orthogonalisation: { readonly steps: number; readonly lr: number };
  /** The seed of all draws. */
  readonly seed: number;
}

/** Nodes of the same depth, from the roots down; the children of their parents are contiguous. */
export interface Level {
  /** The first parent's feature. */
  readonly firstParent: number;
  /** Number of parents. */
  readonly parents: number;
  /** The first child of the first parent. */
  readonly firstChild: number;
}

/** A world's numbers, in float64. */
export interface World {
  /** Its configuration. */
  readonly cfg: WorldConfig;
  /** [F], the target frequency of each feature. */
  readonly frequency_F: Float64Array;
  /** [F], the frequency of proposals, so that the hierarchy leaves about the target. */
  readonly proposed_F: Float64Array;
  /** [F], t: Φ(−t) is `proposed`. */
  readonly threshold_F: Float64Array;
  /** [F, R] */
  readonly factor_FR: Float64Array;
  /** [F], σ. */
  readonly own_F: Float64Array;
  /** [F] */
  readonly mean_F: Float64Array;
  /** [F] */
  readonly spread_F: Float64Array;
  /** The hierarchy, from the roots down. */
  readonly levels: readonly Level[];
}

/** Streams of a world's seed and of its samples' seeds; far from the library's own. */
export const WORLD_STREAMS = {
  factors: 1000,
  spreads: 1001,
  directions: 1002,
  bias: 1003,
  common: 1004,
  proposals: 1005,
  strengths: 1006,
  siblings: 1007,
} as const;

/** The smallest σ²: a feature always keeps this much variance of its own. */
const LEAST_OWN = 0.01;
/** A threshold that every normal variable exceeds. */
const ALWAYS = -1e4;

/**
 * The parameters of a world.
 *
 * @throws {RangeError} if the hierarchy has more nodes than there are features.
 */
export function makeWorld(cfg: WorldConfig): World {
  const { n_features, correlation: { rank, scale }, strength, seed } = cfg;
  const levels = levelsOf(cfg);
  const frequency_F = frequencies(cfg);
  const proposed_F = proposals(frequency_F, levels, cfg.hierarchy.branching);
  const factors = new RandomStream(seed, WORLD_STREAMS.factors);
  const factor_FR = Float64Array.from({ length: n_features * rank }, () => scale * normal(factors));
  const own_F = new Float64Array(n_features);
  for (let f = 0; f < n_features; f++) {
    const row = factor_FR.subarray(f * rank, (f + 1) * rank);
    const squares = row.reduce((sum, value) => sum + value * value, 0);
    const shrink = Math.min(1, Math.sqrt((1 - LEAST_OWN) / squares));
    if (shrink < 1) row.forEach((value, r) => row[r] = value * shrink);
    own_F[f] = Math.sqrt(1 - squares * shrink ** 2);
  }
  const spreads = new RandomStream(seed, WORLD_STREAMS.spreads);
  const span = Math.max(1, n_features - 1);
  return {
    cfg,
    frequency_F,
    proposed_F,
    threshold_F: proposed_F.map((p) => p >= 1 ? ALWAYS : -quantile(p)),
    factor_FR,
    own_F,
    mean_F: Float64Array.from(
      { length: n_features },
      (_, f) => strength.first + (strength.last - strength.first) * f / span,
    ),
    spread_F: Float64Array.from({ length: n_features }, () => Math.abs(strength.spread * (1 + normal(spreads)))),
    levels,
  };
}

/** p_i = least + (most − least) (i^−exponent − F^−exponent) / (1 − F^−exponent), i = 1 … F. */
function frequencies({ n_features, frequency: { exponent, most, least } }: WorldConfig): Float64Array {
  const last = n_features ** -exponent;
  return Float64Array.from(
    { length: n_features },
    (_, f) => n_features === 1 ? most : least + (most - least) * ((f + 1) ** -exponent - last) / (1 - last),
  );
}

function levelsOf({ n_features, hierarchy: { roots, branching, depth } }: WorldConfig): Level[] {
  const levels: Level[] = [];
  let [firstParent, parents, firstChild] = [0, roots, roots];
  for (let level = 0; level < depth && roots > 0; level++) {
    levels.push({ firstParent, parents, firstChild });
    [firstParent, parents] = [firstChild, parents * branching];
    firstChild += parents;
  }
  if (firstChild > n_features) {
    throw new RangeError(`the hierarchy has ${firstChild} nodes, but there are ${n_features} features`);
  }
  return levels;
}

/**
 * q_c = p_c / p_parent · (1 + Σ over its siblings s of p_s / p_parent), at most 1: a child gets a chance only when its
 * parent is on, and then competes with its siblings. Roots, and features outside the trees, keep p.
 */
function proposals(frequency_F: Float64Array, levels: readonly Level[], branching: number): Float64Array {
  const proposed_F = frequency_F.slice();
  for (const { firstParent, parents, firstChild } of levels) {
    for (let parent = 0; parent < parents; parent++) {
      const p = frequency_F[firstParent + parent]!;
      const from = firstChild + parent * branching;
      const all = frequency_F.subarray(from, from + branching).reduce((sum, child) => sum + child, 0);
      for (let c = from; c < from + branching; c++) {
        proposed_F[c] = Math.min(1, frequency_F[c]! / p * (1 + (all - frequency_F[c]!) / p));
      }
    }
  }
  return proposed_F;
}

/** A standard normal number (Box and Muller 1958). */
export function normal(random: RandomStream): number {
  return Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}

/** Φ(x) = ½ + φ(x) Σ_n x^(2n+1) / (1 · 3 ⋯ (2n+1)), whose terms all have the sign of x. */
export function normalCdf(x: number): number {
  if (Math.abs(x) > 9) return x > 0 ? 1 : 0;
  let [term, sum] = [x, x];
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 2 ** -54; n++) sum += term *= x * x / (2 * n + 1);
  return 0.5 + Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI) * sum;
}

/** The x with Φ(x) = p, by bisection; 0 < p < 1. */
export function quantile(p: number): number {
  let [low, high] = [-9, 9];
  for (let halving = 0; halving < 60; halving++) {
    const middle = (low + high) / 2;
    if (normalCdf(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
