/**
 * Numbers as people read them.
 *
 * @module
 */

/** Three digits, thousands separated; `–` for what is not known. */
export function short(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e7)) {
    return value.toExponential(digits - 1).replace(/\.?0*e/, "e").replace("e+", "e");
  }
  return value.toLocaleString("en", { maximumSignificantDigits: Math.abs(value) >= 1000 ? 21 : digits });
}

/** The same in the little room beside a tick. */
export function tickText(value: number): string {
  return Math.abs(value) < 10_000
    ? short(value)
    : value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 });
}

/** One decimal. */
export function percent(share: number | null): string {
  return share === null ? "–" : `${(100 * share).toFixed(1)} %`;
}
