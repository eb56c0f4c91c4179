/**
 * Timings name every dispatch in order. How long anything takes is nobody's test.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { Commands } from "../../../kernels/engine/commands.ts";
import { DeviceContext } from "../../../kernels/engine/device.ts";
import { fill } from "../../../kernels/elementwise.ts";
import { scanKernel } from "../../../kernels/transpose_entries.ts";
import { Tensor } from "../../../kernels/engine/tensor.ts";
import { DispatchTimings } from "../../../kernels/engine/timings.ts";
import { assertExact } from "../../support/tolerance.ts";

/** What an adapter without timestamps would do: nothing is timed, and the numbers are the same. */
async function timingDevice(): Promise<{ readonly device: GPUDevice; readonly timed: boolean }> {
  const adapter = await navigator.gpu.requestAdapter();
  const timed = adapter!.features.has("timestamp-query");
  return { device: await adapter!.requestDevice({ requiredFeatures: timed ? ["timestamp-query"] : [] }), timed };
}

Deno.test("every dispatch is named in order with a time, up to the capacity, and the results are the same", async () => {
  const { device, timed } = await timingDevice();
  const context = new DeviceContext(device);
  using stack = new DisposableStack();
  const timings = timed ? stack.use(new DispatchTimings(device, 4)) : undefined;
  context.timings = timings;
  using counts = new Tensor(context, "u32", [5], "counts");
  using starts = new Tensor(context, "u32", [6], "starts");
  const commands = new Commands(context);
  const round = (fills: number) => {
    for (let i = 1; i <= fills; i++) fill(commands, counts, 5, i);
    commands.run(scanKernel, { n: 5, counts, starts });
    commands.submit();
  };
  assertEquals(await timings?.take() ?? [], []);
  round(2);
  assertExact(await starts.read(), [0, 2, 4, 6, 8, 10]);
  const first = await timings?.take() ?? [];
  assertEquals(first.map(({ name }) => name), timed ? ["fill", "fill", "scan"] : []);
  assert(first.every(({ milliseconds }) => milliseconds >= 0));
  const { flops, bytes } = scanKernel.cost({ n: 5 });
  assertEquals(first.at(-1)?.cost, timed ? { flops, bytes } : undefined);
  round(9);
  assertExact(await starts.read(), [0, 9, 18, 27, 36, 45]);
  assertEquals((await timings?.take() ?? []).map(({ name }) => name), timed ? new Array(4).fill("fill") : []);
  round(1);
  assertEquals((await timings?.take() ?? []).map(({ name }) => name), timed ? ["fill", "scan"] : []);
  device.destroy();
});
