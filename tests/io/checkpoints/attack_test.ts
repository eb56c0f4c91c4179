/** Damage and malice in other libraries' files: refused with a `CheckpointError`, or read as a whole model. @module */

import { parameterShapes } from "../../../nn/activations/mod.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { CheckpointError } from "../../../io/errors.ts";
import { inspectCheckpoint } from "../../../io/checkpoints/inspect.ts";
import { readModel, recogniseFiles } from "../../../io/checkpoints/recognised_files.ts";
import type { ParsedCheckpoint } from "../../../io/model.ts";
import { writeNpy } from "../../../io/npy.ts";
import { formatSafetensors, readSafetensors } from "../../../io/safetensors.ts";
import { bytesSource, joinBytes } from "../../../io/source.ts";
import { type Code, global, pickle, type RawTensor, tensor, unicode } from "../raw_pickle.ts";
import { type RawRecord, rawZip, utf8 } from "../raw_zip.ts";
import { goldenCase, type GoldenFiles, goldenFiles, memoryFiles, withField } from "./golden_files.ts";

const ACCEPT = ["normalised-rows", "rescaled-codes"] as const;
const CASES = goldenFiles();
/** One that reads of each format, and one more where a configuration matters. */
const SUBJECTS = [
  "saelens/jumprelu",
  "saelens/topk",
  "dictionary_learning/batch_top_k",
  "dictionary_learning/matryoshka_batch_top_k",
  "sparsify/topk",
  "openai/topk.pt",
  "gemma_scope/params.npz",
  "gemma_scope/compressed.npz",
  "vit_prisma/topk",
  "llamascopium/jumprelu",
  "llamascopium/dataset_wise",
  "saelens/training_checkpoint",
  "gemma_scope/scope_2",
  "vit_prisma/pickled_topk.pt",
  "llama_scope/jumprelu",
].map(goldenCase);

function read(files: ReadonlyMap<string, Uint8Array>, main: string | null): Promise<ParsedCheckpoint> {
  return recogniseFiles(memoryFiles(files, main)).then((found) => readModel(found, { accept: ACCEPT })).then((
    { model },
  ) => model);
}

/** The model, or `null` where it is refused; anything but a `CheckpointError` is thrown on. */
async function readOrRefuse(files: ReadonlyMap<string, Uint8Array>, main: string | null) {
  try {
    return await read(files, main);
  } catch (error) {
    if (error instanceof CheckpointError) return null;
    throw error;
  }
}

function assertWhole({ cfg, parameters }: ParsedCheckpoint): void {
  for (const [name, shape] of parameterShapes(cfg)) {
    const data: Float32Array = parameters[name]!;
    assertEquals(data.length, shape.reduce((product, size) => product * size, 1), name);
    assert(data.every(Number.isFinite), name);
  }
}

function replaced({ files }: GoldenFiles, name: string, bytes: Uint8Array): Map<string, Uint8Array> {
  return new Map([...files, [name, bytes]]);
}

function weightsOf({ files }: GoldenFiles): string {
  return [...files.keys()].find((name) => !name.endsWith(".json"))!;
}

/** Every bit of a model. */
function summaryOf({ cfg, input, parameters }: ParsedCheckpoint): string {
  const hashes = Object.entries(parameters).map(([name, data]: [string, Float32Array]) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return [name, data.length, createHash("sha1").update(bytes).digest("hex")];
  });
  return JSON.stringify([cfg, input, hashes]);
}

