/**
 * The colours of heat-maps.
 *
 * @module
 */

/** Inferno at equal steps: colours whose lightness rises evenly. */
export const INFERNO: readonly (readonly [red: number, green: number, blue: number])[] = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
];

/** Red, green and blue of a share of the largest value, between those steps. */
export function colourOf(share: number): [red: number, green: number, blue: number] {
  const place = Math.min(share, 1) * (INFERNO.length - 1);
  const [low, high] = [INFERNO[Math.floor(place)]!, INFERNO[Math.ceil(place)]!];
  return [0, 1, 2].map((i) => low[i]! + (place % 1) * (high[i]! - low[i]!)) as [number, number, number];
}
