/**
 * Dawn, the WebGPU of Chrome, inside of Deno: npm's `webgpu` brings it, and with it Tint, a second WGSL compiler beside
 * Deno's naga.
 *
 * @module
 */

/** The package, as tests of other runtimes have it too. It is 45 MB, so only what needs it loads it. */
const PACKAGE = "npm:webgpu@0.6.2";

interface Dawn {
  readonly create: (options: readonly string[]) => GPU;
  readonly globals: Readonly<Record<string, unknown>>;
}

/** Makes Dawn this process's WebGPU: its objects, its errors, and `navigator.gpu`. */
export async function useDawn(...options: readonly string[]): Promise<GPU> {
  const { create, globals } = await import(PACKAGE) as Dawn;
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  const gpu = create(options);
  Object.defineProperty(navigator, "gpu", { value: gpu, configurable: true });
  return gpu;
}

/** A device of Dawn's that compiles WGSL and runs nothing. */
export async function nullDevice(): Promise<GPUDevice> {
  const gpu = await useDawn("backend=null");
  const adapter = (await gpu.requestAdapter())!;
  return await adapter.requestDevice({ requiredFeatures: ["subgroups" as GPUFeatureName] });
}
