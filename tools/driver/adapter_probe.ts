/**
 * Asks the machine's WebGPU adapter for a known answer. Exit code 0: it doubled 256 numbers correctly; 1: there is no
 * adapter; 2: the answer was wrong or the attempt failed; 3: correct, but software without subgroups, as Mesa's OpenGL
 * driver is.
 *
 * It runs as its own process, because a failed request cannot be repeated with another driver in the same process, and
 * because a bad driver may crash or hang.
 *
 * @module
 */

const WGSL = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  x[id.x] = 2.0 * x[id.x];
}`;

/** Runs the kernel on `x` and returns the adapter's result. */
async function double(adapter: GPUAdapter, x: Float32Array<ArrayBuffer>): Promise<Float32Array> {
  const device = await adapter.requestDevice();
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffer = device.createBuffer({ label: "x", size: x.byteLength, usage });
  const readBack = device.createBuffer({
    label: "x read back",
    size: x.byteLength,
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  device.queue.writeBuffer(buffer, 0, x);
  const layout = device.createBindGroupLayout({
    entries: [{ binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "storage" } }],
  });
  const pipeline = device.createComputePipeline({
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module: device.createShaderModule({ code: WGSL }), entryPoint: "main" },
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer } }] }));
  pass.dispatchWorkgroups(x.length / 64);
  pass.end();
  encoder.copyBufferToBuffer(buffer, 0, readBack, 0, x.byteLength);
  device.queue.submit([encoder.finish()]);
  await readBack.mapAsync(GPUMapMode.READ);
  return new Float32Array(readBack.getMappedRange().slice(0));
}

const adapter = await navigator.gpu?.requestAdapter();
if (!adapter) Deno.exit(1);
const x = Float32Array.from({ length: 256 }, (_, i) => i - 100.5);
const doubled = await double(adapter, x).catch(() => []);
if (!x.every((value, i) => doubled[i] === 2 * value)) Deno.exit(2);
const { isFallbackAdapter, subgroupMinSize, subgroupMaxSize } = adapter.info as GPUAdapterInfo & {
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
};
Deno.exit(isFallbackAdapter && subgroupMinSize !== subgroupMaxSize ? 3 : 0);
