/** `io/checkpoints/write.ts`, `io/checkpoints/inspect.ts` and `io/fold.ts`: every kind of model through every format. @module */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { readCheckpoint } from "../../../io/checkpoints/checkpoint.ts";
import { disk } from "../../../io/disk.ts";
import { CheckpointError } from "../../../io/errors.ts";
import { inspectCheckpoint, type Inspection } from "../../../io/checkpoints/inspect.ts";
import { rowNorms } from "../../../io/checkpoints/foreign.ts";
import { formatCheckpoint } from "../../../io/checkpoints/saev_writer.ts";
import { TARGET_FORMATS } from "../../../io/checkpoints/formats.ts";
import { formatModel, type FormattedModel, writeCheckpoint } from "../../../io/checkpoints/write.ts";
import { readModel, recogniseFiles } from "../../../io/checkpoints/recognised_files.ts";
import type { ParsedCheckpoint } from "../../../io/model.ts";
import { isFloatType } from "../../../io/numbers.ts";
import { joinBytes } from "../../../io/source.ts";
import { Random } from "../../support/random.ts";
import { assertRefuses, assertTensorClose } from "../../support/tolerance.ts";
import { randomModel } from "../models.ts";
import { pickle, unicode } from "../raw_pickle.ts";
import { rawZip, utf8 } from "../raw_zip.ts";
import { compute, modelsOfEveryKind } from "./compute.ts";
import { goldenCase, goldenFiles, goldenUrl, memoryFiles } from "./golden_files.ts";

const MODELS = modelsOfEveryKind();
const x = new Random(3).normal(8 * 5);

/** The files as a folder, or as one file. */
function filesOf({ files }: FormattedModel) {
  const joined = new Map([...files].map(([name, pieces]) => [name || "model", joinBytes(pieces)]));
  return memoryFiles(joined, files.has("") ? "model" : null);
}

/** Whether the format computes all that the model does. */
function isExact(format: string, { cfg: { activation } }: ParsedCheckpoint): boolean {
  if (format === "saev_nn") return true;
  if (format === "saev") {
    const isOurs = activation.key === "jump-relu" || activation.key === "gated";
    return !isOurs && !(activation.key === "top-k" && activation.relu);
  }
  return activation.key !== "top-k" || activation.relu;
}

/** Whether the format has the model's encoder formula. */
function isPlaceOf(format: string, { subtract_b_dec, activation }: ParsedCheckpoint["cfg"]): boolean {
  if (format === "saev") return !subtract_b_dec;
  const either = format === "saelens" || activation.key === "relu";
  return either || subtract_b_dec === (activation.key !== "jump-relu");
}

for (const format of TARGET_FORMATS.filter((format) => !format.startsWith("onnx"))) {
  Deno.test(`${format}: what is written reads back as the same function`, async () => {
    for (const [name, model] of MODELS) {
      if (!isExact(format, model)) continue;
      const written = formatModel(model, { format });
      assertEquals(written.lost, []);
      // Nothing is folded exactly where the same configuration and bits come back.
      const { cfg, input: { mean, scale } } = model;
      const standardises = (mean?.some((element) => element !== 0) ?? false) || scale !== 1;
      const hasPlace = format === "saev_nn" || !standardises && isPlaceOf(format, cfg);
      assertEquals(written.folded.length === 0, hasPlace, `${name}: folded ${written.folded}`);
      const again = await readCheckpoint(filesOf(written));
      const [want, got] = [compute(model, x), compute(again, x)];
      assertTensorClose(got.codes, want.codes, `${name} codes`);
      assertTensorClose(got.x_hat, want.x_hat, `${name} x_hat`);
      assertEquals(formatModel(model, { format }), written, `${name} twice`);
    }
  });
}

Deno.test("a comparison of functions notices another one", async () => {
  const model = MODELS.get("jump_relu_scaled")!;
  const threshold = model.parameters.threshold!.map((value, s) => s === 0 ? value + 5 : value);
  const other = compute({ ...model, parameters: { ...model.parameters, threshold } }, x);
  await assertRefuses(() => assertTensorClose(other.codes, compute(model, x).codes));
});

