/** Every kernel is measured, by what it costs: alone in a row, or in a step. @module */

import { assert, assertEquals } from "@std/assert";
import { KERNEL_ROWS, KernelRun, type KernelSizes } from "../../bench/kernel_rows.ts";
import { STEPS, stepsOf } from "../../bench/step.ts";
import { contextOf, type DispatchTimings } from "../../kernels/mod.ts";
import { sharedDevice } from "../support/gpu.ts";

const ROOT = new URL("../../", import.meta.url);

/** Few enough numbers for a test. */
const SMALL: KernelSizes = {
  B: 40,
  D: 8,
  S: 64,
  k: 2,
  products: (["nt", "nn", "tn", "nt", "nt"] as const).map((layout) => ({ layout, M: 8, N: 8, K: 8 })),
};

/** A kernel of a file; what its name is made from is any text. */
interface Declared {
  readonly file: string;
  readonly name: RegExp;
}

/** The kernels that the files of a folder declare. */
async function declaredIn(folder: string): Promise<Declared[]> {
  const declared: Declared[] = [];
  for await (const { name: entry, isFile } of Deno.readDir(new URL(folder, ROOT))) {
    if (!isFile) continue;
    const file = entry.replace(/\.ts$/, "");
    const text = await Deno.readTextFile(new URL(`${folder}/${entry}`, ROOT));
    const found = [...text.matchAll(/\bdefineKernel\(\{[^]*?\bname: (?:"([^"]*)"|`([^`]*)`)/g)];
    assertEquals(found.length, [...text.matchAll(/\bdefineKernel\(/g)].length, `${folder}/${entry}: a kernel's name`);
    for (const [, plain, template] of found) {
      declared.push({ file, name: new RegExp(`^${plain ?? template!.replaceAll(/\$\{[^}]*\}/g, ".*")}$`) });
    }
  }
  return declared;
}

Deno.test("a row of its file runs every kernel of kernels/, and its cost says what that is", async () => {
  const context = contextOf(await sharedDevice());
  const ran = new Map<string, string[]>();
  for (const row of KERNEL_ROWS) {
    using run = new KernelRun(context, row, SMALL);
    const { kernels, cost } = run.run(2);
    ran.set(row.file, [...ran.get(row.file) ?? [], ...kernels]);
    assert(cost.flops + cost.bytes > 0, `${row.file}, ${row.name}`);
  }
  await context.device.queue.onSubmittedWorkDone();
  const missing = (await declaredIn("kernels")).filter(({ file, name }) =>
    !ran.get(file)?.some((run) => name.test(run))
  );
  assertEquals(missing, []);
});

Deno.test("a step of the bench runs every kernel of nn/, objectives/ and train/", async () => {
  const context = contextOf(await sharedDevice());
  const names = new Set<string>();
  context.timings = {
    writesOf(name: string) {
      names.add(name);
      return undefined;
    },
  } as unknown as DispatchTimings;
  await using stack = new AsyncDisposableStack();
  for (const shape of STEPS) {
    const small = { ...shape, B: 16, D: 8, S: 64, P: Math.min(shape.P, 2), n_dead: Math.min(shape.n_dead, 8) };
    const { activation } = shape;
    const steps = await stepsOf(context.device, {
      ...small,
      ...("top_k" in activation && { activation: { ...activation, top_k: 4 } }),
    }, stack);
    await steps.next();
    await steps.return();
  }
  context.timings = undefined;
  const folders = ["nn", "nn/activations", "nn/optim", "objectives", "train"];
  const declared = (await Promise.all(folders.map(declaredIn))).flat();
  assertEquals(declared.filter(({ name }) => !names.values().some((ran) => name.test(ran))), []);
});
