/** Files of rows: every format, whatever the file's name is, and files that are not what they should be. @module */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { hasCode } from "../../io/disk.ts";
import { CheckpointError } from "../../io/errors.ts";
import { writeNpy } from "../../io/npy.ts";
import { littleEndianBytes } from "../../io/numbers.ts";
import { formatSafetensors } from "../../io/safetensors.ts";
import { joinBytes } from "../../io/source.ts";
import { formatTorchFile } from "../../io/torch_file.ts";
import { formatZip, zipRecord } from "../../io/zip_writer.ts";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { openRows, type RowFileOptions } from "../../data/row_file.ts";
import { damageBytes } from "../io/damage.ts";
import { serveFiles } from "../io/file_server.ts";
import { deflated, rawZip, utf8 } from "../io/raw_zip.ts";
import { Random } from "../support/random.ts";

const [ROWS, COLS] = [50, 3];
const DATA = new Random(1).normal(ROWS * COLS);
const NPY = writeNpy({ data: DATA, rows: ROWS, cols: COLS });
const RAW = littleEndianBytes(DATA).slice();
const SHARDS = new URL("../goldens/shards/", import.meta.url);

type Content = string | Uint8Array;
type Files = Readonly<Record<string, Content>>;

/** A folder of files that is gone after the test. */
async function folder(files: Files): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir();
  for (const [name, content] of Object.entries(files)) {
    await Deno.writeFile(`${path}/${name}`, typeof content === "string" ? utf8(content) : content);
  }
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** A `.npy` file of these bytes, with the header that NumPy would write, but for its padding. */
function npy(descr: string, shape: string, bytes: Uint8Array, { fortran = false, padding = 0 } = {}): Uint8Array {
  const order = fortran ? "True" : "False";
  const header = utf8(`{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}, }${" ".repeat(padding)}\n`);
  return joinBytes([
    Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8),
    header,
    bytes,
  ]);
}

const INTEGERS = Int32Array.from({ length: ROWS * COLS }, (_, i) => i - 70);
const WHOLE = Float32Array.from(INTEGERS);
const HALVES = new Uint8Array(Float16Array.from(DATA).buffer);
const BRAINS = new Uint8Array(Uint16Array.from(new Uint32Array(DATA.slice().buffer), (bits) => bits >>> 16).buffer);
const DOUBLES = new Uint8Array(Float64Array.from(DATA).buffer);
const AS_HALVES = new Float32Array(Float16Array.from(DATA));
const AS_BRAINS = new Float32Array(
  Uint32Array.from(new Uint32Array(DATA.slice().buffer), (bits) => bits & ~65535).buffer,
);

/** The matrix column by column. */
function columnwise<T extends Float32Array | Int32Array>(numbers: T): T {
  return numbers.map((_, i) => numbers[i % ROWS * COLS + Math.floor(i / ROWS)]!) as T;
}

function bytesOf(numbers: ArrayBufferView): Uint8Array {
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}

const SHAPE = `(${ROWS}, ${COLS})`;
const FITS = '{"shape":[50,3]';
const TENSORS = joinBytes(formatSafetensors([
  { name: "rows", shape: [ROWS, COLS], data: DATA },
  { name: "other", shape: [2, 25, COLS], data: DATA.map((value) => -value) },
]));
const ARCHIVE = joinBytes(formatZip([zipRecord("x.npy", NPY), zipRecord("y.npy", npy("'|O'", "(2,)", utf8("...")))]));
const ONE = joinBytes(formatZip([zipRecord("arr_0.npy", NPY)]));

