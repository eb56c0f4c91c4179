/**
 * The same training step by this library, by jax-js and by PyTorch. Losses must agree before any time is shown.
 *
 *     deno run -A bench/peers.ts [--python PYTHON] [--json]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { flopsOf, Product } from "./matmul_shapes.ts";
import { type Row, table, timedDevice } from "./measure.ts";
import { jaxJs, JaxProduct } from "./peers/jax.ts";
import { ours } from "./peers/ours.ts";
import { type PeerProblem, type PeerResult, PROBLEM } from "./peers/problem.ts";
import { pytorch, torchVersion } from "./peers/torch.ts";

/** Largest relative difference between a peer's loss and ours. */
const TOLERANCE = 1e-5;

/**
 * One row per peer.
 *
 * @throws {Error} if a peer's losses differ from ours: then it did not take the same step.
 */
export async function peers(device: GPUDevice, { python, problem = PROBLEM }: {
  readonly python: string;
  readonly problem?: PeerProblem;
}): Promise<Row[]> {
  await using own = await ours(device, problem);
  const rows: Row[] = [];
  const row = (peer: string, milliseconds: number, ratio: number, losses: readonly number[]): Row => ({
    peer,
    "ms a step": milliseconds,
    "ours / this": ratio,
    "loss": losses.at(-1)!.toPrecision(9),
    "n_dead": problem.n_dead,
  });
  // Ours are timed right before and right after a peer's, so that other load affects both alike.
  const samples: number[] = [];
  const sample = async () => void samples.push(await own.milliseconds());
  const compare = async (name: string, take: () => Promise<PeerResult>) => {
    await sample();
    const { losses, milliseconds } = await take();
    await sample();
    losses.forEach((loss, step) => {
      const error = Math.abs(loss / own.losses[step]! - 1);
      if (!(error <= TOLERANCE)) {
        throw new Error(`${name}: the loss of step ${step} is ${loss}, ours is ${own.losses[step]}`);
      }
    });
    rows.push(row(name, milliseconds, Math.min(...samples.slice(-2)) / milliseconds, losses));
  };
  // Its WebGPU step takes so long that the compared steps suffice to time it.
  await compare("jax-js, WebGPU", () => jaxJs("webgpu", problem, 0));
  await compare("jax-js, Wasm", () => jaxJs("wasm", problem, 3));
  const torch = await torchVersion(python);
  if (torch !== undefined) await compare(`PyTorch ${torch}, CPU`, () => pytorch(python, problem));
  return [row("@saev/nn", Math.min(...samples), 1, own.losses), ...rows];
}

/** How often each product is timed, in turn with ours: jax-js in WebGPU takes ten seconds. */
const ROUNDS = { webgpu: 3, wasm: 15 };

/**
 * The encoder product of that step alone: ours by the GPU's clock, the others' by wall clock, which adds some 11 ms.
 */
export async function productPeers(device: GPUDevice, { B, D, S }: PeerProblem = PROBLEM): Promise<Row[]> {
  const shape = { layout: "nt", M: B, N: S, K: D } as const;
  const flops = flopsOf(shape);
  using own = new Product(device, shape);
  // The first one compiles.
  await own.milliseconds();
  const rows: Row[] = [];
  let fastest = Infinity;
  for (const [engine, jaxDevice] of [["jax-js, WebGPU", "webgpu"], ["jax-js, Wasm", "wasm"]] as const) {
    using product = await JaxProduct.create(jaxDevice, shape);
    let [ours, theirs] = [Infinity, Infinity];
    for (let round = 0; round < ROUNDS[jaxDevice]; round++) {
      ours = Math.min(ours, await own.milliseconds());
      theirs = Math.min(theirs, await product.milliseconds());
    }
    fastest = Math.min(fastest, ours);
    rows.push({ engine, "GFLOP/s": flops / theirs / 1e6, "ours / this": theirs / ours });
  }
  return [{ engine: "@saev/nn", "GFLOP/s": flops / fastest / 1e6, "ours / this": 1 }, ...rows];
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
