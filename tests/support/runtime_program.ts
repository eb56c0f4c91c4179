/**
 * A program on the package's public API, identical for Deno, Node and Bun: it reads a checkpoint, encodes, trains forty
 * steps, and writes and reads files. Called as `PROGRAM CHECKPOINT HUB FOLDER`, it prints a {@link RuntimeRun} as JSON.
 *
 * @module
 */
import fs from "node:fs/promises";
import process from "node:process";
import { dump, getObjective, load, SparseAutoencoder } from "@saev/nn";
import { openRows, rowsOf } from "@saev/nn/data";
import { evaluate } from "@saev/nn/eval";
import { openFiles, openSource, writeNpy } from "@saev/nn/io";
import { train } from "@saev/nn/train";

/** The results of one runtime. */
export interface RuntimeRun {
  /** The adapter's description. */
  readonly adapter: string;
  /** The codes of rows under the checkpoint: row starts, latents, and the bits of the values. */
  readonly codes: readonly (readonly number[])[];
  /** Whether a device that is passed in, and not taken from `navigator.gpu`, gives the same codes. */
  readonly isSameOnGiven: boolean;
  /** The loss of every training step. */
  readonly losses: readonly number[];
  /** W_dec after the training. */
  readonly W_dec: readonly number[];
  /** The explained variance of rows read from a file. */
  readonly explained: number;
  /** Whether the written file holds the parameters, to the bit. */
  readonly isRoundTrip: boolean;
  /** The content of the folder after a model was written twice, the second time through a link. */
  readonly names: readonly string[];
  /** Failures, as their codes and messages. */
  readonly failures: readonly (readonly [code: string | null, message: string])[];
  /** Bytes of the hub's file, read by two concurrent readers, and the copies present afterwards. */
  readonly hub: readonly [bytes: number, copies: number, others: number];
}

const D = 8;

/** Rows without pattern that need no random numbers. */
function rows(n_rows: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: n_rows * D }, (_, i) => ((i * 7919) % 1009) / 504.5 - 1);
}

async function codesOn(checkpoint: string, device?: GPUDevice): Promise<number[][]> {
  using sae = await load(checkpoint, device && { device });
  using f_x = sae.encode(rows(32));
  const { row_starts, indices, values } = await f_x.read();
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return [row_starts, indices, bits].map((array) => [...array]);
}

async function failureOf(work: () => Promise<unknown>): Promise<[string | null, string]> {
  try {
    await work();
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    // Systems describe a file in place of a folder in two ways.
    return [code === "ENOENT" ? code : null, message];
  }
  throw new Error("nothing failed");
}

async function run(checkpoint: string, endpoint: string, folder: string): Promise<RuntimeRun> {
  const codes = await codesOn(checkpoint);
  const adapter = (await navigator.gpu.requestAdapter())!;
  const given = await codesOn(checkpoint, await adapter.requestDevice());

  using sae = await SparseAutoencoder.create({ d_model: D, d_sae: 24, activation: { key: "top-k", top_k: 4 } }, {
    seed: 3,
  });
  const losses: number[] = [];
  const options = { batch_size: 32, n_steps: 40, lr: 1e-2, n_lr_warmup: 0 };
  for await (const report of train(sae, getObjective({ key: "vanilla" }), rowsOf(rows(512), D), options)) {
    losses.push(...report.losses.map(({ loss }) => loss));
  }

  const path = `${folder}/models/sae.pt`;
  await dump(path, sae);
  await fs.symlink("sae.pt", `${folder}/models/link.pt`);
  await dump(`${folder}/models/link.pt`, sae);
  using again = await load(path);
  const [{ W_dec }, read] = [await sae.readParameters(), await again.readParameters()];

  await fs.writeFile(`${folder}/rows.npy`, writeNpy({ data: rows(100), rows: 100, cols: D }));
  const { explained_variance: explained } = await evaluate(sae, await openRows(`${folder}/rows.npy`));

  const hub = { endpoint, cache: `${folder}/cache` };
  const twice = await Promise.all([1, 2].map(() => openSource("hf:me/saes/sae.pt", { hub })));
  const bytes = await Promise.all(twice.map(async (source) => (await source.read(0, source.size)).length));
  const kept = (await fs.readdir(`${folder}/cache`, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile()).map(({ name }) => /=\d+=[0-9a-f]{64}$/.test(name));

  return {
    adapter: [adapter.info.vendor, adapter.info.architecture, adapter.info.device].join(" "),
    codes,
    isSameOnGiven: JSON.stringify(codes) === JSON.stringify(given),
    losses,
    W_dec: [...W_dec],
    explained,
    isRoundTrip: Object.entries(await sae.readParameters()).every(([name, array]) =>
      String(array) === String(read[name as "W_dec"])
    ),
    names: (await fs.readdir(`${folder}/models`)).sort(),
    failures: [
      await failureOf(() => load(`${folder}/missing.pt`)),
      await failureOf(() => openFiles("/dev/null")),
      await failureOf(() => dump(folder, sae)),
      await failureOf(() => dump(`${folder}/rows.npy/sae.pt`, sae)),
    ].map(([code, message]) => [code, message.replaceAll(folder, "").replace(/\.[0-9a-f-]{36}\.tmp/, "")]),
    hub: [bytes[0]! + bytes[1]!, kept.filter((isCopy) => isCopy).length, kept.filter((isCopy) => !isCopy).length],
  };
}

// Provides Dawn's WebGPU, which Node and Bun lack. The name is in a variable so that Deno does not resolve it.
const dawn = "webgpu";
if (!("gpu" in navigator)) {
  const { create, globals } = await import(dawn);
  Object.assign(globalThis, globals);
  Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) }, configurable: true });
}
const [checkpoint, endpoint, folder] = process.argv.slice(2);
console.log(JSON.stringify(await run(checkpoint!, endpoint!, folder!)));
// Dawn keeps the process alive.
process.exit(0);
