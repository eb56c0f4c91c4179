/**
 * Files of `torch.save`: a zip archive with a pickled state dict and the raw bytes of its storages.
 *
 * @module
 */

import { crc32 } from "./crc32.ts";
import { CheckpointError, naming, quote } from "./errors.ts";
import { BYTES_PER_NUMBER, littleEndianBytes, type NumberType } from "./numbers.ts";
import {
  MAX_PICKLE_BYTES,
  PickledDict,
  PickledList,
  PickledObject,
  type PickledTuple,
  type PickledValue,
  unpickle,
} from "./pickle.ts";
import { PickleWriter } from "./pickle_writer.ts";
import type { FilePart, Source } from "./source.ts";
import {
  countElements,
  MAX_RANK,
  type MeasuredNumbers,
  type NamedTensor,
  type NumberRun,
  rowMajorStrides,
  type StoredTensor,
  TensorView,
} from "./stored_tensor.ts";
import { readZip, type ZipMember } from "./zip.ts";
import type { ZipEntry } from "./zip_format.ts";
import { formatZip, type ZipRecord, zipRecord } from "./zip_writer.ts";

const STORAGE_CLASSES: ReadonlyMap<string, NumberType> = new Map<string, NumberType>([
  ["torch.HalfStorage", "float16"],
  ["torch.BFloat16Storage", "bfloat16"],
  ["torch.FloatStorage", "float32"],
  ["torch.DoubleStorage", "float64"],
  ["torch.BoolStorage", "bool"],
  ["torch.ByteStorage", "uint8"],
  ["torch.CharStorage", "int8"],
  ["torch.ShortStorage", "int16"],
  ["torch.IntStorage", "int32"],
  ["torch.LongStorage", "int64"],
]);

/** Every pickle of protocol 2 and later starts with it; a zip archive does not. */
const PICKLE_START = 0x80;

const SERIALIZATION_ID = ".data/serialization_id";

/** The start of a data descriptor after a record's content. */
const DATA_DESCRIPTOR = 0x08074b50;

/** Versions and byte orders are shorter. */
const MAX_TEXT_BYTES = 2 ** 10;

// ---------------------------------------------------------------------------------------------------------- reading

class StorageClass extends PickledObject {
  override readonly what = "a storage class";
  readonly dtype: NumberType;

  constructor(dtype: NumberType) {
    super();
    this.dtype = dtype;
  }
}

/** The numbers of one or more tensors. */
class Storage extends PickledObject {
  override readonly what = "a storage";
  readonly key: string;
  readonly run: NumberRun;

  constructor(key: string, run: NumberRun) {
    super();
    this.key = key;
    this.run = run;
  }
}

/** A tensor in a pickled object. */
export class PickledTensor extends PickledObject {
  override readonly what = "a tensor";
  /** The tensor. */
  readonly tensor: StoredTensor;

  /** Wraps a tensor. */
  constructor(tensor: StoredTensor) {
    super();
    this.tensor = tensor;
  }
}

/**
 * The tensors of a file written by `torch.save(state_dict, file)`, by name, in file order. Their numbers are read on
 * demand.
 *
 * Nothing in the file is executed. Strides, offsets, storages shared by several tensors, both byte orders, and any
 * device are supported. Types other than {@link NumberType}, anything but a flat dict of tensors, and files of PyTorch
 * before 1.6 (which are not archives) are refused.
 *
 * @throws {CheckpointError} that says what was found.
 */
export async function readTorchFile(source: Source): Promise<Map<string, StoredTensor>> {
  return await naming(source.name, async () => readStateDict(await readTorchObject(source)));
}

/** The id of a file, which depends on all of its records; `null` in files of PyTorch before 2.1, which have none. */
export async function readSerializationId(source: Source): Promise<string | null> {
  const records = stripFolder(await readZip(source));
  return records.has(SERIALIZATION_ID) ? asciiText(await readSmall(records, SERIALIZATION_ID, MAX_TEXT_BYTES)) : null;
}

/**
 * The content of a file written by `torch.save(object, file)`, with its tensors as {@link PickledTensor}s. Objects of
 * the classes whose `module.name` matches `records` are kept as inert {@link PickledRecord}s.
 *
 * @throws {CheckpointError} as {@link readTorchFile}.
 */
export async function readTorchObject(
  source: Source,
  { records }: { readonly records?: RegExp } = {},
): Promise<PickledValue> {
  return await naming(source.name, () => readObject(source, records));
}

