/**
 * One submission to the GPU: what dispatches bind, where their arguments are, and what the GPU decides about them.
 *
 * @module
 */

import { bufferBindings, type FormedKernel, kernelForm, textureBindings } from "../forms/form.ts";
import { chosenTextures } from "../forms/texture_copies.ts";
import { compiled } from "./compile.ts";
import {
  DECISION_WORD,
  type DeviceContext,
  FLAG_WORD,
  GROUPS_BYTES,
  MAX_JOINED,
  RUNS_WORD,
  SLOT_BYTES,
} from "./device.ts";
import { type Binding, defineKernel, type Kernel, NO_BINDINGS, reads, writes } from "./kernel.ts";
import type { Bound, Counted, Run } from "./run.ts";
import type { ElementType, Tensor } from "./tensor.ts";
import type { Cost } from "./timings.ts";

/** Workgroups along one dimension that every adapter accepts. */
const MAX_GROUPS = 65535;

/** Which of a run's bindings of floats are f16 tensors. */
function f16Of({ bindings }: Kernel, bound: readonly Bound[]): ReadonlySet<string> {
  if (!bound.some(({ tensor }) => tensor.isF16)) return NO_BINDINGS;
  const names = Object.entries<Binding>(bindings).filter(([, { element }], index) =>
    bound[index]!.tensor.isF16 && element !== "f16"
  );
  return new Set(names.map(([name]) => name));
}

/** Bind groups that a kernel keeps; a step of training has fewer. */
const MAX_BIND_GROUPS = 256;

/** A range of a buffer, or a texture, with an id of its own. */
interface Resource {
  readonly id: string;
  /** The number of its buffer, if it is a tensor's. */
  readonly buffer?: number;
  readonly bound: GPUBindingResource;
}

/** The cost of a texture copy, which counts for its dispatch. */
const FREE: Cost = { flops: 0, bytes: 0 };

/** The cost of a dispatch, unless the GPU decides about it. */
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

/** Uniform slots: their buffer, its contents at the next submission, and how many are used. */
interface Slots {
  readonly buffer: GPUBuffer;
  readonly words: Uint32Array<ArrayBuffer>;
  readonly floats: Float32Array;
  used: number;
}

function slotsIn(buffer: GPUBuffer, words: Uint32Array<ArrayBuffer>): Slots {
  return { buffer, words, floats: new Float32Array(words.buffer), used: 0 };
}

/** One submission being recorded. */
export class Submission {
  readonly #context: DeviceContext;
  readonly #slots: Slots;
  /** The slots of the kernels that decide about dispatches. */
  readonly #decisionSlots: Slots;
  /** Slots that the remaining dispatches take. */
  #ahead: number;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  /**
   * The decisions that hold for all remaining slots, by the buffer of their flags, and how often the flags had changed
   * by then.
   */
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
    // In a joined dispatch, workgroups without work return by themselves.
    const counted = isJoined ? undefined : first.counted;
    const slots = this.#slots;
    const isFull = slots.used + runs.length > context.slotCount;
    if (isFull || this.#decisionSlots.used === context.decisionCount) this.end();
    let decision = 0;
    if (counted) this.#count(counted, condition, groups);
    else if (condition) decision = this.#decide(condition);
    const formed = kernelForm(kernel, {
      isJoined,
      textures: chosenTextures(context, runs),
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

  /** The texture with the values of a tensor's buffer. */
  #textureCopy(runs: readonly Run[], tensor: Tensor<ElementType>): Resource {
    const { view } = tensor.textureCopy((record) => {
      this.#endPass();
      const encoder = this.#encoder ??= this.#context.device.createCommandEncoder();
      const timing = this.#context.timings?.writesOf(runs[0]!.kernel.name, costOf(runs) && FREE);
      if (!timing) return record(encoder);
      // Copies cannot be timed: two empty passes note when the copy begins and ends.
      const { querySet, beginningOfPassWriteIndex, endOfPassWriteIndex } = timing;
      encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex } }).end();
      record(encoder);
      encoder.beginComputePass({ timestampWrites: { querySet, endOfPassWriteIndex } }).end();
    });
    return { id: `texture copy ${tensor.bufferId}`, buffer: tensor.bufferId, bound: view };
  }

  /** Submits everything. */
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
   * Records a decision and returns its number: in the dispatches after it that depend on flags of this buffer, only
   * runs whose flag is not 0 get workgroups.
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
      // Without a condition, a count of 0 serves as one.
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
    const plain = kernelForm(kernel, { isJoined: false, textures: NO_BINDINGS, f16: NO_BINDINGS });
    const run: Run = { kernel, groups, values, bound: [], condition: undefined, counted: undefined };
    const pass = this.#prepare(plain, resources, [run], this.#decisionSlots);
    fillSlot(run, plain, this.#decisionSlots);
    pass.dispatchWorkgroups(groups);
    this.#context.onDispatch?.(kernel.name, []);
  }

  /** The pass, with the kernel and its bind group set; the next slot is that of the first run. */
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
    // Each timed dispatch gets its own pass.
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

/** Fills the next slot, and returns where it begins among the words. */
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
 * For every dispatch from the first slot on that depends on the decision: writes the workgroups of each run into its
 * slot, 0 where its flag is 0, and the largest of them for the dispatch.
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
  // The product may exceed 32 bits.
  let groups = select(shares * dims.times, dims.most, shares > dims.most / max(dims.times, 1u));
  let x = min(groups, ${MAX_GROUPS}u);
  groups_of[3u * dims.slot] = x;
  groups_of[3u * dims.slot + 1u] = (groups + max(x, 1u) - 1u) / max(x, 1u);
  groups_of[3u * dims.slot + 2u] = 1u;`,
});
