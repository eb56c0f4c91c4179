/**
 * ONNX Runtime and an image decoder, fetched from npm only by the commands that need them: the package names are built
 * at run time.
 *
 * @module
 */

import type { ByteImage, ImageDecoder, ModelTensor, OpenModel } from "../data/mod.ts";
import { furtherOutputs, type OnnxModel } from "../io/mod.ts";
import { say } from "./command.ts";

/** Which ONNX Runtime: WebAssembly on one thread, or native code, which is several times faster. */
export type OnnxRuntime = "web" | "node";

/** The packages, and the size of their downloads on one system. */
const PACKAGES = {
  web: { specifier: "onnxruntime-web@1.30.0", path: "/wasm", megabytes: 34 },
  node: { specifier: "onnxruntime-node@1.30.0", path: "", megabytes: 114 },
  sharp: { specifier: "sharp@0.35.5", path: "", megabytes: 17 },
} as const;

const fetched = new Map<keyof typeof PACKAGES, Promise<unknown>>();

/** Imports a package once. Deno caches it, so it is downloaded once. */
function fetchPackage(name: keyof typeof PACKAGES): Promise<unknown> {
  const found = fetched.get(name) ?? importPackage(name);
  fetched.set(name, found);
  return found;
}

async function importPackage(name: keyof typeof PACKAGES): Promise<unknown> {
  const { specifier, path, megabytes } = PACKAGES[name];
  say(`using the npm package ${specifier}; the first run downloads ${megabytes} MB`);
  const found = await import(`npm:${specifier}${path}`) as { readonly default?: unknown };
  return name === "web" ? found : found.default ?? found;
}

/** The part of ONNX Runtime that is used here. */
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

/** Input of {@link openModel}. */
export interface ModelToOpen {
  /** The file. */
  readonly bytes: Uint8Array;
  /** The parsed model. */
  readonly model: OnnxModel;
  /** The tensors to return, in this order. */
  readonly layers: readonly string[];
  /** The model's folder, which may hold constants in separate files. */
  readonly folder: string;
  /** Reads such a file. */
  readonly readExternal: (path: string) => Promise<Uint8Array>;
  /** Which runtime to use. */
  readonly runtime: OnnxRuntime;
}

/** The code of float16 in onnx.proto3. */
const FLOAT16 = 10;

/** Opens a model so that inner tensors are outputs too. */
export async function openModel(given: ModelToOpen): Promise<OpenModel> {
  const { bytes, model, layers, folder, readExternal, runtime } = given;
  const ort = await fetchPackage(runtime) as Ort;
  ort.env.logLevel = "error";
  // More threads would need workers from addresses that Deno does not open.
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
 * The native runtime cannot read a Float16Array. With its first tensor it checks whether the class exists; where it
 * does not, the runtime uses the bits as Uint16Array.
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

/** The tensor as float32; `null` for integers or booleans. */
function tensorOf({ type, data, dims }: OrtTensor): ModelTensor | null {
  if (type === "float32") return { shape: dims, data: data as Float32Array };
  if (type === "float64") return { shape: dims, data: Float32Array.from(data) };
  if (type !== "float16") return null;
  const halves = data instanceof Uint16Array ? new Float16Array(data.buffer, data.byteOffset, data.length) : data;
  return { shape: dims, data: Float32Array.from(halves) };
}

/** The part of sharp that is used here. */
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
  jpeg(options: { readonly quality: number }): Sharp;
  toBuffer(): Promise<Uint8Array>;
  toBuffer(options: { readonly resolveWithObject: true }): Promise<{
    readonly data: Uint8Array;
    readonly info: { readonly width: number; readonly height: number };
  }>;
}

/** Opens the decoder. As with Pillow, EXIF orientation and colour profiles are ignored. */
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
      // For a palette the decoder would return colours instead of the labels in the file.
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

/** Bytes that the file of an image on a page has at most. */
const THUMBNAIL_BYTES = 30_000;

/** Opens what writes small JPEG files. */
export async function openJpegEncoder(): Promise<(image: ByteImage) => Promise<Uint8Array>> {
  const sharp = await fetchPackage("sharp") as (
    pixels: Uint8Array,
    options: { readonly raw: { readonly width: number; readonly height: number; readonly channels: 3 } },
  ) => Sharp;
  return async ({ width, height, data }) => {
    for (let quality = 82;; quality -= 16) {
      const bytes = await sharp(data, { raw: { width, height, channels: 3 } }).jpeg({ quality })
        .toBuffer();
      if (bytes.length <= THUMBNAIL_BYTES || quality < 20) return bytes;
    }
  };
}
