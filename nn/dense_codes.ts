/**
 * Dense codes as they lie after the encoder's product: f itself, or h of a JumpReLU, whose f is h where that is above
 * max(θ, 0), NaN included, and 0 elsewhere. What only looks at f once takes it from h, lest it be written.
 *
 * @module
 */

import { type Binding, readsAcross, readsOnce } from "../kernels/engine/kernel.ts";
import type { Tensor, TensorRows } from "../kernels/engine/tensor.ts";
import { aboveWgsl } from "../kernels/engine/wgsl.ts";

/** Some rows of dense codes. */
export interface DenseCodes {
  /** [rows, S], f or h. */
  readonly values: TensorRows;
  /** [S], θ where it is h. */
  readonly threshold: Tensor | undefined;
}

/** How a kernel reads them, by fours where rows come in fours. */
export interface DenseWay {
  /** What a load brings. */
  readonly element: "f32" | "vec4f";
  /** WGSL: its scalars, as what follows it. */
  readonly parts: readonly string[];
  /** WGSL type of its bits. */
  readonly words: "u32" | "vec4u";
  /** Bindings. */
  readonly bindings: { readonly values: Binding };
  /** What bodies need declared. */
  readonly declarations: string;
  /** WGSL: f of a load. */
  readonly code: (value: string, threshold: string) => string;
}

const SCALAR = { element: "f32", parts: [""], words: "u32" } as const;
const VECTOR = { element: "vec4f", parts: [".x", ".y", ".z", ".w"], words: "vec4u" } as const;

function wayOf({ element, parts, words }: typeof SCALAR | typeof VECTOR, isJump: boolean): DenseWay {
  const values = readsOnce(element, "rows d_sae");
  const shared = { element, parts, words };
  if (!isJump) return { ...shared, bindings: { values }, declarations: "", code: (value) => value };
  const bindings = { values, threshold: readsAcross(element, "d_sae", "rows d_sae") };
  return {
    ...shared,
    bindings,
    declarations: aboveWgsl(element),
    code: (value, threshold) => `above(${value}, ${threshold})`,
  };
}

/** One kernel for each way to read dense codes, and the one for some of them. */
export function perDenseWay<K>(declare: (way: DenseWay) => K): (codes: DenseCodes) => K {
  const [scalar, vector] = [SCALAR, VECTOR].map((load) => [wayOf(load, false), wayOf(load, true)].map(declare));
  return ({ values, threshold }) =>
    (values.tensor.rowSize % 4 === 0 ? vector! : scalar!)[Number(threshold !== undefined)]!;
}

/** What a run binds of them. */
export function boundCodes({ values, threshold }: DenseCodes): { readonly values: TensorRows } {
  return { values, ...threshold && { threshold } };
}
