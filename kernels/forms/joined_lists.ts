/**
 * Joined lists: runs of one kernel at the same place of several lists become one dispatch, whose workgroups of `group_id.z` = i
 * see the arguments of run i. The tensors that they bind move into one buffer.
 *
 * @module
 */

import { type DeviceContext, MAX_JOINED, SLOT_BYTES } from "../engine/device.ts";
import type { Binding } from "../engine/kernel.ts";
import type { Run } from "../engine/run.ts";
import { type ElementType, spans, Tensor } from "../engine/tensor.ts";

/** WGSL: the uniforms of up to {@link MAX_JOINED} runs, a slot each. */
export function joinedUniforms(fields: readonly string[]): string {
  const padding = SLOT_BYTES - 4 * (fields.length - 1);
  return `struct Dims { ${fields.with(-1, `@size(${padding}) ${fields.at(-1)}`).join(", ")} }
@group(0) @binding(0) var<uniform> joined_dims: array<Dims, ${MAX_JOINED}>;`;
}

/** The runs of each dispatch, in order. Tensors move before anything is encoded that uses them. */
export function joinedDispatches(context: DeviceContext, lists: readonly (readonly Run[])[]): (readonly Run[])[] {
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
