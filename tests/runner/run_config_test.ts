/** Configuration files: defaults, and a clear sentence for everything that cannot be. @module */
import { assertEquals, assertThrows } from "@std/assert";
import { parse } from "@std/toml";
import { completeRunConfig } from "../../runner/run_config.ts";

Deno.test("a path is all that is needed", () => {
  assertEquals(completeRunConfig(parse('data.path = "a.npy"')), {
    data: {
      path: "a.npy",
      format: null,
      d_model: null,
      key: null,
      layer: null,
      tokens: null,
      ignore_labels: null,
      validation_share: 0.05,
      standardise: "none",
      buffer_rows: null,
      order_seed: null,
    },
    sae: {},
    init: { from: null, data_points: false, b_dec: "zeros", scale_encoder: false },
    objective: { key: "vanilla" },
    train: {
      batch_size: 4096,
      n_epochs: 1,
      n_steps: null,
      optim: "adam",
      lr: 4e-4,
      n_lr_warmup: null,
      n_sparsity_warmup: 0,
      k_start: null,
      n_k_warmup: null,
      grad_clip: 1,
      log_every: 25,
      checkpoint_every: 1000,
      checkpoint_minutes: 10,
      seed: 0,
    },
    log: { validation_every: null, tensorboard: false },
  });
});

Deno.test("everything can be said", () => {
  const config = completeRunConfig(parse(`
    [data]
    path = "a.bin"
    format = "bf16"
    d_model = 8
    key = "x"
    layer = -2
    tokens = "all"
    validation_share = 0
    standardise = "mean_scale"
    buffer_rows = 100
    [sae]
    d_sae = 64
    subtract_b_dec = true
    activation = { key = "top-k", top_k = 4, aux = { key = "auxk", k_aux = 8 }, sparsity = { key = "no-sparsity" } }
    [init]
    data_points = true
    b_dec = "geometric-median"
    scale_encoder = true
    [objective]
    key = "matryoshka"
    n_prefixes = 3
    [train]
    batch_size = 32
    n_steps = 10
    optim = "muon"
    grad_clip = false
  `));
  const { format, d_model, key, layer, tokens } = config.data;
  assertEquals({ format, d_model, key, layer, tokens }, {
    format: "bf16",
    d_model: 8,
    key: "x",
    layer: -2,
    tokens: "all",
  });
  assertEquals(config.sae.activation, {
    key: "top-k",
    top_k: 4,
    aux: { key: "auxk", k_aux: 8 },
    sparsity: { key: "no-sparsity" },
  });
  assertEquals(config.init, { from: null, data_points: true, b_dec: "geometric-median", scale_encoder: true });
  assertEquals(config.objective, { key: "matryoshka", n_prefixes: 3 });
  assertEquals([config.train.n_steps, config.train.n_epochs, config.train.grad_clip], [10, null, false]);
  assertEquals(config.train.optim, "muon");
});

/** What is wrong with a file, the error's class, and what its sentence must say. */
type Mistake = readonly [text: string, error: typeof TypeError | typeof RangeError, message: string];

const WITHOUT_PATH: readonly Mistake[] = [
  ["", TypeError, "data.path is missing"],
  ["[dat]\npath = 'a'", TypeError, "unknown field dat; did you mean data?"],
  ["data = 3", TypeError, "data must be a table, found 3"],
  ["data.path = 3", TypeError, "data.path must be a string, found 3"],
  ["data.path = ''", TypeError, "data.path is empty"],
];

