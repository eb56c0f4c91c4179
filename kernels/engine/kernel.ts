/**
 * How a kernel is declared, checked and compiled.
 *
 * A declaration names the dims (unsigned integers), scalars (floats) and bindings, how many workgroups there are and
 * what they cost; the WGSL text is only the body. `@binding` lines, the uniform struct and the entry point are
 * generated. The body may use
 *
 * - `dims.NAME` for every dim and scalar,
 * - the bindings by name, each with an index; what {@link updates} declares also as `old_NAME`,
 * - `group`, the index of the workgroup among `grid(dims)`, whatever its size,
 * - `lane`, the invocation's index in its workgroup.
 *
 * @module
 */

import {
  type BindGroup,
  type CompiledKernel,
  type DeviceContext,
  MAX_JOINED,
  SLOT_BYTES,
  SLOT_FIELDS,
} from "./device.ts";
import { KernelError } from "./errors.ts";
import type { Cost } from "./timings.ts";

/** How a kernel uses a binding. */
export interface Binding {
  /** `read` is read-only; `write` may also be read. */
  readonly access: "read" | "write";
  /**
   * The WGSL element: `f32`, `u32`, `vec4f`, `vec4u` or `atomic<u32>`; or `f16` for the packed
   * words of an f16 tensor, two values each. A binding of floats that is only read may be an f16 tensor too.
   */
  readonly element: string;
  /** Sizes in scalars as dim names, `NAME+1`, or integers, separated by spaces. */
  readonly shape: string;
  /**
   * How many values a run reads, where that is known: each once, each several times, or as many as this shape says. It may
   * pay to bring the values into a texture first.
   */
  readonly reading?: "once" | "often" | { readonly total: string };
}

/** A read-only binding. */
export function reads(element: string, shape: string): Binding {
  return { access: "read", element, shape };
}

/** A read-only binding all of which a run reads once. */
export function readsOnce(element: string, shape: string): Binding {
  return { ...reads(element, shape), reading: "once" };
}

/** A read-only binding that a run reads through several times over. */
export function readsOften(element: string, shape: string): Binding {
  return { ...reads(element, shape), reading: "often" };
}

/** A read-only binding of few values, of which a run reads as many in all as the shape `total` says. */
export function readsAcross(element: string, shape: string, total: string): Binding {
  return { ...reads(element, shape), reading: { total } };
}

/** A binding that the kernel writes, and may read. */
export function writes(element: string, shape: string): Binding {
  return { access: "write", element, shape };
}

/**
 * A binding whose elements are changed where they are: the kernel reads each as `old_NAME[index]`, before the same
 * invocation writes it.
 */
export function updates(element: string, shape: string): Binding {
  return { ...writes(element, shape), reading: "once" };
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
const MAX_FIELDS = SLOT_FIELDS;

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
  if (fields.length > MAX_FIELDS) {
    throw new KernelError(`kernel ${name} has ${fields.length} uniform fields, at most ${MAX_FIELDS} fit`);
  }
  const uniforms = `struct Dims { ${fields.join(", ")} }
@group(0) @binding(0) var<uniform> dims: Dims;`;
  const wide = declaration as unknown as KernelDeclaration<string, string, string>;
  return Object.freeze({ ...declaration, wgsl: wgslOf(wide, { uniforms, body: inPlace(wide) }) });
}

/** The body with old elements read where the new ones are written. */
function inPlace({ body, bindings }: KernelDeclaration<string, string, string>, except?: ReadonlySet<string>): string {
  return Object.keys(bindings).filter((name) => !except?.has(name))
    .reduce((text, name) => text.replaceAll(new RegExp(`\\bold_${name}\\[`, "g"), `${name}[`), body);
}

/** How a kernel is compiled. */
export interface Form {
  /** For up to {@link MAX_JOINED} sets of arguments in one dispatch. */
  readonly isJoined: boolean;
  /** Which bindings are read from texture copies of their buffers, four scalars a texel. */
  readonly textures: ReadonlySet<string>;
  /** Which bindings of floats are f16 tensors. */
  readonly f16: ReadonlySet<string>;
}

