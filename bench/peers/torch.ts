/**
 * The peers' step in PyTorch, if a Python has it.
 *
 * @module
 */

import { CONSTANTS, type PeerProblem, type PeerResult, startOf } from "./problem.ts";

const run = async (python: string, ...args: string[]) =>
  await new Deno.Command(python, { args, stdout: "piped", stderr: "piped" }).output();

/** The version of PyTorch in this Python; `undefined` if either is missing. */
export async function torchVersion(python: string): Promise<string | undefined> {
  try {
    const { success, stdout } = await run(python, "-c", "import torch; print(torch.__version__)");
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Runs `torch_step.py` with `python`. */
export async function pytorch(python: string, problem: PeerProblem, samples = 5): Promise<PeerResult> {
  const folder = await Deno.makeTempDir();
  try {
    const { x, parameters } = startOf(problem);
    for (const [name, values] of Object.entries({ x, ...parameters })) {
      await Deno.writeFile(`${folder}/${name}.f32`, new Uint8Array((values as Float32Array<ArrayBuffer>).buffer));
    }
    await Deno.writeTextFile(`${folder}/problem.json`, JSON.stringify({ ...problem, ...CONSTANTS, samples }));
    const script = new URL("./torch_step.py", import.meta.url).pathname;
    const result = await run(python, script, folder);
    if (!result.success) throw new Error(`PyTorch's step failed:\n${new TextDecoder().decode(result.stderr)}`);
    return JSON.parse(new TextDecoder().decode(result.stdout));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
