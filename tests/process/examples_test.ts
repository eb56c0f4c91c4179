/**
 * What the documentation shows runs: the examples in doc comments, and the program in the README.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { load } from "../../mod.ts";

const ROOT = new URL("../../", import.meta.url);

/** Modules with examples in their doc comments. */
const DOCUMENTED = [
  "data/examination.ts",
  "data/finite.ts",
  "data/row_file.ts",
  "data/rows.ts",
  "eval/evaluate.ts",
  "eval/latents.ts",
  "eval/probes.ts",
  "eval/stability.ts",
  "eval/undefined_metrics.ts",
  "io/checkpoints/checkpoint.ts",
  "io/mod.ts",
  "kernels/engine/tuner.ts",
  "mod.ts",
  "nn/intervene.ts",
  "nn/sparse_autoencoder.ts",
  "train/train.ts",
  "train/training_file.ts",
];

async function deno(args: string[], cwd: URL | string): Promise<{ code: number; stdout: string; stderr: string }> {
  const output = await new Deno.Command(Deno.execPath(), { args, cwd, env: { NO_COLOR: "1" } }).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code: output.code, stdout: stdout!, stderr: stderr! };
}

async function hasExample(path: string): Promise<boolean> {
  return /^ *\* ```ts$/m.test(await Deno.readTextFile(new URL(path, ROOT)));
}

/** The modules below a folder that have an example. */
async function* withExamples(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, ROOT))) {
    const path = `${folder}/${name}`;
    if (isDirectory) yield* withExamples(path);
    else if (name.endsWith(".ts") && await hasExample(path)) yield path;
  }
}

Deno.test("the examples in doc comments type-check and run", async () => {
  const { stdout, stderr } = await deno(["test", "-A", "--doc", ...DOCUMENTED], ROOT);
  assertMatch(stdout, /ok \| \d+ passed \| 0 failed/, stderr);
  for (const module of DOCUMENTED) {
    assertMatch(stdout, new RegExp(`${module.replace(".", "\\.")}\\$|${module}`), module);
  }
});

Deno.test("examples use what they import", async () => {
  let n_names = 0;
  for (const module of DOCUMENTED) {
    const text = await Deno.readTextFile(new URL(module, ROOT));
    for (const [, example] of text.matchAll(/^ *\* ```ts\n(.*?)^ *\* ```/gms)) {
      const imports = [...example!.matchAll(/import (?:type )?\{([^}]*)\} from/g)];
      for (const name of imports.flatMap(([, names]) => names!.match(/\w+(?= *(?:,|$))/g) ?? [])) {
        n_names++;
        assert(example!.split(new RegExp(`\\b${name}\\b`)).length > 2, `${module}: ${name} is not used`);
      }
    }
  }
  assert(n_names > DOCUMENTED.length, `${n_names} names`);
});

Deno.test("every example in a doc comment is among them", async () => {
  const found: string[] = [];
  for (const folder of ["cli", "data", "eval", "io", "kernels", "nn", "objectives", "runner", "train"]) {
    found.push(...await Array.fromAsync(withExamples(folder)));
  }
  if (await hasExample("mod.ts")) found.push("mod.ts");
  assertEquals(found.sort(), DOCUMENTED.toSorted());
});

Deno.test("the README's program type-checks, runs, and leaves a checkpoint", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", ROOT));
  const program = /```ts\n(.*?)```/s.exec(readme)![1]!
    .replace('"@saev/nn"', JSON.stringify(new URL("mod.ts", ROOT).href))
    .replace('"@saev/nn/train"', JSON.stringify(new URL("train/mod.ts", ROOT).href));
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/program.ts`, program);
    const { code, stdout, stderr } = await deno(["run", "-A", "--check", "program.ts"], folder);
    assertEquals(code, 0, stderr);
    assertMatch(stdout, /^25 \d/m);
    assertMatch(stdout, /^50 \d/m);
    using sae = await load(`${folder}/sae.pt`);
    assert(sae.cfg.d_sae === 512);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
