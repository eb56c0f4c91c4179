/**
 * Runs tests of the kernels on Dawn, the WebGPU of Chrome, over Mesa's software driver: `deno task test:dawn` all of them,
 * with `--quick` those that take seconds, or those of the files that are named.
 *
 * @module
 */

import { mesaEnvironment } from "./mesa.ts";

/** Tests that compile few kernels: Dawn's shaders take Mesa's software driver several times as long as Deno's. */
const QUICK = [
  "clip_test.ts",
  "csr_columns_test.ts",
  "csr_to_dense_test.ts",
  "elementwise_test.ts",
  "listed_rows_test.ts",
  "random_test.ts",
  "transpose_test.ts",
  "engine/device_test.ts",
  "engine/kernel_test.ts",
  "engine/tensor_test.ts",
  "engine/timings_test.ts",
  "forms/form_test.ts",
  "forms/joined_lists_test.ts",
  "forms/texture_copies_test.ts",
].map((name) => `tests/kernels/${name}`);

const isQuick = Deno.args.includes("--quick");
const named = Deno.args.filter((arg) => arg !== "--quick");
const files = isQuick ? QUICK : named.length > 0 ? named : ["tests/kernels"];
const preload = new URL("./dawn_preload.ts", import.meta.url).pathname;
const child = new Deno.Command(Deno.execPath(), {
  args: ["test", "-A", "--no-lock", "--parallel", `--preload=${preload}`, ...files],
  env: { ...await mesaEnvironment("lvp"), NO_COLOR: "1" },
  stdout: "piped",
}).spawn();
let summary = "";
for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
  await Deno.stdout.write(new TextEncoder().encode(text));
  summary = (summary + text).slice(-4096);
}
const { code } = await child.status;
const [, n_passed = "0", n_failed = "0"] =
  [...summary.matchAll(/^(?:ok|FAILED) \| (\d+) passed(?: \(\d+ steps?\))? \| (\d+) failed/gm)].at(-1) ?? [];
// Mesa's software driver now and then aborts the process while it exits, after the summary.
const failed = n_passed === "0" ? 1 : Number(n_failed);
console.log(`${n_passed} passed, ${failed} failed`);
Deno.exit(failed > 0 ? 1 : code >= 128 ? 0 : code);