async function readObject(source: Source, classes: RegExp | undefined): Promise<PickledValue> {
  const start = await source.read(0, Math.min(1, source.size));
  if (start[0] === PICKLE_START) {
    fail("found a bare pickle, as PyTorch wrote before version 1.6; load it in PyTorch and save it again");
  }
  const records = stripFolder(await readZip(source));
  const pickle = await readSmall(records, "data.pkl", MAX_PICKLE_BYTES);
  checkVersion(await readSmall(records, "version", MAX_TEXT_BYTES));
  // Files from before PyTorch 2.1 have no such record and are little-endian.
  const hasOrder = records.has("byteorder");
  const isLittleEndian = !hasOrder || readByteOrder(await readSmall(records, "byteorder", MAX_TEXT_BYTES));
  for (const name of records.keys()) {
    if (!/^(data\.pkl|version|byteorder|data\/[^/]+|\..+)$/.test(name)) fail(`unknown record ${quote(name)}`);
  }
  if (records.has(SERIALIZATION_ID)) await checkSerializationId(records);

  const storages = new Map<string, Storage>();
  const openStorage = (dtype: NumberType, key: string, length: number): Storage => {
    const known = storages.get(key);
    if (known !== undefined) {
      const { run } = known;
      if (run.dtype !== dtype || run.length !== length) fail(`storage ${quote(key)} is described in two ways`);
      return known;
    }
    const member = findRecord(records, `data/${key}`);
    const what = `storage ${quote(key)}`;
    const expected = length * BYTES_PER_NUMBER[dtype];
    if (member.size !== expected) {
      fail(`${what} has ${member.size} bytes; ${length} elements of ${dtype} need ${expected}`);
    }
    const storage = new Storage(key, {
      what,
      dtype,
      isLittleEndian,
      length,
      bytes: () => member.read(),
      pieces: () => member.pieces(),
    });
    storages.set(key, storage);
    return storage;
  };

  return unpickle(pickle, {
    constants: new Map([...STORAGE_CLASSES].map(([name, dtype]) => [name, new StorageClass(dtype)])),
    callables: new Map<string, (args: PickledTuple) => PickledValue>([
      ["collections.OrderedDict", rebuildOrderedDict],
      ["torch._utils._rebuild_tensor_v2", rebuildTensor],
      ["torch._utils._rebuild_parameter", rebuildParameter],
    ]),
    ...(classes === undefined ? {} : { records: classes }),
    persistent: (id) => readPersistentId(id, openStorage),
  });
}

/** All records are in one folder, whose name the writer chooses. */
function stripFolder(records: ReadonlyMap<string, ZipMember>): Map<string, ZipMember> {
  const inner = new Map<string, ZipMember>();
  let folder: string | undefined;
  for (const [name, member] of records) {
    folder ??= name.slice(0, name.indexOf("/") + 1);
    if (folder === "" || !name.startsWith(folder)) fail(`record ${quote(name)} is outside the archive's one folder`);
    inner.set(name.slice(folder.length), member);
  }
  return inner;
}

function findRecord(records: ReadonlyMap<string, ZipMember>, name: string): ZipMember {
  return records.get(name) ?? fail(`the archive has no record ${quote(name)}`);
}

async function readSmall(records: ReadonlyMap<string, ZipMember>, name: string, most: number): Promise<Uint8Array> {
  const member = findRecord(records, name);
  if (member.size > most) fail(`record ${quote(name)} has ${member.size} bytes; expected at most ${most}`);
  return await member.read();
}

function checkVersion(bytes: Uint8Array): void {
  const text = asciiText(bytes);
  if (!/^([1-9]|10)\n?$/.test(text)) fail(`the archive has version ${quote(text)}; expected 1 to 10`);
}

function readByteOrder(bytes: Uint8Array): boolean {
  const order = asciiText(bytes);
  if (order !== "little" && order !== "big") fail(`the byte order is ${quote(order)}; expected "little" or "big"`);
  return order === "little";
}

/**
 * Half of the id is a hash of the checksums of all records before it, so that a record from another file shows even if
 * its own checksum is right.
 */
async function checkSerializationId(records: ReadonlyMap<string, ZipMember>): Promise<void> {
  const id = asciiText(await readSmall(records, SERIALIZATION_ID, MAX_TEXT_BYTES));
  if (!/^[0-9]{40}$/.test(id)) fail(`the serialization id is ${quote(id)}; expected 40 digits`);
  const before = [...records].filter(([name]) => name !== SERIALIZATION_ID).map(([, member]) => member);
  if (contentId(before) === id.slice(20)) return;
  // PyTorch treats a record that begins like a data descriptor as one, and hashes its supposed checksum too.
  const checksums: number[] = [];
  for (const member of before) {
    const head = await member.head(8);
    const view = new DataView(head.buffer, head.byteOffset, head.length);
    if (head.length === 8 && view.getUint32(0, true) === DATA_DESCRIPTOR) checksums.push(view.getUint32(4, true));
    if (member.size > 0) checksums.push(member.crc32);
  }
  if (formatHash(combineHashes(checksums)) === id.slice(20)) return;
  fail("its serialization id does not match its records: at least one comes from another file");
}

