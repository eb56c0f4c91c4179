/**
 * `deno task bench`: the adapter's ceilings, the matrix products, those with f16 weights, the training step by kernel
 * and by phase, small steps on a stream, and the peers, in one run.
 *
 *     deno task bench [--json] [--svg FILE] [--no-peers] [--python PYTHON]
 *
 * `--json` prints the results as one JSON document; `--svg` draws the phases of the steps. The peers take most of the
 * time.
 */

import { parseArgs } from "@std/cli/parse-args";
import { stackedBars } from "./chart.ts";
import { timeF16 } from "./f16.ts";
import { flopsOf, shapeName, SHAPES, timeProducts } from "./matmul_shapes.ts";
import { peers, productPeers } from "./peers.ts";
import { type Row, table, timedDevice } from "./measure.ts";
import { roofline } from "./roofline.ts";
import { kernelRows, phasesOf, STEPS, type StepShape, timeSteps } from "./step.ts";
import { timeStream } from "./stream.ts";
import { restoreTuning } from "../kernels/mod.ts";
import { TunerFile } from "../runner/mod.ts";

const unknown: string[] = [];
const args = parseArgs(Deno.args, {
  boolean: ["json", "peers"],
  string: ["svg", "python"],
  negatable: ["peers"],
  default: { peers: true, python: "python3" },
  unknown: (argument) => void unknown.push(argument),
});
if (unknown.length > 0) {
  console.error(`error: unknown argument ${unknown[0]}; expected --json, --svg FILE, --no-peers or --python PYTHON`);
  Deno.exit(2);
}
const { json } = args;
const say = (text: string) => json || console.log(text);

const device = await timedDevice();
const adapter = device.adapterInfo.description || device.adapterInfo.vendor;
say(`${adapter}; Deno ${Deno.version.deno}; ${navigator.hardwareConcurrency} cores`);

const tuned = await restoreTuning(device, await TunerFile.open());
if (tuned > 0) say(`using the results of saev tune for ${tuned} kinds of product`);

const ceilings = await roofline(device);
say(`multiply-add peak ${ceilings.gflops.toFixed(1)} GFLOP/s, copy ${ceilings.gbytes.toFixed(1)} GB/s\n`);

const products = (await timeProducts(device, SHAPES)).map(({ shape, tile, ms }): Row => {
  const gflops = flopsOf(shape) / ms / 1e6;
  return { product: shapeName(shape), tile, "GFLOP/s": gflops, "% of peak": 100 * gflops / ceilings.gflops };
});
say(`${table(products)}\n`);
const f16 = await timeF16(device);
say(`${table(f16)}\n`);

const productSize = ({ B, D, S }: StepShape) => B * D * S;
const steps: Row[] = [];
const kernels: Row[] = [];
const bars = [];
// The machine has fast and slow minutes: every step should meet a fast one.
const stepTimes = await timeSteps(device, STEPS, 8);
for (const [i, shape] of STEPS.entries()) {
  const step = `${shape.name} (B ${shape.B}, D ${shape.D}, S ${shape.S}, k ${
    "top_k" in shape.activation ? shape.activation.top_k : "-"
  })`;
  const times = stepTimes[i]!;
  const phases = phasesOf(times, shape);
  const total = phases.get("total")!;
  // If the product cannot be separated from others, the first step's product gives the time for this size.
  const encoder = phases.get("encoder product") ??
    phasesOf(stepTimes[0]!, STEPS[0]!).get("encoder product")! * productSize(shape) / productSize(STEPS[0]!);
  const parts = [...phases].filter(([phase]) => phase !== "total");
  bars.push({ label: shape.name, parts: parts.map(([phase, ms]): [string, number] => [phase, ms / encoder]) });
  const rows = kernelRows(times, ceilings);
  say(`${step}\n${table(rows)}\n`);
  kernels.push(...rows.map((row) => ({ step, ...row })));
  for (const [phase, milliseconds] of phases) {
    steps.push({
      step,
      phase,
      ms: milliseconds,
      "% of step": 100 * milliseconds / total,
      "/ encoder": milliseconds / encoder,
    });
  }
}
say(`${table(steps)}\n`);
if (args.svg) {
  await Deno.writeTextFile(
    String(args.svg),
    stackedBars(`Training steps as multiples of their encoder product, ${adapter}`, bars),
  );
}
const stream = await timeStream(device);
say(`${table(stream)}\n`);
const engines = args.peers ? await productPeers(device) : [];
if (args.peers) say(`${table(engines)}\n`);
const others = args.peers ? await peers(device, { python: String(args.python) }) : [];
if (args.peers) say(table(others));
if (json) {
  const deno = Deno.version.deno;
  console.log(
    JSON.stringify({ adapter, deno, ceilings, products, f16, kernels, steps, stream, engines, peers: others }),
  );
}
Deno.exit();
