/**
 * ONNX Runtime and an image decoder, fetched from npm by the commands that need them, and by no other: their names are put
 * together only when they are wanted.
 *
 * @module
 */

import type { ByteImage, ImageDecoder, ModelTensor, OpenModel } from "../data/mod.ts";
import { furtherOutputs, type OnnxModel } from "../io/mod.ts";
import { say } from "./command.ts";

/** Which ONNX Runtime: in WebAssembly on one thread, or native, which is several times faster. */
export type OnnxRuntime = "web" | "node";

/** What is fetched, and how large the downloads are that it takes on one system. */
const PACKAGES = {
  web: { specifier: "onnxruntime-web@1.30.0", path: "/wasm", megabytes: 34 },
  node: { specifier: "onnxruntime-node@1.30.0", path: "", megabytes: 114 },
  sharp: { specifier: "sharp@0.35.5", path: "", megabytes: 17 },
} as const;

/** Imports a package. Deno keeps it, so that it is downloaded once. */
async function fetchPackage(name: keyof typeof PACKAGES): Promise<unknown> {
  const { specifier, path, megabytes } = PACKAGES[name];
  say(`using the npm package ${specifier}; the first run downloads ${megabytes} MB`);
  const found = await import(`npm:${specifier}${path}`) as { readonly default?: unknown };
  return name === "web" ? found : found.default ?? found;
}

/** As much of ONNX Runtime as is used here. */
interface Ort {
  readonly env: { readonly wasm: { numThreads: number }; logLevel: string };
  readonly InferenceSession: {
    create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<OrtSession>;
  };
  readonly Tensor: new (type: string, data: Float32Array | Uint16Array, dims: readonly number[]) => OrtTensor;
}

interface OrtSession {
  run(feeds: Readonly<Record<string, OrtTensor>>, fetches: readonly string[]): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

interface OrtTensor {
  readonly type: string;
  readonly data: Float32Array | Uint16Array | Float16Array | Float64Array;
  readonly dims: readonly number[];
}

/** What a model is opened with. */
export interface ModelToOpen {
  /** The file. */
  readonly bytes: Uint8Array;
  /** What was read of it. */
  readonly model: OnnxModel;
  /** The tensors that it is to return, in this order. */
  readonly layers: readonly string[];
  /** Its folder, and the constants that lie there in files of their own. */
  readonly folder: string;
  /** Reads one of those. */
  readonly readExternal: (path: string) => Promise<Uint8Array>;
  /** Who runs it. */
  readonly runtime: OnnxRuntime;
}

/** The number of float16 in onnx.proto3. */
const FLOAT16 = 10;

/** Opens a model whose inner tensors are outputs too. */
export async function openModel(given: ModelToOpen): Promise<OpenModel> {
  const { bytes, model, layers, folder, readExternal, runtime } = given;
  const ort = await fetchPackage(runtime) as Ort;
  ort.env.logLevel = "error";
  // More than one thread needs workers from addresses that Deno does not open.
  if (runtime === "web") ort.env.wasm.numThreads = 1;
  else takeHalvesAsIntegers(ort);
  const further = furtherOutputs(layers.filter((layer) => !model.outputs.includes(layer)));
  const whole = new Uint8Array(bytes.length + further.length);
  whole.set(bytes);
  whole.set(further, bytes.length);
  const { externalFiles } = model;
  const external = runtime === "web"
    ? { externalData: await Promise.all(externalFiles.map(async (path) => ({ path, data: await readExternal(path) }))) }
    : { extra: { session: { model_external_initializers_file_folder_path: folder } } };
  const session = await ort.InferenceSession.create(whole, externalFiles.length > 0 ? external : {});
  const [input] = model.inputs;
  return {
    async run(pixels, shape) {
      const isHalf = input!.type === FLOAT16;
      const given = isHalf ? new Uint16Array(Float16Array.from(pixels).buffer) : pixels;
      const found = await session.run(
        { [input!.name]: new ort.Tensor(isHalf ? "float16" : "float32", given, shape) },
        layers,
      );
      return layers.map((layer) => tensorOf(found[layer]!));
    },
    [Symbol.asyncDispose]: () => session.release(),
  };
}

/**
 * The native runtime reads nothing out of a Float16Array. With its first tensor it looks whether there is such a thing;
 * where there is none, it takes and gives the bits as Uint16Array.
 */
function takeHalvesAsIntegers(ort: Ort): void {
  const scope = globalThis as { Float16Array?: Float16ArrayConstructor };
  const { Float16Array } = scope;
  delete scope.Float16Array;
  try {
    new ort.Tensor("float16", new Uint16Array(1), [1]);
  } finally {
    if (Float16Array) scope.Float16Array = Float16Array;
  }
}

/** As float32; `null` for a tensor of whole numbers or truth values. */
function tensorOf({ type, data, dims }: OrtTensor): ModelTensor | null {
  if (type === "float32") return { shape: dims, data: data as Float32Array };
  if (type === "float64") return { shape: dims, data: Float32Array.from(data) };
  if (type !== "float16") return null;
  const halves = data instanceof Uint16Array ? new Float16Array(data.buffer, data.byteOffset, data.length) : data;
  return { shape: dims, data: Float32Array.from(halves) };
}

/** As much of sharp as is used here. */
interface Sharp {
  metadata(): Promise<{
    readonly channels: number;
    readonly depth: string;
    readonly isPalette?: boolean;
  }>;
  removeAlpha(): Sharp;
  toColourspace(space: string): Sharp;
  extractChannel(channel: number): Sharp;
  raw(options: { readonly depth: string }): Sharp;
  toBuffer(options: { readonly resolveWithObject: true }): Promise<{
    readonly data: Uint8Array;
    readonly info: { readonly width: number; readonly height: number };
  }>;
}

/** Opens the decoder. As with Pillow, how a camera was held does not turn an image, and colour profiles stay unused. */
export async function openDecoder(): Promise<ImageDecoder> {
  const sharp = await fetchPackage("sharp") as (path: string) => Sharp;
  const bytesOf = async (image: Sharp): Promise<ByteImage> => {
    const { data, info: { width, height } } = await image.raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
    return { width, height, data };
  };
  return {
    decode: (path) => bytesOf(sharp(path).removeAlpha().toColourspace("srgb")),
    async decodeMask(path) {
      const { channels, depth, isPalette = false } = await sharp(path).metadata();
      // The decoder would give a palette's colours, and not the labels that stand in the file.
      const found = isPalette ? "a palette" : channels > 1 ? `${channels} channels` : depth !== "uchar" ? depth : null;
      if (found !== null) {
        throw new RangeError(
          `found ${found}; expected one channel of bytes that are labels. To convert it in Python: ` +
            `Image.fromarray(numpy.array(Image.open(f)).astype("uint8")).save(f)`,
        );
      }
      return await bytesOf(sharp(path).extractChannel(0));
    },
  };
}
