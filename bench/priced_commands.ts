/**
 * Commands that note what their runs cost, by each kernel's own `cost`.
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
 * What the GPU would decide is decided here, so that the cost is known: runs under `onlyIf` are all recorded, or none. A run
 * of which the GPU counts the workgroups costs what it costs at most.
 */
export class PricedCommands extends Commands {
  readonly #branches: boolean;
  /** The kernels that were recorded, in order, with what each run costs. */
  readonly runs: { readonly kernel: string; readonly cost: Cost }[] = [];

  /** With `branches`, everything under `onlyIf` is recorded, else nothing of it. */
  constructor(context: DeviceContext, branches: boolean) {
    super(context);
    this.#branches = branches;
  }

  /** Records a run, and its cost. */
  override run<D extends string, F extends string, B extends string>(
    kernel: Kernel<D, F, B>,
    given: KernelArguments<D, F, B>,
    counted?: Counted,
  ): void {
    super.run(kernel, given, counted);
    this.runs.push({ kernel: kernel.name, cost: kernel.cost(given) });
  }

  /** Records what depends on a condition, or leaves it out. */
  override onlyIf(_condition: Tensor<"u32">, record: () => void): void {
    if (this.#branches) record();
  }

  /** Of all runs. */
  get cost(): Cost {
    return this.runs.reduce(
      (sum, { cost }) => ({ flops: sum.flops + cost.flops, bytes: sum.bytes + cost.bytes }),
      { flops: 0, bytes: 0 },
    );
  }
}
