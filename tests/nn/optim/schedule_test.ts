/**
 * The schedules give upstream's values, exactly but for the last bits of a cosine.
 *
 * @module
 */

import { warmup, warmupCosine } from "../../../nn/optim/schedule.ts";
import { loadGoldens } from "../../support/goldens.ts";
import { assertExact, assertScheduleClose } from "../../support/tolerance.ts";

for (const { init, final, n_steps, values } of loadGoldens("warmup")) {
  Deno.test(`warmup from ${init} to ${final} in ${n_steps} steps`, () => {
    assertExact(values.map((_, i) => warmup(init, final, n_steps).at(i + 1)), values);
  });
}

for (const { args, values } of loadGoldens("warmup_cosine")) {
  Deno.test(`warmupCosine(${args})`, () => {
    assertScheduleClose(values.map((_, i) => warmupCosine(...args).at(i + 1)), values);
  });
}