function asciiText(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, 64));
}

function rebuildOrderedDict(args: PickledTuple): PickledDict {
  if (args.length > 0) fail("an OrderedDict with arguments");
  return new PickledDict();
}

function readPersistentId(
  id: PickledValue,
  openStorage: (dtype: NumberType, key: string, length: number) => Storage,
): Storage {
  const [kind, storageClass, key, location, length] = Array.isArray(id) ? id : [];
  if (
    kind !== "storage" || !(storageClass instanceof StorageClass) || typeof key !== "string" ||
    typeof location !== "string" || !isCount(length) || (id as PickledTuple).length !== 5
  ) return fail("a persistent id that does not name a storage of numbers");
  return openStorage(storageClass.dtype, key, length);
}

function rebuildTensor(args: PickledTuple): PickledTensor {
  const [storage, offset, shape, strides, requiresGrad, hooks] = args;
  if (
    args.length !== 6 || !(storage instanceof Storage) || !isCount(offset) || !isCounts(shape) || !isCounts(strides) ||
    shape.length !== strides.length || typeof requiresGrad !== "boolean" || !isEmptyHooks(hooks)
  ) return fail("a tensor whose description has an unknown form");

  const what = `a tensor of shape [${shape}] with strides [${strides}] at ${offset} of storage ${quote(storage.key)}`;
  const length = countElements(shape);
  const most = storage.run.length;
  // A tensor that repeats elements could become arbitrarily large from a few bytes.
  if (length > most) fail(`${what} has more elements than the storage's ${most}`);
  const last = shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, offset);
  if (length > 0 && last >= most) fail(`${what} reaches element ${last} of ${most}`);
  return new PickledTensor(new TensorView(storage.run, shape, strides, length > 0 ? offset : 0));
}

/** A trainable parameter. */
function rebuildParameter(args: PickledTuple): PickledTensor {
  const [tensor, requiresGrad, hooks] = args;
  if (
    args.length !== 3 || !(tensor instanceof PickledTensor) || typeof requiresGrad !== "boolean" || !isEmptyHooks(hooks)
  ) return fail("a parameter whose description has an unknown form");
  return tensor;
}

function isEmptyHooks(hooks: PickledValue | undefined): boolean {
  return hooks === null || hooks instanceof PickledDict && hooks.items.size === 0;
}

function isCount(value: PickledValue | undefined): value is number {
  return typeof value === "number" && value >= 0;
}

function isCounts(value: PickledValue | undefined): value is readonly number[] {
  return Array.isArray(value) && value.length <= MAX_RANK && value.every(isCount);
}

function readStateDict(root: PickledValue): Map<string, StoredTensor> {
  if (!(root instanceof PickledDict)) return fail("the pickle is not a dict");
  const tensors = new Map<string, StoredTensor>();
  for (const [name, value] of root.items) {
    if (!(value instanceof PickledTensor)) return fail(`the entry ${quote(name)} is ${describe(value)}, not a tensor`);
    tensors.set(name, value.tensor);
  }
  return tensors;
}

function describe(value: PickledValue): string {
  if (value instanceof PickledObject) return value.what;
  if (value instanceof PickledDict) return "a dict";
  if (value instanceof PickledList) return "a list";
  if (Array.isArray(value)) return "a tuple";
  return typeof value === "string" ? quote(value) : String(value);
}

function fail(what: string): never {
  throw new CheckpointError(`reading the PyTorch file: ${what}`);
}

// ---------------------------------------------------------------------------------------------------------- writing

type Numbers = NamedTensor["data"];

/** A tensor to write. */
export interface TorchTensor<Data extends Numbers | MeasuredNumbers = Numbers> {
  /** Its name in the state dict. */
  readonly name: string;
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** Its elements, row-major. */
  readonly data: Data;
  /** Whether `data` is the matrix's transpose; the file then holds a transposed view, as PyTorch's own can. */
  readonly isTransposed?: boolean;
}

/**
 * The file that `torch.save(state_dict, file)` writes for these float32 tensors, in pieces; `modules` are the names
 * that PyTorch lists in the state dict's `_metadata`.
 */
export function formatTorchFile(tensors: readonly TorchTensor[], modules: readonly string[]): Uint8Array[];
/** The same, with numbers that are not in memory. */
export function formatTorchFile(
  tensors: readonly TorchTensor<Numbers | MeasuredNumbers>[],
  modules: readonly string[],
): FilePart[];
export function formatTorchFile(
  tensors: readonly TorchTensor<Numbers | MeasuredNumbers>[],
  modules: readonly string[],
): FilePart[] {
  return formatIdentifiedTorchFile(tensors, modules).parts;
}

