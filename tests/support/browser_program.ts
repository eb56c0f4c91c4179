/**
 * A small training run on the public API, without `Deno`: the same program for Deno and for a browser.
 *
 * @module
 */
import { Commands, type DeviceContext, fill, Tensor } from "../../kernels/mod.ts";
import { type ActivationOptions, dump, getObjective, load, SparseAutoencoder } from "../../mod.ts";
import { evaluate, measureCoherence } from "../../eval/mod.ts";
import { train, trainMany } from "../../train/mod.ts";

/** The results of the run, as plain numbers that can leave a page. */
export interface BrowserRun {
  /** The initial W_enc, W_dec, b_enc and b_dec, as the bits of their f32. */
  readonly initialBits: readonly number[][];
  /** The loss of every step. */
  readonly losses: readonly number[];
  /** The losses of every step of the other activations, with penalties, and with latents that die during training. */
  readonly otherLosses: readonly (readonly number[])[];
  /** Whether the model has the same losses when another model trains with it. */
  readonly isSameTogether: boolean;
  /** The rows of W_dec after the run. */
  readonly W_dec: readonly number[];
  /** Explained variance, cosine and monosemanticity on the last batch, and the dictionary's coherence. */
  readonly metrics: readonly number[];
  /** The results of two conditional runs on the GPU: one is executed, the other is not. */
  readonly conditional: readonly number[];
  /** Whether a file written to bytes and read again holds the same W_dec. */
  readonly isRoundTrip: boolean;
  /** Whether f16 weights give the reconstructions of float32 weights with their values. */
  readonly isF16Exact: boolean;
}

const D = 6;
const N_STEPS = 8;

/** A batch without pattern that needs no random numbers. */
function batch(step: number): Float32Array {
  return Float32Array.from({ length: 24 * D }, (_, i) => ((i * 7919 + step * 104729) % 1009) / 504.5 - 1);
}

const OTHERS: readonly ActivationOptions[] = [
  { key: "relu", sparsity: { key: "tanh-sparsity", coeff: 0.1, scale: 1 } },
  { key: "relu", sparsity: { key: "l1-sparsity", coeff: 0.1 } },
  { key: "batch-top-k", top_k: 3 },
  { key: "jump-relu", threshold_init: 0.2, aux: { key: "auxk", k_aux: 4 } },
  { key: "jump-relu", threshold_init: 0.2, aux: { key: "pre-act" } },
  { key: "gated" },
];

const LOOP = { log_every: 4 } as const;
const OPTIONS = { lr: 1e-2, n_lr_warmup: 0 } as const;

function model(seed: number): Promise<SparseAutoencoder> {
  return SparseAutoencoder.create({ d_model: D, d_sae: 20, activation: { key: "top-k", top_k: 3 } }, { seed });
}

async function otherLosses(activation: ActivationOptions): Promise<number[]> {
  using sae = await SparseAutoencoder.create({ d_model: D, d_sae: 20, activation }, { seed: 7 });
  const losses: number[] = [];
  const batches = Array.from({ length: N_STEPS }, (_, step) => batch(step));
  const objective = getObjective({ key: "matryoshka", n_prefixes: 2, dead_threshold_tokens: 30 });
  for await (const report of train(sae, objective, batches, { ...OPTIONS, ...LOOP })) {
    losses.push(...report.losses.map(({ loss }) => loss));
  }
  return losses;
}

/** Trains, writes, reads. */
export async function run(): Promise<BrowserRun> {
  using sae = await model(5);
  const initial = await sae.readParameters();
  const bits = (array: Float32Array): number[] => [...new Uint32Array(array.buffer, array.byteOffset, array.length)];
  const losses: number[] = [];
  const batches = Array.from({ length: N_STEPS }, (_, step) => batch(step));
  const objective = getObjective({ key: "matryoshka", n_prefixes: 3 });
  for await (const report of train(sae, objective, batches, { ...OPTIONS, ...LOOP })) {
    losses.push(...report.losses.map(({ loss }) => loss));
  }
  using same = await model(5);
  using other = await model(6);
  const trainings = [other, same].map((sae) => ({ sae, objective, options: OPTIONS }));
  const lossesTogether: number[] = [];
  for await (const [, report] of trainMany(trainings, batches, LOOP)) {
    lossesTogether.push(...report!.losses.map(({ loss }) => loss));
  }
  const { W_dec } = await sae.readParameters();
  const { explained_variance: explained, cosine, monosemanticity } = await evaluate(sae, batches.slice(-1), {
    monosemanticity: true,
  });
  const coherence = await measureCoherence(sae);
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  const sink = {
    write(piece: Uint8Array): number {
      pieces.push(piece.slice());
      return piece.length;
    },
  };
  await dump(sink, sae);
  using again = await load(new Blob(pieces));
  const read = (await again.readParameters()).W_dec;
  return {
    initialBits: [initial.W_enc, initial.W_dec, initial.b_enc, initial.b_dec].map(bits),
    losses,
    otherLosses: await Promise.all(OTHERS.map(otherLosses)),
    isSameTogether: String(lossesTogether) === String(losses),
    W_dec: [...W_dec],
    metrics: [explained, cosine, monosemanticity.mean, coherence.max, coherence.mean_max],
    conditional: await conditional(sae.context),
    isRoundTrip: W_dec.every((value, i) => Object.is(value, read[i])),
    isF16Exact: await isF16Exact(new Blob(pieces)),
  };
}

/** The latents of a checkpoint at an address, which may be relative to the page's. */
export async function latentsAt(address: string): Promise<number> {
  using sae = await load(address);
  return sae.cfg.d_sae;
}

async function isF16Exact(file: Blob): Promise<boolean> {
  using f16 = await load(file, { weights: "f16" });
  using floats = await SparseAutoencoder.fromParameters(f16.cfg, await f16.readParameters());
  const x_hats = [];
  for (const sae of [f16, floats]) {
    using out = sae.forward(batch(0));
    x_hats.push(await out.x_hat.read());
  }
  return String(x_hats[0]) === String(x_hats[1]);
}

async function conditional(context: DeviceContext): Promise<number[]> {
  const commands = new Commands(context);
  using found = new Tensor(context, "u32", [1], "found");
  using results = new Tensor(context, "u32", [1], "results");
  const numbers: number[] = [];
  for (const condition of [1, 0]) {
    fill(commands, found, 1, condition);
    fill(commands, results, 1, 5);
    commands.onlyIf(found, () => fill(commands, results, 1, 7));
    commands.submit();
    numbers.push(...await results.read());
  }
  return numbers;
}
