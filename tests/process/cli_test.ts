/** The command line as a process: help, mistakes of every kind, a run from its file to its evaluation, Ctrl-C. @module */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { parse } from "@std/toml";
import { load, readCheckpoint } from "../../io/checkpoints/checkpoint.ts";
import { writeNpy } from "../../io/npy.ts";
import { littleEndianBytes } from "../../io/numbers.ts";
import { completeConfig } from "../../nn/config.ts";
import { completeRunConfig } from "../../runner/run_config.ts";
import { serveFiles } from "../io/file_server.ts";
import { Random } from "../support/random.ts";
import { assertKMeans } from "../support/tolerance.ts";

const CLI = new URL("../../cli/mod.ts", import.meta.url).href;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;

function runArgs(args: readonly string[]): string[] {
  return ["run", "--quiet", "-A", "--config", CONFIG, CLI, ...args];
}

function command(args: readonly string[], options: Deno.CommandOptions = {}): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: runArgs(args),
    stdout: "piped",
    stderr: "piped",
    ...options,
  });
}

/** Runs it to the end. The driver's own complaints about its environment are left out. */
async function saev(args: readonly string[], options: Deno.CommandOptions = {}) {
  const { code, stdout, stderr } = await command(args, options).output();
  const lines = new TextDecoder().decode(stderr).split("\n").filter((line) => !line.includes("XDG_RUNTIME_DIR"));
  return { code, stdout: new TextDecoder().decode(stdout), stderr: lines.join("\n") };
}

/** A folder that is gone after the test. */
async function folder(
  files: Readonly<Record<string, string | Uint8Array>> = {},
): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir();
  for (const [name, content] of Object.entries(files)) {
    await Deno.writeFile(`${path}/${name}`, typeof content === "string" ? new TextEncoder().encode(content) : content);
  }
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** A small matrix with more structure than its width. */
function matrix(rows: number, cols: number): Float32Array {
  const random = new Random(1);
  const directions = random.normal(4 * cols * cols);
  return Float32Array.from({ length: rows * cols }, (_, i) => {
    const row = new Random(Math.floor(i / cols));
    return row.unit() * directions[row.integer(0, 4 * cols - 1) * cols + i % cols]!;
  });
}

Deno.test("help is everywhere", async () => {
  for (
    const [args, words] of [
      [["--help"], [
        "demo",
        "config",
        "train CONFIG",
        "compare RUN...",
        "evaluate CHECKPOINT DATA",
        "encode RUN",
        "inspect CHECKPOINT",
        "convert CHECKPOINT OUT",
        "tune",
        "--version",
      ]],
      [["demo", "--help"], ["--steps N", "--top-k N", "--activation KEY", "(default: 256)", "runs/demo"]],
      [["train", "--help"], [
        "--overwrite",
        "makes a sweep",
        "data.path",
        "validation_share",
        "checkpoint_every",
        "[objective]",
      ]],
      [["train", "x.toml", "-h"], ["Usage: saev train CONFIG [OPTIONS]"]],
      [["evaluate", "--help"], [
        "--batch-size N",
        "--json",
        "--monosemanticity",
        "--embeddings FILE",
        "--weights HOW",
        "(default: 1e-7)",
        "(default: 0.01)",
      ]],
    ] as const
  ) {
    const { code, stdout, stderr } = await saev(args);
    assertEquals([code, stderr], [0, ""], args.join(" "));
    for (const word of words) assertStringIncludes(stdout, word, args.join(" "));
  }
  const { version } = JSON.parse(await Deno.readTextFile(CONFIG));
  for (const asked of ["--version", "-V", "version"]) assertEquals((await saev([asked])).stdout, `${version}\n`);
  assertEquals(await saev(["help", "train"]), await saev(["train", "--help"]));
  assertEquals(await saev(["help"]), await saev(["-h"]));
  assertStringIncludes((await saev(["help", "trian"])).stderr, "unknown command trian; did you mean train?");
});

Deno.test("the configuration that the help shows is the default one", async () => {
  const { stdout } = await saev(["train", "--help"]);
  const help = parse(stdout.slice(stdout.indexOf("  [data]")));
  assertEquals(help, parse((await saev(["config"])).stdout));
  const shown = completeRunConfig(help);
  const { data, init, train, log } = completeRunConfig({ data: { path: shown.data.path } });
  assertEquals([shown.data, shown.init, shown.train, shown.log], [data, init, train, log]);
  assertEquals(completeConfig(shown.sae), completeConfig());
});

/** Mistakes, the exit code, and what the one line of the error must say. */
const MISTAKES: readonly [args: string, code: number, message: string][] = [
  ["dmeo", 2, "unknown command dmeo; did you mean demo?"],
  [
    "frobnicate",
    2,
    "unknown command frobnicate; expected one of demo, activations, config, train, baseline, collect, compare, evaluate, encode, probe, features, stability, inspect, convert, tune",
  ],
  ["toString", 2, "unknown command toString"],
  ["--hlep", 2, "unknown option --hlep; did you mean --help?"],
  ["demo --stpes 3", 2, "unknown option --stpes; did you mean --steps?"],
  ["demo --stpes=3", 2, "unknown option --stpes; did you mean --steps?"],
  ["demo -x", 2, "unknown option -x"],
  ["demo --steps", 2, "--steps needs a value"],
  ["demo --steps three", 2, '--steps must be a number of at least 1, found "three"'],
  ["demo --steps 1.5", 2, "--steps must be an integer, found 1.5"],
  ["demo --steps 0", 2, '--steps must be a number of at least 1, found "0"'],
  ["demo --lr nan", 2, "--lr must be a number"],
  ["demo --activation topk", 2, '--activation is "topk"; did you mean top-k?'],
  ["demo here", 2, "demo takes no arguments, found here"],
  ["train", 2, "train takes CONFIG, found none"],
  ["train a.toml b.toml", 2, "train takes CONFIG, found a.toml b.toml"],
  ["train no-such.toml", 1, "no-such.toml"],
  ["train wide.toml --resume --overwrite", 2, "--resume and --overwrite contradict each other"],
  ["train wide.toml --resume=later", 2, '--resume is "later"; expected one of auto, previous'],
  ["train wide.toml --changed-data", 2, "--changed-data works only with --resume; give --resume too"],
  ["train plain.toml --resume", 1, "resuming runs/plain: there is no such folder"],
  ["train twice.toml", 2, "twice.toml: line 4: lr is given twice; the first is on line 3"],
  ["train huge.toml", 2, "huge.toml has 300,000 bytes; expected a configuration of at most 262,144"],
  ["train many.toml", 2, "many.toml: its lists make 250,000 runs; expected at most 1,000"],
  ["train broken.toml", 2, "broken.toml: "],
  ["train unknown.toml", 2, "unknown.toml: unknown field train.batchsize; did you mean train.batch_size?"],
  ["train no-data.toml", 1, "no-such.npy"],
  ["train plain.toml --train.lr", 2, "--train.lr needs a value; saev config lists the values of train.lr"],
  [
    "train plain.toml --train.lrr 3",
    2,
    "plain.toml with --train.lrr 3: unknown field train.lrr; did you mean train.lr?",
  ],
  ["config plain.toml", 2, "config takes no arguments, found plain.toml; see saev config --help"],
  ["train wide.toml --out wide", 1, "sae.d_model is 9, but the rows of a.npy have width 8"],
  ["compare", 2, "compare takes RUN..., found none"],
  ["compare a.npy", 2, "a.npy is not the folder of a run or a sweep; to compare another checkpoint, give --data too"],
  ["compare a.npy --pick 0", 2, "--pick must be a number of at least 1"],
  ["evaluate no-such.pt a.npy", 1, "no-such.pt"],
  ["evaluate a.npy a.npy", 1, "reading"],
  ["evaluate a.pt a.npy --dense-above 1.5", 2, '--dense-above must be a number from 0 to 1, found "1.5"'],
  ["evaluate a.pt a.npy --almost-dead-below -1", 2, "--almost-dead-below"],
  ["evaluate a.pt a.npy --weights f61", 2, '--weights is "f61"; '],
  ["encode a.pt", 2, "encode needs --data, the rows to encode"],
  ["encode a.pt --data a.npy", 2, "encode needs --out, the output folder, because a.pt is not a folder"],
  ["encode a.pt --data a.npy --ignore-labels 3,x", 2, "--ignore-labels must be integers from 0 to 255"],
  ["encode no-such.pt --data a.npy --out codes", 1, "no-such.pt"],
  ["baseline nmf a.npy --out x", 2, "METHOD is nmf; expected pca or k-means"],
  ["baseline pca a.npy", 2, "baseline needs --out, the folder for sae.pt"],
  ["baseline pca a.npy --out x --clusters 3", 2, "--clusters is not for pca"],
  ["baseline k-means a.npy --out x --components 3", 2, "--components is not for k-means"],
  ["baseline k-means a.npy --out x", 1, "found 4 rows for 1024 clusters"],
  ["probe run", 2, "probe needs --labels, the classes of the tokens"],
  ["probe run --labels a.npy --test-codes x", 2, "--test-codes needs --test, their classes"],
  ["probe run --labels no-such", 1, "no-such"],
  ["tune --d-sae 0", 2, '--d-sae must be a number of at least 1, found "0"'],
  ["tune here", 2, "tune takes no arguments, found here"],
];

