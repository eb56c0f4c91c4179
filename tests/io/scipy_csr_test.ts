/** `io/scipy_csr.ts` against what SciPy 1.17.1 wrote. @module */
import { assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { littleEndianBytes } from "../../io/numbers.ts";
import { formatCompressedNpz, openNpz } from "../../io/npz.ts";
import { type CsrToWrite, formatScipyCsr, openScipyCsr } from "../../io/scipy_csr.ts";
import { bytesSource, joinBytes } from "../../io/source.ts";
import { readZip } from "../../io/zip.ts";

const SCIPYS = new URL("../goldens/inference/top-k-ignore/inference/858efe9c/token_acts.npz", import.meta.url);

/** A matrix in memory, its parts in pieces of seven numbers. */
function csr(
  shape: readonly [number, number],
  counts: ArrayLike<number>,
  indices: ArrayLike<number>,
  data: Float32Array,
) {
  async function* pieces(numbers: ArrayLike<number>): AsyncGenerator<number[]> {
    for (let at = 0; at < numbers.length; at += 7) yield await Promise.resolve(Array.from(numbers).slice(at, at + 7));
  }
  return {
    shape,
    n_entries: data.length,
    counts: () => pieces(counts),
    indices: () => pieces(indices),
    async *values() {
      yield await Promise.resolve(littleEndianBytes(data));
    },
  } satisfies CsrToWrite;
}

async function written(matrix: CsrToWrite): Promise<Uint8Array> {
  return joinBytes(await Array.fromAsync(formatScipyCsr(matrix).pieces()));
}

async function members(bytes: Uint8Array): Promise<[string, Uint8Array][]> {
  const found = await readZip(bytesSource(bytes), { allowDeflated: true });
  return await Promise.all([...found].map(async ([name, member]) => [name, await member.read()]));
}

Deno.test("every array of the archive has the bytes that SciPy writes", async () => {
  const theirs = Deno.readFileSync(SCIPYS);
  const npz = await openNpz(bytesSource(theirs));
  const integers = async (name: string) => await (await npz.open(name)).readIntegers();
  const indptr = await integers("indptr");
  const counts = indptr.slice(1).map((end, row) => end - indptr[row]!);
  const data = await (await npz.open("data")).read();
  const [rows, columns] = await integers("shape") as unknown as [number, number];
  const ours = await written(csr([rows, columns], counts, await integers("indices"), data));
  assertEquals(await members(ours), await members(theirs));
});

Deno.test("more columns than 31 bits count make 64-bit indices, as SciPy's", async () => {
  const bytes = await written(csr([2, 2 ** 33], [2, 1], [5, 2 ** 32 + 7, 2 ** 33 - 1], Float32Array.of(1, -2, 3)));
  const npz = await openNpz(bytesSource(bytes));
  const wanted = { indices: [5, 2 ** 32 + 7, 2 ** 33 - 1], indptr: [0, 2, 3], shape: [2, 2 ** 33] };
  for (const [name, numbers] of Object.entries(wanted)) {
    const array = await npz.open(name);
    assertEquals([array.dtype, [...await array.readIntegers()]], ["int64", numbers]);
  }
});

Deno.test("rows of another number of entries are an error", async () => {
  await assertRejects(
    () => written(csr([2, 4], [1, 1], [0, 1, 2], Float32Array.of(1, 2, 3))),
    CheckpointError,
    "its rows have 2 entries; expected 3",
  );
});

Deno.test("a matrix without entries is written", async () => {
  const npz = await openNpz(bytesSource(await written(csr([3, 4], [0, 0, 0], [], new Float32Array()))));
  assertEquals([...await (await npz.open("indptr")).readIntegers()], [0, 0, 0, 0]);
  assertEquals((await npz.open("data")).shape, [0]);
});

async function readAll(bytes: Uint8Array) {
  const { shape, n_entries, rows } = await openScipyCsr(bytesSource(bytes));
  const found: { counts: number[]; indices: number[]; values: number[] } = { counts: [], indices: [], values: [] };
  for await (const { row_starts, indices, values } of rows()) {
    for (let i = 0; i + 1 < row_starts.length; i++) found.counts.push(row_starts[i + 1]! - row_starts[i]!);
    found.indices.push(...indices);
    found.values.push(...values);
  }
  return { shape, n_entries, ...found };
}

Deno.test("SciPy's matrix is read row by row, as often as wanted", async () => {
  const theirs = Deno.readFileSync(SCIPYS);
  const npz = await openNpz(bytesSource(theirs));
  const { shape, n_entries, counts, indices, values } = await readAll(theirs);
  assertEquals([shape, n_entries], [[240, 32], 540]);
  assertEquals(indices, [...await (await npz.open("indices")).readIntegers()]);
  assertEquals(values, [...await (await npz.open("data")).read()]);
  let start = 0;
  assertEquals([0, ...counts.map((count) => start += count)], [...await (await npz.open("indptr")).readIntegers()]);

  // More rows than are read at a time, some of them empty.
  const many = Array.from({ length: 2500 }, (_, row) => row % 3);
  const entries = many.flatMap((count) => Array.from({ length: count }, (_, i) => 2 * i + 1));
  const data = Float32Array.from(entries, (_, i) => i + 0.5);
  const ours = await readAll(await written(csr([2500, 4], many, entries, data)));
  assertEquals([ours.counts, ours.indices, ours.values], [many, entries, [...data]]);
});

Deno.test("what is no such matrix is refused by name", async () => {
  const good = csr([2, 4], [1, 2], [0, 1, 3], Float32Array.of(1, 2, 3));
  for (
    const [matrix, message] of [
      [
        { ...good, indices: csr([2, 4], [], [0, 4, 3], Float32Array.of()).indices },
        "entry 1 is in column 4; expected 0 to 3",
      ],
      [
        { ...good, values: csr([2, 4], [], [], Float32Array.of(1, NaN, 3)).values },
        "entry 1 is NaN; expected a finite number",
      ],
    ] as const
  ) {
    await assertRejects(async () => await readAll(await written(matrix)), CheckpointError, message);
  }
  const npy = (descr: string, shape: number[], bytes: Uint8Array) => ({ descr, shape, bytes });
  const parts = {
    indices: npy("<i4", [3], new Uint8Array(12)),
    indptr: npy("<i4", [3], new Uint8Array(Int32Array.of(0, 1, 3).buffer)),
    format: npy("|S3", [], new TextEncoder().encode("csr")),
    shape: npy("<i8", [2], new Uint8Array(BigInt64Array.of(2n, 4n).buffer)),
    data: npy("<f4", [3], new Uint8Array(12)),
  };
  const made = async (change: Partial<typeof parts>, without = "") => {
    const arrays = Object.entries({ ...parts, ...change }).filter(([name]) => name !== without);
    return joinBytes(
      await Array.fromAsync(formatCompressedNpz(arrays.map(([name, array]) => ({ name, ...array }))).pieces()),
    );
  };
  await readAll(await made({}));
  for (
    const [bytes, message] of [
      [
        made({ format: npy("|S3", [], new TextEncoder().encode("csc")) }),
        `in the format "csc"; in Python, .tocsr() makes it csr`,
      ],
      [made({ format: npy("<i4", [], new Uint8Array(4)) }), "expected one string of type S"],
      [made({}, "indptr"), `found no array "indptr"; expected those of scipy.sparse.save_npz`],
      [made({ shape: npy("<i8", [1], new Uint8Array(8)) }), "found no shape of rows and columns"],
      [made({ data: npy("<f4", [2], new Uint8Array(8)) }), "found indptr [3], indices [3] and data [2] for 2 rows"],
      [made({ data: npy("<i4", [3], new Uint8Array(12)) }), "expected floating-point numbers"],
      [made({ indptr: npy("<i4", [3], new Uint8Array(Int32Array.of(0, 2, 1).buffer)) }), "indptr of row 1 ends at 1"],
      [made({ indptr: npy("<i4", [3], new Uint8Array(Int32Array.of(0, 1, 4).buffer)) }), "indptr of row 1 ends at 4"],
      [
        made({ indptr: npy("<i4", [3], new Uint8Array(Int32Array.of(0, 1, 2).buffer)) }),
        "its rows have 2 entries; expected 3",
      ],
      [made({ indptr: npy("<i4", [3], new Uint8Array(Int32Array.of(1, 1, 3).buffer)) }), "indptr begins with 1"],
    ] as const
  ) {
    await assertRejects(async () => await readAll(await bytes), CheckpointError, message);
  }
});
