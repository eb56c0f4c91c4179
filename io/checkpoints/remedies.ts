/**
 * What a message tells its reader to say, as programs say it.
 *
 * Messages take these texts and no others, so that a command line can put its own options in their place.
 *
 * @module
 */

/** The options of `load`, `dump` and the others that messages speak of. */
export const REMEDIES = {
  normalisedRows: `{ accept: ["normalised-rows"] }`,
  rescaledCodes: `{ accept: ["rescaled-codes"] }`,
  inputScale: `{ input: { mean: null, scale } }`,
  subtracts: `{ subtract_b_dec: true }`,
  doesNotSubtract: `{ subtract_b_dec: false }`,
  lossy: `{ lossy: true }`,
  overwrite: `{ overwrite: true }`,
  noNegativeCodes: `{ activation: { key: "top-k", relu: true } }`,
  schema5: `{ schema: 5 }`,
  schema5Folded: `{ schema: 5, fold: true }`,
  schema1: `{ schema: 1 }`,
  ownSchema: `{ schema: "saev_nn" }`,
} as const;
