/** The file that `saev config` prints, and the tables of fields that it, the checks and the doc comments share. @module */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parse } from "@std/toml";
import { ACTIVATION_FIELDS, completeActivation } from "../../nn/activations/mod.ts";
import { completeConfig, CONFIG_FIELDS } from "../../nn/config.ts";
import type { AnyFields, Field, Kinds } from "../../nn/fields.ts";
import { AUXILIARIES, completeSparsity, SPARSITIES } from "../../nn/loss_terms.ts";
import { getObjective, OBJECTIVES } from "../../objectives/objective.ts";
import {
  DATA_FIELDS,
  INIT_FIELDS,
  listFields,
  LOG_FIELDS,
  LOOP_FIELDS,
  SECTIONS,
  SLURM_FIELDS,
} from "../../runner/config_sections.ts";
import { UPSTREAM } from "../../runner/defaults.ts";
import { configText } from "../../runner/config_text.ts";
import { completeRunConfig } from "../../runner/run_config.ts";
import { TRAIN_DEFAULTS } from "../../train/options.ts";

/** The tables of fields of every section. */
function allTables(): AnyFields[] {
  return Object.values(SECTIONS).flatMap((section) =>
    "fields" in section ? [section.fields] : Object.values(section.kinds)
  );
}

/** The tables behind a `#` after the live ones, each without its first `#`. */
function alternatives(): Record<string, unknown>[] {
  return configText().split("\n\n")
    .filter((block) => block.startsWith("# Or:"))
    .map((block) => parse(block.replaceAll(/^# ?/gm, "").replace(/^Or:/, "")));
}

Deno.test("every default is the one that is left out", () => {
  const written = completeRunConfig(parse(configText()));
  const left = completeRunConfig({ data: { path: "activations.npy" } });
  assertEquals([written.data, written.init, written.train, written.log], [left.data, left.init, left.train, left.log]);
  assertEquals(completeConfig(written.sae), completeConfig());
  assertEquals(getObjective(written.objective), getObjective(left.objective));
});

Deno.test("every activation, penalty, auxiliary loss and objective is there with its defaults", () => {
  // deno-lint-ignore no-explicit-any
  const found: any[] = alternatives();
  const activations = found.map(({ sae }) => sae?.activation).filter((activation) => activation?.key !== undefined);
  const inner = found.map(({ sae }) => sae?.activation).filter((activation) => activation && !activation.key);
  const keys = (all: { readonly key: string }[], otherwise: string) =>
    new Set([otherwise, ...all.map(({ key }) => key)]);
  assertEquals(keys(activations, "top-k"), new Set(Object.keys(ACTIVATION_FIELDS)));
  for (const activation of activations) {
    assertEquals(completeActivation(activation), completeActivation({ key: activation.key }));
  }
  const sparsities = inner.map(({ sparsity }) => sparsity).filter((sparsity) => sparsity !== undefined);
  assertEquals(keys(sparsities, "no-sparsity"), new Set(Object.keys(SPARSITIES)));
  for (const sparsity of sparsities) assertEquals(completeSparsity(sparsity), sparsity);
  const auxes = inner.map(({ aux }) => aux).filter((aux) => aux !== undefined);
  assertEquals(keys(auxes, "auxk"), new Set(Object.keys(AUXILIARIES)));
  for (const aux of auxes) {
    assertEquals(
      completeActivation({ key: "jump-relu", aux }),
      completeActivation({ key: "jump-relu", aux: { key: aux.key } }),
    );
  }
  const objectives = found.flatMap(({ objective }) => objective ?? []);
  assertEquals(keys(objectives, "vanilla"), new Set(Object.keys(OBJECTIVES)));
  for (const objective of objectives) assertEquals(getObjective(objective), getObjective({ key: objective.key }));
});

Deno.test("values and examples are what their fields take", () => {
  const check = (fields: AnyFields): void => {
    for (const [name, field] of Object.entries(fields)) {
      const shown = field.otherwise ?? field.example;
      if (field.kinds === undefined) assertEquals(field.complete(name, shown), shown, name);
      else Object.values(field.kinds).forEach(check);
    }
  };
  allTables().forEach(check);
});

Deno.test("every field of every table is in the text", () => {
  const text = configText();
  const check = (fields: AnyFields): void => {
    for (const [name, { kinds, about }] of Object.entries(fields)) {
      assert(kinds !== undefined || new RegExp(`^(?:# )*${name} = `, "m").test(text), `${name} is not there`);
      assertStringIncludes(text, about.split(" ").slice(0, 3).join(" "), name);
      if (kinds !== undefined) Object.values(kinds).forEach(check);
    }
  };
  allTables().forEach(check);
  assertEquals(listFields().toSorted(), ["data.ignore_labels", "objective.group_sizes", "slurm.options"]);
});

Deno.test("no line is wider than asked for", () => {
  for (const width of [98, 120]) {
    const lines = configText({ width }).split("\n");
    assertEquals(lines.filter((line) => line.length > width), []);
  }
});

/** The doc comments of an interface, by its properties. */
async function docsOf(file: string, name: string): Promise<Map<string, string>> {
  const source = await Deno.readTextFile(new URL(`../../${file}`, import.meta.url));
  const [, body] = new RegExp(`\\nexport interface ${name} [^{\\n]*\\{\\n(.*?)\\n\\}`, "s").exec(source)!;
  const found = body!.matchAll(/\/\*\*((?:(?!\*\/).)*)\*\/\s+readonly (\w+)\??:/gs);
  return new Map(Array.from(found, ([, doc, property]) => [property!, doc!.replaceAll(/\s*\n\s*\*\s*/g, " ").trim()]));
}

const { from, ...initialFields } = INIT_FIELDS;

/** The interfaces of configurations, where they are declared. */
const DOCUMENTED: readonly [file: string, name: string, fields: Readonly<Record<string, Field<unknown>>>][] = [
  ["nn/config.ts", "SparseAutoencoderConfig", { ...CONFIG_FIELDS }],
  ["nn/initial_values.ts", "InitialData", initialFields],
  ["runner/config_sections.ts", "InitConfig", { from }],
  ["runner/config_sections.ts", "DataConfig", { ...DATA_FIELDS }],
  ["runner/config_sections.ts", "LoopConfig", { ...LOOP_FIELDS }],
  ["runner/config_sections.ts", "LogConfig", { ...LOG_FIELDS }],
  ["runner/config_sections.ts", "SlurmConfig", { ...SLURM_FIELDS }],
  ...interfaces("nn/activations", { ...ACTIVATION_FIELDS }),
  ...interfaces("nn/loss_terms.ts", { ...SPARSITIES, ...AUXILIARIES }),
  ...interfaces("objectives", { ...OBJECTIVES }),
];

/** The interface of each kind, named as its key is; in a folder, in a file of its own. */
function interfaces(where: string, kinds: Kinds): [string, string, AnyFields][] {
  return Object.entries(kinds).map(([key, fields]) => {
    const name = key === "auxk"
      ? "AuxK"
      : key.split("-").map((word) => word[0]!.toUpperCase() + word.slice(1)).join("");
    return [where.endsWith(".ts") ? where : `${where}/${key.replaceAll("-", "_")}.ts`, name, fields];
  });
}

Deno.test("doc comments begin with the sentences of the tables, and give their defaults", async () => {
  const firstClause = (text: string) => text.split(/[;:.](?:\s|$)/)[0];
  for (const [file, name, fields] of DOCUMENTED) {
    const docs = await docsOf(file, name);
    for (const [field, { about, kinds }] of Object.entries(fields)) {
      const doc = docs.get(field);
      assert(doc !== undefined, `${name}.${field} has no doc comment`);
      if (kinds === undefined) assertEquals(firstClause(doc), firstClause(about), `${name}.${field}`);
    }
  }
  const options = await docsOf("train/options.ts", "ModelOptions");
  const loop = await docsOf("train/train.ts", "LoopOptions");
  for (const [field, value] of Object.entries(TRAIN_DEFAULTS)) {
    const doc = options.get(field) ?? loop.get(field);
    const [, documented] = /; (\S+) if left out/.exec(doc ?? "") ?? [];
    assertEquals(Number(documented), value, `${field}: ${doc}`);
  }
  const { dead_threshold_tokens } = OBJECTIVES.vanilla;
  assertEquals(dead_threshold_tokens.otherwise, UPSTREAM.dead_threshold_tokens);
  const source = await Deno.readTextFile(new URL("../../objectives/objective.ts", import.meta.url));
  assertStringIncludes(source, `\`n_prefixes\` (${OBJECTIVES.matryoshka.n_prefixes.otherwise})`);
  assertStringIncludes(source, `\`dead_threshold_tokens\` (${UPSTREAM.dead_threshold_tokens.toLocaleString("en")})`);
});
