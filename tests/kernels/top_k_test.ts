/**
 * The k largest of each row against a sort, for every kind of row there is.
 *
 * @module
 */

import { assertThrows } from "@std/assert";
import { Commands } from "../../kernels/engine/commands.ts";
import { MAXIMA_COLUMNS } from "../../kernels/matmul_tiles.ts";
import { topK, type TopKArguments } from "../../kernels/top_k.ts";
import {
  caseContext,
  check,
  type KernelCase,
  mutants,
  type Recording,
  TEXTURES,
  type Variant,
} from "../support/kernel_harness.ts";
import { columnMaxima } from "../reference/keys.ts";
import { paddedWithNaN, Random } from "../support/random.ts";
import { assertExact } from "../support/tolerance.ts";

/** k up to which values are filtered before they are ranked. */
const FILTERED = 64;

const VARIANTS: readonly Variant[] = [{}, { lanes: 32 }, { ...TEXTURES, subgroups: false }];

/** Larger values first, NaN before all, equal ones by index: what is kept, by ascending index. */
function sorted(row: Float32Array, k: number): Uint32Array {
  const rank = (value: number) => Number.isNaN(value) ? 2 : value === Infinity ? 1 : 0;
  const order = Uint32Array.from(row.keys()).sort((i, j) =>
    rank(row[j]!) - rank(row[i]!) || (rank(row[i]!) === 0 ? row[j]! - row[i]! : 0) || i - j
  );
  return order.slice(0, Math.min(k, row.length)).sort();
}

/** −∞ − −∞ is no number: rows with it are ranked by their bits. */
function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

interface Rows {
  readonly rows: readonly Float32Array[];
  readonly k: number;
  /** Columns between the rows, all NaN. */
  readonly gap?: number;
  /** Rows of the results before the first. */
  readonly firstRow?: number;
  /** Only so many columns exist, and they have these names. */
  readonly listed?: { readonly count: number; readonly names: Uint32Array };
}

function select(gpu: Recording, { rows, k, gap = 3, firstRow = 0, listed }: Rows): void {
  const n = rows[0]!.length;
  const stride = n + gap;
  const exist = Math.min(n, listed?.count ?? n);
  const kept = Math.min(k, exist);
  const values = new Float32Array(rows.length * stride);
  rows.forEach((row, r) => values.set(paddedWithNaN(row, gap), r * stride));
  const allRows = firstRow + rows.length + 1;
  const starts = Uint32Array.from({ length: allRows + 1 }, (_, row) => row * kept);
  const capacity = allRows * kept;
  const given = {
    values: gpu.f32(values, rows.length, stride),
    rows: rows.length,
    stride,
    n,
    k,
    firstRow,
    starts: gpu.u32(starts),
    allRows,
    capacity,
  };
  const wantIndices = new Uint32Array(capacity).fill(0xffffffff);
  const wantBits = new Uint32Array(capacity).fill(0xffffffff);
  rows.forEach((row, r) => {
    const order = sorted(row.subarray(0, exist), k);
    const at = (firstRow + r) * kept;
    wantIndices.set(listed ? order.map((j) => listed.names[j]!) : order, at);
    wantBits.set(order.map((j) => bitsOf(row)[j]!), at);
  });
  const expectSelection = (more: Partial<TopKArguments>, what: string) => {
    const indices = gpu.outU32(capacity);
    const selected = gpu.out(capacity);
    topK(gpu.commands, { ...given, indices, selected, ...more });
    gpu.expect(indices, (got) => assertExact(got, wantIndices, `indices, ${what}`));
    gpu.expect(selected, (got) => assertExact(bitsOf(got), wantBits, `bits of the values, ${what}`));
  };
  const what = `k = ${k} of ${exist}`;
  if (listed) {
    const { names, count } = listed;
    return expectSelection({ listed: { names: gpu.u32(names), count: gpu.u32([count]), size: names.length } }, what);
  }
  expectSelection({}, what);
  // The same where the product has left maxima behind, with a column to spare.
  const blocks = Math.ceil(n / MAXIMA_COLUMNS);
  const maxima = new Uint32Array(blocks * (rows.length + 1)).fill(0xffffffff);
  rows.forEach((row, r) => columnMaxima(row).forEach((key, g) => maxima[g * (rows.length + 1) + r] = key));
  expectSelection({ maxima: gpu.u32(maxima, blocks, rows.length + 1) }, `${what} with maxima`);
}

