/** `io/formats/saev.ts`: upstream's files, the identity of writing and reading, and files made to do harm. */

import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import * as zlib from "node:zlib";
import { completeConfig, type SparseAutoencoderOptions } from "../../../nn/config.ts";
import { CheckpointError } from "../../../io/errors.ts";
import { parseCheckpoint } from "../../../io/checkpoints/saev_reader.ts";
import { type FormatOptions, planCheckpoint, schemaThatKeeps, VERSION } from "../../../io/checkpoints/saev_schemas.ts";
import { formatCheckpoint, formatCheckpointPieces } from "../../../io/checkpoints/saev_writer.ts";
import { modelsOfEveryKind } from "./compute.ts";
import type { ParseOptions } from "../../../io/checkpoints/format.ts";
import type { ParsedCheckpoint } from "../../../io/model.ts";
import { bytesSource, joinBytes } from "../../../io/source.ts";
import { formatTorchFile, readTorchFile } from "../../../io/torch_file.ts";
import { readZip } from "../../../io/zip.ts";
import { formatZip, zipRecord } from "../../../io/zip_writer.ts";
import { Random } from "../../support/random.ts";
import { anyModel, bitsOf, goldenCheckpoint, type Model, NO_SCALING, PARAMETERS, randomModel } from "../models.ts";
import { type RawTensor, stateDict } from "../raw_pickle.ts";
import { joined, rawZip, utf8 } from "../raw_zip.ts";

fc.configureGlobal({ seed: 0 });

const RELU = {
  d_model: 8,
  d_sae: 32,
  activation: { key: "relu", sparsity: { key: "l1-sparsity", coeff: 4e-4 }, aux: { key: "no-aux" } },
} as const satisfies SparseAutoencoderOptions;
const TOP_K = { d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } } as const;
/** Upstream's auxiliary loss has no other way. */
const UPSTREAM_TOP_K = {
  ...TOP_K,
  activation: { ...TOP_K.activation, aux: { key: "auxk", k_aux: 512, alpha: 1 / 32, include_b_dec: true } },
} as const;

const UPSTREAM_BATCH_TOP_K = {
  ...TOP_K,
  activation: { key: "batch-top-k", top_k: 4, momentum: 0.1, aux: UPSTREAM_TOP_K.activation.aux },
} as const;

const GOLDENS: readonly { file: string; cfg: SparseAutoencoderOptions }[] = [
  {
    file: "preschema_relu.pt",
    cfg: {
      ...RELU,
      activation: { ...RELU.activation, sparsity: { key: "l1-sparsity", coeff: 8e-4 } },
      subtract_b_dec: true,
    },
  },
  { file: "schema1_relu.pt", cfg: { ...RELU, subtract_b_dec: true } },
  { file: "schema1a_top_k.pt", cfg: { ...UPSTREAM_TOP_K, subtract_b_dec: true } },
  { file: "schema1b_top_k.pt", cfg: UPSTREAM_TOP_K },
  { file: "schema2_top_k.pt", cfg: UPSTREAM_TOP_K },
  { file: "schema3_top_k.pt", cfg: UPSTREAM_TOP_K },
  { file: "schema4_top_k_kind.pt", cfg: UPSTREAM_TOP_K },
  { file: "schema5_relu.pt", cfg: RELU },
  { file: "schema5_top_k.pt", cfg: UPSTREAM_TOP_K },
  { file: "schema5_batch_top_k.pt", cfg: UPSTREAM_BATCH_TOP_K },
  { file: "schema5_float16.pt", cfg: UPSTREAM_TOP_K },
  { file: "schema5_shared_storage.pt", cfg: UPSTREAM_TOP_K },
];

const SMALL = { d_model: 2, d_sae: 3, activation: { key: "relu" } } as const;

function format(model: Model, options?: FormatOptions): Uint8Array<ArrayBuffer> {
  return formatCheckpoint(model.cfg, model.parameters, model.input, options);
}

function parse(bytes: Uint8Array, options?: ParseOptions): Promise<ParsedCheckpoint> {
  return parseCheckpoint(bytesSource(bytes), options);
}

function headerOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(10)));
}

function bodyOf(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(bytes.indexOf(10) + 1);
}

/** A file of this header and another's parameters. */
function withHeader(header: string, bytes: Uint8Array): Uint8Array {
  return joined([utf8(`${header}\n`), bodyOf(bytes)]);
}

/** The header as upstream would write it, which fits any archive. */
function unbound(header: string): string {
  return header.replace(OWN_KEY, "");
}

/** The archive with records of another one instead of its own. */
async function withRecords(bytes: Uint8Array, from: Uint8Array, names: RegExp): Promise<Uint8Array> {
  const [records, others] = await Promise.all([bytes, from].map((file) => readZip(bytesSource(bodyOf(file)))));
  const mixed = await Array.fromAsync(
    records!.values(),
    async (member) =>
      zipRecord(member.name, await (names.test(member.name) ? others!.get(member.name)! : member).read()),
  );
  return joinBytes([bytes.subarray(0, bytes.indexOf(10) + 1), ...formatZip(mixed)]);
}

function assertSameModel(actual: Model, expected: Model): void {
  assertEquals(actual.cfg, expected.cfg);
  assertEquals(bitsOf(actual.parameters), bitsOf(expected.parameters));
  assertEquals(actual.input, expected.input);
}

// ------------------------------------------------------------------------------------------------- upstream's files

for (const { file, cfg } of GOLDENS) {
  Deno.test(`${file} loads as the Python package says`, async () => {
    const { bytes, parameters } = goldenCheckpoint(file);
    assertSameModel(await parse(bytes), { cfg: completeConfig(cfg), parameters, input: NO_SCALING });
  });

  Deno.test(`${file} comes back as the same model when written again`, async () => {
    const read = await parse(goldenCheckpoint(file).bytes);
    // Python's schema has no place for the subtraction of b_dec, and schema 1 none for a TopK.
    const schema = file === "schema1a_top_k.pt" ? "saev_nn" : read.cfg.subtract_b_dec ? 1 : 5;
    assertSameModel(await parse(format(read, { schema })), read);
  });
}

Deno.test("what is read is frozen, and views the file where it can", async () => {
  const bytes = format(randomModel(RELU));
  // The header's length decides whether the archive is aligned in memory.
  const shift = (4 - (bytes.indexOf(10) + 1) % 4) % 4;
  const buffer = new Uint8Array(bytes.length + shift);
  buffer.set(bytes, shift);
  const { cfg, parameters, input } = await parse(buffer.subarray(shift));
  assert([cfg, cfg.activation, parameters, input].every(Object.isFrozen));
  for (const name of PARAMETERS) assertStrictEquals(parameters[name].buffer, buffer.buffer);
});

