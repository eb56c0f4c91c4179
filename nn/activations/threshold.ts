/**
 * `f = h · 1[h > max(θ, 0)]`: BatchTopK and JumpReLU outside training, with one θ or one for each latent.
 *
 * @module
 */

import { aboveThreshold } from "../../kernels/elementwise.ts";
import type { Commands } from "../../kernels/engine/commands.ts";
import { appendCodes } from "../codes.ts";
import { type AffineMaps, eachTile } from "../encode.ts";
import type { Encoding } from "./activation.ts";

/** f_x of the whole batch. */
export function encodeAboveThreshold(
  commands: Commands,
  model: AffineMaps,
  { input, tile, codes }: Encoding,
): void {
  const { threshold, cfg: { d_sae } } = model;
  eachTile(commands, model, { input, tile, n_rows: codes.n_rows }, (h, span) => {
    const size = (span.to - span.from) * d_sae;
    aboveThreshold(commands, { x: h, size, threshold, thresholds: threshold.size });
    appendCodes(commands, codes, h, span);
  });
}
