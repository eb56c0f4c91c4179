/**
 * One row for every kernel of `kernels/`, run alone at the sizes of a training step. The cost of a row is the sum of
 * its kernels' own `cost`.
 *
 * @module
 */

import {
  gatherRows,
  keepEntries,
  type ListedRowsArguments,
  scatterRows,
  spreadEntries,
  type SpreadEntriesArguments,
} from "../kernels/listed_rows.ts";
import {
  aboveThreshold,
  adam,
  addRow,
  addUnitRows,
  BatchTopK,
  chunksOf,
  clipFactor,
  columnSums,
  Commands,
  copyColumns,
  type Cost,
  type Csr,
  csrColumns,
  csrToDense,
  denseToCsr,
  type DeviceContext,
  divideByNorm,
  fill,
  gatheredMatmul,
  matmul,
  maxAbsBits,
  MAXIMA_COLUMNS,
  muonMomentum,
  muonStep,
  newtonSchulz,
  parallelRows,
  positiveMask,
  randomBits,
  rowMaxAbsBits,
  rowSquares,
  scaleAndAdd,
  sddmm,
  sparseColumnSums,
  spmm,
  spmmTransposed,
  STEEPEST,
  subtractParallelRows,
  subtractRow,
  subtractWeightedRows,
  sum,
  Tensor,
  topK,
  transposeRows,
  Transposition,
  unitRows,
  zeroNegatives,
} from "../kernels/mod.ts";
import { shapeName, SHAPES } from "./matmul_shapes.ts";
import { PricedCommands } from "./priced_commands.ts";

/** The sizes of the rows. */
export interface KernelSizes {
  /** Rows per batch. */
  readonly B: number;
  /** Numbers in a row. */
  readonly D: number;
  /** Rows of a dictionary. */
  readonly S: number;
  /** Entries per sparse row. */
  readonly k: number;
  /** The matrix products. */
  readonly products: typeof SHAPES;
}

/** The sizes of a training step. */
export const STEP_SIZES: KernelSizes = { B: 1024, D: 768, S: 6144, k: 32, products: SHAPES };

/** Records the kernels of a row; may be called repeatedly. */
type Recording = (commands: Commands) => void;

/** One line of the bench. */
export interface KernelRow {
  /** The file of `kernels/` whose kernels it runs, without `.ts`. */
  readonly file: string;
  /** What it measures. */
  readonly name: string;
  /** Creates the tensors that the kernels use. */
  readonly make: (room: Room) => Recording;
  /** Whether to run kernels that the GPU may skip. */
  readonly branches?: true;
}

/** A row, ready to run on a device. */
export class KernelRun implements Disposable {
  readonly #context: DeviceContext;
  readonly #room: Room;
  readonly #record: Recording;
  readonly #branches: boolean;

  /** Creates the tensors of a row. */
  constructor(context: DeviceContext, row: KernelRow, sizes: KernelSizes) {
    this.#context = context;
    this.#room = new Room(context, sizes);
    this.#record = row.make(this.#room);
    this.#branches = row.branches === true;
  }

  /** Submits it `times` times without waiting; returns the names of its kernels and the cost of one time. */
  run(times: number): { readonly kernels: readonly string[]; readonly cost: Cost } {
    const commands = new PricedCommands(this.#context, this.#branches);
    this.#record(commands);
    const { cost } = commands;
    const kernels = commands.runs.map(({ kernel }) => kernel);
    for (let more = 1; more < times; more++) this.#record(commands);
    commands.submit();
    return { kernels, cost };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#room[Symbol.dispose]();
  }
}

/** The period of the test numbers, which lie between −2 and 2. */
const PERIOD = 4093;
const NUMBERS = Float32Array.from({ length: PERIOD }, (_, i) => 2 * Math.sin(i * i * 12.9898));

/** The tensors of one row. */
class Room implements Disposable {
  readonly context: DeviceContext;
  readonly sizes: KernelSizes;
  readonly #owned = new DisposableStack();

  constructor(context: DeviceContext, sizes: KernelSizes) {
    this.context = context;
    this.sizes = sizes;
  }

  /** Keeps something until the end. */
  use<T extends Disposable>(made: T): T {
    return this.#owned.use(made);
  }