Deno.test("the archive is byte for byte PyTorch's, but for half of its id", async () => {
  const { bytes } = goldenCheckpoint("schema1_relu.pt");
  const golden = bodyOf(bytes);
  const written = bodyOf(format(await parse(bytes), { schema: 1 }));
  assertEquals(written.length, golden.length);
  const id = await (await readZip(bytesSource(golden))).get("archive/.data/serialization_id")!.read();
  const idAt = id.byteOffset - golden.byteOffset;
  // Its first twenty digits, and its checksum in the descriptor and in the directory.
  const crc = (body: Uint8Array): number => zlib.crc32(body.subarray(idAt, idAt + 40));
  const allowed = new Set(Array.from({ length: 20 }, (_, i) => idAt + i));
  const view = new DataView(golden.buffer, golden.byteOffset);
  for (let at = 0; at + 4 <= golden.length; at++) {
    if (view.getUint32(at, true) === crc(golden)) { for (let i = 0; i < 4; i++) allowed.add(at + i); }
  }
  assertEquals(allowed.size, 20 + 2 * 4);
  for (let at = 0; at < golden.length; at++) {
    if (!allowed.has(at)) assertEquals(written[at], golden[at], `byte ${at} of the archive`);
  }
});

const OWN_KEY = /,"saev_nn":\{"version":"[0-9.]+","activation":.*,"crc32":"[0-9a-f]{8}"\}/;

Deno.test("headers are upstream's, with one more key", () => {
  const golden = headerOf(goldenCheckpoint("schema5_top_k.pt").bytes).replace("0.0.0+unknown", "0.1.0");
  const written = headerOf(format(randomModel(UPSTREAM_TOP_K)));
  assertEquals(
    written.replace(OWN_KEY, ""),
    golden,
  );

  const goldenBatch = headerOf(goldenCheckpoint("schema5_batch_top_k.pt").bytes).replace("0.0.0+unknown", "0.1.0");
  const writtenBatch = headerOf(format(randomModel(UPSTREAM_BATCH_TOP_K)));
  assertEquals(
    writtenBatch.replace(OWN_KEY, ""),
    goldenBatch,
  );

  const goldenRelu = headerOf(goldenCheckpoint("schema5_relu.pt").bytes).replace("0.0.0+unknown", "0.1.0");
  const writtenRelu = headerOf(format(randomModel(RELU)));
  assertEquals(writtenRelu.replace(OWN_KEY, ""), goldenRelu);

  const golden1 = headerOf(goldenCheckpoint("schema1_relu.pt").bytes)
    .replace("0.0.0+unknown", "0.1.0").replace('"seed": 3', '"seed": 0');
  const written1 = headerOf(format(randomModel({ ...RELU, subtract_b_dec: true }), { schema: 1 }));
  assertEquals(
    written1.replace(
      /, "saev_nn": \{"version": "[0-9.]+", "activation": .*, "reinit_blend": 0.8, "reinit_enc_dec_tranpose": true, "serialization_id": "[0-9]{40}", "crc32": "[0-9a-f]{8}"\}/,
      "",
    ),
    golden1,
  );
});

Deno.test("the version in the files is the package's", () => {
  const { version } = JSON.parse(Deno.readTextFileSync(new URL("../../../deno.json", import.meta.url)));
  assertEquals(JSON.parse(headerOf(format(randomModel(SMALL)))).saev_nn.version, version);
});

Deno.test("headers by other hands mean what upstream's classes say", async () => {
  const body = format(randomModel(RELU));
  const read = async (header: string) => (await parse(withHeader(header, body))).cfg;
  const noAux = { cls: "NoAux", params: {} };
  const header = (activation: unknown, more = {}): string =>
    JSON.stringify({ schema: 5, cfg: { d_model: 8, d_sae: 32, activation, ...more } });
  assertEquals(await read(header({ cls: "Relu", params: {} })), completeConfig(RELU));
  assertEquals(
    await read(header({ cls: "TopK", params: { kind: "top-k", top_k: 4 } })),
    completeConfig(UPSTREAM_TOP_K),
  );
  assertEquals(
    (await read(header({ cls: "TopK", params: { top_k: 4, sparsity: { cls: "L1Sparsity", params: {} }, aux: noAux } })))
      .activation,
    { key: "top-k", top_k: 4, relu: false, sparsity: { key: "l1-sparsity", coeff: 1e-4 }, aux: { key: "no-aux" } },
  );
  const aux = { cls: "AuxK", params: { key: "auxk" } };
  assertEquals(
    await read(
      header({ cls: "Relu", params: { sparsity: { cls: "NoSparsity", params: {} }, aux } }, { reinit_blend: 1 }),
    ),
    completeConfig({
      ...RELU,
      reinit_blend: 1,
      activation: {
        key: "relu",
        sparsity: { key: "no-sparsity" },
        aux: { key: "auxk", k_aux: 512, alpha: 1 / 32, include_b_dec: true },
      },
    }),
  );
  // As written for some hours of 9 December 2025.
  const early = { cls: "AuxK", params: { kind: "auxk", k_aux: 512, alpha: 1 / 32, dead_threshold_tokens: 10_000_000 } };
  assertEquals(
    await read(header({ cls: "TopK", params: { kind: "top-k", top_k: 4, aux: early } })),
    completeConfig(UPSTREAM_TOP_K),
  );
});

/** A file of this header and the parameters of the sizes 8 × 32. */
function withParameters(header: object, threshold?: Float32Array): Uint8Array {
  const activation = { key: threshold === undefined ? "relu" : "batch-top-k" } as const;
  const { parameters } = randomModel({ ...RELU, activation });
  const cfg = completeConfig({ ...RELU, activation });
  return withHeader(JSON.stringify(header), formatCheckpoint(cfg, { ...parameters, ...(threshold && { threshold }) }));
}

const SIZES = {
  old: { d_vit: 8, exp_factor: 4, n_reinit_samples: 524288, seed: 7 },
  mixed: { d_model: 8, exp_factor: 4, n_reinit_samples: 524288, seed: 7 },
  new: { d_model: 8, d_sae: 32, n_reinit_samples: 524288, seed: 7 },
} as const;

function topK(more: object = {}): object {
  return { activation: { cls: "TopK", params: { top_k: 4, ...more } } };
}

function l1(coeff: number): SparseAutoencoderOptions {
  return { ...RELU, activation: { ...RELU.activation, sparsity: { key: "l1-sparsity", coeff } } };
}

