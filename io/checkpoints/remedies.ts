/**
 * The options that messages recommend, as programs write them.
 *
 * Messages use only these texts, so that a command line can substitute its own flags.
 *
 * @module
 */

/** The options of `load`, `dump` and others that messages mention. */
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