Deno.test("what a format computes differently is refused, or said and done", async () => {
  for (const format of ["saelens", "dictionary_learning"] as const) {
    const model = MODELS.get("top_k_negative_subtracts")!;
    assertThrows(() => formatModel(model, { format }), CheckpointError, "sets them to 0");
    const written = formatModel(model, { format, lossy: true });
    assertEquals(written.lost.length, 1);
    const again = await readCheckpoint(filesOf(written));
    assertTensorClose(compute(again, x).codes, compute(model, x).codes.map((code) => Math.max(code, 0)));
  }
  const top_k = MODELS.get("top_k_scaled")!;
  assertThrows(() => formatModel(top_k, { format: "saev" }), CheckpointError, "Python keeps negative pre-activations");
  assertEquals(formatModel(top_k, { format: "saev", lossy: true }).lost.length, 1);
  for (const lossy of [false, true]) {
    assertThrows(
      () => formatModel(MODELS.get("jump_relu")!, { format: "saev", lossy }),
      CheckpointError,
      "Python saev has no jump-relu activation; use the format saev_nn, which keeps it",
    );
  }
});

Deno.test("something is lost where an input shows it, and perhaps where none of many does", async () => {
  const k = 3;
  const options = { d_model: 4, d_sae: 40, activation: { key: "top-k", top_k: k } } as const;
  const { parameters, ...model } = randomModel(options);
  // Each column stands there with its opposite, so that half of the latents are active, whatever the input.
  const W_enc = parameters.W_enc.map((_, i) => parameters.W_enc[i - i % 2]! * (i % 2 === 0 ? 1 : -1));
  const paired = { ...model, parameters: { ...parameters, W_enc, b_enc: new Float32Array(40) } };
  for (const format of ["saelens", "dictionary_learning"] as const) {
    const { lost, perhapsLost } = formatModel(paired, { format, lossy: true });
    assertEquals([lost.length, perhapsLost.length], [0, 1]);
    assert(perhapsLost[0]!.includes("each of the 2048 inputs tried has k = 3"), perhapsLost[0]);
  }
  // At the middle all are negative; in the golden file three are not, somewhere.
  const [below, golden] = [
    { ...paired, parameters: { ...paired.parameters, b_enc: new Float32Array(40).fill(-1) } },
    await readCheckpoint(new URL("../../goldens/checkpoints/schema5_float16.pt", import.meta.url)),
  ];
  for (const lossy of [below, golden]) {
    const { lost, perhapsLost } = formatModel(lossy, { format: "saelens", lossy: true });
    assertEquals([lost.length, perhapsLost.length], [1, 0]);
    assert(/at least one input has only \d+ that are not negative, and k is \d$/.test(lost[0]!), lost[0]);
  }
  const all = { ...paired, cfg: { ...paired.cfg, activation: { ...paired.cfg.activation, top_k: 1000 } } };
  assertEquals(formatModel(all as ParsedCheckpoint, { format: "saelens", lossy: true }).lost.length, 1);
});

Deno.test("saev has two schemas, and no other format has any", async () => {
  const model = randomModel({ d_model: 5, d_sae: 10, activation: { key: "relu" }, subtract_b_dec: true });
  for (
    const [schema, header, folded] of [[undefined, 5, ["subtract_b_dec"]], [5, 5, ["subtract_b_dec"]], [
      1,
      1,
      [],
    ]] as const
  ) {
    const written = formatModel(model, { format: "saev", ...schema && { schema } });
    assertEquals<readonly string[]>(written.folded, folded);
    assertEquals((await inspectCheckpoint(joinBytes(written.files.get("")!))).schema, String(header));
  }
  const other = MODELS.get("top_k_negative")!;
  assertThrows(() => formatModel(other, { format: "saev", schema: 1 }), CheckpointError, "is top-k instead of relu");
  assertThrows(
    () => formatModel(model, { format: "saelens", schema: 5 }),
    RangeError,
    "only the format saev takes a schema",
  );
});