Deno.test("every header that upstream ever wrote is read, also those that it no longer opens", async () => {
  const l1TopK: SparseAutoencoderOptions = {
    ...UPSTREAM_TOP_K,
    activation: { ...UPSTREAM_TOP_K.activation, sparsity: { key: "l1-sparsity", coeff: 0.5 } },
  };
  const oneB = "SparseAutoencoderConfig";
  const rows: [header: object, expected: SparseAutoencoderOptions][] = [
    [SIZES.old, { ...RELU, subtract_b_dec: true }],
    [{ ...SIZES.old, sparsity_coeff: 0.0016, ghost_grads: true }, { ...l1(0.0016), subtract_b_dec: true }],
    [{ ...SIZES.old, l1_coeff: 0, use_ghost_grads: false }, { ...l1(0), subtract_b_dec: true }],
    [{ ...SIZES.old, normalize_w_dec: false }, { ...RELU, subtract_b_dec: true, normalize_w_dec: false }],
    [{ schema: 1, cls: "Relu", cfg: { d_vit: 8, exp_factor: 4 } }, { ...RELU, subtract_b_dec: true }],
    [{ schema: 1, cls: "Relu", cfg: SIZES.mixed }, { ...RELU, subtract_b_dec: true }],
    [{ schema: 1, cls: "TopK", cfg: { ...SIZES.old, top_k: 4 } }, { ...UPSTREAM_TOP_K, subtract_b_dec: true }],
    [{ schema: 1, cls: "TopK", cfg: { ...SIZES.mixed, top_k: 4 } }, { ...UPSTREAM_TOP_K, subtract_b_dec: true }],
    [{ schema: 1, cls: oneB, cfg: { ...SIZES.old, ...topK() } }, UPSTREAM_TOP_K],
    [{ schema: 1, cfg: { ...SIZES.mixed, ...topK() } }, UPSTREAM_TOP_K],
    [{ schema: 1, cls: oneB, cfg: { ...SIZES.old, activation: { cls: "Relu", params: {} } } }, RELU],
    [{ schema: 2, cfg: { ...SIZES.old, ...topK() } }, UPSTREAM_TOP_K],
    [{ schema: 2, cfg: { ...SIZES.mixed, ...topK() } }, UPSTREAM_TOP_K],
    [{ schema: 3, cfg: { ...SIZES.mixed, ...topK() } }, UPSTREAM_TOP_K],
    [{ schema: 3, cfg: { ...SIZES.mixed, activation: { cls: "Relu", params: {} } } }, RELU],
    [{ schema: 4, cfg: { ...SIZES.new, ...topK() } }, UPSTREAM_TOP_K],
    [{ schema: 4, cfg: { ...SIZES.new, ...topK({ kind: "top-k", sparsity: {} }) } }, UPSTREAM_TOP_K],
    [{ schema: 4, cfg: { ...SIZES.new, ...topK({ key: "top-k", sparsity: { coeff: 0.5 } }) } }, l1TopK],
    [{ schema: 4, cfg: { ...SIZES.new, ...topK({ sparsity: { kind: "l1-sparsity", coeff: 0.5 } }) } }, l1TopK],
    [
      { schema: 4, cfg: { ...SIZES.new, ...topK({ sparsity: { cls: "L1Sparsity", params: { coeff: 0.5 } } }) } },
      l1TopK,
    ],
    [
      { schema: 4, cfg: { d_model: 8, d_sae: 32, reinit_blend: 0.5, reinit_enc_dec_tranpose: false, ...topK() } },
      { ...UPSTREAM_TOP_K, reinit_blend: 0.5, reinit_enc_dec_tranpose: false },
    ],
  ];
  for (const [header, expected] of rows) {
    const bytes = withParameters(header);
    const { cfg, parameters } = await parse(bytes);
    assertEquals(cfg, completeConfig(expected), JSON.stringify(header));
    assertEquals(bitsOf(parameters), bitsOf(randomModel(RELU).parameters));
    for (const subtract_b_dec of [true, false]) {
      assertEquals((await parse(bytes, { subtract_b_dec })).cfg, completeConfig({ ...expected, subtract_b_dec }));
    }
  }
});

Deno.test("a BatchTopK of schema 3 without a threshold is the TopK that it was in every version of that schema", async () => {
  const header = (cls: string) => ({ schema: 3, cfg: { ...SIZES.mixed, activation: { cls, params: { top_k: 4 } } } });
  assertSameModel(await parse(withParameters(header("BatchTopK"))), await parse(withParameters(header("TopK"))));
});

Deno.test("a BatchTopK is read with its threshold, and never without but in schema 3", async () => {
  const batch = (params: object): object => ({ activation: { cls: "BatchTopK", params } });
  const headers: [header: object, momentum: number, subtract_b_dec: boolean][] = [
    [{ schema: 1, cls: "BatchTopK", cfg: { ...SIZES.old, top_k: 4 } }, 0.1, true],
    [{ schema: 1, cfg: { ...SIZES.old, ...batch({ top_k: 4 }) } }, 0.1, false],
    [{ schema: 2, cfg: { ...SIZES.old, ...batch({ top_k: 4 }) } }, 0.1, false],
    [{ schema: 3, cfg: { ...SIZES.mixed, ...batch({ top_k: 4 }) } }, 0.1, false],
    [{ schema: 4, cfg: { ...SIZES.new, ...batch({ top_k: 4 }) } }, 0.1, false],
    [{ schema: 4, cfg: { ...SIZES.new, ...batch({ top_k: 4, momentum: 0.25 }) } }, 0.25, false],
    [{ schema: 5, cfg: { d_model: 8, d_sae: 32, ...batch({ kind: "batch-top-k", top_k: 4 }) } }, 0.1, false],
  ];
  const threshold = Float32Array.of(0.75);
  for (const [header, momentum, subtract_b_dec] of headers) {
    const message =
      "missing: activation.threshold; a BatchTopK file without a threshold was written before 16 November 2025";
    if (!("schema" in header && header.schema === 3)) {
      await assertRejects(() => parse(withParameters(header)), CheckpointError, message);
    }
    const { cfg, parameters } = await parse(withParameters(header, threshold));
    const activation = { ...UPSTREAM_BATCH_TOP_K.activation, momentum };
    assertEquals(cfg, completeConfig({ ...UPSTREAM_BATCH_TOP_K, activation, subtract_b_dec }));
    assertEquals(parameters.threshold, threshold);
  }
  const topKHeader = { schema: 2, cfg: { ...SIZES.old, ...topK() } };
  await assertRejects(
    () => parse(withParameters(topKHeader, threshold)),
    CheckpointError,
    `unexpected: "activation.threshold"`,
  );
});

Deno.test("a threshold that is left out is written as 0, and one without use is refused", async () => {
  const { cfg, parameters: { threshold: _, ...parameters } } = randomModel(UPSTREAM_BATCH_TOP_K);
  assertEquals((await parse(formatCheckpoint(cfg, parameters))).parameters.threshold, new Float32Array(1));
  const refused: [cfg: SparseAutoencoderOptions, threshold: Float32Array, message: string][] = [
    [UPSTREAM_BATCH_TOP_K, Float32Array.of(NaN), "threshold is NaN at element 0"],
    [UPSTREAM_BATCH_TOP_K, new Float32Array(2), "threshold has 2 elements; expected []"],
    [UPSTREAM_TOP_K, new Float32Array(1), "found a threshold; the activation top-k takes none"],
  ];
  for (const [cfg, threshold, message] of refused) {
    assertThrows(
      () => formatCheckpoint(completeConfig(cfg), { ...parameters, threshold }),
      CheckpointError,
      message,
    );
  }
});

Deno.test("the reader's word on the encoder formula goes over the schema's", async () => {
  for (const { file, cfg } of GOLDENS) {
    for (const subtract_b_dec of [true, false]) {
      const read = await parse(goldenCheckpoint(file).bytes, { subtract_b_dec });
      assertEquals(read.cfg, completeConfig({ ...cfg, subtract_b_dec }));
    }
  }
});

// --------------------------------------------------------------------------------------------- identity, determinism

Deno.test("writing and reading is the identity on every model, in our own schema", async () => {
  await fc.assert(fc.asyncProperty(anyModel, async (model) => {
    assertSameModel(await parse(format(model, { schema: "saev_nn" })), model);
  }));
});

