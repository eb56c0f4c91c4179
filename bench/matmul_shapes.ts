/**
 * The matrix products to measure: those of a training step with B 1024, D 768, S 6144, and a small one.
 *
 * @module
 */

import { chosenTile } from "../kernels/matmul_tiles.ts";
import { Commands, contextOf, matmul, type ProductShape, Tensor, type TileName } from "../kernels/mod.ts";
import { timeDispatches, totalMs } from "./measure.ts";

/** Encoder, dense decoder and dense gradient at the step's shape, and an encoder as small as the demo's. */
export const SHAPES: readonly ProductShape[] = [
  { layout: "nt", M: 1024, N: 6144, K: 768 },
  { layout: "nn", M: 1024, N: 768, K: 6144 },
  { layout: "tn", M: 6144, N: 768, K: 1024 },
  { layout: "nt", M: 1024, N: 1024, K: 1024 },
  { layout: "nt", M: 512, N: 512, K: 100 },
];

/** The name of a shape in benchmarks. */
export function shapeName({ layout, M, N, K }: ProductShape): string {
  return `${layout} ${M}x${N}x${K}`;
}

/** Floating-point operations of a product. */
export function flopsOf({ M, N, K }: ProductShape): number {
  return 2 * M * N * K;
}

/** A product that can be run repeatedly. */
export class Product implements Disposable {
  readonly #device: GPUDevice;
  readonly #shape: ProductShape;
  readonly #tensors: readonly Tensor[];

  /** Creates factors, whose values do not matter. */
  constructor(device: GPUDevice, shape: ProductShape) {
    const { layout, M, N, K } = shape;
    const context = contextOf(device);
    const make = (rows: number, columns: number, label: string) =>
      Tensor.from(context, new Float32Array(rows * columns).fill(0.5), [rows, columns], label);
    this.#device = device;
    this.#shape = shape;
    this.#tensors = [
      layout === "tn" ? make(K, M, "a") : make(M, K, "a"),
      layout === "nt" ? make(N, K, "b") : make(K, N, "b"),
      new Tensor(context, "f32", [M, N], "c"),
    ];
  }

  /** The tile that the device uses for it. */
  get tile(): TileName {
    return chosenTile(contextOf(this.#device), this.#shape, true);
  }

  /** Submits it `times` times. */
  run(times: number): void {
    const commands = new Commands(contextOf(this.#device));
    const [a, b, c] = this.#tensors as [Tensor, Tensor, Tensor];
    for (let i = 0; i < times; i++) matmul(commands, { ...this.#shape, a: { in: a }, b: { in: b }, c: { in: c } });
    commands.submit();
  }

  /** Runs it once and returns its time by the GPU's clock. */
  async milliseconds(): Promise<number> {
    return totalMs(await timeDispatches(contextOf(this.#device), () => this.run(1)));
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    for (const tensor of this.#tensors) tensor[Symbol.dispose]();
  }
}

/**
 * Milliseconds of each product, the fastest of `rounds` in which all take turns; one more round goes first to compile.
 */
export async function timeProducts(
  device: GPUDevice,
  shapes: readonly ProductShape[],
  rounds = 6,
): Promise<{ readonly shape: ProductShape; readonly tile: TileName; readonly ms: number }[]> {
  using stack = new DisposableStack();
  const products = shapes.map((shape) => stack.use(new Product(device, shape)));
  const fastest = shapes.map(() => Infinity);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, product] of products.entries()) {
      const ms = await product.milliseconds();
      if (round > 0) fastest[i] = Math.min(fastest[i]!, ms);
    }
  }
  return shapes.map((shape, i) => ({ shape, tile: products[i]!.tile, ms: fastest[i]! }));
}
