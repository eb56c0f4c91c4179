/**
 * The cost or gain of f16 weights: the products that read them, compared with float32.
 *
 * @module
 */

import { contextOf } from "../kernels/mod.ts";
import { SparseAutoencoder } from "../mod.ts";
import { type Row, timeDispatches } from "./measure.ts";

const [D, S, k] = [768, 6144, 32];
/** Many rows, limited by arithmetic, and few, limited by reading the weights. */
const BATCHES = [1024, 16];

/** The kernels that read a weight, by purpose. */
const PRODUCTS = { "encoder": "matmul_nt", "decoder": "spmm" };

/** Milliseconds of each product, the fastest of `rounds` taken in turn, so that drifts affect both alike. */
export async function timeF16(device: GPUDevice, rounds = 5): Promise<Row[]> {
  using stack = new DisposableStack();
  const cfg = { d_model: D, d_sae: S, activation: { key: "top-k", top_k: k } } as const;
  const floats = stack.use(await SparseAutoencoder.create(cfg, { device }));
  const parameters = await floats.readParameters();
  const packed = stack.use(await SparseAutoencoder.fromParameters(cfg, parameters, { device, weights: "f16" }));
  const rows: Row[] = [];
  for (const B of BATCHES) {
    const x = Float32Array.from({ length: B * D }, (_, i) => Math.sin(i * 12.9898) * 2);
    const least = { floats: new Map<string, number>(), f16: new Map<string, number>() };
    for (let round = 0; round <= rounds; round++) {
      for (const [sae, times] of [[floats, least.floats], [packed, least.f16]] as const) {
        const found = await timeDispatches(contextOf(device), () => sae.forward(x)[Symbol.dispose]());
        // The first round compiles.
        if (round > 0) {
          for (const [name, { ms }] of found.known) times.set(name, Math.min(ms, times.get(name) ?? Infinity));
        }
      }
    }
    for (const [what, kernel] of Object.entries(PRODUCTS)) {
      const [f32, f16] = [least.floats.get(kernel)!, least.f16.get(kernel)!];
      rows.push({ weights: `${what}, ${B} rows`, "f32 ms": f32, "f16 ms": f16, "f16 / f32": f16 / f32 });
    }
  }
  return rows;
}