Deno.test("writing and reading is the identity where nothing is folded, in the schema that is asked for", async () => {
  const seen = new Set<string>();
  await fc.assert(
    fc.asyncProperty(anyModel, fc.boolean(), fc.constantFrom(5, 1, undefined), async (any, scaled, schema) => {
      const model = scaled ? any : { ...any, input: NO_SCALING };
      const { cfg: { subtract_b_dec, activation, d_model, d_sae }, input: { mean, scale } } = model;
      const isOurs = activation.key === "jump-relu" || activation.key === "top-k" && activation.relu;
      const options = { ...schema !== undefined && { schema } };
      if (isOurs || schema === 1 && (activation.key !== "relu" || d_sae % d_model !== 0)) {
        seen.add("refused");
        assertThrows(() => format(model, options), CheckpointError, `writing a checkpoint of schema ${schema ?? 5}`);
        return;
      }
      const { folded, schema: planned } = planCheckpoint(model, options);
      assertEquals(planned, schema ?? 5);
      assertEquals<readonly string[]>(folded, [
        ...subtract_b_dec === (schema === 1) ? [] : ["subtract_b_dec"],
        ...mean?.some((element) => element !== 0) ? ["mean"] : [],
        ...scale === 1 ? [] : ["scale"],
      ]);
      if (folded.length > 0) {
        seen.add("folded");
        assertThrows(
          () => format(model, { ...options, fold: false }),
          CheckpointError,
          "the schema cannot express this model",
        );
        return;
      }
      const bytes = format(model, options);
      assertEquals(JSON.parse(headerOf(bytes)).schema, planned);
      assertSameModel(await parse(bytes), { ...model, input: NO_SCALING });
      assertEquals(format(model, { ...options, fold: false }), bytes);
      seen.add(`schema ${planned}`);
    }),
    { numRuns: 500 },
  );
  assertEquals([...seen].sort(), ["folded", "refused", "schema 1", "schema 5"]);
});

Deno.test("a run's model goes to schema 5 where Python computes it, to our own schema otherwise, and nothing is refused", () => {
  for (const [name, { cfg, input }] of modelsOfEveryKind()) {
    const { activation } = cfg;
    const isPythons = activation.key === "relu" || activation.key === "batch-top-k" ||
      activation.key === "top-k" && !activation.relu;
    const schema = schemaThatKeeps({ cfg, input });
    assertEquals(schema, isPythons ? 5 : "saev_nn", name);
    assertEquals(planCheckpoint({ cfg, input }, { schema }).schema, schema);
  }
});

Deno.test("a model that subtracts b_dec goes to schema 5 unless schema 1 is asked for by name", async () => {
  const model = randomModel({ ...RELU, subtract_b_dec: true });
  assertEquals(planCheckpoint(model), { schema: 5, folded: ["subtract_b_dec"] });
  const read = await parse(format(model));
  assertEquals(read.cfg, completeConfig(RELU));
  const { W_enc, W_dec, b_dec } = read.parameters;
  const { b_enc: _, ...others } = model.parameters;
  assertEquals({ W_enc, W_dec, b_dec }, others);
  assertEquals(planCheckpoint(model, { schema: 1 }), { schema: 1, folded: [] });
  assertSameModel(await parse(format(model, { schema: 1 })), model);
});

Deno.test("equal models give equal bytes, other models others", () => {
  const model = randomModel(TOP_K, { mean: new Random(5).normal(8), scale: 0.5 });
  for (const options of [{}, { schema: "saev_nn" }] as const) {
    const copy = {
      cfg: completeConfig({ ...model.cfg }),
      parameters: structuredClone(model.parameters),
      input: structuredClone(model.input),
    };
    assertEquals(format(copy, options), format(model, options));
    const body = bodyOf(format(model, options));
    copy.parameters.b_dec[0]! += 1;
    assert(bodyOf(format(copy, options)).some((byte, i) => byte !== body[i]));
  }
});

Deno.test("the pieces are the file, and share the parameters' memory", () => {
  const model = randomModel(TOP_K);
  const pieces = formatCheckpointPieces(model.cfg, model.parameters);
  assertEquals(joinBytes(pieces), format(model));
  for (const name of PARAMETERS) {
    assert(pieces.some(({ buffer }) => buffer === model.parameters[name].buffer), name);
  }
});

Deno.test("a mean of zeros and a scale of one say nothing", async () => {
  const model = randomModel(TOP_K, { mean: new Float32Array(8), scale: 1 });
  assertEquals(format(model), format({ ...model, input: NO_SCALING }));
  assertEquals((await parse(format(model, { schema: "saev_nn" }))).input, model.input);
});

// -------------------------------------------------------------------------------------------------------- folding

/** Integers, and a scale that is a power of two: every sum below is exact. */
function integerModel(options: SparseAutoencoderOptions, mean: boolean, scale: number): Model {
  const { cfg } = randomModel(options);
  const random = new Random(9);
  const { d_model, d_sae } = cfg;
  const parameters = {
    W_enc: random.integers(d_model * d_sae),
    b_enc: random.integers(d_sae),
    W_dec: random.integers(d_sae * d_model),
    b_dec: random.integers(d_model),
  };
  return { cfg, parameters, input: { mean: mean ? random.integers(d_model) : null, scale } };
}

/** Pre-activations, and the reconstruction of given codes. */
function compute({ cfg, parameters, input }: Model, x: Float32Array, codes: Float32Array): [number[], number[]] {
  const { d_model, d_sae, subtract_b_dec } = cfg;
  const { W_enc, b_enc, W_dec, b_dec } = parameters;
  const mean = input.mean ?? new Float32Array(d_model);
  const seen = Array.from(x, (value, d) => (value - mean[d]!) / input.scale - (subtract_b_dec ? b_dec[d]! : 0));
  const h = Array.from(b_enc, (b, s) => seen.reduce((sum, value, d) => sum + value * W_enc[d * d_sae + s]!, b));
  const xHat = Array.from(b_dec, (b, d) => codes.reduce((sum, code, s) => sum + code * W_dec[s * d_model + d]!, b));
  return [h, xHat.map((value, d) => value * input.scale + mean[d]!)];
}

for (const subtract_b_dec of [false, true]) {
  for (const [mean, scale] of [[false, 1], [true, 1], [false, 4], [true, 0.25]] as const) {
    Deno.test(`folding keeps the function: subtract_b_dec ${subtract_b_dec}, mean ${mean}, scale ${scale}`, async () => {
      const model = integerModel({ ...RELU, subtract_b_dec }, mean, scale);
      const random = new Random(10);
      const x = random.integers(8);
      const codes = random.integers(32);
      for (const schema of [5, 1] as const) {
        const folded = await parse(format(model, { schema }));
        assertEquals(folded.cfg, completeConfig({ ...model.cfg, subtract_b_dec: schema === 1 }));
        assertEquals(folded.input, NO_SCALING);
        assertEquals(compute(folded, x, codes), compute(model, x, codes));
      }
    });
  }
}

