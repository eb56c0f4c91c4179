/**
 * The peers' step in jax-js, dense because of its autodiff, on its WebGPU or its Wasm backend.
 *
 * Its `topK` sorts whole rows, which takes longer than everything else; here the k-th largest is found by bisection,
 * the fastest form we found in that library.
 *
 * @module
 */

import { defaultDevice, init, jit, lax, numpy as np, valueAndGrad } from "@jax-js/jax";
import type { ProductShape } from "../../kernels/mod.ts";
import { CONSTANTS, type PeerProblem, type PeerResult, startOf } from "./problem.ts";

type Parameters = { W_enc: np.Array; b_enc: np.Array; W_dec: np.Array; b_dec: np.Array };
const NAMES = ["W_enc", "b_enc", "W_dec", "b_dec"] as const;

/**
 * Halvings of the interval between a row's smallest and largest value. More would end at the k-th value itself, which a
 * kernel that recomputes h may miss by its last bit.
 */
const HALVINGS = 24;

/** Its backends. */
export type JaxDevice = "webgpu" | "wasm";

async function use(device: JaxDevice): Promise<void> {
  if (!(await init()).includes(device)) throw new Error(`jax-js has no ${device} here`);
  defaultDevice(device);
}

/** The product of an [M, K] and a [K, N] matrix, run repeatedly. */
export class JaxProduct implements Disposable {
  readonly #a: np.Array;
  readonly #b: np.Array;

  private constructor({ M, N, K }: ProductShape) {
    // Numbers that it generates itself would be generated again inside the product.
    const matrix = (rows: number, columns: number) =>
      np.array(Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i))).reshape([rows, columns]);
    this.#a = matrix(M, K);
    this.#b = matrix(K, N);
  }

  /** Compiles it; until the next is created, everything of that library is on this device. */
  static async create(device: JaxDevice, shape: ProductShape): Promise<JaxProduct> {
    await use(device);
    const product = new JaxProduct(shape);
    await product.milliseconds();
    return product;
  }

  /** The time of one run. */
  async milliseconds(): Promise<number> {
    const began = performance.now();
    const c = np.matmul(this.#a.ref, this.#b.ref);
    await c.ref.blockUntilReady();
    const milliseconds = performance.now() - began;
    c.dispose();
    return milliseconds;
  }

  [Symbol.dispose](): void {
    this.#a.dispose();
    this.#b.dispose();
  }
}

/** Takes the compared steps, then `samples` more; all except the first, which compiles, are timed. */
export async function jaxJs(device: JaxDevice, problem: PeerProblem, samples: number): Promise<PeerResult> {
  const { B, D, S, n_dead, lr, n_compared } = problem;
  await use(device);
  const start = startOf(problem);
  const matrix = (values: Float32Array, rows: number) =>
    np.array(values as Float32Array<ArrayBuffer>).reshape([rows, values.length / rows]);
  const x = matrix(start.x, B);
  const dead = np.array(Float32Array.from({ length: S }, (_, s) => Number(s >= S - n_dead)));
  const { W_enc, b_enc, W_dec, b_dec } = start.parameters;
  let parameters: Parameters = {
    W_enc: matrix(W_enc, D),
    b_enc: matrix(b_enc, 1),
    W_dec: matrix(W_dec, S),
    b_dec: matrix(b_dec, 1),
  };
  const zeros = (): Parameters => ({
    W_enc: np.zeros([D, S]),
    b_enc: np.zeros([1, S]),
    W_dec: np.zeros([S, D]),
    b_dec: np.zeros([1, D]),
  });
  let [moment1, moment2] = [zeros(), zeros()];
  const step = jit(stepOf(problem));
  const losses: number[] = [];
  let milliseconds = Infinity;
  for (let t = 1; t <= n_compared + samples; t++) {
    const began = performance.now();
    const rate = np.array(t === 1 ? 0 : lr / (1 - CONSTANTS.beta1 ** t));
    const correction = np.array(Math.sqrt(1 - CONSTANTS.beta2 ** t));
    const after = step(parameters, moment1, moment2, x.ref, dead.ref, rate, correction);
    ({ parameters, moment1, moment2 } = after);
    const [loss] = await after.loss.data();
    await Promise.all(NAMES.map((name) => parameters[name].ref.blockUntilReady()));
    if (t <= n_compared) losses.push(loss!);
    if (t > 1) milliseconds = Math.min(milliseconds, performance.now() - began);
  }
  for (const tree of [parameters, moment1, moment2]) for (const name of NAMES) tree[name].dispose();
  x.dispose();
  dead.dispose();
  return { losses, milliseconds };
}