/** Rows of n that are hard for one reason or another. */
function hardRows(random: Random, n: number): Float32Array[] {
  const normal = random.normal(n);
  const some = (values: readonly number[]) =>
    Float32Array.from({ length: n }, () => values[random.integer(0, values.length - 1)]!);
  const bits = (make: () => number) => new Float32Array(Uint32Array.from({ length: n }, make).buffer);
  const ascending = normal.slice().sort();
  return [
    normal,
    new Float32Array(n),
    new Float32Array(n).fill(-1.5),
    new Float32Array(n).fill(-Infinity),
    normal.map((value) => -Math.abs(value)),
    some([0, -0]),
    some([1, 2, 3]),
    some([-Infinity, Infinity, 0, -0, 1, -1]),
    ascending,
    ascending.slice().reverse(),
    normal.map((value) => 1 + value * 2 ** -22),
    // Denormals of both signs.
    bits(() => (random.bits() & 0x807fffff) >>> 0),
    // Everything there is, NaN of any payload and sign included.
    bits(() => random.bits()),
    normal.map((value, i) => i % 7 === 3 ? NaN : value),
    bits(() => [0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x3f800000][random.integer(0, 4)]!),
    new Float32Array(n).fill(NaN),
  ];
}

/** Every kind of row at k of 1, all, more than all, and about the limit of the filter. */
for (const n of [1, 2, 3, 5, 7, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 600, 2000]) {
  Deno.test(`the k largest of ${n} are those of a sort, for any input`, async () => {
    const ks = new Set([1, 2, 16, 17, 32, 33, Math.ceil(n / 2), FILTERED - 1, FILTERED, FILTERED + 1, n - 1, n, n + 1]);
    await check((gpu) => {
      const random = new Random(n);
      for (const k of ks) {
        if (k >= 1 && k <= n + 1) select(gpu, { rows: hardRows(random, n), k, firstRow: k % 3 });
      }
    }, ...VARIANTS);
  });
}

Deno.test("k far above n keeps all, and k may be anything below", async () => {
  await check((gpu) => {
    const random = new Random(1);
    for (let k = 1; k <= 40; k++) select(gpu, { rows: [random.integers(37, -9, 9), random.normal(37)], k });
    select(gpu, { rows: hardRows(random, 10), k: 4096 });
  }, ...VARIANTS);
});

/** More values at the bound than can be collected: all but a few are equal. */
const overflowing: KernelCase = (gpu) => {
  const random = new Random(2);
  const ties = (n: number, greater: number) => {
    const row = new Float32Array(n).fill(-2);
    for (let i = 0; i < greater; i++) row[random.integer(0, n - 1)] = random.unit();
    return row;
  };
  for (const k of [1, 20, FILTERED, FILTERED + 1, 700]) {
    select(gpu, { rows: [ties(3000, 0), ties(3000, 5), ties(3000, 63), ties(3000, 800)], k });
  }
  // Just as many as can be collected, and one more; and as many groups of neighbours.
  for (const equal of [511, 512, 513]) {
    const row = new Float32Array(1000).fill(-1).fill(3, 100, 100 + equal);
    const apart = Float32Array.from({ length: 5000 }, (_, j) => j % 8 === 5 && j < 8 * equal ? 3 : -1);
    select(gpu, { rows: [row], k: 30 });
    select(gpu, { rows: [apart], k: 30 });
  }
};

Deno.test("ties that overflow the collection go to the lowest indices", async () => {
  await check(overflowing, ...VARIANTS);
});

Deno.test("rows of up to 20,000 columns", async () => {
  await check((gpu) => {
    const random = new Random(3);
    for (const [n, k] of [[16384, 32], [16384, 512], [20000, 64], [19999, 65], [20000, 10000]] as const) {
      select(gpu, { rows: [random.normal(n), random.integers(n, -50, 50), random.normal(n).sort()], k });
    }
  }, ...VARIANTS);
});

