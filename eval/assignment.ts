/**
 * Assigns one column to each row so that the sum of the chosen values is large: exactly, or greedily where that takes
 * too long.
 *
 * @module
 */

/** Rows assigned before other work gets a turn. */
const ROWS_PER_TURN = 64;

/**
 * The column of each row, no column used twice, with the largest possible sum of values. values [rows, columns], rows ≤
 * columns.
 *
 * Shortest augmenting paths (Crouse 2016, "On implementing 2D rectangular assignment algorithms"), O(rows² columns):
 * with u, v the prices of rows and columns, every pair has −value ≥ u + v, and a pair that is taken has equality.
 *
 * @throws {unknown} the signal's reason, if it is aborted.
 */
export async function largestAssignment(
  values: Float32Array,
  rows: number,
  columns: number,
  signal?: AbortSignal,
): Promise<Uint32Array> {
  if (rows > columns) throw new RangeError(`cannot assign ${rows} rows to only ${columns} columns`);
  if (values.length !== rows * columns || !values.every(Number.isFinite)) {
    throw new RangeError(`an assignment needs ${rows} × ${columns} finite values, found ${values.length} values`);
  }
  const [u, v] = [new Float64Array(rows), new Float64Array(columns)];
  const [columnOf, rowOf] = [new Int32Array(rows).fill(-1), new Int32Array(columns).fill(-1)];
  const [distance, previous, left] = [new Float64Array(columns), new Int32Array(columns), new Int32Array(columns)];
  const scanned = new Int32Array(columns);
  for (let start = 0; start < rows; start++) {
    if (start % ROWS_PER_TURN === 0) await new Promise((resolve) => setTimeout(resolve));
    signal?.throwIfAborted();
    distance.fill(Infinity);
    for (let c = 0; c < columns; c++) left[c] = c;
    let [n_left, n_scanned, row, shortest, end] = [columns, 0, start, 0, -1];
    while (end < 0) {
      const offset = row * columns;
      const reached = shortest - u[row]!;
      let [nearest, at] = [Infinity, -1];
      for (let i = 0; i < n_left; i++) {
        const c = left[i]!;
        const through = reached - values[offset + c]! - v[c]!;
        if (through < distance[c]!) {
          distance[c] = through;
          previous[c] = row;
        }
        // Among equally near columns, a free one ends the path.
        if (distance[c]! < nearest || (distance[c] === nearest && rowOf[c]! < 0)) [nearest, at] = [distance[c]!, i];
      }
      shortest = nearest;
      const c = left[at]!;
      left[at] = left[--n_left]!;
      scanned[n_scanned++] = c;
      if (rowOf[c]! < 0) end = c;
      else row = rowOf[c]!;
    }
    u[start]! += shortest;
    for (let i = 0; i < n_scanned - 1; i++) {
      const c = scanned[i]!;
      u[rowOf[c]!]! += shortest - distance[c]!;
      v[c]! -= shortest - distance[c]!;
    }
    for (let c = end; c >= 0;) {
      const owner = previous[c]!;
      rowOf[c] = owner;
      [columnOf[owner], c] = [c, owner === start ? -1 : columnOf[owner]!];
    }
  }
  return Uint32Array.from(columnOf);
}

/** The largest values of a row. */
export interface Candidates {
  /** The row. */
  readonly row: number;
  /** Its columns by descending value, the lower column first on ties: the best ones, or all. */
  readonly columns: Uint32Array;
  /** Their values. */
  readonly values: Float32Array;
  /** Whether `columns` holds all columns. */
  readonly isComplete: boolean;
}

/**
 * The column of each row, no column used twice, chosen greedily: the pair with the largest value first, the lower row
 * on ties. `candidatesOf` finds the best free columns of rows; it is called again when all candidates of a row are
 * taken.
 */
export async function greedyAssignment(
  rows: number,
  candidatesOf: (rows: readonly number[], free: (column: number) => boolean) => Promise<readonly Candidates[]>,
): Promise<Uint32Array> {
  const columnOf = new Int32Array(rows).fill(-1);
  const taken = new Set<number>();
  while (taken.size < rows) {
    const open = Array.from(columnOf.keys()).filter((row) => columnOf[row]! < 0);
    const candidates = await candidatesOf(open, (column) => !taken.has(column));
    const byRow = new Map(candidates.map((found) => [found.row, { ...found, free: found.columns.length }]));
    const rowsOf = new Map<number, number[]>();
    for (const { row, columns } of candidates) {
      for (const column of columns) {
        const list = rowsOf.get(column);
        if (list) list.push(row);
        else rowsOf.set(column, [row]);
      }
    }
    const pairs = candidates.flatMap(({ row, columns, values }) =>
      Array.from(columns, (column, i) => ({ row, column, value: values[i]! }))
    ).sort((a, b) => b.value - a.value || a.row - b.row || a.column - b.column);
    // Beyond its candidates, a row cannot get more than the value of the last one.
    let unknown = -Infinity;
    for (const { row, column, value } of pairs) {
      if (value <= unknown) break;
      if (columnOf[row]! >= 0 || taken.has(column)) continue;
      columnOf[row] = column;
      taken.add(column);
      for (const other of rowsOf.get(column)!) {
        const list = byRow.get(other)!;
        list.free--;
        if (list.free === 0 && columnOf[other]! < 0 && !list.isComplete) {
          unknown = Math.max(unknown, list.values.at(-1)!);
        }
      }
    }
  }
  return Uint32Array.from(columnOf);
}
