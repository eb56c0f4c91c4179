/**
 * Steering: what x becomes when some latents fire more, less or not at all.
 *
 * `x′ = x + decode(f′) − decode(f)`, f = encode(x) [B, S] and f′ the same codes with some latents changed. What the model
 * does not reconstruct, x − decode(f), stays in x′ as it was. Biases and means cancel, and so do all latents that are not
 * changed: `x′[b] = x[b] + scale · Σ_m (f′[b, s_m] − f[b, s_m]) W_dec[s_m]`.
 *
 * @module
 */

import { csrColumns } from "../kernels/csr_columns.ts";
import { scaleAndAdd } from "../kernels/elementwise.ts";
import { Commands } from "../kernels/engine/commands.ts";
import { shown } from "../kernels/engine/errors.ts";
import { checkOptions } from "../kernels/engine/options.ts";
import { rowsPerBlock, spans, Tensor } from "../kernels/engine/tensor.ts";
import { Codes } from "./codes.ts";
import { decode } from "./decode.ts";
import type { Batch } from "./rows.ts";
import { batchTensor, type SparseAutoencoder } from "./sparse_autoencoder.ts";

/** How a latent changes: it is set to a value, scaled, or ablated. */
export type LatentChange =
  & {
    /** Its number, from 0 to d_sae − 1. */
    readonly latent: number;
  }
  & (
    | {
      /** The value of f′ on every row, also where the latent does not fire. */
      readonly set: number;
    }
    | {
      /** f′ = scale · f. */
      readonly scale: number;
    }
    | {
      /** f′ = 0. */
      readonly ablate: true;
    }
  );

/**
 * x [B, D] → x′ [B, D] on the device, with some latents changed and the reconstruction's error kept. Rows on which nothing
 * changes stay as they are, to the bit. Yours to dispose of.
 *
 * @example
 * ```ts
 * import { intervene, SparseAutoencoder } from "@saev/nn";
 *
 * using sae = await SparseAutoencoder.create({ d_model: 8, d_sae: 32, activation: { key: "top-k", top_k: 4 } });
 * const x = Float32Array.from({ length: 3 * 8 }, (_, i) => Math.sin(i * i));
 * using steered = intervene(sae, x, [{ latent: 5, set: 2 }, { latent: 7, scale: 0.5 }, { latent: 9, ablate: true }]);
 * console.log(await steered.read());
 * ```
 *
 * @throws {ShapeError | RangeError} as {@link SparseAutoencoder.encode}.
 * @throws {RangeError} if there is no such latent, one is listed twice, or a number is not finite.
 * @throws {TypeError} if a change does not say exactly one of `set`, `scale` and `ablate`, or says something else.
 */
export function intervene(sae: SparseAutoencoder, x: Batch, changes: readonly LatentChange[]): Tensor {
  const { cfg: { d_model, d_sae }, context, input } = sae;
  const lines = linesOf(changes, d_sae);
  using stack = new DisposableStack();
  const x_BD = batchTensor(sae, x, stack);
  const n_rows = x_BD.shape[0]!;
  const listed = lines.length;
  const f_x = stack.use(sae.encode(x_BD));
  const changed = stack.use(Codes.uniform(context, n_rows, d_sae, listed, "f′ − f"));
  changed.indices.write(Uint32Array.from({ length: n_rows * listed }, (_, i) => lines[i % listed]!.latent));
  const listOf = (label: string, values: readonly number[]) =>
    stack.use(Tensor.from(context, Float32Array.from(values), [listed], label));
  const commands = new Commands(context);
  csrColumns(commands, {
    sparse: f_x.sparse,
    listed,
    columns: stack.use(Tensor.from(context, Uint32Array.from(lines, ({ latent }) => latent), [listed], "latents")),
    factors: listOf("factors", lines.map(({ factor }) => factor)),
    addends: listOf("addends", lines.map(({ addend }) => addend)),
    result: changed.values,
  });
  const ends = stack.use(Tensor.from(context, Uint32Array.of(d_sae), [1], "prefixes"));
  using made = new DisposableStack();
  const steered_BD = made.use(new Tensor(context, "f32", [n_rows, d_model], "steered x"));
  for (const span of spans(n_rows, rowsPerBlock(context, n_rows, d_model * 4, "steered x"))) {
    const block = steered_BD.rows(span.from, span.to);
    decode(commands, sae, { codes: changed, span, prefixes: { lengths: [d_sae], ends }, x_hats: block });
    const size = (span.to - span.from) * d_model;
    scaleAndAdd(commands, { x: block, other: x_BD.rows(span.from, span.to), size, factor: input.scale });
  }
  commands.submit();
  made.move();
  return steered_BD;
}

/** f′ − f = factor · f + addend. */
interface Line {
  readonly latent: number;
  readonly factor: number;
  readonly addend: number;
}

/** By ascending latents, as codes list them. */
function linesOf(changes: readonly LatentChange[], d_sae: number): Line[] {
  if (!Array.isArray(changes)) throw new TypeError(`changes must be an array, found ${shown(changes)}`);
  if (changes.length === 0) throw new RangeError("changes must list one latent or more, found none");
  const lines = changes.map((change) => lineOf(change, d_sae)).sort((a, b) => a.latent - b.latent);
  const twice = lines.find(({ latent }, i) => latent === lines[i - 1]?.latent);
  if (twice) throw new RangeError(`changes must list each latent once, found latent ${twice.latent} twice`);
  return lines;
}

function lineOf(change: LatentChange, d_sae: number): Line {
  checkOptions("a change", change, { latent: true, set: true, scale: true, ablate: true });
  const { latent, set, scale, ablate } = change as {
    readonly latent: number;
    readonly set?: number;
    readonly scale?: number;
    readonly ablate?: true;
  };
  if (!(Number.isSafeInteger(latent) && latent >= 0 && latent < d_sae)) {
    throw new RangeError(`there is no latent ${shown(latent)}; expected an integer from 0 to ${d_sae - 1}`);
  }
  const said = [set, scale, ablate].filter((value) => value !== undefined);
  if (said.length !== 1 || (ablate !== undefined && ablate !== true)) {
    throw new TypeError(`the change of latent ${latent} must have one of set, scale and ablate: true`);
  }
  const value = set ?? scale ?? 0;
  if (!Number.isFinite(Math.fround(value))) {
    throw new RangeError(`the change of latent ${latent} must be a finite float32, found ${shown(value)}`);
  }
  return scale === undefined ? { latent, factor: -1, addend: value } : { latent, factor: scale - 1, addend: 0 };
}