for (const golden of SUBJECTS) {
  const { format, name, files, main } = golden;
  const title = `${format}/${name}`;
  const hasChecksums = !weightsOf(golden).endsWith(".safetensors");

  Deno.test(`${title}: a file cut anywhere is refused`, async () => {
    const original = summaryOf(await read(files, main));
    for (const [file, bytes] of files) {
      for (let length = 0; length < bytes.length; length++) {
        const model = await readOrRefuse(replaced(golden, file, bytes.subarray(0, length)), main);
        // White space behind a JSON document may go.
        assert(model === null || summaryOf(model) === original, `${file} cut after ${length} bytes`);
      }
    }
  });

  Deno.test(`${title}: a file with any byte flipped is refused or whole`, async () => {
    const weights = weightsOf(golden);
    const bytes = files.get(weights)!;
    const original = summaryOf(await read(files, main));
    const flipped = bytes.slice();
    for (let at = 0; at < bytes.length; at++) {
      flipped[at] = bytes[at]! ^ 0xff;
      const model = await readOrRefuse(replaced(golden, weights, flipped), main);
      flipped[at] = bytes[at]!;
      if (model === null) continue;
      assertWhole(model);
      if (hasChecksums) assertEquals(summaryOf(model), original, `byte ${at} changed the model`);
    }
  });
}

// --------------------------------------------------------------------------------------------------- configurations

const VALUES = [
  ...["NaN", "Infinity", "1e999", "-1", "0", "0.5", "9007199254740993", "1e300", "null", "true", "false", '"x"', "[]"],
  ...["{}", '"topk"', '"gated"', '{"__proto__":1}', '"\\u0000"', '"none"', "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]"],
];

for (const golden of SUBJECTS) {
  const { format, name, files } = golden;
  for (const [file, bytes] of files) {
    if (!file.endsWith(".json")) continue;
    const text = new TextDecoder().decode(bytes);
    const change = (changed: string) => replaced(golden, file, new TextEncoder().encode(changed));

    Deno.test(`${format}/${name}: no field of ${file} can be anything that makes another kind of error`, async () => {
      const whole = JSON.parse(text);
      const inner = format === "dictionary_learning" ? whole.trainer : whole;
      for (const [field, found] of Object.entries(inner)) {
        inner[field] = "the value";
        const template = JSON.stringify(whole);
        inner[field] = found;
        for (const value of VALUES) {
          const model = await readOrRefuse(change(template.replace('"the value"', () => value)), null);
          if (model !== null) assertWhole(model);
        }
      }
    });

    Deno.test(`${format}/${name}: ${file} with a key twice, an unknown one or no object is refused`, async () => {
      const twice = text.replace("{", `{"__proto__": 1, "__proto__": 2,`);
      await assertRejects(() => read(change(twice), null), CheckpointError, "appears twice");
      const others = [["", ""], ["[]", "a list"], ["null", "null"], ["4", "4"], ["{", ""], [text + "x", ""]];
      for (const [other, what] of [...others, [`\ufeff${text}`, "it starts with a byte order mark"]] as const) {
        const error = await assertRejects(() => read(change(other!), null), CheckpointError, what, other);
        // The file that is wrong, and not the one with the tensors.
        assert(error.message.includes(`reading ${file}`), error.message);
      }
      if (format === "dictionary_learning") return;
      const unknown = text.replace("{", `{"a_new_function": 1,`);
      await assertRejects(() => read(change(unknown), null), CheckpointError, `unknown field "a_new_function"`);
      const polluted = text.replace("{", `{"__proto__": {"polluted": true},`);
      await assertRejects(() => read(change(polluted), null), CheckpointError, `unknown field "__proto__"`);
    });
  }
}

Deno.test("a pickled configuration costs no more than a configuration, whatever holds itself in it", async () => {
  const cases: [value: Code, message: string][] = [
    ["]q\x00h\x00a", "more than 16 levels of nesting"],
    [[")", "\x85".repeat(1000)], "more than 16 levels of nesting"],
    [[")", "q\x00h\x00\x86".repeat(15)], "more than 4096 values"],
    [["](", "K\x01".repeat(4096), "e"], "more than 4096 values"],
  ];
  for (const [value, message] of cases) {
    const cfg = [global("vit_prisma.sae.config", "VisionSAEConfig"), ")\x81}(", unicode("field"), value, "ub"];
    const bytes = rawZip([
      { name: "sae/data.pkl", bytes: pickle("}(", unicode("cfg"), cfg, unicode("state_dict"), "}u") },
      { name: "sae/version", bytes: utf8("3\n") },
    ]);
    await assertRejects(() => read(new Map([["sae.pt", bytes]]), null), CheckpointError, message);
    await assertRejects(() => inspectCheckpoint(bytes), CheckpointError, message);
  }
});

