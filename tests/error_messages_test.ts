/**
 * What people read when something is wrong: the class and the words of errors, each provoked by a mistake that people make.
 * A change of words is seen in the snapshots beside this file; `deno task words` writes them anew.
 *
 * @module
 */
import { AssertionError } from "@std/assert";
import { assertSnapshot } from "@std/testing/snapshot";
import { parseToml } from "../cli/toml.ts";
import { main } from "../cli/mod.ts";
import {
  batchesInOrder,
  concatRows,
  measureScaling,
  openRows,
  openShards,
  patchLabels,
  planResize,
  rowRange,
  rowsOf,
  shuffledBatches,
} from "../data/mod.ts";
import { evaluate, nearestLatents, topRows } from "../eval/mod.ts";
import {
  bytesSource,
  openNpz,
  openSource,
  parseCheckpoint,
  pickedFiles,
  readCheckpoint,
  readNpy,
  readOnnxModel,
  readSafetensors,
  readTorchFile,
  writeCheckpoint,
  writeNpy,
  writeSafetensors,
} from "../io/mod.ts";
import {
  type ActivationOptions,
  dump,
  getObjective,
  load,
  meanSquaredErr,
  type ParameterArrays,
  SparseAutoencoder,
  type SparseAutoencoderOptions,
  TrainState,
} from "../mod.ts";
import { completeRunConfig, completeSweep } from "../runner/mod.ts";
import { openTraining, saveTraining, train, trainMany, type TrainOptions } from "../train/mod.ts";
import { FORMATS, goldenFiles, memoryFiles } from "./io/checkpoints/golden_files.ts";
import { sharedDevice } from "./support/gpu.ts";

/** A mistake, in words, and what makes it. */
type Mistakes = Readonly<Record<string, () => unknown>>;

const GOLDENS = new URL("goldens/", import.meta.url).pathname;
const SIZES = { d_model: 4, d_sae: 8 } as const;
const TOP_K = { key: "top-k", top_k: 2 } as const;

/** Each mistake with the class and the message of its error; the paths of a folder are the same everywhere. */
async function said(mistakes: Mistakes, folder = GOLDENS): Promise<string> {
  const lines: string[] = [];
  for (const [mistake, make] of Object.entries(mistakes)) {
    try {
      await make();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const message = error.message.replaceAll(folder, "FOLDER/").replaceAll(GOLDENS, "GOLDENS/");
      lines.push(`${mistake}\n  ${error.constructor.name}: ${message}`);
      continue;
    }
    throw new AssertionError(`${mistake}: no error`);
  }
  return lines.join("\n");
}

/** A name that TypeScript would not let pass. */
function untyped<T>(value: unknown): T {
  return value as T;
}

async function smallModel(): Promise<SparseAutoencoder> {
  return await SparseAutoencoder.create({ ...SIZES, activation: TOP_K }, { device: await sharedDevice() });
}

function parameters(): ParameterArrays {
  const zeros = (length: number) => new Float32Array(length);
  return { W_enc: zeros(32), b_enc: zeros(8), W_dec: zeros(32), b_dec: zeros(4) };
}

