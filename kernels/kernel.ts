/**
 * How a kernel is declared, checked and compiled.
 *
 * A declaration names the dims (unsigned integers), scalars (floats) and bindings, how many workgroups there are and
 * what they cost; the WGSL text is only the body. `@binding` lines, the uniform struct and the entry point are
 * generated. The body may use
 *
 * - `dims.NAME` for every dim and scalar,
 * - the bindings by name, each with an index,
 * - `group`, the index of the workgroup among `grid(dims)`, whatever its size,
 * - `lane`, the invocation's index in its workgroup.
 *
 * @module
 */

import { type CompiledKernel, type DeviceContext, MOST_JOINED, SLOT_BYTES } from "./device.ts";
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

/** Fields that fit a uniform slot. */
const MOST_FIELDS = SLOT_BYTES / 4;

/**
 * Generates the WGSL around a kernel's body.
 *
 * @throws {KernelError} if the uniform struct does not fit its slot, or declarations use what only the body has.
 */
export function defineKernel<const D extends string, const B extends string, const F extends string = never>(
  declaration: KernelDeclaration<D, F, B>,
): Kernel<D, F, B> {
  const { name, dims, scalars = [], bindings, declarations = "" } = declaration;
  // A joined dispatch knows them in the entry point alone.
  const misplaced = new RegExp(`\\bdims\\.|\\b(?:${Object.keys(bindings).join("|")})\\[`).exec(declarations)?.[0];
  if (misplaced) {
    throw new KernelError(`kernel ${name}: declarations cannot use ${misplaced.slice(0, -1)}, only the body can`);
  }
  const fields = ["groups", ...dims].map((dim) => `${dim}: u32`).concat(scalars.map((scalar) => `${scalar}: f32`));
  if (fields.length > MOST_FIELDS) {
    throw new KernelError(`kernel ${name} has ${fields.length} uniform fields, at most ${MOST_FIELDS} fit`);
  }
  const uniforms = `struct Dims { ${fields.join(", ")} }
@group(0) @binding(0) var<uniform> dims: Dims;`;
  const { body } = declaration;
  return Object.freeze({
    ...declaration,
    wgsl: wgslOf(declaration as KernelDeclaration<string, string, string>, { uniforms, body }),
  });
}

const joinedKernels = new WeakMap<object, Kernel>();

/**
 * The same kernel for up to {@link MOST_JOINED} sets of arguments in one dispatch. Workgroups of `group_id.z` = i see the
 * uniforms of slot i; what a binding means to them starts `start_<binding>` elements into it.
 *
 * @throws {KernelError} if the uniform struct does not fit its slot.
 */
export function joinedKernel(kernel: Kernel): Kernel {
  const known = joinedKernels.get(kernel);
  if (known) return known;
  const { name, dims, scalars = [], bindings, body } = kernel;
  const names = Object.keys(bindings);
  const fields = ["groups", ...dims, ...names.map((binding) => `start_${binding}`)].map((field) => `${field}: u32`)
    .concat(scalars.map((scalar) => `${scalar}: f32`));
  if (fields.length > MOST_FIELDS) {
    throw new KernelError(`joined kernel ${name} has ${fields.length} uniform fields, at most ${MOST_FIELDS} fit`);
  }
  const padding = SLOT_BYTES - 4 * (fields.length - 1);
  const uniforms = `struct Dims { ${fields.with(-1, `@size(${padding}) ${fields.at(-1)}`).join(", ")} }
@group(0) @binding(0) var<uniform> joined_dims: array<Dims, ${MOST_JOINED}>;`;
  const wgsl = wgslOf(kernel, {
    uniforms,
    dims: "  let dims = joined_dims[group_id.z];\n",
    body: shiftIndices(body, names),
  });
  const joined = Object.freeze({ ...kernel, wgsl });
  joinedKernels.set(kernel, joined);
  return joined;
}

/** WGSL with `name[index]` turned into `name[dims.start_name + (index)]`, also within indices. */
function shiftIndices(wgsl: string, names: readonly string[]): string {
  const open: boolean[] = [];
  return wgsl.replaceAll(new RegExp(`\\b(${names.join("|")})\\[|[[\\]]`, "g"), (found, name: string | undefined) => {
    if (found === "]") return open.pop() ? ")]" : "]";
    open.push(name !== undefined);
    return name === undefined ? found : `${found}dims.start_${name} + (`;
  });
}

function wgslOf(
  { bindings, workgroup, directives = "", declarations = "" }: KernelDeclaration<string, string, string>,
  { uniforms, dims = "", body }: { readonly uniforms: string; readonly dims?: string; readonly body: string },
): string {
  const entries = Object.entries<Binding>(bindings).map(([binding, { access, element }], index) =>
    `@group(0) @binding(${index + 1}) var<storage, ${
      access === "read" ? "read" : "read_write"
    }> ${binding}: array<${element}>;`
  );
  return `${directives}${uniforms}
${entries.join("\n")}
${declarations}
@compute @workgroup_size(${workgroup})
fn main(
  @builtin(workgroup_id) group_id: vec3u,
  @builtin(num_workgroups) group_count: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
${dims}  let group = group_id.x + group_id.y * group_count.x;
  if (group >= dims.groups) { return; }
${body}
}
`;
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
  const result = { pipeline, layout, bindGroups: new Map<string, GPUBindGroup>() };
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
  let size = 1;
  for (const { name, plus } of termsOf(shape)) {
    const term = typeof name === "number" ? name : dims[name];
    if (term === undefined) throw new KernelError(`kernel ${kernel.name} has no dim ${name} for the shape "${shape}"`);
    size *= term + plus;
  }
  return size;
}

/** One factor of a shape. */
interface Term {
  readonly name: string | number;
  readonly plus: number;
}

const shapes = new Map<string, readonly Term[]>();

function termsOf(shape: string): readonly Term[] {
  const known = shapes.get(shape);
  if (known) return known;
  const terms = shape.split(" ").map((term) => {
    const [name = "", plus = "0"] = term.split("+");
    return { name: /^\d+$/.test(name) ? Number(name) : name, plus: Number(plus) };
  });
  shapes.set(shape, terms);
  return terms;
}