Deno.test("a pickled configuration is an object with fields, and nothing stands in two dicts", async () => {
  const record = [global("vit_prisma.sae.config", "VisionSAEConfig"), ")\x81"];
  const cases: [root: Code, message: string][] = [
    [[unicode("cfg"), "K\x01"], "cfg is not an object with fields"],
    [[unicode("cfg"), record], "cfg is not an object with fields"],
    [
      [unicode("cfg"), global("vit_prisma.sae.config", "VisionSAEConfig"), "K\x01\x85\x81}b"],
      "cfg is not an object with fields",
    ],
    [[unicode("cfg"), record, "}b"], `the field "d_in" is missing`],
    [
      [unicode("x"), "K\x01", unicode("state_dict"), "}", unicode("x"), "K\x02s"],
      `the entry "x" appears in two of its dicts`,
    ],
  ];
  for (const [root, message] of cases) {
    const bytes = rawZip([
      { name: "sae/data.pkl", bytes: pickle("}(", root, "u") },
      { name: "sae/version", bytes: utf8("3\n") },
    ]);
    await assertRejects(() => read(new Map([["sae.pt", bytes]]), null), CheckpointError, message);
  }
});

// --------------------------------------------------------------------------------------------------------- tensors

/** A golden file of safetensors with its tensors changed. */
async function withTensors(
  golden: GoldenFiles,
  change: (tensors: Map<string, { shape: readonly number[]; data: Float32Array }>) => void,
): Promise<Map<string, Uint8Array>> {
  const name = weightsOf(golden);
  const tensors = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const [key, tensor] of (await readSafetensors(bytesSource(golden.files.get(name)!))).tensors) {
    tensors.set(key, { shape: tensor.shape, data: (await tensor.read()).slice() });
  }
  change(tensors);
  return replaced(golden, name, joinBytes(formatSafetensors([...tensors].map(([name, rest]) => ({ name, ...rest })))));
}

for (const golden of SUBJECTS.filter((golden) => weightsOf(golden).endsWith(".safetensors"))) {
  Deno.test(`${golden.format}/${golden.name}: tensors missing, more, of other shapes or not finite are named`, async () => {
    const names: string[] = [];
    await withTensors(golden, (tensors) => names.push(...tensors.keys()));
    for (const name of names) {
      const files = await withTensors(golden, (tensors) => tensors.delete(name));
      const required = !name.startsWith("dataset_average") || golden.name === "dataset_wise";
      if (required) await assertRejects(() => read(files, null), CheckpointError, "", name);
      if (name.startsWith("dataset_average")) continue;
      const flat = await withTensors(golden, (tensors) => {
        const { data } = tensors.get(name)!;
        tensors.set(name, { shape: [1, 1, data.length], data });
      });
      await assertRejects(() => read(flat, null), CheckpointError, `${JSON.stringify(name)} has the shape [1,1,`);
      for (const value of [NaN, Infinity, -Infinity]) {
        let at = 0;
        const broken = await withTensors(golden, (tensors) => {
          const { data } = tensors.get(name)!;
          at = Math.min(2, data.length - 1);
          data[at] = value;
        });
        await assertRejects(() => read(broken, null), CheckpointError, `${name} is ${value} at element ${at}`);
      }
    }
    const more = await withTensors(
      golden,
      (tensors) => tensors.set("W_skip", { shape: [1], data: Float32Array.of(1) }),
    );
    await assertRejects(() => read(more, null), CheckpointError, `unexpected tensors: "W_skip"`);
  });
}

