/** `io/scipy_csr.ts` against what SciPy 1.17.1 wrote. @module */
import { assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { littleEndianBytes } from "../../io/numbers.ts";
import { openNpz } from "../../io/npz.ts";
import { type CsrToWrite, formatScipyCsr } from "../../io/scipy_csr.ts";
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