Deno.test("folding leaves pre-activations, and so the threshold, as they are", async () => {
  const options = { ...UPSTREAM_BATCH_TOP_K, subtract_b_dec: true };
  const model = integerModel(options, true, 0.25);
  const random = new Random(10);
  const x = random.integers(8);
  const none = new Float32Array(32);
  const [h] = compute(model, x, none);
  // One of the pre-activations itself, which must not exceed it afterwards either.
  const threshold = Float32Array.of(h.toSorted((a, b) => b - a)[4]!);
  const withThreshold = { ...model, parameters: { ...model.parameters, threshold } };
  const folded = await parse(format(withThreshold));
  assertEquals(folded.parameters.threshold, threshold);
  assertEquals(folded.cfg, completeConfig({ ...options, subtract_b_dec: false }));
  assertEquals(compute(folded, x, none)[0], h);
  const codes = Float32Array.from(h, (value) => value > threshold[0]! ? value : 0);
  assert(codes.some((code) => code > 0));
  assertEquals(compute(folded, x, codes), compute(model, x, codes));
});

Deno.test("folding sums in float64 and rounds once", async () => {
  const model = randomModel({ ...TOP_K, subtract_b_dec: true });
  const { W_enc, b_enc, b_dec } = model.parameters;
  const { parameters } = await parse(format(model));
  const expected = b_enc.map((b, s) => b_dec.reduce((sum, value, d) => sum - value * W_enc[d * 32 + s]!, b));
  assertEquals(parameters.b_enc, expected);
  for (const name of ["W_enc", "W_dec", "b_dec"] as const) assertEquals(parameters[name], model.parameters[name]);
});

Deno.test("folding leaves the model itself, and one that needs none, as they are", () => {
  const model = randomModel({ ...RELU, subtract_b_dec: true }, { mean: new Float32Array(8).fill(2), scale: 3 });
  const before = bitsOf(model.parameters);
  format(model);
  assertEquals(bitsOf(model.parameters), before);
  const plain = randomModel(TOP_K);
  assertEquals(format(plain, { fold: false }), format(plain));
});

Deno.test("folding that leaves the range of float32 is refused", () => {
  const model = randomModel(RELU, { mean: null, scale: 1e-45 });
  assertThrows(() => format(model), CheckpointError, "W_enc is");
});

// ---------------------------------------------------------------------------------------------- what is not written

Deno.test("what a schema has no place for is refused where it must not be folded, and the message says what to do", () => {
  const scaled = { mean: null, scale: 2 };
  const shifted = { mean: new Float32Array(8).fill(1), scale: 1 };
  const subtracts = { ...RELU, subtract_b_dec: true } as const;
  const fold = false;
  const refused: [model: Model, options: FormatOptions, message: string, choice?: string][] = [
    [randomModel({ ...TOP_K, subtract_b_dec: true }), { fold }, "the model subtracts b_dec first", "fold: true"],
    [randomModel(RELU, scaled), { fold }, "the model divides its inputs by 2", "fold: true"],
    [randomModel(RELU, shifted), { fold }, "the model subtracts the mean of its inputs", "fold: true"],
    [randomModel(subtracts, scaled), { fold }, "subtracts b_dec first and the model divides its inputs by 2"],
    [randomModel(subtracts), { schema: 5, fold }, "the model subtracts b_dec first", "{ schema: 1 } is exact"],
    [randomModel(RELU), { schema: 1, fold }, "the model does not subtract b_dec first", "{ schema: 5 } is exact"],
    [randomModel(TOP_K), { schema: 1 }, "the activation is top-k instead of relu", "{ schema: 5 } is exact"],
    [randomModel({ ...RELU, d_sae: 33 }), { schema: 1 }, "d_sae 33 is not a multiple of d_model 8"],
    [randomModel({ ...RELU, activation: { key: "jump-relu" } }), {}, "the activation is jump-relu"],
    [randomModel({ ...TOP_K, activation: { key: "top-k", relu: true } }), {}, "negative codes become 0"],
  ];
  for (const [model, options, message, choice = '{ schema: "saev_nn" }'] of refused) {
    const error = assertThrows(() => format(model, options), CheckpointError, message) as unknown as Error;
    assert(error.message.includes(choice), error.message);
    assert(error.message.includes('{ schema: "saev_nn" }'), error.message);
  }
});

Deno.test("broken models are not written", () => {
  const model = randomModel(SMALL);
  const broken = (change: Partial<Model["parameters"]>, input = NO_SCALING): Model => ({
    ...model,
    parameters: { ...model.parameters, ...change },
    input,
  });
  const refused: [model: Model, message: string][] = [
    [broken({ b_enc: Float32Array.of(1, NaN, 2) }), "b_enc is NaN at element 1"],
    [broken({ W_dec: Float32Array.of(0, 0, 0, 0, 0, -Infinity) }), "W_dec is -Infinity at element 5"],
    [broken({ W_enc: new Float32Array(5) }), "W_enc has 5 elements; expected [2,3]"],
    [broken({}, { mean: Float32Array.of(1, NaN), scale: 1 }), "input_mean is NaN at element 1"],
    [broken({}, { mean: new Float32Array(3), scale: 1 }), "input_mean has 3 elements; expected d_model = 2"],
    [broken({}, { mean: null, scale: 0 }), "input_scale is 0"],
    [broken({}, { mean: null, scale: -1 }), "input_scale is -1"],
    [broken({}, { mean: null, scale: NaN }), "input_scale is NaN"],
  ];
  for (const [model, message] of refused) {
    assertThrows(() => format(model, { schema: "saev_nn" }), CheckpointError, message);
  }
});

// ------------------------------------------------------------------------------------------------- what is not read

