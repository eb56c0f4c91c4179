/**
 * Records kernel runs into one command encoder and submits them together.
 *
 * @module
 */

import {
  DECISION_WORD,
  type DeviceContext,
  FLAG_WORD,
  GROUPS_BYTES,
  MAX_JOINED,
  RUNS_WORD,
  SLOT_BYTES,
} from "./device.ts";
import { DeviceError, KernelError, ShapeError } from "./errors.ts";
import type { Cost } from "./timings.ts";
import {
  type Binding,
  bufferBindings,
  compiled,
  defineKernel,
  type FormedKernel,
  type Kernel,
  kernelForm,
  reads,
  shapeSize,
  textureBindings,
  writes,
} from "./kernel.ts";
import { type ElementType, spans, Tensor, type TensorRows } from "./tensor.ts";

/** What may be bound: a whole tensor or some of its rows. */
export type Bindable = Tensor<ElementType> | TensorRows;

/** Workgroups along one dimension that every adapter accepts. */
const MAX_GROUPS = 65535;

/** The arguments of a run: every dim, every scalar and every binding by name. */
export type KernelArguments<D extends string, F extends string, B extends string> =
  & Readonly<Record<D | F, number>>
  & Readonly<Record<B, Bindable>>;

/**
 * How many workgroups a run needs, where only the GPU knows: `times` for every `per` of `count[0]`, rounded up, and at most
 * those of the kernel's grid. It may have more, up to those.
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
interface Bound {
  readonly tensor: Tensor<ElementType>;
  readonly from: number;
  readonly bytes: number;
}

/** One recorded run, checked. */
interface Run {
  readonly kernel: Kernel;
  readonly groups: number;
  readonly values: Readonly<Record<string, number>>;
  readonly bound: readonly Bound[];
  readonly condition: Tensor<"u32"> | undefined;
  readonly counted: Counted | undefined;
}

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
   * @throws {KernelError} for a dim that is no unsigned 32-bit integer, or a missing binding.
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
   * The runs that `record` adds happen only if `condition[0]`, which they leave alone, is not 0 when the GPU comes to
   * them. Nobody waits for the answer: a run that does not happen has no workgroups.
   *
   * @throws {KernelError} inside of another condition.
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

  /** Hands everything recorded to the GPU, without waiting. The list is empty again. */
  submit(): void {
    Commands.submitTogether([this]);
  }

  /**
   * Hands several lists of one device to the GPU in one submission. None may use what another writes. In lists of one
   * length, runs of one kernel at the same place become one dispatch, whatever their arguments; the tensors that they
   * bind move into one buffer the first time. No result depends on it.
   */
  static submitTogether(lists: readonly Commands[]): void {
    const [first] = lists;
    if (!first) return;
    const all = lists.map((list) => list.#runs);
    const plan = dispatchesOf(first.#context, all);
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
    // Throws if it was disposed of.
    void tensor.buffer;
    const from = whole ? 0 : bindable.from * tensor.rowSize * tensor.valueBytes;
    // What fills a tensor up belongs to the binding when the last row does, so that tests' guards are inside it.
    const last = whole || bindable.to === tensor.shape[0];
    return { tensor, from, bytes: last ? tensor.bytes - from : needed };
  }
}

/** Whether a binding can be an f16 tensor: kernels read its values as floats, or its packed words. */
function takesF16({ element, access }: Pick<Binding, "element" | "access">): boolean {
  return element === "f16" || access === "read" && (element === "f32" || element === "vec4f");
}

/** The runs of each dispatch, in order. Tensors move before anything is encoded that uses them. */
function dispatchesOf(context: DeviceContext, lists: readonly (readonly Run[])[]): (readonly Run[])[] {
  if (lists.length === 1) return lists[0]!.map((run) => [run]);
  const joiner = new Joiner(context, lists);
  const dispatches: (readonly Run[])[] = [];
  for (const alike of groupBy(lists, ({ length }) => length)) {
    for (let place = 0; place < alike[0]!.length; place++) {
      for (const runs of groupBy(alike.map((list) => list[place]!), ({ kernel }) => kernel)) {
        if (!joiner.join(runs)) dispatches.push(...runs.map((run) => [run]));
        else for (const { from, to } of spans(runs.length, MAX_JOINED)) dispatches.push(runs.slice(from, to));
      }
    }
  }
  return dispatches;
}

function groupBy<T>(values: readonly T[], keyOf: (value: T) => unknown): Iterable<readonly T[]> {
  return Map.groupBy(values, keyOf).values();
}

/** Whether one decision is enough for all of these runs, or none is needed. */
function canDependTogether(runs: readonly Run[]): boolean {
  const [{ condition }] = runs as [Run];
  if (!condition) return !runs.some(({ condition }) => condition);
  return runs.every((run) => run.condition?.buffer === condition.buffer);
}

/** Brings what runs of several lists bind into one buffer, where that can be. */
class Joiner {
  readonly #context: DeviceContext;
  readonly #lists: readonly (readonly Run[])[];
  #common: Set<Tensor<ElementType>> | undefined;

  constructor(context: DeviceContext, lists: readonly (readonly Run[])[]) {
    this.#context = context;
    this.#lists = lists;
  }

  /** Whether one dispatch can do these runs of one kernel, since the tensors of each binding lie in one buffer by now. */
  join(runs: readonly Run[]): boolean {
    if (runs.length === 1 || !canDependTogether(runs)) return false;
    const apart: Tensor<ElementType>[][] = [];
    for (const [index, { access }] of Object.values<Binding>(runs[0]!.kernel.bindings).entries()) {
      const tensors = runs.map(({ bound }) => bound[index]!.tensor);
      const areDistinct = new Set(tensors).size === tensors.length;
      if (access === "write" && !areDistinct) return false;
      const { buffer, isF16 } = tensors[0]!;
      // A kernel reads f32 and f16 tensors in two different forms.
      if (!tensors.every((tensor) => tensor.isF16 === isF16)) return false;
      let bytes = buffer.size;
      if (!tensors.every((tensor) => tensor.buffer === buffer)) {
        if (!areDistinct || !tensors.every((tensor) => this.#isMovable(tensor))) return false;
        bytes = Tensor.joinedBytes(tensors);
        apart.push(tensors);
      }
      if (bytes > this.#context.bindingLimit) return false;
    }
    for (const tensors of apart) Tensor.join(tensors);
    return true;
  }

  /** What several lists use stays alone: next to a tensor that one of them writes, that one could not read it. */
  #isMovable(tensor: Tensor<ElementType>): boolean {
    return tensor.isAlone && !(this.#common ??= this.#usedTogether()).has(tensor);
  }

  #usedTogether(): Set<Tensor<ElementType>> {
    const users = new Map<Tensor<ElementType>, readonly Run[]>();
    const common = new Set<Tensor<ElementType>>();
    for (const list of this.#lists) {
      for (const { tensor } of list.flatMap(({ bound }) => bound)) {
        if ((users.get(tensor) ?? list) !== list) common.add(tensor);
        users.set(tensor, list);
      }
    }
    return common;
  }
}

/** Buffers above this have no copy in a texture. */
const MAX_TEXTURE_COPY_BYTES = 2 ** 29;

/** How many times as many bytes it takes for a copy to pay where they are read once. */
const ONCE = 2;

/** How many bytes a run reads of one of its bindings; of what it reads often, twice as many as there are at least. */
function bytesRead({ kernel, values, bound }: Run, reading: NonNullable<Binding["reading"]>, index: number): number {
  if (typeof reading === "object") return 4 * shapeSize(kernel, reading.total, values);
  return (reading === "often" ? 2 : 1) * bound[index]!.bytes;
}

const NONE: ReadonlySet<string> = new Set();

/** Which of a run's bindings of floats are f16 tensors. */
function f16Of({ bindings }: Kernel, bound: readonly Bound[]): ReadonlySet<string> {
  if (!bound.some(({ tensor }) => tensor.isF16)) return NONE;
  const names = Object.entries<Binding>(bindings).filter(([, { element }], index) =>
    bound[index]!.tensor.isF16 && element !== "f16"
  );
  return new Set(names.map(([name]) => name));
}

/** Bind groups that a kernel keeps; a step of training has fewer. */
const MAX_BIND_GROUPS = 256;

/** A stretch of a buffer, or a texture, which has a name of its own. */
interface Resource {
  readonly id: string;
  /** The number of its buffer, if it is a tensor's. */
  readonly buffer?: number;
  readonly bound: GPUBindingResource;
}

/** What a copy costs beside the dispatch that needs it. */
const FREE: Cost = { flops: 0, bytes: 0 };

/** What a dispatch costs, if the GPU does not decide about it. */
function costOf(runs: readonly Run[]): Cost | undefined {
  let [flops, bytes] = [0, 0];
  for (const { kernel, values, condition, counted } of runs) {
    if (condition || counted) return undefined;
    const cost = kernel.cost(values);
    flops += cost.flops;
    bytes += cost.bytes;
  }
  return { flops, bytes };
}

/** Where uniforms are: a buffer of slots, what it is going to hold, and which slot is the next. */
interface Slots {
  readonly buffer: GPUBuffer;
  readonly words: Uint32Array<ArrayBuffer>;
  readonly floats: Float32Array;
  used: number;
}

function slotsIn(buffer: GPUBuffer, words: Uint32Array<ArrayBuffer>): Slots {
  return { buffer, words, floats: new Float32Array(words.buffer), used: 0 };
}

/** One submission in the making. */
class Submission {
  readonly #context: DeviceContext;
  readonly #slots: Slots;
  /** Of what decides about dispatches. */
  readonly #decisionSlots: Slots;
  /** How many slots the dispatches still to come take. */
  #ahead: number;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  /** By the buffer of their flags, the decisions that hold for all slots to come, and what had changed the flags by then. */
  readonly #decided = new Map<GPUBuffer, { readonly number: number; readonly changes: number }>();
  #decisions = 0;

  constructor(context: DeviceContext, slots: number) {
    this.#context = context;
    this.#ahead = slots;
    this.#slots = slotsIn(context.slots, context.slotWords);
    this.#decisionSlots = slotsIn(context.decisionSlots, context.decisionWords);
  }

  /** Adds a dispatch of one run, or of several whose bindings have been joined. */
  dispatch(runs: readonly Run[]): void {
    const context = this.#context;
    const [first] = runs as [Run];
    const { kernel, bound, condition, groups } = first;
    const isJoined = runs.length > 1;
    // Those of a joined dispatch end themselves where they have nothing to do.
    const counted = isJoined ? undefined : first.counted;
    const slots = this.#slots;
    const isFull = slots.used + runs.length > context.slotCount;
    if (isFull || this.#decisionSlots.used === context.decisionCount) this.end();
    let decision = 0;
    if (counted) this.#count(counted, condition, groups);
    else if (condition) decision = this.#decide(condition);
    const formed = kernelForm(kernel, {
      isJoined,
      textures: this.#textureCopiesOf(runs),
      f16: f16Of(kernel, bound),
    });
    const names = Object.keys(kernel.bindings);
    const boundTo = ([name]: readonly [name: string, binding: Binding]) => bound[names.indexOf(name)]!;
    const resources = [
      ...bufferBindings(formed).map(boundTo).map(({ tensor, from, bytes }) =>
        isJoined ? stretch(tensor, 0, tensor.buffer.size) : stretch(tensor, tensor.offset + from, bytes)
      ),
      ...textureBindings(formed).map(boundTo).map(({ tensor }) => this.#textureCopy(runs, tensor)),
    ];
    const pass = this.#prepare(formed, resources, runs, slots);
    const slot = slots.used;
    for (const run of runs) {
      const at = fillSlot(run, formed, slots);
      slots.words[at + DECISION_WORD] = 0;
      slots.words[at + FLAG_WORD] = run.condition ? run.condition.offset / 4 : 0;
    }
    const head = slot * SLOT_BYTES / 4;
    slots.words[head + DECISION_WORD] = decision;
    slots.words[head + RUNS_WORD] = runs.length;
    if (counted || condition) pass.dispatchWorkgroupsIndirect(context.conditionalGroups, slot * GROUPS_BYTES);
    else {
      const most = Math.max(...runs.map((run) => run.groups));
      const x = Math.min(most, MAX_GROUPS);
      pass.dispatchWorkgroups(x, Math.ceil(most / x), runs.length);
    }
    for (const [index, { access }] of Object.values<Binding>(kernel.bindings).entries()) {
      if (access === "write") { for (const run of runs) run.bound[index]!.tensor.change(); }
    }
    this.#ahead -= runs.length;
    context.onDispatch?.(kernel.name, runs.flatMap((run) => run.bound.map(({ tensor }) => tensor.label)));
  }

  /** Which bindings of a dispatch come from textures: one copy is for all of its runs. */
  #textureCopiesOf(runs: readonly Run[]): ReadonlySet<string> {
    const [{ kernel, bound }] = runs as [Run];
    const { textureCopyBytes, device: { limits } } = this.#context;
    if (textureCopyBytes === Infinity) return NONE;
    const least = ONCE * textureCopyBytes;
    const names = Object.entries<Binding>(kernel.bindings).filter(([, { reading }], index) => {
      const { tensor } = bound[index]!;
      if (!reading || tensor.buffer.size > MAX_TEXTURE_COPY_BYTES) return false;
      return tensor.hasTextureCopy || runs.reduce((sum, run) => sum + bytesRead(run, reading, index), 0) >= least;
    });
    return new Set(names.slice(0, limits.maxStorageTexturesPerShaderStage).map(([name]) => name));
  }

  /** The texture with the values of a tensor's buffer. */
  #textureCopy(runs: readonly Run[], tensor: Tensor<ElementType>): Resource {
    const { view } = tensor.textureCopy((record) => {
      this.#endPass();
      const encoder = this.#encoder ??= this.#context.device.createCommandEncoder();
      const timing = this.#context.timings?.writesOf(runs[0]!.kernel.name, costOf(runs) && FREE);
      if (!timing) return record(encoder);
      // Copies have no clock of their own: two empty passes note when it begins and ends.
      const { querySet, beginningOfPassWriteIndex, endOfPassWriteIndex } = timing;
      encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex } }).end();
      record(encoder);
      encoder.beginComputePass({ timestampWrites: { querySet, endOfPassWriteIndex } }).end();
    });
    return { id: `texture copy ${tensor.bufferId}`, buffer: tensor.bufferId, bound: view };
  }

  /** Hands everything to the GPU. */
  end(): void {
    if (!this.#encoder) return;
    const { queue } = this.#context.device;
    this.#endPass();
    for (const slots of [this.#slots, this.#decisionSlots]) {
      queue.writeBuffer(slots.buffer, 0, slots.words, 0, slots.used * SLOT_BYTES / 4);
      slots.used = 0;
    }
    this.#context.submit([this.#encoder.finish()]);
    this.#encoder = undefined;
    this.#decided.clear();
    this.#decisions = 0;
  }

  /**
   * The number of a decision: the workgroups of the dispatches after it that depend on a flag in the same buffer are those
   * of their runs whose flags are not 0.
   */
  #decide({ buffer, bufferId, changes }: Tensor<"u32">): number {
    const { slots, slotCount, conditionalGroups } = this.#context;
    const decided = this.#decided.get(buffer);
    if (decided?.changes === changes) return decided.number;
    const number = ++this.#decisions;
    this.#decided.set(buffer, { number, changes });
    const first = this.#slots.used;
    const values = {
      first,
      slots: Math.min(slotCount, first + this.#ahead),
      decision: number,
      flags: buffer.size / 4,
    };
    const groups = decideKernel.grid(values);
    const resources = [
      { id: `flags ${bufferId}`, buffer: bufferId, bound: { buffer } },
      { id: "slots", bound: { buffer: slots } },
      { id: "groups", bound: { buffer: conditionalGroups } },
    ];
    this.#dispatchOwn(decideKernel as unknown as Kernel, resources, values, groups);
    return number;
  }

  /** Counts the workgroups of the next run. */
  #count({ count, per, times }: Counted, condition: Tensor<"u32"> | undefined, most: number): void {
    const { slotCount, conditionalGroups } = this.#context;
    const resources = [
      wholeTensor(count),
      // A count of 0 is as good as a condition.
      wholeTensor(condition ?? count),
      { id: "groups", bound: { buffer: conditionalGroups } },
    ];
    const values = { slot: this.#slots.used, slots: slotCount, per, times, most };
    this.#dispatchOwn(countKernel as unknown as Kernel, resources, values, 1);
  }

  #dispatchOwn(
    kernel: Kernel,
    resources: readonly Resource[],
    values: Readonly<Record<string, number>>,
    groups: number,
  ): void {
    const plain = kernelForm(kernel, { isJoined: false, textures: NONE, f16: NONE });
    const run: Run = { kernel, groups, values, bound: [], condition: undefined, counted: undefined };
    const pass = this.#prepare(plain, resources, [run], this.#decisionSlots);
    fillSlot(run, plain, this.#decisionSlots);
    pass.dispatchWorkgroups(groups);
    this.#context.onDispatch?.(kernel.name, []);
  }

  /** The pass, with the kernel and what it binds; the next slot is that of the first run. */
  #prepare(
    kernel: FormedKernel,
    resources: readonly Resource[],
    runs: readonly Run[],
    { buffer, used }: Slots,
  ): GPUComputePassEncoder {
    const context = this.#context;
    const { pipeline, layout, bindGroups } = compiled(context, kernel);
    const key = resources.map(({ id }) => id).join();
    let found = bindGroups.get(key);
    if (!found) {
      if (bindGroups.size === MAX_BIND_GROUPS) bindGroups.clear();
      const size = (kernel.isJoined ? MAX_JOINED : 1) * SLOT_BYTES;
      const group = context.device.createBindGroup({
        label: kernel.name,
        layout,
        entries: [
          { binding: 0, resource: { buffer, offset: 0, size } },
          ...resources.map(({ bound }, index) => ({ binding: index + 1, resource: bound })),
        ],
      });
      found = { group, buffers: resources.flatMap(({ buffer }) => buffer ?? []) };
      bindGroups.set(key, found);
    }
    this.#encoder ??= context.device.createCommandEncoder();
    const timestampWrites = context.timings?.writesOf(kernel.name, costOf(runs));
    // A timed dispatch has a pass of its own.
    if (timestampWrites) this.#endPass();
    this.#pass ??= this.#encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
    this.#pass.setPipeline(pipeline);
    this.#pass.setBindGroup(0, found.group, [used * SLOT_BYTES]);
    return this.#pass;
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }
}

/** Fills the next slot, and says where in the words it begins. */
function fillSlot(
  { groups, values, bound }: Run,
  { dims, scalars = [], bindings, starts, f16 }: FormedKernel,
  slots: Slots,
): number {
  const begin = slots.used++ * SLOT_BYTES / 4;
  const { words, floats } = slots;
  let at = begin;
  words[at++] = groups;
  for (const dim of dims) words[at++] = values[dim]!;
  const names = Object.keys(bindings);
  for (const name of starts) {
    const { tensor, from } = bound[names.indexOf(name)]!;
    const scalarBytes = f16.has(name) ? 2 : 4;
    words[at++] = (tensor.offset + from) /
      (bindings[name]!.element.startsWith("vec4") ? 4 * scalarBytes : scalarBytes);
  }
  for (const scalar of scalars) floats[at++] = values[scalar]!;
  return begin;
}

function stretch(tensor: Tensor<ElementType>, offset: number, size: number): Resource {
  const { buffer, bufferId } = tensor;
  return { id: `${bufferId} ${offset} ${size}`, buffer: bufferId, bound: { buffer, offset, size } };
}

function wholeTensor(tensor: Tensor<ElementType>): Resource {
  return stretch(tensor, tensor.offset, tensor.bytes);
}

/**
 * Of every dispatch from the first slot on that depends on the decision: the workgroups of its runs, or none, each in its
 * slot, and the most of them.
 */
const decideKernel = defineKernel({
  name: "decide",
  dims: ["first", "slots", "decision", "flags"],
  bindings: {
    flags: reads("u32", "flags"),
    arguments_of: writes("u32", `slots ${SLOT_BYTES / 4}`),
    groups_of: writes("u32", `slots ${GROUPS_BYTES / 4}`),
  },
  workgroup: 64,
  grid: ({ first, slots }) => Math.ceil((slots - first) / 64),
  cost: ({ slots }) => ({ flops: 0, bytes: 16 * slots }),
  body: `
  let slot = dims.first + group * 64u + lane;
  if (slot >= dims.slots) { return; }
  let head = slot * ${SLOT_BYTES / 4}u;
  if (arguments_of[head + ${DECISION_WORD}u] != dims.decision) { return; }
  let runs = arguments_of[head + ${RUNS_WORD}u];
  var most = 0u;
  for (var run = 0u; run < runs; run += 1u) {
    let own = head + run * ${SLOT_BYTES / 4}u;
    let groups = select(0u, arguments_of[own], flags[arguments_of[own + ${FLAG_WORD}u]] != 0u);
    arguments_of[own] = groups;
    most = max(most, groups);
  }
  let x = min(most, ${MAX_GROUPS}u);
  groups_of[3u * slot] = x;
  groups_of[3u * slot + 1u] = (most + max(x, 1u) - 1u) / max(x, 1u);
  groups_of[3u * slot + 2u] = runs;`,
});

/** The workgroups of one slot. */
const countKernel = defineKernel({
  name: "count_workgroups",
  dims: ["slot", "slots", "per", "times", "most"],
  bindings: {
    count: reads("u32", "1"),
    condition: reads("u32", "1"),
    groups_of: writes("u32", `slots ${GROUPS_BYTES / 4}`),
  },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 16 }),
  body: `
  let counted = select(0u, count[0], condition[0] != 0u);
  let shares = counted / dims.per + u32(counted % dims.per > 0u);
  // The product may be larger than an integer.
  let groups = select(shares * dims.times, dims.most, shares > dims.most / max(dims.times, 1u));
  let x = min(groups, ${MAX_GROUPS}u);
  groups_of[3u * dims.slot] = x;
  groups_of[3u * dims.slot + 1u] = (groups + max(x, 1u) - 1u) / max(x, 1u);
  groups_of[3u * dims.slot + 2u] = 1u;`,
});
