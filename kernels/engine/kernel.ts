/**
 * How a kernel is declared and checked.
 *
 * A declaration names the dims (unsigned integers), scalars (floats) and bindings, how many workgroups there are and
 * what they cost; the WGSL text is only the body. The `@binding` lines, the uniform struct and the entry point are
 * generated. The body may use
 *
 * - `dims.NAME` for every dim and scalar,
 * - the bindings by name, each with an index; what {@link updates} declares also as `old_NAME`,
 * - `group`, the index of the workgroup among `grid(dims)`, whatever its size,
 * - `lane`, the invocation's index in its workgroup.
 *
 * @module
 */

import { SLOT_FIELDS } from "./device.ts";
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
   * How many values a run reads, if known: each once, each several times, or as many in all as the shape `total` says.
   * If that is much, the values may be read from a texture copy.
   */
  readonly reading?: "once" | "often" | { readonly total: string };
}

/** A read-only binding. */
export function reads(element: string, shape: string): Binding {
  return { access: "read", element, shape };
}

/** A read-only binding whose values a run reads once each. */
export function readsOnce(element: string, shape: string): Binding {
  return { ...reads(element, shape), reading: "once" };
}

/** A read-only binding whose values a run reads several times each. */
export function readsOften(element: string, shape: string): Binding {
  return { ...reads(element, shape), reading: "often" };
}

/** A read-only binding of few values that a run reads often: as many reads in all as the shape `total` says. */
export function readsAcross(element: string, shape: string, total: string): Binding {
  return { ...reads(element, shape), reading: { total } };
}

/** A binding that the kernel writes, and may read. */
export function writes(element: string, shape: string): Binding {
  return { access: "write", element, shape };
}

/**
 * A binding whose elements are updated in place: an invocation reads an element as `old_NAME[index]` before it writes
 * it.
 */
export function updates(element: string, shape: string): Binding {
  return { ...writes(element, shape), reading: "once" };
}

/** A kernel's declaration. */
export interface KernelDeclaration<D extends string, F extends string, B extends string> {
  /** Its name in errors and timings. */
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
 * @throws {KernelError} if the uniform struct does not fit its slot, or declarations use what only the body has.
 */
export function defineKernel<const D extends string, const B extends string, const F extends string = never>(
  declaration: KernelDeclaration<D, F, B>,
): Kernel<D, F, B> {
  const { name, dims, scalars = [], bindings, declarations = "" } = declaration;
  // In a joined dispatch they are known in the entry point only.
  const misplaced = new RegExp(`\\bdims\\.|\\b(?:${Object.keys(bindings).join("|")})\\[`).exec(declarations)?.[0];
  if (misplaced) {
    throw new KernelError(`kernel ${name}: declarations cannot use ${misplaced.slice(0, -1)}, only the body can`);
  }
  const uniforms = `struct Dims { ${uniformFields(name, dims, scalars).join(", ")} }
@group(0) @binding(0) var<uniform> dims: Dims;`;
  const plain = declaration as unknown as AnyDeclaration;
  const bound = Object.entries<Binding>(bindings).map(([name, { access, element }]) =>
    bufferWgsl(name, access, element)
  );
  return Object.freeze({ ...declaration, wgsl: kernelWgsl(plain, { uniforms, bound, body: inPlace(plain) }) });
}

/** None of a kernel's bindings. */
export const NO_BINDINGS: ReadonlySet<string> = new Set();

/** A declaration of any names. */
export type AnyDeclaration = KernelDeclaration<string, string, string>;

/**
 * The fields of the uniform struct: the number of workgroups, dims, then scalars.
 *
 * @throws {KernelError} if they do not fit a uniform slot.
 */
export function uniformFields(name: string, dims: readonly string[], scalars: readonly string[]): string[] {
  const fields = ["groups", ...dims].map((dim) => `${dim}: u32`).concat(scalars.map((scalar) => `${scalar}: f32`));
  if (fields.length > SLOT_FIELDS) {
    throw new KernelError(`kernel ${name} has ${fields.length} uniform fields, at most ${SLOT_FIELDS} fit`);
  }
  return fields;
}

/** WGSL: the variable of a buffer, without its place. The packed words of f16 tensors are u32. */
export function bufferWgsl(name: string, access: Binding["access"], element: string): string {
  const mode = access === "read" ? "read" : "read_write";
  return `var<storage, ${mode}> ${name}: array<${element === "f16" ? "u32" : element}>;`;
}

/** The body with old elements read where the new ones are written. */
export function inPlace({ body, bindings }: AnyDeclaration, except?: ReadonlySet<string>): string {
  return Object.keys(bindings).filter((name) => !except?.has(name))
    .reduce((text, name) => text.replaceAll(new RegExp(`\\bold_${name}\\[`, "g"), `${name}[`), body);
}

/** The whole WGSL text of a kernel in some form. */
export function kernelWgsl(
  { workgroup, directives = "", declarations = "" }: AnyDeclaration,
  { uniforms, bound, loads = "", dims = "", body }: {
    /** The uniform struct and its variable. */
    readonly uniforms: string;
    /** The variables that are bound after it, in order. */
    readonly bound: readonly string[];
    /** Functions that load from them. */
    readonly loads?: string;
    /** The first statements of the entry point. */
    readonly dims?: string;
    readonly body: string;
  },
): string {
  const entries = bound.map((variable, index) => `@group(0) @binding(${index + 1}) ${variable}`);
  return `${directives}${uniforms}
${entries.join("\n")}
${loads}${declarations}
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
