/** Fields set on the command line. @module */
import { assertEquals, assertThrows } from "@std/assert";
import { Arguments, type Command, UsageError } from "../../cli/command.ts";
import { parse } from "@std/toml";
import { withSeeds, withSettings } from "../../cli/settings.ts";
import { completeRunConfig, configText } from "../../runner/mod.ts";

const COMMAND: Command = {
  summary: "",
  positionals: ["CONFIG"],
  options: { out: { value: "DIR", help: "" }, overwrite: { help: "" } },
  takesFields: true,
  permissions: "",
  run: () => Promise.resolve(0),
};

Deno.test("fields stand anywhere among the arguments, joined to their values or before them", () => {
  const found = new Arguments("train", COMMAND, [
    ...["--train.lr", "1e-3", "a.toml", "--data.layer=-2", "--out", "x", "--data.layer2.x", "-3", "--overwrite"],
  ]);
  assertEquals(found.fields, new Map([["train.lr", "1e-3"], ["data.layer", "-2"], ["data.layer2.x", "-3"]]));
  assertEquals([found.positionals, found.text("out"), found.flag("overwrite")], [["a.toml"], "x", true]);
});

Deno.test("a field without a value, or with two, is a mistake; so is one of a command that has none", () => {
  const parse = (...args: string[]) => new Arguments("train", COMMAND, ["a.toml", ...args]);
  const message = "--train.lr needs a value; saev config lists the values of train.lr";
  for (const args of [["--train.lr"], ["--train.lr="], ["--train.lr", "--train.seed", "1"]]) {
    assertThrows(() => parse(...args), UsageError, message);
  }
  assertThrows(() => parse("--train.lr=1", "--train.lr", "2"), UsageError, "--train.lr is given twice");
  const { takesFields: _, ...without } = COMMAND;
  assertThrows(
    () => new Arguments("train", without, ["a.toml", "--train.lr", "1"]),
    UsageError,
    "unknown option --train.lr",
  );
});

Deno.test("values are TOML, and what is none is a text", () => {
  const value = (typed: string) => withSettings({}, new Map([["a.b", typed]]));
  const cases: readonly [typed: string, value: unknown][] = [
    ["1e-3", 1e-3],
    ["10_000", 10000],
    ["false", false],
    ["[1, 2]", [1, 2]],
    ["[[1, 2], [3]]", [[1, 2], [3]]],
    ['{ key = "relu" }', { key: "relu" }],
    ['"2"', "2"],
    ["muon", "muon"],
    ["C:\\rows.npy", "C:\\rows.npy"],
    ["hf:a/b/c.npy", "hf:a/b/c.npy"],
    ["2024-01-01", "2024-01-01"],
    ["1\nseed = 3", "1\nseed = 3"],
    ["[adam, muon]", "[adam, muon]"],
  ];
  for (const [typed, wanted] of cases) assertEquals(value(typed), { a: { b: wanted } }, typed);
});

Deno.test("a field that is set replaces the file's, and the rest stays", () => {
  const found = {
    train: { lr: 1, seed: 2 },
    sae: { activation: { key: "top-k", top_k: 3 } },
    objective: [{ key: "a" }],
  };
  const before = structuredClone(found);
  assertEquals(
    withSettings(found, new Map([["train.lr", "5"], ["sae.activation.top_k", "6"], ["data.path", "x.npy"]])),
    {
      ...found,
      train: { lr: 5, seed: 2 },
      sae: { activation: { key: "top-k", top_k: 6 } },
      data: { path: "x.npy" },
    },
  );
  assertEquals(found, before);
  assertThrows(
    () => withSettings(found, new Map([["objective.target_l0", "3"]])),
    TypeError,
    "objective is a list, not a table; set the whole of objective instead",
  );
  assertThrows(() => withSettings(found, new Map([["train.lr.x", "1"]])), TypeError, "train.lr is 1, not a table");
});

Deno.test("what excludes a field of the file takes its place, and so does another key", () => {
  const set = (...settings: [string, string][]) => withSettings(parse(configText()), new Map(settings));
  const steps = completeRunConfig(set(["train.n_steps", "7"]));
  assertEquals([steps.train.n_steps, steps.train.n_epochs], [7, null]);
  const both = set(["train.n_steps", "7"], ["train.n_epochs", "2"]);
  assertThrows(() => completeRunConfig(both), TypeError, "give one of them");
  const relu = completeRunConfig(
    set(["sae.activation.sparsity.coeff", "1"], ["sae.activation.sparsity.key", "l1-sparsity"]),
  );
  assertEquals(relu.sae.activation?.sparsity, { key: "l1-sparsity", coeff: 1 });
  const { sae } = completeRunConfig(set(["sae.activation.top_k", "5"], ["sae.activation.key", "batch-top-k"]));
  assertEquals(sae.activation, { top_k: 5, relu: false, key: "batch-top-k" });
  const aux = set(["sae.activation.aux.key", "pre-act"], ["sae.activation.key", "jump-relu"]);
  assertEquals(completeRunConfig(aux).sae.activation, { key: "jump-relu", aux: { key: "pre-act" } });
  const same = completeRunConfig(set(["sae.activation.key", "top-k"])).sae;
  assertEquals(same, completeRunConfig(set()).sae);
  const matryoshka = set(["objective.key", "matryoshka"], ["objective.group_sizes", "[4, 16380]"]);
  assertEquals(completeRunConfig(matryoshka).objective, { key: "matryoshka", group_sizes: [4, 16380] });
  const dead = withSettings({ objective: { dead_threshold_tokens: 9 } }, new Map([["objective.key", "matryoshka"]]));
  assertEquals(dead.objective, { dead_threshold_tokens: 9, key: "matryoshka" });
  assertEquals(completeRunConfig(set(["data.key", "x"])).data.path, "activations.npy");
});

Deno.test("several seeds are a list, and the rows keep one order", () => {
  assertEquals(withSeeds({}, 3), { data: { order_seed: 0 }, train: { seed: [0, 1, 2] } });
  assertEquals(withSeeds({ data: { path: "a" }, train: { seed: 7 } }, 2), {
    data: { path: "a", order_seed: 7 },
    train: { seed: [7, 8] },
  });
  assertEquals(withSeeds({ data: { order_seed: 1 } }, 1).data, { order_seed: 1 });
  assertThrows(() => withSeeds({ train: { seed: [1] } }, 2), TypeError, "train.seed is a list, and --seeds makes one");
});
