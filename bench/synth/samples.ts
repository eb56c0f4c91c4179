/**
 * Rows of a world, made on the GPU one batch at a time, with their true features.
 *
 * @module
 */

import {
  addRow,
  Commands,
  denseToCsr,
  type DeviceContext,
  matmul,
  RandomStream,
  spmm,
  Tensor,
} from "../../kernels/mod.ts";
import { Codes } from "../../mod.ts";
import { leaveOneChild, normals, propose } from "./kernels.ts";
import { normal, type World, WORLD_STREAMS } from "./world.ts";

/** Makes batches of one size, each into the same tensors. */
export class Samples implements Disposable {
  /** [B, D], the rows of the newest batch. */
  readonly x: Tensor;
  /** [F, D], unit vectors; not owned. */
  readonly directions: Tensor;
  /** The features in the newest batch, and their strengths. */
  readonly truth: Codes;
  /** The world. */
  readonly world: World;
  /** [D] */
  readonly bias_D: Float32Array;
  readonly #rank: number;
  readonly #common: Tensor;
  readonly #strengths: Tensor;
  readonly #factor: Tensor;
  readonly #perFeature: Record<"threshold" | "own" | "mean" | "spread", Tensor>;
  readonly #bias: Tensor;
  readonly #zeros: Tensor;
  readonly #ends: Tensor<"u32">;
  readonly #commands: Commands;
  readonly #owned: DisposableStack;

  /** Makes batches of `n_rows` rows of a world with these directions, which stay the caller's. */
  constructor(context: DeviceContext, world: World, directions: Tensor, n_rows: number) {
    const { cfg: { n_features, d_model, correlation: { rank }, bias, seed } } = world;
    // Rows of a multiple of four are read by fours; the padding is multiplied by zeros.
    this.#rank = Math.ceil(rank / 4) * 4;
    const factor_FR = new Float32Array(n_features * this.#rank);
    for (let f = 0; f < n_features; f++) {
      factor_FR.set(world.factor_FR.subarray(f * rank, (f + 1) * rank), f * this.#rank);
    }
    using stack = new DisposableStack();
    const empty = (label: string, ...shape: number[]) => stack.use(new Tensor(context, "f32", shape, label));
    const filled = (label: string, values: ArrayLike<number>, ...shape: number[]) =>
      stack.use(Tensor.from(context, Float32Array.from(values), shape, label));
    this.world = world;
    this.directions = directions;
    this.x = empty("rows of a world", n_rows, d_model);
    this.truth = stack.use(new Codes(context, n_rows, n_features, n_rows * n_features, "true features"));
    this.#common = empty("common normals", n_rows, this.#rank);
    this.#strengths = empty("strengths", n_rows, n_features);
    this.#factor = filled("factors", factor_FR, n_features, this.#rank);
    this.#perFeature = {
      threshold: filled("thresholds", world.threshold_F, n_features),
      own: filled("own deviations", world.own_F, n_features),
      mean: filled("mean strengths", world.mean_F, n_features),
      spread: filled("spreads of strengths", world.spread_F, n_features),
    };
    const random = new RandomStream(seed, WORLD_STREAMS.bias);
    const direction_D = Float64Array.from({ length: d_model }, () => normal(random));
    const length = Math.hypot(...direction_D);
    this.bias_D = Float32Array.from(direction_D, (value) => bias * value / length);
    this.#bias = filled("bias", this.bias_D, d_model);
    this.#zeros = empty("zeros", d_model);
    this.#ends = stack.use(Tensor.from(context, Uint32Array.of(n_features), [1], "number of features"));
    this.#commands = new Commands(context);
    this.#owned = stack.move();
  }

  /** Makes batch `step` of a seed, the same whenever it is called. */
  make({ seed, step }: { readonly seed: number; readonly step: number }): void {
    const { cfg: { n_features, d_model, hierarchy: { branching } }, levels } = this.world;
    const commands = this.#commands;
    const [n_rows = 0] = this.x.shape;
    const at = (stream: number) => ({ seed, step, stream });
    const [common, z] = [this.#common, this.#strengths];
    normals(commands, { to: common, ...at(WORLD_STREAMS.common) });
    matmul(commands, {
      layout: "nt",
      M: n_rows,
      N: n_features,
      K: this.#rank,
      a: { in: common },
      b: { in: this.#factor },
      c: { in: z },
    });
    propose(commands, {
      ...this.#perFeature,
      ...at(WORLD_STREAMS.proposals),
      strengthStream: WORLD_STREAMS.strengths,
      z,
    });
    const { mean } = this.#perFeature;
    for (const level of levels) {
      leaveOneChild(commands, { ...at(WORLD_STREAMS.siblings), a: z, mean, level, branching });
    }
    const { starts, capacity, indices, values } = this.truth.sparse;
    denseToCsr(commands, {
      dense: z,
      rows: n_rows,
      columns: n_features,
      firstRow: 0,
      allRows: n_rows,
      starts,
      capacity,
      indices,
      values,
    });
    spmm(commands, {
      sparse: this.truth.sparse,
      firstRow: 0,
      rows: n_rows,
      matrix: this.directions,
      from: 0,
      to: n_features,
      columns: d_model,
      ends: this.#ends,
      parts: 1,
      result: this.x,
      accumulate: false,
    });
    addRow(commands, { x: this.x, row: this.#bias, other: this.#zeros, rows: n_rows, columns: d_model, factor: 1 });
    commands.submit();
  }

  /** Batches 0 … n − 1 of a seed, each in {@link x} until the next. */
  *batches(seed: number, n: number): Iterable<Tensor> {
    for (let step = 0; step < n; step++) {
      this.make({ seed, step });
      yield this.x;
    }
  }

  /** Frees everything but the directions. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

type Iterable<T> = globalThis.Generator<T, void, void>;
