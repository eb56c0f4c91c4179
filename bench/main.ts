/**
 * `deno task bench`: the adapter's ceilings, the matrix products, and the training step by phase, in one run.
 *
 * `--json` prints the same as one JSON document.
 */

import { flopsOf, Product, shapeName, SHAPES } from "./matmul_shapes.ts";
import { best, type Row, table, timedDevice } from "./measure.ts";
import { roofline } from "./roofline.ts";
import { STEPS, timeStep } from "./step.ts";

const unknown = Deno.args.filter((argument) => argument !== "--json");
if (unknown.length > 0) {
  console.error(`error: unknown argument ${unknown[0]}; this takes --json or nothing`);
  Deno.exit(2);
}
const json = Deno.args.includes("--json");
const say = (text: string) => json || console.log(text);

const device = await timedDevice();
const adapter = device.adapterInfo.description || device.adapterInfo.vendor;
say(`${adapter}; Deno ${Deno.version.deno}; ${navigator.hardwareConcurrency} cores`);

const ceilings = await roofline(device);
say(`multiply-add peak ${ceilings.gflops.toFixed(1)} GFLOP/s, copy ${ceilings.gbytes.toFixed(1)} GB/s\n`);

const products: Row[] = [];
for (const shape of SHAPES) {
  using product = new Product(device, shape);
  const gflops = flopsOf(shape) / await best(device, 3, () => product.run(1)) / 1e6;
  products.push({ product: shapeName(shape), "GFLOP/s": gflops, "% of peak": 100 * gflops / ceilings.gflops });
}
say(`${table(products)}\n`);

const steps: Row[] = [];
for (const shape of STEPS) {
  const phases = await timeStep(device, shape);
  const total = phases.get("total")!;
  const encoder = phases.get("encoder product")!;
  for (const [phase, milliseconds] of phases) {
    steps.push({
      step: `${shape.name} (B ${shape.B}, D ${shape.D}, S ${shape.S}, k ${shape.k || "-"})`,
      phase,
      ms: milliseconds,
      "% of step": 100 * milliseconds / total,
      "/ encoder": milliseconds / encoder,
    });
  }
}
say(table(steps));
if (json) console.log(JSON.stringify({ adapter, deno: Deno.version.deno, ceilings, products, steps }));
Deno.exit();