/** Beside a path, which is all that a file needs. */
const BESIDE_A_PATH: readonly Mistake[] = [
  ["data.fromat = 'npy'", TypeError, "unknown field data.fromat; did you mean data.format?"],
  ["data.format = 'fp32'", RangeError, 'data.format is "fp32"; did you mean f32?'],
  ["data.tokens = 'patches'", RangeError, "expected one of content, cls, all"],
  ["data.validation_share = 1.5", RangeError, "data.validation_share must be between 0 and 0.9"],
  ["data.d_model = 1.5", RangeError, "data.d_model must be an integer of at least 1, found 1.5"],
  ["train.batchsize = 1", TypeError, "did you mean train.batch_size?"],
  ["train.wibble = 1", TypeError, "unknown field train.wibble; train has batch_size, n_epochs"],
  ["train.batch_size = 0", RangeError, "train.batch_size must be an integer from 1 to 262144, found 0"],
  ["train.lr = nan", RangeError, "train.lr must be a finite number"],
  ["train.lr = '1'", TypeError, 'train.lr must be a number, found "1"'],
  ["train.optim = 'mnuo'", RangeError, 'train.optim is "mnuo"; did you mean muon?'],
  ["train.grad_clip = true", TypeError, "train.grad_clip must be a positive number, or false, found true"],
  ["train.grad_clip = 0", RangeError, "train.grad_clip must be positive, found 0"],
  ["train.n_epochs = 1\ntrain.n_steps = 1", TypeError, "give one of them"],
  ["sae.d_sea = 8", TypeError, "unknown field sae.d_sea; did you mean sae.d_sae?"],
  ["sae.d_sae = 0", RangeError, "d_sae must be an integer of at least 1"],
  ["sae.activation = { key = 'topk' }", RangeError, 'sae.activation.key is "topk"; did you mean top-k?'],
  ["sae.activation = { top_k = 3 }", RangeError, "sae.activation.key is missing; expected one of relu"],
  [
    "sae.activation = { key = 'relu', top_k = 3 }",
    TypeError,
    "unknown field sae.activation.top_k; sae.activation has key, sparsity, aux",
  ],
  [
    "sae.activation = { key = 'top-k', aux = { key = 'auxk', kaux = 3 } }",
    TypeError,
    "did you mean sae.activation.aux.k_aux?",
  ],
  ["init.b_dec = 'geometric_median'", RangeError, "did you mean geometric-median?"],
  ["init.scale_encoder = 1", TypeError, "init.scale_encoder must be true or false, found 1"],
  ["init.data_point = true", TypeError, "did you mean init.data_points?"],
  ["objective.key = 'matroyshka'", RangeError, "did you mean matryoshka?"],
  ["objective = { key = 'vanilla', n_prefixes = 2 }", TypeError, "objective.n_prefixes"],
  ["objective = { key = 'matryoshka', n_prefixes = 0 }", RangeError, "n_prefixes"],
  [
    "sae.d_sae = 8\nobjective = { key = 'matryoshka', n_prefixes = 9 }",
    RangeError,
    "n_prefixes must be between 1 and d_sae 8, found 9",
  ],
  [
    "sae.d_sae = 8\nobjective = { key = 'matryoshka', group_sizes = [3, 4] }",
    RangeError,
    "group_sizes must be positive integers that add up to d_sae 8, found [3, 4] with the sum 7",
  ],
  [
    "sae = { d_sae = 8, activation = { key = 'relu' } }\nobjective = { target_l0 = 9 }",
    RangeError,
    "target_l0 must be at most d_sae 8, found 9",
  ],
  ["objective = { target_l0 = 9 }", RangeError, "the mean L0 of a top-k is its top_k"],
  ["train = { k_start = 9 }", TypeError, "k_start and n_k_warmup must be given together"],
  [
    "sae = { activation = { key = 'relu' } }\ntrain = { k_start = 9, n_k_warmup = 9 }",
    TypeError,
    "k_start requires top-k or batch-top-k, found relu",
  ],
];

const MISTAKES = [
  ...WITHOUT_PATH,
  ...BESIDE_A_PATH.map(([text, ...expected]): Mistake => [`data.path = "a"\n${text}`, ...expected]),
];

for (const [text, error, message] of MISTAKES) {
  Deno.test(`refused: ${text.replaceAll("\n", ", ") || "nothing at all"}`, () => {
    assertThrows(() => completeRunConfig(parse(text)), error, message);
  });
}