Deno.test("headers that say anything unknown are refused by name", async () => {
  const body = format(randomModel(RELU));
  const relu = { cls: "Relu", params: {} };
  const cfg = { d_model: 8, d_sae: 32, activation: relu };
  const schema5 = (more: object, top: object = {}): string =>
    JSON.stringify({ schema: 5, cfg: { ...cfg, ...more }, ...top });
  const schema1 = (more: object, top: object = {}): string =>
    JSON.stringify({ schema: 1, cfg: { d_vit: 8, exp_factor: 4, ...more }, cls: "Relu", ...top });
  const activated = (activation: object): string => schema5({ activation });
  const old = (schema: number, sizes: object, activation: object, top: object = {}): string =>
    JSON.stringify({ schema, cfg: { ...sizes, activation }, ...top });
  const refused: [header: string, message: string][] = [
    ["{}", `the field "d_model" is missing`],
    ['{"schema":2}', `the field "cfg" is missing`],
    ['{"schema":3}', `the field "cfg" is missing`],
    ['{"schema":4}', `the field "cfg" is missing`],
    ['{"schema":0}', `the schema 0 is not supported; expected one of none, 1, 2, 3, 4, 5, "saev_nn"`],
    ['{"schema":6}', "the schema 6 is not supported"],
    ['{"schema":"5"}', `the schema "5" is not supported`],
    ['{"schema":null}', "the schema null is not supported"],
    ['{"schema":[5]}', "the schema a list is not supported"],
    ['{"schema":5}', `the field "cfg" is missing`],
    ['{"schema":5,"schema":5}', "appears twice"],
    [schema5({ d_model: 0 }), "d_model must be an integer of at least 1, found 0"],
    [schema5({ d_model: 8.5 }), "d_model is 8.5"],
    [schema5({ d_sae: -32 }), "d_sae must be"],
    [schema5({ d_sae: 1e300 }), "d_sae must be"],
    [schema5({ d_sae: "32" }), `d_sae is "32"`],
    [schema5({ reinit_blend: 1.5 }), "reinit_blend must be between 0 and 1"],
    [schema5({ normalize_w_dec: 1 }), "normalize_w_dec is 1; expected true or false"],
    [schema5({ seed: 1 }), `reading the header.cfg: unknown field "seed"`],
    [schema5({ ["__proto__"]: 1 }), `unknown field "__proto__"`],
    [schema5({}, { cls: "Relu" }), `unknown field "cls"`],
    [schema5({}, { commit: 5 }), "commit is 5"],
    [
      activated({ cls: "AbsBatchTopK", params: { top_k: 4 } }),
      `the class "AbsBatchTopK" is not supported; expected one of Relu, TopK, BatchTopK`,
    ],
    [old(4, SIZES.new, { cls: "AbsBatchTopK", params: { top_k: 4 } }), `the class "AbsBatchTopK" is not supported`],
    [activated({ cls: "BatchTopK", params: { top_k: 4, momentum: 2 } }), "momentum must be between 0 and 1"],
    [activated({ cls: "BatchTopK", params: { momentum: 0.1 } }), `the field "top_k" is missing`],
    [activated({ cls: "toString", params: {} }), `the class "toString"`],
    [activated({ cls: "__proto__", params: {} }), `the class "__proto__"`],
    [activated({ cls: "TopK", params: {} }), `the field "top_k" is missing`],
    [activated({ cls: "TopK", params: { top_k: 0 } }), "top_k must be an integer of at least 1"],
    [activated({ cls: "Relu", params: { top_k: 4 } }), `unknown field "top_k"`],
    [activated({ cls: "Relu", params: { key: "top-k" } }), `the key "top-k" contradicts the class Relu`],
    [activated({ cls: "Relu", params: { key: "relu", kind: "relu" } }), `both "key" and "kind"`],
    [activated({ cls: "Relu", params: { sparsity: {} } }), `the field "cls" is missing`],
    [activated({ cls: "Relu", params: { sparsity: { cls: "AuxK", params: {} } } }), "expected one of NoSparsity"],
    [
      activated({ cls: "Relu", params: { aux: { cls: "AuxK", params: { dead_threshold_tokens: "1" } } } }),
      `dead_threshold_tokens is "1"`,
    ],
    [activated({ cls: "Relu", params: {}, more: 1 }), `unknown field "more"`],
    [schema1({}, { cls: "TopK" }), `the field "top_k" is missing`],
    [schema1({ top_k: 4 }), `unknown field "top_k"`],
    [schema1({ d_model: 8 }), `found both "d_model" and "d_vit"`],
    [schema1({ d_sae: 32 }), `found both "d_sae" and "exp_factor"`],
    [schema1({}, { cls: "JumpRelu" }), `the class "JumpRelu" of schema 1 is not supported; expected one of Relu, TopK`],
    [schema1({}, { cls: "__proto__" }), `the class "__proto__" of schema 1`],
    [schema1({}, { cls: "SparseAutoencoderConfig" }), `the field "activation" is missing`],
    [schema1({ activation: relu }), `unknown field "activation"`],
    [schema1({ exp_factor: 1e300 }), "d_sae must be"],
    [schema1({ exp_factor: 2 ** 50 }), "d_sae must be"],
    [old(2, SIZES.old, relu, { cls: "Relu" }), `unknown field "cls"`],
    [old(2, { ...SIZES.old, top_k: 4 }, relu), `unknown field "top_k"`],
    [old(3, SIZES.mixed, { cls: "TopK", params: {} }), `the field "top_k" is missing`],
    [old(4, SIZES.new, { cls: "Relu", params: { sparsity: { coeff: "1" } } }), `coeff is "1"`],
    [old(4, SIZES.new, { cls: "Relu", params: { sparsity: { coeff: -1 } } }), "coeff must be"],
    [old(4, SIZES.new, { cls: "Relu", params: { sparsity: { alpha: 1 } } }), `unknown field "alpha"`],
    [
      old(4, SIZES.new, { cls: "Relu", params: { sparsity: { kind: "no-sparsity", coeff: 1 } } }),
      `the key "no-sparsity" contradicts its fields; expected "l1-sparsity"`,
    ],
    [JSON.stringify({ ...SIZES.old, sparsity_coeff: 1, l1_coeff: 1 }), `both "sparsity_coeff" and "l1_coeff"`],
    [JSON.stringify({ ...SIZES.old, sparsity_coeff: -1 }), "coeff must be"],
    [JSON.stringify({ ...SIZES.old, ghost_grads: 0 }), "ghost_grads is 0"],
    [JSON.stringify({ ...SIZES.old, activation: relu }), `unknown field "activation"`],
    [JSON.stringify({ cfg: SIZES.old, cls: "Relu" }), `the field "d_model" is missing`],
    [JSON.stringify({ schema: "saev_nn", cfg }), `needs the key "saev_nn"`],
    ['{"schema":5,"cfg":{"d_model":NaN}}', "expected a value"],
    ['{"schema":5,"cfg":{"d_model":1e999}}', "beyond float64"],
  ];
  for (const [header, message] of refused) {
    await assertRejects(() => parse(withHeader(header, body)), CheckpointError, message);
  }
});

/** Puts the right checksum on a header that was changed. */
function signed(header: string): string {
  const at = header.lastIndexOf('"crc32"');
  const checksum = zlib.crc32(header.slice(0, at)).toString(16).padStart(8, "0");
  return header.slice(0, at) + header.slice(at).replace(/[0-9a-f]{8}/, checksum);
}

Deno.test("our own key is checked as strictly", async () => {
  const five = format(randomModel(UPSTREAM_TOP_K));
  const one = format(randomModel({ ...RELU, subtract_b_dec: true }), { schema: 1 });
  const own = format(randomModel(RELU, { mean: new Float32Array(8), scale: 2 }), { schema: "saev_nn" });
  await parse(withHeader(signed(headerOf(own)), own));
  const refused: [bytes: Uint8Array, from: string, to: string, message: string][] = [
    [five, '"top_k":4', '"top_k":5', "contradicts the cfg's"],
    [five, '"relu":false', '"relu":true', "contradicts the cfg's"],
    [five, '"include_b_dec":true', '"include_b_dec":1', "include_b_dec must be true or false, found 1"],
    [five, '"include_b_dec":true', '"include_b_dex":true', `aux auxk has no field "include_b_dex"`],
    [five, '"include_b_dec":true', '"__proto__":true', `aux auxk has no field "__proto__"`],
    [five, '"activation":{"key"', '"activation":{"kind"', "contradicts the cfg's"],
    [five, '"include_b_dec":true', '"include_b_dec":true,"subtract_b_dec":true', `no field "subtract_b_dec"`],
    [five, `"version":"${VERSION}"`, `"version":"${VERSION}","input_scale":2.0`, `unknown field "input_scale"`],
    [five, `"version":"${VERSION}"`, '"version":1', "version is 1"],
    [one, '"activation": {"key": "relu"', '"activation": {"key": "top-k"', "contradicts the cfg's"],
    [one, '"activation": {', '"activation": {"top_k": 4, ', "contradicts the cfg's"],
    [one, '"aux": {"key": "no-aux"}}', '"aux": {"key": "no-aux"}, "k": 4}', `activation relu has no field "k"`],
    [own, '"input_scale":2.0', '"input_scale":0.0', "input_scale is 0"],
    [own, '"input_scale":2.0', '"input_scale":"2"', `input_scale is "2"`],
    [own, '"input_mean":[0.0,', '"input_mean":[', "input_mean has 7 elements"],
    [own, '"input_mean":[0.0,', '"input_mean":[1e300,', "input_mean is Infinity at element 0"],
    [own, '"input_mean":[0.0,', '"input_mean":[null,', "input_mean is a list; expected a list of numbers"],
    [own, '"subtract_b_dec":false,', "", `the field "subtract_b_dec" is missing`],
  ];
  for (const [bytes, from, to, message] of refused) {
    const header = headerOf(bytes);
    assert(header.includes(from));
    const changed = header.replace(from, to);
    await assertRejects(() => parse(withHeader(changed, bytes)), CheckpointError, "the header was changed");
    if (message !== "") {
      await assertRejects(() => parse(withHeader(signed(changed), bytes)), CheckpointError, message);
    }
  }
  const header = headerOf(five);
  const moved = header.replace(/,"crc32":"(.{8})"\}\}$/, ',"crc32":"$1","more":1}}');
  await assertRejects(() => parse(withHeader(moved, five)), CheckpointError, "crc32 is not the last field");
  const without = header.replace(/,"crc32":".{8}"/, "");
  await assertRejects(() => parse(withHeader(without, five)), CheckpointError, `the field "crc32" is missing`);
});

