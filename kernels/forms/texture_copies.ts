/**
 * Texture copies: a kernel that reads much of a buffer may read a copy of it in a texture instead. The bits are the same.
 *
 * @module
 */

import type { DeviceContext } from "../engine/device.ts";
import { type Binding, type Kernel, NO_BINDINGS, shapeSize } from "../engine/kernel.ts";

/** A texture with the values of a buffer, four scalars a texel, in lines that end in a {@link TEXTURE_GAP}. */
export interface TextureCopy {
  /** What is bound. */
  readonly view: GPUTextureView;
  /** The texture. */
  readonly texture: GPUTexture;
  /** How often the buffer's values had changed when they were copied; -1 before. */
  copied: number;
}

/**
 * Texels that stay empty after each line of a texture: rows of a matrix that lie a power of two apart, as rows of 1024
 * numbers do, would otherwise compete for the few places that a cache has for such addresses.
 */
const TEXTURE_GAP = 8;

/** Texels of a line, for textures of up to {@link MAX_LINES} lines, which every adapter accepts, and for larger ones. */
const [SHORT_LINES, LONG_LINES] = [1024, 4096];
const MAX_LINES = 8192;

/** What a texture copy depends on of a tensor. */
interface Values {
  readonly type: string;
  readonly isF16: boolean;
  /** Bytes of a value. */
  readonly valueBytes: number;
}

/** A texture for a copy of a buffer: four scalars a texel, of 16 bytes, or of 8 for f16. */
export function newTextureCopy(
  device: GPUDevice,
  { type, isF16, valueBytes }: Values,
  { size, label }: GPUBuffer,
): TextureCopy {
  const texels = size / (4 * valueBytes);
  const columns = texels <= SHORT_LINES * MAX_LINES ? SHORT_LINES : LONG_LINES;
  const texture = device.createTexture({
    label: `texture copy of ${label}`,
    size: [columns + TEXTURE_GAP, Math.ceil(texels / columns)],
    format: textureFormat(type, isF16),
    usage: GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.COPY_DST,
  });
  return { texture, view: texture.createView(), copied: -1 };
}

/** Copies a buffer into its texture. */
export function copyToTexture(
  encoder: GPUCommandEncoder,
  { buffer, texture, valueBytes }: {
    readonly buffer: GPUBuffer;
    readonly texture: GPUTexture;
    readonly valueBytes: number;
  },
): void {
  const texelBytes = 4 * valueBytes;
  const columns = texture.width - TEXTURE_GAP;
  const bytesPerRow = columns * texelBytes;
  const lines = Math.floor(buffer.size / bytesPerRow);
  const rest = buffer.size % bytesPerRow;
  if (lines > 0) encoder.copyBufferToTexture({ buffer, bytesPerRow }, { texture }, [columns, lines]);
  if (rest > 0) {
    encoder.copyBufferToTexture(
      { buffer, offset: lines * bytesPerRow, bytesPerRow },
      { texture, origin: [0, lines] },
      [rest / texelBytes, 1],
    );
  }
}

/** The texture format that holds a binding's elements. */
export function textureFormat(element: string, isF16: boolean): "rgba32uint" | "rgba32float" | "rgba16float" {
  if (isF16) return "rgba16float";
  return element === "u32" || element === "vec4u" ? "rgba32uint" : "rgba32float";
}

/** WGSL: where a texel is, and a scalar of it. A line has a power of two of texels, then the gap. */
export const TEXTURE_COPIES_WGSL: string = `
fn texel(size: vec2u, i: u32) -> vec2u {
  let columns = size.x - ${TEXTURE_GAP}u;
  return vec2u(i & (columns - 1u), i >> countTrailingZeros(columns));
}
${
  [["f32", "rgba32float", "f32"], ["u32", "rgba32uint", "u32"], ["f16", "rgba16float", "f32"]].map(
    ([name, format, type]) =>
      `fn scalar_${name}(copy: texture_storage_2d<${format}, read>, i: u32) -> ${type} {
  return textureLoad(copy, texel(textureDimensions(copy), i / 4u))[i % 4u];
}
`,
  ).join("")
}`;

/** WGSL: the variable of a binding's texture copy, without its place. */
export function textureWgsl(name: string, element: string, isF16: boolean): string {
  return `var copy_${name}: texture_storage_2d<${textureFormat(element, isF16)}, read>;`;
}

/** WGSL: what stands before and after the index where a binding's element is loaded from its texture copy. */
export function textureLoad(name: string, element: string, isF16: boolean): readonly [opens: string, closes: string] {
  return element.startsWith("vec4")
    ? [`textureLoad(copy_${name}, texel(textureDimensions(copy_${name}), `, "))"]
    : [`scalar_${isF16 ? "f16" : element}(copy_${name}, `, ")"];
}

/** Buffers above this have no texture copy. */
const MAX_COPIED_BYTES = 2 ** 29;

/** How many times as many bytes it takes for a copy to pay where they are read once. */
const ONCE = 2;

/** What the choice of textures depends on of a run. */
interface ReadingRun {
  readonly kernel: Kernel;
  readonly values: Readonly<Record<string, number>>;
  readonly bound: readonly {
    readonly bytes: number;
    readonly tensor: { readonly buffer: GPUBuffer; readonly hasTextureCopy: boolean };
  }[];
}

/** How many bytes a run reads of one of its bindings; at least twice the binding's size where it reads it often. */
function bytesRead(
  { kernel, values, bound }: ReadingRun,
  reading: NonNullable<Binding["reading"]>,
  index: number,
): number {
  if (typeof reading === "object") return 4 * shapeSize(kernel, reading.total, values);
  return (reading === "often" ? 2 : 1) * bound[index]!.bytes;
}

/** Which bindings of a dispatch of some runs come from texture copies: one copy serves all of the runs. */
export function chosenTextures(
  { textureCopyBytes, device: { limits } }: DeviceContext,
  runs: readonly ReadingRun[],
): ReadonlySet<string> {
  if (textureCopyBytes === Infinity) return NO_BINDINGS;
  const [{ kernel, bound }] = runs as [ReadingRun];
  const names = Object.entries<Binding>(kernel.bindings).filter(([, { reading }], index) => {
    const { tensor } = bound[index]!;
    if (!reading || tensor.buffer.size > MAX_COPIED_BYTES) return false;
    const bytes = runs.reduce((sum, run) => sum + bytesRead(run, reading, index), 0);
    return tensor.hasTextureCopy || bytes >= ONCE * textureCopyBytes;
  });
  return new Set(names.slice(0, limits.maxStorageTexturesPerShaderStage).map(([name]) => name));
}
