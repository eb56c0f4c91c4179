/**
 * Every WGSL text that the library can make, collected on a device that compiles and computes nothing.
 *
 * The library's own tables say what there is: each activation is trained and evaluated with its defaults, with each of its
 * penalties and auxiliary losses, with each switch turned, and at many widths; products are recorded with every tile,
 * layout and epilogue. Each kernel that comes up is then put into every form: joined, from textures, of f16. The tests
 * of this folder fail where a `defineKernel` of the library never comes up.
 *
 * @module
 */

import { encodeRows, evaluate, fitProbes, type LabelledCodes, measureCoherence } from "../../eval/mod.ts";
import { Commands } from "../../kernels/engine/commands.ts";
import { DeviceContext } from "../../kernels/engine/device.ts";
import { type Binding, defineKernel, type Kernel } from "../../kernels/engine/kernel.ts";
import { type FormedKernel, kernelForm } from "../../kernels/forms/form.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { matmul, type MatmulArguments } from "../../kernels/matmul.ts";
import { canUse, type Layout, type TileName, TILES } from "../../kernels/matmul_tiles.ts";
import { csrToDense } from "../../kernels/mod.ts";
import { type ActivationOptions, ACTIVATIONS, parameterShapes } from "../../nn/activations/mod.ts";
import type { ParameterArrays, PiecewiseParameters } from "../../nn/arrays.ts";
import {
  completeConfig,
  CONFIG_FIELDS,
  type SparseAutoencoderConfig,
  type SparseAutoencoderOptions,
} from "../../nn/config.ts";
import type { AnyFields, Field } from "../../nn/fields.ts";
import { intervene } from "../../nn/intervene.ts";
import { AUXILIARIES, SPARSITIES } from "../../nn/loss_terms.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { getObjective, type ObjectiveOptions } from "../../objectives/objective.ts";
import { meanSquaredErr } from "../../objectives/squared_error.ts";
import { train, type TrainOptions } from "../../train/mod.ts";
import { recordingDevice } from "./recording_device.ts";

/** What kernels are made for. */
export interface Profile {
  /** What tables call it. */
  readonly name: string;
  /** Invocations that share a row. */
  readonly lanes: number;
  /** Whether kernels may use subgroups of eight. */
  readonly hasSubgroups?: boolean;
}

/** Software drivers with and without subgroups, and GPUs of every width. */
export const PROFILES: readonly Profile[] = [
  { name: "8 lanes and subgroups", lanes: 8, hasSubgroups: true },
  { name: "8 lanes", lanes: 8 },
  { name: "16 lanes", lanes: 16 },
  { name: "32 lanes", lanes: 32 },
  { name: "64 lanes", lanes: 64 },
];

/** Rows of a batch, and latents: enough of them for maxima of neighbours, and no multiple of four. */
const [B, SIZES] = [128, [[32, 648], [30, 649]]] as const;

/** Widths at which an invocation owns one load of a row, two, and so on, by fours and one by one. */
const WIDTHS = [64, 128, 256, 384, 512, 640, 768, 1024, 2048, 7, 15, 61, 93, 125, 157, 189, 255, 509];

/** Of which sizes models are made: d_model with d_sae, and d_model alone for a smaller model of each activation. */
interface ModelSizes {
  readonly sizes: readonly (readonly [d_model: number, d_sae: number])[];
  readonly widths: readonly number[];
}

const OBJECTIVES: readonly ObjectiveOptions[] = [
  { key: "vanilla", dead_threshold_tokens: 1 },
  { key: "matryoshka", n_prefixes: 3, dead_threshold_tokens: 1 },
];

/** Ways to train that change which kernels run. */
const TRAININGS: readonly TrainOptions[] = [
  { optimizer: { key: "muon" } },
  { optimizer: { key: "muon", nesterov: false } },
  { grad_clip: false },
  { k_start: 16, n_k_warmup: 4 },
];