/** Σ a², first row by row: its Wasm backend adds one number at a time, which loses four digits over a whole matrix. */
const sumOfSquares = (a: np.Array) => np.sum(np.sum(np.square(a), 1));

type Stepped = { loss: np.Array; parameters: Parameters; moment1: Parameters; moment2: Parameters };

/** Every function of that library consumes its arguments: `ref` keeps one for later. */
function stepOf({ B, D, k, alpha }: PeerProblem) {
  const kthLargest = (h: np.Array) => {
    let least = np.min(h.ref, 1, { keepdims: true });
    let above = np.max(h.ref, 1, { keepdims: true }).add(1);
    for (let i = 0; i < HALVINGS; i++) {
      const middle = least.ref.add(above.ref).mul(0.5);
      const count = np.sum(np.where(np.greaterEqual(h.ref, middle.ref), 1, 0), 1, { keepdims: true });
      const enough = np.greaterEqual(count, k);
      least = np.where(enough.ref, middle.ref, least);
      above = np.where(enough, above, middle);
    }
    h.dispose();
    above.dispose();
    return least;
  };
  const loss = ({ W_enc, b_enc, W_dec, b_dec }: Parameters, x: np.Array, dead: np.Array) => {
    const h = np.matmul(x.ref, W_enc).add(b_enc);
    const constant = lax.stopGradient(h.ref);
    const kept = np.greaterEqual(constant.ref, kthLargest(constant));
    const f = np.where(kept, h.ref, 0);
    const error = x.sub(np.matmul(f, W_dec.ref).add(b_dec));
    const residual = lax.stopGradient(error.ref);
    const auxiliary = residual.sub(np.matmul(h.mul(dead), W_dec));
    const mse = sumOfSquares(error).mul(1 / (B * D));
    return mse.add(sumOfSquares(auxiliary).mul(alpha / (B * D)));
  };
  return (
    given: Parameters,
    moment1: Parameters,
    moment2: Parameters,
    x: np.Array,
    dead: np.Array,
    rate: np.Array,
    correction: np.Array,
  ): Stepped => {
    const { beta1, beta2, eps, grad_clip, clipEps } = CONSTANTS;
    const norms = np.sqrt(np.sum(np.square(given.W_dec.ref), 1, { keepdims: true }));
    const unit = { ...given, W_dec: given.W_dec.div(norms) };
    const kept: Parameters = {
      W_enc: unit.W_enc.ref,
      b_enc: unit.b_enc.ref,
      W_dec: unit.W_dec.ref,
      b_dec: unit.b_dec.ref,
    };
    const [value, found] = valueAndGrad(loss)(unit, x, dead) as unknown as [np.Array, Parameters];
    const along = np.sum(found.W_dec.ref.mul(kept.W_dec.ref), 1, { keepdims: true });
    const length = np.sum(np.square(kept.W_dec.ref), 1, { keepdims: true });
    const grads = { ...found, W_dec: found.W_dec.sub(along.div(length).mul(kept.W_dec.ref)) };
    const squares = NAMES.map((name) => sumOfSquares(grads[name].ref)).reduce((a, b) => a.add(b));
    const factor = np.minimum(np.reciprocal(np.sqrt(squares).add(clipEps)).mul(grad_clip), 1);
    const after: Stepped = { loss: value, parameters: { ...kept }, moment1: { ...kept }, moment2: { ...kept } };
    for (const name of NAMES) {
      const grad = grads[name].mul(factor.ref);
      const m = moment1[name].mul(beta1).add(grad.ref.mul(1 - beta1));
      const v = moment2[name].mul(beta2).add(np.square(grad).mul(1 - beta2));
      const divisor = np.sqrt(v.ref).div(correction.ref).add(eps);
      after.parameters[name] = kept[name].sub(m.ref.div(divisor).mul(rate.ref));
      after.moment1[name] = m;
      after.moment2[name] = v;
    }
    factor.dispose();
    rate.dispose();
    correction.dispose();
    return after;
  };
}
