/** What a configuration leaves out: the formulas, and that what is said stays. @module */
import { assertEquals } from "@std/assert";
import { resolveDefaults } from "../../runner/defaults.ts";
import { completeRunConfig } from "../../runner/run_config.ts";

const config = (train: object, objective: object = {}) =>
  completeRunConfig({ data: { path: "a.npy" }, train, objective });

Deno.test("the warm-up is a tenth of the run, and latents are dead after a tenth of its rows; at most upstream's", () => {
  const cases: readonly [batch_size: number, n_steps: number, warmup: number, deadAfter: number][] = [
    // 24,000 rows in batches of 4096: a latent must miss eight batches.
    [4096, 5, 0, 32768],
    [4096, 79, 7, 32768],
    [4096, 81, 8, 33177],
    [30, 36, 3, 240],
    [1000, 4999, 499, 499_900],
    [4096, 5000, 500, 2_048_000],
    [4096, 25_000, 500, 10_000_000],
    [16384, 100_000, 500, 10_000_000],
    [262_144, 3, 0, 2_097_152],
  ];
  for (const [batch_size, n_steps, n_lr_warmup, dead_threshold_tokens] of cases) {
    const { cfg, resolved } = resolveDefaults(config({ batch_size }), n_steps);
    assertEquals([cfg.train.n_lr_warmup, cfg.objective.dead_threshold_tokens], [n_lr_warmup, dead_threshold_tokens]);
    assertEquals(resolved, {
      "train.n_lr_warmup": n_lr_warmup,
      "objective.dead_threshold_tokens": dead_threshold_tokens,
    });
  }
});

Deno.test("what is said stays, whatever the run was begun with; what is left out stays as it was begun", () => {
  const begun = { "train.n_lr_warmup": 400, "objective.dead_threshold_tokens": 9_000_000 };
  const said = resolveDefaults(config({ n_lr_warmup: 0 }, { dead_threshold_tokens: 77 }), 50, begun);
  assertEquals([said.cfg.train.n_lr_warmup, said.cfg.objective.dead_threshold_tokens, said.resolved], [0, 77, {}]);
  assertEquals(resolveDefaults(config({}), 50, begun).resolved, begun);
  const half = resolveDefaults(config({ n_lr_warmup: 7 }), 50);
  assertEquals(Object.keys(half.resolved), ["objective.dead_threshold_tokens"]);
});
