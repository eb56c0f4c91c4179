/** Rows of a matrix as columns of its transpose. @module */

import { assertThrows } from "@std/assert";
import { Commands } from "../../kernels/engine/commands.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import { transposeRows } from "../../kernels/transpose.ts";
import {
  caseContext,
  check,
  type KernelCase,
  mutants,
  type Recording,
  TEXTURES,
  type Variant,
} from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertExact } from "../support/tolerance.ts";

const SHAPES = [[1, 1], [2, 3], [7, 5], [3, 17], [17, 31], [64, 64], [65, 33], [1, 1000], [300, 1]] as const;
const VARIANTS: readonly Variant[] = [{}, { ...TEXTURES, bindingLimit: 65_536 }];

/** Transposes [rows, columns] `step` rows at a time. */
function transposed(gpu: Recording, rows: number, columns: number, step: number, isF16 = false): void {
  const most = isF16 ? 2048 : 99_999;
  const matrix = new Random(rows * columns).integers(rows * columns, -most, most);
  const result = isF16 ? gpu.outF16(columns, rows) : gpu.out(columns, rows);
  for (let at = 0; at < rows; at += step) {
    const n_rows = Math.min(step, rows - at);
    const values = matrix.subarray(at * columns, (at + n_rows) * columns);
    const source = isF16 ? gpu.f16(values, n_rows, columns) : gpu.f32(values, n_rows, columns);
    transposeRows(gpu.commands, { rows: source.rows(0, n_rows), result, at });
  }
  const want = matrix.map((_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!);
  gpu.expect(result, (got) => assertExact(got, want, `${rows} × ${columns}`));
}

const whole: KernelCase = (gpu) => {
  for (const [rows, columns] of SHAPES) transposed(gpu, rows, columns, rows);
};

const piecewise: KernelCase = (gpu) => {
  for (const [rows, columns] of [[130, 7], [128, 190], [5, 64]] as const) transposed(gpu, rows, columns, 3);
};

Deno.test("rows of any shape become columns", async () => {
  await check(whole, ...VARIANTS);
});

Deno.test("rows become columns some at a time, in row blocks too", async () => {
  await check(piecewise, ...VARIANTS);
  await check((gpu) => transposed(gpu, 64, 3000, 5), { bindingLimit: 65_536 });
});

const f16: KernelCase = (gpu) => {
  for (const [rows, columns] of SHAPES) transposed(gpu, rows, columns, rows, true);
};

const piecesOfF16: KernelCase = (gpu) => {
  for (const [rows, columns] of [[131, 7], [128, 191], [5, 64]] as const) {
    for (const step of [1, 3, 4]) transposed(gpu, rows, columns, step, true);
  }
};

Deno.test("f16: rows of any shape become columns, whole and some at a time, with any neighbours in their words", async () => {
  await check(f16, {});
  await check(piecesOfF16, {});
  // Of an odd number of f16 values a row, more rows than a binding holds.
  await check((gpu) => transposed(gpu, 149, 300, 5, true), { bindingLimit: 65_536 });
});

Deno.test("f16: every bit is moved as it is", async () => {
  await check((gpu) => {
    const bits = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);
    // A view's NaNs would lose their bits: the words are written.
    const source = gpu.f16(new Float32Array(2 ** 16), 256, 256);
    gpu.context.device.queue.writeBuffer(source.buffer, 0, bits);
    const result = gpu.outF16(256, 256);
    transposeRows(gpu.commands, { rows: source.rows(0, 256), result, at: 0 });
    const want = bits.map((_, i) => bits[(i % 256) * 256 + Math.floor(i / 256)]!);
    gpu.expect(result, (got) => assertExact(got, new Float32Array(new Float16Array(want.buffer))));
  }, {});
});

Deno.test("more elements than one dimension of workgroups takes", async () => {
  await check((gpu) => transposed(gpu, 70_000, 3, 70_000), {});
});

Deno.test("rows that do not fit the transpose are refused", async () => {
  const context = await caseContext();
  using rows = new Tensor(context, "f32", [2, 3], "rows");
  using result = new Tensor(context, "f32", [3, 4], "a transpose");
  const commands = new Commands(context);
  assertThrows(() => transposeRows(commands, { rows: rows.rows(0, 2), result, at: 3 }), ShapeError, "rows 3 to 5 of 3");
  using other = new Tensor(context, "f32", [4, 4], "another");
  assertThrows(
    () => transposeRows(commands, { rows: rows.rows(0, 2), result: other, at: 0 }),
    ShapeError,
    "values into another [4, 4]",
  );
});

Deno.test("mutants of the transposition are found", async () => {
  await mutants("transpose_rows", [
    ["let c = i / dims.rows;", "let c = i % dims.height;"],
    ["i < min((group + 1u) * 256u, size)", "i < (group + 1u) * 256u"],
    ["= source[r * dims.columns + dims.first + c]", "= quantizeToF16(source[r * dims.columns + dims.first + c])"],
  ], whole);
  await mutants("transpose_rows", [["dims.at + r", "r"]], piecewise);
  await mutants("transpose_f16", [
    ["(16u * (other & 1u))) & 0xffffu", "(16u * (place & 1u))) & 0xffffu"],
    [" && r < dims.rows", ""],
    ["dims.at + i % dims.rows", "i % dims.rows"],
    ["theirs & 1u", "mine & 1u"],
    ["my_bits << (16u * (place & 1u))", "(my_bits & 0xfff0u) << (16u * (place & 1u))"],
  ], piecesOfF16);
  await mutants("transpose_rows", [["dims.first + c", "c"]], (gpu) => transposed(gpu, 64, 3000, 5), {
    bindingLimit: 65_536,
  });
});
