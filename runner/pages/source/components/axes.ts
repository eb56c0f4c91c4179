/**
 * How far axes go, and where their ticks stand.
 *
 * @module
 */

/** From where to where an axis goes, and whether it is logarithmic. */
export interface Axis {
  /** The least value that it shows. */
  readonly from: number;
  /** The largest. */
  readonly to: number;
  /** Whether equal ratios are equally long. */
  readonly isLog: boolean;
}

/** An axis for these values: logarithmic where all are positive and the largest is more than `ratio` times the least. */
export function axisOf(values: readonly (number | null)[], ratio = 30): Axis {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null) continue;
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  if (least > most) return { from: 0, to: 1, isLog: false };
  if (least > 0 && most / least > ratio) {
    const room = (most / least) ** 0.04;
    return { from: least / room, to: most * room, isLog: true };
  }
  // Few values say more beside zero, unless they lie close together far from it.
  const from = least >= 0 && least < 0.6 * most ? 0 : least;
  const room = (most - from) * 0.05 || Math.abs(most) * 0.1 || 1;
  return { from: from === 0 ? 0 : from - room, to: most + room, isLog: false };
}

/** Round numbers on an axis, about `n` of them. */
export function ticksOf({ from, to, isLog }: Axis, n: number): number[] {
  if (isLog) {
    const [first, last] = [Math.floor(Math.log10(from)), Math.ceil(Math.log10(to))];
    const decades = Array.from({ length: last - first + 1 }, (_, i) => first + i);
    const within = (factors: readonly number[]) =>
      decades.flatMap((decade) => factors.map((factor) => factor * 10 ** decade)).filter((tick) =>
        tick >= from * 0.999 && tick <= to * 1.001
      );
    const finest = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5], [1, 3], [1]].map(within)
      .find((ticks) => ticks.length <= n);
    if (finest !== undefined) return finest;
    const every = Math.ceil(decades.length / n);
    return within([1]).filter((_, i) => i % every === 0);
  }
  const rough = (to - from) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999)! * power;
  const first = Math.ceil(from / step - 1e-9);
  const count = Math.floor(to / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
