/**
 * Records kernel runs into one command encoder and submits them together.
 *
 * @module
 */

import { type DeviceContext, SLOT_BYTES } from "./device.ts";
import { DeviceError, KernelError, ShapeError } from "./errors.ts";
import { type Binding, compiled, type Kernel, shapeSize } from "./kernel.ts";
import { type ElementType, Tensor, type TensorRows } from "./tensor.ts";

/** What may be bound: a whole tensor or some of its rows. */
export type Bindable = Tensor<ElementType> | TensorRows;

/** Workgroups along one dimension that every adapter accepts. */
const MOST_GROUPS = 65535;

/** The arguments of a run: every dim, every scalar and every binding by name. */
export type KernelArguments<D extends string, F extends string, B extends string> =
  & Readonly<Record<D | F, number>>
  & Readonly<Record<B, Bindable>>;

/** A list of kernel runs, in order, each seeing what those before it wrote. */
export class Commands {
  readonly #context: DeviceContext;
  readonly #words = new ArrayBuffer(SLOT_BYTES * 64);
  #slots = new Uint8Array(this.#words);
  #used = 0;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;

  /** An empty list. */
  constructor(context: DeviceContext) {
    this.#context = context;
  }

  /** The device that this runs on. */
  get context(): DeviceContext {
    return this.#context;
  }

  /**
   * Adds one run.
   *
   * @throws {KernelError} for a dim that is no unsigned 32-bit integer, or a missing binding.
   * @throws {ShapeError} for a binding whose size is not what its shape says.
   */
  run<D extends string, F extends string, B extends string>(
    kernel: Kernel<D, F, B>,
    given: KernelArguments<D, F, B>,
  ): void {
    const context = this.#context;
    const values = given as Readonly<Record<string, number>>;
    for (const dim of kernel.dims) {
      if (!(values[dim]! >= 0 && values[dim]! < 2 ** 32 && Number.isInteger(values[dim]))) {
        throw new KernelError(`kernel ${kernel.name}: ${dim} must be an unsigned integer, found ${values[dim]}`);
      }
    }
    const groups = kernel.grid(values as Record<D, number>);
    if (groups === 0) return;
    const { pipeline, layout } = compiled(context, kernel as unknown as Kernel);
    const bound = Object.entries<Binding>(kernel.bindings).map(([name, binding]) =>
      this.#resource(kernel as unknown as Kernel, name, binding, (given as Record<string, Bindable>)[name], values)
    );
    const group = context.device.createBindGroup({
      label: kernel.name,
      layout,
      entries: [
        { binding: 0, resource: { buffer: context.slots, offset: 0, size: SLOT_BYTES } },
        ...bound.map((resource, index) => ({ binding: index + 1, resource })),
      ],
    });
    if (this.#used === context.slotCount) this.submit();
    this.#encoder ??= context.device.createCommandEncoder();
    const timestampWrites = context.timings?.writesOf(kernel.name);
    // A timed dispatch has a pass of its own.
    if (timestampWrites) this.#endPass();
    this.#pass ??= this.#encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
    const offset = this.#fillSlot([groups, ...kernel.dims.map((dim) => values[dim]!)], [
      ...(kernel.scalars ?? []).map((scalar) => values[scalar]!),
    ]);
    const x = Math.min(groups, MOST_GROUPS);
    this.#pass.setPipeline(pipeline);
    this.#pass.setBindGroup(0, group, [offset]);
    this.#pass.dispatchWorkgroups(x, Math.ceil(groups / x));
    context.onDispatch?.(kernel.name, bound.map(({ buffer }) => buffer.label));
  }

  /** Hands everything recorded to the GPU, without waiting. The list is empty again. */
  submit(): void {
    if (!this.#encoder) return;
    const { device, slots } = this.#context;
    this.#endPass();
    device.queue.writeBuffer(slots, 0, this.#slots as Uint8Array<ArrayBuffer>, 0, this.#used * SLOT_BYTES);
    device.queue.submit([this.#encoder.finish()]);
    this.#encoder = undefined;
    this.#used = 0;
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  #fillSlot(integers: readonly number[], floats: readonly number[]): number {
    const offset = this.#used++ * SLOT_BYTES;
    if (offset + SLOT_BYTES > this.#slots.length) {
      const larger = new Uint8Array(this.#slots.length * 2);
      larger.set(this.#slots);
      this.#slots = larger;
    }
    new Uint32Array(this.#slots.buffer, offset, integers.length).set(integers);
    new Float32Array(this.#slots.buffer, offset + integers.length * 4, floats.length).set(floats);
    return offset;
  }

  #resource(
    kernel: Kernel,
    name: string,
    { shape, element }: Binding,
    bindable: Bindable | undefined,
    dims: Readonly<Record<string, number>>,
  ): { buffer: GPUBuffer; offset: number; size: number } {
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
      throw new ShapeError(`kernel ${kernel.name}: ${name} has ${expected} values, which is no multiple of 4`);
    }
    if (expected * 4 > this.#context.bindingLimit) {
      throw new DeviceError(
        `kernel ${kernel.name}: ${name} (${tensor.label}) has ${
          expected * 4
        } bytes, and this device binds at most ${this.#context.bindingLimit}`,
      );
    }
    const offset = whole ? 0 : bindable.from * tensor.rowSize * 4;
    const { buffer } = tensor;
    // The end of the buffer belongs to the binding when the last row does, so that tests' guards are inside it.
    const last = whole || bindable.to === tensor.shape[0];
    return { buffer, offset, size: last ? buffer.size - offset : expected * 4 };
  }
}
