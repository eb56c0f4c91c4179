/**
 * What reading and writing files throws when the content is at fault.
 *
 * @module
 */

/**
 * A file is not what it must be, or a model cannot be written as asked. The message says what was being done, what was
 * found and what was expected. Failures of the file system itself (a missing file, a full disk) are passed on as they are.
 */
export class CheckpointError extends SyntaxError {
  /** `"CheckpointError"` */
  override readonly name: string = "CheckpointError";
}

/** Text out of a file, quoted and cut, so that a message stays readable whatever the file says. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

/** Bytes out of a file, as messages show them: `50 4b 03 04`. */
export function hexBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/** What `work` gives. A {@link CheckpointError} of it that does not name the file is thrown on as one that does. */
export async function naming<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.message.includes(name)) throw error;
    throw new CheckpointError(`${name}: ${error.message}`, { cause: error });
  }
}
