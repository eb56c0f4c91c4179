/**
 * Compiles listed SPIR-V for the GPU that `RADV_FORCE_FAMILY` names, and prints what the compiler says of it as JSON:
 * `deno run tools/gpu/radv.ts LIST`.
 *
 * @module
 */

import type { ListedShader } from "./spirv.ts";
import { ShaderCompiler } from "./vulkan.ts";

/** What is printed. */
export interface Compiled {
  readonly device: string;
  readonly version: string;
  readonly shaders: readonly { readonly row: string; readonly statistics: Readonly<Record<string, number>> }[];
}

const list = JSON.parse(await Deno.readTextFile(Deno.args[0]!)) as ListedShader[];
const compiler = new ShaderCompiler();
const shaders = list.map(({ row, file }) => ({
  row,
  statistics: Object.fromEntries(compiler.statistics(Deno.readFileSync(file))),
}));
const { device, version } = compiler;
console.log(JSON.stringify({ device, version, shaders } satisfies Compiled));
