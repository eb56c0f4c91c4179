/**
 * What dictionaries have in common, against float64 loops: best matches, assignment, recurrence, shared examples.
 *
 * @module
 */

import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { rowsOf } from "../../data/mod.ts";
import { measureStability, topRows } from "../../eval/mod.ts";
import { MAX_EXACT_LATENTS, stabilityMember } from "../../eval/stability.ts";
import { DeviceError, ShapeError } from "../../kernels/engine/errors.ts";
import type { RowSource } from "../../nn/rows.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertSumClose } from "../support/tolerance.ts";

async function withRows(W_dec: Float32Array, d_model: number, device?: GPUDevice): Promise<SparseAutoencoder> {
  const d_sae = W_dec.length / d_model;
  const p = { W_enc: new Float32Array(W_dec.length), b_enc: new Float32Array(d_sae), b_dec: new Float32Array(d_model) };
  return await SparseAutoencoder.fromParameters({ d_model, d_sae, normalize_w_dec: false }, { ...p, W_dec }, {
    device: device ?? await sharedDevice(),
  });
}

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, d) => sum + value * y[d]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

const rowsIn = (W: Float32Array, D: number) =>
  Array.from({ length: W.length / D }, (_, i) => W.subarray(i * D, (i + 1) * D));

Deno.test("best matches, recurrence and their means are those of all cosines, also of dictionaries of different sizes", async () => {
  const D = 6;
  const random = new Random(1);
  const dictionaries = [40, 700, 55].map((S) => random.normal(S * D));
  const members = [];
  for (const W_dec of dictionaries) {
    using sae = await withRows(W_dec, D);
    members.push(await stabilityMember(sae));
  }
  const seen: [number, number][] = [];
  const found = await measureStability(members, { threshold: 0.8, onProgress: (...done) => seen.push(done) });
  assertEquals(seen, [[1, 3], [2, 3], [3, 3]]);
  assertEquals(found.pairs.map((pair) => pair.members), [[0, 1], [0, 2], [1, 2]]);
  const rows = dictionaries.map((W) => rowsIn(W, D));
  const counts = dictionaries.map((W) => new Float64Array(W.length / D));
  for (const pair of found.pairs) {
    const { members: [a, b], best, nearest, assignment } = pair;
    const all: number[] = [];
    for (const [side, [own, other]] of [[a, b], [b, a]].entries()) {
      const want = rows[own!]!.map((row) => Math.max(...rows[other!]!.map((next) => cosine(row, next))));
      assertSumClose(best[side]!, want, 1, D, `${own} in ${other}`);
      for (const [i, j] of nearest[side]!.entries()) {
        assertSumClose([cosine(rows[own!]![i]!, rows[other!]![j]!)], [want[i]!], 1, D);
      }
      for (const [i, value] of best[side]!.entries()) if (value >= 0.8) counts[own!]![i]! += 1 / 2;
      all.push(...best[side]!);
    }
    assertAlmostEquals(pair.mean_best, all.reduce((sum, value) => sum + value) / all.length, 1e-12);
    assertAlmostEquals(pair.share_recurring, all.filter((value) => value >= 0.8).length / all.length, 1e-12);
    const pairs = Array.from(assignment.latents).flatMap((j, i) => j < 0 ? [] : [[i, j] as const]);
    assertEquals([assignment.is_exact, pairs.length], [true, Math.min(rows[a]!.length, rows[b]!.length)]);
    assertEquals(new Set(pairs.map(([, j]) => j)).size, pairs.length);
    const mean = pairs.reduce((sum, [i, j]) => sum + cosine(rows[a]![i]!, rows[b]![j]!), 0) / pairs.length;
    assertSumClose([assignment.mean_cosine, assignment.cost], [mean, 1 - mean], 1, D);
    assertEquals(assignment.mean_jaccard, null);
  }
  for (const [at, recurrence] of found.recurrence.entries()) assertEquals([...recurrence], [...counts[at]!]);
  const flat = counts.flatMap((count) => [...count]);
  assertAlmostEquals(found.mean_recurrence, flat.reduce((sum, value) => sum + value) / flat.length, 1e-9);
  assertAlmostEquals(found.share_in_all, flat.filter((value) => value === 1).length / flat.length, 1e-12);
});

