/**
 * Muon again, in plain float64 loops and in the order of PyTorch's `torch.optim.Muon`.
 *
 * @module
 */

/** A row-major matrix. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}

/** PyTorch's defaults. */
export const MUON = { momentum: 0.95, weight_decay: 0.1, nesterov: true } as const;

/** The numbers of one step. */
export interface MuonStep {
  readonly lr: number;
  readonly momentum: number;
  readonly weight_decay: number;
  readonly nesterov: boolean;
}

/** One step: changes the parameter and the mean of its gradients. Shapes are those of the parameter as files have it. */
export function muon(parameter: Matrix, gradient: Matrix, mean: Matrix, step: MuonStep): void {
  const { rows, columns } = parameter;
  const { lr, momentum, weight_decay: decay, nesterov } = step;
  for (let i = 0; i < mean.values.length; i++) {
    mean.values[i]! += (gradient.values[i]! - mean.values[i]!) * (1 - momentum);
  }
  const update = mean.values.map((m, i) => nesterov ? gradient.values[i]! + (m - gradient.values[i]!) * momentum : m);
  const norm = Math.max(1e-7, Math.sqrt(update.reduce((sum, u) => sum + u * u, 0)));
  const unit = { rows, columns, values: update.map((u) => u / norm) };
  const { values } = newtonSchulz(unit, 5, [3.4445, -4.775, 2.0315]);
  const rate = lr * Math.sqrt(Math.max(1, rows / columns));
  for (let i = 0; i < values.length; i++) {
    parameter.values[i] = parameter.values[i]! * (1 - lr * decay) - rate * values[i]!;
  }
}

/** Some steps X ← aX + (bG + cG²) X, G = XXᵀ, on the transpose of a matrix with more rows than columns. */
export function newtonSchulz(x: Matrix, steps: number, [a, b, c]: readonly [number, number, number]): Matrix {
  if (x.rows > x.columns) return transpose(newtonSchulz(transpose(x), steps, [a, b, c]));
  let result = x;
  for (let step = 0; step < steps; step++) {
    const gram = product(result, transpose(result));
    const square = product(gram, gram);
    const polynomial = { ...gram, values: gram.values.map((g, i) => b * g + c * square.values[i]!) };
    const change = product(polynomial, result).values;
    result = { ...x, values: result.values.map((value, i) => a * value + change[i]!) };
  }
  return result;
}

/** Rows as columns. */
export function transpose({ rows, columns, values }: Matrix): Matrix {
  const turned = values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
  return { rows: columns, columns: rows, values: turned };
}

/** A · B. */
function product(a: Matrix, b: Matrix): Matrix {
  const values = new Float64Array(a.rows * b.columns);
  for (let row = 0; row < a.rows; row++) {
    for (let k = 0; k < a.columns; k++) {
      const factor = a.values[row * a.columns + k]!;
      for (let column = 0; column < b.columns; column++) {
        values[row * b.columns + column]! += factor * b.values[k * b.columns + column]!;
      }
    }
  }
  return { rows: a.rows, columns: b.columns, values };
}