Deno.test("mistakes are told in one line", async () => {
  await using made = await folder({
    "broken.toml": "[data\npath = 3",
    "plain.toml": "data.path = 'a.npy'",
    "twice.toml": "data.path = 'a.npy'\n[train]\nlr = 1\nlr = 2",
    "huge.toml": "#".repeat(300_000),
    "many.toml": `data.path = 'a.npy'\n[train]\nseed = [${"1,".repeat(500)}]\nn_lr_warmup = [${"1,".repeat(500)}]`,
    "unknown.toml": "data.path = 'a.npy'\ntrain.batchsize = 3",
    "no-data.toml": "data.path = 'no-such.npy'",
    "wide.toml": "data.path = 'a.npy'\nsae.d_model = 9",
    "a.npy": writeNpy({ data: matrix(4, 8), rows: 4, cols: 8 }),
  });
  const found = await Promise.all(MISTAKES.map(([args]) => saev(args.split(" "), { cwd: made.path })));
  for (const [i, [args, code, message]] of MISTAKES.entries()) {
    const { stderr, stdout } = found[i]!;
    assertEquals(found[i]!.code, code, `${args}: ${stderr}`);
    assertEquals(stdout, "", args);
    assertMatch(stderr, /^error: [^\n]+\n$/, args);
    assertStringIncludes(stderr, message, args);
  }
  const { code, stderr } = await saev([]);
  assertEquals(code, 2);
  assertStringIncludes(stderr, "Usage: saev COMMAND");
});

const RUN = `
  [data]
  path = "PATH"
  d_model = 8
  validation_share = 0.25
  [sae]
  d_sae = 32
  activation = { key = "top-k", top_k = 2 }
  [train]
  batch_size = 50
  n_epochs = 3
  n_lr_warmup = 2
  log_every = 5
`;

Deno.test("a run goes from its file to its evaluation, and raw numbers train as those of NumPy's format", async () => {
  const data = matrix(400, 8);
  await using made = await folder({
    "npy.toml": RUN.replace("PATH", "a.npy"),
    "raw.toml": RUN.replace("PATH", "a.f32"),
    "a.npy": writeNpy({ data, rows: 400, cols: 8 }),
    "a.f32": littleEndianBytes(data),
    "a.json": '{ "shape": [400, 8] }',
    "few.npy": writeNpy({ data: data.slice(0, 6), rows: 2, cols: 3 }),
  });
  const first = await saev(["train", "npy.toml"], { cwd: made.path });
  assertEquals([first.code, first.stdout], [0, ""], first.stderr);
  for (
    const text of ["300 rows of 8 to train on, 100 kept back", "step 18/18", "validation: NMSE", "runs/npy/report.html"]
  ) {
    assertStringIncludes(first.stderr, text);
  }
  const run = `${made.path}/runs/npy`;
  const names = await Array.fromAsync(Deno.readDir(run), ({ name }) => name);
  assertEquals(names.sort(), [
    "config.json",
    "config.toml",
    "metrics.json",
    "metrics.jsonl",
    "report.html",
    "run.json",
    "sae.pt",
    "training.safetensors",
  ]);
  assertEquals(await Deno.readTextFile(`${run}/config.toml`), RUN.replace("PATH", "a.npy"));

  const again = await saev(["train", "npy.toml"], { cwd: made.path });
  assertEquals(again.code, 1);
  assertMatch(again.stderr, /^error: runs\/npy already holds a run[^\n]*\n$/);
  assertEquals((await saev(["train", `${made.path}/raw.toml`, "--out", `${made.path}/raw`], {})).code, 0);
  assertEquals(await Deno.readFile(`${made.path}/raw/sae.pt`), await Deno.readFile(`${run}/sae.pt`));

  const [shown, halves, json, own, given, wrong] = await Promise.all([
    [],
    ["--json", "--weights", "f16"],
    ["--json", "--dense-above", "0.5", "--batch-size", "7"],
    ["--json", "--monosemanticity"],
    // The rows as embeddings of themselves, from a file that says its own width.
    ["--json", "--embeddings", "a.f32"],
    ["--embeddings", "few.npy"],
  ].map((options) => saev(["evaluate", "runs/npy/sae.pt", "a.npy", ...options], { cwd: made.path })));
  assertEquals([shown!.code, shown!.stderr], [0, ""]);
  assertMatch(shown!.stdout, /^runs\/npy\/sae\.pt on a\.npy: 400 rows of 8, 32 latents, on .+\n\nreconstruction\n/);
  assertMatch(shown!.stdout, /\n {2}L0 +2 +active latents per row\n/);
  assertEquals(shown!.stdout.includes("monosemanticity"), false);

  assertEquals([json!.code, json!.stderr], [0, ""]);
  const { n_rows, l0, density, dense_above, coherence, monosemanticity, ...others } = JSON.parse(json!.stdout);
  assertEquals([n_rows, l0, density.length, coherence.per_latent.length], [400, 2, 32, 32]);
  assertEquals([dense_above, others.n_dense, monosemanticity], [0.5, countAbove(density, 0.5), undefined]);
  assertEquals(others.explained_variance, 1 - others.nmse);
  assertEquals(others.undefined_metrics, {});

  assertEquals([halves!.code, halves!.stderr], [0, ""]);
  const rounded = JSON.parse(halves!.stdout);
  assertEquals([rounded.n_rows, rounded.l0], [400, 2]);
  assert(rounded.nmse !== others.nmse, "weights are not rounded");

  assertEquals([own!.code, given!.code], [0, 0], given!.stderr);
  assertEquals(JSON.parse(given!.stdout), JSON.parse(own!.stdout));
  const { per_latent: scores, n_latents, mean } = JSON.parse(own!.stdout).monosemanticity;
  assertEquals([scores.length, scores.filter((score: number | null) => score !== null).length], [32, n_latents]);
  assert(mean > 0 && mean < 1, `monosemanticity ${mean}`);
  assertEquals([wrong!.code, wrong!.stdout], [1, ""]);
  assertMatch(
    wrong!.stderr,
    /^error: few\.npy has 2 rows; expected one for each of the 400 rows of a\.npy\n$/,
  );
  const narrow = await saev(["evaluate", "runs/npy/sae.pt", "few.npy"], { cwd: made.path });
  assertEquals([narrow.code, narrow.stdout], [1, ""]);
  assertMatch(narrow.stderr, /found rows of 3 numbers, expected 8 \(d_model\), as runs\/npy\/sae\.pt has it\n$/);
});

