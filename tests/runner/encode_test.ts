/** Codes on disk: the Python package's own folders, resuming to the same bytes, and what is refused. @module */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { finiteRows, rowsOf, type RowSource } from "../../data/mod.ts";
import { CheckpointError } from "../../io/errors.ts";
import { load } from "../../io/checkpoints/checkpoint.ts";
import { openSource } from "../../io/files.ts";
import { openNpz } from "../../io/npz.ts";
import { PickledTensor, readTorchObject } from "../../io/torch_file.ts";
import { readZip } from "../../io/zip.ts";
import { encodeToFolder, type EncodingPlan, openTokens } from "../../runner/mod.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { freshDevice, sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertScalarClose, assertTensorClose } from "../support/tolerance.ts";

const GOLDENS = new URL("../goldens/", import.meta.url).pathname;
const OUTPUTS = ["config.json", "distributions.pt", "mean_values.pt", "metrics.json", "sparsity.pt", "token_acts.npz"];

/** What the goldens' `expected.json` says. */
interface Expected {
  readonly shards: { readonly golden: string; readonly hash: string };
  readonly ignore_labels: readonly number[];
  readonly corrected: {
    readonly mean_values: readonly (number | null)[];
    readonly sparsity: readonly number[];
    readonly metrics: Readonly<Record<string, number>>;
  };
}

interface Csr {
  readonly indptr: Float64Array;
  readonly indices: Float64Array;
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

async function readCsr(path: string): Promise<Csr> {
  const npz = await openNpz(await openSource(path));
  const integers = async (name: string) => await (await npz.open(name)).readIntegers();
  return {
    indptr: await integers("indptr"),
    indices: await integers("indices"),
    data: await (await npz.open("data")).read(),
    shape: [...await integers("shape")],
  };
}

async function readTensor(path: string) {
  const object = await readTorchObject(await openSource(path));
  assert(object instanceof PickledTensor, "a bare tensor");
  return { shape: object.tensor.shape, data: await object.tensor.read() };
}

/** A folder that is gone after the test. */
async function folder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Every file of a folder. */
async function filesOf(path: string): Promise<Record<string, Uint8Array>> {
  const names = (await Array.fromAsync(Deno.readDir(path), ({ name }) => name)).sort();
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await Deno.readFile(`${path}/${name}`)])),
  );
}

