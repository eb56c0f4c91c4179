/**
 * Which latents are dead: those that have not fired for `dead_threshold_tokens` rows of training.
 *
 * Counted in rows (tokens), not steps, and updated before the auxiliary loss of the same step: a latent that fires in
 * this batch is not dead in it. A latent fires where f ≠ 0.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import { fill } from "../kernels/elementwise.ts";
import { defineKernel, reads, readsOften, writes } from "../kernels/engine/kernel.ts";
import type { DeviceContext } from "../kernels/engine/device.ts";
import { Tensor } from "../kernels/engine/tensor.ts";
import { scanKernel } from "../kernels/transpose_entries.ts";
import type { Codes } from "../nn/codes.ts";
import { boundCodes, type DenseCodes, perDenseLayout } from "../nn/dense_codes.ts";
import type { LossTerm, TrainingStep } from "./loss_term.ts";

/** Which latents fired, which are dead, and a list of the dead ones. */
export class DeadLatents implements LossTerm {
  /** [S], 1 for each that fires in this batch; 0 between steps. */
  readonly fired: Tensor<"u32">;
  /** [S], 1 for each dead one. */
  readonly flags: Tensor<"u32">;
  /** [S + 1], how many dead ones there are before each. */
  readonly places: Tensor<"u32">;
  /** [S], the dead ones in order; the first `count[0]` are valid. */
  readonly list: Tensor<"u32">;
  /** [1] */
  readonly count: Tensor<"u32">;
  readonly #owned: DisposableStack;

  /** For a model of `d_sae` latents. */
  constructor(context: DeviceContext, d_sae: number) {
    using stack = new DisposableStack();
    const make = (size: number, label: string) => stack.use(new Tensor(context, "u32", [size], label));
    this.fired = make(d_sae, "fired");
    this.flags = make(d_sae, "dead");
    this.places = make(d_sae + 1, "places of dead latents");
    this.list = make(d_sae, "dead latents");
    this.count = make(1, "n_dead");
    this.#owned = stack.move();
  }

  readonly look: NonNullable<LossTerm["look"]> = {
    entries: ({ commands, buffers: { f_x }, training }) => {
      if (training) markFired(commands, f_x.entries.codes, this.fired);
    },
    dense: ({ commands, training }, codes) => {
      if (training) markFiredDense(commands, codes, this.fired);
    },
  };