/** {@link formatTorchFile}, with the file's id. */
export function formatIdentifiedTorchFile<Data extends Numbers | MeasuredNumbers>(
  tensors: readonly TorchTensor<Data>[],
  modules: readonly string[],
): { readonly parts: (Data extends Numbers ? Uint8Array : FilePart)[]; readonly serializationId: string } {
  const { parts, serializationId } = formatArchive("archive", formatStateDict(tensors, modules), tensors);
  return { parts: parts as (Data extends Numbers ? Uint8Array : FilePart)[], serializationId };
}

/**
 * The file that `torch.save(tensor, path)` writes for one float32 tensor; `stem` is the file name without its
 * extension, which PyTorch uses for the archive's folder.
 */
export function formatTorchTensor(
  stem: string,
  tensor: Pick<TorchTensor<Numbers | MeasuredNumbers>, "shape" | "data">,
): FilePart[] {
  const writer = new PickleWriter();
  formatTensor(writer, tensor, "0");
  return formatArchive(stem, writer.done(), [tensor]).parts;
}

/** The records around a pickle and its storages, in PyTorch's order. */
function formatArchive(
  folder: string,
  pickle: Uint8Array,
  storages: readonly { readonly data: Numbers | MeasuredNumbers }[],
): { readonly parts: FilePart[]; readonly serializationId: string } {
  const records: ZipRecord<FilePart>[] = [
    zipRecord(`${folder}/data.pkl`, pickle),
    textRecord(`${folder}/.format_version`, "1"),
    textRecord(`${folder}/.storage_alignment`, "64"),
    textRecord(`${folder}/byteorder`, "little"),
    ...storages.map(({ data }, i) => storageRecord(`${folder}/data/${i}`, data)),
    textRecord(`${folder}/version`, "3\n"),
  ];
  const id = hashRecords(records);
  return { parts: formatZip([...records, textRecord(`${folder}/${SERIALIZATION_ID}`, id)]), serializationId: id };
}

function textRecord(name: string, text: string): ZipRecord {
  return zipRecord(name, new TextEncoder().encode(text));
}

function storageRecord(name: string, data: Numbers | MeasuredNumbers): ZipRecord<FilePart> {
  return "pieces" in data
    ? { name, size: data.length * 4, crc32: data.crc32, bytes: { length: data.length * 4, pieces: data.pieces } }
    : zipRecord(name, littleEndianBytes(data));
}

function formatStateDict(
  tensors: readonly TorchTensor<Numbers | MeasuredNumbers>[],
  modules: readonly string[],
): Uint8Array {
  const writer = new PickleWriter().emptyOrderedDict();
  writer.items(() =>
    tensors.forEach((tensor, key) => {
      writer.string(tensor.name);
      formatTensor(writer, tensor, String(key));
    })
  );
  writer.emptyDict().item(() => {
    writer.string("_metadata").emptyOrderedDict().items(() => {
      for (const module of modules) {
        writer.string(module).emptyDict().item(() => writer.literal("version").integer(1));
      }
    });
  });
  return writer.build().done();
}

function formatTensor(
  writer: PickleWriter,
  { shape, data, isTransposed = false }: Omit<TorchTensor<Numbers | MeasuredNumbers>, "name">,
  key: string,
): void {
  const strides = isTransposed ? rowMajorStrides(shape.toReversed()).reverse() : rowMajorStrides(shape);
  writer.global("torch._utils", "_rebuild_tensor_v2").tuple(() => {
    writer.tuple(() => {
      const storage = data instanceof Int32Array ? "IntStorage" : "FloatStorage";
      writer.literal("storage").global("torch", storage).string(key).literal("cpu").integer(data.length);
    });
    writer.persistent().integer(0).integers(shape).integers(strides).false().emptyOrderedDict();
  });
  writer.reduce();
}

/**
 * Forty digits that depend on the names and contents of all records, as in PyTorch. The last twenty equal PyTorch's;
 * its first twenty come from a hash of its C++ library, which differs between platforms, and here from CRC-32.
 */
function hashRecords(records: readonly ZipEntry[]): string {
  const names = records.map(({ name }) => crc32(new TextEncoder().encode(name)));
  return formatHash(combineHashes(names)) + contentId(records);
}

/** An empty record has no descriptor, from which PyTorch takes the checksum. */
function contentId(records: readonly ZipEntry[]): string {
  return formatHash(combineHashes(records.filter(({ size }) => size > 0).map((record) => record.crc32)));
}

function formatHash(hash: bigint): string {
  return hash.toString().padStart(20, "0");
}

function combineHashes(hashes: readonly number[]): bigint {
  let seed = 0n;
  for (const hash of hashes) {
    seed ^= BigInt.asUintN(64, BigInt(hash) + 0x9e3779b9n + (seed << 6n) + (seed >> 2n));
  }
  return seed;
}
