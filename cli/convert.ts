/**
 * `saev convert`: converts a checkpoint from any format to another.
 *
 * @module
 */

import { findTargets, readCheckpoint, TARGET_FORMATS, writeCheckpoint } from "../io/mod.ts";
import { CHECKPOINT_DETAILS, inFlags, opening, READ_OPTIONS, readOptions, warn } from "./checkpoint.ts";
import { type Arguments, type Command, print, say, UsageError } from "./command.ts";

/** The command. */
export const convertCommand: Command = {
  summary: "Convert a checkpoint from any format to another.",
  positionals: ["CHECKPOINT", "OUT"],
  options: {
    to: { value: "FORMAT", help: TARGET_FORMATS.join(", ") },
    schema: { value: "N", help: "with --to saev: 5, or 1 for Python saev before August 2025 (default: 5)" },
    overwrite: { help: "replace existing files at OUT" },
    lossy: { help: "convert even if the format computes something differently; the differences are printed" },
    ...READ_OPTIONS,
    json: { help: "print JSON" },
  },
  permissions:
    `--allow-read=CHECKPOINT; --allow-read and --allow-write for the folder of OUT. A format of several files needs
read access to its folder; an address needs --allow-net.`,
  details: `${CHECKPOINT_DETAILS}

OUT is a file; for saelens and dictionary_learning it is a folder. Symbolic links are followed. OUT may be a pipe or a device
such as /dev/stdout. The Python package reads saev. Only this library reads saev_nn, which
keeps everything. onnx computes x_hat and f_x from x; onnx_encoder computes only f_x.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [from, to] = args.positionals as [string, string];
  const format = args.choice("to", TARGET_FORMATS);
  if (format === undefined) throw new UsageError(`convert needs --to; expected one of ${TARGET_FORMATS.join(", ")}`);
  const schema = args.choice("schema", ["5", "1"]);
  if (schema !== undefined && format !== "saev") {
    throw new UsageError(`--schema works only with --to saev, found --to ${format}`);
  }
  const options = readOptions(args);
  const overwrite = args.flag("overwrite");
  const targets = await findTargets(to, { format, overwrite });
  const model = await opening(signal, (source) => readCheckpoint(from, { ...source, ...options }));
  warn(model.warnings);
  if (targets.some(({ target }) => target === "pipe")) say(`${to} is a pipe: waiting for a reader`);
  const { paths, folded, lost, perhapsLost } = await writeCheckpoint(to, model, {
    format,
    overwrite,
    lossy: args.flag("lossy"),
    ...schema && { schema: schema === "1" ? 1 : 5 },
  });
  // A target may be stdout, which must then hold nothing else.
  const tell = targets.some(({ target }) => target === "stream") ? say : print;
  if (args.flag("json")) tell(JSON.stringify({ format, paths, folded, lost, perhapsLost }));
  else {
    for (const path of paths) tell(path);
    if (folded.length > 0) {
      say(`folded into the parameters, because ${format} has no field for it: ${folded.join(", ")}`);
    }
    for (const what of lost) say(`lost: ${inFlags(what)}`);
    for (const what of perhapsLost) say(`perhaps lost: ${inFlags(what)}`);
  }
  return 0;
}