Deno.test("mistakes in a model's configuration and use", async (t) => {
  const device = await sharedDevice();
  using sae = await smallModel();
  using other = await SparseAutoencoder.create({ d_model: 6, d_sae: 8, activation: TOP_K }, { device });
  using state = new TrainState(other);
  const created = (options: unknown) => () =>
    SparseAutoencoder.create(untyped<SparseAutoencoderOptions>(options), { device });
  const activated = (activation: unknown) => created({ ...SIZES, activation: untyped<ActivationOptions>(activation) });
  const filled = (changed: Partial<ParameterArrays>) => () =>
    SparseAutoencoder.fromParameters({ ...SIZES, activation: TOP_K }, { ...parameters(), ...changed }, { device });
  const vanilla = getObjective({ key: "vanilla" });
  await assertSnapshot(
    t,
    await said({
      "an unknown field": created({ d_vit: 4 }),
      "no latents": created({ d_sae: 0 }),
      "a text as a number": created({ d_sae: "8" }),
      "an unknown activation": activated({ key: "topk" }),
      "an unknown field of an activation": activated({ key: "top-k", k: 32 }),
      "top_k of a half": activated({ key: "top-k", top_k: 1.5 }),
      "a penalty on L0 of a TopK": activated({ key: "top-k", sparsity: { key: "l0-sparsity", coeff: 1 } }),
      "a loss of thresholds for a ReLU": activated({ key: "relu", aux: { key: "pre-act" } }),
      "a penalty without a weight": activated({ key: "relu", sparsity: { key: "l1-sparsity" } }),
      "an unknown penalty": activated({ key: "relu", sparsity: { key: "l2", coeff: 1 } }),
      "an unknown auxiliary loss": activated({ key: "relu", aux: { key: "ghost-grads" } }),
      "a momentum above 1": activated({ key: "batch-top-k", momentum: 2 }),
      "an unknown option": () => SparseAutoencoder.create(SIZES, untyped({ sed: 1 })),
      "a scale of 0": () => SparseAutoencoder.create(SIZES, { device, input: { mean: null, scale: 0 } }),
      "a mean of another width": () =>
        SparseAutoencoder.create(SIZES, { device, input: { mean: new Float32Array(3), scale: 1 } }),
      "a matrix that is too short": filled({ W_enc: new Float32Array(31) }),
      "thresholds of a TopK": filled({ threshold: new Float32Array(8) }),
      "weights of another type": () =>
        SparseAutoencoder.fromParameters(SIZES, parameters(), { device, weights: untyped("bf16") }),
      "rows of another width": () => sae.encode({ x: new Float32Array(6), d_model: 6 }),
      "half a row": () => sae.encode(new Float32Array(6)),
      "a plain list": () => sae.encode(untyped([1, 2, 3, 4])),
      "no rows": () => sae.encode(new Float32Array()),
      "prefixes that do not ascend": () => sae.decode(sae.encode(new Float32Array(4)), [4, 2, 8]),
      "prefixes that end early": () => sae.decode(sae.encode(new Float32Array(4)), [2, 4]),
      "an unknown objective": () => getObjective(untyped({ key: "matryoska" })),
      "an unknown field of an objective": () => getObjective(untyped({ key: "vanilla", n_prefixes: 3 })),
      "prefixes and groups at once": () => getObjective({ key: "matryoshka", n_prefixes: 2, group_sizes: [4, 4] }),
      "groups that do not add up": () =>
        getObjective({ key: "matryoshka", group_sizes: [4, 3] }).lossAndGradients(other, new Float32Array(6), {
          state,
        }),
      "a target for a TopK": () => getObjective({ key: "vanilla", target_l0: 4 }).loss(sae, new Float32Array(4)),
      "another model's state": () => vanilla.lossAndGradients(sae, new Float32Array(4), { state }),
      "an unknown optimizer": () => new TrainState(sae, { optimizer: untyped("sgd") }),
      "tensors of two shapes": async () => {
        using codes = sae.encode(new Float32Array(8));
        using x_hat = sae.decode(codes);
        using wider = other.decode(other.encode(new Float32Array(12)));
        await meanSquaredErr(x_hat, wider);
      },
    }),
  );
});

