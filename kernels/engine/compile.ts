/**
 * Compiles kernels, and turns a compiler's refusal into an error with the line.
 *
 * @module
 */

import { bufferBindings, type FormedKernel, textureBindings } from "../forms/form.ts";
import { textureFormat } from "../forms/texture_copies.ts";
import type { BindGroup, CompiledKernel, DeviceContext } from "./device.ts";
import { KernelError } from "./errors.ts";

/** The compiled kernel, from the device's cache or made now. Compile errors reach the next read from the device. */
export function compiled(context: DeviceContext, kernel: FormedKernel): CompiledKernel {
  const found = context.pipelines.get(kernel);
  if (found) return found;
  const { device } = context;
  const { name } = kernel;
  const code = context.shader(name, kernel.wgsl);
  // A driver reports an internal error for a shader that is valid WGSL and that it cannot compile.
  device.pushErrorScope("internal");
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: name, code });
  const layout = device.createBindGroupLayout({
    label: name,
    entries: [
      { binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform", hasDynamicOffset: true } },
      ...[
        ...bufferBindings(kernel).map(([, { access }]) => ({
          buffer: { type: access === "read" ? "read-only-storage" : "storage" } as const,
        })),
        ...textureBindings(kernel).map(([name, { element }]) => ({
          storageTexture: { access: "read-only", format: textureFormat(element, kernel.f16.has(name)) } as const,
        })),
      ].map((bound, index) => ({ binding: index + 1, visibility: GPUShaderStage.COMPUTE, ...bound })),
    ],
  });
  const pipeline = device.createComputePipeline({
    label: name,
    layout: device.createPipelineLayout({ label: name, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "main" },
  });
  const verdict = Promise.all([device.popErrorScope(), device.popErrorScope()]);
  context.watch(verdict.then(async ([invalid, internal]) => {
    if (!invalid && !internal) return;
    const info = await module.getCompilationInfo();
    const message = info.messages.find((message) => message.type === "error");
    if (message) throw new KernelError(explain(name, code, message));
    if (invalid) throw new KernelError(`kernel ${name} was refused: ${invalid.message}`);
    throw new KernelError(
      `the driver of ${context.adapter} does not compile kernel ${name}: ${
        internal?.message || "it gives no reason"
      }. ` +
        "Use its Vulkan, Metal or D3D12 driver, and not OpenGL; in Deno, without DENO_WEBGPU_BACKEND",
    );
  }));
  const result = { pipeline, layout, bindGroups: new Map<string, BindGroup>() };
  context.pipelines.set(kernel, result);
  return result;
}

function explain(name: string, code: string, { lineNum, linePos, message }: GPUCompilationMessage): string {
  const line = code.split("\n")[lineNum - 1] ?? "";
  return `kernel ${name} does not compile, line ${lineNum}: ${message}\n${line}\n${
    " ".repeat(Math.max(0, linePos - 1))
  }^`;
}
