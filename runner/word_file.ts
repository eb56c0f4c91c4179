/**
 * A file of u32 in the machine's byte order that grows at its end and can be truncated: for data of a running command that
 * do not fit in memory.
 *
 * @module
 */

import { writeBytes } from "../io/files.ts";

/** A file that words are added to. */
export class WordFile implements AsyncDisposable {
  readonly #file: Deno.FsFile;
  #words: number;

  private constructor(file: Deno.FsFile, words: number) {
    this.#file = file;
    this.#words = words;
  }

  /** Opens the file at a path with its first `words` words, or a new one with zeros. */
  static async open(path: string, words = 0): Promise<WordFile> {
    const file = await Deno.open(path, { read: true, write: true, create: true });
    try {
      await file.truncate(4 * words);
      return new WordFile(file, words);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Their number. */
  get words(): number {
    return this.#words;
  }

  /** Adds words at the end. */
  async add(words: Uint32Array): Promise<void> {
    await this.#file.seek(4 * this.#words, Deno.SeekMode.Start);
    await writeBytes({ write: (bytes) => this.#file.write(bytes) }, [bytesOf(words)]);
    this.#words += words.length;
  }

  /** Puts bytes where the file has some. */
  writeAt(byte: number, bytes: Uint8Array): void {
    this.#file.seekSync(byte, Deno.SeekMode.Start);
    for (let at = 0; at < bytes.length;) at += this.#file.writeSync(bytes.subarray(at));
  }

  /** Fills `into` with what stands from a byte on. */
  readAt(byte: number, into: Uint8Array): void {
    this.#file.seekSync(byte, Deno.SeekMode.Start);
    for (let at = 0; at < into.length;) {
      const count = this.#file.readSync(into.subarray(at));
      if (count === null) throw new RangeError(`reading ${into.length} bytes from byte ${byte}: the file ends before`);
      at += count;
    }
  }

  /** The words from one place on. */
  read(from: number, length: number): Uint32Array {
    const words = new Uint32Array(length);
    this.readAt(4 * from, bytesOf(words));
    return words;
  }

  /** Makes sure that what was added is on the disk. */
  async sync(): Promise<void> {
    await this.#file.sync();
  }

  /** Closes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.resolve(this.#file.close());
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Uint32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
