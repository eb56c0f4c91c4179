/**
 * The best one-to-one assignment of rows to columns.
 *
 * Rows are added one at a time. With potentials u (rows) and v (columns) such that cost(r, c) − u_r − v_c ≥ 0, and 0
 * where r has c, the shortest path by reduced cost from the new row to a free column determines the changes (Jonker and
 * Volgenant 1987, as in Crouse 2016).
 *
 * @module
 */

/**
 * The column of each row that maximises Σ score[r, column_r]; score is [rows, columns].
 *
 * Takes at most rows² · columns steps, and about rows · columns if most rows prefer different columns.
 *
 * @throws {RangeError} if there are more rows than columns, or `score` is not [rows, columns] of finite numbers.
 */
export function assign(score: Float32Array, rows: number, columns: number): Int32Array {
  if (rows > columns) throw new RangeError(`cannot assign ${rows} rows to only ${columns} columns`);
  if (score.length !== rows * columns || !score.every(Number.isFinite)) {
    throw new RangeError(`an assignment needs ${rows} × ${columns} finite scores, found ${score.length} values`);
  }
  const u = new Float64Array(rows);
  const v = new Float64Array(columns);
  const columnOf = new Int32Array(rows).fill(-1);
  const rowOf = new Int32Array(columns).fill(-1);
  const distance = new Float64Array(columns);
  const cameFrom = new Int32Array(columns);
  const isDone = new Uint8Array(columns);
  for (let start = 0; start < rows; start++) {
    distance.fill(Infinity);
    isDone.fill(0);
    const visited: number[] = [];
    let row = start;
    let reached = 0;
    let free = -1;
    while (free < 0) {
      let nearest = -1;
      const from = row * columns;
      for (let c = 0; c < columns; c++) {
        if (isDone[c]) continue;
        const through = reached - score[from + c]! - u[row]! - v[c]!;
        if (through < distance[c]!) {
          distance[c] = through;
          cameFrom[c] = row;
        }
        // Among equally near columns a free one ends the search.
        if (
          nearest < 0 || distance[c]! < distance[nearest]! || (distance[c] === distance[nearest] && rowOf[c]! < 0)
        ) {
          nearest = c;
        }
      }
      reached = distance[nearest]!;
      isDone[nearest] = 1;
      if (rowOf[nearest]! < 0) free = nearest;
      else {
        visited.push(nearest);
        row = rowOf[nearest]!;
      }
    }
    u[start]! += reached;
    for (const c of visited) {
      const by = reached - distance[c]!;
      u[rowOf[c]!]! += by;
      v[c]! -= by;
    }
    for (let c = free; c >= 0;) {
      const owner = cameFrom[c]!;
      const before = columnOf[owner]!;
      rowOf[c] = owner;
      columnOf[owner] = c;
      c = before;
    }
  }
  return columnOf;
}
