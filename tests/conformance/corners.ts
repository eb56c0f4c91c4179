/**
 * Configurations that drawing starts from: those of the goldens, of a run on disk, of the reference's own problems, and some
 * that have what all of these lack.
 *
 * @module
 */

import type { SparseAutoencoderOptions } from "../../nn/config.ts";
import { everyProblem, gatedProblems } from "../reference/problems.ts";
import { loadGoldens, loadMatryoshkaGoldens } from "../support/goldens.ts";
import type { Drawn, DrawnTraining } from "./drawn.ts";

/** What a corner has if it says nothing else: the schedule of the goldens' trainings, and every fourth latent silent. */
const TRAIN: DrawnTraining = {
  optimizer: { key: "adam" },
  lr: 3e-3,
  n_lr_warmup: 8,
  n_steps: 40,
  n_sparsity_warmup: 0,
  k: null,
  grad_clip: 1,
};
const COMMON = {
  objective: { key: "vanilla", sparsity_coeff: null },
  target_l0: null,
  last: 1,
  scale: 1,
  standardise: "none",
  weights: "f32",
  sparse: false,
  silentEvery: 4,
  young: 0,
  k_aux: null,
  train: TRAIN,
  seed: 1,
} as const satisfies Partial<Drawn>;

type Corner = Partial<Drawn> & Pick<Drawn, "B">;

/** What is drawn where a model has this configuration. */
function cornerOf(cfg: SparseAutoencoderOptions & Pick<Drawn, "activation">, given: Corner): Drawn {
  const { d_model: D = 0, d_sae: S = 0, activation } = cfg;
  const { subtract_b_dec = false, normalize_w_dec = true, remove_parallel_grads = true } = cfg;
  return { ...COMMON, activation, D, S, subtract_b_dec, normalize_w_dec, remove_parallel_grads, ...given };
}

/** Nested dictionaries that end where the golden's do. */
function nested(prefixes: readonly number[], S: number): Drawn["objective"] {
  return { key: "matryoshka", prefixes: { ends: prefixes.slice(0, -1).map((end) => (end - 0.5) / S) } };
}

type Sized = SparseAutoencoderOptions & Pick<Drawn, "activation">;

function ofMatryoshka(): [string, Drawn][] {
  return loadMatryoshkaGoldens().map(({ name, cfg, x, prefixes }, at) => [
    `matryoshka.json, ${name}, ${prefixes.length} prefixes`,
    cornerOf(cfg as Sized, { B: x.length / cfg.d_model, objective: nested(prefixes, cfg.d_sae), seed: at }),
  ]);
}

function ofReluVanilla(): [string, Drawn][] {
  const goldens = loadGoldens("relu_vanilla").map(({ cfg: { d_vit: D, exp_factor: factor }, sparsity_coeff, x }) =>
    [`relu_vanilla.json, d_model ${D}`, D, factor * D, sparsity_coeff, x.length / D, TRAIN] as const
  );
  const trained = loadGoldens("train_relu_vanilla").map(({ start, sparsity_coeff, batch }) =>
    [
      "train_relu_vanilla.json",
      start.b_dec.length,
      start.b_enc.length,
      sparsity_coeff,
      batch,
      { ...TRAIN, n_lr_warmup: 10, n_steps: null, grad_clip: false },
    ] as const
  );
  return [...goldens, ...trained].map(([name, d_model, d_sae, coeff, B, train]) => {
    const activation = { key: "relu", sparsity: { key: "l1-sparsity", coeff } } as const;
    return [name, cornerOf({ d_model, d_sae, subtract_b_dec: true, activation }, { B, train })];
  });
}

function ofTopK(): [string, Drawn][] {
  return loadGoldens("train_top_k_matryoshka").map(({ start, batch, top_k, k_aux, alpha, prefixes }) => {
    const sizes = { d_model: start.b_dec.length, d_sae: start.b_enc.length };
    const aux = { key: "auxk", k_aux, alpha, include_b_dec: true } as const;
    const activation = { key: "top-k", top_k, sparsity: { key: "no-sparsity" }, aux } as const;
    const objective = nested(prefixes[0]!, sizes.d_sae);
    return ["train_top_k_matryoshka.json", cornerOf({ ...sizes, activation }, { B: batch, objective })];
  });
}

function ofMuon(): [string, Drawn][] {
  return loadGoldens("muon").map(({ name, shape: [d_model, d_sae], options, lrs }, at) => {
    const activation = { key: "top-k", top_k: 3, sparsity: { key: "no-sparsity" } } as const;
    const train: DrawnTraining = { ...TRAIN, optimizer: { key: "muon", ...options }, lr: lrs[1]!, n_lr_warmup: 0 };
    return [
      `muon.json, ${name}`,
      cornerOf({ d_model, d_sae, activation }, { B: 12, silentEvery: 0, train, seed: 10 + at }),
    ];
  });
}

