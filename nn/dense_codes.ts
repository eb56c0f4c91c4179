/**
 * Dense codes after the encoder's product: f itself, or h of a JumpReLU, whose f is h where h > max(θ, 0) or h is NaN,
 * and 0 elsewhere. Kernels that read f once compute it from h, so that f need not be stored.
 *
 * @module
 */

import { type Binding, readsAcross, readsOnce } from "../kernels/engine/kernel.ts";
import type { Tensor, TensorRows } from "../kernels/engine/tensor.ts";
import { perVectorWidth, type VectorWidth } from "../kernels/engine/vector_width.ts";
import { aboveWgsl } from "../kernels/engine/wgsl.ts";

/** Some rows of dense codes. */
export interface DenseCodes {
  /** [rows, S], f or h. */
  readonly values: TensorRows;
  /** [S], θ, if `values` are h. */
  readonly threshold: Tensor | undefined;
}

/** How a kernel loads dense codes and computes f from a load. */
export interface DenseLayout extends VectorWidth {
  /** Bindings. */
  readonly bindings: { readonly values: Binding };
  /** WGSL declarations that the body needs. */
  readonly declarations: string;
  /** WGSL: f of a load. */
  readonly code: (value: string, threshold: string) => string;
}

function layoutOf(width: VectorWidth, isJump: boolean): DenseLayout {
  const { element } = width;
  const values = readsOnce(element, "rows d_sae");
  if (!isJump) return { ...width, bindings: { values }, declarations: "", code: (value) => value };
  const bindings = { values, threshold: readsAcross(element, "d_sae", "rows d_sae") };
  return {
    ...width,
    bindings,
    declarations: aboveWgsl(width),
    code: (value, threshold) => `above(${value}, ${threshold})`,
  };
}

/** One kernel for each layout, declared on first use; returns the one for some dense codes. */
export function perDenseLayout<K>(declare: (layout: DenseLayout) => K): (codes: DenseCodes) => K {
  const ofCodes = perVectorWidth((width) => declare(layoutOf(width, false)));
  const ofPreActs = perVectorWidth((width) => declare(layoutOf(width, true)));
  return ({ values, threshold }) => (threshold ? ofPreActs : ofCodes)(values.tensor.rowSize);
}

/** The bindings of a run. */
export function boundCodes({ values, threshold }: DenseCodes): { readonly values: TensorRows } {
  return { values, ...threshold && { threshold } };
}