/** A file's name, the files in its folder, the options, and the rows where they are not `DATA`. */
const READ: readonly [what: string, name: string, files: Files, options: RowFileOptions, rows?: Float32Array][] = [
  ["NumPy's array", "a.npy", { "a.npy": NPY }, {}],
  ["NumPy's array, named so", "a.npy", { "a.npy": NPY }, { format: "npy", d_model: COLS }],
  ["NumPy's array by another name", "a.NPY.part", { "a.NPY.part": NPY }, {}],
  ["float64", "a.npy", { "a.npy": npy("'<f8'", SHAPE, DOUBLES) }, {}],
  ["a header of 9000 bytes", "a.npy", { "a.npy": npy("'<f4'", SHAPE, RAW, { padding: 9000 }) }, {}],
  ["the header of Python 2", "a.npy", { "a.npy": npy("'<f4'", "(50L, 3L)", RAW) }, {}],
  ["Fortran order", "a.npy", { "a.npy": npy("'<f4'", SHAPE, bytesOf(columnwise(DATA)), { fortran: true }) }, {}],
  [
    "Fortran order of integers",
    "a.npy",
    {
      "a.npy": npy("'<i4'", SHAPE, bytesOf(columnwise(INTEGERS)), { fortran: true }),
    },
    {},
    WHOLE,
  ],
  [
    "int64",
    "a.npy",
    {
      "a.npy": npy("'<i8'", SHAPE, bytesOf(BigInt64Array.from(INTEGERS, (value) => BigInt(value)))),
    },
    {},
    WHOLE,
  ],
  ["int16", "a.npy", { "a.npy": npy("'<i2'", SHAPE, bytesOf(Int16Array.from(INTEGERS))) }, {}, WHOLE],
  [
    "uint8",
    "a.npy",
    { "a.npy": npy("'|u1'", SHAPE, bytesOf(Uint8Array.from(INTEGERS))) },
    {},
    new Float32Array(
      Uint8Array.from(INTEGERS),
    ),
  ],
  ["three dimensions, with d_model", "a.npy", { "a.npy": npy("'<f4'", "(5, 10, 3)", RAW) }, { d_model: 3 }],
  ["an archive of one array", "a", { a: ONE }, {}],
  ["an archive of several", "a.npz", { "a.npz": ARCHIVE }, { key: "x", format: "npz" }],
  ["a compressed archive", "a.npz", { "a.npz": rawZip([deflated("x.npy", NPY)]) }, {}],
  ["a safetensors file", "a.bin", { "a.bin": TENSORS }, { key: "rows" }],
  ["three dimensions of a safetensors file", "a", { a: TENSORS }, { key: "other", d_model: COLS }, DATA.map((x) => -x)],
  ["bare numbers, all given", "a.bin", { "a.bin": RAW }, { format: "f32", d_model: COLS }],
  ["bare numbers that their name describes", "a.f32", { "a.f32": RAW }, { d_model: COLS }],
  ["bare numbers with a shape beside them", "a.f32.bin", { "a.f32.bin": RAW, "a.json": `${FITS}}` }, {}],
  ["bare halves", "a.bin", { "a.bin": HALVES, "a.json": `${FITS},"dtype":"float16"}` }, {}, AS_HALVES],
  ["bare halves, all given", "a", { a: HALVES }, { format: "f16", d_model: COLS }, AS_HALVES],
  ["bare bfloat16", "a.f32", { "a.f32": BRAINS, "a.json": `${FITS},"dtype":"torch.bfloat16"}` }, {}, AS_BRAINS],
  ["bare doubles, the name's JSON", "a.x", { "a.x": DOUBLES, "a.x.json": `${FITS},"dtype":"<f8"}` }, {}],
  ["big-endian numbers", "a.raw", { "a.raw": swapped(RAW), "a.json": `${FITS},"dtype":"float32-be"}` }, {}],
  [
    "the nearest of several JSON files",
    "a.f16.bin",
    {
      "a.f16.bin": HALVES,
      "a.f16.json": `${FITS}}`,
      "a.json": '{"shape":[1,1]}',
    },
    {},
    AS_HALVES,
  ],
  ["a type beside them, a width given", "a", { a: HALVES, "a.json": '{"dtype":"f16"}' }, { d_model: COLS }, AS_HALVES],
  ["a name ending in .npy, bare numbers", "a.npy", { "a.npy": RAW }, { format: "f32", d_model: COLS }],
];

function swapped(bytes: Uint8Array): Uint8Array {
  return bytes.map((_, i) => bytes[i - i % 4 + 3 - i % 4]!);
}

for (const [what, name, files, options, expected = DATA] of READ) {
  Deno.test(`rows: ${what}`, async () => {
    await using made = await folder(files);
    const rows = await openRows(`${made.path}/${name}`, options);
    assertEquals([rows.n_rows, rows.d_model], [ROWS, COLS]);
    const parts = await Promise.all([rows.read(7, 20), rows.read(0, 50), rows.read(49, 50), rows.read(3, 3)]);
    assertEquals(parts, [expected.slice(21, 60), expected, expected.slice(147), new Float32Array()]);
    for (const [from, to] of [[-1, 3], [0, 51], [4, 3], [0, 1.5]] as const) {
      await assertRejects(() => rows.read(from, to), RangeError, "within rows 0 to 50");
    }
  });
}

