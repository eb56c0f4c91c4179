/**
 * How benches measure: the GPU's own clock around every dispatch, the best of some rounds.
 *
 * @module
 */

import { contextOf, type DeviceContext, DispatchTimings } from "../kernels/mod.ts";
import { checkDevice } from "../kernels/self_check.ts";

/** A device that can time dispatches; `prepare` sees it first. */
export async function timedDevice(prepare?: (device: GPUDevice) => void): Promise<GPUDevice> {
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error("no GPU adapter; run this as `deno task bench`");
  if (!adapter.features.has("timestamp-query")) {
    throw new Error(`${adapter.info.description} cannot time dispatches (no timestamp-query)`);
  }
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  const wanted = { requiredLimits: { maxBufferSize, maxStorageBufferBindingSize } };
  const subgroups = "subgroups" as GPUFeatureName;
  const device = await adapter.requestDevice({ ...wanted, requiredFeatures: ["timestamp-query", subgroups] })
    .catch(() => adapter.requestDevice({ ...wanted, requiredFeatures: ["timestamp-query"] }));
  prepare?.(device);
  await checkDevice(device);
  return device;
}

/** Milliseconds of each kernel name between `work`'s first and last dispatch. */
export async function timeDispatches(
  context: DeviceContext,
  work: () => Promise<void> | void,
): Promise<Map<string, number>> {
  using timings = new DispatchTimings(context.device);
  context.timings = timings;
  try {
    await work();
  } finally {
    context.timings = undefined;
  }
  const total = new Map<string, number>();
  for (const { name, milliseconds } of await timings.take()) total.set(name, (total.get(name) ?? 0) + milliseconds);
  return total;
}

/** The shortest of `rounds` runs of everything that `work` records, in milliseconds; one more run goes first to compile. */
export async function best(device: GPUDevice, rounds: number, work: () => void): Promise<number> {
  let least = Infinity;
  for (let round = 0; round <= rounds; round++) {
    const times = await timeDispatches(contextOf(device), work);
    const sum = [...times.values()].reduce((a, b) => a + b, 0);
    if (round > 0) least = Math.min(least, sum);
  }
  return least;
}

/** One line of a table. */
export type Row = Readonly<Record<string, string | number>>;

/** Rows as an aligned text table. */
export function table(rows: readonly Row[]): string {
  const columns = Object.keys(rows[0] ?? {});
  const cell = (value: string | number | undefined) =>
    typeof value === "number" ? (Number.isInteger(value) ? String(value) : value.toPrecision(3)) : value ?? "";
  const widths = columns.map((column) => Math.max(column.length, ...rows.map((row) => cell(row[column]).length)));
  const line = (cells: string[]) => cells.map((text, at) => text.padEnd(widths[at]!)).join("  ").trimEnd();
  return [
    line(columns),
    line(widths.map((width) => "-".repeat(width))),
    ...rows.map((row) => line(columns.map((c) => cell(row[c])))),
  ]
    .join("\n");
}
