/**
 * How fast rows come from a file: in order and shuffled, out of the page cache and from the disk, beside `cat` on the same
 * file in the same run; and how long a training step waits for them.
 *
 *     deno run -A bench/rows.ts [GIGABYTES] [FOLDER]
 *
 * @module
 */
import { batchesInOrder, openRows, shuffledBatches } from "../data/mod.ts";
import { table } from "./measure.ts";

const [gigabytes = "2", parent] = Deno.args;
const [D, BATCH] = [768, 4096];
const n_rows = Math.floor(Number(gigabytes) * 1e9 / (4 * D));
const bytes = n_rows * D * 4;
const folder = await Deno.makeTempDir(parent === undefined ? {} : { dir: parent });
const path = `${folder}/rows.f32`;

/** Drops the file from the page cache; returns `false` where that is impossible. */
async function forget(): Promise<boolean> {
  const args = [`if=${path}`, "iflag=nocache", "count=0", "status=none"];
  return (await new Deno.Command("dd", { args, stderr: "null" }).output()).success;
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) / 1000;
}

async function cat(): Promise<void> {
  await new Deno.Command("sh", { args: ["-c", 'cat "$1" > /dev/null', "sh", path] }).output();
}

try {
  const row = new Float32Array(D * 1024).map((_, i) => Math.sin(i));
  {
    using file = await Deno.open(path, { write: true, createNew: true });
    for (let at = 0; at < n_rows; at += 1024) {
      const part = new Uint8Array(row.buffer, 0, Math.min(1024, n_rows - at) * D * 4);
      for (let done = 0; done < part.length;) done += await file.write(part.subarray(done));
    }
    await file.sync();
  }
  const rows = await openRows(path, { d_model: D, format: "f32" });
  const ordered = async () => {
    for await (const _ of batchesInOrder(rows, BATCH));
  };
  const shuffled = async () => {
    const n_steps = Math.floor(n_rows / BATCH);
    for await (const _ of shuffledBatches(rows, { batch_size: BATCH, n_steps }));
  };
  const measured = [];
  for (const [state, before] of [["disk", forget], ["cache", cat]] as const) {
    const can = await before();
    if (can === false) {
      console.error("the page cache cannot be emptied here, so only reads from the cache are measured");
      continue;
    }
    const reference = await seconds(cat);
    for (const [what, work] of [["cat", cat], ["in order", ordered], ["shuffled", shuffled]] as const) {
      await before();
      const time = what === "cat" ? reference : await seconds(work);
      measured.push({ from: state, what, "GB/s": bytes / time / 1e9, "/ cat": reference / time });
    }
  }
  console.log(table(measured));

  // A step of 100 ms that leaves the main thread free, like one on a GPU.
  let waited = 0;
  let steps = 0;
  const batches = shuffledBatches(rows, { batch_size: BATCH, n_steps: 100, seed: 1 });
  await batches.next();
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const begin = performance.now();
    if ((await batches.next()).done) break;
    waited += performance.now() - begin;
    steps++;
  }
  console.log(`steps of 100 ms wait ${(waited / steps).toFixed(2)} ms for their rows`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