Deno.test("rows of a matrix that lies column by column, in order and not", async () => {
  const [rows, cols] = [3000, 16];
  const data = new Random(2).normal(rows * cols);
  const columns = data.map((_, i) => data[i % rows * cols + Math.floor(i / rows)]!);
  await using made = await folder({ a: npy("'<f4'", `(${rows}, ${cols})`, bytesOf(columns), { fortran: true }) });
  const source = await openRows(`${made.path}/a`);
  const ranges = [[0, 100], [100, 200], [200, 300], [50, 60], [2990, 3000], [300, 400], [0, 3000]] as const;
  for (const [from, to] of ranges) {
    assertEquals(await source.read(from, to), data.slice(from * cols, to * cols), `${from} to ${to}`);
  }
});

Deno.test("an integer that float32 does not hold is an error that names its place", async () => {
  const integers = INTEGERS.slice();
  integers[100] = 2 ** 24 + 1;
  const big = BigInt64Array.from(INTEGERS, (value) => BigInt(value));
  big[100] = 2n ** 53n + 1n;
  await using made = await folder({
    a: npy("'<i4'", SHAPE, bytesOf(integers)),
    b: npy("'<i4'", SHAPE, bytesOf(columnwise(integers)), { fortran: true }),
    c: npy("'<i8'", SHAPE, bytesOf(big)),
  });
  for (const [name, value] of [["a", "int32 16777217"], ["b", "int32 16777217"], ["c", "int64 9007199254740993"]]) {
    const path = `${made.path}/${name}`;
    const rows = await openRows(path);
    assertEquals(await rows.read(0, 33), WHOLE.slice(0, 99));
    const { message } = await assertRejects(() => rows.read(30, 50), CheckpointError);
    assertStringIncludes(message, `reading ${path}: found the ${value} in row 33, column 1`);
    assertStringIncludes(message, `numpy.save("rows.npy", numpy.load("${path}").astype("float32"))`);
    assertEquals(await rows.read(34, 50), WHOLE.slice(102));
  }
});

