/** `io/file_kind.ts`: what files are, whatever they are called. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { formatCheckpoint } from "../../io/checkpoints/saev_writer.ts";
import { formatModel } from "../../io/checkpoints/write.ts";
import { writeNpy } from "../../io/npy.ts";
import { type FileKind, recognise } from "../../io/file_kind.ts";
import { formatSafetensors } from "../../io/safetensors.ts";
import { buffered, bytesSource, joinBytes } from "../../io/source.ts";
import { formatTorchFile } from "../../io/torch_file.ts";
import { countingSource } from "./counting_source.ts";
import { goldenCheckpoint, randomModel } from "./models.ts";
import { rawZip, utf8 } from "./raw_zip.ts";

const DATA = Float32Array.of(1, 2);
const TENSORS = [{ name: "x", shape: [2], data: DATA }];
const TORCH = joinBytes(formatTorchFile(TENSORS, [""]));
const LEGACY = Uint8Array.of(0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e);

function arrays(file: string): Uint8Array {
  return Deno.readFileSync(new URL(`../goldens/arrays/${file}`, import.meta.url));
}

function ours(): Uint8Array {
  const { cfg, parameters } = randomModel({ d_model: 2, d_sae: 3, activation: { key: "relu" } });
  return formatCheckpoint(cfg, parameters, { mean: null, scale: 2 }, { schema: "saev_nn" });
}

function onnx(): Uint8Array {
  const model = randomModel({ d_model: 2, d_sae: 3, activation: { key: "relu" } });
  return joinBytes(formatModel(model, { format: "onnx" }).files.get("")!);
}

/** A safetensors file whose header has a length that looks like text: 0x7b is `{`, 0x80 starts a pickle. */
function safetensors(length: number): Uint8Array {
  const header = '{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'.padEnd(length);
  return joinBytes([Uint8Array.of(length & 255, length >> 8, 0, 0, 0, 0, 0, 0), utf8(header)]);
}

const FILES: readonly [what: string, kind: FileKind, bytes: Uint8Array][] = [
  ["upstream's oldest", "saev", goldenCheckpoint("preschema_relu.pt").bytes],
  ["upstream's newest", "saev", goldenCheckpoint("schema5_batch_top_k.pt").bytes],
  ["ours", "saev", ours()],
  ["a header before a bare pickle", "saev", joinBytes([utf8("{}\n"), LEGACY])],
  ["a header of 100 KB", "saev", joinBytes([utf8(`{"a":"${"x".repeat(100_000)}"}\n`), TORCH])],
  ["PyTorch's", "torch", TORCH],
  ["PyTorch's, by another writer", "torch", rawZip([{ name: "m/data.pkl", bytes: utf8("x") }])],
  ["PyTorch's of before 1.6", "pickle", LEGACY],
  ["a pickle of protocol 4", "pickle", Uint8Array.of(0x80, 4, 0x4e, 0x2e)],
  ["safetensors", "safetensors", joinBytes(formatSafetensors(TENSORS))],
  ["empty safetensors", "safetensors", joinBytes(formatSafetensors([]))],
  ["safetensors that start with {", "safetensors", safetensors(0x7b)],
  ["safetensors that start as a pickle", "safetensors", safetensors(0x0280)],
  ["safetensors that are cut off", "safetensors", safetensors(0x7b).subarray(0, 9)],
  ["NumPy's archive", "npz", arrays("savez.npz")],
  ["NumPy's archive, compressed", "npz", arrays("savez_compressed.npz")],
  ["NumPy's array", "npy", writeNpy({ data: DATA, rows: 1, cols: 2 })],
  ["a configuration", "json", utf8('{\n  "d_in": 768\n}\n')],
  ["a configuration in one line", "json", utf8('{"d_in": 768}')],
  ["a configuration that starts with space", "json", utf8('\n\t {"d_in": 768}')],
  ["a configuration and a newline", "json", utf8('{"d_in": 768}\n')],
  ["a long configuration", "json", utf8(`{"a":"${"x".repeat(3_000_000)}"}`)],
  ["a list", "json", utf8("[1, 2]")],
];

for (const [what, kind, bytes] of FILES) {
  Deno.test(`a file is recognised: ${what}`, async () => {
    assertEquals(await recognise(bytesSource(bytes)), kind);
  });
}

Deno.test("little is read of a large file", async () => {
  const data = new Float32Array(1_000_000);
  const tensors = [{ name: "x", shape: [1000, 1000], data }];
  const files = [joinBytes(formatTorchFile(tensors, [""])), joinBytes(formatSafetensors(tensors))];
  for (const bytes of [...files, writeNpy({ data, rows: 1000, cols: 1000 })]) {
    const counter = countingSource(bytes);
    await recognise(buffered(counter));
    assert(counter.bytesRead < 140_000 && counter.reads <= 2, `${counter.bytesRead} bytes in ${counter.reads} reads`);
  }
});

Deno.test("anything else is refused, and the message says what it is", async () => {
  const refused: [bytes: Uint8Array, message: string][] = [
    [new Uint8Array(), "reading the bytes: found an empty file; expected a saev, PyTorch, safetensors"],
    [utf8("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "a Git LFS pointer instead of the file"],
    [utf8("<!DOCTYPE html><html>"), "a web page"],
    [utf8("\n<html lang=en>"), "a web page"],
    [Uint8Array.of(0x1f, 0x8b, 8, 0), "a gzip file"],
    [joinBytes([new Uint8Array(257), utf8("ustar\0")]), "a tar archive"],
    [joinBytes([Uint8Array.of(0x89), utf8("HDF\r\n\x1a\n")]), "an HDF5 file"],
    [utf8("GGUF\x03"), "a GGUF file"],
    [onnx(), "an ONNX model, which this library writes but does not read"],
    [rawZip([]), "a zip archive of nothing, which neither"],
    [rawZip([{ name: "x.txt", bytes: utf8("x") }]), `a zip archive of "x.txt", which neither`],
    [rawZip([{ name: "x.npy", bytes: utf8("x") }, { name: "y", bytes: utf8("y") }]), `of "x.npy", "y"`],
    [rawZip([{ name: "data.pkl", bytes: utf8("x") }]), `of "data.pkl"`],
    [utf8("PK\x03\x04 cut off"), "not a zip archive, or its end is missing"],
    [Uint8Array.of(1, 2, 3), "a file that starts with the bytes 01 02 03;"],
    [new Uint8Array(100), "starts with the bytes 00 00 00 00 00 00 00 00;"],
    [utf8("schema: 5\n"), "starts with the bytes 73 63 68"],
  ];
  for (const [bytes, message] of refused) {
    await assertRejects(() => recognise(bytesSource(bytes)), CheckpointError, message);
  }
});

Deno.test("every truncation is recognised or refused, and nothing else happens", async () => {
  for (const [, , bytes] of FILES.filter(([, , bytes]) => bytes.length < 5000)) {
    for (let length = 0; length < bytes.length; length++) {
      await recognise(bytesSource(bytes.subarray(0, length))).catch((error) => {
        assert(error instanceof CheckpointError, String(error));
      });
    }
  }
});
