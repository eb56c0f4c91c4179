/**
 * As much of Vulkan as it takes to compile a compute shader and to ask the driver what became of it, by foreign function
 * calls. Structures are bytes with their fields at the offsets of 64-bit C.
 *
 * @module
 */

/** Where a field starts, and what it is: an unsigned integer, one of 64 bits, or the address of something else. */
type FieldsOfStruct = Readonly<Record<number, number | bigint | Struct | null>>;
type Struct = Uint8Array<ArrayBuffer>;

/** Whatever is pointed to must stay where it is. */
const kept: Struct[] = [];

function struct(size: number, fields: FieldsOfStruct = {}): Struct {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  for (const [offset, value] of Object.entries(fields)) {
    const at = Number(offset);
    if (typeof value === "number") view.setUint32(at, value, true);
    else if (typeof value === "bigint") view.setBigUint64(at, value, true);
    else if (value) view.setBigUint64(at, addressOf(value), true);
  }
  kept.push(bytes);
  return bytes;
}

function addressOf(bytes: Struct): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));
}

function text(value: string): Struct {
  const bytes = new TextEncoder().encode(`${value}\0`);
  kept.push(bytes);
  return bytes;
}

/** Several addresses. */
function addresses(values: readonly Struct[]): Struct {
  return struct(8 * values.length, Object.fromEntries(values.map((value, i) => [8 * i, value])));
}

function textAt(bytes: Struct, offset: number): string {
  return new TextDecoder().decode(bytes.subarray(offset, bytes.indexOf(0, offset)));
}

const word = (bytes: Struct, offset = 0) => new DataView(bytes.buffer).getUint32(offset, true);
const handle = (bytes: Struct) => new DataView(bytes.buffer).getBigUint64(0, true);

