/**
 * Codes of selecting activations in a training step: sparse rows from the start, since their number is known in
 * advance.
 *
 * @module
 */

import { positiveMask } from "../kernels/elementwise.ts";
import type { Commands } from "../kernels/engine/commands.ts";
import type { Selector } from "./activations/activation.ts";
import { type Codes, EntryBuffers } from "./codes.ts";
import type { AffineMaps, Tile } from "./encode.ts";
import type { StepCodes } from "./step_codes.ts";

/** Selected codes, and what their backward pass needs. */
export class SelectedCodes implements StepCodes {
  readonly entries: EntryBuffers;
  readonly dense = undefined;
  readonly preActs = undefined;
  readonly gate = undefined;
  readonly #selector: Selector;
  readonly #tile: Tile;

  /** Takes over `codes`, which `selector` fills. */
  constructor(
    { context }: AffineMaps,
    given: { readonly selector: Selector; readonly codes: Codes; readonly tile: Tile; readonly training: boolean },
  ) {
    const { selector, codes, tile, training } = given;
    this.entries = new EntryBuffers(context, codes, "f_x", { training });
    this.#selector = selector;
    this.#tile = tile;
  }

  encode(commands: Commands, _: AffineMaps, { input, k, estimate }: Parameters<StepCodes["encode"]>[2]): void {
    this.#selector.select(commands, { input, tile: this.#tile, codes: this.entries.codes, k, estimate });
  }

  /** f is already computed. */
  finishEntries(): void {}

  entriesBackward(commands: Commands): void {
    if (this.#selector.keepsNegatives) return;
    const { codes: { values: at }, grad_values: grad } = this.entries;
    positiveMask(commands, { grad, at, size: at.size });
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.entries[Symbol.dispose]();
  }
}