Deno.test("mistakes in training", async (t) => {
  using sae = await smallModel();
  using second = await smallModel();
  using muon = new TrainState(sae, { optimizer: "muon" });
  using f16 = await SparseAutoencoder.fromParameters({ ...SIZES, activation: TOP_K }, parameters(), {
    device: await sharedDevice(),
    weights: "f16",
  });
  const rows = rowsOf(Float32Array.from({ length: 64 }, Math.sin), 4);
  const objective = getObjective({ key: "vanilla" });
  const trained = (options: Record<string, unknown>, batches: unknown = [new Float32Array(8)]) => () =>
    Array.fromAsync(train(sae, objective, untyped<Float32Array[]>(batches), options as TrainOptions));
  const huge = new Float32Array(8).fill(3e38);
  await assertSnapshot(
    t,
    await said({
      "an unknown option": trained({ grad_clipping: 1 }),
      "a negative rate": trained({ lr: -1 }),
      "half a step of warm-up": trained({ n_lr_warmup: 0.5 }),
      "clipping at 0": trained({ grad_clip: 0 }),
      "k_start alone": trained({ k_start: 4 }),
      "a yield after no steps": trained({ log_every: 0 }),
      "an unknown optimizer": trained({ optimizer: { key: "sgd" } }),
      "an unknown constant of Muon": trained({ optimizer: { key: "muon", beta: 1 } }),
      "the state of another optimizer": trained({ state: muon }),
      "a source without n_steps": trained({}, rows),
      "fewer batches than steps": trained({ n_steps: 3 }),
      "no batches": trained({}, 3),
      "rows of another width": trained({}, [{ x: new Float32Array(6), d_model: 6 }]),
      "rows that are not finite": trained({}, [new Float32Array(8).fill(NaN)]),
      "rows that are too large": trained({}, [huge, huge]),
      "f16 weights": () => Array.fromAsync(train(f16, objective, [])),
      "a model twice": () => Array.fromAsync(trainMany([{ sae, objective }, { sae, objective }], [])),
      "an option of the loop for one model": () =>
        Array.fromAsync(trainMany([{ sae: second, objective, options: untyped({ n_steps: 3 }) }], [])),
      "the state of another model": async () => {
        using state = new TrainState(second);
        await saveTraining(new WritableStream(), { sae, state });
      },
      "a state that is no file of states": () => openTraining(new Blob(["no state"])),
    }),
  );
});