/** A kernel in some form. */
export interface FormedKernel extends Kernel, Form {
  /** The bindings whose beginning the uniforms say, in order. */
  readonly starts: readonly string[];
}

const formedKernels = new WeakMap<object, Map<string, FormedKernel>>();

/**
 * The same kernel in another form. Joined, workgroups of `group_id.z` = i see the uniforms of slot i. What a binding means
 * to a run starts `start_<binding>` elements into it, where it is joined or a texture.
 *
 * @throws {KernelError} if the uniform struct does not fit its slot.
 */
export function kernelForm(kernel: Kernel, form: Form): FormedKernel {
  const id = [form.isJoined, ...form.textures, "f16", ...form.f16].join();
  const forms = formedKernels.get(kernel) ?? new Map<string, FormedKernel>();
  formedKernels.set(kernel, forms);
  const formed = forms.get(id) ?? makeForm(kernel, form);
  forms.set(id, formed);
  return formed;
}

function makeForm(kernel: Kernel, form: Form): FormedKernel {
  const { name, dims, scalars = [], bindings } = kernel;
  const { isJoined, textures, f16 } = form;
  const starts = Object.keys(bindings).filter((name) => isJoined || textures.has(name));
  const fields = ["groups", ...dims, ...starts.map((binding) => `start_${binding}`)].map((field) => `${field}: u32`)
    .concat(scalars.map((scalar) => `${scalar}: f32`));
  if (fields.length > MAX_FIELDS) {
    throw new KernelError(
      `kernel ${name} in this form has ${fields.length} uniform fields, at most ${MAX_FIELDS} fit`,
    );
  }
  const padding = SLOT_BYTES - 4 * (fields.length - 1);
  const wgsl = starts.length + f16.size === 0 ? kernel.wgsl : wgslOf(kernel, {
    uniforms: isJoined
      ? `struct Dims { ${fields.with(-1, `@size(${padding}) ${fields.at(-1)}`).join(", ")} }
@group(0) @binding(0) var<uniform> joined_dims: array<Dims, ${MAX_JOINED}>;`
      : `struct Dims { ${fields.join(", ")} }
@group(0) @binding(0) var<uniform> dims: Dims;`,
    dims: isJoined ? "  let dims = joined_dims[group_id.z];\n" : "",
    body: placed(kernel, form),
    textures,
    f16,
  });
  return Object.freeze({ ...kernel, ...form, starts, wgsl });
}

/**
 * TextureCopy that stand empty after each line of a texture with a buffer's values: rows of a matrix that lie a power of two
 * apart, as those of 1024 numbers do, would otherwise share the few places of a cache that such addresses have.
 */
export const TEXTURE_GAP = 8;

/** WGSL: where a texel is, and a scalar of it. A line has a power of two of textures, then the gap. */
const TEXTURE_COPIES_WGSL = `
fn texel(size: vec2u, i: u32) -> vec2u {
  let columns = size.x - ${TEXTURE_GAP}u;
  return vec2u(i & (columns - 1u), i >> countTrailingZeros(columns));
}
${
  [["f32", "rgba32float", "f32"], ["u32", "rgba32uint", "u32"], ["f16", "rgba16float", "f32"]].map(
    ([name, format, type]) =>
      `fn scalar_${name}(copy: texture_storage_2d<${format}, read>, i: u32) -> ${type} {
  return textureLoad(copy, texel(textureDimensions(copy), i / 4u))[i % 4u];
}
`,
  ).join("")
}`;

/** The texture format that holds a binding's elements. */
function textureFormat(
  { f16 }: Form,
  [name, { element }]: [name: string, binding: Binding],
): "rgba32uint" | "rgba32float" | "rgba16float" {
  if (f16.has(name)) return "rgba16float";
  return element === "u32" || element === "vec4u" ? "rgba32uint" : "rgba32float";
}

/** The bindings that are textures: those read from them alone, and the old elements of those that are also written. */
export function textureBindings({ bindings, textures }: FormedKernel): [name: string, binding: Binding][] {
  return Object.entries(bindings).filter(([name]) => textures.has(name));
}

/** The bindings that are buffers. */
export function bufferBindings({ bindings, textures }: FormedKernel): [name: string, binding: Binding][] {
  return Object.entries(bindings).filter(([name, { access }]) => access === "write" || !textures.has(name));
}

