/**
 * How a step's time and memory grow.
 *
 *     deno run -A bench/scale.ts [sweeps] [codes] [textures] [large] [steps] [--json]
 *
 * - `sweeps`: a TopK step with growing batch, dictionary and k, one at a time.
 * - `codes`: a ReLU step by the share of its codes that are not 0, against the same step forced dense, and against
 *   TopK.
 * - `textures`: a TopK step that reads from textures, as it does on software drivers, and from buffers only.
 * - `large`: one TopK step of 16,384 rows and 131,072 latents of 768 dimensions, and the size of its buffers.
 * - `steps`: 10,000 small steps, and whether memory grows.
 *
 * By default all except `large`.
 */

import { contextOf, DeviceContext, Tensor } from "../kernels/mod.ts";
import { getObjective, SparseAutoencoder, type SparseAutoencoderOptions } from "../mod.ts";
import { train } from "../train/mod.ts";
import { watchBuffers } from "./buffers.ts";
import { type Row, table, timedDevice, timeDispatches, totalMs } from "./measure.ts";
import { timeSteps } from "./step.ts";

const SECTIONS = ["sweeps", "codes", "textures", "large", "steps"] as const;
type Section = typeof SECTIONS[number];

const isSection = (name: string): name is Section => (SECTIONS as readonly string[]).includes(name);

const json = Deno.args.includes("--json");
const named = Deno.args.filter((argument) => argument !== "--json");
const unknown = named.filter((name) => !isSection(name));
if (unknown.length > 0) {
  console.error(`error: unknown argument ${unknown[0]}; expected --json or any of ${SECTIONS.join(", ")}`);
  Deno.exit(2);
}
const chosen: readonly string[] = named.length > 0 ? named : SECTIONS.filter((name) => name !== "large");

/** Step times as one size grows. */
async function sweeps(): Promise<Row[]> {
  const device = await timedDevice();
  const base = { B: 256, D: 128, S: 2048, k: 16, P: 1, n_dead: 0 } as const;
  const rows: Row[] = [];
  for (
    const [size, values] of [
      ["B", [128, 256, 512, 1024, 2048]],
      ["S", [1024, 2048, 4096, 8192, 16384]],
      ["k", [4, 16, 64, 256]],
    ] as const
  ) {
    const shapes = values.map((value) => {
      const sizes = { ...base, [size]: value };
      return { ...sizes, name: "TopK", activation: { key: "top-k", top_k: sizes.k } as const };
    });
    const times = (await timeSteps(device, shapes)).map(totalMs);
    for (const [i, { B, S, k }] of shapes.entries()) {
      const growth = { "size / first": values[i]! / values[0], "time / first": times[i]! / times[0]! };
      rows.push({ grows: size, B, S, k, ms: times[i]!, ...growth });
    }
  }
  device.destroy();
  return rows;
}

/** A ReLU's codes are not 0 where a normal number exceeds this. */
const CUTS: readonly (readonly [share: number, cut: number])[] = [
  [0.005, 2.576],
  [0.02, 2.054],
  [0.05, 1.645],
  [0.08, 1.405],
  [0.09, 1.341],
  [0.5, 0],
];
const SHAPE = { B: 1024, D: 768, S: 6144 };

/** Milliseconds of a training step that changes nothing, and L0 / S. */
async function timeCodes(
  device: GPUDevice,
  activation: SparseAutoencoderOptions["activation"],
  cut: number,
): Promise<{ readonly ms: number; readonly share: number }> {
  const { B, D, S } = SHAPE;
  using made = await SparseAutoencoder.create({ d_model: D, d_sae: S, ...activation && { activation } }, { device });
  const parameters = { ...await made.readParameters(), b_enc: new Float32Array(S).fill(-cut) };
  using sae = await SparseAutoencoder.fromParameters(made.cfg, parameters, { device });
  const x = normal(B * D);
  const steps = train(sae, getObjective({ key: "vanilla" }), Array(4).fill(x), { lr: 0, log_every: 1 });
  const first = await steps.next();
  let ms = Infinity;
  for (let round = 0; round < 2; round++) {
    ms = Math.min(ms, totalMs(await timeDispatches(contextOf(device), async () => void await steps.next())));
  }
  await steps.return();
  return { ms, share: first.value!.losses[0]!.l0 / S };
}

/** Normal numbers, the same each time. */
function normal(length: number): Float32Array {
  let state = 1;
  const unit = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return new Float32Array(length).map(() => Math.sqrt(-2 * Math.log(unit())) * Math.cos(2 * Math.PI * unit()));
}

