/**
 * Trains a model of each activation for twelve steps and prints the SHA-256 of its losses and parameters as JSON, once for
 * each way to compute: `deno run tools/gpu/train_bits.ts [--dawn] WAYS`, each as `32` lanes or `8-textures`.
 *
 * @module
 */

import { DeviceContext, requestDevice } from "../../kernels/engine/device.ts";
import { type ActivationOptions, ACTIVATIONS } from "../../nn/activations/mod.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { getObjective, type ObjectiveOptions } from "../../objectives/objective.ts";
import { train } from "../../train/mod.ts";
import { useDawn } from "./dawn.ts";

/** What one way of computing gives. */
export interface Bits {
  /** The compiler, the lanes, and whether values come from textures. */
  readonly way: string;
  /** SHA-256 by activation. */
  readonly hashes: Readonly<Record<string, string>>;
}

const [B, D, S, N_STEPS] = [64, 64, 256, 12];

const OBJECTIVES: readonly ObjectiveOptions[] = [
  { key: "vanilla", dead_threshold_tokens: 4 * B },
  { key: "matryoshka", n_prefixes: 3, dead_threshold_tokens: 4 * B },
];

/** Numbers without a pattern, as every platform computes them. */
function batch(step: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: B * D }, (_, i) => ((i * 7919 + step * 104729) % 1009) / 504.5 - 1);
}

async function hashOf(device: GPUDevice, activation: ActivationOptions, objective: ObjectiveOptions): Promise<string> {
  using sae = await SparseAutoencoder.create({ d_model: D, d_sae: S, activation }, { device, seed: 3 });
  const options = { lr: 1e-2, n_lr_warmup: 0, log_every: N_STEPS };
  const batches = Array.from({ length: N_STEPS }, (_, step) => batch(step));
  const numbers: Float32Array[] = [];
  for await (const { losses } of train(sae, getObjective(objective), batches, options)) {
    numbers.push(Float32Array.from(losses.flatMap((loss) => Object.values(loss))));
  }
  numbers.push(...Object.values(await sae.readParameters()));
  const bytes = new Uint8Array(await new Blob(numbers.map(({ buffer }) => buffer as ArrayBuffer)).arrayBuffer());
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

const isDawn = Deno.args.includes("--dawn");
if (isDawn) await useDawn();
const found: Bits[] = [];
for (const wanted of Deno.args.filter((arg) => arg !== "--dawn")) {
  const [lanes, textures] = wanted.split("-");
  const device = await requestDevice();
  const context = new DeviceContext(device, {
    lanes: Number(lanes),
    textureCopyBytes: textures === undefined ? Infinity : 16,
  });
  const hashes: Record<string, string> = {};
  for (const [at, key] of Object.keys(ACTIVATIONS).entries()) {
    const { fields } = ACTIVATIONS[key as keyof typeof ACTIVATIONS];
    const activation = { key, ...("top_k" in fields && { top_k: 8 }) } as ActivationOptions;
    hashes[key] = await hashOf(device, activation, OBJECTIVES[at % OBJECTIVES.length]!);
  }
  const subgroups = context.subgroups === undefined ? "" : " in subgroups";
  found.push({ way: `${isDawn ? "Tint" : "naga"}, ${lanes} lanes${subgroups}, ${textures ?? "buffers"}`, hashes });
  device.destroy();
}
console.log(JSON.stringify(found));
Deno.exit(0);
