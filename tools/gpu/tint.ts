/**
 * Compiles every WGSL text that the library can make with Tint, the compiler of Chrome: `deno task tint`. An error or a
 * warning is a failure, and so is a wrong text that compiles.
 *
 * @module
 */

import { nullDevice } from "./dawn.ts";
import { blockKernels, everyForm, modelKernels, productKernels, PROFILES } from "./kernel_texts.ts";

/** What Tint says of a text; nothing, if it is right. */
async function complaints(
  device: GPUDevice,
  { name, wgsl }: { readonly name: string; readonly wgsl: string },
): Promise<string[]> {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: name, code: wgsl });
  device.createComputePipeline({ label: name, layout: "auto", compute: { module, entryPoint: "main" } });
  const error = await device.popErrorScope();
  const { messages } = await module.getCompilationInfo();
  const said = messages.map(({ type, lineNum, message }) => `${type}, line ${lineNum}: ${message}`);
  return error && said.length === 0 ? [error.message] : said;
}

/** Damage of a kind each: to the grammar, the types, the names, the barriers and the bindings. */
const MUTANTS: readonly (readonly [from: RegExp, to: string])[] = [
  [/;\n/, "\n"],
  [/0\.0/, "0u"],
  [/dims\.groups/, "dims.group_s"],
  [/workgroupBarrier\(\);/, "if (lane > 3u) { workgroupBarrier(); }"],
  [/@binding\(2\)/, "@binding(1)"],
];

let [n_passed, n_failed] = [0, 0];
const judge = (what: string, failure: string | undefined) => {
  if (failure === undefined) n_passed++;
  else {
    n_failed++;
    console.log(`FAILED: ${what}: ${failure}`);
  }
};
const texts = new Map<string, { readonly name: string; readonly wgsl: string }>();
for (const profile of PROFILES) {
  const kernels = [...await modelKernels(profile), ...await blockKernels(profile)].flatMap(everyForm);
  // A product differs in its epilogue; what its forms do to loads, the models' products show.
  for (const { name, wgsl } of [...kernels, ...await productKernels(profile)]) {
    if (!texts.has(wgsl)) texts.set(wgsl, { name: `${name} (${profile.name})`, wgsl });
  }
}
console.log(`${texts.size} WGSL texts`);
const device = await nullDevice();
for (const text of texts.values()) judge(text.name, (await complaints(device, text))[0]);
for (const [from, to] of MUTANTS) {
  const mutated = [...texts.values()].map(({ name, wgsl }) => ({ name, wgsl: wgsl.replace(from, to) }))
    .find(({ wgsl }) => !texts.has(wgsl));
  const said = mutated ? await complaints(device, mutated) : [];
  judge(`a text with ${JSON.stringify(to)} for ${from}`, said.length > 0 ? undefined : "Tint has nothing against it");
}
console.log(`${n_passed} passed, ${n_failed} failed`);
// Dawn keeps the process alive.
Deno.exit(n_failed > 0 ? 1 : 0);
