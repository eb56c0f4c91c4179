/**
 * The errors for bad content when reading and writing files.
 *
 * @module
 */

/**
 * The content of a file is invalid, or a model cannot be written as requested. The message says what was being done,
 * what was found and what was expected. Failures of the file system itself (a missing file, a full disk) are passed on
 * unchanged.
 */
export class CheckpointError extends SyntaxError {
  /** `"CheckpointError"` */
  override readonly name: string = "CheckpointError";
}

/** Text from a file, quoted and shortened so that any message stays readable. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

/** Bytes from a file as messages show them: `50 4b 03 04`. */
export function hexBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/** Runs `work`; a {@link CheckpointError} whose message does not name the file gets the name added. */
export async function naming<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.message.includes(name)) throw error;
    throw new CheckpointError(`${name}: ${error.message}`, { cause: error });
  }
}
