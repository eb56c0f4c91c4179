/** Probes of folders: the Python package's files, classes of images and of files, and what is refused. @module */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { openSource } from "../../io/files.ts";
import { writeNpy } from "../../io/npy.ts";
import { openNpz } from "../../io/npz.ts";
import { openLabels, probeFolders } from "../../runner/mod.ts";
import { sharedDevice } from "../support/gpu.ts";
import { assertExact } from "../support/tolerance.ts";

const GOLDENS = new URL("../goldens/probe1d/", import.meta.url).pathname;
const [TRAIN, TEST] = ["9d34fdb2", "982225a7"];

/** A folder that is gone after the test. */
async function folder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Names, types, shapes and numbers of an archive's arrays. */
async function arraysOf(path: string) {
  const npz = await openNpz(await openSource(path));
  const arrays = await Promise.all(npz.names.map(async (name) => {
    const array = await npz.open(name);
    const { dtype, shape } = array;
    return { name, dtype, shape, data: dtype === "float32" ? await array.read() : await array.readIntegers() };
  }));
  return { arrays, described: arrays.map(({ name, dtype, shape }) => ({ name, dtype, shape })) };
}

Deno.test("probes of a run are in the Python package's files, with its names, types and shapes", async () => {
  await using temporary = await folder();
  const split = async (name: "train" | "test", hash: string) => {
    const folder = `${temporary.path}/${hash}`;
    await Deno.mkdir(folder);
    await Deno.copyFile(`${GOLDENS}${name}/token_acts.npz`, `${folder}/token_acts.npz`);
    const labels = await openLabels(`${GOLDENS}${name}`);
    assertEquals(labels.hash, hash);
    return { ...labels, folder };
  };
  const [train, test] = [await split("train", TRAIN), await split("test", TEST)];
  const { probes, scores, paths } = await probeFolders({ train, test }, { device: await sharedDevice() });
  const names = [
    `${TRAIN}/probe1d_metrics.npz`,
    `${TEST}/probe1d_metrics.npz`,
    `${TEST}/probe1d_metrics__train-${TRAIN}.npz`,
  ];
  assertEquals(paths, names.map((name) => `${temporary.path}/${name}`));
  for (const [i, theirs] of ["train/probe1d_metrics.npz", "test/probe1d_metrics.npz"].entries()) {
    const [ours, want] = [await arraysOf(paths[i]!), await arraysOf(GOLDENS + theirs)];
    assertEquals(ours.described, want.described);
    const measures = i === 0 ? probes.train : scores.measures;
    const expected = { ...measures, weights: probes.weights, biases: probes.biases };
    for (const { name, data } of ours.arrays) assertExact(data, expected[name as keyof typeof expected], name);
  }
  const [ours, want] = [
    await arraysOf(paths[2]!),
    await arraysOf(`${GOLDENS}test/probe1d_metrics__train-${TRAIN}.npz`),
  ];
  assertEquals(ours.described, [...want.described, { name: "top_counts", dtype: "int32", shape: [24] }]);
  const [labels, theirs, counts] = [ours.arrays[4]!.data, want.arrays[4]!.data, ours.arrays[5]!.data];
  for (let latent = 0; latent < 24; latent++) {
    const [here, there] = [labels, theirs].map((all) => [...all.slice(latent * 256, (latent + 1) * 256)]);
    assertEquals(here!.slice(counts[latent]), new Array(256 - counts[latent]!).fill(255));
    // Latent 20 has ties, of which the Python package takes any.
    if (latent !== 20) assertEquals(here!.slice(0, counts[latent]), there!.slice(0, counts[latent]));
  }

  // Scored where they were fitted, there is one file less.
  const alone = await probeFolders({ train }, { device: await sharedDevice() });
  assertEquals(alone.paths, [paths[0]!, `${temporary.path}/${TRAIN}/probe1d_metrics__train-${TRAIN}.npz`]);
  assertEquals(alone.scores.measures, alone.probes.train);
});

Deno.test("classes of tokens are those of patches, of their images, or in a file", async () => {
  await using temporary = await folder();
  const { path } = temporary;
  const at = (name: string) => `${path}/${name}`;
  await Deno.copyFile(`${GOLDENS}train/metadata.json`, at("metadata.json"));
  await assertRejects(
    () => openLabels(path),
    CheckpointError,
    "found neither labels.bin, a class for each patch, nor labels.json, one for each image",
  );
  const ofImage = Array.from({ length: 25 }, (_, image) => image % 2);
  await Deno.writeTextFile(at("labels.json"), JSON.stringify({ names: ["cat", "dog"], labels: ofImage }));
  const { labels, names, hash } = await openLabels(path);
  assertEquals([names, hash, labels.length], [["cat", "dog"], TRAIN, 25 * 16]);
  assert(labels.every((label, token) => label === Math.floor(token / 16) % 2));
  await Deno.writeTextFile(at("labels.json"), JSON.stringify({ names: ["cat", "dog"], labels: [0, 1] }));
  await assertRejects(() => openLabels(path), CheckpointError, "expected names, and labels of 25 images");
  await Deno.writeFile(at("labels.bin"), new Uint8Array(400).fill(7));
  assertEquals((await openLabels(path)).labels, new Uint16Array(400).fill(7));

  const header = `{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }`.padEnd(117) + "\n";
  const start = Uint8Array.of(0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, 118, 0);
  const npy = (...integers: bigint[]) =>
    new Uint8Array([
      ...start,
      ...new TextEncoder().encode(header),
      ...new Uint8Array(BigInt64Array.from(integers).buffer),
    ]);
  await Deno.writeFile(at("labels.npy"), npy(0n, 300n, 2n));
  assertEquals(await openLabels(at("labels.npy")), { labels: Uint16Array.of(0, 300, 2), names: null, hash: null });
  await Deno.writeFile(at("labels.npy"), npy(0n, -1n, 2n));
  await assertRejects(() => openLabels(at("labels.npy")), CheckpointError, "label 1 is -1; expected an integer from 0");
  await Deno.writeFile(at("floats.npy"), writeNpy({ data: new Float32Array(3), rows: 3, cols: 1 }));
  await assertRejects(() => openLabels(at("floats.npy")), CheckpointError, "expected integers");
});
