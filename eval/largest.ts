/**
 * The places of the largest values.
 *
 * @module
 */

/** Places of the largest values, the largest first, the earlier place on ties. */
export function largestOf(values: ArrayLike<number>, k: number): number[] {
  const best: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (best.length === k && values[i]! <= values[best[k - 1]!]!) continue;
    let at = Math.min(best.length, k - 1);
    for (; at > 0 && values[best[at - 1]!]! < values[i]!; at--) best[at] = best[at - 1]!;
    best[at] = i;
  }
  return best;
}