/** Files that are refused; `NAME` in a message is the file's path. */
const REFUSED: readonly [what: string, name: string, files: Files, options: RowFileOptions, message: string][] = [
  [
    "a cut .npy file",
    "a.npy",
    { "a.npy": NPY.slice(0, -1) },
    {},
    "reading NAME: found 599 bytes of numbers; float32 of",
  ],
  ["a cut header", "a.npy", { "a.npy": NPY.slice(0, 40) }, {}, "reading NAME: the header is cut off"],
  ["one dimension", "a", { a: npy("'<f4'", "(150,)", RAW) }, {}, 'numpy.load("NAME").reshape(-1, COLUMNS)'],
  ["no dimension", "a", { a: npy("'<f4'", "()", RAW.slice(0, 4)) }, {}, "reading NAME: found the shape []"],
  ["rows of nothing", "a", { a: npy("'<f4'", "(5, 0)", new Uint8Array()) }, {}, "found the shape [5, 0]"],
  ["three dimensions", "a", { a: npy("'<f4'", "(5, 10, 3)", RAW) }, {}, "give d_model = 3, or reshape it in"],
  [
    "three dimensions of another width",
    "a",
    { a: npy("'<f4'", "(5, 10, 3)", RAW) },
    { d_model: 10 },
    "found the shape [5, 10, 3], expected [rows, columns]. If it is 50 rows of 3",
  ],
  [
    "three dimensions in Fortran order",
    "a",
    { a: npy("'<f4'", "(5, 10, 3)", RAW, { fortran: true }) },
    { d_model: 3 },
    'reshape it in Python: numpy.save("rows.npy", numpy.load("NAME").reshape(-1, 3))',
  ],
  [
    "a structured type",
    "a",
    { a: npy("[('x', '<f4', (2,)), ('y', [('z', '<f4')])]", "(50,)", RAW) },
    {},
    "reading NAME: found the type [('x', '<f4', (2,)), ('y', [('z', '<f4')])], which is structured; in Python: numpy.save(",
  ],
  ["complex numbers", "a", { a: npy("'<c8'", SHAPE, RAW) }, {}, 'numpy.abs(numpy.load("NAME")).astype("float32")'],
  ["bfloat16 in .npy", "a", { a: npy("'<V2'", SHAPE, HALVES) }, {}, ".view(ml_dtypes.bfloat16)"],
  ["Python objects", "a", { a: npy("'|O'", "(2,)", utf8("...")) }, {}, "which this library never loads"],
  [
    "an archive of several, without a key",
    "a.npz",
    { "a.npz": ARCHIVE },
    {},
    'reading NAME: give the key of the array with the rows; the file holds "x" float32 [50, 3], "y" (no numbers)',
  ],
  [
    "a safetensors file of several, and another key",
    "a.safetensors",
    { "a.safetensors": TENSORS },
    { key: "row" },
    'there is no array "row"; the file holds "other" float32 [2, 25, 3], "rows" float32 [50, 3]',
  ],
  ["an empty archive", "a", { a: joinBytes(formatSafetensors([])) }, {}, "give the key"],
  ["a damaged archive", "a.npz", { "a.npz": ONE.slice(0, -3) }, {}, "NAME"],
  [
    "a PyTorch file",
    "a.npy",
    {
      "a.npy": joinBytes(formatTorchFile([{ name: "x", shape: [50, 3], data: DATA }], [""])),
    },
    {},
    'found a PyTorch file, expected rows of numbers. If you trust it, in Python: numpy.save("rows.npy", torch.load(',
  ],
  [
    "a pickle",
    "a.f32",
    { "a.f32": joinBytes([Uint8Array.of(0x80, 4, 0x95, 9), RAW, utf8(".")]) },
    {},
    "found a pickle",
  ],
  [
    "text",
    "a.f32",
    { "a.f32": "0.25,0.5,0.75\n".repeat(40) },
    { d_model: 3 },
    'numpy.loadtxt("NAME", delimiter=",", dtype="float32"))',
  ],
  ["a pointer", "a.bin", { "a.bin": "version https://git-lfs.github.com/spec/v1\n" }, { format: "f32" }, "Git LFS"],
  ["a compressed file", "a.f32", { "a.f32": Uint8Array.of(0x1f, 0x8b, 8, 0, 1, 2, 3, 4) }, { d_model: 2 }, "gzip"],
  ["an empty file", "a.f32", { "a.f32": "" }, { d_model: 2 }, "reading NAME: found an empty file"],
  ["bare numbers of which nothing is known", "a.bin", { "a.bin": RAW }, {}, "put a.json beside it with"],
  [
    "bare numbers of a known width",
    "a.bin",
    { "a.bin": RAW },
    { d_model: 3 },
    "the file does not record the type of its numbers",
  ],
  ["bare numbers of an unknown width", "a.f32", { "a.f32": RAW }, {}, "the width of a row is unknown"],
  ["no whole rows", "a", { a: RAW.slice(0, -4) }, {
    format: "f32",
    d_model: 3,
  }, "reading NAME: found 596 bytes; 50 rows of 3 float32 need 600"],
  [
    "another size than stands beside it",
    "a.bin",
    { "a.bin": RAW.slice(0, -4), "a.json": `${FITS}}` },
    {},
    "found 596 bytes; DIR/a.json gives the shape [50, 3], which needs 600 as float32",
  ],
  [
    "halves of which only the shape is known",
    "a.bin",
    { "a.bin": HALVES, "a.json": `${FITS}}` },
    {},
    'which needs 600 as float32. It would fit as float16 or bfloat16; if so, set "dtype" or format',
  ],
  [
    "a type that is contradicted",
    "a",
    { a: HALVES, "a.json": `${FITS},"dtype":"float16"}` },
    { format: "f32" },
    "format is f32, but DIR/a.json gives the type float16",
  ],
  [
    "an unknown type",
    "a",
    { a: RAW, "a.json": `${FITS},"dtype":"int32"}` },
    {},
    'DIR/a.json: dtype is "int32"; expected',
  ],
  [
    "a shape of one",
    "a",
    { a: RAW, "a.json": '{"shape":[7]}' },
    {},
    "DIR/a.json: shape is a list; expected [rows, columns]",
  ],
  ["a broken JSON file", "a", { a: RAW, "a.json": '{"shape"' }, { format: "f32", d_model: 3 }, "reading DIR/a.json"],
  [
    "a JSON file of null",
    "a",
    { a: RAW, "a.json": "null" },
    {},
    "reading DIR/a.json: found null; expected a JSON object",
  ],
];