/** Configurations: of each activation the defaults, and whatever differs from them in one field. */
export function configurations(): SparseAutoencoderOptions[] {
  return Object.entries(ACTIVATIONS).flatMap(([key, { fields }]) => {
    const own = fields as unknown as AnyFields;
    const base = activationOptions(key);
    const activations = [
      base,
      ...switches(own).map((turned) => ({ ...base, ...turned })),
      // Lists of every length that a subgroup keeps, and longer ones.
      ...("top_k" in own ? [24, 40, 100] : []).map((top_k) => ({ ...base, top_k })),
      ...everyKind(SPARSITIES).map((sparsity) => ({ ...base, sparsity })),
      ...everyKind(AUXILIARIES).map((aux) => ({ ...base, aux })),
      ...[4, 100].map((k_aux) => ({ ...base, aux: { key: "auxk", k_aux } })),
    ];
    return [
      ...activations.map((activation) => ({ activation })),
      ...switches(CONFIG_FIELDS as unknown as AnyFields).map((turned) => ({ ...turned, activation: base })),
    ] as SparseAutoencoderOptions[];
  }).filter(isPossible);
}

/** An activation with its defaults, but for few codes a row. */
function activationOptions(key: string): ActivationOptions {
  const fields = ACTIVATIONS[key as keyof typeof ACTIVATIONS].fields;
  return { key, ...("top_k" in fields && { top_k: 8 }) } as ActivationOptions;
}

/** For every field that is true or false, the other of them. */
function switches(fields: AnyFields): Record<string, boolean>[] {
  return Object.entries<Field<unknown>>(fields)
    .flatMap(([name, { otherwise }]) => typeof otherwise === "boolean" ? [{ [name]: !otherwise }] : []);
}

/** Of a table with a `key`: each kind with its defaults, and with each switch turned. */
function everyKind(kinds: Readonly<Record<string, AnyFields>>): Record<string, unknown>[] {
  return Object.entries(kinds).flatMap(([key, fields]) => {
    const values = Object.entries(fields).map(([name, { otherwise, example }]) => [name, otherwise ?? example]);
    const base = { key, ...Object.fromEntries(values) };
    return [base, ...switches(fields).map((turned) => ({ ...base, ...turned }))];
  });
}