Deno.test("rows of 300,000 columns, filtered and by radix, beyond what one invocation's loops may take", async () => {
  await check((gpu) => {
    const random = new Random(4);
    const row = Float32Array.from({ length: 300_000 }, () => random.unit() - 0.5);
    const ties = row.map((value) => Math.round(value * 10));
    for (const k of [32, 64, 1000]) select(gpu, { rows: [row, ties], k });
  }, ...VARIANTS);
});

Deno.test("more rows than workgroups in one dimension", async () => {
  await check((gpu) => {
    const random = new Random(5);
    select(gpu, { rows: Array.from({ length: 70_000 }, () => random.integers(3)), k: 2, gap: 0 });
  });
});

const listed: KernelCase = (gpu) => {
  const random = new Random(6);
  for (const n of [5, 100, 1000]) {
    const names = Uint32Array.from({ length: n }, (_, j) => 3 * j + 1);
    for (const count of [0, 1, 2, Math.ceil(n / 2), n - 1, n, n + 10]) {
      for (const k of [1, FILTERED, FILTERED + 1, n]) {
        const rows = [random.normal(n), new Float32Array(n), random.integers(n)];
        // What is not listed is larger than all that is.
        for (const row of rows) row.fill(Infinity, Math.min(count, n));
        select(gpu, { rows, k, listed: { count, names } });
      }
    }
  }
};

Deno.test("of a list, only what is listed exists, under its name", async () => {
  await check(listed, ...VARIANTS);
});

const mutated: KernelCase = (gpu) => {
  const random = new Random(7);
  for (const k of [5, 100]) select(gpu, { rows: hardRows(random, 200), k, firstRow: 1 });
};

Deno.test("rows too wide for a software driver's loops are refused", async () => {
  const commands = new Commands(await caseContext());
  const none = { rows: 1, k: 1, firstRow: 0, allRows: 1, capacity: 1 } as never as TopKArguments;
  assertThrows(() => topK(commands, { ...none, n: 1_000_001, stride: 1_000_001 }), RangeError, "1000001");
});

Deno.test("mutants of the selection are found", async () => {
  await mutants(
    "top_k",
    [
      ["starts[dims.firstRow + group]", "starts[group]"],
      ["if (bits == 0x80000000u) { return 0x80000000u; }", ""],
      ["if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }", ""],
      ["let is_lower = u32(places[o] < place);", "let is_lower = u32(places[o] > place);"],
      ["key == found && same < wanted", "key == found && same <= wanted"],
    ],
    mutated,
    { subgroups: false },
  );
  await mutants("top_k", [
    ["key == key0 && place < place0", "key == key0"],
    ["if (before0 >= k) { place0 = NONE; }", ""],
    ["at0 += u32(place < place0)", "at0 += u32(place <= place0)"],
    ["subgroupBroadcast(their_key, 3u)", "0u"],
    ["subgroupBroadcast(value, 3u)", "0u"],
    ["select(0u, v3, lane > 3u)", "v3"],
    ["places[lane + 8u] = place1", "places[lane + 8u] = NONE"],
  ], mutated);
  await mutants("top_k", [["if (candidates <= 512u)", "if (candidates > 0u)"]], overflowing);
  await mutants(
    "maxima_top_k",
    [
      ["dims.columns + group", "dims.columns"],
      ["item < dims.blocks", "item + 1u < dims.blocks"],
      ["at -= u32(spare[o] < place)", "at -= u32(spare[o] > place)"],
    ],
    mutated,
    { subgroups: false },
  );
  await mutants("maxima_top_k", [
    ["if (candidates <= 512u)", "if (candidates > 0u)"],
  ], overflowing);
  await mutants(
    "listed_top_k",
    [
      ["min(dims.n, count[0])", "dims.n"],
      ["names[place]", "place"],
      ["names[j]", "j"],
    ],
    listed,
    { subgroups: false },
  );
});