function ofGated(): [string, Drawn][] {
  return ([["dictionary_learning", "l1-sparsity"], ["saelens", "weighted-l1-sparsity"]] as const).map((
    [library, key],
  ) => {
    const activation = { key: "gated", sparsity: { key, coeff: 0.05 } } as const;
    return [`gated, ${library}`, cornerOf({ d_model: 6, d_sae: 12, subtract_b_dec: true, activation }, { B: 16 })];
  });
}

function ofRun(): [string, Drawn] {
  const url = new URL("../fixtures/run_of_0.1.0/config.json", import.meta.url);
  const { sae, train: { batch_size: B, lr, n_lr_warmup, n_steps, grad_clip } } = JSON.parse(Deno.readTextFileSync(url));
  return ["run_of_0.1.0", cornerOf(sae, { B, train: { ...TRAIN, lr, n_lr_warmup, n_steps, grad_clip } })];
}

/** One of each activation and auxiliary loss, with nested dictionaries and penalties in turn. */
function ofReference(): [string, Drawn][] {
  const sizes = { B: 9, D: 20, S: 45 };
  return [...everyProblem(sizes, 4), ...gatedProblems(sizes, 4)]
    .filter(({ problem: { cfg, prefixes } }) => prefixes.length > 1 && !cfg.subtract_b_dec)
    .map(({ name, problem: { cfg, prefixes } }, at) => [
      name,
      cornerOf(cfg, {
        B: sizes.B,
        objective: nested(prefixes, sizes.S),
        seed: at,
        train: { ...TRAIN, n_lr_warmup: 0 },
      }),
    ]);
}

/** What the goldens lack: schedules of each kind, f16 weights, standardised inputs, a controller, one row. */
function ofEverythingElse(): [string, Drawn][] {
  const sizes = { d_model: 20, d_sae: 45 };
  const aux = { key: "auxk", k_aux: 6, alpha: 1 / 4, normalize: true } as const;
  const rate = { n_lr_warmup: 2, n_steps: 6 };
  const relu = { key: "relu", sparsity: { key: "weighted-l1-sparsity", coeff: 0.05 }, aux } as const;
  const topK = { key: "top-k", top_k: 5, relu: true, sparsity: { key: "no-sparsity" }, aux } as const;
  const batchTopK = { ...topK, key: "batch-top-k", bias_correction: true } as const;
  const jumpRelu = {
    key: "jump-relu",
    bandwidth: 0.75,
    sparsity: { key: "l0-sparsity", coeff: 0.05 },
    aux: { key: "pre-act", coeff: 0.25 },
  } as const;
  const gated = { key: "gated", sparsity: { key: "tanh-sparsity", coeff: 0.1, scale: 2 }, aux } as const;
  const corner = (activation: Drawn["activation"], given: Partial<Corner>) =>
    cornerOf({ ...sizes, activation }, { B: 16, silentEvery: 4, young: 1, ...given });
  return [
    [
      "relu, standardised, its penalty grows",
      corner(relu, { standardise: "mean_scale", scale: 1e3, train: { ...TRAIN, ...rate, n_sparsity_warmup: 2 } }),
    ],
    [
      "top-k with Muon, k falls",
      corner(topK, {
        weights: "f16",
        train: { ...TRAIN, ...rate, optimizer: { key: "muon" }, k: { k_start: 12, n_k_warmup: 2 } },
      }),
    ],
    [
      "batch-top-k, bias_correction, k grows",
      corner(batchTopK, { weights: "f16", train: { ...TRAIN, ...rate, k: { k_start: 1, n_k_warmup: 2 } } }),
    ],
    [
      "jump-relu with a controller",
      corner(jumpRelu, { target_l0: 1 / 8, standardise: "scale", scale: 1e-3, train: { ...TRAIN, ...rate } }),
    ],
    ["gated, one row", corner(gated, { B: 1, weights: "f16", standardise: "mean", k_aux: -1 })],
  ];
}

/** All of them, by name. */
export const CORNERS: ReadonlyMap<string, Drawn> = new Map([
  ...ofMatryoshka(),
  ...ofReluVanilla(),
  ...ofTopK(),
  ...ofMuon(),
  ...ofGated(),
  ofRun(),
  ...ofReference(),
  ...ofEverythingElse(),
]);