Deno.test("mistakes in data and evaluation", async (t) => {
  using sae = await smallModel();
  const folder = await Deno.makeTempDir({ prefix: "messages" });
  const at = (name: string) => `${folder}/${name}`;
  const rows = rowsOf(Float32Array.from({ length: 64 }, Math.sin), 4);
  Deno.writeFileSync(at("rows.npy"), writeNpy({ data: new Float32Array(12), rows: 3, cols: 4 }));
  Deno.writeFileSync(at("rows.f32"), new Uint8Array(30));
  Deno.writeFileSync(at("short.npy"), Deno.readFileSync(at("rows.npy")).subarray(0, 140));
  Deno.writeTextFileSync(at("notes.txt"), "not rows");
  Deno.mkdirSync(at("empty"));
  try {
    await assertSnapshot(
      t,
      await said({
        "rows that are not whole": () => rowsOf(new Float32Array(7), 4),
        "a label too few": () => rowsOf(new Float32Array(8), 4, { labels: new Int32Array(1) }),
        "a range beyond the end": () => rowRange(rows, 10, 20),
        "sources of two widths": () => concatRows([rows, rowsOf(new Float32Array(6), 3)]),
        "no sources": () => concatRows([]),
        "batches of no rows": () => Array.fromAsync(batchesInOrder(rows, 0)),
        "an order that begins before its first step": () =>
          Array.fromAsync(shuffledBatches(rows, { batch_size: 4, n_steps: 1, firstStep: -1 })),
        "rows that are all alike": () => measureScaling(rowsOf(new Float32Array(8), 4), "mean_scale"),
        "a row that is not finite": () => measureScaling(rowsOf(new Float32Array([1, 2, 3, NaN]), 2), "mean"),
        "a file that is not there": () => openRows(at("gone.npy")),
        "a pattern that fits nothing": () => openRows(at("part-*.npy")),
        "a text file": () => openRows(at("notes.txt")),
        "rows of another width in a file": () => openRows(at("rows.npy"), { d_model: 5 }),
        "raw rows without a width": () => openRows(at("rows.f32"), { format: "f32" }),
        "raw rows that are not whole": () => openRows(at("rows.f32"), { format: "f32", d_model: 4 }),
        "a file that ends early": async () => void await (await openRows(at("short.npy"))).read(0, 3),
        "a key of a file without keys": () => openRows(at("rows.npy"), { key: "x" }),
        "a checkpoint as rows": () => openRows(`${GOLDENS}checkpoints/schema5_relu.pt`),
        "a folder that holds no shards": () => openShards(at("empty")),
        "a layer that was not recorded": () => openRows(`${GOLDENS}shards/v2.1-cls-exact/3be8efe2`, { layer: 99 }),
        "a mask that has no whole patches": () =>
          patchLabels(new Uint8Array(20), { width: 5, patch_size: 2, pixel_agg: "majority" }),
        "an image that is too small": () =>
          planResize(untyped({ resize: null, crop: { height: 8, width: 8 } }), { height: 4, width: 4 }),
        "an evaluation without rows": () => evaluate(sae, []),
        "an evaluation with rows of another width": () => evaluate(sae, rowsOf(new Float32Array(6), 3)),
        "an evaluation with an unknown option": () => evaluate(sae, rows, untyped({ denseAbove: 1 })),
        "a latent that is not there": () => nearestLatents(sae, 8),
        "the strongest rows of no rows": () => topRows(sae, rows, { k: 0 }),
      }, `${folder}/`),
    );
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("mistakes in files", async (t) => {
  using sae = await smallModel();
  const folder = await Deno.makeTempDir({ prefix: "messages" });
  const at = (name: string) => `${folder}/${name}`;
  const golden = (name: string) => Deno.readFileSync(`${GOLDENS}${name}`);
  const checkpoint = golden("checkpoints/schema5_top_k.pt");
  const npy = writeNpy({ data: new Float32Array(12), rows: 3, cols: 4 });
  const header = (change: (json: string) => string) => {
    const end = checkpoint.indexOf(10);
    const line = new TextEncoder().encode(change(new TextDecoder().decode(checkpoint.subarray(0, end))));
    const body = checkpoint.subarray(end);
    const whole = new Uint8Array(line.length + body.length);
    whole.set(line);
    whole.set(body, line.length);
    return whole;
  };
  const file = (name: string, bytes: Uint8Array | string) => {
    if (typeof bytes === "string") Deno.writeTextFileSync(at(name), bytes);
    else Deno.writeFileSync(at(name), bytes);
    return at(name);
  };
  const loaded = (name: string, bytes: Uint8Array | string) => async () => {
    using _ = await load(file(name, bytes), { device: await sharedDevice() });
  };
  const read =
    <T>(reader: (source: Awaited<ReturnType<typeof openSource>>) => T, name: string, bytes: Uint8Array | string) =>
    async () => await reader(await openSource(file(name, bytes)));
  const cut = (bytes: Uint8Array, share = 0.5) => bytes.subarray(0, Math.floor(bytes.length * share));
  Deno.mkdirSync(at("empty"));
  const model = await readCheckpoint(`${GOLDENS}checkpoints/schema5_top_k.pt`);
  try {
    await assertSnapshot(
      t,
      await said({
        "a file that is not there": () => load(at("gone.pt")),
        "an empty folder": () => load(at("empty")),
        "an empty file": loaded("empty.pt", ""),
        "a text file": loaded("notes.txt", "some notes\n"),
        "a web page instead of a file": loaded("page.pt", "<!doctype html><html></html>"),
        "a checkpoint that ends early": loaded("short.pt", cut(checkpoint)),
        "a checkpoint that ends in its header": loaded("header.pt", cut(checkpoint, 0.01)),
        "a header that is not JSON": loaded("json.pt", header((json) => json.replace("{", "{,"))),
        "a schema of the future": loaded("future.pt", header((json) => json.replace(/"schema": *\d+/, '"schema": 99'))),
        "an unknown activation": loaded("activation.pt", header((json) => json.replaceAll("top-k", "softmax"))),
        "a pickle of another program": loaded(
          "pickle.pt",
          Uint8Array.from("\x80\x02cposix\nsystem\n.", (character) => character.charCodeAt(0)),
        ),
        "an npy file that ends early": read(readNpy, "short.npy", cut(npy, 0.9)),
        "an npy file with another start": read(readNpy, "start.npy", "\x93NUMPZ"),
        "an npz file that ends early": read(openNpz, "short.npz", cut(golden("arrays/savez.npz"))),
        "a safetensors file that ends early": read(
          readSafetensors,
          "short.safetensors",
          "\x08\x00\x00\x00\x00\x00\x00\x00{}",
        ),
        "a safetensors file that is not one": read(readSafetensors, "no.safetensors", "x".repeat(40)),
        "a PyTorch file that ends early": read(
          readTorchFile,
          "short-torch.pt",
          cut(golden("torch/like_descriptors.pt")),
        ),
        "an ONNX model that is not one": () => readOnnxModel(new Uint8Array([1, 2, 3]), "model.onnx"),
        "bytes that are no checkpoint": () => parseCheckpoint(bytesSource(new Uint8Array(4))),
        "SAELens without its configuration": async () => {
          const [name] = ["sae_weights.safetensors"];
          Deno.mkdirSync(at("saelens"));
          file(`saelens/${name}`, golden(`formats/saelens/topk/${name}`));
          await readCheckpoint(at("saelens"));
        },
        "an unknown option of a reader": () => readCheckpoint(at("empty"), untyped({ acept: [] })),
        "an unknown option of a writer": () => dump(at("new.pt"), sae, untyped({ folded: true })),
        "the same file picked twice": () => pickedFiles([new File([], "a"), new File([], "a")]),
        "a folder instead of a file": () => dump(at("empty"), sae),
        "a schema that is not written": () => dump(at("new.pt"), sae, { schema: untyped(3) }),
        "an unknown format": () => writeCheckpoint(at("new"), model, { format: untyped("pytorch") }),
        "a schema of a format that has none": () => writeCheckpoint(at("new"), model, { format: "saelens", schema: 1 }),
        "an array of another shape": () => writeNpy({ data: new Float32Array(3), rows: 2, cols: 2 }),
        "two tensors of one name": () =>
          writeSafetensors(
            new WritableStream(),
            untyped([
              { name: "a", shape: [1], data: new Float32Array(1) },
              { name: "a", shape: [1], data: new Float32Array(1) },
            ]),
          ),
        "an address of the hub without a file": () => load("hf://"),
        "an address of another protocol": () => openSource(new URL("ftp://example.org/sae.pt")),
      }, `${folder}/`),
    );
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("files of other libraries that end early, or that no loader can read as what they are", async (t) => {
  const goldens = goldenFiles();
  const mistakes: Record<string, () => unknown> = {};
  for (const format of FORMATS) {
    const { name, files, main } = goldens.find((golden) => golden.format === format && !golden.refused)!;
    const [largest, bytes] = [...files].reduce((most, file) => file[1].length > most[1].length ? file : most);
    const cut = new Map([...files, [largest, bytes.subarray(0, bytes.length / 2)]]);
    mistakes[`${format}/${name}: ${largest} ends early`] = () => readCheckpoint(memoryFiles(cut, main));
  }
  for (const { format, name, files, main, refused } of goldens) {
    if (refused) mistakes[`${format}/${name}`] = () => readCheckpoint(memoryFiles(files, main));
  }
  await assertSnapshot(t, await said(mistakes));
});

Deno.test("mistakes in a run's configuration", async (t) => {
  const configured = (text: string) => () => completeRunConfig(parseToml(text) as never);
  const swept = (text: string) => () => completeSweep(parseToml(text) as never);
  const withPath = (text: string) => configured(`data.path = "a.npy"\n${text}`);
  await assertSnapshot(
    t,
    await said({
      "nothing": configured(""),
      "an unknown table": withPath("[training]\nlr = 1"),
      "an unknown field": withPath("[init]\nseed = 1"),
      "a field with a slip of the pen": withPath("[train]\nbatch_sizes = 1"),
      "a text as a number": withPath('[train]\nlr = "1e-3"'),
      "a rate below 0": withPath("[train]\nlr = -1"),
      "two lengths": withPath("[train]\nn_epochs = 1\nn_steps = 2"),
      "an unknown optimizer": withPath('[train]\noptim = "sgd"'),
      "an unknown way to standardise": withPath('[data]\nstandardise = "zscore"'.replace("[data]\n", "data.")),
      "a share above 1": withPath("data.validation_share = 2"),
      "an unknown activation": withPath('sae.activation = { key = "topk" }'),
      "an activation without a key": withPath("sae.activation = { top_k = 3 }"),
      "a table instead of a number": withPath("[sae.d_sae]\nx = 1"),
      "k_start of a ReLU": withPath('sae.activation = { key = "relu" }\ntrain.k_start = 3\ntrain.n_k_warmup = 2'),
      "an empty list in a sweep": swept('data.path = "a.npy"\ntrain.lr = []'),
      "a sweep with a wrong value": swept('data.path = "a.npy"\ntrain.lr = [1e-3, -1]'),
      "TOML with a key twice": configured("a = 1\na = 2"),
      "TOML without a value": configured("a ="),
      "TOML with an open text": configured('a = "b'),
      "TOML with a bare word": configured("a = relu"),
    }),
  );
});

Deno.test("mistakes on the command line", async (t) => {
  const folder = await Deno.makeTempDir({ prefix: "messages" });
  const at = (name: string) => `${folder}/${name}`;
  Deno.writeTextFileSync(at("broken.toml"), "[train\nlr = 1");
  Deno.writeTextFileSync(at("config.toml"), 'data.path = "gone.npy"\n[train]\nlr = 1e-3\n');
  Deno.writeTextFileSync(at("wrong.toml"), 'data.path = "gone.npy"\n[init]\nseed = 1\n');
  const commands: readonly (readonly string[])[] = [
    ["trian"],
    ["--quiet"],
    ["train"],
    ["train", "a.toml", "b.toml"],
    ["train", at("gone.toml")],
    ["train", at("broken.toml")],
    ["train", at("wrong.toml")],
    ["train", at("config.toml")],
    ["train", at("config.toml"), "--ovewrite"],
    ["train", at("config.toml"), "--out"],
    ["train", at("config.toml"), "--resume", "--overwrite"],
    ["train", at("config.toml"), "--train.lr", "fast"],
    ["train", at("config.toml"), "--slurm.time", "soon"],
    ["train", at("config.toml"), "--task", "3"],
    ["train", at("config.toml"), "--submit"],
    ["train", at("config.toml"), "--seeds", "2", "--train.seed", "[1, 2]"],
    ["collect", at("gone")],
    ["train", at("config.toml"), "--init.seed", "1"],
    ["inspect", at("gone.pt")],
    ["inspect", at("config.toml")],
    ["convert", at("gone.pt"), at("new.pt")],
    ["convert", at("gone.pt"), at("new.pt"), "--to", "safetensor"],
    ["evaluate", at("gone"), at("gone.npy"), "--batchsize", "4"],
    ["evaluate", at("gone")],
    ["encode", at("gone")],
    ["tune", "--d-model", "x"],
    ["demo", "--steps", "0"],
  ];
  const lines: string[] = [];
  let written = "";
  for (const stream of ["stdout", "stderr"] as const) {
    Deno[stream].writeSync = (bytes) => {
      written += new TextDecoder().decode(bytes);
      return bytes.length;
    };
  }
  try {
    for (const args of commands) {
      written = "";
      const code = await main(args);
      lines.push(`saev ${args.join(" ")}\n  exit ${code}: ${written.trim().split("\n")[0]}`);
    }
  } finally {
    for (const stream of ["stdout", "stderr"] as const) Reflect.deleteProperty(Deno[stream], "writeSync");
    Deno.removeSync(folder, { recursive: true });
  }
  await assertSnapshot(t, lines.join("\n").replaceAll(`${folder}/`, "FOLDER/"));
});