for (const name of ["top-k", "top-k-ignore", "top-k-negative", "batch-top-k-eval", "relu", "relu-no-labels"]) {
  Deno.test(`the Python package's inference of ${name}`, async () => {
    await using temporary = await folder();
    const run = `${GOLDENS}inference/${name}`;
    const { shards, ignore_labels, corrected }: Expected = JSON.parse(await Deno.readTextFile(`${run}/expected.json`));
    const theirs = `${run}/inference/${shards.hash}`;
    using sae = await load(run, { device: await sharedDevice() });
    const { rows, labels, hash } = await openTokens(`${GOLDENS}shards/${shards.golden}/${shards.hash}`, {});
    assertEquals(hash, shards.hash);
    const out = `${temporary.path}/codes`;
    const { metrics, n_entries, n_kept } = await encodeToFolder({
      sae,
      rows,
      out,
      batch_size: 50,
      about: { run, shards: shards.golden, tokens: "content", layer: -2 },
      ...ignore_labels.length > 0 && { ignored: { labels: labels!, ignore_labels } },
    });
    assertEquals(n_kept, 0);
    assertEquals(Object.keys(await filesOf(out)), OUTPUTS);

    const [ours, want] = [await readCsr(`${out}/token_acts.npz`), await readCsr(`${theirs}/token_acts.npz`)];
    assertEquals(ours.shape, want.shape);
    assertExact(ours.indptr, want.indptr, "indptr");
    assertExact(ours.indices, want.indices, "indices");
    assertTensorClose(ours.data, want.data, "data");
    assertEquals(n_entries, want.data.length);
    assert(ours.data.every((value) => value !== 0), "no stored zeros");

    const known = corrected.mean_values.map((value) => value ?? NaN);
    const { data: means } = await readTensor(`${out}/mean_values.pt`);
    assertEquals([...means].map(Number.isNaN), known.map(Number.isNaN));
    const fires = (value: number) => Number.isNaN(value) ? 0 : value;
    assertTensorClose(means.map(fires), known.map(fires), "mean_values");
    assertTensorClose((await readTensor(`${out}/sparsity.pt`)).data, corrected.sparsity, "sparsity");

    const { shape, data } = await readTensor(`${out}/distributions.pt`);
    assertEquals(shape, [rows.n_rows, 25]);
    const dense = new Float32Array(rows.n_rows * 25);
    for (let row = 0; row < rows.n_rows; row++) {
      for (let entry = ours.indptr[row]!; entry < ours.indptr[row + 1]!; entry++) {
        if (ours.indices[entry]! < 25) dense[row * 25 + ours.indices[entry]!] = ours.data[entry]!;
      }
    }
    assertExact(data, dense, "row i of the distributions is that of token i");

    const written = JSON.parse(await Deno.readTextFile(`${out}/metrics.json`));
    assertEquals(written, { ...metrics });
    assertEquals(Object.keys(written), Object.keys(JSON.parse(await Deno.readTextFile(`${theirs}/metrics.json`))));
    for (const [field, value] of Object.entries(corrected.metrics)) assertScalarClose(written[field], value, field);

    // What NumPy and PyTorch say before the numbers is the same, byte by byte.
    const headers = async (path: string) => {
      const members = await readZip(await openSource(path), { allowDeflated: true });
      return await Promise.all([...members].map(async ([name, member]) => [name, await member.head(128)]));
    };
    assertEquals(await headers(`${out}/token_acts.npz`), await headers(`${theirs}/token_acts.npz`));
    const config = JSON.parse(await Deno.readTextFile(`${out}/config.json`));
    const { saev_nn: own, ...upstreams } = config;
    assertEquals(Object.keys(upstreams), Object.keys(JSON.parse(await Deno.readTextFile(`${theirs}/config.json`))));
    assertEquals(upstreams.ignore_labels, ignore_labels);
    assertEquals(own.identity.rows.n_rows, rows.n_rows);
  });
}

const [N, D, S] = [300, 8, 24];
const DATA = new Random(5).normal(N * D);
const ABOUT = { run: "run", shards: "shards", tokens: "content", layer: null };

async function model(seed = 0): Promise<SparseAutoencoder> {
  const cfg = { d_model: D, d_sae: S, activation: { key: "top-k", top_k: 3 } } as const;
  return await SparseAutoencoder.create(cfg, { seed, device: await sharedDevice() });
}

function planOf(sae: SparseAutoencoder, out: string, change: Partial<EncodingPlan> = {}): EncodingPlan {
  return { sae, rows: rowsOf(DATA, D), out, batch_size: 40, about: ABOUT, ...change };
}

/** Encodes until so many rows are done, and is then stopped. */
async function encodeUntil(plan: EncodingPlan, rows: number): Promise<void> {
  const stop = new AbortController();
  await assertRejects(
    () =>
      encodeToFolder(plan, {
        signal: stop.signal,
        onProgress: (done) => done >= rows && stop.abort(new Error("stopped")),
      }),
    Error,
    "stopped",
  );
}