const LIBRARY = {
  vkCreateInstance: { parameters: ["buffer", "pointer", "buffer"], result: "i32" },
  vkEnumeratePhysicalDevices: { parameters: ["u64", "buffer", "buffer"], result: "i32" },
  vkGetPhysicalDeviceProperties: { parameters: ["u64", "buffer"], result: "void" },
  vkGetPhysicalDeviceFeatures2: { parameters: ["u64", "buffer"], result: "void" },
  vkCreateDevice: { parameters: ["u64", "buffer", "pointer", "buffer"], result: "i32" },
  vkGetDeviceProcAddr: { parameters: ["u64", "buffer"], result: "pointer" },
  vkCreateShaderModule: { parameters: ["u64", "buffer", "pointer", "buffer"], result: "i32" },
  vkCreateDescriptorSetLayout: { parameters: ["u64", "buffer", "pointer", "buffer"], result: "i32" },
  vkCreatePipelineLayout: { parameters: ["u64", "buffer", "pointer", "buffer"], result: "i32" },
  vkCreateComputePipelines: { parameters: ["u64", "u64", "u32", "buffer", "pointer", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** What both procedures of statistics are. */
const STATISTICS = { parameters: ["u64", "buffer", "buffer", "buffer"], result: "i32" } as const;

const EXTENSIONS = ["VK_KHR_pipeline_executable_properties", "VK_EXT_robustness2"];

/** The first device of a driver, for which shaders are compiled. */
export class ShaderCompiler {
  /** What the driver calls the device. */
  readonly device: string;
  /** The driver's version, as `25.0.7`. */
  readonly version: string;
  readonly #library = Deno.dlopen("libvulkan.so.1", LIBRARY).symbols;
  readonly #device: bigint;
  readonly #statistics;

  constructor() {
    const vk = this.#library;
    const application = struct(48, { 0: 0, 44: version(1, 3) });
    const instance = struct(8);
    must("vkCreateInstance", vk.vkCreateInstance(struct(64, { 0: 1, 24: application }), null, instance));
    const physical = struct(8);
    vk.vkEnumeratePhysicalDevices(handle(instance), struct(4, { 0: 1 }), physical);
    const properties = struct(1024);
    vk.vkGetPhysicalDeviceProperties(handle(physical), properties);
    this.device = textAt(properties, 20);
    const driver = word(properties, 4);
    this.version = [driver >>> 22, (driver >>> 12) & 1023, driver & 4095].join(".");
    // All features that there are: those of Vulkan itself, and of the two extensions.
    const robustness = struct(32, { 0: 1000286000 });
    const executables = struct(24, { 0: 1000269000, 8: robustness });
    const vulkan13 = struct(80, { 0: 53, 8: executables });
    const vulkan12 = struct(208, { 0: 51, 8: vulkan13 });
    const vulkan11 = struct(64, { 0: 49, 8: vulkan12 });
    const features = struct(240, { 0: 1000059000, 8: vulkan11 });
    vk.vkGetPhysicalDeviceFeatures2(handle(physical), features);
    const priority = new Uint8Array(Float32Array.of(1).buffer);
    kept.push(priority);
    const queue = struct(40, { 0: 2, 24: 1, 32: priority });
    const device = struct(8);
    const wanted = struct(72, {
      0: 3,
      8: features,
      20: 1,
      24: queue,
      48: EXTENSIONS.length,
      56: addresses(EXTENSIONS.map(text)),
    });
    must("vkCreateDevice", vk.vkCreateDevice(handle(physical), wanted, null, device));
    this.#device = handle(device);
    const procedure = (name: string) =>
      new Deno.UnsafeFnPointer(
        vk.vkGetDeviceProcAddr(this.#device, text(name)) as Deno.PointerObject<typeof STATISTICS>,
        STATISTICS,
      );
    this.#statistics = {
      executables: procedure("vkGetPipelineExecutablePropertiesKHR"),
      values: procedure("vkGetPipelineExecutableStatisticsKHR"),
    };
  }

  /** What the driver says of a compute shader with one entry point: `Code size`, `VGPRs` and so on, and its subgroups' size. */
  statistics(spirv: Uint8Array<ArrayBuffer>): Map<string, number> {
    const vk = this.#library;
    const device = this.#device;
    const { entryPoint, bindings } = interfaceOf(spirv);
    const make = (
      name: "vkCreateShaderModule" | "vkCreateDescriptorSetLayout" | "vkCreatePipelineLayout",
      given: Struct,
    ) => {
      const made = struct(8);
      must(name, vk[name](device, given, null, made));
      return made;
    };
    const module = make("vkCreateShaderModule", struct(40, { 0: 16, 24: BigInt(spirv.length), 32: spirv }));
    const places = struct(24 * bindings.length);
    for (const [at, { binding, type }] of bindings.entries()) {
      places.set(struct(16, { 0: binding, 4: type, 8: 1, 12: COMPUTE }), 24 * at);
    }
    const layout = make("vkCreateDescriptorSetLayout", struct(32, { 0: 32, 20: bindings.length, 24: places }));
    const pipelineLayout = make("vkCreatePipelineLayout", struct(48, { 0: 30, 20: 1, 24: layout }));
    const described = struct(96, {
      0: 29,
      // Keep statistics.
      16: 0x40,
      24: 18,
      44: COMPUTE,
      48: handle(module),
      56: text(entryPoint),
      72: handle(pipelineLayout),
    });
    const pipeline = struct(8);
    must("vkCreateComputePipelines", vk.vkCreateComputePipelines(device, 0n, 1, described, null, pipeline));
    const properties = struct(536, { 0: 1000269002 });
    const info = struct(24, { 0: 1000269001, 16: handle(pipeline) });
    this.#statistics.executables.call(device, info, struct(4, { 0: 1 }), properties);
    const of = struct(32, { 0: 1000269003, 16: handle(pipeline) });
    const count = struct(4);
    this.#statistics.values.call(device, of, count, null);
    const values = struct(544 * word(count));
    for (let at = 0; at < values.length; at += 544) values.set(struct(4, { 0: 1000269004 }), at);
    this.#statistics.values.call(device, of, count, values);
    const found = new Map([["Subgroup size", word(properties, 532)]]);
    for (let at = 0; at < values.length; at += 544) {
      const view = new DataView(values.buffer, at);
      const isFloat = view.getUint32(528, true) === 3;
      found.set(textAt(values, at + 16), isFloat ? view.getFloat64(536, true) : Number(view.getBigUint64(536, true)));
    }
    return found;
  }
}

const COMPUTE = 0x20;

function version(major: number, minor: number): number {
  return (major << 22) | (minor << 12);
}

function must(what: string, result: number): void {
  if (result !== 0) throw new Error(`${what} ended with ${result}`);
}

/** A shader's entry point, and its bindings with the types of their descriptors. */
interface ShaderInterface {
  readonly entryPoint: string;
  readonly bindings: readonly { readonly binding: number; readonly type: number }[];
}

/** Descriptors by SPIR-V's storage class: texels' images, uniforms whose offset comes later, and storage buffers. */
const DESCRIPTORS: ReadonlyMap<number, number> = new Map([[0, 3], [2, 8], [12, 7]]);

/** Reads a SPIR-V module: five words of header, then instructions, whose first word has their length and their code. */
export function interfaceOf(spirv: Uint8Array<ArrayBuffer>): ShaderInterface {
  const words = new Uint32Array(spirv.buffer, spirv.byteOffset, spirv.length / 4);
  const bindingOf = new Map<number, number>();
  const classOf = new Map<number, number>();
  let entryPoint = "";
  for (let at = 5; at < words.length; at += words[at]! >>> 16) {
    const operand = (i: number) => words[at + i]!;
    switch (words[at]! & 0xffff) {
      // OpEntryPoint
      case 15:
        entryPoint = textAt(spirv.slice(4 * (at + 3)), 0);
        break;
      // OpVariable
      case 59:
        classOf.set(operand(2), operand(3));
        break;
      // OpDecorate with Binding
      case 71:
        if (operand(2) === 33) bindingOf.set(operand(1), operand(3));
    }
  }
  const bindings = [...bindingOf].map(([id, binding]) => ({ binding, type: DESCRIPTORS.get(classOf.get(id)!)! }));
  return { entryPoint, bindings };
}
