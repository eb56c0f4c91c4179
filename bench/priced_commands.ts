/**
 * Commands that record the cost of their runs, from each kernel's own `cost`.
 *
 * @module
 */

import {
  Commands,
  type Cost,
  type Counted,
  type DeviceContext,
  type Kernel,
  type KernelArguments,
} from "../kernels/mod.ts";
import type { Tensor } from "../kernels/mod.ts";

/**
 * Decides what the GPU would decide, so that the cost is known: runs under `onlyIf` are either all recorded or none. A
 * run whose workgroups the GPU counts has its largest cost.
 */
export class PricedCommands extends Commands {
  readonly #branches: boolean;
  /** The recorded kernels in order, with the cost of each run. */
  readonly runs: { readonly kernel: string; readonly cost: Cost }[] = [];

  /** With `branches`, everything under `onlyIf` is recorded; otherwise nothing of it. */
  constructor(context: DeviceContext, branches: boolean) {
    super(context);
    this.#branches = branches;
  }

  /** Records a run and its cost. */
  override run<D extends string, F extends string, B extends string>(
    kernel: Kernel<D, F, B>,
    given: KernelArguments<D, F, B>,
    counted?: Counted,
  ): void {
    super.run(kernel, given, counted);
    this.runs.push({ kernel: kernel.name, cost: kernel.cost(given) });
  }

  /** Records conditional work, or leaves it out. */
  override onlyIf(_condition: Tensor<"u32">, record: () => void): void {
    if (this.#branches) record();
  }

  /** The cost of all runs. */
  get cost(): Cost {
    return this.runs.reduce(
      (sum, { cost }) => ({ flops: sum.flops + cost.flops, bytes: sum.bytes + cost.bytes }),
      { flops: 0, bytes: 0 },
    );
  }
}