Deno.test("the codes of a run, and of any checkpoint, are written where the Python package looks for them", async () => {
  const goldens = new URL("../goldens/", import.meta.url).pathname;
  const shards = `${goldens}shards/v2.1-cls-labels/858efe9c`;
  await using made = await folder({
    "a.npy": writeNpy({ data: matrix(400, 8), rows: 400, cols: 8 }),
    "few.npy": writeNpy({ data: new Float32Array(6), rows: 2, cols: 3 }),
  });
  await Deno.mkdir(`${made.path}/run/checkpoint`, { recursive: true });
  await Deno.copyFile(`${goldens}inference/top-k/checkpoint/sae.pt`, `${made.path}/run/checkpoint/sae.pt`);
  const cwd = made.path;
  const args = ["encode", "run/", "--data", shards, "--ignore-labels", "0,3", "--n-dists", "4"];
  const first = await saev(args, { cwd });
  assertEquals(first.code, 0, first.stderr);
  assertMatch(
    first.stdout,
    /folder +run\/inference\/858efe9c\n +tokens counted +135\n +codes +540, 4\.000 per token\n/,
  );
  const written = JSON.parse(await Deno.readTextFile(`${cwd}/run/inference/858efe9c/config.json`));
  assertEquals([written.run, written.data.shards, written.data.layer, written.n_dists], ["run/", shards, -2, 4]);

  const foreign = `${goldens}formats/saelens/topk`;
  const again = await saev(args, { cwd });
  const [other, labels, wide, json] = await Promise.all([
    ["encode", "run", "--data", shards],
    ["encode", "run", "--data", "a.npy", "--ignore-labels", "1"],
    ["encode", foreign, "--data", "few.npy", "--out", "x"],
    ["encode", foreign, "--data", "a.npy", "--out", "foreign", "--json"],
  ].map((args) => saev(args, { cwd })));
  assertEquals([again.code, again.stdout], [0, first.stdout]);
  assertStringIncludes(again.stderr, "run/inference/858efe9c already holds these codes");
  assertEquals(other!.code, 1);
  assertStringIncludes(
    other!.stderr,
    "found codes without the labels 0, 3; choose another folder, or give --overwrite",
  );
  assertEquals(labels!.code, 1);
  assertStringIncludes(
    labels!.stderr,
    "reading a.npy: --ignore-labels needs content tokens with labels.bin; found none",
  );
  assertEquals(wide!.code, 1);
  assertMatch(wide!.stderr, /found rows of 3 numbers, expected 8 \(d_model\), as .*saelens\/topk has it\n$/);
  assertEquals(json!.code, 0, json!.stderr);
  const { out, n_kept, n_tokens, n_entries, d_model } = JSON.parse(json!.stdout);
  assertEquals([out, n_kept, n_tokens, d_model], ["foreign", 0, 400, 8]);
  assert(n_entries > 0 && n_entries % 1 === 0);
});

Deno.test("probes say which latent tells a class, on the rows of another split", async () => {
  const goldens = new URL("../goldens/probe1d", import.meta.url).pathname;
  await using made = await folder();
  const cwd = made.path;
  const args = ["probe", "run", "--labels", `${goldens}/train`, "--test", `${goldens}/test`];
  const without = await saev(args, { cwd });
  assertEquals([without.code, without.stdout], [1, ""]);
  assertStringIncludes(
    without.stderr,
    "probing run: found no token_acts.npz in run/inference/9d34fdb2 or run; saev encode run",
  );
  for (const [split, hash] of [["train", "9d34fdb2"], ["test", "982225a7"]]) {
    await Deno.mkdir(`${cwd}/run/inference/${hash}`, { recursive: true });
    await Deno.copyFile(`${goldens}/${split}/token_acts.npz`, `${cwd}/run/inference/${hash}/token_acts.npz`);
  }
  const [shown, json, alone, same] = await Promise.all([
    args,
    [...args, "--json", "--ridge", "1e-6"],
    ["probe", "run/inference/9d34fdb2", "--labels", `${goldens}/train`],
    ["probe", "run/inference/9d34fdb2", "--labels", `${goldens}/train`, "--test", `${goldens}/test`],
  ].map((args) => saev(args, { cwd })));
  assertEquals(shown!.code, 0, shown!.stderr);
  assertMatch(shown!.stdout, /probes +24 latents × 5 classes\n +scored on +the rows of --test\n/);
  assertMatch(shown!.stdout, /mAP +0\.6433\n +coverage at 0\.3 +1\.000\n +purity@16 +0\.6375\n/);
  assertMatch(shown!.stdout, /\n {2}class 0 +latent 16 +AP 1\.000 +F1 1\.000 +133 rows\n/);
  assertStringIncludes(shown!.stdout, "\nrun/inference/982225a7/probe1d_metrics__train-9d34fdb2.npz\n");
  assertEquals(json!.code, 0, json!.stderr);
  const { classes, purity_at_16_of_latents: purities, mean_ap } = JSON.parse(json!.stdout);
  assertEquals([classes.length, classes[3].latent, purities.length, purities[23]], [5, 3, 24, null]);
  assert(mean_ap > 0.6 && mean_ap < 0.7);
  assertEquals(alone!.code, 0, alone!.stderr);
  assertStringIncludes(alone!.stdout, "the rows on which they were fitted");
  assertEquals(same!.code, 2);
  assertStringIncludes(same!.stderr, "--test has the codes of --labels, run/inference/9d34fdb2; give --test-codes too");
});

