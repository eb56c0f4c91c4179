/** `io/npz.ts` against archives that NumPy 2.4.6 wrote, and archives made to do harm. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { writeNpy } from "../../io/npy.ts";
import { openNpz } from "../../io/npz.ts";
import { buffered, bytesSource, type Source } from "../../io/source.ts";
import { countingSource } from "./counting_source.ts";
import { deflated, type RawRecord, rawZip, utf8 } from "./raw_zip.ts";

const ARRAYS = new URL("../goldens/arrays/", import.meta.url);

async function readAll(source: Source): Promise<Record<string, number[]>> {
  const npz = await openNpz(source);
  const arrays: Record<string, number[]> = {};
  for (const name of npz.names) {
    const array = await npz.open(name);
    arrays[name] = [...array.dtype.includes("float") ? await array.read() : await array.readIntegers()];
  }
  return arrays;
}

const MATRIX = Float32Array.of(1.5, -2, 3, 0.25, 5, 6);
const NPY = writeNpy({ data: MATRIX, rows: 2, cols: 3 });

for (const file of ["savez.npz", "savez_compressed.npz"]) {
  Deno.test(`NumPy's ${file} is read, array by array`, async () => {
    const npz = await openNpz(bytesSource(Deno.readFileSync(new URL(file, ARRAYS))));
    assertEquals(npz.names, ["W_enc", "W_dec", "threshold", "k", "mask", "name"]);
    const floats: [name: string, shape: number[], elements: number[]][] = [
      ["W_enc", [2, 3], [-1, -0.5, 0, 0.5, 1, 1.5]],
      ["W_dec", [3, 2], [-1, 0.5, -0.5, 1, 0, 1.5]],
      ["threshold", [3], [0.25, 0.5, 1]],
    ];
    for (const [name, shape, elements] of floats) {
      const array = await npz.open(name);
      assertEquals([array.shape, [...await array.read()]], [shape, elements]);
    }
    assertEquals([...await (await npz.open("k")).readIntegers()], [32]);
    assertEquals([...await (await npz.open("mask")).readIntegers()], [1, 0]);
    await assertRejects(
      () => npz.open("name"),
      CheckpointError,
      `reading array "name" of the bytes: found the type '<U1'`,
    );
    await assertRejects(
      () => npz.open("W"),
      CheckpointError,
      `found no array "W"; the file has "W_enc", "W_dec", "threshold", "k", "mask", "name"`,
    );
  });
}

Deno.test("an array is read when asked for, and no other", async () => {
  const large = writeNpy({
    data: Float32Array.from({ length: 300_000 }, (_, i) => Math.sin(i * i)),
    rows: 300,
    cols: 1000,
  });
  for (const isDeflated of [false, true]) {
    const record = (name: string, bytes: Uint8Array): RawRecord => isDeflated ? deflated(name, bytes) : { name, bytes };
    const noise = Uint8Array.from({ length: 400_000 }, (_, i) => (i * 2654435761) >>> 24);
    const counter = countingSource(rawZip([record("a.npy", NPY), record("b.npy", large), record("noise.npy", noise)]));
    const npz = await openNpz(buffered(counter));
    assertEquals(npz.names, ["a", "b", "noise"]);
    // The directory, and what stands before it.
    assert(counter.reads === 1 && counter.bytesRead < 70_000, `${counter.bytesRead} bytes in ${counter.reads} reads`);
    assertEquals(await (await npz.open("a")).read(), MATRIX);
    assert(counter.bytesRead < 210_000, `${counter.bytesRead}`);
  }
});

Deno.test("long deflated arrays are what they were before", async () => {
  const data = Float32Array.from({ length: 700_000 }, (_, i) => Math.sin(i * i));
  const archive = rawZip([deflated("x.npy", writeNpy({ data, rows: 700, cols: 1000 }))]);
  assertEquals(await (await (await openNpz(bytesSource(archive))).open("x")).read(), data);
});

Deno.test("archives of anything else than arrays are refused", async () => {
  const refused: [bytes: Uint8Array, message: string][] = [
    [rawZip([{ name: "x.txt", bytes: utf8("x") }]), `found the record "x.txt"; expected .npy files only`],
    [rawZip([{ name: "x.npy", bytes: utf8("x") }]), "the file of 1 bytes does not start like a .npy file"],
    [rawZip([{ name: "x.npy", bytes: new Uint8Array() }]), "the file of 0 bytes"],
    [rawZip([deflated("x.npy", utf8("x"))]), "the file of 1 bytes does not start"],
    [utf8("PK\x05\x06"), "not a zip archive"],
    [NPY, "not a zip archive"],
  ];
  for (const [bytes, message] of refused) {
    await assertRejects(() => readAll(bytesSource(bytes)), CheckpointError, message);
  }
  assertEquals(await readAll(bytesSource(rawZip([]))), {});
  await assertRejects(
    async () => (await openNpz(bytesSource(rawZip([])))).open("x"),
    CheckpointError,
    "the file has none",
  );
});

Deno.test("names are names, never places", async () => {
  const names = ["../../etc/passwd", "/etc/passwd", "C:\\x", "__proto__", "", "a/b"];
  const archive = rawZip(names.map((name) => ({ name: `${name}.npy`, bytes: NPY })));
  const npz = await openNpz(bytesSource(archive));
  assertEquals(npz.names, names);
  for (const name of names) assertEquals(await (await npz.open(name)).read(), MATRIX);
});

Deno.test("damaged and lying records are refused", async () => {
  const one = (change: Partial<RawRecord>): Uint8Array => rawZip([deflated("x.npy", NPY, change)]);
  const packed = deflated("x.npy", NPY).bytes;
  const refused: [bytes: Uint8Array, message: string][] = [
    [one({ crc: 1 }), `record "x.npy" is damaged: its CRC-32`],
    [rawZip([{ name: "x.npy", bytes: NPY, crc: 1 }]), `record "x.npy" is damaged`],
    [one({ size: NPY.length - 1 }), "decompresses to more than the 151 bytes that it claims"],
    [one({ size: NPY.length + 1 }), "decompresses to 152 bytes; it claims 153"],
    [one({ size: 2n ** 63n }), "beyond 2^53"],
    [one({ size: 2n ** 40n }), "is stored in"],
    [one({ size: packed.length * 1033 }), `record "x.npy" is stored in`],
    [one({ size: 0 }), "decompresses to more than the 0 bytes"],
    [one({ storedSize: packed.length + 1 }), "reaches past the end of the archive"],
    [one({ bytes: packed.slice(0, -4), storedSize: packed.length - 4 }), "decompress"],
    [one({ bytes: Uint8Array.of(0xff, ...packed) }), "does not decompress"],
    [one({ method: 12 }), "is compressed (method 12); expected stored or deflated records"],
    [one({ method: 0 }), `record "x.npy" is stored in`],
    [one({ flags: 0x0809, localFlags: 0x0809 }), "encrypted"],
    [rawZip([{ name: "x.npy", bytes: NPY, flags: 2 }]), "unknown flags"],
    [one({ localFlags: 0 }), "contradicts the directory"],
    [one({ localSize: 5 }), "contradicts the directory"],
  ];
  for (const [bytes, message] of refused) {
    await assertRejects(() => readAll(bytesSource(bytes)), CheckpointError, message);
  }
  await readAll(bytesSource(one({ flags: 0x080e })));
});

Deno.test("a zip bomb is stopped at what it claims", async () => {
  const zeros = new Uint8Array(2 ** 26);
  const bomb = deflated("x.npy", zeros);
  assert(bomb.bytes.length < 70_000);
  // It claims as much as a small array and never ends.
  const lying = { ...bomb, size: NPY.length };
  await assertRejects(() => readAll(bytesSource(rawZip([lying]))), CheckpointError, "more than the 152 bytes");
  // Its content is asked for, which is no array: the first bytes are enough to know.
  await assertRejects(() => readAll(bytesSource(rawZip([bomb]))), CheckpointError, "does not start like a .npy file");
  // What it claims is true, and more than a small file may take.
  const larger = rawZip([{ ...bomb, size: zeros.length + 1 }]);
  await assertRejects(() => readAll(bytesSource(larger)), CheckpointError, "bytes but claims 67108865");
  // Where all arrays are going to be in memory, so that many that are not large each fill it.
  const smaller = deflated("x.npy", zeros.subarray(0, 2 ** 16));
  const many = bytesSource(rawZip(Array.from({ length: 40 }, (_, i) => ({ ...smaller, name: `${i}.npy` }))));
  await openNpz(many);
  await assertRejects(() => openNpz(many, { mostDeflated: 16 }), CheckpointError, "more than 16 times the archive's");
});

Deno.test("every truncation is refused, and no damaged byte changes a number", async () => {
  for (const archive of [rawZip([{ name: "x.npy", bytes: NPY }]), rawZip([deflated("x.npy", NPY)])]) {
    for (let length = 0; length < archive.length; length++) {
      await assertRejects(() => readAll(bytesSource(archive.subarray(0, length))), CheckpointError);
    }
    let refused = 0;
    for (let at = 0; at < archive.length; at++) {
      for (const flip of [1, 2, 4, 8, 16, 32, 64, 128, 255]) {
        const bytes = archive.slice();
        bytes[at]! ^= flip;
        try {
          assertEquals(Object.values(await readAll(bytesSource(bytes))), [[...MATRIX]], `byte ${at}`);
        } catch (error) {
          if (!(error instanceof CheckpointError)) throw error;
          refused++;
        }
      }
    }
    assert(refused > 1000, `${refused} refused`);
  }
});
