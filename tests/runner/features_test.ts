/**
 * What is measured of features, against all codes written out; that a stopped run continues to the same numbers; and what
 * is refused.
 *
 * @module
 */

import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { rowsOf } from "../../data/mod.ts";
import { classScores, purity } from "../../eval/class_scores.ts";
import type { FeaturesFile } from "../../eval/feature_file.ts";
import { evaluate, nearestLatents, openFeatures } from "../../eval/mod.ts";
import { SparseAutoencoder } from "../../mod.ts";
import type { FeaturesPlan, FeatureStage } from "../../runner/feature_plan.ts";
import { writeFeaturePage } from "../../runner/feature_page.ts";
import { makeFeatures } from "../../runner/features.ts";
import { Random } from "../support/random.ts";

const GRID = { height: 2, width: 3 };
const PATCHES = 6;
const [N_IMAGES, D, S] = [700, 8, 40];
/** Images differ in their class's direction, so that some latents tell classes apart. */
const LABELS = Array.from({ length: N_IMAGES }, (_, image) => image % 3);
const X = new Random(1).normal(N_IMAGES * PATCHES * D).map((value, i) => {
  const image = Math.floor(i / (PATCHES * D));
  return value + (i % D === LABELS[image]! ? 2 : 0);
});
const PATCH_LABELS = Uint8Array.from({ length: N_IMAGES * PATCHES }, (_, row) => [0, 7, 9][row % 3]!);

const sae = await SparseAutoencoder.create({ d_model: D, d_sae: S, activation: { key: "top-k", top_k: 3 } }, {
  seed: 4,
});
const PLAN: Omit<FeaturesPlan, "out"> = {
  sae,
  modelName: "sae.pt",
  rows: rowsOf(X, D),
  dataName: "shards",
  grid: GRID,
  images: {
    paths: LABELS.map((label, image) => `${label}/${image}.jpg`),
    classes: { names: ["ant", "bee", "cat"], labels: LABELS },
    thumbnail: (image) => Promise.resolve(new TextEncoder().encode(`image ${image}`)),
  },
  patchLabels: PATCH_LABELS,
  selection: { by: "all" },
  annotations: [
    { latent: 7, name: "older", tags: [], verdict: "", note: "" },
    { latent: 3, name: "ants", tags: ["animal"], verdict: "interpretable", note: "" },
    { latent: 7, name: "bees", tags: [], verdict: "mixed", note: "wings" },
  ],
  stability: {
    recurrence: Array.from({ length: S }, (_, s) => s / S),
    summary: { n_others: 4, threshold: 0.7, mean_recurrence: [0.5, 0.1] },
  },
  counts: { n_top: 5, n_quantiles: 4, n_counter: 2 },
};

interface Made {
  readonly file: FeaturesFile;
  readonly heat: readonly (readonly Uint8Array[])[];
}

async function made(
  plan: FeaturesPlan,
  signal?: AbortSignal,
  stopAt?: [FeatureStage, number, AbortController],
): Promise<Made> {
  let result: Made | undefined;
  await makeFeatures(plan, {
    ...stopAt && { noteMs: 0 },
    ...signal && { signal },
    onProgress: (stage, done) => {
      if (stopAt && stage === stopAt[0] && done >= stopAt[1]) stopAt[2].abort(new Error("enough"));
    },
  }, ({ file, heat }) => {
    result = { file, heat: file.latents.map((_, at) => heat(at)) };
    return Promise.resolve();
  });
  return result!;
}

/** All codes: [rows, S]. */
async function codesOf(): Promise<Float32Array> {
  using codes = sae.encode(X);
  using dense = codes.dense();
  return await dense.read();
}

