/**
 * Archives of NumPy arrays, as `numpy.savez` and `numpy.savez_compressed` write them: a zip of `.npy` files.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { CheckpointError, quote } from "./errors.ts";
import type { ArrayPlace } from "./array_place.ts";
import { formatNpyHeader, locateNpy, openNpyContent, readNpyText } from "./npy.ts";
import { type FilePart, joinBytes, type LazyBytes, type Source } from "./source.ts";
import type { StoredTensor } from "./stored_tensor.ts";
import { readZip, type ZipMember } from "./zip.ts";
import { formatDeflatedZip, formatZip, zipRecord } from "./zip_writer.ts";

/** The arrays of an archive. */
export interface Npz {
  /** Their names, in the archive's order. */
  readonly names: readonly string[];
  /**
   * The array of that name. Only its header is read.
   *
   * @throws {CheckpointError} if there is none, or it is not an array of numbers or bools.
   */
  open(name: string): Promise<StoredTensor>;
  /**
   * The text of an array with one ASCII string, NumPy's type `S`.
   *
   * @throws {CheckpointError} if there is none, or it is something else.
   */
  text(name: string): Promise<string>;
  /**
   * Locates the array of that name; its checksum is then not checked. A compressed array is read into memory.
   *
   * @throws {CheckpointError} as {@link Npz.open}.
   */
  locate(name: string): Promise<ArrayPlace>;
}

/** Options of {@link openNpz}. */
export interface NpzOptions {
  /** Limit on the total size of the arrays, as a multiple of the archive's size, if all will be in memory together. */
  readonly mostDeflated?: number;
}

const SUFFIX = ".npy";
const MAX_TEXT_BYTES = 2 ** 10;

/**
 * Opens an archive. Only its directory is read.
 *
 * @throws {CheckpointError} naming what was found, for any other file.
 * @throws {TypeError} for an unknown option.
 */
export async function openNpz(source: Source, options: NpzOptions = {}): Promise<Npz> {
  checkOptions("openNpz", options, { mostDeflated: true });
  const fail = (what: string): never => {
    throw new CheckpointError(`reading ${source.name}: ${what}`);
  };
  const members = await readZip(source, { allowDeflated: true, ...options });
  const names = [...members.keys()].map((record) => {
    if (!record.endsWith(SUFFIX)) fail(`found the record ${quote(record)}; expected ${SUFFIX} files only`);
    return record.slice(0, -SUFFIX.length);
  });
  const find = (name: string): ZipMember =>
    members.get(name + SUFFIX) ??
      fail(`found no array ${quote(name)}; the file has ${names.slice(0, 8).map(quote).join(", ") || "none"}`);
  const called = (name: string) => ({
    what: `array ${quote(name)} of ${source.name}`,
    python: `numpy.load(${JSON.stringify(source.name)})[${JSON.stringify(name)}]`,
  });
  return {
    names,
    async open(name) {
      const member = find(name);
      return await openNpyContent({
        ...called(name),
        size: member.size,
        head: (length) => member.head(length),
        read: () => member.read(),
        pieces: () => member.pieces(),
      });
    },
    text: async (name) => await readNpyText(await find(name).head(MAX_TEXT_BYTES), called(name).what),
    locate: async (name) => await locateNpy(await find(name).open(), called(name)),
  };
}

/** An array to write. */
export interface NpzArray {
  /** Its name. */
  readonly name: string;
  /** NumPy's name of the type of its elements, such as `"<f4"`. */
  readonly descr: string;
  /** Its dimensions. */
  readonly shape: readonly number[];
  /** Its elements in C order. */
  readonly bytes: FilePart;
}

/** The archive that `numpy.savez` writes for arrays in memory, apart from metadata that does not concern the arrays. */
export function formatNpz(arrays: readonly (NpzArray & { readonly bytes: Uint8Array })[]): Uint8Array[] {
  return formatZip(
    arrays.map(({ name, descr, shape, bytes }) =>
      zipRecord(name + SUFFIX, joinBytes([formatNpyHeader(descr, shape), bytes]))
    ),
  );
}

/**
 * The archive that `numpy.savez_compressed` writes, apart from metadata that does not concern the arrays. It is
 * compressed while it is written.
 */
export function formatCompressedNpz(arrays: readonly NpzArray[]): LazyBytes {
  return formatDeflatedZip(
    arrays.map(({ name, descr, shape, bytes }) => ({
      name: name + SUFFIX,
      parts: [formatNpyHeader(descr, shape), bytes],
    })),
  );
}
