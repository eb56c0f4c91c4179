/**
 * Matrices in files as sources of rows, read by seeking: a file may be larger than memory.
 *
 * Raw files hold little-endian float32, row-major. How many numbers a row has is given, or stands in a JSON file of the
 * same name beside it, as `{ "shape": [rows, columns] }`.
 *
 * @module
 */

import { type OpenFile, openFile, readBytes } from "../io/files.ts";
import { matrixShape, readNpyHeader } from "../io/npy.ts";
import { BYTES_PER_NUMBER, type FloatType, isFloatType, readFloats } from "../io/numbers.ts";
import type { RowSource } from "../nn/rows.ts";

/** What is known of a file. */
export interface RowFileOptions {
  /** NumPy's format, or raw float32; what the name says if left out: `.npy`, and anything else is raw. */
  readonly format?: "npy" | "f32";
  /** Numbers in a row; `null` or left out if the file says it, or one beside it. */
  readonly d_model?: number | null;
}

/** Rows in an open file; dispose of it to close the file. */
export type RowFile = RowSource & Disposable;

/** Enough for the header of a matrix. */
const HEADER_BYTES = 4096;

/**
 * Opens a matrix.
 *
 * @throws {CheckpointError} if a `.npy` file is none.
 * @throws {RangeError} if the file's size does not fit its shape, or the number of columns is unknown or contradicted.
 */
export async function openRows(path: string, options: RowFileOptions = {}): Promise<RowFile> {
  const { format = path.endsWith(".npy") ? "npy" : "f32", d_model = null } = options;
  using stack = new DisposableStack();
  const file = stack.use(await openFile(path));
  const source = format === "npy" ? await npyRows(path, file, d_model) : await rawRows(path, file, d_model);
  const open = stack.move();
  return { ...source, [Symbol.dispose]: () => open.dispose() };
}

async function npyRows(path: string, file: OpenFile, d_model: number | null): Promise<RowSource> {
  const header = readNpyHeader(await file.read(0, Math.min(file.size, HEADER_BYTES)));
  const { type, isLittleEndian, isFortranOrder, start } = header;
  const [rows, cols] = matrixShape(header.shape);
  if (!isFloatType(type)) throw new RangeError(`${path} holds ${type}; expected floating-point numbers`);
  if (isFortranOrder) throw new RangeError(`${path} lies column by column; save it in C order to read it row by row`);
  if (d_model !== null && d_model !== cols) {
    throw new RangeError(`${path} has ${cols} columns, and d_model is given as ${d_model}`);
  }
  return rowsAt(path, file, { type, isLittleEndian, start, n_rows: rows, d_model: cols });
}

async function rawRows(path: string, file: OpenFile, given: number | null): Promise<RowSource> {
  const d_model = given ?? await columnsBeside(path);
  if (d_model === null) {
    throw new RangeError(`${path} is raw float32: give d_model, or a JSON file beside it with its shape`);
  }
  const n_rows = file.size / (4 * d_model);
  if (!Number.isInteger(n_rows)) {
    throw new RangeError(`${path} has ${file.size} bytes, which is no whole number of rows of ${d_model} float32`);
  }
  return rowsAt(path, file, { type: "float32", isLittleEndian: true, start: 0, n_rows, d_model });
}

/** The columns that `activations.json` says `activations.f32.bin` has. */
async function columnsBeside(path: string): Promise<number | null> {
  const sidecar = path.replace(/(?:\.(?:bin|f32|raw|dat))*$/, ".json");
  const text = await readBytes(sidecar).then((bytes) => new TextDecoder().decode(bytes), () => null);
  if (text === null) return null;
  const { shape } = JSON.parse(text) as { shape?: unknown };
  const columns = Array.isArray(shape) && shape.length === 2 ? shape[1] as unknown : undefined;
  if (Number.isSafeInteger(columns) && (columns as number) > 0) return columns as number;
  throw new RangeError(`${sidecar} has the shape ${JSON.stringify(shape)}; expected [rows, columns]`);
}

function rowsAt(
  path: string,
  file: OpenFile,
  given: { type: FloatType; isLittleEndian: boolean; start: number; n_rows: number; d_model: number },
): RowSource {
  const { type, isLittleEndian, start, n_rows, d_model } = given;
  const rowBytes = d_model * BYTES_PER_NUMBER[type];
  if (file.size !== start + n_rows * rowBytes) {
    throw new RangeError(
      `${path} has ${file.size} bytes; ${n_rows} rows of ${d_model} take ${start + n_rows * rowBytes}`,
    );
  }
  // One read at a time: the position in the file is shared.
  let last: Promise<unknown> = Promise.resolve();
  const read = (from: number, to: number): Promise<Float32Array> => {
    const bytes = last.then(() => file.read(start + from * rowBytes, (to - from) * rowBytes));
    last = bytes.catch(() => {});
    return bytes.then((found) => readFloats(found, type, isLittleEndian));
  };
  return { n_rows, d_model, read };
}
