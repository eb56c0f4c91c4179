/**
 * What is recorded of one run of a kernel.
 *
 * @module
 */

import type { Kernel } from "./kernel.ts";
import type { ElementType, Tensor } from "./tensor.ts";

/**
 * How many workgroups a run needs, where only the GPU knows: `times` for every `per` of `count[0]`, rounded up, and at most
 * those of the kernel's grid. The run may get more, up to those.
 */
export interface Counted {
  /** [1] */
  readonly count: Tensor<"u32">;
  /** What is counted together. */
  readonly per: number;
  /** Workgroups for each of those. */
  readonly times: number;
}

/** What a run binds: `bytes` of a tensor, from its byte `from` on. */
export interface Bound {
  readonly tensor: Tensor<ElementType>;
  readonly from: number;
  readonly bytes: number;
}

/** One recorded run, checked. */
export interface Run {
  readonly kernel: Kernel;
  readonly groups: number;
  readonly values: Readonly<Record<string, number>>;
  readonly bound: readonly Bound[];
  /** [1]; the run does not happen where it is 0. */
  readonly condition: Tensor<"u32"> | undefined;
  readonly counted: Counted | undefined;
}
