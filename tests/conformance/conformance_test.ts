/**
 * The conformance suite: every formula × activation × auxiliary loss × number of prefixes, with all penalties in turn,
 * b_dec ≠ 0 and dead latents present.
 *
 * @module
 */

import { everyProblem, gatedProblems } from "../reference/problems.ts";
import { sharedDevice } from "../support/gpu.ts";
import { checkDifferences, checkStep } from "./checks.ts";
import { EXPECTATION_BUGS, survives, WGSL_BUGS } from "./field_bugs.ts";
import { assertEquals } from "@std/assert";

const sizes = { differences: { B: 5, D: 6, S: 13 }, steps: { B: 9, D: 20, S: 45 } };

for (const example of [...everyProblem(sizes.differences, 1), ...gatedProblems(sizes.differences, 1)]) {
  Deno.test(`gradients are differences of the loss: ${example.name}`, () => checkDifferences(example));
}

for (const example of [...everyProblem(sizes.steps, 4), ...gatedProblems(sizes.steps, 4)]) {
  Deno.test(`loss and gradients are the reference's: ${example.name}`, async () => {
    await checkStep(example, { device: await sharedDevice() });
  });
}

for (const bug of [...WGSL_BUGS, ...EXPECTATION_BUGS]) {
  Deno.test(`a bug of the field is caught: ${bug.name}`, async () => {
    assertEquals(await survives(bug), null);
  });
}
