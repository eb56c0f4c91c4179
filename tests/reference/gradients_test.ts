/**
 * Every gradient of the reference against central differences: every parameter, both encoders, every activation, penalty
 * and auxiliary loss, one prefix and four, with dead latents present. What a step decides is held at the base point, so
 * the loss is quadratic in each single parameter, but for lengths of rows and hyperbolic tangents, which five points
 * follow closely enough.
 *
 * @module
 */

import { assert } from "@std/assert";
import { assertFiniteDifference } from "../support/tolerance.ts";
import { parameterNames, type Parameters, widen } from "./model.ts";
import { type Decisions, forward, lossAndGradients, type Problem } from "./objective.ts";
import { everyProblem } from "./problems.ts";

const H = 1e-3;

for (const { name, problem, p } of everyProblem({ B: 5, D: 6, S: 13 }, 1)) {
  Deno.test(`gradients are differences of the loss: ${name}`, () => {
    const { decisions, record, gradients } = lossAndGradients(problem, p);
    if (problem.cfg.activation.aux.key !== "no-aux") assert(record.loss.aux > 0, "dead latents take part");
    for (const parameter of parameterNames(p)) {
      const differences = centralDifferences(problem, p, decisions, parameter);
      assertFiniteDifference(gradients[parameter]!, differences, parameter);
      assert(differences.some((difference) => Math.abs(difference) > H), `${parameter} has a gradient to check`);
    }
  });
}

function centralDifferences(
  problem: Problem,
  p: Parameters,
  decisions: Decisions,
  parameter: keyof Parameters,
): Float64Array {
  const moved = widen(p);
  const values = moved[parameter]!;
  return values.map((value, i) => {
    const at = (steps: number): number => {
      values[i] = value + steps * H;
      return forward(problem, moved, decisions).loss.loss;
    };
    const difference = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * H);
    values[i] = value;
    return difference;
  });
}