Deno.test("baselines are checkpoints that every command takes", async () => {
  const data = matrix(400, 8);
  await using made = await folder({ "a.npy": writeNpy({ data, rows: 400, cols: 8 }) });
  const cwd = made.path;
  const [pca, kMeans] = await Promise.all([
    ["baseline", "pca", "a.npy", "--out", "pca", "--components", "3"],
    ["baseline", "k-means", "a.npy", "--out", "k-means", "--clusters", "10", "--seed", "2", "--json"],
  ].map((args) => saev(args, { cwd })));
  assertEquals(pca!.code, 0, pca!.stderr);
  assertMatch(pca!.stdout, /checkpoint +pca\/sae\.pt\n +rows +400 of 8\n +latents +3\n +explained variance +0\.\d+\n$/);
  assertEquals(kMeans!.code, 0, kMeans!.stderr);
  const { method, path, d_sae, mse } = JSON.parse(kMeans!.stdout);
  assertEquals([method, path, d_sae], ["k-means", "k-means/sae.pt", 10]);
  const [ofPca, ofKMeans, encoded, again] = await Promise.all([
    ["evaluate", "pca", "a.npy", "--json"],
    ["evaluate", "k-means", "a.npy", "--json"],
    ["encode", "k-means", "--data", "a.npy", "--json"],
    ["baseline", "pca", "a.npy", "--out", "pca", "--components", "3"],
  ].map((args) => saev(args, { cwd })));
  assertEquals([JSON.parse(ofPca!.stdout).l0, JSON.parse(ofKMeans!.stdout).l0], [3, 1]);
  assertKMeans(JSON.parse(ofKMeans!.stdout).mse, mse, "the error that k-means said");
  assertEquals(JSON.parse(encoded!.stdout).n_entries, 400);
  assertEquals([again!.code, again!.stdout], [1, ""]);
  assertStringIncludes(again!.stderr, "pca/sae.pt");
});

Deno.test("warnings have a line each, and rows that are not finite are an error that names them", async () => {
  const data = matrix(5000, 8);
  const config = RUN.replace("n_epochs = 3", "n_steps = 12").replace("n_lr_warmup = 2", "n_lr_warmup = 20");
  await using made = await folder({
    "far.toml": config.replace("PATH", "far.npy"),
    "bad.toml": config.replace("PATH", "bad.npy"),
    "still.npy": writeNpy({ data: new Float32Array(80).fill(2), rows: 10, cols: 8 }),
    "far.npy": writeNpy({ data: data.map((value) => value + 9), rows: 5000, cols: 8 }),
    // In validation, which is read when training is over.
    "bad.npy": writeNpy({ data: data.with(4000 * 8 + 5, Infinity), rows: 5000, cols: 8 }),
  });
  const cwd = made.path;
  const [far, bad] = await Promise.all(["far.toml", "bad.toml"].map((file) => saev(["train", file], { cwd })));
  assertEquals(far!.code, 0, far!.stderr);
  assertStringIncludes(far!.stderr, "\nset from the length of the run: objective.dead_threshold_tokens 400\n");
  const warnings = far!.stderr.split("\n").filter((line) => line.startsWith("warning: "));
  const expected = [
    "12 steps are too few for a dictionary to form; raise train.n_steps (now 12)",
    "the mean row is ",
    "the learning rate does not reach its peak: n_lr_warmup is 20 and the run has 12 steps",
    "the NMSE on the validation rows is ",
  ];
  assertEquals(warnings.length, expected.length, far!.stderr);
  expected.forEach((text, i) => assertStringIncludes(warnings[i]!, text));
  assertEquals(bad!.code, 1);
  const place = "bad.npy: row 4000 has Infinity in column 5; remove rows that are not finite";
  assertStringIncludes(bad!.stderr, `error: ${place}; runs/bad holds the state of step 12`);
  const still = await saev(["evaluate", "runs/far/sae.pt", "still.npy", "--json"], { cwd });
  const { nmse, undefined_metrics: reasons } = JSON.parse(still.stdout);
  assertEquals([nmse, reasons.nmse, reasons.explained_variance], [
    null,
    "the rows do not vary",
    "the rows do not vary",
  ]);
  const evaluated = await saev(["evaluate", "runs/far/sae.pt", "bad.npy"], { cwd });
  assertEquals([evaluated.code, evaluated.stdout, evaluated.stderr], [1, "", `error: ${place}\n`]);
});

Deno.test("what tune finds is remembered, used by later runs, and changes no byte", async () => {
  await using made = await folder({
    "a.toml": RUN.replace("PATH", "a.npy"),
    "a.npy": writeNpy({ data: matrix(400, 8), rows: 400, cols: 8 }),
  });
  const { DENO_DIR, HOME } = Deno.env.toObject();
  const options = {
    cwd: made.path,
    env: { XDG_CACHE_HOME: `${made.path}/cache`, DENO_DIR: DENO_DIR ?? `${HOME}/.cache/deno` },
  };
  const file = `${made.path}/cache/saev-nn/tuning.json`;
  const before = await saev(["train", "a.toml", "--out", "before"], options);
  assertEquals([before.code, before.stderr.includes("saev tune")], [0, false], before.stderr);

  // Without a second for the candidates, the defaults are measured alone.
  const sizes = ["--batch-size", "50", "--d-model", "8", "--d-sae", "32", "--budget", "0"];
  const shown = await saev(["tune", ...sizes], options);
  assertEquals([shown.code, shown.stderr], [0, `saved to ${file}\n`]);
  assertMatch(
    shown.stdout,
    /\n\nnt, small: 50 × 32 × 8\n {2}\w+ \d+x\d+ +[\d.]+ GFLOP\/s +[\d.]+ s to compile +chosen, default\n/,
  );
  assertMatch(shown.stdout, / {2}register 16x16 +untried\n/);

  const { stdout, stderr } = await saev(["tune", "--json", ...sizes], options);
  const found = JSON.parse(stdout);
  assertEquals([stderr, found.file, found.tunings[0].class], ["", file, "nt, small"]);
  const remembered = Object.entries(JSON.parse(await Deno.readTextFile(file)) as Record<string, string>);
  assertEquals(remembered.map(([, tile]) => tile), found.tunings.map(({ chosen }: { chosen: string }) => chosen));

  const others = remembered.map(([key]) => [key, "register 8x8"]);
  await Deno.writeTextFile(file, JSON.stringify(Object.fromEntries(others)));
  const after = await saev(["train", "a.toml", "--out", "after"], options);
  assertEquals(after.code, 0, after.stderr);
  assertStringIncludes(after.stderr, "that saev tune found fastest");
  assertEquals(await Deno.readFile(`${made.path}/after/sae.pt`), await Deno.readFile(`${made.path}/before/sae.pt`));
});

function countAbove(density: readonly number[], least: number): number {
  return density.filter((share) => share > least).length;
}

