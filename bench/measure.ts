/**
 * How benchmarks measure: the GPU's own clock around every dispatch, the best of several rounds.
 *
 * @module
 */

import { contextOf, type Cost, type DeviceContext, DispatchTimings } from "../kernels/mod.ts";
import { checkDevice } from "../kernels/engine/self_check.ts";

/** A device that can time dispatches; `prepare` is called with it first. */
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

/** The time and cost of one kernel's dispatches, including the copies of their inputs. */
export interface KernelTime {
  /** Milliseconds in total. */
  readonly ms: number;
  /** Cost in total. */
  readonly cost: Cost;
}

/** The kernels of a submission: those whose work is known, and those whose work the GPU decides. */
export interface KernelTimes {
  /** By name. */
  readonly known: ReadonlyMap<string, KernelTime>;
  /** Milliseconds by name. */
  readonly decided: ReadonlyMap<string, number>;
}

/** The time of each kernel in what `work` submits. */
export async function timeDispatches(
  context: DeviceContext,
  work: () => Promise<void> | void,
): Promise<KernelTimes> {
  using timings = new DispatchTimings(context.device);
  context.timings = timings;
  try {
    await work();
  } finally {
    context.timings = undefined;
  }
  const [known, decided] = [new Map<string, KernelTime>(), new Map<string, number>()];
  for (const { name, milliseconds, cost } of await timings.take()) {
    if (cost === undefined) {
      decided.set(name, (decided.get(name) ?? 0) + milliseconds);
      continue;
    }
    const before = known.get(name) ?? { ms: 0, cost: { flops: 0, bytes: 0 } };
    const { flops, bytes } = before.cost;
    known.set(name, {
      ms: before.ms + milliseconds,
      cost: { flops: flops + cost.flops, bytes: bytes + cost.bytes },
    });
  }
  return { known, decided };
}

/** Milliseconds of all kernels. */
export function totalMs({ known, decided }: KernelTimes): number {
  return known.values().reduce((sum, { ms }) => sum + ms, 0) + decided.values().reduce((sum, ms) => sum + ms, 0);
}

/**
 * The shortest of `rounds` runs of everything that `work` records, in milliseconds; one more run goes first to compile.
 */
export async function best(device: GPUDevice, rounds: number, work: () => void): Promise<number> {
  let least = Infinity;
  for (let round = 0; round <= rounds; round++) {
    const ms = totalMs(await timeDispatches(contextOf(device), work));
    if (round > 0) least = Math.min(least, ms);
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
