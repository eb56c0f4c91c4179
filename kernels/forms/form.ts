/**
 * The forms in which a declared kernel is compiled: for one run or for several lists joined, with bindings that are read from
 * texture copies, and with f16 tensors where the kernel reads floats.
 *
 * A kernel knows none of them. Its WGSL is rewritten: `NAME[index]` becomes the load that the form needs.
 *
 * @module
 */

import { type Binding, bufferWgsl, inPlace, type Kernel, kernelWgsl, uniformFields } from "../engine/kernel.ts";
import { f16Wgsl, f16Words } from "./f16.ts";
import { joinedUniforms } from "./joined_lists.ts";
import { TEXTURE_COPIES_WGSL, textureLoad, textureWgsl } from "./texture_copies.ts";

/** How a kernel is compiled. */
export interface Form {
  /** For several sets of arguments in one dispatch. */
  readonly isJoined: boolean;
  /** Which bindings are read from texture copies of their buffers. */
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
 * The same kernel in another form. Joined, workgroups of `group_id.z` = i see the uniforms of slot i. A run's part of a
 * binding starts `start_<binding>` elements into it, where the kernel is joined or the binding a texture.
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
  const fields = uniformFields(`${name} in this form`, [...dims, ...starts.map((name) => `start_${name}`)], scalars);
  if (starts.length + f16.size === 0) return Object.freeze({ ...kernel, ...form, starts });
  const formed = { ...kernel, ...form, starts };
  const buffers = bufferBindings(formed);
  const wgsl = kernelWgsl(kernel, {
    uniforms: isJoined ? joinedUniforms(fields) : `struct Dims { ${fields.join(", ")} }
@group(0) @binding(0) var<uniform> dims: Dims;`,
    bound: [
      ...buffers.map(([name, { access, element }]) =>
        bufferWgsl(name, access, f16.has(name) ? f16Words(element) : element)
      ),
      ...textureBindings(formed).map(([name, { element }]) => textureWgsl(name, element, f16.has(name))),
    ],
    loads: buffers.filter(([name]) => f16.has(name)).map(([name, { element }]) => f16Wgsl(name, element)).join("") +
      (textures.size > 0 ? TEXTURE_COPIES_WGSL : ""),
    dims: isJoined ? "  let dims = joined_dims[group_id.z];\n" : "",
    body: placed(kernel, form),
  });
  return Object.freeze({ ...formed, wgsl });
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
    if (isCopied) [opens, closes] = textureLoad(name, element, f16.has(name));
    else if (name !== undefined && f16.has(name)) [opens, closes] = [`f16_${name}(`, ")"];
    if (name !== undefined && (isJoined || isCopied)) {
      [opens, closes] = [`${opens}dims.start_${name} + (`, `)${closes}`];
    }
    closing.push(closes);
    return opens;
  });
}