Deno.test("every number of a feature is that of all codes written out", async () => {
  const out = await Deno.makeTempDir();
  const { file, heat } = await made({ ...PLAN, out });
  const f_NS = await codesOf();
  const at = (row: number, s: number): number => Math.max(0, f_NS[row * S + s]!);
  const rows = Array.from({ length: N_IMAGES * PATCHES }, (_, row) => row);
  const alive = Array.from({ length: S }, (_, s) => s).filter((s) => rows.some((row) => at(row, s) > 0));
  assertEquals(file.latents.map(({ latent }) => latent), alive);
  assertEquals(file.annotations.map(({ latent, name }) => [latent, name]), [[3, "ants"], [7, "bees"]]);
  assertEquals([file.n_dead, file.mask_classes, file.data.n_rows], [S - alive.length, [0, 7, 9], N_IMAGES * PATCHES]);
  const { monosemanticity } = await evaluate(sae, rowsOf(X, D), { monosemanticity: true });
  const classSizes = [0, 1, 2].map((c) => LABELS.filter((label) => label === c).length);
  for (const [place, record] of file.latents.entries()) {
    const s = record.latent;
    const firing = rows.filter((row) => at(row, s) > 0);
    const values = firing.map((row) => at(row, s));
    const sum = values.reduce((total, value) => total + value, 0);
    assertEquals([record.n_rows, record.density], [firing.length, firing.length / rows.length]);
    assertAlmostEquals(record.mean, sum / firing.length, 1e-9);
    assertEquals([record.max, record.recurrence], [Math.max(...values), s / S]);
    assertAlmostEquals(record.monosemanticity!, monosemanticity.per_latent[s]!, 1e-12);
    const binOf = (value: number): number => Math.floor(2 * Math.log2(value));
    const { first, counts } = record.histogram;
    assertEquals(counts, counts.map((_, i) => values.filter((value) => binOf(value) === first + i).length));
    assertEquals(counts.reduce((total, n) => total + n, 0), firing.length);
    // Of each image the largest activation.
    const pooled = Array.from(
      { length: N_IMAGES },
      (_, image) => Math.max(...Array.from({ length: PATCHES }, (_, patch) => at(image * PATCHES + patch, s))),
    );
    const order = [...pooled.keys()].filter((image) => pooled[image]! > 0)
      .sort((a, b) => pooled[b]! - pooled[a]! || a - b);
    assertEquals(record.n_images, order.length);
    const examples = record.examples.map(({ image, ...example }) => ({
      ...example,
      image: file.images[image]!.example,
    }));
    const ofKind = (kind: string) => examples.filter((example) => example.kind === kind);
    assertEquals(ofKind("top").map(({ image }) => image), order.slice(0, 5));
    const others = order.length - Math.min(5, order.length);
    for (const { image, quantile } of ofKind("quantile")) {
      assert(order.indexOf(image) >= 5);
      assertEquals(quantile, (order.length - 1 - order.indexOf(image)) / order.length);
    }
    assertEquals(new Set(ofKind("quantile").map(({ image }) => image)).size, Math.min(4, others));
    const best = record.classes![0]!.class;
    for (const { image } of ofKind("counter")) assertEquals([pooled[image], LABELS[image]], [0, best]);
    const scores = classScores(order.map((image) => pooled[image]!), order.map((image) => LABELS[image]!), classSizes);
    assertEquals(
      record.classes!.map(({ class: c, auroc }) => [c, auroc]).toSorted(),
      scores.map(({ auroc }, c) => [c, auroc]),
    );
    assertEquals(best, scores.findIndex(({ auroc }) => auroc === Math.max(...scores.map((score) => score.auroc))));
    assertEquals(record.purity_at_16, purity(order.slice(0, 16).map((image) => LABELS[image]!)));
    for (const { class: label, share } of record.masks!) {
      const inside = firing.filter((row) => PATCH_LABELS[row] === label).reduce((total, row) => total + at(row, s), 0);
      assertAlmostEquals(share, inside / sum, 1e-9);
    }
    const near = await nearestLatents(sae, s, 8);
    assertEquals(record.nearest.map(({ latent }) => latent), near.map(({ latent }) => latent));
    // What fires on its strongest rows.
    const strongest = firing.toSorted((a, b) => at(b, s) - at(a, s) || a - b).slice(0, 256);
    const shares = Array.from(
      { length: S },
      (_, other) => other === s ? 0 : strongest.filter((row) => at(row, other) > 0).length / strongest.length,
    );
    for (const { latent, share } of record.together) assertEquals(share, shares[latent]);
    const wanted = shares.toSorted((a, b) => b - a).slice(0, 8).filter((share) => share > 0);
    assertEquals(record.together.map(({ share }) => share), wanted);
    for (const [i, { image, patch, value, kind }] of examples.entries()) {
      const map = Array.from({ length: PATCHES }, (_, p) => at(image * PATCHES + p, s));
      const bytes = map.map((f) => f === 0 ? 0 : Math.max(1, Math.round(255 * f / record.max)));
      assertEquals([...heat[place]![i]!], bytes);
      assertEquals([value, kind === "counter" ? 0 : map[patch]], [Math.max(...map), Math.max(...map)]);
    }
  }
  for (const { example, file: name, path, class: label } of file.images) {
    assertEquals(await Deno.readTextFile(`${out}/${name}`), `image ${example}`);
    assertEquals([path, label], [`${LABELS[example]}/${example}.jpg`, LABELS[example]!]);
  }
  const names = await Array.fromAsync(Deno.readDir(out), ({ name }) => name);
  assert(!names.includes("partial"), "what was noted on the way is removed");
  await Deno.remove(out, { recursive: true });
});

