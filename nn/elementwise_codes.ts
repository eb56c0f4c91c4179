/**
 * Codes of elementwise activations in a training step: sparse if few latents fire, dense if many do.
 *
 * The entries of a tile of pre-activations are listed as soon as the tile is computed. If the entries of the whole
 * batch fit the capacity, the step continues with entries, otherwise with dense products; the GPU decides within the
 * step. Both give the same bits: a sum over entries is the dense sum without its zeros.
 *
 * Entries are the codes that are not 0. If the activation keeps pre-activations, elements inside the window of its
 * estimator are entries too, and so are all elements of a latent that an auxiliary loss may need; their code is 0, and
 * they are kept for their h.
 *
 * @module
 */

import type { Commands } from "../kernels/engine/commands.ts";
import { defineKernel, reads, writes } from "../kernels/engine/kernel.ts";
import { elementsPerBinding, type Span, spans, Tensor, type TensorRows } from "../kernels/engine/tensor.ts";
import type { AnyActivation, Elementwise, PreActCodes } from "./activations/activation.ts";
import { appendCodes, Codes, EntryBuffers, withValues } from "./codes.ts";
import { type AffineMaps, type EncoderInput, preActivations, type Tile } from "./encode.ts";
import type { BackwardArguments, DenseStep, Gate, Look, StepCodes } from "./step_codes.ts";

/** The largest share of codes that may be entries: with more, dense products are faster (`bench/scale.ts codes`). */
const MAX_SPARSE = 3 / 32;

/** Capacity for entries. */
export function entryCapacity({ cfg: { d_sae }, context }: AffineMaps, n_rows: number): number {
  return Math.min(Math.ceil(n_rows * d_sae * MAX_SPARSE), elementsPerBinding(context));
}

/**
 * Whether to keep the pre-activations of a whole batch: if they take no more memory than parameters, gradients and
 * moments. Otherwise only a tile is kept, and a dense step recomputes each tile in its backward pass.
 */
export function keepsBatch({ cfg: { d_model, d_sae }, context }: AffineMaps, n_rows: number): boolean {
  return n_rows <= 8 * d_model && 4 * n_rows * d_sae <= context.device.limits.maxBufferSize;
}

/** The pre-activations that are kept. */
interface KeptPreActs<C> {
  readonly of: PreActCodes<C>;
  /** [entries], h. */
  readonly ofEntries: Tensor;
  /** [rows of a tile, S], f, in a dense step. */
  readonly f: Tensor;
  /** [S], 1 where every row is an entry. */
  readonly wanted: Tensor<"u32">;
}

/** Codes of an elementwise activation, and what their backward pass needs. */
export class ElementwiseCodes<C extends AnyActivation = AnyActivation> implements StepCodes, DenseStep {
  /** The entries, and what their backward pass needs. */
  readonly entries: EntryBuffers;
  /** Rows that are encoded together, and processed together in a dense step's backward pass. */
  readonly tiles: readonly Span[];
  /** The pre-activations that are kept, if the activation needs them. */
  readonly preActs: KeptPreActs<C> | undefined;
  /** This object is also the dense form of the step. */
  readonly dense: this = this;
  /** max(h, 0), if the penalty applies to it. */
  readonly gate: Gate | undefined;
  /** [B, S] or [rows of a tile, S]: h if pre-activations are kept, otherwise f. */
  readonly kept: Tensor;
  /** Whether that is the whole batch. */
  readonly isWhole: boolean;
  /** [1] each, 1 or 0: whether the step is sparse, and whether it is dense. */
  readonly isSparse: Tensor<"u32">;
  readonly isDense: Tensor<"u32">;
  /** [S], zeros: what pre-activations must exceed to be entries if the model has no thresholds. */
  readonly #zeros: Tensor | undefined;
  readonly #activation: Elementwise<C>;
  readonly #cfg: C;
  readonly #owned: DisposableStack;

  /** For batches of `n_rows`, of which at most `rows` go backward at once. */
  constructor(
    model: AffineMaps,
    activation: Elementwise<C>,
    cfg: C,
    given: { readonly n_rows: number; readonly rows: number; readonly tile: Tile; readonly training: boolean },
  ) {
    const { n_rows, rows, tile, training } = given;
    const { cfg: { d_sae }, context } = model;
    using stack = new DisposableStack();
    const make = <T extends "f32" | "u32">(type: T, shape: readonly number[], label: string): Tensor<T> =>
      stack.use(new Tensor(context, type, [...shape], label));
    const codes = new Codes(context, n_rows, d_sae, entryCapacity(model, n_rows));
    this.entries = stack.use(new EntryBuffers(context, codes, "f_x", { training }));
    this.tiles = [...spans(n_rows, Math.min(rows, tile.rows))];
    this.isWhole = keepsBatch(model, n_rows);
    const { ofPreActs } = activation;
    this.kept = make("f32", this.isWhole ? [n_rows, d_sae] : tile.h.shape, ofPreActs ? "dense h_x" : "dense f_x");
    this.preActs = ofPreActs && {
      of: ofPreActs,
      ofEntries: make("f32", [codes.values.size], "h_x of entries"),
      f: make("f32", tile.h.shape, "dense f_x of a tile"),
      wanted: make("u32", [d_sae], "latents wanted whole"),
    };
    if (ofPreActs?.isGate) {
      const { transposition } = this.entries;
      this.gate = {
        entries: {
          codes: withValues(codes, this.preActs!.ofEntries),
          transposition,
          grad_values: make("f32", [this.entries.grad_values.size], "grad of gates"),
        },
        grad: make("f32", tile.h.shape, "grad of dense gates"),
        sums: make("f32", [d_sae], "grad of h_x, summed"),
      };
      this.#zeros = make("f32", [d_sae], "no thresholds");
    }
    this.isSparse = make("u32", [1], "is sparse");
    this.isDense = make("u32", [1], "is dense");
    this.#activation = activation;
    this.#cfg = cfg;
    this.#owned = stack.move();
  }

