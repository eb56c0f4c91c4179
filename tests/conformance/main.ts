/**
 * Prints the conformance table and the bugs of the field; ends with 1 where a cell is not as it must be.
 *
 * @module
 */

import { everyProblem, gatedProblems, type Sizes } from "../reference/problems.ts";
import { loadMatryoshkaGoldens } from "../support/goldens.ts";
import { requestDevice } from "../../kernels/engine/device.ts";
import { checkDifferences, checkGolden, checkStep } from "./checks.ts";
import { EXPECTATION_BUGS, survives, WGSL_BUGS } from "./field_bugs.ts";

let n_failed = 0;

async function cell(check: () => void | Promise<void>): Promise<string> {
  try {
    await check();
    return "ok";
  } catch (error) {
    n_failed++;
    return `FAILED: ${(error instanceof Error ? error.message : String(error)).split("\n")[0]}`;
  }
}

const device = await requestDevice();
const goldens = loadMatryoshkaGoldens();
const problems = (sizes: Sizes, seed: number) => [...everyProblem(sizes, seed), ...gatedProblems(sizes, seed)];
const small = problems({ B: 5, D: 6, S: 13 }, 1);
console.log(
  "| problem | float64 against differences | GPU against float64 | GPU against PyTorch |\n| --- | --- | --- | --- |",
);
for (const [at, example] of problems({ B: 9, D: 20, S: 45 }, 4).entries()) {
  const { cfg: { activation: { key, aux }, subtract_b_dec }, prefixes } = example.problem;
  const golden = goldens.find((golden) =>
    !subtract_b_dec && golden.cfg.activation!.key === key && golden.prefixes.length === prefixes.length &&
    golden.cfg.activation!.aux!.key === aux.key && (aux.key !== "auxk" || (aux.include_b_dec && !aux.normalize))
  );
  const cells = [
    await cell(() => checkDifferences(small[at]!)),
    await cell(() => checkStep(example, { device })),
    golden ? await cell(() => checkGolden(golden, device)) : "n/a: not among the goldens",
  ];
  console.log(`| ${[example.name, ...cells].join(" | ")} |`);
}
console.log("\n| bug | seen in | caught by | |\n| --- | --- | --- | --- |");
for (const bug of [...WGSL_BUGS, ...EXPECTATION_BUGS]) {
  const why = await survives(bug);
  if (why !== null) n_failed++;
  console.log(`| ${bug.name} | ${bug.origin} | ${bug.check} | ${why ?? "caught"} |`);
}
device.destroy();
Deno.exit(n_failed > 0 ? 1 : 0);