Deno.test("stopped in either pass and asked for again, it continues to the same numbers", async () => {
  const whole = await Deno.makeTempDir();
  const wanted = await made({ ...PLAN, out: whole });
  for (const stage of ["encoding", "drawing"] as const) {
    const out = await Deno.makeTempDir();
    const aborter = new AbortController();
    await assertRejects(() => made({ ...PLAN, out }, aborter.signal, [stage, 341, aborter]), Error, "enough");
    const seen: [string, number][] = [];
    let again: Made | undefined;
    await makeFeatures({ ...PLAN, out }, { onProgress: (...given) => seen.push([given[0], given[1]]) }, (result) => {
      again = { file: result.file, heat: result.file.latents.map((_, at) => result.heat(at)) };
      return Promise.resolve();
    });
    const start = seen.find(([name]) => name === stage)![1];
    assert(start >= 341, `${stage} continued from ${start}`);
    assertEquals(again, wanted);
    await Deno.remove(out, { recursive: true });
  }
  await Deno.remove(whole, { recursive: true });
});

Deno.test("without classes, counter-examples are silent images near the strongest ones", async () => {
  const out = await Deno.makeTempDir();
  const images = { ...PLAN.images, classes: null };
  const { file } = await made({ ...PLAN, images, patchLabels: null, selection: { by: "density", n: 6 }, out });
  assertEquals([file.latents.length, file.classes, file.mask_classes], [6, null, null]);
  const f_NS = await codesOf();
  const means = Array.from({ length: N_IMAGES }, (_, image) => {
    const mean = Array.from({ length: D }, (_, d) => {
      let sum = 0;
      for (let p = 0; p < PATCHES; p++) sum += X[(image * PATCHES + p) * D + d]!;
      return sum;
    });
    const norm = Math.hypot(...mean);
    return mean.map((value) => value / norm);
  });
  for (const { latent, examples, classes, purity_at_16: pure, masks } of file.latents) {
    assertEquals([classes, pure, masks], [null, null, null]);
    const top = examples.filter(({ kind }) => kind === "top").map(({ image }) => file.images[image]!.example);
    const query = Array.from({ length: D }, (_, d) => top.reduce((sum, image) => sum + means[image]![d]!, 0));
    const near = (image: number): number => means[image]!.reduce((sum, value, d) => sum + value * query[d]!, 0);
    const silent = Array.from({ length: N_IMAGES }, (_, image) => image).filter((image) =>
      Array.from({ length: PATCHES }, (_, p) => f_NS[(image * PATCHES + p) * S + latent]!).every((f) => f <= 0)
    );
    const counters = examples.filter(({ kind }) => kind === "counter").map(({ image }) => file.images[image]!.example);
    assertEquals(counters, silent.toSorted((a, b) => near(b) - near(a)).slice(0, 2));
  }
  await Deno.remove(out, { recursive: true });
});

