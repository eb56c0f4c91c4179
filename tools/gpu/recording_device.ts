/**
 * A `GPUDevice` that does nothing and notes what it is asked for: on it the library goes through everything that it would
 * do on a GPU, in any form, and what it compiles and dispatches can be looked at. No adapter is needed.
 *
 * @module
 */

import { RandomStream, STREAMS } from "../../kernels/random.ts";

/** A shader with what it binds. */
export interface RecordedPipeline {
  /** The kernel's name. */
  readonly name: string;
  /** Its whole text. */
  readonly wgsl: string;
}

/** One dispatch. */
export interface RecordedDispatch {
  readonly pipeline: RecordedPipeline;
  /** Workgroups; `null` where the GPU would count them. */
  readonly groups: number | null;
  /** Bytes of what is bound. */
  readonly boundBytes: number;
}

/** What a device was asked for. */
export interface Recorded {
  /** To be handed to the library. */
  readonly device: GPUDevice;
  /** In order; may be emptied. */
  readonly dispatches: RecordedDispatch[];
  /** Submissions with commands in them. */
  submissions: number;
}

/** WebGPU's default limits, with room for everything. */
const LIMITS = {
  maxBindGroups: 4,
  maxBufferSize: 2 ** 40,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupStorageSize: 32768,
  maxComputeWorkgroupsPerDimension: 65535,
  maxStorageBufferBindingSize: 2 ** 40,
  maxStorageBuffersPerShaderStage: 10,
  maxStorageTexturesPerShaderStage: 4,
  maxUniformBufferBindingSize: 65536,
};

/**
 * A device. Whatever is read from it is 0, but for the answers that the library's self check wants of every device.
 *
 * @param features what it has, such as `subgroups`.
 */
export function recordingDevice(
  { features = [], limits = {} }: { readonly features?: readonly string[]; readonly limits?: Partial<typeof LIMITS> } =
    {},
): Recorded {
  const answers = selfCheckAnswers();
  const dispatches: RecordedDispatch[] = [];
  const recorded = { dispatches, submissions: 0 };
  const made = (kind: string) => (descriptor: { readonly label?: string } = {}) => ({
    kind,
    label: descriptor.label ?? "",
  });

  const createBuffer = ({ label = "", size, usage }: GPUBufferDescriptor) => {
    const buffer = {
      label,
      size,
      usage,
      /** The label of the last buffer that was copied here. */
      copyOf: "",
      mapAsync: () => Promise.resolve(),
      getMappedRange(offset = 0, length = size - offset) {
        const bytes = new Uint8Array(length);
        bytes.set((answers.get(buffer.copyOf) ?? bytes).subarray(offset, offset + length));
        return bytes.buffer;
      },
      unmap() {},
      destroy() {},
    };
    return buffer;
  };

  const beginComputePass = () => {
    let pipeline: RecordedPipeline;
    let boundBytes = 0;
    return {
      setPipeline: (given: RecordedPipeline) => pipeline = given,
      setBindGroup: (_index: number, group: { readonly bytes: number }) => boundBytes = group.bytes,
      dispatchWorkgroups: (x: number, y = 1, z = 1) => dispatches.push({ pipeline, groups: x * y * z, boundBytes }),
      dispatchWorkgroupsIndirect: () => dispatches.push({ pipeline, groups: null, boundBytes }),
      end() {},
    };
  };

  const device = {
    adapterInfo: { description: "a device that records" },
    features: new Set(features),
    limits: { ...LIMITS, ...limits },
    lost: new Promise(() => {}),
    addEventListener() {},
    pushErrorScope() {},
    popErrorScope: () => Promise.resolve(null),
    destroy() {},
    queue: {
      writeBuffer() {},
      submit: ([commands]: readonly unknown[]) => {
        if (commands) recorded.submissions++;
      },
      onSubmittedWorkDone: () => Promise.resolve(),
    },
    createBuffer,
    createTexture: () => ({ createView: made("view"), destroy() {} }),
    createQuerySet: made("query set"),
    createBindGroupLayout: made("bind group layout"),
    createPipelineLayout: made("pipeline layout"),
    createBindGroup: ({ entries }: GPUBindGroupDescriptor) => ({
      bytes: [...entries].map(({ resource }) => resource as Partial<GPUBufferBinding>)
        .reduce((sum, { size, buffer }) => sum + (size ?? buffer?.size ?? 0), 0),
    }),
    createShaderModule: ({ code }: GPUShaderModuleDescriptor) => ({
      code,
      getCompilationInfo: () => Promise.resolve({ messages: [] }),
    }),
    createComputePipeline({ label = "", compute: { module } }: GPUComputePipelineDescriptor): RecordedPipeline {
      return { name: label, wgsl: (module as unknown as { readonly code: string }).code };
    },
    createCommandEncoder: () => ({
      beginComputePass,
      copyBufferToBuffer(...given: readonly unknown[]) {
        const [from, to] = given.filter((value) => typeof value === "object") as [GPUBuffer, { copyOf: string }];
        to.copyOf = from.label;
      },
      copyBufferToTexture() {},
      clearBuffer() {},
      resolveQuerySet() {},
      finish: made("commands"),
    }),
  };
  return Object.assign(recorded, { device: device as unknown as GPUDevice });
}

/** What `kernels/engine/self_check.ts` expects in its buffers, by their labels. */
function selfCheckAnswers(): Map<string, Uint8Array> {
  const random = new RandomStream(0, STREAMS.selfCheck);
  const [rows, terms] = [10, 7];
  const bits = Uint32Array.from({ length: rows * terms }, () => random.bits());
  const factor = Array.from(bits, (word) => word % 17 - 8);
  const product = Float32Array.from({ length: rows * rows }, (_, index) => {
    const [row, column] = [Math.floor(index / rows), index % rows];
    return Array.from({ length: terms }, (_, k) => factor[row * terms + k]! * factor[column * terms + k]!)
      .reduce((sum, term) => sum + term);
  });
  return new Map([
    ["self check: bits", new Uint8Array(bits.buffer)],
    ["self check: product", new Uint8Array(product.buffer)],
  ]);
}
