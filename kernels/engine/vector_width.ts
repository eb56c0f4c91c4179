/**
 * What one load brings: a scalar, or a vector of four scalars where every size is a multiple of four.
 *
 * @module
 */

/** The width of a load, and how WGSL spells it. */
export interface VectorWidth {
  /** WGSL type of a load. */
  readonly element: "f32" | "vec4f";
  /** How many scalars it has. */
  readonly scalars: 1 | 4;
  /** WGSL type of its bits. */
  readonly words: "u32" | "vec4u";
  /** WGSL: what selects each of its scalars when it follows a load. */
  readonly parts: readonly string[];
}

/** A load of one scalar. */
export const SCALAR: VectorWidth = { element: "f32", scalars: 1, words: "u32", parts: [""] };

/** A load of four neighbours. */
export const VECTOR: VectorWidth = { element: "vec4f", scalars: 4, words: "vec4u", parts: [".x", ".y", ".z", ".w"] };

/** The widest load that divides every one of `sizes`. */
export function vectorWidth(...sizes: readonly number[]): VectorWidth {
  return sizes.every((size) => size % 4 === 0) ? VECTOR : SCALAR;
}

/** One kernel (or group of kernels) for each width, declared on first use; returns the one for `sizes`. */
export function perVectorWidth<K>(declare: (width: VectorWidth) => K): (...sizes: readonly number[]) => K {
  const declared = new Map<VectorWidth, K>();
  return (...sizes) => {
    const width = vectorWidth(...sizes);
    const kernel = declared.get(width) ?? declare(width);
    declared.set(width, kernel);
    return kernel;
  };
}
