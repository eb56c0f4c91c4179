/**
 * How a kernel is declared, checked and compiled.
 *
 * A declaration names the dims (unsigned integers), scalars (floats) and bindings, how many workgroups there are and
 * what they cost; the WGSL text is only the body. `@binding` lines, the uniform struct and the entry point are
 * generated. The body may use
 *
 * - `dims.NAME` for every dim and scalar,
 * - the bindings by name,
 * - `group`, the index of the workgroup among `grid(dims)`, whatever its size,
 * - `lane`, the invocation's index in its workgroup.
 *
 * @module
 */

import type { CompiledKernel, DeviceContext } from "./device.ts";
import { KernelError } from "./errors.ts";

/** How a kernel uses a binding. */
export interface Binding {
  /** `read` is read-only; `write` may also be read. */
  readonly access: "read" | "write";
  /** The WGSL element: `f32`, `u32`, `vec4f`, `vec4u` or `atomic<u32>`. */
  readonly element: string;
  /** Sizes in scalars, as dim names, `NAME+1`, or integers, separated by spaces. */
  readonly shape: string;
}

/** A read-only binding. */
export function reads(element: string, shape: string): Binding {
  return { access: "read", element, shape };
}

/** A binding that the kernel writes, and may read. */
export function writes(element: string, shape: string): Binding {
  return { access: "write", element, shape };
}

/** What one run of a kernel does, for benches. */
export interface Cost {
  /** Floating-point operations. */
  readonly flops: number;
  /** Bytes read and written. */
  readonly bytes: number;
}

/** A kernel's declaration. */
export interface KernelDeclaration<D extends string, F extends string, B extends string> {
  /** What errors and timings call it. */
  readonly name: string;
  /** Unsigned integers of the uniform struct. */
  readonly dims: readonly D[];
  /** Floats of the uniform struct. */
  readonly scalars?: readonly F[];
  /** The storage bindings, in order. */
  readonly bindings: Readonly<Record<B, Binding>>;
  /** Invocations in a workgroup. */
  readonly workgroup: number;
  /** How many workgroups run. */
  readonly grid: (dims: Readonly<Record<D, number>>) => number;
  /** What a run costs. */
  readonly cost: (dims: Readonly<Record<D, number>>) => Cost;
  /** WGSL directives, before everything else. */
  readonly directives?: string;
  /** WGSL declarations outside the entry point. */
  readonly declarations?: string;
  /** WGSL statements of the entry point. */
  readonly body: string;
}

/** A declared kernel: {@link defineKernel}. */
export interface Kernel<D extends string = string, F extends string = string, B extends string = string>
  extends KernelDeclaration<D, F, B> {
  /** The whole WGSL text. */
  readonly wgsl: string;
}

/**
 * Generates the WGSL around a kernel's body.
 *
 * @throws {KernelError} if the uniform struct does not fit its slot.
 */
export function defineKernel<const D extends string, const B extends string, const F extends string = never>(
  declaration: KernelDeclaration<D, F, B>,
): Kernel<D, F, B> {
  const { name, dims, scalars = [], bindings, workgroup, directives = "", declarations = "", body } = declaration;
  const fields = ["groups", ...dims].map((dim) => `${dim}: u32`).concat(scalars.map((scalar) => `${scalar}: f32`));
  if (fields.length > 64) throw new KernelError(`kernel ${name} has ${fields.length} uniform fields, at most 64 fit`);
  const entries = Object.entries<Binding>(bindings).map(([binding, { access, element }], index) =>
    `@group(0) @binding(${index + 1}) var<storage, ${
      access === "read" ? "read" : "read_write"
    }> ${binding}: array<${element}>;`
  );
  const wgsl = `${directives}struct Dims { ${fields.join(", ")} }
@group(0) @binding(0) var<uniform> dims: Dims;
${entries.join("\n")}
${declarations}
@compute @workgroup_size(${workgroup})
fn main(
  @builtin(workgroup_id) group_id: vec3u,
  @builtin(num_workgroups) group_count: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let group = group_id.x + group_id.y * group_count.x;
  if (group >= dims.groups) { return; }
${body}
}
`;
  return Object.freeze({ ...declaration, wgsl });
}

/** The compiled kernel, from the device's cache or made now. Compile errors reach whoever next reads from the device. */
export function compiled(context: DeviceContext, kernel: Kernel): CompiledKernel {
  const found = context.pipelines.get(kernel);
  if (found) return found;
  const { device } = context;
  const { name } = kernel;
  const code = context.shader(name, kernel.wgsl);
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: name, code });
  const layout = device.createBindGroupLayout({
    label: name,
    entries: [
      { binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform", hasDynamicOffset: true } },
      ...Object.values<Binding>(kernel.bindings).map(({ access }, index) => ({
        binding: index + 1,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: access === "read" ? "read-only-storage" : "storage" } as const,
      })),
    ],
  });
  const pipeline = device.createComputePipeline({
    label: name,
    layout: device.createPipelineLayout({ label: name, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "main" },
  });
  const verdict = device.popErrorScope();
  context.watch(verdict.then(async (error) => {
    if (!error) return;
    const info = await module.getCompilationInfo();
    const message = info.messages.find((message) => message.type === "error");
    throw new KernelError(
      message ? explain(name, code, message) : `kernel ${name} was refused: ${error.message}`,
    );
  }));
  const result = { pipeline, layout };
  context.pipelines.set(kernel, result);
  return result;
}

function explain(name: string, code: string, { lineNum, linePos, message }: GPUCompilationMessage): string {
  const line = code.split("\n")[lineNum - 1] ?? "";
  return `kernel ${name} does not compile, line ${lineNum}: ${message}\n${line}\n${
    " ".repeat(Math.max(0, linePos - 1))
  }^`;
}

/**
 * The number of scalars that `shape` says.
 *
 * @throws {KernelError} for a dim that the kernel does not have.
 */
export function shapeSize(kernel: Kernel, shape: string, dims: Readonly<Record<string, number>>): number {
  return shape.split(" ").reduce((product, term) => {
    const [name = "", plus = "0"] = term.split("+");
    const size = /^\d+$/.test(name) ? Number(name) : dims[name];
    if (size === undefined) throw new KernelError(`kernel ${kernel.name} has no dim ${name} for the shape "${shape}"`);
    return product * (size + Number(plus));
  }, 1);
}