Deno.test("lists in the configuration are swept, each run in its folder, with a summary", async () => {
  await using made = await folder({
    "sweep.toml": RUN.replace("PATH", "a.npy").replace("n_lr_warmup = 2", "n_lr_warmup = 2\nlr = [1e-3, 1e-2]"),
    "single.toml": RUN.replace("PATH", "none.npy"),
    "a.npy": writeNpy({ data: matrix(400, 8), rows: 400, cols: 8 }),
  });
  const { code, stdout, stderr } = await saev(["train", "sweep.toml"], { cwd: made.path });
  assertEquals([code, stdout], [0, ""], stderr);
  const said = ["a sweep of 2 runs in runs/sweep\n", "2 models, 18 steps of 50"];
  for (const text of [...said, "  1  train.lr 0.01   NMSE 0.", "comparison: runs/sweep/compare.html"]) {
    assertStringIncludes(stderr, text);
  }
  const summary = JSON.parse(await Deno.readTextFile(`${made.path}/runs/sweep/sweep.json`));
  assertEquals(summary.map(({ directory, changes, steps }: Record<string, unknown>) => [directory, changes, steps]), [
    ["0", { "train.lr": 1e-3 }, 18],
    ["1", { "train.lr": 1e-2 }, 18],
  ]);
  // What both have in common is said once, and stands in the summary of both.
  const few = "18 steps are too few for a dictionary to form";
  assertEquals(stderr.split("\n").filter((line) => line.startsWith(`warning: run 0: ${few}`)).length, 1);
  assertEquals(stderr.split(few).length, 2, stderr);
  for (const { warnings } of summary) assertStringIncludes(warnings[0], few);
  // A path that is typed is relative to the current folder, and the run's own file has what was typed.
  const typed = ["--train.lr", "1e-2", "--data.path=../../a.npy"];
  const single = ["train", "../../single.toml", ...typed, "--out", "../single"];
  assertEquals((await saev(single, { cwd: `${made.path}/runs/sweep` })).code, 0);
  const { data, train } = parse(await Deno.readTextFile(`${made.path}/runs/single/config.toml`)) as Record<
    string,
    object
  >;
  assertEquals([data, train], [{ ...data, path: "../../a.npy" }, { ...train, lr: 1e-2 }]);
  const model = (path: string) => Deno.readFile(`${made.path}/runs/${path}/sae.pt`);
  assertEquals(await model("sweep/1"), await model("single"));
  // The sweep's own comparison is what compare writes; with rows, any checkpoint stands beside runs.
  const compared = await saev(["compare", "runs/sweep"], { cwd: made.path });
  assertEquals([compared.code, compared.stderr], [0, "comparison: compare/compare.html\n"]);
  assertMatch(compared.stdout, /^ {3}run +L0 +NMSE +dead +dense +state +train\.lr\n/);
  const csv = (path: string) => Deno.readTextFile(`${made.path}/${path}/compare.csv`);
  assertEquals(await csv("compare"), await csv("runs/sweep"));
  assertStringIncludes(await Deno.readTextFile(`${made.path}/compare/compare.html`), "../runs/sweep/1/report.html");
  const mixed = ["compare", "runs/sweep", "runs/single/sae.pt", "--data", "a.npy", "--pick", "1", "--out", "all"];
  const measured = await saev(mixed, { cwd: made.path });
  assertEquals(measured.code, 0, measured.stderr);
  assertMatch(
    measured.stderr,
    /^picked all\/picked\/[01]\/sae\.pt: L0 [\d.]+, NMSE [\d.]+\ncomparison: all\/compare\.html\n$/,
  );
  const rows = (await csv("all")).trimEnd().split("\n").map((line) => line.split(","));
  assertEquals(rows.map(([name, state]) => [name, state]).slice(1), [
    ["0", "trained"],
    ["1", "trained"],
    ["runs/single/sae.pt", "measured"],
  ]);
  assertEquals(rows[2]!.slice(5, 10), rows[3]!.slice(5, 10), "the same model has the same numbers");
  const again = await saev(["train", "sweep.toml"], { cwd: made.path });
  assertMatch(again.stderr, /^error: runs\/sweep\/0 already holds a run[^\n]*\n$/);
});

Deno.test("the tasks of a job array make what the sweep makes in one process, and collect says what is missing", async () => {
  await using made = await folder({
    "sweep.toml": RUN.replace("PATH", "a.npy").replace("n_lr_warmup = 2", "n_lr_warmup = 2\nlr = [1e-3, 1e-2]") +
      "[slurm]\nallow_software = true\ngpus = 0\n",
    "a.npy": writeNpy({ data: matrix(400, 8), rows: 400, cols: 8 }),
  });
  const [seeds, inside] = [["--train.seed", "[0, 1]"], { cwd: made.path }];
  const run = (...args: string[]) => saev(["train", ...args], inside);
  const written = await run("sweep.toml", ...seeds, "--slurm", "--out", "array");
  assertEquals([written.code, written.stdout], [0, ""], written.stderr);
  assertStringIncludes(written.stderr, "array/slurm.sbatch: 2 tasks for 4 runs\n");
  const script = await Deno.readTextFile(`${made.path}/array/slurm.sbatch`);
  assertStringIncludes(script, `--relative-to ${await Deno.realPath(made.path)} \\\n`);
  const collect = async () => {
    const { code, stdout } = await saev(["collect", "array", "--json"], inside);
    return [code, JSON.parse(stdout).missing.map(({ task }: { task: number }) => task)];
  };
  assertEquals(await collect(), [1, [0, 1]]);
  // The sweep is what it was when the script was written, wherever a task runs.
  const task = (i: number) =>
    saev(
      ["train", `${made.path}/array/config.toml`, "--relative-to", made.path, "--out", `${made.path}/array`]
        .concat("--resume=auto", "--stage", `${made.path}/stage`, "--task", String(i)),
      { cwd: "/" },
    );
  const first = await task(1);
  assertEquals(first.code, 0, first.stderr);
  assertMatch(first.stderr, /^copying [^\n]*a\.npy to [^\n]*\ntask 1 of 2: 2 of 4 runs, on \S/);
  assertEquals(await collect(), [1, [0]]);
  const [second, local] = await Promise.all([task(0), run("sweep.toml", ...seeds, "--out", "local")]);
  assertEquals([second.code, local.code], [0, 0], second.stderr + local.stderr);
  assertEquals(await collect(), [0, []]);
  for (let i = 0; i < 4; i++) {
    const model = (where: string) => Deno.readFile(`${made.path}/${where}/${i}/sae.pt`);
    assertEquals(await model("array"), await model("local"), `run ${i}`);
  }
  const summary = (where: string) => Deno.readTextFile(`${made.path}/${where}/sweep.json`);
  assertEquals(JSON.parse(await summary("array")), JSON.parse(await summary("local")));

  const mistakes: [args: string[], message: string][] = [
    [["--task", "2"], "--task is 2; the configuration has 2 groups, from 0 to 1"],
    [["--task", "0", "--overwrite"], "--task trains some runs of a sweep, and --overwrite replaces all of them"],
    [["--submit"], "--submit is for the job array of --slurm"],
    [["--seeds", "2"], "train.seed is a list, and --seeds makes one"],
    [["--slurm.time", "soon"], 'slurm.time must be minutes, hours:minutes:seconds or days-hours, found "soon"'],
  ];
  for (const [args, message] of mistakes) {
    const { code, stderr } = await run("sweep.toml", ...seeds, ...args);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, message);
  }
  // A checkpoint in a file leads from that file, one that is typed from the current folder.
  await Deno.writeTextFile(
    `${made.path}/tuned.toml`,
    'data.path = "a.npy"\ninit.from = "array/0"\ntrain = { batch_size = 50, n_steps = 3 }\n',
  );
  const [tuned, typed] = await Promise.all([
    saev(["train", `${made.path}/tuned.toml`, "--out", `${made.path}/tuned`], { cwd: "/" }),
    run("tuned.toml", "--from", "array/0/sae.pt", "--out", "typed"),
  ]);
  assertEquals([tuned.code, typed.code], [0, 0], tuned.stderr + typed.stderr);
  assertEquals(await Deno.readFile(`${made.path}/tuned/sae.pt`), await Deno.readFile(`${made.path}/typed/sae.pt`));

  const submitted = await run(
    "sweep.toml",
    "--slurm",
    "--submit",
    "--out",
    "other",
    "--slurm.options",
    '["--no-such"]',
  );
  assertEquals(submitted.code, 1);
  assertMatch(
    submitted.stderr,
    /error: submitting \S*other\/slurm\.sbatch: (?:found no sbatch here|sbatch ended with)/,
  );
});

