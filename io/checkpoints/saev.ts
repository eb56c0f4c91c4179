/**
 * Checkpoints of the Python package `saev`: a line of JSON, then a PyTorch file of the four parameters, and a
 * BatchTopK's threshold.
 *
 * Every schema can be read, including those that Python itself no longer opens:
 *
 * | schema | written | encoder, by default |
 * | --- | --- | --- |
 * | none | until April 2025 | `h = (x − b_dec) W_enc + b_enc` |
 * | 1, `cls` an activation | until July 2025 | the same |
 * | 1, `cls` the configuration; 2 | until October 2025 | `h = x W_enc + b_enc` |
 * | 3, 4, 5 | since | the same |
 *
 * The formula changed on 31 July 2025, and no file records which one its weights were trained with. Files of that day,
 * and Matryoshka models until September (whose training still subtracted b_dec), may need {@link
 * ParseOptions.subtract_b_dec}. A BatchTopK has a threshold since 16 November 2025. Before, its codes depended on the
 * batch, or it was a TopK of each row under another name (in all versions that wrote schema 3, and some that wrote the
 * schemas next to it). Such files of schema 3 are read as that TopK; the others are refused.
 *
 * This library writes schema 5 and, on request, schema 1 with `cls: "Relu"` and the schema `"saev_nn"`, which holds
 * every model of this library exactly and which Python refuses. Schema 5 has no field for the subtraction of b_dec and
 * for the mean and scale of the inputs; they are folded into the parameters. Schema 1 is exact for the two Python
 * versions that subtract b_dec. Versions of August and September 2025 omit the subtraction when they read it, from any
 * writer, and later ones refuse it.
 *
 * What upstream's header has no field for is in one more top-level key, `"saev_nn"`, which Python ignores: mainly the
 * activation in this library's form, including all training settings. Its last field is a CRC-32 of the header's text
 * before it. Headers without the key (all of upstream's own) have no checksum, so a damaged digit in one, or the loss
 * of a field with a default, may go unnoticed. The archive's checksums always cover the parameters.
 *
 * @module
 */

import { CheckpointError } from "../errors.ts";
import { checkScaling, isIdentity, type ParsedCheckpoint } from "../model.ts";
import { type Formatted, type FormatWriter, type LoseNegatives, oneFile, type WritableFormat } from "./format.ts";
import { REMEDIES } from "./remedies.ts";
import { openCheckpoint } from "./saev_reader.ts";
import { isUpstreams, planCheckpoint } from "./saev_schemas.ts";
import { formatCheckpointPieces } from "./saev_writer.ts";

/** The format. */
export const SAEV: WritableFormat<"saev"> = {
  name: "saev",
  files: { weights: ["sae.pt", "checkpoint/sae.pt"] },
  recognise: ({ weights }) => weights === null,
  read: async ({ source }, { subtract_b_dec, input }) => {
    const opened = await openCheckpoint(source, subtract_b_dec === undefined ? {} : { subtract_b_dec });
    const { model } = opened;
    if (input === undefined) return opened;
    if (!isIdentity(model.input)) {
      throw new CheckpointError(
        `reading ${source.name}: the file has its own input scaling; leave out ${REMEDIES.inputScale}`,
      );
    }
    checkScaling(`reading ${source.name}`, model.cfg, input);
    return { ...opened, model: { ...model, input } };
  },
  write: { files: [""], format: formatForPython },
};

/** Holds every model exactly, for this library only; read as a schema of {@link SAEV}. */
export const SAEV_NN: FormatWriter = {
  files: [""],
  format: ({ cfg, parameters, input }) =>
    oneFile(formatCheckpointPieces(cfg, parameters, input, { schema: "saev_nn" })),
};

/** A file that Python reads as the same function. */
function formatForPython(model: ParsedCheckpoint, lose: LoseNegatives, schema: 5 | 1 = 5): Formatted {
  const { cfg, parameters, input } = model;
  const { activation } = cfg;
  if (!isUpstreams(activation)) {
    throw new CheckpointError(
      `writing saev: Python saev has no ${activation.key} activation; use the format saev_nn, which keeps it`,
    );
  }
  if (activation.key === "top-k" && activation.relu) {
    lose(
      activation.top_k,
      "Python keeps negative pre-activations that are among a row's largest; this model sets them to 0",
    );
    return formatForPython({ ...model, cfg: { ...cfg, activation: { ...activation, relu: false } } }, lose, schema);
  }
  return oneFile(
    formatCheckpointPieces(cfg, parameters, input, { schema }),
    planCheckpoint(model, { schema }).folded,
  );
}
