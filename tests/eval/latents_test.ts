/** Codes row by row, the strongest latents and rows, and the nearest latents, against all codes written out. @module */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { rowsOf } from "../../data/mod.ts";
import { encodeRows, nearestLatents, topLatents, topRows } from "../../eval/mod.ts";
import { SparseAutoencoder } from "../../mod.ts";
import { Random } from "../support/random.ts";

const [N, D, S] = [300, 8, 24];
const DATA = new Random(3).normal(N * D);

function open(): Promise<SparseAutoencoder> {
  return SparseAutoencoder.create({ d_model: D, d_sae: S, activation: { key: "top-k", top_k: 5 } }, { seed: 1 });
}

/** Every entry of f_x: row, latent, value. */
async function entriesOf(sae: SparseAutoencoder): Promise<{ row: number; latent: number; value: number }[]> {
  using codes = sae.encode(DATA);
  using dense = codes.dense();
  return Array.from(await dense.read(), (value, i) => ({ row: Math.floor(i / S), latent: i % S, value }))
    .filter(({ value }) => value !== 0);
}

Deno.test("codes come row by row, however the rows come", async () => {
  using sae = await open();
  const entries = await entriesOf(sae);
  const batches = [DATA.subarray(0, 7 * D), DATA.subarray(7 * D, 200 * D), DATA.subarray(200 * D)];
  for (const rows of [rowsOf(DATA, D), batches]) {
    const codes = await Array.fromAsync(encodeRows(sae, rows));
    assertEquals(codes.map(({ row }) => row), Array.from({ length: N }, (_, row) => row));
    assertEquals(
      codes.flatMap(({ row, latents, values }) =>
        Array.from(latents, (latent, i) => ({ row, latent, value: values[i]! })).filter(({ value }) => value !== 0)
      ),
      entries,
    );
  }
});

Deno.test("the strongest latents of a row stand first, and the lower of equal ones", () => {
  const code = { latents: Uint32Array.of(1, 4, 6, 9), values: Float32Array.of(2, 5, -1, 5) };
  assertEquals(topLatents(code, 3), [{ latent: 4, value: 5 }, { latent: 9, value: 5 }, { latent: 1, value: 2 }]);
  assertEquals(topLatents(code).length, 4);
});

Deno.test("the strongest rows of each latent are those of all codes sorted", async () => {
  using sae = await open();
  const entries = await entriesOf(sae);
  for (const k of [1, 4, N]) {
    const top = await topRows(sae, rowsOf(DATA, D), { k });
    for (let latent = 0; latent < S; latent++) {
      const expected = entries.filter((entry) => entry.latent === latent)
        .sort((a, b) => b.value - a.value || a.row - b.row).slice(0, k);
      assertEquals(top.of(latent), expected.map(({ row, value }) => ({ row, value })));
    }
    assertThrows(() => top.of(S), RangeError, `there is no latent ${S}; expected an integer from 0 to ${S - 1}`);
  }
  await assertRejects(() => topRows(sae, rowsOf(DATA, D), { k: 0 }), RangeError, "k must be an integer of at least 1");
});

Deno.test("the nearest latents have the largest cosines, and a latent is not its own neighbour", async () => {
  const W_dec = Float32Array.of(1, 0, 2, 2, 0, 3, -1, 0, 0, 0);
  using sae = await SparseAutoencoder.fromParameters(
    { d_model: 2, d_sae: 5, activation: { key: "relu" }, normalize_w_dec: false },
    { W_enc: new Float32Array(10), b_enc: new Float32Array(5), W_dec, b_dec: new Float32Array(2) },
  );
  const near = await nearestLatents(sae, 0);
  assertEquals(near.map(({ latent }) => latent), [1, 2, 4, 3]);
  assert(Math.abs(near[0]!.cosine - Math.SQRT1_2) < Number.EPSILON * 4);
  assertEquals(near.slice(1).map(({ cosine }) => cosine + 0), [0, 0, -1]);
  assertEquals((await nearestLatents(sae, 4, 1)).map(({ cosine }) => cosine + 0), [0]);
  await assertRejects(() => nearestLatents(sae, 5), RangeError, "there is no latent 5");
});
