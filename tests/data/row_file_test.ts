/** Matrices in files: both formats, rows out of the middle, and files that are not what they should be. @module */
import { assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { writeNpy } from "../../io/npy.ts";
import { littleEndianBytes } from "../../io/numbers.ts";
import { openRows, type RowFileOptions } from "../../data/row_file.ts";
import { Random } from "../support/random.ts";

const [ROWS, COLS] = [50, 3];
const DATA = new Random(1).normal(ROWS * COLS);
const NPY = writeNpy({ data: DATA, rows: ROWS, cols: COLS });

/** A folder of files that is gone after the test. */
async function folder(
  files: Readonly<Record<string, string | Uint8Array>>,
): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir();
  for (const [name, content] of Object.entries(files)) {
    await Deno.writeFile(`${path}/${name}`, typeof content === "string" ? new TextEncoder().encode(content) : content);
  }
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** The same numbers as float64. */
function asFloat64(npy: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(Float64Array.from(DATA).buffer);
  const header = new TextDecoder().decode(npy.subarray(10, npy.length - DATA.byteLength)).replace("<f4", "<f8");
  return Uint8Array.from([...npy.subarray(0, 10), ...new TextEncoder().encode(header), ...bytes]);
}

const FILES: readonly [name: string, files: Record<string, string | Uint8Array>, options: RowFileOptions][] = [
  ["a.npy", { "a.npy": NPY }, { format: "npy", d_model: null }],
  ["a.npy", { "a.npy": asFloat64(NPY) }, { format: "npy", d_model: COLS }],
  ["a.f32", { "a.f32": littleEndianBytes(DATA) }, { format: "f32", d_model: COLS }],
  ["a.npy", { "a.npy": NPY }, {}],
  ["a.bin", { "a.bin": littleEndianBytes(DATA), "a.json": '{"shape":[50,3]}' }, {}],
  ["a.f32.bin", { "a.f32.bin": littleEndianBytes(DATA), "a.json": '{"shape":[50,3]}' }, {
    format: "f32",
    d_model: null,
  }],
];

for (const [name, files, options] of FILES) {
  Deno.test(`rows of ${Object.keys(files).join(" and ")}, with ${JSON.stringify(options)}`, async () => {
    await using made = await folder(files);
    const path = `${made.path}/${name}`;
    using rows = Object.keys(options).length > 0 ? await openRows(path, options) : await openRows(path);
    assertEquals([rows.n_rows, rows.d_model], [ROWS, COLS]);
    const parts = await Promise.all([rows.read(7, 20), rows.read(0, 50), rows.read(49, 50), rows.read(3, 3)]);
    assertEquals(parts, [DATA.slice(21, 60), DATA, DATA.slice(147), new Float32Array()]);
  });
}

const WRONG: readonly [
  what: string,
  files: Record<string, string | Uint8Array>,
  options: RowFileOptions,
  error: typeof RangeError | typeof CheckpointError,
  message: string,
][] = [
  ["no .npy file", { a: "hello" }, { format: "npy", d_model: null }, CheckpointError, "does not start as .npy"],
  ["a cut .npy file", { a: NPY.slice(0, -1) }, { format: "npy", d_model: null }, RangeError, "50 rows of 3 take"],
  ["another width", { a: NPY }, { format: "npy", d_model: 4 }, RangeError, "3 columns, and d_model is given as 4"],
  ["an unknown width", { a: "0123" }, { format: "f32", d_model: null }, RangeError, "give d_model"],
  ["no whole rows", { a: "0123" }, { format: "f32", d_model: 3 }, RangeError, "4 bytes"],
  [
    "a sidecar without a shape",
    { a: "0123", "a.json": '{"shape":[7]}' },
    { format: "f32", d_model: null },
    RangeError,
    "has the shape [7]",
  ],
];

for (const [what, files, options, error, message] of WRONG) {
  Deno.test(`refused: ${what}`, async () => {
    await using made = await folder(files);
    await assertRejects(() => openRows(`${made.path}/a`, options), error, message);
  });
}

Deno.test("a folder is no file of rows", async () => {
  const folder = await Deno.makeTempDir();
  const options = { format: "f32", d_model: 4 } as const;
  await assertRejects(() => openRows(folder, options), RangeError, "a folder");
  await Deno.remove(folder);
});

Deno.test("refused: columns that lie one after the other", async () => {
  const text = Array.from(NPY, (byte) => String.fromCharCode(byte)).join("").replace("False, ", "True,  ");
  await using made = await folder({ "a.npy": Uint8Array.from(text, (character) => character.charCodeAt(0)) });
  const open = () => openRows(`${made.path}/a.npy`, { format: "npy", d_model: null });
  await assertRejects(open, RangeError, "column by column");
});

Deno.test("a file that is cut while it is read is an error", async () => {
  await using made = await folder({ a: littleEndianBytes(DATA) });
  using rows = await openRows(`${made.path}/a`, { format: "f32", d_model: COLS });
  await Deno.truncate(`${made.path}/a`, 100);
  assertEquals(await rows.read(0, 1), DATA.slice(0, 3));
  await assertRejects(() => rows.read(5, 10), RangeError, "it ends after 100");
  assertEquals(await rows.read(1, 2), DATA.slice(3, 6));
});
