/**
 * Which tile a device multiplies fastest with, found by measuring, and remembered where the caller says.
 *
 * Every tile gives the same bits, so that a choice changes nothing but time. Nobody has to measure: there are defaults.
 *
 * @module
 */

import { checkOptions } from "./options.ts";
import { Commands } from "./commands.ts";
import { contextOf, type DeviceContext } from "./device.ts";
import { DeviceError, KernelError } from "./errors.ts";
import { matmul } from "../matmul.ts";
import {
  candidates,
  defaultTile,
  type Layout,
  type ProductClass,
  productClass,
  type ProductShape,
  type TileName,
  TILES,
} from "../matmul_tiles.ts";
import { RandomStream, STREAMS } from "../random.ts";
import { checkDevice } from "./self_check.ts";
import { Tensor } from "./tensor.ts";

/** Where choices are remembered: a file, a browser's storage, a `Map`. */
export interface TunerStore {
  /** What was set under a key. */
  get(key: string): Promise<string | undefined> | string | undefined;
  /** Remembers a value under a key. */
  set(key: string, value: string): unknown;
}

/** How to measure. */
export interface TuneOptions {
  /** Remembers the choices; without it they last as long as the device. */
  readonly store?: TunerStore;
  /** What to measure; of each class the first. */
  readonly shapes: readonly ProductShape[];
  /** Seconds that measuring a class may take, but for the candidate at work; 60 if left out. */
  readonly budget?: number;
  /** Ends it after the measurement under way; the classes that are done keep their choices. */
  readonly signal?: AbortSignal;
  /** Milliseconds until the GPU has done what `run` submits; by the CPU's clock if left out. */
  readonly time?: (run: () => void, tile: TileName) => Promise<number>;
}

/** What became of a candidate. */
export interface MeasuredTile {
  /** Which. */
  readonly tile: TileName;
  /** `timed` to the end, `slower` and given up early, `wrong`, `refused` by the device, or `untried` for want of time. */
  readonly state: "timed" | "slower" | "wrong" | "refused" | "untried";
  /** GFLOP/s in the best of its samples, where there is one. */
  readonly gflops: number | null;
  /** Milliseconds to its first result, compilation included, where it was tried. */
  readonly compileMs: number | null;
}

/** The choice for one class of products. */
export interface Tuning {
  /** The class. */
  readonly class: ProductClass;
  /** What was measured for it. */
  readonly shape: ProductShape;
  /** The tile that is used from now on. */
  readonly chosen: TileName;
  /** The tile that would be used without measuring. */
  readonly default: TileName;
  /** All candidates. */
  readonly tiles: readonly MeasuredTile[];
}

/** Raised with every change of the generator that may change which tile is fastest. */
const GENERATOR = 2;

/** Samples of each candidate that is not given up. */
const ROUNDS = 3;
/** Products in a sample at most. */
const MAX_TIMES = 200;
/** Milliseconds of a sample, so that waiting for its end, some 11 ms in Deno, hardly counts. */
const SAMPLE = 250;
/** A candidate this many times slower than the best is given up. */
const SLOWER = 1.25;
/** How much faster than the default a tile must be to replace it. */
const GAIN = 0.97;
/** Milliseconds to compile after which no larger tile of the kind is tried. */
const COMPILE = 6000;

/** Under which key a store keeps the choice for a class: that of this adapter, driver and version of the generator. */
function keyOf({ device }: DeviceContext, of: ProductClass): string {
  const { vendor = "", architecture = "", device: model = "", description = "" } = device.adapterInfo ?? {};
  return JSON.stringify(["matmul", GENERATOR, vendor, architecture, model, description, of]);
}

const LAYOUTS = ["nn", "nt", "tn"] as const;
const SIZES = ["few rows", "few columns", "small", "large"] as const;

/**
 * Uses what a store remembers for this device, without measuring anything; returns how many classes have a choice. What is
 * no tile of this version, or cannot be used here, is as if it were not there.
 *
 * @throws {DeviceError} if the device computes nonsense.
 */
export async function restoreTuning(device: GPUDevice, store: TunerStore): Promise<number> {
  await checkDevice(device);
  const context = contextOf(device);
  let found = 0;
  for (const layout of LAYOUTS) {
    for (const size of SIZES) {
      const of: ProductClass = `${layout}, ${size}`;
      const stored = await store.get(keyOf(context, of));
      const tile = candidates(context, of).find((name) => name === stored);
      if (tile === undefined) continue;
      context.tuned.set(of, tile);
      found++;
    }
  }
  return found;
}

