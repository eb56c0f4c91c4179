/**
 * Lists of kernel runs: each run is checked when it is added, and all are submitted together.
 *
 * @module
 */

import { takesF16 } from "../forms/f16.ts";
import { joinedDispatches } from "../forms/joined_lists.ts";
import type { DeviceContext } from "./device.ts";
import { DeviceError, KernelError, ShapeError } from "./errors.ts";
import { type Binding, type Kernel, shapeSize } from "./kernel.ts";
import type { Bound, Counted, Run } from "./run.ts";
import { Submission } from "./submission.ts";
import { type ElementType, Tensor, type TensorRows } from "./tensor.ts";

export type { Counted } from "./run.ts";

/** What may be bound: a whole tensor or some of its rows. */
export type Bindable = Tensor<ElementType> | TensorRows;

/** The arguments of a run: every dim, every scalar and every binding by name. */
export type KernelArguments<D extends string, F extends string, B extends string> =
  & Readonly<Record<D | F, number>>
  & Readonly<Record<B, Bindable>>;

/** A list of kernel runs, in order, each seeing what those before it wrote. */
export class Commands {
  readonly #context: DeviceContext;
  #runs: Run[] = [];
  /** What the runs that are being added depend on. */
  #condition: Tensor<"u32"> | undefined;

  /** An empty list. */
  constructor(context: DeviceContext) {
    this.#context = context;
  }

  /** The device that this runs on. */
  get context(): DeviceContext {
    return this.#context;
  }

  /**
   * Adds one run; with `counted`, one whose number of workgroups the GPU counts.
   *
   * @throws {KernelError} for a dim that is not an unsigned 32-bit integer, or a missing binding.
   * @throws {ShapeError} for a binding whose size is not what its shape says.
   */
  run<D extends string, F extends string, B extends string>(
    kernel: Kernel<D, F, B>,
    given: KernelArguments<D, F, B>,
    counted?: Counted,
  ): void {
    const values = given as Readonly<Record<string, number>>;
    for (const dim of kernel.dims) {
      if (!(values[dim]! >= 0 && values[dim]! < 2 ** 32 && Number.isInteger(values[dim]))) {
        throw new KernelError(`kernel ${kernel.name}: ${dim} must be an unsigned integer, found ${values[dim]}`);
      }
    }
    const groups = kernel.grid(values as Record<D, number>);
    if (groups === 0) return;
    const any = kernel as unknown as Kernel;
    const bound = Object.entries<Binding>(kernel.bindings).map(([name, binding]) =>
      this.#bound(any, name, binding, (given as Record<string, Bindable>)[name], values)
    );
    this.#runs.push({ kernel: any, groups, values, bound, condition: this.#condition, counted });
  }

  /**
   * The runs that `record` adds happen only if `condition[0]`, which they must not write, is not 0 when the GPU reaches
   * them. The CPU does not wait for the answer: a run that does not happen has no workgroups.
   *
   * @throws {KernelError} inside another condition.
   */
  onlyIf(condition: Tensor<"u32">, record: () => void): void {
    if (this.#condition) {
      throw new KernelError(`runs that depend on ${this.#condition.label} cannot depend on ${condition.label} too`);
    }
    this.#condition = condition;
    try {
      record();
    } finally {
      this.#condition = undefined;
    }
  }

  /** Submits everything recorded to the GPU without waiting, and empties the list. */
  submit(): void {
    Commands.submitTogether([this]);
  }

  /**
   * Submits several lists of one device together. No list may use what another writes. In lists of equal length, runs
   * of one kernel at the same place become one dispatch, whatever their arguments; the first time, the tensors that
   * they bind move into one buffer. Results do not depend on it.
   */
  static submitTogether(lists: readonly Commands[]): void {
    const [first] = lists;
    if (!first) return;
    const all = lists.map((list) => list.#runs);
    const plan = joinedDispatches(first.#context, all);
    const submission = new Submission(first.#context, plan.reduce((slots, runs) => slots + runs.length, 0));
    for (const runs of plan) submission.dispatch(runs);
    for (const list of lists) list.#runs = [];
    submission.end();
  }

  #bound(
    kernel: Kernel,
    name: string,
    { shape, element, access }: Binding,
    bindable: Bindable | undefined,
    dims: Readonly<Record<string, number>>,
  ): Bound {
    if (!bindable) throw new KernelError(`kernel ${kernel.name}: ${name} is missing`);
    const expected = shapeSize(kernel, shape, dims);
    const whole = bindable instanceof Tensor;
    const tensor = whole ? bindable : bindable.tensor;
    const found = whole ? tensor.size : (bindable.to - bindable.from) * tensor.rowSize;
    if (found !== expected) {
      throw new ShapeError(
        `kernel ${kernel.name}: ${name} must have ${expected} values (${shape}), found ${tensor.label} with ${found}`,
      );
    }
    if (element.startsWith("vec4") && expected % 4 !== 0) {
      throw new ShapeError(`kernel ${kernel.name}: ${name} has ${expected} values, which is not a multiple of 4`);
    }
    if (tensor.isF16 ? !takesF16({ element, access }) : element === "f16") {
      throw new KernelError(
        `kernel ${kernel.name}: ${name} ${
          access === "read" ? "reads" : "writes"
        } ${element}, and ${tensor.label} holds ${tensor.isF16 ? "f16" : tensor.type}`,
      );
    }
    const needed = tensor.bytesOf(expected);
    if (needed > this.#context.bindingLimit) {
      throw new DeviceError(
        `kernel ${kernel.name}: ${name} (${tensor.label}) has ${needed} bytes, and this device binds at most ${this.#context.bindingLimit}`,
      );
    }
    // Throws if the tensor was disposed of.
    void tensor.buffer;
    const from = whole ? 0 : bindable.from * tensor.rowSize * tensor.valueBytes;
    // The padding of a tensor belongs to the binding if the last row does, so that the guards of tests are inside it.
    const last = whole || bindable.to === tensor.shape[0];
    return { tensor, from, bytes: last ? tensor.bytes - from : needed };
  }
}
