/** The file that training continues from: what it brings back, and what it refuses. @module */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { readSafetensors, writeSafetensors } from "../../io/safetensors.ts";
import { bytesSource } from "../../io/source.ts";
import type { NamedTensor } from "../../io/stored_tensor.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import type { TrainLoss } from "../../objectives/loss_record.ts";
import { train } from "../../train/train.ts";
import { openTraining, saveTraining } from "../../train/training_file.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";

const D = 6;

/** A file after three steps, and what is in it. */
async function trained(activation: "jump-relu" | "batch-top-k" | "gated", optimizer: "adam" | "muon") {
  const device = await sharedDevice();
  const cfg = {
    d_model: D,
    d_sae: 9,
    activation: activation === "batch-top-k" ? { key: activation, top_k: 2 } : { key: activation },
  };
  const input = { mean: new Random(3).normal(D), scale: 2, pre_act_scale: 0.7 };
  using sae = await SparseAutoencoder.create(cfg, { device, input });
  using state = new TrainState(sae, { seed: 5, optimizer });
  const random = new Random(2);
  const batches = Array.from({ length: 3 }, () => random.normal(10 * D));
  const objective = getObjective({ key: "vanilla", ...activation === "jump-relu" && { target_l0: 2 } });
  const losses: TrainLoss[] = [];
  for await (const progress of train(sae, objective, batches, { state, optimizer: { key: optimizer } })) {
    losses.push(...progress.losses);
  }
  // A count that no signed integer holds.
  state.tokens_since_active.write(Uint32Array.from({ length: 9 }, (_, i) => i === 4 ? 0xfffffff0 : i));
  const pieces: Uint8Array[] = [];
  const sink = new WritableStream<Uint8Array>({ write: (piece) => void pieces.push(piece.slice()) });
  await saveTraining(sink, { sae, state, losses, note: "späte Notiz" });
  const file = new Uint8Array(await new Blob(pieces as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  return {
    file,
    losses,
    cfg: sae.cfg,
    input: sae.input,
    parameters: await sae.readParameters(),
    state: await state.read(),
  };
}

for (const [activation, optimizer] of [["jump-relu", "muon"], ["batch-top-k", "adam"], ["gated", "muon"]] as const) {
  Deno.test(`everything comes back: ${activation}, ${optimizer}`, async () => {
    const wanted = await trained(activation, optimizer);
    const saved = await openTraining(wanted.file);
    assertEquals([saved.step, saved.note], [3, "späte Notiz"]);
    using found = await saved.restore({ device: await sharedDevice() });
    assertEquals(found.sae.cfg, wanted.cfg);
    assertEquals(found.sae.input, wanted.input);
    assertEquals(await found.sae.readParameters(), wanted.parameters);
    assertEquals(await found.state.read(), wanted.state);
    assertEquals(found.losses, wanted.losses);
  });
}

/** What a change does to the tensors and the description of a file; without the latter if it returns `null`. */
type Change = (all: Map<string, NamedTensor>, description: Record<string, never>) => unknown;

/** The description in a file, and the file as it is with a change. */
async function opened(file: Uint8Array) {
  const { tensors, metadata } = await readSafetensors(bytesSource(file));
  const description = JSON.parse(metadata.get("saev_nn_training")!);
  const altered = async (change: Change): Promise<Uint8Array> => {
    const all = new Map<string, NamedTensor>();
    for (const [name, { shape, dtype, read }] of tensors) {
      const tensor = tensors.get(name)!;
      const data = dtype === "int32" ? Int32Array.from(await tensor.readIntegers()) : await read.call(tensor);
      all.set(name, { name, shape, data });
    }
    const changed = structuredClone(description);
    const texts = change(all, changed) === null ? {} : { saev_nn_training: JSON.stringify(changed) };
    const pieces: Uint8Array[] = [];
    const sink = new WritableStream<Uint8Array>({ write: (piece) => void pieces.push(piece.slice()) });
    await writeSafetensors(sink, [...all.values()], texts);
    return new Uint8Array(await new Blob(pieces as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  };
  return { description, altered };
}

Deno.test("a file of version 2, which kept the first squared error alone, continues bit by bit", async () => {
  const wanted = await trained("batch-top-k", "adam");
  const { altered, description } = await opened(wanted.file);
  const { stepsAbove: _, ...state } = description.state;
  const old = await altered((all, text) => {
    all.delete("recent_errors");
    Object.assign(text, { version: 2, state: { ...state, firstMse: wanted.losses[0]!.mse } });
  });
  using found = await (await openTraining(old)).restore({ device: await sharedDevice() });
  assertEquals(await found.state.read(), wanted.state);
  assertEquals([...wanted.state.recentErrors.slice(-3)], wanted.losses.map(({ mse }) => mse));
});

Deno.test("refused: files that are cut, lack something, hold something else, or describe what cannot be", async () => {
  const { file } = await trained("batch-top-k", "adam");
  for (const length of [0, 7, 100, file.length >> 1, file.length - 1]) {
    await assertRejects(() => openTraining(file.slice(0, length)), CheckpointError);
    const cut = { ...bytesSource(file.slice(0, length)), name: "runs/a/training.safetensors" };
    await assertRejects(() => openTraining(cut), CheckpointError, "runs/a/training.safetensors");
  }
  const { description, altered } = await opened(file);
  const cases: readonly [change: Change, message: string][] = [
    [() => null, "its metadata has no saev_nn_training"],
    [() => {}, "found no checksums"],
    [(all) => all.delete("moment2.W_dec"), "found no moment2.W_dec; expected [9,6]"],
    [
      (all) => all.set("extra", { name: "extra", shape: [1], data: new Float32Array(1) }),
      'found the unexpected tensor "extra"',
    ],
    [
      (all) => all.set("input_mean", { name: "input_mean", shape: [5], data: new Float32Array(5) }),
      "input_mean is [5]; expected [6]",
    ],
    [(_, text) => Object.assign(text, { version: 1 }), "version 1; expected 2 or 3"],
    [(all) => all.delete("recent_errors"), "found no recent_errors; expected [16]"],
    [(_, text) => Object.assign(text, { version: 2 }), 'found the unexpected tensor "recent_errors"'],
    [(_, text) => Object.assign(text, { state: { ...description.state, stepsAbove: 0.5 } }), "stepsAbove 0.5"],
    [(_, text) => Object.assign(text, { cfg: { ...description.cfg, d_sae: 8 } }), "expected [8]"],
    [(_, text) => Object.assign(text, { cfg: { ...description.cfg, d_sae: 0 } }), "d_sae must be"],
    [(_, text) => Object.assign(text, { cfg: {} }), "an incomplete configuration"],
    [(_, text) => Object.assign(text, { state: { ...description.state, step: -1 } }), "step -1"],
    [(_, text) => Object.assign(text, { state: { ...description.state, control: null } }), "control null"],
    [(_, text) => Object.assign(text, { state: { ...description.state, optimizer: "sgd" } }), "sgd"],
    [(_, text) => Object.assign(text, { input: { hasMean: true, scale: 0, pre_act_scale: 1 } }), "a wrong scaling"],
    [(_, text) => Object.assign(text, { state: undefined }), "found"],
  ];
  for (const [change, message] of cases) {
    const error = await assertRejects(async () => await openTraining(await altered(change)), CheckpointError);
    assertEquals([message, error.message.includes(message)], [message, true], error.message);
  }
});

Deno.test("the state of another model is refused before anything is written, also where the sizes are the same", async () => {
  const device = await sharedDevice();
  using sae = await SparseAutoencoder.create({ d_model: D, d_sae: 9 }, { device });
  using other = await SparseAutoencoder.create({ d_model: D, d_sae: 9 }, { device });
  using state = new TrainState(other);
  let n_pieces = 0;
  const sink = new WritableStream<Uint8Array>({ write: () => void n_pieces++ });
  await assertRejects(() => saveTraining(sink, { sae, state }), RangeError, "made for another model");
  assertEquals(n_pieces, 0);
});

Deno.test("a flipped bit is found before training continues, wherever it is", async () => {
  const { file } = await trained("batch-top-k", "adam");
  const header = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
  const { tensors } = await readSafetensors(bytesSource(file));
  const refused = async (bit: number): Promise<string> => {
    const damaged = file.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    const error = await assertRejects(
      async () => await (await openTraining(damaged)).verify(),
      CheckpointError,
      undefined,
      `bit ${bit}`,
    );
    return error.message;
  };
  // A step coprime to 8 meets every place in a byte.
  for (let bit = 0; bit < 8 * file.length; bit += 13) await refused(bit);
  const text = new TextDecoder().decode(file.subarray(0, header));
  const step = text.indexOf('\\"step\\":') + '\\"step\\":'.length;
  assertStringIncludes(await refused(8 * step), "its metadata is damaged: the checksum is ");
  // Tensors lie in the order of their names.
  let at = header;
  for (const name of [...tensors.keys()].sort()) {
    const { shape } = tensors.get(name)!;
    assertStringIncludes(await refused(8 * at), `${name} is damaged: the checksum is `);
    at += 4 * shape.reduce((a, b) => a * b, 1);
  }
  assertEquals(at, file.length);
  await assertRejects(
    async () => await (await openTraining(file.with(at - 1, file[at - 1]! ^ 1))).restore(),
    CheckpointError,
  );
});