Deno.test("weights that are computed from a file's are finite, or there is no model", async () => {
  const norms = "dataset_average_activation_norm";
  // The first and the last row of a decoder: an index that is not found is neither.
  const cases: [golden: GoldenFiles, tensor: string, places: number[], value: number, message: string][] = [
    [goldenCase("saelens/topk_rescaled"), "W_dec", [120, 121, 122, 123, 124, 125, 126, 127], 0, "row 15, 0"],
    [goldenCase("saelens/topk_rescaled"), "W_dec", [0, 1, 2, 3, 4, 5, 6, 7], 0, "the norm of W_dec's row 0, 0"],
    [goldenCase("saelens/topk_rescaled"), "W_dec", [0, 1, 2, 3, 4, 5, 6, 7], 3e38, "W_enc, rescaled, is "],
    [goldenCase("llama_scope/jumprelu"), "decoder.weight", [0, 16, 32, 48, 64, 80, 96, 112], 0, "column 0, which is 0"],
    [
      goldenCase("llama_scope/jumprelu"),
      "decoder.weight",
      [0, 16, 32, 48, 64, 80, 96, 112],
      3e38,
      "W_enc, rescaled, is ",
    ],
    [goldenCase("llamascopium/jumprelu"), "W_D", [0, 1, 2, 3, 4, 5, 6, 7], 0, "the norm of W_D's row 0, which is 0"],
    [
      goldenCase("llamascopium/jumprelu"),
      "activation_function.log_jumprelu_threshold",
      [3],
      100,
      "the threshold is Infinity",
    ],
    [goldenCase("saelens/training_log_threshold"), "log_threshold", [3], 100, "the threshold is Infinity at element 3"],
    [
      goldenCase("llamascopium/dataset_wise"),
      `${norms}.blocks.2.hook_resid_post`,
      [0],
      0,
      "is 0; expected a positive number",
    ],
    [
      withField(goldenCase("llama_scope/jumprelu"), norms, { in: 1e39, out: 1e39 }),
      "encoder.bias",
      [0],
      1,
      "b_enc, standardised, is Infinity",
    ],
    [
      withField(goldenCase("llama_scope/jumprelu"), norms, { in: 0, out: 1 }),
      "encoder.bias",
      [0],
      1,
      "in is 0; expected a positive number",
    ],
    [
      withField(goldenCase("llama_scope/jumprelu"), "jump_relu_threshold", 1e39),
      "encoder.bias",
      [0],
      1,
      "jump_relu_threshold is Infinity",
    ],
    [goldenCase("gemma_scope/scope_2"), "threshold", [0], NaN, "threshold is NaN at element 0"],
  ];
  for (const [golden, name, places, value, message] of cases) {
    const files = await withTensors(golden, (tensors) => {
      for (const place of places) tensors.get(name)!.data[place] = value;
    });
    await assertRejects(() => read(files, null), CheckpointError, message);
  }
});

Deno.test("factors behind the activation are 1 for each latent, or refused", async () => {
  for (const golden of [goldenCase("saelens/standard"), goldenCase("gemma_scope/scope_2")]) {
    const withFactors = (data: Float32Array) =>
      withTensors(golden, (tensors) => tensors.set("scaling_factor", { shape: [data.length], data }));
    const ones = new Float32Array(16).fill(1);
    assertEquals(summaryOf(await read(await withFactors(ones), null)), summaryOf(await read(golden.files, null)));
    const refused: [factors: Float32Array, message: string][] = [
      [ones.slice(1), `"scaling_factor" has the shape [15]; expected [16]`],
      [ones.map((one, s) => s === 9 ? 2 : one), "scaling_factor is not 1 everywhere"],
      [ones.map((one, s) => s === 9 ? NaN : one), "scaling_factor is NaN at element 9"],
    ];
    for (const [factors, message] of refused) {
      const files = await withFactors(factors);
      await assertRejects(() => read(files, null), CheckpointError, message);
    }
  }
});

