/**
 * Sparse matrices in memory, for code that reads them from files.
 *
 * @module
 */
import type { CsrMatrix, CsrRows } from "../../io/scipy_csr.ts";

/** The elements of a dense [rows, columns] matrix that are not 0, seven rows at a time. */
export function csrOf(dense: ArrayLike<number>, columns: number): CsrMatrix {
  const n_rows = dense.length / columns;
  const [starts, indices, values]: [number[], number[], number[]] = [[0], [], []];
  for (let i = 0; i < dense.length; i++) {
    if (dense[i] !== 0) {
      indices.push(i % columns);
      values.push(dense[i]!);
    }
    if ((i + 1) % columns === 0) starts.push(values.length);
  }
  return {
    name: "codes",
    shape: [n_rows, columns],
    n_entries: values.length,
    async *rows() {
      for (let row = 0; row < n_rows; row += 7) {
        const some = starts.slice(row, row + 8);
        const [from, to] = [some[0]!, some.at(-1)!];
        yield await Promise.resolve<CsrRows>({
          row_starts: Uint32Array.from(some, (start) => start - from),
          indices: Uint32Array.from(indices.slice(from, to)),
          values: Float32Array.from(values.slice(from, to)),
        });
      }
    },
  };
}
