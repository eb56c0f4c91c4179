/**
 * The demo as it is: what it must reach, measured on its checkpoint, and that running it twice gives the same bytes.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { COMPONENTS, loadDataset, PATCH_SIZE } from "../../examples/demo/dataset.ts";
import { fitGabor } from "../../examples/demo/gabor.ts";
import { leadingComponentsNmse, unrotate, unwhiten } from "../../examples/demo/whitening.ts";
import { load } from "../../io/checkpoints/checkpoint.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { evaluate } from "../../eval/evaluate.ts";
import { batchesInOrder } from "../../data/order.ts";
import { rowsOf } from "../../data/rows.ts";

const CLI = new URL("../../cli/mod.ts", import.meta.url).href;

/** At most this share of the error that as many principal components leave. */
const NMSE_OF_PCA = 0.55;
/** At least this share of the most used features is a Gabor function with such an R². */
const GABOR = { features: 64, share: 0.6, r2: 0.5 };
/** At most this share of the latents is dead. */
const DEAD = 0.1;

/** The share of these latents' patches that are Gabor functions. */
function gaborShare(patches: Float32Array, latents: readonly number[]): number {
  const patch = (latent: number) => patches.subarray(latent * PATCH_SIZE ** 2, (latent + 1) * PATCH_SIZE ** 2);
  return latents.filter((latent) => fitGabor(patch(latent), PATCH_SIZE).r2 >= GABOR.r2).length / latents.length;
}

Deno.test("the demo finds edges, beats PCA, wastes few latents, and repeats itself bit by bit", async () => {
  const root = await Deno.makeTempDir();
  try {
    const checkpoints: Uint8Array[] = [];
    for (const run of ["first", "second"]) {
      const args = ["run", "-A", CLI, "demo", "--out", `${root}/${run}`];
      const { code, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
      assertEquals(code, 0, new TextDecoder().decode(stderr));
      checkpoints.push(await Deno.readFile(`${root}/${run}/sae.pt`));
    }
    assert(checkpoints[0]!.every((byte, i) => byte === checkpoints[1]![i]), "two runs differ");

    using sae = await load(checkpoints[0]!);
    const { heldOut, whitening } = await loadDataset();
    const { nmse, l0, density, dead_fraction } = await evaluate(sae, batchesInOrder(rowsOf(heldOut, COMPONENTS), 2048));
    const pca = leadingComponentsNmse(heldOut, COMPONENTS, Math.round(l0));
    assert(nmse <= NMSE_OF_PCA * pca, `NMSE ${nmse}, PCA ${pca}`);
    assert(dead_fraction < DEAD, `${dead_fraction} of the latents are dead`);

    const mostUsed = Array.from(density.keys()).sort((a, b) => density[b]! - density[a]!).slice(0, GABOR.features);
    const { W_dec } = await sae.readParameters();
    const [drawn, whitened] = [unwhiten, unrotate].map((back) => gaborShare(back(whitening, W_dec), mostUsed));
    assert(drawn! >= GABOR.share, `${drawn} of the most used features are Gabor functions`);
    assert(whitened! >= GABOR.share, `${whitened} of them are Gabor functions in whitened pixels`);
    using untrained = await SparseAutoencoder.create(sae.cfg);
    const before = gaborShare(unrotate(whitening, (await untrained.readParameters()).W_dec), mostUsed);
    assertEquals(before, 0, "directions that nobody learned must not pass for Gabor functions");

    const { metrics, demo } = JSON.parse(await Deno.readTextFile(`${root}/first/metrics.json`));
    assertEquals([metrics.nmse, demo.pca_nmse, metrics.l0, demo.gabor_share], [nmse, pca, l0, whitened]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
