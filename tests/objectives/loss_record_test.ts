/**
 * The row of a step's numbers: every name has a place of its own, and what is read by name is what was written there.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { PARAMETERS } from "../../nn/parameters.ts";
import {
  lossAt,
  lossColumnNames,
  lossColumns,
  lossRow,
  PLACES,
  RECORD_WIDTH,
  trainLossOf,
} from "../../objectives/loss_record.ts";

/** Rows of different squares, so that roots are exact. */
const ROWS = Float32Array.from({ length: 3 * RECORD_WIDTH }, (_, i) => (i + 1) ** 2);

Deno.test("every number of a row has a place of its own, and there is no other place", () => {
  assertEquals(Object.values(PLACES).sort((a, b) => a - b), Array.from({ length: RECORD_WIDTH }, (_, place) => place));
});

Deno.test("numbers are read from the row and the place that their names say", () => {
  for (const slot of [0, 2]) {
    const square = (name: keyof typeof PLACES) => (slot * RECORD_WIDTH + PLACES[name] + 1) ** 2;
    const loss = trainLossOf(lossRow(ROWS, slot), PARAMETERS);
    const { grad_norm: norm, grad_norms: norms, ...numbers } = loss;
    for (const [name, value] of Object.entries(numbers)) assertEquals(value, square(name as keyof typeof PLACES), name);
    assertEquals(norm, square("grad_norm"));
    for (const name of PARAMETERS) assertEquals(norms[name], Math.sqrt(square(`grad_squares.${name}`)), name);
  }
});

Deno.test("columns hold every number of a step, and give it back", () => {
  const losses = [0, 1, 2].map((slot) => trainLossOf(lossRow(ROWS, slot), PARAMETERS));
  const columns = lossColumns(losses);
  assertEquals([...columns.keys()], lossColumnNames(PARAMETERS));
  const { grad_norms: norms, ...numbers } = losses[0]!;
  assertEquals([...columns.keys()], [
    ...Object.keys(numbers),
    ...Object.keys(norms).map((name) => `grad_norms.${name}`),
  ]);
  assertEquals([0, 1, 2].map((step) => lossAt(columns, step)), losses);
});
