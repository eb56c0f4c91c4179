/**
 * How kernels with a workgroup for each row load it and add it up.
 *
 * A subgroup of eight adds up in the order of the tree, without its barriers, which cost a software driver as much as a
 * row's loads do.
 *
 * @module
 */

import type { DeviceContext } from "./engine/device.ts";
import type { Kernel } from "./engine/kernel.ts";
import { SUBGROUP_TOTAL_WGSL, totalWgsl } from "./engine/wgsl.ts";

/** How a row is loaded, by fours where it is aligned, and how it is added up. */
export interface Way {
  /** What a load brings. */
  readonly element: "f32" | "vec4f";
  /** How many scalars that are. */
  readonly scalars: 1 | 4;
  /** What a kernel with subgroups of eight says first; `undefined` for one with barriers. */
  readonly subgroups: string | undefined;
}

/** One kernel for each way, declared on first use. */
export function perWay<D extends string, F extends string, B extends string>(
  declare: (way: Way) => Kernel<D, F, B>,
): (columns: number, context: DeviceContext) => Kernel<D, F, B> {
  const made = new Map<string, Kernel<D, F, B>>();
  return (columns, { subgroups }) => {
    const aligned = columns % 4 === 0;
    const id = `${aligned} ${subgroups}`;
    const kernel = made.get(id) ??
      declare({ element: aligned ? "vec4f" : "f32", scalars: aligned ? 4 : 1, subgroups });
    made.set(id, kernel);
    return kernel;
  };
}

/** What a declaration needs so that its body may say `total(lane, value)`, the sum over a workgroup of `threads`. */
export function rowSum(
  { subgroups }: Way,
  threads: number,
): { readonly declarations: string; readonly directives?: string } {
  if (threads !== 8 || subgroups === undefined) return { declarations: totalWgsl(threads) };
  return { declarations: SUBGROUP_TOTAL_WGSL, directives: subgroups };
}

/** WGSL: `sum` plus the products of the elements of two loads, in order. */
export function dot({ scalars }: Way, a: string, b: string, sum: string): string {
  if (scalars === 1) return `fma(${a}, ${b}, ${sum})`;
  return ["x", "y", "z", "w"].reduce((inner, part) => `fma(${a}.${part}, ${b}.${part}, ${inner})`, sum);
}
