/**
 * The folder of one run: its configuration, checkpoint, what training goes on from, metrics and report. Every file is replaced at once or not at all.
 *
 * @module
 */

import { dump, type Dumpable } from "../io/checkpoints/checkpoint.ts";
import { canSay } from "../io/checkpoints/saev.ts";
import { writeBytes } from "../io/files.ts";
import { typedArraysAsArrays } from "../eval/metrics.ts";
import { openTraining, type SavedTraining, saveTraining, type TrainingToSave } from "../train/training_file.ts";

const TRAINING = "training.safetensors";

/** The files of a run. */
export class RunDirectory {
  /** Where it is. */
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /**
   * Makes the folder, and those above it.
   *
   * @throws {RangeError} if it holds a checkpoint already and `overwrite` is not set.
   */
  static async create(
    path: string,
    { overwrite = false }: { readonly overwrite?: boolean } = {},
  ): Promise<RunDirectory> {
    await Deno.mkdir(path, { recursive: true });
    const directory = new RunDirectory(path);
    if (!overwrite && await directory.#has("sae.pt")) {
      throw new RangeError(`${path} holds a run already; choose another folder, or say that it may be overwritten`);
    }
    return directory;
  }

  /** Writes `sae.pt`, as Python reads it, or in our own schema where Python has no such function. */
  async writeCheckpoint(sae: Dumpable): Promise<void> {
    await dump(this.#file("sae.pt"), sae, canSay(5, sae) ? {} : { schema: "saev_nn" });
  }

  /** Writes `training.safetensors`, from which {@link RunDirectory.openTraining} goes on. */
  async writeTraining(training: TrainingToSave): Promise<void> {
    await saveTraining(this.#file(TRAINING), training);
  }

  /**
   * What training goes on from; `undefined` if there is no such file.
   *
   * @throws {CheckpointError} if it is damaged.
   */
  async openTraining(): Promise<SavedTraining | undefined> {
    return await this.#has(TRAINING) ? await openTraining(this.#file(TRAINING)) : undefined;
  }

  /** Writes a file of text or bytes. */
  async write(name: string, content: string | Uint8Array): Promise<void> {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    await writeBytes(this.#file(name), [bytes]);
  }

  /** Writes a file of JSON; typed arrays go in as arrays, and what is not finite as `null`. */
  async writeJson(name: string, value: unknown): Promise<void> {
    await this.write(name, `${JSON.stringify(value, typedArraysAsArrays, 2)}\n`);
  }

  #file(name: string): string {
    return `${this.path}/${name}`;
  }

  async #has(name: string): Promise<boolean> {
    try {
      await Deno.stat(this.#file(name));
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  }
}
