/**
 * A working day by the command line: photographs become rows, a sweep of four is killed and resumed, its runs are compared,
 * the best ones picked, encoded, shown as features, and converted for another library. Every step uses what the one before
 * has written.
 *
 * `deno task test:day`. A line a step, and the last is `N passed, N failed`.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { openShards } from "../../data/mod.ts";
import { openFeatures } from "../../eval/mod.ts";
import { inspectCheckpoint } from "../../io/mod.ts";
import { load } from "../../mod.ts";
import { VIEWS } from "../support/page_in_browser.ts";
import { inBrowser, openBrowser } from "../support/page_in_browser.ts";

const ROOT = new URL("../../", import.meta.url);
const MODEL = new URL("tests/goldens/vit/tiny_vit.onnx", ROOT).pathname;
const PHOTOS = new URL("examples/demo/photos", ROOT).pathname;
const CONFIG = `
[data]
path = "shards"
validation_share = 0.25
[sae]
d_sae = 48
activation = { key = "top-k", relu = true, top_k = [2, 4, 6, 8] }
[train]
batch_size = 32
n_steps = 400
n_lr_warmup = 0
lr = 1e-2
checkpoint_every = 20
log_every = 10
`;

const folder = await Deno.makeTempDir();
const at = (path: string): string => `${folder}/${path}`;
let [passed, failed] = [0, 0];

/** A command that runs. The packages that it takes from npm do not go into this repository's lock file. */
function start(...args: string[]): Deno.ChildProcess {
  const options = ["run", "--quiet", "-A", "--no-lock", "--config", new URL("deno.json", ROOT).pathname];
  return new Deno.Command(Deno.execPath(), {
    args: [...options, new URL("cli/mod.ts", ROOT).href, ...args],
    cwd: folder,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** A command that ends well, and what it prints. */
async function saev(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await start(...args).output();
  const [out, said] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)) as [string, string];
  assertEquals(code, 0, `saev ${args.join(" ")}: ${said}`);
  return { stdout: out, stderr: said };
}

/** A step, unless one before it has failed: there is nothing to continue with then. */
async function step(name: string, work: () => Promise<string>): Promise<void> {
  if (failed > 0) return;
  const began = performance.now();
  try {
    const told = await work();
    passed++;
    console.log(`${name} ... ok (${((performance.now() - began) / 1000).toFixed(1)} s): ${told}`);
  } catch (error) {
    failed++;
    console.log(`${name} ... FAILED\n${error instanceof Error ? error.stack : error}`);
  }
}

await step("photographs become shards", async () => {
  const layer = "/blocks.1/Add_2_output_0";
  await saev("activations", MODEL, PHOTOS, "--layer", layer, "--out", "shards", "--shard-size", "0.01");
  const { metadata } = await openShards(at("shards"));
  assertEquals(metadata.n_examples, 8);
  return `${metadata.n_examples} images of ${metadata.content_tokens_per_example} patches`;
});

await step("a sweep of four, alone", async () => {
  await Deno.writeTextFile(at("sweep.toml"), CONFIG);
  await saev("train", "sweep.toml", "--out", "whole");
  return (await Promise.all([0, 1, 2, 3].map((run) => Deno.stat(at(`whole/${run}/sae.pt`))))).length + " models";
});

await step("the same sweep, killed by SIGKILL in the middle", async () => {
  const child = start("train", "sweep.toml", "--out", "sweep");
  const ended = child.output();
  const hasState = async (): Promise<boolean> => {
    const states = [0, 1, 2, 3].map((run) => Deno.stat(at(`sweep/${run}/training.safetensors`)));
    return (await Promise.allSettled(states)).every(({ status }) => status === "fulfilled");
  };
  while (!await hasState()) await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill("SIGKILL");
  const { signal } = await ended;
  assertEquals(signal, "SIGKILL", "it ended before it was killed");
  const finished = await Deno.stat(at("sweep/sweep.json")).then(() => true, () => false);
  assert(!finished, "the sweep is not finished");
  return "with checkpoints of all four";
});

await step("--resume=auto comes to the same bytes", async () => {
  await saev("train", "sweep.toml", "--out", "sweep", "--resume=auto");
  for (const run of [0, 1, 2, 3]) {
    const [got, want] = await Promise.all(["sweep", "whole"].map((out) => Deno.readFile(at(`${out}/${run}/sae.pt`))));
    assertEquals(got, want, `run ${run}`);
  }
  return "four models";
});

await step("runs are compared, the two best of the front picked", async () => {
  const { stdout } = await saev("compare", "sweep", "--out", "compared", "--pick", "2");
  assertEquals(stdout.split("\n").filter((line) => /^\*? *sweep\/|^\*? +\d/.test(line)).length, 4, stdout);
  const manifest = (await Deno.readTextFile(at("compared/picked/manifest.jsonl"))).trim().split("\n");
  assertEquals(manifest.length, 2);
  return manifest.map((line) => JSON.stringify(JSON.parse(line))).join(" ").slice(0, 120);
});

await step("the page of the comparison opens from disk, on a desk and a phone, by day and by night", async () => {
  await using browser = await openBrowser();
  for (const view of VIEWS) await inBrowser(browser, at("compared/compare.html"), view);
  return `${VIEWS.length} views`;
});

/** The models that were picked. */
async function pickedModels(path = "compared/picked"): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(at(path))) {
    if (isDirectory) found.push(...await pickedModels(`${path}/${name}`));
    else if (name === "sae.pt") found.push(`${path}/${name}`);
  }
  return found.sort();
}

await step("a picked model is encoded", async () => {
  const [model] = await pickedModels();
  const { stdout } = await saev("encode", model!, "--data", "shards", "--out", "codes", "--json");
  const { n_entries } = JSON.parse(stdout);
  for (
    const name of ["token_acts.npz", "mean_values.pt", "sparsity.pt", "distributions.pt", "metrics.json", "config.json"]
  ) {
    assert((await Deno.stat(at(`codes/${name}`))).isFile, name);
  }
  return `${n_entries} codes`;
});

await step("and shown on its photographs", async () => {
  const [model] = await pickedModels();
  await saev("features", model!, "--data", "shards", "--images", PHOTOS, "--out", "features");
  const { file } = await openFeatures(at("features"));
  assert(file.latents.length > 0 && file.images.length === 8);
  await using browser = await openBrowser();
  for (const view of VIEWS) await inBrowser(browser, at("features/index.html"), view);
  return `${file.latents.length} latents`;
});

await step("a picked model becomes a file of SAELens, with the same codes", async () => {
  const [model] = await pickedModels();
  await saev("convert", model!, "saelens", "--to", "saelens");
  assertMatch((await inspectCheckpoint(at("saelens"))).format, /SAELens/i);
  const rows = (await openShards(at("shards"))).rows();
  const x = await rows.read(0, 64);
  using ours = await load(at(model!));
  using theirs = await load(at("saelens"));
  const [a, b] = await Promise.all([ours, theirs].map(async (sae) => {
    using codes = sae.encode(x);
    return await codes.read();
  }));
  assertEquals(b!.indices, a!.indices);
  return "the same latents on 64 patches";
});

await Deno.remove(folder, { recursive: true });
console.log(`${passed} passed, ${failed} failed`);
Deno.exitCode = failed === 0 ? 0 : 1;
