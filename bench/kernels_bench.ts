/**
 * `deno bench` for every kernel alone, at the sizes of a training step. The name of a benchmark ends with its work, in
 * GFLOP or GB, so that a tracker can compute the rate:
 *
 *     deno bench -A --json bench/kernels_bench.ts [--filter NAME] | deno run bench/figures.ts
 */

import { contextOf } from "../kernels/mod.ts";
import { KERNEL_ROWS, KernelRun, STEP_SIZES } from "./kernel_rows.ts";
import { timedDevice, timeDispatches, totalMs } from "./measure.ts";

/** Milliseconds per sample: waiting for the GPU costs some 11 ms in Deno in any case. */
const SAMPLE = 200;
const MAX_TIMES = 1000;

const device = await timedDevice();
const context = contextOf(device);

for (const row of KERNEL_ROWS) {
  let [work, unit, times] = [0, "", 0];
  {
    using run = new KernelRun(context, row, STEP_SIZES);
    // The first run compiles.
    run.run(1);
    const ms = totalMs(await timeDispatches(context, () => void run.run(1)));
    times = Math.min(MAX_TIMES, Math.max(1, Math.round(SAMPLE / ms)));
    const { flops, bytes } = run.run(1).cost;
    [work, unit] = flops > bytes ? [flops / 1e9, "GFLOP"] : [bytes / 1e9, "GB"];
    await device.queue.onSubmittedWorkDone();
  }
  Deno.bench({
    name: `${row.file}: ${row.name}, ${times * work} ${unit}`,
    group: row.file,
    n: 5,
    warmup: 1,
    fn: async (b) => {
      using run = new KernelRun(context, row, STEP_SIZES);
      await device.queue.onSubmittedWorkDone();
      b.start();
      run.run(times);
      await device.queue.onSubmittedWorkDone();
      b.end();
    },
  });
}
