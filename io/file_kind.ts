/**
 * Detects the kind of a file by its content; names and extensions do not matter.
 *
 * @module
 */

import { CheckpointError, hexBytes, quote } from "./errors.ts";
import { readFirstLine } from "./json_header.ts";
import type { Source } from "./source.ts";
import { readZip } from "./zip.ts";

/**
 * Kinds of files.
 *
 * - `saev`: a line of JSON, followed by a PyTorch file
 * - `torch`: a file of `torch.save` since PyTorch 1.6
 * - `pickle`: a bare pickle, as `torch.save` wrote before
 * - `safetensors`
 * - `npz`, `npy`: NumPy's archives and arrays
 * - `json`: JSON text
 */
export type FileKind = "saev" | "torch" | "pickle" | "safetensors" | "npz" | "npy" | "json";

const ZIP_STARTS = ["PK\x03\x04", "PK\x05\x06"];

/** Files often found instead of a checkpoint, by how they start. */
const OTHERS: readonly [start: RegExp, what: string][] = [
  [/^version https:\/\/git-lfs/, "a Git LFS pointer instead of the file; fetch the file itself"],
  [/^\s*<(?:!doctype|html|\?xml|head|body)/i, "a web page; the address may point to a page about the file"],
  // deno-lint-ignore no-control-regex
  [/^\x1f\x8b\x08/, "a gzip file; unpack it first"],
  [/^.{257}ustar/s, "a tar archive; unpack it first"],
  [/^\x89HDF\r\n/, "an HDF5 file"],
  [/^GGUF/, "a GGUF file"],
  [/^MATLAB 5\.0/, "a MATLAB file"],
  [/^PAR1/, "a Parquet file"],
  [/^ARROW1/, "an Arrow file"],
];

// deno-lint-ignore no-control-regex
const ONNX = /^\x08[\x03-\x0f]\x12/;

/**
 * Detects what a file is from its first bytes, and from its directory if it is an archive. Whether it is complete and
 * valid shows only when it is read.
 *
 * @throws {CheckpointError} for any other file; the message says what was found.
 */
export async function recognise(source: Source): Promise<FileKind> {
  const { name, size } = source;
  const head = await source.read(0, Math.min(512, size));
  // One character per byte.
  const start = String.fromCharCode(...head.subarray(0, 8));
  if (size === 0) fail(name, "an empty file");
  if (ZIP_STARTS.some((zip) => start.startsWith(zip))) return await recogniseZip(source, fail);
  if (start.startsWith("\x93NUMPY")) return "npy";
  if (isSafetensors(head)) return "safetensors";
  if (head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5) return "pickle";
  if (start.startsWith("{")) return await recogniseJson(source);
  const text = String.fromCharCode(...head);
  if (/^[\s[]*[[{]/.test(text)) return "json";
  if (ONNX.test(text)) fail(name, "an ONNX model, which this library writes but does not read");
  return fail(name, otherKind(text) ?? `a file that starts with the bytes ${hexBytes(head.subarray(0, 8))}`);
}

function otherKind(text: string): string | undefined {
  return OTHERS.find(([start]) => start.test(text))?.[1];
}

/** Numbers rarely look like this many characters of text. */
const LEAST_TEXT = 32;

/**
 * Detects what a file is that may also hold bare numbers, which can begin with any bytes. `null` unless it begins in a
 * way that numbers hardly can: with at least four bytes that only such files have.
 *
 * @throws {CheckpointError} for files of other kinds, such as text; the message says what was found.
 */
export async function recogniseMarked(source: Source): Promise<Exclude<FileKind, "json"> | null> {
  const { name, size } = source;
  if (size === 0) return refuse(name, "an empty file");
  const text = String.fromCharCode(...await source.read(0, Math.min(512, size)));
  if (text.startsWith("\x93NUMPY")) return "npy";
  if (ZIP_STARTS.some((zip) => text.startsWith(zip))) return await recogniseZip(source, refuse);
  if (await hasSafetensorsHeader(source)) return "safetensors";
  if (await isPickle(source, text)) return "pickle";
  if (text.startsWith("{") && await recogniseJson(source) === "saev") return "saev";
  const other = otherKind(text);
  if (other !== undefined) return refuse(name, other);
  if (text.length < LEAST_TEXT || !/^[\t\n\r -~]*$/.test(text)) return null;
  const what = `text that begins with ${quote(text.slice(0, 40))}`;
  const separator = /^[-+.\deE]+([,;\t ])/.exec(text)?.[1];
  if (separator === undefined) return refuse(name, what);
  const [file, delimiter] = [name, separator].map((part) => JSON.stringify(part));
  throw new CheckpointError(
    `reading ${name}: found ${what}; in Python: ` +
      `numpy.save("rows.npy", numpy.loadtxt(${file}, delimiter=${delimiter}, dtype="float32"))`,
  );
}

/** Whether the header's length fits the file, and the header looks like JSON of that length. */
async function hasSafetensorsHeader(source: Source): Promise<boolean> {
  if (source.size < 10) return false;
  const head = await source.read(0, 10);
  const length = new DataView(head.buffer, head.byteOffset).getBigUint64(0, true);
  if (!/^\{["} ]/.test(String.fromCharCode(...head.subarray(8))) || length > source.size - 8) return false;
  const [last] = await source.read(7 + Number(length), 8 + Number(length));
  return last === 0x7d || last === 0x20;
}

/**
 * Whether it looks like a pickle: PyTorch's form before 1.6, or a fitting first frame, or a fitting first opcode with
 * the last opcode at the end.
 */
async function isPickle(source: Source, text: string): Promise<boolean> {
  // deno-lint-ignore no-control-regex
  if (/^\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9/.test(text)) return true;
  // deno-lint-ignore no-control-regex
  if (!/^\x80(?:[\x02\x03][\]})(cX]|[\x04\x05]\x95)/.test(text)) return false;
  const [last] = await source.read(source.size - 1, source.size);
  return last === 0x2e;
}

function refuse(name: string, what: string): never {
  throw new CheckpointError(`reading ${name}: found ${what}; expected rows of numbers`);
}

async function recogniseZip(source: Source, fail: (name: string, what: string) => never): Promise<"torch" | "npz"> {
  const names = [...(await readZip(source, { allowDeflated: true })).keys()];
  if (names.some((name) => /^[^/]*\/data\.pkl$/.test(name))) return "torch";
  if (names.length > 0 && names.every((name) => name.endsWith(".npy"))) return "npz";
  const found = names.slice(0, 4).map(quote).join(", ") || "nothing";
  return fail(source.name, `a zip archive of ${found}, which neither PyTorch nor NumPy wrote`);
}

/** Checks the header's length (enormous for text) and the header's start. */
function isSafetensors(head: Uint8Array): boolean {
  return head[8] === 0x7b && head.subarray(4, 8).every((byte) => byte === 0);
}

async function recogniseJson(source: Source): Promise<FileKind> {
  const end = (await readFirstLine(source)).indexOf(0x0a) + 1;
  const behind = await source.read(end, Math.min(end + 4, source.size));
  const isTorch = behind[0] === 0x80 || ZIP_STARTS.includes(String.fromCharCode(...behind));
  return end > 0 && isTorch ? "saev" : "json";
}

function fail(name: string, what: string): never {
  throw new CheckpointError(
    `reading ${name}: found ${what}; expected a saev, PyTorch, safetensors, NumPy or JSON file`,
  );
}
