/**
 * Files that are read from their beginning: by lines, and by pieces.
 *
 * @module
 */

/** The bytes of a file in pieces; none if the file is missing. */
export async function* fileChunks(path: string): AsyncGenerator<Uint8Array> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  yield* file.readable;
}

/** The lines of a file, including an incomplete last one; a missing file is an empty one. */
export async function* fileLines(path: string): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of fileChunks(path)) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
  yield rest + decoder.decode();
}