Deno.test("parameters that are missing, unexpected, of other shapes or broken are named", async () => {
  const { parameters } = randomModel(SMALL);
  const header = unbound(headerOf(format(randomModel(SMALL))));
  const shapes: Record<string, number[]> = { W_enc: [2, 3], b_enc: [3], W_dec: [3, 2], b_dec: [2] };
  const good = PARAMETERS.map((name) => ({ name: name as string, shape: shapes[name]!, data: parameters[name] }));
  const read = (tensors: typeof good): Promise<unknown> =>
    parse(joinBytes([utf8(`${header}\n`), ...formatTorchFile(tensors, [""])]));
  const swap = (name: string, change: Partial<(typeof good)[number]>): typeof good =>
    good.map((tensor) => tensor.name === name ? { ...tensor, ...change } : tensor);
  await read(good);
  await read(good.toReversed());
  const threshold = { name: "activation.threshold", shape: [], data: Float32Array.of(0.5) };
  const refused: [tensors: typeof good, message: string][] = [
    [good.slice(1), "missing: W_enc"],
    [good.slice(2), "missing: W_enc, b_enc"],
    [[...good, threshold], `unexpected: "activation.threshold"`],
    [swap("W_enc", { name: "w_enc" }), `missing: W_enc; unexpected: "w_enc"`],
    [swap("W_enc", { name: "__proto__" }), `missing: W_enc; unexpected: "__proto__"`],
    [swap("W_enc", { shape: [3, 2] }), "W_enc has shape [3,2]; the header says [2,3]"],
    [swap("W_dec", { shape: [6] }), "W_dec has shape [6]"],
    [swap("b_enc", { shape: [3, 1] }), "b_enc has shape [3,1]"],
    [swap("b_dec", { shape: [1], data: Float32Array.of(1) }), "b_dec has shape [1]"],
    [swap("b_dec", { data: Float32Array.of(1, NaN) }), "b_dec is NaN at element 1"],
    [swap("b_dec", { data: Float32Array.of(-Infinity, 1) }), "b_dec is -Infinity at element 0"],
  ];
  for (const [tensors, message] of refused) await assertRejects(() => read(tensors), CheckpointError, message);
});

