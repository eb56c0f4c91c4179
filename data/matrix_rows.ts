/**
 * The rows of an array in a file, of which any can be read without the others.
 *
 * @module
 */

import { CheckpointError } from "../io/errors.ts";
import type { ArrayPlace } from "../io/array_place.ts";
import { BYTES_PER_NUMBER, InexactError, isFloatType, readFloats, readIntegersAsFloats } from "../io/numbers.ts";
import { countElements } from "../io/stored_tensor.ts";
import { ShapeError } from "../kernels/engine/errors.ts";
import { checkRange, type RowSource } from "../nn/rows.ts";

/** Rows that lie column by column are read this far ahead where they are wanted in order. */
const NUMBERS_AHEAD = 2 ** 24;

/**
 * The rows of a matrix. An array of more dimensions becomes one of rows of its last, where that is what `d_model` says.
 *
 * Numbers become float32: wider floating-point numbers are rounded, integers must be ones that float32 holds.
 *
 * @throws {CheckpointError} for an array of other dimensions, with what makes a matrix of it in Python.
 * @throws {ShapeError} for rows of another length than `d_model`.
 */
export function matrixRows(place: ArrayPlace, d_model: number | null): RowSource {
  const { what, isFortranOrder } = place;
  const [n_rows, columns] = matrixShape(place, d_model);
  if (d_model !== null && d_model !== columns) {
    throw new ShapeError(`reading ${what}: found rows of ${columns} numbers, expected ${d_model} (d_model)`);
  }
  const read = isFortranOrder ? columnReader(place, n_rows, columns) : rowReader(place, columns);
  return {
    n_rows,
    d_model: columns,
    async read(from, to) {
      checkRange({ n_rows }, from, to);
      return from === to ? new Float32Array() : await read(from, to);
    },
  };
}

function matrixShape(
  { what, python, shape, isFortranOrder }: ArrayPlace,
  d_model: number | null,
): readonly [rows: number, columns: number] {
  const columns = shape.at(-1) ?? 0;
  if (columns > 0) {
    if (shape.length === 2) return [shape[0]!, columns];
    const n_rows = countElements(shape) / columns;
    if (shape.length > 2 && columns === d_model && !isFortranOrder) return [n_rows, columns];
    if (shape.length > 2) {
      throw new CheckpointError(
        `reading ${what}: found the shape [${
          shape.join(", ")
        }], expected [rows, columns]. If it is ${n_rows} rows of ` +
          `${columns}, ${isFortranOrder ? "" : `give d_model = ${columns}, or `}reshape it in Python: ` +
          `numpy.save("rows.npy", ${python}.reshape(-1, ${columns}))`,
      );
    }
  }
  const line = shape.length === 1 ? `; in Python: numpy.save("rows.npy", ${python}.reshape(-1, COLUMNS))` : "";
  throw new CheckpointError(`reading ${what}: found the shape [${shape.join(", ")}], expected [rows, columns]${line}`);
}

type Reader = (from: number, to: number) => Promise<Float32Array>;

function rowReader(place: ArrayPlace, columns: number): Reader {
  const { source, start, type } = place;
  const rowBytes = columns * BYTES_PER_NUMBER[type];
  return async (from, to) => {
    const bytes = await source.read(start + from * rowBytes, start + to * rowBytes);
    return toFloats(place, bytes, (i) => [from + Math.floor(i / columns), i % columns]);
  };
}

/** Each column is read by itself, and more of it than was asked for where rows are wanted in order. */
function columnReader(place: ArrayPlace, n_rows: number, columns: number): Reader {
  const { source, start, type } = place;
  const size = BYTES_PER_NUMBER[type];
  const ahead = Math.max(1, Math.floor(NUMBERS_AHEAD / columns));
  const readColumns: Reader = async (from, to) => {
    const rows = new Float32Array((to - from) * columns);
    for (let column = 0; column < columns; column++) {
      const at = start + column * n_rows * size;
      const bytes = await source.read(at + from * size, at + to * size);
      const values = toFloats(place, bytes, (i) => [from + i, column]);
      for (let row = 0; row < values.length; row++) rows[row * columns + column] = values[row]!;
    }
    return rows;
  };
  let [kept, keptFrom, end]: [Promise<Float32Array>, number, number] = [Promise.resolve(new Float32Array()), 0, 0];
  return async (from, to) => {
    if (to - from >= ahead) return await readColumns(from, to);
    if (from < keptFrom || to > end) {
      const last = from === end ? Math.min(n_rows, from + ahead) : to;
      [kept, keptFrom, end] = [readColumns(from, last), from, last];
    }
    const offset = keptFrom;
    try {
      return (await kept).slice((from - offset) * columns, (to - offset) * columns);
    } catch {
      // What was wrong may lie in rows that were not asked for.
      [keptFrom, end] = [0, 0];
      return await readColumns(from, to);
    }
  };
}

function toFloats(
  { what, python, type, isLittleEndian }: ArrayPlace,
  bytes: Uint8Array,
  placeOf: (index: number) => readonly [row: number, column: number],
): Float32Array {
  if (isFloatType(type)) return readFloats(bytes, type, isLittleEndian);
  try {
    return readIntegersAsFloats(bytes, type, isLittleEndian);
  } catch (error) {
    if (!(error instanceof InexactError)) throw error;
    const [row, column] = placeOf(error.index);
    throw new CheckpointError(
      `reading ${what}: found the ${type} ${error.value} in row ${row}, column ${column}, which float32 cannot hold; ` +
        `to round in Python: numpy.save("rows.npy", ${python}.astype("float32"))`,
      { cause: error },
    );
  }
}
