/**
 * Configurations that nobody thought of: loss, gradients and training steps are the reference's for those that fast-check
 * draws.
 *
 * @module
 */
import fc from "fast-check";
import { sharedDevice } from "../support/gpu.ts";
import { checkStep, checkTrainSteps } from "./checks.ts";
import { drawn, exampleOf } from "./drawn.ts";

Deno.test("loss and gradients are the reference's, whatever the configuration", async () => {
  const device = await sharedDevice();
  const property = fc.asyncProperty(drawn, (draw) => checkStep(exampleOf(draw), { device }));
  await fc.assert(property, { seed: 1, numRuns: 40 });
});

Deno.test("three training steps are the reference's, whatever the configuration", async () => {
  const device = await sharedDevice();
  const property = fc.asyncProperty(drawn, (draw) => checkTrainSteps(exampleOf(draw), device));
  await fc.assert(property, { seed: 1, numRuns: 20 });
});
