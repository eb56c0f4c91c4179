/**
 * The peers' step in PyTorch, if there is a Python that has it.
 *
 * @module
 */

import { CONSTANTS, type PeerProblem, type PeerResult, startOf } from "./problem.ts";

/** Runs `torch_step.py` with `python`; `undefined` where that has no PyTorch. */
export async function pytorch(
  python: string,
  problem: PeerProblem,
  samples = 5,
): Promise<(PeerResult & { readonly version: string }) | undefined> {
  const run = async (...args: string[]) => {
    try {
      return await new Deno.Command(python, { args, stdout: "piped", stderr: "piped" }).output();
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  };
  if (!(await run("-c", "import torch"))?.success) return undefined;
  const folder = await Deno.makeTempDir();
  try {
    const { x, parameters } = startOf(problem);
    for (const [name, values] of Object.entries({ x, ...parameters })) {
      await Deno.writeFile(`${folder}/${name}.f32`, new Uint8Array((values as Float32Array<ArrayBuffer>).buffer));
    }
    await Deno.writeTextFile(`${folder}/problem.json`, JSON.stringify({ ...problem, ...CONSTANTS, samples }));
    const script = new URL("./torch_step.py", import.meta.url).pathname;
    const result = await run(script, folder);
    if (!result?.success) throw new Error(`PyTorch's step failed:\n${new TextDecoder().decode(result?.stderr)}`);
    return JSON.parse(new TextDecoder().decode(result.stdout));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