Deno.test("what was stopped continues to the bytes of one that was not", async () => {
  await using temporary = await folder();
  using sae = await model();
  const labels = Uint8Array.from({ length: N }, (_, i) => i % 3);
  const ignored = { labels, ignore_labels: [1] };
  const whole = `${temporary.path}/whole`;
  await encodeToFolder(planOf(sae, whole, { ignored }));
  const want = await filesOf(whole);

  const stopped = `${temporary.path}/stopped`;
  await encodeUntil(planOf(sae, stopped, { ignored }), 120);
  await encodeUntil(planOf(sae, stopped, { ignored }), 200);
  const seen: number[] = [];
  const { n_kept } = await encodeToFolder(planOf(sae, stopped, { ignored }), { onProgress: (done) => seen.push(done) });
  assertEquals([n_kept, seen], [200, [200, 240, 280, 300]]);
  assertEquals(await filesOf(stopped), want);

  // A kill leaves behind what was written after the last save, and files half written.
  const killed = `${temporary.path}/killed`;
  await encodeUntil(planOf(sae, killed, { ignored }), 80);
  for (const name of ["indices", "values", "counts", "distributions"]) {
    await Deno.writeFile(`${killed}/partial/${name}`, new Uint8Array(37).fill(7), { append: true });
  }
  await Deno.writeTextFile(`${killed}/token_acts.npz.01234567-89ab-cdef-0123-456789abcdef.tmp`, "half");
  assertEquals((await encodeToFolder(planOf(sae, killed, { ignored }))).n_kept, 80);
  assertEquals(await filesOf(killed), want);

  // Killed after the last row: the outputs are made of the parts once more.
  const late = `${temporary.path}/late`;
  await encodeUntil(planOf(sae, late, { ignored }), 300);
  await Deno.copyFile(`${whole}/token_acts.npz`, `${late}/token_acts.npz`);
  assertEquals((await encodeToFolder(planOf(sae, late, { ignored }))).n_kept, 300);
  assertEquals(await filesOf(late), want);
});

Deno.test("a whole folder is left as it is, also where a kill left its parts", async () => {
  await using temporary = await folder();
  using sae = await model();
  const out = `${temporary.path}/codes`;
  const first = await encodeToFolder(planOf(sae, out));
  const want = await filesOf(out);
  await Deno.mkdir(`${out}/partial`);
  await Deno.writeTextFile(`${out}/partial/indices`, "left");
  const read = () => Promise.reject(new Error("rows were read"));
  const rows: RowSource = { ...rowsOf(DATA, D) };
  let reads = 0;
  const counted = { ...rows, read: (from: number, to: number) => (reads++, rows.read(from, to)) };
  const again = await encodeToFolder(planOf(sae, out, { rows: counted }));
  assertEquals(again, { ...first, n_kept: N });
  assertEquals(reads, 1, "the fingerprint alone");
  assertEquals(await filesOf(out), want);
  await assertRejects(() => encodeToFolder(planOf(sae, out, { rows: { ...rows, read } })), Error, "rows were read");
});

Deno.test("batches, and what fits the device, change no bit", async () => {
  await using temporary = await folder();
  const device = await freshDevice({ bindingLimit: 8192 });
  const cfg = { d_model: D, d_sae: S, activation: { key: "relu" } } as const;
  const written: Record<string, Uint8Array>[] = [];
  for (
    const [i, [where, batch_size]] of ([[await sharedDevice(), 300], [device, 300], [device, 7]] as const).entries()
  ) {
    using sae = await SparseAutoencoder.create(cfg, { device: where });
    const out = `${temporary.path}/${i}`;
    await encodeToFolder(planOf(sae, out, { batch_size }));
    const { "config.json": _, ...files } = await filesOf(out);
    written.push(files);
  }
  assertEquals(written[1], written[0]);
  assertEquals(written[2], written[0]);
});

Deno.test("what stands in the folder is not taken for something else", async () => {
  await using temporary = await folder();
  using sae = await model();
  using other = await model(1);
  const out = `${temporary.path}/codes`;
  await encodeToFolder(planOf(sae, out));
  const labels = new Uint8Array(N).with(0, 1);
  for (
    const [change, message] of [
      [{ sae: other }, "found codes of another model"],
      [{ rows: rowsOf(DATA.slice(D), D) }, "found codes of other rows, 300 of 8"],
      [{ rows: rowsOf(DATA.with(0, 9), D) }, "found codes of other rows"],
      [{ ignored: { labels, ignore_labels: [1] } }, "found codes without the labels none"],
      [{ n_dists: 3 }, "found codes with distributions of 24 latents"],
    ] as const
  ) {
    const error = await assertRejects(() => encodeToFolder(planOf(sae, out, change)), RangeError);
    assertStringIncludes(error.message, `encoding into ${out}: ${message}`);
    assertStringIncludes(error.message, "choose another folder, or give { overwrite: true }");
  }
  await encodeToFolder(planOf(other, out, { overwrite: true }));
  assertEquals((await encodeToFolder(planOf(other, out))).n_kept, N);

  // Parts of another model are refused as well, and files of somebody else.
  const parts = `${temporary.path}/parts`;
  await encodeUntil(planOf(sae, parts), 80);
  await assertRejects(() => encodeToFolder(planOf(other, parts)), RangeError, "found codes of another model");
  const theirs = `${temporary.path}/theirs`;
  await Deno.mkdir(theirs);
  await Deno.writeTextFile(`${theirs}/config.json`, `{"run":"x"}`);
  await assertRejects(
    () => encodeToFolder(planOf(sae, theirs)),
    RangeError,
    "found config.json, which this library did not write",
  );
  assertEquals(await Deno.readTextFile(`${theirs}/config.json`), `{"run":"x"}`);
});

