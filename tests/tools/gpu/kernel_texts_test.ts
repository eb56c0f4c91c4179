/**
 * The list of all WGSL texts forgets no kernel: each `defineKernel` of the library has a text in it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { ACTIVATIONS } from "../../../nn/activations/mod.ts";
import { AUXILIARIES, SPARSITIES } from "../../../nn/loss_terms.ts";
import { configurations, everyForm, modelKernels, productKernels, PROFILES } from "../../../tools/gpu/kernel_texts.ts";

const ROOT = new URL("../../../", import.meta.url);
const LIBRARY = ["kernels", "nn", "objectives", "train", "eval"];

/** A `defineKernel(…)` of the library. */
interface Site {
  readonly path: string;
  /** What a kernel of it may be called. */
  readonly name: RegExp;
}

/** The names that follow each `defineKernel(`; what a template leaves open may be anything. */
function sitesOf(path: string, source: string): Site[] {
  return [...source.matchAll(/(?<!function )\bdefineKernel\(/g)].map(({ index }) => {
    const [, , name = ""] = /\bname: (["`])(.*?)\1,/.exec(source.slice(index)) ?? [];
    const parts = name.split(/\$\{[^}]*\}/).map((part) => RegExp.escape(part));
    return { path, name: new RegExp(`^${parts.join("\\w*")}$`) };
  });
}

async function* filesBelow(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, ROOT))) {
    if (isDirectory) yield* filesBelow(`${folder}/${name}`);
    else if (name.endsWith(".ts")) yield `${folder}/${name}`;
  }
}

async function librarySites(): Promise<Site[]> {
  const sites: Site[] = [];
  for (const folder of LIBRARY) {
    for await (const path of filesBelow(folder)) {
      sites.push(...sitesOf(path, await Deno.readTextFile(new URL(path, ROOT))));
    }
  }
  return sites;
}

const missing = (sites: readonly Site[], names: ReadonlySet<string>) =>
  sites.filter(({ name }) => ![...names].some((found) => name.test(found))).map(({ path, name }) => `${path}: ${name}`);

Deno.test("every kernel of the library has a text in the list", async () => {
  const sites = await librarySites();
  assert(sites.length > 80, `only ${sites.length} kernels were found in the sources`);
  const profile = PROFILES.at(-1)!;
  const names = new Set([...await modelKernels(profile), ...await productKernels(profile)].map(({ name }) => name));
  assertEquals(missing(sites, names), []);
  // A kernel that never comes up is found.
  const [forgotten] = sitesOf("kernels/new.ts", 'defineKernel({\n  name: "new_kernel",\n');
  assertEquals(missing([forgotten!], names).length, 1);
});

Deno.test("configurations go through the tables of the library", () => {
  const found = configurations().map(({ activation }) => activation as Record<string, unknown>);
  const keys = (name: string) => new Set(found.map((activation) => (activation[name] as { key?: string })?.key));
  assertEquals(new Set(found.map(({ key }) => key)), new Set(Object.keys(ACTIVATIONS)));
  for (const key of Object.keys(SPARSITIES)) assert(keys("sparsity").has(key), key);
  for (const key of Object.keys(AUXILIARIES)) assert(keys("aux").has(key), key);
});

Deno.test("forms of a kernel are joined, from textures, of f16, and all of it", async () => {
  const kernel = (await productKernels(PROFILES.at(-1)!)).find(({ bindings }) => "bias" in bindings)!;
  const forms = everyForm(kernel);
  assertEquals(forms[0]!.wgsl, kernel.wgsl);
  assertEquals(new Set(forms.map(({ wgsl }) => wgsl)).size, forms.length);
  assert(forms.some(({ isJoined, textures, f16 }) => isJoined && textures.has("a") && f16.has("b")));
});
