/**
 * Files of `torch.save`: a zip archive of a pickled state dict and the raw bytes of its storages.
 *
 * @module
 */

import { crc32 } from "./crc32.ts";
import { CheckpointError, quote } from "./errors.ts";
import { BYTES_PER_NUMBER, type FloatType, littleEndianBytes, readFloats } from "./numbers.ts";
import { PickledDict, PickledObject, type PickledTuple, type PickledValue, PickleWriter, unpickle } from "./pickle.ts";
import { formatZip, readZip, type ZipRecord, zipRecord } from "./zip.ts";

/** A tensor to be written. */
export interface NamedTensor {
  /** Its key in the state dict. */
  readonly name: string;
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** Its elements, row-major. */
  readonly data: Float32Array;
}

const STORAGE_CLASSES: ReadonlyMap<string, FloatType> = new Map([
  ["torch.HalfStorage", "float16"],
  ["torch.BFloat16Storage", "bfloat16"],
  ["torch.FloatStorage", "float32"],
  ["torch.DoubleStorage", "float64"],
]);

/** Every pickle of protocol 2 and later starts with it; a zip archive does not. */
const PICKLE_START = 0x80;

// ---------------------------------------------------------------------------------------------------------- reading

/** A tensor of a file; its numbers are taken out of the file when asked for. */
export interface TorchTensor {
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** How the file holds its numbers. */
  readonly dtype: FloatType;
  /**
   * Its elements, row-major, as float32. A view into the file's bytes where they are float32, aligned and in this order
   * already; a copy otherwise.
   */
  read(): Float32Array;
}

class StorageClass extends PickledObject {
  override readonly what = "a storage class";
  readonly dtype: FloatType;

  constructor(dtype: FloatType) {
    super();
    this.dtype = dtype;
  }
}

/** The numbers behind one or several tensors. */
class Storage extends PickledObject {
  override readonly what = "a storage";
  readonly key: string;
  readonly dtype: FloatType;
  readonly length: number;
  readonly #bytes: Uint8Array;
  readonly #isLittleEndian: boolean;
  #floats: Float32Array | null = null;

  constructor(key: string, dtype: FloatType, bytes: Uint8Array, isLittleEndian: boolean) {
    super();
    this.key = key;
    this.dtype = dtype;
    this.length = bytes.length / BYTES_PER_NUMBER[dtype];
    this.#bytes = bytes;
    this.#isLittleEndian = isLittleEndian;
  }

  floats(): Float32Array {
    return this.#floats ??= readFloats(this.#bytes, this.dtype, this.#isLittleEndian);
  }
}

/** Every element is known to lie in the storage. */
class StoredTensor extends PickledObject implements TorchTensor {
  override readonly what = "a tensor";
  readonly shape: readonly number[];
  readonly #storage: Storage;
  readonly #offset: number;
  readonly #strides: readonly number[];