Deno.test("damaged parts, and rows that cannot be encoded, are errors that name them", async () => {
  await using temporary = await folder();
  using sae = await model();
  const parts = `${temporary.path}/parts`;
  await encodeUntil(planOf(sae, parts), 80);
  await Deno.truncate(`${parts}/partial/values`, 12);
  await assertRejects(
    () => encodeToFolder(planOf(sae, parts)),
    CheckpointError,
    "values has 12 bytes; expected at least 960; start again with { overwrite: true }",
  );
  await encodeToFolder(planOf(sae, parts, { overwrite: true }));

  const out = `${temporary.path}/codes`;
  const bad = finiteRows(rowsOf(DATA.with(100 * D + 2, NaN), D), "rows.npy");
  await assertRejects(() => encodeToFolder(planOf(sae, out, { rows: bad })), RangeError, "row 100");
  const labels = new Uint8Array(N).fill(4);
  await assertRejects(
    () => encodeToFolder(planOf(sae, out, { ignored: { labels, ignore_labels: [2, 4] } })),
    RangeError,
    "every row has one of the ignored labels 2, 4",
  );
  await assertRejects(
    () => encodeToFolder(planOf(sae, out, { ignored: { labels: labels.slice(1), ignore_labels: [2] } })),
    RangeError,
    "found 299 labels for 300 rows",
  );
  const { W_enc, b_enc, W_dec, b_dec } = await sae.readParameters();
  using huge = await SparseAutoencoder.fromParameters(sae.cfg, {
    W_enc,
    b_enc,
    W_dec: W_dec.map((w) => w * 1e38),
    b_dec,
  }, { device: await sharedDevice() });
  await assertRejects(
    () => encodeToFolder(planOf(huge, `${temporary.path}/huge`, { rows: rowsOf(DATA.map((x) => x * 1e6), D) })),
    RangeError,
    "encoding row 0: a code or the reconstruction is not finite",
  );
});

Deno.test("rows that do not vary have no normalised error", async () => {
  await using temporary = await folder();
  using sae = await model();
  await encodeToFolder(planOf(sae, temporary.path, { rows: rowsOf(new Float32Array(10 * D).fill(0.5), D) }));
  const metrics = JSON.parse(await Deno.readTextFile(`${temporary.path}/metrics.json`));
  assertEquals([metrics.normalized_mse, metrics.sse_baseline, metrics.n_tokens], [null, 0, 10]);
});

Deno.test("a process that is killed is continued to the same bytes", async () => {
  await using temporary = await folder();
  const [whole, killed] = [`${temporary.path}/whole`, `${temporary.path}/killed`];
  const program = new URL("./encode_program.ts", import.meta.url).pathname;
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const encode = async (...args: string[]) => {
    const options = ["run", "-A", "--quiet", "--config", config, program, ...args];
    return await new Deno.Command(Deno.execPath(), { args: options, stdout: "null", stderr: "null" }).output();
  };
  assertEquals((await encode(whole)).code, 0);
  assertEquals((await encode(killed, "520")).signal, "SIGKILL");
  assertEquals(JSON.parse(await Deno.readTextFile(`${killed}/partial/state.json`)).n_rows, 480);
  assertEquals((await encode(killed)).code, 0);
  assertEquals(await filesOf(killed), await filesOf(whole));
});