/** ReLU steps by default and forced dense, and a TopK step. */
async function codes(): Promise<Row[]> {
  const device = await timedDevice();
  const topK = await timeCodes(device, { key: "top-k", top_k: 32 }, 0);
  const rows: Row[] = [{ step: "TopK, k 32", "L0 / S": topK.share, ms: topK.ms, "/ TopK": 1, "/ dense": "" }];
  const asTheyGo: { readonly ms: number; readonly share: number }[] = [];
  for (const [, cut] of CUTS) asTheyGo.push(await timeCodes(device, { key: "relu" }, cut));
  device.destroy();
  const dense = await timedDevice((made) =>
    new DeviceContext(made, {
      rewriteShader: (name, wgsl) =>
        name === "choose_sparse_or_dense" ? wgsl.replace("<= dims.capacity", "< 0u") : wgsl,
    })
  );
  const { ms: denseTime } = await timeCodes(dense, { key: "relu" }, CUTS[0]![1]);
  dense.destroy();
  for (const { ms, share } of asTheyGo) {
    rows.push({ step: "ReLU", "L0 / S": share, ms, "/ TopK": ms / topK.ms, "/ dense": ms / denseTime });
  }
  return [...rows, {
    step: "ReLU, dense",
    "L0 / S": "any",
    ms: denseTime,
    "/ TopK": denseTime / topK.ms,
    "/ dense": 1,
  }];
}

/** A TopK step with the adapter's default use of textures, and without any. */
async function textures(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const textureCopyBytes of [undefined, Infinity]) {
    const device = await timedDevice((made) =>
      void new DeviceContext(made, textureCopyBytes ? { textureCopyBytes } : {})
    );
    const { ms } = await timeCodes(device, { key: "top-k", top_k: 32 }, 0);
    const { textureCopyBytes: used } = contextOf(device);
    device.destroy();
    const from = used === Infinity ? "buffers" : `textures from ${used / 1024} KiB on`;
    rows.push({ reads: from, ms, "/ first": ms / Number(rows[0]?.ms ?? ms) });
  }
  return rows;
}

/** Size in bytes of the largest binding that every adapter supports. */
const PORTABLE_BINDING = 2 ** 27;

/** One step larger than any binding, and the size of its buffers. */
async function large(): Promise<{ readonly step: Row; readonly held: Row[] }> {
  const [B, D, S, top_k] = [16384, 768, 131072, 32];
  const device = await timedDevice((made) => new DeviceContext(made, { bindingLimit: PORTABLE_BINDING }));
  const held = watchBuffers(device);
  const W_dec = normal(S * D);
  const W_enc = new Float32Array(D * S);
  for (let s = 0; s < S; s++) for (let d = 0; d < D; d++) W_enc[d * S + s] = W_dec[s * D + d]! / 32;
  const parameters = { W_enc, b_enc: new Float32Array(S), W_dec, b_dec: new Float32Array(D) };
  const cfg = { d_model: D, d_sae: S, activation: { key: "top-k", top_k } } as const;
  using sae = await SparseAutoencoder.fromParameters(cfg, parameters, { device });
  using x = Tensor.from(contextOf(device), normal(B * D), [B, D], "batch");
  const steps = train(sae, getObjective({ key: "vanilla" }), [x, x], { log_every: 1 });
  const start = performance.now();
  const { value } = await steps.next();
  const seconds = (performance.now() - start) / 1000;
  const { bytes } = held();
  await steps.return();
  const total = bytes.values().reduce((sum, size) => sum + size, 0);
  return {
    step: { B, D, S, k: top_k, seconds, mse: value!.losses[0]!.mse, L0: value!.losses[0]!.l0, MiB: total / 2 ** 20 },
    held: [...bytes].sort(([, a], [, b]) => b - a).slice(0, 24)
      .map(([buffer, size]) => ({ buffer, MiB: size / 2 ** 20, "% of all": 100 * size / total })),
  };
}

/** Memory of the process and of buffers, over 10,000 steps. */
async function manySteps(): Promise<Row[]> {
  const device = await timedDevice();
  const held = watchBuffers(device);
  const rows: Row[] = [];
  for (const key of ["top-k", "relu"] as const) {
    const activation = key === "relu" ? { key } : { key, top_k: 8 };
    using sae = await SparseAutoencoder.create({ d_model: 32, d_sae: 256, activation }, { device });
    const x = normal(64 * 32);
    const batches = function* () {
      for (let step = 0; step < 10_000; step++) yield x;
    };
    for await (const { step } of train(sae, getObjective({ key: "vanilla" }), batches(), { log_every: 100 })) {
      if (step % 2000 !== 0 && step !== 100) continue;
      const { bytes, count } = held();
      const buffered = bytes.values().reduce((sum, size) => sum + size, 0);
      rows.push({
        activation: key,
        step,
        buffers: count,
        "buffers, MiB": buffered / 2 ** 20,
        "process, MiB": Deno.memoryUsage().rss / 2 ** 20,
      });
    }
  }
  device.destroy();
  return rows;
}

const found: Partial<Record<Section | "held", readonly Row[]>> = {};
if (chosen.includes("sweeps")) found.sweeps = await sweeps();
if (chosen.includes("codes")) found.codes = await codes();
if (chosen.includes("textures")) found.textures = await textures();
if (chosen.includes("large")) {
  const { step, held } = await large();
  Object.assign(found, { large: [step], held });
}
if (chosen.includes("steps")) found.steps = await manySteps();
if (json) console.log(JSON.stringify({ deno: Deno.version.deno, ...found }));
else for (const [name, rows] of Object.entries(found)) console.log(`${name}\n\n${table(rows)}\n`);
Deno.exit();