  /** h of the rows of one tile if pre-activations are kept, otherwise f. */
  denseRows({ from, to }: Span): TensorRows {
    return this.isWhole ? this.kept.rows(from, to) : this.kept.rows(0, to - from);
  }

  /** f of the rows of one tile, in a dense step. */
  codeRows(span: Span): TensorRows {
    return this.preActs ? this.preActs.f.rows(0, span.to - span.from) : this.denseRows(span);
  }

  /** Lists the codes of the whole batch as entries, and decides between a sparse and a dense step. */
  encode(
    commands: Commands,
    model: AffineMaps,
    { input, look }: { readonly input: EncoderInput; readonly look: Look },
  ): void {
    const { entries: { codes }, preActs } = this;
    const thresholds = this.#zeros ?? model.threshold;
    for (const span of this.tiles) {
      this.#encodeTile(commands, model, input, span);
      const dense = this.denseRows(span);
      const looked = preActs
        ? preActs.of.look(commands, model, { h: dense, f: this.codeRows(span) })
        : { values: dense, threshold: undefined };
      look(looked, span, this.#zeros ? { values: dense, threshold: this.#zeros } : looked);
      appendCodes(commands, codes, dense, span, {
        ...preActs && {
          values: preActs.ofEntries,
          nearby: { thresholds, width: preActs.of.window(this.#cfg, model), whole: preActs.wanted },
        },
      });
    }
    const { n_rows, row_starts: starts, values: { size: capacity } } = codes;
    const { isSparse, isDense } = this;
    commands.run(chooseKernel, { n_rows, capacity, starts, isSparse, isDense });
  }

  /** In a sparse step: computes f of the entries if only their h is known. */
  finishEntries(commands: Commands, model: AffineMaps): void {
    const { entries: { codes }, preActs } = this;
    preActs?.of.ofEntries(commands, model, { codes, preActs: preActs.ofEntries });
  }

  /** In a dense step: computes f of the rows of one tile if it is not stored. */
  encodeAgain(commands: Commands, model: AffineMaps, input: EncoderInput, span: Span): void {
    const { preActs } = this;
    if (!this.isWhole) this.#encodeTile(commands, model, input, span);
    preActs?.of.ofTile(commands, model, { h: this.denseRows(span), f: this.codeRows(span) });
  }

  /** In a sparse step: ∂f → ∂h of the entries, in place, and the gradients of the activation's own parameters. */
  entriesBackward(commands: Commands, model: AffineMaps, given: BackwardArguments): void {
    const { entries, preActs } = this;
    preActs?.of.entriesBackward(commands, model, this.#cfg, {
      ...given,
      n_rows: entries.codes.n_rows,
      entries,
      preActs: preActs.ofEntries,
      grad_gate: this.gate?.entries.grad_values,
    });
  }

  /** In a dense step: the same for the rows of one tile. */
  denseBackward(commands: Commands, model: AffineMaps, given: Parameters<DenseStep["denseBackward"]>[2]): void {
    const { n_rows } = this.entries.codes;
    const dense = this.denseRows(given.span);
    this.#activation.denseBackward(commands, model, this.#cfg, { ...given, n_rows, dense, grad_gate: this.gate?.grad });
  }

  #encodeTile(commands: Commands, model: AffineMaps, input: EncoderInput, span: Span): void {
    const tileFrom = this.isWhole ? span.from : 0;
    preActivations(commands, model, { input, span, tile: this.kept, tileFrom, relu: !this.preActs });
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

const chooseKernel = defineKernel({
  name: "choose_sparse_or_dense",
  dims: ["n_rows", "capacity"],
  bindings: { starts: reads("u32", "n_rows+1"), isSparse: writes("u32", "1"), isDense: writes("u32", "1") },
  workgroup: 1,
  grid: () => 1,
  cost: () => ({ flops: 0, bytes: 12 }),
  body: `
  let fits = starts[dims.n_rows] <= dims.capacity;
  isSparse[0] = u32(fits);
  isDense[0] = u32(!fits);`,
});
