/**
 * Writes the SPIR-V that this process's WebGPU makes of the kernels' GPU forms, and a list of them, into a folder:
 * `deno run tools/gpu/spirv.ts FOLDER`, with `MESA_SPIRV_DUMP_PATH` = FOLDER/dump and Mesa's software driver.
 *
 * @module
 */

import { DeviceContext } from "../../kernels/engine/device.ts";
import { compiled } from "../../kernels/engine/compile.ts";
import type { FormedKernel } from "../../kernels/forms/form.ts";
import { candidates, type Layout } from "../../kernels/matmul_tiles.ts";
import { modelKernels, productKernels } from "./kernel_texts.ts";
import { recordingDevice } from "./recording_device.ts";

/** A shader of the list. */
export interface ListedShader {
  /** Its kernel's row in the table: what the kernel is called, and of a product its tile. */
  readonly row: string;
  /** The file with its SPIR-V. */
  readonly file: string;
}

/** What the library takes on GPUs where nothing else is known. */
const GPU = { name: "GPU", lanes: 32 };
/** As aligned as real models are. */
const SIZES = { sizes: [[768, 648]], widths: [] } as const;

/** The kernels of a GPU by the rows of the table. */
async function gpuKernels(): Promise<{ readonly row: string; readonly kernel: FormedKernel }[]> {
  const found = (await modelKernels(GPU, SIZES)).map((kernel) => ({ row: kernel.name, kernel }));
  const context = new DeviceContext(recordingDevice().device, { lanes: GPU.lanes });
  const tiles = new Set(
    (["nn", "nt", "tn"] satisfies Layout[]).flatMap((layout) =>
      (["few rows", "few columns", "small", "large"] as const).flatMap((size) =>
        candidates(context, `${layout}, ${size}`)
      )
    ),
  );
  for (const tile of tiles) {
    const kernels = (await productKernels(GPU, { tiles: [tile], aligned: [true] })).filter(({ bindings }) =>
      "c" in bindings
    );
    found.unshift(...kernels.map((kernel) => ({ row: `${kernel.name}, ${tile}`, kernel })));
  }
  // Each text once, in the first row that it stands in.
  const texts = new Set<string>();
  return found.filter(({ kernel: { wgsl } }) => !texts.has(wgsl) && texts.add(wgsl));
}

const [folder = ""] = Deno.args;
const dump = `${folder}/dump`;
const adapter = await navigator.gpu.requestAdapter();
if (!adapter) throw new Error("there is no adapter to make SPIR-V with");
const context = new DeviceContext(await adapter.requestDevice(), { textureCopyBytes: Infinity });
const list: ListedShader[] = [];
const known = new Set<string>();
const newFile = () => {
  const file = Array.from(Deno.readDirSync(dump), ({ name }) => name).find((name) => !known.has(name));
  if (file) known.add(file);
  return file;
};
// What a device compiles for itself.
while (newFile());
for (const { row, kernel } of await gpuKernels()) {
  compiled(context, kernel);
  const file = newFile();
  if (!file) throw new Error(`the driver wrote no SPIR-V of ${row}; MESA_SPIRV_DUMP_PATH must be ${dump}`);
  list.push({ row, file: `${dump}/${file}` });
}
await context.drained();
await Deno.writeTextFile(`${folder}/list.json`, JSON.stringify(list));
Deno.exit(0);
