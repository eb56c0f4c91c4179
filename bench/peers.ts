/**
 * The same training step by this library, by jax-js and by PyTorch. Losses must agree before any time is shown.
 *
 *     deno run -A bench/peers.ts [--python PYTHON] [--json]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { flopsOf, Product } from "./matmul_shapes.ts";
import { best, type Row, table, timedDevice } from "./measure.ts";
import { jaxJs, jaxProduct } from "./peers/jax.ts";
import { ours } from "./peers/ours.ts";
import { type PeerProblem, type PeerResult, PROBLEM } from "./peers/problem.ts";
import { pytorch } from "./peers/torch.ts";

/** How far a peer's loss may be from ours, relatively. */
const TOLERANCE = 1e-5;

/**
 * One row a peer.
 *
 * @throws {Error} if a peer's losses are not ours: then it did not take the same step.
 */
export async function peers(device: GPUDevice, { python, problem = PROBLEM }: {
  readonly python: string;
  readonly problem?: PeerProblem;
}): Promise<Row[]> {
  const own = await ours(device, problem);
  const rows: Row[] = [];
  const add = (peer: string, { losses, milliseconds }: PeerResult) => {
    losses.forEach((loss, step) => {
      const error = Math.abs(loss / own.losses[step]! - 1);
      if (!(error <= TOLERANCE)) {
        throw new Error(`${peer}: the loss of step ${step} is ${loss}, ours is ${own.losses[step]}`);
      }
    });
    rows.push({
      peer,
      "ms a step": milliseconds,
      "ours / this": own.milliseconds / milliseconds,
      "loss": losses.at(-1)!.toPrecision(9),
      "n_dead": problem.n_dead,
    });
  };
  add("@saev/nn", own);
  // Its WebGPU step takes so long that the compared steps are enough to time it.
  add("jax-js, WebGPU", await jaxJs("webgpu", problem, 0));
  add("jax-js, Wasm", await jaxJs("wasm", problem, 3));
  const torch = await pytorch(python, problem);
  if (torch) add(`PyTorch ${torch.version}, CPU`, torch);
  return rows;
}

/** The encoder product of that step alone: ours by the GPU's clock, the others' by the wall's, which costs them some 11 ms. */
export async function productPeers(device: GPUDevice, { B, D, S }: PeerProblem = PROBLEM): Promise<Row[]> {
  const shape = { layout: "nt", M: B, N: S, K: D } as const;
  using product = new Product(device, shape);
  const own = flopsOf(shape) / await best(device, 3, () => product.run(1)) / 1e6;
  const row = (engine: string, gflops: number) => ({ engine, "GFLOP/s": gflops, "ours / this": own / gflops });
  return [
    row("@saev/nn", own),
    row("jax-js, WebGPU", await jaxProduct("webgpu", shape)),
    row("jax-js, Wasm", await jaxProduct("wasm", shape)),
  ];
}

if (import.meta.main) {
  const args = parseArgs(Deno.args, { string: ["python", "_"], boolean: ["json"] });
  const device = await timedDevice();
  const products = await productPeers(device);
  if (!args.json) console.log(`${table(products)}\n`);
  const rows = await peers(device, { python: String(args.python ?? "python3") });
  console.log(args.json ? JSON.stringify({ products, steps: rows }) : table(rows));
  Deno.exit();
}
