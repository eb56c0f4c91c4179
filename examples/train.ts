/**
 * The demo as a user's own script: photographs → whitened patches → TopK autoencoder → checkpoint.
 *
 * Run it with `deno run -A examples/train.ts [steps]`. Everything except the patches comes from the public API.
 *
 * @module
 */
import { dump, getObjective, SparseAutoencoder } from "@saev/nn";
import { rowsOf } from "@saev/nn/data";
import { evaluate } from "@saev/nn/eval";
import { train } from "@saev/nn/train";
import { loadDataset } from "./demo/dataset.ts";

const n_steps = Number(Deno.args[0] ?? 600);
const { training, heldOut, whitening } = await loadDataset();
const d_model = whitening.d_out;

using sae = await SparseAutoencoder.create({ d_model, d_sae: 256, activation: { key: "top-k", top_k: 10 } });
const objective = getObjective({ key: "vanilla" });
const options = { batch_size: 1024, n_steps, lr: 1e-2, n_lr_warmup: 50 };
for await (const { step, losses } of train(sae, objective, rowsOf(training, d_model), options)) {
  console.log(`step ${step}: mse ${losses.at(-1)!.mse.toFixed(4)}`);
}

const { nmse, l0, n_dead } = await evaluate(sae, rowsOf(heldOut, d_model));
console.log(`held-out photographs: NMSE ${nmse.toFixed(3)} with ${l0.toFixed(1)} active latents, ${n_dead} dead`);
await dump("runs/example/sae.pt", sae);
