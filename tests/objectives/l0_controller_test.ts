/**
 * The controller of L0: every weight of a run against float64, its bounds, and that a halted run stays as it was.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Sparsity } from "../../nn/loss_terms.ts";
import { penaltyWeight } from "../../objectives/l0_controller.ts";
import { control, FRESH } from "../reference/controller.ts";
import { check, type KernelCase, mutants } from "../support/kernel_harness.ts";
import { Random } from "../support/random.ts";
import { assertSumBound } from "../support/tolerance.ts";

const N_ROWS = 3;
const TARGET = 16;
const L1: Sparsity = { key: "l1-sparsity", coeff: 0.25 };
const L0: Sparsity = { key: "l0-sparsity", coeff: 0.25 };

/** Roundings of one step of the controller, its logarithms and exponentials, each of which remains in its state. */
const OPERATIONS = 24;

interface Run {
  readonly sparsity: Sparsity;
  /** One a step. */
  readonly l0s: readonly number[];
  readonly lr: number;
  /** Steps until the reference is at the target at the latest; that never matters if left out. */
  readonly stepsToTarget?: number;
  /** From this step on, nothing is learned any more. */
  readonly haltedFrom?: number;
}

/** Records a run of the controller, and expects of every step what float64 says. */
function controlledRun({ sparsity, l0s, lr, stepsToTarget = Infinity, haltedFrom = Infinity }: Run): KernelCase {
  return (gpu) => {
    const [state, running, halted] = [gpu.f32([0, 0]), gpu.u32([0]), gpu.u32([1])];
    const isOnL0 = sparsity.key === "l0-sparsity";
    let kept = FRESH;
    l0s.forEach((l0, step) => {
      const [weight, slope] = [gpu.out(1), gpu.out(1)];
      const isHalted = step >= haltedFrom;
      penaltyWeight(gpu.commands, {
        sparsity,
        factor: 0.5,
        lr,
        stepsToTarget: stepsToTarget - step,
        totals: gpu.f32([-1, l0 * N_ROWS, -1]),
        l0At: 1,
        n_rows: N_ROWS,
        weight,
        slope,
        controlled: { control: state, halted: isHalted ? halted : running, target_l0: TARGET },
        unused: { control: state, halted },
      });
      const { next, factor } = control(kept, {
        l0,
        target_l0: TARGET,
        lr,
        stepsToTarget: stepsToTarget - step,
        isOnL0,
      });
      // The size of the two terms that the factor is the sum of, the second with a logarithm of about 1.
      const scale = 14 * Math.cosh(next.integral);
      if (!isHalted) kept = next;
      for (const tensor of [weight, slope]) {
        gpu.expect(tensor, (got) => {
          assertSumBound(got, [0.125 * factor], 0.125 * scale, OPERATIONS * (step + 1), `weight ${step}`);
        });
      }
    });
    const { integral, reference } = kept;
    gpu.expect(state, (got) => {
      assertSumBound(got, [integral - FRESH.integral, reference], [1, reference], OPERATIONS * l0s.length, "state");
    });
  };
}

/** L0 that comes down from 100 and goes a little too far. */
const FALLING = Array.from({ length: 40 }, (_, step) => Math.max(11, Math.round(100 * Math.exp(-step / 10))));
/** L0 that does not follow, and at last goes the other way; 0 is less than what the controller asks the logarithm of. */
const STUCK_ABOVE: readonly number[] = [...Array(40).fill(100), 300, 300];
const STUCK_BELOW: readonly number[] = [...Array(40).fill(4), 0, 0];
const RUNS: readonly Run[] = [
  { sparsity: L1, l0s: FALLING, lr: 2e-3 },
  { sparsity: L0, l0s: FALLING, lr: 1e-3 },
  { sparsity: L0, l0s: FALLING, lr: 1 },
  { sparsity: L0, l0s: Array.from(new Random(3).integers(40), (value) => 16 + value), lr: 5e-3 },
  { sparsity: L0, l0s: FALLING, lr: 2e-3, haltedFrom: 20 },
  { sparsity: L1, l0s: FALLING, lr: 0 },
  { sparsity: L1, l0s: FALLING, lr: 5e-3 },
  { sparsity: L0, l0s: FALLING, lr: 1e-4, stepsToTarget: 12 },
  { sparsity: L1, l0s: STUCK_BELOW, lr: 1e-3, stepsToTarget: 12.5 },
  { sparsity: L1, l0s: STUCK_ABOVE, lr: 4e-3 },
  { sparsity: L0, l0s: STUCK_ABOVE, lr: 4e-3 },
  { sparsity: L0, l0s: STUCK_BELOW, lr: 3e-3 },
];