Deno.test("the scaler beside SAELens' configuration says a positive factor and nothing else", async () => {
  const golden = goldenCase("saelens/scaled");
  const scaler = (fields: object) => replaced(golden, "activation_scaler.json", utf8(JSON.stringify(fields)));
  assertEquals((await read(scaler({ scaling_factor: 0.25, has_whitening: false }), null)).input.scale, 4);
  const refused: [fields: object, message: string][] = [
    [{}, `the field "scaling_factor" is missing`],
    [{ scaling_factor: 0 }, "scaling_factor is 0; expected a positive number"],
    [{ scaling_factor: null }, "scaling_factor is null"],
    [{ scaling_factor: 1, has_whitening: true }, "has_whitening is true"],
    [{ scaling_factor: 1, mean: 0 }, `unknown field "mean"`],
  ];
  for (const [fields, message] of refused) {
    await assertRejects(() => read(scaler(fields), null), CheckpointError, message);
  }
});

/** A file as OpenAI's, of the sizes 2 × 3, with other tensors and more beside them. */
function openaiFile(
  extras: Readonly<Record<string, Code>>,
  change: Readonly<Record<string, RawTensor | null>> = {},
): Uint8Array {
  const tensors = {
    pre_bias: { key: "two", length: 2, shape: [2], strides: [1] },
    latent_bias: { key: "three", length: 3, shape: [3], strides: [1] },
    "encoder.weight": { ...SIX, shape: [3, 2], strides: [2, 1] },
    "decoder.weight": { ...SIX, shape: [2, 3], strides: [3, 1] },
    ...change,
  };
  const entries: Code[] = Object.entries(extras).map(([name, value]) => [unicode(name), value]);
  for (const [name, raw] of Object.entries(tensors)) if (raw !== null) entries.push([unicode(name), tensor(raw)]);
  const storage = (key: string, ...values: number[]): RawRecord => ({
    name: `a/data/${key}`,
    bytes: new Uint8Array(Float32Array.from(values).buffer),
  });
  return rawZip([
    { name: "a/data.pkl", bytes: pickle("}(", ...entries, "u") },
    { name: "a/version", bytes: utf8("3\n") },
    storage("two", 1, 2),
    storage("three", 1, 2, 3),
    storage("six", 1, 2, 3, 4, 5, 6),
    storage("other six", 0, 2, 3, 4, 5, 6),
  ]);
}

const SIX = { key: "six", length: 6 };

Deno.test("an activation of OpenAI's files is one of its own, and tied weights are the same", async () => {
  const dict = (...items: Code[]): Code => ["}(", ...items, "u"];
  const relu = [unicode("postact_fn"), unicode("ReLU")];
  const topk = (...items: Code[]) => ({ activation: unicode("TopK"), activation_state_dict: dict(...items) });
  const tied = (change: Partial<RawTensor>) => ({
    "decoder.weight": null,
    "decoder.linear.weight": { ...SIX, shape: [3, 2], strides: [2, 1], ...change },
  });
  const encoder = (shape: readonly number[], strides = [2, 1]) => ({ "encoder.weight": { ...SIX, shape, strides } });
  const openai = (bytes: Uint8Array) => read(new Map([["a.pt", bytes]]), "a.pt");
  assertEquals((await openai(openaiFile({}, tied({})))).cfg.activation.key, "relu");
  assertEquals((await openai(openaiFile(topk(unicode("k"), "K\x02", relu)))).cfg.activation.key, "top-k");
  const refused: [bytes: Uint8Array, message: string][] = [
    [openaiFile({ activation: "K\x05" }), `activation is not a string; expected "ReLU" or "TopK"`],
    [openaiFile({ activation: unicode("Gelu") }), `activation is "Gelu"; expected`],
    [openaiFile({ activation_state_dict: ")" }), "activation_state_dict is not a dict"],
    [openaiFile({ activation_state_dict: dict(unicode("k"), "K\x02") }), `has the unknown entry "k"`],
    [openaiFile(topk(relu)), "k is not an integer"],
    [openaiFile(topk(unicode("k"), unicode("2"), relu)), "k is not an integer"],
    [openaiFile(topk(unicode("k"), "G\x3f\xe0\0\0\0\0\0\0", relu)), "k is not an integer"],
    [openaiFile(topk(unicode("k"), "K\x02")), `postact_fn is not "ReLU" or "Identity"`],
    [openaiFile({ more: "N" }), `unknown entry "more"`],
    [openaiFile({}, encoder([3, 2, 1], [2, 1, 1])), "expected a matrix"],
    [openaiFile({}, encoder([0, 2])), "expected a matrix"],
    [openaiFile({}, encoder([3, 0])), "expected a matrix"],
    [
      openaiFile({}, { ...tied({}), "decoder.weight": { ...SIX, shape: [2, 3], strides: [3, 1] } }),
      "unexpected tensors",
    ],
    [openaiFile({}, tied({ shape: [2, 3], strides: [3, 1] })), "has the shape [2,3]; expected [3,2]"],
    [openaiFile({}, tied({ key: "other six" })), "differs from encoder.weight at element 0"],
  ];
  for (const [bytes, message] of refused) await assertRejects(() => openai(bytes), CheckpointError, message);
});

