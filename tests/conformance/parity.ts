/**
 * Draws configurations and compares a training step of each with the float64 reference: `deno task parity SEED COUNT`.
 * Ends with 1 at the first that differs, shrunk to the smallest that does.
 *
 * @module
 */

import fc from "fast-check";
import { requestDevice } from "../../kernels/engine/device.ts";
import { checkStep } from "./checks.ts";
import { drawn, exampleOf } from "./drawn.ts";

const [seed = 1, numRuns = 1000] = Deno.args.map(Number);
const device = await requestDevice();
const property = fc.asyncProperty(drawn, (draw) => checkStep(exampleOf(draw), { device }));
const { failed, numRuns: made, counterexample, errorInstance } = await fc.check(property, { seed, numRuns });
device.destroy();
if (failed) {
  console.error(`seed ${seed}, after ${made}: ${JSON.stringify(counterexample?.[0])}\n${errorInstance}`);
  Deno.exit(1);
}
console.log(`seed ${seed}: ${made} configurations, loss and gradients as the float64 reference has them`);
Deno.exit(0);