/**
 * Measures the tiles for the classes of some shapes on this device, uses the fastest from now on, and remembers it.
 *
 * A candidate first has to compute a small product rightly and with the default's bits. Samples of all candidates are
 * interleaved; who falls behind is given up. The default stays unless another is faster by three parts in a hundred.
 *
 * ```ts
 * import { requestDevice, restoreTuning, tune } from "@saev/nn/kernels";
 *
 * const device = await requestDevice();
 * const store = new Map<string, string>();
 * const [found] = await tune(device, { store, shapes: [{ layout: "nt", M: 64, N: 64, K: 32 }], budget: 0 });
 * console.log(found!.class, found!.chosen, await restoreTuning(device, store));
 * device.destroy();
 * ```
 *
 * @throws {DeviceError} if the device computes nonsense.
 * @throws {KernelError} if it refuses the default.
 * @throws {unknown} the signal's reason, once it is aborted.
 * @throws {TypeError} for an option that there is not.
 */
export async function tune(device: GPUDevice, options: TuneOptions): Promise<Tuning[]> {
  checkOptions("tune", options, { store: true, shapes: true, budget: true, signal: true, time: true });
  const { store, shapes, budget = 60, signal, time = wallClock(device) } = options;
  await checkDevice(device);
  const context = contextOf(device);
  const byClass = new Map<ProductClass, ProductShape>();
  for (const shape of shapes) {
    const of = productClass(shape);
    if (!byClass.has(of)) byClass.set(of, shape);
  }
  const tunings: Tuning[] = [];
  for (const shape of byClass.values()) {
    const tuning = await tuneClass(context, shape, { end: performance.now() + 1000 * budget, signal, time });
    context.tuned.set(tuning.class, tuning.chosen);
    await store?.set(keyOf(context, tuning.class), tuning.chosen);
    tunings.push(tuning);
  }
  return tunings;
}

/** A candidate at work. */
interface Runner {
  readonly tile: TileName;
  state: MeasuredTile["state"];
  /** Milliseconds of a product, in the best sample. */
  least: number;
  compile: number | null;
}

/** Measures the candidates of one class. */
async function tuneClass(
  context: DeviceContext,
  shape: ProductShape,
  { end, signal, time }: {
    readonly end: number;
    readonly signal: AbortSignal | undefined;
    readonly time: NonNullable<TuneOptions["time"]>;
  },
): Promise<Tuning> {
  const of = productClass(shape);
  const usual = defaultTile(context, of, true);
  // The default goes first: the others are compared with it.
  const runners: Runner[] = [usual, ...candidates(context, of).filter((tile) => tile !== usual)]
    .map((tile) => ({ tile, state: "untried", least: Infinity, compile: null }));
  const [first] = runners as [Runner, ...Runner[]];
  await check(context, shape.layout, runners, { end, signal });

  using product = new Product(context, shape);
  const timeOf = async ({ tile }: Runner, times: number): Promise<number> => {
    signal?.throwIfAborted();
    return await time(() => product.run(tile, times), tile) / times;
  };
  const once = Math.max(await timeOf(first, 1), SAMPLE / MAX_TIMES);
  const times = Math.ceil(SAMPLE / once);
  let best = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    for (const runner of runners) {
      if (runner.state !== "timed") continue;
      runner.least = Math.min(runner.least, await timeOf(runner, times));
      best = Math.min(best, runner.least);
      for (const other of runners) {
        if (other.least < Infinity && other.least > best * SLOWER) other.state = "slower";
      }
    }
  }
  const fastest = runners.reduce((a, b) => b.least < a.least ? b : a);
  const keepsUsual = fastest.least > first.least * GAIN;
  const flops = 2 * shape.M * shape.N * shape.K;
  return {
    class: of,
    shape,
    chosen: keepsUsual ? usual : fastest.tile,
    default: usual,
    tiles: runners.map(({ tile, state, least, compile }) => ({
      tile,
      state,
      gflops: least < Infinity ? flops / least / 1e6 : null,
      compileMs: compile,
    })),
  };
}

