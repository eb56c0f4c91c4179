/**
 * Configurations that nobody thought of: codes, loss, gradients and training steps are the reference's for those that
 * fast-check draws, after those that it starts from. What is drawn reaches everything that a configuration may combine.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ACTIVATIONS } from "../../nn/activations/mod.ts";
import { AUXILIARIES, SPARSITIES } from "../../nn/loss_terms.ts";
import { OBJECTIVES } from "../../objectives/objective.ts";
import { sharedDevice } from "../support/gpu.ts";
import { CORNERS } from "./corners.ts";
import { decidedOnly } from "./decided.ts";
import { type Drawn, drawn, mayCombine } from "./drawn.ts";
import { checkCodes, checkLoss, checkTraining } from "./drawn_checks.ts";
import { trialOf } from "./trial.ts";

const corners = [...CORNERS.values()];

for (
  const [what, check, n_drawn] of [
    ["codes and reconstructions", checkCodes, 24],
    ["loss and gradients", checkLoss, 24],
    ["three training steps", checkTraining, 24],
  ] as const
) {
  Deno.test(`${what} are the reference's, whatever the configuration`, async () => {
    const device = await sharedDevice();
    const property = fc.asyncProperty(drawn, decidedOnly((draw) => check(trialOf(draw), device), corners));
    const examples = corners.map((corner): [Drawn] => [corner]);
    await fc.assert(property, { seed: 1, numRuns: corners.length + n_drawn, examples });
  });
}

const SAMPLE = fc.sample(drawn, { seed: 1, numRuns: 2000 });

Deno.test("what is drawn reaches every activation, penalty, auxiliary loss and objective that may be combined", () => {
  const keys = <T extends object>(table: T) => Object.keys(table) as (keyof T)[];
  const reached = new Set(
    SAMPLE.map(({ activation: { key, sparsity, aux }, objective }) =>
      [key, sparsity.key, aux!.key, objective.key].join(", ")
    ),
  );
  const legal = keys(ACTIVATIONS).flatMap((key) =>
    keys(SPARSITIES).flatMap((sparsity) =>
      keys(AUXILIARIES).filter((aux) => mayCombine({ key, sparsity, aux })).flatMap((aux) =>
        keys(OBJECTIVES).map((objective) => [key, sparsity, aux, objective].join(", "))
      )
    )
  );
  assertEquals([...reached].sort(), legal.sort());
});

Deno.test("what is drawn reaches every schedule, optimizer, scale, standardisation and edge of its sizes", () => {
  const trials = SAMPLE.map((draw) => ({ draw, trial: trialOf(draw) }));
  const dead = ({ waited_S, objective, batches, cfg }: ReturnType<typeof trialOf>, missing: number) =>
    waited_S.some((waited) => waited + batches[0]!.length / cfg.d_model + missing === objective.dead_threshold_tokens);
  const features: Readonly<Record<string, (of: typeof trials[number]) => unknown>> = {
    "weights": ({ draw }) => draw.weights,
    "standardise": ({ draw }) => draw.standardise,
    "scale": ({ draw }) => draw.scale,
    "objective": ({ trial: { objective } }) =>
      "group_sizes" in objective ? "groups" : "n_prefixes" in objective ? "sampled" : objective.key,
    "own weight of the penalty": ({ trial: { objective } }) =>
      "sparsity_coeff" in objective && objective.sparsity_coeff !== null,
    "controller": ({ trial }) => trial.objective.target_l0 !== undefined,
    "prefixes": ({ draw: { objective } }) =>
      objective.key === "matryoshka" &&
      ("n" in objective.prefixes ? objective.prefixes.n : objective.prefixes.ends.length + 1),
    "optimizer": ({ draw: { train: { optimizer } } }) =>
      optimizer.key === "muon" ? `muon ${optimizer.nesterov}` : "adam",
    "warm-up of the rate": ({ draw }) => draw.train.n_lr_warmup,
    "cosine": ({ draw }) => draw.train.n_steps !== null,
    "warm-up of the penalty": ({ draw }) => draw.train.n_sparsity_warmup,
    "way of k": ({ trial: { train: { k_start }, cfg: { activation } } }) =>
      k_start !== undefined && "top_k" in activation && Math.sign(activation.top_k - k_start),
    "clipping": ({ draw }) => draw.train.grad_clip,
    "one row": ({ draw }) => draw.B === 1,
    "one dimension": ({ draw }) => draw.D === 1,
    "one latent": ({ draw }) => draw.S === 1,
    "dead to the row": ({ trial }) => dead(trial, 0),
    "a row too young": ({ trial }) => dead(trial, 1),
    "k_aux beside the dead": ({ draw: { activation: { aux }, k_aux } }) => aux?.key === "auxk" && k_aux,
    "subtract_b_dec": ({ draw }) => draw.subtract_b_dec,
    "normalize_w_dec": ({ draw }) => draw.normalize_w_dec,
    "remove_parallel_grads": ({ draw }) => draw.remove_parallel_grads,
    "auxk": ({ draw: { activation: { aux } } }) => aux?.key === "auxk" && `${aux.include_b_dec} ${aux.normalize}`,
    "relu": ({ draw: { activation } }) => "relu" in activation && activation.relu,
    "bias_correction": ({ draw: { activation } }) => "bias_correction" in activation && activation.bias_correction,
  };
  const found = Object.fromEntries(
    Object.entries(features).map(([name, of]) => [name, [...new Set(trials.map(of))].map(String).sort()]),
  );
  const either = ["false", "true"];
  const steps = ["0", "1", "2", "3", "4"];
  assertEquals(found, {
    "weights": ["f16", "f32"],
    "standardise": ["mean", "mean_scale", "none", "scale"],
    "scale": ["0.001", "0.0078125", "1", "1000", "128"],
    "objective": ["groups", "sampled", "vanilla"],
    "own weight of the penalty": either,
    "controller": either,
    "prefixes": ["1", "2", "3", "4", "5", "6", "7", "false"],
    "optimizer": ["adam", "muon false", "muon true"],
    "warm-up of the rate": steps,
    "cosine": either,
    "warm-up of the penalty": steps,
    "way of k": ["-1", "0", "1", "false"],
    "clipping": ["0.001", "0.5", "1000000", "false"],
    "one row": either,
    "one dimension": either,
    "one latent": either,
    "dead to the row": either,
    "a row too young": either,
    "k_aux beside the dead": ["-1", "0", "1", "false", "null"],
    "subtract_b_dec": either,
    "normalize_w_dec": either,
    "remove_parallel_grads": either,
    "auxk": ["false", "false false", "false true", "true false", "true true"],
    "relu": either,
    "bias_correction": either,
  });
});

Deno.test("no two corners are alike, and each activation has some", () => {
  assertEquals(new Set(corners.map((corner) => JSON.stringify(corner))).size, CORNERS.size);
  for (const key of Object.keys(ACTIVATIONS)) assert(corners.some(({ activation }) => activation.key === key), key);
});
