/**
 * `saev inspect`: describes a checkpoint of any format.
 *
 * @module
 */

import { type FeaturesFile, openFeatures, typedArraysAsArrays } from "../eval/mod.ts";
import { CheckpointError, inspectCheckpoint, type Inspection, type TensorSummary } from "../io/mod.ts";
import { printable } from "../runner/mod.ts";
import { CHECKPOINT_DETAILS, opening, READ_OPTIONS, readOptions, warn } from "./checkpoint.ts";
import { type Arguments, type Command, print, table } from "./command.ts";

/** The command. */
export const inspectCommand: Command = {
  summary: "Describe a checkpoint of any format: configuration, tensors, formula, warnings.",
  positionals: ["CHECKPOINT"],
  options: { ...READ_OPTIONS, json: { help: "print JSON" } },
  permissions:
    `--allow-read=CHECKPOINT. A format of several files needs read access to its folder; an address needs --allow-net.`,
  details: `${CHECKPOINT_DETAILS}

Of a folder that saev features wrote, it shows the annotations.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const options = readOptions(args);
  const checkpoint = args.positionals[0]!;
  if (await Deno.stat(`${checkpoint}/features.json`).then(({ isFile }) => isFile, () => false)) {
    const { file } = await openFeatures(checkpoint);
    const { latents, images: _, ...rest } = file;
    await print(
      args.flag("json")
        ? printable(JSON.stringify({ ...rest, n_latents: latents.length }))
        : describeFeatures(file).map(printable).join("\n"),
    );
    return 0;
  }
  const found = await opening(signal, (source) => inspectCheckpoint(checkpoint, { ...source, ...options }));
  if (args.flag("json")) await print(printable(JSON.stringify(found, typedArraysAsArrays)));
  else await print(describe(found).map(printable).join("\n"));
  warn(found.warnings);
  if (found.refused !== null) throw new CheckpointError(found.refused);
  return 0;
}

/** What a folder of `saev features` is of, and what people said of its latents. */
function describeFeatures({ model, data, latents, n_dead, classes, annotations }: FeaturesFile): string[] {
  const count = (n: number, what: string): string => `${n.toLocaleString("en")} ${what}`;
  return [
    `features  of ${model.name}: ${count(latents.length, "latents")} of ${count(model.d_sae, `(${model.activation})`)}`,
    `data      ${data.name}: ${count(data.n_images, "images")}${
      classes ? ` of ${count(classes.length, "classes")}` : ""
    }`,
    `dead      ${count(n_dead, "latents")}`,
    "",
    annotations.length === 0 ? "annotations: none" : "annotations:",
    ...annotations.length === 0 ? [] : table(annotations.map(({ latent, name, tags, verdict, note }) => [
      String(latent),
      [name, verdict && `[${verdict}]`, tags.map((tag) => `#${tag}`).join(" "), note].filter((text) => text !== "")
        .join("  "),
    ])).split("\n"),
  ];
}

/** Lines of text, which may contain anything from the file. */
function describe({ format, schema, configs, tensors, formula, where, accept }: Inspection): string[] {
  const lines = [`format    ${format}${schema === null ? "" : `, schema ${schema}`}`];
  for (const [i, line] of formula.entries()) lines.push(`${i === 0 ? "computes" : "        "}  ${line}`);
  for (const [i, line] of where.entries()) lines.push(`${i === 0 ? "where" : "     "}     ${line}`);
  if (accept.length > 0) lines.push(`accept    ${accept.join(", ")}`);
  for (const [file, config] of Object.entries(configs)) {
    lines.push("", `${file}:`, ...configLines(config));
  }
  return [...lines, "", "tensors:", ...table(tensors.map(describeTensor)).split("\n")];
}

/** The fields of a configuration, one per line, with nested objects flattened. */
function configLines(config: unknown, path = ""): string[] {
  const isObject = typeof config === "object" && config !== null && !Array.isArray(config);
  const fields = isObject ? Object.entries(config) : [];
  if (fields.length === 0) return [`  ${path && `${path} = `}${cut(config)}`];
  return fields.flatMap(([name, value]) => configLines(value, path === "" ? name : `${path}.${name}`));
}

function cut(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function describeTensor({ name, shape, dtype, statistics }: TensorSummary): [string, string] {
  const what = `${dtype} [${shape.join(", ")}]`.padEnd(24);
  if (statistics === null) return [printable(name), `${what} empty`];
  const { min, max, mean, std, n_zero } = statistics;
  const [low, high, middle, spread] = [min, max, mean, std].map((value) => Number(value.toPrecision(4)));
  const zeros = n_zero > 0 ? `, ${n_zero} zeros` : "";
  return [printable(name), `${what} ${low} to ${high}, mean ${middle}, std ${spread}${zeros}`];
}