  constructor(storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]) {
    super();
    this.shape = shape;
    this.#storage = storage;
    this.#offset = offset;
    this.#strides = strides;
  }

  get dtype(): FloatType {
    return this.#storage.dtype;
  }

  read(): Float32Array {
    const floats = this.#storage.floats();
    const length = product(this.shape);
    if (isRowMajor(this.shape, this.#strides)) return floats.subarray(this.#offset, this.#offset + length);
    return gather(floats, this.#offset, this.shape, this.#strides);
  }
}

/**
 * The tensors of a file written by `torch.save(state_dict, file)`, by name and in the file's order.
 *
 * Nothing in the file is executed. Strides, offsets, storages shared by several tensors, both byte orders, and any
 * device are understood; numbers of other types than {@link FloatType}, anything but a flat dict of tensors, and the
 * files of PyTorch before 1.6, which are no archives, are refused.
 *
 * @throws {CheckpointError} naming what was found.
 */
export function readTorchFile(bytes: Uint8Array): Map<string, TorchTensor> {
  if (bytes[0] === PICKLE_START) {
    fail("found a bare pickle, as PyTorch wrote before version 1.6; load it with PyTorch and save it again");
  }
  const records = stripFolder(readZip(bytes));
  const pickle = record(records, "data.pkl");
  checkVersion(record(records, "version"));
  const isLittleEndian = readByteOrder(records.get("byteorder"));
  for (const name of records.keys()) {
    if (!/^(data\.pkl|version|byteorder|data\/[^/]+|\..+)$/.test(name)) fail(`unknown record ${quote(name)}`);
  }

  const storages = new Map<string, Storage>();
  const openStorage = (dtype: FloatType, key: string, length: number): Storage => {
    const known = storages.get(key);
    if (known !== undefined) {
      if (known.dtype !== dtype || known.length !== length) fail(`storage ${quote(key)} is described in two ways`);
      return known;
    }
    const bytes = record(records, `data/${key}`);
    const expected = length * BYTES_PER_NUMBER[dtype];
    if (bytes.length !== expected) {
      fail(`storage ${quote(key)} has ${bytes.length} bytes; ${length} elements of ${dtype} take ${expected}`);
    }
    const storage = new Storage(key, dtype, bytes, isLittleEndian);
    storages.set(key, storage);
    return storage;
  };

  const root = unpickle(pickle, {
    constants: new Map([...STORAGE_CLASSES].map(([name, dtype]) => [name, new StorageClass(dtype)])),
    callables: new Map<string, (args: PickledTuple) => PickledValue>([
      ["collections.OrderedDict", rebuildOrderedDict],
      ["torch._utils._rebuild_tensor_v2", rebuildTensor],
    ]),
    persistent: (id) => readPersistentId(id, openStorage),
  });
  return readStateDict(root);
}

/** All records lie in one folder, whose name is the writer's choice. */
function stripFolder(records: ReadonlyMap<string, Uint8Array>): Map<string, Uint8Array> {
  const inner = new Map<string, Uint8Array>();
  let folder: string | undefined;
  for (const [name, bytes] of records) {
    folder ??= name.slice(0, name.indexOf("/") + 1);
    if (folder === "" || !name.startsWith(folder)) fail(`record ${quote(name)} is not in the archive's one folder`);
    inner.set(name.slice(folder.length), bytes);
  }
  return inner;
}

function record(records: ReadonlyMap<string, Uint8Array>, name: string): Uint8Array {
  return records.get(name) ?? fail(`the archive has no record ${quote(name)}`);
}

function checkVersion(bytes: Uint8Array): void {
  const text = asciiText(bytes);
  if (!/^([1-9]|10)\n?$/.test(text)) fail(`the archive has version ${quote(text)}; expected 1 to 10`);
}

function readByteOrder(bytes: Uint8Array | undefined): boolean {
  // Files from before PyTorch 2.1 have no such record and are little-endian.
  const order = bytes === undefined ? "little" : asciiText(bytes);
  if (order !== "little" && order !== "big") fail(`the byte order is ${quote(order)}; expected "little" or "big"`);
  return order === "little";
}

function asciiText(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, 32));
}

function rebuildOrderedDict(args: PickledTuple): PickledDict {
  if (args.length > 0) fail("an OrderedDict with arguments");
  return new PickledDict();
}

function readPersistentId(
  id: PickledValue,
  openStorage: (dtype: FloatType, key: string, length: number) => Storage,
): Storage {
  const [kind, storageClass, key, location, length] = Array.isArray(id) ? id : [];
  if (
    kind !== "storage" || !(storageClass instanceof StorageClass) || typeof key !== "string" ||
    typeof location !== "string" || !isCount(length) || (id as PickledTuple).length !== 5
  ) return fail("a persistent id that names no storage of float16, bfloat16, float32 or float64");
  return openStorage(storageClass.dtype, key, length);
}

function rebuildTensor(args: PickledTuple): StoredTensor {
  const [storage, offset, shape, strides, requiresGrad, hooks] = args;
  if (
    args.length !== 6 || !(storage instanceof Storage) || !isCount(offset) || !isCounts(shape) || !isCounts(strides) ||
    shape.length !== strides.length || typeof requiresGrad !== "boolean" || !isEmptyHooks(hooks)
  ) return fail("a tensor whose description has another form");

  const what = `a tensor of shape [${shape}] with strides [${strides}] at ${offset} of storage ${quote(storage.key)}`;
  const length = product(shape);
  // A tensor that repeats elements could be made as large as one likes out of a few bytes.
  if (length > storage.length) fail(`${what} has more elements than the storage's ${storage.length}`);
  const last = shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, offset);
  if (length > 0 && last >= storage.length) fail(`${what} reaches element ${last} of ${storage.length}`);
  return new StoredTensor(storage, length > 0 ? offset : 0, shape, strides);
}

function isEmptyHooks(hooks: PickledValue | undefined): boolean {
  return hooks === null || hooks instanceof PickledDict && hooks.items.size === 0;
}

function isCount(value: PickledValue | undefined): value is number {
  return typeof value === "number" && value >= 0;
}

const MAX_RANK = 8;

function isCounts(value: PickledValue | undefined): value is readonly number[] {
  return Array.isArray(value) && value.length <= MAX_RANK && value.every(isCount);
}