Deno.test("files that are nobody's are refused by what they are", async () => {
  const cases: [Map<string, Uint8Array>, string | null, string][] = [
    [new Map(), null, "found nothing; expected one of sae.pt"],
    [new Map([["checkpoints/other.bin", utf8("x")]]), null, `found "checkpoints/"; expected one of`],
    [new Map([["sae.pt", CASES[0]!.files.values().next().value!]]), "other.pt", "there is no file of that name"],
    [new Map([["a", new Uint8Array()]]), "a", "found an empty file"],
    [new Map([["a", Uint8Array.of(1, 2, 3)]]), "a", "starts with the bytes 01 02 03"],
    [new Map([["a", utf8("version https://git-lfs.github.com/spec/v1\n")]]), "a", "found a Git LFS pointer"],
    [new Map([["cfg.json", utf8('{"d_in": 8}\n')]]), "cfg.json", "found JSON without tensors after it"],
    [new Map([["a", writeNpy({ data: new Float32Array(1), rows: 1, cols: 1 })]]), "a", "found a single array"],
    [new Map([["a", rawZip([{ name: "x.txt", bytes: utf8("x") }])]]), "a", `found a zip archive of "x.txt"`],
    [
      new Map([["a", Uint8Array.of(0x80, 2, 0x7d, 0x2e)]]),
      "a",
      "found a bare pickle, as PyTorch wrote before version 1.6",
    ],
    [new Map([["ae.pt", new Uint8Array(9)], ["params.npz", new Uint8Array(9)]]), null, "found ae.pt and params.npz"],
    [
      new Map([["a", joinBytes(formatSafetensors([{ name: "weight", shape: [1], data: new Float32Array(1) }]))]]),
      "a",
      `found a safetensors file with the entries "weight"; expected those of one of saev, llamascopium`,
    ],
  ];
  for (const [files, main, message] of cases) {
    await assertRejects(() => read(files, main), CheckpointError, message);
  }
});

Deno.test("a format is known by content, whatever the file is called", async () => {
  for (const golden of CASES) {
    if (golden.refused !== undefined || golden.files.size > 1) continue;
    const bytes = [...golden.files.values()][0]!;
    assertEquals(
      (await recogniseFiles(memoryFiles(new Map([["model.bin", bytes]]), "model.bin"))).format.name,
      golden.format,
    );
  }
});

Deno.test("a file of saev takes the scaling of its inputs from the caller, once", async () => {
  const bytes = Deno.readFileSync(new URL("../../goldens/checkpoints/schema1_relu.pt", import.meta.url));
  const found = await recogniseFiles(memoryFiles(new Map([["sae.pt", bytes]]), null));
  const plain = (await readModel(found)).model;
  const input = { mean: new Float32Array(plain.cfg.d_model).fill(0.5), scale: 2 };
  assertEquals((await readModel(found, { input })).model.input, input);
  await assertRejects(() => found.open({ input: { mean: null, scale: -1 } }), CheckpointError, "input_scale is -1");
  const [saelens] = CASES;
  const other = await recogniseFiles(memoryFiles(saelens!.files, saelens!.main));
  await assertRejects(
    () => other.open({ subtract_b_dec: true }),
    CheckpointError,
    "{ subtract_b_dec: true } is for files of saev",
  );
});
