/**
 * Configurations that nobody thought of: codes, loss, gradients and training steps are the reference's for those that
 * fast-check draws.
 *
 * @module
 */
import fc from "fast-check";
import { sharedDevice } from "../support/gpu.ts";
import { checkCodes, checkLoss, checkTraining } from "./drawn_checks.ts";
import { decidedOnly } from "./decided.ts";
import { drawn } from "./drawn.ts";
import { trialOf } from "./trial.ts";

for (
  const [what, check, numRuns] of [
    ["codes and reconstructions", checkCodes, 24],
    ["loss and gradients", checkLoss, 24],
    ["three training steps", checkTraining, 24],
  ] as const
) {
  Deno.test(`${what} are the reference's, whatever the configuration`, async () => {
    const device = await sharedDevice();
    const property = fc.asyncProperty(drawn, decidedOnly((draw) => check(trialOf(draw), device)));
    await fc.assert(property, { seed: 1, numRuns });
  });
}
