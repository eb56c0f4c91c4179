/**
 * Rows of an array in a file, any of which can be read without the others.
 *
 * @module
 */

import { CheckpointError } from "../io/errors.ts";
import type { ArrayPlace } from "../io/array_place.ts";
import { BYTES_PER_NUMBER, InexactError, isFloatType, readFloats, readIntegersAsFloats } from "../io/numbers.ts";
import { countElements } from "../io/stored_tensor.ts";
import { ShapeError } from "../kernels/engine/errors.ts";
import { checkRange, type RowSource } from "../nn/rows.ts";

/** How far ahead to read where an array is stored column by column and rows are read in order. */
const NUMBERS_AHEAD = 2 ** 24;

/**
 * The rows of a matrix. An array of more dimensions becomes rows of its last dimension if that equals `d_model`.
 *
 * Numbers become float32. Wider floating-point numbers are rounded; integers must be exactly representable.
 *
 * @throws {CheckpointError} for an array of other dimensions; the message shows how to reshape it in Python.
 * @throws {ShapeError} for rows of a width other than `d_model`.
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

/** Reads each column separately, and ahead if rows are read in order. */
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
      // The bad value may lie in rows that were not requested.
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