/** Lets those candidates into the race that compute rightly, until the time is up. */
async function check(
  context: DeviceContext,
  layout: Layout,
  runners: readonly Runner[],
  { end, signal }: { readonly end: number; readonly signal: AbortSignal | undefined },
): Promise<void> {
  const asked = { integers: askedFactors("integers"), fractions: askedFactors("fractions") };
  const exact = exactProduct(layout, asked.integers);
  const hardToCompile = new Set<string>();
  let usual: Float32Array | undefined;
  for (const runner of runners) {
    signal?.throwIfAborted();
    const { sharing } = TILES.get(runner.tile)!;
    if (usual !== undefined && (performance.now() > end || hardToCompile.has(sharing))) continue;
    const started = performance.now();
    const found = await context.attempt(() => answers(context, layout, { ...asked, tile: runner.tile }));
    runner.compile = performance.now() - started;
    if (found instanceof KernelError) {
      if (usual === undefined) throw found;
      runner.state = "refused";
      continue;
    }
    const [integers, fractions] = found;
    if (runner.compile > COMPILE) hardToCompile.add(sharing);
    const isExact = integers.every((value, at) => value === exact[at]);
    if (!isExact && usual === undefined) throw new DeviceError(`this device computes ${layout} products wrongly`);
    usual ??= fractions;
    const isRight = isExact && hasBits(fractions, usual);
    runner.state = isRight ? "timed" : "wrong";
  }
}

/** Two matrices as they lie. */
interface Factors {
  readonly a: Float32Array;
  readonly b: Float32Array;
}

/** What every candidate is asked: ragged in every tile but the smallest, in rows that start at multiples of four. */
const ASKED = { M: 132, N: 260, K: 24 } as const;

/** The factors of what is asked, as they lie: integers from -8 to 8, or fractions of normal size. */
function askedFactors(kind: "integers" | "fractions"): Factors {
  const { M, N, K } = ASKED;
  const random = new RandomStream(0, STREAMS.selfCheck, 1);
  const number = () => kind === "integers" ? random.bits() % 17 - 8 : random.bits() / 2 ** 32 - 0.5;
  return { a: Float32Array.from({ length: M * K }, number), b: Float32Array.from({ length: N * K }, number) };
}

/** The product of the integers. */
function exactProduct(layout: Layout, { a, b }: Factors): Float32Array {
  const { M, N, K } = ASKED;
  return Float32Array.from({ length: M * N }, (_, at) => {
    const [m, n] = [Math.floor(at / N), at % N];
    let sum = 0;
    for (let k = 0; k < K; k++) {
      sum += a[layout === "tn" ? k * M + m : m * K + k]! * b[layout === "nt" ? n * K + k : k * N + n]!;
    }
    return sum;
  });
}

/** A tile's product of the integers, and that of the fractions. */
async function answers(
  context: DeviceContext,
  layout: Layout,
  asked: { readonly tile: TileName; readonly integers: Factors; readonly fractions: Factors },
): Promise<[Float32Array, Float32Array]> {
  using integers = new Product(context, { layout, ...ASKED }, asked.integers);
  using fractions = new Product(context, { layout, ...ASKED }, asked.fractions);
  for (const product of [integers, fractions]) product.run(asked.tile, 1);
  return await Promise.all([integers.c.read(), fractions.c.read()]);
}

function hasBits(found: Float32Array, wanted: Float32Array): boolean {
  const [left, right] = [found, wanted].map(({ buffer }) => new Uint32Array(buffer));
  return left!.every((word, at) => word === right![at]);
}

/** A product that can be submitted again and again. */
class Product implements Disposable {
  /** Its result. */
  readonly c: Tensor;
  readonly #context: DeviceContext;
  readonly #shape: ProductShape;
  readonly #a: Tensor;
  readonly #b: Tensor;

  /** Without factors, of numbers that do not matter in rows that start at multiples of four. */
  constructor(context: DeviceContext, shape: ProductShape, factors?: Factors) {
    const { layout, M, N, K } = shape;
    const make = (rows: number, columns: number, label: string, values?: Float32Array): Tensor => {
      const width = 4 * Math.ceil(columns / 4);
      return Tensor.from(context, values ?? new Float32Array(rows * width).fill(0.5), [rows, width], label);
    };
    this.#context = context;
    this.#shape = shape;
    this.#a = layout === "tn" ? make(K, M, "tuner: a", factors?.a) : make(M, K, "tuner: a", factors?.a);
    this.#b = layout === "nt" ? make(N, K, "tuner: b", factors?.b) : make(K, N, "tuner: b", factors?.b);
    this.c = make(M, N, "tuner: c");
  }

  run(tile: TileName, times: number): void {
    const commands = new Commands(this.#context);
    const operands = { a: { in: this.#a }, b: { in: this.#b }, c: { in: this.c } };
    for (let i = 0; i < times; i++) matmul(commands, { ...this.#shape, ...operands, tile });
    commands.submit();
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#a, this.#b, this.c]) tensor[Symbol.dispose]();
  }
}

/** Milliseconds from a submission to its end. */
function wallClock({ queue }: GPUDevice): NonNullable<TuneOptions["time"]> {
  return async (run) => {
    const started = performance.now();
    run();
    await queue.onSubmittedWorkDone();
    return performance.now() - started;
  };
}
