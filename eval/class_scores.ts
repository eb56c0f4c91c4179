/**
 * How well one number separates each class of examples from all others, exactly and for all classes at once.
 *
 * For N examples of which P are in class c, AUROC_c is the share of pairs (one in c, one outside) in which the example
 * in c has the larger value, ties counted as half; by midranks r, `(Σ_{c} r − P (P + 1) / 2) / (P (N − P))`. The
 * average precision is `Σ_g (R_g − R_{g−1}) P_g` over groups of equal values, the largest first, as in scikit-learn.
 * Examples that are not listed have the value 0.
 *
 * The cost is one sort of the listed values, for any number of classes.
 *
 * @module
 */

/** The scores of one class. */
export interface ClassScore {
  /** NaN if no example, or every example, is in the class. */
  readonly auroc: number;
  /** NaN if no example is in the class. */
  readonly average_precision: number;
}

/**
 * The scores of each class, from the values of the listed examples; all others have the value 0.
 *
 * @param classOf the class of each listed example
 * @param counts [classes], examples of each class, listed or not
 */
export function classScores(
  values: ArrayLike<number>,
  classOf: ArrayLike<number>,
  counts: ArrayLike<number>,
): ClassScore[] {
  const nClasses = counts.length;
  let nExamples = 0;
  for (let c = 0; c < nClasses; c++) nExamples += counts[c]!;
  const order = Array.from({ length: values.length }, (_, i) => i).sort((a, b) => values[b]! - values[a]!);
  const [ranks, found, precision] = [
    new Float64Array(nClasses),
    new Float64Array(nClasses),
    new Float64Array(nClasses),
  ];
  const unlisted = Float64Array.from(counts);
  for (const i of order) unlisted[classOf[i]!]!--;
  let nUnlisted = nExamples - order.length;
  let above = 0;
  const inGroup = new Map<number, number>();
  /** The next examples, by falling value, of which `inGroup` has so many of each class, have one value. */
  const addGroup = (size: number): void => {
    const midrank = nExamples - above - (size - 1) / 2;
    above += size;
    for (const [c, n] of inGroup) {
      ranks[c]! += n * midrank;
      found[c]! += n;
      precision[c]! += n * found[c]! / above;
    }
    inGroup.clear();
  };
  const addUnlisted = (nListed: number): void => {
    for (let c = 0; c < nClasses; c++) {
      if (unlisted[c]! > 0) inGroup.set(c, (inGroup.get(c) ?? 0) + unlisted[c]!);
    }
    addGroup(nListed + nUnlisted);
    nUnlisted = 0;
  };
  for (let from = 0, to = 0; from < order.length; from = to) {
    const value = values[order[from]!]!;
    if (value < 0 && nUnlisted > 0) addUnlisted(0);
    for (; to < order.length && values[order[to]!] === value; to++) {
      const c = classOf[order[to]!]!;
      inGroup.set(c, (inGroup.get(c) ?? 0) + 1);
    }
    if (value === 0) addUnlisted(to - from);
    else addGroup(to - from);
  }
  if (nUnlisted > 0) addUnlisted(0);
  return Array.from({ length: nClasses }, (_, c) => {
    const n = counts[c]!;
    return {
      auroc: (ranks[c]! - n * (n + 1) / 2) / (n * (nExamples - n)),
      average_precision: precision[c]! / n,
    };
  });
}

/** The share of the most frequent class; NaN for an empty list. */
export function purity(classes: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const c of classes) counts.set(c, (counts.get(c) ?? 0) + 1);
  return Math.max(0, ...counts.values()) / classes.length;
}
