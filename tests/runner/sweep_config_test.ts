/** Sweeps: the runs that lists make, in order, and how many they may be. @module */
import { assertEquals, assertThrows } from "@std/assert";
import { parse } from "@std/toml";
import { completeRunConfig } from "../../runner/run_config.ts";
import { completeSweep } from "../../runner/sweep_config.ts";

Deno.test("lists are swept, the first changing slowest, and tables in them too", () => {
  const sweep = completeSweep(parse(`
    data.path = "a.npy"
    [sae]
    activation = [{ key = "relu" }, { key = "top-k", top_k = [2, 4] }]
    [train]
    lr = [1e-3, 1e-4]
    seed = [7]
  `));
  const found = sweep.map(({ cfg: { sae: { activation }, train: { lr, seed } } }) => [activation, lr, seed]);
  assertEquals(found, [
    [{ key: "relu" }, 1e-3, 7],
    [{ key: "relu" }, 1e-4, 7],
    [{ key: "top-k", top_k: 2 }, 1e-3, 7],
    [{ key: "top-k", top_k: 2 }, 1e-4, 7],
    [{ key: "top-k", top_k: 4 }, 1e-3, 7],
    [{ key: "top-k", top_k: 4 }, 1e-4, 7],
  ]);
  assertEquals(sweep[0]!.changes, { "sae.activation": { key: "relu" }, "train.lr": 1e-3, "train.seed": 7 });
  assertEquals(sweep[3]!.changes["sae.activation.top_k"], 2);
});

Deno.test("what is a list by itself is swept by a list of lists", () => {
  const groups = (list: string) =>
    completeSweep(
      parse(`data.path = "a.npy"\nsae.d_sae = 12\nobjective = { key = "matryoshka", group_sizes = ${list} }`),
    )
      .map(({ cfg: { objective }, changes }) => [objective, changes]);
  const of = (group_sizes: number[]) => ({ key: "matryoshka", group_sizes });
  assertEquals(groups("[4, 8]"), [[of([4, 8]), {}]]);
  assertEquals(groups("[[4, 8], [12]]"), [
    [of([4, 8]), { "objective.group_sizes": [4, 8] }],
    [of([12]), { "objective.group_sizes": [12] }],
  ]);
});

Deno.test("a file without lists is one run, and a mistake in any run is one in the file", () => {
  const text = "data.path = 'a.npy'\n";
  assertEquals(completeSweep(parse(text)), [{ changes: {}, cfg: completeRunConfig(parse(text)) }]);
  assertThrows(() => completeSweep(parse(`${text}train.lr = []`)), TypeError, "train.lr is an empty list");
  assertThrows(() => completeSweep(parse(`${text}train.lr = [1, "2"]`)), TypeError, "train.lr must be a number");
  assertThrows(() => completeSweep(parse(`${text}train.lr = [[1, 2]]`)), TypeError, "train.lr must be a number");
  const objectives = "sae.d_sae = [64, 8]\nobjective = { key = 'matryoshka', n_prefixes = 10 }";
  assertThrows(() => completeSweep(parse(text + objectives)), RangeError, "between 1 and d_sae 8, found 10");
});

Deno.test("runs are counted before any is made", () => {
  const values = (n: number) => Array.from({ length: n }, (_, i) => i);
  const data = { path: "a.npy" };
  const sweep = (train: object, maxRuns?: number) =>
    completeSweep({ data, train }, { ...maxRuns !== undefined && { maxRuns } });
  assertEquals(sweep({ seed: values(1000) }).length, 1000);
  assertThrows(
    () => sweep({ seed: values(500), n_lr_warmup: values(500) }),
    RangeError,
    "its lists make 250,000 runs; expected at most 1,000: train.seed has 500 values, train.n_lr_warmup has 500 values; shorten " +
      "them, or raise --max-runs",
  );
  // As many as no memory would hold.
  const many = { seed: values(1001), n_lr_warmup: values(1001), n_sparsity_warmup: values(1001), lr: values(1001) };
  assertThrows(() => sweep(many), RangeError, "its lists make 1,004,006,004,001 runs");
  assertThrows(() => sweep({ ...many, optim: [] }), TypeError, "train.optim is an empty list");
  assertEquals(sweep({ seed: values(1001) }, 1001).length, 1001);
  assertThrows(() => sweep({ seed: values(3) }, 2), RangeError, "its lists make 3 runs; expected at most 2");
  // Lists of alternatives with lists of their own are added up; one that is a list by itself is one value.
  const activation = [{ key: "relu" }, { key: "top-k", top_k: [1, 2, 3] }];
  const objective = { key: "matryoshka", group_sizes: [[1, 2], [3]] };
  const found = { data, sae: { activation }, objective };
  assertThrows(() => completeSweep(found, { maxRuns: 7 }), RangeError, "its lists make 8 runs; expected at most 7");
});
