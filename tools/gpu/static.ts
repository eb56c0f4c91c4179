/**
 * Compiles the GPU forms of all kernels for AMD's GPUs, without any, and compares with the committed table:
 * `deno task gpu:static`, with `--write` to write the table anew. A spill fails, and so do fewer waves than in the table.
 * Another version of Mesa prints its own table and fails nothing.
 *
 * @module
 */

import { figuresOf, type Kernels, parseTable, regressions, type Table, tableText } from "./figures.ts";
import { mesaEnvironment } from "./mesa.ts";
import type { Compiled } from "./radv.ts";
import { runScript } from "./script.ts";

/** The GPUs, of four generations, by Mesa's names. */
const FAMILIES = { vega10: "Vega", navi21: "RDNA 2", navi31: "RDNA 3", gfx1201: "RDNA 4" } as const;

const TABLE = new URL("./radv_table.json", import.meta.url);

const folder = await Deno.makeTempDir();
const families: Record<string, Kernels> = {};
let mesa = "";
try {
  await Deno.mkdir(`${folder}/dump`);
  await runScript("./spirv.ts", [folder], { ...await mesaEnvironment("lvp"), MESA_SPIRV_DUMP_PATH: `${folder}/dump` });
  const radv = await mesaEnvironment("radeon");
  for (const family of Object.keys(FAMILIES)) {
    const printed = await runScript("./radv.ts", [`${folder}/list.json`], { ...radv, RADV_FORCE_FAMILY: family });
    const compiled = JSON.parse(printed) as Compiled;
    mesa = compiled.version;
    families[family] = figuresOf(compiled);
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
const found: Table = { mesa, compiler: `naga of Deno ${Deno.version.deno}`, families };
if (Deno.args.includes("--write")) await Deno.writeTextFile(TABLE, tableText(found));
const wanted = parseTable(await Deno.readTextFile(TABLE));
let [n_passed, n_failed] = [0, 0];
if (mesa !== wanted.mesa) {
  console.log(tableText(found));
  console.log(`This is Mesa ${mesa}; the table is of Mesa ${wanted.mesa}, so that nothing is compared.`);
} else {
  console.log(`Mesa ${mesa}, ${found.compiler}; the table: ${wanted.compiler}`);
  for (const [family, name] of Object.entries(FAMILIES)) {
    const worse = regressions(families[family]!, wanted.families[family]);
    const n_rows = Object.keys(families[family]!).length;
    for (const sentence of worse) console.log(`FAILED: ${name}: ${sentence}`);
    console.log(`${name} (${family}): ${n_rows} rows`);
    n_failed += worse.length;
    n_passed += Math.max(0, n_rows - worse.length);
  }
  if (n_failed > 0) console.log("If it must be so: deno task gpu:static --write");
}
console.log(`${n_passed} passed, ${n_failed} failed`);
Deno.exit(n_failed > 0 ? 1 : 0);