  /** Numbers, or the results of a function of the index. */
  floats(shape: readonly number[], value?: (i: number) => number): Tensor {
    const data = new Float32Array(shape.reduce((size, length) => size * length, 1));
    if (value) { for (let i = 0; i < data.length; i++) data[i] = value(i); }
    else for (let at = 0; at < data.length; at += PERIOD) data.set(NUMBERS.subarray(0, data.length - at), at);
    return this.use(Tensor.from(this.context, data, shape, "floats"));
  }

  /** Zeros, or the results of a function of the index. */
  integers(shape: readonly number[], value: (i: number) => number = () => 0): Tensor<"u32"> {
    const length = shape.reduce((size, length) => size * length, 1);
    return this.use(Tensor.from(this.context, Uint32Array.from({ length }, (_, i) => value(i)), shape, "integers"));
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** [B, S] with k entries per row: spread over the columns, or every row in the same ones. */
function csr(room: Room, isSpread = true): Csr {
  const { B, S, k } = room.sizes;
  const every = Math.floor(S / k);
  return {
    rows: B,
    capacity: B * k,
    starts: room.integers([B + 1], (row) => row * k),
    indices: room.integers(
      [B * k],
      (entry) => (entry % k) * every + (isSpread ? 7 * Math.floor(entry / k) % every : 0),
    ),
    values: room.floats([B * k]),
  };
}

/** The same entries by column, and the factor that multiplies them, as one part. */
function transposed(room: Room) {
  const { B, S, k } = room.sizes;
  const sparse = csr(room);
  const transposition = room.use(new Transposition(room.context, B, S, B * k, "entries"));
  const commands = new Commands(room.context);
  transposition.transpose(commands, sparse);
  commands.submit();
  const { columns, entryRows } = transposition;
  return { sparse: columns, entryRows, values: sparse.values, firstRow: 0, rows: B, accumulate: false };
}

/** [B, S], and the largest keys of neighbouring columns, as a product leaves them. */
function withMaxima(room: Room): { readonly values: Tensor; readonly maxima: Tensor<"u32"> } {
  const { B, S } = room.sizes;
  const values = room.floats([B, S]);
  const maxima = room.integers([Math.ceil(S / MAXIMA_COLUMNS), 4 * Math.ceil(B / 4)]);
  const [a, b] = [room.floats([B, 8]), room.floats([S, 8])];
  const commands = new Commands(room.context);
  const product = { layout: "nt", M: B, N: S, K: 8, a: { in: a }, b: { in: b }, c: { in: values } } as const;
  matmul(commands, { ...product, maxima: { in: maxima } });
  commands.submit();
  return { values, maxima };
}

/** The further tensors for selecting k numbers per row. */
function selection(room: Room) {
  const { B, S, k } = room.sizes;
  return {
    rows: B,
    stride: S,
    n: S,
    k,
    firstRow: 0,
    allRows: B,
    capacity: B * k,
    starts: room.integers([B + 1], (row) => row * k),
    indices: room.integers([B * k]),
    selected: room.floats([B * k]),
  };
}

function batchTopK(room: Room, { values, maxima }: ReturnType<typeof withMaxima>): Recording {
  const { B, S, k } = room.sizes;
  const selection = room.use(new BatchTopK(room.context, B, S, B * k));
  const [starts, indices, selected] = [room.integers([B + 1]), room.integers([B * k]), room.floats([B * k])];
  const results = { k: B * k, capacity: B * k, starts, indices, selected };
  return (commands) =>
    selection.select(commands, { ...results, forEach: (use) => use({ values, maxima, from: 0, to: B }) });
}

/** [B, S] with k non-zero numbers per row, and room for them as entries. */
function mostlyZeros(room: Room) {
  const { B, S, k } = room.sizes;
  const every = Math.floor(S / k);
  return {
    dense: room.floats([B, S], (i) => Number(i % S % every === 0 && i % S < every * k)),
    rows: B,
    columns: S,
    firstRow: 0,
    allRows: B,
    starts: room.integers([B + 1]),
    capacity: B * k,
    indices: room.integers([B * k]),
    values: room.floats([B * k]),
  };
}

/** Every sixth number below S is listed, like dead latents. */
const EVERY = 6;

function list(room: Room) {
  const { S } = room.sizes;
  const most = Math.ceil(S / EVERY);
  return { most, list: room.integers([most], (i) => EVERY * i), count: room.integers([1], () => most) };
}

function listedRows(room: Room): ListedRowsArguments {
  const { D, S } = room.sizes;
  const { most, ...listed } = list(room);
  const packed = room.floats([most, D]);
  return { matrix: room.floats([S, D]), from: 0, to: S, columns: D, ...listed, listSize: most, packed, most };
}

function listedColumns(room: Room): SpreadEntriesArguments {
  const { B, S } = room.sizes;
  const { most: stride, count } = list(room);
  const places = room.integers([S], (column) => Math.floor(column / EVERY));
  return {
    sparse: csr(room),
    firstRow: 0,
    rows: B,
    places,
    placesSize: S,
    count,
    stride,
    dense: room.floats([B, stride]),
  };
}

/** [S, D], its optimizer state, and the flags that only the GPU knows. */
function parameter(room: Room) {
  const { D, S } = room.sizes;
  const [matrix, grad] = [room.floats([S, D]), room.floats([S, D])];
  return { matrix, grad, factor: room.floats([1], () => 1), halted: room.integers([1]) };
}

function adamArguments(room: Room) {
  const { D, S } = room.sizes;
  const { matrix, ...shared } = parameter(room);
  const [moment1, moment2] = [room.floats([S, D]), room.floats([S, D], () => 1)];
  const numbers = { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 1 };
  return { ...shared, ...numbers, parameter: matrix, moment1, moment2 };
}

/** [B, D] and [D]. */
function rowsAndRow(room: Room) {
  const { B, D } = room.sizes;
  return { x: room.floats([B, D]), row: room.floats([D]), rows: B, columns: D, factor: 0.5 };
}

/** One part: all indices are below S. */
const ends = (room: Room) => ({ ends: room.integers([1], () => room.sizes.S), parts: 1 });

/**
 * The rows. Every kernel declared in `kernels/` is run by one of them, or by a step of `step.ts`; a test names any
 * kernel that is not.
 */
export const KERNEL_ROWS: readonly KernelRow[] = [
  ...SHAPES.map((shape, at): KernelRow => ({
    file: "matmul_kernel",
    name: shapeName(shape),
    make: (room) => {
      const { layout, M, N, K } = room.sizes.products[at]!;
      const a = { in: room.floats(layout === "tn" ? [K, M] : [M, K]) };
      const b = { in: room.floats(layout === "nt" ? [N, K] : [K, N]) };
      const c = { in: room.floats([M, N]) };
      return (commands) => matmul(commands, { layout, M, N, K, a, b, c });
    },
  })),
  {
    file: "matmul_kernel",
    name: "gathered",
    make: (room) => {
      const { B: M, D: K, S } = room.sizes;
      const { most: N, list: rows, count } = list(room);
      const [a, b, c] = [{ in: room.floats([M, K]) }, { in: room.floats([S, K]) }, { in: room.floats([M, N]) }];
      const bias = room.floats([S]);
      return (commands) => gatheredMatmul(commands, { M, N, K, a, b, firstRow: 0, c, bias, rows, count });
    },
  },
  {
    file: "adam",
    name: "adam",
    make: (room) => {
      const given = adamArguments(room);
      return (commands) => adam(commands, given);
    },
  },
  {
    file: "adam",
    name: "adam without the parallel gradient",
    make: (room) => {
      const given = { ...adamArguments(room), parallel: room.floats([room.sizes.S]) };
      return (commands) => adam(commands, given);
    },
  },
  { file: "batch_top_k", name: "candidates fit", make: (room) => batchTopK(room, withMaxima(room)) },
  {
    file: "batch_top_k",
    name: "candidates overflow",
    branches: true,
    make: (room) => batchTopK(room, withMaxima(room)),
  },
  {
    file: "clip",
    name: "clip factor",
    make: (room) => {
      const squares = room.floats([room.sizes.S], () => 1);
      const [norm, factor] = [room.floats([1]), room.floats([1])];
      return (commands) => clipFactor(commands, { squares, norm, factor, most: 1 });
    },
  },
  {
    file: "dense_to_csr",
    name: "what is not zero",
    make: (room) => {
      const given = mostlyZeros(room);
      return (commands) => denseToCsr(commands, given);
    },
  },
  {
    file: "dense_to_csr",
    name: "what is near a threshold",
    make: (room) => {
      const { S } = room.sizes;
      const nearby = { thresholds: room.floats([S], () => 0.5), width: 0.1, whole: room.integers([S]) };
      const given = { ...mostlyZeros(room), nearby };
      return (commands) => denseToCsr(commands, given);
    },
  },
  {
    file: "csr_columns",
    name: "of sparse rows",
    make: (room) => {
      const { B, S, k } = room.sizes;
      const columns = room.integers([k], (m) => m * Math.floor(S / k));
      const lines = { columns, factors: room.floats([k]), addends: room.floats([k]) };
      const given = { sparse: csr(room), listed: k, ...lines, result: room.floats([B, k]) };
      return (commands) => csrColumns(commands, given);
    },
  },
  {
    file: "elementwise",
    name: "fill",
    make: (room) => {
      const { D, S } = room.sizes;
      const to = room.floats([S, D]);
      return (commands) => fill(commands, to, S * D, 0);
    },
  },
  {
    file: "elementwise",
    name: "subtract row",
    make: (room) => {
      const given = { ...rowsAndRow(room), to: room.floats([room.sizes.B, room.sizes.D]) };
      return (commands) => subtractRow(commands, given);
    },
  },
  {
    file: "elementwise",
    name: "add row",
    make: (room) => {
      const given = { ...rowsAndRow(room), other: room.floats([room.sizes.D]) };
      return (commands) => addRow(commands, given);
    },
  },
  {
    file: "elementwise",
    name: "positive mask",
    make: (room) => {
      const { B, S } = room.sizes;
      const [grad, at] = [room.floats([B, S]), room.floats([B, S])];
      return (commands) => positiveMask(commands, { grad, at, size: B * S });
    },
  },
  {
    file: "elementwise",
    name: "zero negatives",
    make: (room) => {
      const { B, S } = room.sizes;
      const x = room.floats([B, S]);
      return (commands) => zeroNegatives(commands, { x, size: B * S });
    },
  },
  {
    file: "elementwise",
    name: "scale and add",
    make: (room) => {
      const { B, D } = room.sizes;
      const [x, other] = [room.floats([B, D]), room.floats([B, D])];
      return (commands) => scaleAndAdd(commands, { x, other, size: B * D, factor: 0.5 });
    },
  },
  {
    file: "elementwise",
    name: "copy columns",
    make: (room) => {
      const { B, D } = room.sizes;
      const x = room.floats([B, 2 * D]);
      return (commands) => copyColumns(commands, { x, rows: B, stride: 2 * D, columns: D, from: 0, to: D });
    },
  },
  ...[false, true].map((isCopied): KernelRow => ({
    file: "elementwise",
    name: isCopied ? "copy above threshold" : "above threshold",
    make: (room) => {
      const { B, S } = room.sizes;
      const [x, threshold] = [room.floats([B, S]), room.floats([S])];
      const given = { x, size: B * S, threshold, thresholds: S, ...isCopied && { to: room.floats([B, S]) } };
      return (commands) => aboveThreshold(commands, given);
    },
  })),
  ...[gatherRows, scatterRows].map((move): KernelRow => ({
    file: "listed_rows",
    name: move === gatherRows ? "gather" : "scatter",
    make: (room) => {
      const given = listedRows(room);
      return (commands) => move(commands, given);
    },
  })),
  ...[spreadEntries, keepEntries].map((place): KernelRow => ({
    file: "listed_rows",
    name: place === spreadEntries ? "spread entries" : "keep entries",
    make: (room) => {
      const given = listedColumns(room);
      return (commands) => place(commands, given);
    },
  })),
  {
    file: "muon",
    name: "momentum",
    make: (room) => {
      const { D, S } = room.sizes;
      const { grad, factor, halted } = parameter(room);
      const [mean, x] = [room.floats([S, D]), room.floats([S, D])];
      const given = { grad, mean, x, factor, halted, momentum: 0.95, nesterov: true };
      return (commands) => muonMomentum(commands, given);
    },
  },
  {
    file: "muon",
    name: "step",
    make: (room) => {
      const { matrix, grad: update, halted } = parameter(room);
      const numbers = { lr: 1e-4, ratio: 1, weight_decay: 0 };
      return (commands) => muonStep(commands, { parameter: matrix, update, halted, ...numbers });
    },
  },
  {
    file: "newton_schulz",
    name: "one step, with its products",
    make: (room) => {
      const { D, S } = room.sizes;
      const least = Math.min(D, S);
      const x = room.floats([S, D], (i) => NUMBERS[i % PERIOD]! / Math.sqrt(S * D));
      const [spare, gram, square] = [room.floats([S, D]), room.floats([least, least]), room.floats([least, least])];
      const given = { x, spare, gram, square, steps: 1, coefficients: STEEPEST };
      return (commands) => void newtonSchulz(commands, given);
    },
  },
  {
    file: "newton_schulz",
    name: "divide by the norm",
    make: (room) => {
      const { D, S } = room.sizes;
      const [x, squares, total] = [room.floats([S, D]), room.floats([S]), room.floats([1])];
      return (commands) => divideByNorm(commands, { x, squares, total, least: 1e-7 });
    },
  },
  {
    file: "random",
    name: "random bits",
    make: (room) => {
      const to = room.integers([room.sizes.S, room.sizes.D]);
      return (commands) => randomBits(commands, { to, seed: 1, stream: 0, step: 0 });
    },
  },
  {
    file: "reduce",
    name: "largest of all",
    make: (room) => {
      const { B, D } = room.sizes;
      const x = room.floats([B, D]);
      const [partials, bits] = [room.integers([chunksOf(B * D)]), room.integers([1])];
      return (commands) => maxAbsBits(commands, x, partials, bits);
    },
  },
  {
    file: "reduce",
    name: "largest of each row",
    make: (room) => {
      const { B, S } = room.sizes;
      const [x, bits] = [room.floats([B, S]), room.integers([B])];
      return (commands) => rowMaxAbsBits(commands, { x, rows: B, columns: S, firstRow: 0, bits, allRows: B });
    },
  },
  {
    file: "reduce",
    name: "sum",
    make: (room) => {
      const { S } = room.sizes;
      const [x, into] = [room.floats([S]), room.floats([1])];
      return (commands) => sum(commands, { x, size: S, into, results: 1, at: 0 });
    },
  },
  {
    file: "reduce",
    name: "column sums",
    make: (room) => {
      const { B, S } = room.sizes;
      const given = { x: room.floats([B, S]), rows: B, stride: S, offset: 0, columns: S, accumulate: false };
      const result = room.floats([S]);
      return (commands) => columnSums(commands, { ...given, result });
    },
  },
  {
    file: "reduce",
    name: "subtract weighted rows",
    make: (room) => {
      const { D, S } = room.sizes;
      const [weights, matrix, result] = [room.floats([S]), room.floats([S, D]), room.floats([D])];
      return (commands) => subtractWeightedRows(commands, { weights, matrix, rows: S, columns: D, result });
    },
  },
  {
    file: "spmm",
    name: "spmm",
    make: (room) => {
      const { B, D, S } = room.sizes;
      const given = {
        sparse: csr(room),
        firstRow: 0,
        rows: B,
        matrix: room.floats([S, D]),
        from: 0,
        to: S,
        columns: D,
      };
      const rest = { ...ends(room), result: room.floats([B, D]), accumulate: false };
      return (commands) => spmm(commands, { ...given, ...rest });
    },
  },
  {
    file: "sddmm",
    name: "sddmm",
    make: (room) => {
      const { B, D, S, k } = room.sizes;
      const entryRows = room.integers([B * k], (entry) => Math.floor(entry / k));
      const left = { firstRow: 0, rows: B, left: room.floats([B, D]) };
      const right = { right: room.floats([S, D]), from: 0, to: S, columns: D };
      const given = { sparse: csr(room), entryRows, ...left, ...right, ...ends(room), result: room.floats([B * k]) };
      return (commands) => sddmm(commands, given);
    },
  },
  {
    file: "spmm_transposed",
    name: "spmm transposed",
    make: (room) => {
      const { B, D, S } = room.sizes;
      const result = { from: 0, to: S, columns: D, result: room.floats([S, D]) };
      const given = { ...transposed(room), matrix: room.floats([B, D]), ...ends(room), ...result };
      return (commands) => spmmTransposed(commands, given);
    },
  },
  {
    file: "spmm_transposed",
    name: "column sums",
    make: (room) => {
      const given = { ...transposed(room), result: room.floats([room.sizes.S]) };
      return (commands) => sparseColumnSums(commands, given);
    },
  },
  {
    file: "csr_to_dense",
    name: "csr to dense",
    make: (room) => {
      const { B, S } = room.sizes;
      const given = { sparse: csr(room), firstRow: 0, rows: B, columns: S, result: room.floats([B, S]) };
      return (commands) => csrToDense(commands, given);
    },
  },
  {
    file: "top_k",
    name: "of values",
    make: (room) => {
      const given = { ...selection(room), values: room.floats([room.sizes.B, room.sizes.S]) };
      return (commands) => topK(commands, given);
    },
  },
  {
    file: "top_k",
    name: "of values with maxima",
    make: (room) => {
      const given = { ...selection(room), ...withMaxima(room) };
      return (commands) => topK(commands, given);
    },
  },
  {
    file: "top_k",
    name: "of listed columns",
    make: (room) => {
      const { B } = room.sizes;
      const { most, list: names, count } = list(room);
      const sizes = { stride: most, n: most, listed: { names, count, size: most } };
      const given = { ...selection(room), ...sizes, values: room.floats([B, most]) };
      return (commands) => topK(commands, given);
    },
  },
  ...[false, true].map((isF16): KernelRow => ({
    file: "transpose",
    name: isF16 ? "f16 rows" : "rows",
    make: (room) => {
      const { D, S, B } = room.sizes;
      const make = (shape: number[]) => room.use(new Tensor(room.context, "f32", shape, "floats", { isF16 }));
      const [rows, result] = [make([B, D]), make([D, S])];
      return (commands) => transposeRows(commands, { rows: rows.rows(0, B), result, at: 0 });
    },
  })),
  ...[true, false].map((isSpread): KernelRow => ({
    file: "transpose_entries",
    name: isSpread ? "columns of few entries" : "columns of many entries",
    make: (room) => {
      const { B, S, k } = room.sizes;
      const sparse = csr(room, isSpread);
      const transposition = room.use(new Transposition(room.context, B, S, B * k, "entries"));
      return (commands) => transposition.transpose(commands, sparse);
    },
  })),
  {
    file: "unit_rows",
    name: "unit rows",
    make: (room) => {
      const { matrix, halted } = parameter(room);
      return (commands) => unitRows(commands, matrix, halted);
    },
  },
  {
    file: "unit_rows",
    name: "parallel rows",
    make: (room) => {
      const { S } = room.sizes;
      const { matrix, grad } = parameter(room);
      const [parallel, squares] = [room.floats([S]), room.floats([S])];
      return (commands) => parallelRows(commands, { grad, matrix, parallel, squares });
    },
  },
  {
    file: "unit_rows",
    name: "subtract parallel rows",
    make: (room) => {
      const { matrix, grad } = parameter(room);
      const parallel = room.floats([room.sizes.S], () => 0.5);
      return (commands) => subtractParallelRows(commands, { grad, matrix, parallel });
    },
  },
  {
    file: "unit_rows",
    name: "row squares",
    make: (room) => {
      const { D, S } = room.sizes;
      const [matrix, squares] = [room.floats([S, D]), room.floats([S])];
      return (commands) => rowSquares(commands, matrix, squares);
    },
  },
  {
    file: "unit_rows",
    name: "add unit rows",
    make: (room) => {
      const { D, S } = room.sizes;
      const { matrix, grad: result } = parameter(room);
      const [weights, squares] = [room.floats([S]), room.floats([S], () => D)];
      return (commands) => addUnitRows(commands, { weights, squares, matrix, result });
    },
  },
];