Deno.test("no model with a wrong size or number is written", () => {
  const model = MODELS.get("relu")!;
  const W_enc = model.parameters.W_enc.slice();
  W_enc[3] = NaN;
  for (const format of TARGET_FORMATS) {
    const nan = { ...model, parameters: { ...model.parameters, W_enc } };
    assertThrows(() => formatModel(nan, { format }), CheckpointError, "W_enc is NaN at element 3");
    const short = { ...model, parameters: { ...model.parameters, b_dec: new Float32Array(4) } };
    assertThrows(() => formatModel(short, { format }), CheckpointError, "b_dec has 4 elements; expected [5]");
  }
});

Deno.test("files are written where they are asked for", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const model = MODELS.get("batch_top_k_subtracts_scaled")!;
    for (const to of [`${folder}/a/b`, new URL(`file://${folder}/c`)]) {
      const { paths } = await writeCheckpoint(to, model, { format: "saelens" });
      assertEquals(paths.map((path) => path.slice(path.lastIndexOf("/") + 1)), ["cfg.json", "sae_weights.safetensors"]);
      const again = await readCheckpoint(to);
      assertTensorClose(compute(again, x).x_hat, compute(model, x).x_hat);
    }
    const refused = MODELS.get("top_k_negative")!;
    await assertRejects(() => writeCheckpoint(`${folder}/d`, refused, { format: "saelens" }), CheckpointError);
    for (const file of ["cfg.json", "sae_weights.safetensors"]) {
      await Deno.mkdir(`${folder}/e`);
      await Deno.writeTextFile(`${folder}/e/${file}`, "mine");
      const options = { format: "saelens", overwrite: false } as const;
      const message = `writing ${folder}/e/${file}: the file exists already`;
      await assertRejects(() => writeCheckpoint(`${folder}/e`, model, options), RangeError, message);
      assertEquals(Array.from(Deno.readDirSync(`${folder}/e`), ({ name }) => name), [file]);
      await Deno.remove(`${folder}/e`, { recursive: true });
    }
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort(), ["a", "c"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("files that belong together are all of the old model or all of the new one, whatever fails", async () => {
  const folder = await Deno.makeTempDir();
  const { rename } = disk();
  const [old, other] = [MODELS.get("relu")!, MODELS.get("jump_relu_scaled")!];
  const names = () => Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
  try {
    await writeCheckpoint(folder, old, { format: "saelens" });
    const before = names();
    let n_renames = 0;
    for (let failing = 0; n_renames >= failing; failing++) {
      n_renames = 0;
      const seen = new Set<string>();
      disk().rename = async (from, to) => {
        if (n_renames++ === failing) throw Object.assign(new Error("no"), { code: "EACCES" });
        await rename(from, to);
        // What a process that is killed here leaves: never a part of one with a part of the other.
        seen.add(await readCheckpoint(folder).then(({ cfg }) => cfg.activation.key, () => "none"));
      };
      const outcome = await writeCheckpoint(folder, other, { format: "saelens" }).then(() => "new", () => "old");
      disk().rename = rename;
      assertEquals(names(), before);
      const { cfg } = await readCheckpoint(folder);
      assertEquals(cfg.activation.key, outcome === "new" ? "jump-relu" : "relu", `rename ${failing} fails`);
      assert(!seen.has("top-k") && [...seen].every((key) => ["relu", "jump-relu", "none"].includes(key)));
      if (outcome === "new") break;
    }
    assertEquals(n_renames, 4);

    await Deno.remove(`${folder}/sae_weights.safetensors`);
    await Deno.mkdir(`${folder}/sae_weights.safetensors`);
    const config = await Deno.readTextFile(`${folder}/cfg.json`);
    const message = "found a folder, expected the path of a file";
    await assertRejects(() => writeCheckpoint(folder, old, { format: "saelens" }), RangeError, message);
    assertEquals([names(), await Deno.readTextFile(`${folder}/cfg.json`)], [before, config]);
  } finally {
    disk().rename = rename;
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("inspecting says what every golden file is, and why it is no model where it is none", async () => {
  for (const golden of goldenFiles()) {
    const { format, name, accept = [], refused } = golden;
    const found = await inspectCheckpoint(goldenUrl(golden));
    assertEquals([found.format, found.accept, found.cfg === null], [format, accept, refused !== undefined], name);
    // Three where there is no decoder bias.
    assert(found.tensors.length >= 3 && found.formula.length === (refused === undefined ? 3 : 0), name);
    // What a concession would help stands there too, unless it was made.
    const expected = refused ?? accept[0] ?? null;
    assert(expected === null ? found.refused === null : found.refused?.includes(expected), `${name}: ${found.refused}`);
    assertEquals(
      (await inspectCheckpoint(goldenUrl(golden), { accept })).refused === null,
      refused === undefined,
      name,
    );
  }
});

Deno.test("inspecting says how parameters are computed from the tensors of the file", async () => {
  let n_computed = 0;
  for (const golden of goldenFiles().filter(({ refused }) => refused === undefined)) {
    const { accept = [], name } = golden;
    const { where } = await inspectCheckpoint(goldenUrl(golden), { accept });
    const recognised = await recogniseFiles(memoryFiles(golden.files, golden.main));
    const { model } = await readModel(recognised, { accept });
    const stored: string[] = [];
    for (const tensor of recognised.weights!.tensors.values()) {
      if (!isFloatType(tensor.dtype)) continue;
      const numbers = await tensor.read();
      stored.push(numbers.join());
      if (tensor.shape.length === 2) stored.push((await tensor.transposed().read()).join());
    }
    for (const [parameter, numbers] of Object.entries(model.parameters) as [string, Float32Array][]) {
      const isComputed = numbers.some((value) => value !== 0) && !stored.includes(numbers.join());
      const isSaid = where.some((line) => line.startsWith(`${parameter}[`) || line.startsWith(`${parameter} =`));
      if (isComputed) n_computed++;
      assert(isSaid || !isComputed, `${name}: ${parameter} is computed; the formula's notes are ${where.join("; ")}`);
    }
  }
  assert(n_computed > 10, `${n_computed} computed parameters`);
  const { where } = await inspectCheckpoint(goldenUrl(goldenCase("saelens/topk_rescaled")));
  assertEquals(where, [
    "W_enc[:, s] = n[s] · the file's W_enc[:, s]",
    "b_enc[s] = n[s] · the file's b_enc[s]",
    "W_dec[s, :] = the file's W_dec[s, :] / n[s]",
    "n[s] = the norm of W_dec[s, :] in the file",
  ]);
  assertEquals((await inspectCheckpoint(goldenUrl(goldenCase("saelens/topk")))).where, []);
});

Deno.test("inspecting says where dictionary_learning's own loader would change the codes", async () => {
  const saysSo = ({ warnings }: Inspection) =>
    warnings.some((text) => text.includes("from_pretrained normalises them"));
  for (const [key, warns] of [["standard", true], ["bare_standard.pt", true], ["new", false], ["top_k", false]]) {
    assertEquals(saysSo(await inspectCheckpoint(goldenUrl(goldenCase(`dictionary_learning/${key}`)))), warns, `${key}`);
  }
  const { parameters, ...model } = MODELS.get("relu_subtracts")!;
  const norms = rowNorms(parameters.W_dec, 5);
  for (const [factor, warns] of [[1, false], [1.0001, true]] as const) {
    const W_dec = parameters.W_dec.map((w, i) => w / norms[Math.floor(i / 5)]! * factor);
    const written = formatModel({ ...model, parameters: { ...parameters, W_dec } }, { format: "dictionary_learning" });
    assertEquals(saysSo(await inspectCheckpoint(filesOf(written))), warns, `rows of norm ${factor}`);
  }
});

Deno.test("inspecting shows all that a pickle says beside its tensors, under any name", async () => {
  const { configs } = await inspectCheckpoint(goldenUrl(goldenFiles().find(({ name }) => name === "topk.pt")!));
  assertEquals(configs, { activation: "TopK", activation_state_dict: { k: 3, postact_fn: "ReLU" } });
  const names = pickle("}(", unicode("cfg"), "N", unicode("__proto__"), "}", unicode("x"), "K\x01su");
  const bytes = rawZip([{ name: "a/data.pkl", bytes: names }, { name: "a/version", bytes: utf8("3\n") }]);
  assertEquals(Object.entries((await inspectCheckpoint(bytes)).configs), [["cfg", null], ["__proto__", { x: 1 }]]);
});

Deno.test("inspecting says where a file leaves the encoder formula open, until it is told", async () => {
  const doubtful = ["schema1_relu.pt", "schema1a_top_k.pt", "schema1b_top_k.pt", "schema2_top_k.pt"];
  for (const { name } of Deno.readDirSync(new URL("../../goldens/checkpoints/", import.meta.url))) {
    const file = new URL(`../../goldens/checkpoints/${name}`, import.meta.url);
    const { warnings } = await inspectCheckpoint(file);
    assertEquals(warnings.some((warning) => warning.includes("subtract_b_dec")), doubtful.includes(name), name);
    assertEquals((await inspectCheckpoint(file, { subtract_b_dec: false })).warnings, [], name);
  }
  const { cfg, parameters } = randomModel({ d_model: 2, d_sae: 4, activation: { key: "relu" }, subtract_b_dec: true });
  const { schema, warnings } = await inspectCheckpoint(
    formatCheckpoint(cfg, parameters, undefined, { schema: 1 }),
  );
  assertEquals([schema, warnings], ["1", []]);
});

Deno.test("inspecting says the formula, the statistics and what is odd", async () => {
  const model = MODELS.get("top_k_subtracts_scaled")!;
  const W_dec = model.parameters.W_dec.slice();
  W_dec.fill(0, 5, 10);
  const b_enc = Float32Array.of(1, 2, 3, 4, 5, 0, 0, 0, 3);
  const odd = { ...model, parameters: { ...model.parameters, W_dec, b_enc } };
  const { format, schema, formula, tensors, warnings } = await inspectCheckpoint(
    filesOf(formatModel(odd, { format: "saev_nn" })),
  );
  assertEquals([format, schema], ["saev", "saev_nn"]);
  assertEquals(formula, [
    "h = ((x − mean) / 0.7 − b_dec) W_enc + b_enc",
    "f = the 3 largest of h, negative ones as 0",
    "x̂ = 0.7 (f W_dec + b_dec) + mean",
  ]);
  assertEquals(tensors.find(({ name }) => name === "b_enc"), {
    name: "b_enc",
    shape: [9],
    dtype: "float32",
    statistics: { min: 0, max: 5, mean: 2, std: Math.sqrt(28 / 9), n_zero: 3, n_not_finite: 0 },
  });
  assertEquals(warnings, ["1 of 9 rows of W_dec are 0; these latents have no effect"]);
});

Deno.test("inspecting warns of all that makes a model odd or none", async () => {
  const model = MODELS.get("top_k")!;
  const W_enc = model.parameters.W_enc.map((w, i) => i % 9 === 2 ? 0 : w);
  const cfg = { ...model.cfg, activation: { ...model.cfg.activation, top_k: 20 } } as ParsedCheckpoint["cfg"];
  const odd = { ...model, cfg, parameters: { ...model.parameters, W_enc } };
  assertEquals((await inspectCheckpoint(filesOf(formatModel(odd, { format: "saev_nn" })))).warnings, [
    "1 of 9 columns of W_enc are 0; these latents ignore the input",
    "top_k is 20, but there are only 9 latents",
  ]);

  const { files } = goldenFiles().find(({ format, name }) => format === "saelens" && name === "topk")!;
  const broken = files.get("sae_weights.safetensors")!.slice();
  const numbers = new DataView(broken.buffer, broken.length - 64);
  Float32Array.of(NaN, -Infinity, ...Array(14).fill(-2)).forEach((value, i) => numbers.setFloat32(i * 4, value, true));
  const found = await inspectCheckpoint(memoryFiles(new Map([...files, ["sae_weights.safetensors", broken]]), null));
  const statistics = { min: -2, max: -2, mean: -2, std: 0, n_zero: 0, n_not_finite: 2 };
  assertEquals(found.tensors.at(-1), { name: "b_enc", shape: [16], dtype: "float32", statistics });
  assertEquals([found.cfg, found.formula, found.warnings.at(-1)], [
    null,
    [],
    "b_enc has 2 NaN or infinite elements",
  ]);

  const wide = goldenFiles().find(({ name }) => name === "training_batchtopk")!;
  const { warnings } = await inspectCheckpoint(goldenUrl(wide));
  assertEquals(warnings.at(-1), "float64 is rounded to float32: topk_threshold");
});