Deno.test("a sweep of which a run diverges continues and ends with 1", async () => {
  await using made = await folder({
    "sweep.toml": RUN.replace("PATH", "a.npy").replace("n_lr_warmup = 2", "n_lr_warmup = 0\nlr = [1e9, 1e-3]"),
    "a.npy": writeNpy({ data: matrix(400, 8), rows: 400, cols: 8 }),
  });
  const { code, stderr } = await saev(["train", "sweep.toml"], { cwd: made.path });
  assertEquals(code, 1, stderr);
  assertStringIncludes(stderr, "\n1 of 2 runs diverged\n");
  assertMatch(stderr, /\n {2}1 {2}train\.lr 0\.001 +NMSE 0\./);
});

/** Reads a stream until it says something, or to its end, and returns what it said. */
async function readUntil(reader: ReadableStreamDefaultReader<string>, wanted?: string): Promise<string> {
  for (let text = "";;) {
    const { value, done } = await reader.read();
    if (done && wanted === undefined) return text;
    assert(!done, `it ended without ${wanted}: ${text}`);
    text += value;
    if (wanted !== undefined && text.includes(wanted)) return text;
  }
}

Deno.test("signals leave a checkpoint and end with 128 and their number, whether or not anybody reads stderr", async () => {
  await using made = await folder({
    "long.toml": RUN.replace("PATH", "a.npy").replace("n_epochs = 3", "n_steps = 1000000"),
    "a.npy": writeNpy({ data: matrix(400, 8), rows: 400, cols: 8 }),
  });
  const run = `${made.path}/runs/long`;
  const started = async (args: readonly string[], ignoresHangup = false) => {
    const words = [Deno.execPath(), "run", "--quiet", "-A", "--config", CONFIG, CLI, "train", "long.toml", ...args];
    const script = `${ignoresHangup ? 'trap "" HUP; ' : ""}exec "$0" "$@"`;
    const child = new Deno.Command("sh", {
      args: ["-c", script, ...words],
      cwd: made.path,
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const stderr = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    return { child, stderr, said: await readUntil(stderr, "steps of") };
  };

  const first = await started([]);
  first.child.kill("SIGINT");
  const text = await readUntil(first.stderr);
  assertEquals((await first.child.status).code, 130, text);
  assertEquals(await new Response(first.child.stdout).text(), "");
  assertMatch(
    text,
    /\nstopping; .*\nstopped after \d+ steps; runs\/long\/sae\.pt holds the model of that step; use --resume to continue\n$/,
  );
  using sae = await load(`${run}/sae.pt`);
  assertEquals(sae.cfg.d_sae, 32);
  const { isInterrupted, steps } = JSON.parse(await Deno.readTextFile(`${run}/metrics.json`));
  assertEquals(isInterrupted, true);

  // Under nohup, a hang-up is none: it is the signal after it that counts.
  const second = await started(["--resume"], true);
  assertStringIncludes(second.said, `${steps} of them done`);
  await second.stderr.cancel();
  second.child.kill("SIGHUP");
  second.child.kill("SIGTERM");
  assertEquals((await second.child.status).code, 143);
  await second.child.stdout.cancel();
  const after = JSON.parse(await Deno.readTextFile(`${run}/metrics.json`));
  assert(after.isInterrupted && after.steps > steps, `${steps} steps, then ${after.steps}`);
});

Deno.test("a run whose rows change under it leaves a checkpoint, and says so in one line", async () => {
  await using made = await folder({
    "long.toml": RUN.replace("PATH", "a.f32").replace("d_model = 8", "d_model = 16\n  buffer_rows = 1024")
      .replace("n_epochs = 3", "n_steps = 2000"),
    "a.f32": littleEndianBytes(matrix(3000, 16)),
  });
  const child = command(["train", "long.toml"], { cwd: made.path, stdout: "null" }).spawn();
  const stderr = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  await readUntil(stderr, "step 100/2000");
  await Deno.truncate(`${made.path}/a.f32`, 16 * 4 * 1500);
  const text = await readUntil(stderr);
  assertEquals((await child.status).code, 1, text);
  assertMatch(
    text,
    /^error: reading a\.f32: .*; runs\/long holds the state of step \d+; use --resume to continue\n$/m,
  );
  using sae = await load(`${made.path}/runs/long/sae.pt`);
  assertEquals(sae.cfg.d_sae, 32);
});

Deno.test("a result that cannot be written is no success", async () => {
  await using made = await folder();
  const help = [Deno.execPath(), "run", "--quiet", "-A", "--config", CONFIG, CLI, "train", "--help"];
  const shell = async (script: string) => {
    const { stdout, stderr } = await new Deno.Command("sh", { args: ["-c", script, ...help], cwd: made.path }).output();
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  };
  // The reader has gone when the help comes.
  assertMatch(await shell(`exec 3>&1; { sleep 0.1; "$0" "$@"; echo "ended with $?" >&3; } | :`), /^ended with 141\n$/);
  // No file may be longer than a block, as if the disk were full.
  assertMatch(
    await shell(`trap "" XFSZ; ulimit -f 1; "$0" "$@" > help.txt; echo "ended with $?"`),
    /^ended with 1\nerror: writing the result to stdout: File too large[^\n]*\n$/,
  );
});

Deno.test("on the driver of last resort the demo does fewer steps and says so", async () => {
  await using made = await folder();
  const args = ["demo", "--out", made.path, "--d-sae", "16", "--top-k", "2", "--batch-size", "16"];
  const { code, stderr } = await saev(args, { env: { SAEV_SOFTWARE_DRIVER: "swiftshader" } });
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /^SwiftShader is about ten times slower than Mesa: running 200 steps, not 600\n/);
  assertEquals(JSON.parse(await Deno.readTextFile(`${made.path}/metrics.json`)).steps, 200);
});

Deno.test("the user's own script does the same on the public API", async () => {
  await using made = await folder();
  const script = new URL("../../examples/train.ts", import.meta.url).href;
  const args = ["run", "--quiet", "-A", "--config", CONFIG, script, "30"];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: made.path }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  assertMatch(
    new TextDecoder().decode(stdout),
    /^step 25: mse 0\.\d+\nstep 30: mse 0\.\d+\nheld-out photographs: NMSE 0\.\d+ with 10\.0 active latents, \d+ dead\n$/,
  );
  using sae = await load(`${made.path}/runs/example/sae.pt`);
  assertEquals([sae.cfg.d_model, sae.cfg.d_sae], [100, 256]);
});