Deno.test("a permuted dictionary is found latent by latent, exactly and greedily", async () => {
  const D = 4;
  for (const S of [500, MAX_EXACT_LATENTS + 100]) {
    const W_dec = new Random(2).normal(S * D);
    const permuted = new Float32Array(S * D);
    const place = (i: number) => (i * 37 + 5) % S;
    for (let i = 0; i < S; i++) {
      permuted.set(W_dec.subarray(i * D, (i + 1) * D).map((value) => 3 * value), place(i) * D);
    }
    using a = await withRows(W_dec, D);
    using b = await withRows(permuted, D);
    const { pairs: [pair], share_in_all: shared, mean_assigned: mean } = await measureStability([
      await stabilityMember(a),
      await stabilityMember(b),
    ]);
    assertEquals(pair!.assignment.is_exact, S <= MAX_EXACT_LATENTS);
    const wrong = Array.from(pair!.assignment.latents).findIndex((j, i) => j !== place(i));
    assertEquals(wrong, -1, `latent ${wrong} of ${S}`);
    assertEquals(shared, 1);
    assertSumClose([mean], [1], 1, D);
  }
});

/** Rows of examples of three. */
function inThrees(x: Float32Array, d_model: number): RowSource {
  return { ...rowsOf(x, d_model), exampleStart: (row) => row - row % 3 };
}

Deno.test("shared examples: a model with itself has all, and each example counts once", async () => {
  const [D, S, N] = [8, 24, 300];
  const x = new Random(3).normal(N * D);
  using a = await SparseAutoencoder.create({ d_model: D, d_sae: S, activation: { key: "top-k", top_k: 3 } }, {
    seed: 1,
  });
  using b = await SparseAutoencoder.create({ d_model: D, d_sae: S, activation: { key: "top-k", top_k: 3 } }, {
    seed: 2,
  });
  const rows = inThrees(x, D);
  const [first, second] = [await stabilityMember(a, { rows, k: 5 }), await stabilityMember(b, { rows, k: 5 })];
  const { mean_jaccard: own } = await measureStability([first, first]);
  assertEquals(own, 1);
  using codes = a.encode(x);
  using dense = codes.dense();
  const f_BS = await dense.read();
  for (let s = 0; s < S; s++) {
    const examples = Array.from({ length: N / 3 }, (_, e) => {
      const value = Math.max(...[0, 1, 2].map((token) => f_BS[(3 * e + token) * S + s]!));
      return { start: 3 * e, value };
    }).filter(({ value }) => value > 0).sort((p, q) => q.value - p.value || p.start - q.start).slice(0, 5);
    assertEquals([...first.examples![s]!], examples.map(({ start }) => start).sort((p, q) => p - q));
  }
  const { pairs: [pair] } = await measureStability([first, second]);
  const indices = Array.from(pair!.assignment.latents).flatMap((j, i) => {
    const [left, right] = [first.examples![i]!, second.examples![j]!];
    const union = new Set([...left, ...right]).size;
    return union === 0 ? [] : [left.filter((start) => right.includes(start)).length / union];
  });
  assertAlmostEquals(
    pair!.assignment.mean_jaccard!,
    indices.reduce((sum, value) => sum + value) / indices.length,
    1e-12,
  );
  assert(pair!.assignment.mean_jaccard! < 1);
});

Deno.test("the strongest rows of examples are one of each, and rows without examples are their own", async () => {
  using sae = await SparseAutoencoder.create({ d_model: 4, d_sae: 6, activation: { key: "top-k", top_k: 2 } });
  const x = new Random(4).normal(60 * 4);
  const plain = await topRows(sae, rowsOf(x, 4), { k: 60 });
  const same = await topRows(sae, rowsOf(x, 4), { k: 60, oneOfExample: true });
  const grouped = await topRows(sae, inThrees(x, 4), { k: 60, oneOfExample: true });
  for (let latent = 0; latent < 6; latent++) {
    assertEquals(same.of(latent), plain.of(latent));
    const seen = new Set<number>();
    const firsts = plain.of(latent).filter(({ row }) => seen.size < seen.add(Math.floor(row / 3)).size);
    assertEquals(grouped.of(latent), firsts);
  }
});

Deno.test("what cannot be compared is refused", async () => {
  using a = await withRows(new Random(5).normal(12), 4);
  using b = await withRows(new Random(6).normal(12), 3);
  using broken = await withRows(Float32Array.of(1, 2, NaN, 4), 2);
  const device = await freshDevice();
  using far = await withRows(new Random(5).normal(12), 4, device);
  const [one, other, third] = [await stabilityMember(a), await stabilityMember(b), await stabilityMember(far)];
  await assertRejects(() => measureStability([one]), RangeError, "stability takes two models or more, found 1");
  await assertRejects(() => measureStability([one, other]), ShapeError, "model 0 has d_model 4, model 1 has 3");
  await assertRejects(() => measureStability([one, third]), DeviceError, "model 1 is on another device");
  await assertRejects(() => measureStability([one, one], { threshold: 2 }), RangeError, "from -1 to 1, found 2");
  await assertRejects(() => stabilityMember(broken), RangeError, "W_dec must be finite, found NaN in row 1");
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => measureStability([one, one], { signal }), Error, "enough");
  device.destroy();
});