function readStateDict(root: PickledValue): Map<string, TorchTensor> {
  if (!(root instanceof PickledDict)) return fail("the pickle is not a dict");
  const tensors = new Map<string, TorchTensor>();
  for (const [name, value] of root.items) {
    if (!(value instanceof StoredTensor)) return fail(`the entry ${quote(name)} is ${describe(value)}, not a tensor`);
    tensors.set(name, value);
  }
  return tensors;
}

function describe(value: PickledValue): string {
  if (value instanceof PickledObject) return value.what;
  if (value instanceof PickledDict) return "a dict";
  if (Array.isArray(value)) return "a tuple";
  return typeof value === "string" ? quote(value) : String(value);
}

function product(shape: readonly number[]): number {
  return shape.reduce((length, size) => length * size, 1);
}

function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (strides[axis] !== expected) return product(shape) === 0;
    expected *= shape[axis]!;
  }
  return true;
}

/** Copies a strided view into row-major order, one run of the last axis at a time. */
function gather(
  floats: Float32Array,
  offset: number,
  shape: readonly number[],
  strides: readonly number[],
): Float32Array {
  const gathered = new Float32Array(product(shape));
  const runLength = shape.at(-1)!;
  const runStride = strides.at(-1)!;
  const index = shape.map(() => 0);
  for (let start = 0; start < gathered.length; start += runLength) {
    let from = index.reduce((sum, position, axis) => sum + position * strides[axis]!, offset);
    for (let i = 0; i < runLength; i++, from += runStride) gathered[start + i] = floats[from]!;
    for (let axis = shape.length - 2; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
  return gathered;
}

function fail(what: string): never {
  throw new CheckpointError(`reading the PyTorch file: ${what}`);
}

// ---------------------------------------------------------------------------------------------------------- writing

/**
 * The file that `torch.save(state_dict, file)` writes for these float32 tensors, in pieces; `modules` are the names that
 * PyTorch lists in the state dict's `_metadata`.
 */
export function formatTorchFile(tensors: readonly NamedTensor[], modules: readonly string[]): Uint8Array[] {
  const records: ZipRecord[] = [
    zipRecord("archive/data.pkl", formatStateDict(tensors, modules)),
    textRecord("archive/.format_version", "1"),
    textRecord("archive/.storage_alignment", "64"),
    textRecord("archive/byteorder", "little"),
    ...tensors.map(({ data }, i) => zipRecord(`archive/data/${i}`, littleEndianBytes(data))),
    textRecord("archive/version", "3\n"),
  ];
  return formatZip([...records, textRecord("archive/.data/serialization_id", serializationId(records))]);
}

function textRecord(name: string, text: string): ZipRecord {
  return zipRecord(name, new TextEncoder().encode(text));
}

function formatStateDict(tensors: readonly NamedTensor[], modules: readonly string[]): Uint8Array {
  const writer = new PickleWriter().emptyOrderedDict();
  writer.items(() => tensors.forEach((tensor, key) => formatTensor(writer, tensor, String(key))));
  writer.emptyDict().item(() => {
    writer.string("_metadata").emptyOrderedDict().items(() => {
      for (const module of modules) {
        writer.string(module).emptyDict().item(() => writer.literal("version").integer(1));
      }
    });
  });
  return writer.build().done();
}

function formatTensor(writer: PickleWriter, { name, shape, data }: NamedTensor, key: string): void {
  writer.string(name).global("torch._utils", "_rebuild_tensor_v2").tuple(() => {
    writer.tuple(() => {
      writer.literal("storage").global("torch", "FloatStorage").string(key).literal("cpu").integer(data.length);
    });
    writer.persistent().integer(0).integers(shape).integers(rowMajorStrides(shape)).false().emptyOrderedDict();
  });
  writer.reduce();
}

function rowMajorStrides(shape: readonly number[]): number[] {
  return shape.map((_, axis) => product(shape.slice(axis + 1)));
}

/**
 * Forty digits that depend on the names and the contents of all records, as PyTorch's do. The last twenty are PyTorch's
 * own; its first twenty come out of a hash of its C++ library, which differs between platforms, and here out of CRC-32.
 */
function serializationId(records: readonly ZipRecord[]): string {
  const names = records.map(({ name }) => crc32(new TextEncoder().encode(name)));
  const contents = records.map((record) => record.crc32);
  return [names, contents].map((hashes) => combineHashes(hashes).toString().padStart(20, "0")).join("");
}

function combineHashes(hashes: readonly number[]): bigint {
  let seed = 0n;
  for (const hash of hashes) {
    seed ^= BigInt.asUintN(64, BigInt(hash) + 0x9e3779b9n + (seed << 6n) + (seed >> 2n));
  }
  return seed;
}