for (const given of RUNS) {
  const { sparsity, lr, haltedFrom } = given;
  const name = `${sparsity.key}, rate ${lr}${haltedFrom === undefined ? "" : ", halted"}`;
  Deno.test(`the controller of L0 is that of float64: ${name}`, async () => await check(controlledRun(given)));
}

Deno.test("too few codes make a penalty on L0 a reward, and end one on the codes", () => {
  for (const isOnL0 of [true, false]) {
    let kept = FRESH;
    const factors = FALLING.map((l0) => {
      const { next, factor } = control(kept, { l0, target_l0: TARGET, lr: 2e-3, isOnL0 });
      kept = next;
      return factor;
    });
    assertEquals([factors.some((factor) => factor < 0), factors.includes(0)], [isOnL0, !isOnL0]);
  }
});

Deno.test("the reference goes as fast as the rate, and where steps are few it is there in time", () => {
  const references = (lr: number, stepsToTarget: number) => {
    let kept = FRESH;
    return FALLING.map((l0, step) => {
      kept = control(kept, { l0, target_l0: TARGET, lr, stepsToTarget: stepsToTarget - step, isOnL0: false }).next;
      return kept.reference.toFixed(6);
    });
  };
  const slowly = references(2e-3, Infinity);
  assertEquals([slowly[0], slowly[39]], [0, 39].map((step) => (100 * Math.exp(-0.003 * (step + 1))).toFixed(6)));
  const inTime = references(2e-3, 10);
  assertEquals([inTime[4], inTime[9], inTime[39]], [Math.sqrt(100 * TARGET), TARGET, TARGET].map((r) => r.toFixed(6)));
});

Deno.test("the reference of a penalty on L0 waits for an L0 that does not follow, down and up", () => {
  for (const [l0s, waitsAt] of [[STUCK_ABOVE, 100 / 1.35], [STUCK_BELOW, 4 * 1.35]] as const) {
    let kept = FRESH;
    const references = l0s.map((l0) => {
      kept = control(kept, { l0, target_l0: TARGET, lr: 4e-3, isOnL0: true }).next;
      return kept.reference.toFixed(6);
    });
    assertEquals(references.slice(-3), Array(3).fill(waitsAt.toFixed(6)));
  }
});

Deno.test("mutants of the controller are found", async () => {
  await mutants("penalty_weight", [
    ["control[1] = reference", "control[1] = reached"],
    ["dims.gain * error", "dims.gain"],
    ["- 1.0 / growth", "+ 1.0 / growth"],
    ["max(factor,", "max(0.0,"],
    ["if (halted[0] == 0u)", "if (true)"],
  ], controlledRun({ sparsity: L0, l0s: FALLING, lr: 2e-3, haltedFrom: 20 }));
  await mutants("penalty_weight", [
    ["max(dims.pace, dims.least_part * abs(distance))", "dims.pace"],
  ], controlledRun({ sparsity: L1, l0s: FALLING, lr: 1e-4, stepsToTarget: 12 }));
  await mutants("penalty_weight", [
    ["max(dims.pace, dims.least_part * abs(distance))", "dims.least_part * abs(distance)"],
    ["-most, most", "-most, 0.0"],
  ], controlledRun({ sparsity: L1, l0s: STUCK_BELOW, lr: 1e-3, stepsToTarget: 2000 }));
  const [above, below] = [STUCK_ABOVE, STUCK_BELOW].map((l0s) => controlledRun({ sparsity: L0, l0s, lr: 4e-3 }));
  await mutants("penalty_weight", [
    ["min(reference, reached / dims.lead)", "0.0"],
    ["min(reference, reached / dims.lead)", "reached / dims.lead"],
  ], above!);
  await mutants("penalty_weight", [
    ["max(reference, reached * dims.lead)", "1e9"],
    ["max(reference, reached * dims.lead)", "reached * dims.lead"],
  ], below!);
});