  /** Counts the rows since each latent last fired, and finds out which are dead. */
  update({ commands, buffers: { n_rows }, training }: TrainingStep): void {
    const { state: { tokens_since_active, halted }, dead_threshold_tokens, canBeDead } = training;
    updateDead(commands, { dead: this, tokens_since_active, halted, n_rows, dead_threshold_tokens, canBeDead });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Marks the latents that sparse codes use. */
export function markFired(commands: Commands, codes: Codes, fired: Tensor<"u32">): void {
  const { n_rows, d_sae, row_starts, indices, values } = codes;
  commands.run(markFiredKernel, { n_rows, d_sae, capacity: values.size, row_starts, indices, values, fired });
}

const markFiredKernel = defineKernel({
  name: "mark_fired",
  dims: ["n_rows", "d_sae", "capacity"],
  bindings: {
    row_starts: reads("u32", "n_rows+1"),
    indices: readsOften("u32", "capacity"),
    values: readsOften("f32", "capacity"),
    fired: writes("atomic<u32>", "d_sae"),
  },
  workgroup: 64,
  grid: ({ capacity }) => Math.ceil(capacity / 64),
  cost: ({ capacity }) => ({ flops: 0, bytes: 12 * capacity }),
  body: `
  let entry = group * 64u + lane;
  if (entry >= row_starts[dims.n_rows]) { return; }
  if ((bitcast<u32>(values[entry]) & 0x7fffffffu) != 0u) { atomicStore(&fired[indices[entry]], 1u); }`,
});

/** Marks the latents that the dense codes of some rows use. */
export function markFiredDense(commands: Commands, codes: DenseCodes, fired: Tensor<"u32">): void {
  const { from, to } = codes.values;
  commands.run(markFiredDenseKernel(codes), { rows: to - from, d_sae: fired.size, ...boundCodes(codes), fired });
}

/**
 * Rows of a workgroup, and loads of each row that an invocation makes: neighbours share a page of memory, rows do not.
 */
const [FIRED_ROWS, FIRED_LOADS] = [64, 8];

const markFiredDenseKernel = perDenseLayout(({ parts, scalars, words, bindings, declarations, code }) => {
  const each = (statement: (c: number, i: string) => string) =>
    Array.from({ length: FIRED_LOADS }, (_, c) => statement(c, `first + ${8 * c}u`)).join("\n    ");
  const columns = 8 * FIRED_LOADS;
  return defineKernel({
    name: "mark_fired_dense",
    dims: ["rows", "d_sae"],
    bindings: { ...bindings, fired: writes("atomic<u32>", "d_sae") },
    workgroup: 8,
    grid: ({ rows, d_sae }) => Math.ceil(d_sae / scalars / columns) * Math.ceil(rows / FIRED_ROWS),
    cost: ({ rows, d_sae }) => ({ flops: 0, bytes: 4 * rows * d_sae }),
    declarations,
    body: `
  let loads = dims.d_sae / ${scalars}u;
  let across = (loads + ${columns - 1}u) / ${columns}u;
  let first = (group % across) * ${columns}u + lane;
  let begin = (group / across) * ${FIRED_ROWS}u;
  let end = min(begin + ${FIRED_ROWS}u, dims.rows);
  ${each((c, i) => `var any${c} = ${words}(0u);${"threshold" in bindings ? ` let limit${c} = threshold[${i}];` : ""}`)}
  for (var row = begin; row < end; row += 1u) {
    ${each((c, i) => `any${c} |= bitcast<${words}>(${code(`values[row * loads + ${i}]`, `limit${c}`)});`)}
  }
  ${
      each((c, i) =>
        parts.map((part, p) =>
          `if (${i} < loads && (any${c}${part} & 0x7fffffffu) != 0u) { atomicStore(&fired[(${i}) * ${scalars}u + ${p}u], 1u); }`
        ).join("\n    ")
      )
    }`,
  });
});

/** wanted[s] = 1 for every latent that is dead after this batch unless it fires in it. */
export function markDying(
  commands: Commands,
  given: {
    readonly wanted: Tensor<"u32">;
    readonly tokens_since_active: Tensor<"u32">;
    readonly n_rows: number;
    readonly dead_threshold_tokens: number;
  },
): void {
  commands.run(markDyingKernel, { ...given, d_sae: given.wanted.size });
}

/** WGSL: the new count of a latent that does not fire in a batch; it saturates instead of overflowing. */
const WAITED = `
fn waited_longer(waited: u32, n_rows: u32) -> u32 { return waited + min(n_rows, 0xffffffffu - waited); }`;

const markDyingKernel = defineKernel({
  name: "mark_dying",
  dims: ["d_sae", "n_rows", "dead_threshold_tokens"],
  bindings: { tokens_since_active: reads("u32", "d_sae"), wanted: writes("u32", "d_sae") },
  workgroup: 64,
  grid: ({ d_sae }) => Math.ceil(d_sae / 64),
  cost: ({ d_sae }) => ({ flops: 0, bytes: 8 * d_sae }),
  declarations: WAITED,
  body: `
  let s = group * 64u + lane;
  if (s >= dims.d_sae) { return; }
  wanted[s] = u32(waited_longer(tokens_since_active[s], dims.n_rows) >= dims.dead_threshold_tokens);`,
});

/**
 * Adds `n_rows` to the counts of all latents except those that fired, lists the dead ones, and clears `fired`. Once the
 * state has been halted, the counts stay.
 */
export function updateDead(
  commands: Commands,
  given: {
    readonly dead: Pick<DeadLatents, "fired" | "flags" | "places" | "list" | "count">;
    readonly tokens_since_active: Tensor<"u32">;
    readonly halted: Tensor<"u32">;
    readonly n_rows: number;
    readonly dead_threshold_tokens: number;
    /** Whether any latent can be dead. */
    readonly canBeDead: boolean;
  },
): void {
  const { dead, tokens_since_active, halted, n_rows, dead_threshold_tokens, canBeDead } = given;
  const { fired, flags, places, list, count } = dead;
  const d_sae = fired.size;
  commands.run(updateDeadKernel, { d_sae, n_rows, dead_threshold_tokens, fired, tokens_since_active, halted, flags });
  if (!canBeDead) return fill(commands, count, 1, 0);
  commands.run(scanKernel, { n: d_sae, counts: flags, starts: places });
  commands.run(listDeadKernel, { d_sae, flags, places, list, count });
}

const updateDeadKernel = defineKernel({
  name: "update_dead",
  dims: ["d_sae", "n_rows", "dead_threshold_tokens"],
  bindings: {
    fired: writes("u32", "d_sae"),
    tokens_since_active: writes("u32", "d_sae"),
    halted: reads("u32", "1"),
    flags: writes("u32", "d_sae"),
  },
  workgroup: 64,
  grid: ({ d_sae }) => Math.ceil(d_sae / 64),
  cost: ({ d_sae }) => ({ flops: 0, bytes: 16 * d_sae }),
  declarations: WAITED,
  body: `
  let s = group * 64u + lane;
  if (s >= dims.d_sae) { return; }
  let waited = select(waited_longer(tokens_since_active[s], dims.n_rows), 0u, fired[s] != 0u);
  if (halted[0] == 0u) { tokens_since_active[s] = waited; }
  flags[s] = u32(waited >= dims.dead_threshold_tokens);
  fired[s] = 0u;`,
});

const listDeadKernel = defineKernel({
  name: "list_dead",
  dims: ["d_sae"],
  bindings: {
    flags: reads("u32", "d_sae"),
    places: reads("u32", "d_sae+1"),
    list: writes("u32", "d_sae"),
    count: writes("u32", "1"),
  },
  workgroup: 64,
  grid: ({ d_sae }) => Math.ceil(d_sae / 64),
  cost: ({ d_sae }) => ({ flops: 0, bytes: 12 * d_sae }),
  body: `
  let s = group * 64u + lane;
  if (s >= dims.d_sae) { return; }
  if (flags[s] != 0u) { list[places[s]] = s; }
  if (s == 0u) { count[0] = places[dims.d_sae]; }`,
});