for (const [what, name, files, options, message] of REFUSED) {
  Deno.test(`refused: ${what}`, async () => {
    await using made = await folder(files);
    const path = `${made.path}/${name}`;
    const error = await assertRejects(() => openRows(path, options), CheckpointError);
    assertStringIncludes(error.message, message.replaceAll("NAME", path).replaceAll("DIR", made.path));
  });
}

/** Options that do not fit the file. */
const MISFITS: readonly [options: RowFileOptions, error: typeof RangeError | typeof ShapeError, message: string][] = [
  [{ format: "f32", d_model: 3 }, RangeError, "format is f32, but the file is npy; leave out format"],
  [{ format: "safetensors" }, RangeError, "format is safetensors, but the file is npy"],
  [{ d_model: 4 }, ShapeError, "found rows of 3 numbers, expected 4 (d_model)"],
  [{ key: "x" }, RangeError, "it holds no named arrays"],
  [{ layer: 3 }, RangeError, "it is a file; layer applies only to shards"],
  [{ tokens: "cls" }, RangeError, "it is a file; tokens applies only to shards"],
];

Deno.test("options that the file has no use for are refused", async () => {
  await using made = await folder({ "a.npy": NPY, b: RAW });
  for (const [options, error, message] of MISFITS) {
    await assertRejects(() => openRows(`${made.path}/a.npy`, options), error, `reading ${made.path}/a.npy: ${message}`);
  }
  await assertRejects(
    () => openRows(`${made.path}/b`, { format: "npy" }),
    RangeError,
    "format is npy, but the file does not start like such a file",
  );
  const missing = await assertRejects(() => openRows(`${made.path}/c`), Error, `${made.path}/c`);
  assert(hasCode(missing, "ENOENT"), missing.message);
});

const DAMAGED: readonly [what: string, bytes: Uint8Array, options: RowFileOptions][] = [
  ["an array", NPY, {}],
  ["integers in Fortran order", npy("'<i8'", SHAPE, DOUBLES, { fortran: true }), {}],
  ["an archive", ARCHIVE, { key: "x" }],
  ["a compressed archive", rawZip([deflated("x.npy", NPY)]), {}],
  ["a safetensors file", TENSORS, { key: "rows" }],
];

for (const [what, bytes, options] of DAMAGED) {
  Deno.test(`damage to ${what} is refused, or leaves as many numbers as there are bytes for`, async () => {
    const random = new Random(4);
    let refused = 0;
    for (let n = 0; n < 300; n++) {
      const head = n % 2 === 0 ? Math.min(200, bytes.length) : bytes.length;
      const damaged = damageBytes(random, bytes, 0, head);
      try {
        const rows = await openRows(damaged, options);
        const { length } = await rows.read(0, rows.n_rows);
        assert(length === rows.n_rows * rows.d_model && length <= damaged.length + 4 * DATA.length);
      } catch (error) {
        if (!(error instanceof CheckpointError || error instanceof RangeError)) throw error;
        assert(error.message.includes("the bytes") && error.message.length < 500, error.message);
        refused++;
      }
    }
    assert(refused > 30, `${refused} refused`);
  });
}

Deno.test("numbers are no file of another kind by chance", async () => {
  const random = new Random(3);
  for (let n = 0; n < 300; n++) {
    const data = random.normal(64);
    // As after a ReLU, and what the first bytes of a safetensors header could be taken for.
    if (n % 2 === 0) data.forEach((value, i) => data[i] = Math.max(0, value));
    const bytes = littleEndianBytes(data).slice();
    if (n % 3 === 0) bytes.set([0x7b, 0x22], 8);
    if (n % 5 === 0) bytes.set([0x80, 2 + n % 4, 0x7d], 0);
    if (n % 7 === 0) bytes.set([0x7b, 0x22], 0);
    bytes[bytes.length - 1] = 0x3f;
    const rows = await openRows({ name: "x", size: bytes.length, read: (a, b) => Promise.resolve(bytes.slice(a, b)) }, {
      format: "f32",
      d_model: 8,
    });
    assertEquals(await rows.read(0, 8), new Float32Array(bytes.buffer));
  }
});

