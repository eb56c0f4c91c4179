/**
 * Measures which tile makes products fastest on a device, and remembers it in the caller's store.
 *
 * All tiles give the same bits, so the choice changes nothing but time. Measuring is optional: there are defaults.
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
  /** The value of a key, if one was set. */
  get(key: string): Promise<string | undefined> | string | undefined;
  /** Sets the value of a key. */
  set(key: string, value: string): unknown;
}

/** How to measure. */
export interface TuneOptions {
  /** Where to remember the choices; without a store they last as long as the device. */
  readonly store?: TunerStore;
  /** Shapes to measure; only the first of each class is. */
  readonly shapes: readonly ProductShape[];
  /** Seconds that measuring a class may take, not counting the candidate under way; 60 if left out. */
  readonly budget?: number;
  /** Stops after the measurement under way; finished classes keep their choices. */
  readonly signal?: AbortSignal;
  /** Milliseconds until the GPU has done what `run` submits; by the CPU's clock if left out. */
  readonly time?: (run: () => void, tile: TileName) => Promise<number>;
}

/** How a candidate did. */
export interface MeasuredTile {
  /** Which. */
  readonly tile: TileName;
  /**
   * `timed` to the end, `slower` and dropped early, `wrong` results, `refused` by the device, or `untried` for lack of
   * time.
   */
  readonly state: "timed" | "slower" | "wrong" | "refused" | "untried";
  /** GFLOP/s of its best sample; `null` without one. */
  readonly gflops: number | null;
  /** Milliseconds to its first result, compilation included; `null` if untried. */
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

/** Raised whenever the generated code changes in a way that may change which tile is fastest. */
const GENERATOR = 2;

/** Samples of each candidate that is not dropped. */
const ROUNDS = 3;
/** The most products in a sample. */
const MAX_TIMES = 200;
/** Milliseconds of a sample: long enough that the wait for its end, some 11 ms in Deno, hardly counts. */
const SAMPLE = 250;
/** A candidate this many times slower than the best is dropped. */
const SLOWER = 1.25;
/** How much faster than the default a tile must be to replace it. */
const GAIN = 0.97;
/** If a tile takes this many milliseconds to compile, no larger tile of its kind is tried. */
const COMPILE = 6000;

/** The store's key for a class: it names the adapter, the driver and the version of the generated code. */
function keyOf({ device }: DeviceContext, of: ProductClass): string {
  const { vendor = "", architecture = "", device: model = "", description = "" } = device.adapterInfo ?? {};
  return JSON.stringify(["matmul", GENERATOR, vendor, architecture, model, description, of]);
}

const LAYOUTS = ["nn", "nt", "tn"] as const;
const SIZES = ["few rows", "few columns", "small", "large"] as const;

/**
 * Applies the choices that a store remembers for this device, without measuring; returns how many classes have one.
 * Names that are not tiles of this version, or that this device cannot use, are ignored.
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
 * Measures the tiles for the classes of some shapes on this device, uses the fastest from now on, and stores the
 * choice.
 *
 * A candidate must first compute a small product correctly and with the default's bits. Samples of all candidates are
 * interleaved, and slow candidates are dropped. The default stays unless another tile is at least 3 % faster.
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
 * @throws {TypeError} for an unknown option.
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

/** A candidate being measured. */
interface Runner {
  readonly tile: TileName;
  state: MeasuredTile["state"];
  /** Milliseconds of a product in the best sample. */
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

/** Checks which candidates compute correctly, until the time is up. */
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
    if (!isExact && usual === undefined) throw new DeviceError(`this device computes wrong ${layout} products`);
    usual ??= fractions;
    const isRight = isExact && hasBits(fractions, usual);
    runner.state = isRight ? "timed" : "wrong";
  }
}

/** Two factors, in their layout. */
interface Factors {
  readonly a: Float32Array;
  readonly b: Float32Array;
}

/**
 * The product that checks every candidate: ragged for every tile but the smallest, with rows that start at multiples of
 * four.
 */
const ASKED = { M: 132, N: 260, K: 24 } as const;

/** The factors of that product: integers from -8 to 8, or fractions of normal size. */
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

/** A product that can be submitted repeatedly. */
class Product implements Disposable {
  /** Its result. */
  readonly c: Tensor;
  readonly #context: DeviceContext;
  readonly #shape: ProductShape;
  readonly #a: Tensor;
  readonly #b: Tensor;

  /** Without factors, of arbitrary numbers in rows that start at multiples of four. */
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