Deno.test("what is written anew removes what it replaces, and nothing of the user's", async () => {
  const out = await Deno.makeTempDir();
  const plan = { ...PLAN, out };
  await makeFeatures(plan, {}, (result) => writeFeaturePage(out, result));
  const images = async () => (await Array.fromAsync(Deno.readDir(`${out}/images`), ({ name }) => name)).sort();
  const before = await images();
  await Deno.writeTextFile(`${out}/annotations.json`, "{}");
  await Deno.writeTextFile(`${out}/images/map.svg`, "mine");
  const few: FeaturesPlan = { ...plan, selection: { by: "max", n: 1 } };
  await makeFeatures(few, {}, (result) => writeFeaturePage(out, result));
  const after = await images();
  assert(after.length < before.length && after.includes("map.svg"));
  assertEquals(await Deno.readTextFile(`${out}/annotations.json`), "{}");
  assertEquals((await openFeatures(out)).file.latents.length, 1);
  await Deno.remove(out, { recursive: true });
});

Deno.test("classes of a few images alone are never the best", async () => {
  const out = await Deno.makeTempDir();
  const labels = LABELS.map((label, image) => image < 3 ? 3 : label);
  const classes = { names: ["ant", "bee", "cat", "dog"], labels };
  const { file } = await made({ ...PLAN, images: { ...PLAN.images, classes }, out });
  for (const record of file.latents) assertEquals(record.classes!.map(({ class: c }) => c).toSorted(), [0, 1, 2]);
  await Deno.remove(out, { recursive: true });
});

Deno.test("latents are chosen by number and by what they have most of", async () => {
  const folder = await Deno.makeTempDir();
  let folders = 0;
  const chosen = (changes: Partial<FeaturesPlan>) => made({ ...PLAN, ...changes, out: `${folder}/${folders++}` });
  const all = (await chosen({})).file.latents;
  const numbers = (latents: FeaturesFile["latents"]) => latents.map(({ latent }) => latent);
  const [a, b] = [all[9]!.latent, all[2]!.latent];
  const listed = await chosen({ selection: { by: "list", latents: [a, b, a] } });
  assertEquals(listed.file.latents.map(({ latent, max }) => [latent, max]), [[b, all[2]!.max], [a, all[9]!.max]]);
  const bests = {
    density: (record: FeaturesFile["latents"][number]) => record.density,
    max: (record: FeaturesFile["latents"][number]) => record.max,
    auroc: (record: FeaturesFile["latents"][number]) => record.classes![0]!.auroc,
    monosemanticity: (record: FeaturesFile["latents"][number]) => record.monosemanticity!,
  } as const;
  for (const [by, of] of Object.entries(bests)) {
    const { file } = await chosen({ selection: { by: by as keyof typeof bests, n: 4 } });
    const wanted = numbers(all.toSorted((p, q) => of(q) - of(p)).slice(0, 4)).sort((p, q) => p - q);
    assertEquals(numbers(file.latents), wanted, by);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("what cannot be shown is refused", async () => {
  const out = await Deno.makeTempDir();
  const refused = (changes: Partial<FeaturesPlan>, message: string) =>
    assertRejects(() => made({ ...PLAN, ...changes, out }), RangeError, message);
  await refused({ grid: { height: 2, width: 2 } }, "expected 4 patches for each of 700 images, 2800 rows");
  await refused({ patchLabels: PATCH_LABELS.subarray(1) }, "a label for each of 4200 patches, found 4199");
  const stability = { ...PLAN.stability!, recurrence: [1] };
  await refused({ stability }, "expected the recurrence of 40 latents, found that of 1");
  await refused({ selection: { by: "list", latents: [40] } }, "there is no latent 40; expected integers from 0 to 39");
  await refused(
    { images: { ...PLAN.images, classes: null }, selection: { by: "auroc", n: 3 } },
    "latents cannot be chosen by AUROC: that takes images of two classes or more",
  );
  await Deno.remove(out, { recursive: true });
  // A folder of the user's own with names like ours keeps its files.
  await Deno.mkdir(`${out}/images`, { recursive: true });
  await Deno.writeTextFile(`${out}/images/000001.jpg`, "mine");
  await refused({}, "holds images, which saev features has not written; expected an empty folder");
  assertEquals(await Deno.readTextFile(`${out}/images/000001.jpg`), "mine");
  await Deno.writeTextFile(`${out}/features.json`, "{}");
  await Deno.writeTextFile(`${out}/thesis.tex`, "");
  await refused({}, "holds thesis.tex, which saev features has not written");
  await Deno.remove(out, { recursive: true });
});