/** Not every activation takes every penalty. */
function isPossible(options: SparseAutoencoderOptions): boolean {
  try {
    completeConfig(options);
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** The kernels of models on one profile, each as it runs there; of all sizes that make a difference if none is given. */
export function modelKernels(
  profile: Profile,
  { sizes = SIZES, widths = WIDTHS }: Partial<ModelSizes> = {},
): Promise<FormedKernel[]> {
  return collect(profile, ({ device }) => trainEverything(device, { sizes, widths }));
}

/** The same, where a binding has 64 KiB: sums continue from one block of rows to the next. */
export function blockKernels(profile: Profile): Promise<FormedKernel[]> {
  return collect({ ...profile, bindingLimit: 2 ** 16 }, async ({ device }) => {
    for (const key of Object.keys(ACTIVATIONS)) {
      const activation = { ...activationOptions(key), aux: { key: "auxk", k_aux: 4 } } as ActivationOptions;
      for (const objective of OBJECTIVES) await trainModel(device, { d_model: 80, d_sae: 248, activation }, objective);
    }
  });
}

/** The kernels of products with some tiles; with all that a caller, or the tuner, may ask for on one profile. */
export function productKernels(
  profile: Profile,
  { tiles = [...TILES.keys()], aligned = [true, false] }: Partial<ProductKinds> = {},
): Promise<FormedKernel[]> {
  return collect(profile, (context) => recordProducts(context, { tiles, aligned }));
}

async function collect(
  { hasSubgroups, lanes, bindingLimit = Infinity }: Profile & { readonly bindingLimit?: number },
  use: (context: DeviceContext) => void | Promise<void>,
): Promise<FormedKernel[]> {
  const { device } = recordingDevice({ features: hasSubgroups ? ["subgroups"] : [] });
  const context = new DeviceContext(device, { lanes, bindingLimit, textureCopyBytes: Infinity });
  if (hasSubgroups) context.subgroups = "enable subgroups;\n";
  await use(context);
  return [...context.pipelines.keys()] as FormedKernel[];
}

/** Whatever a model is for, so that also what only some of it runs comes up. */
async function trainEverything(device: GPUDevice, { sizes, widths }: ModelSizes): Promise<void> {
  for (const [d_model, d_sae] of sizes) {
    for (const cfg of configurations()) {
      for (const objective of OBJECTIVES) await trainModel(device, { ...cfg, d_model, d_sae }, objective);
    }
    const activation = activationOptions("top-k");
    for (const options of TRAININGS) {
      await trainModel(device, { d_model, d_sae, activation }, OBJECTIVES[0]!, options);
    }
    const controlled = { key: "relu", sparsity: { key: "l1-sparsity", coeff: 0.1 } } as const;
    await trainModel(device, { d_model, d_sae, activation: controlled }, { key: "vanilla", target_l0: 4 });
    await useModel(device, { d_model, d_sae, activation });
  }
  for (const d_model of widths) {
    for (const key of Object.keys(ACTIVATIONS)) {
      await trainModel(device, { d_model, d_sae: 64, activation: activationOptions(key) }, OBJECTIVES[1]!);
    }
  }
}

async function trainModel(
  device: GPUDevice,
  cfg: SparseAutoencoderOptions,
  objective: ObjectiveOptions,
  options: TrainOptions = {},
): Promise<void> {
  const rows = someRows(cfg);
  using sae = await model(device, cfg);
  for await (const _ of train(sae, getObjective(objective), [rows, rows], { log_every: 2, ...options }));
  using _out = sae.forward(rows.subarray(0, rows.length / 2));
}

async function useModel(device: GPUDevice, cfg: SparseAutoencoderOptions): Promise<void> {
  const rows = someRows(cfg);
  using sae = await model(device, cfg);
  const { context, cfg: { d_sae } } = sae;
  await evaluate(sae, [rows]);
  for await (const _ of encodeRows(sae, [rows]));
  await measureCoherence(sae);
  await fitProbes(someCodes(d_sae), { device, max_iter: 1 });
  await getObjective({ key: "vanilla" }).loss(sae, rows);
  using steered = intervene(sae, rows, [{ latent: 5, set: 2 }, { latent: 7, ablate: true }]);
  for (const norm of [false, true]) meanSquaredErr(steered, steered, { norm })[Symbol.dispose]();
  using codes = sae.encode(rows);
  const [n_rows, columns] = [codes.n_rows, d_sae];
  using dense = new Tensor(context, "f32", [n_rows, columns], "codes as a matrix");
  const commands = new Commands(context);
  csrToDense(commands, { sparse: codes.sparse, firstRow: 0, rows: n_rows, columns, result: dense });
  commands.submit();
  for (const weights of ["f32", "f16"] as const) {
    // As formats hold them: W_enc has to be transposed.
    const pieces = Object.fromEntries(
      Object.entries(zeros(sae.cfg)).map(([name, values]) => [name, { pieces: once(values), isTransposed: false }]),
    ) as unknown as PiecewiseParameters;
    using copy = await SparseAutoencoder.fromPieces(sae.cfg, pieces, { device, weights });
    using _out = copy.forward(rows);
  }
}

/** Two rows of codes, each of a class. */
function someCodes(d_sae: number): LabelledCodes {
  const rows = {
    row_starts: Uint32Array.of(0, 2, 3),
    indices: Uint32Array.of(0, 2, 1),
    values: Float32Array.of(1, 2, 3),
  };
  const codes = { name: "two rows", shape: [2, d_sae] as const, n_entries: 3, rows: () => once(rows) };
  return { codes, labels: Uint16Array.of(0, 1) };
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield await Promise.resolve(value);
}

/** A model of zeros: drawing initial values would take most of the time. */
async function model(device: GPUDevice, options: SparseAutoencoderOptions): Promise<SparseAutoencoder> {
  const cfg = completeConfig(options);
  return await SparseAutoencoder.fromParameters(cfg, zeros(cfg), { device });
}

function zeros(cfg: SparseAutoencoderConfig): ParameterArrays {
  const arrays = [...parameterShapes(cfg)].map(([name, shape]) => [
    name,
    new Float32Array(shape.reduce((size, n) => size * n, 1)),
  ]);
  return Object.fromEntries(arrays) as unknown as ParameterArrays;
}

function someRows({ d_model }: SparseAutoencoderOptions): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: B * d_model! }, (_, i) => Math.sin(i * i));
}

