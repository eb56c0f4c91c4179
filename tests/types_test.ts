/** The types of what users hold: a change is seen in review, since this file then no longer compiles. @module */
import { assertType, type IsExact } from "@std/testing/types";
import type { LoadedRows, shuffledBatches } from "../data/mod.ts";
import type { evaluate, Metrics, topRows } from "../eval/mod.ts";
import type { dump, getObjective, load, Objective, SparseAutoencoder, Tensor } from "../mod.ts";
import type { Progress, train, TrainLoss } from "../train/mod.ts";

Deno.test("what functions take and return keeps its type", () => {
  assertType<IsExact<Awaited<ReturnType<typeof SparseAutoencoder.create>>, SparseAutoencoder>>(true);
  assertType<IsExact<Awaited<ReturnType<typeof load>>["warnings"], readonly string[]>>(true);
  assertType<Awaited<ReturnType<typeof load>> extends SparseAutoencoder ? true : false>(true);
  assertType<IsExact<Awaited<ReturnType<typeof dump>>["folded"], readonly ("subtract_b_dec" | "mean" | "scale")[]>>(
    true,
  );
  assertType<IsExact<ReturnType<typeof getObjective>, Objective>>(true);
  assertType<IsExact<ReturnType<typeof train>, AsyncGenerator<Progress, void, void>>>(true);
  assertType<IsExact<Progress["losses"], readonly TrainLoss[]>>(true);
  assertType<IsExact<ReturnType<SparseAutoencoder["forward"]>["x_hat"], Tensor>>(true);
  assertType<ReturnType<typeof evaluate> extends Promise<Metrics> ? true : false>(true);
  assertType<IsExact<ReturnType<Awaited<ReturnType<typeof topRows>>["of"]>[number]["row"], number>>(true);
  assertType<IsExact<ReturnType<typeof shuffledBatches>, AsyncGenerator<LoadedRows>>>(true);
  assertType<IsExact<LoadedRows["x"], Float32Array>>(true);
  assertType<IsExact<LoadedRows["index"], Float64Array>>(true);
});