const GOLDENS = new URL("../goldens/", import.meta.url).pathname;

Deno.test("inspect says what a checkpoint is, as text and as JSON", async () => {
  const path = `${GOLDENS}formats/saelens/topk`;
  const { code, stdout, stderr } = await saev(["inspect", path]);
  assertEquals([code, stderr], [0, ""]);
  for (
    const expected of [
      "format    saelens\n",
      "computes  h = (x − b_dec) W_enc + b_enc\n          f = the 3 largest of h, negative ones as 0\n",
      "\ncfg.json:\n  d_in = 8\n",
      "\n  W_dec  float32 [16, 8]",
    ]
  ) assertStringIncludes(stdout, expected);

  const parsed = JSON.parse((await saev(["inspect", "--json", `${GOLDENS}checkpoints/schema1_relu.pt`])).stdout);
  assertEquals([parsed.format, parsed.schema, parsed.cfg.subtract_b_dec], ["saev", "1", true]);
  const names = parsed.tensors.map(({ name }: { name: string }) => name);
  assertEquals(names.sort(), ["W_dec", "W_enc", "b_dec", "b_enc"]);

  const doubtful = await saev(["inspect", `${GOLDENS}checkpoints/schema2_top_k.pt`]);
  assertStringIncludes(doubtful.stdout, "\nheader:\n  schema = 2\n  cfg.d_vit = 8\n");
  assertStringIncludes(doubtful.stdout, "\n  cfg.activation.params.top_k = 4\n");
  assertMatch(
    doubtful.stderr,
    /^warning: schema 2 does not say whether b_dec is subtracted .* --subtract-b-dec yes and with --subtract-b-dec no; .*\n$/,
  );
  const told = await saev(["inspect", "--subtract-b-dec", "yes", `${GOLDENS}checkpoints/schema2_top_k.pt`]);
  assertStringIncludes(told.stdout, "computes  h = (x − b_dec) W_enc + b_enc\n");
  assertEquals(told.stderr, "");

  const transcoder = await saev(["inspect", `${GOLDENS}formats/saelens/transcoder`]);
  assertEquals(transcoder.code, 1);
  assertStringIncludes(transcoder.stdout, "format    saelens\n");
  assertMatch(transcoder.stderr, /^error: .*reading cfg\.json: the architecture is "transcoder".*\n$/);
});

Deno.test("what cannot be read or written is named", async () => {
  await using made = await folder();
  const whole = `${GOLDENS}checkpoints/schema5_top_k.pt`;
  const torn = `${made.path}/torn.pt`;
  await Deno.writeFile(torn, (await Deno.readFile(whole)).subarray(0, 700));
  const expected = `error: ${torn}: reading the zip archive: this is not a zip archive, or its end is missing\n`;
  for (const args of [["inspect", torn], ["convert", torn, `${made.path}/x.pt`, "--to", "saev"]]) {
    assertEquals(await saev(args), { code: 1, stdout: "", stderr: expected });
  }
  assertEquals(await saev(["convert", whole, made.path, "--to", "saev"]), {
    code: 1,
    stdout: "",
    stderr: `error: writing ${made.path}: found a folder, expected the path of a file\n`,
  });
  assertEquals(Array.from(Deno.readDirSync(made.path), ({ name }) => name), ["torn.pt"]);
});

Deno.test("inspect downloads from the hub that the environment names, and prints nothing else", async () => {
  await using made = await folder();
  const bytes = Deno.readFileSync(`${GOLDENS}checkpoints/schema5_top_k.pt`);
  await using server = serveFiles({
    files: { "/me/saes/resolve/main/sae.pt": { bytes, etag: '"1"' } },
    instead: (_, path) => path.startsWith("/api/") ? Response.json([{ type: "file", path: "sae.pt" }]) : undefined,
  });
  const env = { HF_ENDPOINT: server.origin, HF_TOKEN: "secret", XDG_CACHE_HOME: made.path };
  const { code, stdout, stderr } = await saev(["inspect", "hf:me/saes/sae.pt", "--json"], { env });
  assertEquals([code, JSON.parse(stdout).schema, stderr.includes("secret")], [0, "5", false]);
  assert(server.seen.every(({ authorization }) => authorization === "Bearer secret"));
  const refused = await saev(["inspect", "hf:me/saes/other.pt"], { env });
  assertEquals([refused.code, refused.stdout], [1, ""]);
  assertMatch(refused.stderr, /^error: reading hf:me\/saes\/other\.pt: there is no file or folder .*\n$/);
});

Deno.test("Ctrl-C ends a download", async () => {
  const { promise: asked, resolve: sayAsked } = Promise.withResolvers<void>();
  await using server = serveFiles({
    files: {},
    instead: (_, path) => {
      if (path.startsWith("/api/")) return Response.json([{ type: "file", path: "sae.pt" }]);
      sayAsked();
      const endless = new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(new Uint8Array(10)) });
      return new Response(endless, { status: 206, headers: { "content-range": "bytes 0-65535/1000000" } });
    },
  });
  await using made = await folder();
  const env = { HF_ENDPOINT: server.origin, XDG_CACHE_HOME: made.path };
  await using process = command(["inspect", "hf:me/saes/sae.pt"], { env }).spawn();
  await asked;
  process.kill("SIGINT");
  const { code, stdout } = await process.output();
  assertEquals([code, stdout.length], [130, 0]);
});

