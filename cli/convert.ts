/**
 * `saev convert`: a checkpoint of any format in another one.
 *
 * @module
 */

import { findTargets, readCheckpoint, TARGET_FORMATS, writeCheckpoint } from "../io/mod.ts";
import { CHECKPOINT_DETAILS, inFlags, opening, READ_OPTIONS, readOptions, warn } from "./checkpoint.ts";
import { type Arguments, type Command, print, say, UsageError } from "./command.ts";

/** The command. */
export const convertCommand: Command = {
  summary: "Write a checkpoint of any format in another one.",
  positionals: ["CHECKPOINT", "OUT"],
  options: {
    to: { value: "FORMAT", help: TARGET_FORMATS.join(", ") },
    schema: { value: "N", help: "for --to saev: 5, or 1 for Python's versions from before August 2025 (5)" },
    overwrite: { help: "replace the files that stand at OUT" },
    lossy: { help: "write also what the format computes differently, and say what that is" },
    ...READ_OPTIONS,
    json: { help: "print JSON" },
  },
  permissions:
    `--allow-read=CHECKPOINT, and --allow-read and --allow-write of the folder that OUT is in. Formats of several files need
their folder, an address needs --allow-net.`,
  details: `${CHECKPOINT_DETAILS}

OUT is a file; for saelens and dictionary_learning, a folder. A link is followed; a pipe or a device
such as /dev/stdout is written into. saev is read by the Python package, saev_nn by this library
alone, which keeps everything; onnx computes x_hat and f_x of x, onnx_encoder f_x alone.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [from, to] = args.positionals as [string, string];
  const format = args.choice("to", TARGET_FORMATS);
  if (format === undefined) throw new UsageError(`convert needs --to; there is ${TARGET_FORMATS.join(", ")}`);
  const schema = args.choice("schema", ["5", "1"]);
  if (schema !== undefined && format !== "saev") {
    throw new UsageError(`--schema is for --to saev, found --to ${format}`);
  }
  const options = readOptions(args);
  const overwrite = args.flag("overwrite");
  const targets = await findTargets(to, { format, overwrite });
  const model = await opening(signal, (source) => readCheckpoint(from, { ...source, ...options }));
  warn(model.warnings);
  if (targets.some(({ target }) => target === "pipe")) say(`${to} is a pipe: waiting until it is read`);
  const { paths, folded, lost, perhapsLost } = await writeCheckpoint(to, model, {
    format,
    overwrite,
    lossy: args.flag("lossy"),
    ...schema && { schema: schema === "1" ? 1 : 5 },
  });
  // What is written into may be stdout, which then holds nothing else.
  const tell = targets.some(({ target }) => target === "stream") ? say : print;
  if (args.flag("json")) tell(JSON.stringify({ format, paths, folded, lost, perhapsLost }));
  else {
    for (const path of paths) tell(path);
    if (folded.length > 0) say(`folded into the parameters: ${folded.join(", ")}, for which ${format} has no place`);
    for (const what of lost) say(`lost: ${inFlags(what)}`);
    for (const what of perhapsLost) say(`perhaps lost: ${inFlags(what)}`);
  }
  return 0;
}