/**
 * A kernel's body with `name[index]` turned into a load from a texture copy or of an f16 value, the index counted from
 * `dims.start_name` where there is one, also within indices.
 */
function placed(kernel: Kernel, { isJoined, textures, f16 }: Form): string {
  const closing: string[] = [];
  const names = new RegExp(`\\b(old_)?(${Object.keys(kernel.bindings).join("|")})\\[|[[\\]]`, "g");
  return inPlace(kernel, textures).replaceAll(names, (found, old: string | undefined, name: string | undefined) => {
    if (found === "]") return closing.pop() ?? "]";
    const { access, element = "" } = name === undefined ? {} : kernel.bindings[name]!;
    const isCopied = name !== undefined && textures.has(name) && (access === "read" || old !== undefined);
    let [opens, closes] = [found, "]"];
    if (isCopied && element.startsWith("vec4")) {
      [opens, closes] = [`textureLoad(copy_${name}, texel(textureDimensions(copy_${name}), `, "))"];
    } else if (isCopied) [opens, closes] = [`scalar_${f16.has(name) ? "f16" : element}(copy_${name}, `, ")"];
    else if (name !== undefined && f16.has(name)) [opens, closes] = [`f16_${name}(`, ")"];
    if (name !== undefined && (isJoined || isCopied)) {
      [opens, closes] = [`${opens}dims.start_${name} + (`, `)${closes}`];
    }
    closing.push(closes);
    return opens;
  });
}

/** The WGSL element of a binding's buffer: two f16 values share a word. */
function storedElement({ f16 }: Form, [name, { element }]: [name: string, binding: Binding]): string {
  if (f16.has(name)) return element === "vec4f" ? "vec2u" : "u32";
  return element === "f16" ? "u32" : element;
}

/** WGSL: `f16_NAME(i)`, what `NAME[i]` is where the buffer is an f16 tensor. */
function f16Wgsl(name: string, { element }: Binding): string {
  return element === "vec4f"
    ? `fn f16_${name}(i: u32) -> vec4f {
  let words = ${name}[i];
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}
`
    : `fn f16_${name}(i: u32) -> f32 { return unpack2x16float(${name}[i / 2u])[i % 2u]; }
`;
}

function wgslOf(
  { bindings, workgroup, directives = "", declarations = "" }: KernelDeclaration<string, string, string>,
  { uniforms, dims = "", body, textures = new Set(), f16 = new Set() }: {
    readonly uniforms: string;
    readonly dims?: string;
    readonly body: string;
    readonly textures?: ReadonlySet<string>;
    readonly f16?: ReadonlySet<string>;
  },
): string {
  const form = { bindings, textures, f16 } as FormedKernel;
  const buffers = bufferBindings(form);
  const entries = [
    ...buffers.map((binding) => {
      const [name, { access }] = binding;
      const space = access === "read" ? "read" : "read_write";
      return `var<storage, ${space}> ${name}: array<${storedElement(form, binding)}>;`;
    }),
    ...textureBindings(form).map((binding) =>
      `var copy_${binding[0]}: texture_storage_2d<${textureFormat(form, binding)}, read>;`
    ),
  ].map((declared, index) => `@group(0) @binding(${index + 1}) ${declared}`);
  const loads = buffers.filter(([name]) => f16.has(name)).map(([name, binding]) => f16Wgsl(name, binding));
  return `${directives}${uniforms}
${entries.join("\n")}
${loads.join("")}${textures.size > 0 ? TEXTURE_COPIES_WGSL : ""}${declarations}
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

/** The compiled kernel, from the device's cache or made now. Compile errors reach the next read from the device. */
export function compiled(context: DeviceContext, kernel: FormedKernel): CompiledKernel {
  const found = context.pipelines.get(kernel);
  if (found) return found;
  const { device } = context;
  const { name } = kernel;
  const code = context.shader(name, kernel.wgsl);
  // What a driver says of a shader that its language let through is an internal error.
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
        ...textureBindings(kernel).map((binding) => ({
          storageTexture: { access: "read-only", format: textureFormat(kernel, binding) } as const,
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