Deno.test("a shared storage and another device are read as upstream's files of early 2026 need", async () => {
  const raw = { key: "0", length: 6, location: "cuda:0" };
  const tensors: Record<string, RawTensor> = {
    W_dec: { ...raw, shape: [3, 2], strides: [2, 1] },
    b_dec: { ...raw, key: "1", length: 2, shape: [2], strides: [1] },
    W_enc: { ...raw, shape: [2, 3], strides: [1, 2] },
    b_enc: { ...raw, key: "2", length: 3, shape: [3], strides: [1] },
  };
  const bytes = (values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
  const body = rawZip([
    { name: "sae/data.pkl", bytes: stateDict(tensors) },
    { name: "sae/data/0", bytes: bytes([1, 2, 3, 4, 5, 6]) },
    { name: "sae/data/1", bytes: bytes([7, 8]) },
    { name: "sae/data/2", bytes: bytes([9, 10, 11]) },
    { name: "sae/version", bytes: utf8("3\n") },
  ]);
  const header = unbound(headerOf(format(randomModel(SMALL))));
  const { parameters } = await parse(joined([utf8(`${header}\n`), body]));
  assertEquals([...parameters.W_dec], [1, 2, 3, 4, 5, 6]);
  assertEquals([...parameters.W_enc], [1, 3, 5, 2, 4, 6]);
  assertEquals([...parameters.b_enc], [9, 10, 11]);
});

// ------------------------------------------------------------------------------------- parts of one file in another

Deno.test("a storage of one file in another is refused, wherever PyTorch or this library wrote the id", async () => {
  const ours = [0, 1].map((seed) => format(randomModel(RELU, NO_SCALING, seed)));
  const upstream = ["schema5_relu.pt", "schema5_top_k.pt"].map((file) => goldenCheckpoint(file).bytes);
  for (const [a, b] of [ours, upstream, [ours[0]!, upstream[0]!]] as const) {
    await parse(await withRecords(a!, b!, /nothing/));
    for (const names of [/data\/0$/, /data\/[23]$/]) {
      await assertRejects(
        () => withRecords(a!, b!, names).then((bytes) => parse(bytes)),
        CheckpointError,
        "another file",
      );
    }
  }
});

Deno.test("our header on the archive of another file is refused; upstream's says nothing about its archive", async () => {
  const [a, b] = [0, 1].map((seed) => format(randomModel(RELU, NO_SCALING, seed)));
  for (const options of [{}, { schema: "saev_nn" }, { schema: 1, fold: true }] as const) {
    const header = headerOf(format(randomModel(RELU), options));
    await parse(withHeader(header, format(randomModel(RELU), options)));
    await assertRejects(() => parse(withHeader(header, b!)), CheckpointError, "the header belongs to another file");
  }
  assertSameModel(await parse(withHeader(unbound(headerOf(a!)), b!)), await parse(b!));
});

// ------------------------------------------------------------------------------------------------------- damaged files

const SMALL_FILES = (): Uint8Array[] => [
  format(randomModel({ ...SMALL, activation: { key: "batch-top-k" } })),
  format(randomModel(SMALL)),
  format(randomModel({ ...SMALL, d_sae: 4, subtract_b_dec: true })),
  format(randomModel(SMALL, { mean: Float32Array.of(1, -2), scale: 0.3 }), { schema: "saev_nn" }),
];

/** Upstream's goldens share one archive, to which a BatchTopK adds a record; of the others, what differs is the header. */
const WHOLE = ["schema5_batch_top_k.pt", "schema5_float16.pt", "schema5_shared_storage.pt"];

/** How much of a golden file is damaged at every byte. */
function extentOf(file: string, bytes: Uint8Array): number {
  return WHOLE.includes(file) ? bytes.length : bytes.indexOf(10) + 100;
}

Deno.test("every truncation is refused, and nothing else happens", async () => {
  const goldens = GOLDENS.map(({ file }) => ({ file, bytes: goldenCheckpoint(file).bytes }));
  const files = [
    ...SMALL_FILES().map((bytes) => ({ bytes, extent: bytes.length })),
    ...goldens.map(({ file, bytes }) => ({ bytes, extent: extentOf(file, bytes) })),
  ];
  for (const { bytes, extent } of files) {
    for (let length = 0; length < extent; length++) {
      await assertRejects(() => parse(bytes.subarray(0, length)), CheckpointError);
    }
    await assertRejects(() => parse(bytes.subarray(0, -1)), CheckpointError);
    await assertRejects(() => parse(joined([bytes, Uint8Array.of(0)])), CheckpointError);
    await parse(bytes);
  }
});

/** Each bit of a byte, and all of them. */
const EACH_BIT = [1, 2, 4, 8, 16, 32, 64, 128, 255];

/** Every byte in turn: each bit of a header without checksum, elsewhere another bit each time, or all of them. */
function* damaged(bytes: Uint8Array, extent = bytes.length): Generator<readonly [at: number, bytes: Uint8Array]> {
  const changed = bytes.slice();
  const open = headerOf(bytes).includes('"crc32"') ? 0 : bytes.indexOf(10);
  for (let at = 0; at < extent; at++) {
    for (const flip of at <= open ? EACH_BIT : [EACH_BIT[at % 9]!]) {
      changed[at] = bytes[at]! ^ flip;
      yield [at, changed];
    }
    changed[at] = bytes[at]!;
  }
}

async function readOrRefuse(bytes: Uint8Array): Promise<Model | null> {
  try {
    return await parse(bytes);
  } catch (error) {
    if (error instanceof CheckpointError) return null;
    throw error;
  }
}

function summary(model: Model): string {
  return JSON.stringify([
    model.cfg,
    bitsOf(model.parameters),
    model.input.mean && [...model.input.mean],
    model.input.scale,
  ]);
}

Deno.test("no damaged byte makes one of our files another model", async () => {
  let refused = 0;
  let harmless = 0;
  for (const [i, bytes] of SMALL_FILES().entries()) {
    const expected = summary(await parse(bytes));
    // Their archives differ in sizes.
    for (const [at, changed] of damaged(bytes, i === 0 ? bytes.length : bytes.indexOf(10) + 100)) {
      const model = await readOrRefuse(changed);
      if (model === null) refused++;
      else {
        harmless++;
        assertEquals(summary(model), expected, `byte ${at} changed the model`);
      }
    }
  }
  // Both happen: padding, dates and attributes carry nothing.
  assert(refused > 1000 && harmless > 500, `${refused} refused, ${harmless} harmless`);
});

for (const { file } of GOLDENS) {
  Deno.test(`a damaged byte of ${file} never changes a parameter, but may change a digit of its header`, async () => {
    const { bytes } = goldenCheckpoint(file);
    const headerLength = bytes.indexOf(10);
    const expected = await parse(bytes);
    const bits = JSON.stringify(bitsOf(expected.parameters));
    const differing: number[] = [];
    for (const [at, changed] of damaged(bytes, extentOf(file, bytes))) {
      const model = await readOrRefuse(changed);
      if (model === null) continue;
      assertEquals(JSON.stringify(bitsOf(model.parameters)), bits, `byte ${at} changed a parameter`);
      assertEquals(model.cfg.activation.key, expected.cfg.activation.key, `byte ${at} changed the activation`);
      assertEquals(model.cfg.subtract_b_dec, expected.cfg.subtract_b_dec, `byte ${at} changed the encoder formula`);
      if (JSON.stringify(model.cfg) !== JSON.stringify(expected.cfg)) differing.push(at);
    }
    // The header as upstream writes it has no checksum: this is what may go unnoticed.
    const characters = new Set(differing.map((at) => String.fromCharCode(bytes[at]!)));
    assert(differing.every((at) => at < headerLength));
    assertEquals([...characters].filter((character) => !/[0-9.]/.test(character)), []);
  });
}

Deno.test("headers beyond the limits are refused in every schema, before anything is made of them", async () => {
  for (const { file } of GOLDENS) {
    const { bytes } = goldenCheckpoint(file);
    const inserted = (text: string): Uint8Array => {
      const result = new Uint8Array(bytes.length + text.length);
      result.set(utf8(text), 1);
      result.set(bytes.subarray(1), 1 + text.length);
      result[0] = bytes[0]!;
      return result;
    };
    const refused: [text: string, message: string][] = [
      [" ".repeat(2 ** 21), "found no end of the header line within 2097152 bytes"],
      [`"more":${"[".repeat(100_000)},`, "more than 16 levels of nesting"],
      [`"more":${'{"a":'.repeat(17)}`, "more than 16 levels of nesting"],
      [`"more":"${"x".repeat(2 ** 20)}",`, `unknown field "more"`],
      [`"${"x".repeat(2 ** 20)}":1,`, "unknown field"],
      [`"more":[${"{},".repeat(5000)}{}],`, "more than 4096 objects, lists and strings"],
    ];
    for (const [text, message] of refused) {
      const error = await assertRejects(() => parse(inserted(text)), CheckpointError, message);
      assert((error as Error).message.length < 1000);
    }
  }
});

Deno.test("sizes beyond the parameters are refused in every schema, before anything of that size is made", async () => {
  for (const { file } of GOLDENS) {
    const { bytes } = goldenCheckpoint(file);
    const header = headerOf(bytes);
    for (const name of ["d_vit", "d_model", "exp_factor", "d_sae"]) {
      const pattern = new RegExp(`"${name}": ?\\d+`);
      if (!pattern.test(header)) continue;
      for (const size of ["0", "-8", "1", "16777216", "4503599627370496", "9007199254740993", "1e300", "8.5", '"8"']) {
        const changed = header.replace(pattern, `"${name}":${size}`);
        await assertRejects(() => parse(withHeader(changed, bytes)), CheckpointError);
      }
    }
  }
});

Deno.test("any bytes are refused or read, and nothing else happens", async () => {
  const files = SMALL_FILES();
  const change = fc.tuple(
    fc.nat(2),
    fc.double({ min: 0, max: 1, noNaN: true }),
    fc.uint8Array({ minLength: 1, maxLength: 30 }),
  );
  await fc.assert(
    fc.asyncProperty(change, async ([which, place, patch]) => {
      const bytes = files[which]!.slice();
      bytes.set(patch, Math.floor(place * (bytes.length - patch.length)));
      await readOrRefuse(bytes);
      await readOrRefuse(patch);
    }),
    { numRuns: 3000 },
  );
});

Deno.test("a bare PyTorch file is told apart", async () => {
  const body = bodyOf(format(randomModel(SMALL)));
  assertEquals((await readTorchFile(bytesSource(body))).size, 4);
  await assertRejects(() => parse(body), CheckpointError, "a bare torch.save");
});