Deno.test("convert writes what other programs read, and says what is lost", async () => {
  await using made = await folder();
  const source = `${GOLDENS}checkpoints/schema5_top_k.pt`;
  const convert = (...args: string[]) => saev(["convert", source, ...args], { cwd: made.path });
  const refused = await convert("out", "--to", "saelens");
  assertEquals([refused.code, refused.stdout], [1, ""]);
  assertMatch(
    refused.stderr,
    /^error: writing saelens: this model keeps negative .* relu = true in \[sae\.activation\] .* use --lossy\n$/,
  );

  const written = await convert("out", "--to", "saelens", "--lossy");
  assertEquals([written.code, written.stdout], [0, "out/cfg.json\nout/sae_weights.safetensors\n"]);
  assertMatch(
    written.stderr,
    /^perhaps lost: this model keeps negative .* relu = true in \[sae\.activation\] .* each of the 2048 inputs .*\n$/,
  );
  using sae = await load(`${made.path}/out`);
  assertEquals(sae.cfg.activation.key, "top-k");

  const { code, stdout } = await convert("sae.onnx", "--to", "onnx", "--json");
  assertEquals([code, JSON.parse(stdout)], [0, {
    format: "onnx",
    paths: ["sae.onnx"],
    folded: [],
    lost: [],
    perhapsLost: [],
  }]);
  assert((await Deno.stat(`${made.path}/sae.onnx`)).size > 2000);

  const subtracts = `${GOLDENS}checkpoints/preschema_relu.pt`;
  const folded = await saev(["convert", subtracts, "sae5.pt", "--to", "saev"], { cwd: made.path });
  assertEquals([folded.code, folded.stdout], [0, "sae5.pt\n"]);
  assertMatch(folded.stderr, /^folded into the parameters, because saev has no field for it: subtract_b_dec\n$/);
  const byName = await saev(["convert", subtracts, "sae1.pt", "--to", "saev", "--schema", "1"], { cwd: made.path });
  assertEquals(byName, { code: 0, stdout: "sae1.pt\n", stderr: "" });
  for (const [file, subtract_b_dec] of [["sae5.pt", false], ["sae1.pt", true]] as const) {
    assertEquals((await readCheckpoint(`${made.path}/${file}`)).cfg.subtract_b_dec, subtract_b_dec);
  }

  const normalised = `${GOLDENS}formats/openai/topk.pt`;
  const without = await saev(["convert", normalised, `${made.path}/a.pt`, "--to", "saev_nn"]);
  assertEquals(without.code, 1);
  assertStringIncludes(without.stderr, "normalised-rows");
  const options = ["--to", "saev_nn", "--accept", "normalised-rows", "--input-scale", "2"];
  assertEquals((await saev(["convert", normalised, `${made.path}/a.pt`, ...options])).code, 0);
  using scaled = await load(`${made.path}/a.pt`);
  assertEquals(scaled.input.scale, 2);
});

Deno.test("convert replaces a file only with --overwrite, follows links, and writes into devices and pipes", async () => {
  const source = `${GOLDENS}checkpoints/schema5_relu.pt`;
  const cwd = await Deno.makeTempDir();
  const convert = (...args: string[]) => saev(["convert", source, ...args, "--to", "saev"], { cwd });
  try {
    await Deno.writeTextFile(`${cwd}/mine.pt`, "mine");
    await Deno.symlink("mine.pt", `${cwd}/link`);
    for (const out of ["mine.pt", "link"]) {
      const { code, stderr } = await convert(out);
      assertEquals([code, stderr], [
        1,
        `error: writing ${out}: the file exists already; choose another path, or replace it with --overwrite\n`,
      ]);
    }
    await Deno.mkdir(`${cwd}/folder`);
    await Deno.writeTextFile(`${cwd}/folder/ae.pt`, "mine");
    const folder = await saev(["convert", source, "folder", "--to", "dictionary_learning"], { cwd });
    assertEquals([folder.code, Array.from(Deno.readDirSync(`${cwd}/folder`), ({ name }) => name)], [1, ["ae.pt"]]);
    assertStringIncludes(folder.stderr, "writing folder/ae.pt: the file exists already");
    assertStringIncludes(
      (await convert("folder")).stderr,
      "writing folder: found a folder, expected the path of a file",
    );
    assertEquals(await Deno.readTextFile(`${cwd}/mine.pt`), "mine");

    assertEquals((await convert("link", "--overwrite")).stdout, "link\n");
    const bytes = await Deno.readFile(`${cwd}/mine.pt`);
    assert(bytes.length > 1000 && (await Deno.lstat(`${cwd}/link`)).isSymlink);
    assertEquals(await convert("/dev/null"), { code: 0, stdout: "", stderr: "/dev/null\n" });

    const args = ["convert", source, "/dev/stdout", "--to", "saev", "--json"];
    assertEquals((await command(args, { cwd }).output()).stdout, bytes);
    const shell = `printf 'before\n' > out; "$0" "$@" >> out`;
    await new Deno.Command("sh", { args: ["-c", shell, Deno.execPath(), ...runArgs(args)], cwd }).output();
    assertEquals((await Deno.readFile(`${cwd}/out`)).subarray("before\n".length), bytes);

    await new Deno.Command("mkfifo", { args: [`${cwd}/pipe`] }).output();
    const [read, written] = await Promise.all([Deno.readFile(`${cwd}/pipe`), convert("pipe")]);
    assertEquals([read, written.stderr], [bytes, "pipe is a pipe: waiting for a reader\n"]);
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
});

Deno.test("inspect, convert and train end with one line on what they cannot read or do", async () => {
  await using made = await folder({ "bytes.pt": Uint8Array.of(1, 2, 3) });
  const cases: [string[], number, RegExp][] = [
    [
      ["inspect", "bytes.pt"],
      1,
      /^error: reading (?:\.\/)?bytes\.pt: found a file that starts with the bytes 01 02 03; .*\n$/,
    ],
    [["inspect", "missing.pt"], 1, /^error: reading missing\.pt: there is no such file or folder\n$/],
    [["inspect", "."], 1, /^error: reading \.: found "bytes\.pt"; expected one of .*\n$/],
    [["train", "."], 1, /^error: reading \.: found a folder, expected a file\n$/],
    [["train", "missing.toml"], 1, /^error: reading missing\.toml: there is no such file or folder\n$/],
    [["convert", "bytes.pt", "out"], 2, /^error: convert needs --to; expected one of saev, .*\n$/],
    [["convert", "bytes.pt", "out", "--to", "saelen"], 2, /^error: --to is "saelen"; did you mean saelens\?\n$/],
    [["convert", "bytes.pt", "out", "--to", "onnx", "--accept", "x"], 2, /^error: unknown value of --accept x; .*\n$/],
    [
      ["convert", "bytes.pt", "out", "--to", "onnx", "--schema", "5"],
      2,
      /^error: --schema works only with --to saev, found .*\n$/,
    ],
    [["convert", "bytes.pt", "", "--to", "onnx"], 2, /^error: convert: OUT is empty; see saev convert --help\n$/],
    [["train", ""], 2, /^error: train: CONFIG is empty; .*\n$/],
    [["train", "missing.toml", "--out", ""], 2, /^error: --out needs a value: .*\n$/],
    [["demo", "--out="], 2, /^error: --out needs a value: .*\n$/],
    [["convert", "bytes.pt", "--to", "onnx"], 2, /^error: convert takes CHECKPOINT OUT, found bytes\.pt; .*\n$/],
  ];
  for (const [args, code, message] of cases) {
    const found = await saev(args, { cwd: made.path });
    assertEquals([found.code, found.stdout], [code, ""], args.join(" "));
    assertMatch(found.stderr, message);
  }
});