Deno.test("a folder of shards is rows, one file of it is none, another folder neither", async () => {
  const golden = `${SHARDS.pathname}v2.1-cls-exact`;
  const path = `${golden}/3be8efe2`;
  const { metadata } = JSON.parse(await Deno.readTextFile(`${golden}/expected.json`));
  const rows = await openRows(path, { layer: metadata.layers[0], d_model: metadata.d_model });
  assert(rows.n_rows > 0);
  assertEquals(rows.n_rows, metadata.n_examples * metadata.content_tokens_per_example);
  const cls = await openRows(path, { layer: metadata.layers[0], tokens: "cls" });
  assertEquals([cls.n_rows, cls.d_model], [metadata.n_examples, metadata.d_model]);
  const given = { format: "f32", d_model: metadata.d_model } as const;
  await assertRejects(
    () => openRows(`${path}/acts000000.bin`, given),
    CheckpointError,
    "metadata.json beside it describes",
  );
  await assertRejects(
    () => openRows(path, { layer: metadata.layers[0], d_model: 3 }),
    ShapeError,
    "expected 3 (d_model)",
  );
  await assertRejects(
    () => openRows(path, { format: "f32" }),
    RangeError,
    "it is a folder; format applies only to files",
  );
  await assertRejects(() => openRows(golden), RangeError, "found a folder without metadata.json");
});

Deno.test("rows are read from a server by ranges, with the JSON file beside them", async () => {
  const served = (content: Uint8Array) => ({ bytes: content.slice(), etag: '"1"' });
  await using server = serveFiles({
    files: {
      "/a.npy": served(NPY),
      "/b.bin": served(HALVES),
      "/b.json": served(utf8(`${FITS},"dtype":"float16"}`)),
    },
  });
  const rows = await openRows(`${server.origin}/a.npy`);
  assertEquals(await rows.read(7, 20), DATA.slice(21, 60));
  assertEquals(await (await openRows(`${server.origin}/b.bin`)).read(0, 50), AS_HALVES);
  const missing = `${server.origin}/c.npy`;
  await assertRejects(() => openRows(missing), CheckpointError, `reading ${missing}: there is no such file`);
});

Deno.test("rows are read from the hub", async () => {
  const served = (content: Uint8Array) => ({ bytes: content.slice(), etag: '"1"' });
  const names = ["b.bin", "b.json"].map((path) => ({ type: "file", path: `x/${path}` }));
  await using server = serveFiles({
    files: {
      "/me/acts/resolve/main/x/b.bin": served(HALVES),
      "/me/acts/resolve/main/x/b.json": served(utf8(`${FITS},"dtype":"float16"}`)),
    },
    instead: (_, path) => path === "/api/models/me/acts/tree/main/x" ? Response.json(names) : undefined,
  });
  await using cache = await folder({});
  for (const kept of [null, cache.path]) {
    const rows = await openRows("hf:me/acts/x/b.bin", { hub: { endpoint: server.origin, cache: kept } });
    assertEquals(await rows.read(0, 50), AS_HALVES);
  }
});

Deno.test("a file that changes while it is read is an error", async () => {
  await using made = await folder({ "a.f32": new Uint8Array(2 ** 18) });
  const rows = await openRows(`${made.path}/a.f32`, { d_model: 4 });
  await Deno.truncate(`${made.path}/a.f32`, 2 ** 17);
  await assertRejects(() => rows.read(5000, 6000), CheckpointError, "the file changed while it was being read");
});

Deno.test("files that a path with a star fits are one source, in the order of the numbers in their names", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const part = (first: number, rows: number, cols = 2) =>
      writeNpy({
        rows,
        cols,
        data: Float32Array.from({ length: rows * cols }, (_, i) => first + Math.floor(i / cols)),
      });
    await Deno.writeFile(`${folder}/part-2.npy`, part(3, 4));
    await Deno.writeFile(`${folder}/part-10.npy`, part(7, 1));
    await Deno.writeFile(`${folder}/part-1.npy`, part(0, 3));
    await Deno.writeFile(`${folder}/other.npy`, part(0, 3));
    const rows = await openRows(`${folder}/part-*.npy`);
    assertEquals([rows.n_rows, rows.d_model], [8, 2]);
    assertEquals([...await rows.read(0, 8)], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]);
    assertEquals([...await rows.read(2, 5)], [2, 2, 3, 3, 4, 4]);
    assertEquals([...await rows.read(7, 8)], [7, 7]);
    await assertRejects(() => openRows(`${folder}/x*.npy`), RangeError, "found no file that matches x*.npy");
    await Deno.writeFile(`${folder}/part-3.npy`, part(0, 1, 3));
    const message = "part-1.npy has rows of 2 numbers, and part-3.npy of 3";
    await assertRejects(() => openRows(`${folder}/part-*.npy`), ShapeError, message);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
