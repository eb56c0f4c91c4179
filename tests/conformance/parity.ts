/**
 * Draws configurations, after the corners, and compares codes, loss, gradients and three training steps of each with the
 * float64 reference: `deno task parity SEED COUNT`. Ends with 1 at the first that differs, shrunk to the smallest that does,
 * and with 2 for arguments that are not whole numbers.
 *
 * @module
 */

import fc from "fast-check";
import { requestDevice } from "../../kernels/engine/device.ts";
import { CORNERS } from "./corners.ts";
import { decidedOnly } from "./decided.ts";
import { drawn } from "./drawn.ts";
import { checkCodes, checkLoss, checkTraining } from "./drawn_checks.ts";
import { trialOf } from "./trial.ts";

const [seed = 1, numRuns = 1000] = Deno.args.map(Number);
if (!Number.isInteger(seed) || !Number.isInteger(numRuns) || numRuns < 1 || Deno.args.length > 2) {
  console.error(
    `error: parity takes SEED and COUNT, whole numbers with COUNT at least 1, found ${Deno.args.join(" ")}`,
  );
  Deno.exit(2);
}
const device = await requestDevice();
const corners = [...CORNERS.values()];
const property = fc.asyncProperty(
  drawn,
  decidedOnly(async (draw) => {
    for (const check of [checkCodes, checkLoss, checkTraining]) await check(trialOf(draw), device);
  }, corners),
);
const { failed, numRuns: made, numSkips, counterexample, errorInstance } = await fc.check(property, {
  seed,
  numRuns: corners.length + numRuns,
  examples: corners.map((corner) => [corner]),
});
device.destroy();
if (failed) {
  console.error(`seed ${seed}, after ${made}: ${JSON.stringify(counterexample?.[0])}\n${errorInstance}`);
  Deno.exit(1);
}
console.log(
  `seed ${seed}: codes, loss, gradients and three training steps of ${corners.length} corners and ${numRuns} drawn ` +
    `configurations are those of the float64 reference; float32 cannot decide ${numSkips} more`,
);
Deno.exit(0);