/** With which tiles, and of rows that start at multiples of four or not. */
interface ProductKinds {
  readonly tiles: readonly TileName[];
  readonly aligned: readonly boolean[];
}

/** What happens to a product before it is stored. */
const EPILOGUES = ["plain", "bias", "bias and ReLU", "accumulate", "maxima", "limit M", "limit N", "limit K"] as const;

/** Products with every tile, layout and epilogue, of rows that start at multiples of four, or not. */
function recordProducts(context: DeviceContext, { tiles, aligned }: ProductKinds): void {
  using stack = new DisposableStack();
  const commands = new Commands(context);
  const size = 64;
  const make = (stride: number, label: string) => stack.use(new Tensor(context, "f32", [size, stride], label));
  const limitBy = stack.use(Tensor.from(context, Uint32Array.of(3), [1], "limit"));
  const maxima = stack.use(new Tensor(context, "u32", [size / 8, size], "maxima"));
  const bias = stack.use(new Tensor(context, "f32", [size], "bias"));
  for (const isAligned of aligned) {
    const stride = isAligned ? size : size + 1;
    const [a, b, c] = [make(stride, "A"), make(stride, "B"), make(stride, "C")];
    for (const tile of tiles) {
      if (!canUse(context, TILES.get(tile)!, isAligned)) continue;
      for (const layout of ["nn", "nt", "tn"] satisfies Layout[]) {
        for (
          const [epilogue, K] of EPILOGUES.flatMap((epilogue) => [[epilogue, size], [epilogue, size - 1]] as const)
        ) {
          const given: MatmulArguments = {
            layout,
            M: size,
            N: size,
            K,
            a: { in: a },
            b: { in: b },
            c: { in: c },
            tile,
            ...(epilogue.startsWith("bias") || epilogue === "maxima" ? { bias } : {}),
            ...(epilogue === "bias and ReLU" ? { relu: true } : {}),
            ...(epilogue === "accumulate" ? { accumulate: true } : {}),
            ...(epilogue === "maxima" ? { maxima: { in: maxima } } : {}),
            ...(epilogue.startsWith("limit")
              ? { limit: { size: epilogue.at(-1) as "M" | "N" | "K", by: limitBy } }
              : {}),
          };
          matmul(commands, given);
        }
      }
    }
  }
  commands.submit();
}

/** A kernel in every form that a dispatch may ask for: joined, from textures, of f16, and all of it. */
export function everyForm(kernel: FormedKernel): FormedKernel[] {
  const bindings = Object.entries<Binding>(kernel.bindings);
  const names = (which: (binding: Binding) => unknown) =>
    bindings.filter(([, binding]) => which(binding)).map(([name]) => name);
  const readings = names(({ reading }) => reading).slice(0, MOST_TEXTURES);
  const floats = names(({ access, element }) => access === "read" && ["f32", "vec4f"].includes(element));
  const forms: [isJoined: boolean, textures: readonly string[], f16: readonly string[]][] = [
    [false, [], []],
    [true, [], []],
    [false, readings, []],
    [false, [], floats],
    [true, readings, floats],
    ...readings.map((name): [boolean, string[], string[]] => [false, [name], []]),
  ];
  // The kernel as it was declared.
  const plain = defineKernel(kernel) as Kernel;
  return forms.map(([isJoined, textures, f16]) =>
    kernelForm(plain, { isJoined, textures: new Set(textures), f16: new Set(f16) })
  );
}

/** Textures of a kernel that every adapter takes. */
const MOST_TEXTURES = 4;
