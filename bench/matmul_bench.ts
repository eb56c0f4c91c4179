/**
 * `deno bench` for the matrix products. A bench's name ends with its multiply-adds in GFLOP, so that a tracker gets GFLOP/s
 * by dividing: `deno bench -A --json bench/matmul_bench.ts | deno run bench/gflops.ts`.
 */

import { checkDevice, requestDevice } from "../kernels/mod.ts";
import { flopsOf, Product, shapeName, SHAPES } from "./matmul_shapes.ts";

const device = await requestDevice();
await checkDevice(device);

for (const shape of SHAPES) {
  // Waiting for the GPU costs some 11 ms in Deno whatever the work: enough of it goes into one sample.
  const times = Math.max(1, Math.round(2e10 / flopsOf(shape)));
  const product = new Product(device, shape);
  product.run(1);
  await device.queue.onSubmittedWorkDone();
  Deno.bench({
    name: `${shapeName(shape)}, ${(times * flopsOf(shape)) / 1e9} GFLOP`,
    group: "matmul",
    n: 5,
    warmup: 1,
    fn: async (b) => {
      b.start();
      product.run(times);
      await device.queue.onSubmittedWorkDone();
      b.end();
    },
  });
}
