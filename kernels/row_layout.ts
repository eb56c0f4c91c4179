/**
 * How a kernel with one workgroup a row loads the row and adds it up.
 *
 * A subgroup of eight adds up in the order of the tree, without its barriers: on a software driver those cost as much as
 * loading the row does.
 *
 * @module
 */

import type { DeviceContext } from "./engine/device.ts";
import type { Kernel } from "./engine/kernel.ts";
import { type VectorWidth, vectorWidth } from "./engine/vector_width.ts";
import { SUBGROUP_TOTAL_WGSL, totalWgsl } from "./engine/wgsl.ts";

/** How a row is loaded and added up. */
export interface RowLayout extends VectorWidth {
  /** The WGSL directive of a kernel that uses subgroups of eight; `undefined` for one that uses barriers. */
  readonly subgroups: string | undefined;
}

/** One kernel for each layout, declared on first use; returns the one for rows of `columns` on a device. */
export function perRowLayout<D extends string, F extends string, B extends string>(
  declare: (layout: RowLayout) => Kernel<D, F, B>,
): (columns: number, context: DeviceContext) => Kernel<D, F, B> {
  const declared = new Map<string, Kernel<D, F, B>>();
  return (columns, { subgroups }) => {
    const width = vectorWidth(columns);
    const id = `${width.element} ${subgroups}`;
    const kernel = declared.get(id) ?? declare({ ...width, subgroups });
    declared.set(id, kernel);
    return kernel;
  };
}

/** The declarations and directives that let a body say `total(lane, value)`, the sum over a workgroup of `threads`. */
export function rowTotal(
  { subgroups }: RowLayout,
  threads: number,
): { readonly declarations: string; readonly directives?: string } {
  if (threads !== 8 || subgroups === undefined) return { declarations: totalWgsl(threads) };
  return { declarations: SUBGROUP_TOTAL_WGSL, directives: subgroups };
}

/** WGSL: `sum` plus the products of the scalars of two loads, in order. */
export function dot({ parts }: Pick<VectorWidth, "parts">, a: string, b: string, sum: string): string {
  return parts.reduce((inner, part) => `fma(${a}${part}, ${b}${part}, ${inner})`, sum);
}
