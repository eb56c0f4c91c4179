/**
 * Messages: a string in place of a number is refused and shown in quotes, and all words are plain.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { batchesInOrder, rowsOf, shuffledBatches } from "../data/mod.ts";
import { evaluate } from "../eval/mod.ts";
import { getObjective, SparseAutoencoder } from "../mod.ts";
import { completeRunConfig } from "../runner/mod.ts";
import { train } from "../train/mod.ts";

/** What JSON or a form may give in place of a number. */
const FOUR = "4" as unknown as number;

Deno.test("a text in place of a number is refused by every function that takes one, and shown in quotes", async () => {
  using sae = await SparseAutoencoder.create({ d_model: 4, d_sae: 8, activation: { key: "top-k", top_k: 2 } });
  const source = rowsOf(Float32Array.from({ length: 64 }, Math.sin), 4);
  const trained = (options: Record<string, unknown>) => async (): Promise<void> => {
    const loop = { batch_size: 4, n_steps: 1, n_lr_warmup: 0, ...options };
    await Array.fromAsync(train(sae, getObjective({ key: "vanilla" }), source, loop));
  };
  const created = (cfg: Record<string, unknown>) => async (): Promise<void> => {
    using _ = await SparseAutoencoder.create({ d_model: 4, d_sae: 8, ...cfg });
  };
  const configured = (tables: Record<string, unknown>) => (): void =>
    void completeRunConfig({ data: { path: "a.npy" }, ...tables });
  const cases: Readonly<Record<string, () => unknown>> = {
    "d_model": created({ d_model: FOUR }),
    "d_sae": created({ d_sae: FOUR }),
    "top_k": created({ activation: { key: "top-k", top_k: FOUR } }),
    "alpha": created({ activation: { key: "top-k", top_k: 2, aux: { key: "auxk", alpha: FOUR } } }),
    "coeff": created({ activation: { key: "relu", sparsity: { key: "l1-sparsity", coeff: FOUR } } }),
    "seed": async () => void await SparseAutoencoder.create(sae.cfg, { seed: FOUR }),
    "scale": async () => void await SparseAutoencoder.create(sae.cfg, { input: { mean: null, scale: FOUR } }),
    "lr": trained({ lr: FOUR }),
    "n_lr_warmup": trained({ n_lr_warmup: FOUR }),
    "log_every": trained({ log_every: FOUR }),
    "batch_size": trained({ batch_size: FOUR }),
    "grad_clip": trained({ grad_clip: FOUR }),
    "momentum": trained({ optimizer: { key: "muon", momentum: "0.5" as unknown as number } }),
    "weight_decay": trained({ optimizer: { key: "muon", weight_decay: FOUR } }),
    "dead_threshold_tokens": () => getObjective({ key: "vanilla", dead_threshold_tokens: FOUR }),
    "target_l0": () => getObjective({ key: "vanilla", target_l0: FOUR }),
    "sparsity_coeff": () => getObjective({ key: "vanilla", sparsity_coeff: FOUR }),
    "n_prefixes": () => getObjective({ key: "matryoshka", n_prefixes: FOUR }),
    "group_sizes": () => getObjective({ key: "matryoshka", group_sizes: [FOUR, 4] }),
    "firstStep": () => Array.fromAsync(shuffledBatches(source, { batch_size: 4, n_steps: 1, firstStep: FOUR })),
    "buffer_rows": () => Array.fromAsync(shuffledBatches(source, { batch_size: 4, n_steps: 1, buffer_rows: FOUR })),
    "n_rows": () => Array.fromAsync(batchesInOrder(source, FOUR)),
    "dense_above": () => evaluate(sae, source, { dense_above: "0.4" as unknown as number }),
    "train.lr": configured({ train: { lr: FOUR } }),
    "train.n_epochs": configured({ train: { n_epochs: FOUR } }),
    "data.validation_share": configured({ data: { path: "a.npy", validation_share: FOUR } }),
    "sae.d_sae": configured({ sae: { d_sae: FOUR } }),
  };
  for (const [field, use] of Object.entries(cases)) {
    const error = await assertRejects(async () => await use(), Error, undefined, field);
    assert(error instanceof RangeError || error instanceof TypeError, `${field}: ${error}`);
    assert(/"(?:4|0\.5|0\.4)"/.test(error.message), `${field}: ${error.message}`);
  }
});

/** Turns of phrase that read as translated, with plain words for them. */
const PLAIN_WORDS: readonly (readonly [phrase: RegExp, instead: string])[] = [
  [/\b(?:go|goes|going|gone|went) on\b/i, "continue"],
  [/\bin the place of\b/i, "instead of"],
  [/\bwhoever\b/i, "a user who, the process that"],
  [/\bas (?:it|they) comes?\b/i, "in order, unchanged"],
  [/\bfor nobody\b/i, "for no user"],
  [/\b(?:is|are) no multiple of\b/i, "is not a multiple of"],
  [/\b(?:is|are) no JSON\b/i, "is not JSON"],
  [/\b(?:is|are) none of\b/i, "is not one of"],
  [/\b(?:what|that) there (?:is|are) not\b/i, "unknown, missing"],
  [/\bstands twice\b/i, "appears twice"],
  [/\bhow often larger\b/i, "the factor by which"],
  [/\bdie of haste\b/i, "are killed by a penalty that rises too fast"],
  [/\bcannot do that\b/i, "does not support it"],
];

/** The TypeScript and Markdown files of the repository, but for what other programs or older versions wrote. */
async function* written(folder = new URL("../", import.meta.url)): AsyncGenerator<URL> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const isOurs = !/^(?:\.|node_modules$|runs$|cov$|shared$|goldens$|fixtures$|built\.ts$|messages_test\.ts$)/.test(
      name,
    );
    if (isOurs && isDirectory) yield* written(new URL(`${name}/`, folder));
    else if (isOurs && /\.(?:tsx?|md)$/.test(name)) yield new URL(name, folder);
  }
}

Deno.test("messages, comments and prose are in plain words", async () => {
  const found: string[] = [];
  let n_files = 0;
  for await (const file of written()) {
    n_files++;
    for (const [i, line] of (await Deno.readTextFile(file)).split("\n").entries()) {
      const [phrase, instead] = PLAIN_WORDS.find(([phrase]) => phrase.test(line)) ?? [];
      if (phrase) found.push(`${file.pathname}:${i + 1}: ${phrase.exec(line)![0]} (plainly: ${instead})`);
    }
  }
  assert(n_files > 400, `${n_files} files`);
  assertEquals(found, []);
});
