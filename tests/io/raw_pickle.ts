/**
 * Assembles pickles opcode by opcode, malicious ones included. Shares nothing with the library's writer.
 *
 * @module
 */

import { joined, utf8 } from "./raw_zip.ts";

/** A piece of a pickle. */
export type Code = string | Uint8Array | readonly Code[];

/** Bytes of the codes: strings are opcodes and their text as they stand. */
export function assemble(...codes: Code[]): Uint8Array {
  return joined(codes.map((code) => {
    if (code instanceof Uint8Array) return code;
    return typeof code === "string" ? Uint8Array.from(code, (c) => c.charCodeAt(0)) : assemble(...code);
  }));
}

/** A whole pickle of protocol 2. */
export function pickle(...codes: Code[]): Uint8Array {
  return assemble("\x80\x02", ...codes, ".");
}

/** `module.name` */
export function global(module: string, name: string): Code {
  return `c${module}\n${name}\n`;
}

/** A string. */
export function unicode(text: string): Code {
  const bytes = utf8(text);
  return ["X", uint32(bytes.length), bytes];
}

/** A signed 32-bit integer. */
export function int(value: number): Code {
  return ["J", uint32(value)];
}

/** Little-endian. */
export function uint32(value: number): Uint8Array {
  return Uint8Array.of(value, value >> 8, value >> 16, value >> 24);
}

/** A tuple of integers. */
export function ints(values: readonly number[]): Code {
  return ["(", ...values.map(int), "t"];
}

/** How a tensor stands in a pickle; fields left out are those of a row-major float32 tensor. */
export interface RawTensor {
  storageClass?: string;
  key?: string;
  location?: string;
  length: number;
  offset?: number;
  shape: readonly number[];
  strides: readonly number[];
  hooks?: Code;
  grad?: Code;
  kind?: string;
  more?: Code;
}

/** A call of `_rebuild_tensor_v2`. */
export function tensor(raw: RawTensor): Code {
  return [
    global("torch._utils", "_rebuild_tensor_v2"),
    "(",
    [
      "(",
      unicode(raw.kind ?? "storage"),
      global("torch", raw.storageClass ?? "FloatStorage"),
      unicode(raw.key ?? "0"),
      unicode(raw.location ?? "cpu"),
      int(raw.length),
      "tQ",
    ],
    int(raw.offset ?? 0),
    ints(raw.shape),
    ints(raw.strides),
    raw.grad ?? "\x89",
    raw.hooks ?? "}",
    raw.more ?? "",
    "tR",
  ];
}

/** A plain dict of tensors. */
export function stateDict(tensors: Readonly<Record<string, RawTensor>>): Uint8Array {
  return pickle("}(", ...Object.entries(tensors).map(([name, raw]) => [unicode(name), tensor(raw)]), "u");
}
